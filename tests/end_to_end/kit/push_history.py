"""What was published, what devices said of themselves and what push services were sent; and the verdict on it.

Everything is a list of things with times. Nothing here knows how the server works: who is owed what is asked of one
pair of device and alert at a time, with the geometry of `end_to_end.kit.earth` and the filters and languages of
`tests/support/model.py`. The zeros:

    missed       a device lacks what is current of a live alert that applies to it, or that it was told of before
    no_cancel    a device was told of an alert, or maybe, and not that it is called off
    late         a push of what had ended, or one that its service may hand over after the end (E1)
    stale        something after a newer revision or after its cancel, or long after it was superseded
    outside      a push about what does not concern the device, or a cancel to somebody who was told nothing (R1, R4)
    words        the text is in another language than the device wants (LA3), or it is another's text
    twice        an (id, revision) that was answered 2xx came again, and neither a kill nor a pause nor an answer that
                 nobody heard explains it
    unread       what a phone has read when it wakes is not what it is owed, or not in the order of the revisions

`again` has, for each kill and pause, how many came again because of it: WPS3 allows some.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from end_to_end.kit.earth import inside
from end_to_end.kit.fault_schedule import Outage
from end_to_end.kit.times import moment
from support.model import Rules

Json = dict[str, Any]

SLACK_S = 2.0
"""Between a byte that is handed to the kernel and the stand-in's reading it, on a busy machine."""

LATER_S = 15.0
"""How long after the answer to a PUT what was under way for the device may arrive."""

CALM_S = 10.0
"""Nothing is sent so long after it was superseded, where nothing is broken: the log is read within a moment."""

BEHIND_S = 60.0
"""Nobody is kept from the log for so long."""

UNANSWERED = ("hang", "reset")


@dataclass
class Item:
    """An entry of the log: a revision, or (without an area) a cancel. `text`: a headline for each language."""

    id: str
    number: int
    ends: float
    asked: float
    area: list[Json] | None = None
    severity: str = "minor"
    category: str = ""
    status: str = "actual"
    text: dict[str | None, str] = field(default_factory=dict)
    known: float = float("inf")
    """When its publisher had the answer."""

    @property
    def cancels(self) -> bool:
        return self.area is None


@dataclass
class Saying:
    """What a device said of itself by a PUT."""

    cells: tuple[str, ...]
    categories: list[str] | None
    min_severity: str
    languages: list[str]
    holding: dict[str, int]
    asked: float
    answered: float = float("inf")


@dataclass
class Request:
    """What a push service was sent, and what it says: a status, "hang" or "reset". `read` has what the message says."""

    at: float
    ttl_s: int
    answer: Any = None
    was_heard: bool = True
    """Whether somebody was there still to hear the answer."""
    message: Json = field(default_factory=dict)
    id: str = ""
    number: int = 0
    sent: float = 0.0
    """When it was sent, as it says itself."""

    def read(self, message: Json) -> None:
        """It was decrypted."""
        self.message = message
        self.id, self.number = _of(message)
        self.sent = moment(message["now"]).timestamp()

    @property
    def cancels(self) -> bool:
        return bool(self.message["type"] == "cancel")

    @property
    def is_taken(self) -> bool:
        return isinstance(self.answer, int) and 200 <= self.answer < 300


@dataclass
class Device:
    """One registration, from its first PUT until it is forgotten. `requests` and `read`: of all its endpoints."""

    name: str
    may_test: bool
    said: list[Saying] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    read: list[Json] = field(default_factory=list)
    forgotten: float = float("inf")
    """When it was asked for by a DELETE that is answered."""
    is_gone: bool = False
    """Its service says that it knows it no more."""

    @property
    def is_there(self) -> bool:
        return self.forgotten == float("inf") and not self.is_gone


@dataclass
class Verdict:
    """Every violation, in words; and how many were told again by which fault."""

    missed: list[str] = field(default_factory=list)
    no_cancel: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    again: Counter[str] = field(default_factory=Counter)

    def _lists(self) -> dict[str, list[str]]:
        return {name: found for name, found in vars(self).items() if name != "again"}

    def __bool__(self) -> bool:
        """Whether all is well."""
        return not any(self._lists().values()) and all(count <= 512 for count in self.again.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(found)}" for name, found in self._lists().items())
        lines = [f"{name}: {each}" for name, found in self._lists().items() for each in found[:8]]
        return "\n  ".join([counts, f"told again: {dict(self.again)}", *lines])


@dataclass
class PushHistory:
    """See the module. Times are wall-clock seconds."""

    chains: dict[str, list[Item]] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    faults: list[Outage] = field(default_factory=list)
    """When a process was killed or paused."""
    calm: float = float("inf")
    """Since when nothing breaks, and all is told that was owed then."""
    _inside: dict[tuple[str, str, int], bool | None] = field(default_factory=dict)

    def publish(self, item: Item) -> Item:
        """Somebody asks for an entry."""
        self.chains.setdefault(item.id, []).append(item)
        return item

    def judge(self, now: float) -> Verdict:
        """On all that went out, and on what each device has of it."""
        verdict = Verdict()
        for device in self.devices:
            has = self._judge_requests(device, verdict)
            if device.is_there:
                self._judge_end(device, has, now, verdict)
        return verdict

    def judge_phones(self, now: float, verdict: Verdict) -> None:
        """When all phones have woken: each has read what it is owed, and of each alert in the order of revisions."""
        for device in self.devices:
            if not device.is_there:
                continue
            last: dict[str, tuple[int, bool]] = {}
            for message in device.read:
                alert_id, number = _of(message)
                if number < last.get(alert_id, (0, False))[0]:
                    verdict.unread.append(f"{device.name} read {alert_id} {number} after {last[alert_id]}")
                last[alert_id] = number, message["type"] == "cancel"
            for alert_id, chain in self.chains.items():
                newest = chain[-1]
                if newest.ends < now + SLACK_S:
                    continue
                number, is_over = last.get(alert_id, (0, False))
                has = max([number, *(said.holding.get(alert_id, 0) for said in device.said)])
                is_owed = has > 0 or self._applies(device, device.said[-1], newest)
                if is_owed and (has, is_over) != (newest.number, newest.cancels):
                    verdict.unread.append(f"{device.name} woke up, and of {alert_id} it has {has}, not {newest}")

    def story(self, name: str) -> str:
        """All that is known of one device or alert, for whoever has to find out."""
        lines = [str(item) for item in self.chains.get(name, [])]
        for device in self.devices:
            if device.name == name:
                lines += [str(said) for said in device.said]
            lines += [
                f"{each.at:.3f} {device.name} {each.message['type']} {each.id} {each.number}: {each.answer}"
                for each in device.requests
                if name in (device.name, each.id)
            ]
        return "\n".join([*lines, *map(str, self.faults)])

    # -- what went out

    def _judge_requests(self, device: Device, verdict: Verdict) -> _Has:
        has = _Has()
        held = [(said.asked, said.holding) for said in device.said]
        for request in sorted(device.requests, key=lambda each: each.at):
            while held and held[0][0] <= request.at:
                has.hold(*held.pop(0))
            self._judge_request(device, request, has, verdict)
        for at, holding in held:
            has.hold(at, holding)
        return has

    def _judge_request(self, device: Device, request: Request, has: _Has, verdict: Verdict) -> None:
        chain = self.chains.get(request.id, [])
        is_cancel = request.cancels
        what = f"{device.name} was pushed {request.id} {'cancel ' * is_cancel}{request.number} at {request.at:.3f}"
        item = next((each for each in chain if each.number == request.number), None)
        if item is None or item.cancels != is_cancel or request.at < item.asked:
            verdict.outside.append(f"{what}, which nobody has published")
            return
        if request.at > device.forgotten + LATER_S:
            verdict.outside.append(f"{what}, {request.at - device.forgotten:.1f} s after it was forgotten")
        if request.sent + max(1, request.ttl_s) > item.ends + 0.001 or request.at > item.ends + LATER_S:
            verdict.late.append(f"{what}, sent at {request.sent:.3f} for {request.ttl_s} s, ended at {item.ends:.3f}")
        newer = next((each for each in chain if each.number == item.number + 1), None)
        sent = min(request.sent, request.at)
        if newer is not None and sent > newer.known + (CALM_S if request.at > self.calm else BEHIND_S):
            verdict.stale.append(f"{what}, {request.at - newer.known:.1f} s after {newer.number}")
        before = has.taken.get((request.id, request.number))
        if before is not None:
            why = self._why_again(before, request)
            if not why and not (is_cancel and _claims(device, request.id, before.at)):
                verdict.twice.append(f"{what} again, first at {before.at:.3f}")
            verdict.again.update([why] if why else [])
        elif request.number < has.newest.get(request.id, 0) or (request.id in has.over and not is_cancel):
            verdict.stale.append(f"{what} after {has.newest.get(request.id, 'its cancel')}")
        elif request.number <= has.held.get(request.id, (0, 0.0))[0]:
            if request.at > has.held[request.id][1] + LATER_S:
                verdict.twice.append(f"{what}, which it holds")
        elif request.id not in has.asked and not self._concerns(device, item, request.at):
            verdict.outside.append(f"{what}, which does not concern it")
        if not is_cancel and not self._says(device, item, request):
            language = request.message["alert"].get("language")
            verdict.words.append(f"{what} in {language}, and it wants {device.said[-1].languages}")
        has.asked.add(request.id)
        if request.is_taken or request.answer in UNANSWERED:
            has.recipient.add(request.id)
        if request.is_taken:
            has.taken.setdefault((request.id, request.number), request)
            has.newest[request.id] = max(request.number, has.newest.get(request.id, 0))
            if is_cancel:
                has.over.add(request.id)

    def _why_again(self, first: Request, again: Request) -> str | None:
        """What may have kept the server from knowing that it was answered."""
        if again.at > self.calm:
            return None
        if not first.was_heard:
            return "an answer that nobody heard"
        found = [each.name for each in self.faults if first.at <= each.end + SLACK_S and again.at >= each.start]
        return found[-1] if found else None

    def _concerns(self, device: Device, item: Item, at: float) -> bool:
        """Whether it is somebody's who was told nothing: by what it says, or said until shortly before."""
        if any(self._applies(device, said, item) is not False for said in self._in_force(device, at)):
            return True
        if at > self.calm or not any(fault.start <= at for fault in self.faults):
            return False
        # A process may have noted that it is about to be told, and was killed before it told it.
        before = [said for said in device.said if said.asked <= at]
        earlier = [each for each in self.chains[item.id] if each.number <= item.number]
        return any(self._applies(device, said, each) is not False for said in before for each in earlier)

    def _in_force(self, device: Device, at: float) -> list[Saying]:
        """What may count for what arrives at a moment."""
        until = [newer.answered + LATER_S for newer in device.said[1:]] + [float("inf")]
        return [said for said, end in zip(device.said, until, strict=True) if said.asked <= at <= end]

    def _says(self, device: Device, item: Item, request: Request) -> bool:
        alert = request.message["alert"]
        if request.message.get("cut"):
            return any(text.startswith(alert["headline"].rstrip("…")) for text in item.text.values())
        in_force = device.said if request.at <= self.calm and self.faults else self._in_force(device, request.at)
        spoken = {_spoken(said, item) for said in in_force}
        language = alert.get("language")
        return language in spoken and item.text[language] == alert["headline"]

    # -- what is owed at the end

    def _judge_end(self, device: Device, has: _Has, now: float, verdict: Verdict) -> None:
        for alert_id, chain in self.chains.items():
            newest = chain[-1]
            if newest.ends < now + SLACK_S or (newest.status != "actual" and not device.may_test):
                continue
            is_recipient = alert_id in has.recipient
            if newest.cancels:
                if is_recipient and alert_id not in has.over:
                    verdict.no_cancel.append(f"{device.name} was told {alert_id}, and not that it is called off")
            elif has.newest.get(alert_id, 0) < newest.number and (
                is_recipient or self._applies(device, device.said[-1], newest)
            ):
                verdict.missed.append(f"{device.name} has {alert_id} {has.newest.get(alert_id)}, not {newest.number}")

    def _applies(self, device: Device, said: Saying, item: Item) -> bool | None:
        """R1, R6, R7: without the end of the alert; None within a centimetre of the edge."""
        if item.area is None or (item.status != "actual" and not device.may_test):
            return False
        wanted = SimpleNamespace(categories=said.categories and set(said.categories), min_severity=said.min_severity)
        return Rules.passes(wanted, item) and self._is_inside(said, item)

    def _is_inside(self, said: Saying, item: Item) -> bool | None:
        found = [self._cell_is_inside(cell, item) for cell in said.cells]
        return True if True in found else None if None in found else False

    def _cell_is_inside(self, cell: str, item: Item) -> bool | None:
        key = cell, item.id, item.number
        if key not in self._inside:
            self._inside[key] = inside([{"cell": cell}], item.area or [])
        return self._inside[key]


class _Has:
    """What a device has, by what its services were sent and it said that it holds."""

    def __init__(self) -> None:
        self.asked: set[str] = set()  # of which anything went out at all, or is held
        self.recipient: set[str] = set()
        self.newest: dict[str, int] = defaultdict(int)
        self.taken: dict[tuple[str, int], Request] = {}
        self.over: set[str] = set()
        self.held: dict[str, tuple[int, float]] = {}  # and when it said so

    def hold(self, at: float, holding: dict[str, int]) -> None:
        """It says that it has these. Who holds what was called off is told so once more (R5d)."""
        for alert_id, number in holding.items():
            if alert_id in self.over:
                self.taken.pop((alert_id, self.newest[alert_id]), None)
            self.held[alert_id] = number, at
            self.asked.add(alert_id)
            self.recipient.add(alert_id)
            self.newest[alert_id] = max(number, self.newest[alert_id])


def _claims(device: Device, alert_id: str, at: float) -> bool:
    """Whether it says after a moment that it holds an alert: who does is told once more that it is called off (R5d)."""
    return any(alert_id in said.holding and said.answered + SLACK_S >= at for said in device.said)


def _of(message: Json) -> tuple[str, int]:
    said = message["alert"] if message["type"] == "alert" else message
    return said["id"], said["revision"]


def _spoken(said: Saying, item: Item) -> str | None:
    languages = tuple(tag for tag in item.text if tag is not None)
    found: str | None = Rules.spoken(said, SimpleNamespace(cancels=False, languages=languages))
    return found
