"""The command `geocast listen`: a subscriber that prints alerts as lines, and reconnects (protocol, section 5)."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from ..model.close_codes import ALL, Reconnect
from ..model.errors import ConfigError
from ..stream.held_alerts import AlertChange, HeldAlerts, Place, place_in_cell

FIRST_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # while there never was a connection
MAX_WINDOW_S = 120.0
HOPELESS_STATUS = (400, 403, 404, 405, 426)  # the URL is wrong, if it never was right
WELCOME_S = 10.0
MAX_MESSAGE_BYTES = 256 * 1024
# Control characters, and characters that reverse the direction of the text: a terminal would obey them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RECONNECT = {close.code: close.reconnect for close in ALL}
_ODD = (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError)

_JSON = Subprotocol("geocast.v1.json")

Say = Callable[[str], object]


def line(change: AlertChange) -> str:
    """Return a change as one line of plain text (C6, C7, C9)."""
    alert = change.alert
    status = "" if alert.get("status", "actual") == "actual" else f"[{str(alert['status']).upper()}] "
    text = f"{status}{str(alert.get('severity')).upper()} {alert.get('title') or alert.get('category')}: "
    text += str(alert.get("headline"))
    text += f" ({change.reason})" if change.reason else ""
    text += f" {alert['instruction']}" if change.is_shown and alert.get("instruction") else ""
    text += f" See {alert['web']}" if change.is_shown and alert.get("web") else ""
    left = f"{change.left_ms // 60_000} min {change.left_ms // 1000 % 60:02} s left; " if change.is_shown else ""
    return _UNSEEN.sub("�", f"{change.what:14} {text}  [{left}{alert['id']}, revision {alert['revision']}]")


class Listener:
    """A subscriber: its alerts, and the connections that it makes one after the other."""

    def __init__(self, url: str, hello: dict[str, Any], token: Callable[[], str | None]) -> None:
        """Create a listener. `hello` has the places and the filter. Raise ConfigError if one of the cells is none."""
        self._url, self._hello, self._token = url, hello, token
        self._held = HeldAlerts([_place(each) for each in hello["places"]])
        self._window_s: tuple[float, float] | None = None  # of the last `welcome`
        self._failures = 0  # since the last `welcome`
        self._changed = asyncio.Event()
        self._last: Reconnect | None = None

    async def run(self, show: Say, note: Say) -> None:
        """Listen until cancelled. Raise ConfigError if another attempt would be in vain.

        `show` is called with each line about an alert, and `note` with each about the connection.
        """
        tasks = [asyncio.create_task(work) for work in (self._stay_connected(show, note), self._expire(show))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        done.pop().result()

    async def _stay_connected(self, show: Say, note: Say) -> None:
        while True:
            token = self._token()
            after, why = await self._connection(token, show, note)
            if after is Reconnect.NEVER:
                raise ConfigError(f"{self._url}: {why}")
            if after is Reconnect.NEW_TOKEN and self._token() == token:
                raise ConfigError(f"{self._url}: {why}; `geocast token --check` says what a token lacks")
            wait_s = self._wait_s(after)
            self._last = after
            note(f"{_UNSEEN.sub('�', why)}; trying again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    def _wait_s(self, after: Reconnect) -> float:
        self._failures += 1
        if after in (Reconnect.AT_ONCE, Reconnect.NEW_TOKEN) and self._last is not after:
            return 0.0
        if self._window_s is None:
            return FIRST_WAITS_S[min(self._failures, len(FIRST_WAITS_S)) - 1]
        low, high = self._window_s
        high = max(high, min(MAX_WINDOW_S, high * 2.0 ** min(self._failures - 1, 20)))
        if after in (Reconnect.LATER, Reconnect.AT_ONCE):
            low, high = high, 2 * high
        return random.uniform(low, high)  # noqa: S311 (only spreads clients)

    async def _connection(self, token: str | None, show: Say, note: Say) -> tuple[Reconnect, str]:
        """Connect, and listen until the connection ends. Return what to do next, and why it has ended."""
        try:
            async with connect(self._url, subprotocols=[_JSON], compression=None, max_size=MAX_MESSAGE_BYTES) as socket:
                await self._talk(socket, token, show, note)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            why = closed.rcvd.reason if closed.rcvd is not None else "the connection was lost"
            return _RECONNECT.get(code, Reconnect.WINDOW), f"{why} ({code})"
        except InvalidStatus as refused:
            status = refused.response.status_code
            never = status in HOPELESS_STATUS and self._window_s is None
            after = Reconnect.LATER if status in (429, 503) else Reconnect.WINDOW
            return Reconnect.NEVER if never else after, f"the handshake was answered {status}"
        except InvalidURI:
            return Reconnect.NEVER, "expected ws://HOST:PORT/v1/stream, or wss://…"
        except TimeoutError:
            return Reconnect.WINDOW, "no answer in time"
        except (OSError, InvalidHandshake) as error:
            return Reconnect.WINDOW, getattr(error, "strerror", None) or "no WebSocket answers there"
        return Reconnect.WINDOW, "the connection was closed"

    async def _talk(self, socket: ClientConnection, token: str | None, show: Say, note: Say) -> None:
        hello = {"type": "hello", **self._hello, "holding": self._held.holding()}
        await socket.send(json.dumps(hello | ({"token": token} if token is not None else {})))
        async with asyncio.timeout(WELCOME_S):
            message = _read(await socket.recv())
        while True:
            changes: Iterable[AlertChange] = ()
            with contextlib.suppress(*_ODD):  # no message ends the client (C8)
                match message.get("type"):
                    case "welcome":
                        self._failures = 0
                        self._last = None if self._last is Reconnect.NEW_TOKEN else self._last
                        self._window_s = _window(message.get("retry")) or self._window_s or (1.0, 30.0)
                        note("connected")
                        changes = self._held.set_clock(message["now"], _own_ms())
                    case "pong":
                        changes = self._held.set_clock(message["now"], _own_ms())
                    case "alert" | "cancel":
                        unseen = self._held.unseen
                        changes = self._held.take(message, _own_ms())
                        if self._held.unseen > unseen:  # it had ended when it came: ask what time it is (C2a)
                            await socket.send('{"type":"ping"}')
            self._changed.set()
            for change in changes:
                show(line(change))
                if change.is_shown:
                    ack = {"type": "ack", "id": change.alert["id"], "revision": change.alert["revision"]}
                    await socket.send(json.dumps(ack))
            message = _read(await socket.recv())

    async def _expire(self, show: Say) -> None:
        """Say when an alert has ended, whether there is a connection or not (C2)."""
        while True:
            self._changed.clear()
            wait_ms = self._held.next_ms(_own_ms())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait_ms is None else wait_ms / 1000 + 0.001):
                    await self._changed.wait()
            for change in self._held.look(_own_ms()):
                show(line(change))


def _place(said: dict[str, Any]) -> Place:
    if "cell" not in said:
        return said["lat"], said["lng"], said["accuracy_m"]
    if (place := place_in_cell(said["cell"])) is None:
        raise ConfigError("--cell: expected an H3 cell of resolution 7 to 15")
    return place


def _read(frame: str | bytes) -> dict[str, Any]:
    """Return the message in a frame; an empty dict if there is none."""
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(frame)
        return message if isinstance(message, dict) else {}
    return {}


def _window(retry: Any) -> tuple[float, float] | None:
    """Return the window of a `welcome` in seconds (W5); None if it is not a valid one."""
    with contextlib.suppress(*_ODD):
        low, high = retry["min_ms"], retry["max_ms"]
        if type(low) is type(high) is int and 0 <= low <= high and 100 <= high <= 3_600_000:
            return low / 1000, high / 1000
    return None


def _own_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000  # it goes on while the machine sleeps
