"""Whom a table of the publishers' file covers, and what of a request lies beyond it (PG1, P21, P22).

Everything here is a pure function of what is asked. It knows nothing of tokens, HTTP or the log, so whoever publishes
in another way asks the same tables under a name of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...model import problems
from ...model.alert import SEVERITY_RANK, Severity, Status
from ...model.problems import Problem, Violation, ViolationMembers
from ...wire.requests import OutsideShape, PolicyFacts
from .jurisdiction import Jurisdiction

ALL_OTHERS = "*"
PER_MINUTE, PER_HOUR = 30, 300  # alerts and revisions, where a table does not say
DRY_PER_MINUTE = 600  # a desk asks after each change


class Rate(NamedTuple):
    """So many in any stretch of so many seconds."""

    number: int
    within_s: int


DRY_RUNS = (Rate(DRY_PER_MINUTE, 60),)


@dataclass(frozen=True)
class Bounds:
    """What one table allows. None: all of it. Of rates None is what has been left out."""

    categories: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    max_severity: Severity = "extreme"
    max_radius_m: float | None = None
    jurisdiction: Jurisdiction | None = None
    per_minute: int | None = None
    per_hour: int | None = None

    def contains(self, lat: float, lng: float) -> bool:
        """Whether a point (degrees) is where this publisher may publish. It is kept nowhere."""
        return self.jurisdiction is None or self.jurisdiction.contains(lat, lng)

    def covers(self, corners: Sequence[tuple[float, float]]) -> bool:
        """Whether a ring, its corners as latitude and longitude, is where this publisher may publish. Kept nowhere."""
        return self.jurisdiction is None or self.jurisdiction.covers(corners)

    def violations(self, facts: PolicyFacts, outside_jurisdiction: Sequence[OutsideShape]) -> list[Violation]:
        """What is beyond the grant (P21) and outside of the jurisdiction (P22), in this order.

        The radius is not checked here: the policy checks it, by the narrower of both bounds. `outside_jurisdiction`:
        the shapes that are not where `contains` and `covers` say. A claim that is unusable is not judged (P9).
        """
        return [*self._beyond(facts), *map(_outside, outside_jurisdiction)]

    def _beyond(self, facts: PolicyFacts) -> Iterator[Violation]:
        if self.categories is not None and facts.category is not None and facts.category not in self.categories:
            categories = sorted(self.categories)
            yield _not_granted("/category", f"must be one of these: {', '.join(categories)}", {"allowed": categories})
        if self.statuses is not None and facts.status is not None and facts.status not in self.statuses:
            statuses = sorted(self.statuses)
            yield _not_granted("/status", f"must be {' or '.join(statuses)}", {"allowed": statuses})
        if facts.severity is not None and SEVERITY_RANK[facts.severity] > SEVERITY_RANK[self.max_severity]:
            yield _not_granted("/severity", f"must be at most {self.max_severity}", {"max_severity": self.max_severity})


def _not_granted(pointer: str, must: str, limits: ViolationMembers) -> Violation:
    return Violation(problems.NOT_GRANTED, pointer, f"{must}; no more is granted to this publisher", limits)


def _outside(outside_shape: OutsideShape) -> Violation:
    detail = "must lie in the jurisdiction of this publisher"
    if outside_shape.swapped:
        detail += "; it would with lat and lng exchanged"
    return Violation(problems.OUTSIDE_JURISDICTION, outside_shape.pointer, detail, {"swapped": outside_shape.swapped})


@dataclass(frozen=True)
class Publishers:
    """The tables of one issuer, by the `sub` that they cover; ALL_OTHERS covers every other `sub` of that issuer.

    The file's own tables are for tokens of the key set itself. `issuers` has those of each named issuer (rule HD5).
    """

    tables: Mapping[str, Bounds]
    issuers: Mapping[str, "Publishers"] = field(default_factory=dict)

    def by(self, issuer: str) -> "Publishers":
        """Return the tables for tokens of an issuer: none if the file does not name it, so nobody may publish."""
        return self.issuers.get(issuer, NO_TABLES) if issuer else self

    def of(self, sub: str) -> Bounds | None:
        """The table that covers a publisher; None: it may not publish (PG1)."""
        return self.tables.get(sub) or self.tables.get(ALL_OTHERS)

    def rates(self, sub: str) -> tuple[Rate, ...]:
        """How often a publisher may publish and revise (PG2)."""
        bounds = self.of(sub) or Bounds()
        return Rate(bounds.per_minute or PER_MINUTE, 60), Rate(bounds.per_hour or PER_HOUR, 3600)

    def own_rates(self, sub: str) -> tuple[Rate, ...]:
        """How often, where its own table says so and nothing else does: none, if that sets no rate."""
        own = self.tables.get(sub, Bounds())
        return tuple(Rate(number, within_s) for number, within_s in _stated(own) if number is not None)

    def summary(self) -> str:
        """What the tables cover, in a line."""
        named = len(self.tables.keys() - {ALL_OTHERS})
        others = "by a table of their own" if ALL_OTHERS in self.tables else "may not publish"
        bounded = sum(bounds.jurisdiction is not None for bounds in self.tables.values())
        own = f"{named} by name, {bounded} with a jurisdiction; all others {others}"
        return "; ".join([own, *(f"of {json.dumps(name)}: {each.summary()}" for name, each in self.issuers.items())])

    def warnings(self, categories: Mapping[str, object]) -> list[str]:
        """What an operator should know, in sentences. `categories`: those of the policy."""
        tables = [bounds for each in (self, *self.issuers.values()) for bounds in each.tables.values()]
        named = {each for bounds in tables for each in bounds.categories or ()}
        unknown = sorted(named - categories.keys())
        return [f"publishers: {', '.join(unknown)}: not in the policy, so nobody may publish it"] if unknown else []


NO_TABLES = Publishers({})


def granted(publishers: Publishers | None, name: str, refusal: str) -> Bounds:
    """What is granted to a publisher; all of it without tables. Raises Problem: 403, which says `refusal`."""
    bounds = Bounds() if publishers is None else publishers.of(name)
    if bounds is None:
        raise Problem(problems.INSUFFICIENT_SCOPE, refusal)
    return bounds


def _stated(bounds: Bounds) -> tuple[tuple[int | None, int], ...]:
    return (bounds.per_minute, 60), (bounds.per_hour, 3600)
