"""A real network partition: Redis in its own network namespace, a cable to each node, and one cable unplugged.

Unlike the fault proxy, nothing accepts connections or data: packets are lost, TCP retransmits, and connecting times
out.
"""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from support.network import own_network
from support.ports import free_ports
from support.redis_server import PROGRAM, needs_redis

pytestmark = [needs_redis, pytest.mark.slow]
Join = Callable[..., Session]
SECRET = "for-this-test-only"


def ip(*words: str) -> None:
    """Run `ip` of iproute2. Raise CalledProcessError if it fails."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Island:
    """A network namespace with a Redis in it, and two virtual cables to it."""

    def __init__(self, folder: Path) -> None:
        self.name = f"geocast{os.getpid()}"
        self.cables = [f"gc{os.getpid()}-{n}" for n in range(2)]
        net = 4 * (os.getpid() % 60)
        self.addresses = [f"198.18.{n}.{net + 2}" for n in range(2)]  # reserved by RFC 2544: no real network has these
        self.ours = [f"198.18.{n}.{net + 1}" for n in range(2)]
        self.port = free_ports(1)[0]
        self.folder = folder

    def create(self, stack: ExitStack) -> None:
        """Create the namespace, and let the stack remove it. Raise CalledProcessError where this is not allowed."""
        ip("netns", "add", self.name)
        stack.callback(ip, "netns", "del", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        for cable, ours, theirs in zip(self.cables, self.ours, self.addresses, strict=True):
            ip("link", "add", cable, "type", "veth", "peer", "name", cable, "netns", self.name)
            ip("addr", "add", f"{ours}/30", "dev", cable)
            ip("link", "set", cable, "up")
            ip("-n", self.name, "addr", "add", f"{theirs}/30", "dev", cable)
            ip("-n", self.name, "link", "set", cable, "up")
        self._start_redis(stack)

    def _start_redis(self, stack: ExitStack) -> None:
        options = {
            "bind": " ".join(self.addresses),
            "port": str(self.port),
            "dir": str(self.folder),
            "requirepass": SECRET,
            "appendonly": "yes",
            "appendfsync": "always",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        server = subprocess.Popen(["ip", "netns", "exec", self.name, PROGRAM, *words], stdout=subprocess.DEVNULL)
        stack.callback(server.wait, 20)
        stack.callback(server.kill)
        wait_until(self._listens, "Redis listens")

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self.addresses[0], self.port), timeout=1):
                return True
        except OSError:
            return False

    def pull(self, cable: int) -> None:
        """Pull a cable: packets are lost silently from now on."""
        ip("-n", self.name, "link", "set", self.cables[cable], "down")

    def plug_in(self, cable: int) -> None:
        """Plug a pulled cable in again."""
        ip("-n", self.name, "link", "set", self.cables[cable], "up")

    def url(self, cable: int) -> str:
        """Return the URL of Redis through a cable, for `--log`."""
        return f"redis://:{SECRET}@{self.addresses[cable]}:{self.port}/0"


@pytest.fixture
def island(tmp_path: Path) -> Iterator[Island]:
    """Yield a Redis that can be cut off; skip the test where that is not possible."""
    with own_network(), ExitStack() as stack:
        island = Island(tmp_path)
        try:
            island.create(stack)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces can't be made here: {error.stderr.decode().strip()}")
        yield island


def test_node_partitioned_from_redis_reports_unready_and_recovers(
    keys: Keys, tmp_path: Path, island: Island, join: Join
):
    """The node keeps its sessions, serves from memory and answers publishers 503; the other node goes on.

    When the cable is plugged in again, every session gets everything exactly once.
    """
    with ExitStack() as stack:
        nodes = []
        for number in range(2):
            home = tmp_path / f"node-{number}"
            home.mkdir()
            nodes.append(stack.enter_context(Node(home, keys, log=island.url(number))))
        one, two = nodes
        spot = ground()
        known, missed, refused = alert(spot), alert(spot), alert(spot)
        one.publish(known)
        sessions = [join(node, place(spot)) for node in nodes]
        for session in sessions:
            session.listen(known["id"], 1)
        island.pull(0)
        two.publish(missed)
        sessions[1].listen(missed["id"], 1)
        assert one.post_once("/v1/alerts", refused).status_code == 503
        wait_until(lambda: one.get("/readyz").status_code == 503, "the cut-off node is unready")
        assert two.get("/readyz").status_code == 200
        assert sessions[0].ask("ping")["type"] == "pong"
        sessions.append(join(one, place(spot)))
        sessions[-1].listen(known["id"], 1)
        island.plug_in(0)
        for session in sessions:
            session.listen(missed["id"], 1)
        wait_until(one._ready, "the node is ready again")
        wait_until(lambda: one.post("/v1/alerts", refused).status_code in (200, 201), "the node accepts alerts again")
        for session in sessions:
            session.listen(refused["id"], 1)
            session.catch_up()
            assert sorted(session.everything()) == sorted((body["id"], 1) for body in (known, missed, refused))
