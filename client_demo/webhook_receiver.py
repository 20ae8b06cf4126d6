"""A receiver of the webhooks of `geocast relay`, for the demo, the benchmarks and the tests.

It checks signatures by Standard Webhooks 1.0, records what it was sent, and can misbehave: hang, reset the connection,
or answer any status. It imports nothing from geocast.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

HANG, RESET = "hang", "reset"
TOLERANCE_S = 300
IDLE_S = 60.0  # after which an idle connection is closed

Answer = int | str | tuple[int, dict[str, str]]


class Webhook(NamedTuple):
    """A request that the receiver was sent, and whether it answered with a status from 200 to 299."""

    id: str
    event: dict[str, Any]
    headers: dict[str, str]
    body: bytes
    taken: bool
    at_ns: int  # when it came, in ns of the monotonic clock


class WebhookReceiver:
    """An HTTP server on localhost that records webhooks. Use it as a context manager.

    `answers` are used up one after the other; then each answer is `always`. An answer is a status, a status with header
    fields, HANG or RESET.
    """

    def __init__(self, secret: str = "", crt: str = "", key: str = "", port: int = 0) -> None:
        """Create a receiver that requires signatures by `secret`, if it is not empty.

        If `crt` and `key`, the paths of a certificate and its key, are given, it serves HTTPS.
        """
        self.answers: list[Answer] = []
        self.always: Answer = 200
        self.requests: list[Webhook] = []
        self.forged = 0  # number of requests without a valid signature
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"receiver": self}))
        self._scheme = "http"
        if crt:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(crt, key)
            # Each handshake is made in the thread of its connection: an idle one does not block the others.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
            self._scheme = "https"
        self.port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        """The URL to post to."""
        return f"{self._scheme}://localhost:{self.port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def taken(self, alert_id: str = "") -> list[Webhook]:
        """Return the webhooks that the receiver has taken, of one alert or of all."""
        return [each for each in self.requests if each.taken and (not alert_id or each.event["data"]["id"] == alert_id)]

    def kinds(self, alert_id: str) -> list[tuple[str, int]]:
        """Return type and revision of the webhooks about an alert that the receiver has taken."""
        return [(each.event["type"], each.event["data"]["revision"]) for each in self.taken(alert_id)]

    def until(self, done: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until `done` is true, and test it after each request. Raise AssertionError if that takes too long."""
        with self._changed:
            assert self._changed.wait_for(done, seconds), f"waited {seconds} s in vain: {self.requests}"

    def answer(self, headers: dict[str, str], body: bytes) -> Answer:
        """Record a request and return the answer to it."""
        with self._changed:
            said = self.answers.pop(0) if self.answers else self.always
            if self._secret and not self._is_signed(headers, body):
                self.forged += 1
                said = 401
            status = said if isinstance(said, int) else said[0]
            taken = isinstance(status, int) and 200 <= status < 300
            message_id, at_ns = headers.get("webhook-id", ""), time.monotonic_ns()
            self.requests.append(Webhook(message_id, json.loads(body), headers, body, taken, at_ns))
            self._changed.notify_all()
        if said == HANG:
            self._closing.wait()
        return said

    def _is_signed(self, headers: dict[str, str], body: bytes) -> bool:
        sent_at = headers.get("webhook-timestamp", "")
        signed = f"{headers.get('webhook-id')}.{sent_at}.".encode() + body
        wanted = "v1," + base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256)).decode()
        is_recent = sent_at.isdigit() and abs(time.time() - int(sent_at)) <= TOLERANCE_S
        found = headers.get("webhook-signature", "").split(" ")
        return is_recent and any(hmac.compare_digest(each.encode(), wanted.encode()) for each in found)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a relay that is killed resets its connections."""


class _Handler(BaseHTTPRequestHandler):
    receiver: WebhookReceiver
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = self.receiver.answer({name.lower(): text for name, text in self.headers.items()}, body)
        if isinstance(said, str):
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        status, fields = said if isinstance(said, tuple) else (said, {})
        self.send_response(status)
        for name, text in {"Content-Length": "0", **fields}.items():
            self.send_header(name, text)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is given by http.server)
        """Write no log."""
