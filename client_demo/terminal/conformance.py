"""The command `python -m client_demo conformance`."""

import asyncio
import sys
from typing import TextIO

import click
from rich.console import Console
from rich.text import Text

from client_demo.conformance.run import (
    FAIL,
    JOBS,
    SOURCES,
    as_json,
    named,
    play,
    play_all,
    started_by,
    table,
    urls,
    verdicts,
)
from client_demo.conformance.scenarios import FEED_SCENARIOS, SCENARIOS, Scenario
from client_demo.conformance.scripted_server import Findings
from client_demo.console import make_console

WRONG_INPUT = 2


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter("expected HOST:PORT, such as 127.0.0.1:0")
    return host.strip("[]"), int(port)


@click.command()
@click.option(
    "--listen",
    "address",
    default="127.0.0.1:0",
    callback=_address,
    help="Where the kit listens. With a command each scenario has a port of its own, and this port is not used.",
)
@click.option(
    "--scenario",
    "names",
    multiple=True,
    type=click.Choice(list(SCENARIOS | FEED_SCENARIOS)),
    show_choices=False,
    help="Play only this scenario; --list names them. May be repeated.",
)
@click.option(
    "--source",
    type=click.Choice(list(SOURCES)),
    default="socket",
    help="Where your client takes its alerts from: a connection, or the public feed.",
)
@click.option("--list", "lists", is_flag=True, help="Print the scenarios with the duties that they check, and exit.")
@click.option("--jobs", type=click.IntRange(1), default=JOBS, help="How many scenarios run at a time, with a command.")
@click.option("--wait", "wait_s", default=20.0, help="Seconds to wait for a client to connect.")
@click.option(
    "--json", "json_file", type=click.File("w", "utf-8", lazy=False), help="Also write the report to this file."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def conformance(
    address: tuple[str, int],
    names: tuple[str, ...],
    source: str,
    lists: bool,
    jobs: int,
    wait_s: float,
    json_file: TextIO | None,
    command: tuple[str, ...],
) -> None:
    """Test a client by acting as its server, and report which of a client's duties it meets.

    Put the command that starts your client after --, with {url} and {token_url} as arguments; the variables
    GEOCAST_STREAM_URL and GEOCAST_TOKEN_URL have them too. With --source feed they are {feed_url}, {report_url},
    GEOCAST_FEED_URL and GEOCAST_REPORT_URL. Without a command, start your client when asked to.

    Exits with 1 if a duty is not met.
    """
    console = make_console()
    try:
        scenarios = named(names, source)
    except KeyError as error:
        raise click.UsageError(f"the source {source} has no scenario {error.args[0]}") from None
    if lists:
        for scenario in scenarios:
            click.echo(f"{scenario.name:16} {' '.join(scenario.duties)}")
        return
    try:
        if command:
            found = asyncio.run(_with_command(console, scenarios, command, address[0], wait_s, jobs, source))
        else:
            found = asyncio.run(_by_hand(console, scenarios, address, wait_s, source))
    except OSError as error:
        click.echo(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", err=True)
        sys.exit(WRONG_INPUT)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(130)
    results = verdicts(scenarios, found)
    console.print(table(results))
    if json_file is not None:
        json_file.write(as_json(results, command) + "\n")
    sys.exit(1 if any(verdict.outcome == FAIL for verdict in results) else 0)


async def _with_command(
    console: Console,
    scenarios: list[Scenario],
    command: tuple[str, ...],
    host: str,
    wait_s: float,
    jobs: int,
    source: str,
) -> list[Findings]:
    with console.status(f"{len(scenarios)} scenarios …"):
        start = started_by(command, source)
        return await play_all(scenarios, start, host=host, wait_s=wait_s, jobs=jobs, source=source)


async def _by_hand(
    console: Console, scenarios: list[Scenario], address: tuple[str, int], wait_s: float, source: str
) -> list[Findings]:
    server, found = SOURCES[source].server(wait_s), []
    what = ("stream", "tokens") if source == "socket" else ("feed", "reports")
    async with server.serve(*address) as bound:
        first, second = urls(SOURCES[source], bound)
        console.print(Text(f"{what[0]} {first}, {what[1]} {second}"), soft_wrap=True)
        for number, scenario in enumerate(scenarios, 1):
            console.print(Text(f"{number}/{len(scenarios)} {scenario.name}: (re)start your client"), soft_wrap=True)
            found.append(await play(scenario, server))
    return found
