"""Fakes for clocks, connections and tokens. Each docstring says how the fake differs from the real thing.

FakeClock    a clock that only tests move
FakePeer     a subscriber's connection that records what is written
FakeRights   the rights of a token, without a token
"""

import json
import selectors
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
from support.schemas import check_server_message

from geocast.auth.tokens import Subject
from geocast.clock import Now
from geocast.model.alert import AcceptedTerms, Alert, AlertText, Approval, Cancel, Circle, Revision
from geocast.model.close_codes import Close
from geocast.model.times import format_time, parse_time

NOON_MS = parse_time("2026-01-31T12:00:00Z")  # when a FakeClock starts
HOUR_MS = 3_600_000
DALLAS = (32.7767, -96.797)


class FakeClock:
    """A clock that stands still, so that the time is part of a test's input.

    Difference: all readings are equal. Two readings of a real clock in one slice may differ.
    """

    def __init__(self, wall_ms: int = NOON_MS, monotonic: float = 1000.0) -> None:
        self.wall_ms = wall_ms
        self.monotonic = monotonic

    def now(self) -> Now:
        """Return the time of both clocks."""
        return Now(self.wall_ms, self.monotonic)

    def advance(self, seconds: float) -> Now:
        """Advance both clocks. To set only one of them, assign to its attribute."""
        self.wall_ms += round(seconds * 1000)
        self.monotonic += seconds
        return self.now()


class JumpingSelector(selectors.SelectSelector):
    """The selector of an event loop without sockets, which advances a clock instead of waiting."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock, self._began = clock, clock.now()

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let this time pass, or a microsecond: otherwise a timer that is due in less could be set again for ever."""
        assert timeout is not None, "nothing would ever happen again"
        self._clock.monotonic += max(timeout, 1e-6)
        passed_s = self._clock.monotonic - self._began.monotonic
        self._clock.wall_ms = self._began.wall_ms + round(passed_s * 1000)
        return []


class FakePeer:
    """A subscriber's connection that records the writes and how the session ends.

    Differences: bytes arrive at once and complete. `close` and `abort` only record the call, while a real connection
    then calls the hub's `leave`. A `full` connection calls `on_slow` from inside `write`, as a transport does, but
    accepts any number of bytes.
    """

    def __init__(self, on_slow: Callable[[], None] = lambda: None) -> None:
        self.writes: list[bytes] = []
        self.closed: Close | None = None
        self.aborted = False
        self.full = False  # whether the transport's buffer is full
        self.broken = False  # whether the transport has failed without reporting it yet
        self._on_slow = on_slow
        self._taken = 0

    descriptor = -1

    def write(self, data: bytes) -> None:
        """Keep `data`."""
        if self.broken:
            raise RuntimeError("the transport is closed")
        self.writes.append(data)
        if self.full:
            self._on_slow()

    def close(self, close: Close) -> None:
        """Record the reason of the first call only."""
        self.closed = self.closed or close

    def abort(self) -> None:
        """Record the call."""
        self.aborted = True

    def take(self) -> list[dict[str, Any]]:
        """Return the messages written since the last call. A WebSocket ping appears as `{"type": "<ping>"}`."""
        new, self._taken = self.writes[self._taken :], len(self.writes)
        return [message for data in new for message in messages(data)]


@dataclass
class FakeRights:
    """The rights that a token grants. Difference: no token was verified."""

    may_test: bool = False
    deadline: float = float("inf")
    sub: str | None = None
    quals: frozenset[str] = frozenset()
    issuer: str = ""

    @property
    def subject(self) -> Subject | None:
        """The subject of the token."""
        return None if self.sub is None else Subject(self.issuer, self.sub)


def messages(data: bytes) -> list[dict[str, Any]]:
    """Return the messages in complete, unmasked frames of either format (RFC 6455, 5.2)."""
    found = []
    while data:
        assert data[0] & 0x70 == 0, "reserved bits"
        assert data[1] & 0x80 == 0, "masked"
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        payload, opcode = data[start : start + size], data[0]
        assert len(payload) == size, "cut off"
        message = {0x81: json.loads, 0x82: msgpack.unpackb, 0x89: lambda _: {"type": "<ping>"}}[opcode](payload)
        if message["type"] in (
            "alert",
            "cancel",
            "call",
            "task",
            "standdown",
        ):  # tests may use other types as placeholders
            check_server_message(message)
        found.append(message)
        data = data[start + size :]
    return found


def alert_request(**changes: Any) -> dict[str, Any]:
    """Return a body of `POST /v1/alerts` that is accepted at noon, with changed fields.

    A value of `...` removes a field.
    """
    body = {
        "id": "a-1",
        "category": "robbery",
        "headline": "Robbery at a shop",
        "description": "Two people on foot.\nAvoid the area.",
        "severity": "severe",
        "status": "actual",
        "threat": "community",
        "occurred_at": format_time(NOON_MS - 600_000),
        "expires_at": format_time(NOON_MS + 1_800_000),
        "area": {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800},
        "approval": {"reviewer": "desk-7", "approved_at": format_time(NOON_MS - 60_000)},
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def call_request(**changes: Any) -> dict[str, Any]:
    """Return a body of `POST /v1/calls` that is accepted at noon, with changed fields.

    A value of `...` removes a field.
    """
    body = {
        "id": "cad-3.8f1c02aa",
        "category": "cardiac_arrest",
        "headline": "Adult, not breathing. Bystander does compressions.",
        "status": "actual",
        "occurred_at": format_time(NOON_MS - 60_000),
        "expires_at": format_time(NOON_MS + 1_500_000),
        "place": {
            "lat": 47.6780089,
            "lng": 8.8311129,
            "kind": "residence",
            "address": "Dorfstrasse 4, Ossingen",
            "access": "Door code 4711.\n3rd floor, left.",
        },
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def a_revision(
    alert_id: str = "a-1",
    revision: int = 1,
    *,
    area: tuple[Circle, ...] = (Circle(*DALLAS, 1000.0),),
    source: str = "desk",
    issued_at: int = NOON_MS,
    terms: AcceptedTerms = AcceptedTerms("Robbery", HOUR_MS, 9),  # noqa: B008 (frozen)
    **changes: Any,
) -> Revision:
    """Return an accepted revision that lives for half an hour from noon, with changed fields of its alert."""
    fields = {
        "id": alert_id,
        "category": "robbery",
        "headline": f"Robbery, revision {revision}",
        "description": None,
        "severity": "severe",
        "status": "actual",
        "occurred_at": NOON_MS - 600_000,
        "expires_at": NOON_MS + 1_800_000,
        "area": area,
        "approval": Approval("desk-7", NOON_MS - 60_000),
    }
    return Revision(Alert(**(fields | changes)), revision, source, issued_at, terms)


def a_warning(*languages: str, alert_id: str = "a-1", revision: int = 1, **changes: Any) -> Revision:
    """Return an official warning in these languages, as a revision like those of `a_revision`.

    The default languages are English and French.
    """
    texts = tuple(a_text(language, f"revision {revision}") for language in languages or ("en-CA", "fr-CA"))
    first = {"headline": texts[0].headline, "description": texts[0].description, "texts": texts}
    more = {"urgency": "expected", "certainty": "likely", "onset_at": NOON_MS + 600_000, "web": "https://w.example/1"}
    terms = AcceptedTerms(texts[0].title, HOUR_MS, 9)
    return a_revision(alert_id, revision, **({"terms": terms} | first | more | changes))


def a_text(language: str, words: str = "") -> AlertText:
    """Return a text in which every member names the language."""
    members = {
        name: f"{name} in {language} {words}".strip()
        for name in ("title", "headline", "description", "instruction", "area_desc")
    }
    return AlertText(language, **members)


def a_cancel(alert_id: str = "a-1", revision: int = 2, **changes: Any) -> Cancel:
    """Return an accepted cancel of an alert from `a_revision`, with changed fields."""
    fields = {
        "reason": "over",
        "approval": Approval("desk-7", NOON_MS),
        "source": "desk",
        "cancelled_at": NOON_MS,
        "ends_at": NOON_MS + 1_800_000,
    }
    return Cancel(alert_id, revision, **(fields | changes))
