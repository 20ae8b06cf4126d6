"""A simulated review desk: it refuses most incidents, and turns the others into approved alerts.

Rule 1  The policy of the node decides what may be published; the desk reads it from `GET /v1/policy`.
Rule 2  Each refusal has a reason that can be shown (`Reason`).
Rule 3  The text of an alert comes only from `wording.toml`, and its id is random. Only the place, the time and the
        category (which follows from the nature, the feed's words for what happened) come from the record.
Rule 4  For a demonstration, an old record may be re-timed: it is treated as if it had just happened. Then the desk says
        so (`retimed`).

At a real desk, people decide. This desk approves at once, in the names `desk-1`, `desk-2` and so on.
"""

import itertools
import tomllib
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from client_demo.python.times import format_time

from .feed_format import Incident

DESKS = 3
AGE_AFTER_RETIMING_MS = 30_000
DEFAULT_MAX_AGE_S = 3600

Table = dict[str, dict[str, str]]


def read_toml(name: str) -> dict[str, Any]:
    """Return the content of a TOML file in this folder."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


class Reason(StrEnum):
    """The kinds of reasons for which an incident is not published."""

    UNKNOWN_NATURE = "unknown nature"
    NEVER_ALERTED = "never alerted"
    INDIVIDUAL = "concerns only an individual"
    NOT_LISTED = "not on the policy's list"
    NO_COORDINATES = "no coordinates"
    TOO_OLD = "too old"


@dataclass(frozen=True, slots=True)
class Policy:
    """The node's policy, as `GET /v1/policy` returns it.

    It has each category's title and limits, and the categories that are never alerted.
    """

    name: str
    categories: Mapping[str, Mapping[str, Any]]
    never: Mapping[str, str]

    @classmethod
    def from_map(cls, policy: Mapping[str, Any]) -> "Policy":
        """Return the policy from the node's answer.

        In the answer, the categories that are never alerted may come with or without reasons.
        """
        never = policy.get("never", {})
        reasons = never if isinstance(never, Mapping) else dict.fromkeys(never, "")
        return cls(str(policy.get("name", "")), policy["categories"], reasons)

    def max_age_ms(self, category: str) -> int:
        """Return the largest age at which an incident of this category may be published, in ms."""
        return int(self.categories[category].get("max_age_s", DEFAULT_MAX_AGE_S) * 1000)

    def approvals(self, category: str, *, of_cancel: bool = False) -> int:
        """Return the number of reviewers who must sign an alert of this category.

        With `of_cancel`, return the number of those who must sign its cancellation.
        """
        return int(self.categories.get(category, {}).get("cancel_approvals" if of_cancel else "approvals", 0))

    @property
    def is_signed(self) -> bool:
        """Whether there is a category whose alerts reviewers must sign."""
        return any(self.approvals(each) or self.approvals(each, of_cancel=True) for each in self.categories)

    def clamp_m(self, category: str, radius_m: float) -> float:
        """Return a radius in metres, raised or lowered to the limits of the category."""
        limits = self.categories[category]
        return float(max(limits.get("min_radius_m", 0), min(radius_m, limits.get("max_radius_m", radius_m))))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An incident that is not published: the reason, and its details."""

    incident: Incident
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Case:
    """An incident that is published: its category, and the time at which it counts as having happened.

    The time is in ms since 1970.
    """

    incident: Incident
    category: str
    occurred_at: int
    retimed: bool


@dataclass(slots=True)
class Triage:
    """The decisions about all incidents of a feed: the cases to publish, and the refusals."""

    cases: list[Case] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def reasons(self) -> list[tuple[str, int]]:
        """Return each reason with the number of its refusals, the most frequent first."""
        return Counter(f"{refusal.reason}: {refusal.detail}" for refusal in self.refusals).most_common()

    def retimed(self) -> str:
        """Return a line of text about the cases whose time has been changed, or "" if there are none (Rule 4)."""
        times = [case.incident.occurred_at for case in self.cases if case.retimed]
        if not times:
            return ""
        known = sorted(time for time in times if time is not None)
        when = f"recorded from {format_time(known[0])[:10]} to {format_time(known[-1])[:10]}" if known else "undated"
        return f"{len(times)} incidents {when} are re-timed: they are treated as if they happened now"


class Desk:
    """A simulated desk, which decides on incidents and writes alerts.

    `policy` is the policy of the node. With `retime`, old incidents are treated as if they had just happened.
    """

    def __init__(self, policy: Policy, *, retime: bool) -> None:
        self._policy, self._retime = policy, retime
        self._kept_back: Table = read_toml("kept_back.toml")
        self._wording = read_toml("wording.toml")
        self._desks = itertools.cycle(range(1, DESKS + 1))

    def triage(self, incidents: Iterable[Incident], now_ms: int) -> Triage:
        """Decide about all incidents of a feed, and return the decisions."""
        found = Triage()
        for incident in incidents:
            decision = self.decide(incident, now_ms)
            if isinstance(decision, Case):
                found.cases.append(decision)
            else:
                found.refusals.append(decision)
        return found

    def decide(self, incident: Incident, now_ms: int) -> Case | Refusal:
        """Decide about one incident: return the case to publish, or the refusal."""
        category = self.category_of(incident)
        if isinstance(category, Refusal):
            return category
        if incident.lat is None:
            return Refusal(incident, Reason.NO_COORDINATES, "the record has none")
        return self._dated(incident, category, now_ms)

    def category_of(self, incident: Incident) -> str | Refusal:
        """Return the category that the incident's nature means, or a refusal with the reason why it means none."""
        key = incident.means
        if not key:
            return Refusal(incident, Reason.UNKNOWN_NATURE, f'"{incident.nature}" is not in the table')
        return key if key in self._policy.categories else self._not_alertable(incident, key)

    def _not_alertable(self, incident: Incident, key: str) -> Refusal:
        if key in self._kept_back["individual"]:
            return Refusal(incident, Reason.INDIVIDUAL, self._kept_back["individual"][key])
        if key in self._policy.never:
            return Refusal(incident, Reason.NEVER_ALERTED, self._policy.never[key] or key)
        return Refusal(incident, Reason.NOT_LISTED, self._kept_back["routine"].get(key, key))

    def _dated(self, incident: Incident, category: str, now_ms: int) -> Case | Refusal:
        at = incident.occurred_at
        if at is not None and 0 <= now_ms - at <= self._policy.max_age_ms(category):
            return Case(incident, category, at, retimed=False)
        if self._retime:
            return Case(incident, category, now_ms - AGE_AFTER_RETIMING_MS, retimed=True)
        return Refusal(incident, Reason.TOO_OLD, "it happened longer ago than its category allows")

    # ---- writing alerts ------------------------------------------------------------------------------------

    def write(self, case: Case, now_ms: int) -> dict[str, Any]:
        """Return the approved alert for a case, ready to be published.

        If the time of the case has been changed, the alert says that it happened just before `now_ms`.
        """
        occurred_at = now_ms - AGE_AFTER_RETIMING_MS if case.retimed else case.occurred_at
        wording = self.wording(case.category)
        return {
            "id": uuid.uuid4().hex,
            "category": case.category,
            "headline": wording["headline"],
            "severity": wording["severity"],
            "threat": "community",
            "occurred_at": format_time(occurred_at),
            "area": [circle(case.incident, wording["radius_m"])],
            "approval": self.approval(now_ms),
        }

    def approval(self, now_ms: int) -> dict[str, str]:
        """Return an approval made at `now_ms` by the next of the simulated reviewers, who take turns."""
        return {"reviewer": f"desk-{next(self._desks)}", "approved_at": format_time(now_ms)}

    def wording(self, category: str) -> dict[str, Any]:
        """Return the headline, the severity and the radius in metres for alerts of a category.

        The radius is within the limits of the category.
        """
        wording = self._wording.get(category) or self._plain_wording(category)
        return {**wording, "radius_m": self._policy.clamp_m(category, wording["radius_m"])}

    def _plain_wording(self, category: str) -> dict[str, Any]:
        title = self._policy.categories[category].get("title", category)
        return {"headline": f"{title}: reported in this area"[:140], "radius_m": 800, "severity": "moderate"}


def circle(where: Incident, radius_m: float) -> dict[str, Any]:
    """Return a circle around the place of an incident. The incident must have a place."""
    return {"type": "circle", "lat": where.lat, "lng": where.lng, "radius_m": radius_m}


def varied(cases: Sequence[Case]) -> Iterator[Case]:
    """Return the cases in another order, in which their categories alternate."""
    by_category: dict[str, list[Case]] = {}
    for case in cases:
        by_category.setdefault(case.category, []).append(case)
    turns = itertools.zip_longest(*by_category.values())
    return (case for turn in turns for case in turn if case is not None)
