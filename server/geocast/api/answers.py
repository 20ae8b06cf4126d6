"""The types of the JSON bodies in the api listener's answers.

Routes build these bodies, and the OpenAPI document describes them. At runtime the bodies are plain dicts; mypy checks
that the routes build what the document promises. The types for calls for help are in `calls/dispatcher_view`, and those
for problem documents in `model/problems`. The docstrings appear in the OpenAPI document as descriptions.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, pydantic does not support `typing.TypedDict`

from ..wire.output import AlertOut, AreaOut, TimeOut


class ReachOut(TypedDict):
    """The sum of the areas of an alert's shapes, in km², rounded up. Where shapes overlap, each one counts in full."""

    area_km2: Annotated[float, Field(ge=0)]


class CapAlertOut(TypedDict):
    """An alert that was published from a CAP message. In a dry run, `revision` and `issued_at` are absent."""

    id: str
    revision: NotRequired[int]
    issued_at: NotRequired[TimeOut]
    expires_at: TimeOut
    area: AreaOut


class AcceptedOut(CapAlertOut):
    """A revision that is stored in the log, or the result of a dry run.

    A dry run has no `revision` and no `issued_at`. It has `reach`, the number of `approvals` needed and, if the policy
    names an audience, the `form` for reviewers to sign.
    """

    reach: NotRequired[ReachOut]
    form: NotRequired[str]
    approvals: NotRequired[int]


class CancelledOut(TypedDict):
    """A cancel that is stored in the log, or the result of a dry run.

    A dry run only has `id`, `form` and `approvals`.
    """

    id: str
    revision: NotRequired[int]
    cancelled_at: NotRequired[TimeOut]
    form: NotRequired[str]
    approvals: NotRequired[int]


class CapCancelledOut(TypedDict):
    """An alert that a CAP message cancelled."""

    id: str
    revision: int


CapWord = Literal["published", "updated", "replaced", "cancelled", "repeated", "superseded", "noted", "ignored"]
CapReason = Literal["status", "type", "scope", "all-clear", "event", "ended", "expired"]


class CapOut(TypedDict):
    """The result of processing a CAP message: the outcome, the alerts published or cancelled, and notes."""

    outcome: CapWord
    why: NotRequired[CapReason]
    alerts: list[CapAlertOut]
    cancelled: list[CapCancelledOut]
    notes: list[str]
    areas_left_out: NotRequired[Annotated[int, Field(ge=1)]]


class DeliveryOut(TypedDict):
    """The delivery counts of an alert, summed over all nodes.

    `sent` counts the revisions that were sent to connections, `acked` those that clients acknowledged, and `pushed`
    those that push services accepted for devices. Each revision counts once for each connection or device. The counts
    are rounded unless the token has alerts:audit.
    """

    sent: int
    acked: int
    pushed: int
    rounded: NotRequired[Literal[True]]


StateWord = Literal["live", "cancelled", "expired"]


class StateOut(TypedDict):
    """An alert, its state and its delivery counts.

    The counts of other publishers' alerts are only shown to tokens with alerts:manage.
    """

    state: StateWord
    alert: AlertOut
    delivery: NotRequired[DeliveryOut]


class LiveOut(TypedDict):
    """All live alerts, or one page of them. Within a page, alerts are ordered by time of publication."""

    alerts: list[AlertOut]


class HealthOut(TypedDict):
    """The answer to `/healthz`, which every running process gives, whether or not it is ready."""

    status: Literal["alive"]


class ReadyOut(TypedDict):
    """Whether the node is ready, and the reasons if it is not.

    `degraded` lists problems that don't make it unready. `reads` names the servers from which a log in Redis is read,
    each with the seconds that it is behind the primary.
    """

    status: Literal["ready", "not ready"]
    reasons: NotRequired[list[str]]
    degraded: NotRequired[list[str]]
    reads: NotRequired[Mapping[str, float]]
