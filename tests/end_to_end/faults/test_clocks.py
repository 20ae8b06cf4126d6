"""Wall clocks that are wrong, at the start or for a while: of a node, of one node of two, of Redis.

While the clock of a node is ahead it sends nothing that has ended by it. When it is right again all have what they are
owed.
What only a clock ahead has ended is neither lost nor forgotten (R1, R2, R3, E5, H4; behaviour.md, "Expiry and clocks").
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
def long(keys: Keys) -> dict[str, str]:
    """A `hello` with a token that is good by a clock that is ahead, too."""
    return {"token": keys.token(sub="phone", scope=PHONE_SCOPE, exp=int(time.time() + 30 * DAYS))}


def with_own_clock(home: Path, keys: Keys, options: Sequence[str] = (), **more: str) -> Node:
    """A node that has a wall clock of its own, not started."""
    home.mkdir(exist_ok=True)
    node = Node(home, keys, *options, **more)
    node.own_clock()
    return node


def set_clock(node: Node, ahead_s: float) -> None:
    """Set the clock of a running node, and return when it has noticed."""
    assert node.clock is not None
    before = steps(node)
    node.clock.set(ahead_s)
    wait_until(lambda: steps(node) > before, "the node has noticed that its clock was set")


def steps(node: Node) -> float:
    """How often its clock was set."""
    lines = node.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("geocast_clock_steps_total "))


@PROCESSES
def test_a_node_that_started_ahead_is_not_deaf_when_its_clock_is_right(
    keys: Keys, tmp_path: Path, join: Join, long: dict[str, str], options: Sequence[str]
):
    """R1, R3: who is there is told of what was there before the start and of what comes; so are late joiners."""
    here = ground()
    with with_own_clock(tmp_path, keys, options) as node:
        before = node.publish(alert(here))["id"]
        node.kill()
        assert node.clock is not None
        node.clock.set(2 * HOURS)
        node.start()
        waiting = join(node, place(here), **long)
        assert waiting.batch == []
        set_clock(node, 0)
        waiting.listen(before, 1)
        after = node.publish(alert(here, severity="extreme"))["id"]
        waiting.listen(after, 1)
        late = join(node, place(here))
        for each in (before, after):  # in another process, which may notice the clock a moment later
            late.listen(each, 1)


@PROCESSES
def test_a_clock_that_is_ahead_for_a_moment_loses_nothing_and_repeats_nothing(
    keys: Keys, tmp_path: Path, join: Join, long: dict[str, str], options: Sequence[str]
):
    """E5, R2, R3: nothing is sent meanwhile; then newcomers are told, and who was told before is not told again."""
    here = ground()
    with with_own_clock(tmp_path, keys, options) as node:
        alert_id = node.publish(alert(here))["id"]
        told = [join(node, place(here)) for _ in range(3)]
        for session in told:
            session.listen(alert_id, 1)
        set_clock(node, 2 * HOURS)
        newcomer = join(node, place(here), **long)
        returning = join(node, place(here), holding={alert_id: 1}, **long)
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


def phone_of(node: Node, token: str, spot: Point) -> Phone:
    """Return a client of this node, not connected yet."""
    return Phone(f"ws://127.0.0.1:{node.stream_port}/v1/stream", spot, token)


def test_a_client_shows_again_what_only_the_nodes_clock_has_ended(keys: Keys, tmp_path: Path, long: dict[str, str]):
    """C2a, R5b: it comes back to a node whose clock is ahead, and then to the same one with its clock right."""
    here = ground()
    with with_own_clock(tmp_path, keys) as node, phone_of(node, long["token"], here) as phone:
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


def test_a_client_that_was_welcomed_by_a_wrong_clock_shows_what_comes_when_it_is_right(
    keys: Keys, tmp_path: Path, long: dict[str, str]
):
    """C2a, E5: by the `now` of its welcome it is over; the client asks for another one, on the same connection."""
    here = ground()
    with with_own_clock(tmp_path, keys) as node:
        alert_id = node.publish(alert(here))["id"]
        set_clock(node, 2 * HOURS)
        with phone_of(node, long["token"], here) as phone:
            set_clock(node, 0)
            phone.wait_for_kinds(("new", 1))
            node.wait_for_counts(alert_id, sent=1, acked=1)


def test_a_clock_that_is_set_back_keeps_nothing_alive(keys: Keys, tmp_path: Path, join: Join):
    """E1: what the node has learnt of while its clock was right ends when it should."""
    here = ground()
    with with_own_clock(tmp_path, keys) as node:
        asked_at = time.time()
        alert_id = node.publish(alert(here, expires_at=stamp(seconds=8)))["id"]
        join(node, place(here)).listen(alert_id, 1)
        learnt_s = time.time() - asked_at  # the node cannot know this delay (`live_alerts`, Rule 4)
        set_clock(node, -2 * HOURS)
        wait_until(lambda: time.time() > asked_at + 8 + learnt_s + 0.1, "the alert has ended")
        assert join(node, place(here)).batch == []


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def pair(request: pytest.FixtureRequest, keys: Keys, tmp_path: Path) -> Iterator[list[Node]]:
    """Two nodes that share a log, each with a clock of its own."""
    with ExitStack() as stack:
        if request.param == "redis":
            yield stack.enter_context(on_one_redis(tmp_path, keys, (), ())).nodes
        else:
            log = f"sqlite:{tmp_path / 'shared.db'}"
            yield [stack.enter_context(with_own_clock(tmp_path / f"node-{n}", keys, log=log)) for n in range(2)]


def test_a_node_that_is_days_ahead_has_nobody_forget_what_lives(pair: list[Node], keys: Keys, join: Join):
    """H4, H3: not at its start, when it looks for what may be forgotten; nobody else can take the id."""
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
    # It is ready, and a request later it has looked.
    wait_until(lambda: wrong.get("/healthz").status_code == 200, "it answers")
    assert [right.get(f"/v1/alerts/{each}").json()["state"] for each in (body["id"], over)] == ["live", "cancelled"]
    stranger = keys.token(sub="desk-two")
    assert right.post("/v1/alerts", {**body, "headline": "Another"}, stranger).status_code == 409
    assert right.post("/v1/alerts", body).status_code == 200
    wrong.clock.set(0)
    waiting = join(wrong, place(here))
    waiting.listen(body["id"], 1)


@needs_redis
def test_a_clock_of_redis_that_is_wrong_for_a_while_harms_nothing(keys: Keys, tmp_path: Path, join: Join):
    """R1: it makes ids in the log, and nothing that is told to anybody."""
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
