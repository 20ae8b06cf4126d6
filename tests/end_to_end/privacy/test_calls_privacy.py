"""Where the data of calls may be, and where not, as privacy.md and threats.md say.

Two responders, a dispatcher and a subscriber without qualification take part in a call, on a node that logs all it can.
Then everything that the node wrote, stored, sent and answered is searched. Data that is allowed in a place must be
found there, which proves that the search works.
"""

import asyncio
import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place
from end_to_end.kit.dispatcher import Dispatcher, call_at, calling_node
from end_to_end.kit.keys import EVERY_SCOPE, Keys
from end_to_end.kit.node import Node, free_ports
from end_to_end.kit.responder import Responder, here, north_of, qualified
from end_to_end.kit.times import wait_until
from end_to_end.kit.traces import assert_found_nowhere, spellings
from end_to_end.kit.wire import PATIENCE
from end_to_end.privacy.test_privacy import everything_in, on
from support.redis_server import RedisServer, needs_redis
from support.wall_clock import needs_wall_clock

from geocast.alertlog.sqlite.log import SqliteLog
from geocast.calls.encryption import NO_CALL_KEYS, CantOpen, load_call_keys
from geocast.model.alert import Entry
from geocast.model.call import CallEntry

SPOT = (41.8739154237, -87.6391748261)
CORRECTED = (41.8739954731, -87.6391648377)
GOER = (41.8745539917, -87.6392218843)  # 71 m from the call
DECLINER = (41.8731138465, -87.6385528197)  # 103 m from the call
ADDRESS = "Canary lane 4471"
ACCESS = "Canary door code 8830, third floor"
HEADLINE = "Canary, not breathing."
REASON = "Canary reason, the crew is there."
WENT = "responder-canary-5521"
STAYED = "responder-canary-7734"
DESK = "dispatch-canary-8837"
REFUSED = "Canary of what was refused"
AEDS = {
    "elements": [
        {
            "type": "node",
            "id": 4711,
            "lat": 41.874315,
            "lon": -87.639215,
            "tags": {
                "emergency": "defibrillator",
                "opening_hours": "24/7",
                "defibrillator:location": "Canary foyer",
                "defibrillator:code": "canary-box-2580",
                "operator": "Canary operator",
                "phone": "+1 312 555 0177",
            },
        }
    ]
}


@dataclass
class Scene:
    """A node at work, and the bytes that the test saw, by the place where it saw them."""

    node: Node
    seen: dict[str, bytes] = field(default_factory=dict)

    def note(self, where: str, *data: bytes) -> None:
        """Record bytes that were seen at `where`."""
        self.seen[where] = b"\n".join([self.seen.get(where, b""), *data])


@pytest.fixture(scope="module")
def medics() -> Keys:
    """Return keys of which one, "ed", may grant qualifications."""
    return Keys(quals=["cpr", "medic"])


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def scene(request: pytest.FixtureRequest, medics: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run the life of a call, with good and bad requests, on each kind of log.

    The node has ended when the scene is yielded.
    """
    home = tmp_path_factory.mktemp(f"calls-{request.param}")
    (home / "aeds.json").write_text(json.dumps(AEDS))
    [metrics] = free_ports(1)
    options = ["--aeds", "aeds.json", "--metrics", f"127.0.0.1:{metrics}", "--log-level", "debug"]
    with on(request.param, home) as (url, redis), calling_node(home, medics, *options, log=url) as node:
        scene = Scene(node)
        live_through(scene, redis)
        scene.note(
            "metrics", httpx.get(f"http://127.0.0.1:{metrics}/metrics", trust_env=False, timeout=PATIENCE).content
        )
        scene.note("log", everything_in(redis, home / "redis") if redis else log_files(node))
        assert node.terminate() == 0
        scene.note("log", everything_in(redis, home / "redis") if redis else log_files(node))
        scene.note("output", node.output().encode())
        yield scene


def log_files(node: Node) -> bytes:
    """Return the bytes of all files of the log."""
    return b"".join(path.read_bytes() for path in sorted(node.home.glob(f"{node.log_file.name}*")))


def live_through(scene: Scene, redis: RedisServer | None) -> None:
    """Open and correct a call, let a responder take a seat, give it up and take it again, and end the call."""
    node = scene.node
    where = {"kind": "residence", "address": ADDRESS, "access": ACCESS}
    body = call_at(SPOT, "canary-call", headline=HEADLINE, where=where)

    def keep(response: httpx.Response) -> None:
        where = "state" if response.request.method == "GET" else "answers"
        scene.note(where, response.read())

    with (
        Dispatcher(node, DESK, event_hooks={"response": [keep]}) as desk,
        Responder(node, WENT, here(GOER, accuracy_m=7), quals=("medic",)) as goer,
        Responder(node, STAYED, here(DECLINER), quals=("medic",), fmt="msgpack") as decliner,
        node.join(place(SPOT)) as bystander,
    ):
        desk.post("", body)
        for responder in (goer, decliner):
            responder.take("call")
        decliner.say("decline", id=body["id"])
        goer.say("accept", id=body["id"], eta_s=90)
        assert goer.take("task")["place"]["address"] == ADDRESS
        goer.say("report", id=body["id"], state="arrived")
        wait_until(
            lambda: [seat["state"] for seat in desk.state(body["id"])["seats"]] == ["arrived"],
            "the report is in the log",
        )
        go_wrong(desk, body)
        moved = {**body["place"], "lat": CORRECTED[0], "lng": CORRECTED[1]}
        desk.post("/canary-call/revisions", body | {"place": moved, "replaces": 1})
        assert goer.take("task")["place"]["lat"] == CORRECTED[0]
        goer.say("decline", id=body["id"])
        goer.take("standdown", reason="left")
        goer.say("accept", id=body["id"])
        wait_until(lambda: goer.any()["type"] == "task", "a seat is taken again")
        desk.post("/canary-call/end", {"reason": REASON})
        goer.take("standdown", reason="over")
        desk.state(body["id"])
        bystander.move(place(SPOT))
        assert bystander.batch == []
        tasks = [frame for frame in goer.frames if b'"task"' in frame]
        scene.note("tasks", *tasks)
        scene.note("rings", *(frame for frame in [*goer.frames, *decliner.frames] if frame not in tasks))


def go_wrong(desk: Dispatcher, body: Json) -> None:
    """Send requests with places and names that are refused."""
    bad = body | {"id": "canary-refused", "headline": REFUSED}
    for wrong in (
        {"category": "canary_no_such"},
        {"place": {**body["place"], "lat": 1000 + SPOT[0]}},
        {"place": {**body["place"], "patient": REFUSED}},
        {"place": {**body["place"], "access": REFUSED * 50}},
        {"caller": REFUSED},
    ):
        desk.post("", bad | wrong, 422)
    desk.post("", body | {"headline": REFUSED}, 409)
    desk.post("/canary-unknown/revisions", body | {"id": "canary-unknown", "replaces": 1}, 404)


# kind of data -> its text, and the outputs (of WHERE) that may contain the text
WHERE = ("log", "tasks", "rings", "answers", "state", "metrics", "output")
WHAT = {
    "the address of a call": (ADDRESS, "tasks"),
    "the access to a call's place": (ACCESS, "tasks"),
    "the sub of the responder with a seat": (WENT, "state"),
    "the sub of the responder who declined": (STAYED, ""),
    "the reason of the end": (REASON, ""),
    "the text of refused requests": (REFUSED, ""),
    "the headline": (HEADLINE, "log rings answers state"),
    "the sub of the dispatcher": (DESK, "log rings answers state"),
    "the location of a defibrillator": ("Canary foyer", "tasks"),
    # Both taken seats are for CPR, so nobody fetches a defibrillator, and its code is not sent.
    "the code of a defibrillator's box": ("canary-box-2580", ""),
    "the operator of a defibrillator": ("Canary operator", ""),
    "the telephone of a defibrillator's operator": ("312 555 0177", ""),
}


@pytest.mark.parametrize("what", WHAT)
def test_each_kind_of_data_of_a_call_is_found_only_where_the_privacy_page_allows_it(scene: Scene, what: str) -> None:
    """Each text is found in all places that the page allows.

    It is found in no other place (rules DP18, DP19, DP20, DP22, RZ2, RZ3, RI3, TH11).
    """
    text, allowed = WHAT[what]
    found = {where for where in WHERE if text.encode() in scene.seen[where]}
    expected = set(allowed.split())
    assert found - {"answers"} == expected - {"answers"}
    assert found <= expected


def test_exact_place_of_a_call_is_found_only_in_tasks_of_responders(scene: Scene) -> None:
    """The search knows many spellings of the first place and of the corrected one (rules DP18, RZ1, RZ2)."""
    assert repr(SPOT[0]).encode() in scene.seen["tasks"]
    assert repr(CORRECTED[1]).encode() in scene.seen["tasks"]
    elsewhere = {where: data for where, data in scene.seen.items() if where != "tasks"}
    assert_found_nowhere(needles(opened=SPOT, corrected=CORRECTED), elsewhere)


def test_exact_places_of_responders_are_found_nowhere(scene: Scene) -> None:
    """The search includes tasks and the dispatcher's answers, for both responders (rules DP21, RZ7)."""
    assert_found_nowhere(needles(goer=GOER, decliner=DECLINER), scene.seen)


def needles(**points: tuple[float, float]) -> dict[bytes, str]:
    """Return all spellings of these points, each with what it would reveal."""
    return {
        spelling: f"{name} {axis}"
        for name, point in points.items()
        for axis, number in zip(("lat", "lng"), point, strict=True)
        for spelling in spellings(number)
    }


@needs_wall_clock
def test_place_is_deleted_from_the_log_ten_minutes_after_the_end_of_the_call(medics: Keys, tmp_path: Path) -> None:
    """After that, even the key does not reveal the place. The same request gets `call-ended` (rules DP18, RZ4, RY1)."""
    node = calling_node(tmp_path, medics)
    clock = node.own_clock()
    spot = ground()
    body = call_at(spot, "town-place", where={"address": ADDRESS})
    with node, Dispatcher(node) as desk:
        desk.post("", body)
        desk.post("/town-place/end", {"reason": REASON})
        desk.post("", body, 200)
        assert ADDRESS in "".join(opened(node, "town-place"))
        node.kill()
        clock.set(11 * 60)
        node.start()
        wait_until(lambda: desk.api.post("/v1/calls", json=body).status_code == 410, "the place is deleted")
        assert REASON in "".join(opened(node, "town-place"))
        assert ADDRESS not in "".join(opened(node, "town-place"))
        assert desk.state("town-place")["state"] == "ended"


# ---- what each token, key and file gives access to ------------------------------------------------------------


@pytest.fixture
def town(medics: Keys, tmp_path: Path) -> Iterator[Node]:
    """Start a node that accepts calls."""
    with calling_node(tmp_path, medics) as node:
        yield node


def chain(node: Node, call_id: str) -> list[CallEntry]:
    """Return the entries of a call, as anybody who has the log can read them."""

    async def read() -> list[Entry]:
        log = SqliteLog(node.log_file)
        await log.start()
        try:
            return [*await log.history(call_id)]
        finally:
            await log.stop()

    found = asyncio.run(read())
    assert all(isinstance(entry, CallEntry) for entry in found)
    return [entry for entry in found if isinstance(entry, CallEntry)]


def append_entry(node: Node, entry: CallEntry) -> None:
    """Append an entry to the log as an attacker would, past all checks of the API."""

    async def write() -> None:
        log = SqliteLog(node.log_file)
        await log.start()
        try:
            for _ in range(20):  # the node may append entries meanwhile, when it widens the radius
                last = [0, *(each.revision for each in await log.history(entry.id))][-1]
                if await log.append(dataclasses.replace(entry, revision=last + 1)):
                    return
        finally:
            await log.stop()
        raise AssertionError("the log did not take it")

    asyncio.run(write())


def opened(node: Node, call_id: str) -> list[str]:
    """Return the decrypted secrets of a call, as anybody who has the log and the key can read them."""
    keys = load_call_keys(node.home / "call-keys.jwks")
    return [keys.open(entry).decode(errors="replace") for entry in chain(node, call_id)]


def unsealed_failed(node: Node) -> float:
    """Return how many entries could not be decrypted."""
    lines = node.api.get("/metrics").text.splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("geocast_call_unsealed_failed_total ")]
    return float(count)


def test_responder_with_false_location_learns_cells_of_calls_but_no_address_without_a_seat(town: Node) -> None:
    """A call shows the circle of a cell.

    The address needs a seat, and a responder has one seat at a time (rules TH9, RZ8, RV1, RV3).
    """
    spot, other = ground(), ground()
    with Dispatcher(town) as desk, Responder(town, "liar") as liar:
        for number, where in enumerate((spot, other)):
            desk.post("", call_at(where, f"town-{number}", where={"address": ADDRESS}))
        for where in (spot, other):
            liar.barrier(here(where))
            near = liar.take("call")["call"]["near"]
            assert near["radius_m"] > 150
            assert (near["lat"], near["lng"]) != where
        assert ADDRESS.encode() not in b"".join(liar.frames)
        liar.say("accept", id="town-1")
        assert liar.take("task")["place"]["address"] == ADDRESS
        liar.barrier(here(spot))
        liar.say("accept", id="town-0")
        liar.take("standdown", id="town-0", reason="held-off")
        assert [seat["responder"] for seat in desk.state("town-1")["seats"]] == ["liar"]


def test_dispatchers_token_can_open_calls_but_not_touch_other_calls_or_alerts(town: Node) -> None:
    """The token can open false calls under its own name.

    It gives no access to alerts, to calls of other dispatchers, or to anybody's place (rule TH10).
    """
    spot = ground()
    with Dispatcher(town) as desk, Dispatcher(town, "cad-9") as other, Responder(town, "r-1", here(spot)) as responder:
        body = call_at(spot, "town-mine")
        desk.post("", body)
        assert responder.take("call")["call"]["source"] == "cad-3"
        other.post("/town-mine/end", {"reason": "It is not mine."}, 403)
        other.post("/town-mine/revisions", body | {"replaces": 1}, 403)
        assert other.api.get("/v1/calls/town-mine").status_code == 403
        assert other.api.get("/v1/calls").json() == {"calls": []}
        assert other.api.post("/v1/alerts", json=alert(spot)).status_code == 403
        assert other.api.get("/v1/alerts").status_code == 403


def test_qualifications_in_a_token_are_ignored_if_its_key_may_not_grant_them(town: Node) -> None:
    """The claim `quals` of such a token is ignored (rules TH6, RQ3)."""
    spot = ground()
    claims = town.keys.claims(sub="r-1", quals=["cpr"], scope=EVERY_SCOPE, iat=int(time.time()))
    token = town.keys.signed(claims, key=town.keys.secret, alg="HS256", kid="hs")
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot), token=token) as responder:
        assert "quals" not in responder.welcome
        desk.post("", call_at(spot, "town-any"))
        responder.barrier(here(spot))
        responder.say("accept", id="town-any")
        responder.take("standdown", reason="over")


def test_attacker_with_the_log_but_no_key_cannot_forge_calls_or_headlines(town: Node) -> None:
    """The forged entries are counted and sent to nobody (rules TH11, RZ3)."""
    spot = ground()
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot)) as responder:
        desk.post("", call_at(spot, "town-real", headline="Real"))
        responder.take("call")
        [real, *_] = chain(town, "town-real")
        with pytest.raises(CantOpen):
            NO_CALL_KEYS.open(real)
        append_entry(town, dataclasses.replace(real, id="town-forged"))
        append_entry(
            town, dataclasses.replace(real, plain=real.plain.replace(b"Real", b"Fake"), sealed=real.sealed[::-1])
        )
        wait_until(lambda: unsealed_failed(town) >= 2, "both are counted")
        assert town.api_status() == 200
        with Responder(town, "r-2", here(spot)) as late:
            assert late.take("call")["call"]["headline"] == "Real"
            assert late.barrier(here(spot))["live"] == 0
        assert responder.barrier(here(spot))["live"] == 0
        assert desk.api.get("/v1/calls/town-forged").status_code != 200


def test_attacker_with_the_log_can_delete_a_call(town: Node) -> None:
    """After the next start, the node no longer has a call that was deleted from the file (rule TH11)."""
    spot = ground()
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot)) as responder:
        desk.post("", call_at(spot, "town-gone"))
        responder.take("call")
        town.kill()
        with contextlib.closing(sqlite3.connect(town.log_file)) as db, db:
            db.execute("DELETE FROM entry")
        town.start()
        with Responder(town, "r-1", here(spot)) as late:
            assert late.welcome["live"] == 0


def test_attacker_with_the_log_and_the_key_can_read_place_and_responders(town: Node) -> None:
    """The attacker can read them until they are deleted (rule TH12)."""
    spot = ground()
    with Dispatcher(town) as desk, Responder(town, "r-51c0", here(spot)) as responder:
        desk.post("", call_at(spot, "town-read", where={"address": ADDRESS}))
        responder.take("call")
        responder.say("accept", id="town-read")
        responder.take("task")
        secrets = "".join(opened(town, "town-read"))
    assert ADDRESS in secrets
    assert "r-51c0" in secrets


def test_responder_is_sent_calls_whatever_its_alert_filter(town: Node) -> None:
    """The responder filters out all categories and all severities except `extreme` (rule RQ6)."""
    spot = ground()
    nothing = {"categories": [], "min_severity": "extreme"}
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot), **nothing) as responder:
        desk.post("", call_at(spot, "town-filter"))
        responder.take("call")


def test_backend_can_keep_the_session_of_a_sleeping_phone(town: Node) -> None:
    """With the phone's token and last place, the backend is notified as the phone would be (rule RU4)."""
    spot = ground()
    token = qualified(town.keys, "r-asleep", "medic")
    with Dispatcher(town) as desk, Responder(town, "r-asleep", here(north_of(spot, 60)), token=token) as backend:
        desk.post("", call_at(spot, "town-asleep"))
        backend.take("call")
        with Responder(town, "r-asleep", here(spot), token=token) as phone:
            phone.take("call")
            phone.say("accept", id="town-asleep")
            assert phone.take("task")["seat"] == 1
        assert backend.take("task")["seat"] == 1
