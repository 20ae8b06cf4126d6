"""Several nodes on one Redis, and one test for each fault of Redis, of the network or of a node.

The durations that are printed (`pytest -s`) are for information; assertions allow the time of `end_to_end.kit.wire`.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, ground, place, revision_of
from end_to_end.kit.cluster import Cluster, on_one_redis
from end_to_end.kit.earth import beyond
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.redis_nodes import SOON_S, entries_about, post_somehow, unready, wait_for_all
from end_to_end.kit.subscriber import FORMATS, Session, revise_and_cancel
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.redis_server import needs_redis

pytestmark = needs_redis
Join = Callable[..., Session]


@pytest.fixture(scope="module")
def both(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield two nodes on one Redis, one with two worker processes."""
    with on_one_redis(tmp_path_factory.mktemp("both"), keys, (), ("--workers", "2")) as cluster:
        yield cluster


@pytest.fixture
def cluster(both: Cluster) -> Iterator[Cluster]:
    """Yield the two nodes; afterwards repair everything that the test has broken."""
    yield both
    for proxy in both.proxies:
        proxy.heal()
    if both.redis.ended:
        both.redis.start()
    both.redis.resume()
    both.redis.command("CONFIG", "SET", "maxmemory", "0")
    for node in both.nodes:
        wait_until(node._ready, "the node is ready")


# ---- several nodes, nothing broken -------------------------------------------------------------------------------


def test_subscribers_of_all_nodes_get_each_message_once(cluster: Cluster, join: Join):
    """Early and late subscribers of both nodes get each revision and the cancel once (section 4, "Durable")."""
    one, two = cluster.nodes
    spot = ground()
    early = [join(node, place(spot), fmt=fmt) for node in cluster.nodes for fmt in FORMATS * 3]
    aside = [join(node, place(beyond(spot, 90, 50_000))) for node in cluster.nodes]
    body = alert(spot)
    one.publish(body)
    for session in early:
        session.listen(body["id"], 1)
    late = [join(node, place(spot)) for node in cluster.nodes]
    revise_and_cancel(body, two, one, told=[*early, *late], aside=aside)


def test_delivery_counts_of_an_alert_include_all_nodes(cluster: Cluster, join: Join):
    """Each node reports the counts of all nodes (section 4, "Counts")."""
    spot = ground()
    sessions = [join(node, place(spot)) for node in cluster.nodes for _ in range(6)]
    body = alert(spot)
    cluster.nodes[0].publish(body)
    for session in sessions:
        session.listen(body["id"], 1)
        session.ack(body["id"], 1)
    for node in cluster.nodes:
        node.wait_for_counts(body["id"], sent=12, acked=12)


def test_cancel_reaches_recipient_that_moved_to_another_node(cluster: Cluster, join: Join):
    """A client that has an alert gets its cancel from another node and at another place (rules 4 and 5)."""
    one, two = cluster.nodes
    spot = ground()
    body, missed = alert(spot), alert(spot)
    for each in (body, missed):
        one.publish(each)
    with one.join(place(spot)) as first:
        first.listen(body["id"], 1)
        first.listen(missed["id"], 1)
    one.cancel(missed["id"], 2)
    back = join(two, place(beyond(spot, 90, 50_000)), holding={body["id"]: 1, missed["id"]: 1})
    back.listen(missed["id"], "cancel")
    one.cancel(body["id"], 2)
    back.listen(body["id"], "cancel")
    back.catch_up()
    assert sorted(back.everything()) == sorted([(missed["id"], "cancel"), (body["id"], "cancel")])


def test_same_request_sent_to_several_nodes_at_once_makes_one_alert(cluster: Cluster, join: Join):
    """One request gets 201, and the others get the same answer with 200.

    Revisions and cancels behave in the same way (section 4).
    """
    spot = ground()
    watchers = [join(node, place(spot)) for node in cluster.nodes]
    body = alert(spot)
    path = f"/v1/alerts/{body['id']}"
    steps = [
        ("/v1/alerts", body),
        (f"{path}/revisions", revision_of(body, 2)),
        (f"{path}/cancel", cancel_body(3)),
    ]
    for step in steps:
        answers = at_all_nodes(cluster.nodes, *step)
        statuses = sorted(answer.status_code for answer in answers)
        # Every answer is 200 if the 201 was lost and its request was repeated.
        is_unknown = any(answer.history for answer in answers)
        assert statuses == [200] * (len(answers) - 1) + [201] or (is_unknown and statuses == [200] * len(answers))
        assert len({answer.text for answer in answers}) == 1
    for watcher in watchers:
        watcher.listen(body["id"], "cancel")
        heard = watcher.heard(body["id"])
        assert heard == sorted(set(heard), key=heard.index)
    assert entries_about(cluster.redis, body["id"]) == 3


def at_all_nodes(nodes: list[Node], path: str, body: Json, times: int = 4) -> list[httpx.Response]:
    """Send the same POST several times to each node, all at once; return the answers.

    A busy Redis may not answer a node in time. The request is repeated then, and the answer has a `history`.
    """

    async def post_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, headers=bearer(nodes[0].desk)) as api:

            async def insist(url: str) -> httpx.Response:
                refused: list[httpx.Response] = []
                while (answer := await api.post(url, json=body)).status_code == 503 and len(refused) < 20:
                    refused.append(answer)
                answer.history = refused
                return answer

            return await asyncio.gather(*(insist(f"{node.api.base_url}{path}") for node in nodes for _ in range(times)))

    return asyncio.run(post_all())


# ---- lost replies of Redis ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2])
def test_redis_command_whose_reply_was_lost_leaves_exactly_one_log_entry(cluster: Cluster, join: Join, nth: int):
    """Redis has stored the entry, but the node does not know; a repeat by node or publisher adds no second one."""
    node, proxy = cluster.nodes[0], cluster.proxies[0]
    spot = ground()
    watchers = [join(each, place(spot)) for each in cluster.nodes]
    body = alert(spot)
    for number, (path, request) in enumerate(
        [
            ("/v1/alerts", body),
            (f"/v1/alerts/{body['id']}/revisions", revision_of(body, 2)),
            (f"/v1/alerts/{body['id']}/cancel", cancel_body(3)),
        ],
        start=1,
    ):
        proxy.lose_reply("EVALSHA", "EVAL", "FCALL", nth=nth)
        post_somehow(node, path, request)
        assert proxy.reply_lost.wait(PATIENCE), "a reply was lost"
        assert entries_about(cluster.redis, body["id"]) == number
        for watcher in watchers:
            watcher.listen(body["id"], number if number < 3 else "cancel")
    for watcher in watchers:
        assert watcher.heard(body["id"]) == [1, 2, "cancel"]


# ---- Redis is paused, unreachable, silent or full ----------------------------------------------------------------


Breakage = tuple[Callable[[Cluster], object], Callable[[Cluster], object]]
BREAKAGES: dict[str, Breakage] = {
    "paused": (lambda c: c.redis.pause(), lambda c: c.redis.resume()),
    "away": (lambda c: c.redis.kill(), lambda c: c.redis.start()),
    "severed": (
        lambda c: [proxy.sever() for proxy in c.proxies],
        lambda c: [proxy.heal() for proxy in c.proxies],
    ),
    "silent": (
        lambda c: [proxy.stall() for proxy in c.proxies],
        lambda c: [proxy.heal() for proxy in c.proxies],
    ),
    "mute": (
        lambda c: [proxy.down.stall() for proxy in c.proxies],
        lambda c: [proxy.heal() for proxy in c.proxies],
    ),
    "full": (
        lambda c: c.redis.command("CONFIG", "SET", "maxmemory", "1"),
        lambda c: c.redis.command("CONFIG", "SET", "maxmemory", "0"),
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_nodes_without_redis_serve_from_memory_and_recover(cluster: Cluster, join: Join, breakage: str):
    """Sessions stay open, late joiners get live alerts, publishers get 503, and /readyz reports the outage.

    Afterwards everything recovers, and no session gets anything twice.
    """
    hurt, heal = BREAKAGES[breakage]
    spot = ground()
    kept, waiting = alert(spot), alert(spot)
    cluster.nodes[0].publish(kept)
    sessions = [join(node, place(spot)) for node in cluster.nodes]
    for session in sessions:
        session.listen(kept["id"], 1)
    began = time.monotonic()
    hurt(cluster)
    answer = cluster.nodes[0].post_once("/v1/alerts", waiting)
    refused_s = time.monotonic() - began
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "/problems/log-unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert refused_s < SOON_S
    for node in cluster.nodes:
        wait_until(lambda node=node: unready(node), "the node says that it is not ready")  # type: ignore[misc]
    unready_s = time.monotonic() - began
    for session in sessions:
        assert session.ask("ping")["type"] == "pong"
    for node in cluster.nodes:
        assert node.get("/healthz").status_code == 200
        sessions.append(join(node, place(spot)))
        sessions[-1].listen(kept["id"], 1)
    heal(cluster)
    healed = time.monotonic()
    post_somehow(cluster.nodes[0], "/v1/alerts", waiting)
    accepted_s = time.monotonic() - healed
    for session in sessions:
        session.listen(waiting["id"], 1)
    heard_s = time.monotonic() - healed
    wait_for_all(cluster.nodes)
    print(
        f"\n{breakage}: 503 after {refused_s:.2f} s, all unready after {unready_s:.2f} s; then accepted after "
        f"{accepted_s:.2f} s, heard by all after {heard_s:.2f} s, all ready after {time.monotonic() - healed:.2f} s"
    )
    for session in sessions:
        session.catch_up()
        assert session.everything() == [(kept["id"], 1), (waiting["id"], 1)]
    assert entries_about(cluster.redis, waiting["id"]) == 1


def test_node_cut_off_from_redis_is_unready_and_the_others_keep_serving(cluster: Cluster, join: Join):
    """Clients of the cut-off node are served by other nodes, and by this node when it is back."""
    one, two = cluster.nodes
    spot = ground()
    body, gone = alert(spot), alert(spot)
    one.publish(gone)
    here, there = join(one, place(spot)), join(two, place(spot))
    for session in (here, there):
        session.listen(gone["id"], 1)
    cluster.proxies[0].stall()
    two.publish(body)
    two.cancel(gone["id"], 2)
    there.listen(body["id"], 1)
    there.listen(gone["id"], "cancel")
    wait_until(lambda: unready(one), "the cut-off node is unready")
    assert not unready(two)
    with two.join(place(spot), holding={gone["id"]: 1}) as fled:
        fled.listen(body["id"], 1)
        fled.listen(gone["id"], "cancel")
    assert here.everything() == [(gone["id"], 1)]
    cluster.proxies[0].heal()
    here.listen(body["id"], 1)
    here.listen(gone["id"], "cancel")
    wait_for_all(cluster.nodes)
    here.catch_up()
    assert sorted(map(str, here.everything())) == sorted(map(str, there.everything()))


def test_node_reconnects_if_only_its_connection_for_reading_is_dead(cluster: Cluster, join: Join):
    """Only the connection that reads the stream is half-open.

    Redis answers on all others, and heartbeats are written.
    """
    one, two = cluster.nodes
    spot = ground()
    session = join(one, place(spot))
    body, own = alert(spot), alert(spot)
    cluster.proxies[0].mute("XREAD")
    began = time.monotonic()
    two.publish(body)
    post_somehow(one, "/v1/alerts", own)
    session.listen(body["id"], 1)
    session.listen(own["id"], 1)
    print(f"\ndeaf reader: heard after {time.monotonic() - began:.2f} s")
    wait_for_all(cluster.nodes)
    session.catch_up()
    assert sorted(session.everything()) == sorted([(body["id"], 1), (own["id"], 1)])


# ---- Redis has lost its data -------------------------------------------------------------------------------------


def flush(cluster: Cluster) -> None:
    """Delete everything in Redis at once."""
    cluster.redis.command("FLUSHALL")


def start_empty(cluster: Cluster) -> None:
    """Kill Redis and start it again on an empty disk."""
    cluster.redis.kill()
    shutil.rmtree(cluster.redis.folder / "appendonlydir")
    cluster.redis.start()


@pytest.mark.parametrize("forget", [flush, start_empty])
def test_nodes_restore_live_alerts_that_redis_lost(cluster: Cluster, join: Join, forget: Callable[[Cluster], None]):
    """Live alerts come back and cancelled ones do not; nothing is sent twice, and numbers continue."""
    one, two = cluster.nodes
    spot = ground()
    live, gone, fresh = alert(spot), alert(spot), alert(spot)
    # These alerts end before Redis loses them and are not restored: the log is shorter afterwards.
    over = [one.publish_brief(alert(ground()))[0] for _ in range(10)]
    one.publish(live)
    one.revise(revision_of(live, 2))
    one.publish(gone)
    sessions = [join(node, place(spot)) for node in cluster.nodes]
    for session in sessions:
        session.listen(live["id"], 2)
        session.listen(gone["id"], 1)
    one.cancel(gone["id"], 2)
    for session in sessions:
        session.listen(gone["id"], "cancel")
    one.wait_for_end(over[-1]["id"])
    began = time.monotonic()
    forget(cluster)
    wait_until(lambda: is_live(one, live["id"]), "the live alert is in the log again")
    print(f"\n{forget.__name__}: live alerts are back after {time.monotonic() - began:.2f} s")
    wait_for_all(cluster.nodes)
    assert one.get(f"/v1/alerts/{gone['id']}").json().get("state") != "live"
    post_somehow(two, "/v1/alerts", fresh)
    post_somehow(two, f"/v1/alerts/{live['id']}/revisions", revision_of(live, 3))
    for session in sessions:
        session.listen(fresh["id"], 1)
        session.listen(live["id"], 3)
    two.restart()  # the new process knows only the entries in the log
    for node in cluster.nodes:
        late = join(node, place(spot), holding={gone["id"]: 1})
        late.catch_up()
        assert set(late.everything()) - {(gone["id"], "cancel")} == {(live["id"], 3), (fresh["id"], 1)}
    sessions[0].catch_up()
    heard = sessions[0].everything()
    assert len(heard) == len(set(heard)), "nothing twice"
    assert sessions[0].heard(gone["id"]) == [1, "cancel"]


def is_live(node: Node, alert_id: str) -> bool:
    """Return whether the log has the alert as live."""
    answer = node.get(f"/v1/alerts/{alert_id}")
    return answer.status_code == 200 and answer.json()["state"] == "live"


# ---- Redis no longer writes to disk ------------------------------------------------------------------------------


def test_redis_that_stops_syncing_makes_nodes_refuse_alerts(cluster: Cluster, join: Join):
    """Publishers get 503 and /readyz names the reason; a refused alert is neither stored nor delivered (section 4)."""
    spot = ground()
    session = join(cluster.nodes[0], place(spot))
    cluster.redis.command("CONFIG", "SET", "appendfsync", "no")
    for node in cluster.nodes:
        wait_until(
            lambda node=node: "never syncs its append-only file" in node.get("/readyz").text, "/readyz names the reason"
        )
    before = [node.output().count("the alert log can be used again") for node in cluster.nodes]
    refused = [alert(spot) for _ in range(6)]
    for body, node in zip(refused, cluster.nodes * 3, strict=True):
        assert node.post_once("/v1/alerts", body).status_code == 503
        assert "never syncs" in node.get("/readyz").text
    assert [entries_about(cluster.redis, body["id"]) for body in refused] == [0] * 6
    cluster.redis.command("CONFIG", "SET", "appendfsync", "always")
    wait_for_all(cluster.nodes)
    for count, node in zip(before, cluster.nodes, strict=True):
        assert node.output().count("the alert log can be used again") - count <= 3, "once in each process"
    for body in refused:
        post_somehow(cluster.nodes[1], "/v1/alerts", body)
        session.listen(body["id"], 1)
        assert session.heard(body["id"]) == [1]


# ---- nodes of an older and a newer release on one log ------------------------------------------------------------


NEWER = '''
"""A node of a later version: its entries have fields that nobody has heard of yet."""
import sys
import msgpack
from geocast import cli
from geocast.alertlog import codec

encode = codec.encode
later = {"lane": ["x", 1], "weather": {"wind": 3.5}}
codec.encode = lambda entry: msgpack.packb(msgpack.unpackb(encode(entry)) | later)
sys.argv = sys.argv[1:]
cli.main()
'''


def test_older_node_can_revise_and_cancel_alerts_of_a_newer_node(keys: Keys, tmp_path: Path, join: Join):
    """The older node can revise and cancel alerts whose entries have unknown fields (section 1, "Growing")."""
    with on_one_redis(tmp_path, keys, (), ()) as cluster:
        older, newer = cluster.nodes
        (tmp_path / "newer.py").write_text(NEWER)
        newer.launcher = [sys.executable, str(tmp_path / "newer.py")]
        newer.restart()
        spot = ground()
        sessions = [join(node, place(spot)) for node in cluster.nodes]
        first, second = alert(spot), alert(spot)
        newer.publish(first)
        older.publish(second)
        older.revise(revision_of(first, 2))
        newer.revise(revision_of(second, 2))
        newer.cancel(first["id"], 3)
        older.cancel(second["id"], 3)
        for session in sessions:
            for body in (first, second):
                session.listen(body["id"], "cancel")
                heard = session.heard(body["id"])
                assert heard == sorted(set(heard), key=heard.index)
        kept = alert(spot)
        newer.publish(kept)
        with cluster.redis.client() as client:
            stream = next(client.scan_iter(_type="stream"))
            assert any(b"weather" in value for _, fields in client.xrange(stream) for value in fields.values())
        assert older.post("/v1/alerts", kept).status_code == 200, "the same content for both"
        older.restart()
        join(older, place(spot)).listen(kept["id"], 1)
        for node in cluster.nodes:
            assert "geocast_log_quarantined_total 0.0" in node.get("/metrics").text


def test_log_entries_of_unknown_kinds_from_a_later_version_are_ignored(cluster: Cluster, join: Join):
    """Nodes ignore unknown fields and entries of unknown kinds in the stream (section 1, "Growing")."""
    spot = ground()
    sessions = [join(node, place(spot)) for node in cluster.nodes]
    body = alert(spot)
    cluster.nodes[0].publish(body)
    for session in sessions:
        session.listen(body["id"], 1)
    with cluster.redis.client() as client:
        stream = next(client.scan_iter(_type="stream"))
        client.xadd(stream, {"z": "of a later version", "zz": b"\xff\x00"})
    cluster.nodes[1].revise(revision_of(body, 2))
    for session in sessions:
        session.listen(body["id"], 2)
    wait_for_all(cluster.nodes)
    cluster.nodes[0].restart()
    join(cluster.nodes[0], place(spot)).listen(body["id"], 2)
