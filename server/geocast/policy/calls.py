"""The categories of calls for help: the keys of each table in `[calls]`, their defaults and limits.

A call is refused if its category is not in `[calls]`, as an alert is refused if its category is not in `[categories]`
(rule RO1).
"""

import re
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from ..model.alert import FINEST_RESOLUTION
from ..model.call import CallTerms, PlaceKind, Role
from ..model.qualifications import MAX_QUALS
from ..model.toml_file import matching
from .ages import Lasting
from .cap import STRICT
from .category import Title

MOST_CALL_AGE_S = 7_200
MOST_ENOUGH = 1_000


def _rising(radii: list[int]) -> list[int]:
    if any(wider <= narrower for narrower, wider in pairwise(radii)):
        raise PydanticCustomError("rings", "must rise: each must be greater than the one before")
    return radii


_Qual = Annotated[str, matching(re.compile("[a-z0-9_]{1,32}"), "must have 1 to 32 of a-z, 0-9 and _")]
Quals = Annotated[list[_Qual], Field(min_length=1, max_length=MAX_QUALS)]
_Rings = Annotated[
    list[Annotated[int, Field(ge=50, le=20_000)]], Field(min_length=1, max_length=16), AfterValidator(_rising)
]
_Seats = Annotated[list[Role], Field(min_length=1, max_length=16)]


class CallCategory(BaseModel):
    """The limits of one category of calls: which responders are notified, how far away, and how many are assigned.

    The assignment of one responder is called a seat. Ages and times are in seconds, `rings_m` and `aed_m` in metres. If
    fewer than `enough` responders were notified and have not declined, the search radius grows at once to the next of
    `rings_m`. Otherwise it grows after `answer_s`. `location_resolution` is the H3 resolution of the cell that
    responders without a seat are shown (rule RZ6). `residence_quals` are the qualifications for calls to a residence,
    and `quals` those for public places; `residence_quals` defaults to `quals`.
    """

    model_config = STRICT

    title: Title
    max_age_s: Annotated[int, Field(gt=0, le=MOST_CALL_AGE_S)] = 1_800
    location_resolution: Annotated[int, Field(ge=0, le=FINEST_RESOLUTION)] = 9
    quals: Quals
    residence_quals: Quals | None = None
    rings_m: _Rings = [100, 300, 500, 750, 1_000, 1_500]
    enough: Annotated[int, Field(ge=1, le=MOST_ENOUGH)] = 7
    seats: _Seats = ["cpr", "aed", "cpr", "aed"]
    answer_s: Annotated[int, Field(ge=5, le=300)] = 30
    rest_s: Annotated[int, Field(ge=0, le=86_400)] = 3_600
    aed_m: Annotated[int, Field(ge=0, le=5_000)] = 800

    @property
    def lasting(self) -> Lasting:
        """The limits of the age of an incident, and of the expiry of the call about it.

        A call without an expiry lasts for the longest time that is allowed.
        """
        return Lasting(self.max_age_s, self.max_age_s)

    def terms(self, kind: PlaceKind) -> CallTerms:
        """Return the values of this category that are stored with a call to a place of this kind (rule RO3)."""
        quals = self.quals if kind == "public" or self.residence_quals is None else self.residence_quals
        return CallTerms(**self.model_dump(exclude={"residence_quals"}) | {"quals": list(quals)})
