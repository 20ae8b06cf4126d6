"""The requests of publishers to publish, revise and cancel alerts. Nothing here knows HTTP.

An entry is an item of the log: a revision of an alert, or its cancel. The entries of an alert are its history. Requests
are checked in the order of the protocol's section 4:

    parse the request ── a field is invalid ──> 422, with all other rules that the request breaks
      │
      v
    history of the id <─────────────────────────────────────────────┐
      │  the same request was accepted before: 200                  │
      │  no such alert: 404; another publisher's: 403;              │ another writer
      │  ended: 410; not the next number: 409                       │ has taken
      │  the policy, the publisher's grants, the approval: 422      │ the number
      │  too many requests of this publisher: 429                   │
      v                                                             │
    append ─────────────────────────────────────────────────────────┘ ── stored ──> 201

Every decision is made from the whole history in the log, not only from the part that this node has read so far (rule
H6). If another writer was faster, the decision is made again (`alertlog.optimistic`).

Before any check whose result may have changed over time, the history is searched for an earlier entry with the same
content. Example: a publisher sends revision 2 to node A. Node A stores it and dies before it answers. The publisher
repeats the request at node B. The policy has changed meanwhile and would refuse it. But node B finds revision 2 in the
history, sees that it has the content that the request had under the old policy, and answers 200.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ..alertlog import AlertLog, codec
from ..alertlog.chain import NO_KINDS, Chain, Kinds
from ..alertlog.optimistic import OptimisticWriter, Plan
from ..approvals.request_check import ApprovalCheck
from ..approvals.reviewers import NO_REVIEWERS, Reviewers
from ..auth.tokens import Requester
from ..clock import Clock
from ..model import problems
from ..model.alert import OWN_TEST_PREFIX, ApprovalProof, Cancel, Entry, OtherKind, Revision, Untrusted
from ..model.errors import LogUnavailable
from ..model.problems import Problem, Violation
from ..policy import Policy
from ..policy.confirmation import covered_km2
from ..policy.publishers.bounds import DRY_RUNS, Bounds, Publishers, granted
from ..policy.publishers.rates import Rates
from ..wire import requests
from ..wire.requests import Approved, Cancellation, Invalid, Publication, approval_of, has_polygons

_CONFIRMATIONS = (problems.AREA_UNCONFIRMED, problems.TEXT_UNCONFIRMED)  # listed after all other violations (H8)
RESERVED = "cap."  # the prefix of the ids of alerts from CAP
_OVERTAKEN = "other writers keep changing this alert, or its last entry can't be read"

_E = TypeVar("_E", bound=Entry)
_R = TypeVar("_R", bound=Publication | Cancellation)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PublishOutcome(Generic[_E]):
    """The answer to a publisher's request. `entry` is the entry in the log.

    `created` is true if this request has stored the entry (201), and false if an earlier request has (200).

    For a dry run, which stores nothing, `entry` is the entry that would be stored. The answer then also has the `form`
    (the text that reviewers have to sign), and `approvals`, the number of reviewers who have to sign. There is no form
    if the policy names no audience.
    """

    entry: _E
    created: bool
    form: str | None = None
    approvals: int = 0


class RunInThread(Protocol):
    """The type of a function that runs work of a few milliseconds without blocking other tasks.

    For instance, it may run the work in a thread.
    """

    def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> Awaitable[_T]:
        """Return the result of `work`, or raise its exception.

        `subject` is the publisher for whom the work is done. The work for one publisher may use only a fraction of the
        threads (HD6).
        """
        ...


async def run_here(work: Callable[[], _T], _subject: Hashable, /) -> _T:
    """Run `work` at once, without another thread, and return its result."""
    return work()


@dataclass(eq=False, repr=False)
class Publishing:
    """Handles the requests of publishers to publish, revise and cancel alerts.

    Each of the three methods makes the decision on a request, and appends the resulting entry to the log. It raises
    Problem if the request is refused, and LogUnavailable if the outcome is unknown.

    Entries are appended to `alert_log` if `policy` allows them. `appended` is called with each entry after it was
    stored, to wake the processes that follow the log. `run_in_thread` runs work that takes milliseconds. `publishers`
    has the limits of each publisher; if it is None, each publisher may do all that the policy allows, at any rate.
    `reviewers` are the people whose signatures count. `reserves`: whether to refuse ids that begin with RESERVED,
    because this node also accepts CAP messages. `rates` counts how often each publisher has published.
    """

    alert_log: AlertLog
    policy: Policy
    clock: Clock
    appended: Callable[[Entry], None] = lambda _entry: None
    run_in_thread: RunInThread = run_here
    publishers: Publishers | None = None
    reviewers: Reviewers = field(default_factory=lambda: NO_REVIEWERS)
    reserves: bool = field(default=False, kw_only=True)
    rates: Rates = field(default_factory=Rates, kw_only=True)

    def __post_init__(self) -> None:
        self._approvals = ApprovalCheck(self.policy, self.reviewers)
        self._writer = OptimisticWriter[Entry](self.alert_log, self.appended, _OVERTAKEN)

    def with_config(
        self, policy: Policy, publishers: Publishers | None = None, reviewers: Reviewers = NO_REVIEWERS
    ) -> "Publishing":
        """Return a copy of this object with another policy, other publishers and other reviewers.

        Requests in progress continue under the old ones.
        """
        return replace(self, policy=policy, publishers=publishers, reviewers=reviewers)

    def check_publisher(self, publisher: Requester) -> Bounds:
        """Return the limits on what this publisher may publish.

        Raise Problem (403) if the publisher may not publish at all (rule PG1).
        """
        tables = None if self.publishers is None else self.publishers.by(publisher.issuer)
        return granted(tables, publisher.sub, "The token's sub is not among the publishers of this node.")

    def break_glass(self, entry: Entry) -> list[str]:
        """Return the ids (`kid`) of the emergency keys that were used to approve an entry. Usually there are none."""
        return self._approvals.break_glass(entry)

    async def publish(
        self, body: Mapping[str, Any], publisher: Requester, *, dry_run: bool = False
    ) -> PublishOutcome[Revision]:
        """Publish a new alert: append revision 1 to the log.

        With `dry_run`, make the decision, but store nothing.
        """
        request = await self._parse(partial(requests.parse_publication, body, dry_run=dry_run), body, publisher)
        # The id is nearly always new, so first try to append without reading the log. If the id is taken, the log
        # refuses revision 1. Then, or if the policy refuses the request, make the decision in the protocol's order.
        if not dry_run:
            with suppress(Problem):
                entry = self._accepted(request, publisher, None)
                if await self._append_counted([entry]):
                    return PublishOutcome(entry, created=True)

        def decide(history: Sequence[Entry | OtherKind]) -> Revision:
            if history:
                raise Problem(problems.ID_CONFLICT)
            return self._accepted(request, publisher, None)

        return await self._decide_and_append(request, _repeats_revision, decide, dry_run=dry_run)

    async def revise(
        self, alert_id: str, body: Mapping[str, Any], publisher: Requester, *, dry_run: bool = False
    ) -> PublishOutcome[Revision]:
        """Publish the next revision of an alert: append it to the log.

        With `dry_run`, make the decision, but store nothing.
        """
        parse = partial(requests.parse_revision, body, alert_id, dry_run=dry_run)
        request = await self._parse(parse, body, publisher, alert_id)

        def decide(history: Sequence[Entry | OtherKind]) -> Revision:
            current = self._revision_to_follow(history, request.revision, publisher)
            return self._accepted(request, publisher, current, Chain.of(history).kinds)

        return await self._decide_and_append(request, _repeats_revision, decide, dry_run=dry_run)

    async def cancel(
        self, alert_id: str, body: Mapping[str, Any], publisher: Requester, *, dry_run: bool = False
    ) -> PublishOutcome[Cancel]:
        """Cancel an alert: append a cancel after its last entry.

        With `dry_run`, make the decision, but store nothing. Even an alert whose signatures this process does not
        accept can be cancelled, because processes with other keys may have sent the alert to recipients (rule HD7).
        """
        request = await self._parse(lambda: requests.parse_cancellation(body, alert_id, dry_run=dry_run), body)

        def decide(history: Sequence[Entry | OtherKind]) -> Cancel:
            now = self.clock.now().wall_ms
            current = self._revision_to_follow(_as_believed(history, now), request.revision, publisher)
            violations = self.policy.cancel_violations(request.facts(), current.alert.occurred_at, now)
            entry = Cancel(
                alert_id,
                request.revision,
                request.reason,
                approval_of(request.approval),
                publisher.sub,
                now,
                current.ends_at,
                request.confirm.in_order(),
                issuer=publisher.issuer,
            )
            return self._with_proof(entry, request.approval, current, now, violations, Chain.of(history).kinds)

        return await self._decide_and_append(request, _repeats_cancel, decide, dry_run=dry_run)

    # ---- the steps of a request ------------------------------------------------------------------------------------

    async def _parse(
        self,
        parse: Callable[[], _R],
        body: Mapping[str, Any],
        publisher: Requester | None = None,
        alert_id: str | None = None,
    ) -> _R:
        """Parse the request by calling `parse`, and return the result.

        If the request is invalid, raise Problem (422), which lists all broken rules of the protocol's sections 2 and 3.
        `publisher` is the publisher whose limits apply; None for a cancel, to which no limits apply. `alert_id` is the
        id of the alert to revise; None for the first revision and for a cancel.
        """
        bounds = Bounds() if publisher is None else self.check_publisher(publisher)
        subject = None if publisher is None else publisher.subject
        judge = self.run_in_thread if has_polygons(body) else run_here

        def parsed() -> _R:
            request = parse()
            if isinstance(request, Publication):  # do all slow computations now; it keeps their results
                request.outside_jurisdiction(bounds)
                if category := self.policy.categories.get(request.category):
                    request.precompute(category.simplify_m)
            return request

        try:
            return await judge(parsed, subject)
        except Invalid as invalid:  # don't let another name refer to it: its traceback would keep this frame alive
            current = None
            if alert_id is not None:
                with suppress(LogUnavailable):  # an invalid body is refused even if the log can't be read
                    current = _last_revision(await self.alert_log.history(alert_id))
            now_ms, first = self.clock.now().wall_ms, alert_id is None
            judged = await judge(partial(self._violations, invalid, bounds, now_ms, current, first=first), subject)
            raise Problem.of([*invalid.violations, *judged]) from None

    def _violations(
        self, request: Publication | Invalid, bounds: Bounds, now_ms: int, current: Revision | None, *, first: bool
    ) -> list[Violation]:
        """Return a request's violations of the policy and of the publisher's limits.

        Fields of the request that are invalid are not checked. `first`: whether the request is for revision 1 of its
        alert. `current` is the revision that the request would follow; None if there is none, or if it is unknown.
        """
        facts, area = request.facts(), None
        category = self.policy.categories.get(facts.category or "")
        # The published area of a later revision depends on the current revision. If that is unknown, the area's size is
        # not checked.
        if category is not None and category.hold_area_km2 is not None and (first or current is not None):
            area = request.published(self.policy.terms(category, current), current)
        covered = None if area is None else covered_km2(area)
        found = self.policy.violations(
            facts, now_ms, current, first=first, covered_km2=covered, max_radius_m=bounds.max_radius_m
        )
        found += bounds.violations(facts, request.outside_jurisdiction(bounds))
        return sorted(found, key=lambda each: each.type in _CONFIRMATIONS)

    async def _decide_and_append(
        self,
        request: _R,
        repeats: Callable[[_R, Entry | OtherKind, Revision | None], bool],
        decide: Callable[[Sequence[Entry | OtherKind]], _E],
        *,
        dry_run: bool,
    ) -> PublishOutcome[_E]:
        """Return the outcome of a request: the entry that it repeats, or else a new entry, which is stored first.

        `repeats(request, entry, before)` returns whether the request has the same content as `entry`, a stored entry
        with the same number; `before` is the revision before that entry, or None. `decide` makes the new entry from the
        history, or raises Problem. A dry run stores nothing.
        """

        def plan(history: Sequence[Entry | OtherKind]) -> Plan[PublishOutcome[_E], Entry]:
            for n, entry in enumerate(history):
                if entry.revision == request.revision and repeats(request, entry, _last_revision(history[:n])):
                    repeated: Any = entry  # `repeats` has checked its type
                    outcome = PublishOutcome(repeated, created=False)
                    return Plan(self._dry_run_outcome(repeated, history) if dry_run else outcome)
            decided = decide(history)
            if dry_run:
                self._count_against_rate(decided, dry_run=True)
                return Plan(self._dry_run_outcome(decided, history))
            return Plan(PublishOutcome(decided, created=True), [decided])

        return await self._writer.decide_and_append(
            lambda: self.alert_log.history(request.id), plan, self._append_counted
        )

    def _dry_run_outcome(self, entry: _E, history: Sequence[Entry | OtherKind]) -> PublishOutcome[_E]:
        """Return the answer to a dry run.

        It has the entry that would be stored, the text that reviewers have to sign, and the number of reviewers who
        have to sign.
        """
        before = [each for each in history if each.revision < entry.revision]
        now = self.clock.now().wall_ms
        alert = entry if isinstance(entry, Revision) else _last_revision(_as_believed(before, now))
        category = "" if alert is None else alert.alert.category
        needed = self._approvals.needed(entry, Chain.of(before).kinds)
        return PublishOutcome(entry, False, self._approvals.form(entry, category), needed)

    async def _append_counted(self, entries: Sequence[Entry]) -> bool:
        """Append the single entry in `entries` to the log, and count it against its publisher's rates.

        A rate limits how often a publisher may publish. Return False if the entry was not stored, because another
        writer has taken its number; otherwise True. Raise Problem (429) if a rate is used up (rule PG2).
        """
        [entry] = entries
        stored, counted_s = False, self._count_against_rate(entry)
        try:
            stored = await self._writer.append(entries)
        finally:
            # Only entries that are known to be stored count. So a client that repeats its request while the log is
            # unavailable does not use up its rate.
            if not stored and counted_s is not None:
                self.rates.give_back((entry.issuer, entry.source, False), counted_s)
        return stored

    def _count_against_rate(self, entry: Entry, *, dry_run: bool = False) -> float | None:
        """Count an entry against its publisher's rates, or a dry run against the rates of dry runs.

        A rate limits how often requests may come. Return the time at which the entry was counted (in seconds of the
        monotonic clock), or None if no rate applies to such an entry. Raise Problem (429) if a rate is used up.
        """
        if self.publishers is None or isinstance(entry, Cancel):
            return None
        now_s = self.clock.now().monotonic
        rates = DRY_RUNS if dry_run else self.publishers.by(entry.issuer).rates(entry.source)
        self.rates.claim((entry.issuer, entry.source, dry_run), rates, now_s)
        return now_s

    def _revision_to_follow(self, history: Sequence[Entry | OtherKind], number: int, publisher: Requester) -> Revision:
        """Return the last revision of an alert, if the next entry may have the number `number`.

        Otherwise, raise Problem: 404 if the alert is unknown, 403 if it belongs to another publisher, 410 if it has
        ended, or 409 if `number` is not the next number.

        An entry of a kind that only a later release knows has a number, but its content is ignored (rule LogG4).
        """
        current = _last_revision(history)
        if current is None:
            raise Problem(problems.UNKNOWN_ALERT)
        known = [entry for entry in history if not isinstance(entry, OtherKind)]
        if not publisher.may_change(known[0].issuer, known[0].source):
            raise Problem(problems.NOT_YOURS)
        cancelled = any(isinstance(entry, Cancel) for entry in known)
        if cancelled or current.ends_at <= self.clock.now().wall_ms:
            raise Problem(problems.ALERT_ENDED)
        if number != history[-1].revision + 1:
            raise Problem(problems.REVISION_CONFLICT, extra={"current": history[-1].revision})
        return current

    def _accepted(
        self, request: Publication, publisher: Requester, current: Revision | None, behind: Kinds = NO_KINDS
    ) -> Revision:
        """Return the revision to store for a request. Raise Problem (422) with every rule that the request breaks.

        `current` is the revision that it follows; None for revision 1. `behind` has, for each earlier revision, its
        category and whether a person has confirmed something in it. These decide how many reviewers have to approve
        (HD1).
        """
        now = self.clock.now().wall_ms
        violations = self._violations(request, self.check_publisher(publisher), now, current, first=current is None)
        if current is not None:
            violations = [*_changed_fields(request, current), *violations]
        if detail := self._reserved(request.id):
            violations = [Violation(problems.INVALID_VALUE, "/id", detail), *violations]
        category = self.policy.categories.get(request.category)
        if category is None:
            raise Problem.of(violations)
        terms = self.policy.terms(category, current)
        entry = Revision(
            request.accept(terms, current), request.revision, publisher.sub, now, terms, issuer=publisher.issuer
        )
        return check_size(self._with_proof(entry, request.approval, entry, now, violations, behind))

    def _reserved(self, alert_id: str) -> str | None:
        """Return why no publisher may use this id, or None if its beginning is not reserved."""
        if self.reserves and alert_id.startswith(RESERVED):
            return f"must not begin with {RESERVED}: such alerts come from messages of CAP"
        if alert_id.startswith(OWN_TEST_PREFIX):
            return f"must not begin with {OWN_TEST_PREFIX}: such alerts are the tests that subscribers ask for"
        return None

    def _with_proof(
        self,
        entry: _E,
        approved: Approved,
        alert: Revision,
        now_ms: int,
        violations: Sequence[Violation],
        behind: Kinds,
    ) -> _E:
        """Check an entry's approval, and return the entry, with a proof of its approval if the approval has signatures.

        `alert` is the new revision itself, or the revision that a cancel ends. `behind` has, for each earlier revision,
        its category and whether a person has confirmed something in it. Only in a dry run may `approved` be None. Raise
        Problem (422) if there are `violations` already, or if the approval breaks a rule.
        """
        proof = approved if isinstance(approved, ApprovalProof) else None
        if approved is not None:
            fits = not violations
            violations = [*violations, *self._approvals.violations(entry, proof, alert, now_ms, behind, fits=fits)]
        if violations:
            raise Problem.of(violations)
        return entry if proof is None else self._approvals.proved(entry, proof)


def check_size(entry: _E) -> _E:
    """Return the entry unchanged if it is small enough for the log (rule F8).

    Raise Problem (413) if it is too large.
    """
    if not codec.fits(entry):
        detail = f"takes more than {codec.MAX_ENTRY_BYTES // 1024} KiB with all its languages"
        raise Problem(problems.TOO_LARGE, detail)
    return entry


def _repeats_revision(request: Publication, entry: Entry | OtherKind, current: Revision | None) -> bool:
    # The policy accepts only requests whose `threat` is `community` (P2). So each stored entry had this value, and a
    # request with another value is not a repetition.
    if not isinstance(entry, Revision) or request.threat != "community":
        return False
    if isinstance(request.approval, ApprovalProof):
        return entry.proof is not None and entry.proof.same_form(request.approval)
    # Build an entry from the request as if it had been published when the stored entry was: under the same terms of the
    # policy, and after the same revision. Compare the two. So a repeated request is no conflict, even if the policy has
    # changed or later revisions have been published since.
    return entry.same_content(replace(entry, alert=request.accept(entry.terms, current), proof=None))


def _repeats_cancel(request: Cancellation, entry: Entry | OtherKind, _current: Revision | None) -> bool:
    if not isinstance(entry, Cancel):
        return False
    if isinstance(request.approval, ApprovalProof):
        return entry.proof is not None and entry.proof.same_form(request.approval)
    approval, confirm = approval_of(request.approval), request.confirm.in_order()
    return entry.same_content(replace(entry, reason=request.reason, approval=approval, confirm=confirm, proof=None))


def _changed_fields(request: Publication, current: Revision) -> list[Violation]:
    found = []
    if request.status != current.alert.status:
        found.append(Violation(problems.STATUS_CHANGED, "/status", "must stay as it was in revision 1"))
    if request.occurred_at != current.alert.occurred_at:
        found.append(Violation(problems.OCCURRED_AT_CHANGED, "/occurred_at", "must stay as it was in revision 1"))
    return found


def _as_believed(history: Sequence[Entry | OtherKind], now_ms: int) -> Sequence[Entry | OtherKind]:
    """Return an alert's history as it may look to processes that accept other signatures (HD7).

    If this process accepts a revision of the alert that has not expired, return the history unchanged. Otherwise,
    return it as if this process accepted the signatures of every revision.
    """
    current = _last_revision(history)
    if current is not None and now_ms < current.ends_at:
        return history
    return [each.said if isinstance(each, Untrusted) and isinstance(each.said, Revision) else each for each in history]


def _last_revision(history: Sequence[Entry | OtherKind]) -> Revision | None:
    return next((entry for entry in reversed(history) if isinstance(entry, Revision)), None)
