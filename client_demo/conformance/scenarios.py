"""The scenarios in which a client is tested, and the duties that each scenario checks.

A duty is met if no scenario that checks it finds a fault. Some duties can't be checked by the messages of a client;
they are listed as such. A correct client may fail by chance, because delays are random: according to a simulation, it
fails `window` once in 45,000 runs, and `backoff` once in 11,000.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from client_demo.python.holdings import ID
from client_demo.python.wire import Message

from .odd_messages import ODD_DOCUMENTS, document, frames
from .scripted_feed import SAYS_WHO, ScriptedFeed
from .scripted_server import MOMENT_S, Over, ScriptedServer, Talk


class Duty(NamedTuple):
    """A duty that every client has, and the rules of docs/protocol.md that require it."""

    rules: str
    what: str


DUTIES = {
    "handshake": Duty("S1 S2", "requests /v1/stream without a query, and offers a subprotocol of geocast"),
    "hello": Duty("M1 S5", "sends `hello` first, only once, and within 10 s"),
    "form": Duty("G3 F1-F6", "sends only messages of the contract, in the agreed format"),
    "pace": Duty("F7", "sends at most 10 messages a second on average, and at most 300 in a burst"),
    "pong": Duty("W8", "answers the WebSocket's pings"),
    "unknown": Duty("G2", "ignores unknown fields and messages, and shows alerts of unknown shape"),
    "unknown-cancel": Duty("C3", "ignores a cancel of an alert that it does not hold"),
    "revisions": Duty("C1", "replaces an alert only by a higher revision, and drops cancelled alerts"),
    "expiry": Duty("C2 E4", "drops an alert at its end, and shows no alert that ended before it came"),
    "clock": Duty("C2", "corrects its clock by the server's `now`"),
    "wrong-clock": Duty(
        "C2 C2a", "hides alerts that the server's clock has ended, and shows them again if it was wrong"
    ),
    "inside": Duty("C4 M5", "shows only alerts that it is inside of, and acknowledges each of them once"),
    "polygons": Duty("C4 D4", "decides correctly whether it is inside a polygon with its buffer"),
    "holding": Duty("C5", "lists in `holding` the alerts that it still shows"),
    "own-test": Duty("TR7", "shows a test alert of its own until it ends, also if the node says nothing more about it"),
    "at-most-256": Duty("C5", "lists at most 256 alerts, those that end last"),
    "ping": Duty("W9", "sends `ping` after `heartbeat_s` without a message"),
    "dead": Duty("W9", "gives up a connection on which nothing comes within 10 s of its `ping`"),
    "window": Duty("W2 W5 C8", "reconnects at a random time in the whole window, whatever the close reason says"),
    "backoff": Duty("W6", "doubles the window's upper end after each failed attempt"),
    "no-return": Duty("W3", "does not reconnect after 1002, 1003, 1007, 1009, 4400, 4403"),
    "new-token": Duty("W3", "reconnects after 4401 with a new token, never with the old one"),
    "later": Duty("W7", "reconnects without hurry after 1013 and 4429"),
    "at-once": Duty("W4", "reconnects at once, with `holding`, after the first 4420, and later after the second"),
    "odd": Duty(
        "C5 C8", "drops each odd message, lists none of them in `holding`, and still shows the next good alert"
    ),
    "refused-holding": Duty("W3b", "comes back once without `holding` if a `hello` that had it was refused"),
    "languages": Duty("LA2", "omits `languages` after an older server has refused them, until a `welcome` has them"),
    "on-duty": Duty("RQ4", "marks at most one place as `here`, and only after a `welcome` with `quals`"),
    "near": Duty("RU1", "sends a fresh `here` at once when a call comes"),
    "accept": Duty("RU3 M18", "repeats an `accept` after 5 s and after each reconnect until it is answered"),
    "called": Duty("RJ2 M5", "acknowledges each revision of a shown call once"),
    "let-go": Duty("RU2", "deletes everything about a call at its `standdown` or `expires_at`"),
    "calls-first": Duty("RU3 C5", "lists calls in `holding` before alerts"),
    "report": Duty("M20 RU3", "sends reports only with a seat, and not twice within 5 s"),
    "feed": Duty("PF6", "asks for the feed without a place, token or cookie, with its ETag, and again after an error"),
    "tombstones": Duty("PF6 C1", "drops an alert at its tombstone, but not because it is missing from the feed"),
    "ring": Duty("RU1", "plays a sound that wakes the person, and shows `near` and the distance to it"),
    "secret": Duty("RU2", "shows a place only to the holder of the seat, not on a lock screen, and keeps no copy"),
    "status": Duty("C6", "shows `exercise` and `test` as such"),
    "text": Duty("C7", "shows texts as plain text, never as markup"),
}
NOT_OBSERVABLE = ("ring", "secret", "status", "text")

SLACK_S = 3.0  # added to the protocol's upper bounds, for slow machines
EARLY_S = 0.005  # subtracted from its lower bounds, for the granularity of timers
NEVER_CODES = (1002, 1003, 1007, 1009, 4400, 4403)
WINDOW_CODES = (1012, 1001, 1006, 1011, 4408, 4999)
LATER_S = 20.0  # how long we wait for a client that must come "later", for which there is no upper bound
DRAWS = 16
AGAIN_S = 5.0  # pause before an answer or a report is repeated (RU3, M20)
LATE_S = 1.0  # tolerance for the time between two messages, because the first may have come late
NO_RESPONDER = "the client marks no place as `here`, so it is not a responder's"
# The corners of polygons, in km east and north of the client's first place. The reach of a client's place is less than
# 4 km. AROUND contains the place. SOUTH is 4.5 km away, and contains the place only with BUFFER_M. BEND surrounds the
# place on three sides without containing it.
AROUND = ((-10, -10), (10, -10), (10, 10), (-10, 10))
SOUTH = ((-10, -20), (10, -20), (10, -4.5), (-10, -4.5))
BEND = (
    (-20, -20),
    (20, -20),
    (20, -10),
    (-10, -10),
    (-10, 10),
    (20, 10),
    (20, 20),
    (-20, 20),
)
BUFFER_M = 5020.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: its name, the duties that it checks, and the function that acts as the server toward a client."""

    name: str
    duties: tuple[str, ...]
    play: Callable[[Any], Awaitable[None]]  # of a ScriptedServer, or of a ScriptedFeed


async def _return(server: ScriptedServer, talk: Talk, code: int, max_ms: int = 300) -> Talk:
    """Close the connection with a code after which a client must reconnect, and return the new connection.

    The client must reconnect within the window (the range of delays that `welcome` has announced). Raise Over if it
    does not.
    """
    within_s = max_ms / 1000 + SLACK_S
    back = await server.back(await talk.close(code), within_s)
    if back is None:
        server.findings.unmet("window", f"did not reconnect within {within_s:g} s of a close with {code}")
        raise Over("the client did not reconnect")
    return back


def _held(talk: Talk) -> dict[str, int]:
    return dict(talk.hello.get("holding", {}))


async def basics(server: ScriptedServer) -> None:
    """Send a `welcome` with an unknown field, a message of an unknown type, and an alert with an unknown shape."""
    talk = await server.client()
    await talk.welcome(mood="good")
    await talk.say({"type": "weather", "outlook": "sunny"})
    await talk.alert("strange", area=[{"type": "polygon", "points": [[1, 2], [3, 4], [5, 6]]}], colour="red")
    found = server.findings
    if await talk.fence():
        found.check("unknown", talk.acks()["strange", 1] > 0, "did not show an alert of unknown shape")
    found.check("unknown", talk.is_open(), "ended the connection because of something unknown")
    await talk.cancel("never-heard-of", 3)
    await talk.alert("plain")
    await talk.fence()
    found.check("unknown-cancel", talk.is_open(), "ended the connection because of a cancel of an unknown alert")
    found.check("pong", await talk.pings(5.0), "no pong came within 5 s")
    held = _held(await _return(server, talk, 1012))
    found.check("holding", held.get("plain") == 1, "`holding` lacks a shown alert")
    found.check("unknown", held.get("strange") == 1, "did not keep an alert of unknown shape")
    found.check("unknown-cancel", "never-heard-of" not in held, "`holding` lists an id that was only cancelled")


async def revisions(server: ScriptedServer) -> None:
    """Send the client repeated revisions, revisions out of order, and a cancellation."""
    talk = await server.client()
    await talk.welcome()
    for alert_id, revision in (("a", 2), ("a", 1), ("a", 2), ("a", 10), ("a", 9), ("b", 1), ("c", 1)):
        await talk.alert(alert_id, revision)
    await talk.cancel("b", 2)
    found = server.findings
    if await talk.fence():
        acks = talk.acks()
        found.check("revisions", not acks["a", 1] and not acks["a", 9], "showed a lower revision after a higher one")
        found.check("revisions", acks["a", 2] < 2, "showed the same revision twice")
        found.check("revisions", acks["a", 10] > 0, "did not show a higher revision")
    held = _held(await _return(server, talk, 1012))
    found.check("revisions", held.get("a") == 10, "does not hold the highest received revision (10)")
    found.check("revisions", "b" not in held, "holds a cancelled alert")
    found.check("holding", held.get("c") == 1, "`holding` lacks a shown alert")


async def clock(server: ScriptedServer) -> None:
    """Act as a server whose clock is an hour behind the client's, and then an hour ahead."""
    found = server.findings
    server.skew_ms = -3_600_000
    talk = await server.client()
    await talk.welcome()
    await talk.alert("half-an-hour", lasts_s=1800)
    await talk.alert("ended", lasts_s=-1)
    if is_shown := await talk.fence():
        found.check(
            "clock", talk.acks()["half-an-hour", 1] > 0, "did not show an alert that is live by the server's clock"
        )
        found.check("expiry", talk.acks()["ended", 1] == 0, "showed an alert that ended before it came")
    talk = await _return(server, talk, 1012)
    found.check("clock", "half-an-hour" in _held(talk), "dropped an alert that is live by the server's clock")
    found.check("expiry", "ended" not in _held(talk), "holds an alert that ended before it came")
    server.skew_ms = 3_600_000
    await talk.welcome()
    await talk.alert("brief", lasts_s=1.5)
    await talk.alert("long")
    if await talk.fence() and not is_shown:
        found.unmet("clock", "did not show an alert that is live by the server's clock, an hour behind")
    await asyncio.sleep(3.0)  # part of the scenario: 2.5 s pass from `issued_at` to `expires_at` (C2a)
    held = _held(await _return(server, talk, 1012))
    found.check("holding", "long" in held, "`holding` lacks a shown alert")
    found.check("expiry", "brief" not in held, "holds an alert after its end")


async def wrong_clock(server: ScriptedServer) -> None:
    """Act as a server whose clock is an hour ahead, and is corrected while the client is connected."""
    found, ahead_s, heartbeat_s = server.findings, 3600, 1.0
    server.skew_ms = ahead_s * 1000
    talk = await server.client()
    await talk.welcome(heartbeat_s=heartbeat_s)
    issued_at, occurred_at = server.now(-ahead_s - 1), server.now(-ahead_s - 60)
    await talk.alert("lives", lasts_s=600 - ahead_s, issued_at=issued_at, occurred_at=occurred_at)
    if not await talk.fence():
        found.not_seen("wrong-clock", "the client acknowledges nothing")
        return
    if talk.acks()["lives", 1]:
        found.unmet("wrong-clock", "showed an alert that had ended by the server's clock")
        return
    server.skew_ms = 0
    if await talk.heard(lambda message: message.get("id") == "lives", heartbeat_s + SLACK_S):
        found.met("wrong-clock")
    else:
        found.not_seen(
            "wrong-clock", "did not show the alert again after the clock was corrected: recommended, not required"
        )


async def inside(server: ScriptedServer) -> None:
    """Send the client alerts at its place and far away from it, and repeat one of them."""
    talk = await server.client()
    await talk.welcome()
    await talk.alert("here")
    await talk.alert("there", inside=False)
    await talk.alert("here")
    if not await talk.fence():
        server.findings.not_seen("inside", "the client acknowledges nothing")
        return
    acks = talk.acks()
    server.findings.check("inside", acks["here", 1] > 0, "did not acknowledge an alert that it is inside of")
    server.findings.check("inside", acks["here", 1] < 2, "acknowledged a revision twice")
    server.findings.check("inside", acks["there", 1] == 0, "acknowledged an alert that it is outside of")


async def polygons(server: ScriptedServer) -> None:
    """Send alerts with polygons around the client's place and beside it, with revisions, and after a reconnection."""
    talk, found = await server.client(), server.findings
    await talk.welcome()
    await talk.polygon("away", AROUND, inside=False)
    await talk.polygon("around", AROUND)
    await talk.polygon("south", SOUTH, buffer_m=BUFFER_M)
    await talk.polygon("bend", BEND)
    await talk.polygon("coming", AROUND, inside=False)
    await talk.polygon("coming", AROUND, revision=2)
    if not await talk.fence():
        found.not_seen("polygons", "the client acknowledges nothing")
        return
    acks = talk.acks()
    if acks["away", 1]:
        found.not_seen(
            "polygons", "shows polygons on the other side of the world, as a client without polygon support must (G2)"
        )
        return
    found.check("polygons", acks["around", 1] > 0, "did not show a polygon around its place")
    found.check("polygons", acks["south", 1] > 0, "did not show a polygon that reaches its place by `buffer_m`")
    found.check("polygons", acks["coming", 2] > 0, "did not show a polygon that came to its place with a revision")
    if talk.is_in_one_spot():
        found.check(
            "polygons", acks["bend", 1] == 0, "showed a polygon that bends around its place without containing it"
        )
    talk = await _return(server, talk, 1012)
    found.check("polygons", "around" in _held(talk), "`holding` lacks a polygon that was shown")
    await talk.welcome(live=2)
    await talk.polygon("late", SOUTH, buffer_m=BUFFER_M)
    await talk.polygon("around", AROUND, revision=2, inside=False)
    await talk.polygon("around", AROUND, revision=3)
    await talk.fence()
    acks = talk.acks()
    found.check("polygons", acks["late", 1] > 0, "did not show a polygon that was live when it came")
    found.check("polygons", acks["around", 3] > 0, "did not show a polygon that came back with a revision")


async def many(server: ScriptedServer) -> None:
    """Send the client 260 alerts that end at different times, in random order."""
    ends = random.sample(range(600, 600 + 260), 260)
    talk = await server.client()
    await talk.welcome()
    for number, lasts_s in enumerate(ends):
        await talk.alert(f"a{number}", lasts_s=lasts_s)
    await talk.fence(30.0)  # acknowledging all the alerts takes time (F7)
    back = await _return(server, talk, 1012)
    held = {key for key in _held(back) if key.startswith("a")}
    last = sorted(range(260), key=lambda number: ends[number])[260 - len(held) :]
    found = server.findings
    found.check("at-most-256", 0 < len(_held(back)) <= 256, f"`holding` lists {len(_held(back))} alerts")
    kept_well = len(held) == 260 or held == {f"a{number}" for number in last}
    found.check("at-most-256", kept_well, "`holding` omits alerts that end later than others that it lists")


async def silence(server: ScriptedServer) -> None:
    """Act as a server that sends nothing for a while, and then as one that no longer answers."""
    heartbeat_s, found = 1.0, server.findings
    talk = await server.client()
    await talk.welcome(heartbeat_s=heartbeat_s)
    if await talk.heard(lambda message: message.get("type") == "ping", heartbeat_s + SLACK_S) is None:
        for duty in ("ping", "dead"):
            found.not_seen(duty, "the client sends no `ping`, so it must rely on the WebSocket's own pings")
        return
    found.met("ping")
    stays = await talk.stays(heartbeat_s, SLACK_S)
    found.check("ping", stays, "ended a connection although its `ping` was answered")
    talk.freeze()
    within_s = heartbeat_s + 10 + SLACK_S
    back = await server.back(time.monotonic(), within_s)
    found.check("dead", back is not None, f"did not give up a dead connection within {within_s:g} s")


async def window(server: ScriptedServer) -> None:
    """Close the connection many times, and check the delays before the client reconnects.

    Each delay must lie within the window (the range of delays that `welcome` has announced), and the delays must be
    spread over the whole of it.
    """
    low, high, found = 0.4, 1.0, server.findings
    talk = await server.client()
    delays = []
    for number in range(DRAWS):
        await talk.welcome(min_ms=400, max_ms=1000)
        await talk.pings(SLACK_S)  # so that the client has read the welcome before the close
        code, left_at = WINDOW_CODES[number % len(WINDOW_CODES)], time.monotonic()
        talk = await _return(server, talk, code, 1000)
        delays.append(talk.arrived_at - left_at)
        if delays[-1] < low - EARLY_S:
            found.unmet("window", f"reconnected {delays[-1]:.2f} s after a close with {code}, sooner than {low} s")
    middle = (low + high) / 2
    spread = max(delays) - min(delays)
    found.check("window", min(delays) < middle, f"none of {DRAWS} delays lies in the lower half of the window")
    found.check("window", max(delays) > middle, f"none of {DRAWS} delays lies in the upper half of the window")
    found.check(
        "window", spread > 0.35 * (high - low), f"{DRAWS} delays lie within {spread:.2f} s, so they are not random"
    )


async def backoff(server: ScriptedServer) -> None:
    """Refuse eight of the client's attempts to connect, and check that its delays grow."""
    found, attempts, high = server.findings, 8, 0.1
    talk = await server.client()
    await talk.welcome(min_ms=50, max_ms=100)
    await talk.pings(SLACK_S)
    server.refuse = attempts
    before, delays = await talk.close(1012), []
    for number in range(attempts):
        within_s = high * 2**number + SLACK_S
        arrival = await server.arrival(before + within_s - time.monotonic())
        if arrival is None:
            found.unmet("backoff", f"attempt {number + 1} did not come within {within_s:.1f} s of the previous one")
            return
        delays.append(arrival.at - before)
        before = arrival.at
    took_s = sum(delays[3:])
    found.check("backoff", took_s > 1.5, f"the delays do not grow: the last five took {took_s:.1f} s in total")
    found.check("backoff", min(delays) >= 0.05 - EARLY_S, "reconnected sooner than the window's lower end")


def no_return(code: int) -> Callable[[ScriptedServer], Awaitable[None]]:
    """Return a function that closes the connection with a code after which the client must not reconnect.

    The function is used in a scenario, and checks that the client obeys.
    """

    async def play(server: ScriptedServer) -> None:
        talk = await server.client()
        await talk.welcome()
        await talk.pings(SLACK_S)
        back = await server.back(await talk.close(code), SLACK_S)
        server.findings.check("no-return", back is None, f"reconnected after {code}")

    return play


async def new_token(server: ScriptedServer) -> None:
    """Act as a server that refuses the client's token, so that the client must fetch another one."""
    talk, found = await server.client(), server.findings
    refused = talk.hello.get("token")
    if refused is None:
        found.not_seen("new-token", "the client sends no token; it should fetch one from the token URL")
        return
    await talk.welcome()
    await talk.pings(SLACK_S)
    fetched = server.tokens
    back = await server.back(await talk.close(4401), 0.3 + SLACK_S)
    if back is not None:
        found.check("new-token", back.hello.get("token") != refused, "reconnected with the refused token")
    elif server.tokens > fetched:
        found.unmet("new-token", "fetched a new token, but did not reconnect")
    else:
        found.not_seen("new-token", "the client has no other token; it should fetch one from the token URL")


async def later(server: ScriptedServer) -> None:
    """Act as a server that is overloaded, and then as one that has received too many messages from the client."""
    talk, found = await server.client(), server.findings
    for code in (1013, 4429):
        await talk.welcome(min_ms=1500, max_ms=2500)
        await talk.pings(SLACK_S)
        left_at = await talk.close(code)
        back = await server.back(left_at, LATER_S)
        if back is None:
            found.not_seen("later", f"did not reconnect within {LATER_S:g} s of {code}, and may still do so")
            return
        delay = back.arrived_at - left_at
        found.check(
            "later",
            delay >= 1.5 - EARLY_S,
            f"reconnected {delay:.2f} s after {code}, sooner than the window's lower end",
        )
        talk = back


async def at_once(server: ScriptedServer) -> None:
    """Close the connection twice, each time with the code that is meant for a client that reads too slowly."""
    talk, found = await server.client(), server.findings
    await talk.welcome(min_ms=3000, max_ms=4000)
    await talk.alert("kept")
    await talk.fence()
    left_at = await talk.close(4420)
    back = await server.back(left_at, 4.0 + SLACK_S)
    if back is None:
        found.unmet("at-once", "did not reconnect after 4420")
        return
    delay = back.arrived_at - left_at
    found.check("at-once", delay < 2.5, f"reconnected {delay:.1f} s after the first 4420, not at once")
    found.check("at-once", "kept" in _held(back), "reconnected without `holding`")
    await back.welcome(min_ms=3000, max_ms=4000)
    await back.pings(SLACK_S)
    again = await server.back(await back.close(4420), 2.5)
    found.check("at-once", again is None, "reconnected at once after the second 4420 too")


async def odd(server: ScriptedServer) -> None:
    """Send each odd message of the table, followed by a good alert; then act as another, good server."""
    talk, found = await server.client(), server.findings
    await talk.welcome(quals=["cpr"])
    good = talk.alert_content("odd")
    table = frames(good, {**good, "answer_s": 30, "near": good["area"][0]}, is_text=talk.is_text)
    for why, frame in table.items():
        await talk.say_frame(frame)
        await talk.fence()
        if not talk.is_open():
            found.unmet("odd", f"ended the connection because of {why}")
            return
    talk = await _return(server, talk, 1012)
    held = _held(talk)
    is_good = all(ID.fullmatch(key) and type(held[key]) is int and 0 < held[key] < 2**31 for key in held)
    found.check("odd", is_good, "`holding` lists an id or a revision that no node accepts")
    await talk.welcome()
    await talk.fence()
    found.check("odd", talk.is_open(), "ended the connection to a good server")


async def refused_holding(server: ScriptedServer) -> None:
    """Refuse a `hello` with `holding`, and accept the next one."""
    talk, found = await server.client(), server.findings
    await talk.welcome()
    await talk.alert("kept")
    await talk.fence()
    for code in (4400, 1009):
        talk = await _return(server, talk, 1012)
        refused = talk
        if not _held(refused):
            found.not_seen("refused-holding", "the client lists nothing in `holding`")
            return
        while talk.hello.get("holding"):  # without `languages` or `here` first (LA2, RQ4)
            back = await server.back(await talk.close(code), 60.0 + SLACK_S)
            if back is None or (back.hello == talk.hello):
                found.unmet("refused-holding", f"did not come back without `holding` after {code} to a `hello`")
                return
            talk = back
        await talk.welcome()
        await talk.alert("kept")
        await talk.fence()
    talk = await _return(server, talk, 1012)
    found.check("refused-holding", _held(talk).get("kept") == 1, "omitted `holding` after a `welcome`")


async def languages(server: ScriptedServer) -> None:
    """Act as a server that does not know languages, and then as one that does."""
    found, talk = server.findings, await server.client()
    if not talk.hello.get("languages"):
        found.not_seen("languages", "the client asks for no language; it should ask for at least one")
        return
    back = await server.back(await talk.close(4400), 30.0 + SLACK_S)  # before any `welcome` the window ends at 30 s
    if back is None:
        found.unmet("languages", "did not reconnect after 4400 to a `hello` with `languages`")
        return
    found.check(
        "languages", "languages" not in back.hello, "sent `languages` again to a server that does not know them"
    )
    await back.welcome()
    talk = await _return(server, back, 1012)
    found.check("languages", "languages" not in talk.hello, "sent `languages` although no `welcome` had them")
    await talk.welcome(languages=[])
    said = await talk.heard(lambda message: message.get("type") == "filter" and "languages" in message, SLACK_S)
    found.check("languages", said is not None, "did not send `languages` in a `filter` after a `welcome` with them")
    talk = await _return(server, talk, 1012)
    found.check("languages", bool(talk.hello.get("languages")), "omitted `languages` after a `welcome` with them")


def _is_here(message: Message) -> bool:
    """Return whether a message contains a place that is marked with `here`, which puts the responder on duty."""
    return any("here" in place for place in message.get("places", []))


async def _on_duty(server: ScriptedServer, talk: Talk) -> None:
    """Send `welcome` to a responder's client, and wait until it sends a place that is marked with `here`.

    Raise Over if it does not send one, because then it is not a responder's client.
    """
    await talk.welcome(quals=["cpr"])
    if not _is_here(talk.hello) and await talk.heard(_is_here, SLACK_S) is None:
        raise Over(NO_RESPONDER)
    said = [message for message in (talk.hello, *talk.said) if _is_here(message)]
    heres = max(sum(place.get("here") is True for place in message["places"]) for message in said)
    server.findings.check("on-duty", heres == 1, f"marks {heres} places as `here`")


def _says(kind: str, call_id: str) -> Callable[[Message], bool]:
    return lambda message: (message.get("type"), message.get("id")) == (kind, call_id)


async def _accepted(talk: Talk, call_id: str) -> float:
    """Wait until the client accepts the call, and return the time at which it did. Raise Over if it does not accept."""
    accepts = await talk.heard_often(_says("accept", call_id), 1, SLACK_S)
    if not accepts:
        raise Over("the client accepts no call; it should accept every call")
    return accepts[0]


async def duty(server: ScriptedServer) -> None:
    """Act as a server that does not mention the responder's qualifications, and then as one that does."""
    talk = await server.client()
    if _is_here(talk.hello):
        server.findings.unmet("on-duty", "sends `here` to an unknown server")
    await talk.welcome()
    await talk.fence()
    if any(map(_is_here, talk.said)):
        server.findings.unmet("on-duty", "sends `here` although no `welcome` had `quals`")
    talk = await _return(server, talk, 1012)
    await _on_duty(server, talk)
    talk = await _return(server, talk, 1012)
    server.findings.check("on-duty", _is_here(talk.hello), "the next `hello` has no place that is `here`")


async def called(server: ScriptedServer) -> None:
    """Send a call that is not answered, on two connections one after the other, and finally a `standdown`."""
    talk, found = await server.client(), server.findings
    await _on_duty(server, talk)
    moves = sum(map(_is_here, talk.said))
    await talk.call("a")
    await talk.call("a")
    first = await _accepted(talk, "a")
    fresh = await talk.heard_often(_is_here, moves + 1, SLACK_S)
    found.check("near", len(fresh) > moves, "sent no fresh position when a call came")
    accepts = await talk.heard_often(_says("accept", "a"), 2, AGAIN_S + SLACK_S)
    found.check("accept", len(accepts) > 1, "did not repeat an unanswered accept")
    if len(accepts) > 1:
        found.check("accept", accepts[1] - first >= AGAIN_S - LATE_S, "repeated an accept before 5 s had passed")
    if acks := talk.acks()["a", 1]:
        found.check("called", acks == 1, "acknowledged a call more than once")
    else:
        found.not_seen("called", "the client acknowledges no call")
    talk = await _return(server, talk, 1012)
    found.check("calls-first", "a" in _held(talk), "`holding` lacks a call")
    await talk.welcome(quals=["cpr"])
    again = await talk.heard_often(_says("accept", "a"), 1, SLACK_S)
    found.check("accept", bool(again), "did not repeat an accept on the next connection")
    await talk.standdown("a", "full")
    await talk.fence()
    count = len(await talk.heard_often(_says("accept", "a"), 1, 0.0))
    await asyncio.sleep(AGAIN_S + MOMENT_S)  # part of the scenario: the answered client must not repeat its accept
    more = len(await talk.heard_often(_says("accept", "a"), 1, 0.0)) - count
    found.check("accept", more == 0, "repeated an answered accept")
    talk = await _return(server, talk, 1012)
    found.check("let-go", "a" not in _held(talk), "holds a call after its standdown")


async def tasked(server: ScriptedServer) -> None:
    """Send the responder two tasks: one ends with a `standdown`, and the other because the call expires.

    The server's clock is an hour ahead.
    """
    server.skew_ms = 3_600_000
    talk, found = await server.client(), server.findings
    await _on_duty(server, talk)
    await talk.call("a")
    await _accepted(talk, "a")
    await talk.call("b")
    early = await talk.heard(lambda message: message.get("type") == "report", MOMENT_S)
    if early is not None:
        found.unmet("report", "reported without a seat")
    await talk.task("a")
    reports = await talk.heard_often(_says("report", "a"), 2, AGAIN_S)
    if reports:
        gaps = [after - before for before, after in pairwise(reports)]
        found.check("report", all(gap >= AGAIN_S - LATE_S for gap in gaps), "reported twice within 5 s")
    else:
        found.not_seen("report", "the client sends no report; it should report `arrived` once it has a task")
    count = len(await talk.heard_often(_says("accept", "a"), 1, 0.0))
    found.check("accept", count < 2, "repeated an accept that a task had answered")
    talk = await _return(server, talk, 1012)
    found.check("calls-first", _held(talk).get("a") == 2, "`holding` lacks a call with a task, or its revision")
    await talk.welcome(quals=["cpr"])
    await talk.task("a")
    await talk.standdown("a", "over")
    await talk.call("brief", lasts_s=2.0)
    await talk.task("brief", lasts_s=2.0)
    await talk.fence()
    await asyncio.sleep(2.5)  # part of the scenario: `brief` ends
    held = _held(await _return(server, talk, 1012))
    found.check("let-go", "a" not in held, "holds a task after its standdown")
    found.check("let-go", "brief" not in held, "holds a task after its end")


async def crowded(server: ScriptedServer) -> None:
    """Send the client a call for help, and 260 alerts that all end later than the call."""
    talk = await server.client()
    await _on_duty(server, talk)
    await talk.call("help", lasts_s=300)
    for number in range(260):
        await talk.alert(f"a{number}", lasts_s=600 + number)
    await talk.fence(30.0)
    held = _held(await _return(server, talk, 1012))
    server.findings.check("calls-first", "help" in held, "`holding` lists alerts in place of a call")
    server.findings.check("at-most-256", len(held) <= 256, f"`holding` lists {len(held)} entries")


async def feed(server: ScriptedFeed) -> None:
    """Show a document with something unknown, tombstones and missing alerts, and then answer with an error."""
    talk, found = await server.client(), server.findings
    strange: Message = {"type": "blob", "points": [[1, 2]]}
    await talk.alert("strange", area=[strange], colour="red")
    await talk.alert("plain", mood="good")
    for alert_id in ("missing", "ends"):
        await talk.alert(alert_id)
    if not await talk.fence():
        found.not_seen("feed", "the client reports no alert that it has shown")
        return
    found.check("unknown", talk.acks()["plain", 1] > 0, "did not show an alert with an unknown field")
    found.check("unknown", talk.acks()["strange", 1] == 0, "showed an alert that has only a shape of unknown type (G4)")
    await server.omit("missing")
    await talk.cancel("ends", 2)
    await talk.cancel("never-heard-of", 3)
    await talk.fence()
    held = _held(await _asked(server))
    found.check("unknown-cancel", "never-heard-of" not in held, "holds an id that was only cancelled")
    found.check("tombstones", "ends" not in held, "holds an alert after its tombstone")
    found.check("tombstones", held.get("missing") == 1, "dropped an alert because it was missing from the feed")
    await talk.alert("ends")  # a node that is behind lists it again
    await talk.fence()
    found.check("tombstones", "ends" not in _held(await _asked(server)), "took a cancelled alert again")
    server.failure = 503
    await server.asked(SLACK_S)
    server.failure = 0
    found.check("feed", await server.asked(LATER_S + 10), "did not ask again after an error")
    for name in SAYS_WHO:
        found.check("feed", not any(name in each.headers for each in server.requests), f"sends the header {name}")
    found.check("feed", not any(each.url.query for each in server.requests), "asks with a query")
    is_conditional = any("if-none-match" in each.headers for each in server.requests)
    found.check("feed", is_conditional, "never asks with `If-None-Match`")


async def _asked(server: ScriptedFeed) -> Talk:
    """Return the client with its last report, once it has asked again. Raise Over if it does not ask."""
    talk = await server.back(time.monotonic(), SLACK_S)
    if talk is None:
        raise Over("the client does not ask for the feed any more")
    return talk


async def odd_feed(server: ScriptedFeed) -> None:
    """Show odd documents, one with each odd alert beside a good one, and then a good document."""
    talk, found = await server.client(), server.findings
    mixed, good = document(talk.alert_content("odd"), talk.alert_content)
    for server.odd in (*ODD_DOCUMENTS, mixed):
        if not await server.asked(LATER_S + 10):
            found.unmet("odd", "does not ask for the feed any more after an odd document")
            return
    server.odd = ""
    await talk.alert("after")
    if not await talk.fence():
        found.not_seen("odd", "the client reports no alert that it has shown")
        return
    found.check(
        "odd", good | {"after"} <= {key for key, _ in talk.acks()}, "did not show a good alert beside an odd one"
    )
    held = _held(await _asked(server))
    found.check("odd", all(map(ID.fullmatch, held)), "holds an alert with an id that no node accepts")


async def own_test(server: ScriptedServer) -> None:
    """Send a test alert of the kind that a client may ask for: nothing follows it, and the node knows nothing of it."""
    talk = await server.client()
    await talk.welcome()
    await talk.own_test("kit")
    await talk.own_test("brief", lasts_s=1.0)  # the clients may keep it for two seconds from now (C2a)
    await talk.fence()
    found = server.findings
    found.check("own-test", talk.acks()["try:kit", 1] == 1, "did not show a test alert, or acknowledged it twice")
    await asyncio.sleep(2.0 + MOMENT_S)
    talk = await _return(server, talk, 1012)
    held = _held(talk)
    found.check("own-test", held.get("try:kit") == 1, "`holding` lacks a test alert that is still shown")
    found.check("own-test", "try:brief" not in held, "`holding` lists a test alert that has ended")
    await talk.welcome()  # an unknown id is answered by nothing (R5e)
    await talk.fence()
    held = _held(await _return(server, talk, 1012))
    found.check("own-test", held.get("try:kit") == 1, "dropped a test alert that the node says nothing about")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("window", ("window",), window),
        Scenario("silence", ("ping", "dead"), silence),
        Scenario("many", ("at-most-256", "pace"), many),
        Scenario("called", ("near", "accept", "called", "calls-first", "let-go"), called),
        Scenario("tasked", ("accept", "report", "calls-first", "let-go"), tasked),
        Scenario("crowded", ("calls-first", "at-most-256"), crowded),
        Scenario("backoff", ("backoff",), backoff),
        Scenario("clock", ("clock", "expiry", "holding"), clock),
        Scenario("wrong-clock", ("wrong-clock",), wrong_clock),
        Scenario("at-once", ("at-once",), at_once),
        Scenario("later", ("later",), later),
        Scenario("basics", ("handshake", "hello", "form", "pong", "unknown", "unknown-cancel", "holding"), basics),
        Scenario("revisions", ("revisions", "holding"), revisions),
        Scenario("own-test", ("own-test",), own_test),
        Scenario("inside", ("inside",), inside),
        Scenario("polygons", ("polygons",), polygons),
        Scenario("odd", ("odd",), odd),
        Scenario("refused-holding", ("refused-holding",), refused_holding),
        Scenario("languages", ("languages",), languages),
        Scenario("duty", ("on-duty",), duty),
        Scenario("new-token", ("new-token",), new_token),
        *(Scenario(f"no-return-{code}", ("no-return",), no_return(code)) for code in NEVER_CODES),
    )
}

# The scenarios for a client of the feed. Those that are also above need no connection.
FEED_SCENARIOS = {
    "feed": Scenario("feed", ("feed", "tombstones", "unknown", "unknown-cancel"), feed),
    "odd-feed": Scenario("odd-feed", ("odd",), odd_feed),
    **{name: SCENARIOS[name] for name in ("revisions", "clock", "wrong-clock", "inside", "polygons")},
}
