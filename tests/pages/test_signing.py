"""Tests of two reviewers at the desk, each with a key in the browser; a phone verifies their signatures."""

import contextlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.conftest import keys  # noqa: F401 (fixture)
from end_to_end.kit.alerts import Json, ground, place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.proofs import AUDIENCE, Reviewer
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from pages.conftest import Shown
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from client_demo.python import Verifier

Show = Callable[..., Shown]
SIGNED = Subprotocol("geocast.v1.json.signed")
GLASS = Reviewer("night", "in-the-envelope")
POLICY = f"""
name = "signed"
audience = "{AUDIENCE}"

[categories]
fire_structure = {{ title = "Structure fire", approvals = 2, cancel_approvals = 1 }}
"""


class Place:
    """A node that requires two signatures, its desk with a fire, and the operator's file of reviewers."""

    def __init__(self, node: Node, desk: DeskProcess, spot: tuple[float, float]) -> None:
        self.node, self.desk, self.spot = node, desk, spot
        self.enrolled: list[Json] = [GLASS.public() | {"break_glass": True}]

    def enrol(self, *public: Json) -> None:
        """Add keys to the operator's file and make the node reload it."""
        self.enrolled += public
        (self.node.home / "reviewers.json").write_text(json.dumps({"keys": self.enrolled}))
        before = self._reloads()
        assert self.node.process
        self.node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._reloads() > before, "the node has read the file")

    def _reloads(self) -> float:
        found = re.search(
            r'^geocast_reloads_total\{result="ok"\} (\S+)$', self.node.api.get("/metrics").text, re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    @contextlib.contextmanager
    def phone(self) -> Iterator[ClientConnection]:
        """Yield a welcomed client on a signed stream at the place of the fire."""
        url = f"ws://127.0.0.1:{self.node.stream_port}/v1/stream"
        token = self.node.keys.token(sub="phone", scope=PHONE_SCOPE)
        with connect(url, subprotocols=[SIGNED], compression=None, proxy=None) as phone:
            phone.send(json.dumps({"type": "hello", "token": token, "places": [place(self.spot)]}))
            assert json.loads(phone.recv(PATIENCE))["type"] == "welcome"
            yield phone

    def heard(self, phone: ClientConnection, approvals: int) -> Any:
        """Return the next message, verified by the enrolled keys."""
        verifier = Verifier({"keys": self.enrolled}, AUDIENCE, approvals=approvals, cancel_approvals=approvals)
        return verifier.read(json.loads(phone.recv(PATIENCE)))


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:  # noqa: F811
    """Return a node that requires two signatures and knows one reviewer's key."""
    home = tmp_path_factory.mktemp("node")
    (home / "policy.toml").write_text(POLICY)
    (home / "reviewers.json").write_text(json.dumps({"keys": [GLASS.public() | {"break_glass": True}]}))
    with Node(home, keys, "--policy", "policy.toml", "--reviewers", "reviewers.json") as node:
        yield node


@pytest.fixture
def here(node: Node, tmp_path: Path) -> Iterator[Place]:
    """Return that node with a desk for this test."""
    spot = ground()
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with DeskProcess(tmp_path, node, feed, "--as-recorded") as desk:
        yield Place(node, desk, spot)


def at_the_desk(show: Show, here: Place, name: str) -> Shown:
    """Open the fire on the desk in a reviewer's own browser."""
    shown = show(here.desk.link(name))
    shown.page.locator(".item", has_text="Structure fire").first.click()
    shown.has("#title", "Structure fire")
    return shown


def make_key(shown: Shown) -> Json:
    """Make a key in the page and return its public half for the operator."""
    shown.page.click("#my-key")
    shown.page.click("#draw-key")
    shown.has("#key-note", "Its name is")
    public = json.loads(shown.page.input_value("#key-public"))
    shown.page.click("#key-panel form button")
    return public


def read_and_sign(shown: Shown, button: str) -> str:
    """Open the signing panel and return the text to be signed."""
    shown.until(
        f"!document.querySelector('{button}').disabled && !document.querySelector('{button}').hidden", "it can be read"
    )
    shown.page.click(button)
    shown.has("#signing-key", "With")
    return shown.text("#signed")


def test_two_reviewers_can_sign_with_keys_of_their_browsers(here: Place, show: Show) -> None:
    """The first sees that a signature is missing.

    The second signs the same text, and the alert is published (rules AP5, F9, C12).
    """
    ann, ben = at_the_desk(show, here, "ann"), at_the_desk(show, here, "ben")
    public = [make_key(ann), make_key(ben)]
    assert [(key["sub"], key["kty"], key["alg"], "d" in key) for key in public] == [
        ("ann", "OKP", "Ed25519", False),
        ("ben", "OKP", "Ed25519", False),
    ]
    here.enrol(*public)
    with here.phone() as phone:
        ann.page.fill("#headline", "A warehouse is on fire. Close your windows.")
        signed = read_and_sign(ann, "#approve")
        assert "A warehouse is on fire. Close your windows." in signed
        assert "a circle of" in signed
        ann.picture("desk-signing")
        assert ann.violations() == []
        form = ann.page.inner_text("#signed-text") or ann.page.text_content("#signed-text")
        assert ann.text("#sign") == "Sign"
        ann.page.click("#sign")
        ann.has("#when", "To sign")
        ann.has("#history", "Signed by ann")
        ben.has("#history", "Signed by ann")
        assert ben.page.locator("#headline").is_disabled()
        assert read_and_sign(ben, "#countersign") == signed
        ben.has("#signing-who", "Signed by ann")
        assert ben.page.text_content("#signed-text") == form
        assert ben.text("#sign") == "Sign and publish"
        ben.page.click("#sign")
        told = here.heard(phone, 2)["alert"]
        assert told["headline"] == "A warehouse is on fire. Close your windows."
        ann.has("#when", "Live")
        ann.page.click("#cancel")
        ann.page.fill("#reason", "Nothing burns any more")
        ann.page.click("#cancel-now")
        ann.has("#signed", "Nothing burns any more")
        ann.has("#sign", "Sign and cancel")
        ann.page.click("#sign")
        assert here.heard(phone, 1)["reason"] == "Nothing burns any more"
    ben.has("#when", "Cancelled")


def test_private_key_stays_in_its_browser(here: Place, show: Show) -> None:
    """The key survives a reload and cannot be exported by a script; another browser has no key."""
    ann = at_the_desk(show, here, "ann")
    public = make_key(ann)
    ann.page.reload()
    ann.has("#me", "ann")
    ann.page.click("#my-key")
    ann.has("#key-note", f"Its name is {public['kid']}.")
    assert ann.page.locator("#draw-key").is_hidden()
    assert ann.violations() == []
    leaked = ann.page.evaluate(
        """() => new Promise((tell) => {
             const opening = indexedDB.open("geocast-desk");
             opening.onsuccess = () => {
               const asked = opening.result.transaction("keys").objectStore("keys").get("ann");
               asked.onsuccess = async () => {
                 const { privateKey } = asked.result;
                 const tried = ["jwk", "pkcs8", "raw"].map((format) => crypto.subtle.exportKey(format, privateKey));
                 const ended = await Promise.allSettled(tried);
                 tell([privateKey.extractable, ...ended.map(({ status }) => status)]);
               };
             };
           })"""
    )
    assert leaked == [False, "rejected", "rejected", "rejected"]
    elsewhere = show(here.desk.link("ann"))
    elsewhere.page.click("#my-key")
    elsewhere.has("#key-note", "There is none in this browser yet.")


def test_single_reviewer_can_publish_with_the_emergency_key(here: Place, show: Show, tmp_path: Path) -> None:
    """The emergency key signs like any other, and its use is counted (rule AP5)."""
    envelope = tmp_path / "glass.jwk"
    private = GLASS.private()
    envelope.write_text(json.dumps(private))
    ann = at_the_desk(show, here, "ann")
    here.enrol(make_key(ann))
    with here.phone() as phone:
        read_and_sign(ann, "#approve")
        ann.page.click("#sign")
        ann.has("#history", "Signed by ann")
        ann.page.click("#countersign")
        ann.has("#signing-key", "You have signed.")
        assert ann.page.locator("#sign").is_disabled()
        ann.page.click("#signing summary >> nth=1")
        ann.page.set_input_files("#envelope", envelope)
        ann.has("#signing-key", "With the key in the envelope.")
        ann.page.click("#sign")
        assert here.heard(phone, 2)["alert"]["revision"] == 1
    assert "geocast_break_glass_total 1.0" in here.node.api.get("/metrics").text


def test_signature_of_an_unenrolled_key_is_refused(here: Place, show: Show) -> None:
    """The page shows the node's refusal, and the typed text stays (rule AP3)."""
    ann, ben = at_the_desk(show, here, "ann"), at_the_desk(show, here, "ben")
    here.enrol(make_key(ann))
    make_key(ben)
    ann.page.fill("#headline", "A warehouse is on fire.")
    read_and_sign(ann, "#approve")
    ann.page.click("#sign")
    read_and_sign(ben, "#countersign")
    ben.page.click("#sign")
    ready = "[...document.querySelectorAll('#approve, #look')].some((each) => !each.hidden && !each.disabled)"
    ben.until(ready, "the form has been previewed again")
    ben.has("#whole-trouble", "A signature is not valid: its key is not enrolled with the node yet")
    assert ben.page.input_value("#headline") == "A warehouse is on fire."
    ben.troubles[:] = [each for each in ben.troubles if "422" not in each]


def test_request_that_is_signed_by_one_reviewer_can_be_withdrawn(here: Place, show: Show) -> None:
    """The form can be edited again."""
    ann, ben = at_the_desk(show, here, "ann"), at_the_desk(show, here, "ben")
    here.enrol(make_key(ann))
    make_key(ben)
    read_and_sign(ann, "#approve")
    ann.page.click("#not-now")
    assert ann.page.locator("#countersign").is_hidden()
    read_and_sign(ann, "#approve")
    ann.page.click("#sign")
    read_and_sign(ben, "#countersign")
    ben.page.click("#withdraw")
    ben.has("#history", "Taken back by ben")
    ann.has("#history", "Taken back by ben")
    assert ann.page.locator("#headline").is_enabled()
