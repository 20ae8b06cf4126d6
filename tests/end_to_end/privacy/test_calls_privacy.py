"""privacy.md and threats.md, what they say of calls: where a place and a responder's name may be, where not.

Two responders, a dispatcher and a bystander live through a call on a node that logs all it can. Then all that it wrote,
kept in its log, sent and answered is searched. What may be somewhere has to be found there, so that the search is known
to bite.
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

from geocast.alertlog.sqlite import SqliteLog
from geocast.calls.encryption import NO_CALL_KEYS, CantOpen, load_call_keys
from geocast.model.alert import Entry
from geocast.model.call import CallEntry

SPOT = (41.8739154237, -87.6391748261)
CORRECTED = (41.8739954731, -87.6391648377)
GOER = (41.8745539917, -87.6392218843)  # 71 m away
DECLINER = (41.8731138465, -87.6385528197)  # 103 m
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
    """A node at work, and all that was seen of it."""

    node: Node
    seen: dict[str, bytes] = field(default_factory=dict)

    def note(self, where: str, *data: bytes) -> None:
        """Something that was seen somewhere."""
        self.seen[where] = b"\n".join([self.seen.get(where, b""), *data])


@pytest.fixture(scope="module")
def medics() -> Keys:
    """Keys of which one, "ed", may qualify."""
    return Keys(quals=["cpr", "medic"])


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def scene(request: pytest.FixtureRequest, medics: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The life of a call, with good and bad requests around it, on each kind of log; the node has ended by then."""
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
    """What the files of the log hold."""
    return b"".join(path.read_bytes() for path in sorted(node.home.glob(f"{node.log_file.name}*")))


def live_through(scene: Scene, redis: RedisServer | None) -> None:
    """A call with all that can happen to it: rung, corrected, a seat given back and taken, reported, ended."""
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
        wait_until(lambda: [seat["state"] for seat in desk.state(body["id"])["seats"]] == ["arrived"], "it is told")
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
    """Requests that are refused, places and names in them."""
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


# what -> its text, and where it may be
WHERE = ("log", "tasks", "rings", "answers", "state", "metrics", "output")
WHAT = {
    "the address of a call": (ADDRESS, "tasks"),
    "how one gets in": (ACCESS, "tasks"),
    "who went": (WENT, "state"),
    "who declined": (STAYED, ""),
    "why it was ended": (REASON, ""),
    "what was refused": (REFUSED, ""),
    "the headline": (HEADLINE, "log rings answers state"),
    "whose call it is": (DESK, "log rings answers state"),
    "where a defibrillator hangs": ("Canary foyer", "tasks"),
    "the code of its box": ("canary-box-2580", ""),  # both seats that were taken are for CPR
    "who runs it": ("Canary operator", ""),
    "its telephone": ("312 555 0177", ""),
}


@pytest.mark.parametrize("what", WHAT)
def test_each_piece_of_a_call_is_where_the_page_says_and_nowhere_else(scene: Scene, what: str) -> None:
    """DP18, DP19, DP20, DP22, RZ2, RZ3, RI3, TH11: found where it may be, and in nothing else that was seen."""
    text, allowed = WHAT[what]
    found = {where for where in WHERE if text.encode() in scene.seen[where]}
    expected = set(allowed.split())
    assert found - {"answers"} == expected - {"answers"}
    assert found <= expected


def test_the_exact_place_is_in_tasks_and_nowhere_else(scene: Scene) -> None:
    """DP18, RZ1, RZ2: in no spelling, of the call as it was opened and as it was corrected."""
    assert repr(SPOT[0]).encode() in scene.seen["tasks"]
    assert repr(CORRECTED[1]).encode() in scene.seen["tasks"]
    elsewhere = {where: data for where, data in scene.seen.items() if where != "tasks"}
    assert_found_nowhere(needles(opened=SPOT, corrected=CORRECTED), elsewhere)


def test_no_place_of_a_responder_is_anywhere(scene: Scene) -> None:
    """DP21, RZ7: neither of who went nor of who did not, the tasks and the dispatcher's answers included."""
    assert_found_nowhere(needles(goer=GOER, decliner=DECLINER), scene.seen)


def needles(**points: tuple[float, float]) -> dict[bytes, str]:
    """All spellings of some places."""
    return {
        spelling: f"{name} {axis}"
        for name, point in points.items()
        for axis, number in zip(("lat", "lng"), point, strict=True)
        for spelling in spellings(number)
    }


@needs_wall_clock
def test_the_place_goes_from_the_log_ten_minutes_after_the_end(medics: Keys, tmp_path: Path) -> None:
    """DP18, RZ4, RY1: with the key nobody finds it there then, and the same request again is `call-ended`."""
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


# ---- who holds what ------------------------------------------------------------------------------------------


@pytest.fixture
def town(medics: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node that takes calls."""
    with calling_node(tmp_path, medics) as node:
        yield node


def chain(node: Node, call_id: str) -> list[CallEntry]:
    """The entries of a call, as who has the log reads them."""

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


def written(node: Node, entry: CallEntry) -> None:
    """Write an entry of one's own as the next one of its id, past every check of the door."""

    async def write() -> None:
        log = SqliteLog(node.log_file)
        await log.start()
        try:
            for _ in range(20):  # the node widens the ring meanwhile
                last = [0, *(each.revision for each in await log.history(entry.id))][-1]
                if await log.append(dataclasses.replace(entry, revision=last + 1)):
                    return
        finally:
            await log.stop()
        raise AssertionError("the log did not take it")

    asyncio.run(write())


def opened(node: Node, call_id: str) -> list[str]:
    """The secrets of a call, for who has the log and the key."""
    keys = load_call_keys(node.home / "call-keys.jwks")
    return [keys.open(entry).decode(errors="replace") for entry in chain(node, call_id)]


def unsealed_failed(node: Node) -> float:
    """How many entries did not open."""
    lines = node.api.get("/metrics").text.splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("geocast_call_unsealed_failed_total ")]
    return float(count)


def test_a_responders_token_learns_cells_and_no_address_without_a_seat(town: Node) -> None:
    """TH9, RZ8, RV1, RV3: whoever says to be everywhere is told the circle of a cell; the address costs a seat."""
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


def test_a_dispatchers_token_opens_calls_and_touches_no_others(town: Node) -> None:
    """TH10: false ones too, under its own name; no alert, nobody else's call, nobody's place."""
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


def test_a_key_that_may_not_qualify_makes_nobody_a_responder(town: Node) -> None:
    """TH6, RQ3: whatever a token claims that it has signed."""
    spot = ground()
    claims = town.keys.claims(sub="r-1", quals=["cpr"], scope=EVERY_SCOPE, iat=int(time.time()))
    token = town.keys.signed(claims, key=town.keys.secret, alg="HS256", kid="hs")
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot), token=token) as responder:
        assert "quals" not in responder.welcome
        desk.post("", call_at(spot, "town-any"))
        responder.barrier(here(spot))
        responder.say("accept", id="town-any")
        responder.take("standdown", reason="over")


def test_who_has_the_log_and_no_key_can_forge_nothing_of_a_call(town: Node) -> None:
    """TH11, RZ3: neither a call of his own nor another headline; what he writes is counted, and told nobody."""
    spot = ground()
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot)) as responder:
        desk.post("", call_at(spot, "town-real", headline="Real"))
        responder.take("call")
        [real, *_] = chain(town, "town-real")
        with pytest.raises(CantOpen):
            NO_CALL_KEYS.open(real)
        written(town, dataclasses.replace(real, id="town-forged"))
        written(town, dataclasses.replace(real, plain=real.plain.replace(b"Real", b"Fake"), sealed=real.sealed[::-1]))
        wait_until(lambda: unsealed_failed(town) >= 2, "both are counted")
        assert town.api_status() == 200
        with Responder(town, "r-2", here(spot)) as late:
            assert late.take("call")["call"]["headline"] == "Real"
            assert late.barrier(here(spot))["live"] == 0
        assert responder.barrier(here(spot))["live"] == 0
        assert desk.api.get("/v1/calls/town-forged").status_code != 200


def test_who_has_the_log_can_withhold_a_call(town: Node) -> None:
    """TH11: what is taken out of the file is gone when the node starts anew."""
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


def test_who_has_the_log_and_the_key_reads_it(town: Node) -> None:
    """TH12: the place, and who went, until they are deleted."""
    spot = ground()
    with Dispatcher(town) as desk, Responder(town, "r-51c0", here(spot)) as responder:
        desk.post("", call_at(spot, "town-read", where={"address": ADDRESS}))
        responder.take("call")
        responder.say("accept", id="town-read")
        responder.take("task")
        secrets = "".join(opened(town, "town-read"))
    assert ADDRESS in secrets
    assert "r-51c0" in secrets


def test_no_filter_holds_back_a_call(town: Node) -> None:
    """RQ6: who wants to hear of nothing but the gravest, and of no category, is called all the same."""
    spot = ground()
    nothing = {"categories": [], "min_severity": "extreme"}
    with Dispatcher(town) as desk, Responder(town, "r-1", here(spot), **nothing) as responder:
        desk.post("", call_at(spot, "town-filter"))
        responder.take("call")


def test_a_backend_may_hold_the_session_of_a_phone_that_sleeps(town: Node) -> None:
    """RU4: with the phone's token and its last place it is rung, as the phone would be, and nothing more is needed."""
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
