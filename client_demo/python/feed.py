"""The public feed as a source of alerts (docs/guide/feed.md, PF6): the device asks, and decides for itself.

`PublicFeed` asks for the document again and again. `Listing` is one document, and decides what concerns the person; it
does no I/O.

Rule 1  A request is the same for everybody: it has no place, token or cookie.
Rule 2  An alert that is missing from the document is not over, because the node may be behind. Only a tombstone
        cancels.
Rule 3  The messages are those that a server would send to a session with the same places, filter and `holding`, in the
        same order (protocol, R1, R3, R4, R5, R7, M17).
Rule 4  A shape of an unknown type contains nobody, because nobody has decided before (protocol, G4).
Rule 5  An answer says the time in whole seconds. So the client's clock is corrected only if it is wrong by more.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import httpx

from .api import retry_after_s
from .geo import Place, judge_of
from .holdings import ODD, Alert, Holdings, check_area, listed
from .reconnect import After, Backoff
from .times import ms_of, own_ms, parse_time
from .wire import Message, is_loopback

log = logging.getLogger("client_demo")

BEHIND_S = 6.0  # a body is made at most once a second, and caches may keep it for 5 s (PF2)
DATE_MS = 2000  # how far the true time may be ahead of `Date` and `Age`, each of which is in whole seconds
ANSWER_S = 20.0
LEAST_S, MOST_S = 0.1, 600.0  # limits of the pause between two requests
MAX_BYTES = 64 * 1024 * 1024
SEVERITIES = ("extreme", "severe", "moderate", "minor")
UNREADABLE = (*ODD, RecursionError)  # errors of a document that is no FeatureCollection
WORDS = ("language", "title", "headline", "description", "instruction", "area_desc")


@dataclass(frozen=True, slots=True)
class _Listed:
    alert: Alert
    texts: Sequence[Mapping[str, Any]]
    reaches: Callable[[Sequence[Place]], bool]


class Listing:
    """One document of the feed: all live alerts, and the tombstones of those that were cancelled."""

    def __init__(self, document: Mapping[str, Any], before: "Listing | None" = None) -> None:
        """Read a document. Raise TypeError or KeyError if it is not a FeatureCollection.

        `listed` has the alerts, by id. Alerts that can't be used are left out; `faults` is their number. `before` is an
        earlier document, from which unchanged revisions are taken.
        """
        if not isinstance(document, Mapping):
            raise TypeError("not a FeatureCollection")
        self._cancels = [each for each in document.get("cancelled", ()) if isinstance(each, Mapping)]
        self.listed: dict[str, _Listed] = {}
        self.faults = 0
        for feature in document["features"]:
            try:
                found = self._read(feature["properties"], before)
            except ODD:
                self.faults += 1
                continue
            self.listed[found.alert["id"]] = found

    @staticmethod
    def _read(properties: Mapping[str, Any], before: "Listing | None") -> _Listed:
        key, revision = listed(properties)
        known = None if before is None else before.listed.get(key)
        if known is not None and known.alert["revision"] == revision:
            return known
        parse_time(properties["expires_at"])
        check_area(properties["area"])
        texts = [each for each in properties.get("texts", ()) if isinstance(each, Mapping)]
        alert = {name: value for name, value in properties.items() if name != "texts"}
        return _Listed(alert, texts, judge_of(alert["area"]))

    def messages(self, holdings: Holdings, filter_: Mapping[str, Any]) -> Iterator[Message]:
        """Yield the messages that a server would send now (Rule 3).

        `filter_` has `categories`, `min_severity` and `languages`; any of them may be None.
        """
        for cancel in self._cancels:
            if holdings.get(str(cancel.get("id"))) is not None:
                yield {**cancel, "type": "cancel"}
        lacking = [each for each in self.listed.values() if self._is_lacking(each, holdings, filter_)]
        for each in sorted(lacking, key=lambda each: _rank(each.alert)):
            yield {"type": "alert", "alert": _in_language(each, filter_.get("languages") or ())}

    @staticmethod
    def _is_lacking(listed: _Listed, holdings: Holdings, filter_: Mapping[str, Any]) -> bool:
        held = holdings.get(listed.alert["id"])
        if held is not None:
            return bool(listed.alert["revision"] > held["revision"])
        return _passes(listed.alert, filter_) and listed.reaches(holdings.places)


def _rank(alert: Alert) -> int:
    """Return the severity as a number; 0 is the most severe. An unknown severity counts as the least severe."""
    severity = alert.get("severity")
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _passes(alert: Alert, filter_: Mapping[str, Any]) -> bool:
    if alert.get("severity") == "extreme":  # no filter suppresses it (R7)
        return True
    categories, least = filter_.get("categories"), filter_.get("min_severity")
    is_severe = least is None or _rank(alert) <= _rank({"severity": least})
    return is_severe and (categories is None or alert.get("category") in categories)


def _in_language(listed: _Listed, wanted: Sequence[str]) -> Alert:
    """Return the alert with its texts in the language that a server would choose (docs/guide/languages.md, LA3)."""
    for tag in wanted:
        if (text := _text(listed.texts, tag.lower())) is not None:
            return {**{name: value for name, value in listed.alert.items() if name not in WORDS}, **text}
    return listed.alert


def _text(texts: Sequence[Mapping[str, Any]], tag: str) -> Mapping[str, Any] | None:
    offered = [str(text.get("language")).lower() for text in texts]
    first = tag.partition("-")[0]
    for fits in (tag.__eq__, lambda other: other.startswith(f"{tag}-"), lambda other: other.partition("-")[0] == first):
        for text, language in zip(texts, offered, strict=True):
            if fits(language):
                return text
    return None


class PublicFeed:
    """Asks for the feed's document, and keeps the last one in `listing`.

    `heard` is called after each request that has succeeded, with the least and the greatest possible difference between
    the server's clock and the client's own clock, in ms; both are None if the server has not said the time. `on_status`
    is called with a line of text. `draw` returns random floats in [0, 1). Raise ValueError if `url` or `every_s` can't
    be used.
    """

    def __init__(
        self,
        url: str,
        every_s: float,
        draw: Callable[[], float],
        heard: Callable[[int | None, int | None], object],
        on_status: Callable[[str], object],
    ) -> None:
        if not re.fullmatch(r"https?://[^/?#\s]+/[^?#\s]*", url):
            raise ValueError("feed: the URL of the feed's alerts.geojson is needed, without a query")
        if not LEAST_S <= every_s <= MOST_S:
            raise ValueError(f"feed_every_s: {LEAST_S:g} to {MOST_S:g} seconds are possible")
        self.listing = Listing({"features": []})
        self.late_s = every_s + BEHIND_S  # how late an alert may be, as long as the requests succeed
        self._url, self._every_s, self._draw = url, every_s, draw
        self._heard, self._on_status = heard, on_status
        self._backoff, self._tag = Backoff(draw), ""
        self._woken = asyncio.Event()

    def ask(self) -> None:
        """Ask for the document at once, instead of at the end of the pause."""
        self._woken.set()

    async def follow(self) -> None:
        """Ask for the document again and again. Never returns."""
        is_told = False
        async with httpx.AsyncClient(
            timeout=ANSWER_S, trust_env=not is_loopback(self._url), follow_redirects=True
        ) as http:
            http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))  # keep no cookie (Rule 1)
            while True:
                self._woken.clear()
                try:
                    pause_s = await self._ask(http)
                    if not is_told:
                        self._on_status(f"following the feed: alerts may be {self.late_s:.0f} s late")
                    is_told = True
                except (httpx.HTTPError, TimeoutError, *UNREADABLE) as error:
                    pause_s = self._after_failure(error)
                    self._on_status(f"the feed can't be read ({_in_words(error)}); asking again in {pause_s:.1f} s")
                    is_told = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._woken.wait()

    async def _ask(self, http: httpx.AsyncClient) -> float:
        """Request the document once, and return the pause before the next request, in seconds.

        Raise an error if the request fails or its answer can't be used.
        """
        began, sent = own_ms(), {"If-None-Match": self._tag} if self._tag else {}
        async with asyncio.timeout(ANSWER_S), http.stream("GET", self._url, headers=sent) as answer:
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                answer.raise_for_status()
                self._read(await _body(answer), answer.headers.get("ETag", ""))
        age_s, said = retry_after_s(answer.headers.get("Age")), answer.headers.get("Cache-Control", "")
        fresh = re.search(r"max-age=(\d{1,9})\b", said)
        every_s = max(self._every_s, min(MOST_S, (float(fresh[1]) if fresh else 0.0) - age_s))
        self.late_s = every_s + BEHIND_S
        self._backoff.welcomed(None, None)
        self._heard(*_between(answer.headers.get("Date"), int(age_s * 1000), began))
        return every_s * (0.8 + 0.2 * self._draw())  # spread, so that many clients do not ask together

    def _read(self, body: bytes, tag: str) -> None:
        self.listing, self._tag = Listing(json.loads(body), self.listing), tag
        if self.listing.faults:
            log.warning("ignoring %d incomplete or malformed alerts of the feed", self.listing.faults)

    def _after_failure(self, error: Exception) -> float:
        headers = error.response.headers if isinstance(error, httpx.HTTPStatusError) else {}
        least_s = min(MOST_S, retry_after_s(headers.get("Retry-After")))
        return self._backoff.delay_s(After.WINDOW, least_s)


async def _body(answer: httpx.Response) -> bytes:
    """Return the body of an answer. Raise ValueError if it is longer than MAX_BYTES, also after decompression."""
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError("the document is too long")
    return bytes(body)


def _between(date: str | None, age_ms: int, began_ms: int) -> tuple[int | None, int | None]:
    """Return the least and the greatest possible value of the server's clock minus the client's own clock, in ms."""
    try:
        said_ms = ms_of(parsedate_to_datetime(date or "")) + age_ms
    except (ValueError, TypeError):
        return None, None
    return said_ms - own_ms(), said_ms + DATE_MS - began_ms


def _in_words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return "no GeoJSON" if isinstance(error, UNREADABLE) else type(error).__name__
