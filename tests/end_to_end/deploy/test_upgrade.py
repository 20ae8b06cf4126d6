"""Upgrades from earlier releases to this one and back, on one log (docs/operations/upgrades.md).

The earlier servers run from git history, with the packages of this environment. Without the history, as in a source
package or a shallow clone, the tests are skipped.
"""

import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json, alert, ground, new_id, place, revision_of
from end_to_end.kit.dispatcher import Dispatcher, call_at, make_call_key
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.responder import Responder, here
from end_to_end.kit.subscriber import told
from end_to_end.kit.tls import Certificate
from end_to_end.publishing.test_ledger import Writer
from support.push_service import PushPhone, PushService
from support.redis_server import RedisServer, needs_redis

ROOT = Path(__file__).resolve().parents[3]
FIRST = "94e9b5c08971200022f8f1f78cf707d250ebdefe"  # release 0.1.0
LATER = "bcda0ca51e69e3a13fd47666256c6b5fdba1d112"  # calls itself 0.1.0 too, but has Redis, calls, push and the ledger
POLICY = """
name = "town"
[categories]
burglary = { title = "Burglary", polygons = true }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr"]
rings_m = [2000]
rest_s = 0
"""

Event = tuple[str, int | str]  # the id of an alert, and a revision or "cancel"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Return a function that unpacks the server of a commit, and returns the environment to run it in."""

    def unpack(commit: str) -> dict[str, str]:
        known = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
        if subprocess.run(known, cwd=ROOT, capture_output=True, check=False).returncode:
            pytest.skip(f"commit {commit[:7]} of an earlier release is not in the history of git here")
        home = tmp_path_factory.mktemp(commit[:7])
        packed = subprocess.run(["git", "archive", commit, "server"], cwd=ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(home, filter="data")
        return {"PYTHONPATH": str(home / "server")}

    return unpack


@pytest.fixture(autouse=True)
def any_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not compare the messages of servers with docs/asyncapi.json, which describes only this release."""
    monkeypatch.setattr("end_to_end.kit.wire.check_server_message", lambda message: None)


@dataclass
class Servers:
    """The processes of one release."""

    node: Node
    push: Push | None = None
    ledger: Writer | None = None

    def stop(self) -> None:
        """Stop all processes that still run in an orderly way; require that none logged an unexpected error."""
        for process in filter(None, (self.node, self.push)):
            process.assert_no_surprise()
            assert process.process is None or process.process.poll() is not None or process.terminate() == 0
        if self.ledger:
            self.ledger.end()


class Town:
    """A log that servers of two releases use in turn, and everything that is live in it.

    A subscriber stays in the town, and so do phones, one of which registers with each server. `live` has the last body
    of each live alert, `held` the revisions that the subscriber was sent, and `phones` all that each phone must get.
    """

    def __init__(self, service: PushService) -> None:
        self.service = service
        self.keys = Keys(quals=["cpr"])
        self.spot, self.side, self.scene = ground(), ground(), ground()
        self.live: dict[str, Json] = {}
        self.held: dict[str, int] = {}
        self.ended: list[str] = []
        self.phones: dict[PushPhone, list[Event]] = {}
        self.task: Json | None = None

    # -- alerts

    def work(self, node: Node, *, knows_all: bool) -> None:
        """Publish, revise, cancel and end alerts at a node that has just begun.

        Require that a new subscriber is sent exactly the live alerts, that the town's subscriber is sent exactly the
        changes since the last node, and both of them and the phones exactly all that follows. If the node does not know
        all shapes, it skips the alerts with polygons.
        """
        known = [id_ for id_, body in self.live.items() if knows_all or body["area"]["type"] == "circle"]
        with node.join(place(self.spot), place(self.side)) as session:
            assert sorted(session.everything()) == sorted((id_, self.revisions()[id_]) for id_ in known)
        assert {id_ for id_ in node.live() if not id_.startswith("beacon")} == set(known)
        assert all(node.state(id_)["delivery"]["sent"] >= 1 for id_ in known), "the last node has stored its counts"
        with node.join(place(self.spot), holding=self.held) as session:
            changed = {(id_, self.revisions()[id_]) for id_ in known} - self.held.items()
            assert set(session.everything()) == changed | {(id_, "cancel") for id_ in self.held if id_ not in self.live}
            session.received.clear()
            expected = []
            for event in self.changes(node, known):
                session.listen(*event)
                expected.append(event)
            session.catch_up()
            assert session.everything() == expected
        self.held = self.revisions()
        brief, _ = node.publish_brief(alert(self.side))
        node.wait_for_end(brief["id"])
        self.ended.append(brief["id"])
        for alert_id in [*known, *list(self.live)[-4:]]:
            if body := self.live.get(alert_id):
                path = "/v1/alerts" if "revision" not in body else f"/v1/alerts/{alert_id}/revisions"
                assert node.post(path, body).status_code == 200, "a repeated request changes nothing"
        for alert_id in self.ended:
            assert node.post("/v1/alerts", alert(self.spot, id=alert_id)).status_code == 409, "an id is used once"

    def revisions(self) -> dict[str, int]:
        """Return the current revision of each live alert."""
        return {alert_id: body.get("revision", 1) for alert_id, body in self.live.items()}

    def changes(self, node: Node, known: list[str]) -> Iterator[Event]:
        """Revise and cancel alerts of the last node, and publish new ones; wait until the phones have each change."""
        for alert_id in known[:2]:
            body = revision_of(self.live[alert_id], self.revisions()[alert_id] + 1)
            node.revise(body)
            yield self.changed(body["revision"], body)
        for alert_id in known[1:3]:
            node.cancel(alert_id, self.revisions()[alert_id] + 1)
            yield self.changed("cancel", self.live[alert_id])
        for body in [alert(self.spot) for _ in range(4)]:
            node.publish(body)
            yield self.changed(1, body)

    def publish_a_polygon(self, node: Node) -> None:
        """Publish an alert with a polygon, which release 0.1.0 does not know, and read it as the subscriber."""
        lat, lng = self.spot
        ring = [[lng - 0.01, lat - 0.01], [lng + 0.01, lat - 0.01], [lng, lat + 0.01], [lng - 0.01, lat - 0.01]]
        body = alert(self.spot, area={"type": "Polygon", "coordinates": [ring]})
        with node.join(place(self.spot), holding=self.held) as session:
            node.publish(body)
            session.listen(body["id"], 1)
        self.changed(1, body)
        self.held[body["id"]] = 1

    def changed(self, what: int | str, body: Json) -> Event:
        """Note a change, wait until all phones have it, and return it."""
        if what == "cancel":
            del self.live[body["id"]]
            self.ended.append(body["id"])
        else:
            self.live[body["id"]] = body
        for phone, due in self.phones.items():
            due.append((body["id"], what))
            self.service.until(lambda phone=phone, due=due: len(phone.told) >= len(due))  # type: ignore[misc]
            assert [told(message) for message in phone.told] == due
        return body["id"], what

    def register(self, push: Push) -> None:
        """Register a phone, which gets all live alerts."""
        phone = self.service.phone()
        push.register(phone, cell(self.spot))
        self.service.until(lambda: len(phone.told) >= len(self.live))
        assert sorted(phone.alerts()) == sorted(self.revisions().items())
        self.phones[phone] = [told(message) for message in phone.told]

    # -- calls

    def answer(self, node: Node) -> None:
        """Continue and end the call of the last node, then open the next, in which one of two seats is taken."""
        with Dispatcher(node) as dispatcher, ExitStack() as stack:

            def join(sub: str, **hello: object) -> Responder:
                return stack.enter_context(Responder(node, sub, here(self.scene), **hello))

            if self.task:
                call_id = self.task["id"]
                assert join("r-1", holding={call_id: self.task["revision"]}).take("task") == self.task
                other = join("r-2")
                other.take("call")
                other.say("accept", id=call_id, eta_s=60)
                assert other.take("task", id=call_id)["place"] == self.task["place"]
                assert [seat["responder"] for seat in dispatcher.state(call_id)["seats"]] == ["r-1", "r-2"]
                dispatcher.post(f"/{call_id}/end", {"reason": "The crew is there."})
                other.take("standdown", id=call_id, reason="over")
                dispatcher.post("", call_at(self.scene, call_id), status=409)
            with Responder(node, "r-1", here(self.scene)) as first:
                dispatcher.post("", call_at(self.scene, new_id("call")))
                call_id = first.take("call")["call"]["id"]
                first.say("accept", id=call_id, eta_s=60)
                self.task = first.take("task", id=call_id)

    def meet(self, one: Node, other: Node) -> None:
        """Let two nodes that run at once send each other's alerts."""
        with (
            one.join(place(self.spot), holding=self.held) as first,
            other.join(place(self.spot), holding=self.held) as second,
        ):
            events = []
            for event in self.exchange(one, other):
                events.append(event)
                for session in (first, second):
                    session.listen(*event)
            for session in (first, second):
                session.catch_up()
                assert session.everything() == events

    def exchange(self, one: Node, other: Node) -> Iterator[Event]:
        """Publish an alert at each node, revise it at the other, and cancel it at the first."""
        for begins, continues in ((one, other), (other, one)):
            body = alert(self.spot)
            begins.publish(body)
            yield self.changed(1, body)
            continues.revise(revision_of(body, 2))
            yield self.changed(2, revision_of(body, 2))
            begins.cancel(body["id"], 3)
            yield self.changed("cancel", body)

    def help_each_other(self, one: Node, other: Node) -> None:
        """Let two nodes that run at once give a seat in a call of the other, and end it."""
        for opens, gives in ((one, other), (other, one)):
            with (
                Dispatcher(opens) as opener,
                Dispatcher(gives) as ender,
                Responder(gives, "r-3", here(self.side)) as responder,
            ):
                call_id = new_id("call")
                opener.post("", call_at(self.side, call_id))
                responder.take("call")
                responder.say("accept", id=call_id, eta_s=60)
                responder.take("task", id=call_id, seat=1)
                assert [seat["responder"] for seat in opener.state(call_id)["seats"]] == ["r-3"]
                ender.post(f"/{call_id}/end", {"reason": "The crew is there."})
                responder.take("standdown", id=call_id, reason="over")


@pytest.mark.parametrize(
    ("commit", "kind"),
    [
        pytest.param(FIRST, "sqlite", id="0.1.0 on SQLite"),
        pytest.param(LATER, "sqlite", id="later commit on SQLite"),
        pytest.param(LATER, "redis", id="later commit on Redis", marks=needs_redis),
    ],
)
def test_earlier_release_and_this_one_serve_one_log_at_once_and_in_turn(
    earlier: Callable[[str], dict[str, str]], tmp_path: Path, certificate: Certificate, commit: str, kind: str
) -> None:
    """The node is upgraded, taken back and upgraded again. Alerts, calls, devices and the ledger continue.

    The old node runs until the new one is ready. 0.1.0 has neither calls nor push nor the ledger.
    """
    old, is_later = earlier(commit), commit == LATER
    (tmp_path / "policy.toml").write_text(POLICY)
    make_call_key(tmp_path)
    calls = ("--policy", "policy.toml", "--call-keys", "call-keys.jwks")
    with ExitStack() as stack:
        log, devices = f"sqlite:{tmp_path}/geocast.db", f"sqlite:{tmp_path}/devices.db"
        if kind == "redis":
            log = devices = stack.enter_context(RedisServer(tmp_path / "redis")).url
        service = stack.enter_context(PushService(certificate))
        town, before = Town(service), None
        for release in (old, {}, old, {}):
            knows_all = is_later or not release
            options = calls if knows_all else ()
            now = Servers(stack.enter_context(Node(tmp_path, town.keys, *options, log=log, **release)))
            if is_later:
                if before and kind == "sqlite":
                    before.push.terminate()
                push = Push(now.node, service, options=("--devices", devices), log=log, **release)
                now.push = stack.enter_context(push)
                now.ledger = Writer(tmp_path / "ledger", log, **release)
                stack.callback(now.ledger.kill)
            if before:
                town.meet(before.node, now.node)
                if is_later:
                    town.help_each_other(before.node, now.node)
                before.stop()
            if is_later:
                now.ledger.run()
                town.register(now.push)
            town.work(now.node, knows_all=knows_all)
            if knows_all:
                town.answer(now.node)
                town.publish_a_polygon(now.node)
            before = now
        now.stop()
        assert service.wrong == []
        assert not is_later or now.ledger.ask("verify")[0] == 0
