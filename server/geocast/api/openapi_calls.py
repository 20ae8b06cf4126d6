"""What the OpenAPI document says of the calls that `routes_calls.py` serves, as `openapi.py` does of the others."""

from ..calls.dispatcher_view import CallAcceptedOut, CallEndedOut, CallsOut, CallStateOut
from ..calls.request import CallRequest, ContentRequest, EndRequest
from .openapi import ID_SCHEMA, READ, SECURITY, WRITE, answer, described, json_body, problems_of

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
