"""Feeds as strangers might write them harm no other feed (rules FE2 to FE4).

`make test` reads a few dozen. GEOCAST_SOAK_FEEDS says how many others there are, and GEOCAST_SOAK_ROUNDS how often the
healthy feed gets a new message; then the figures are printed.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit import strange_feeds
from end_to_end.kit.feed_server import FeedServer, atom, linked
from end_to_end.kit.fetch import Fetch, taken
from end_to_end.kit.issuer import Issuer, options
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from support.ports import free_ports

TESTS = Path(__file__).resolve().parents[2]
SOAK = "GEOCAST_SOAK_FEEDS" in os.environ
STRANGERS = int(os.environ.get("GEOCAST_SOAK_FEEDS", "40"))
ROUNDS = int(os.environ.get("GEOCAST_SOAK_ROUNDS", "2"))
SEED = int(os.environ.get("GEOCAST_SOAK_SEED", random.randrange(2**32)))
MOST_MB = 300


@pytest.fixture
def strangers() -> Iterator[list[tuple[str, str, bool]]]:
    """Run the servers of the strangers. Each has a name, the URL of its feed, and whether its links work later."""
    command = [sys.executable, strange_feeds.__file__, str(STRANGERS), str(SEED), str(*free_ports(1))]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        assert process.stdout
        yield [tuple(found) for found in iter(lambda: json.loads(process.stdout.readline()), None)]
        process.stdin.close()
        process.kill()


def peak_mb(fetch: Fetch) -> float:
    """Return the most memory that the process has had."""
    assert fetch.process
    status = Path(f"/proc/{fetch.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


@pytest.mark.timeout(1_800 if SOAK else 120)
def test_strange_feeds_harm_no_other_feed_and_lose_no_entry_whose_link_works_later(
    keys: Keys, tmp_path: Path, strangers: list[tuple[str, str, bool]]
) -> None:
    """A healthy feed is read on time, memory stays small, and SIGTERM ends the process (rules FE2 to FE4)."""
    print(f"GEOCAST_SOAK_FEEDS={STRANGERS} GEOCAST_SOAK_ROUNDS={ROUNDS} GEOCAST_SOAK_SEED={SEED}")
    issuer, delays = Issuer(), []
    works = 3 * sum(later for _, _, later in strangers)
    home = tmp_path / "node"
    home.mkdir()
    with FeedServer() as server, Node(home, keys, *options(home)) as node, Fetch(tmp_path, node, server) as fetch:
        server.pages["/healthy"] = atom()
        fetch.write_feeds("/healthy", more="interval_s = 15\n", **{name: url for name, url, _ in strangers})
        fetch.start()
        for n in range(ROUNDS):
            name = f"healthy-{n}"
            server.message(name, issuer.message(name))
            server.pages["/healthy"] = atom(linked(name, server.url(f"/{name}.xml")))
            listed_at = time.monotonic()
            if not SOAK and n:
                fetch.reload()  # so that nobody has to wait for the interval
            patiently(lambda n=n: taken(node).get("published", 0) > n, f"message {n} of the healthy feed is published")
            delays.append(time.monotonic() - listed_at)
        if not SOAK:
            wait_until(lambda: fetch.metric("fetch_ready") >= 0, "it answers")
            fetch.reload()
        patiently(lambda: taken(node).get("ignored", 0) >= works, "the messages behind the strangers' links are posted")
        peak = peak_mb(fetch)
        print(f"peak {peak:.0f} MB; the healthy feed's messages after {', '.join(f'{each:.1f}' for each in delays)} s")
        assert peak < MOST_MB
        counts = taken(node)
        assert (counts["published"], counts["ignored"]) == (ROUNDS, works)
        assert fetch.terminate() == 0


def patiently(holds: Callable[[], bool], what: str) -> None:
    """Wait for something, in a soak for up to ten minutes."""
    until = time.monotonic() + (600 if SOAK else 0)
    while time.monotonic() < until and not holds():
        time.sleep(0.1)
    wait_until(holds, what)
