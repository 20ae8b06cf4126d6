"""A redis-server on a Unix socket, and a client with the few commands that the benchmark of GEOSEARCH needs."""

import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from bench import processes

KEY = b"places"
ADD_AT_ONCE = 1_000
EARTH_RADIUS_M = 6_372_797.560856  # the value of Redis (geohash_helper.c); radii are scaled to it


class Redis:
    """A redis-server that stores nothing on disk. Use it in a `with` statement."""

    def __init__(self, home: Path, cpus: Iterable[int]) -> None:
        self._home, self._cpus = home, cpus
        self._path = home / "redis.sock"

    def __enter__(self) -> Self:
        program = processes.find_program("redis-server")
        options = ["--port", "0", "--unixsocket", str(self._path), "--save", "", "--appendonly", "no"]
        self.process = processes.start([program, *options], self._cpus, self._home / "redis.txt", cwd=self._home)
        processes.wait_until(self._connect, "redis-server listens")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._socket.close()
        processes.stop(self.process)

    def _connect(self) -> bool:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(self._path))
        except OSError:
            self._socket.close()
            return False
        self._file = self._socket.makefile("rb", 1 << 20)
        return True

    def add(self, lat: NDArray[np.float64], lng: NDArray[np.float64]) -> Iterator[int]:
        """Add all places with GEOADD, each named by its index. Yield the number of places added so far."""
        for start in range(0, len(lat), ADD_AT_ONCE):
            words: list[bytes] = [b"GEOADD", KEY]
            for at in range(start, min(start + ADD_AT_ONCE, len(lat))):
                words += [b"%.9f" % lng[at], b"%.9f" % lat[at], b"%d" % at]
            self.call(words)
            yield min(start + ADD_AT_ONCE, len(lat))

    def move(self, number: int, lat: float, lng: float) -> None:
        """Move the place named `number` with GEOADD."""
        self.call([b"GEOADD", KEY, b"%.9f" % lng, b"%.9f" % lat, b"%d" % number])

    def search(self, lat: float, lng: float, radius_m: float) -> list[bytes]:
        """Return the names of the places inside a circle (GEOSEARCH), in Redis' own order."""
        where = [b"FROMLONLAT", b"%.9f" % lng, b"%.9f" % lat]
        return cast(list[bytes], self.call([b"GEOSEARCH", KEY, *where, b"BYRADIUS", b"%.6f" % radius_m, b"m"]))

    def server_us(self, command: str) -> float:
        """Return the median time in µs that Redis itself has spent on a command since the last `reset`."""
        for line in self.call([b"INFO", b"latencystats"]).decode().splitlines():
            if line.startswith(f"latency_percentiles_usec_{command}:"):
                return float(line.split("p50=")[1].split(",")[0])
        return 0.0

    def reset(self) -> None:
        """Reset the statistics of the redis-server."""
        self.call([b"CONFIG", b"RESETSTAT"])

    def call(self, words: Sequence[bytes]) -> Any:
        """Send one command, and return its answer, parsed according to RESP 2."""
        head = b"*%d\r\n" % len(words)
        self._socket.sendall(head + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        return self._answer()

    def _answer(self) -> Any:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        if kind == b"$":
            return self._file.read(int(rest) + 2)[:-2]
        return rest
