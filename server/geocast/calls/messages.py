"""The messages to responders about a call.

`call` is the same for everybody, `task` has the exact place, and `standdown` withdraws a call or a task.
"""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Field
from typing_extensions import TypedDict

from ..model.alert import Status
from ..model.call import ExactPlace
from ..model.times import format_time
from ..wire.frames import FORMATS
from ..wire.output import CircleOut, TimeOut
from .aeds import Aeds
from .eligibility import Reason
from .state import CallState, Seat


class CallOut(TypedDict):
    """A call as responders see it. Its only location is `near`, the circle of a cell."""

    id: str
    revision: Annotated[int, Field(ge=1)]
    category: str
    title: str
    headline: str
    status: Status
    source: str
    occurred_at: TimeOut
    issued_at: TimeOut
    expires_at: TimeOut
    answer_s: Annotated[int, Field(ge=1)]
    near: CircleOut


def call_map(call: CallState) -> CallOut:
    """Return a call as responders see it (M21), as JSON. It has neither the exact place nor the assigned responders."""
    opening = call.opening
    return {
        "id": call.id,
        "revision": call.revision,
        "category": opening.category,
        "title": opening.terms.title,
        "headline": opening.headline,
        "status": cast(Status, opening.status),
        "source": opening.source,
        "occurred_at": format_time(opening.occurred_at),
        "issued_at": format_time(opening.issued_at),
        "expires_at": format_time(opening.expires_at),
        "answer_s": opening.terms.answer_s,
        "near": cast(CircleOut, opening.near.to_map()),
    }


def call_message(call: CallState) -> dict[str, Any]:
    """Return the `call` message, which is the same for everybody (M21)."""
    return {"type": "call", "call": call_map(call)}


def task_revision(call: CallState, seat: Seat) -> int:
    """Return the revision of a responder's task (M22).

    It is the number of the entry that assigned the responder, or of the entry that last changed the call's content,
    whichever is later.
    """
    return max(seat.entry_number, call.content)


def task_message(call: CallState, seat: Seat, place: ExactPlace, aeds: Aeds) -> dict[str, Any]:
    """Return the `task` message (M22), which tells an assigned responder the exact place.

    `seat` is the responder's assignment to the call. A defibrillator's access code is sent only to the responder who
    fetches that defibrillator (RI3).
    """
    near = aeds.near(place.lat, place.lng, call.opening.terms.aed_m)
    message: dict[str, Any] = {
        "type": "task",
        "id": call.id,
        "revision": task_revision(call, seat),
        "seat": seat.number,
        "role": seat.role,
        "status": call.opening.status,
        "expires_at": format_time(call.opening.expires_at),
        "place": place.to_map(),
        "aeds": [aed.to_map(with_code=aed.id == seat.aed) for aed in near],
    }
    # If the patient's position was corrected after this responder was assigned, the defibrillator that the responder
    # should fetch may no longer be close to it.
    fetched = [number for number, aed in enumerate(near) if aed.id == seat.aed]
    return message | {"fetch": fetched[0]} if fetched else message


def standdown_message(call_id: str, reason: Reason, rest_until: int | None = None) -> dict[str, Any]:
    """Return the `standdown` message, which withdraws a call or a task (M23).

    `rest_until` is the time until which the responder will get no other calls after having helped at this one (RQ7), in
    ms since 1970. It is None if there is no such time.
    """
    message = {"type": "standdown", "id": call_id, "reason": reason}
    return message if rest_until is None else message | {"rest_until": format_time(rest_until)}


def in_each_format(message: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return a message as a tuple of frames, one for each wire format.

    Sessions that ask for signed alerts get the same frames as the others, because calls are not signed.
    """

    return tuple(wire.frame(message) for wire in FORMATS) * 2
