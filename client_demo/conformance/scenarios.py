"""What is played to a client, and what it has to do then.

A duty is met when every scenario that saw it found nothing wrong. What can't be seen from the wire is listed as such.
Chance: a client that draws its delays as the contract wants fails `window` once in 45,000 runs, `backoff` once in
11,000 (simulated).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from .stage import Over, Stage, Talk


class Duty(NamedTuple):
    """What is asked of a client, and the rules of docs/protocol.md that ask it."""

    rules: str
    what: str


DUTIES = {
    "handshake": Duty("S1 S2", "asks for /v1/stream, without a query, and offers a subprotocol of geocast"),
    "hello": Duty("M1 S5", "says hello first, once, within 10 s"),
    "form": Duty("G3 F1-F6", "sends nothing but what the contract names, in the format that was agreed on"),
    "pace": Duty("F7", "sends 10 messages a second on average, and 300 in a burst, at most"),
    "pong": Duty("W8", "answers the WebSocket's pings"),
    "unknown": Duty("G2", "skips fields and messages that it does not know, and shows alerts of unknown shape"),
    "unknown-cancel": Duty("C3", "takes a cancel for something it does not hold as nothing"),
    "revisions": Duty("C1", "replaces by a higher revision, ignores the same and lower ones, drops what is cancelled"),
    "expiry": Duty("C2 E4", "drops an alert when it ends, and does not show one that ended before it came"),
    "clock": Duty("C2", "corrects its clock by the server's `now`"),
    "wrong-clock": Duty("C2 C2a", "does not show what a clock has ended, and shows it when that clock was wrong"),
    "inside": Duty("C4 M5", "acknowledges what it has shown, once, and shows only what it is inside of"),
    "holding": Duty("C5", "lists in `holding` what it goes on showing"),
    "at-most-256": Duty("C5", "lists at most 256, those that end last"),
    "ping": Duty("W9", "sends `ping` after `heartbeat_s` without a message"),
    "dead": Duty("W9", "gives up a connection on which nothing comes 10 s after its `ping`"),
    "window": Duty("W2 W5 C8", "comes back within the window, at random over all of it, whatever the text says"),
    "backoff": Duty("W6", "doubles the window's upper end after each failed attempt"),
    "no-return": Duty("W3", "does not come back after 1002, 1003, 1007, 1009, 4400, 4403"),
    "new-token": Duty("W3", "comes back after 4401 with a new token, never with the old one"),
    "later": Duty("W7", "comes back after 1013 and 4429, in no hurry"),
    "at-once": Duty("W4", "comes back at once after the first 4420, with `holding`; later after the second"),
    "status": Duty("C6", "shows `exercise` and `test` for what they are"),
    "text": Duty("C7", "treats text as text"),
}
NOT_OBSERVABLE = ("status", "text")

SLACK_S = 3.0  # for slow machines, where the contract gives an upper bound
EARLY_S = 0.005  # for the granularity of timers, where it gives a lower one
NEVER_CODES = (1002, 1003, 1007, 1009, 4400, 4403)
WINDOW_CODES = (1012, 1001, 1006, 1011, 4408, 4999)
LATER_S = 20.0  # "later" has no upper end: so long we wait to see it
DRAWS = 16


@dataclass(frozen=True, slots=True)
class Scenario:
    """A play: its name, the duties that it looks at, and how it goes."""

    name: str
    duties: tuple[str, ...]
    play: Callable[[Stage], Awaitable[None]]


async def _return(stage: Stage, talk: Talk, code: int, max_ms: int = 300) -> Talk:
    """Close with a code that means "within the window", and wait for the client. Raises Over if it stays away."""
    within_s = max_ms / 1000 + SLACK_S
    back = await stage.back(await talk.close(code), within_s)
    if back is None:
        stage.findings.unmet("window", f"did not come back within {within_s:g} s of a close with {code}")
        raise Over("the client did not come back")
    return back


def _held(talk: Talk) -> dict[str, int]:
    return dict(talk.hello.get("holding", {}))


async def basics(stage: Stage) -> None:
    """Welcomed with a field that nobody knows, a message that nobody knows, a shape that nobody knows."""
    talk = await stage.client()
    await talk.welcome(mood="good")
    await talk.say({"type": "weather", "outlook": "sunny"})
    await talk.alert("strange", area=[{"type": "polygon", "points": [[1, 2], [3, 4], [5, 6]]}], colour="red")
    found = stage.findings
    if await talk.fence():
        found.judge("unknown", talk.acks()["strange", 1] > 0, "did not show an alert whose shape it does not know")
    found.judge("unknown", talk.is_open(), "ended the connection over something that it does not know")
    await talk.cancel("never-heard-of", 3)
    await talk.alert("plain")
    await talk.fence()
    found.judge("unknown-cancel", talk.is_open(), "ended the connection over a cancel of something unknown")
    found.judge("pong", await talk.pings(5.0), "no pong came within 5 s")
    held = _held(await _return(stage, talk, 1012))
    found.judge("holding", held.get("plain") == 1, "`holding` lacks what was shown")
    found.judge("unknown", held.get("strange") == 1, "did not keep an alert whose shape it does not know")
    found.judge("unknown-cancel", "never-heard-of" not in held, "`holding` lists an id that was only cancelled")


async def revisions(stage: Stage) -> None:
    """Revisions out of order and twice, and cancels."""
    talk = await stage.client()
    await talk.welcome()
    for alert_id, revision in (("a", 2), ("a", 1), ("a", 2), ("a", 10), ("a", 9), ("b", 1), ("c", 1)):
        await talk.alert(alert_id, revision)
    await talk.cancel("b", 2)
    found = stage.findings
    if await talk.fence():
        acks = talk.acks()
        found.judge("revisions", not acks["a", 1] and not acks["a", 9], "showed a lower revision after a higher one")
        found.judge("revisions", acks["a", 2] < 2, "showed the same revision twice")
        found.judge("revisions", acks["a", 10] > 0, "did not show a higher revision")
    held = _held(await _return(stage, talk, 1012))
    found.judge("revisions", held.get("a") == 10, "does not hold the highest revision that came (10)")
    found.judge("revisions", "b" not in held, "holds what was cancelled")
    found.judge("holding", held.get("c") == 1, "`holding` lacks what was shown")


async def clock(stage: Stage) -> None:
    """A server whose clock is an hour behind the client's, then one whose clock is an hour ahead."""
    found = stage.findings
    stage.skew_ms = -3_600_000
    talk = await stage.client()
    await talk.welcome()
    await talk.alert("half-an-hour", lasts_s=1800)
    await talk.alert("ended", lasts_s=-1)
    if is_shown := await talk.fence():
        found.judge("clock", talk.acks()["half-an-hour", 1] > 0, "did not show what is live by the server's clock")
        found.judge("expiry", talk.acks()["ended", 1] == 0, "showed an alert that ended before it came")
    talk = await _return(stage, talk, 1012)
    found.judge("clock", "half-an-hour" in _held(talk), "dropped what is live by the server's clock")
    found.judge("expiry", "ended" not in _held(talk), "holds an alert that ended before it came")
    stage.skew_ms = 3_600_000
    await talk.welcome()
    await talk.alert("brief", lasts_s=1.5)
    await talk.alert("long")
    if await talk.fence() and not is_shown:
        found.unmet("clock", "did not show what is live by the server's clock, an hour behind")
    await asyncio.sleep(3.0)  # this is what is played: time passes, 2.5 s from `issued_at` to `expires_at` (C2a)
    held = _held(await _return(stage, talk, 1012))
    found.judge("holding", "long" in held, "`holding` lacks what was shown")
    found.judge("expiry", "brief" not in held, "holds an alert after its end")


async def wrong_clock(stage: Stage) -> None:
    """A server whose clock is an hour ahead, and is set right while the client is there."""
    found, ahead_s, heartbeat_s = stage.findings, 3600, 1.0
    stage.skew_ms = ahead_s * 1000
    talk = await stage.client()
    await talk.welcome(heartbeat_s=heartbeat_s)
    issued_at, occurred_at = stage.now(-ahead_s - 1), stage.now(-ahead_s - 60)
    await talk.alert("lives", lasts_s=600 - ahead_s, issued_at=issued_at, occurred_at=occurred_at)
    if not await talk.fence():
        found.not_seen("wrong-clock", "the client acknowledges nothing")
        return
    if talk.acks()["lives", 1]:
        found.unmet("wrong-clock", "showed an alert that had ended by the server's clock")
        return
    stage.skew_ms = 0
    if await talk.heard(lambda message: message.get("id") == "lives", heartbeat_s + SLACK_S):
        found.met("wrong-clock")
    else:
        found.not_seen("wrong-clock", "did not show it when the clock was right: no must, but the person is told less")


async def inside(stage: Stage) -> None:
    """Alerts here, far away, and one that moves away and comes back."""
    talk = await stage.client()
    await talk.welcome()
    await talk.alert("here")
    await talk.alert("there", inside=False)
    await talk.alert("here")
    if not await talk.fence():
        stage.findings.not_seen("inside", "the client acknowledges nothing")
        return
    acks = talk.acks()
    stage.findings.judge("inside", acks["here", 1] > 0, "did not acknowledge an alert that it is inside of")
    stage.findings.judge("inside", acks["here", 1] < 2, "acknowledged a revision twice")
    stage.findings.judge("inside", acks["there", 1] == 0, "acknowledged an alert that it is outside of")


async def many(stage: Stage) -> None:
    """260 alerts, in any order."""
    ends = random.sample(range(600, 600 + 260), 260)
    talk = await stage.client()
    await talk.welcome()
    for number, lasts_s in enumerate(ends):
        await talk.alert(f"a{number}", lasts_s=lasts_s)
    await talk.fence(30.0)  # acknowledging them all takes its time: F7
    back = await _return(stage, talk, 1012)
    held = {key for key in _held(back) if key.startswith("a")}
    last = sorted(range(260), key=lambda number: ends[number])[260 - len(held) :]
    found = stage.findings
    found.judge("at-most-256", 0 < len(_held(back)) <= 256, f"`holding` lists {len(_held(back))}")
    kept_well = len(held) == 260 or held == {f"a{number}" for number in last}
    found.judge("at-most-256", kept_well, "`holding` leaves out some that end later than others that it lists")


async def silence(stage: Stage) -> None:
    """A server that says nothing, and then one that is gone without a word."""
    heartbeat_s, found = 1.0, stage.findings
    talk = await stage.client()
    await talk.welcome(heartbeat_s=heartbeat_s)
    if await talk.heard(lambda message: message.get("type") == "ping", heartbeat_s + SLACK_S) is None:
        for duty in ("ping", "dead"):
            found.not_seen(duty, "sends no `ping`: then it has to see the WebSocket's own, and to judge by them")
        return
    found.met("ping")
    left = await talk.leaves(heartbeat_s)
    found.judge("ping", not left, "ended a connection although its `ping` was answered")
    talk.freeze()
    within_s = heartbeat_s + 10 + SLACK_S
    back = await stage.back(time.monotonic(), within_s)
    found.judge("dead", back is not None, f"had not given up a dead connection after {within_s:g} s")


async def window(stage: Stage) -> None:
    """Closed again and again: each delay lies in the window, and together they fill it."""
    low, high, found = 0.4, 1.0, stage.findings
    talk = await stage.client()
    delays = []
    for number in range(DRAWS):
        await talk.welcome(min_ms=400, max_ms=1000)
        await talk.pings(SLACK_S)  # so that it has the welcome before the close
        code, left_at = WINDOW_CODES[number % len(WINDOW_CODES)], time.monotonic()
        talk = await _return(stage, talk, code, 1000)
        delays.append(talk.arrived_at - left_at)
        if delays[-1] < low - EARLY_S:
            found.unmet("window", f"came back {delays[-1]:.2f} s after a close with {code}: sooner than {low} s")
    middle = (low + high) / 2
    spread = max(delays) - min(delays)
    found.judge("window", min(delays) < middle, f"of {DRAWS} delays none lies in the lower half of the window")
    found.judge("window", max(delays) > middle, f"of {DRAWS} delays none lies in the upper half of the window")
    found.judge("window", spread > 0.35 * (high - low), f"{DRAWS} delays lie within {spread:.2f} s: not at random")


async def backoff(stage: Stage) -> None:
    """Refused eight times."""
    found, attempts, high = stage.findings, 8, 0.1
    talk = await stage.client()
    await talk.welcome(min_ms=50, max_ms=100)
    await talk.pings(SLACK_S)
    stage.refuse = attempts
    before, delays = await talk.close(1012), []
    for number in range(attempts):
        within_s = high * 2**number + SLACK_S
        arrival = await stage.arrival(before + within_s - time.monotonic())
        if arrival is None:
            found.unmet("backoff", f"attempt {number + 1} did not come within {within_s:.1f} s of the one before")
            return
        delays.append(arrival.at - before)
        before = arrival.at
    took_s = sum(delays[3:])
    found.judge("backoff", took_s > 1.5, f"the delays do not grow: the last five took {took_s:.1f} s together")
    found.judge("backoff", min(delays) >= 0.05 - EARLY_S, "came back sooner than the window's lower end")


def no_return(code: int) -> Callable[[Stage], Awaitable[None]]:
    """Closed with a code after which there is no coming back."""

    async def play(stage: Stage) -> None:
        talk = await stage.client()
        await talk.welcome()
        await talk.pings(SLACK_S)
        back = await stage.back(await talk.close(code), SLACK_S)
        stage.findings.judge("no-return", back is None, f"came back after {code}")

    return play


async def new_token(stage: Stage) -> None:
    """A token that is refused."""
    talk, found = await stage.client(), stage.findings
    refused = talk.hello.get("token")
    if refused is None:
        found.not_seen("new-token", "the client sends no token: let it fetch one from the token URL")
        return
    await talk.welcome()
    await talk.pings(SLACK_S)
    fetched = stage.tokens
    back = await stage.back(await talk.close(4401), 0.3 + SLACK_S)
    if back is not None:
        found.judge("new-token", back.hello.get("token") != refused, "came back with the token that was refused")
    elif stage.tokens > fetched:
        found.unmet("new-token", "fetched a new token, and did not come back")
    else:
        found.not_seen("new-token", "the client has no other token: let it fetch one from the token URL")


async def later(stage: Stage) -> None:
    """An overloaded server, and one that has heard too much."""
    talk, found = await stage.client(), stage.findings
    for code in (1013, 4429):
        await talk.welcome(min_ms=1500, max_ms=2500)
        await talk.pings(SLACK_S)
        left_at = await talk.close(code)
        back = await stage.back(left_at, LATER_S)
        if back is None:
            found.not_seen("later", f"did not come back within {LATER_S:g} s of {code}, and may still do so")
            return
        delay = back.arrived_at - left_at
        found.judge("later", delay >= 1.5 - EARLY_S, f"came back {delay:.2f} s after {code}: sooner than the window")
        talk = back


async def at_once(stage: Stage) -> None:
    """Taken for slow, twice."""
    talk, found = await stage.client(), stage.findings
    await talk.welcome(min_ms=3000, max_ms=4000)
    await talk.alert("kept")
    await talk.fence()
    left_at = await talk.close(4420)
    back = await stage.back(left_at, 4.0 + SLACK_S)
    if back is None:
        found.unmet("at-once", "did not come back after 4420")
        return
    delay = back.arrived_at - left_at
    found.judge("at-once", delay < 2.5, f"came back {delay:.1f} s after the first 4420: not at once")
    found.judge("at-once", "kept" in _held(back), "came back without `holding`")
    await back.welcome(min_ms=3000, max_ms=4000)
    await back.pings(SLACK_S)
    again = await stage.back(await back.close(4420), 2.5)
    found.judge("at-once", again is None, "came back at once after the second 4420, too")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("window", ("window",), window),
        Scenario("silence", ("ping", "dead"), silence),
        Scenario("many", ("at-most-256", "pace"), many),
        Scenario("backoff", ("backoff",), backoff),
        Scenario("clock", ("clock", "expiry", "holding"), clock),
        Scenario("wrong-clock", ("wrong-clock",), wrong_clock),
        Scenario("at-once", ("at-once",), at_once),
        Scenario("later", ("later",), later),
        Scenario("basics", ("handshake", "hello", "form", "pong", "unknown", "unknown-cancel", "holding"), basics),
        Scenario("revisions", ("revisions", "holding"), revisions),
        Scenario("inside", ("inside",), inside),
        Scenario("new-token", ("new-token",), new_token),
        *(Scenario(f"no-return-{code}", ("no-return",), no_return(code)) for code in NEVER_CODES),
    )
}
