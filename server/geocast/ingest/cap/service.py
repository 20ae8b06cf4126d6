"""The processing of a CAP message, from its bytes to its answer (cap.md, rules CP1 to CP25). Nothing here knows HTTP.

A tombstone is a cancel that is the only entry of its id. It is sent to nobody, and marks that a message is too late.

    bytes ── read_message, in a thread: 400, 422, 403 ──> MessageReading
      │ a message that is not meant to be published: ignored
      v
    the histories of its name and of the names that it refers to <──┐
      │ decision.decide: which alerts is it about?                  │ another writer was
      │ expired, a repeated message, 422 of the policy, 429         │ faster at some entry
      v                                                             │
    PlannedEntries: revisions, cancels, tombstones, one by one ─────┘ ──> CapOutcome

The entries of one message are appended one after another, not all together. If the log refuses one of them, because
another writer was faster, the decision is made again, and entries that are stored already are skipped (`decision`,
Rule 1).
Example: a message replaces the alerts a and b by n. Node A has published n and cancelled a when somebody cancels b by
hand. Node A's cancel of b is refused, because its number is taken. Node A decides again. It finds that n is stored and
that a and b have ended, so nothing is left to append. It answers 201 `replaced`, which is what this request has done.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ... import failpoints
from ...alertlog import AlertLog
from ...alertlog.chain import NO_KINDS
from ...alertlog.optimistic import OptimisticWriter, Plan
from ...approvals.request_check import unsigned
from ...clock import Clock
from ...model import problems
from ...model.alert import Approval, Cancel, Entry, Origin, Revision
from ...model.errors import without_frames
from ...model.problems import Problem, Violation
from ...model.times import MAX_MS
from ...policy import Policy
from ...policy.publishers.bounds import Bounds, Publishers, granted
from ...policy.publishers.rates import Rates
from ..publish import RunInThread, check_size, run_here
from . import ids, language_groups
from . import message as cap_message
from .decision import IGNORED, PUBLISHED, REPEATED, REPLACED, Decision, FoundAlert, KnownHistories, MessageFacts, decide
from .draft import Draft, Drafter, has_ended
from .message import CapMessage
from .sources import CapSource, CapSources
from .texts import cut
from .zones import NO_ZONES, Zones

MAX_REASON = 280
REPLACED_REASON = "Replaced by a newer message."
CANCEL_REASON = "Cancelled by the issuer."
TOMBSTONE_REASON = "Referred to by a newer message."
TOMBSTONE_MS = 24 * 3_600_000  # a tombstone is remembered at least this long after its message was sent (CP13)
READS_AT_ONCE = 32  # the largest number of histories that are read at the same time
_TIME_RULES = {problems.STALE, problems.EXPIRY_OUT_OF_RANGE}  # rules that a valid message may break at a later time
_OVERTAKEN = "other writers keep changing the alerts that this message is about, or their last entries can't be read"


@dataclass(frozen=True, slots=True)
class CapOutcome:
    """The answer to a CAP message.

    `outcome` is one word, such as `published` or `ignored`; for `ignored`, `why` is the reason. `alerts` and
    `cancelled` are the revisions and cancels that were made from the message, by this request or an earlier one.
    `notes` name what was changed or left out. `areas_left_out` is the number of areas whose shape is not known, or only
    in part. `stored` has the entries that this request has appended to the log, including tombstones (cancels of ids
    without an alert).
    """

    outcome: str
    why: str = ""
    alerts: tuple[Revision, ...] = ()
    cancelled: tuple[Cancel, ...] = ()
    notes: frozenset[str] = frozenset()
    areas_left_out: int = 0
    stored: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageReading:
    """A parsed message, with all results that do not depend on the log.

    `drafts` are the alerts that the message would make. There are none if the message cancels, or if there is a
    `refusal`. `refusal` is the problem if the message breaks rules of the policy. It is not raised at once, because a
    message that was published before gets the same answer again. Example: an alert is published, the policy becomes
    stricter, and the issuer repeats the message. Then the answer is `repeated`, not 422.

    `ignored` is the reason why the message is not meant to be published; "" if it is. `ended`: whether the message is
    of the type Alert, and all its alerts have expired. `blocks` is the number of alerts that the message would make.
    """

    message: CapMessage
    facts: MessageFacts
    drafts: Sequence[Draft] = ()
    refusal: Problem | None = None
    ignored: str = ""
    ended: bool = False
    blocks: int = 0


@dataclass(eq=False, repr=False)
class CapIngest:
    """Processes CAP messages: makes a decision on each message, and appends the resulting entries to the log.

    Messages of the given sources are processed under the given policy. `appended` is called with each entry after it
    was stored. `run_in_thread` runs work that takes milliseconds. `publishers` has the limits of each source, by its
    name; if it is None, each source may do all that the policy allows. `zones` has the shapes for the codes of areas.
    `rates` counts how often each source has published.
    """

    alert_log: AlertLog
    policy: Policy
    sources: CapSources
    clock: Clock
    appended: Callable[[Entry], None] = lambda _entry: None
    run_in_thread: RunInThread = run_here
    publishers: Publishers | None = None
    zones: Zones = NO_ZONES
    rates: Rates = field(default_factory=Rates, kw_only=True)

    def __post_init__(self) -> None:
        self._writer = OptimisticWriter[Entry](self.alert_log, self.appended, _OVERTAKEN)

    def with_config(self, policy: Policy, sources: CapSources, publishers: Publishers | None = None) -> "CapIngest":
        """Return a copy of this object with another policy, other sources, and other limits for the sources.

        Messages in progress continue under the old ones.
        """
        return replace(self, policy=policy, sources=sources, publishers=publishers)

    def check_source(self, source: CapSource) -> Bounds:
        """Return the limits on what this source may publish.

        Raise Problem (403) if the source may not publish at all (rule PG1).
        """
        return granted(self.publishers, source.name, "The source is not among the publishers of this node.")

    async def take(self, body: bytes, charset: str | None, source: CapSource, *, dry_run: bool = False) -> CapOutcome:
        """Process the CAP message in `body`, from this source, and return the answer.

        With `dry_run`, make the decision, but store nothing. Raise Problem if the message is refused, and
        LogUnavailable if the outcome is unknown.
        """
        now_ms, bounds = self.clock.now().wall_ms, self.check_source(source)
        reading = await self.run_in_thread(
            lambda: read_message(body, charset, source, self.policy, bounds, now_ms, self.zones), source.name
        )
        if reading.ignored:
            return CapOutcome(IGNORED, reading.ignored, notes=reading.message.notes)
        return await self._carry_out(reading, source, dry_run=dry_run)

    async def _carry_out(self, reading: MessageReading, source: CapSource, *, dry_run: bool) -> CapOutcome:
        """Make the decision on a message, using the alerts in the log, and append the resulting entries in order.

        If another writer is faster at one of the entries, make the decision again, and append the entries that are
        still missing. With `dry_run`, append nothing.
        """
        stored: list[Entry] = []
        counted = False
        first_decision: Decision | None = None  # the decision whose outcome is the answer

        def plan(decided: tuple[Decision, int]) -> Plan[CapOutcome, Entry]:
            nonlocal first_decision
            decision, now_ms = decided
            if decision.outcome != REPEATED and reading.ended:
                return Plan(CapOutcome(IGNORED, "expired", notes=reading.message.notes))
            if reading.refusal is not None and (decision.outcome != REPEATED or decision.publish):
                raise reading.refusal
            # A later decision of this request finds the entries of an earlier one, so its outcome is `repeated`.
            # Therefore the answer has the outcome of the first decision by which more than tombstones were stored.
            if first_decision is None or all(map(_is_tombstone, stored)):
                first_decision = decision
            planned = PlannedEntries(reading, decision, source, self.policy, now_ms)
            if needed := planned.unsigned():
                raise Problem.of(needed)
            entries = [] if dry_run else planned.entries
            return Plan(planned.answer(first_decision, [*stored, *entries]), entries)

        async def append(entries: Sequence[Entry]) -> bool:
            nonlocal counted
            if not counted and any(isinstance(entry, Revision) for entry in entries):
                self._count(source)
                counted = True
            for entry in entries:
                if _is_tombstone(entry):
                    failpoints.hit("before-tombstone")
                if not await self._writer.append([entry]):
                    return False
                stored.append(entry)
            return True

        return await self._writer.decide_and_append(lambda: self._read_and_decide(reading), plan, append)

    async def _read_and_decide(self, reading: MessageReading) -> tuple[Decision, int]:
        """Return the decision on a message, and the time at which it was made, in ms since 1970.

        The histories that the decision depends on are read from the log until `decide` asks for no more.
        """
        known, now_ms = KnownHistories(), self.clock.now().wall_ms

        def may_follow(current: Revision) -> bool:
            return bool(reading.drafts) and reading.drafts[0].may_follow(current)

        while True:
            found = decide(reading.facts, known, now_ms, reading.blocks, may_follow)
            if found is not None:
                return found, now_ms
            while wanted := list(known.missing)[:READS_AT_ONCE]:
                histories = await asyncio.gather(*map(self.alert_log.history, wanted))
                for alert_id, history in zip(wanted, histories, strict=True):
                    known.put(alert_id, history)

    def _count(self, source: CapSource) -> None:
        """Count a message that is about to publish alerts against the limits on how often its source may publish.

        Raise Problem (429) if the source has limits of its own, and one of them is used up (rule PG2).
        """
        rates = () if self.publishers is None else self.publishers.own_rates(source.name)
        if rates:
            self.rates.claim((source.name, False), rates, self.clock.now().monotonic)


def _is_tombstone(entry: Entry) -> bool:
    return isinstance(entry, Cancel) and entry.is_tombstone


def read_message(
    body: bytes, charset: str | None, source: CapSource, policy: Policy, bounds: Bounds, now_ms: int, zones: Zones
) -> MessageReading:
    """Parse a CAP message, and draft the alerts that it would make. This takes milliseconds.

    Raise Problem: 400 if the message is not well-formed, 422 if it breaks a rule of CAP, 403 if the source may not send
    messages for this sender. If the message breaks a rule of the policy, the result has a `refusal` instead.
    """
    message = cap_message.read(body, charset, source.assume_offset)
    publishes = message.type in ("Alert", "Update")
    blocks = language_groups.of(message) if publishes else []
    if not source.speaks_for(message.sender):
        raise Problem(problems.SENDER_NOT_ALLOWED)
    ended = bool(blocks) and all(has_ended(block, now_ms) for block in blocks)
    over = publishes and (language_groups.is_all_clear(message) or ended)
    reading = MessageReading(message, _facts_of(message, source, cancels=message.type == "Cancel" or over))
    if why := _why_ignored(message):
        return replace(reading, ignored=why)
    if publishes and not over:
        left = [block for block in blocks if not has_ended(block, now_ms) and not policy.ignores(block.infos)]
        if not left:
            return replace(reading, ignored="event")
        reading = replace(reading, blocks=len(left))
        drafter = Drafter(message, source, policy, bounds, now_ms, zones)
        try:
            return replace(reading, drafts=drafter.drafts(left))
        except Problem as problem:
            return replace(reading, refusal=without_frames(problem))
    return replace(reading, ended=ended and message.type == "Alert")


def _why_ignored(message: CapMessage) -> str:
    """Return the reason why a message is not meant to be published; "" if it is (CP9).

    The reason is one word; for example, "status" means that the message is a draft, or internal to the issuer's system.
    """
    if message.status in ("System", "Draft"):
        return "status"
    if message.type in ("Ack", "Error"):
        return "type"
    if message.scope != "Public":
        return "scope"
    return "all-clear" if message.type == "Alert" and language_groups.is_all_clear(message) else ""


def _facts_of(message: CapMessage, source: CapSource, *, cancels: bool) -> MessageFacts:
    """Return the facts by which the log is searched for the message itself and for the messages that it refers to.

    `cancels`: whether the message only says that something is over.
    """
    own = ids.base(source.name, message.sender, message.identifier)
    references, names_itself = [], False
    for each in message.references:
        # Some issuers use a different sender name when they refer to their own messages, so both names are tried
        # (CP11).
        readings = [ids.base(source.name, sender, each.identifier) for sender in (each.sender, message.sender)]
        if readings[0] != own:
            references.append(tuple(dict.fromkeys(readings)))
        else:
            names_itself = True
    needed = message.type in ("Update", "Cancel") and not message.references
    return MessageFacts(
        message.sender,
        message.identifier,
        message.sent,
        own,
        tuple(references),
        names_itself=names_itself,
        cancels=cancels,
        needs_references=needed,
    )


@dataclass(eq=False, repr=False)
class PlannedEntries:
    """The log entries that follow from the decision on a message, and the answer to the message.

    The entries are in the order in which they will be appended.
    """

    reading: MessageReading
    decision: Decision
    source: CapSource
    policy: Policy
    now_ms: int

    def __post_init__(self) -> None:
        decision = self.decision
        self._approval = Approval(self.source.approver, max(self.reading.message.sent, decision.called_off))
        self.revisions = list(self._revisions())
        made = [*self.revisions, *(each for each, _ in decision.made)]
        self._latest_end_ms = max(map(self._latest_end, made), default=0)
        self.cancels = [self._cancel(each) for each in decision.cancel]
        self.tombstones = [self._tombstone(each) for each in decision.tombstones]

    @property
    def entries(self) -> list[Entry]:
        """All planned entries, in the order in which they are appended."""
        return [*self.revisions, *self.cancels, *self.tombstones]

    def unsigned(self) -> list[Violation]:
        """Return the violations of the first entry that reviewers would have to sign; none if there is no such entry.

        A CAP message has no signatures of reviewers, so entries that need them are refused.
        """
        behind = {found.id: found.kinds for found in (self.decision.revise, *self.decision.cancel) if found}
        entries: list[Entry] = [*self.revisions, *self.cancels]
        for entry in entries:
            if found := unsigned(self.policy, entry, behind.get(entry.id, NO_KINDS)):
                return found
        return []

    def answer(self, first_decision: Decision, stored: Sequence[Entry]) -> CapOutcome:
        """Return the answer that the issuer gets after all entries were stored.

        `first_decision` is the decision with which this request began to store entries. `stored` has all entries that
        this request has stored.
        """
        decision, reading = self.decision, self.reading
        revisions = {each.id: each for each, _ in decision.made}
        revisions |= {each.id: each for each in (*stored, *self.revisions) if isinstance(each, Revision)}
        cancels = {each.id: each for each in (*decision.cancelled, *stored, *self.cancels) if isinstance(each, Cancel)}
        cancelled = tuple(each for each in cancels.values() if not each.is_tombstone)
        notes = reading.message.notes.union(*(draft.notes for draft in reading.drafts))
        if self._differs():
            notes |= {"differs"}
        return CapOutcome(
            REPLACED if first_decision.outcome == PUBLISHED and cancelled else first_decision.outcome,
            first_decision.why,
            tuple(revisions[alert_id] for alert_id in sorted(revisions)),
            cancelled,
            notes,
            sum(draft.areas_left_out for draft in reading.drafts),
            tuple(stored),
        )

    def _differs(self) -> bool:
        """Return whether a repeated message would make other alerts now than it made the first time (rule CP10).

        Example: an issuer sends another headline under the same name and time. The first answer is given again, with
        the note `differs`.
        """
        made, refusal = self.decision.made, self.reading.refusal
        if refusal is not None:
            return bool(made) and not refusal.types <= _TIME_RULES
        # Blocks of the message that have ended since it was published have no draft any more. Drafts and alerts are
        # both sorted by end, latest first. So only the last drafts are missing, and each of the others still belongs
        # to the alert at the same index.
        return any(
            draft.accept(each.id, each.terms, before) != each.alert
            for draft, (each, before) in zip(self.reading.drafts, made, strict=False)
        )

    # ---- the planned entries ---------------------------------------------------------------------------------------

    def _revisions(self) -> Iterator[Revision]:
        """Yield the next revision of the updated alert, or revision 1 of each alert that is published as new."""
        if (current := self.decision.revise) is not None:
            yield self._revision(1, current.id, current.number + 1, current.revision)
        for number in self.decision.publish:
            if number > len(self.reading.drafts):
                return  # this block and all blocks after it have ended since the first decision
            yield self._revision(number, ids.block(self.decision.first_id, number), 1, None)

    def _revision(self, block: int, alert_id: str, number: int, current: Revision | None) -> Revision:
        message, draft = self.reading.message, self.reading.drafts[block - 1]
        terms = draft.terms(self.policy, current)
        alert = draft.accept(alert_id, terms, current)
        origin = Origin(message.sender, message.identifier, self.reading.blocks)
        parts = alert, number, self.source.name, self.now_ms, terms, origin
        return check_size(Revision(*parts, issuer=self.source.issuer))

    def _cancel(self, found: FoundAlert) -> Cancel:
        reason = REPLACED_REASON if self.decision.into else self._cancel_reason()
        ends_at = max(found.revision.ends_at, self._latest_end_ms, self.decision.until)
        return self._end(found.id, found.number + 1, reason, ends_at)

    def _tombstone(self, alert_id: str) -> Cancel:
        ends_at = min(max(self._approval.approved_at + TOMBSTONE_MS, self._latest_end_ms, self.decision.until), MAX_MS)
        return self._end(alert_id, 1, TOMBSTONE_REASON, ends_at)

    def _end(self, alert_id: str, number: int, reason: str, ends_at: int) -> Cancel:
        parts = alert_id, number, reason, self._approval, self.source.name, self.now_ms, ends_at
        return Cancel(*parts, into=self.decision.into, issuer=self.source.issuer)

    def _cancel_reason(self) -> str:
        """Return why the alert is over, in the issuer's own words and in the message's first language.

        The reason is the headline; or the message's note, if the headline is missing or only repeats the name of the
        event.
        """
        if not self.reading.facts.cancels:
            return CANCEL_REASON  # an earlier message has called off the alerts, and this one is late
        first = next(iter(self.reading.message.infos), None)
        headline = first.headline if first is not None and first.headline != first.event else ""
        return cut(headline or self.reading.message.note or CANCEL_REASON, MAX_REASON)

    def _latest_end(self, revision: Revision) -> int:
        """Return the latest time at which a revision's alert may end under the current policy, in ms since 1970."""
        category = self.policy.categories.get(revision.alert.category)
        latest = 0 if category is None else revision.alert.occurred_at + category.lasting.max_age_ms
        return max(revision.ends_at, latest)
