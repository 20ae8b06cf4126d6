"""The rules on the age of an incident, and on the expiry of the alert or call for help about it (rules P4 to P6).

All functions are pure. They depend on the request, the time, and the expiry of the revision that the request would
follow. Times are in ms since 1970.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..model import problems
from ..model.problems import Violation, ViolationMembers
from ..wire.requests import PolicyFacts

SKEW_MS = 60_000  # how far a publisher's clock may be ahead; only P5 and "not in the future" of P3 allow it (P8)
IN_THE_FUTURE = "must not be in the future (60 s of skew allowed)"


class Lasting(NamedTuple):
    """The limits, in seconds, of the age of an incident and of the expiry of its alert or call, in one category.

    An incident may be at most `max_age_s` old, and its alert or call must end at most `max_age_s` after the incident.
    If the request has no expiry, the alert or call ends `default_age_s` after the incident. An expiry must be at least
    `min_life_s` after the present time.
    """

    max_age_s: int
    default_age_s: int
    min_life_s: int = 0

    @property
    def max_age_ms(self) -> int:
        """The largest age of an incident, and also the longest time from an incident to the end of its alert, in ms."""
        return self.max_age_s * 1000

    @property
    def default_age_ms(self) -> int:
        """The time from an incident to the end of its alert, if the request has no expiry, in ms."""
        return self.default_age_s * 1000

    @property
    def min_life_ms(self) -> int:
        """The shortest time from now to an expiry, in ms. It is at least 1, because an expiry must be in the future."""
        return max(self.min_life_s * 1000, 1)


class Words(NamedTuple):
    """The words that error texts use for alerts, or for calls: plural, singular, and how to end one early."""

    many: str
    one: str
    early: str


ALERTS = Words("alerts", "the alert", "to end an alert early, cancel it")
CALLS = Words("calls", "the call", "to end a call early, end it")


def broken_ages(
    facts: PolicyFacts, lasting: Lasting | None, now_ms: int, ends_at: int | None, words: Words, *, first: bool
) -> Iterator[Violation]:
    """Yield a request's violations of the rules on age and expiry (P4 to P6), in the order of these rules.

    `first`: whether the request is for a first revision. `ends_at` is the end of the revision that the request would
    follow; None if there is none, or if its end is unknown. `lasting` has the limits of the category; if it is None,
    only P5 is checked. `words` are used in the error texts.
    """
    stale = list(_stale(facts, lasting, now_ms)) if lasting is not None and first else []
    yield from stale
    if facts.occurred_at is not None and facts.occurred_at > now_ms + SKEW_MS:
        yield Violation(problems.NOT_YET, "/occurred_at", IN_THE_FUTURE)
    if lasting is None:
        return
    # No expiry is possible for an incident that is too old (P4), so a violation of P6 would only repeat the first one.
    none = [] if stale else list(_no_expiry(facts, lasting, now_ms, ends_at, words, first=first))
    if none or (stale and facts.takes_default):
        yield from none
    else:
        yield from _expiry(facts, lasting, now_ms, ends_at, words)


def _stale(facts: PolicyFacts, lasting: Lasting, now_ms: int) -> Iterator[Violation]:
    if facts.occurred_at is not None and now_ms - facts.occurred_at > lasting.max_age_ms:
        detail = f"must be at most {lasting.max_age_s} s ago"
        yield Violation(problems.STALE, "/occurred_at", detail, {"max_age_s": lasting.max_age_s})


def _expiry(
    facts: PolicyFacts, lasting: Lasting, now_ms: int, ends_at: int | None, words: Words
) -> Iterator[Violation]:
    """Yield a violation if the request's expiry is out of range (P6). If it has none, the default expiry is checked."""
    if facts.occurred_at is None:
        return
    expires_at = facts.expires_at
    if expires_at is None:
        if not facts.takes_default or lasting.default_age_s == lasting.max_age_s:
            return
        expires_at = facts.occurred_at + lasting.default_age_ms
    if expires_at < now_ms + lasting.min_life_ms:
        detail = f"must be at least {lasting.min_life_s} s ahead" if lasting.min_life_s else "must be in the future"
    elif expires_at > facts.occurred_at + lasting.max_age_ms:
        detail = f"must be at most occurred_at + {lasting.max_age_s} s"
    elif ends_at is not None and expires_at < ends_at:
        detail = f"must not be earlier than the current revision's: {words.early}"
    else:
        return
    yield Violation(problems.EXPIRY_OUT_OF_RANGE, "/expires_at", detail, _limits(lasting))


def _no_expiry(
    facts: PolicyFacts, lasting: Lasting, now_ms: int, ends_at: int | None, words: Words, *, first: bool
) -> Iterator[Violation]:
    """Yield a violation if no expiry would be allowed, because even the latest one in this category is too early.

    In this case, another `expires_at` would not help. So the violation names `occurred_at` if the request is for
    revision 1. A later revision can't change `occurred_at`, so its violation names the category.
    """
    if facts.occurred_at is None:
        return
    latest = facts.occurred_at + lasting.max_age_ms
    ends = f"{words.many} of this category end at occurred_at + {lasting.max_age_s} s at the latest"
    if ends_at is not None and latest < ends_at:
        detail = f"{ends}, and the current revision ends later: choose one that lasts longer, or cancel"
    elif latest >= now_ms + lasting.min_life_ms:
        return
    elif not first:
        detail = f"{ends}, which is too soon: choose one that lasts longer, or cancel"
    elif lasting.min_life_s:
        last = lasting.max_age_s - lasting.min_life_s
        detail = f"must be at most {last} s ago, because an alert must live for {lasting.min_life_s} s"
    else:
        detail = f"must be less than {lasting.max_age_s} s ago, or {words.one} would end at once"
    yield Violation(problems.EXPIRY_OUT_OF_RANGE, "/occurred_at" if first else "/category", detail, _limits(lasting))


def _limits(lasting: Lasting) -> ViolationMembers:
    """Return the limits of an expiry, in seconds, in the form of members for a violation (rule H8a)."""
    return {"min_life_s": lasting.min_life_s, "max_age_s": lasting.max_age_s}
