"""What the OpenAPI document says of the calls that `routes_calls.py` serves, as `openapi.py` does of the others."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ..calls.request import CallRequest, ContentRequest, EndRequest
from ..model.alert import Status
from ..model.call import Role, SeatState
from .openapi import ID_SCHEMA, READ, SECURITY, WRITE, CircleOut, TimeOut, answer, described, json_body, problems_of

Number = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class CallAcceptedOut(BaseModel):
    """Content of a call that is in the log. `headline` is there if the title is rung in its place."""

    id: str
    revision: Number
    issued_at: TimeOut
    expires_at: TimeOut
    near: CircleOut
    headline: Literal["replaced"] = "replaced"


class CallEndedOut(BaseModel):
    """The end of a call, which is in the log."""

    id: str
    revision: Number
    ended_at: TimeOut


class CallOut(BaseModel):
    """A call as it is rung: `near` is the circle of a cell, and there is no other place in it."""

    id: str
    revision: Number
    category: str
    title: str
    headline: str
    status: Status
    source: str
    occurred_at: TimeOut
    issued_at: TimeOut
    expires_at: TimeOut
    answer_s: Number
    near: CircleOut


class SeatOut(BaseModel):
    """A seat that a responder holds. Its number is 0 if it is one more than there are (RV7)."""

    seat: Count
    role: Role
    responder: str
    state: SeatState
    accepted_at: TimeOut
    changed_at: TimeOut = ""
    eta_s: Count = 0
    aed: str = ""


class LeftOut(BaseModel):
    """Who has given a seat back, and when it was taken. They were told where it is, too (RZ8)."""

    responder: str
    accepted_at: TimeOut
    left_at: TimeOut


class CallStateOut(BaseModel):
    """A call, how far it rings (metres), how many sessions were rung, have shown it and have declined, and who goes.

    `content` is what `replaces` has to be in new content.
    """

    state: Literal["ringing", "full", "ended", "expired"]
    content: Number
    call: CallOut
    ring_m: Number
    rung: Count
    seen: Count
    declined: Count
    seats: list[SeatOut]
    left: list[LeftOut] = []


class CallsOut(BaseModel):
    """The open calls of a dispatcher, in the order in which they were opened."""

    calls: list[CallStateOut]


_CALL_ID = {"name": "call_id", "in": "path", "required": True, "schema": ID_SCHEMA}
_LINKS = {
    "links": {
        name: {"operationId": name, "parameters": {"call_id": "$response.body#/id"}}
        for name in ("get_call", "revise_call", "end_call")
    }
}

OPEN = described(
    "Call responders",
    operation_id="open_call",
    tags=["calls"],
    status_code=201,
    openapi_extra={"security": SECURITY, **json_body(CallRequest)},
    responses={
        200: answer(CallAcceptedOut, "Opened before, with the same content"),
        201: answer(CallAcceptedOut, "On stable storage") | _LINKS,
        **WRITE,
        **problems_of(409, 410),
    },
)
REVISE = described(
    "Correct a call",
    operation_id="revise_call",
    tags=["calls"],
    status_code=201,
    openapi_extra={"security": SECURITY, "parameters": [_CALL_ID], **json_body(ContentRequest)},
    responses={
        200: answer(CallAcceptedOut, "Sent before, with the same content"),
        201: answer(CallAcceptedOut, "On stable storage"),
        **WRITE,
        **problems_of(404, 409, 410),
    },
)
END = described(
    "End a call",
    operation_id="end_call",
    tags=["calls"],
    status_code=201,
    openapi_extra={"security": SECURITY, "parameters": [_CALL_ID], **json_body(EndRequest)},
    responses={
        200: answer(CallEndedOut, "Ended before"),
        201: answer(CallEndedOut, "On stable storage"),
        **WRITE,
        **problems_of(404),
    },
)
GET = described(
    "A call's state, and who goes",
    operation_id="get_call",
    tags=["calls"],
    openapi_extra={"security": SECURITY, "parameters": [_CALL_ID]},
    responses={200: answer(CallStateOut, "Known"), **READ, **problems_of(404, 422)},
)
LIST = described(
    "The open calls",
    operation_id="list_calls",
    tags=["calls"],
    openapi_extra={"security": SECURITY},
    responses={200: answer(CallsOut, "One's own; with alerts:manage all"), **READ, **problems_of(422)},
)
BODIES = (CallRequest, ContentRequest, EndRequest)
ANSWERS = (CallAcceptedOut, CallEndedOut, CallStateOut, CallsOut)
