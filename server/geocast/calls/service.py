"""Decisions about calls: opening, changing and ending them, and giving seats. Nothing here knows HTTP or sessions.

A seat is a responder's assignment to a call. The chain of a call is all its entries in the log, numbered from 1. Every
decision is made from the whole chain, not only from the part that this node has read so far (H6). If another writer was
faster, the decision is made again (RV2, `alertlog.optimistic`):

    history of the id, decrypted <───────────────────────┐
      │  it has what was asked for already: answer so    │ another writer has taken
      │  the request breaks a rule: Problem or refusal   │ the number
      v                                                  │
    an encrypted entry with the next number ── append ───┘ ── stored

Example: a call has one free seat, and two responders accept at nodes A and B at once. Both nodes read four entries, and
both append a fifth one that gives the seat away. Node A's is stored. Node B's is refused by the log, so node B reads
five entries, finds no free seat, and answers "full". So no seat is ever given twice.

Rule 1  An entry that can't be decrypted has no effect, except that its number is taken. So somebody who writes rubbish
        into the log can't keep a dispatcher from ending a call. But a seat is given only if the whole chain can be
        decrypted: the unreadable entry may be the one that gave the seat to somebody else (RV2).
Rule 2  The exact place is decrypted for two purposes only: to compare it with that of a repeated request, and to choose
        a defibrillator. Nothing that is returned, raised or counted here contains the place (RZ2, RZ4).
Rule 3  A call belongs to the dispatcher who opened it, identified by issuer and `sub` (HD5). Every later content keeps
        this opener as `source`. If another dispatcher has sent a content, its `by` names this dispatcher.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..alertlog import AlertLog
from ..alertlog.optimistic import OptimisticWriter, Plan
from ..auth.tokens import Requester
from ..clock import Clock, Now
from ..model import problems
from ..model.alert import Entry, OtherKind
from ..model.call import (
    Acceptance,
    Body,
    CallEntry,
    CallTerms,
    Ending,
    ExactPlace,
    Nothing,
    Opening,
    Person,
    Reason,
    Release,
    Report,
    Role,
    SeatState,
    Secret,
    Widening,
)
from ..model.errors import LogUnavailable
from ..model.problems import Problem, Violation
from ..policy import Policy
from ..policy.ages import Lasting
from ..wire.requests import Invalid, PolicyFacts
from .aeds import NO_AEDS, Aeds, fetch_of
from .decrypted_chain import DecryptedChain, opened_chain, sealed
from .dispatcher_view import CallAcceptedOut, CallEndedOut, CallStateOut, content_answer, end_answer, state_map
from .eligibility import Refusal, SeatRequest, is_wanted, refusal
from .encryption import CallKeys
from .openers import Openers
from .request import RequestedCall, parse_call, parse_content, parse_end
from .state import CallState, Seat

RESERVED = "cap."  # the prefix of the ids of alerts from CAP messages
MOST_RETURNS = 20  # a responder who has given back this number of seats of one call gets no more
REPORT_MS = 5_000  # a report is dropped if the seat's last one was less than this time ago (M20)
_OVERTAKEN = "this call is being written by others, or its last entry can't be read"


class CallOutcome(NamedTuple):
    """The result of a dispatcher's request: the answer, and whether this request has stored an entry.

    If `created` is True, this request has stored the entry (201). Otherwise, an earlier request with the same content
    has stored it (200).
    """

    answer: CallAcceptedOut | CallEndedOut
    created: bool


@dataclass(eq=False, repr=False)
class CallService:
    """Makes all decisions about calls that dispatchers, or the responders of this process, ask for.

    The methods for dispatchers raise Problem if the request is refused. All methods raise LogUnavailable if the outcome
    is unknown, for instance because this node can't decrypt the entries.

    The entries of calls are encrypted with the first of `keys`. `appended` is called with each entry that was stored,
    to wake the processes that follow the log. `aeds` are the defibrillators that responders can fetch. `openers` counts
    the open calls of each dispatcher.
    """

    log: AlertLog
    policy: Policy
    keys: CallKeys
    clock: Clock
    appended: Callable[[CallEntry], None] = lambda _entry: None
    aeds: Aeds = NO_AEDS
    openers: Openers | None = None

    def __post_init__(self) -> None:
        self._writer = OptimisticWriter[CallEntry](self.log, self.appended, _OVERTAKEN)
        self._openers = self.openers or Openers(self.log, 1.0)

    def with_config(self, policy: Policy, keys: CallKeys) -> "CallService":
        """Return a copy of this service with another policy and other keys. Requests in progress keep the old ones."""
        return replace(self, policy=policy, keys=keys, openers=self._openers)

    # ---- requests from dispatchers ------------------------------------------------------------------------------

    async def open(self, body: Mapping[str, Any], dispatcher: Requester) -> CallOutcome:
        """Open a call. If an earlier, equal request has opened it already, return the same answer as then."""
        try:
            request = parse_call(body)
        except Invalid as invalid:
            judged = self.policy.call_violations(invalid.facts(), self._now_ms())
            raise Problem.of([*invalid.violations, *judged]) from None

        def decide(history: Sequence[Entry | OtherKind]) -> Plan[CallOutcome, CallEntry]:
            if history:
                return Plan(self._repeated_opening(request, opened_chain(self.keys, history)))
            opening = self._new_opening(request, dispatcher)
            entry = self._seal(request.id, 1, opening.expires_at, opening, request.place)
            return Plan(CallOutcome(content_answer(entry, opening, request.headline), created=True), [entry])

        async def append(entries: Sequence[CallEntry]) -> bool:
            own, of_all = await self._openers.count(dispatcher.subject, self._now_ms())
            with self._openers.shares.place(dispatcher.subject, own, of_all):
                return await self._writer.append(entries)

        return await self._writer.decide_and_append(lambda: self.log.history(request.id), decide, append)

    async def revise(self, call_id: str, body: Mapping[str, Any], dispatcher: Requester) -> CallOutcome:
        """Give a call new content. If an earlier, equal request has done so already, return the same answer as then."""
        try:
            request = parse_content(body, call_id)
        except Invalid as invalid:
            judged = await self._policy_violations(invalid, call_id, dispatcher)
            raise Problem.of([*invalid.violations, *judged]) from None

        def decide(chain: DecryptedChain) -> Plan[CallOutcome, CallEntry]:
            for known, opening, place in chain.contents():
                if opening.replaces == request.replaces and self._has_same_content(request, opening, place):
                    return Plan(CallOutcome(content_answer(known, opening, request.headline), created=False))
            call = self._changeable(chain, dispatcher)
            if request.replaces != call.content:
                raise Problem(problems.REVISION_CONFLICT, extra={"current": call.content})
            opening = self._new_opening(request, dispatcher, call, _exact_place(chain, call))
            entry = self._seal(call_id, chain.number + 1, opening.expires_at, opening, request.place)
            return Plan(CallOutcome(content_answer(entry, opening, request.headline), created=True), [entry])

        return await self._writer.decide_and_append(lambda: self._chain(call_id), decide)

    async def end(self, call_id: str, body: Mapping[str, Any], dispatcher: Requester) -> CallOutcome:
        """End a call, even if it has expired.

        If it has been ended already, return the answer that belongs to the `end` in the log.
        """
        try:
            reason = Reason(parse_end(body))
        except Invalid as invalid:
            raise Problem.of(invalid.violations) from None

        def decide(chain: DecryptedChain) -> Plan[CallOutcome, CallEntry]:
            call = self._visible(chain, dispatcher)
            for known, ended, _ in chain.entries:
                if isinstance(ended, Ending):
                    return Plan(CallOutcome(end_answer(known, ended), created=False))
            ending = Ending(dispatcher.sub, self._now_ms(), call.opening, dispatcher.issuer)
            entry = self._next_entry(chain, call, ending, reason)
            return Plan(CallOutcome(end_answer(entry, ending), created=True), [entry])

        return await self._writer.decide_and_append(lambda: self._chain(call_id), decide)

    async def state(self, call_id: str, dispatcher: Requester) -> CallStateOut:
        """Return the state of a call for its dispatcher: with the assigned responders, but without the exact place."""
        return await self._state_answer(self._visible(await self._chain(call_id), dispatcher))

    async def open_calls(self, dispatcher: Requester) -> AsyncIterator[CallStateOut]:
        """Yield the states of a dispatcher's open calls, in the order in which the calls were opened.

        If the dispatcher's token allows changing the calls of others, yield the states of all open calls. There may be
        a thousand calls, so other tasks may run before each one.
        """
        for call_id in await self.log.open_calls(self._now_ms()):
            await asyncio.sleep(0)  # let other tasks run, which reading a log in memory does not
            call = (await self._chain(call_id)).call
            if call is None or not dispatcher.may_change(call.opening.issuer, call.opening.source):
                continue
            if call.is_open(self.clock.now()):
                yield await self._state_answer(call)

    # ---- requests from responders, and scheduled changes -----------------------------------------------------------

    async def accept(self, seat_request: SeatRequest) -> Refusal | None:
        """Try to give a person a seat, which means to assign the person to a call (RV2 to RV5).

        Return None if the person has a seat now, otherwise the reason for the refusal.
        """

        def decide(chain: DecryptedChain) -> Plan[Refusal | None, CallEntry]:
            if (call := chain.call) is None:
                return Plan("over")
            now = self.clock.now()
            if seat_request.person in call.seats and call.is_open(now) and is_wanted(call, seat_request.quals):
                return Plan(None)
            busy = seat_request.busy or _seats_released(chain, seat_request.person) >= MOST_RETURNS
            if (refused := refusal(call, seat_request._replace(busy=busy), now)) is not None:
                return Plan(refused)
            seat = self._new_seat(chain, call, seat_request, now)
            return Plan(None, [self._next_entry(chain, call, seat, seat_request.person)])

        return await self._writer.decide_and_append(lambda: self._complete_chain(seat_request.call_id), decide)

    async def release(self, call_id: str, person: Person, accepted_at: int | None = None) -> None:
        """Release a person's seat, which means that the person is no longer assigned to the call (RV5).

        Do nothing if the person has no seat, or if the call is over. If `accepted_at` (ms since 1970) is not None,
        release the seat only if it was accepted at that time, and not a seat that was accepted later. Raise
        LogUnavailable if the log lacks the call, because lost entries will be put back.
        """

        def decide(call: CallState, now: Now) -> tuple[Body, Secret] | None:
            seat = call.seats.get(person)
            if seat is None or accepted_at not in (None, seat.accepted_at):
                return None
            return Release(seat.number, now.wall_ms), person

        await self._append_if_open(call_id, decide)

    async def report(self, call_id: str, person: Person, state: SeatState) -> None:
        """Store the progress that a responder who is assigned to the call has reported (M20).

        Ignore a report that says nothing new, or that comes less than 5 s after the responder's last one.
        """

        def decide(call: CallState, now: Now) -> tuple[Body, Secret] | None:
            seat = call.seats.get(person)
            if seat is None or not _is_news(seat, state, now):
                return None
            return Report(seat.number, state, now.wall_ms), person

        await self._append_if_open(call_id, decide)

    async def widen(self, call_id: str, ring: int) -> None:
        """Widen a call's search radius to `rings_m[ring]`, if that is the next radius (RN2).

        Do nothing if `ring` is not the next index, or if the call needs no more responders. If another writer's entry
        is stored first, do not try again, because that entry may have widened the radius already.
        """
        chain, now = await self._complete_chain(call_id), self.clock.now()
        call = chain.call
        if call is None or not call.is_open(now) or call.full:
            return
        if ring == call.wave + 1 and ring < len(call.opening.terms.rings_m):
            await self._writer.append([self._next_entry(chain, call, Widening(ring, now.wall_ms), Nothing())])

    async def expire(self, call_id: str) -> None:
        """End a call whose current content has expired, unless it has been ended already (RZ4)."""

        def decide(chain: DecryptedChain) -> Plan[None, CallEntry]:
            call, now_ms = chain.call, self._now_ms()
            if call is None or call.end is not None or now_ms < call.opening.expires_at:
                return Plan(None)
            return Plan(None, [self._next_entry(chain, call, Ending(None, now_ms, call.opening), Reason())])

        await self._writer.decide_and_append(lambda: self._chain(call_id), decide)

    async def restore(self, call_id: str, seat: Seat) -> None:
        """Store a seat again whose entry this process has read, but which the log has lost (RV7).

        A seat is a responder's assignment to the call. Example: a failover of Redis lost the entry that gave seat 2 to
        the responder r-1, and since then r-2 has accepted seat 2. Both responders are on their way. So r-1 is given
        seat 0, and is not called off.
        """

        def decide(call: CallState, _now: Now) -> tuple[Body, Secret] | None:
            if seat.person in call.seats:
                return None
            taken = seat.number in {each.number for each in call.seats.values()}
            claim = Acceptance(0 if taken else seat.number, seat.role, seat.accepted_at, seat.eta_s, seat.aed)
            return claim, seat.person

        await self._append_if_open(call_id, decide)

    async def _append_if_open(
        self, call_id: str, decide: Callable[[CallState, Now], tuple[Body, Secret] | None]
    ) -> None:
        """Append the entry that `decide` makes for a call, if the call is open.

        Append nothing if `decide` returns None. Raise LogUnavailable if the log lacks the call, because lost entries
        will be put back.
        """

        def plan(chain: DecryptedChain) -> Plan[None, CallEntry]:
            if not chain.number:
                raise LogUnavailable("this call is missing in the log; lost entries will be put back")
            call, now = chain.call, self.clock.now()
            if call is None or not call.is_open(now) or (parts := decide(call, now)) is None:
                return Plan(None)
            return Plan(None, [self._next_entry(chain, call, *parts)])

        await self._writer.decide_and_append(lambda: self._complete_chain(call_id), plan)

    # ---- reading and writing the entries of a call -----------------------------------------------------------------

    async def _chain(self, call_id: str) -> DecryptedChain:
        return opened_chain(self.keys, await self.log.history(call_id))

    async def _complete_chain(self, call_id: str) -> DecryptedChain:
        """Return a call with all its entries decrypted, or none if the log has no such call.

        Raise LogUnavailable if an entry can't be decrypted. A seat may be given only if all entries were decrypted
        (Rule 1).
        """
        chain = await self._chain(call_id)
        if not chain.whole:
            raise LogUnavailable("this node has no key for some entries of this call")
        return chain

    @staticmethod
    def _visible(chain: DecryptedChain, dispatcher: Requester) -> CallState:
        """Return the state of a call, after checking that this dispatcher may see the call.

        Raise Problem: 404 if there is no such call, 403 if it belongs to another dispatcher.
        """
        if not chain.number:
            raise Problem(problems.UNKNOWN_CALL)
        if chain.call is None:
            raise LogUnavailable("this node has no key for this call")
        if not dispatcher.may_change(chain.call.opening.issuer, chain.call.opening.source):
            raise Problem(problems.NOT_YOURS)
        return chain.call

    def _changeable(self, chain: DecryptedChain, dispatcher: Requester) -> CallState:
        """Return the state of a call, after checking that this dispatcher may change the call now.

        Raise Problem: 404 if there is no such call, 403 if it belongs to another dispatcher, 410 if it is over.
        """
        call = self._visible(chain, dispatcher)
        if not call.is_open(self.clock.now()):
            raise Problem(problems.CALL_ENDED)
        return call

    def _next_entry(self, chain: DecryptedChain, call: CallState, body: Body, secret: Secret) -> CallEntry:
        return self._seal(call.id, chain.number + 1, call.opening.expires_at, body, secret)

    def _seal(self, call_id: str, number: int, ends_at: int, body: Body, secret: Secret) -> CallEntry:
        if not self.keys:
            raise LogUnavailable("there is no key to encrypt with")
        return sealed(self.keys, call_id, number, ends_at, body, secret)

    # ---- the contents of calls -------------------------------------------------------------------------------------

    def _repeated_opening(self, request: RequestedCall, chain: DecryptedChain) -> CallOutcome:
        """Return the answer to a request to open a call whose id the log already has, if the call has the same content.

        Raise Problem if the id belongs to an alert, or to a call with other content.
        """
        if not chain.number:
            raise Problem(problems.ID_CONFLICT)
        for known, opening, place in chain.contents():
            if known.revision == 1:
                if not self._has_same_content(request, opening, place):
                    raise Problem(problems.ID_CONFLICT)
                return CallOutcome(content_answer(known, opening, request.headline), created=False)
        if chain.call is not None and chain.call.end is not None:
            raise Problem(problems.CALL_ENDED, "The call is over, and what it was about has been deleted.")
        raise LogUnavailable("this node has no key for this call")

    async def _policy_violations(self, invalid: Invalid, call_id: str, dispatcher: Requester) -> list[Violation]:
        """Return the policy violations of a request for new content that is also malformed.

        The list is empty if the call is unknown, or may not be changed.
        """
        with suppress(Problem, LogUnavailable):
            call = self._changeable(await self._chain(call_id), dispatcher)
            return self._content_violations(invalid.facts(), call)
        return []

    def _opening_violations(self, request: RequestedCall) -> list[Violation]:
        violations = self.policy.call_violations(request.facts(), self._now_ms())
        if request.id.startswith(RESERVED):
            detail = f"must not begin with {RESERVED}: such ids are of alerts that come from messages of CAP"
            violations = [Violation(problems.INVALID_VALUE, "/id", detail), *violations]
        return violations

    def _content_violations(self, facts: PolicyFacts, call: CallState) -> list[Violation]:
        lasts_s = call.opening.terms.max_age_s
        return self.policy.call_violations(facts, self._now_ms(), Lasting(lasts_s, lasts_s), call.opening.expires_at)

    def _new_opening(
        self,
        request: RequestedCall,
        dispatcher: Requester,
        call: CallState | None = None,
        place: ExactPlace | None = None,
    ) -> Opening:
        """Return the public part of the content that a request to open or change a call asks for.

        Raise Problem (422) with every rule that the request breaks. `call` is the call to change, or None if the
        request opens a call. `place` is the present place of the call to change.
        """
        if call is None:
            violations = self._opening_violations(request)
        else:
            changed = _changed_fields(request, call.opening, place)
            violations = [*changed, *self._content_violations(request.facts(), call)]
        if violations:
            raise Problem.of(violations)
        terms = self.policy.calls[request.category].terms(request.place.kind) if call is None else call.opening.terms
        mine = (dispatcher.issuer, dispatcher.sub)
        issuer, source = mine if call is None else (call.opening.issuer, call.opening.source)
        by_issuer, by = ("", None) if mine == (issuer, source) else mine
        return Opening(
            category=request.category,
            headline=self._published_headline(request.headline, terms),
            status=request.status,
            source=source,
            occurred_at=request.occurred_at,
            issued_at=self._now_ms(),
            expires_at=_expires_at(request, terms),
            near=request.near(terms.location_resolution, None if call is None else call.opening.near),
            terms=terms,
            replaces=request.replaces,
            by=by,
            issuer=issuer,
            by_issuer=by_issuer,
        )

    def _published_headline(self, headline: str, terms: CallTerms) -> str:
        """Return the headline to show to responders.

        It is the category's title instead of the requested headline if that headline may identify somebody (RY3).
        """
        pii = self.policy.pii
        return terms.title if pii is not None and pii.find(headline) else headline

    def _has_same_content(self, request: RequestedCall, body: Opening, place: Secret) -> bool:
        """Return whether a request has the same content as `body` and `place` together (H5).

        Before the comparison, a missing expiry is filled in, and a headline that may not be shown is replaced: both
        under the terms with which the call was opened (RO3).
        """
        return (
            place == request.place
            and body.category == request.category
            and body.headline in (request.headline, self._published_headline(request.headline, body.terms))
            and body.status == request.status
            and body.occurred_at == request.occurred_at
            and body.expires_at == _expires_at(request, body.terms)
        )

    # ---- assigning responders to a call's free seats ---------------------------------------------------------------

    def _new_seat(self, chain: DecryptedChain, call: CallState, seat_request: SeatRequest, now: Now) -> Acceptance:
        """Return the body of an entry that assigns a responder to the free seat with the lowest number (RV5).

        A seat is an opening for one responder of the call. The body also has the responder's role: `cpr` instead of
        `aed` if there is no defibrillator to fetch.
        """
        number = call.free_seat
        assert number is not None, "a call that is full was refused"
        role: Role = call.opening.terms.seats[number - 1]
        aed = self._aed_to_fetch(chain, call, seat_request) if role == "aed" else None
        return Acceptance(number, "cpr" if aed is None else role, now.wall_ms, seat_request.eta_s, aed)

    def _aed_to_fetch(self, chain: DecryptedChain, call: CallState, seat_request: SeatRequest) -> str | None:
        """Return the id of the defibrillator that this responder should fetch, or None if there is none (RI2).

        Among those that nobody else fetches, it is the one with the shortest detour.
        """
        place = _exact_place(chain, call)
        if place is None or seat_request.here is None:
            return None
        near = self.aeds.near(place.lat, place.lng, call.opening.terms.aed_m)
        taken = {seat.aed for seat in call.seats.values() if seat.aed is not None}
        chosen = fetch_of(near, seat_request.here[:2], (place.lat, place.lng), taken)
        return None if chosen is None else near[chosen].id

    async def _state_answer(self, call: CallState) -> CallStateOut:
        return state_map(call, await self.log.counts(call.id), self.clock.now())

    def _now_ms(self) -> int:
        return self.clock.now().wall_ms


def _exact_place(chain: DecryptedChain, call: CallState) -> ExactPlace | None:
    """Return the exact place of the call's current content, or None if the place was deleted."""
    found = (each.secret for each in chain.entries if each.entry.revision == call.content)
    place = next(found, None)
    return place if isinstance(place, ExactPlace) else None


def _seats_released(chain: DecryptedChain, person: Person) -> int:
    """Return how many times this person has given up a seat (an assignment to this call) (RV5)."""
    return sum(isinstance(body, Release) and secret == person for _, body, secret in chain.entries)


def _expires_at(request: RequestedCall, terms: CallTerms) -> int:
    return request.occurred_at + terms.max_age_s * 1000 if request.expires_at is None else request.expires_at


def _changed_fields(request: RequestedCall, opening: Opening, place: ExactPlace | None) -> list[Violation]:
    """Return a violation for each field that a request changes although it must stay the same.

    The violations are in the order of the protocol's table of fields.
    """
    kept = [
        (request.category == opening.category, problems.CATEGORY_CHANGED, "/category"),
        (request.status == opening.status, problems.STATUS_CHANGED, "/status"),
        (request.occurred_at == opening.occurred_at, problems.OCCURRED_AT_CHANGED, "/occurred_at"),
        (place is not None and request.place.kind == place.kind, problems.KIND_CHANGED, "/place/kind"),
    ]
    must = "must stay as it was when the call was opened"
    return [Violation(kind, pointer, must) for is_kept, kind, pointer in kept if not is_kept]


def _is_news(seat: Seat, state: SeatState, now: Now) -> bool:
    recent = seat.changed_at is not None and abs(now.wall_ms - seat.changed_at) < REPORT_MS
    return seat.state != state and not recent
