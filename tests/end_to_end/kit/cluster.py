"""Several nodes on one Redis, each behind its own proxy, or several nodes on a Redis with Sentinels."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.proxy import Proxy
from end_to_end.kit.times import wait_until
from redis import RedisError
from support.redis_server import RedisServer, Sentinel, sentinel_url
from support.wall_clock import COMPILER, WallClock


@dataclass
class Cluster:
    """Nodes that share a log."""

    redis: RedisServer  # the only server, or the primary at the start
    proxies: list[Proxy]  # one for each node; with Sentinels only one, before the first primary
    nodes: list[Node]
    replicas: Sequence[RedisServer] = ()
    sentinels: Sequence[Sentinel] = ()

    @property
    def servers(self) -> list[RedisServer]:
        """All Redis servers of the cluster."""
        return [self.redis, *self.replicas]

    def primary(self) -> RedisServer | None:
        """Return the server that all Sentinels name as the primary, or None while they or that server disagree."""
        try:
            ports = {sentinel.primary_port() for sentinel in self.sentinels}
            found = [server for server in self.servers if ports == {self._known_port(server)}]
            return found[0] if found and found[0].role == "master" else None
        except RedisError:
            return None

    def has_left(self, old: RedisServer) -> bool:
        """Return whether another server has become the primary.

        The old server is not asked, because it may be paused.
        """
        try:
            if self._known_port(old) in {sentinel.primary_port() for sentinel in self.sentinels}:
                return False
        except RedisError:
            return False
        return self.primary() is not None

    def _known_port(self, server: RedisServer) -> int:
        """Return the port by which the other servers know this server."""
        return self.proxies[0].port if server is self.redis else server.port

    def whole(self) -> bool:
        """Return whether there is a primary and every other server follows it."""
        primary = self.primary()
        try:
            return primary is not None and all(server.synced for server in self.servers if server is not primary)
        except RedisError:
            return False


@contextlib.contextmanager
def on_one_redis(folder: Path, keys: Keys, *options: Sequence[str], **redis: str) -> Iterator[Cluster]:
    """Run a node for each of `options` (arguments of its command line) on one Redis; yield the cluster when ready."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(with_own_clock(RedisServer(folder / "redis", **redis)))
        proxies = [stack.enter_context(Proxy(server.port)) for _ in options]
        urls = [f"redis://127.0.0.1:{proxy.port}/0" for proxy in proxies]
        yield Cluster(server, proxies, _nodes(stack, folder, keys, urls, options))


@contextlib.contextmanager
def on_sentinels(folder: Path, keys: Keys, *options: Sequence[str], **redis: str) -> Iterator[Cluster]:
    """Run nodes on a Redis with two replicas and three Sentinels; yield the cluster when ready.

    Everything reaches the first primary through the one proxy.
    """
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(0))
        announced = {"replica_announce_ip": "127.0.0.1", "replica_announce_port": str(proxy.port)}
        primary = stack.enter_context(with_own_clock(RedisServer(folder / "redis-0", **announced, **redis)))
        proxy.upstream = primary.port
        seen: Any = SimpleNamespace(port=proxy.port, password="")
        replicas = [with_own_clock(RedisServer(folder / f"redis-{n}", replica_of=seen, **redis)) for n in (1, 2)]
        for replica in replicas:
            stack.enter_context(replica)
            wait_until(lambda replica=replica: replica.synced, "the replica is in sync")  # type: ignore[misc]
        sentinels = [stack.enter_context(Sentinel(folder / f"sentinel-{n}", seen)) for n in range(3)]
        for sentinel in sentinels:
            wait_until(lambda sentinel=sentinel: sentinel.knows(2, 2), "each Sentinel knows all servers")  # type: ignore[misc]
        nodes = _nodes(stack, folder, keys, [sentinel_url(sentinels)] * len(options), options)
        yield Cluster(primary, [proxy], nodes, replicas, sentinels)


def with_own_clock(server: RedisServer) -> RedisServer:
    """Give a server its own wall clock if the machine has a compiler, and return the server."""
    server.clock = WallClock(server.folder / "wall-clock") if COMPILER else None
    return server


def _nodes(
    stack: contextlib.ExitStack, folder: Path, keys: Keys, urls: Sequence[str], options: Sequence[Sequence[str]]
) -> list[Node]:
    """Start nodes side by side, and return them when they are ready."""
    nodes = []
    for number, (url, more) in enumerate(zip(urls, options, strict=True)):
        home = folder / f"node-{number}"
        home.mkdir()
        nodes.append(Node(home, keys, *more, log=url))
        if COMPILER:
            nodes[-1].own_clock()
        stack.push(nodes[-1])
    with ThreadPoolExecutor() as pool:
        list(pool.map(Node.__enter__, nodes))
    return nodes
