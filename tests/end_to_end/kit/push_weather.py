"""Push services that fail at random and record the requests they receive."""

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
    """A phone that decrypts each message only once.

    It uses the client's own code, which is ten times faster than http-ece.
    """

    def read(self, body: bytes) -> Any:
        """Decrypt a message."""
        known: dict[bytes, Any] = self.__dict__.setdefault("_known", {})
        if body not in known:
            known[body] = super().read(body)
        return known[body]


class Service(PushService):
    """A push service that records every request; `weather` decides its answers."""

    phone_type = Reader

    def __init__(self, certificate: Any, weather: Weather) -> None:
        super().__init__(certificate, always=self._says)
        self.weather = weather
        self.log: dict[str, list[tuple[Request, bytes]]] = {}
        """For each phone: the requests and their bodies, which are decrypted later in another thread."""
        self._judged: dict[str, bool] = {}
        self._now_asked = Request(0, 0)
        self._now_body = b""

    async def _answer(self, request: Any) -> Any:
        body = self._now_body = await request.read()
        seen = self._now_asked = Request(time.time(), int(request.headers["TTL"]))
        self.log.setdefault(request.match_info["name"], []).append((seen, body))
        response = await super()._answer(request)  # calls `_says` before its first await
        seen.was_heard = request.transport is not None and not request.transport.is_closing()
        return response

    def _says(self, phone: Phone) -> Any:
        answer = self.weather.answer(self, phone, self._now_body)
        self._now_asked.answer = answer[0] if isinstance(answer, tuple) else answer
        return answer

    def knows(self, authorization: str) -> bool:
        """Check an authorization as the base class does, but only once for each token."""
        if authorization not in self._judged:
            self._judged[authorization] = super().knows(authorization)
        return self._judged[authorization]


@dataclass
class Weather:
    """The answers of push services. A phone gets at most BAD bad answers in a row, so that no phone waits long."""

    dice: random.Random
    bad: float = 0.08
    """The share of bad answers; 0 when the faults are over."""
    hangs: bool = True
    """Whether the bad answers include the lack of an answer, for which a client waits 10 s."""
    away: tuple[PushService | None, Any] = (None, None)
    """A service and the answer that it gives to every request, while this fault is in force."""
    in_a_row: Counter[str] = field(default_factory=Counter)
    small: set[str] = field(default_factory=set)
    """Phones whose service refuses large bodies."""
    gone: set[str] = field(default_factory=set)
    """Phones whose subscription has ended."""

    BAD = 2
    ANSWERS = ((429, {"Retry-After": "1"}), 429, 500, 503, RESET, RESET, HANG)

    def answer(self, service: PushService, phone: Phone, body: bytes) -> Any:
        """Return a service's answer to a push."""
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
