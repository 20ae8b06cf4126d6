"""The part of the OpenAPI document that describes the routes for calls for help.

`openapi.py` describes the other routes.
"""

from functools import partial

from ..calls.dispatcher_view import CallAcceptedOut, CallEndedOut, CallsOut, CallStateOut
from ..calls.request import CallRequest, ContentRequest, EndRequest
from .openapi import answers_to_read, answers_to_write, described, in_path, links

_described = partial(described, tag="calls")
_CALL_ID = in_path("call_id")

OPEN = _described(
    "open_call",
    "Call responders",
    answers_to_write(
        CallAcceptedOut,
        "Opened before, with the same content",
        409,
        410,
        linked=links("call_id", "get_call", "revise_call", "end_call"),
    ),
    body=CallRequest,
)
REVISE = _described(
    "revise_call",
    "Correct a call",
    answers_to_write(CallAcceptedOut, "Sent before, with the same content", 404, 409, 410),
    _CALL_ID,
    body=ContentRequest,
)
END = _described(
    "end_call", "End a call", answers_to_write(CallEndedOut, "Ended before", 404), _CALL_ID, body=EndRequest
)
GET = _described(
    "get_call", "A call's state, and its responders", answers_to_read(CallStateOut, "Known", 404, 422), _CALL_ID
)
LIST = _described(
    "list_calls",
    "The open calls",
    answers_to_read(CallsOut, "The caller's own calls, or all calls with alerts:manage", 422),
)
BODIES = (CallRequest, ContentRequest, EndRequest)
ANSWERS = (CallAcceptedOut, CallEndedOut, CallStateOut, CallsOut)
