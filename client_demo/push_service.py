"""A push service like those of browsers and UnifiedPush (RFC 8030), and the phones behind it.

It runs on loopback with TLS in a thread of its own, and needs aiohttp.

    with PushService(make_certificate(Path("push-ca.pem"))) as service:
        phone = service.phone()  # phone.subscription() is for its registration
        service.until(lambda: phone.told)

For sleeping phones, the service stores the newest message of each Topic until its TTL has passed. It checks the
headers, the length and the sender (RFC 8292) of each push, and records all faults. The program that runs the service
can set its answers, for one phone or for all phones.

It differs from a real service: the program decides which phones are awake, accepted messages arrive at once, and nobody
else can subscribe.
"""

import asyncio
import datetime as dt
import json
import secrets
import ssl
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from client_demo.python.base64url import decoded
from client_demo.python.subscription import Subscription
from client_demo.python.wire import Message

HOST = "localhost"
SIZES = (3_000, 1_024)  # longest bodies: of most phones, and of phones that accept only small messages
CLOSING_TURNS = 10  # turns of the loop until every aborted transport with TLS is closed
HANG, RESET, LONG_HEAD = "hang", "reset", "long head"  # scripted failures in place of an answer
START_S = 20.0
A_DAY_S = 86_400

Answer = Any  # a status, (status, headers), HANG, RESET, LONG_HEAD, or a function of the phone that returns one


class TlsFiles(Protocol):
    """The paths of the files with a TLS certificate and its private key."""

    @property
    def crt(self) -> Path: ...

    @property
    def key(self) -> Path: ...


class Certificate(NamedTuple):
    """The files of a certificate and of its private key."""

    crt: Path
    key: Path


def make_certificate(path: Path, days: int = 1, names: Sequence[str] = (HOST,)) -> Certificate:
    """Make a certificate for these names in the file `path`, and its key in a file beside it (.key).

    The certificate is its own certificate authority.
    """
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(path, path.with_suffix(".key"))
    files.crt.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files.key.touch(mode=0o600)
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@dataclass(slots=True)
class Push:
    """A message that the service has accepted: its headers and its body. `at` is the time in s since 1970."""

    topic: str
    ttl_s: int
    urgency: str
    body: bytes
    at: float


class Phone:
    """A phone with a push subscription.

    `told` has the messages that the phone has read, in order. `on_told` is called with each of them, in the service's
    thread.
    """

    def __init__(
        self, service: "PushService", asleep: bool = False, on_told: Callable[[Message], object] | None = None
    ) -> None:
        self.name = secrets.token_urlsafe(24)
        self._keys = Subscription(f"https://{service.name}:{service.port}/push/{self.name}")
        self._on_told = on_told
        self.asleep = asleep
        self.kept: dict[str, Push] = {}  # unread messages by Topic, while the phone sleeps
        self.told: list[Message] = []
        self.requests: list[Push] = []  # all accepted pushes
        self.answers: list[Answer] = []  # the next answers for this phone, used before those of the service

    @property
    def endpoint(self) -> str:
        """The URL to which pushes for this phone are sent."""
        return self._keys.endpoint

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The private key of the phone, with which it decrypts messages."""
        return self._keys.private

    @property
    def auth(self) -> bytes:
        """The authentication secret of the phone's subscription, which belongs to the private key (RFC 8291)."""
        return self._keys.auth

    def subscription(self) -> dict[str, Any]:
        """Return the subscription in the format in which a browser gives it to a page."""
        return self._keys.to_map()

    def take(self, push: Push) -> None:
        """Read a message if the phone is awake, otherwise store it.

        A stored message is replaced by a newer one with the same Topic.
        """
        self.requests.append(push)
        self.kept.pop(push.topic, None)
        self.kept[push.topic] = push
        if not self.asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the phone, and read the stored messages that have not expired."""
        self.asleep = False
        kept, self.kept = self.kept, {}
        for push in kept.values():
            if time.time() <= push.at + push.ttl_s:
                self.told.append(self.read(push.body))
                if self._on_told is not None:
                    self._on_told(self.told[-1])

    def read(self, body: bytes) -> Message:
        """Return the decrypted message. Raise ValueError if it can't be decrypted."""
        return self._keys.read(body)

    def alerts(self) -> list[tuple[str, int]]:
        """Return the (id, revision) of each alert that was read, in order."""
        return [(m["alert"]["id"], m["alert"]["revision"]) for m in self.told if m["type"] == "alert"]

    def cancels(self) -> list[str]:
        """Return the ids of the alerts in all `cancel` messages that were read."""
        return [message["id"] for message in self.told if message["type"] == "cancel"]


@dataclass
class PushService:
    """A push service that listens on `port`, or on any free port.

    It answers requests with the entries of `answers` first, then with `always`, or with 201 if that is None. Entering
    the context manager raises OSError if the port is taken.
    """

    certificate: TlsFiles
    host: str = "127.0.0.1"
    always: Answer = None
    answers: list[Answer] = field(default_factory=list)
    phones: dict[str, Phone] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # the faults of pushes
    connections: int = 0  # connections that sent a request
    under_way: int = 0
    most_under_way: int = 0
    port: int = 0
    name: str = HOST  # host name of the endpoints

    phone_type = Phone

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self.changed = threading.Condition()
        self._started = threading.Event()
        self._trouble: OSError | None = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        if not self._started.wait(START_S):
            raise TimeoutError(f"the push service did not start within {START_S:g} s")
        if self._trouble is not None:
            raise self._trouble
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.call_soon_threadsafe(self.stopped.set)
        self.thread.join(START_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._main())
        self.loop.run_until_complete(_let_go())
        self.loop.close()

    async def _main(self) -> None:
        self.stopped = asyncio.Event()
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.certificate.crt, self.certificate.key)
        app = web.Application(client_max_size=8_192)
        app.router.add_post("/push/{name}", self._push)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, ssl_context=tls).start()
            self.port = runner.addresses[0][1]
            self._started.set()
            await self.stopped.wait()
        except OSError as error:
            self._trouble = error
            self._started.set()
        finally:
            open_ones = [handler.transport for handler in runner.server.connections] if runner.server else []
            await runner.cleanup()
            for transport in open_ones:
                if transport is not None:
                    transport.abort()

    async def _push(self, request: web.Request) -> web.Response:
        self.under_way += 1
        if request.transport not in self._seen:
            self._seen.add(request.transport)
            self.connections += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(request)
        finally:
            self.under_way -= 1
            with self.changed:
                self.changed.notify_all()

    async def _answer(self, request: web.Request) -> web.Response:
        self.headers = set(request.headers)
        body = await request.read()
        phone = self.phones.get(request.match_info["name"])
        if phone is None:
            return self._said(404)
        answer = next((answers.pop(0) for answers in (phone.answers, self.answers) if answers), self.always)
        if callable(answer):
            answer = answer(phone)
        if answer is HANG:
            await asyncio.sleep(3_600)
        if answer is RESET:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if answer is LONG_HEAD:
            return web.Response(status=201, headers={f"X-{n}": "x" * 1_000 for n in range(20)})
        status, headers = answer if isinstance(answer, tuple) else (answer or 201, {})
        if 200 <= status < 300:
            phone.take(self._checked(request, body))
        return self._said(status, headers)

    def _said(self, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
        self.statuses[status] += 1
        return web.Response(status=status, headers=headers)

    def _checked(self, request: web.Request, body: bytes) -> Push:
        """Return the push in a request, and record everything that is wrong with it."""
        headers = request.headers
        good = {
            "the length of the body": len(body) in SIZES,
            "Content-Encoding": headers.get("Content-Encoding") == "aes128gcm",
            "TTL": headers.get("TTL", "").isdigit() and int(headers["TTL"]) >= 1,
            "Urgency": headers.get("Urgency") in ("low", "normal", "high"),
            "Topic": len(headers.get("Topic", "")) == 32,
            "VAPID": self.knows(headers.get("Authorization", "")),
            "a cookie": "Cookie" not in headers,
        }
        self.wrong += [what for what, is_good in good.items() if not is_good]
        ttl = headers.get("TTL", "")
        ttl_s = int(ttl) if ttl.isdigit() else 0
        return Push(headers.get("Topic", ""), ttl_s, headers.get("Urgency", ""), body, time.time())

    def knows(self, authorization: str) -> bool:
        """Return whether this `Authorization` header proves who sent the push.

        The token in it must be for this service, and valid for at most a day (RFC 8292).
        """
        scheme, _, rest = authorization.partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        try:
            claims = _signed_claims(parts["t"], parts["k"])
        except (KeyError, ValueError, InvalidSignature):
            return False
        is_ours = scheme == "vapid" and claims.get("aud") == f"https://{self.name}:{self.port}"
        is_known = str(claims.get("sub", "")).startswith(("mailto:", "https:"))
        return is_ours and is_known and 0 < claims.get("exp", 0) - time.time() <= A_DAY_S

    # ---- for the owner -------------------------------------------------------------------------------------------

    def phone(self, asleep: bool = False, on_told: Callable[[Message], object] | None = None) -> Phone:
        """Return a new phone with a subscription of its own."""
        phone = self.phone_type(self, asleep, on_told)
        self.phones[phone.name] = phone
        return phone

    def forget(self, phone: Phone) -> None:
        """End the subscription of a phone. From then on, its endpoint answers 404."""
        del self.phones[phone.name]

    def until(self, done: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until `done`, which is called after each request, returns a true value.

        Raise AssertionError if it takes too long.
        """
        with self.changed:
            if not self.changed.wait_for(done, seconds):
                raise AssertionError("the expected state was not reached in time")


async def _let_go() -> None:
    """End all tasks of the event loop, and close the transports of aborted connections.

    Otherwise they would raise errors when the event loop is closed.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for _ in range(CLOSING_TURNS):
        await asyncio.sleep(0)


def _signed_claims(token: str, key: str) -> dict[str, Any]:
    """Return the claims of a token signed with ES256 (RFC 7515; RFC 7518, 3.4).

    Raise ValueError if it is malformed, and InvalidSignature if the signature is wrong.
    """
    signed, _, signature = token.rpartition(".")
    raw = decoded(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(key))
    public.verify(encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256()))
    claims = json.loads(decoded(signed.partition(".")[2]))
    return claims if isinstance(claims, dict) else {}
