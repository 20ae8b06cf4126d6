"""Feeds as strangers might write them, each on a loopback address of its own. Run as a process of its own.

`python strange_feeds.py NUMBER SEED PORT` serves the feeds until its input ends. It prints the URL of each feed, and
whether the messages behind its links can be read in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ingest import hostile

ZEROS = bytes(65536)
PAGE = b'<html xmlns="http://www.w3.org/1999/xhtml"><body>Please wait</body></html>'
ATOM = '<feed xmlns="http://www.w3.org/2005/Atom">%s</feed>'
MESSAGE = """<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>%s</identifier>
<sender>met@example.org</sender><sent>2026-01-01T00:00:00-00:00</sent><status>System</status><msgType>Alert</msgType><scope>Public</scope>
<info><event>Flood</event></info></alert>"""


class Answer(NamedTuple):
    """A status, header fields and a body, and what follows: nothing, `hang`, `zeros`, or `slow` for a byte a second."""

    body: bytes = b""
    status: int = 200
    fields: Mapping[str, str] = {}
    then: str = ""


def packed(body: bytes, times: int = 1, then: str = "") -> Answer:
    """Return a body in gzip, as often as said."""
    for _ in range(times):
        body = gzip.compress(body, 6)
    return Answer(body, fields={"Content-Encoding": "gzip"}, then=then)


def feed_of(links: list[str]) -> bytes:
    """Return a feed with these links."""
    entry = '<entry><id>%s</id><title>x</title><link href="%s" type="application/cap+xml"/></entry>'
    return (ATOM % "".join(entry % (link, link) for link in links)).encode()


# What a feed answers.
FEEDS: dict[str, Callable[[], Answer]] = {
    "hang": lambda: Answer(then="hang"),
    "slow": lambda: Answer(b"<feed", then="slow"),
    "half and hang": lambda: Answer(bytes(4_000_000), then="hang"),
    "endless": lambda: Answer(b"<feed>", then="zeros"),
    "endless behind gzip": lambda: packed(feed_of([]), then="zeros"),
    "bomb": lambda: packed(bytes(50_000_000)),
    "gzip in gzip": lambda: packed(feed_of([]), times=3),
    "no gzip": lambda: Answer(b"<feed/>", fields={"Content-Encoding": "gzip"}),
    "waiting room": lambda: Answer(status=302, fields={"Location": "https://queue.example/"}),
    "loop": lambda: Answer(status=302, fields={"Location": "/feed"}),
    "page": lambda: Answer(PAGE),
    "busy": lambda: Answer(status=503, fields={"Retry-After": "1000000"}),
    "gone": lambda: Answer(status=410),
    "many fields": lambda: Answer(fields={f"X-{n}": "x" * 1_000 for n in range(300)}),
    "long field": lambda: Answer(feed_of([]), fields={"ETag": "x" * 60_000}),
    "not one text": lambda: Answer(b"\xff" * 100_000),
    "many entries": lambda: packed(feed_of([f"http://127.0.0.1:9/{n}" for n in range(9_000)])),
    "long links": lambda: packed(feed_of(["/" + "x" * 100_000] * 40)),
}
for _name, _inside in hostile.INSIDE.items():
    for _at, _ in enumerate(("message", "envelope", "feed")):
        FEEDS[f"{_name} ({_at})"] = lambda inside=_inside, at=_at: packed(  # type: ignore[misc]
            list(hostile.spread(*inside()))[at].encode()
        )
# What a link answers the first time; from the second on it is a message.
LINKS: dict[str, Answer] = {
    "link to a waiting room": Answer(status=302, fields={"Location": "https://queue.example/"}),
    "link to a page": Answer(PAGE),
    "link that does not exist": Answer(status=404),
    "link that is busy": Answer(status=503),
    "link that is half": Answer(b"<alert"),
    "link that is a feed": Answer(feed_of([])),
    "link that is refused": Answer(status=403),
}


class Stranger:
    """A server with one feed, whose kind is one of FEEDS or LINKS."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        self._asked: Counter[str] = Counter()

    def answer(self, path: str) -> Answer:
        """Return the answer to a request."""
        if self.kind in FEEDS:
            return FEEDS[self.kind]()
        if path == "/feed":
            return Answer(feed_of([f"/m{n}" for n in range(3)]))
        self._asked[path] += 1
        first = self._asked[path] == 1
        return LINKS[self.kind] if first else Answer((MESSAGE % (self.name + path.replace("/", "-"))).encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = self.answer(head.split(b" ")[1].decode())
            fields = {**answer.fields, "Connection": "close"}
            if not answer.then:
                fields["Content-Length"] = str(len(answer.body))
            lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items())
            writer.write(f"HTTP/1.1 {answer.status} x\r\n{lines}\r\n".encode() + answer.body)
            await writer.drain()
            while answer.then:
                writer.write({"hang": b"", "zeros": ZEROS, "slow": b" "}[answer.then])
                await writer.drain()
                if answer.then == "zeros":
                    await asyncio.sleep(0)
                elif await self._ended(reader):
                    break
        writer.close()

    @staticmethod
    async def _ended(reader: asyncio.StreamReader) -> bool:
        """Return whether the client closes the connection within a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                return not await reader.read(1)
        return False


def strangers(number: int, seed: int) -> list[Stranger]:
    """Return this number of servers, with all kinds if there are enough of them."""
    kinds = [*FEEDS, *LINKS]
    random.Random(seed).shuffle(kinds)
    kinds = [*(kind for kind in kinds if kind in LINKS), *(kind for kind in kinds if kind in FEEDS)]
    return [Stranger(kind, f"s{n}") for n, kind in enumerate(itertools.islice(itertools.cycle(kinds), number))]


async def main(number: int, seed: int, port: int) -> None:
    """Serve the feeds until the input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for n, each in enumerate(strangers(number, seed)):
        host = f"127.77.{n // 250}.{n % 250 + 1}"
        await asyncio.start_server(each.serve, host, port, limit=1024 * 64)
        print(json.dumps([each.name, f"http://{host}:{port}/feed", each.kind in LINKS]))
    print("null", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
