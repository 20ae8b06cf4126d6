"""Runs scenarios with a client, and reports which of a client's duties this client meets.

If a command that starts the client is given, each scenario has a server and a client process of its own. Several run at
a time, because they spend most of the time waiting. Without a command, the scenarios run one after the other with any
client that connects.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from client_demo.console import plain

from .scenarios import DUTIES, FEED_SCENARIOS, NOT_OBSERVABLE, SCENARIOS, Scenario
from .scripted_feed import FEED_PATH, REPORT_PATH, ScriptedFeed
from .scripted_server import PATH, TOKEN_PATH, Findings, Over, ScriptedServer

END_S = 3.0  # the time that a client process has to end
JOBS = 6
PASS, FAIL, NOT_APPLICABLE, UNSEEN = "pass", "fail", "not applicable", "not observable"
_STYLES = {PASS: "green", FAIL: "bold red", NOT_APPLICABLE: "yellow", UNSEEN: "dim"}


class Source(NamedTuple):
    """A source of alerts: the kit's server for it, its scenarios, and the paths and the names of its two URLs."""

    server: type[ScriptedServer]
    scenarios: Mapping[str, Scenario]
    scheme: str
    paths: tuple[str, str]
    names: tuple[str, str]


SOURCES = {
    "socket": Source(ScriptedServer, SCENARIOS, "ws", (PATH, TOKEN_PATH), ("stream_url", "token_url")),
    "feed": Source(ScriptedFeed, FEED_SCENARIOS, "http", (FEED_PATH, REPORT_PATH), ("feed_url", "report_url")),
}

# A function that runs a client during a `with` block, from the two URLs of a source (such as those of the stream and of
# tokens) to a context manager. It yields a function that returns the client's last line of output.
StartClient = Callable[[str, str], AbstractAsyncContextManager[Callable[[], str]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one duty of a client: the outcome, and the faults (or the reason why it could not be checked)."""

    duty: str
    outcome: str
    details: tuple[str, ...]


async def play(scenario: Scenario, server: ScriptedServer) -> Findings:
    """Run one scenario on a server that has been started, and return its findings."""
    findings = Findings()
    server.begin(findings)
    try:
        await scenario.play(server)
    except Over as over:
        for duty in scenario.duties:
            if duty not in findings.wrong:
                findings.not_seen(duty, str(over))
    return findings


def urls(source: Source, address: str) -> tuple[str, str]:
    """Return the two URLs of a source whose server listens at this address, `host:port`."""
    first, second = source.paths
    return f"{source.scheme}://{address}{first}", f"http://{address}{second}"


async def play_alone(
    scenario: Scenario, start: StartClient, host: str, wait_s: float, source: str = "socket"
) -> Findings:
    """Start a server and a client for one scenario, run the scenario, and return its findings."""
    server = SOURCES[source].server(wait_s)
    async with server.serve(host, 0) as address, start(*urls(SOURCES[source], address)) as last_words:
        findings = await play(scenario, server)
        if not server.came and (words := last_words()):
            findings.unmet("feed" if source == "feed" else "handshake", f"the client's last words: {words}")
        return findings


async def play_all(
    scenarios: Iterable[Scenario],
    start: StartClient,
    *,
    host: str = "127.0.0.1",
    wait_s: float,
    jobs: int = JOBS,
    source: str = "socket",
) -> list[Findings]:
    """Run all scenarios, up to `jobs` at a time, and return their findings."""
    free = asyncio.Semaphore(jobs)

    async def one(scenario: Scenario) -> Findings:
        async with free:
            return await play_alone(scenario, start, host, wait_s, source)

    return await asyncio.gather(*(one(scenario) for scenario in scenarios))


def started_by(command: Sequence[str], source: str = "socket") -> StartClient:
    """Return a function that starts a client with this command.

    The names of the source's URLs in the command, such as `{stream_url}` (or just `{url}`) and `{token_url}`, are
    replaced by the addresses of the server. The client also has these addresses in its environment.
    """

    @contextlib.asynccontextmanager
    async def start(*addresses: str) -> AsyncIterator[Callable[[], str]]:
        names = SOURCES[source].names
        words = [word.replace("{url}", addresses[0]) for word in command]
        for name, url in zip(names, addresses, strict=True):
            words = [word.replace(f"{{{name}}}", url) for word in words]
        environment = {**os.environ, **{f"GEOCAST_{n.upper()}": url for n, url in zip(names, addresses, strict=True)}}
        with tempfile.TemporaryFile() as output:  # a file, because a full pipe would block the client
            process = await asyncio.create_subprocess_exec(
                *words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
            try:
                yield lambda: _last_line(output)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                try:
                    async with asyncio.timeout(END_S):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()

    return start


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def verdicts(scenarios: Iterable[Scenario], found: Iterable[Findings]) -> list[Verdict]:
    """Return one verdict for each duty that these scenarios check.

    Any other duty has a verdict only if a fault was found in it.
    """
    found = list(found)
    looked_at = {duty for scenario in scenarios for duty in scenario.duties} | {d for f in found for d in f.wrong}
    return [_verdict(duty, found) for duty in DUTIES if duty in looked_at or duty in NOT_OBSERVABLE]


def _verdict(duty: str, found: Sequence[Findings]) -> Verdict:
    if duty in NOT_OBSERVABLE:
        return Verdict(duty, UNSEEN, ("it cannot be seen from the wire; look at the screen",))
    wrong = [findings.wrong[duty] for findings in found if duty in findings.wrong]
    details = tuple(dict.fromkeys(detail for details in wrong for detail in details))
    if wrong:
        return Verdict(duty, FAIL if details else PASS, details)
    return Verdict(duty, NOT_APPLICABLE, tuple(dict.fromkeys(f.unseen[duty] for f in found if duty in f.unseen)))


def table(results: Iterable[Verdict]) -> Table:
    """Return the verdicts as a table of text for people."""
    shown = Table(box=None, pad_edge=False, header_style="bold underline")
    shown.add_column("duty", no_wrap=True)
    shown.add_column("rules", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("the client …")
    for verdict in results:
        rules, what = DUTIES[verdict.duty]
        text = Text(what)
        for detail in verdict.details:
            text.append(f"\n→ {plain(detail)}", style=_STYLES[verdict.outcome])
        shown.add_row(verdict.duty, rules, Text(verdict.outcome, style=_STYLES[verdict.outcome]), text)
    return shown


def as_json(results: Iterable[Verdict], command: Sequence[str]) -> str:
    """Return the verdicts as JSON text for programs."""
    duties: list[Mapping[str, Any]] = [
        {
            "duty": verdict.duty,
            "rules": DUTIES[verdict.duty].rules.split(),
            "what": DUTIES[verdict.duty].what,
            "verdict": verdict.outcome,
            "details": list(verdict.details),
        }
        for verdict in results
    ]
    passed = all(duty["verdict"] != FAIL for duty in duties)
    return json.dumps({"client": list(command), "passed": passed, "duties": duties}, indent=2, ensure_ascii=False)


def named(names: Iterable[str], source: str = "socket") -> list[Scenario]:
    """Return the scenarios of a source with these names; all its scenarios if no names are given.

    Raise KeyError if the source has no such scenario.
    """
    known = SOURCES[source].scenarios
    return [known[name] for name in names] or list(known.values())
