"""Push services in bad weather, which remember what they were sent."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from end_to_end.kit.push_history import Request
from support.push_service import HANG, RESET, PushService

from client_demo.push_service import Phone


class Reader(Phone):
    """A phone that reads no message twice, though it is asked for it again.

    It reads by the client's own code, which is ten times as fast as http-ece.
    """

    def read(self, body: bytes) -> Any:
        """Decrypt a message."""
        known: dict[bytes, Any] = self.__dict__.setdefault("_known", {})
        if body not in known:
            known[body] = super().read(body)
        return known[body]


class Service(PushService):
    """One that remembers what it was sent, whatever it said to it; `weather` says what that is."""

    phone_type = Reader

    def __init__(self, certificate: Any, weather: Weather) -> None:
        super().__init__(certificate, always=self._says)
        self.weather = weather
        self.log: dict[str, list[tuple[Request, bytes]]] = {}
        """By phone: what came, and its body. Its message is read later, in another thread."""
        self._judged: dict[str, bool] = {}
        self._now_asked = Request(0, 0)
        self._now_body = b""

    async def _answer(self, request: Any) -> Any:
        body = self._now_body = await request.read()
        seen = self._now_asked = Request(time.time(), int(request.headers["TTL"]))
        self.log.setdefault(request.match_info["name"], []).append((seen, body))
        response = await super()._answer(request)  # which asks `_says` before it waits for anything
        seen.was_heard = request.transport is not None and not request.transport.is_closing()
        return response

    def _says(self, phone: Phone) -> Any:
        answer = self.weather.answer(self, phone, self._now_body)
        self._now_asked.answer = answer[0] if isinstance(answer, tuple) else answer
        return answer

    def knows(self, authorization: str) -> bool:
        """As the other; but a token, which is good for an hour, is looked at once."""
        if authorization not in self._judged:
            self._judged[authorization] = super().knows(authorization)
        return self._judged[authorization]


@dataclass
class Weather:
    """What push services answer. A phone has at most BAD answers in a row, so that nobody waits for long."""

    dice: random.Random
    bad: float = 0.08
    """How many of a hundred answers are bad, by 100; 0 when it is fine again."""
    hangs: bool = True
    """Whether no answer is one of those. Who gets none waits for 10 s."""
    away: tuple[PushService | None, Any] = (None, None)
    """A service that says this to everybody."""
    in_a_row: Counter[str] = field(default_factory=Counter)
    small: set[str] = field(default_factory=set)
    """Phones whose service takes no large bodies."""
    gone: set[str] = field(default_factory=set)
    """Phones that have no subscription any more."""

    BAD = 2
    ANSWERS = ((429, {"Retry-After": "1"}), 429, 500, 503, RESET, RESET, HANG)

    def answer(self, service: PushService, phone: Phone, body: bytes) -> Any:
        """What a service says to a push."""
        if phone.name in self.gone:
            return 410
        if phone.name in self.small and len(body) > 1_024:
            return 413
        if self.away[0] is service:
            return self.away[1]
        if self.in_a_row[phone.name] < self.BAD and self.dice.random() < self.bad:
            self.in_a_row[phone.name] += 1
            return self.dice.choice(self.ANSWERS if self.hangs else self.ANSWERS[:-1])
        self.in_a_row[phone.name] = 0
        return 201
