"""The limits in the publishers' file, and the parts of a request that exceed them (rules PG1, P21, P22).

A table of the file has the limits of one publisher. All functions are pure. They do not depend on tokens, HTTP or the
log, so the same tables are used for CAP messages.
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
PER_MINUTE, PER_HOUR = 30, 300  # default rates of alerts and revisions
DRY_PER_MINUTE = 600  # a review desk sends a dry run after each change of its web form


class Rate(NamedTuple):
    """A limit on how often a publisher may publish: at most `number` times in any window of `within_s` seconds."""

    number: int
    within_s: int


DRY_RUNS = (Rate(DRY_PER_MINUTE, 60),)


@dataclass(frozen=True)
class Bounds:
    """The limits of one publisher, as in one table of the publishers' file.

    If a limit is None, everything is allowed. If a rate is None, the default rate applies. The table may also be that
    of all publishers without a table of their own.
    """

    categories: frozenset[str] | None = None
    statuses: frozenset[Status] | None = None
    max_severity: Severity = "extreme"
    max_radius_m: float | None = None
    jurisdiction: Jurisdiction | None = None
    per_minute: int | None = None
    per_hour: int | None = None

    def contains(self, lat: float, lng: float) -> bool:
        """Return whether the publisher may publish at a point, given in degrees.

        The point is only checked, not kept.
        """
        return self.jurisdiction is None or self.jurisdiction.contains(lat, lng)

    def covers(self, corners: Sequence[tuple[float, float]]) -> bool:
        """Return whether the publisher may publish in the area inside a ring. The ring is only checked, not kept.

        `corners` are (latitude, longitude) in degrees.
        """
        return self.jurisdiction is None or self.jurisdiction.covers(corners)

    def violations(self, facts: PolicyFacts, outside_jurisdiction: Sequence[OutsideShape]) -> list[Violation]:
        """Return a request's violations of these limits (P21), and then those of the jurisdiction (P22).

        `outside_jurisdiction` has those shapes of the request for which `contains` or `covers` has returned False.
        Radii are not checked here: the policy checks them against the smaller of its own limit and the publisher's. A
        field of the request that is unusable is not checked (rule P9).
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
    """The tables of the publishers' file. Each table has the limits of one publisher.

    `tables` is a dict from the `sub` of a publisher's token to the publisher's limits. It has the tables that are
    outside all `[issuers]` sections, which are for tokens that are signed with keys without an issuer. `issuers` has,
    for each issuer that the file names, another object of this class with the tables of that issuer (rule HD5). The key
    ALL_OTHERS has the table for every `sub` without a table of its own.
    """

    tables: Mapping[str, Bounds]
    issuers: Mapping[str, "Publishers"] = field(default_factory=dict)

    def by(self, issuer: str) -> "Publishers":
        """Return the tables for the tokens of `issuer`.

        If the file does not name the issuer, the result is empty, and none of its tokens may publish.
        """
        return self.issuers.get(issuer, NO_TABLES) if issuer else self

    def of(self, sub: str) -> Bounds | None:
        """Return the limits of the publisher with this `sub`; None if it may not publish anything (rule PG1)."""
        return self.tables.get(sub) or self.tables.get(ALL_OTHERS)

    def rates(self, sub: str) -> tuple[Rate, ...]:
        """Return how often a publisher may publish and revise alerts: the limits per minute and per hour (rule PG2)."""
        bounds = self.of(sub) or Bounds()
        return Rate(bounds.per_minute or PER_MINUTE, 60), Rate(bounds.per_hour or PER_HOUR, 3600)

    def own_rates(self, sub: str) -> tuple[Rate, ...]:
        """Return the rates (limits on how often to publish) that a publisher's own table sets.

        Neither the default rates nor those of the table for all other publishers are included.
        """
        own = self.tables.get(sub, Bounds())
        stated = (own.per_minute, 60), (own.per_hour, 3600)
        return tuple(Rate(number, within_s) for number, within_s in stated if number is not None)

    def summary(self) -> str:
        """Return a summary of the file in one line, for the command `geocast check`."""
        named = len(self.tables.keys() - {ALL_OTHERS})
        others = "by a table of their own" if ALL_OTHERS in self.tables else "may not publish"
        bounded = sum(bounds.jurisdiction is not None for bounds in self.tables.values())
        own = f"{named} by name, {bounded} with a jurisdiction; all others {others}"
        return "; ".join([own, *(f"of {json.dumps(name)}: {each.summary()}" for name, each in self.issuers.items())])

    def warnings(self, categories: Mapping[str, object]) -> list[str]:
        """Return warnings for the operator about mistakes in the file, each as one line.

        `categories` are the categories of the policy, by key.
        """
        tables = [bounds for each in (self, *self.issuers.values()) for bounds in each.tables.values()]
        named = {each for bounds in tables for each in bounds.categories or ()}
        unknown = sorted(named - categories.keys())
        return [f"publishers: {', '.join(unknown)}: not in the policy, so nobody may publish it"] if unknown else []


NO_TABLES = Publishers({})


def granted(publishers: Publishers | None, name: str, refusal: str) -> Bounds:
    """Return the limits of the publisher `name`. Without a publishers' file (None), nothing is limited.

    Raise Problem (403) with the text `refusal` if the publisher may not publish at all.
    """
    bounds = Bounds() if publishers is None else publishers.of(name)
    if bounds is None:
        raise Problem(problems.INSUFFICIENT_SCOPE, refusal)
    return bounds
