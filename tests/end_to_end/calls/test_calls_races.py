"""Up to a hundred responders accept at once, on several nodes, while a node, a reply or the log's primary is lost.

In every case, as many responders have a seat (a place among those who go) as there are seats (rule RV2), each of their
sessions has the newest `task` (rule RJ6), and all others are stood down, that is, told that they are not needed (rule
RJ4). The exact place is in no other frame, answer, log line, metric or file (rules RZ2, RZ3).
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.call_history import Terms
from end_to_end.kit.call_load import QUALS, TERMS, Kept, Manners, RecordedDispatcher, RecordedResponder, read_calls
from end_to_end.kit.claims import put_back
from end_to_end.kit.cluster import Cluster, on_one_redis, on_sentinels
from end_to_end.kit.dispatcher import make_call_key
from end_to_end.kit.earth import beyond
from end_to_end.kit.exact_places import files, found, needles
from end_to_end.kit.keys import Keys
from end_to_end.kit.load import HEAL_S, World, eventually
from end_to_end.kit.node import Node
from support.redis_server import RedisServer, needs_redis, sentinel_url

from geocast.alertlog import AlertLog
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.calls.encryption import parse_call_keys

SEATS = 4
POLICY = f"""
name = "races"
[categories.burglary]
title = "Burglary"
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr", "medic"]
residence_quals = ["medic"]
rings_m = [1000]
seats = {["cpr", "aed"] * (SEATS // 2)}
rest_s = 0
"""
pytestmark = pytest.mark.timeout(900)  # for a very slow machine
BUSY_S = 0.03  # the delay of every reply of Redis, which makes a race long enough to be disturbed


@pytest.fixture
def keys() -> Keys:
    """Return keys that may grant qualifications."""
    return Keys(quals=QUALS)


class Race:
    """Responders near one call, all of whom want a seat. Asyncio's debug mode is too slow for a hundred of them."""

    def __init__(self, nodes: Sequence[Node], open_log: Callable[[], AlertLog], folder: Path) -> None:
        self.nodes, self.open_log = nodes, open_log
        self.keys = parse_call_keys((folder / "call-keys.jwks").read_bytes(), "the keys of the nodes")
        self.world = World(list(nodes), random.Random(7))
        self.history = self.world.history.calls
        self.history.terms = Terms(TERMS.quals, (1_000,), SEATS)
        self.dispatcher = RecordedDispatcher(self.world)
        self.responders: list[RecordedResponder] = []
        self.kept: Kept | None = None
        self.seated: set[str] = set()  # the `sub` of each responder that has a seat in the call's state

    @property
    def call_id(self) -> str:
        assert self.kept is not None
        return self.kept.asked.id

    @asynccontextmanager
    async def begun(self, crowd: int, devices: int = 0) -> AsyncIterator[None]:
        """Connect `crowd` responders and open a call that notifies all of them.

        The first `devices` of them have a second device, on another node.
        """
        town = self.world.town
        try:
            for number in range(crowd):
                spot = beyond(town, self.world.dice.uniform(0, 360), self.world.dice.uniform(1, 700))
                for device in range(1 + (number < devices)):
                    node = (number + device) % len(self.nodes)
                    name, sub = f"{number}.{device}", f"pseudonym-{number:03}-of-somebody"
                    responder = RecordedResponder(
                        name, self.world, sub, Manners(), quals=("medic",), node=node, spot=spot
                    )
                    self.responders.append(responder)
                    self.world.start(name, responder.live())
            await self.until(
                lambda: all(each.welcomed.is_set() for each in self.responders), "all responders are connected"
            )
            self.kept = await self.dispatcher.open(beyond(town, 37, 12.3), "residence", lasts_s=1_500)
            await self.dispatcher.repeat_until_answered()
            await self.until(
                lambda: all(self.call_id in each.shown for each in self.responders), "all responders are notified"
            )
            yield
        finally:
            await self.world.stop()
            await self.dispatcher.api.aclose()

    def accept(self, responders: Iterable[RecordedResponder] | None = None) -> None:
        """Let these responders, or all of them, accept at once."""
        for responder in self.responders if responders is None else responders:
            responder.want(self.call_id)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until `holds` returns true, or fail with `what` and the story of the call."""

        async def so() -> bool:
            self.world.assert_well()
            return holds()

        if await eventually(so, HEAL_S) is None:
            raise AssertionError(f"waited in vain: {what}\n{self.story()}")

    def story(self) -> str:
        """Return what is known of the call, and the last output of the nodes."""
        stories = [self.history.story(each) for each in self.history.asked]
        return "\n".join([*stories, *(node.output()[-3_000:] for node in self.nodes)])

    async def answered(self, count: int = 1) -> None:
        """Wait until at least `count` responders have a task."""
        await self.until(lambda: len(self.holders()) >= count, f"{count} have a task")

    def holders(self) -> set[str]:
        """Return the `sub` of each responder that has a task and has not been stood down."""
        return {each.sub for each in self.responders if "place" in each.shown.get(self.call_id, {})}

    async def settled(self) -> Json:
        """Wait until every responder has its answer, assert that everything was right, and return the call's state."""
        wrong: list[str] = []

        async def right() -> bool:
            self.world.assert_well()
            if not await read_calls(self.world, [self.dispatcher], self.responders):
                return False
            self.history.put_back = await put_back(self.open_log, self.keys, self.history.asked)
            wrong[:] = self.history.judge(finals_only=True)
            return not wrong and not any(each.wanted for each in self.responders)

        in_time = await eventually(right, HEAL_S) is not None
        wrong = self.history.judge() if in_time else wrong
        waiting = [each.name for each in self.responders if each.wanted]
        if wrong or not in_time:
            raise AssertionError("\n".join([*wrong[:10], f"without an answer: {waiting}", self.story()]))
        assert not self.world.refusals, self.world.refusals
        for node in self.nodes:
            node.assert_no_surprise()
        state = next(iter(self.history.states.values()))[self.call_id]
        assert state is not None
        self.seated = {seat["responder"] for seat in state["seats"]}
        return state

    async def assert_kept_secret(self, *redis: RedisServer) -> None:
        """Assert that the place is in no frame of other responders, no answer, no metric and no file.

        A responder's `sub` may be in what the dispatcher reads, and a responder's place nowhere.
        """
        [place] = self.history.asked[self.call_id].places
        exact = list(needles(place))
        subs = [each.sub.encode() for each in self.responders]
        here = [needle for each in self.responders if each.here for needle in needles(each.here)]
        everything = [*exact, *subs, *here]
        for responder in self.responders:
            frames = b"\n".join(responder.frames)
            assert not found(frames, everything), responder.name
            if responder.sub not in self.seated:
                assert not any(answer["type"] == "task" for answer in responder.answers.get(self.call_id, ()))
        told = b"\n".join(self.dispatcher.answers)
        read = b"\n".join(self.dispatcher.reads)
        assert not found(told, everything)
        assert not found(read, [*exact, *here])
        assert found(read, subs), "the dispatcher does not see who has a seat"
        for node in self.nodes:
            for path in ("/metrics", "/readyz", "/healthz", "/openapi.json"):
                answer = await asyncio.to_thread(node.api.get, path)
                assert not found(answer.content, everything), path
        for server in redis:
            await asyncio.to_thread(server.command, "SAVE")
        seen = []
        for path, content in files(*(node.home for node in self.nodes), *(server.folder for server in redis)):
            assert not found(content, everything), path.name
            if self.call_id.encode() in content:
                seen.append(path.name)
        assert seen, "the call is in no file, so the search proves nothing"
        print(f"\n{self.call_id} is in {sorted(set(seen))}; its place is in no file")


def options_in(folder: Path) -> tuple[str, ...]:
    """Write a policy with calls and call keys, and return a node's options for them."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    make_call_key(folder)
    return ("--policy", str(policy), "--call-keys", str(folder / "call-keys.jwks"))


def assert_seats(state: Json) -> None:
    """Assert that all seats are taken, each once."""
    assert state["state"] == "full", state
    assert [seat["seat"] for seat in state["seats"]] == [*range(1, SEATS + 1)], state


async def see_it_through(race: Race, *redis: RedisServer) -> None:
    """Assert that all seats are taken, then end the call. Assert before and after that the place is kept secret."""
    state = await race.settled()
    assert state["state"] == "full"
    assert [seat["seat"] for seat in state["seats"] if seat["seat"]] == [*range(1, SEATS + 1)], state
    assert race.holders() == race.seated
    await race.assert_kept_secret(*redis)
    assert race.kept is not None
    await race.dispatcher.end(race.kept)
    await race.dispatcher.repeat_until_answered()
    assert (await race.settled())["state"] == "ended"
    assert not race.holders()
    await race.assert_kept_secret(*redis)


@needs_redis
def test_hundred_responders_accepting_on_three_nodes_fill_each_seat_once(keys: Keys, tmp_path: Path):
    """Meanwhile one of the nodes is killed, and replies of Redis are lost (rules RV2, RV3, RJ4, RJ6, RZ2, RZ3)."""
    options = options_in(tmp_path)

    async def run(cluster: Cluster) -> None:
        race = Race(cluster.nodes, lambda: RedisStreamsLog(cluster.redis.url), tmp_path)
        async with race.begun(100, devices=20):
            for proxy in cluster.proxies:
                proxy.slow(BUSY_S)
            cluster.proxies[1].lose_reply("EVAL", "EVALSHA", nth=2)
            cluster.proxies[2].lose_reply("EVAL", "EVALSHA", nth=3)
            race.accept()
            await race.answered()
            cluster.nodes[0].kill()
            await race.answered(2)
            cluster.nodes[0].launch()
            for proxy in cluster.proxies:
                proxy.slow(0)
            await see_it_through(race, cluster.redis)
            assert len(race.seated) == SEATS

    with on_one_redis(tmp_path, keys, options, (*options, "--workers", "2"), options, rdbcompression="no") as cluster:
        asyncio.run(run(cluster), debug=False)


@needs_redis
def test_only_seats_that_the_log_lost_in_a_failover_are_restored_as_extra_seat_0(keys: Keys, tmp_path: Path):
    """The primary is killed while responders accept.

    A seat 0 stands for a seat that its owner was sent and that the log has lost (rules RV2, RV7).
    """
    options = (*options_in(tmp_path), "--log-replicas", "1")

    async def run(cluster: Cluster) -> None:
        url = sentinel_url(list(cluster.sentinels))
        race = Race(cluster.nodes, lambda: RedisStreamsLog(url, replicas=1), tmp_path)
        async with race.begun(60, devices=10):
            cluster.proxies[0].slow(BUSY_S)
            race.accept()
            await race.answered()
            await asyncio.to_thread(cluster.redis.kill)
            await race.until(lambda: cluster.primary() in cluster.replicas, "a replica has become the primary")
            await asyncio.to_thread(cluster.redis.start)
            cluster.proxies[0].upstream = cluster.redis.port
            cluster.proxies[0].slow(0)
            await race.until(cluster.whole, "all servers follow the new primary")
            await see_it_through(race, *cluster.servers)

    with on_sentinels(tmp_path, keys, options, (*options, "--workers", "2"), rdbcompression="no") as cluster:
        asyncio.run(run(cluster), debug=False)


def test_processes_that_share_a_sqlite_log_fill_each_seat_once(keys: Keys, tmp_path: Path):
    """One process of the node is killed while responders accept.

    Then the whole node is killed and restarted (rules RV2, RV3, RJ4, RZ2, RZ3).
    """
    options = options_in(tmp_path)
    home = tmp_path / "node"
    home.mkdir()

    async def run(node: Node) -> None:
        race = Race([node], lambda: SqliteLog(node.log_file), tmp_path)
        async with race.begun(40, devices=10):
            race.accept()
            os.kill(node.children()[0], signal.SIGKILL)
            await race.answered()
            node.kill()
            node.launch()
            await see_it_through(race)
            assert len(race.seated) == SEATS

    with Node(home, keys, *options, "--workers", "2") as node:
        asyncio.run(run(node), debug=False)


@needs_redis
def test_seats_given_twice_by_two_primaries_are_restored_as_extra_seat_0(keys: Keys, tmp_path: Path):
    """When one primary is lost, the seats that it had given are restored in the log as seat 0 (rule RV7)."""
    options = options_in(tmp_path)

    async def run(cluster: Cluster, other: RedisServer) -> None:
        url = [cluster.redis.url]
        race = Race(cluster.nodes, lambda: RedisStreamsLog(url[0]), tmp_path)
        async with race.begun(20):
            await race.until(lambda: race.call_id.encode() in dumped(other), "the replica has the call")
            other.command("REPLICAOF", "NO", "ONE")
            cluster.proxies[1].upstream = other.port
            cluster.proxies[1].cut()
            await race.until(cluster.nodes[1]._ready, "the second node is ready")
            sides = [[each for each in race.responders if each.node == side] for side in (0, 1)]
            for side in sides:
                race.accept(side)
            await race.answered(2 * SEATS)
            lost, kept = ({each.sub for each in side} & race.holders() for side in sides)
            assert len(lost) == len(kept) == SEATS, "each side has given all its seats"

            cluster.redis.kill()
            url[0] = other.url
            cluster.proxies[0].upstream = other.port
            cluster.proxies[0].cut()
            state = await race.settled()
            seats = {seat["responder"]: seat["seat"] for seat in state["seats"]}
            assert {sub for sub, seat in seats.items() if seat == 0} == lost
            assert {sub: seats[sub] > 0 for sub in kept} == dict.fromkeys(kept, True)
            await see_it_through(race, other)

    with (
        on_one_redis(tmp_path, keys, options, options, rdbcompression="no") as cluster,
        RedisServer(tmp_path / "other", replica_of=cluster.redis, rdbcompression="no") as other,
    ):
        asyncio.run(run(cluster, other), debug=False)


def dumped(server: RedisServer) -> bytes:
    """Return all values of all streams of a Redis."""
    with server.client() as client:
        return b"".join(
            value
            for key in client.scan_iter(_type="stream")
            for _, fields in client.xrange(key)
            for value in fields.values()
        )
