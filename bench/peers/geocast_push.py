"""A process of `geocast push` as an operator would run it, with any number of devices."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import h3
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import processes
from bench.peers.geocast import Geocast
from bench.peers.push_service import HOST, PushServices
from bench.places import Places
from geocast.push.delivery_journal import DeliveryJournal
from geocast.push.device_repository import DeviceRepository
from geocast.push.devicestore.sqlite import SqliteDevices
from geocast.push.encryption import Record, make_push_key, parse_push_keys
from geocast.push.shards import StaticShards
from geocast.push.webpush import make_vapid_key, parse_vapid

CONTACT = "mailto:bench@city.example"
CELL, LEASE_MS = 9, 30 * 86_400_000
START_S = 300.0
_MEMORY = Path("/dev/shm")


class Population:
    """A store of registered push devices, which simulate the phones of many people, and the keys of that store.

    Each push process works on a copy of the store.
    """

    def __init__(self, home: Path, services: PushServices, places: Places, show: Callable[[int], None]) -> None:
        """Make one device for each place.

        A device has a key pair of its own, and is registered for the H3 cell of resolution 9 that contains the place.
        """
        self.home = Path(tempfile.mkdtemp(prefix="population-", dir=home))
        self.services = services
        self.size = len(places)
        self.push_keys, self.vapid = self.home / "push.jwks", self.home / "vapid.jwks"
        self.push_keys.write_text(json.dumps({"keys": [make_push_key("bench")]}))
        self.vapid.write_text(json.dumps({"keys": [make_vapid_key("bench")]}))
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else self.home) as there:
            path = Path(there) / "devices.db"
            asyncio.run(self._fill(path, places, show))
            shutil.move(path, self.home / "devices.db")

    def copy_to(self, path: Path) -> None:
        """Copy the device store to `path`."""
        shutil.copy(self.home / "devices.db", path)

    async def _fill(self, path: Path, places: Places, show: Callable[[int], None]) -> None:
        keyring = parse_push_keys(self.push_keys.read_bytes(), self.push_keys)
        public = parse_vapid(self.vapid.read_bytes(), self.vapid)[0].public
        store = SqliteDevices(path)
        await store.start()
        records = DeviceRepository(store, DeliveryJournal(store, StaticShards()), keyring)
        for at in range(self.size):
            where = places.to_map(at)
            cell = h3.latlng_to_cell(where["lat"], where["lng"], CELL)
            record = _record(at, self.services.endpoint(at), public, cell)
            await store.put(records.sealed(record, int(time.time() * 1000) + LEASE_MS), None)
            if at % 100 == 99:
                show(at + 1)
        await store.stop()


def _record(at: int, endpoint: str, vapid: str, cell: str) -> Record:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return Record(
        id=f"device-{at:012}",
        sub=f"phone-{at}",
        endpoint=endpoint,
        p256dh=key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        auth=os.urandom(16),
        vapid=vapid,
        topic_key=os.urandom(32),
        secret=os.urandom(32),
        cells=(cell,),
        categories=None,
        min_severity="minor",
        languages=("en",),
        proofs=False,
        may_test=False,
        issued_at_s=time.time(),
        expires_at_ms=int((time.time() + 3600) * 1000),
        kid="bench",
    )


class GeocastPush:
    """One `geocast push` process for a node. It works on its own copy of a population's device store.

    Use it in a `with` statement.
    """

    def __init__(self, node: Geocast, population: Population, cpus: Iterable[int]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="push-", dir=node.home))
        self._cpus = frozenset(cpus)
        listen, self._metrics = processes.free_ports(2)
        population.copy_to(self.home / "devices.db")
        services = population.services
        store = f"sqlite:{self.home / 'devices.db'}"
        self._command = [
            *("env", f"SSL_CERT_FILE={services.certificate}", sys.executable, "-m", "geocast", "push"),
            *("--log", node.log(), "--keys", node.home / "keys.jwks", "--devices", store),
            *("--push-keys", population.push_keys, "--vapid", population.vapid, "--contact", CONTACT),
            *("--push-services", ",".join(f"{HOST}:{port}" for port in services.ports), "--push-private", HOST),
            *("--listen", f"127.0.0.1:{listen}", "--metrics", f"127.0.0.1:{self._metrics}"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process, and wait until it has loaded all devices."""
        self._process = processes.start(self._command, self._cpus, self.home / "output.txt", cwd=self.home)
        processes.wait_until(self._ready, "geocast push is ready", START_S)

    def _ready(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            words = (self.home / "output.txt").read_text(errors="replace")[-500:].strip()
            raise processes.Unavailable(f"geocast push has ended: {words}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process:
            processes.stop(self._process, signal.SIGKILL)

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used so far, in seconds."""
        return processes.cpu_s([self._pid])

    def waited_s(self) -> float:
        """Return the seconds in which the process was ready to run but others had its core."""
        return processes.waited_s([self._pid])

    def rss_bytes(self) -> int:
        """Return the resident memory of the process in bytes."""
        return processes.rss_bytes([self._pid])

    @property
    def _pid(self) -> int:
        assert self._process
        return self._process.pid
