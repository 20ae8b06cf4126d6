"""A server that publishes keys by HTTPS, and fails in every way that it is told to."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from end_to_end.kit.tls import Certificate


class KeyServer:
    """What it answers may be changed at any time. `asked` counts requests."""

    def __init__(self, keys: Any) -> None:
        self.keys = keys  # to be published; bytes as they are, all else as JSON
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.drips = False  # the body comes by a byte every now and then, for ever
        self.slow_s = 0.0
        self.over = threading.Event()

    def body(self) -> bytes:
        """What it publishes."""
        return self.keys if isinstance(self.keys, bytes) else json.dumps(self.keys).encode()

    @contextlib.contextmanager
    def serving(self, certificate: Certificate | None, port: int = 0) -> Iterator[str]:
        """Serve for as long as the block runs; its URL."""
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

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - it is called so
            pass

    return Handler
