"""The decision on a CAP message, computed only from the message and the log (rules CP10 to CP20).

A CAP message does not say to which incident it belongs. It names earlier messages, and issuers do that in different
ways: some name the previous message, some the first one, some all of them, and some use one name for all messages.
Messages arrive late, twice, in any order, and at several nodes at once. This module finds the alerts that a message is
about, and makes a decision ("it" is the message):

    what the log knows                                                    Alert, Update       Cancel
    --------------------------------------------------------------------  ------------------  -----------
    this very message                                         CP10        repeated            –
    a message of its name that was sent no earlier            CP12, CP13  superseded          superseded
        … and live alerts whose current message it names                  these are cancelled
    nothing of it, and nothing of the messages that it names  CP16        published           noted
    live alerts whose current message it names                CP17        updated, replaced   cancelled
    only alerts that have ended                               CP18        published           ignored
        … one of them was cancelled by a newer message        HD9         superseded          ignored
    live alerts, and it names no current message of them;     CP19
        … it is newer than all of these current messages                  updated, replaced   cancelled
        … it is as new as the newest of them                              published           superseded
        … it is older than the newest of them                             superseded          superseded

Words. A message's *name* is its sender and identifier; messages with the same name differ by `sent`. The *current
message* of an alert is the message from which its last revision was made. A *chain* is an alert, the alerts that it
replaced, and the alerts that replace it. A *tombstone* is a cancel that is the only entry of an id: it is sent to
nobody, and marks that a message with this name would be late. A cancel or tombstone *goes into* another alert (`into`)
if the other alert has taken the place of the cancelled one.

In the examples below, m is an Alert sent at 12:00, u an Update of m sent at 12:01, v an Update of u sent at 12:02, and
c a Cancel of m sent at 12:05.

Rule 1  A decision depends on the log, and on nothing that a node remembers. So any node can make it again at any time.
        Entries that are stored already are found in the log, and are not stored twice.
        Example: a message n replaces the alerts a and b. Node A publishes n, cancels a, and dies. The issuer sends n
        again, to node B, which finds n in the log (`repeated`) and finds that b is still live. Node B cancels b, and
        publishes nothing.
Rule 2  If two writers append the first entry of the same id, the log refuses the second one. Its writer then makes its
        decision again (`alertlog.optimistic`).
        Example: node A takes m while node B takes u. Node B knows nothing of m, so it publishes u as new and then
        leaves a tombstone at m's id. If the tombstone is first, node A cannot append m, decides again, finds the
        tombstone, and m is superseded. If m is first, node B cannot append the tombstone, decides again, finds m live
        and named by u, and cancels m into u. In both cases only u is live.
Rule 3  If an alert was replaced, the `into` of its cancel (or of a tombstone) leads to the alert that replaced it. The
        log remembers the cancel or tombstone for at least as long as the alert to which it leads.
        Example: n has replaced a. The issuer does not know this, and a later Update names only a. The cancel of a leads
        to n, and the Update becomes the next revision of n.
Rule 4  A cancel that goes into nothing (`into` is "") calls its chain off. A message that is older than this cancel is
        superseded, in whatever order the messages arrive (HD9).
        Example: m was published and c has cancelled it. Now u arrives late. No live alert is left, so u would be
        published as new. But u is older than c, so u is superseded. It leaves a tombstone at its own name, with the
        time 12:05. When v arrives, which names only u, it finds this tombstone and is superseded, too. An Update of m
        that was sent at 12:06 is published, because it is newer than the cancel.
Rule 5  A message that arrives late still says which alerts belong together.
        Example: m is live. Then v arrives. It names u, which has not arrived yet. So v is published as new, with a
        tombstone at u's id. Now both m and v are live, although v should replace m. When u arrives, it is too late to
        be published, but it connects the two alerts: m is cancelled, into v. If a Cancel of u has arrived instead of v,
        then u connects m with a chain that was called off, and m is cancelled.

This module neither reads the log nor waits. `KnownHistories` collects the ids of histories that are missing. The caller
reads these histories and calls `decide` again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...alertlog.chain import Chain, Kinds
from ...model import problems
from ...model.alert import Cancel, Entry, OtherKind, Revision
from ...model.problems import Problem, Violation
from . import ids

MAX_VISITED = 1_000  # the search for one decision visits at most this number of ids, to limit its time
MAX_GENERATIONS = 500  # the largest number of messages of one name published as new and not forgotten yet (HD14)
FULL_RETRY_S = 3_600

PUBLISHED, UPDATED, REPLACED, CANCELLED = "published", "updated", "replaced", "cancelled"
REPEATED, SUPERSEDED, NOTED, IGNORED = "repeated", "superseded", "noted", "ignored"
CHANGES = (PUBLISHED, UPDATED, REPLACED, CANCELLED)  # outcomes that are answered with 201
OUTCOMES = (*CHANGES, REPEATED, SUPERSEDED, NOTED, IGNORED)


class KnownHistories:
    """The histories of alerts (their entries in the log) that were read so far. They are found by the alert's id.

    `missing` has the ids of the histories that are needed but were not read yet.

    The caller makes the decision, reads the missing histories, and makes the decision again, until none is missing.
    Example: a message names m. The first decision lacks the histories of the message's own name and of m. The cancel of
    m says that n has replaced m, so the second decision lacks the history of n. The third decision has all that it
    needs.
    """

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self._histories: dict[str, Sequence[Entry | OtherKind]] = {}

    def put(self, alert_id: str, history: Sequence[Entry | OtherKind]) -> None:
        """Store the history of an id (its entries in the log), which the caller has read."""
        self._histories[alert_id] = history
        self.missing.discard(alert_id)

    def __getitem__(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return the history of an id: its entries in the log.

        If this history was not read yet, return an empty sequence, and add the id to `missing`.
        """
        if alert_id not in self._histories:
            self.missing.add(alert_id)
        return self._histories.get(alert_id, ())


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """The properties of a CAP message that determine which alerts the message is about.

    `base` is the id for the message's name (its sender and identifier). `references` has one item for each other
    message that this message refers to: a tuple of the ids that may be meant, the most likely one first. Example: a
    message of met@example.org refers to "PAAQ,m-1". The sender of m-1 may be PAAQ, or it may be met@example.org itself,
    under another name (rule CP11).

    `names_itself`: whether the message refers to a message with its own name. `cancels`: whether the message only says
    that something is over. `needs_references`: whether the message must be refused if it refers to no message, unless
    the log has an earlier message with its name (rules CP5 and CP12).
    """

    sender: str
    identifier: str
    sent: int
    base: str
    references: tuple[tuple[str, ...], ...]
    names_itself: bool
    cancels: bool
    needs_references: bool


@dataclass(frozen=True, slots=True)
class FoundAlert:
    """An alert in the log that a CAP message may be about: its last revision, and its cancel (or None).

    `number` is the number of the alert's last entry. `kinds` has, for each revision, its category and whether a person
    has confirmed something in it. These decide how many reviewers have to approve the next entry (HD1).
    """

    revision: Revision
    number: int
    cancel: Cancel | None
    kinds: Kinds

    @property
    def id(self) -> str:
        """The id of the alert in the log."""
        return self.revision.id

    @property
    def sent(self) -> int:
        """The send time of the CAP message from which the last revision was made, in ms since 1970."""
        return self.revision.alert.approval.approved_at

    @property
    def name_id(self) -> str:
        """The id for the name (sender and identifier) of the CAP message from which the last revision was made.

        It is "" if the last revision was not made from a CAP message.
        """
        origin = self.revision.origin
        return "" if origin is None else ids.base(self.revision.source, origin.sender, origin.identifier)

    @property
    def blocks(self) -> int:
        """The number of alerts that were made from the CAP message from which the last revision was made."""
        return 1 if self.revision.origin is None else self.revision.origin.blocks


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about a CAP message: the outcome to report, and the steps to take.

    The steps are taken in this order, so that a replaced alert never ends before the new alert exists (CP20):

    1. `publish`: publish new alerts for these parts of the message (counted from 1), with ids made from `first_id`;
       or `revise`: append a revision to this alert;
    2. `cancel`: cancel these alerts;
    3. `tombstones`: append a tombstone (a cancel that is the only entry of its id) at each of these ids.

    `into` is the id of the alert that takes the place of the cancelled ones; "" if there is none. The log remembers the
    cancels and tombstones at least until `until`, in ms since 1970. `called_off` is the time of the latest message that
    has called off one of the alerts (has ended it without a replacement); 0 or less if there is none. If it is later
    than the time of this message, it becomes the time of the cancels and tombstones (Rule 4).

    If the message is repeated, `made` has the revisions that were made from it earlier, each with the revision before
    it (or None), and `cancelled` has the cancels that were made from it.
    """

    outcome: str
    why: str = ""
    first_id: str = ""
    publish: tuple[int, ...] = ()
    revise: FoundAlert | None = None
    cancel: tuple[FoundAlert, ...] = ()
    tombstones: tuple[str, ...] = ()
    into: str = ""
    until: int = 0
    made: tuple[tuple[Revision, Revision | None], ...] = ()
    cancelled: tuple[Cancel, ...] = ()
    called_off: int = 0


def decide(
    facts: MessageFacts, histories: KnownHistories, now_ms: int, blocks: int, may_follow: Callable[[Revision], bool]
) -> Decision | None:
    """Return the decision on a message; or None if histories are missing, whose ids are then in `histories.missing`.

    `blocks` is the number of alerts that the message would make. `may_follow(revision)` returns whether the message may
    become the next revision after the given one, which depends on the message's status and expiry (rule CP17). Raise
    Problem: 422 if the message must refer to another message and does not, or 429 if too many messages with its name
    were published as new.
    """
    related = _RelatedAlerts(facts, histories, now_ms)
    if histories.missing:
        return None
    if related.made:
        return _decide_repeated(related)
    latest = max(related.sent_of_own_name, default=-1)
    if facts.sent < latest or (facts.sent == latest and not facts.cancels):
        return _decide_too_late(related)
    if facts.needs_references and not facts.references and not related.knows_own_name:
        wrong = Violation(problems.MISSING_FIELD, "/alert/references", "is needed: what it updates or cancels")
        raise Problem.of([wrong])
    # From here on, no newer message of this name is known.
    late, targets = related.targets()
    if facts.cancels:
        return _decide_cancel(related, late, targets)
    if late:
        # Store a tombstone under this message's own id, which names the newest alert. So later messages that refer only
        # to this message lead to that alert (Rule 3).
        newest = max(related.live(), key=lambda each: each.sent)
        return Decision(
            SUPERSEDED, tombstones=related.unknown_with_own(), into=newest.id, until=newest.revision.ends_at
        )
    if targets:
        return _decide_update(related, targets, blocks, may_follow)
    # The message is about no live alert. Either nothing is known, or all alerts have ended, or the newest alert is as
    # new as the message (CP19).
    if related.is_called_off:
        tombstones = (related.free_id(related.facts.base), *related.unknown)
        return Decision(SUPERSEDED, tombstones=tombstones, called_off=related.called_off)
    return _decide_new(related, PUBLISHED, (), blocks)


def _decide_new(related: "_RelatedAlerts", outcome: str, instead_of: Iterable[FoundAlert], blocks: int) -> Decision:
    """Return the decision to publish the message as new, and to cancel the alerts that it replaces (CP16 to CP18).

    `instead_of` has these alerts.
    """
    first_id = related.free_id(related.facts.base)
    return Decision(
        outcome,
        first_id=first_id,
        publish=tuple(range(1, blocks + 1)),
        cancel=tuple(instead_of),
        tombstones=related.unknown,
        into=first_id,
    )


def _decide_too_late(related: "_RelatedAlerts") -> Decision:
    """Return the decision not to publish a message, because a newer message with the same name is known.

    The alerts that the message would have replaced are cancelled. The newer message may name only this message, so
    nothing else connects the newer message with these alerts (rule CP13, and Rule 5 of the module).
    """
    into, until = related.successor()
    cancel = tuple(related.predecessors())
    if related.is_called_off:
        cancel = tuple(each for each in related.live() if each.sent < related.called_off)
        into = "" if cancel else into
    unknown, called_off = related.unknown, related.called_off
    return Decision(SUPERSEDED, cancel=cancel, tombstones=unknown, into=into, until=until, called_off=called_off)


def _decide_update(
    related: "_RelatedAlerts", targets: list[FoundAlert], blocks: int, may_follow: Callable[[Revision], bool]
) -> Decision:
    """Return the decision on an update: to revise the alert that it is about, or to replace alerts (CP17).

    If the message is about several alerts, or if it can't become a revision, it is published as new, and the alerts
    that it is about are cancelled. Example: an alert ends at 13:00, and an Update says that it ends at 12:30. No
    revision ends earlier than the one before it (P6), because clients rely on that. So the Update is published as a new
    alert that ends at 12:30, and then the old alert is cancelled.
    """
    one = targets[0]
    if len(targets) > 1 or one.blocks > 1 or blocks > 1 or not may_follow(one.revision):
        return _decide_new(related, REPLACED, targets, blocks)
    return Decision(UPDATED, revise=one, tombstones=related.unknown_with_own(), into=one.id)


def _decide_cancel(related: "_RelatedAlerts", late: bool, targets: list[FoundAlert]) -> Decision:
    """Return the decision on a Cancel: to cancel the alerts that it is about, if there are any.

    If there are none, leave tombstones, so that the older messages that it refers to are not published if they arrive
    late. A tombstone is a cancel that is the only entry of its id. Example: the Cancel c arrives before m, the message
    that it cancels. The log knows nothing of m, so c leaves a tombstone at m's id (`noted`). When m arrives, the
    tombstone says that a message sent at 12:05 has cancelled it. So m is superseded, and nobody is warned of a danger
    that is over.
    """
    if targets:
        return Decision(CANCELLED, cancel=tuple(targets), tombstones=related.unknown)
    if late or related.live():
        return Decision(SUPERSEDED)
    if related.knows_any_name:
        # No cancel is stored for an alert that has expired, so a late, older message would not find one. Example: the
        # alert of message m expires at 12:04. Then the Cancel c of m arrives, sent at 12:05. There is nothing left to
        # cancel, but the Update u of m, sent before c, may still arrive. A tombstone (a stored mark that this name is
        # over) at the next free id of m's name, with the time 12:05, makes sure that u is superseded (HD9). If c
        # arrives twice, such a tombstone is there already, and none is added.
        marks = () if related.called_off >= related.facts.sent else related.free_ids_of_known_references()
        return Decision(IGNORED, why="ended", tombstones=(*marks, *related.unknown))
    own = (related.facts.base,) if related.facts.names_itself else ()
    return Decision(NOTED, tombstones=(*own, *related.unknown))


def _decide_repeated(related: "_RelatedAlerts") -> Decision:
    """Return the decision on a message that was processed before: to take the steps that remain (CP10 and CP20).

    Steps remain if a node died between two of them (the example of Rule 1). If the message's alerts were called off in
    the meantime, those that were not published yet are never published (HD9). Example: node A publishes the first of
    two alerts of a message and dies. A Cancel ends the first alert. The message arrives again. Its second alert would
    warn of a danger that is over.
    """
    [first_id, *_] = related.first_ids_made
    made = tuple(related.made[alert_id] for alert_id in sorted(related.made))
    origin = made[0][0].origin
    blocks = 0 if related.is_called_off else 1 if origin is None else origin.blocks
    # Keep alerts whose current message was sent later: they may have taken the place of this message's alerts.
    targets = [each for each in related.targets()[1] if each.sent <= related.facts.sent]
    return Decision(
        REPEATED,
        first_id=first_id,
        publish=tuple(n for n in range(1, blocks + 1) if ids.block(first_id, n) not in related.made),
        cancel=tuple(targets),
        tombstones=related.unknown_with_own(),
        into=first_id,
        made=made,
        cancelled=related.cancelled_into(first_id),
    )


class _RelatedAlerts:
    """Finds the alerts in the log that a CAP message may be about.

    The search starts at the message's own name and at the names to which the message refers. From a cancelled alert,
    the search goes on to the alert that has replaced it (Rule 3).

    `sent_of_own_name` has the times at which the known messages with the name of this message were sent, and those that
    cancelled an alert of this name.

    `made` is a dict from the ids of the alerts that were made from this very message to pairs: the revision that was
    made from it, and the revision before that (or None). `unknown` has the ids for those references that the log does
    not know. `called_off` is the time, in ms since 1970, of the latest message that has ended one of the alerts without
    a replacement; -1 if there is none.
    """

    def __init__(self, facts: MessageFacts, histories: KnownHistories, now_ms: int) -> None:
        self.facts = facts
        self.made: dict[str, tuple[Revision, Revision | None]] = {}
        self.first_ids_made: list[str] = []  # for each item of `made`, the id of its message's first block
        self._histories = histories
        self._now_ms = now_ms
        self._found: dict[str, FoundAlert] = {}
        self._visited: set[str] = set()
        self.sent_of_own_name: list[int] = []
        self.called_off = -1
        self.knows_own_name = self._follow_name(facts.base)
        self._ids_of_own_name = set(self._found)
        self._named: set[str] = set()
        unknown: dict[str, None] = {}
        self.knows_any_name = self.knows_own_name
        for readings in facts.references:
            self._named |= set(readings)
            if any(self._follow_name(each) for each in readings):
                self.knows_any_name = True
            else:
                unknown |= dict.fromkeys(readings)
        unknown.pop(facts.base, None)
        self.unknown = tuple(unknown)

    def unknown_with_own(self) -> tuple[str, ...]:
        """Return the ids for the names that the log does not know, among those to which the message refers.

        If the log does not know the message's own name either, the id for this name comes first.
        """
        return self.unknown if self.knows_own_name else (self.facts.base, *self.unknown)

    # ---- properties of the alerts that were found --------------------------------------------------------------

    def live(self) -> list[FoundAlert]:
        """Return those of the found alerts that have not ended, except the alerts made from this message."""
        return [
            each
            for each in self._found.values()
            if each.cancel is None and each.revision.ends_at > self._now_ms and each.id not in self.made
        ]

    def targets(self) -> tuple[bool, list[FoundAlert]]:
        """Return a pair: whether the message is too late, and the live alerts that it is about.

        A live alert is one that has not ended. Its current message is the one from which its last revision was made.

        If the message refers to the current message of some live alerts, it is about these alerts (CP11, CP17).
        Example: an issuer repeats its whole history in every message. The current message of alert A is m-2, and that
        of alert B is n-2. An Update that refers to m-2, m-1 and n-1 is about A only.

        If the message refers to no current message, it is about all live alerts, provided that it was sent later than
        all their current messages (CP19). Example: an issuer always refers to m, and the current message of the alert
        is an Update of 12:03. An Update sent at 12:04 is about the alert. An Update sent at 12:02 is too late. An
        Update sent at 12:03 is neither: its issuer has split the warning into two messages, so the Update is published
        as an alert of its own.
        """
        live = self.live()
        if named := [each for each in live if self._names_current_message_of(each)]:
            return False, named
        newest = max((each.sent for each in live), default=self.facts.sent)
        if self.facts.sent < newest:
            return True, []
        return False, live if self.facts.sent > newest else []

    def _names_current_message_of(self, alert: FoundAlert) -> bool:
        """Return whether the message refers to the message from which the last revision of `alert` was made.

        A message counts as referring to all earlier messages with its own name, even without a reference. Example: an
        issuer sends every update under the name of the first message, with a later `sent` (CP12).
        """
        own = alert.name_id == self.facts.base
        return alert.sent < self.facts.sent if own else alert.name_id in self._named

    def predecessors(self) -> list[FoundAlert]:
        """Return the live alerts that the message would have replaced if it had not arrived too late.

        They are chosen by the rules in `targets`. The alerts that were found through the message's own name are
        excluded, because they have taken the message's place.
        """
        others = [each for each in self.live() if each.id not in self._ids_of_own_name]
        named = [each for each in others if each.name_id in self._named]
        if named or all(each.sent < self.facts.sent for each in others):
            return [each for each in named or others if each.sent < self.facts.sent]
        return []

    def successor(self) -> tuple[str, int]:
        """Return the id of the alert that has taken the message's place, and how long the log will know that.

        The id is "" if there is no such alert. The time until which the log knows it is in ms since 1970.
        """
        heads = [self._histories[each] for each in self._generations(self.facts.base)]
        if not heads:
            return "", 0
        [first, *_] = heads[-1]
        into = first.into if isinstance(first, Cancel) else first.id
        return into, max(each.ends_at for each in heads[-1])

    @property
    def is_called_off(self) -> bool:
        """Whether a message that was sent later has ended one of the found alerts without a replacement (Rule 4)."""
        return self.facts.sent < self.called_off

    def free_ids_of_known_references(self) -> tuple[str, ...]:
        """Return the first free id for each name that the log knows, among those to which the message refers.

        An id is free if the log has no entry under it.
        """
        return tuple(self.free_id(each) for each in sorted(self._named) if any(self._generations(each)))

    def free_id(self, base: str) -> str:
        """Return an id for the name `base` under which the log has no entry: the first one that is free.

        Raise Problem (429) if the log has entries under all of these ids.
        """
        taken = set(self._generations(base))
        for number in range(1, MAX_GENERATIONS + 1):
            if (alert_id := ids.generation(base, number)) not in taken:
                return alert_id
        detail = f"{MAX_GENERATIONS} messages of this name were published as new within a day"
        raise Problem.later(problems.RATE_LIMITED, FULL_RETRY_S, detail)

    def cancelled_into(self, first_id: str) -> tuple[Cancel, ...]:
        """Return the cancels of those found alerts whose place the alert `first_id` has taken."""
        cancels = [each.cancel for each in self._found.values() if each.cancel is not None]
        return tuple(each for each in cancels if each.into == first_id)

    # ---- the search for related alerts -----------------------------------------------------------------------------

    def _follow_name(self, base: str) -> bool:
        """Find all alerts that were made from messages with the name `base`, and the alerts that replaced those.

        Return whether the log knows the name.
        """
        todo = list(self._generations(base))
        generations = set(todo)
        while todo and len(self._visited) < MAX_VISITED:
            first_id = todo.pop()
            if first_id not in self._visited:
                self._visited.add(first_id)
                todo += self._visit_message(first_id, of_name=first_id in generations and base == self.facts.base)
        return bool(generations)

    def _generations(self, base: str) -> Iterator[str]:
        """Yield those ids for the name `base` under which the log has entries.

        There is one id for each message with this name that was published as new. The log may forget the first id
        before the second one, so a missing first id does not end the search.
        """
        for number in range(1, MAX_GENERATIONS + 1):
            alert_id = ids.generation(base, number)
            if self._histories[alert_id]:
                yield alert_id
            elif number > 1:
                if alert_id in self._histories.missing:
                    # Read ahead, twice as far each time. Example: a name has 40 generations. The log is asked for 1 and
                    # 2, then for 3 and 4, 5 to 8, 9 to 16 and so on: 6 times. If the ids were read one by one, the log
                    # would be asked 40 times, and each time this loop would start again at 1 (HD14).
                    for each in range(number + 1, min(2 * number - 1, MAX_GENERATIONS + 1)):
                        self._histories[ids.generation(base, each)]
                return

    def _visit_message(self, first_id: str, *, of_name: bool) -> Iterator[str]:
        """Add, to the found alerts, those made from one message, whose first alert has the id `first_id`.

        Yield the ids of the alerts that replaced them, which have to be visited next. `of_name`: whether that message
        has the same name as the message to decide on.
        """
        head = self._histories[first_id]
        self._note_cancel(head)
        if of_name:
            self.sent_of_own_name += [each.approval.approved_at for each in head if isinstance(each, Cancel)]
        origin = next((each.origin for each in head if isinstance(each, Revision)), None)
        for number in range(1, 1 + (1 if origin is None else origin.blocks)):
            history = self._histories[ids.block(first_id, number)]
            self._note_cancel(history)
            made_by_this = self._add_alert(history, first_id)
            cancel = next((each for each in history if isinstance(each, Cancel)), None)
            if cancel is not None and cancel.into and not made_by_this:
                yield cancel.into

    def _note_cancel(self, history: Sequence[Entry | OtherKind]) -> None:
        """Update `called_off` with the send time of the message that has cancelled the alert with this history.

        Do nothing if the alert has not been cancelled, or if another alert has taken its place.
        """
        sent = (each.approval.approved_at for each in history if isinstance(each, Cancel) and not each.into)
        self.called_off = max(self.called_off, *sent, -1)

    def _add_alert(self, history: Sequence[Entry | OtherKind], first_id: str) -> bool:
        """Add the alert with this history to the found alerts.

        Return whether one of its revisions was made from the very message to decide on. `first_id` is the id of the
        first alert of the message from which the alert was made.
        """
        revisions = [each for each in history if isinstance(each, Revision)]
        if not revisions:
            return False
        last = revisions[-1]
        cancel = next((each for each in history if isinstance(each, Cancel)), None)
        self._found[last.id] = FoundAlert(last, history[-1].revision, cancel, Chain.of(history).kinds)
        name = self.facts.sender, self.facts.identifier
        for before, each in zip([None, *revisions], revisions, strict=False):
            if each.origin is not None and (each.origin.sender, each.origin.identifier) == name:
                sent = each.alert.approval.approved_at
                self.sent_of_own_name.append(sent)
                if sent == self.facts.sent:
                    self.made[each.id] = each, before
                    self.first_ids_made.append(first_id)
        return last.id in self.made
