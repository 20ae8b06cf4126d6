"""A process of `geocast fetch` beside a node. Nothing of the server is imported here."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Self

from end_to_end.kit.feed_server import FeedServer
from end_to_end.kit.node import BIN, SURPRISE, Node, clean_environment
from end_to_end.kit.process import run
from end_to_end.kit.side_process import SideProcess
from end_to_end.kit.times import wait_until

OF_THIS_NETWORK = "allow_http = true\nallow_private = true\n"


class Fetch(SideProcess):
    """A `geocast fetch` with a file of feeds and a state of its own, in `home`."""

    def __init__(self, home: Path, node: Node, server: FeedServer, **settings: str):
        super().__init__(home / "fetch.txt")
        self.home, self.node, self.server, self.settings = home, node, server, settings
        self.state = home / "fetch.db"
        self.token_file = home / "token"
        self.token_file.write_text(node.keys.token(sub="met", scope="alerts:publish"))
        self.feeds_file = home / "feeds.toml"

    def __enter__(self) -> Self:
        self.connect()  # the tests themselves start the process
        return self

    def write_feeds(self, *paths: str, more: str = "", **named: str) -> None:
        """Write a file with a feed for each path of the server, named after the path; `more` are further keys."""
        feeds = {path.strip("/").partition(".")[0]: self.server.url(path) for path in paths} | named
        tables = (f'[feeds.{name}]\nurl = "{url}"\n{OF_THIS_NETWORK}{more}' for name, url in feeds.items())
        self.feeds_file.write_text("\n".join(tables))

    def command(self, *options: str) -> list[str | Path]:
        """Return the command line."""
        of_node = ["--api", f"http://127.0.0.1:{self.node.api_port}", "--token-file", self.token_file]
        return [BIN / "geocast", "fetch", "--feeds", self.feeds_file, "--state", self.state, *of_node, *options]

    def run(self, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, which must not be a traceback."""
        done = run(*self.command(*options), environment=clean_environment(**settings))
        assert not SURPRISE.search(done.stderr), done.stderr
        return done

    def once(self, **settings: str) -> int:
        """Read each feed once, and return the exit status."""
        return self.run("--once", **settings).returncode

    def dies_at(self, point: str) -> None:
        """Read each feed once, until a fail point kills the process."""
        assert self.once(GEOCAST_FAILPOINT=point) == -signal.SIGKILL

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        metrics = ("--metrics", f"127.0.0.1:{self.metrics_port}")
        self.spawn(*self.command(*metrics), environment=clean_environment(**self.settings), folder=self.home)
        wait_until(lambda: not self.is_killed() and self.readiness() != 0, "geocast fetch listens")


def taken(node: Node) -> dict[str, int]:
    """Return how many CAP messages a node has taken, by outcome."""
    lines = [
        line for line in node.api.get("/metrics").text.splitlines() if line.startswith("geocast_cap_messages_total")
    ]
    counts = {line.partition('outcome="')[2].partition('"')[0]: int(float(line.rpartition(" ")[2])) for line in lines}
    return {outcome: count for outcome, count in counts.items() if count}
