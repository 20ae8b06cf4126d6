"""The answers of the api listener, as types: routes make them and the OpenAPI document describes them.

They are maps at runtime; mypy compares what is made with what is documented. The answers to calls for help are in
`calls/dispatcher_view`, and those that are problems in `model/problems`. Docstrings stand in the document as
descriptions.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on

from ..wire.output import AlertOut, AreaOut, TimeOut


class ReachOut(TypedDict):
    """How far an alert goes: the areas of its shapes, in km², rounded up; what they share counts for each."""

    area_km2: Annotated[float, Field(ge=0)]


class AcceptedOut(TypedDict):
    """A revision that is in the log. Of a dry run there is no `revision` and no `issued_at`, but `reach`, the `form`
    that reviewers are to sign (where the policy names an audience), and how many `approvals` it takes.
    """

    id: str
    revision: NotRequired[int]
    issued_at: NotRequired[TimeOut]
    expires_at: TimeOut
    area: AreaOut
    reach: NotRequired[ReachOut]
    form: NotRequired[str]
    approvals: NotRequired[int]


class CancelledOut(TypedDict):
    """A cancel that is in the log. Of a dry run there is `form` and `approvals`, and of the rest the `id` alone."""

    id: str
    revision: NotRequired[int]
    cancelled_at: NotRequired[TimeOut]
    form: NotRequired[str]
    approvals: NotRequired[int]


class CapAlertOut(TypedDict):
    """An alert that a message of CAP became. Of a dry run there is no `revision` and `issued_at`."""

    id: str
    revision: NotRequired[int]
    issued_at: NotRequired[TimeOut]
    expires_at: TimeOut
    area: AreaOut


class CapCancelledOut(TypedDict):
    """An alert that a message of CAP has cancelled."""

    id: str
    revision: int


CapWord = Literal["published", "updated", "replaced", "cancelled", "repeated", "superseded", "noted", "ignored"]
CapReason = Literal["status", "type", "scope", "all-clear", "event", "ended", "expired"]


class CapOut(TypedDict):
    """What became of a message of CAP: an outcome, the alerts that it is, and what was put right in it."""

    outcome: CapWord
    why: NotRequired[CapReason]
    alerts: list[CapAlertOut]
    cancelled: list[CapCancelledOut]
    notes: list[str]
    areas_left_out: NotRequired[Annotated[int, Field(ge=1)]]


class DeliveryOut(TypedDict):
    """(connection, revision) pairs handed over by all nodes, those acknowledged, and the (device, revision) pairs that
    push services took; rounded without alerts:audit.
    """

    sent: int
    acked: int
    pushed: int
    rounded: NotRequired[Literal[True]]


StateWord = Literal["live", "cancelled", "expired"]


class StateOut(TypedDict):
    """An alert, whether it is live, and how far it got: that of others' alerts with alerts:manage only."""

    state: StateWord
    alert: AlertOut
    delivery: NotRequired[DeliveryOut]


class LiveOut(TypedDict):
    """Alerts that are live now: all, or a page of them. In a page they are in the order of publication."""

    alerts: list[AlertOut]


class HealthOut(TypedDict):
    """The process is alive and answers."""

    status: Literal["alive"]


class ReadyOut(TypedDict):
    """Whether the node is ready, and if not, why; and what does not work though it is."""

    status: Literal["ready", "not ready"]
    reasons: NotRequired[list[str]]
    degraded: NotRequired[list[str]]
