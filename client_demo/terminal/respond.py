"""The command `python -m client_demo respond`: a responder in a terminal, who is called to people in need nearby.

Rule 1  The exact place of a call is shown only while the responder has a task. It is shown in the table, which is
        erased, and never in a line that stays on the screen. In a pipe it is not printed at all, because the reader of
        the pipe would keep a copy (docs/reference/call-rules.md, RU2).
Rule 2  Each key that is pressed is one answer: to the task if there is one, otherwise to the nearest call.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from client_demo.console import make_console, plain
from client_demo.python.calls import MAX_ETA_S, CallChange, CallKind, State
from client_demo.python.client import Client
from client_demo.python.geo import Place, distance_m
from client_demo.python.link import ClientError, first_to_end
from client_demo.python.times import format_time

from .command import Number, run
from .listen import Screen, make_client, stream_options

KEYS = "a: accept   d: decline   e: I have a defibrillator   r: arrived   o: off and on duty   q: quit"
WALKING_M_S = 1.4


def call_line(call: Mapping[str, Any]) -> str:
    """Return one line about a call."""
    status = "" if call.get("status", "actual") == "actual" else f"[{str(call['status']).upper()}] "
    return plain(f"{status}{call.get('title') or call.get('category')}: {call.get('headline')}")


def change_line(change: CallChange, away_m: float | None) -> Text:
    """Return one line about a change of a call. It never contains the exact place."""
    away = "" if away_m is None else f", {away_m:,.0f} m away"
    match change.kind:
        case CallKind.CALL if change.call is not None:
            text = f"{call_line(change.call)}  [{change.id}, revision {change.call['revision']}{away}]"
        case CallKind.TASK if change.task is not None:
            text = f"{change.id}: seat {change.task.get('seat')}, {change.task.get('role')}"
        case _:
            text = f"{change.id} ({change.reason})"
    line = Text(f"{change.kind:14} ", style="bold")
    return line.append(plain(text), style="bold white on red" if change.kind is CallKind.CALL else "")


class DutyScreen(Screen):
    """The output of `respond`: calls and tasks, above the table of alerts. Each key that is pressed is one answer."""

    is_wiped = True  # the table may contain a place (Rule 1)

    def __init__(self, console: Console, speed_m_s: float, accepts_all: bool) -> None:
        super().__init__(console)
        self._speed_m_s, self._accepts_all = speed_m_s, accepts_all
        self.client: Client | None = None
        self._turning: asyncio.Future[None] | None = None

    def _of(self) -> Client:
        assert self.client is not None
        return self.client

    # ---- printing calls and tasks ------------------------------------------------------------------------------------

    def called(self, change: CallChange) -> None:
        """Print a change of a call."""
        away_m = None if change.call is None else self._of().away_m(change.call)
        self.redraw()
        self._console.print(change_line(change, away_m), soft_wrap=True)
        if change.kind is CallKind.CALL:
            self._console.bell()
        if self._accepts_all and change.kind is CallKind.CALL:
            self._accept(change.id)
        elif self._accepts_all and change.kind is CallKind.TASK:
            self._of().report(change.id, "arrived")

    def _table(self) -> RenderableType:
        client = self._of()
        table = Table(box=None, pad_edge=False, header_style="bold underline", expand=True, caption=Text(KEYS))
        for name in ("call", "where", "state"):
            table.add_column(name, overflow="fold")
        for task in client.calls.tasks():
            table.add_row(Text(f"{task['id']}: {task.get('role')}"), _place(task), self._way(task))
        for call in self._ringing():
            state = "accepted, no answer yet" if client.calls.unanswered(call["id"]) else "rings"
            table.add_row(Text(call_line(call), style="bold red"), Text(self._near(call)), Text(state))
        if client.rest_until is not None:
            table.add_row(Text("you have helped"), Text(""), Text(f"not called until {format_time(client.rest_until)}"))
        return Group(table, Text(""), super()._table())

    def _near(self, call: Mapping[str, Any]) -> str:
        away_m = self._of().away_m(call)
        return "" if away_m is None else f"{away_m:,.0f} m, to within {call['near']['radius_m']:,.0f} m"

    def _way(self, task: Mapping[str, Any]) -> Text:
        here = next((place for place in self._of().holdings.places if place.here), None)
        if here is None:
            return Text("off duty")
        return Text(f"{distance_m(here.lat, here.lng, task['place']['lat'], task['place']['lng']):,.0f} m")

    def _ringing(self) -> list[Mapping[str, Any]]:
        client = self._of()
        return sorted(client.calls.ringing(), key=lambda call: client.away_m(call) or 0.0)

    # ---- answering calls ---------------------------------------------------------------------------------------------

    async def answer(self, keys: "asyncio.Queue[str]") -> None:
        """Carry out the commands of the keys that are pressed, one after the other, until `q`."""
        while (key := await keys.get()) != "q":
            match key:
                case "a":
                    for call in self._ringing()[:1]:
                        self._accept(call["id"])
                case "d":
                    self._decline()
                case "e":
                    self._report("aed")
                case "r":
                    self._report("arrived")
                case "o":
                    self._turning = asyncio.ensure_future(self._turn())  # `q` does not wait for the server

    def _accept(self, call_id: str) -> None:
        call = self._of().calls.call(call_id)
        away_m = None if call is None else self._of().away_m(call)
        eta_s = None if away_m is None else min(MAX_ETA_S, round(away_m / self._speed_m_s))
        self._of().accept(call_id, eta_s)

    def _decline(self) -> None:
        for held in [*self._of().calls.tasks(), *self._ringing()][:1]:
            self._of().decline(held["id"])
            self.redraw()
            self._console.print(Text(plain(f"{'declined':14} {held['id']}")), soft_wrap=True)

    def _report(self, state: State) -> None:
        for task in self._of().calls.tasks()[:1]:
            self._of().report(task["id"], state)

    async def _turn(self) -> None:
        first, *rest = self._of().holdings.places
        try:
            await self._of().move([replace(first, here=not first.here), *rest])
        except ClientError as error:
            self.status(str(error))
        else:
            self.status("off duty" if first.here else "on duty")


def _place(task: Mapping[str, Any]) -> Text:
    place = task["place"]
    words = [place.get("address"), place.get("access"), f"{place['lat']:.5f}, {place['lng']:.5f}"]
    if phone := place.get("callback_phone"):
        words.append(f"dispatcher: {phone}")
    fetch, aeds = task.get("fetch"), task.get("aeds") or []
    if isinstance(fetch, int) and 0 <= fetch < len(aeds):
        aed = aeds[fetch]
        code = f", code {aed['code']}" if aed.get("code") else ""
        words.append(f"by way of the defibrillator at {aed['lat']:.5f}, {aed['lng']:.5f} {aed.get('where', '')}{code}")
    return Text("\n".join(plain(word) for word in words if word), style="bold")


# ---- reading keys ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_by_one() -> Iterator[None]:
    """During the `with` block, make the terminal deliver each key at once, without showing it."""
    if not sys.stdin.isatty():
        yield
        return
    import termios  # Windows has no such module
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def listen_for_keys(put: Callable[[str], object]) -> None:
    """Read the standard input in a thread, and pass it on letter by letter.

    The thread ends with the program. It reads the file descriptor directly, because a thread that waits in `sys.stdin`
    would hold a lock while the program ends.
    """

    def read() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the input or the loop is closed
            while key := os.read(0, 1):
                put(key.decode("ascii", "replace"))

    threading.Thread(target=read, daemon=True).start()


# ---- the `respond` command -------------------------------------------------------------------------------------------


@click.command()
@stream_options
@click.option(
    "--lat", type=Number(-90, 90), required=True, envvar="GEOCAST_LAT", show_envvar=True, help="Where you are."
)
@click.option("--lng", type=Number(-180, 180), required=True, envvar="GEOCAST_LNG", show_envvar=True)
@click.option("--accuracy", "accuracy_m", default=10.0, help="The accuracy of the place, in metres.")
@click.option("--speed", "speed_m_s", type=Number(0.1, 100), default=WALKING_M_S, help="Your speed, in m/s.")
@click.option("--accept", "accepts_all", is_flag=True, help="Accept every call, and report `arrived`: for exercises.")
def respond(lat: float, lng: float, accuracy_m: float, speed_m_s: float, accepts_all: bool, **options: Any) -> None:
    """Be on duty: receive calls for help near you, and answer them, until q or Ctrl-C.

    The token needs a valid qualification. Keys: a accepts the nearest call, d declines, or gives your seat back, e and
    r report, o goes off and on duty. The place to go to is shown only while you have a seat.
    """
    run(_respond(Place.at(lat, lng, accuracy_m, here=True), speed_m_s, accepts_all, options))


async def _respond(here: Place, speed_m_s: float, accepts_all: bool, options: dict[str, Any]) -> None:
    duty = DutyScreen(make_console(), speed_m_s, accepts_all)
    keys: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    client = duty.client = make_client(duty, [here], options, on_call=duty.called, locate=lambda: here)
    with one_by_one(), duty.showing(client.holdings):
        listen_for_keys(lambda key: loop.call_soon_threadsafe(keys.put_nowait, key))
        await first_to_end(client.run(), duty.answer(keys))
