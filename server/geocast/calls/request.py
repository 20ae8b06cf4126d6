"""The requests that a dispatcher sends about a call, and the circle that is published instead of the exact place.

    body ── parse_call ──> RequestedCall    has the exact place, for the encrypted part of an entry
                               │ .near(resolution, held)
                               v
                             Circle         the circle around the H3 cell that contains the place

Rule 1  The exact place is written only into the encrypted part of an entry: no answer, log line or error contains it
        (RZ2). For the same reason, the `repr` of a request does not show it.
Rule 2  The circle depends only on the cell, according to the rules for the circles of alerts (RZ6; B1, B2, B11).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

from ..geometry.sphere import publish_area
from ..model.alert import Circle, Status
from ..model.call import ExactPlace, PlaceKind
from ..model.problems import Violation
from ..wire.fields import (
    Headline,
    Id,
    Latitude,
    Lines,
    Longitude,
    Phone,
    RevisionNumber,
    StrictModel,
    Text,
    Time,
    usable,
)
from ..wire.requests import TIME, PolicyFacts, Reason, id_mismatch, validated

_Model = TypeVar("_Model", bound=StrictModel)


# ---- the bodies of requests; their fields are in the order of the table in the protocol ----------------------------


class PlaceRequest(StrictModel):
    """The exact place where help is needed, in degrees, and how to get there. Only assigned responders are shown it."""

    lat: Latitude
    lng: Longitude
    kind: PlaceKind
    address: Annotated[Lines, Field(min_length=1, max_length=200)] = ""
    access: Annotated[Lines, Field(min_length=1, max_length=500)] = ""
    callback_phone: Phone = ""


class CallRequest(StrictModel):
    """The body of `POST /v1/calls`. An optional field that is absent has its default value here."""

    id: Id
    category: Text
    headline: Headline
    status: Status = "actual"
    occurred_at: Time
    expires_at: Time = 0
    place: PlaceRequest


class ContentRequest(CallRequest):
    """The body of `POST /v1/calls/{id}/revisions`: the whole call, and the number of the content that it replaces."""

    id: Id = ""  # optional here, because the path has the id
    replaces: RevisionNumber


class EndRequest(StrictModel):
    """The body of `POST /v1/calls/{id}/end`: the reason, which is stored encrypted and sent to nobody."""

    reason: Reason


# ---- checked requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A well-formed request to open a call, or to give it new content.

    Times are in ms since 1970. `expires_at` is None if the request has none. `replaces` is 0 if the request opens a
    call.
    """

    id: str
    category: str
    headline: str = field(repr=False)
    status: Status
    occurred_at: int
    expires_at: int | None
    place: ExactPlace = field(repr=False)
    replaces: int = 0

    def near(self, resolution: int, held: Circle | None) -> Circle:
        """Return the circle that is published instead of the exact place (RZ6).

        `held` is the circle that was published with the previous content of the call, or None if there is none.
        """
        before = [] if held is None else [(held.lat, held.lng, held.radius_m)]
        [disc] = publish_area([(self.place.lat, self.place.lng, 0.0)], resolution, before)
        return Circle(*disc)

    def facts(self) -> PolicyFacts:
        """Return what the policy needs to know about the request in order to check it."""
        return PolicyFacts(
            category=self.category,
            occurred_at=self.occurred_at,
            expires_at=self.expires_at,
            takes_default=self.expires_at is None,
        )


def parse_call(body: Mapping[str, Any]) -> RequestedCall:
    """Return the parsed request to open a call.

    `body` is the result of `strict_json.load_json`. Raise Invalid if the body breaks a rule.
    """
    return _requested(_validate(CallRequest, body))


def parse_content(body: Mapping[str, Any], call_id: str) -> RequestedCall:
    """Return the parsed request to give the call `call_id` new content.

    Raise Invalid if the body breaks a rule, or has the id of another call.
    """
    model = _validate(ContentRequest, body, id_mismatch(body, call_id))
    return _requested(model.model_copy(update={"id": call_id}))


def parse_end(body: Mapping[str, Any]) -> str:
    """Return the reason that a request to end a call gives. Raise Invalid if the body breaks a rule."""
    return _validate(EndRequest, body).reason


def _validate(model: type[_Model], body: Mapping[str, Any], broken: Sequence[Violation] = ()) -> _Model:
    return validated(model, body, broken, lambda: _usable_facts(body))


def _requested(model: CallRequest) -> RequestedCall:
    place = model.place
    texts = (text or None for text in (place.address, place.access, place.callback_phone))
    # Adding 0.0 turns -0.0 into 0.0 (L3), and changes no other number.
    changed: dict[str, Any] = {"place": ExactPlace(place.lat + 0.0, place.lng + 0.0, place.kind, *texts)}
    if "expires_at" not in model.model_fields_set:
        changed["expires_at"] = None
    return RequestedCall(**dict(model) | changed)


# ---- what the policy can check in a body with errors ---------------------------------------------------------------


_CATEGORY: TypeAdapter[str] = TypeAdapter(Text, config=ConfigDict(strict=True))


def _usable_facts(body: Mapping[str, Any]) -> PolicyFacts:
    return PolicyFacts(
        category=usable(_CATEGORY, body.get("category")),
        occurred_at=usable(TIME, body.get("occurred_at")),
        expires_at=usable(TIME, body.get("expires_at")),
        takes_default="expires_at" not in body,
    )
