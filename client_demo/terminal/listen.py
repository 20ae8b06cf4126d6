"""The commands `python -m client_demo listen` and `walk`: a subscriber in a terminal.

In a terminal, it shows a table of the alerts that it has, and prints each change above the table. In a pipe, it prints
each change as one line.
"""

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from client_demo.console import alert_line, make_console, plain, styled
from client_demo.python.client import Client, Source
from client_demo.python.geo import Place, along, away_m, distance_m
from client_demo.python.holdings import Alert, Change, Holdings, Kind
from client_demo.python.link import ClientError, first_to_end
from client_demo.python.notices import Notices
from client_demo.python.times import own_ms, parse_time, wall_ms
from client_demo.python.verify import MAX_APPROVALS, Untrusted, Verifier
from client_demo.python.wire import WireName

from .command import SEVERITIES, STREAM_URL, WRONG_INPUT, Command, Number, fail, run

TOKEN_COMMAND_S = 30
REFRESHES_PER_S = 2
PUSH_PORT = 8791
PINNED = ("reviewers", "audience", "approvals", "cancel_approvals")
ONCE_S = 20.0  # about the time that an operating system gives an app in the background

TokenSource = Callable[[], str] | None


# ---- printing alerts and changes -------------------------------------------------------------------------------------


def change_line(change: Change, holdings: Holdings, now_ms: int) -> Text:
    """Return one line about a change of an alert. `now_ms` is the time on the client's own clock."""
    alert = change.alert
    ended = change.kind in (Kind.CANCELLED, Kind.EXPIRED)
    left = [] if ended else [f"{_left(alert, holdings, now_ms)} left"]
    rest = [_where(alert, holdings, change.here), *left, f"revision {alert['revision']}"]
    line = Text(f"{change.kind.replace('_', ' '):14} ", style="bold")
    line.append(alert_line(alert), style="" if ended else styled(alert["severity"]))
    line.append(plain(f" ({change.reason})") if change.reason else "")
    return line.append(f"  [{'; '.join(rest)}]", style="dim")


def details(alert: Alert) -> Text:
    """Return further lines about an alert that is an official warning.

    They show its instruction, and the host of the page with more information (C9).
    """
    found = Text()
    if instruction := alert.get("instruction"):
        found.append(f"\n{' ':15}{plain(' '.join(str(instruction).split()))}")
    if host := host_of(alert.get("web")):
        found.append(f"\n{' ':15}more at {plain(host)}", style="dim")
    return found


def host_of(url: object) -> str | None:
    """Return the host of an http or https URL in ASCII, without look-alike letters. Return None for any other text."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        return None
    return host if host and parts.scheme in ("http", "https") else None


def held_table(holdings: Holdings, status: str, now_ms: int) -> Table:
    """Return a table of the alerts that the client has.

    Alerts whose areas contain the person come first; both groups are sorted by their ends.
    """
    table = Table(box=None, pad_edge=False, header_style="bold underline", expand=True, caption=Text(plain(status)))
    for name, options in (("alert", {"ratio": 1}), ("where", {}), ("left", {"justify": "right"}), ("rev", {})):
        table.add_column(name, no_wrap=name != "alert", **options)
    here = [alert["id"] for alert in holdings.here()]
    for alert in sorted(holdings, key=lambda alert: (alert["id"] not in here, alert["expires_at"])):
        inside = alert["id"] in here
        cells = [_where(alert, holdings, inside), _left(alert, holdings, now_ms), str(alert["revision"])]
        table.add_row(Text(alert_line(alert), style=styled(alert["severity"]) if inside else "dim"), *cells)
    return table


def _where(alert: Alert, holdings: Holdings, here: bool) -> str:
    away = away_m(alert["area"], holdings.places)
    return ("inside" if here else "outside") + ("" if away is None else f", {away / 1000:.1f} km from the centre")


def _left(alert: Alert, holdings: Holdings, now_ms: int) -> str:
    left_s = max(0, parse_time(alert["expires_at"]) - holdings.server_ms(now_ms)) // 1000
    return f"{left_s // 60} min {left_s % 60:02} s"


class Screen:
    """The output of `listen`: a table that is kept up to date in a terminal, or lines in a pipe."""

    is_wiped = False  # whether the table is erased when the command ends

    def __init__(self, console: Console) -> None:
        self._console, self._status = console, ""
        self._live: Live | None = None
        self._holdings = Holdings()

    @contextlib.contextmanager
    def showing(self, holdings: Holdings) -> Iterator[None]:
        """Show the table of these alerts during the `with` block."""
        self._holdings = holdings
        if not self._console.is_terminal:
            yield
            return
        with Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=REFRESHES_PER_S,
            transient=self.is_wiped,
        ) as self._live:
            yield

    def redraw(self) -> None:
        """Draw the table in its present state. Without this, printing a line would draw the table as it was before."""
        if self._live is not None:
            self._live.refresh()

    def _table(self) -> RenderableType:
        return held_table(self._holdings, self._status, own_ms())

    def change(self, change: Change) -> None:
        """Print a change of an alert."""
        line = change_line(change, self._holdings, own_ms())
        if change.kind in (Kind.NEW, Kind.UPDATED):
            line.append(details(change.alert))
        self._console.print(line, soft_wrap=True)

    def line(self, line: Text) -> None:
        """Print one line of text."""
        self._console.print(line, soft_wrap=True)

    def untrusted(self, dropped: Untrusted) -> None:
        """Print that a message was dropped, because too few known reviewers have signed it."""
        self._console.print(Text(plain(str(dropped)), style="bold red"), soft_wrap=True)

    def status(self, line: str) -> None:
        """Show the status of the connection or of the walk."""
        self._status = line
        if not self._console.is_terminal:
            self._console.print(Text(plain(line), style="dim"), soft_wrap=True)


# ---- options and the client ------------------------------------------------------------------------------------------


def stream_options(command: Command) -> Command:
    """Add the options for the stream, the token, the filters and the reviewers."""
    options = [
        click.option(
            "--url", default=STREAM_URL, envvar="GEOCAST_STREAM_URL", show_envvar=True, help="The stream listener."
        ),
        click.option(
            "--source",
            type=click.Choice(get_args(Source)),
            default="socket",
            help="Where alerts come from: the stream, or the public feed, which learns no place; auto: the feed while "
            "no connection can be made.",
        ),
        click.option("--feed", metavar="URL", help="With --source feed or auto: the URL of the feed's alerts.geojson."),
        click.option(
            "--token",
            envvar="GEOCAST_TOKEN",
            show_envvar=True,
            help="A token with alerts:receive, if the node requires one.",
        ),
        click.option(
            "--token-command",
            envvar="GEOCAST_TOKEN_COMMAND",
            show_envvar=True,
            help="A command that prints a fresh token. It runs whenever a token is needed.",
        ),
        click.option(
            "--wire", type=click.Choice(get_args(WireName)), default="json", envvar="GEOCAST_WIRE", show_envvar=True
        ),
        click.option(
            "--category",
            "categories",
            multiple=True,
            envvar="GEOCAST_CATEGORY",
            show_envvar=True,
            help="Show only this category. May be repeated.",
        ),
        click.option(
            "--min-severity",
            type=click.Choice(SEVERITIES),
            envvar="GEOCAST_MIN_SEVERITY",
            show_envvar=True,
            help="Show only this severity and worse.",
        ),
        click.option(
            "--language",
            "languages",
            multiple=True,
            envvar="GEOCAST_LANGUAGE",
            show_envvar=True,
            help="The language of alerts that exist in several, such as de-AT. May be repeated, the preferred first.",
        ),
        click.option(
            "--reviewers",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A JWKS of reviewers. Show only alerts that they have signed, whatever a node sends.",
        ),
        click.option(
            "--audience",
            help="With --reviewers: the deployment's name in its policy.",
        ),
        click.option(
            "--approvals",
            type=click.IntRange(1, MAX_APPROVALS),
            help="With --reviewers: how many reviewers must have signed an alert.",
        ),
        click.option(
            "--cancel-approvals",
            type=click.IntRange(0, MAX_APPROVALS),
            default=1,
            help="With --reviewers: how many reviewers must have signed a cancel.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def make_client(screen: Screen, places: Sequence[Place], options: dict[str, Any], **more: Any) -> Client:
    """Return a client with those options that `stream_options` has added, and with the arguments in `more`."""
    source = _token_source(options.pop("token"), options.pop("token_command"))
    pinned = [options.pop(name) for name in PINNED]
    categories, languages = options.pop("categories") or None, options.pop("languages") or None
    verify = _verifier(*pinned)
    try:
        return Client(
            options.pop("url"),
            places,
            token=source,
            on_change=screen.change,
            on_status=screen.status,
            on_untrusted=screen.untrusted,
            verify=verify,
            categories=categories,
            languages=languages,
            **options,
            **more,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _verifier(
    reviewers: Path | None, audience: str | None, approvals: int | None, cancel_approvals: int
) -> Verifier | None:
    """Return a verifier with the options that the user has given, or None if none were given.

    Exit if the options are not valid.
    """
    if reviewers is None:
        if audience is not None or approvals is not None:
            raise click.UsageError("--audience and --approvals go with --reviewers")
        return None
    if audience is None or approvals is None:
        raise click.UsageError("--reviewers goes with --audience and --approvals")
    try:
        keys = json.loads(reviewers.read_text(encoding="utf-8"))
        return Verifier(keys, audience, approvals=approvals, cancel_approvals=cancel_approvals)
    except (OSError, ValueError):
        fail(f"{reviewers} can't be used: it is not a JWKS", WRONG_INPUT)
    except ClientError as error:
        fail(f"{reviewers} can't be used: {error}", WRONG_INPUT)


def _token_source(token: str | None, command: str | None) -> TokenSource:
    if command is not None:
        return lambda: _printed_by(command)
    return None if token is None else lambda: token


def _printed_by(command: str) -> str:
    try:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True, timeout=TOKEN_COMMAND_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"the token command failed: {type(error).__name__}") from None
    return done.stdout.strip()


# ---- the `listen` command --------------------------------------------------------------------------------------------


@click.command()
@stream_options
@click.option("--lat", type=Number(-90, 90), envvar="GEOCAST_LAT", show_envvar=True, help="Where you are.")
@click.option("--lng", type=Number(-180, 180), envvar="GEOCAST_LNG", show_envvar=True)
@click.option(
    "--accuracy",
    "accuracy_m",
    default=0.0,
    envvar="GEOCAST_ACCURACY",
    show_envvar=True,
    help="The accuracy of the place, in metres; at most 2,000.",
)
@click.option(
    "--cell",
    "cells",
    multiple=True,
    envvar="GEOCAST_CELL",
    show_envvar=True,
    help="An H3 cell (resolution 7 to 15) to send instead of the exact place. May be repeated.",
)
@click.option(
    "--push",
    "push_url",
    metavar="URL",
    envvar="GEOCAST_PUSH_URL",
    show_envvar=True,
    help="Play a sleeping phone: register with the `geocast push` at this URL, and show its pushes.",
)
@click.option(
    "--push-port",
    type=click.IntRange(0, 65_535),
    default=PUSH_PORT,
    help="With --push: the port of the simulated push service; 0 means any free port.",
)
@click.option(
    "--push-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    default="push-ca.pem",
    help="With --push: the certificate of the simulated push service, created if missing.",
)
@click.option(
    "--once", is_flag=True, help="Receive the waiting alerts over one short connection, as after a push, and exit."
)
@click.option(
    "--held",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that stores the held alerts, so that the next run receives only what is new.",
)
def listen(
    lat: float | None,
    lng: float | None,
    accuracy_m: float,
    cells: tuple[str, ...],
    push_url: str | None,
    push_port: int,
    push_ca: Path,
    once: bool,
    held: Path | None,
    **options: Any,
) -> None:
    """Show alerts as they arrive, until Ctrl-C.

    In a terminal the command shows a table of the alerts that it has. Each line says what happened, whether you are
    inside, and how long the alert is still live.

    With --push there is no connection: the command acts as a sleeping phone, and as the push service behind it. Each
    line is a notification: `heard` or `silent`, and `replaced` if it replaces an earlier one.
    """
    if (lat is None) != (lng is None) or (lat is None and not cells):
        raise click.UsageError("say where you are: --lat and --lng, or --cell")
    try:
        places = [Place.in_cell(cell) for cell in cells]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if lat is not None and lng is not None:
        places.append(Place.at(lat, lng, accuracy_m))
    screen = Screen(make_console())
    client = make_client(screen, places, dict(options))
    if held is not None:
        _recall(client.holdings, held)
    try:
        if push_url is not None:
            _sleep(screen, client.holdings, push_url, push_port, push_ca, {**options, "once": once})
            return
        with screen.showing(client.holdings):
            run(_once(client) if once else client.run())
    finally:
        if held is not None:
            _remember(client.holdings, held)


def _sleep(screen: Screen, holdings: Holdings, url: str, port: int, ca: Path, options: dict[str, Any]) -> None:
    """Act as a sleeping phone, until cancelled."""
    try:
        from .sleeping_phone import SleepingPhone, certificate_at, start_clock
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        fail("listen --push needs aiohttp: pip install -r requirements/push.txt")
    token = _token_source(options["token"], options["token_command"])
    if options.pop("once") or token is None:
        raise click.UsageError("--push goes with --token or --token-command, and not with --once")
    verify = _verifier(*(options[name] for name in PINNED))
    more = {"categories": list(options["categories"]) or None, "min_severity": options["min_severity"]}
    more |= {"languages": list(options["languages"]) or None, "proofs": None if verify is None else True}
    notices = Notices(holdings, verify=verify)
    start_clock(notices)
    phone = SleepingPhone(
        url=url,
        token=token,
        notices=notices,
        more=more,
        make_client=lambda: make_client(screen, holdings.places, dict(options)),
        say=screen.status,
        show=screen.line,
    )
    try:
        run(phone.run(certificate_at(ca), port))
    except OSError as error:
        fail(f"the push service can't be played on port {port}: {error.strerror}")
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def _once(client: Client) -> None:
    try:
        async with asyncio.timeout(ONCE_S):
            await client.fetch()
    except TimeoutError:
        raise ClientError(f"nothing could be fetched in {ONCE_S:g} s") from None


def _recall(holdings: Holdings, path: Path) -> None:
    """Load the alerts that an earlier run has stored in the file. If the file is missing, load none.

    An odd alert is left out. A file with anything but alerts is refused, because it would be overwritten.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        _ = [each["alert"]["id"] for each in saved]
        holdings.restore(saved, own_ms(), wall_ms() - own_ms())
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        fail(f"{path} can't be used: it does not hold what `listen --held` writes", 2)


def _remember(holdings: Holdings, path: Path) -> None:
    """Store the alerts in the file. It is replaced as a whole, so that an interrupted run leaves the old one."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(json.dumps(holdings.saved(wall_ms() - own_ms())), encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        fail(f"{path} can't be written: {error.strerror}", 2)


# ---- a simulated walk: positions along a line ------------------------------------------------------------------------


class Point(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """The type of an option that is a point, written `LAT,LNG` in degrees."""

    name = "LAT,LNG"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Return the latitude and the longitude in degrees. Report a usage error for any other text."""
        try:
            lat, lng = (float(part) for part in value.split(","))
        except ValueError:
            self.fail("two numbers with a comma between them are needed, such as 32.78,-96.80", param, ctx)
        if not (abs(lat) <= 90 and abs(lng) <= 180):
            self.fail("a latitude of -90 to 90 and a longitude of -180 to 180 are needed", param, ctx)
        return lat, lng


@click.command()
@stream_options
@click.option("--from", "start", type=Point(), required=True, help="The start of the walk.")
@click.option("--to", "end", type=Point(), required=True, help="The end of the walk.")
@click.option("--speed", "speed_m_s", type=Number(0.1, 1000), default=1.4, help="The speed, in metres a second.")
@click.option("--every", "every_s", type=Number(0.2, 600), default=2.0, help="Seconds between two moves.")
def walk(
    start: tuple[float, float], end: tuple[float, float], speed_m_s: float, every_s: float, **options: Any
) -> None:
    """Walk a straight line, and show the alerts whose areas you enter and leave."""
    screen = Screen(make_console())
    client = make_client(screen, [Place.at(*start)], options)
    with screen.showing(client.holdings):
        run(first_to_end(client.run(), _walk(client, screen, start, end, speed_m_s, every_s)))


async def _walk(
    client: Client,
    screen: Screen,
    start: tuple[float, float],
    end: tuple[float, float],
    speed_m_s: float,
    every_s: float,
) -> None:
    await client.caught_up()
    clock, length_m = asyncio.get_running_loop().time, distance_m(*start, *end)
    began, walked_m = clock(), 0.0
    while walked_m < length_m:
        await asyncio.sleep(every_s)
        walked_m = min(length_m, (clock() - began) * speed_m_s)
        await client.move([Place.at(*along(*start, *end, walked_m / length_m))])
        screen.status(f"walked {walked_m:,.0f} of {length_m:,.0f} m")
    await client.caught_up()
