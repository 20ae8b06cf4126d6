"""An HTTPS server that publishes keys and fails in configurable ways."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from end_to_end.kit.tls import Certificate


class KeyServer:
    """A server whose answers a test may change at any time; `asked` counts the requests."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys  # bytes are sent as they are, other values as JSON
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.drips = False  # whether the body is sent slowly, one byte at a time, and never ends
        self.slow_s = 0.0
        self.over = threading.Event()

    def body(self) -> bytes:
        """Return the body that it publishes."""
        return self.keys if isinstance(self.keys, bytes) else json.dumps(self.keys).encode()

    @contextlib.contextmanager
    def serving(self, certificate: Certificate | None, port: int = 0) -> Iterator[str]:
        """Serve while the block runs, and yield the URL."""
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.pem)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://localhost:{server.server_port}/realms/x/certs?tenant=1"
        finally:
            self.over.set()
            server.shutdown()
            thread.join()
            server.server_close()
            self.over.clear()


def _handler(keys: KeyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.asked += 1
            assert self.path == "/realms/x/certs?tenant=1", self.path
            keys.over.wait(keys.slow_s)
            body = keys.body()
            with contextlib.suppress(OSError):
                self.send_response(keys.status)
                for name, value in keys.headers.items():
                    self.send_header(name, value)
                if not keys.drips:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                while keys.drips and not keys.over.wait(0.05):
                    self.wfile.write(b" ")
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
            pass

    return Handler
