"""Unexpected exceptions in each task of each process: a log line, a counter, `/readyz`, and a new start.

The names of the tasks come from the running process.
"""

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import ground
from end_to_end.kit.dispatcher import calling_node
from end_to_end.kit.feed_server import FeedServer, atom
from end_to_end.kit.fetch import Fetch
from end_to_end.kit.issuer import options
from end_to_end.kit.key_server import KeyServer
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.push import Push
from end_to_end.kit.side_process import SideProcess
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from support.ports import free_ports
from support.push_service import PushService

from client_demo.webhook_receiver import WebhookReceiver

FAILURES = re.compile(r'^geocast_task_failures_total\{task="([^"]+)"\} ([0-9.]+)', re.MULTILINE)
ELSEWHERE = Path(__file__).parents[1] / "deploy" / "elsewhere"
NEVER_RUN = {"callback", "pump"}  # no tasks, but counted as if they were

Running = tuple[ServerProcess, httpx.Client]


@contextmanager
def a_node(home: Path, *more: str) -> Iterator[Running]:
    """Run a node with calls, a feed, and keys at a URL."""
    folder, certificate, keys = home / "faults", make_certificate(home), Keys()
    folder.mkdir()
    [port] = free_ports(1)
    feed = ("--feed", f"127.0.0.1:{port}", "--feed-url", "https://feed.example", "--feed-sender", "feed.example")
    with KeyServer(keys.jwks()).serving(certificate) as url:
        node = calling_node(home, keys, "--keys", url, *feed, *more)
        node.settings |= {"GEOCAST_INJECTIONS": str(folder), "SSL_CERT_FILE": str(certificate.crt)}
        with node:
            yield node, node.api


@contextmanager
def a_push(home: Path, *more: str) -> Iterator[Running]:
    """Run `geocast push` beside a node."""
    folder = home / "faults"
    folder.mkdir()
    with ExitStack() as opened:
        service = opened.enter_context(PushService(make_certificate(home)))
        node = opened.enter_context(Node(home))
        push = opened.enter_context(Push(node, service, options=more, GEOCAST_INJECTIONS=str(folder)))
        yield push, push.metrics_api


@contextmanager
def a_relay(home: Path) -> Iterator[Running]:
    """Run `geocast relay` beside a node."""
    folder = home / "faults"
    folder.mkdir()
    with ExitStack() as opened:
        receiver = opened.enter_context(WebhookReceiver(SECRET))
        node = opened.enter_context(Node(home))
        relay = RelayProcess(node, home / "relay", GEOCAST_INJECTIONS=str(folder))
        relay.targets(ground(), siren=receiver)
        opened.enter_context(relay)
        yield relay, relay.metrics_api


class Part(SideProcess):
    """A process of `geocast part` on the log of a node, with the way out of a package that is in a folder."""

    def __init__(self, node: Node, home: Path, folder: Path) -> None:
        super().__init__(home / "part.txt")
        self._node, self._home, self._folder = node, home, folder
        shutil.copy(ELSEWHERE / "elsewhere.py", folder)
        points = tomllib.loads((ELSEWHERE / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
        (folder / "elsewhere-1.dist-info").mkdir()
        lines = "".join(f"{name} = {value}\n" for name, value in points["geocast.parts"].items())
        (folder / "elsewhere-1.dist-info" / "entry_points.txt").write_text(f"[geocast.parts]\n{lines}")

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        options = self._home / "options.toml"
        options.write_text(f'[lines]\npath = "{self._home / "lines"}"\n')
        log = ("--log", f"sqlite:{self._node.log_file}", "--metrics", f"127.0.0.1:{self.metrics_port}")
        environment = clean_environment(GEOCAST_INJECTIONS=str(self._folder))
        self.spawn(BIN / "geocast", "part", "lines", "--options", options, *log, environment=environment)
        self.wait_until_ready()


@contextmanager
def a_part(home: Path) -> Iterator[Running]:
    """Run `geocast part` beside a node."""
    folder = home / "faults"
    folder.mkdir()
    with Node(home) as node, Part(node, home, folder) as part:
        yield part, part.metrics_api


@contextmanager
def a_fetch(home: Path) -> Iterator[Running]:
    """Run `geocast fetch` beside a node that takes CAP messages."""
    folder = home / "faults"
    folder.mkdir()
    with ExitStack() as opened:
        node = opened.enter_context(Node(home, Keys(), *options(home)))
        server = opened.enter_context(FeedServer())
        fetch = opened.enter_context(Fetch(home, node, server, GEOCAST_INJECTIONS=str(folder)))
        server.pages["/met.atom"] = atom()
        fetch.write_feeds("/met.atom")
        fetch.start()
        yield fetch, fetch.metrics_api


PROCESSES: dict[str, Callable[[Path], object]] = {
    "node": a_node,
    "node with two workers": lambda home: a_node(home, "--workers", "2"),
    "push": a_push,
    "push with two workers": lambda home: a_push(home, "--workers", "2"),
    "relay": a_relay,
    "part": a_part,
    "fetch": a_fetch,
}


def failures(api: httpx.Client) -> dict[str, float]:
    """Return the number of failures of each task, by name."""
    found = {name: float(count) for name, count in FAILURES.findall(api.get("/metrics").text)}
    return {name: count for name, count in found.items() if name not in NEVER_RUN}


def documented(kind: str) -> set[str]:
    """Return the tasks of a process according to ARCHITECTURE.md."""
    text = (Path(__file__).parents[3] / "ARCHITECTURE.md").read_text("utf-8")
    [row] = re.findall(rf"^\| {kind} \|.*\|(.*)\|$", text, re.MULTILINE)
    return set(re.findall("`([a-z-]+)`", row))


@pytest.mark.parametrize("kind", PROCESSES)
def test_failure_of_each_task_is_logged_counted_named_by_readyz_and_ends(kind: str, tmp_path: Path):
    """First each task fails once; then each fails always, except those that another one starts, then these."""
    folder = tmp_path / "faults"
    with PROCESSES[kind](tmp_path) as (process, api):  # type: ignore[attr-defined]

        def ready() -> bool:
            return bool(api.get("/readyz").status_code == 200)

        names = set(failures(api))
        assert names == documented(kind)

        def all_have_failed() -> bool:
            missing = [name for name, count in failures(api).items() if not count]
            for name in missing:  # again, if the exception met a place where any failure means that the log is away
                (folder / f"once-{name}").touch()
            return not missing

        wait_until(all_have_failed, lambda: f"each task has failed: {failures(api)}")
        wait_until(ready, "/readyz is 200 again")
        for name in names:
            assert f"task {name} failed: Injected" in process.output(), name
        starts_others = {name for name in names if name.endswith("log-reader")}
        for group in filter(None, (names - starts_others, starts_others)):
            before = failures(api)
            for name in group:
                (folder / f"always-{name}").touch()
            wait_until(lambda: all(failures(api)[name] >= before[name] + 3 for name in group), "each fails always")  # noqa: B023
            wait_until(lambda: not ready(), "/readyz is 503")
            reasons = set()

            def named() -> bool:
                reasons.update(re.findall(r"task ([a-z-]+) fails: Injected", api.get("/readyz").text))  # noqa: B023
                return group - {"report"} <= reasons  # noqa: B023

            wait_until(named, "/readyz names all of them")
            for name in group:
                (folder / f"always-{name}").unlink()
            wait_until(ready, "/readyz is 200 again")
