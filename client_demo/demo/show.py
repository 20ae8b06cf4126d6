"""The course of `make demo`: a node, a city of subscribers, a review desk, a live map, and a verdict on every delivery.

    1  The demo reads a feed of dispatch records, and a simulated desk decides which incidents become alerts.
    2  It starts a node, and connects the subscribers, who run in processes of their own.
    3  It plays the acts. Alerts are published, and one is revised to another place. Some subscribers lose their
       connections, as in a tunnel, while alerts are cancelled and revised, and come back. Then there is a call for help
       to a cardiac arrest.
    4  It judges every delivery with a distance formula of its own (`verdict`) and, if aiohttp is installed, every push
       to sleeping phones, and prints a table.
    5  In a terminal, it goes on until Ctrl-C, so that there is time to look at the map.

Subscribers don't move while an alert is being published, from before the request until everybody inside has the alert.
So it is known exactly who has to get it. Between two acts, subscribers move in and out of the areas of live alerts.
"""

import asyncio
import contextlib
import itertools
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from client_demo.console import alert_line
from client_demo.desk.feed_format import FeedError, Incident, optional_format
from client_demo.desk.feeds import SAMPLE, read_feed
from client_demo.desk.run import DESK_PORT, DeskSettings, open_desk
from client_demo.desk.triage import Case, Desk, Policy, Triage, varied
from client_demo.dispatch.records import Record
from client_demo.dispatch.run import DISPATCH_PORT, DispatchSettings, open_dispatch
from client_demo.dispatch.service import PAGE as DISPATCH_PAGE
from client_demo.python.client import Client
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.geo import Place, distance_m, offset
from client_demo.python.holdings import Change
from client_demo.python.link import first_to_end
from client_demo.python.publisher import Publisher, PublishError, Refused
from client_demo.python.times import parse_time, wall_ms
from client_demo.staff_page.run import OpenPage
from client_demo.web.server import missing

from .call_verdict import Called, CallVerdict, ResponderPhone, check_call
from .cardiac_arrest import Call, arrests_of, where, write_aeds
from .feed_mode import FeedVerdict, feed_phones
from .live_map import FILES, MAP_PORT, LiveMap, View, by_revision, fan_out, live_map
from .population import KINDS, Point, Simulated, city
from .processes import CrowdProcess, Node, ProcessError, all_do
from .progress import Progress, verdict_table
from .push_verdict import PushVerdict, Sleeper, check_pushes
from .responder_page import PAGE as RESPONDER_PAGE
from .responder_page import RESPONDER_PORT, responder_page, signed_in
from .responders import LIFE_S, RESPONDER, Responder, responders
from .verdict import DeliveryCheck, Event, Published, Row, percentile
from .warnings_feed import FetchedWarnings, FetchVerdict
from .webhooks import RelayVerdict, webhooks

if TYPE_CHECKING:  # the module needs aiohttp
    from .sleepers import Sleepers

PROCESSES = 2
SUBSCRIBERS = 3000
SPARE_DESCRIPTORS = 200
MIN_SECONDS = 12.0
PATIENCE_S = 10.0  # how long the desk repeats a request
ENDING_S = 3.0  # reserved for the verdict and the end of the node
CALL_S = 4.0  # reserved for the call for help
INTERVAL_S = (0.5, 1.5)  # least and greatest time between two acts
NEEDED, MOST_CASES = 2, 40
TUNNEL = 60  # number of subscribers who lose their connection
REASONS_SHOWN = 12
FROM_THE_MIDDLE_M = (-700.0, 100.0)  # north, east: beside the names on the map
RESPONDER_SCOPES = ("alerts:receive", "alerts:test")  # the dispatch page proposes exercises
FROM_THE_ARREST_M = (150.0, -120.0)  # north, east: the first place of the responder's page
NEIGHBOUR_M = 1500.0
AFTERWARDS_S, AFTERWARDS_LIVE = 5.0, 12  # after the verdict: seconds between two acts, and the number of live alerts

AGAIN_S, KEPT_S = 45.0, 20.0  # between two calls for help; how long the simulated responders leave the seats
CALL_FULL_S, CALL_THERE_S = 25.0, 15.0  # the longest times until such a call is full, and then until all have arrived

Act = Callable[[], Coroutine[Any, Any, None]]
Page = TypeVar("Page")


class DemoError(Exception):
    """Raised if the demo can't run. The text is one line for the user."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was observed in the demo and that the verdicts need.

    The main parts are the published alerts, and the places and the record of each subscriber up to the time `end` (ns).
    """

    published: list[Published]
    records: list[tuple[list[list[Place]], list[Event]]]
    faults: list[str]
    end: int
    called: Called | None = None  # the call for help, if there was one
    phones: list[ResponderPhone] = field(default_factory=list)  # every phone that could have been called
    frames: int = 0  # number of frames that were searched for the place
    sleepers: list[Sleeper] | None = None  # the sleeping phones, if there are any
    fetched: FetchVerdict | None = None  # the verdict on the warnings of a feed
    ends_ms: dict[str, int] = field(default_factory=dict)  # id -> end of the alert
    woke_ms: int = 0  # when the sleeping phones woke, in ms since 1970


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdicts of the demo: on all alerts, and on each other way in and out."""

    alerts: int
    rows: list[Row]
    faults: list[str]
    call: CallVerdict | None = None
    push: PushVerdict | None = None
    fetch: FetchVerdict | None = None
    relay: RelayVerdict | None = None
    feed: FeedVerdict | None = None

    def total(self, name: str) -> int:
        """Return the sum of a count, such as `missed`, over all revisions and cancellations."""
        return sum(getattr(row, name) for row in self.rows)

    @property
    def is_good(self) -> bool:
        """Whether everybody who had to get an alert, call or push got it, and nobody else did."""
        verdicts = (self.call, self.push, self.fetch, self.relay, self.feed)
        if not all(verdict is None or verdict.is_good for verdict in verdicts):
            return False
        wrong = self.total("outside") + self.total("missed") + len(self.faults)
        return self.total("delivered") > 0 and not wrong

    def last_line(self) -> str:
        """Return the outcome as one line for programs."""
        told_ms = percentile([ms for row in self.rows for ms in row.told_ms], 0.99)
        stored_ms = percentile([row.stored_ms for row in self.rows], 0.99)
        counts = " ".join(f"{name}={self.total(name)}" for name in ("expected", "delivered", "outside", "missed"))
        return f"demo: alerts={self.alerts} {counts} stored_p99_ms={stored_ms:.1f} p99_ms={told_ms:.1f}"


@dataclass(frozen=True, slots=True)
class Programme:
    """The settings of a demo: duration, feed, number of subscribers, and the map.

    With `stays`, the demo goes on after the verdict, until Ctrl-C.
    """

    seconds: float
    feed: Path | None = None
    feed_format: Path | None = None
    subscribers: int = SUBSCRIBERS
    map_port: int = MAP_PORT
    map_style: str | None = None
    stays: bool = False


def run_demo(console: Console, programme: Programme) -> int:
    """Run the demo, and return the exit status: 0 if all deliveries were right, otherwise 1.

    Raise DemoError if the demo can't run.
    """
    if programme.seconds < MIN_SECONDS:
        raise DemoError(f"{programme.seconds:g} s are too short for a demo; it needs at least {MIN_SECONDS:g} s")
    path = programme.feed or SAMPLE
    try:
        kind = optional_format(programme.feed_format)
        feed, arrests = read_feed(path, kind), arrests_of(path, kind)
    except FeedError as error:
        raise DemoError(str(error)) from None
    progress = Progress(console)
    progress.say(f"feed: {feed.title}, {feed.rows} records of {len(feed.incidents)} incidents")
    return 0 if asyncio.run(_perform(progress, programme, feed.incidents, arrests)).is_good else 1


async def _perform(
    progress: Progress, programme: Programme, incidents: Sequence[Incident], arrests: Sequence[Record]
) -> Outcome:
    """Start the processes and pages, run the show, judge it, and clean up. Return the outcome."""
    ends_at = time.monotonic() + programme.seconds - ENDING_S
    crowd = [CrowdProcess() for _ in range(PROCESSES)]
    async with contextlib.AsyncExitStack() as cleanup:
        folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="geocast-demo-"))
        node = Node(Path(folder), write_aeds(Path(folder) / "aeds.geojson", arrests) if arrests else None)
        cleanup.push_async_callback(node.stop)
        for each in crowd:
            cleanup.push_async_callback(each.stop)
        await asyncio.gather(node.start(), *(each.start() for each in crowd))
        progress.say(f"node: {node.stream_url} for subscribers, {node.api_url} for the desk")
        progress.say(f"feed for everybody: {node.feed_url}/v1/alerts.geojson, {node.feed_url}/v1/feed.atom")
        relay = await cleanup.enter_async_context(webhooks(node, Path(folder)))
        followers = await cleanup.enter_async_context(feed_phones(node.feed_url, incidents))
        sleepers = await _phones_that_sleep(progress, node, Path(folder), cleanup)
        warnings = FetchedWarnings(Path(folder), node)
        cleanup.push_async_callback(warnings.stop)
        await warnings.start()
        shown = await cleanup.enter_async_context(_serve_map(node, programme, sleepers))
        if sleepers is not None:
            sleepers.start([shown.url])
        publisher = await cleanup.enter_async_context(Publisher(node.api_url, node.token, patience_s=PATIENCE_S))
        dispatcher = await cleanup.enter_async_context(
            Dispatcher(node.api_url, node.dispatch_token, patience_s=PATIENCE_S)
        )
        show = Show(progress, node, crowd, publisher, shown, dispatcher, arrests, warnings, sleepers)
        watch = [node.watch, relay.watch, *([] if sleepers is None else [sleepers.watch])]
        links = {"live map": shown.url}
        has_calls = bool(arrests) and missing({**RESPONDER_PAGE, **DISPATCH_PAGE}) is None
        if has_calls:
            calls = await _serve_calls(node, programme, arrests, cleanup)
            for name, link in calls.items():
                progress.say(f"{name}: {link}", "bold")
            links |= calls
        try:
            with progress:
                playing = show.play(incidents, programme.subscribers, ends_at)
                await first_to_end(playing, *(each() for each in watch))
                evidence = await show.evidence()
                outcome = replace(
                    outcome_of(evidence),
                    relay=await relay.verdict(evidence.published),
                    feed=await followers.verdict(evidence.published),
                )
            stays = programme.stays and missing(FILES) is None
            if stays:
                desk = await cleanup.enter_async_context(_serve_desk(node, programme, Path(folder)))
                links |= {f"review desk, where you decide, as {name}": link for name, link in desk.links.items()}
                _tell_links(progress, links, has_calls=has_calls)
            _tell(progress, outcome)
            if stays:
                await show.keep_seats()
                going = [show.go_on(), *([show.call_again()] if has_calls else [])]
                with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is a normal end
                    await first_to_end(*going, *(each() for each in watch))
        except PublishError as error:
            raise ProcessError(f"the desk could not publish: {error}") from None
        return outcome


async def _phones_that_sleep(
    progress: Progress, node: Node, folder: Path, cleanup: contextlib.AsyncExitStack
) -> "Sleepers | None":
    """Return the sleeping phones; or None if aiohttp is not installed, which they need."""
    try:
        from .sleepers import sleeping
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        progress.say("no sleeping phones, because aiohttp is missing; `make demo` installs it", "yellow")
        return None
    return await cleanup.enter_async_context(sleeping(node, folder))


@contextlib.asynccontextmanager
async def _on_port(
    port: int, opening: Callable[[int], contextlib.AbstractAsyncContextManager[Page]]
) -> AsyncIterator[Page]:
    """Serve a page on this port, or on any free port if this one is taken, and yield the page.

    `opening` serves the page on a given port.
    """
    async with contextlib.AsyncExitStack() as cleanup:
        try:
            page = await cleanup.enter_async_context(opening(port))
        except OSError:
            page = await cleanup.enter_async_context(opening(0))
        yield page


def _serve_map(
    node: Node, programme: Programme, sleepers: "Sleepers | None"
) -> contextlib.AbstractAsyncContextManager[LiveMap]:
    push_url = None if sleepers is None else f"{sleepers.push.url}/v1"
    view = View(
        node.stream_url, node.phone_token, style_url=programme.map_style, push_url=push_url, feed_url=node.feed_url
    )
    return _on_port(programme.map_port, partial(live_map, node.api_url, node.token, view))


async def _serve_calls(
    node: Node, programme: Programme, arrests: Sequence[Record], cleanup: contextlib.AsyncExitStack
) -> dict[str, str]:
    """Serve the page of a responder near the newest cardiac arrest, and a dispatch page.

    Return the links to the pages, by name. Calls that are opened on the dispatch page also reach the simulated
    responders. They are exercises unless the dispatcher chooses otherwise.
    """
    view = View(node.stream_url, place=offset(*where(arrests[0]), *FROM_THE_ARREST_M), style_url=programme.map_style)
    settings = DispatchSettings(
        api_url=node.api_url,
        token=node.dispatch_token,
        feed=programme.feed or SAMPLE,
        feed_format=programme.feed_format,
        status="exercise",
        style_url=programme.map_style,
    )
    url = await cleanup.enter_async_context(_on_port(RESPONDER_PORT, partial(responder_page, view)))
    opening = _on_port(DISPATCH_PORT, lambda port: open_dispatch(replace(settings, port=port)))
    page = await cleanup.enter_async_context(opening)
    token = node.issuer.token("r-you", RESPONDER_SCOPES, LIFE_S, ["cpr", "medic"])
    dispatch = {f"dispatch page, as {name}": link for name, link in page.links.items()}
    return {"responder's page, for you": signed_in(url, token), **dispatch}


def _serve_desk(node: Node, programme: Programme, folder: Path) -> contextlib.AbstractAsyncContextManager[OpenPage]:
    """Serve a review desk with the demo's feed. The alerts of this desk also reach the map and the crowd."""
    settings = DeskSettings(
        api_url=node.api_url,
        token=node.token,
        feed=str(programme.feed or SAMPLE),
        feed_format=programme.feed_format,
        state=folder / "review.db",
        status="actual",
        style_url=programme.map_style,
    )
    return _on_port(DESK_PORT, lambda port: open_desk(replace(settings, port=port)))


def _tell_links(progress: Progress, links: dict[str, str], *, has_calls: bool) -> None:
    """Print the links of all pages together, before the verdict."""
    progress.say("\nThe city goes on until Ctrl-C. Open in a browser:", "bold")
    width = max(map(len, links)) + 1
    for name, link in links.items():
        progress.say(f"  {name + ':':{width}} {link}", "bold")
    if has_calls:
        progress.say(
            f"Go on duty on the responder's page: every {AGAIN_S:g} s there is a call for help, "
            f"and for {KEPT_S:g} s a seat is kept for you."
        )


def _tell(progress: Progress, outcome: Outcome) -> None:
    progress.console.print(verdict_table(outcome.rows, progress.console.width))
    call, push = outcome.call, outcome.push
    for fault in (outcome.faults + (call.faults if call else []) + (push.faults if push else []))[:20]:
        progress.say(f"WRONG: {fault}", "bold red")
    for verdict in (outcome.fetch, outcome.relay, outcome.feed):
        if verdict is not None:
            print(verdict.line(), flush=True)
    if push is not None:
        print(push.line(), flush=True)
    if call is not None:
        print(call.line(), flush=True)
    print(outcome.last_line(), flush=True)


class Show:
    """The acts of the demo (publishing, revising and so on), which need a running node and a connected crowd."""

    def __init__(
        self,
        progress: Progress,
        node: Node,
        crowd: Sequence[CrowdProcess],
        publisher: Publisher,
        shown: LiveMap,
        dispatcher: Dispatcher,
        arrests: Sequence[Record],
        warnings: FetchedWarnings,
        sleepers: "Sleepers | None" = None,
    ) -> None:
        self._progress, self._node, self._crowd, self._publisher, self._map = progress, node, crowd, publisher, shown
        self._dispatcher, self._arrests, self._warnings, self._sleepers = dispatcher, arrests, warnings, sleepers
        self._responders: dict[str, Responder] = {}  # by `sub`
        self._called: Called | None = None
        self._searched = 0  # number of searched frames
        self._published: list[Published] = []
        self._sent: dict[str, dict[str, Any]] = {}  # id -> the desk's last request
        self._ends_ms: dict[str, int] = {}  # id -> end of the alert
        self._cast: list[list[Simulated]] = []  # for each process, the subscribers that it simulates

    async def play(self, incidents: Sequence[Incident], subscribers: int, ends_at: float) -> None:
        """Run the whole show.

        The desk decides, the subscribers connect, and the acts are played, until `ends_at` (monotonic) at the latest.
        """
        self._policy = Policy.from_map(await self._publisher.policy())
        self._desk = Desk(self._policy, retime=True)
        self._cases = cases = self._decide(incidents)
        self._open_map(max(cases, key=partial(_neighbours, cases)))
        await asyncio.gather(self._connect(subscribers, cases), self._register([_where(case) for case in cases]))
        listener = self._listener(cases[0])
        await first_to_end(self._act_by_act(cases, ends_at), listener.run())

    # ---- part 1: the desk decides ----------------------------------------------------------------------------

    def _decide(self, incidents: Sequence[Incident]) -> list[Case]:
        triage = self._desk.triage(incidents, wall_ms())
        self._tell_refusals(triage)
        if not triage.cases:
            raise DemoError("nothing in this feed may be published")
        return list(varied(triage.cases))[:MOST_CASES]

    def _tell_refusals(self, triage: Triage) -> None:
        progress, reasons = self._progress, triage.reasons()
        progress.say(f"desk: {len(triage.cases)} incidents may be published, {len(triage.refusals)} are refused:")
        for reason, count in reasons[:REASONS_SHOWN]:
            progress.say(f"  {count:5}  {reason}")
        if len(reasons) > REASONS_SHOWN:
            progress.say(f"         … and {len(reasons) - REASONS_SHOWN} more reasons")
        if triage.retimed():
            progress.say(f"desk: {triage.retimed()}", "yellow")

    def _open_map(self, case: Case) -> None:
        """Print the address of the map, which first shows the case that has the most other cases around it."""
        self._map.view = replace(self._map.view, place=offset(*_where(case), *FROM_THE_MIDDLE_M))
        lacks = missing(FILES)
        if lacks is None:
            self._progress.say(f"map: {self._map.url}", "bold")
        else:
            self._progress.say(
                f"no live map: there is no {lacks}; `make demo` gets it if an npm registry can be reached", "yellow"
            )

    # ---- part 2: the subscribers connect ---------------------------------------------------------------------

    async def _connect(self, count: int, cases: Sequence[Case]) -> None:
        fit = self._that_fit(count)
        here = responders([where(record) for record in self._arrests], self._token_of)
        self._responders = {one.simulated.sub: one for one in here}
        everybody = [one.simulated for one in here] + city(max(0, fit - len(here)), [_where(case) for case in cases])
        shares = [everybody[number :: len(self._crowd)] for number in range(len(self._crowd))]
        self._progress.bar("subscribers", len(everybody))
        connected = [0] * len(self._crowd)

        def told(number: int, line: dict[str, Any]) -> None:
            connected[number] = line["connected"]
            self._progress.advance("subscribers", sum(connected))

        began = time.monotonic()
        answers = await asyncio.gather(
            *(
                process.do(
                    "connect",
                    partial(told, number),
                    url=self._node.stream_url,
                    subscribers=[{**one.to_map(), "token": one.token or self._node.phone_token} for one in share],
                )
                for number, (process, share) in enumerate(zip(self._crowd, shares, strict=True))
            )
        )
        self._cast = [[share[n] for n in answer["order"]] for share, answer in zip(shares, answers, strict=True)]
        connected_all = [one for share in self._cast for one in share]
        self._progress.advance("subscribers", len(connected_all))
        kinds = ", ".join(f"{sum(one.kind == kind for one in connected_all)} {kind}" for kind in (*KINDS, RESPONDER))
        took_s = time.monotonic() - began
        self._progress.say(
            f"{len(connected_all)} subscribers connected in {took_s:.1f} s ({kinds}), half JSON, half MessagePack"
        )

    async def _register(self, incidents: Sequence[Point]) -> None:
        if self._sleepers is not None:
            self._progress.say(await self._sleepers.register(incidents))

    def _token_of(self, sub: str, quals: Sequence[str], life_s: int) -> str:
        return self._node.issuer.token(sub, RESPONDER_SCOPES, life_s, quals)

    def _that_fit(self, count: int) -> int:
        """Return how many of `count` subscribers can connect.

        The node needs a file descriptor for each of them, and a process may have only a limited number.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        fit = count if hard == resource.RLIM_INFINITY else max(1, min(count, hard - SPARE_DESCRIPTORS))
        if fit < count:
            self._progress.say(
                f"only {fit} subscribers instead of {count}: a process may have {hard} descriptors", "yellow"
            )
        return fit

    # ---- part 3: the acts, one after the other ---------------------------------------------------------------

    def _listener(self, case: Case) -> Client:
        """Return a real client at the place of the first alert, which prints what a person would see."""

        def tell(change: Change) -> None:
            reason = f" ({change.reason})" if change.reason else ""
            self._progress.say(f"  a listener sees: {change.kind} – {alert_line(change.alert)}{reason}", "dim")

        place = Place.at(*_where(case))
        token = self._node.phone_token
        return Client(self._node.stream_url, [place], token=lambda: token, wire="msgpack", on_change=tell)

    async def _act_by_act(self, cases: Sequence[Case], ends_at: float) -> None:
        ends_at -= CALL_S if self._arrests else 0
        acts = self._script(cases, ends_at)
        self._progress.bar("acts", len(acts))
        interval_s = min(INTERVAL_S[1], (ends_at - time.monotonic()) / len(acts))
        next_at = time.monotonic()
        for done, (act, is_needed) in enumerate(acts, 1):
            if is_needed or time.monotonic() < ends_at:
                await self._while_nobody_moves(act)
            self._progress.advance("acts", done)
            next_at = max(time.monotonic(), next_at + interval_s)
            await asyncio.sleep(next_at - time.monotonic())
        await all_do(self._crowd, "freeze")

    async def _while_nobody_moves(self, act: Act) -> None:
        await all_do(self._crowd, "freeze")
        await self._show_arrivals([])  # deliveries caused by moves
        before = len(self._published)
        await act()
        await self._show_arrivals(self._published[before:])
        await all_do(self._crowd, "thaw")

    async def _show_arrivals(self, published: Sequence[Published]) -> None:
        """Send to the map the deliveries since this method was last called.

        Deliveries of alerts in `published`, which were published just now, are sent with their latencies.
        """
        answers = await all_do(self._crowd, "arrivals")
        await self._map.refresh()
        self._map.people(sum((Counter(answer["people"]) for answer in answers), Counter[str]()))
        sent = {item.key: item.sent for item in published}
        for key, cells in by_revision(row for answer in answers for row in answer["told"]).items():
            if key[0] in self._sent:  # otherwise the alert was published by another desk
                self._map.told({**self._what(*key), **fan_out(cells, sent.get(key))})

    def _what(self, alert_id: str, revision: int) -> dict[str, Any]:
        """Return those members of the map's event `told` that describe the alert."""
        alert = self._sent[alert_id]
        is_cancel = any(item.key == (alert_id, revision) and item.area is None for item in self._published)
        title = self._policy.categories[alert["category"]]["title"]
        return {
            "id": alert_id,
            "revision": revision,
            "title": f"{title}, cancelled" if is_cancel else title,
            "severity": "" if is_cancel else alert["severity"],
        }

    def _script(self, cases: Sequence[Case], ends_at: float) -> list[tuple[Act, bool]]:
        """Return the acts in order, each with a flag: whether it must be played even if time is short.

        As many alerts are published as there is time for.
        """
        room = int((ends_at - time.monotonic()) / INTERVAL_S[0]) - 3
        publish = [(self._publishing(case), number < NEEDED) for number, case in enumerate(cases[: max(NEEDED, room)])]
        third = max(1, len(publish) // 3)
        return [
            *publish[:third],
            (self._move_first, True),
            *publish[third : 2 * third],
            (self._enter_tunnel, True),
            *publish[2 * third :],
            (self._leave_tunnel, True),
            (partial(self._warn, "The river rises at the old bridge.", cases[0]), True),
            (partial(self._warn_after_a_power_cut, "The river rises at the mill.", cases[-1]), True),
            *([(self._cardiac_arrest, True)] if self._arrests else []),
        ]

    def _publishing(self, case: Case) -> Act:
        async def act() -> None:
            alert = self._desk.write(case, wall_ms())
            took = await self._send(self._publisher.publish(alert), alert)
            self._progress.say(f"published {alert['category']}: {took}")

        return act

    async def _move_first(self) -> None:
        """Revise the first alert, moving its circle east by 1.5 times the radius."""
        alert = self._sent[self._published[0].id]
        shape = alert["area"][0]
        lat, lng = offset(shape["lat"], shape["lng"], 0, 1.5 * shape["radius_m"])
        took = await self._revise(alert["id"], area=[{**shape, "lat": lat, "lng": lng}])
        self._progress.say(
            f"revised {alert['category']}, it has moved east; everybody who had it gets the revision: {took}", "bold"
        )

    async def _enter_tunnel(self) -> None:
        """Drop the connections of some subscribers, then cancel one alert that they have and revise another."""
        first, second = (list(self._sent) * 2)[:2]
        gone = await all_do(self._crowd, "tunnel", ids=[first, second], most=TUNNEL // len(self._crowd))
        self._progress.say(f"{sum(each['gone'] for each in gone)} subscribers lost their connection", "bold")
        took = await self._cancel(first, "it was a false alarm")
        self._progress.say(
            f"cancelled {self._sent[first]['category']}; everybody who had it gets the cancel: {took}", "bold"
        )
        if second != first:
            took = await self._revise(second, description="Crews are on the scene.")
            self._progress.say(f"revised {self._sent[second]['category']} in place: {took}", "bold")

    async def _leave_tunnel(self) -> None:
        """Reconnect the subscribers that were dropped. They send their `holding`, and the node sends what they lack."""
        answers = await all_do(self._crowd, "emerge")
        total = {name: sum(answer[name] for answer in answers) for name in answers[0] if name != "done"}
        self._progress.say(
            f"{total['back']} came back, holding {total['held']} alerts; they were sent {total['cancels']} cancels, "
            f"{total['revisions']} revisions, {total['new']} new alerts, {total['again']} alerts that they already had",
            "bold",
        )

    async def _warn(self, headline: str, case: Case) -> None:
        """List a warning in the feed, from where `geocast fetch` brings it to the node."""
        alert: dict[str, Any] = {}

        async def fetched() -> dict[str, Any]:
            alert.update(await self._warnings.warn(self._publisher, headline, *_where(case)))
            return alert

        self._progress.say(f"a feed of official warnings lists a flood: {await self._send(fetched(), alert)}", "bold")

    async def _warn_after_a_power_cut(self, headline: str, case: Case) -> None:
        """Kill `geocast fetch` and start it again before the next warning."""
        await self._warnings.kill_and_start()
        await self._warn(headline, case)

    async def _cardiac_arrest(self) -> None:
        """Call responders to a patient's home.

        Those who are assigned to the call are sent the exact place; at the end all are sent a `standdown`.
        """
        call = Call(self._dispatcher, self._crowd, self._arrests[0])
        self._called = await call.go()
        self._searched = call.frames
        self._progress.say(f"cardiac arrest: {call.told()}", "bold")

    # ---- publishing, and recording the times for the verdict -------------------------------------------------

    async def _revise(self, alert_id: str, **changes: Any) -> str:
        revision = self._current(alert_id) + 1
        alert = {**self._sent[alert_id], **changes, "revision": revision, "approval": self._desk.approval(wall_ms())}
        return await self._send(self._publisher.revise(alert), alert)

    async def _cancel(self, alert_id: str, reason: str) -> str:
        cancel = {"revision": self._current(alert_id) + 1, "reason": reason, "approval": self._desk.approval(wall_ms())}
        alert = {**self._sent[alert_id], "headline": f"cancelled: {reason}", "area": None}
        return await self._send(self._publisher.cancel(alert_id, cancel), alert)

    def _current(self, alert_id: str) -> int:
        return max(item.revision for item in self._published if item.id == alert_id)

    async def _send(self, request: Coroutine[Any, Any, dict[str, Any]], alert: dict[str, Any]) -> str:
        """Send a request to the node, and wait until the subscribers who should have the alert have it.

        Return a line of text about the result.
        """
        sent = time.monotonic_ns()
        answer = await request
        accepted = time.monotonic_ns()
        item = Published(
            alert["id"], answer["revision"], answer.get("area"), sent, accepted, alert["category"], alert["headline"]
        )
        self._published.append(item)
        if item.area is not None:
            self._sent[item.id] = alert
            self._ends_ms[item.id] = parse_time(answer["expires_at"])
        settling = all_do(self._crowd, "settle", id=item.id, revision=item.revision, area=item.area)
        if self._sleepers is None:
            counts = await settling
        else:
            counts, _ = await asyncio.gather(settling, self._sleepers.settle(item))
        got, missing = (sum(count[name] for count in counts) for name in ("got", "missing"))
        late = f", {missing} do not have it yet" if missing else ""
        return f"{got} subscribers have it{late}; accepted in {(accepted - sent) / 1e6:.1f} ms"

    # ---- part 5: going on after the verdict ------------------------------------------------------------------

    async def go_on(self) -> None:
        """Continue the show without output until cancelled.

        Publish one alert after the other, and cancel the oldest ones.
        """
        live = list(self._sent)
        for case in itertools.cycle([*self._cases[len(live) :], *self._cases[: len(live)]]):
            await all_do(self._crowd, "forget")
            if self._sleepers is not None:
                self._sleepers.forget()
            await self._while_nobody_moves(partial(self._replace_oldest, live, case))
            await asyncio.sleep(AFTERWARDS_S)

    async def keep_seats(self) -> None:
        """From now on, let the simulated responders accept calls KEPT_S seconds later than usual.

        So a visitor can accept first, and be assigned.
        """
        await all_do(self._crowd, "hesitate", seconds=KEPT_S)

    async def call_again(self) -> None:
        """Open a call for help every AGAIN_S seconds, without output, until cancelled."""
        while True:
            began = time.monotonic()
            with contextlib.suppress(Refused):  # somebody has ended the call on the dispatch page
                await Call(self._dispatcher, (), self._arrests[0], CALL_FULL_S, CALL_THERE_S).go()
            await asyncio.sleep(max(0.0, began + AGAIN_S - time.monotonic()))

    async def _replace_oldest(self, live: list[str], case: Case) -> None:
        for alert_id in live[: max(0, min(2, len(live) - AFTERWARDS_LIVE))]:
            live.remove(alert_id)
            with contextlib.suppress(Refused):  # it has expired, or somebody else has ended it
                await self._cancel(alert_id, "it is over")
        alert = self._desk.write(case, wall_ms())
        await self._send(self._publisher.publish(alert), alert)
        live.append(alert["id"])

    async def evidence(self) -> Evidence:
        """Collect what the verdicts need from the crowd and the sleeping phones, and return it."""
        reports = await all_do(self._crowd, "report")
        end = time.monotonic_ns()
        records = [
            (one.steps, events)
            for cast, report in zip(self._cast, reports, strict=True)
            for one, events in zip(cast, report["records"], strict=True)
        ]
        faults = [f"{fault} ({times} times)" for each in reports for fault, times in each["faults"].items()]
        subs = [one.sub for cast in self._cast for one in cast]
        phones = [self._phone(sub, events) for sub, (_, events) in zip(subs, records, strict=True)]
        fetched = await self._warnings.verdict(self._publisher)
        found = Evidence(self._published, records, faults, end, self._called, phones, self._searched, fetched=fetched)
        if self._sleepers is None:
            return found
        woken = await self._sleepers.wake()
        more = faults + self._sleepers.faults
        return replace(found, faults=more, sleepers=woken, ends_ms=self._ends_ms, woke_ms=wall_ms())

    def _phone(self, sub: str, events: Sequence[Event]) -> ResponderPhone:
        one = self._responders.get(sub)
        if one is None:
            return ResponderPhone(sub, frozenset(), None, "", events)
        return ResponderPhone(sub, one.counts, one.here, one.says, events)


# ---- part 4: the verdict -----------------------------------------------------------------------------------------


def outcome_of(evidence: Evidence) -> Outcome:
    """Judge the deliveries, the call for help and the pushes that were observed in the demo; return the verdicts."""
    found = DeliveryCheck(evidence.published, evidence.end)
    for steps, events in evidence.records:
        found.take(steps, events)
    alerts = len({item.id for item in evidence.published})
    called = evidence.called
    call = None if called is None else check_call(called, evidence.phones, evidence.frames)
    push = None
    if evidence.sleepers is not None:
        push = check_pushes(evidence.published, evidence.ends_ms, evidence.sleepers, evidence.woke_ms)
    faults = found.faults + evidence.faults
    return Outcome(alerts, list(found.rows.values()), faults, call, push, evidence.fetched)


def _neighbours(cases: Sequence[Case], case: Case) -> int:
    return sum(distance_m(*_where(case), *_where(other)) < NEIGHBOUR_M for other in cases)


def _where(case: Case) -> tuple[float, float]:
    assert case.incident.lat is not None
    assert case.incident.lng is not None
    return case.incident.lat, case.incident.lng
