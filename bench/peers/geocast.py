"""geocast itself: one node as an operator would run it, with keys and a SQLite log."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import click
import jwt
import numpy as np
from jwt import PyJWK
from websockets.sync.client import connect

from bench import forbid, processes
from bench.clients.http import Poster
from bench.clients.websocket import PATH, SUBPROTOCOL, Joining, Made, handshake, masked
from bench.peers.base import Payload, System, alert_id, next_number
from bench.places import CENTRE, Places, offset
from geocast.auth.tokens import AUDIENCE, make_key

LIFETIME_S = 3600
RADIUS_M = 15_000.0
# To reach the wanted size of an alert, its description is filled with characters of up to four bytes. It can have 1,000
# characters. For still larger alerts, the area is a polygon with many corners, so the policy must allow polygons.
PLAIN_BYTES, PADDING, MOST_CORNERS, CORNER_BYTES = 1_400, 1_000, 499, 22
POLICY = 'name = "bench"\n[categories]\nrobbery = { title = "Robbery", polygons = true }\n'
START_S = 120.0  # time for all processes of a node to become ready
READY = '"welcome"'  # text in the frame that shows that a session has joined
MOVED_DEGREES = 0.0001  # 11 m to the north


class Geocast(System):
    """One node of geocast.

    `payload_bytes` is the size that the frame of an alert should have, 15,000 at most. The description is made as long
    as necessary; above 1,400 bytes the area is a polygon with as many corners as necessary. `workers` is the number of
    stream processes. `heartbeat_s` is the number of seconds without a write after which the node pings a session.
    """

    name = "geocast"

    def __init__(
        self, home: Path, cpus: Iterable[int], payload_bytes: int = 400, workers: int = 1, heartbeat_s: int = 25
    ) -> None:
        super().__init__(home, cpus)
        private, public = make_key("bench")
        self._key = PyJWK(dict(private))  # made only once, because it may have to sign a million tokens
        (self.home / "keys.jwks").write_text(json.dumps({"keys": [public]}))
        desk = self.token("desk", ["alerts:publish", "alerts:manage"])
        self.headers = {"Authorization": f"Bearer {desk}", "Content-Type": "application/json"}
        self._poster = Poster(self.control_port)
        self._payload_bytes = payload_bytes
        self._options = ["--workers", str(workers), "--heartbeat-s", str(heartbeat_s)]
        self._description = ""
        self._corners = 0
        if payload_bytes > PLAIN_BYTES:
            (self.home / "policy.toml").write_text(POLICY)
            self._options += ["--policy", str(self.home / "policy.toml")]

    def command(self) -> Sequence[str | Path]:
        """Return the command `geocast serve` with its options."""
        listeners = ("--stream", f"127.0.0.1:{self.port}", "--api", f"127.0.0.1:{self.control_port}")
        store = ("--log", self.log(), "--keys", self.home / "keys.jwks")
        return [sys.executable, "-m", "geocast", "serve", *listeners, *store, *self._options]

    def log(self) -> str:
        """Return the URL of the node's log."""
        return f"sqlite:{self.home / 'geocast.db'}"

    def __exit__(self, *exc: object) -> None:
        self._poster.close()
        super().__exit__(*exc)

    def start(self) -> None:
        """Start the node, and wait until it is ready."""
        super().start()
        processes.wait_until(self._ready, "geocast is ready", START_S)

    def _ready(self) -> bool:
        try:
            return self.metrics().get("geocast_ready") == 1.0
        except (OSError, urllib.error.URLError):
            return False

    def metrics(self) -> dict[str, float]:
        """Return the values that the node reports at /metrics, by the names of the metrics with their labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    # ---- what sessions send --------------------------------------------------------------------------------------

    def token(self, sub: str, scopes: Sequence[str] = ("alerts:receive",), quals: Sequence[str] = ()) -> str:
        """Return an EdDSA token for the subject `sub`, with these scopes and qualifications."""
        now_s = int(time.time())
        claims = {"aud": AUDIENCE, "sub": sub, "scope": " ".join(scopes), "iat": now_s, "exp": now_s + LIFETIME_S}
        claims |= {"quals": [*quals]} if quals else {}
        return jwt.encode(claims, self._key, "EdDSA", {"kid": self._key.key_id})

    def joining(self, places: Places, holding: Mapping[str, int] | None = None) -> Joining:
        """Return what clients send to join. Each session has its own place and token.

        If `holding` is given, a session sends it when it reconnects: it lists the alerts that the session already has,
        each with its revision.
        """
        first, later = [], []
        for at in range(len(places)):
            hello = self._hello(places, at)
            first.append(masked(json.dumps(hello).encode()))
            if holding:
                later.append(masked(json.dumps(hello | {"holding": dict(holding)}).encode()))
        return Joining(handshake(self.port, PATH, SUBPROTOCOL), first, READY, later)

    def joining_and_moving(self, places: Places) -> Joining:
        """Return the messages with which clients join, and those with which they move by 11 m when they are told to.

        Each session has its own place and token. The messages are made only when they are needed, because there may be
        a million sessions.
        """

        def hello(at: int) -> bytes:
            return masked(json.dumps(self._hello(places, at)).encode())

        def move(at: int) -> bytes:
            there = places.to_map(at)
            there["lat"] = round(there["lat"] + MOVED_DEGREES, 7)
            return masked(json.dumps({"type": "move", "places": [there]}).encode())

        first, later = Made(len(places), hello), Made(len(places), move)
        return Joining(handshake(self.port, PATH, SUBPROTOCOL), first, READY, later)

    def _hello(self, places: Places, at: int) -> dict[str, Any]:
        return {"type": "hello", "token": self.token(f"phone-{at}"), "places": [places.to_map(at)]}

    # ---- publishing alerts ---------------------------------------------------------------------------------------

    def publish(self, number: int, **options: Any) -> None:
        """Publish alert number `number` over HTTP. Raise ClickException if the node does not accept it."""
        status, answer = self._poster.post("/v1/alerts", self.body(number, **options), self.headers)
        if status != 201:
            raise click.ClickException(f"the alert was refused with {status}: {answer[:300]!r}")

    def body(
        self, number: int, severity: str = "severe", radius_m: float = RADIUS_M, lifetime_s: float = LIFETIME_S
    ) -> bytes:
        """Return the JSON body of the request that publishes alert number `number`."""
        time_now = datetime.now(UTC)
        now = time_now.isoformat(timespec="milliseconds")
        alert = {
            "id": alert_id(number),
            "category": "robbery",
            "headline": "Robbery reported near you",
            "severity": severity,
            "threat": "community",
            "occurred_at": now,
            "expires_at": (time_now + timedelta(seconds=lifetime_s)).isoformat(timespec="milliseconds"),
            "area": _ring(self._corners, radius_m) if self._corners else _circle(radius_m),
            "approval": {"reviewer": "bench", "approved_at": now},
        }
        if self._description:
            alert["description"] = self._description
        return json.dumps(alert).encode()

    def take_sample(self) -> Payload:
        """Adjust the alerts published from now on to the requested size; return the payload of such an alert.

        To find the payload and its size, two alerts are published, received and cancelled.
        """
        self._description = ""
        if self._payload_bytes > PLAIN_BYTES:
            self._corners = min(MOST_CORNERS, (self._payload_bytes - PLAIN_BYTES // 2) // CORNER_BYTES)
        missing = self._payload_bytes - len(self._sample()) - len(',"description":""')
        wide = min(PADDING, max(0, missing - PADDING + 2) // 3)  # each is three bytes longer than the letter x
        self._description = "🌊" * wide + "x" * min(PADDING - wide, max(0, missing - 4 * wide))
        number = next_number()
        return Payload(self._sample(number), alert_id(number))

    def _sample(self, number: int | None = None) -> bytes:
        number = next_number() if number is None else number
        hello = {
            "type": "hello",
            "token": self.token("sampler"),
            "places": [{"lat": CENTRE[0], "lng": CENTRE[1]}],
        }
        with connect(f"ws://127.0.0.1:{self.port}{PATH}", subprotocols=[SUBPROTOCOL], compression=None) as session:
            session.send(json.dumps(hello))
            self.publish(number)
            while alert_id(number) not in (text := session.recv(timeout=10, decode=True)):
                pass
        self.cancel(number)  # so that sessions that join later don't get it
        return text.encode()

    def cancel(self, number: int) -> None:
        """Cancel alert number `number`, which must not have been revised."""
        approval = {"reviewer": "bench", "approved_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        body = json.dumps({"revision": 2, "reason": "called off", "approval": approval}).encode()
        status, answer = self._poster.post(f"/v1/alerts/{alert_id(number)}/cancel", body, self.headers)
        assert status == 201, answer

    def kill(self) -> None:
        """Kill all processes at once, because draining a million sessions would take minutes."""
        for pid in self.pids():  # the supervisor is killed first, because it would restart killed processes
            os.kill(pid, signal.SIGKILL)


class GeocastInContainer(Geocast):
    """Like Geocast, but with the system call io_uring_setup forbidden, as it is in a container."""

    name = "geocast in a container"
    lacks = "no io_uring, as in the default profiles of Docker and containerd"
    forbidden: ClassVar[Sequence[str]] = (forbid.IO_URING,)

    def command(self) -> Sequence[str | Path]:
        """Return the command `geocast serve`, run by forbid.py."""
        return [sys.executable, forbid.__file__, ",".join(self.forbidden), *super().command()]


class GeocastByTransports(GeocastInContainer):
    """Like GeocastInContainer, but with Linux AIO forbidden as well.

    This makes the node send to one session after the other, as every node did before ADR 6.
    """

    name = "geocast one by one"
    lacks = "no io_uring and no Linux AIO, so that each send is a system call of its own"
    forbidden = (forbid.IO_URING, forbid.AIO)


class GeocastOnRedis(Geocast):
    """Like Geocast, but with the log in a Redis of its own, which syncs each alert to disk.

    The CPU of Redis is not counted.
    """

    name = "geocast on redis"
    lacks = "the CPU of its Redis is not counted"

    def start(self) -> None:
        """Start Redis, then the node."""
        (self._log_port,) = processes.free_ports(1)
        options = ["--port", str(self._log_port), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        program = processes.find_program("redis-server")
        self._redis = processes.start([program, *options], self.cpus, self.home / "redis.txt", cwd=self.home)
        processes.wait_until(lambda: processes.listens(self._log_port), "redis-server listens")
        super().start()
        self.take_sample()

    def log(self) -> str:
        """Return the URL of the log in Redis."""
        return f"redis://127.0.0.1:{self._log_port}"

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if hasattr(self, "_redis"):
            processes.stop(self._redis)


def _circle(radius_m: float) -> dict[str, Any]:
    return {"type": "circle", "lat": CENTRE[0], "lng": CENTRE[1], "radius_m": radius_m}


def _ring(corners: int, radius_m: float) -> dict[str, Any]:
    """Return a closed ring around the centre, whose edges are nowhere nearer to the centre than `radius_m`."""
    turn = np.append(np.arange(corners), 0) * 2 * np.pi / corners
    far_m = radius_m / np.cos(np.pi / corners)
    lat, lng = offset(*CENTRE, far_m * np.sin(turn), far_m * np.cos(turn))
    return {"type": "Polygon", "coordinates": [np.column_stack([lng, lat]).round(6).tolist()]}
