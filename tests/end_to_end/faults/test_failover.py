"""Nodes on a Redis whose primary changes, and writes that are acknowledged meanwhile.

The durations that are printed (`pytest -s`) are for information; assertions allow the time of `end_to_end.kit.wire`.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place, revision_of
from end_to_end.kit.cluster import Cluster, on_one_redis, on_sentinels
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.redis_nodes import entries_about, post_somehow, unready, wait_for_all
from end_to_end.kit.subscriber import FORMATS, Session
from end_to_end.kit.times import wait_until
from support.redis_server import RedisServer, needs_redis

pytestmark = needs_redis
Join = Callable[..., Session]


@pytest.mark.parametrize("cut", ["FLUSHALL", "DEL {geocast}:stream"])
def test_alerts_are_still_delivered_after_redis_stream_ids_have_gone_back(
    keys: Keys, tmp_path: Path, join: Join, cut: str
):
    """The clock of the Redis host was ahead and is set right, and the stream starts from scratch.

    Every subscriber still gets later alerts (section 4, "Durable").
    """
    with on_one_redis(tmp_path, keys, (), ()) as cluster:
        cluster.redis.command("XSETID", "{geocast}:stream", "9999999999999-0")
        spot = ground()
        sessions = [join(node, place(spot)) for node in cluster.nodes]
        ahead, back = alert(spot), alert(spot)
        post_somehow(cluster.nodes[0], "/v1/alerts", ahead)
        for session in sessions:
            session.listen(ahead["id"], 1)
        cluster.redis.command(*cut.split())
        post_somehow(cluster.nodes[1], "/v1/alerts", back)
        for session in sessions:
            session.listen(back["id"], 1)
            assert session.heard(ahead["id"]) == session.heard(back["id"]) == [1]
        wait_for_all(cluster.nodes)
        for node in cluster.nodes:
            wait_until(
                lambda node=node: node.get(f"/v1/alerts/{ahead['id']}").status_code == 200, "the alert is restored"
            )


def test_sentinel_failover_keeps_every_alert_that_a_replica_acknowledged(keys: Keys, tmp_path: Path, join: Join):
    """With `--log-replicas 1` the primary is killed: every 201 is kept, and nobody misses an alert."""
    options = ("--log-replicas", "1")
    with on_sentinels(tmp_path, keys, options, (*options, "--workers", "2")) as cluster:
        one, two = cluster.nodes
        spot = ground()
        before, gone, after = [alert(spot) for _ in range(5)], alert(spot), alert(spot)
        for body in (*before, gone):
            one.publish(body)
        sessions = [join(node, place(spot), fmt=fmt) for node in cluster.nodes for fmt in FORMATS]
        for session in sessions:
            for body in (*before, gone):
                session.listen(body["id"], 1)
        two.cancel(gone["id"], 2)
        began = time.monotonic()
        cluster.redis.kill()
        post_somehow(one, "/v1/alerts", after)
        accepted_s = time.monotonic() - began
        for session in sessions:
            session.listen(after["id"], 1)
            session.listen(gone["id"], "cancel")
        wait_for_all(cluster.nodes)
        print(f"\nfailover: accepted after {accepted_s:.2f} s, all ready after {time.monotonic() - began:.2f} s")
        one.restart()
        for node in cluster.nodes:
            late = join(node, place(spot))
            late.catch_up()
            assert sorted(late.everything()) == sorted((body["id"], 1) for body in (*before, after))
        for session in sessions[2:]:
            session.catch_up()
            heard = session.everything()
            assert len(heard) == len(set(heard)) == 8


def test_publishing_with_too_few_replicas_gets_503_and_repeating_makes_one_alert(
    keys: Keys, tmp_path: Path, join: Join
):
    """A refused alert that is repeated is one alert in the end (`--log-replicas`)."""
    with (
        RedisServer(tmp_path / "primary") as primary,
        RedisServer(tmp_path / "replica", replica_of=primary) as replica,
        Node(tmp_path, keys, "--log-replicas", "1", log=primary.url) as node,
    ):
        spot = ground()
        session = join(node, place(spot))
        first, second = alert(spot), alert(spot)
        post_somehow(node, "/v1/alerts", first)
        replica.pause()
        answer = node.post_once("/v1/alerts", second)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/log-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        wait_until(lambda: unready(node), "the node is unready")
        assert session.ask("ping")["type"] == "pong"
        replica.resume()
        post_somehow(node, "/v1/alerts", second)
        assert entries_about(replica, second["id"]) == 1
        for body in (first, second):
            session.listen(body["id"], 1)
        session.catch_up()
        assert session.everything() == [(first["id"], 1), (second["id"], 1)]


class SplitBrain:
    """Two nodes, their subscribers, and the alerts that are published before and during a split of their Redis."""

    def __init__(self, cluster: Cluster, join: Join) -> None:
        self.cluster, self.join = cluster, join
        self.spot = ground()
        self.base = [alert(self.spot) for _ in range(4)]
        self.cancelled_before, self.cancelled_in, self.revised_in, self.untouched = self.base
        self.old = alert(self.spot)  # is acknowledged by the old primary, while no replica can be reached
        self.new = [alert(self.spot) for _ in range(5)]  # are acknowledged by the promoted one
        self.steady: list[Session] = []

    @property
    def live(self) -> set[tuple[str, int]]:
        """The live alerts of both sides, each with its revision."""
        return {(body["id"], 1) for body in (*self.new, self.old, self.untouched)} | {(self.revised_in["id"], 2)}

    def begin(self) -> None:
        """Publish four alerts and cancel one; all subscribers and both replicas have the other three."""
        one = self.cluster.nodes[0]
        for body in self.base:
            one.publish(body)
        one.cancel(self.cancelled_before["id"], 2)
        self.steady = [self.join(node, place(self.spot), fmt=fmt) for node in self.cluster.nodes for fmt in FORMATS]
        with one.join(place(self.spot)) as traveller:
            for session in (*self.steady, traveller):
                for body in self.base[1:]:
                    session.listen(body["id"], 1)
        for replica in self.cluster.replicas:
            wait_until(lambda replica=replica: entries_about(replica, self.untouched["id"]), "the replica has it")  # type: ignore[misc]

    def write_to_the_old_primary(self) -> None:
        """Publish, revise and cancel while no replica can be reached: only the old primary has these entries."""
        one, two = self.cluster.nodes
        cut_off_replicas(self.cluster)
        one.publish(self.old)
        one.revise(revision_of(self.revised_in, 2))
        two.cancel(self.cancelled_in["id"], 2)
        for session in self.steady:
            session.listen(self.old["id"], 1)
            session.listen(self.revised_in["id"], 2)
            session.listen(self.cancelled_in["id"], "cancel")
        for replica in self.cluster.replicas:
            assert entries_about(replica, self.old["id"]) == 0, "only the old primary has it"

    def write_to_the_promoted_one(self) -> None:
        """Publish five alerts after a replica was promoted; the nodes append what the log has lost."""
        began = time.monotonic()
        cut_off_primary(self.cluster)
        for number, body in enumerate(self.new):
            post_somehow(self.cluster.nodes[number % 2], "/v1/alerts", body)
        assert self.cluster.primary() in self.cluster.replicas, "a replica was promoted"
        accepted_s = time.monotonic() - began
        for session in self.steady:
            for body in self.new:
                session.listen(body["id"], 1)
        for node in self.cluster.nodes:
            wait_until(lambda node=node: live_at(node) == self.live, "the log has the union")  # type: ignore[misc]
        print(
            f"\nsplit brain: five accepted {accepted_s:.2f} s, the union in the log "
            f"{time.monotonic() - began:.2f} s after the old primary was cut off"
        )
        wait_for_all(self.cluster.nodes)

    def heal(self) -> None:
        """Let the old primary come back as a replica; restart a node, which then knows only the entries in the log."""
        self.cluster.proxies[0].heal()
        wait_until(self.cluster.whole, "the old primary is a replica")
        self.new.append(alert(self.spot))
        post_somehow(self.cluster.nodes[1], "/v1/alerts", self.new[-1])
        self.cluster.nodes[0].restart()
        for session in self.steady[2:]:
            session.listen(self.new[-1]["id"], 1)

    def check_newcomers(self) -> None:
        """Check that each node sends a new subscriber the union, and a returning one what has changed."""
        for node in self.cluster.nodes:
            late = self.join(node, place(self.spot))
            late.catch_up()
            assert set(late.everything()) == self.live
            assert len(late.received) == len(self.live)
            back = self.join(node, place(self.spot), holding={body["id"]: 1 for body in self.base[1:]})
            back.catch_up()
            changed = self.live - {(self.untouched["id"], 1)}
            assert set(back.everything()) == changed | {(self.cancelled_in["id"], "cancel")}

    def check_steady(self) -> None:
        """Check that the subscribers that stayed connected got everything, and nothing twice."""
        for session in self.steady[2:]:
            session.catch_up()
            heard = session.everything()
            assert len(heard) == len(set(heard)), "nothing twice"
            first = {(body["id"], 1) for body in self.base[1:]}
            assert set(heard) == self.live | first | {(self.cancelled_in["id"], "cancel")}


def test_alerts_of_both_sides_are_kept_after_a_split_brain(keys: Keys, tmp_path: Path, join: Join):
    """The old primary acknowledges three writes that no replica has; the promoted one acknowledges five."""
    with on_sentinels(tmp_path, keys, (), ()) as cluster:
        split = SplitBrain(cluster, join)
        split.begin()
        split.write_to_the_old_primary()
        split.write_to_the_promoted_one()
        split.heal()
        split.check_newcomers()
        split.check_steady()


def test_entries_written_to_two_primaries_at_once_are_merged(keys: Keys, tmp_path: Path, join: Join):
    """Each node writes to its own primary for a while; then one of the primaries is lost.

    Entries of one side must not hide entries of the other that were written at the same time. A cancel of either side
    holds.
    """
    with (
        on_one_redis(tmp_path, keys, (), ()) as cluster,
        RedisServer(tmp_path / "other", replica_of=cluster.redis) as other,
    ):
        one, two = cluster.nodes
        spot = ground()
        torn, ended, revised = base = [alert(spot) for _ in range(3)]
        firsts, seconds = [alert(spot) for _ in range(2)], [alert(spot) for _ in range(2)]
        sessions = [join(node, place(spot)) for node in cluster.nodes]
        for body in base:
            one.publish(body)
            for session in sessions:
                session.listen(body["id"], 1)
            wait_until(lambda body=body: entries_about(other, body["id"]), "the replica has the alert")  # type: ignore[misc]

        other.command("REPLICAOF", "NO", "ONE")
        cluster.proxies[1].upstream = other.port
        cluster.proxies[1].cut()
        for first, second in zip(firsts, seconds, strict=True):
            post_somehow(two, "/v1/alerts", second)
            post_somehow(one, "/v1/alerts", first)
        one.cancel(torn["id"], 2)
        post_somehow(two, f"/v1/alerts/{torn['id']}/revisions", revision_of(torn, 2))
        two.cancel(ended["id"], 2)
        one.revise(revision_of(revised, 2))
        sessions[0].listen(revised["id"], 2)
        sessions[1].listen(ended["id"], "cancel")
        assert entries_about(cluster.redis, seconds[0]["id"]) == entries_about(other, firsts[0]["id"]) == 0

        cluster.redis.kill()
        cluster.proxies[0].upstream = other.port
        cluster.proxies[0].cut()
        live = {(body["id"], 1) for body in (*firsts, *seconds)} | {(revised["id"], 2)}
        for node in cluster.nodes:
            wait_until(lambda node=node: live_at(node) == live, "the log has the union")  # type: ignore[misc]
        for session in sessions:
            for alert_id, what in (*live, (torn["id"], "cancel"), (ended["id"], "cancel")):
                session.listen(alert_id, what)
        wait_for_all(cluster.nodes)
        one.restart()  # the new process knows only the entries in the log
        for node in cluster.nodes:
            late = join(node, place(spot), holding={body["id"]: 1 for body in base})
            late.catch_up()
            assert set(late.everything()) == live | {(torn["id"], "cancel"), (ended["id"], "cancel")}
        sessions[1].catch_up()
        for session in sessions:
            heard = session.everything()
            assert len(heard) == len(set(heard)), "nothing twice"
            assert session.heard(torn["id"])[-1] == "cancel"


def cut_off_replicas(cluster: Cluster) -> None:
    """Cut the replicas off from the primary without a failover by the Sentinels."""
    for sentinel in cluster.sentinels:
        sentinel.command("SENTINEL", "SET", "geocast", "down-after-milliseconds", "600000")
    cluster.proxies[0].forbid("PSYNC", "REPLCONF")
    cluster.redis.command("CLIENT", "KILL", "TYPE", "replica")


def cut_off_primary(cluster: Cluster) -> None:
    """Cut the primary off from everybody, and let the Sentinels fail over."""
    cluster.proxies[0].sever()
    for sentinel in cluster.sentinels:
        sentinel.command("SENTINEL", "SET", "geocast", "down-after-milliseconds", "1000")


def live_at(node: Node) -> set[tuple[str, int]]:
    """Return the live alerts in the log as (id, revision); nothing if the log can't be read."""
    return {(each["id"], each["revision"]) for each in node.get("/v1/alerts").json().get("alerts", [])}
