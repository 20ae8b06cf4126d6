"""A subscriber that stays connected: the asyncio part of the client, which uses `holdings` and `reconnect`.

    client = Client("ws://127.0.0.1:8765/v1/stream", [Place.at(32.7767, -96.797)], on_change=show)
    await client.run()  # until client.stop(), or until the server says that reconnecting makes no sense

Rule 1  The places, the filter and the received alerts outlive the connection; each `hello` sends them again.
Rule 2  Changes are reported in order by calls of `on_change`, one at a time. When the call returns, the alert counts as
        shown and is acknowledged, unless the call has returned False.
Rule 3  A token that was refused is not sent again.
Rule 4  With `verify`, an alert that its proof does not confirm is dropped before any callback: it is neither stored nor
        acknowledged.
Rule 5  A server of an older release closes a `hello` that contains `languages`. The client then reconnects without
        them. If a `welcome` shows that the server knows languages, the client sends them in a `filter`, and in each
        `hello` after that. The member `here` of a place works in the same way: the first `welcome` with `quals` is
        followed by a `move` with `here`, and each `hello` after that contains it.
Rule 6  A responder's answers outlive the connection, too. `calls` decides when an answer is sent, and sent again.
Rule 7  With the source `auto`, the feed is followed after three failures in a row to open a connection, or after a
        minute without one, and also if the server refuses the client for good. Meanwhile, a connection is tried every
        10 minutes. The feed is followed until the messages of a `welcome` have come. Held alerts stay.
Rule 8  No message ends the client. What a `hello` could not list, and what can't be read,
        is dropped, counted in `dropped`, and reported. If a server refuses a `hello` nevertheless, the client comes
        back once without `holding`.
"""

import asyncio
import contextlib
import inspect
import json
import logging
import random
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from websockets.typing import Subprotocol

from .api import retry_after_s
from .base64url import decoded
from .calls import CallChange, CallKind, Calls, State
from .geo import Place, away_m
from .holdings import MAX_HOLDING, MAX_REVISION, ODD, SHOWN, Change, Holdings
from .link import PONG_S, ClientError, Link, RequestRefused, first_to_end
from .reconnect import NO_CLOSE_FRAME, After, Backoff, after_close, after_refusal, meaning
from .times import own_ms, parse_time, wall_ms
from .verify import Untrusted, Verifier
from .wire import WIRES, Message, WireName, is_loopback

if TYPE_CHECKING:
    from .feed import PublicFeed

__all__ = ["Client", "ClientError", "RequestRefused"]

log = logging.getLogger("client_demo")

HANDSHAKE_S = 10.0
HEARTBEAT_S = 25.0  # used if the welcome has no valid interval
MAX_HEARTBEAT_S = 3600.0  # with a longer interval a dead connection would go unnoticed
MALFORMED = 4400
HELLO_REFUSED = (MALFORMED, 1007, 1009)
TOKEN_REFUSED = (4401, 4403)
MAX_LANGUAGES = 8
_TAG = re.compile("[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}")
HERE_REF = 0  # `ref` of the `move` that `_offer_here` sends; the other requests of a link count from 1
RENEW_S = 60.0  # a token is renewed this long before it expires, or after 80 % of its lifetime if that is later
RENEW_AGAIN_S = 5.0  # after a failed renewal
FEED_EVERY_S = 30.0
MAX_FAILURES = 3  # to open a connection, before the feed is followed (Rule 7)
PATIENCE_S = 60.0  # without a connection, before the feed is followed
TRY_AGAIN_S = 600.0  # between two attempts to connect, while the feed is followed

OnChange = Callable[[Change], object]
OnCall = Callable[[CallChange], object]
Locate = Callable[[], Place | Awaitable[Place]]
TokenSource = Callable[[], str | Awaitable[str]]
Source = Literal["socket", "feed", "auto"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt to connect ended: what to do next, and the reason in words.

    `retry_after_s` is the time, in seconds, that the server has asked the client to wait. `refuses_token` says that the
    server refuses the token, or that the token source has raised ClientError. `answered` is False if nothing answered
    at the URL.
    """

    after: After
    why: str
    retry_after_s: float = 0.0
    refuses_token: bool = False
    answered: bool = True


class Client:
    """A subscriber, which connects to the server and reconnects for as long as `run` lasts.

    `token` returns a token; it may be a coroutine function. It is called before each connection, before the token
    expires and after the server has refused a token. `languages` are tags such as "de-AT", the preferred one first: the
    server sends each alert in one of its languages. `on_status` is called with a line of text whenever the connection
    opens or ends. By default the line is logged: as a warning as long as there never was a connection. With `verify`
    the client asks for the stream with reviewers' signatures, and `on_untrusted` is called for each `alert` or `cancel`
    message that is dropped because its signatures do not suffice. Raise ValueError if one of the languages
    is not a language tag, or if there are more than 8.

    `tls` is used for URLs that begin with "wss:", in place of a new context with the system's certificates.

    `source` says where alerts come from: `socket`, a connection; `feed`, the public feed at the URL `feed`, from which
    the client takes what concerns its places, so that the server learns no place; or `auto`, a connection, and the feed
    while no connection can be made (Rule 7). From the feed, alerts come up to `feed_every_s` + 6 s late, and calls,
    tests and exercises do not come. The feed has no signatures, so `verify` goes with `socket` only. Raise ValueError
    if these arguments do not fit together.

    A responder marks one place as `here`. `on_call` is called for changes of calls, as `on_change` is for alerts.
    `locate` returns the place where the person is now; it may be a coroutine function. It is called whenever a new call
    arrives, so that the server learns at once how near the responder is.
    """

    def __init__(
        self,
        url: str = "",
        places: Sequence[Place] = (),
        *,
        source: Source = "socket",
        feed: str | None = None,
        feed_every_s: float = FEED_EVERY_S,
        token: TokenSource | None = None,
        wire: WireName = "json",
        categories: Sequence[str] | None = None,
        min_severity: str | None = None,
        languages: Sequence[str] | None = None,
        verify: Verifier | None = None,
        on_change: OnChange = log.debug,
        on_call: OnCall = log.debug,
        locate: Locate | None = None,
        on_status: Callable[[str], object] | None = None,
        on_untrusted: Callable[[Untrusted], object] = log.warning,
        draw: Callable[[], float] = random.random,
        pong_s: float = PONG_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.ending: Ending | None = None  # how the last attempt to connect ended; None while a connection is open
        self.dropped = 0  # number of messages that were dropped because they were odd (Rule 8)
        self._tls: dict[str, Any] = {"ssl": tls} if tls is not None and url.startswith("wss:") else {}
        self.holdings, self.calls = Holdings(places), Calls()
        self._rest_until = 0  # by the server's clock, in ms since 1970
        self.quals: tuple[str, ...] = ()  # the valid qualifications of our token, from the last `welcome`
        self._url, self._token_source, self._verify = url, token, verify
        self._wire = WIRES[wire] if verify is None else WIRES[wire].signed()
        self._filter: dict[str, Any] = {"categories": categories, "min_severity": min_severity}
        self._filter["languages"] = _tags(languages)
        self._says_languages = True  # whether a `hello` contains languages (Rule 5)
        self._says_here = False  # whether places contain `here` (Rule 5)
        self._hello_may_be_too_new = False  # whether the last `hello` had languages or `here`, and was not answered
        self._says_holding = True  # whether the next `hello` contains `holding` (Rule 8)
        self._hello_has_holding = False  # whether the last `hello` had `holding`, and was not answered
        self._on_call, self._locate = on_call, locate
        self._rang, self._calls_changed = asyncio.Event(), asyncio.Event()
        self._on_change, self._on_untrusted = on_change, on_untrusted
        self._on_status = on_status or self._log_status
        self._backoff, self._pong_s = Backoff(draw), pong_s
        self._stopping, self._held_changed = asyncio.Event(), asyncio.Event()
        self._welcomed = False
        self._asks_the_time = False
        self._behind = 0  # number of messages that the `welcome` announced and that have not come yet
        self._is_caught_up = asyncio.Event()
        self._token: str | None = None
        self._refused_token: str | None = None
        self._link: Link | None = None
        self._source: Source = source
        self._feed = self._feed_of(feed, feed_every_s, draw)
        self._draw, self._knows_clock = draw, False
        self._failures = 0  # to open a connection, since the last `welcome`
        self._is_failing, self._has_fallen, self._is_connected = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_following = False

    def _feed_of(self, url: str | None, every_s: float, draw: Callable[[], float]) -> "PublicFeed | None":
        if self._source == "socket":
            return None
        if self._source not in ("feed", "auto") or url is None or self._verify is not None:
            raise ValueError('source: "socket"; or "feed" or "auto", with the URL of a feed and without verify')
        from .feed import PublicFeed  # needs httpx

        return PublicFeed(url, every_s, draw, self._heard_feed, self._on_status)

    # ---- methods for the caller ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until `stop` is called. Raise ClientError if reconnecting makes no sense."""
        supply = [] if self._source == "feed" else [self._stay_connected()]
        if self._feed is not None:
            supply.append(self._feed.follow() if self._source == "feed" else self._fall_back(self._feed))
        await first_to_end(*supply, self.expire(), self._come_near(), self._stopping.wait())

    async def fetch(self) -> None:
        """Open one short connection, receive and acknowledge the messages that are waiting, and close it.

        This is for an app in the background that a push has woken (protocol, "A client's duties"). Raise ClientError if
        reconnecting makes no sense.
        """
        await first_to_end(self.run(), self._caught_up_and_acknowledged())

    async def _caught_up_and_acknowledged(self) -> None:
        await self.caught_up()
        if self._link is not None:
            await self._link.said_all()

    async def caught_up(self) -> None:
        """Wait until all messages that the last `welcome` announced have been received, or a document of the feed."""
        await self._is_caught_up.wait()

    def stop(self) -> None:
        """End `run`. The connection is closed with the close code 1000."""
        self._stopping.set()

    def interrupt(self) -> None:
        """Drop the connection without a close frame, as if the network were lost. `run` continues, and reconnects."""
        if self._link is not None:
            self._link.abort()

    def check(self) -> None:
        """Ask the feed at once, if it is followed. Call this when the person looks at the app again."""
        if self._feed is not None:
            self._feed.ask()

    @property
    def late_s(self) -> float | None:
        """How many seconds late an alert may be while the feed is followed; None with a connection."""
        follows = self._source == "feed" or self._is_following
        return self._feed.late_s if self._feed is not None and follows else None

    async def move(self, places: Sequence[Place]) -> None:
        """Replace the places of the subscriber.

        The alerts that the client has are compared with the new places at once. When this method returns, either the
        server knows the new places, or the connection is lost and the next `hello` will send them.
        """
        self._report(self.holdings.expire(own_ms()) + self.holdings.move(places))
        self._take_feed()
        await self._ask({"type": "move", "places": self._said_places()})

    async def filter(self, **fields: Any) -> None:
        """Change the filter: `categories`, `min_severity` or `languages`.

        None removes a part of the filter. A part that is not given stays as it is.
        """
        if "languages" in fields:
            fields["languages"] = _tags(fields["languages"])
        self._filter |= fields
        self._take_feed()
        if not self._says_languages:
            fields.pop("languages", None)
        if fields:
            await self._ask({"type": "filter", **fields})

    async def try_me(self) -> str | None:
        """Ask for one test alert to this connection alone, and return its id (protocol, TR1).

        The test arrives like any alert, through `on_change`, when this method returns. Return None if the client is not
        connected, or if the connection ends before the answer. Raise RequestRefused if the server refuses the request:
        `no-place`, `rate-limited` (see `retry_after_s`), or `unknown-type` from a server of an older release.
        """
        link, key = self._link, secrets.token_urlsafe(12)
        if link is None:
            return None
        await link.ask({"type": "try", "id": key})
        return f"try:{key}" if self._link is link else None

    def ack(self, alert_id: str, revision: int) -> None:
        """Acknowledge that this revision of an alert was shown to the person.

        This is only needed if `on_change` has returned False; otherwise alerts are acknowledged automatically.
        """
        if self._link is not None:
            self._link.say_later({"type": "ack", "id": alert_id, "revision": revision})

    def accept(self, call_id: str, eta_s: int | None = None) -> None:
        """Accept a call for help. `eta_s` is the time until the responder arrives, in seconds, or None.

        The message is repeated until the server answers it with a `task` or a `standdown`, for which `on_call` is
        called. Raise ValueError if `eta_s` is not between 0 and 7,200, or if the id is malformed.
        """
        self.calls.accept(call_id, eta_s, own_ms())
        self._wake_for_calls()

    def decline(self, call_id: str) -> None:
        """Decline a call for help, or give the seat back if the call was accepted before.

        `on_call` is not called for this call any more.
        """
        self.calls.decline(call_id, own_ms())
        self._wake_for_calls()

    def report(self, call_id: str, state: State) -> None:
        """Report `aed` (I have a defibrillator) or `arrived` to the dispatcher.

        Raise ValueError if the responder has no task in this call.
        """
        self.calls.report(call_id, state, own_ms())
        self._wake_for_calls()

    @property
    def rest_until(self) -> int | None:
        """The time until which this responder is not called, after having just helped somebody.

        It is in ms since 1970, by the server's clock; None if calls may come.
        """
        return self._rest_until if self._rest_until > self._clocks()[1] else None

    def away_m(self, call: Mapping[str, Any]) -> float | None:
        """Return the distance, in metres, to the centre of a call's circle `near`; None if it is unknown.

        It is measured from the place marked as `here`; if there is none, from the place that is nearest to the centre.
        The person who needs help is somewhere in the circle `near`; only the task has the exact place.
        """
        places = [place for place in self.holdings.places if place.here] or self.holdings.places
        try:
            return away_m([call["near"]], places)
        except ODD:
            return None

    # ---- connecting and reconnecting -----------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            self.ending = ending = await self._attempt()
            if ending.after is After.NEVER or (ending.after is After.NEW_TOKEN and self._token_source is None):
                await self._give_up(ending.why)
            if self._source == "auto":
                self._count_failure()
            delay_s = self._backoff.delay_s(ending.after, ending.retry_after_s, ending.answered)
            if self._is_following:
                delay_s = max(delay_s, TRY_AGAIN_S * (0.9 + 0.1 * self._draw()))
            after = "asking for a new token" if ending.after is After.NEW_TOKEN else "back at once"
            self._on_status(f"{ending.why}; {f'back in {delay_s:.1f} s' if delay_s else after}")
            await asyncio.sleep(delay_s)

    async def _attempt(self) -> Ending:
        """Connect, and stay until the connection ends. Return how it ended."""
        never = After.WINDOW if self._source == "auto" else After.NEVER
        try:
            self._token = await self._fresh_token()
        except ClientError as error:
            return Ending(never, str(error), refuses_token=True)
        except Exception as error:
            return Ending(After.WINDOW, f"no token could be fetched ({error})")
        try:
            return await self._session()
        except InvalidStatus as refusal:
            return self._refused(refusal)
        except InvalidURI as error:
            return Ending(After.NEVER, str(error))
        except NegotiationError as error:
            return Ending(After.NEVER, f"{self._url}: {error}")
        except (OSError, TimeoutError, InvalidHandshake) as error:
            return Ending(
                After.WINDOW, f"no connection to {self._url} ({error or type(error).__name__})", answered=False
            )

    async def _session(self) -> Ending:
        try:
            socket = await connect(
                self._url,
                subprotocols=[Subprotocol(self._wire.subprotocol)],
                compression=None,
                ping_interval=None,  # `Link` sends the pings, at the interval that the server asks for
                open_timeout=HANDSHAKE_S,
                close_timeout=2.0,
                proxy=None if is_loopback(self._url) else True,
                **self._tls,
            )
        except ValueError as error:  # a port or a host that is none
            raise InvalidURI(self._url, str(error)) from None
        try:
            return await self._talk(socket)
        finally:
            await socket.close()  # with the code 1000; does nothing if the server has already closed it

    async def _talk(self, socket: ClientConnection) -> Ending:
        if socket.subprotocol is None:
            return Ending(After.NEVER, f"{self._url} does not speak {self._wire.subprotocol}")
        self._link = link = Link(socket, self._wire, self._take, self._drop, self._pong_s)
        try:
            await self._converse(link)
        except ConnectionClosed as closed:
            return self._closed(closed)
        except TimeoutError:
            link.abort()  # nobody would answer a close handshake
            return Ending(After.WINDOW, "the server went silent")
        finally:
            self._link = None
            link.let_go()
        raise AssertionError("a conversation ends by an exception")

    async def _converse(self, link: Link) -> None:
        welcome = await link.greet(self._hello())
        self._hello_may_be_too_new = self._hello_has_holding = False
        self._says_holding = True
        self._welcomed, self._failures, self.ending = True, 0, None
        self._backoff.welcomed(*_window_ms(welcome))
        self._set_clock(welcome)
        self._offer_languages(link, welcome)
        said_more = self._offer_here(link, welcome)
        self.calls.connected(own_ms())
        live = _live(welcome)
        self._on_status(f"connected, {live} to catch up on")
        self._expect(live + said_more)  # the `ok` says how many messages follow
        await first_to_end(
            link.talk(_heartbeat_s(welcome)), self._renew_token(link, _expiry_ms(welcome)), self._answer_calls(link)
        )

    def _offer_languages(self, link: Link, welcome: Message) -> None:
        """Send the languages in a `filter` if the server knows languages and the `hello` lacked them (Rule 5)."""
        if not self._says_languages and isinstance(welcome.get("languages"), list):
            self._says_languages = True
            if self._filter["languages"] is not None:
                link.say({"type": "filter", "languages": self._filter["languages"]})

    def _offer_here(self, link: Link, welcome: Message) -> bool:
        """Send a `move` that marks one of the places as `here`, if the server treats this user as a responder (Rule 5).

        Send nothing if the `hello` already had this mark, or if no place is to be marked. Return whether a `move` was
        sent.
        """
        said = self._says_here
        self.quals = _quals(welcome)
        self._rest_until = _time(welcome.get("rest_until")) or 0
        self._says_here = bool(self.quals)
        says_now = self._says_here and not said and any(place.here for place in self.holdings.places)
        if says_now:
            link.say({"type": "move", "places": self._said_places(), "ref": HERE_REF})
        return says_now

    def _said_places(self) -> list[Message]:
        places = self.holdings.places
        return [(place if self._says_here else replace(place, here=False)).to_map() for place in places]

    def _holding(self) -> dict[str, int]:
        """Return the `holding` of a `hello`, which lists what the client has: calls (protocol, RU3), then alerts."""
        self._report_calls(self._expired_calls())
        calls = self.calls.holding(MAX_HOLDING)
        alerts, dropped = self.holdings.holding(own_ms(), MAX_HOLDING - len(calls))
        self._report(dropped)
        return {**calls, **alerts}

    def _hello(self) -> Message:
        holding, places = self._holding() if self._says_holding else {}, self._said_places()
        hello: Message = {"type": "hello", "places": places}
        optional = {"token": self._token, "holding": holding or None, **self._filter}
        if not self._says_languages:
            del optional["languages"]
        hello |= {key: value for key, value in optional.items() if value is not None}
        self._hello_may_be_too_new = "languages" in hello or any("here" in place for place in places)
        self._hello_has_holding = "holding" in hello
        return hello

    def _refused(self, refusal: InvalidStatus) -> Ending:
        answer = refusal.response
        is_known = self._welcomed or self._source == "auto"  # with `auto`, a proxy may be why (Rule 7)
        after = after_refusal(answer.status_code, is_known)
        why = f"{self._url} answered {answer.status_code} {answer.reason_phrase}"
        return Ending(after, why, retry_after_s(answer.headers.get("Retry-After")))

    def _closed(self, closed: ConnectionClosed) -> Ending:
        # If this client has ended the connection, because a text was no UTF-8, the server only repeats the code.
        is_theirs = closed.rcvd is not None and (closed.sent is None or closed.rcvd_then_sent)
        code = closed.rcvd.code if closed.rcvd is not None and is_theirs else NO_CLOSE_FRAME
        after = after_close(code)
        if code == MALFORMED and self._hello_may_be_too_new:
            self._says_languages = self._says_here = False
            return Ending(After.AT_ONCE, "the server may be of an older release")
        if code in HELLO_REFUSED and self._hello_has_holding:
            self._says_holding = self._hello_has_holding = False
            return Ending(After.WINDOW, f"{meaning(code)} ({code}), so the next hello lists nothing")
        if after is After.NEW_TOKEN:
            self._refused_token = self._token
        return Ending(after, f"{meaning(code)} ({code})", refuses_token=code in TOKEN_REFUSED)

    # ---- the feed (Rule 7) ---------------------------------------------------------------------------------

    async def _give_up(self, why: str) -> None:
        """Raise ClientError; or, with the source `auto`, follow the feed for good."""
        if self._source != "auto":
            raise ClientError(why)
        self._on_status(f"{why}; no connection is tried any more")
        self._count_failure(MAX_FAILURES)
        await asyncio.Event().wait()

    def _count_failure(self, count: int = 1) -> None:
        """Count a connection that has failed, or that has ended: then none has failed to open yet."""
        self._failures += 0 if self._is_connected.is_set() and count == 1 else count
        self._is_connected.clear()
        self._is_failing.set()
        if self._failures >= MAX_FAILURES:
            self._is_following = True
            self._has_fallen.set()

    async def _fall_back(self, feed: "PublicFeed") -> None:
        """Follow the feed whenever there is no connection for too long (Rule 7). Never returns."""
        while True:
            await self._is_failing.wait()
            await first_to_end(self._fallen(), self._is_connected.wait())
            if not self._is_connected.is_set():
                self._is_following = True
                await first_to_end(feed.follow(), self._is_connected.wait())
                self._on_status("connected again: the feed is not followed any more")
            self._is_following = False
            self._has_fallen.clear()

    async def _fallen(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._has_fallen.wait()

    def _heard_feed(self, least_ms: int | None, most_ms: int | None) -> None:
        """Correct the clock by the feed's limits for it, and take what the document has for this client."""
        ahead_ms = self.holdings.server_ms(0) if self._knows_clock else wall_ms() - own_ms()
        if least_ms is not None and most_ms is not None:
            ahead_ms = min(max(ahead_ms, least_ms), most_ms)
        if not self._knows_clock or ahead_ms != self.holdings.server_ms(0):
            self._knows_clock = True
            self.holdings.set_clock(ahead_ms, 0)
            self._report(self.holdings.expire(own_ms()))
            self._report_calls(self._expired_calls())
        self._take_feed()
        self._is_caught_up.set()

    def _take_feed(self) -> None:
        if self._feed is not None and (self._source == "feed" or self._is_following):
            for message in self._feed.listing.messages(self.holdings, self._filter):
                self._handle(message)

    # ---- incoming messages ---------------------------------------------------------------------------------

    def _expect(self, behind: int) -> None:
        self._behind = behind
        if behind > 0:
            self._is_caught_up.clear()
        else:
            self._is_caught_up.set()
            self._is_failing.clear()
            self._is_connected.set()

    def _take(self, message: Message) -> None:
        try:
            self._handle(message if self._verify is None else self._verify.read(message))
        except Untrusted as untrusted:
            self._on_untrusted(untrusted)
        if self._behind and message["type"] in ("alert", "cancel", "call", "task", "standdown"):
            self._expect(self._behind - 1)
        elif self._behind and message["type"] in ("ok", "error") and message.get("ref") == HERE_REF:
            self._expect(self._behind - 1 + _live(message))

    def _handle(self, message: Message) -> None:
        match message["type"]:
            case "alert":
                kept = self.holdings.kept
                self._report(self._changes(self.holdings.take_alert, message.get("alert"), own_ms()))
                if self.holdings.kept > kept:
                    self._ask_the_time()
            case "cancel":
                self._report(self._changes(self.holdings.take_cancel, message))
            case "call":
                self._report_calls(self._changes(self.calls.take_call, message.get("call"), *self._clocks()))
            case "task":
                self._report_calls(self._changes(self.calls.take_task, message, *self._clocks()))
            case "standdown":
                self._rest_until = _time(message.get("rest_until")) or self._rest_until
                self._report_calls(self._changes(self.calls.take_standdown, message))
            case "pong":
                self._set_clock(message)
            case "error":
                log.warning("the server has refused a message: %s", message.get("detail"))
            case unknown:
                log.debug("ignoring a message of unknown type %s", unknown)

    def _changes(self, take: Callable[..., list[Any]], *arguments: object) -> list[Any]:
        try:
            return take(*arguments)
        except ODD as error:
            self._drop(f"an incomplete or malformed message ({type(error).__name__})")
            return []

    def _drop(self, what: str) -> None:
        """Count a message that is dropped, and log it: the first one, and then ever fewer."""
        self.dropped += 1
        if self.dropped.bit_count() == 1:
            log.warning("dropped %s; %d so far", what, self.dropped)

    def _log_status(self, text: str) -> None:
        log.log(logging.INFO if self._welcomed else logging.WARNING, "%s", text)

    def _set_clock(self, message: Mapping[str, Any]) -> None:
        self._asks_the_time = False
        now = _time_ms(message.get("now"))
        if now is None:
            log.warning("ignoring an unreadable `now` in a message of type %s", message["type"])
            return
        self.holdings.set_clock(now, own_ms())
        self._knows_clock = True
        self._report(self.holdings.expire(own_ms()))
        self._report_calls(self._expired_calls())

    def _clocks(self) -> tuple[int, int]:
        """Return the times of the client's own clock and of the server's clock, both in ms."""
        now = own_ms()
        return now, self.holdings.server_ms(now)

    def _ask_the_time(self) -> None:
        """Ask the server what time its clock shows.

        This is done if an alert arrives that has already ended, according to the last known time of the server.
        """
        if self._link is not None and not self._asks_the_time:
            self._asks_the_time = True
            self._link.say({"type": "ping"})

    def _report(self, changes: Iterable[Change]) -> None:
        self._held_changed.set()
        for change in changes:
            if self._on_change(change) is not False and change.kind in SHOWN:
                self.ack(change.alert["id"], change.alert["revision"])

    def _expired_calls(self) -> list[CallChange]:
        return self.calls.expire(*self._clocks())

    def _report_calls(self, changes: Iterable[CallChange]) -> None:
        self._wake_for_calls()
        for change in changes:
            if change.kind is CallKind.CALL:
                self._rang.set()
            if self._on_call(change) is not False and change.kind is CallKind.CALL and change.call is not None:
                self.ack(change.id, change.call["revision"])

    def _wake_for_calls(self) -> None:
        self._held_changed.set()
        self._calls_changed.set()

    async def expire(self) -> None:
        """Remove alerts and calls at their end, whether the client is connected or not. Never returns.

        `run` does this, too. A program that still shows alerts after `run` has raised an error needs it until the next
        `run`.
        """
        while True:
            self._held_changed.clear()
            expiries = (self.holdings.next_expiry(), self.calls.next_expiry(self.holdings.server_ms(0)))
            await _set_or_due(self._held_changed, min((at for at in expiries if at is not None), default=None))
            if changes := self.holdings.expire(own_ms()):
                self._report(changes)
            if ended := self._expired_calls():
                self._report_calls(ended)

    # ---- outgoing messages ---------------------------------------------------------------------------------

    async def _answer_calls(self, link: Link) -> None:
        """Send the responder's answers, and repeat them, at the times that `calls` decides on. Never returns."""
        while True:
            self._calls_changed.clear()
            for message in self.calls.due(own_ms()):
                link.say(message)
            await _set_or_due(self._calls_changed, self.calls.next_due())

    async def _come_near(self) -> None:
        """Whenever a new call arrives, send the place where the person is now (protocol, RU1). Never returns."""
        while True:
            await self._rang.wait()
            self._rang.clear()
            if self._locate is None:
                continue
            try:
                answer = self._locate()
                here = await answer if inspect.isawaitable(answer) else answer
                rest = [place for place in self.holdings.places if not place.here]
                if len(rest) < len(self.holdings.places):  # the person is still on duty
                    await self.move([replace(here, here=True), *rest])
            except Exception as error:
                log.warning("the present position could not be sent: %s", type(error).__name__)

    async def _ask(self, message: Message) -> None:
        if self._link is not None:  # otherwise the next `hello` says it (Rule 1)
            await self._link.ask(message)

    async def _fresh_token(self) -> str | None:
        """Return a token from the function that the caller has given, or None if there is no such function.

        Raise ClientError if the server has refused this token before (Rule 3).
        """
        if self._token_source is None:
            return None
        answer = self._token_source()
        token = await answer if inspect.isawaitable(answer) else answer
        if token == self._refused_token:
            raise ClientError(f"{meaning(4401)}, and there is no other one")
        return token

    async def _renew_token(self, link: Link, expiry_ms: int | None) -> None:
        """Send a fresh token whenever the present one is about to expire."""
        wait_s = self._renewal_s(expiry_ms)
        while wait_s is not None and self._token_source is not None:
            await asyncio.sleep(wait_s)
            try:
                token = await self._fresh_token()
            except Exception as error:
                log.warning("no fresh token could be fetched (%s); keeping the present one", error)
                token = self._token
            if token is None or token == self._token:
                wait_s = RENEW_AGAIN_S
                continue
            try:
                await link.ask({"type": "token", "token": token})
            except RequestRefused as refused:
                log.warning("%s; keeping the present token", refused)
                wait_s = RENEW_AGAIN_S
                continue
            self._token = token
            wait_s = self._renewal_s(token_expiry_ms(token))
        await asyncio.Event().wait()  # no token, or its expiry is unknown: the server will close with 4401

    def _renewal_s(self, expiry_ms: int | None) -> float | None:
        """Return the seconds until the next token must be fetched.

        Return None if it is not known when the present one expires.
        """
        if expiry_ms is None:
            return None
        left_s = (expiry_ms - self.holdings.server_ms(own_ms())) / 1000
        return max(0.0, left_s - RENEW_S, left_s * 0.8)


async def _set_or_due(event: asyncio.Event, due_ms: int | None) -> None:
    """Wait until `event` is set, or the client's own clock reaches `due_ms`.

    If `due_ms` is given, wait for a minute at most.
    """
    # Wait at most a minute: the loop's clock may stop while the machine sleeps, but `own_ms` does not.
    delay_s = None if due_ms is None else min(60.0, max(0.0, (due_ms - own_ms()) / 1000))
    # `wait_for` can't be used: in Python 3.11 it loses a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await event.wait()


def _tags(languages: Sequence[str] | None) -> list[str] | None:
    """Return the languages as a list.

    Raise ValueError if one of them is not a language tag, or if there are more than 8, because the server would then
    close every connection of this client.
    """
    if languages is None:
        return None
    if isinstance(languages, str) or len(languages) > MAX_LANGUAGES or not all(map(_TAG.fullmatch, languages)):
        raise ValueError(f'languages: at most {MAX_LANGUAGES} tags such as "en" or "de-AT" are needed')
    return list(languages)


# ---- members of a welcome: an invalid value counts as absent ----------------------------------------------------


def _window_ms(welcome: Message) -> tuple[object, object]:
    retry = welcome.get("retry")
    return (retry.get("min_ms"), retry.get("max_ms")) if isinstance(retry, Mapping) else (None, None)


def _time(said: object) -> int | None:
    """Return a time, written as in the protocol, in ms since 1970; None for any other value."""
    with contextlib.suppress(ValueError):
        return parse_time(said) if isinstance(said, str) else None
    return None


def _quals(welcome: Message) -> tuple[str, ...]:
    said = welcome.get("quals")
    return tuple(each for each in said if isinstance(each, str)) if isinstance(said, list) else ()


def _live(welcome: Message) -> int:
    live = welcome.get("live")
    return live if isinstance(live, int) and 0 < live < MAX_REVISION else 0


def _heartbeat_s(welcome: Message) -> float:
    said = welcome.get("heartbeat_s")
    return said if isinstance(said, int | float) and 0 < said <= MAX_HEARTBEAT_S else HEARTBEAT_S


def _expiry_ms(welcome: Message) -> int | None:
    return _time_ms(welcome.get("token_expires_at"))


def _time_ms(text: object) -> int | None:
    try:
        return parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None


def token_expiry_ms(token: str) -> int | None:
    """Return the expiry (`exp`) of a JWT in ms since 1970, or None if it can't be read.

    The token's signature is not verified, because the expiry is only used to decide when to fetch the next token.
    """
    try:
        claims = json.loads(decoded(token.split(".")[1]))
        return int(claims["exp"] * 1000)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
