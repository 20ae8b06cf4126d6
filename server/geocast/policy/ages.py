"""When things happened and when they end: the rules P4 to P6, for whatever has an age and an expiry.

All of it is a function of the claims of a request, of the time, and of when that ends which it would follow. Times are
in ms since 1970.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..model import problems
from ..model.problems import Violation, ViolationMembers
from ..wire.requests import PolicyFacts

SKEW_MS = 60_000  # how far a publisher's clock may be ahead; P5 and the "not in the future" of P3 alone allow it (P8)
IN_THE_FUTURE = "must not be in the future (60 s of skew allowed)"


class Lasting(NamedTuple):
    """How old an incident may be, and how long after it that ends which is published of it; in seconds.

    `default_age_s` is taken where no expiry is sent; `min_life_s` is how far ahead an expiry has to be.
    """

    max_age_s: int
    default_age_s: int
    min_life_s: int = 0

    @property
    def max_age_ms(self) -> int:
        """How old an incident may be, and how long after it its alert may end, in ms."""
        return self.max_age_s * 1000

    @property
    def default_age_ms(self) -> int:
        """How long after its incident an alert ends that says nothing else, in ms."""
        return self.default_age_s * 1000

    @property
    def min_life_ms(self) -> int:
        """How far ahead of now an expiry has to be, in ms. At least 1, since an expiry has to be in the future."""
        return max(self.min_life_s * 1000, 1)


class Words(NamedTuple):
    """What it is called that ends, and how it is ended early."""

    many: str
    one: str
    early: str


ALERTS = Words("alerts", "the alert", "to end an alert early, cancel it")
CALLS = Words("calls", "the call", "to end a call early, end it")


def broken_ages(
    facts: PolicyFacts, lasting: Lasting | None, now_ms: int, ends_at: int | None, words: Words, *, first: bool
) -> Iterator[Violation]:
    """P4 to P6, in this order. `ends_at`: when that ends which this would follow, None if nothing or not known.

    `first`: it follows nothing. Without a `lasting` only P5 is judged.
    """
    stale = list(_stale(facts, lasting, now_ms)) if lasting is not None and first else []
    yield from stale
    if facts.occurred_at is not None and facts.occurred_at > now_ms + SKEW_MS:
        yield Violation(problems.NOT_YET, "/occurred_at", IN_THE_FUTURE)
    if lasting is None:
        return
    # An incident that is stale (P4) leaves no room for any expiry: that need not be said a second time.
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
    """Judge the `expires_at` that was sent, or is taken (P6). The caller has seen that there is one that would do."""
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
    """Find out whether no expiry would do: even the latest that the category allows, which is taken if none is sent.

    To change `expires_at` would not help then, so the violation does not point there. In revision 1 it points to
    `occurred_at`; a later revision has to keep that, so there it points to the category.
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
        detail = f"must be at most {last} s ago, for an alert has to live for {lasting.min_life_s} s"
    else:
        detail = f"must be less than {lasting.max_age_s} s ago, or {words.one} would end at once"
    yield Violation(problems.EXPIRY_OUT_OF_RANGE, "/occurred_at" if first else "/category", detail, _limits(lasting))


def _limits(lasting: Lasting) -> ViolationMembers:
    """Return the limits of an expiry, in seconds, as members of a violation (rule H8a)."""
    return {"min_life_s": lasting.min_life_s, "max_age_s": lasting.max_age_s}
