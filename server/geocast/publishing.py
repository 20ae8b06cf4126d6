"""What a publisher may do: the order of decisions of the protocol's section 4, without HTTP.

Everything is decided by the log, not by what this node has read of it so far (H6). If an append shows that a decision
is out of date, because its number was taken meanwhile, the decision is made again:

    parse (section 2) ── broken ──> 422, with what section 3 says of the rest
      │
      v
    history of the id <──────────────────────────────┐
      │  same (id, revision), same content: 200      │ number taken
      │  404, 403, 410, 409                          │
      │  section 3: 422                              │
      v                                              │
    append ──────────────────────────────────────────┘ ── stored ──> 201
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from . import failpoints, problems
from .alert import Cancel, Entry, OtherKind, Revision
from .alertlog import AlertLog
from .clock import Clock
from .errors import LogUnavailable
from .holds import covered_km2
from .policy import Policy
from .problems import Problem, Violation
from .requests import (
    Cancellation,
    Invalid,
    Publication,
    has_polygons,
    parse_cancellation,
    parse_publication,
    parse_revision,
)

ATTEMPTS = 20  # decisions on one request; each but the last was overtaken by another writer of the same alert

_E = TypeVar("_E", bound=Entry)
_R = TypeVar("_R", bound=Publication | Cancellation)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who asks: the `sub` of the token, and whether its scopes allow to revise and cancel others' alerts."""

    sub: str
    manages: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_E]):
    """The entry that answers a request. `created`: this request has made it (201), and not an earlier one (200)."""

    entry: _E
    created: bool


class Aside(Protocol):
    """Does work that takes milliseconds where it holds nobody up: in a thread, say. It raises what the work raises."""

    def __call__(self, work: Callable[[], _T], /) -> Awaitable[_T]:
        """What the work comes to."""
        ...


async def at_once(work: Callable[[], _T], /) -> _T:
    """Do the work here and now, for whom nobody waits."""
    return work()


class Publishing:
    """The calls that write to the log.

    All of them raise Problem when the request is refused, and LogUnavailable when the outcome is unknown.
    """

    def __init__(
        self,
        alert_log: AlertLog,
        policy: Policy,
        clock: Clock,
        appended: Callable[[], None] = lambda: None,
        aside: Aside = at_once,
    ) -> None:
        """`appended` is called after each append, to nudge those who follow the log in other processes.

        `aside` does what takes milliseconds, where it holds nobody up.
        """
        self._log = alert_log
        self._appended = appended
        self._aside = aside
        self._policy = policy
        self._clock = clock

    def under(self, policy: Policy) -> "Publishing":
        """The same calls under another policy. Calls of this one that are under way go on under its own."""
        return Publishing(self._log, policy, self._clock, self._appended, self._aside)

    async def publish(
        self, body: Mapping[str, Any], publisher: Publisher, *, dry_run: bool = False
    ) -> Outcome[Revision]:
        """Publish revision 1 of an alert; with `dry_run`, decide and store nothing."""
        request = await self._parsed(lambda: self._worked_out(parse_publication(body)), body)
        # Nearly always the id is new. So the append is tried first, which finds out, and a read of the log is saved. If
        # it fails, or the policy refuses, the decision is made in the order of the protocol, with the history at hand.
        if not dry_run:
            with suppress(Problem):
                entry = self._accept(request, publisher, None)
                if await self._append(entry):
                    return Outcome(entry, created=True)

        def decide(history: Sequence[Entry | OtherKind]) -> Revision:
            if history:
                raise Problem(problems.ID_CONFLICT)
            return self._accept(request, publisher, None)

        return await self._decide(request, _repeats_revision, decide, dry_run=dry_run)

    async def revise(
        self, alert_id: str, body: Mapping[str, Any], publisher: Publisher, *, dry_run: bool = False
    ) -> Outcome[Revision]:
        """Publish the next revision of an alert; with `dry_run`, decide and store nothing."""
        request = await self._parsed(lambda: self._worked_out(parse_revision(body, alert_id)), body, alert_id)

        def decide(history: Sequence[Entry | OtherKind]) -> Revision:
            return self._accept(request, publisher, self._current(history, request.revision, publisher))

        return await self._decide(request, _repeats_revision, decide, dry_run=dry_run)

    async def cancel(self, alert_id: str, body: Mapping[str, Any], publisher: Publisher) -> Outcome[Cancel]:
        """Cancel an alert: the cancel takes the number behind its last entry."""
        request = await self._parsed(lambda: parse_cancellation(body, alert_id), body)

        def decide(history: Sequence[Entry | OtherKind]) -> Cancel:
            current = self._current(history, request.revision, publisher)
            now = self._clock.now().wall_ms
            if violations := self._policy.cancel_violations(request.claims(), current.alert.occurred_at, now):
                raise Problem.of(violations)
            return Cancel(
                alert_id,
                request.revision,
                request.reason,
                request.approval,
                publisher.sub,
                now,
                current.ends_at,
                request.confirm.in_order(),
            )

        return await self._decide(request, _repeats_cancel, decide)

    # ---- the pieces --------------------------------------------------------------------------------------------

    async def _parsed(self, parse: Callable[[], _R], body: Mapping[str, Any], alert_id: str | None = None) -> _R:
        """What `parse` gives, or the 422 with every rule of section 2 and 3 that the body breaks."""
        try:
            return await self._aside(parse) if has_polygons(body) else parse()
        except Invalid as invalid:
            current = None
            if alert_id is not None:
                with suppress(LogUnavailable):  # a broken body is refused even if the log can't be read
                    current = _last_revision(await self._log.history(alert_id))
            judged = self._violations(invalid, self._clock.now().wall_ms, current, first=alert_id is None)
            raise Problem.of([*invalid.violations, *judged]) from None

    def _violations(
        self, request: Publication | Invalid, now_ms: int, current: Revision | None, *, first: bool
    ) -> list[Violation]:
        """What the policy has against a request, however broken the rest of it is."""
        claims, area = request.claims(), None
        category = self._policy.categories.get(claims.category or "")
        # Of a revision that follows nobody knows what, it can't be told what would be published.
        if category is not None and category.hold_area_km2 is not None and (first or current is not None):
            area = request.published(category.terms(current), current)
        covered = None if area is None else covered_km2(area)
        return self._policy.violations(claims, now_ms, current, first=first, covered_km2=covered)

    def _worked_out(self, request: Publication) -> Publication:
        """The request, for which what takes long has been done."""
        if category := self._policy.categories.get(request.category):
            request.work_out(category.simplify_m)
        return request

    async def _decide(
        self,
        request: _R,
        repeats: Callable[[_R, Entry | OtherKind, Revision | None], bool],
        decide: Callable[[Sequence[Entry | OtherKind]], _E],
        *,
        dry_run: bool = False,
    ) -> Outcome[_E]:
        for _ in range(ATTEMPTS):
            history = await self._log.history(request.id)
            for n, entry in enumerate(history):
                if entry.revision == request.revision and repeats(request, entry, _last_revision(history[:n])):
                    return Outcome(entry, created=False)  # type: ignore[arg-type]  # `repeats` saw to the type
            entry = decide(history)
            if dry_run:
                return Outcome(entry, created=False)
            if await self._append(entry):
                return Outcome(entry, created=True)
        raise LogUnavailable("this alert is being written by others, or its last entry can't be read")

    async def _append(self, entry: Entry) -> bool:
        """Store `entry` if its number is the next one, and tell whoever follows."""
        if not await self._log.append(entry):
            return False
        failpoints.hit("after-append")
        self._appended()
        return True

    def _current(self, history: Sequence[Entry | OtherKind], number: int, publisher: Publisher) -> Revision:
        """The revision that entry `number` would follow, or why it can't be followed.

        Entries of kinds that a later release writes count by their numbers alone (LogG4).
        """
        current = _last_revision(history)
        if current is None:
            raise Problem(problems.UNKNOWN_ALERT)
        known = [entry for entry in history if not isinstance(entry, OtherKind)]
        if known[0].source != publisher.sub and not publisher.manages:
            raise Problem(problems.NOT_YOURS)
        cancelled = any(isinstance(entry, Cancel) for entry in known)
        if cancelled or current.ends_at <= self._clock.now().wall_ms:
            raise Problem(problems.ALERT_ENDED)
        if number != history[-1].revision + 1:
            raise Problem(problems.REVISION_CONFLICT, extra={"current": history[-1].revision})
        return current

    def _accept(self, request: Publication, publisher: Publisher, current: Revision | None) -> Revision:
        """The revision that `request` becomes, or the 422 with every rule that it breaks."""
        now = self._clock.now().wall_ms
        violations = self._violations(request, now, current, first=current is None)
        if current is not None:
            violations = [*_changed(request, current), *violations]
        if violations:
            raise Problem.of(violations)
        terms = self._policy.categories[request.category].terms(current)
        return Revision(request.accept(terms, current), request.revision, publisher.sub, now, terms)


def _repeats_revision(request: Publication, entry: Entry | OtherKind, current: Revision | None) -> bool:
    # What is not a threat to the community is never accepted (P2), so it can't repeat what was.
    if not isinstance(entry, Revision) or request.threat != "community":
        return False
    # The request is accepted once more, by the terms of then and behind the revision that was current then. So neither
    # a policy that has changed since nor a later revision makes a conflict of a repeated request.
    return entry.same_content(replace(entry, alert=request.accept(entry.terms, current)))


def _repeats_cancel(request: Cancellation, entry: Entry | OtherKind, _current: Revision | None) -> bool:
    if not isinstance(entry, Cancel):
        return False
    confirm = request.confirm.in_order()
    return entry.same_content(replace(entry, reason=request.reason, approval=request.approval, confirm=confirm))


def _changed(request: Publication, current: Revision) -> list[Violation]:
    found = []
    if request.status != current.alert.status:
        found.append(Violation(problems.STATUS_CHANGED, "/status", "must stay as it was in revision 1"))
    if request.occurred_at != current.alert.occurred_at:
        found.append(Violation(problems.OCCURRED_AT_CHANGED, "/occurred_at", "must stay as it was in revision 1"))
    return found


def _last_revision(history: Sequence[Entry | OtherKind]) -> Revision | None:
    return next((entry for entry in reversed(history) if isinstance(entry, Revision)), None)
