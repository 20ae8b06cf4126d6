"""nchan (a module of nginx, written in C) with one worker process and one channel. It stores no messages."""

from collections.abc import Sequence
from pathlib import Path

import click

from bench import processes
from bench.clients.http import Poster
from bench.clients.websocket import Joining, handshake
from bench.peers.base import Peer
from bench.places import Places

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIG = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    nchan_shared_memory_size 256M;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{
            nchan_subscriber websocket;
            nchan_channel_id alerts;
            nchan_subscriber_first_message newest;
        }}
        location = /pub {{
            nchan_publisher http;
            nchan_channel_id alerts;
            nchan_store_messages off;
        }}
    }}
}}
"""


class Nchan(Peer):
    """The server nginx with the module nchan, one of the servers that geocast is compared with."""

    name = "nchan"
    lacks = "no matching by place, no tokens, no expiry; messages are not stored here (storing them would cost more)"

    def command(self) -> Sequence[str | Path]:
        """Return the command that runs nginx in the foreground."""
        program = processes.find_program("nginx")
        if not MODULE.exists():
            raise processes.Unavailable("libnginx-mod-nchan is not installed (make bench-peers)")
        self._poster = Poster(self.port)
        descriptors = processes.raise_descriptor_limit()
        config = self.home / "nginx.conf"
        config.write_text(
            CONFIG.format(
                module=MODULE, home=self.home, port=self.port, descriptors=descriptors, connections=descriptors - 100
            )
        )
        return [program, "-p", self.home, "-e", self.home / "error.log", "-c", config]

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_poster"):
            self._poster.close()
        super().__exit__(*exc)

    def pids(self) -> list[int]:
        """Return only the id of the worker, because the master process does nothing."""
        return super().pids()[1:]

    def joining(self, places: Places) -> Joining:
        """Return what clients send to join: only the handshake, because its path names the channel."""
        return Joining(handshake(self.port, "/sub"), [b""] * len(places))

    def send(self, payload: bytes) -> None:
        """POST the payload. nchan answers 200, or 201 or 202 if nobody listens."""
        status, _ = self._poster.post("/pub", payload, {"Content-Type": "text/plain"})
        if status >= 300:
            raise click.ClickException(f"nchan refused a message with HTTP status {status}")
