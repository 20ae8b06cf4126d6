"""What a message is to what the log knows: a pure function (rules CP10 to CP20).

    what the log knows of this message and of those that it names     Alert, Update       Cancel
    ----------------------------------------------------------------  ------------------  ------------------
    this very message                                          CP10   repeated            –
    its name, by one that was sent no earlier           CP12, CP13    superseded          superseded
        … and live alerts whose current message is named              these are cancelled
    nothing                                                    CP16   published           noted
    live alerts, the current message of which is named         CP17   updated, replaced   cancelled
    ended alerts only                                          CP18   published           ignored
        … and a cancel of one, sent after this one              HD9   superseded          ignored
    live alerts, the current message of none is named;         CP19
        the newest of those was sent before this one                  updated, replaced   cancelled
        … when this one was                                           published           superseded
        … after it                                                    superseded          superseded

Rule 1  A decision is made of the log alone, and of nothing that a node remembers. So it can be made again at any time,
        by any node: when an append shows that somebody else was faster, and when a message comes again because the node
        died between two steps. What was done already is found in the log and is not done twice.
Rule 2  Whoever writes first to an id decides who was first. A message that refers to one that nobody has seen leaves a
        tombstone at that one's id, and the late message finds it; or it finds the message there, decides again, and now
        knows what it refers to.
Rule 3  What stands in the place of something is found by going on from its cancel (`into`), and from a tombstone. It
        ends no sooner than that, so it is not forgotten before.

Rule 4  A chain is called off by a cancel that goes into nothing (`into` is ""), of an alert or as a tombstone. What is
        older than that cancel is superseded (HD9), in whatever order messages come: so a message that is superseded
        for it leaves a tombstone of that time at its own name, for what may refer to that name alone; and a message
        that links a live alert to an older chain that was called off since, cancels that alert.

It is told by `KnownHistories` what it has to be shown, so it waits for nothing and knows no log.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...alertlog.chain import Chain, Kinds
from ...model import problems
from ...model.alert import Cancel, Entry, OtherKind, Revision
from ...model.problems import Problem, Violation
from . import ids

MAX_VISITED = 1_000  # ids that are gone through from what one message names
MAX_GENERATIONS = 500  # messages of one name that were published as new and are not forgotten yet (HD14)
FULL_RETRY_S = 3_600

PUBLISHED, UPDATED, REPLACED, CANCELLED = "published", "updated", "replaced", "cancelled"
REPEATED, SUPERSEDED, NOTED, IGNORED = "repeated", "superseded", "noted", "ignored"
OUTCOMES = (PUBLISHED, UPDATED, REPLACED, CANCELLED, REPEATED, SUPERSEDED, NOTED, IGNORED)


class KnownHistories:
    """What the log has under ids, as far as it was read. What is asked for and was not read is `missing`."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self._histories: dict[str, Sequence[Entry | OtherKind]] = {}

    def put(self, alert_id: str, history: Sequence[Entry | OtherKind]) -> None:
        """The log has this under an id."""
        self._histories[alert_id] = history
        self.missing.discard(alert_id)

    def __getitem__(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """The entries under an id; none if there are none, or if it is missing."""
        if alert_id not in self._histories:
            self.missing.add(alert_id)
        return self._histories.get(alert_id, ())


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What of a message decides which alerts it is about.

    `base`: the id for its name. `references`: for each but those to its own name the ids for its readings, the likelier
    first (CP11); `names_itself`: there is one to its own. `cancels`: it says that something is over, and nothing else.
    `needs_references`: it has to say what it refers to, unless something of its own name is known (CP5, CP12).
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
    """An alert that a message leads to: its last revision, the number of its last entry, and its cancel, if any.

    `kinds`: those of all its revisions, by which it is decided how many have to approve the next entry (HD1).
    """

    revision: Revision
    number: int
    cancel: Cancel | None
    kinds: Kinds

    @property
    def id(self) -> str:
        """The id of the alert, under which the log has it."""
        return self.revision.id

    @property
    def sent(self) -> int:
        """When its current message was sent."""
        return self.revision.alert.approval.approved_at

    @property
    def name_id(self) -> str:
        """The id for the name of its current message; "" if it is from no message."""
        origin = self.revision.origin
        return "" if origin is None else ids.base(self.revision.source, origin.sender, origin.identifier)

    @property
    def blocks(self) -> int:
        """Of how many alerts its current message is the message."""
        return 1 if self.revision.origin is None else self.revision.origin.blocks


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome, and the steps to it, in this order (CP20).

    `publish`: numbers of the blocks that are published as new, under `first_id` and beside it. Or `revise`: the alert
    that gets a revision. Then `cancel`: the alerts that are cancelled; then `tombstones`: ids. `into`: where these two
    go; they last until `until` at least. Of a message that was known `made` has its revisions, each with the one before
    it, and `cancelled` the cancels that it has made already. `called_off`: the cancels and tombstones say that they are
    by a message that was sent then, if that is later than this message.
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
    """What becomes of a message; None if `histories` lack something: read what is missing there, and ask again.

    `blocks`: of how many alerts it is the message. `may_follow`: whether it may be the next revision of an alert, of
    which the current one is given (the last words of CP17). Raises Problem.
    """
    related = _RelatedAlerts(facts, histories, now_ms)
    if histories.missing:
        return None
    if related.made:
        return _decide_repeated(related)
    latest = related.latest_sent_of_own_name()
    if facts.sent < latest or (facts.sent == latest and not facts.cancels):
        return _decide_too_late(related)
    if facts.needs_references and not facts.references and not related.knows_own_name:
        wrong = Violation(problems.MISSING_FIELD, "/alert/references", "is needed: what it updates or cancels")
        raise Problem.of([wrong])
    late, targets = related.targets()
    if facts.cancels:
        return _decide_cancel(related, late, targets)
    if late:
        newest = max(related.live(), key=lambda each: each.sent)
        return Decision(
            SUPERSEDED, tombstones=related.unknown_with_own(), into=newest.id, until=newest.revision.ends_at
        )
    if targets:
        return _decide_update(related, targets, blocks, may_follow)
    if related.is_called_off:
        tombstones = (related.free_id(), *related.unknown)
        return Decision(SUPERSEDED, tombstones=tombstones, called_off=related.called_off)
    return _decide_new(related, PUBLISHED, (), blocks)


def _decide_new(related: "_RelatedAlerts", outcome: str, instead_of: Iterable[FoundAlert], blocks: int) -> Decision:
    first_id = related.free_id()
    return Decision(
        outcome,
        first_id=first_id,
        publish=tuple(range(1, blocks + 1)),
        cancel=tuple(instead_of),
        tombstones=related.unknown,
        into=first_id,
    )


def _decide_too_late(related: "_RelatedAlerts") -> Decision:
    """CP13: what it stood in the place of is over, for what came instead of it, or called it off, may not name that."""
    into, until = related.successor()
    if not related.is_called_off:
        return Decision(
            SUPERSEDED, cancel=tuple(related.predecessors()), tombstones=related.unknown, into=into, until=until
        )
    cancel = tuple(each for each in related.live() if each.sent < related.called_off)
    return Decision(
        SUPERSEDED,
        cancel=cancel,
        tombstones=related.unknown,
        into="" if cancel else into,
        until=until,
        called_off=related.called_off,
    )


def _decide_update(
    related: "_RelatedAlerts", targets: list[FoundAlert], blocks: int, may_follow: Callable[[Revision], bool]
) -> Decision:
    """CP17."""
    one = targets[0]
    if len(targets) > 1 or one.blocks > 1 or blocks > 1 or not may_follow(one.revision):
        return _decide_new(related, REPLACED, targets, blocks)
    return Decision(UPDATED, revise=one, tombstones=related.unknown_with_own(), into=one.id)


def _decide_cancel(related: "_RelatedAlerts", late: bool, targets: list[FoundAlert]) -> Decision:
    if targets:
        return Decision(CANCELLED, cancel=tuple(targets), tombstones=related.unknown)
    if late or related.live():
        return Decision(SUPERSEDED)
    if related.knows_any_name:
        # What ended by itself has no cancel that older messages would find (HD9).
        marks = () if related.called_off >= related.facts.sent else related.free_ids_of_known_references()
        return Decision(IGNORED, why="ended", tombstones=(*marks, *related.unknown))
    return Decision(
        NOTED, tombstones=(*((related.facts.base,) if related.facts.names_itself else ()), *related.unknown)
    )


def _decide_repeated(related: "_RelatedAlerts") -> Decision:
    """CP10: the first answer, and the steps that are left to take (CP20)."""
    [first_id, *_] = related.first_ids_made
    made = tuple(related.made[alert_id] for alert_id in sorted(related.made))
    origin = made[0][0].origin
    blocks = 0 if related.is_called_off else 1 if origin is None else origin.blocks
    # What was sent later has come since, and may stand in the place of what this message made.
    targets = [each for each in related.targets()[1] if each.sent <= related.facts.sent]
    return Decision(
        REPEATED,
        first_id=first_id,
        publish=tuple(n for n in range(1, blocks + 1) if ids.block(first_id, n) not in related.made),
        cancel=tuple(targets),
        tombstones=related.unknown_with_own(),
        into=first_id,
        made=made,
        cancelled=tuple(related.cancelled_into(first_id)),
    )


class _RelatedAlerts:
    """What is found in the log from the names in a message."""

    def __init__(self, facts: MessageFacts, histories: KnownHistories, now_ms: int) -> None:
        self.facts = facts
        self.made: dict[str, tuple[Revision, Revision | None]] = {}  # by id: what this message has made, and its like
        self.first_ids_made: list[str] = []  # the ids of first blocks of these
        self._histories = histories
        self._now_ms = now_ms
        self._found: dict[str, FoundAlert] = {}
        self._visited: set[str] = set()
        self._sent_of_own_name: list[int] = []
        self.called_off = -1  # when the latest message was sent that called off something that was found; -1 for none
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
        """Return the ids for the message's own name, if nothing is known of it, and for references of that kind."""
        return self.unknown if self.knows_own_name else (self.facts.base, *self.unknown)

    # ---- what it leads to ----------------------------------------------------------------------------------------

    def live(self) -> list[FoundAlert]:
        """The live alerts among those that were found, but for what this message has made."""
        return [
            each
            for each in self._found.values()
            if each.cancel is None and each.revision.ends_at > self._now_ms and each.id not in self.made
        ]

    def targets(self) -> tuple[bool, list[FoundAlert]]:
        """Whether the message comes too late for the live alerts that were found; if not, those that it is about.

        CP11, CP17 and CP19: those whose current message it names; only if there is none, all of them, if it was sent
        later than each.
        """
        live = self.live()
        if named := [each for each in live if self._names_current_message_of(each)]:
            return False, named
        newest = max((each.sent for each in live), default=self.facts.sent)
        if self.facts.sent < newest:
            return True, []
        return False, live if self.facts.sent > newest else []

    def _names_current_message_of(self, alert: FoundAlert) -> bool:
        """Whether the message names the current message of an alert. It names all before it of its own name (CP12)."""
        own = alert.name_id == self.facts.base
        return alert.sent < self.facts.sent if own else alert.name_id in self._named

    def predecessors(self) -> list[FoundAlert]:
        """Return what the message stood in the place of: as `targets`, but for what stands in its own place now."""
        others = [each for each in self.live() if each.id not in self._ids_of_own_name]
        named = [each for each in others if each.name_id in self._named]
        if named or all(each.sent < self.facts.sent for each in others):
            return [each for each in named or others if each.sent < self.facts.sent]
        return []

    def successor(self) -> tuple[str, int]:
        """The id of what stands in the place of this message, "" for nothing; and until when that is known."""
        heads = [self._histories[each] for each in self._generations(self.facts.base)]
        if not heads:
            return "", 0
        [first, *_] = heads[-1]
        into = first.into if isinstance(first, Cancel) else first.id
        return into, max(each.ends_at for each in heads[-1])

    @property
    def is_called_off(self) -> bool:
        """Whether something that was found was called off by a later message (HD9)."""
        return self.facts.sent < self.called_off

    def latest_sent_of_own_name(self) -> int:
        """When the latest message of this name was sent, or one that ended it or left a tombstone; -1 for none."""
        return max(self._sent_of_own_name, default=-1)

    def free_id(self) -> str:
        """The id under which this message is published as new: nothing is there yet."""
        return self._free_id_of(self.facts.base)

    def free_ids_of_known_references(self) -> tuple[str, ...]:
        """An id for each known name that the message refers to, under which nothing is yet."""
        return tuple(self._free_id_of(each) for each in sorted(self._named) if any(self._generations(each)))

    def _free_id_of(self, base: str) -> str:
        taken = set(self._generations(base))
        for number in range(1, MAX_GENERATIONS + 1):
            if (alert_id := ids.generation(base, number)) not in taken:
                return alert_id
        detail = f"{MAX_GENERATIONS} messages of this name were published as new within a day"
        raise Problem.later(problems.RATE_LIMITED, FULL_RETRY_S, detail)

    def cancelled_into(self, first_id: str) -> Iterator[Cancel]:
        """The cancels that this message has made: of what it stands in the place of."""
        for each in self._found.values():
            if each.cancel is not None and each.cancel.into == first_id:
                yield each.cancel

    # ---- the way -------------------------------------------------------------------------------------------------

    def _follow_name(self, base: str) -> bool:
        """Go through all that messages of this name became. Whether anything is known of it."""
        todo = list(self._generations(base))
        generations = set(todo)
        while todo and len(self._visited) < MAX_VISITED:
            first_id = todo.pop()
            if first_id not in self._visited:
                self._visited.add(first_id)
                todo += self._visit_message(first_id, of_name=first_id in generations and base == self.facts.base)
        return bool(generations)

    def _generations(self, base: str) -> Iterator[str]:
        """The ids of this name at which something is. The first may have been forgotten before the second."""
        for number in range(1, MAX_GENERATIONS + 1):
            alert_id = ids.generation(base, number)
            if self._histories[alert_id]:
                yield alert_id
            elif number > 1:
                if alert_id in self._histories.missing:
                    # Read ahead, twice as far each time: one by one, the work would grow with the square (HD14).
                    for each in range(number + 1, min(2 * number - 1, MAX_GENERATIONS + 1)):
                        self._histories[ids.generation(base, each)]
                return

    def _visit_message(self, first_id: str, *, of_name: bool) -> Iterator[str]:
        """Take in the blocks of a message. The ids of first blocks of what they went into."""
        head = self._histories[first_id]
        self._note_cancel(head)
        if of_name:
            self._sent_of_own_name += [each.approval.approved_at for each in head if isinstance(each, Cancel)]
        origin = next((each.origin for each in head if isinstance(each, Revision)), None)
        for number in range(1, 1 + (1 if origin is None else origin.blocks)):
            history = self._histories[ids.block(first_id, number)]
            self._note_cancel(history)
            made_by_this = self._add_alert(history, first_id)
            cancel = next((each for each in history if isinstance(each, Cancel)), None)
            if cancel is not None and cancel.into and not made_by_this:
                yield cancel.into

    def _note_cancel(self, history: Sequence[Entry | OtherKind]) -> None:
        sent = (each.approval.approved_at for each in history if isinstance(each, Cancel) and not each.into)
        self.called_off = max(self.called_off, *sent, -1)

    def _add_alert(self, history: Sequence[Entry | OtherKind], first_id: str) -> bool:
        """Take in one alert. Whether this message has made a revision of it."""
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
                self._sent_of_own_name.append(sent)
                if sent == self.facts.sent:
                    self.made[each.id] = each, before
                    self.first_ids_made.append(first_id)
        return last.id in self.made
