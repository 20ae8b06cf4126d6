"""`fetch`: what a feed with many entries costs `geocast fetch`, if nothing or one entry is new.

A web server on another core has an Atom feed whose entries link to CAP messages; it also answers the posts, in the
place of a node, so that only the costs of `geocast fetch` are measured. A reader runs in this process, with a state on
the disk. It reads the feed while every entry is new, then while nothing has changed (304), and then several times while
one entry is new.

Measures the CPU time of this process, the time until the messages were posted, and the number of requests.
"""

import asyncio
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import processes, screen
from bench.results import Result, Table, number
from bench.runs import Bench, Place
from geocast.clock import SystemClock
from geocast.ingest.fetch.http_client import FeedClient, HostQueues
from geocast.ingest.fetch.node_client import NodeClient
from geocast.ingest.fetch.outcomes import FetchOutcomes
from geocast.ingest.fetch.reader import FeedReader
from geocast.ingest.fetch.settings import WatchedFeed, host_of
from geocast.ingest.fetch.state import FetchState
from geocast.metrics import Metrics

CAP = """<?xml version="1.0" encoding="utf-8"?><alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
<identifier>{0}</identifier><sender>met@example.org</sender><sent>2026-01-31T12:00:00-00:00</sent>
<status>Actual</status><msgType>Alert</msgType><scope>Public</scope><info><language>en-US</language>
<category>Met</category><event>Flood</event><urgency>Immediate</urgency><severity>Severe</severity>
<certainty>Observed</certainty><headline>High water</headline><description>{1}</description><area>
<areaDesc>The river</areaDesc><polygon>32.7,-96.8 32.7,-96.7 32.8,-96.7 32.8,-96.8 32.7,-96.8</polygon></area></info>
</alert>"""
ENTRY = """<entry><id>urn:oid:2.49.0.1.840.0.{0}</id><title>Flood warning {0}</title>
<updated>2026-01-31T12:00:00Z</updated><author><name>met@example.org</name></author>
<link rel="alternate" type="application/cap+xml" href="/{0}.xml"/><summary>{1}</summary></entry>"""
TEXT = "The water of the river is expected to rise above the lower bank. Move to higher ground. " * 4
KINDS = {"all": "every entry is new", "none": "nothing is new", "one": "one entry is new"}


class _Site(BaseHTTPRequestHandler):
    """Serves the feed with `size` entries from `newest` downwards, and every message; accepts every post."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer takes 40 ms
    newest = size = requests = 0

    def do_GET(self) -> None:
        _Site.requests += 1
        etag = f'"{self.newest}"'
        if self.path != "/feed":
            self._say(200, CAP.format(self.path, TEXT).encode())
        elif self.headers.get("If-None-Match") == etag:
            self._say(304, b"")
        else:
            numbers = range(self.newest, self.newest - self.size, -1)
            entries = "".join(ENTRY.format(n, TEXT) for n in numbers)
            self._say(200, f'<feed xmlns="http://www.w3.org/2005/Atom">{entries}</feed>'.encode(), etag)

    def do_POST(self) -> None:
        _Site.requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(201, b'{"outcome": "published"}')

    def _say(self, status: int, body: bytes, etag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _serve(size: int, pipe: Connection) -> None:
    """Serve the feed. A number in the pipe adds entries, and is answered by the number of requests; None ends it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.daemon_threads = True
    _Site.newest = _Site.size = size
    pipe.send(server.server_port)

    def look() -> None:
        if not pipe.poll():
            return
        if (more := pipe.recv()) is None:
            server.shutdown()
            return
        _Site.newest += more
        pipe.send(_Site.requests)
        _Site.requests = 0

    with processes.repeating(look, 0.001):
        server.serve_forever()


async def _measured(pipe: Connection, home: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    site = f"http://127.0.0.1:{pipe.recv()}"
    (home / "token").write_text("a-token")
    clock, state = SystemClock(), FetchState(home / "fetch.db")
    feed = WatchedFeed("bench", f"{site}/feed", frozenset({str(host_of(site))}), allow_http=True, allow_private=True)
    client, node = FeedClient(feed, HostQueues(), clock), NodeClient(f"{site}/v1/cap", home / "token", clock)
    reader = FeedReader(feed, client, node, state, FetchOutcomes(clock, Metrics()), clock)
    await state.start()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with screen.progress("rounds", rounds) as show:
        for done, kind in enumerate(["all", *["none", "one"] * rounds]):
            pipe.send(1 if kind == "one" else 0)
            pipe.recv()
            start, cpu = time.perf_counter(), time.process_time()
            assert await reader.read()
            assert await reader.post() == 0
            spent = {"cpu_ms": (time.process_time() - cpu) * 1000, "ms": (time.perf_counter() - start) * 1000}
            pipe.send(0)
            found[kind].append(spent | {"requests": pipe.recv()})
            show((done + 1) // 2)
    for each in (client, node):
        await each.close()
    await state.stop()
    pipe.send(None)
    return found


def measure(place: Place, entries: int, rounds: int) -> dict[str, Any]:
    """Measure one reader of one feed."""
    with processes.beside(_serve, entries) as pipe:
        return {"kinds": asyncio.run(_measured(pipe, place.home, rounds))}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each number of new entries."""
    rows = [
        [
            title,
            *(number(sorted(each[key] for each in rounds)[len(rounds) // 2]) for key in ("cpu_ms", "ms", "requests")),
        ]
        for kind, title in KINDS.items()
        if (rounds := result.found["kinds"][kind])
    ]
    columns = ("", "CPU ms", "until posted ms", "requests, with posts")
    return Table(f"fetch: a feed of {result.parameters['entries']:,} entries, medians", columns, rows)


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU time of each reading."""
    axes = figure.subplots()
    for kind in ("none", "one"):
        axes.plot([each["cpu_ms"] for each in result.found["kinds"][kind]], "o-", label=KINDS[kind])
    axes.set(xlabel="round", ylabel="CPU, ms", yscale="log")
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "fetch",
    "what a feed of many entries costs geocast fetch, if nothing or one entry is new.",
    measure,
    table,
    plot,
    {"entries": 500, "rounds": 3},
    own_server=False,
)
