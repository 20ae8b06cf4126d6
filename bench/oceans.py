"""A network of regions on one machine: a namespace for each region, with long ways between them.

    with Oceans({("a", "b"): 0.040, ("a", "c"): 0.150, ("b", "c"): 0.150}, loss=0.001) as oceans:
        oceans.within("a")            # the words before a command that shall run in region a
        oceans.address("a")           # its address; this process reaches each region at once
        oceans.cut("a")               # packets from and to the other regions are dropped
        oceans.mend()

Each namespace has one TUN device. A process reads the packets from all devices, and writes each one to the device of
its target after half of the round trip between the two regions, or drops it. So TCP meets latency and loss as in a real
network, although the kernel may lack netem. Making namespaces needs root.
"""

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import struct
import subprocess
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from bench import processes

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_NETWORK = "10.231"  # of private use; the third number is the region, or 0 for this process's own namespace
_MTU = 1_500


def missing() -> str | None:
    """Return the reason why no regions can be made here, or None if they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    return None if _ip("netns", "list") else "the program ip is missing, or may not list namespaces"


class Oceans:
    """Regions that only packets can leave, after a while (see the module's docstring)."""

    def __init__(self, round_trips_s: Mapping[tuple[str, str], float], loss: float) -> None:
        """Prepare the regions that are named in `round_trips_s`. `loss` is the part of packets that oceans lose."""
        self._regions = sorted({name for pair in round_trips_s for name in pair})
        self._delays = {
            (self._number(one), self._number(other)): delay / 2
            for (a, b), delay in round_trips_s.items()
            for one, other in ((a, b), (b, a))
        }
        self._loss = loss
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            devices = {0: _device("")}
            for region in self._regions:
                _ip("netns", "add", self._name(region), check=True)
                stack.callback(_ip, "netns", "del", self._name(region))
                devices[self._number(region)] = _device(self._name(region))
            self._pipe: Connection = stack.enter_context(_routing(devices, self._delays, self._loss))
            for fd in devices.values():
                os.close(fd)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.send(None)
        self._stack.__exit__(kind, error, trace)

    def address(self, region: str) -> str:
        """Return the address of a region."""
        return f"{_NETWORK}.{self._number(region)}.1"

    def within(self, region: str) -> list[str]:
        """Return the words before a command that shall run in this region."""
        return ["ip", "netns", "exec", self._name(region)]

    def cut(self, *regions: str) -> None:
        """Drop all packets between each of these regions and every other region."""
        self._pipe.send({self._number(region) for region in regions})
        self._pipe.recv()

    def mend(self) -> None:
        """Deliver packets again."""
        self.cut()

    def _number(self, region: str) -> int:
        return self._regions.index(region) + 1

    def _name(self, region: str) -> str:
        return f"geocast-{os.getpid()}-{self._number(region)}"


def _ip(*words: str, check: bool = False) -> bool:
    try:
        return subprocess.run(["ip", *words], check=check, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _device(namespace: str) -> int:
    """Make a TUN device with an address in a namespace ("" for this one), and return its file."""
    number = int(namespace.rpartition("-")[2] or 0)
    name = f"geocast{number}-{os.getpid() % 10_000}"
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    if namespace:
        _ip("link", "set", name, "netns", namespace, check=True)
    inside = ("-n", namespace) if namespace else ()
    _ip(*inside, "link", "set", "lo", "up", check=True)
    _ip(*inside, "address", "add", f"{_NETWORK}.{number}.1/16", "dev", name, check=True)
    _ip(*inside, "link", "set", name, "mtu", str(_MTU), "txqueuelen", "10000", "up", check=True)
    return fd


@contextlib.contextmanager
def _routing(devices: Mapping[int, int], delays: Mapping[tuple[int, int], float], loss: float):  # type: ignore[no-untyped-def]
    """Run the process that moves packets; yield a pipe that takes the set of regions that are cut off."""
    from multiprocessing import get_context

    pipe, other = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_route, args=(devices, delays, loss, other), daemon=True)
    process.start()
    other.close()
    try:
        yield pipe
        process.join(processes.PATIENCE_S)
    finally:
        process.kill()


def _route(devices: Mapping[int, int], delays: Mapping[tuple[int, int], float], loss: float, pipe: Connection) -> None:
    """Move packets between the devices until None comes from the pipe."""
    dice, cut = random.Random(1), set[int]()
    waiting: list[tuple[float, int, int, bytes]] = []  # when, a running number, the target, the packet
    count = 0
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        for number, fd in devices.items():
            selector.register(fd, selectors.EVENT_READ, number)
        while True:
            pause_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in selector.select(pause_s):
                if key.fileobj is pipe:
                    if (said := pipe.recv()) is None:
                        return
                    cut = said
                    pipe.send(None)
                    continue
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(key.fd, _MTU + 100):
                        target = packet[18] if packet[0] >> 4 == 4 else -1  # the third byte of the address
                        delay_s = delays.get((key.data, target), 0.0)
                        lost = delay_s and (dice.random() < loss or cut & {key.data, target})
                        if target in devices and not lost:
                            heapq.heappush(waiting, (time.monotonic() + delay_s, count, target, packet))
                            count += 1
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(waiting)
                with contextlib.suppress(OSError):  # a full queue loses packets, as a router does
                    os.write(devices[target], packet)
