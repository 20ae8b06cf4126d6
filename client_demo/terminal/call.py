"""The commands `python -m client_demo call open`, `revise`, `end`, `show` and `list`, for a dispatcher in a shell."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import click

from client_demo.console import plain
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.times import format_time, wall_ms

from .command import WRONG_INPUT, Command, Number, dispatch_options, fail, run, waiting

POLL_S = 2.0
OVER = ("ended", "expired")
KINDS = ("public", "residence")


@click.group()
def call() -> None:
    """Call responders to a person in need, and see who is coming."""


def call_options(command: Command) -> Command:
    """Add the options for the content of a call."""
    options = [
        click.option("--category", help="A key of the policy's [calls], such as cardiac_arrest."),
        click.option("--headline", help="1 to 140 characters, shown to everybody who is called: no address, no name."),
        click.option("--occurred-at", help="When it happened, e.g. 2031-05-01T11:30:00Z. Default of `open`: now."),
        click.option("--expires-at", help="When the call ends. Default: as the policy says."),
        click.option("--status", type=click.Choice(("actual", "exercise", "test"))),
        click.option("--lat", type=Number(-90, 90), help="Latitude of the exact place, in degrees."),
        click.option("--lng", type=Number(-180, 180), help="Longitude of the exact place, in degrees."),
        click.option(
            "--kind",
            type=click.Choice(KINDS),
            help="The kind of place; the qualifications of the called responders depend on it.",
        ),
        click.option("--address", help="Up to 200 characters, sent only to responders with a seat."),
        click.option("--access", help="How to get in, up to 500 characters, sent only to responders with a seat."),
        click.option("--callback-phone", help="Your telephone number, sent only to responders with a seat."),
        click.option(
            "--file",
            "path",
            type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
            help="The call as JSON; - is the standard input. Other users can see a command line, but not a file.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _said(path: Path | None, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the call for help that the file describes, as a dict.

    `fields` has the values of the command line options. Each option that the user has given replaces the field of the
    same name.
    """
    place = {name: fields.pop(name) for name in ("lat", "lng", "kind", "address", "access", "callback_phone")}
    said = _read(path)
    at = said.get("place", {})
    if not isinstance(at, dict):
        fail(f"{path}: place: expected an object", WRONG_INPUT)
    said |= {key: value for key, value in fields.items() if value is not None}
    return {**said, "place": {**at, **{key: value for key, value in place.items() if value is not None}}}


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            said = json.load(file)
    except OSError as error:
        fail(f"{path}: {error.strerror}", WRONG_INPUT)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        fail(f"{path}: expected a JSON object", WRONG_INPUT)
    return said


def _need(said: Mapping[str, Any], names: tuple[str, ...]) -> None:
    place = said["place"]
    lacks = [f"--{name}" for name in names if name not in said]
    lacks += [f"--{name}" for name in ("lat", "lng", "kind") if name not in place]
    if lacks:
        raise click.UsageError(f"say {', '.join(lacks)}, or a --file that has them")


def _print(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def _with(api: str, token: str, work: Callable[[Dispatcher], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with Dispatcher(api, token, on_retry=waiting) as dispatcher:
            await work(dispatcher)

    run(all_of_it())


@call.command("open")
@dispatch_options
@click.option("--id", "call_id", help="The call's id, never a case number. Default: a random one.")
@call_options
def open_call(api: str, token: str, call_id: str | None, path: Path | None, **fields: Any) -> None:
    """Open a call and print the answer; `near` is the approximate place that all notified responders are shown."""
    said = {"id": uuid.uuid4().hex, "occurred_at": format_time(wall_ms()), **_said(path, {**fields, "id": call_id})}
    _need(said, ("category", "headline"))

    async def work(dispatcher: Dispatcher) -> None:
        _print(await dispatcher.open_call(said))

    _with(api, token, work)


@call.command()
@dispatch_options
@click.argument("call_id")
@click.option(
    "--replaces", type=click.IntRange(1), help="The number of the content that it replaces. Default: the current one."
)
@call_options
def revise(api: str, token: str, call_id: str, replaces: int | None, path: Path | None, **fields: Any) -> None:
    """Correct the place or the text of a call.

    Omitted members stay as they are, but the place has to be given again: the server does not return it.
    """
    said = _said(path, fields)

    async def work(dispatcher: Dispatcher) -> None:
        state = await dispatcher.call_state(call_id)
        kept = {name: state["call"][name] for name in KEPT if name in state["call"]}
        body = {**kept, **said, "id": call_id}
        _need(body, ())
        _print(await dispatcher.revise_call(body, replaces or state["content"]))

    _with(api, token, work)


KEPT = ("category", "headline", "status", "occurred_at", "expires_at")


@call.command()
@dispatch_options
@click.argument("call_id")
@click.option("--reason", required=True, help="1 to 280 characters, sent to nobody.")
def end(api: str, token: str, call_id: str, reason: str) -> None:
    """End a call: all responders who were called stand down."""

    async def work(dispatcher: Dispatcher) -> None:
        _print(await dispatcher.end_call(call_id, reason))

    _with(api, token, work)


@call.command()
@dispatch_options
@click.argument("call_id")
@click.option("--follow", is_flag=True, help="Print a line for each change until the call is over.")
def show(api: str, token: str, call_id: str, follow: bool) -> None:
    """Show a call: how many people were called, and who is coming."""

    async def work(dispatcher: Dispatcher) -> None:
        if not follow:
            _print(await dispatcher.call_state(call_id))
            return
        before = ""
        while True:
            state = await dispatcher.call_state(call_id)
            if (line := state_line(state)) != before:
                click.echo(line)
                before = line
            if state["state"] in OVER:
                return
            await asyncio.sleep(POLL_S)

    _with(api, token, work)


def state_line(state: Mapping[str, Any]) -> str:
    """Return a call's state as one line."""
    counts = ", ".join(f"{state.get(name, 0)} {name}" for name in ("rung", "seen", "declined"))
    seats = "; ".join(_seat(seat) for seat in state.get("seats", []))
    return plain(f"{state['state']:8} ring of {state.get('ring_m')} m: {counts}. {seats or 'nobody goes'}")


def _seat(seat: Mapping[str, Any]) -> str:
    eta = f" in {seat['eta_s']} s" if seat["state"] == "going" and seat.get("eta_s") is not None else ""
    return f"{seat['seat']} {seat['role']} {seat['responder']} {seat['state']}{eta}"


@call.command("list")
@dispatch_options
def list_calls(api: str, token: str) -> None:
    """List your open calls."""

    async def work(dispatcher: Dispatcher) -> None:
        _print(await dispatcher.calls())

    _with(api, token, work)
