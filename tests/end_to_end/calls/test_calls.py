"""Calls for help on real nodes: responders near the call are notified, and those who go get its exact place.

A responder who goes has a seat. All others are stood down, that is, told that they are not needed.
"""

import contextlib
import json
import re
import signal
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert
from end_to_end.kit.cluster import Cluster, on_one_redis
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, NEAR, PLACE, SECRETS, call, calling_node, make_call_key
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import moment, stamp, wait_until
from support.redis_server import needs_redis
from support.schemas import check_client_message

METRE = 1 / 111_195  # in degrees of latitude
QUICK = """
name = "town"
[categories]
burglary = { title = "Burglary" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
rings_m = [100, 300, 600]
enough = 2
seats = ["cpr", "aed"]
answer_s = 120
rest_s = 0
"""


class Responder(Session):
    """A session of a responder with qualifications, whose place is `metres` north of the calls."""

    def __init__(self, node: Node, sub: str, metres: float = 0, fmt: str = "json", quals: Any = ("cpr",)) -> None:
        super().__init__(node, fmt)
        now = int(time.time())
        claims = {"iat": now, "exp": now + 3_600, "scope": PHONE_SCOPE, "quals": list(quals)}
        self.hello([here(metres)], token=node.keys.token(sub=sub, **{k: v for k, v in claims.items() if v}))

    def say_of(self, kind: str, call_id: str, **more: Any) -> None:
        """Send an `accept`, `decline` or `report` for a call."""
        message = {"type": kind, "id": call_id, **more}
        check_client_message(message)
        self.say(message)

    def hears(self, kind: str) -> Json:
        """Return the next message, and assert its type."""
        message = self.take()
        assert message["type"] == kind, message
        return message

    def accepts(self, call_id: str) -> Json:
        """Send `accept` and return the answer."""
        self.say_of("accept", call_id, eta_s=240)
        return self.take()

    def hears_nothing(self) -> None:
        """Assert that no message has come, and that the node has none to send."""
        assert self.move(*self.places)["live"] == 0


def here(metres: float) -> Json:
    """Return a place `metres` north of the place of the calls."""
    return {"lat": NEAR["lat"] + metres * METRE, "lng": NEAR["lng"], "here": True}


@pytest.fixture
def answer_s() -> int:
    """Return the policy's `answer_s`, in seconds. No test takes that long, so no radius widens because of it."""
    return 120


@pytest.fixture
def rest_s() -> int:
    """Return the policy's `rest_s`, in seconds."""
    return 0


@pytest.fixture(params=["1", "2"], ids=["one process", "workers"])
def node(request: pytest.FixtureRequest, tmp_path: Path, answer_s: int, rest_s: int) -> Iterator[Node]:
    """Start a node with the policy above, whose keys may grant qualifications."""
    node = quick_node(tmp_path, "--workers", request.param)
    policy = QUICK.replace("answer_s = 120", f"answer_s = {answer_s}").replace("rest_s = 0", f"rest_s = {rest_s}")
    (tmp_path / "policy.toml").write_text(policy)
    with node:
        yield node
        node.assert_no_surprise()


Join = Callable[..., Responder]


@pytest.fixture
def join(node: Node) -> Iterator[Join]:
    """Yield `join(sub, metres, …)`, which connects a responder until the test is over."""
    joined: list[Responder] = []

    def joining(*who: Any, on: Node = node) -> Responder:
        joined.append(Responder(on, *who))
        return joined[-1]

    yield joining
    for responder in joined:
        responder.drop()


def quick_node(home: Path, *options: str, keys: Keys | None = None, log: str | None = None) -> Node:
    """Return a node with the policy above, not started yet."""
    node = calling_node(home, keys or Keys(quals=["cpr", "medic"]), *options, log=log)
    (home / "policy.toml").write_text(QUICK)
    return node


def dispatch(node: Node, path: str, body: Json) -> Json:
    """POST as the dispatcher, assert that the answer is 201, and return its body."""
    answer = node.post(path, body, node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE))
    assert answer.status_code == 201, answer.text
    return answer.json()


def opened(node: Node, **fields: Any) -> str:
    """Open a call and return its id."""
    body = call(place=PLACE | {"kind": "public"}, **fields)
    dispatch(node, "/v1/calls", body)
    return body["id"]


def state(node: Node, call_id: str) -> Json:
    """Return what the dispatcher sees of a call."""
    token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
    answer = node.api.get(f"/v1/calls/{call_id}", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_call_is_opened_accepted_by_responders_and_ended(node: Node, join: Join) -> None:
    """The responders are connected to all processes of a node.

    They are notified, get seats, report, decline and are stood down (rules RJ1, RJ2, RJ4, RJ6, RJ7, RV1, RV2, RV3, RV6,
    M18, M19, M20, RQ8).
    """
    first, second, third = (join(f"r-{n}", n, fmt) for n, fmt in enumerate(("json", "msgpack", "json")))
    tablet = join("r-0", 90_000)
    plain = join("r-9", 0, "json", ())
    assert first.welcome["quals"] == ["cpr"]
    assert first.welcome["retry"] == {"min_ms": 200, "max_ms": 3_000}

    call_id = opened(node)
    for responder in (first, second, third):
        rung = responder.hears("call")["call"]
        assert (rung["id"], rung["revision"], rung["near"]) == (call_id, 1, NEAR)
        responder.say({"type": "ack", "id": call_id, "revision": 1})

    task = first.accepts(call_id)
    assert task["type"] == "task"
    assert (task["seat"], task["role"], task["place"]) == (1, "cpr", PLACE | {"kind": "public"})
    assert tablet.hears("task") == task
    assert first.accepts(call_id) == task
    assert second.accepts(call_id)["seat"] == 2
    assert third.hears("standdown") == {"type": "standdown", "id": call_id, "reason": "full"}
    assert third.accepts(call_id)["reason"] == "full"
    first.say_of("report", call_id, state="arrived")
    wait_until(lambda: state(node, call_id)["seats"][0]["state"] == "arrived", "the report is in the log")
    wait_until(
        lambda: (seen := state(node, call_id))["rung"] == seen["seen"] == 3, "all notifications and acks are counted"
    )

    second.say_of("decline", call_id)
    assert second.hears("standdown")["reason"] == "left"
    again = third.hears("call")["call"]
    assert again["revision"] > 1
    wait_until(lambda: state(node, call_id)["declined"] == 1, "the decline is counted")
    assert [seat["responder"] for seat in state(node, call_id)["seats"]] == ["r-0"]

    dispatch(node, f"/v1/calls/{call_id}/end", {"reason": "The crew is there."})
    for responder in (first, tablet, third):
        assert responder.hears("standdown") == {"type": "standdown", "id": call_id, "reason": "over"}
    second.hears_nothing()
    assert third.accepts(call_id)["reason"] == "over"
    plain.hears_nothing()


@pytest.mark.parametrize("rest_s", [600])
def test_responder_alone_learns_that_they_rest_after_a_call(node: Node, join: Join) -> None:
    """After a task nobody is called for `rest_s`: the phone says until when, nobody else learns it (RQ7, DP30)."""
    first, second = join("r-1", 0), join("r-2", 10)
    call_id = opened(node)
    for responder in (first, second):
        responder.hears("call")
    first.accepts(call_id)
    ended = dispatch(node, f"/v1/calls/{call_id}/end", {"reason": "The crew is there."})
    until = moment(ended["ended_at"]) + timedelta(seconds=600)
    assert moment(first.hears("standdown")["rest_until"]) == until
    assert "rest_until" not in second.hears("standdown")
    tablet = join("r-1", 5)
    assert abs((moment(tablet.welcome["rest_until"]) - until).total_seconds()) < 5
    assert "rest_until" not in join("r-3", 90_000).welcome
    other = opened(node)
    second.hears("call")
    wait_until(lambda: state(node, other)["rung"] == 1, "the other person is counted")
    assert "resting" not in state(node, other)
    first.hears_nothing()


def test_radius_of_a_call_widens_every_200_ms_until_enough_responders_are_notified(node: Node, join: Join) -> None:
    """The responders of all processes are counted.

    A responder who declines is replaced at once (rules RN1, RN2, RN3, RN4).
    """
    near, middle, far = (join(f"r-{metres}", metres) for metres in (300, 500, 800))
    for _ in range(20):  # on a busy machine a process may learn the count too late and widen too early
        call_id = opened(node)
        near.hears("call")
        middle.hears("call")
        wait_until(lambda call_id=call_id: state(node, call_id)["rung"] >= 2, "both are counted")  # type: ignore[misc]
        if state(node, call_id)["ring_m"] == 300:
            break
        far.hears("call")
        dispatch(node, f"/v1/calls/{call_id}/end", {"reason": "Too early a ring."})
        for responder in (near, middle, far):
            responder.hears("standdown")
    far.hears_nothing()
    assert state(node, call_id)["ring_m"] == 300
    near.say_of("decline", call_id)
    far.hears("call")
    assert state(node, call_id)["ring_m"] == 600


@pytest.mark.parametrize("answer_s", [5])
@pytest.mark.parametrize("node", ["1"], ids=["one process"], indirect=True)
def test_radius_of_a_call_widens_after_the_answer_time_if_nobody_answers(node: Node, join: Join) -> None:
    """The radius widens although enough responders were notified (rule RN2).

    With two processes, the count of one may be missing.
    """
    crowd = [join(f"r-{n}", n) for n in range(3)]
    far = join("r-far", 500)
    begun = time.monotonic()
    opened(node)
    for responder in crowd:
        responder.hears("call")
    far.hears("call")
    assert time.monotonic() - begun >= 5


def test_late_responder_is_notified_and_returning_responder_gets_the_task(node: Node, join: Join) -> None:
    """This holds on any process. Messages of calls come before alerts (rules RJ3, RJ6, RJ8, RV5)."""
    call_id = opened(node)
    node.publish(alert((NEAR["lat"], NEAR["lng"]), category="burglary"))
    late = join("r-1")
    late.catch_up()
    wait_until(lambda: state(node, call_id)["rung"] == 1, "the late responder was notified")
    task = late.accepts(call_id)
    assert task["type"] == "task"
    late.drop()
    for _ in range(4):  # with two processes, both are reached nearly always
        with Session(node) as back:
            now = int(time.time())
            token = node.keys.token(sub="r-1", iat=now, exp=now + 600, quals=["cpr"], scope=PHONE_SCOPE)
            back.hello([here(0)], token=token, holding={call_id: task["revision"]})
            assert back.batch[0] == task
            assert [message["type"] for message in back.batch] == ["task", "alert"]


def test_correction_of_a_calls_place_is_sent_to_all_notified_responders(node: Node, join: Join) -> None:
    """Responders with a seat (a place among those who go) get it as a new `task` (rule RJ5)."""
    goes, waits = join("r-1"), join("r-2", 5)
    call_id = opened(node)
    goes.hears("call")
    waits.hears("call")
    task = goes.accepts(call_id)
    assert task["seat"] == 1
    body = call(id=call_id, place=PLACE | {"kind": "public", "access": "Round the back"})
    body["occurred_at"] = state(node, call_id)["call"]["occurred_at"]
    body["replaces"] = 1
    dispatch(node, f"/v1/calls/{call_id}/revisions", body)
    assert goes.hears("task")["place"]["access"] == "Round the back"
    assert waits.hears("call")["call"]["revision"] > task["revision"] > 1


def test_exact_place_and_responders_are_in_no_file_log_line_or_metric(tmp_path: Path) -> None:
    """The search also covers names and places of responders (rules RZ2, RZ3, RZ7)."""
    with quick_node(tmp_path) as node, Responder(node, "somebody-by-name", 1.25) as responder:
        call_id = opened(node)
        responder.hears("call")
        assert responder.accepts(call_id)["place"]["address"] == PLACE["address"]
        wait_until(lambda: "geocast_call_seats_total" in node.api.get("/metrics").text, "the seat is counted")
        told = node.api.get("/metrics").text + node.output()
        files = b"".join(path.read_bytes() for path in node.home.glob("geocast.db*"))
        for secret in (*SECRETS, "somebody-by-name", str(here(1.25)["lat"])):
            assert secret not in told
            assert secret.encode() not in files
        assert call_id.encode() in files


def test_metrics_of_calls_have_the_documented_names_and_values(node: Node, join: Join) -> None:
    """The page docs/reference/behaviour.md, "Metrics", lists them."""
    responder = join("r-1")
    call_id = opened(node)
    responder.hears("call")
    responder.accepts(call_id)

    def counted() -> bool:
        lines = set(node.api.get("/metrics").text.splitlines())
        return {
            "geocast_responders_on_duty 1.0",
            "geocast_calls_open 1.0",
            "geocast_calls_unanswered 0.0",
            "geocast_call_rings_total 1.0",
            'geocast_call_answers_total{answer="accept"} 1.0',
            'geocast_call_seats_total{role="cpr"} 1.0',
            'geocast_call_standdowns_total{reason="full"} 0.0',
            "geocast_call_accept_seconds_count 1.0",
            "geocast_call_first_seat_seconds_count 1.0",
            "geocast_call_unsealed_failed_total 0.0",
        } <= lines

    wait_until(counted, "the metrics have these values")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Start two nodes on one Redis with the same call keys."""
    (tmp_path / "policy.toml").write_text(QUICK)
    make_call_key(tmp_path)
    options = ("--policy", str(tmp_path / "policy.toml"), "--call-keys", str(tmp_path / "call-keys.jwks"))
    with on_one_redis(tmp_path, Keys(quals=["cpr", "medic"]), options, options) as cluster:
        yield cluster
        for node in cluster.nodes:
            node.assert_no_surprise()


@needs_redis
def test_responders_on_two_nodes_are_notified_and_each_seat_is_given_once(cluster: Cluster) -> None:
    """Four responders accept at once on two nodes.

    Another device of a seat's owner gets the task too (rules RN3, RV2, RV3).
    """
    one, two = cluster.nodes
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(Responder(node, f"r-{n}", n)) for n, node in enumerate([one, two] * 2)]
        twin = stack.enter_context(Responder(two, "r-0", 90_000))
        call_id = opened(one)
        for responder in crowd:
            responder.hears("call")
        for responder in crowd:
            responder.say_of("accept", call_id)
        answers = [responder.take() for responder in crowd]
        tasks = [answer for answer in answers if answer["type"] == "task"]
        assert sorted(task["seat"] for task in tasks) == [1, 2]
        seats = state(two, call_id)["seats"]
        assert {seat["responder"] for seat in seats} == {f"r-{n}" for n in range(4) if answers[n]["type"] == "task"}
        assert all(answer["reason"] == "full" for answer in answers if answer["type"] != "task")
        if answers[0]["type"] == "task":
            assert twin.hears("task") == answers[0]


@needs_redis
def test_accepting_responder_is_answered_only_when_the_log_is_back(cluster: Cluster) -> None:
    """Without an entry in the log, no address is sent.

    Responders stay notified, and the `task` is sent when the log is back.
    """
    one, two = cluster.nodes
    with Responder(one, "r-1") as responder, Responder(two, "r-2", 5) as other:
        call_id = opened(one)
        responder.hears("call")
        other.hears("call")
        cluster.redis.pause()
        responder.say_of("accept", call_id)
        responder.say({"type": "ping"})
        assert responder.hears("pong")
        wait_until(lambda: one.api_status() == 503, "the node knows that the log is unavailable")
        responder.hears_nothing()
        cluster.redis.resume()
        assert responder.hears("task")["seat"] == 1
        assert [seat["responder"] for seat in state(two, call_id)["seats"]] == ["r-1"]
        other.hears_nothing()


@needs_redis
def test_call_and_seats_survive_the_death_of_a_node(cluster: Cluster) -> None:
    """Another node continues the call, and a responder with a seat gets the task on any node (protocol, section 12)."""
    one, two = cluster.nodes
    with Responder(one, "r-1") as responder, Responder(two, "r-2", 5) as other:
        call_id = opened(one)
        responder.hears("call")
        assert other.hears("call")
        task = responder.accepts(call_id)
        one.kill()
        with Responder(two, "r-1", 90_000) as back:
            assert back.batch == [task]
            assert other.accepts(call_id)["seat"] == 2
        one.start()
        with Responder(one, "r-2", 90_000) as again:
            assert [message["type"] for message in again.batch] == ["task"]


def test_expired_call_is_ended_in_the_log_and_sends_no_message(tmp_path: Path) -> None:
    """Nobody is sent a message, and the dispatcher sees the state `expired` (rules RZ4, RJ7)."""
    with quick_node(tmp_path) as node, Responder(node, "r-1") as responder:
        call_id = opened(node, expires_at=stamp(seconds=3))
        responder.hears("call")
        wait_until(lambda: state(node, call_id)["state"] == "expired", "the call has expired")
        wait_until(lambda: "end" in kinds(node, call_id), "the call is ended in the log")
        responder.hears_nothing()
        assert responder.accepts(call_id)["reason"] == "over"


WIDE = QUICK.replace("[100, 300, 600]", "[100, 300, 600, 900]").replace('["cpr", "aed"]', '["cpr"]')
WIDE = WIDE.replace("enough = 2", "enough = 3").replace("answer_s = 120", "answer_s = 300")
"""`answer_s` is longer than a test may take, so the radius cannot have widened because of it."""


def assert_radius_widens_after_each_decline(nodes: list[Node], *, restarts: bool = False) -> None:
    """Let the responder with the only seat of a call decline three times, and assert that the radius widens each time.

    After each decline, fewer than `enough` responders are notified, so the next radius notifies another one.
    """
    holder, stays = Responder(nodes[0], "r-0"), [Responder(nodes[n], f"stays-{n}") for n in (0, -1)]
    call_id = opened(nodes[0])
    for session in (holder, *stays):
        session.hears("call")
    for number, metres in enumerate((400, 700, 1_000), start=1):
        assert holder.accepts(call_id)["type"] == "task"
        for session in stays:
            assert session.hears("standdown")["reason"] == "full"
        if restarts:
            for session in (holder, *stays):
                session.drop()
            nodes[0].restart()
            holder = Responder(nodes[0], f"r-{number - 1}")
            stays = [Responder(nodes[0], f"stays-{n}") for n in (0, -1)]
            assert [message["type"] for message in holder.batch] == ["task"]
        following = Responder(nodes[number % len(nodes)], f"r-{number}", metres)
        following.hears_nothing()
        holder.say_of("decline", call_id)
        assert holder.hears("standdown")["reason"] == "left"
        holder.drop()
        for session in (*stays, following):
            session.hears("call")
        holder = following
    for session in (holder, *stays):
        session.drop()


@pytest.mark.parametrize("restarts", [False, True], ids=["one node", "restarted each time"])
def test_radius_widens_without_waiting_for_responders_to_earlier_revisions(tmp_path: Path, restarts: bool) -> None:
    """The radius also widens if the process that had notified these responders has ended (rule HD16)."""
    with quick_node(tmp_path) as node:
        (tmp_path / "policy.toml").write_text(WIDE)
        node.restart()
        assert_radius_widens_after_each_decline([node], restarts=restarts)
        node.assert_no_surprise()


@needs_redis
def test_radius_widens_without_waiting_for_responders_of_another_node(cluster: Cluster, tmp_path: Path) -> None:
    """Two nodes share a Redis (rule HD16)."""
    (tmp_path / "policy.toml").write_text(WIDE)
    for node in cluster.nodes:
        node.restart()
    assert_radius_widens_after_each_decline(cluster.nodes)


def kinds(node: Node, call_id: str) -> str:
    """Return the kinds of a call's entries in the log."""
    with contextlib.closing(sqlite3.connect(f"file:{node.log_file}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT payload FROM entry WHERE id = ?", (call_id,)).fetchall()
    return " ".join(msgpack.unpackb(row[0])["kind"] for row in rows)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_without_a_call_key_stays_ready_and_serves_everything_else(tmp_path: Path, workers: str) -> None:
    """An entry that cannot be decrypted changes nothing else.

    After a reload the node tries to decrypt it again (rules HD8, RZ5).
    """
    with quick_node(tmp_path, "--workers", workers) as node:
        call_id = opened(node)
        append_undecryptable_entry(node, call_id, "rubbish")
        lacked = json.loads((tmp_path / "call-keys.jwks").read_text())["keys"]
        (tmp_path / "call-keys.jwks").unlink()
        newer = make_call_key(tmp_path)["keys"]
        node.kill()
        node.launch()
        wait_until(node._ready, "the node is ready")
        degraded = ["calls: 2 with entries that no key of --call-keys opens"]
        wait_until(lambda: degraded_of(node) == degraded, "/readyz names the calls that cannot be decrypted")
        assert node.api_status() == 200
        said = "call {}: entry 1, at position {} of the log, is ignored"
        assert {said.format(call_id, 1), said.format("rubbish", 2)} <= set(
            re.findall(r"call \S+: .* is ignored", node.output())
        )
        node.publish(alert((48.0, 11.0)))
        assert state(node, opened(node))["state"] == "ringing"
        answer = node.post_once(
            f"/v1/calls/{call_id}/end", {"reason": "x"}, node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
        )
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-unavailable")
        with Responder(node, "r-1") as responder:
            ring = responder.batch[0] if responder.batch else responder.hears("call")
            assert ring["call"]["id"] != call_id
            (tmp_path / "call-keys.jwks").write_text(json.dumps({"keys": newer + lacked}))
            assert node.process
            node.process.send_signal(signal.SIGHUP)
            assert responder.hears("call")["call"]["id"] == call_id
        degraded = ["calls: 1 with entries that no key of --call-keys opens"]
        wait_until(lambda: degraded_of(node) == degraded, "the decrypted call is not counted any more")
        assert "geocast_call_unsealed_failed_total 0.0" not in node.api.get("/metrics").text


def degraded_of(node: Node) -> list[str]:
    """Return the list `degraded` of /readyz."""
    return node.api.get("/readyz").json().get("degraded", [])


def append_undecryptable_entry(node: Node, call_id: str, other_id: str) -> None:
    """Write a copy of a call's entry into the log, under another id and with bytes that cannot be decrypted."""
    entry = {"kind": "call", "id": other_id, "revision": 1, "ends_at": 0, "plain": b"x", "sealed": b"x" * 40}
    with contextlib.closing(sqlite3.connect(node.log_file)) as database, database:
        ends_at = database.execute("SELECT ends_at FROM entry WHERE id = ?", (call_id,)).fetchone()[0]
        payload = msgpack.packb(entry | {"ends_at": ends_at})
        checksum = zlib.crc32(payload, zlib.crc32(f"{other_id} 1".encode()))
        database.execute(
            "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, 1, ?, ?, ?)",
            (other_id, ends_at, payload, checksum),
        )
