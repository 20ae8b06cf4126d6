"""What may be published: a list of categories with bounds, and the rules of the protocol's section 3.

A policy is data (TOML). `Policy.violations` is a pure function of the claims of a request, the time and the current
revision. It knows nothing of who asks, nor of what is live. What is not listed is refused: a category that nobody has
thought of is never published.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from . import problems
from .alert import Revision, Terms
from .errors import ConfigError, did_you_mean
from .holds import unconfirmed_area, unconfirmed_texts
from .outlines import MAX_CORNERS, TOLERANCES_M, publish_polygons
from .problems import Violation
from .requests import MAX_AREA_KM2, Claims
from .wording import BUILT_IN_REGION, KINDS, Guard, is_region

SKEW_MS = 60_000  # how far a publisher's clock may be ahead; P5 and the "not in the future" of P3 alone allow it (P8)
_IN_THE_FUTURE = "must not be in the future (60 s of skew allowed)"
MOST_AGE_S = 7 * 86_400  # a week
BUILT_IN = "neighbourhood"
MAX_PATTERN, MAX_PATTERNS = 200, 50  # characters of a pattern of the policy's own; patterns of a kind
SLIP = 1_000  # a kilometre typed for a metre, or the other way round

_Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
_Title = Annotated[str, Field(min_length=1, max_length=140)]


def _region(code: str) -> str:
    if not is_region(code):
        raise PydanticCustomError("region", "is no region that telephone numbers are known of (ISO 3166: US, GB, DE)")
    return code


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PydanticCustomError("pattern", "is no regular expression: {why}", {"why": str(error)}) from None
    return pattern


Kind = Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
_Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN), AfterValidator(_compiled)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Category(_Strict):
    """The bounds of one category: radii in metres, age and life in seconds, H3 resolution of the published centre.

    And whether polygons are taken, and by how many metres they may be simplified. `default_age_s` is `max_age_s` if it
    is left out.
    """

    title: _Title
    min_radius_m: Annotated[float, Field(gt=0, le=20_100_000)] = 100
    max_radius_m: Annotated[float, Field(gt=0, le=20_100_000)] = 20_000
    max_age_s: Annotated[int, Field(gt=0, le=MOST_AGE_S)] = 3_600
    min_life_s: Annotated[int, Field(ge=0, lt=7 * 86_400)] = 0
    location_resolution: Annotated[int, Field(ge=0, le=15)] = 9
    polygons: bool = False
    simplify_m: Annotated[int, Field(ge=0, le=TOLERANCES_M[-1])] = 0
    hold_area_km2: Annotated[float, Field(gt=0, le=MAX_AREA_KM2)] | None = None
    default_age_s: Annotated[int, Field(gt=0, le=MOST_AGE_S)] = 3_600

    @model_validator(mode="before")
    @classmethod
    def _default_age(cls, keys: Any) -> Any:
        """Left out, it is `max_age_s` (if that is one: what is wrong is told once)."""
        max_age_s = keys.get("max_age_s") if isinstance(keys, dict) else None
        if type(max_age_s) is int and 0 < max_age_s <= MOST_AGE_S:
            return {"default_age_s": max_age_s} | keys
        return keys

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Category":
        if self.min_radius_m > self.max_radius_m:
            raise ValueError("min_radius_m is greater than max_radius_m")
        if self.min_life_s >= self.max_age_s:
            raise ValueError("min_life_s is not less than max_age_s, so nothing could be published")
        if self.default_age_s > self.max_age_s:
            raise ValueError("default_age_s is greater than max_age_s")
        return self

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

    def terms(self, current: Revision | None = None) -> Terms:
        """The part of this category that goes into an accepted alert and is kept with it.

        `current`: the revision that it follows, whose resolution is kept (B1).
        """
        resolution = self.location_resolution if current is None else current.terms.location_resolution
        return Terms(self.title, self.default_age_ms, resolution, simplify_m=self.simplify_m)


class Policy(_Strict):
    """What may be alerted: `categories`, by key.

    `never` has keys, with names for people, of what is known and never alerted. It decides nothing, since whatever is
    not in `categories` is refused. It only lets the refusal say "theft is never alerted".
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    categories: Annotated[dict[_Key, Category], Field(min_length=1)]
    never: dict[_Key, _Title] = {}
    text: Literal["hold", "off"] = "hold"
    text_region: Annotated[str, AfterValidator(_region)] = BUILT_IN_REGION
    text_allow: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)] = []
    text_patterns: dict[Kind, Annotated[list[_Pattern], Field(max_length=MAX_PATTERNS)]] = {}

    @model_validator(mode="after")
    def _never_means_never(self) -> "Policy":
        if both := self.categories.keys() & self.never.keys():
            raise ValueError(f"{min(both)} is both a category and on the never-list")
        return self

    @cached_property
    def guard(self) -> Guard | None:
        """What reads texts (P24); None if nothing does."""
        if self.text == "off":
            return None
        patterns = {kind: tuple(map(re.compile, written)) for kind, written in self.text_patterns.items()}
        return Guard(self.text_region, tuple(self.text_allow), patterns)

    def warnings(self) -> list[str]:
        """What an operator should know of this policy, in sentences."""
        wide = [key for key, each in self.categories.items() if each.max_radius_m >= SLIP * each.min_radius_m]
        text = "max_radius_m is 1000 times min_radius_m or more, so a kilometre typed for a metre may be published"
        return [f"policy {self.name}: {', '.join(wide)}: {text}"] if wide else []

    def violations(
        self,
        claims: Claims,
        now_ms: int,
        current: Revision | None = None,
        *,
        first: bool = True,
        covered_km2: float | None = None,
    ) -> list[Violation]:
        """Every rule that `claims` break at `now_ms`, in the order of the protocol's table.

        `first`: whether the request is for revision 1. If not, `current` is the revision that it would follow, or None
        if that is not known. `covered_km2`: how much the published area covers, or None if that is not known.
        A rule whose inputs are missing or unusable is not judged (P9).
        """
        category = self.categories.get(claims.category) if claims.category is not None else None
        found: list[Violation] = []
        if claims.category is not None and category is None:
            found.append(self._not_alertable(claims.category))
        if claims.threat == "individual":
            detail = "must be community: an individual's is not alerted"
            found.append(Violation(problems.NOT_COMMUNITY, "/threat", detail))
        found += self.approval_violations(claims.approved_at, claims.occurred_at, now_ms)
        first = first and current is None
        stale = list(_age(claims, category, now_ms)) if category is not None and first else []
        found += stale
        if claims.occurred_at is not None and claims.occurred_at > now_ms + SKEW_MS:
            found.append(Violation(problems.NOT_YET, "/occurred_at", _IN_THE_FUTURE))
        if category is not None:
            # An incident that is stale (P4) leaves no room for any expiry: that need not be said a second time.
            none = [] if stale else list(_no_expiry(claims, category, now_ms, current, first=first))
            found += none or ([] if stale and claims.takes_default else _expiry(claims, category, now_ms, current))
            found += [*_radii(claims, category), *_polygons(claims, category), *_area(claims, category, covered_km2)]
        return _in_order([*found, *self._texts(claims)])

    def cancel_violations(self, claims: Claims, occurred_at: int | None, now_ms: int) -> list[Violation]:
        """Every rule that a cancel breaks at `now_ms`; `occurred_at` is the alert's, None if that is not known."""
        approval = self.approval_violations(claims.approved_at, occurred_at, now_ms)
        area = unconfirmed_area(0.0, None, claims.confirm) if claims.confirm is not None else ()
        return _in_order([*approval, *area, *self._texts(claims)])

    @staticmethod
    def approval_violations(approved_at: int | None, occurred_at: int | None, now_ms: int) -> list[Violation]:
        """Whether an approval fits its incident (P3). A cancel has one too. Times are in ms; None is not judged."""
        if approved_at is None:
            return []
        if approved_at > now_ms + SKEW_MS:
            detail = _IN_THE_FUTURE
        elif occurred_at is not None and approved_at < occurred_at:
            detail = "must not be before occurred_at"
        else:
            return []
        return [Violation(problems.NOT_APPROVED, "/approval/approved_at", detail)]

    def _texts(self, claims: Claims) -> Iterator[Violation]:
        return unconfirmed_texts(self.guard, claims.texts, claims.confirm) if claims.confirm is not None else iter(())

    def _not_alertable(self, key: str) -> Violation:
        known = f"{key} is never alerted" if key in self.never else "is not a category of the policy"
        return Violation(problems.CATEGORY_NOT_ALERTABLE, "/category", known)


def _age(claims: Claims, category: Category, now_ms: int) -> Iterator[Violation]:
    if claims.occurred_at is not None and now_ms - claims.occurred_at > category.max_age_ms:
        yield Violation(problems.STALE, "/occurred_at", f"must be at most {category.max_age_s} s ago")


def _expiry(claims: Claims, category: Category, now_ms: int, current: Revision | None) -> Iterator[Violation]:
    """Judge the `expires_at` that was sent, or is taken (P6). The caller has seen that there is one that would do."""
    if claims.occurred_at is None:
        return
    expires_at = claims.expires_at
    if expires_at is None:
        if not claims.takes_default or category.default_age_ms == category.max_age_ms:
            return
        expires_at = claims.occurred_at + category.default_age_ms
    if expires_at < now_ms + category.min_life_ms:
        detail = f"must be at least {category.min_life_s} s ahead" if category.min_life_s else "must be in the future"
    elif expires_at > claims.occurred_at + category.max_age_ms:
        detail = f"must be at most occurred_at + {category.max_age_s} s"
    elif current is not None and expires_at < current.ends_at:
        detail = "must not be earlier than the current revision's: to end an alert early, cancel it"
    else:
        return
    yield Violation(problems.EXPIRY_OUT_OF_RANGE, "/expires_at", detail)


def _no_expiry(
    claims: Claims, category: Category, now_ms: int, current: Revision | None, *, first: bool
) -> Iterator[Violation]:
    """Find out whether no expiry would do: even the latest that the category allows, which is taken if none is sent.

    To change `expires_at` would not help then, so the violation does not point there. In revision 1 it points to
    `occurred_at`; a later revision has to keep that, so there it points to the category.
    """
    if claims.occurred_at is None:
        return
    latest = claims.occurred_at + category.max_age_ms
    ends = f"alerts of this category end at occurred_at + {category.max_age_s} s at the latest"
    if current is not None and latest < current.ends_at:
        detail = f"{ends}, and the current revision ends later: choose one that lasts longer, or cancel"
    elif latest >= now_ms + category.min_life_ms:
        return
    elif not first:
        detail = f"{ends}, which is too soon: choose one that lasts longer, or cancel"
    elif category.min_life_s:
        last = category.max_age_s - category.min_life_s
        detail = f"must be at most {last} s ago, for an alert has to live for {category.min_life_s} s"
    else:
        detail = f"must be less than {category.max_age_s} s ago, or the alert would end at once"
    yield Violation(problems.EXPIRY_OUT_OF_RANGE, "/occurred_at" if first else "/category", detail)


def _radii(claims: Claims, category: Category) -> Iterator[Violation]:
    for pointer, radius_m in claims.radii:
        if not category.min_radius_m <= radius_m <= category.max_radius_m:
            bounds = f"must be {category.min_radius_m:g} to {category.max_radius_m:g} m"
            yield Violation(problems.RADIUS_OUT_OF_RANGE, pointer, bounds)
    for pointer, outline in claims.polygons:
        if not category.min_radius_m <= outline.radius_m <= category.max_radius_m:
            bounds = f"must be {category.min_radius_m:g} to {category.max_radius_m:g} m from its middle to a corner"
            yield Violation(problems.RADIUS_OUT_OF_RANGE, f"{pointer}/coordinates", bounds)


def _polygons(claims: Claims, category: Category) -> Iterator[Violation]:
    if not claims.polygons:
        return
    if not category.polygons:
        for pointer, _ in claims.polygons:
            yield Violation(problems.SHAPE_NOT_ALLOWED, f"{pointer}/type", "must be a circle in this category")
    elif publish_polygons([outline for _, outline in claims.polygons], category.simplify_m) is None:
        detail = f"must have at most {MAX_CORNERS} corners as published"
        if category.simplify_m:
            detail += f", simplified by up to {category.simplify_m} m"
        yield Violation(problems.AREA_TOO_COMPLEX, "/area", detail)


def _area(claims: Claims, category: Category, covered_km2: float | None) -> Iterator[Violation]:
    if claims.confirm is not None and (covered_km2 is not None or category.hold_area_km2 is None):
        yield from unconfirmed_area(covered_km2 or 0.0, category.hold_area_km2, claims.confirm)


def _in_order(violations: list[Violation]) -> list[Violation]:
    """Those of section 2 first (H8), which is A21 alone."""
    return sorted(violations, key=lambda each: each.type is not problems.INVALID_VALUE)


def load(path: Path | None) -> Policy:
    """The policy in the TOML file at `path`, or the built-in one.

    Raises ConfigError, in one line that names the file and the first thing wrong with it.
    """
    try:
        return parse(None if path is None else path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"policy {path}: {error.strerror}") from None


def parse(data: bytes | None, path: Path | None) -> Policy:
    """The policy in the TOML that was read at `path`, or the built-in one. Raises ConfigError, as `load` does."""
    if data is None:
        text = resources.files(__package__).joinpath("policies", f"{BUILT_IN}.toml").read_text("utf-8")
        return Policy.model_validate(tomllib.loads(text))
    try:
        return Policy.model_validate(tomllib.loads(data.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"policy {path}: not TOML: {error}") from None
    except ValidationError as error:
        # A key that is not known comes first: that another one is missing may follow from it.
        found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise ConfigError(*(f"policy {path}: {_problem(each)}" for each in found)) from None


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = Category if error["loc"][0] == "categories" else Policy
        return f"{where}: is no key of a policy{did_you_mean(str(error['loc'][-1]), model.model_fields)}"
    return f"{where}: {error['msg']}" if where else str(error["msg"])
