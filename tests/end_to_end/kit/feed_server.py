"""A web server with feeds and messages, which misbehaves in the ways that a test asks for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from xml.sax.saxutils import escape

from end_to_end.kit.tls import Certificate

HANG, RESET, ZEROS = "hang", "reset", "zeros"


class Page(NamedTuple):
    """An answer. `length` is the `Content-Length`, if it is not that of the body.

    `then` says what comes after the body: HANG, or ZEROS until the client closes the connection.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    length: int | None = None
    then: str = ""


class FeedServer:
    """A server on loopback. `pages` has a Page, HANG or RESET for each path; other paths do not exist.

    A page with an ETag is answered 304 if the client has it. `asked` lists the requests: path and header fields.
    `sent` counts the zeros.
    """

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._certificate = certificate
        self.pages: dict[str, Page | str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.connections = self.most_at_once = self.sent = 0
        self._at_once = 0
        self._over = threading.Event()

    def __enter__(self) -> FeedServer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate.pem)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http{'s' * bool(self._certificate)}://{self.host}{path}"

    def paths(self) -> list[str]:
        """Return the paths of all requests since the last call."""
        asked, self.asked = self.asked, []
        return [path for path, _ in asked]

    def message(self, name: str, body: bytes) -> str:
        """Serve a CAP message, and return its URL."""
        self.pages[f"/{name}.xml"] = Page(body, headers={"Content-Type": "application/cap+xml"})
        return self.url(f"/{name}.xml")

    def hang(self) -> None:
        """Wait until the server ends."""
        self._over.wait()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the requests that are answered at the same time."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            self._at_once -= 1


def _handler(of: FeedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise each answer takes 40 ms

        def setup(self) -> None:
            of.connections += 1
            super().setup()

        def do_GET(self) -> None:
            of.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
            with of.counted(), contextlib.suppress(OSError):
                self._answer(of.pages.get(self.path, Page(status=404)))

        def _answer(self, page: Page | str) -> None:
            if isinstance(page, str):
                if page == HANG:
                    of.hang()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
                return
            etag = page.headers.get("ETag")
            if etag and self.headers.get("If-None-Match") == etag:
                page = Page(status=304, headers=page.headers)
            self.send_response(page.status)
            for name, text in page.headers.items():
                self.send_header(name, text)
            if not page.then:
                self.send_header("Content-Length", str(len(page.body) if page.length is None else page.length))
            self.end_headers()
            self.close_connection = page.length is not None or bool(page.then)
            self.wfile.write(page.body)
            if page.then == HANG:
                of.hang()
            while page.then == ZEROS:
                self.wfile.write(bytes(65536))
                of.sent += 65536

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def atom(*entries: str, etag: str = "") -> Page:
    """Return an Atom feed with these entries."""
    body = f'<feed xmlns="http://www.w3.org/2005/Atom"><title>Warnings</title>{"".join(entries)}</feed>'
    return Page(body.encode(), headers={"Content-Type": "application/atom+xml"} | ({"ETag": etag} if etag else {}))


def linked(name: str, url: str, kind: str = "application/cap+xml") -> str:
    """Return an entry of an Atom feed with a link to a message."""
    return f'<entry><id>urn:{name}</id><title>{name}</title><link href="{escape(url)}" type="{kind}"/></entry>'


def inline(name: str, message: bytes) -> str:
    """Return an entry of an Atom feed that has the message in it."""
    return (
        f'<entry><id>urn:{name}</id><title>{name}</title><content type="text/xml">{message.decode()}</content></entry>'
    )
