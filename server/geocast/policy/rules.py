"""The policy, and the rules of the protocol's section 3.

`Policy.violations` is a pure function of the request's facts, the time and the current revision of the alert. The
result does not depend on the sender of the request, or on other live alerts.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from ..geometry.published_polygon import MAX_CORNERS, publish_polygons
from ..geometry.sphere import circle_area_m2
from ..model import problems
from ..model.alert import ID_PATTERN, AcceptedTerms, Revision
from ..model.errors import did_you_mean
from ..model.problems import Violation, ViolationMembers, digits
from ..model.toml_file import matching
from ..wire.requests import PolicyFacts
from .ages import ALERTS, CALLS, IN_THE_FUTURE, SKEW_MS, Lasting, broken_ages
from .calls import CallCategory
from .cap import STRICT, Cap, Event, EventMapping
from .category import Category, Title
from .confirmation import unconfirmed_area, unconfirmed_texts
from .own_test import OwnTestText
from .pii import BUILT_IN_REGION, KINDS, PiiDetector, is_region

MAX_PATTERN, MAX_PATTERNS = 200, 50  # the largest numbers of characters in a pattern, and of patterns of one kind
SLIP = 1_000  # metres in a kilometre: how much too large a radius is if kilometres were typed for metres

CategoryKey = Annotated[str, matching(re.compile("[a-z0-9_]{1,64}"), "must have 1 to 64 of a-z, 0-9 and _")]


def _region(code: str) -> str:
    if not is_region(code):
        raise PydanticCustomError("region", "is not a region with known telephone numbers (ISO 3166: US, GB, DE)")
    return code


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError("pattern", "is not a regular expression: {why}", {"why": str(error)}) from None
    return pattern


Kind = Annotated[str, matching(re.compile("|".join(KINDS)), f"must be one of {', '.join(KINDS)}")]
_Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(_compiled)]


class Policy(BaseModel):
    """A policy: the categories of alerts and of calls, and the settings that apply to all categories.

    `never` names well-known categories that are never alerted. A category that is not in `categories` is refused even
    if it is not in `never`; `never` only changes the text of the refusal, for instance to "theft is never alerted".
    """

    model_config = STRICT

    name: Annotated[str, Field(min_length=1, max_length=64)]
    categories: Annotated[dict[CategoryKey, Category], Field(min_length=1)]
    never: dict[CategoryKey, Title] = {}
    audience: Annotated[str, matching(re.compile(ID_PATTERN), f"must be an id, {ID_PATTERN}")] | None = None
    text: Literal["hold", "off"] = "hold"
    text_region: Annotated[str, AfterValidator(_region)] = BUILT_IN_REGION
    text_allow: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)] = []
    text_patterns: dict[Kind, Annotated[list[_Pattern], Field(max_length=MAX_PATTERNS)]] = {}
    cap: Cap = Cap()
    calls: dict[CategoryKey, CallCategory] = {}
    test: OwnTestText = OwnTestText()

    @model_validator(mode="after")
    def _fits_together(self) -> "Policy":
        if misfits := list(self._misfits()):
            raise ValueError("\n".join(misfits))
        return self

    def _misfits(self) -> Iterator[str]:
        for both in sorted(self.categories.keys() & self.never.keys()):
            yield f"{both} is both a category and on the never-list"
        for both in sorted(self.categories.keys() & self.calls.keys()):
            yield f"{both} is a category of alerts and of calls"
        if self.test.category is not None and self.test.category not in self.categories:
            yield f"test.category: is not a category of this policy{did_you_mean(self.test.category, self.categories)}"
        if self.asks_for_approvals and self.audience is None:
            yield "audience: is needed if approvals are asked for; it names this deployment"
        try:
            EventMapping([("cap.ignore", self.cap.ignore), *self._mappings()])
        except ValueError as error:
            yield str(error)

    @cached_property
    def pii(self) -> PiiDetector | None:
        """The detector of personal data in texts (rule P24); None if the key `text` is "off"."""
        if self.text == "off":
            return None
        patterns = {kind: tuple(map(re.compile, written)) for kind, written in self.text_patterns.items()}
        return PiiDetector(self.text_region, tuple(self.text_allow), patterns)

    def ignores(self, infos: Sequence[Event]) -> bool:
        """Return whether a CAP event must be ignored, which means neither published nor refused (rule CP9).

        `infos` describe the same event, each in one language.
        """
        return self._ignored.by(infos) is not None

    def category_of(self, infos: Sequence[Event]) -> str | None:
        """Return the key of the category to which a CAP event belongs; None if it belongs to none (rule P13).

        `infos` describe the same event, each in one language.
        """
        return self._mapped.by(infos)

    @cached_property
    def _ignored(self) -> EventMapping:
        return EventMapping([("cap.ignore", self.cap.ignore)])

    @cached_property
    def _mapped(self) -> EventMapping:
        return EventMapping(self._mappings())

    def _mappings(self) -> list[tuple[str, list[str]]]:
        return [(key, category.cap) for key, category in self.categories.items()]

    @property
    def asks_for_approvals(self) -> bool:
        """Whether there is a category whose alerts or cancels must be signed by reviewers."""
        return any(each.approvals or each.cancel_approvals for each in self.categories.values())

    def approvals(self, key: str, *, confirmed: bool = False) -> int:
        """Return the number of reviewers who must sign an alert of the category `key` (rules AP5, AP6).

        `confirmed`: whether a person has confirmed something in the alert. If so, and if the category requires any
        signatures, the result is 2. If the category is unknown, use the largest number that any category requires.
        """
        asked = max(each.approvals for each in self._possible(key))
        return 2 if asked and confirmed else asked

    def cancel_approvals(self, key: str | None) -> int:
        """Return the number of reviewers who must sign a cancel of an alert of the category `key`.

        If the category is unknown (or None), return the largest number that any category requires.
        """
        return max(each.cancel_approvals for each in self._possible(key))

    def _possible(self, key: str | None) -> Collection[Category]:
        """Return the category with this key; all categories if it is unknown."""
        return [self.categories[key]] if key in self.categories else self.categories.values()

    def terms(self, category: Category, current: Revision | None) -> AcceptedTerms:
        """Return those values of a category that are stored with a revision.

        `current` is the revision before it; None for revision 1. The H3 resolution of `current` is kept (rule B1),
        unless it is finer than that of every category of this policy. The reason: `current` was read from the log. An
        intruder who can write there could set a very fine resolution, and the next revision would then reveal the exact
        place of the incident.
        """
        terms = category.terms(current)
        finest = max(each.location_resolution for each in self.categories.values())
        return replace(terms, location_resolution=min(terms.location_resolution, finest))

    def cap_categories(self) -> dict[str, str]:
        """Return the CAP category of each category that has one, as a dict by the category's key (rule PF5)."""
        named = ((key, category.cap_name()) for key, category in self.categories.items())
        return {key: name for key, name in named if name is not None}

    def warnings(self, *, takes_cap: bool = False) -> list[str]:
        """Return warnings for the operator about questionable settings in this policy, each as one line.

        `takes_cap` says whether the node has sources of CAP messages.
        """
        wide = [key for key, each in self.categories.items() if _lets_slip(each)]
        text = "max_radius_m is 1000 times min_radius_m or more, so a kilometre typed for a metre may be published"
        found = [f"policy {self.name}: {', '.join(wide)}: {text}"] if wide else []
        if takes_cap and not any(category.cap for category in self.categories.values()):
            found.append(f"policy {self.name}: no category claims events of CAP, so every message of CAP is refused")
        return found

    def violations(
        self,
        facts: PolicyFacts,
        now_ms: int,
        current: Revision | None = None,
        *,
        first: bool = True,
        covered_km2: float | None = None,
        max_radius_m: float | None = None,
    ) -> list[Violation]:
        """Return a request's violations of this policy, in the order of the protocol's table of rules.

        `facts` has what the rules need to know about the request, and `now_ms` is the time, in ms since 1970.

        `first`: whether the request is for revision 1. If it is not, `current` is the revision that it would follow;
        None if that is unknown. `covered_km2` is the size of the published area; None if it is unknown. `max_radius_m`
        is the largest radius that this publisher may use (rule P21); None if only the category limits it. A rule whose
        inputs are missing or unusable is not checked (rule P9).
        """
        category = self.categories.get(facts.category) if facts.category is not None else None
        found: list[Violation] = []
        if facts.category is not None and category is None:
            found.append(self._not_alertable(facts.category))
        if facts.threat == "individual":
            detail = "must be community: threats to an individual are not alerted"
            found.append(Violation(problems.NOT_COMMUNITY, "/threat", detail))
        found += self.approval_violations(facts.approved_at, facts.occurred_at, now_ms)
        lasting = None if category is None else category.lasting
        ends_at = None if current is None else current.ends_at
        found += broken_ages(facts, lasting, now_ms, ends_at, ALERTS, first=first and current is None)
        if category is not None:
            found += _radii(facts, category, max_radius_m)
            found += _polygons(facts, category)
            found += _area(facts, category, covered_km2)
        return _in_order([*found, *self._texts(facts)])

    def cancel_violations(self, facts: PolicyFacts, occurred_at: int | None, now_ms: int) -> list[Violation]:
        """Return the violations of this policy in a request to cancel an alert.

        `facts` has what the rules need to know about the request. `occurred_at` is the time of the alert's incident;
        None if it is unknown. `now_ms` is the current time. Times are in ms since 1970.
        """
        approval = self.approval_violations(facts.approved_at, occurred_at, now_ms)
        area = unconfirmed_area(0.0, None, facts.confirm) if facts.confirm is not None else ()
        return _in_order([*approval, *area, *self._texts(facts)])

    @staticmethod
    def approval_violations(approved_at: int | None, occurred_at: int | None, now_ms: int) -> list[Violation]:
        """Return a violation if an approval was given in the future, or before the incident (rule P3).

        The approval may be that of an alert or of a cancel. Times are in ms since 1970. If a time is None, it is not
        checked.
        """
        if approved_at is None:
            return []
        if approved_at > now_ms + SKEW_MS:
            detail = IN_THE_FUTURE
        elif occurred_at is not None and approved_at < occurred_at:
            detail = "must not be before occurred_at"
        else:
            return []
        return [Violation(problems.NOT_APPROVED, "/approval/approved_at", detail)]

    def call_violations(
        self, facts: PolicyFacts, now_ms: int, opened: Lasting | None = None, ends_at: int | None = None
    ) -> list[Violation]:
        """Return the violations of this policy in a request to open or change a call (RO1 and RO2).

        `facts` has what the rules need to know about the request, and `now_ms` is the time, in ms since 1970. Missing
        or unusable facts are not checked (P9).

        The other parameters are only for a change of an open call. `opened` has the limits of the policy under which
        the call was opened (rule RO3), and `ends_at` is the present end of the call.
        """
        category = self.calls.get(facts.category) if facts.category is not None else None
        lasting = opened if opened is not None else None if category is None else category.lasting
        found = list(broken_ages(facts, lasting, now_ms, ends_at, CALLS, first=opened is None))
        if facts.category is not None and category is None and opened is None:
            detail = f"is not among the calls of the policy{did_you_mean(facts.category, self.calls)}"
            found.insert(0, Violation(problems.CATEGORY_NOT_CALLABLE, "/category", detail))
        return found

    def _texts(self, facts: PolicyFacts) -> Iterator[Violation]:
        return unconfirmed_texts(self.pii, facts.texts, facts.confirm) if facts.confirm is not None else iter(())

    def _not_alertable(self, key: str) -> Violation:
        never = key in self.never
        unknown = f"is not a category of the policy{did_you_mean(key, self.categories)}"
        detail = f"{key} is never alerted" if never else unknown
        return Violation(problems.CATEGORY_NOT_ALERTABLE, "/category", detail, {"never": never})


def _lets_slip(category: Category) -> bool:
    """Return whether an alert would be published even if kilometres were typed for metres in its radius.

    Such an alert is published if it is neither refused (P7) nor held until a person confirms its area (P23).
    """
    slip_m = SLIP * category.min_radius_m
    held_km2 = math.inf if category.hold_area_km2 is None else category.hold_area_km2
    return category.max_radius_m >= slip_m and held_km2 * 1e6 >= circle_area_m2(slip_m)


def _radii(facts: PolicyFacts, category: Category, granted_m: float | None) -> Iterator[Violation]:
    """Yield a violation for each radius outside the limits of the category (P7) or of the publisher (P21)."""
    least_m, most_m = category.min_radius_m, category.max_radius_m
    if granted_m is not None:
        most_m = min(most_m, granted_m)
    bounds = f"must be {digits(least_m)} to {digits(most_m)} m"
    if least_m > most_m:
        bounds = f"must be at most {digits(most_m)} m for this publisher"
        bounds += f", and in this category at least {digits(least_m)} m"
    limits: ViolationMembers = {"min_radius_m": least_m, "max_radius_m": most_m}
    for pointer, radius_m in facts.radii:
        if not least_m <= radius_m <= most_m:
            yield Violation(problems.RADIUS_OUT_OF_RANGE, pointer, bounds, limits)
    for pointer, outline in facts.polygons:
        if not least_m <= outline.radius_m <= most_m:
            detail = f"{bounds} from its middle to a corner"
            yield Violation(problems.RADIUS_OUT_OF_RANGE, f"{pointer}/coordinates", detail, limits)


def _polygons(facts: PolicyFacts, category: Category) -> Iterator[Violation]:
    if not facts.polygons:
        return
    if not category.polygons:
        for pointer, _ in facts.polygons:
            yield Violation(problems.SHAPE_NOT_ALLOWED, f"{pointer}/type", "must be a circle in this category")
    elif any(outline.tangled for _, outline in facts.polygons):
        detail = "must have rings that turn back fewer times: it takes too long to tell whether they cross themselves"
        yield Violation(problems.AREA_TOO_COMPLEX, "/area", detail)
    elif publish_polygons([outline for _, outline in facts.polygons], category.simplify_m) is None:
        detail = f"must have at most {MAX_CORNERS} corners as published"
        if category.simplify_m:
            detail += f", simplified by up to {category.simplify_m} m"
        yield Violation(problems.AREA_TOO_COMPLEX, "/area", detail, {"max_corners": MAX_CORNERS})


def _area(facts: PolicyFacts, category: Category, covered_km2: float | None) -> Iterator[Violation]:
    if facts.confirm is not None and (covered_km2 is not None or category.hold_area_km2 is None):
        yield from unconfirmed_area(covered_km2 or 0.0, category.hold_area_km2, facts.confirm)


def _in_order(violations: list[Violation]) -> list[Violation]:
    """Return the violations sorted: first those of rules in section 2 of the protocol, then all others (rule H8).

    The only rule of section 2 that occurs here is A21.
    """
    return sorted(violations, key=lambda each: each.type is not problems.INVALID_VALUE)
