"""The dispatch page's connection to the node. It opens, corrects and ends calls, and follows their state.

Rule 1  A record becomes at most one call, whose id is chosen once. If two dispatchers open a call from the same record,
        the second one is told who was first.
Rule 2  A request is sent again with the same bytes until the node answers. Until then, no other decision about the call
        is accepted.
Rule 3  The exact place is kept only in memory. It is needed when a dispatcher corrects it, because the node does not
        return it. It is deleted when the call is over.
Rule 4  A correction names the content that it replaces, so that two dispatchers don't undo each other's corrections.

Only this module has the dispatcher's token.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from client_demo.python.dispatcher import Dispatcher
from client_demo.python.publisher import Answer, PublishError, Refused, Unanswered
from client_demo.python.times import format_time
from client_demo.staff_page.decisions import Conflict, NotAllowed, RequestTasks, Trouble

from .records import Record

LOOK_EVERY_S = 1.0
AGAIN_S = 1.0
RETIMED_BY_MS = 30_000  # a record that is re-timed is treated as if it had happened this long ago
OVER = ("ended", "expired")
STATUSES = ("actual", "exercise", "test")
KINDS = ("public", "residence")
SILENT = "The node does not answer. The requests are being repeated."
MOST_TEXT = 1_000

Form = dict[str, Any]


@dataclass(slots=True)
class CallCase:
    """A call for help on the page.

    It has the record from which it was opened, the last decision and who made it, the request that the node has not
    answered yet, and the state of the call at the node.
    """

    id: str
    record: str | None
    by: str
    form: Form | None = None  # the last form, with the place; None after the end, or if opened elsewhere
    sent: dict[str, Any] = field(default_factory=dict)  # the pending request, with the place
    pending: str = ""  # open, correct, end
    near: Mapping[str, Any] | None = None
    state: Answer | None = None
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def is_call(self) -> bool:
        """Whether the node has the call, or is being asked to open it.

        If not, another call may be opened from the record.
        """
        return self.state is not None or bool(self.pending)

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self.state is not None and self.state["state"] in OVER


class CallControl:
    """Sends dispatchers' decisions to the node, and follows the state of their calls there.

    `status` (actual, exercise or test) is the status of a call whose record has none. If `retimes` is True, a call is
    dated half a minute ago, instead of with its record's own time. `changed` is called whenever the page must be
    updated.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        records: Sequence[Record],
        categories: Mapping[str, Mapping[str, Any]],
        *,
        status: str,
        retimes: bool,
        changed: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        self.records = {record.key: record for record in records}
        self.categories, self.status, self.retimes = categories, status, retimes
        self.cases: dict[str, CallCase] = {}
        self.trouble = ""  # the problem with the node, or ""
        self._dispatcher, self._changed, self._clock = dispatcher, changed, clock
        self._requests = RequestTasks()

    # ---- decisions of dispatchers --------------------------------------------------------------------------

    def open(self, key: str, form: Form, by: str) -> CallCase:
        """Open a call from a record.

        Raise Conflict if somebody else was first, and NotAllowed if there is a reason against it.
        """
        record = self.records.get(key)
        if record is None:
            raise Conflict("This record is not on the list.")
        known = next((case for case in self.cases.values() if case.record == key), None)
        if known is not None and known.is_call:
            raise Conflict(f"{known.by} was first: a call was opened from this record.")
        if record.obstacle:
            raise NotAllowed([Trouble("", record.obstacle)])
        _require(form)
        if record.status is not None and form["status"] == "actual":
            raise NotAllowed([Trouble("status", f"The record says {record.nature}: this can't be a call for real.")])
        case = known or CallCase(uuid.uuid4().hex, key, by)
        self.cases[case.id] = case
        at = self._clock() - RETIMED_BY_MS if self.retimes else record.recorded_at
        assert at is not None, "a record without a time has an obstacle"
        body = {"id": case.id, **_said(form), "occurred_at": format_time(at)}
        self._begin(case, "open", form, body, by)
        return case

    def correct(self, call_id: str, content: int, form: Form, by: str) -> CallCase:
        """Replace the place or the text of a call.

        Raise Conflict if somebody else was first, and NotAllowed if the form is not complete.
        """
        case = self._open_case(call_id)
        assert case.state is not None
        if content != case.state["content"]:
            raise Conflict(f"{case.by} has corrected this meanwhile. Look at it again.")
        _require(form)
        call = case.state["call"]
        body = {"id": case.id, **_said(form), "occurred_at": call["occurred_at"], "replaces": content}
        self._begin(case, "correct", form, body, by)
        return case

    def end(self, call_id: str, reason: str, by: str) -> CallCase:
        """End a call, so that all responders are told to stop.

        Raise Conflict if somebody else was first, and NotAllowed if `reason` is empty.
        """
        case = self._open_case(call_id)
        if not reason.strip():
            raise NotAllowed([Trouble("reason", "Say why: the crew is there, or nobody needs help.")])
        self._begin(case, "end", case.form, {"reason": reason}, by)
        return case

    def _open_case(self, call_id: str) -> CallCase:
        case = self.cases.get(call_id)
        if case is None or case.state is None or case.is_over:
            raise Conflict("This call is over.")
        if case.pending:
            raise Conflict(f"{case.by} has just decided something about this call.")
        return case

    async def answered(self, case: CallCase, most_s: float) -> None:
        """Wait until the node has answered the call's request, but at most `most_s` seconds."""
        await self._requests.answered(case.id, most_s)

    # ---- sending requests to the node ----------------------------------------------------------------------

    def _begin(self, case: CallCase, what: str, form: Form | None, body: dict[str, Any], by: str) -> None:
        case.pending, case.sent, case.by, case.troubles = what, body, by, []
        self._requests.start(case.id, lambda: self._until_answered(case, form))
        self._changed()

    async def _until_answered(self, case: CallCase, form: Form | None) -> None:
        while case.pending:
            await self._attempt(case, form)
        self._changed()

    async def _attempt(self, case: CallCase, form: Form | None) -> None:
        try:
            answer = await self._call(case)
            case.near, case.form = answer.get("near", case.near), form
            await self._look_at(case)
        except Refused as refusal:
            case.troubles = troubles(refusal)
        except Unanswered:
            self._tell_node(SILENT)
            await asyncio.sleep(AGAIN_S)
            return
        case.pending, case.sent = "", {}

    def _call(self, case: CallCase) -> Coroutine[Any, Any, Answer]:
        body = case.sent
        match case.pending:
            case "open":
                return self._dispatcher.open_call(body)
            case "correct":
                call = {name: value for name, value in body.items() if name != "replaces"}
                return self._dispatcher.revise_call(call, body["replaces"])
            case _:
                return self._dispatcher.end_call(case.id, body["reason"])

    # ---- following the calls at the node -------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the open calls, including those from before a restart, until cancelled."""
        try:
            while True:
                try:
                    await self._find_open()
                    self._tell_node("")
                except Unanswered:
                    self._tell_node(SILENT)
                except PublishError:
                    pass  # the calls of this page are followed all the same
                for case in [case for case in self.cases.values() if case.state is not None and not case.is_over]:
                    with contextlib.suppress(Unanswered):
                        await self._look_at(case)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._requests.cancel()

    async def _find_open(self) -> None:
        """Add the organisation's open calls that are not on the page yet.

        They are from before a restart, or were opened elsewhere.
        """
        for state in await self._dispatcher.calls():
            call_id = state["call"]["id"]
            if call_id not in self.cases:
                self.cases[call_id] = CallCase(call_id, None, "", near=state["call"]["near"], state=state)
                self._changed()

    async def _look_at(self, case: CallCase) -> None:
        try:
            state = await self._dispatcher.call_state(case.id)
        except Refused:
            return  # the node no longer knows the call, which ended a day ago
        except Unanswered:
            self._tell_node(SILENT)
            raise
        self._tell_node("")
        if state != case.state:
            case.state, case.near = state, state["call"]["near"]
            if case.is_over:
                case.form = None  # the place is deleted at the end (Rule 3)
            self._changed()

    def _tell_node(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._changed()


# ---- reading the form --------------------------------------------------------------------------------------------


def read_form(sent: Mapping[str, Any]) -> Form:
    """Return the form that the dispatcher has filled in, as the page has sent it.

    Its values are texts, and numbers or None. Raise ValueError if there are other values.
    """
    form: Form = {}
    for name in ("category", "status", "headline", "kind", "address", "access", "callback_phone"):
        form[name] = read_text(name, sent.get(name, ""))
    for name, most in (("lat", 90), ("lng", 180)):
        value = form[name] = sent.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most
        ):
            raise ValueError(f"{name}: a number of -{most} to {most} is expected")
    return form


def read_text(name: str, value: object) -> str:
    """Return a text without the spaces around it.

    Raise ValueError if the value is not a text, or has lone surrogates.
    """
    if isinstance(value, str) and len(value) <= MOST_TEXT and value.encode("utf-8", "replace").decode() == value:
        return value.strip()
    raise ValueError(f"{name}: a text of at most {MOST_TEXT} characters is expected")


def _require(form: Form) -> None:
    """Raise NotAllowed, with the reasons, unless the dispatcher has filled in all required fields of the form."""
    lacks = []
    if not form["headline"]:
        lacks.append(Trouble("headline", "Say in a few words what has happened: no address, no name."))
    if form["kind"] not in KINDS:
        lacks.append(Trouble("kind", "Is it a home or a public place? Who may be called depends on it."))
    if form["status"] not in STATUSES:
        lacks.append(Trouble("status", "Choose what it is: for real, an exercise or a test."))
    if form["lat"] is None or form["lng"] is None:
        lacks.append(Trouble("place", "Say exactly where, in degrees, or drag the mark."))
    if lacks:
        raise NotAllowed(lacks)


def _said(form: Form) -> dict[str, Any]:
    """Return the fields of a call that the dispatcher has filled in, formatted as the node expects them."""
    names = ("lat", "lng", "kind", "address", "access", "callback_phone")
    place = {name: form[name] for name in names if form[name] not in ("", None)}
    return {**{name: form[name] for name in ("category", "headline", "status")}, "place": place}


_FIELDS = {"/headline": "headline", "/place/kind": "kind", "/category": "category", "/status": "status"}
_FIELDS |= {"/place/lat": "place", "/place/lng": "place"}
_FIELDS |= {f"/place/{name}": name for name in ("address", "access", "callback_phone")}


def troubles(refusal: Refused) -> list[Trouble]:
    """Return the reasons why the node has refused a request.

    Each is a sentence, with the field of the form that it concerns.
    """
    errors = refusal.problem.get("errors")
    if not isinstance(errors, list) or not errors:
        return [Trouble("", "; ".join(refusal.lines))]
    return [
        Trouble(_FIELDS.get(str(error.get("pointer")), ""), str(error.get("detail") or error.get("title") or "refused"))
        for error in errors
    ]
