"""A category of alerts in a policy: its keys, their defaults and their limits."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from ..geometry.published_polygon import TOLERANCES_M
from ..model.alert import FINEST_RESOLUTION, AcceptedTerms, Revision, Severity
from ..wire.requests import MAX_AREA_KM2
from .ages import Lasting
from .cap import CATEGORY, STRICT, CapCategory, Mappings

MOST_AGE_S = 7 * 86_400  # a week
MOST_RADIUS_M = 20_100_000

Title = Annotated[str, Field(min_length=1, max_length=140)]
_Approvals = Annotated[int, Field(ge=0, le=2)]
_RadiusM = Annotated[float, Field(gt=0, le=MOST_RADIUS_M)]


class Category(BaseModel):
    """The limits of one category of alerts.

    Radii are in metres, ages and other times in seconds.

    `location_resolution` is the H3 resolution of the cells at whose centres circles are published. `polygons` says
    whether polygons are allowed, and `simplify_m` is how far they may be simplified, in metres. `hold_area_km2` is the
    largest area that needs no confirmation (P23). `default_age_s` defaults to `max_age_s`.

    Four keys are about CAP. `cap` has the mappings of CAP events to this category (P13), and `cap_category` is the
    category's name in the CAP messages of this node's feed. `zero_radius_m` is the radius for a circle without one, and
    `unknown_severity` is the severity for a message without one.

    Three keys are about reviewers. `approvals` and `cancel_approvals` are the numbers of reviewers who must sign an
    alert and a cancel (AP5). `cancel_approvals` defaults to 1 if alerts are signed. `approval_max_age_s` is the largest
    age of a signature (AP4).
    """

    model_config = STRICT

    title: Title
    min_radius_m: _RadiusM = 100
    max_radius_m: _RadiusM = 20_000
    max_age_s: Annotated[int, Field(gt=0, le=MOST_AGE_S)] = 3_600
    min_life_s: Annotated[int, Field(ge=0, lt=MOST_AGE_S)] = 0
    default_age_s: Annotated[int, Field(gt=0, le=MOST_AGE_S)] = 3_600
    location_resolution: Annotated[int, Field(ge=0, le=FINEST_RESOLUTION)] = 9
    polygons: bool = False
    simplify_m: Annotated[int, Field(ge=0, le=TOLERANCES_M[-1])] = 0
    hold_area_km2: Annotated[float, Field(gt=0, le=MAX_AREA_KM2)] | None = None
    cap: Mappings = []
    cap_category: CapCategory | None = None
    zero_radius_m: _RadiusM | None = None
    unknown_severity: Severity = "moderate"
    approvals: _Approvals = 0
    cancel_approvals: _Approvals = 0
    approval_max_age_s: Annotated[int, Field(gt=0, le=MOST_AGE_S)] = 900

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, keys: Any) -> Any:
        """Set the default of `default_age_s` to the value of `max_age_s`, and that of `cancel_approvals` to 1.

        If `max_age_s` is invalid, it is not copied, so that only one error is reported. The default of
        `cancel_approvals` is only 1 if alerts of this category are signed. It is not 2, because a cancel has to be
        quick.
        """
        if not isinstance(keys, dict):
            return keys
        max_age_s, defaults = keys.get("max_age_s"), {}
        if type(max_age_s) is int and 0 < max_age_s <= MOST_AGE_S:
            defaults["default_age_s"] = max_age_s
        if keys.get("approvals") in (1, 2):
            defaults["cancel_approvals"] = 1
        return defaults | keys

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Category":
        wrong = {
            "min_radius_m is greater than max_radius_m": self.min_radius_m > self.max_radius_m,
            "min_life_s is not less than max_age_s, so nothing could be published": self.min_life_s >= self.max_age_s,
            "default_age_s is greater than max_age_s": self.default_age_s > self.max_age_s,
            "zero_radius_m is not between min_radius_m and max_radius_m, so it could not be published": (
                self.zero_radius_m is not None and not self.min_radius_m <= self.zero_radius_m <= self.max_radius_m
            ),
        }
        if any(wrong.values()):
            raise ValueError("\n".join(why for why, is_so in wrong.items() if is_so))
        return self

    @property
    def lasting(self) -> Lasting:
        """The limits of an incident's age, and of the expiry of the alert about it."""
        return Lasting(self.max_age_s, self.default_age_s, self.min_life_s)

    def cap_name(self) -> str | None:
        """Return the CAP category that this category's alerts have in the feed of CAP messages; None if it has none.

        It is the first CAP category among the mappings in `cap`; or, if there is none, the value of `cap_category`.
        """
        mapped = (mapping.removeprefix(CATEGORY) for mapping in self.cap if mapping.startswith(CATEGORY))
        return next(mapped, self.cap_category)

    def terms(self, current: Revision | None = None) -> AcceptedTerms:
        """Return those values of this category that are stored with an accepted alert.

        `current` is the revision that the alert follows; None if the alert is revision 1. The H3 resolution of
        `current` is kept (rule B1).
        """
        resolution = self.location_resolution if current is None else current.terms.location_resolution
        return AcceptedTerms(self.title, self.lasting.default_age_ms, resolution, simplify_m=self.simplify_m)
