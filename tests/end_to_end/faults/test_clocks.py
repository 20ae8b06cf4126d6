"""Wrong wall clocks, at the start or for a while: of a single node, of one node of two, and of Redis.

While the clock of a node is ahead, the node sends nothing that has ended by this clock. When the clock is right again,
every recipient gets what it has missed. An alert that ended only by the wrong clock is neither lost nor forgotten (R1,
R2, R3, E5, H4; behaviour.md, "Expiry and clocks").
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.cluster import on_one_redis
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.phone import Phone
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import stamp, wait_until
from support.redis_server import needs_redis
from support.wall_clock import needs_wall_clock

pytestmark = [needs_wall_clock, pytest.mark.slow]
Join = Callable[..., Session]

HOURS, DAYS = 3_600.0, 86_400.0
PROCESSES = pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "several"])


@pytest.fixture
def lasting_token(keys: Keys) -> dict[str, str]:
    """Return the fields of a `hello` with a token that is valid for 30 days, also by a clock that is ahead."""
    return {"token": keys.token(sub="phone", scope=PHONE_SCOPE, exp=int(time.time() + 30 * DAYS))}


def with_own_clock(home: Path, keys: Keys, options: Sequence[str] = (), **more: str) -> Node:
    """Return a node, not started yet, with a wall clock that the test can set."""
    home.mkdir(exist_ok=True)
    node = Node(home, keys, *options, **more)
    node.own_clock()
    return node


def set_clock(node: Node, ahead_s: float) -> None:
    """Set the clock of a running node, and wait until the node has noticed."""
    assert node.clock is not None
    before = steps(node)
    node.clock.set(ahead_s)
    wait_until(lambda: steps(node) > before, "the node has noticed that its clock was set")


def steps(node: Node) -> float:
    """Return the number of clock steps that the node has counted."""
    lines = node.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("geocast_clock_steps_total "))


@PROCESSES
def test_node_started_with_its_clock_ahead_delivers_after_the_clock_is_corrected(
    keys: Keys, tmp_path: Path, join: Join, lasting_token: dict[str, str], options: Sequence[str]
):
    """Subscribers get alerts from before the start and new ones, and so do late joiners (R1, R3)."""
    here = ground()
    with with_own_clock(tmp_path, keys, options) as node:
        before = node.publish(alert(here))["id"]
        node.kill()
        assert node.clock is not None
        node.clock.set(2 * HOURS)
        node.start()
        waiting = join(node, place(here), **lasting_token)
        assert waiting.batch == []
        set_clock(node, 0)
        waiting.listen(before, 1)
        after = node.publish(alert(here, severity="extreme"))["id"]
        waiting.listen(after, 1)
        late = join(node, place(here))
        for each in (before, after):  # another worker process may serve `late`, and notice the clock a moment later
            late.listen(each, 1)


@PROCESSES
def test_no_alert_is_lost_or_repeated_when_the_clock_is_briefly_ahead(
    keys: Keys, tmp_path: Path, join: Join, lasting_token: dict[str, str], options: Sequence[str]
):
    """Nothing is sent while the clock is ahead; afterwards only newcomers get the alert (E5, R2, R3)."""
    here = ground()
    with with_own_clock(tmp_path, keys, options) as node:
        alert_id = node.publish(alert(here))["id"]
        told = [join(node, place(here)) for _ in range(3)]
        for session in told:
            session.listen(alert_id, 1)
        set_clock(node, 2 * HOURS)
        newcomer = join(node, place(here), **lasting_token)
        returning = join(node, place(here), holding={alert_id: 1}, **lasting_token)
        assert newcomer.batch == returning.batch == []
        set_clock(node, 0)
        newcomer.listen(alert_id, 1)
        late = join(node, place(here))
        assert late.heard(alert_id) == [1]
        returning.catch_up()
        assert returning.heard(alert_id) == []
        for session in (*told, newcomer, late):
            session.catch_up()
            assert session.heard(alert_id) == [1]
        assert "the wall clock was set forward by 7200" in node.output()
        assert node.get(f"/v1/alerts/{alert_id}").json()["state"] == "live"


def client_of(node: Node, token: str, spot: Point) -> Phone:
    """Return a client of this node, not connected yet."""
    return Phone(f"ws://127.0.0.1:{node.stream_port}/v1/stream", spot, token)


def test_client_shows_an_alert_again_that_had_ended_only_by_a_wrong_clock(
    keys: Keys, tmp_path: Path, lasting_token: dict[str, str]
):
    """A client reconnects first while the clock is ahead, and again when it is right (C2a, R5b)."""
    here = ground()
    with with_own_clock(tmp_path, keys) as node, client_of(node, lasting_token["token"], here) as phone:
        alert_id = node.publish(alert(here))["id"]
        phone.wait_for_kinds(("new", 1))
        set_clock(node, 2 * HOURS)
        phone.reconnect()
        phone.wait_for_kinds(("new", 1), ("expired", 1))
        assert phone.client.holdings.here() == []
        set_clock(node, 0)
        phone.reconnect()
        phone.wait_for_kinds(("new", 1), ("expired", 1), ("new", 1))
        assert [held["id"] for held in phone.client.holdings.here()] == [alert_id]


def test_client_that_connects_during_a_wrong_clock_shows_the_alert_after_correction(
    keys: Keys, tmp_path: Path, lasting_token: dict[str, str]
):
    """According to `now` in the welcome, the alert has ended.

    The client asks for a new `now` on the same connection (C2a, E5).
    """
    here = ground()
    with with_own_clock(tmp_path, keys) as node:
        alert_id = node.publish(alert(here))["id"]
        set_clock(node, 2 * HOURS)
        with client_of(node, lasting_token["token"], here) as phone:
            set_clock(node, 0)
            phone.wait_for_kinds(("new", 1))
            node.wait_for_counts(alert_id, sent=1, acked=1)


def test_clock_set_back_does_not_keep_an_alert_alive_beyond_its_expiry(keys: Keys, tmp_path: Path, join: Join):
    """An alert that the node learnt of while its clock was right ends in time (E1)."""
    here = ground()
    with with_own_clock(tmp_path, keys) as node:
        asked_at = time.time()
        alert_id = node.publish(alert(here, expires_at=stamp(seconds=8)))["id"]
        join(node, place(here)).listen(alert_id, 1)
        learnt_s = time.time() - asked_at  # a delay that the node cannot know (`live_alerts`, Rule 4)
        set_clock(node, -2 * HOURS)
        wait_until(lambda: time.time() > asked_at + 8 + learnt_s + 0.1, "the alert has ended")
        assert join(node, place(here)).batch == []


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def pair(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path) -> Iterator[list[Node]]:
    """Yield two nodes that share a log, each with a clock of its own."""
    with ExitStack() as stack:
        if request.param == "redis":
            yield stack.enter_context(on_one_redis(tmp_path, keys, (), ())).nodes
        else:
            log = f"sqlite:{tmp_path / 'shared.db'}"
            yield [stack.enter_context(with_own_clock(tmp_path / f"node-{n}", keys, log=log)) for n in range(2)]


def test_node_with_clock_days_ahead_forgets_no_live_alert(pair: list[Node], keys: Keys, join: Join):
    """When the node starts, it deletes no live alert, so nobody else can use the alert's id (H3, H4)."""
    right, wrong = pair
    here = ground()
    body = alert(here)
    right.publish(body)
    over = right.publish(alert(here))["id"]
    right.cancel(over, 2)
    wrong.kill()
    assert wrong.clock is not None
    wrong.clock.set(9 * DAYS)
    wrong.start()
    # By the time the node has answered one request, it has looked for old alerts to delete.
    wait_until(lambda: wrong.get("/healthz").status_code == 200, "the node answers")
    assert [right.get(f"/v1/alerts/{each}").json()["state"] for each in (body["id"], over)] == ["live", "cancelled"]
    stranger = keys.token(sub="desk-two")
    assert right.post("/v1/alerts", {**body, "headline": "Another"}, stranger).status_code == 409
    assert right.post("/v1/alerts", body).status_code == 200
    wrong.clock.set(0)
    waiting = join(wrong, place(here))
    waiting.listen(body["id"], 1)


@needs_redis
def test_wrong_clock_of_redis_affects_no_delivery(keys: Keys, tmp_path: Path, join: Join):
    """The clock of Redis makes only ids in the log, and no part of a message (R1)."""
    here = ground()
    with on_one_redis(tmp_path, keys, ()) as cluster:
        [node], clock = cluster.nodes, cluster.redis.clock
        assert clock is not None
        waiting = join(node, place(here))
        told = []
        for ahead_s in (0, 9 * DAYS, 0, -2 * HOURS, 0):
            clock.set(ahead_s)
            told.append(node.publish(alert(here))["id"])
            waiting.listen(told[-1], 1)
        assert {message["alert"]["id"] for message in join(node, place(here)).batch} == set(told)
        assert len(waiting.everything()) == len(told)
