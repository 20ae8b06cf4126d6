"""Random faults under load, chosen by a seed, and a check of the whole history at the end.

`end_to_end/kit/history.py` lists the six kinds of violations, of which none may occur. One fault is deliberate: an
attacker writes entries into the log that no reviewer has signed (approval-rules.md, NC2, NC3). `FAULT_SEED` and
`FAULT_SECONDS` choose another run; `make soak-faults MINUTES=30 ON=sentinels` runs for long.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from end_to_end.kit.call_load import QUALS
from end_to_end.kit.cluster import on_one_redis, on_sentinels
from end_to_end.kit.fault_schedule import TIMEOUT, judge, seconds, seeds
from end_to_end.kit.keys import Keys
from end_to_end.kit.nemesis import (
    FaultRun,
    failovers,
    faults_of_node,
    faults_of_proxy,
    faults_of_redis,
    faults_of_replication,
    rogue_writes,
)
from end_to_end.kit.node import Node
from end_to_end.kit.rogue import guard_in
from support.redis_server import needs_redis, sentinel_url
from support.wall_clock import COMPILER

from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.sqlite.log import SqliteLog


@pytest.fixture
def keys() -> Keys:
    """Return keys that may grant qualifications."""
    return Keys(quals=QUALS)


SECONDS = seconds(10)
pytestmark = TIMEOUT


@pytest.mark.slow
@seeds(1)
def test_node_with_two_workers_on_sqlite_survives_random_faults(keys: Keys, tmp_path: Path, seed: int):
    """Kill and pause the node and its processes; set its clock wrong before the start or while it runs."""
    guard = guard_in(tmp_path)
    node = Node(tmp_path, keys, "--workers", "2", *guard.options)
    if COMPILER:
        node.own_clock()
    with node:
        run = FaultRun([node], [], seed, SECONDS, guard.people, lambda: SqliteLog(node.log_file), guard.call_keys)
        run.faults += [*faults_of_node(node, run.dice), rogue_writes(run.rogue, node)]
        judge(run)


@pytest.mark.slow
@needs_redis
@seeds(2)
def test_three_nodes_on_one_redis_survive_random_faults(keys: Keys, tmp_path: Path, seed: int):
    """Kill and pause nodes, processes and Redis; cut and stall connections, lose replies, flush Redis."""
    guard = guard_in(tmp_path)
    options = guard.options
    with on_one_redis(tmp_path, keys, options, (*options, "--workers", "2"), options) as cluster:
        redis = cluster.redis
        log = partial(RedisStreamsLog, redis.url)
        run = FaultRun(cluster.nodes, [], seed, SECONDS, guard.people, log, guard.call_keys, may_lose=True)
        for node, proxy in zip(cluster.nodes, cluster.proxies, strict=True):
            run.faults += faults_of_node(node, run.dice)
            run.faults += faults_of_proxy(f"proxy of {node.home.name}", proxy, run.dice)
        run.faults += [*faults_of_redis(redis, run.dice), rogue_writes(run.rogue, redis), run.flush_of(redis)]
        judge(run)


def survive_on_sentinels(keys: Keys, folder: Path, seed: int, *followed: str) -> None:
    """Fail over repeatedly; kill and pause nodes and Redis servers, cut off replicas, and make them resync.

    There is a node for each of `followed`, a value of `--log-follow`; the last node has two workers.
    """
    guard = guard_in(folder)
    nodes = [("--log-replicas", "1", "--log-follow", each, *guard.options) for each in followed]
    nodes[-1] = (*nodes[-1], "--workers", "2")
    with on_sentinels(folder, keys, *nodes) as cluster:
        replicas = {f"127.0.0.1:{server.port}" for server in cluster.replicas}
        for node, each in zip(cluster.nodes, followed, strict=True):
            read = node.get("/readyz").json()["reads"].keys()
            assert read
            assert read <= ({each} if each == "primary" else replicas)
        url = sentinel_url(list(cluster.sentinels))
        faults, log = failovers(cluster), partial(RedisStreamsLog, url, replicas=1)
        run = FaultRun(cluster.nodes, faults, seed, SECONDS, guard.people, log, guard.call_keys, may_lose=True)
        run.faults.append(rogue_writes(run.rogue, "any Redis"))
        for server in cluster.servers:  # one fault of Redis at a time: `--log-replicas 1` promises to survive no more
            more = faults_of_replication(server) if "replica" in followed else []
            run.faults += [replace(fault, target="any Redis") for fault in (*faults_of_redis(server, run.dice), *more)]
        for node in cluster.nodes:
            run.faults += faults_of_node(node, run.dice)
        judge(run)


@pytest.mark.slow
@needs_redis
@seeds(3)
def test_two_nodes_on_sentinels_survive_random_faults(keys: Keys, tmp_path: Path, seed: int):
    """Both nodes follow the primary."""
    survive_on_sentinels(keys, tmp_path, seed, "primary", "primary")


@pytest.mark.slow
@needs_redis
@seeds(4)
def test_nodes_of_which_half_follow_replicas_survive_random_faults(keys: Keys, tmp_path: Path, seed: int):
    """A node on a replica promises what a node on the primary does (RG2)."""
    survive_on_sentinels(keys, tmp_path, seed, "primary", "replica")
