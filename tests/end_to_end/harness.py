"""A node as its users see it: a process, its api, its stream. Nothing of the server is imported here.

`Keys` signs tokens, good ones and others; `Node` runs `geocast serve`; `Session` is one subscriber.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.earth import Point
from end_to_end.wire import DATA_OPCODE, PATIENCE, Closed, Wire, decode, encode
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode
from schemas import ApiAnswers, check_client_message

BIN = Path(sys.executable).parent
EVERY_SCOPE = "alerts:publish alerts:manage alerts:receive alerts:test"
DESK_SCOPE = "alerts:publish"
PHONE_SCOPE = "alerts:receive"
ORIGIN = "https://app.example"
SEVERITIES = ("extreme", "severe", "moderate", "minor")
FORMATS = ("json", "msgpack")

SURPRISE = re.compile(r"Traceback|ERROR .* failed: \w+$", re.MULTILINE)
"""What a process writes about an error that its code does not foresee: Python's words, or its own."""

Json = dict[str, Any]


# -- time


def now() -> dt.datetime:
    """The wall clock, in UTC."""
    return dt.datetime.now(dt.UTC)


def stamp(moment: dt.datetime | None = None, **later: float) -> str:
    """A moment (now by default) and a timedelta later, as the contract writes times."""
    text = ((moment or now()) + dt.timedelta(**later)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment(text: str) -> dt.datetime:
    """A time that the server wrote: UTC with `Z` and milliseconds, or it fails."""
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC)


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    """Poll until something is true; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := holds()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.02)
    return value


# -- alerts

_numbers = itertools.count(1)


def new_id(prefix: str = "alert") -> str:
    """An id that no other alert of this run has; letters only, so that it looks like no coordinate."""
    letters, number = "", next(_numbers)
    while number:
        number, digit = divmod(number, 26)
        letters += chr(ord("a") + digit)
    return f"{prefix}-{letters}"


def _grid(south: float, north: float, step_lat: float, step_lng: float) -> Iterable[Point]:
    lats = int((north - south) / step_lat)
    lngs = int(350 / step_lng)
    return ((south + i * step_lat, -175 + j * step_lng) for j in range(lngs) for i in range(lats))


_grounds = iter(_grid(-58, 58, 2, 4))
_beacons = iter(_grid(62, 66, 0.1, 0.2))


def ground() -> Point:
    """A spot of its own for a test, 200 km from every other: nobody else's alert is heard there."""
    return next(iter(_grounds))


def circle(spot: Point, radius_m: float = 800) -> Json:
    """A circle around a spot."""
    return {"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": radius_m}


def place(spot: Point, **fields: Any) -> Json:
    """An exact place at a spot, or one with `accuracy_m`."""
    return {"lat": spot[0], "lng": spot[1], **fields}


def approval(**fields: Any) -> Json:
    """An approval half a minute old."""
    return {"reviewer": "desk-lead", "approved_at": stamp(seconds=-30), **fields}


def alert(spot: Point, **fields: Any) -> Json:
    """A good alert about a burglary a minute ago; a field of `None` is left out."""
    body = {
        "id": new_id(),
        "category": "burglary",
        "headline": "Burglary nearby",
        "severity": "moderate",
        "threat": "community",
        "occurred_at": stamp(seconds=-60),
        "area": circle(spot),
        "approval": approval(),
    } | fields
    return {name: value for name, value in body.items() if value is not None}


def revision_of(body: Json, number: int, **fields: Any) -> Json:
    """The next revision of an alert: same content but for the fields that are given."""
    return body | {"revision": number, "headline": f"Burglary nearby, revision {number}"} | fields


def cancel_body(number: int, **fields: Any) -> Json:
    """A cancel that takes a number."""
    return {"revision": number, "reason": "False alarm", "approval": approval(), **fields}


# -- keys and tokens


class Keys:
    """An Ed25519 pair under `kid` "ed" and an HS256 secret under "hs"; tokens of every sort."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.stranger = Ed25519PrivateKey.generate()
        self.secret = os.urandom(64)

    def jwks(self) -> Json:
        """The key file's content."""
        public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        secret = {"kty": "oct", "k": base64url_encode(self.secret).decode()}
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": public["x"], "kid": "ed", "alg": "EdDSA"},
                {**secret, "kid": "hs", "alg": "HS256"},
            ]
        }

    def claims(self, **changes: Any) -> Json:
        """Good claims for ten minutes; a change of `None` takes one away."""
        good = {
            "aud": "geocast",
            "sub": "desk-one",
            "exp": int(time.time()) + 600,
            "scope": EVERY_SCOPE,
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, **changes: Any) -> str:
        """A good token, but for the claims that are changed."""
        return self.signed(self.claims(**changes))

    def signed(self, claims: Json, key: Any = None, alg: str = "EdDSA", kid: Any = "ed") -> str:
        """A token over any claims, with any key, algorithm and `kid`."""
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(claims, key or self.private, algorithm=alg, headers=headers)

    def bad_tokens(self) -> dict[str, str]:
        """Everything that can be wrong with a token, by name (section 6)."""
        soon, past = int(time.time()) + 600, int(time.time()) - 1
        good = self.token()
        head, body, signature = good.split(".")
        public = self.private.public_key().public_bytes_raw()
        unsigned = jwt.encode(self.claims(), None, algorithm="none", headers={"kid": "ed"})
        return {
            "forged": self.signed(self.claims(), key=self.stranger),
            "expired": self.token(exp=past),
            "expired long ago": self.token(exp=1),
            "not yet": self.token(nbf=soon),
            "wrong aud": self.token(aud="geocast2"),
            "aud in capitals": self.token(aud="GEOCAST"),
            "aud list without us": self.token(aud=["other", "geo"]),
            "empty aud list": self.token(aud=[]),
            "no aud": self.token(aud=None),
            "no sub": self.token(sub=None),
            "no exp": self.token(exp=None),
            "exp is text": self.token(exp="tomorrow"),
            "sub is a number": self.token(sub=12),
            "no kid": self.signed(self.claims(), kid=None),
            "unknown kid": self.signed(self.claims(), kid="other"),
            "alg none": unsigned,
            "alg none, old signature": f"{unsigned.split('.')[0]}.{body}.{signature}",
            "HS256 with the public key": self.signed(self.claims(), key=public, alg="HS256"),
            "HS256 key under the EdDSA kid": self.signed(self.claims(), key=self.secret, alg="HS256"),
            "EdDSA key under the HS256 kid": self.signed(self.claims(), kid="hs"),
            "HS512 where the key says HS256": self.signed(self.claims(), key=self.secret, alg="HS512", kid="hs"),
            "over 4 KiB": self.token(pad="x" * 4096),
            "no signature": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "four parts": f"{good}.{signature}",
            "another body": f"{head}.{self.token(sub='desk-two').split('.')[1]}.{signature}",
            "not a token": "seventy-three",
        }


# -- the node


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has, below those that the kernel gives to connections by itself (from 32768 on).

    So nobody takes the port of what is down for a while.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def is_running(pid: int) -> bool:
    """Whether a process is there, and more than an exit status that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of geocast, and with those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GEOCAST_")}
    return kept | settings


class Node:
    """`geocast serve` as a process of its own, on loopback, with keys and a SQLite log in `home`."""

    def __init__(self, home: Path, keys: Keys | None = None, *options: str, log: str | None = None, **settings: str):
        self.keys = keys or Keys()
        self.home = home
        self.stream_port, self.api_port = free_ports(2)
        self.output_file = home / "output.txt"
        self.log_file = home / "geocast.db"
        key_file = home / "keys.json"
        key_file.write_text(json.dumps(self.keys.jwks()))
        self.options = [
            *("--stream", f"127.0.0.1:{self.stream_port}"),
            *("--api", f"127.0.0.1:{self.api_port}"),
            *("--log", log or f"sqlite:{self.log_file}"),
            *("--keys", str(key_file)),
            *options,
        ]
        self.settings = settings
        self.launcher: list[str] = []
        self.areas: dict[str, list[Json]] = {}
        self.desk = self.keys.token(scope=DESK_SCOPE)
        self.process: subprocess.Popen[bytes] | None = None
        self._judged = 0

    def __enter__(self) -> Node:
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", timeout=PATIENCE, trust_env=False)
        try:
            self.start()
            answers = ApiAnswers(self.api.get("/openapi.json").json())
        except BaseException:
            self.__exit__()
            raise
        self.api.event_hooks["response"].append(lambda response: check_answer(answers, response))
        return self

    def __exit__(self, *exc: object) -> None:
        self.api.close()
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.launch()
        wait_until(self._ready, "/readyz is 200")

    def launch(self) -> None:
        """Start the process."""
        with self.output_file.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.launcher, BIN / "geocast", "serve", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(**self.settings),
                cwd=self.home,
            )

    def _ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"the node ended by itself:\n{self.output()}"
        try:
            return self.api.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def output(self) -> str:
        """All that the process wrote to stdout and stderr."""
        return self.output_file.read_text(errors="replace")

    def kill(self) -> None:
        """Signal 9 to all its processes, and wait until their ports are free: no last words."""
        if self.process:
            children = self.signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            wait_until(lambda: not any(map(is_running, children)), "all its processes have ended")

    def signal(self, number: int) -> list[int]:
        """A signal to all its processes, if there are any left; those that the first one has started."""
        assert self.process
        if self.process.poll() is not None:
            return []
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no others meanwhile
        children = self.children()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.process.send_signal(number)
        if number != signal.SIGSTOP:
            self.process.send_signal(signal.SIGCONT)
        return children

    def children(self) -> list[int]:
        """The processes that the first one has started, with `--workers`."""
        assert self.process
        with contextlib.suppress(FileNotFoundError):
            pid = self.process.pid
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def restart(self) -> None:
        """Kill it and start it again on the same log and ports."""
        self.kill()
        self.start()

    # -- api

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """GET with the desk's token, or another."""
        return self.api.get(path, headers=bearer(token or self.desk))

    def post(self, path: str, body: Any, token: str | None = None, **params: str) -> httpx.Response:
        """POST a body as JSON with the desk's token, or another."""
        return self.api.post(path, json=body, params=params, headers=bearer(token or self.desk))

    def at_once(self, path: str, bodies: list[Json]) -> list[httpx.Response]:
        """POST all bodies at the same time, each on a connection of its own."""

        async def post_all() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=len(bodies))
            async with httpx.AsyncClient(
                base_url=self.api.base_url, timeout=PATIENCE, limits=limits, trust_env=False
            ) as api:
                posts = [api.post(path, json=body, headers=bearer(self.desk)) for body in bodies]
                return await asyncio.gather(*posts)

        return asyncio.run(post_all())

    def publish(self, body: Json, token: str | None = None) -> Json:
        """Publish revision 1, which must work; its answer."""
        return self._kept(self.post("/v1/alerts", body, token))

    def revise(self, body: Json, token: str | None = None) -> Json:
        """Publish the next revision, which must work; its answer."""
        return self._kept(self.post(f"/v1/alerts/{body['id']}/revisions", body, token))

    def cancel(self, alert_id: str, number: int, token: str | None = None) -> Json:
        """Cancel, which must work; its answer."""
        answer = self.post(f"/v1/alerts/{alert_id}/cancel", cancel_body(number), token)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def _kept(self, answer: httpx.Response) -> Json:
        assert answer.status_code == 201, answer.text
        body = answer.json()
        self.areas[body["id"]] = body["area"]
        return body

    def state(self, alert_id: str) -> Json:
        """`GET /v1/alerts/{id}`, which must work."""
        answer = self.get(f"/v1/alerts/{alert_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait_for_end(self, alert_id: str) -> None:
        """Wait until the node says that an alert has expired."""
        wait_until(lambda: self.state(alert_id)["state"] == "expired", f"{alert_id} expires")

    def wait_for_counts(self, alert_id: str, **counts: int) -> None:
        """Wait until the delivery counts, which may lag 5 s, are these."""
        wait_until(lambda: self.state(alert_id)["delivery"] == counts, f"{alert_id} counts {counts}")

    # -- stream

    def join(self, *places: Json, fmt: str = "json", **hello: Any) -> Session:
        """A subscriber that has been welcomed."""
        session = Session(self, fmt)
        try:
            session.hello(places, **hello)
        except BaseException:
            session.drop()
            raise
        return session

    def settle(self) -> None:
        """Wait until the node has read its log as far as a beacon that is published now.

        A 201 does not wait for delivery. A beacon that has been delivered shows that every entry
        before it has been read; what a session is owed of those is sent by its next `ok`.
        """
        spot = next(iter(_beacons))
        beacon = self.publish(alert(spot, id=new_id("beacon"), area=circle(spot, 100)))["id"]
        with self.join(place(spot)) as watcher:
            watcher.listen(beacon, 1)

    def assert_serving(self) -> None:
        """The node goes on serving: a good session still works, and nothing has crashed since last asked."""
        assert self.process
        assert self.process.poll() is None, self.output()
        self.settle()
        self.assert_no_surprise()

    def assert_no_surprise(self) -> None:
        """Nothing has come upon an error that its code does not foresee, since last asked."""
        output = self.output()
        since, self._judged = self._judged, len(output)
        surprises = SURPRISE.search(output, since)
        assert surprises is None, output[since:]


def check_answer(answers: ApiAnswers, response: httpx.Response) -> None:
    """Hold an answer of the api against its own OpenAPI document."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    request = response.request
    answers.check(request.method, request.url.path, response.status_code, media_type, response.read())


def bearer(token: str | None) -> dict[str, str]:
    """The Authorization header."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


# -- the subscriber

TOKEN_OF_KEYS = object()


class Session:
    """One subscriber on one connection: keeps all it was sent, in order."""

    def __init__(self, node: Node, fmt: str = "json", *, receive_buffer: int | None = None) -> None:
        self.node, self.fmt = node, fmt
        self.wire = Wire(node.stream_port, receive_buffer=receive_buffer)
        self.received: list[Json] = []
        self.frames: list[bytes] = []
        self.places: list[Json] = []
        self.welcome: Json = {}
        self.batch: list[Json] = []
        self._refs = itertools.count(1)
        answer = self.wire.upgrade(f"geocast.v1.{fmt}")
        if answer.status != 101:
            self.drop()
            raise AssertionError(f"handshake: {answer}")
        assert answer.headers["sec-websocket-protocol"] == f"geocast.v1.{fmt}"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Hang up without a word."""
        self.wire.sock.close()

    def leave(self) -> int:
        """Close as the protocol says, and read what was still under way; the code."""
        self.wire.send(0x8, b"\x03\xe8")
        try:
            while True:
                self.take()
        except Closed as closed:
            return closed.code
        finally:
            self.drop()

    # -- sending

    def say(self, message: Any) -> None:
        """Send one message, whatever it is."""
        self.wire.send(DATA_OPCODE[self.fmt], encode(self.fmt, message))

    def hello(
        self, places: Iterable[Json] = (), token: Any = TOKEN_OF_KEYS, scope: str = PHONE_SCOPE, **fields: Any
    ) -> None:
        """Say hello and take the welcome and what follows it."""
        self.places = list(places)
        if token is TOKEN_OF_KEYS:
            token = self.node.keys.token(sub="phone", scope=scope)
        signed = {} if token is None else {"token": token}
        hello = {"type": "hello", "places": self.places, **signed, **fields}
        self.say(hello)
        self.welcome = self.take()
        assert self.welcome["type"] == "welcome", self.welcome
        check_client_message(hello)
        self.batch = self._announced(self.welcome)

    def ask(self, kind: str, **fields: Any) -> Json:
        """Send a message with a `ref` and take its answer, and what follows an `ok`."""
        ref = next(self._refs)
        message = {"type": kind, "ref": ref, **fields}
        self.say(message)
        while (answer := self.take()).get("ref") != ref:
            assert answer["type"] in ("alert", "cancel"), answer
        if answer["type"] != "error":
            check_client_message(message)
        self.batch = self._announced(answer)
        return answer

    def move(self, *places: Json) -> Json:
        """Go elsewhere; the `ok`."""
        answer = self.ask("move", places=list(places))
        assert answer["type"] == "ok", answer
        self.places = list(places)
        return answer

    def filter(self, **fields: Any) -> Json:
        """Change the filter; the `ok`."""
        answer = self.ask("filter", **fields)
        assert answer["type"] == "ok", answer
        return answer

    def renew(self, scope: str) -> Json:
        """Send a fresh token of another scope for the same `sub`; the `ok`."""
        answer = self.ask("token", token=self.node.keys.token(sub="phone", scope=scope))
        assert answer["type"] == "ok", answer
        return answer

    def ack(self, alert_id: str, revision: int) -> None:
        """Acknowledge."""
        message = {"type": "ack", "id": alert_id, "revision": revision}
        check_client_message(message)
        self.say(message)

    # -- receiving

    def take(self) -> Json:
        """The next message."""
        got = self.wire.recv_data()
        assert got.opcode == DATA_OPCODE[self.fmt], got
        message = decode(self.fmt, got.payload)
        if message["type"] in ("alert", "cancel"):
            self.received.append(message)
            self.frames.append(got.payload)
        return message

    def _announced(self, answer: Json) -> list[Json]:
        batch = [self.take() for _ in range(answer.get("live", 0))]
        assert [rank(m) for m in batch] == sorted(rank(m) for m in batch), "cancels, then the most severe"
        return batch

    def listen(self, alert_id: str, what: int | str) -> None:
        """Read until a revision, or the `cancel`, of an alert has come."""
        while what not in self.heard(alert_id):
            message = self.take()
            assert message["type"] in ("alert", "cancel"), message

    def heard(self, alert_id: str) -> list[int | str]:
        """What came of an alert, in order: revision numbers and "cancel"."""
        return [told(m)[1] for m in self.received if told(m)[0] == alert_id]

    def everything(self) -> list[tuple[str, int | str]]:
        """All that came, in order, as (id, revision or "cancel")."""
        return [told(message) for message in self.received]

    def catch_up(self) -> None:
        """Take all that the node owes this session by now."""
        self.node.settle()
        self.move(*self.places)


def revise_and_cancel(
    body: Json, revises: Node, cancels: Node, told: Iterable[Session], aside: Iterable[Session]
) -> None:
    """End the life of a published alert: each of `told` has heard all of it, once and in order; `aside` nothing."""
    told = list(told)
    revises.revise(revision_of(body, 2))
    for session in told:
        session.listen(body["id"], 2)
    cancels.cancel(body["id"], 3)
    for session in told:
        session.listen(body["id"], "cancel")
        assert session.heard(body["id"]) == [1, 2, "cancel"]
    for session in aside:
        session.catch_up()
        assert session.everything() == []


def told(message: Json) -> tuple[str, int | str]:
    """What a message tells: an id, with a revision or "cancel"."""
    if message["type"] == "cancel":
        return message["id"], "cancel"
    return message["alert"]["id"], message["alert"]["revision"]


def rank(message: Json) -> int:
    """A place in the order of a batch: cancels first, then by severity."""
    assert message["type"] in ("alert", "cancel"), f"nothing stands between: {message}"
    return -1 if message["type"] == "cancel" else SEVERITIES.index(message["alert"]["severity"])
