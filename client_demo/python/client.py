"""A subscriber that stays connected: the asyncio shell round `holdings` and `reconnect`.

    client = Client("ws://127.0.0.1:8765/v1/stream", [Place.at(32.7767, -96.797)], on_change=show)
    await client.run()  # until client.stop(), or until the server says that coming back makes no sense

Rule 1  The places, the filter and what is held outlive the connection; each `hello` says them anew.
Rule 2  What happens is reported in order, by calls of `on_change`, never two at once. When the call returns, the alert
        counts as shown and is acknowledged, unless it returned False.
Rule 3  A token that was refused is not sent again.
"""

import asyncio
import base64
import contextlib
import inspect
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from websockets.typing import Subprotocol

from .geo import Place
from .holdings import SHOWN, Change, Holdings
from .link import PONG_S, ClientError, Link, RequestRefused, first_to_end
from .publisher import retry_after_s
from .reconnect import NO_CLOSE_FRAME, After, Backoff, after_close, after_refusal, meaning
from .times import own_ms, parse_time
from .wire import WIRES, Message, WireName, is_loopback

__all__ = ["Client", "ClientError", "RequestRefused"]

log = logging.getLogger("client_demo")

HANDSHAKE_S = 10.0
HEARTBEAT_S = 25.0  # if a welcome gave none that makes sense
MAX_HEARTBEAT_S = 3600.0  # a connection that is looked after less often may have been dead for long
RENEW_S = 60.0  # a token is renewed this long before it expires, or at four fifths of its time if that is later
RENEW_AGAIN_S = 5.0  # when no fresh one could be had

OnChange = Callable[[Change], object]
TokenSource = Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: what to do next, and why, in words."""

    after: After
    why: str
    retry_after_s: float = 0.0


class Client:
    """One subscriber, over as many connections as it takes.

    `token` is called before each connection, before the token expires and after the server refused one; it may be
    a coroutine function. `on_status` gets a line of text whenever the connection comes or goes.
    """

    def __init__(
        self,
        url: str,
        places: Sequence[Place] = (),
        *,
        token: TokenSource | None = None,
        wire: WireName = "json",
        categories: Sequence[str] | None = None,
        min_severity: str | None = None,
        on_change: OnChange = log.debug,
        on_status: Callable[[str], object] = log.info,
        draw: Callable[[], float] = random.random,
        pong_s: float = PONG_S,
    ) -> None:
        self.holdings = Holdings(places)
        self._url, self._wire, self._token_source = url, WIRES[wire], token
        self._filter: dict[str, Any] = {"categories": categories, "min_severity": min_severity}
        self._on_change, self._on_status = on_change, on_status
        self._backoff, self._pong_s = Backoff(draw), pong_s
        self._stopping, self._held_changed = asyncio.Event(), asyncio.Event()
        self._welcomed = False
        self._asks_the_time = False
        self._behind = 0  # how many messages the `welcome` has announced that are still to come
        self._is_caught_up = asyncio.Event()
        self._token: str | None = None
        self._refused_token: str | None = None
        self._link: Link | None = None

    # ---- for the caller ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until `stop`. Raises ClientError when coming back makes no sense."""
        await first_to_end(self._stay_connected(), self._expire(), self._stopping.wait())

    async def fetch(self) -> None:
        """One short connection: take what there is, acknowledge it, close. Raises ClientError.

        For an app in the background that a push has woken (protocol, "A client's duties").
        """
        await first_to_end(self.run(), self._caught_up_and_acknowledged())

    async def _caught_up_and_acknowledged(self) -> None:
        await self.caught_up()
        if self._link is not None:
            await self._link.said_all()

    async def caught_up(self) -> None:
        """Wait until everything that the last `welcome` announced has come."""
        await self._is_caught_up.wait()

    def stop(self) -> None:
        """End the run; the connection is closed with 1000."""
        self._stopping.set()

    def interrupt(self) -> None:
        """Lose the connection, as in a tunnel: nothing is said to the server. The run goes on and comes back."""
        if self._link is not None:
            self._link.abort()

    async def move(self, places: Sequence[Place]) -> None:
        """Be somewhere else: at once for what is held; on return the server knows, or the next `hello` says it."""
        self._report(self.holdings.expire(own_ms()) + self.holdings.move(places))
        await self._ask({"type": "move", "places": [place.to_map() for place in places]})

    async def filter(self, **fields: Any) -> None:
        """Change `categories` and/or `min_severity`: None clears, what is left out stays."""
        self._filter |= fields
        await self._ask({"type": "filter", **fields})

    def ack(self, alert_id: str, revision: int) -> None:
        """Say that the person has been shown this revision (for an `on_change` that returned False)."""
        if self._link is not None:
            self._link.say_later({"type": "ack", "id": alert_id, "revision": revision})

    # ---- one connection after the other --------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        while True:
            ending = await self._attempt()
            if ending.after is After.NEVER or (ending.after is After.NEW_TOKEN and self._token_source is None):
                raise ClientError(ending.why)
            delay_s = self._backoff.delay_s(ending.after, ending.retry_after_s)
            self._on_status(f"{ending.why}; back {f'in {delay_s:.1f} s' if delay_s else 'at once'}")
            await asyncio.sleep(delay_s)

    async def _attempt(self) -> Ending:
        """Connect and stay until the connection ends; how it ended."""
        try:
            self._token = await self._fresh_token()
        except ClientError:
            raise
        except Exception as error:
            return Ending(After.WINDOW, f"no token could be had ({error})")
        try:
            return await self._session()
        except InvalidStatus as refusal:
            return self._refused(refusal)
        except InvalidURI as error:
            return Ending(After.NEVER, str(error))
        except NegotiationError as error:
            return Ending(After.NEVER, f"{self._url}: {error}")
        except (OSError, TimeoutError, InvalidHandshake) as error:
            return Ending(After.WINDOW, f"no connection to {self._url} ({error or type(error).__name__})")

    async def _session(self) -> Ending:
        socket = await connect(
            self._url,
            subprotocols=[Subprotocol(self._wire.subprotocol)],
            compression=None,
            ping_interval=None,  # the link looks after that, at the server's own interval
            open_timeout=HANDSHAKE_S,
            close_timeout=2.0,
            proxy=None if is_loopback(self._url) else True,
        )
        try:
            return await self._talk(socket)
        finally:
            await socket.close()  # with 1000, also when we are stopped; after the other's close it does nothing

    async def _talk(self, socket: ClientConnection) -> Ending:
        if socket.subprotocol is None:
            return Ending(After.NEVER, f"{self._url} does not speak {self._wire.subprotocol}")
        self._link = link = Link(socket, self._wire, self._take, self._pong_s)
        try:
            await self._converse(link)
        except ConnectionClosed as closed:
            return self._closed(closed)
        except TimeoutError:
            link.abort()  # there is nobody to shake hands with
            return Ending(After.WINDOW, "the server went silent")
        finally:
            self._link = None
            link.let_go()
        raise AssertionError("a conversation ends by an exception")

    async def _converse(self, link: Link) -> None:
        welcome = await link.greet(self._hello())
        self._welcomed = True
        self._backoff.welcomed(*_window_ms(welcome))
        self._set_clock(welcome)
        live = _live(welcome)
        self._on_status(f"connected, {live} to catch up on")
        self._expect(live)
        await first_to_end(link.talk(_heartbeat_s(welcome)), self._renew_token(link, _expiry_ms(welcome)))

    def _hello(self) -> Message:
        holding, dropped = self.holdings.holding(own_ms())
        self._report(dropped)
        hello: Message = {"type": "hello", "places": [place.to_map() for place in self.holdings.places]}
        optional = {"token": self._token, "holding": holding or None, **self._filter}
        return hello | {key: value for key, value in optional.items() if value is not None}

    def _refused(self, refusal: InvalidStatus) -> Ending:
        answer = refusal.response
        after = after_refusal(answer.status_code, self._welcomed)
        why = f"{self._url} answered {answer.status_code} {answer.reason_phrase}"
        return Ending(after, why, retry_after_s(answer.headers.get("Retry-After")))

    def _closed(self, closed: ConnectionClosed) -> Ending:
        code = closed.rcvd.code if closed.rcvd is not None else NO_CLOSE_FRAME
        after = after_close(code)
        if after is After.NEW_TOKEN:
            self._refused_token = self._token
        return Ending(after, f"{meaning(code)} ({code})")

    # ---- what comes in -------------------------------------------------------------------------------------

    def _expect(self, behind: int) -> None:
        self._behind = behind
        if behind > 0:
            self._is_caught_up.clear()
        else:
            self._is_caught_up.set()

    def _take(self, message: Message) -> None:
        self._handle(message)
        if self._behind and message["type"] in ("alert", "cancel"):
            self._expect(self._behind - 1)

    def _handle(self, message: Message) -> None:
        match message["type"]:
            case "alert":
                kept = self.holdings.kept
                self._report(self._changes(self.holdings.take_alert, message.get("alert"), own_ms()))
                if self.holdings.kept > kept:
                    self._ask_the_time()
            case "cancel":
                self._report(self._changes(self.holdings.take_cancel, message))
            case "pong":
                self._set_clock(message)
            case "error":
                log.warning("the server refuses something: %s", message.get("detail"))
            case unknown:
                log.debug("ignoring a message of type %s", unknown)

    @staticmethod
    def _changes(take: Callable[..., list[Change]], *arguments: object) -> list[Change]:
        try:
            return take(*arguments)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("ignoring a message that lacks something: %r", error)
            return []

    def _set_clock(self, message: Mapping[str, Any]) -> None:
        self._asks_the_time = False
        now = _time_ms(message.get("now"))
        if now is None:
            log.warning("ignoring a clock that can't be read, in a message of type %s", message["type"])
            return
        self.holdings.set_clock(now, own_ms())
        self._report(self.holdings.expire(own_ms()))

    def _ask_the_time(self) -> None:
        """What has come is over by the server's clock: is that still what the clock says?"""
        if self._link is not None and not self._asks_the_time:
            self._asks_the_time = True
            self._link.say({"type": "ping"})

    def _report(self, changes: Iterable[Change]) -> None:
        self._held_changed.set()
        for change in changes:
            if self._on_change(change) is not False and change.kind in SHOWN:
                self.ack(change.alert["id"], change.alert["revision"])

    async def _expire(self) -> None:
        """Drop what ends when it ends, connected or not."""
        while True:
            self._held_changed.clear()
            expiry = self.holdings.next_expiry()
            # A minute at most: the loop's clock may stop while the machine sleeps, `own_ms` does not.
            delay_s = None if expiry is None else min(60.0, max(0.0, (expiry - own_ms()) / 1000))
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._held_changed.wait()
            if changes := self.holdings.expire(own_ms()):
                self._report(changes)

    # ---- what goes out -------------------------------------------------------------------------------------

    async def _ask(self, message: Message) -> None:
        if self._link is not None:  # else the next `hello` says it: Rule 1
            await self._link.ask(message)

    async def _fresh_token(self) -> str | None:
        """Ask the caller for a token. Raises ClientError for one that has been refused: Rule 3."""
        if self._token_source is None:
            return None
        answer = self._token_source()
        token = await answer if inspect.isawaitable(answer) else answer
        if token == self._refused_token:
            raise ClientError(f"{meaning(4401)}, and there is no other one")
        return token

    async def _renew_token(self, link: Link, expiry_ms: int | None) -> None:
        """Send a fresh token before the present one expires, again and again."""
        wait_s = self._renewal_s(expiry_ms)
        while wait_s is not None and self._token_source is not None:
            await asyncio.sleep(wait_s)
            try:
                token = await self._fresh_token()
            except Exception as error:
                log.warning("no fresh token: %s", error)
                token = self._token
            if token is None or token == self._token:
                wait_s = RENEW_AGAIN_S
                continue
            self._token = token
            await link.ask({"type": "token", "token": token})
            wait_s = self._renewal_s(token_expiry_ms(token))
        await asyncio.Event().wait()  # nothing to renew, or nothing known of when: the server will say 4401

    def _renewal_s(self, expiry_ms: int | None) -> float | None:
        """How long to wait before asking for the next token, in seconds."""
        if expiry_ms is None:
            return None
        left_s = (expiry_ms - self.holdings.server_ms(own_ms())) / 1000
        return max(0.0, left_s - RENEW_S, left_s * 0.8)


# ---- what a welcome says: what makes no sense in it counts as not said ------------------------------------------


def _window_ms(welcome: Message) -> tuple[object, object]:
    retry = welcome.get("retry")
    return (retry.get("min_ms"), retry.get("max_ms")) if isinstance(retry, Mapping) else (None, None)


def _live(welcome: Message) -> int:
    live = welcome.get("live")
    return live if isinstance(live, int) and live > 0 else 0


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
    """The `exp` of a JWT in ms since 1970, unverified, just to know when to fetch the next one. None if unreadable."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return int(claims["exp"] * 1000)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
