"""A record of published alerts, registrations and push requests, and its verdict.

Every record has a time. The checks know nothing about the server's implementation: each pair of device and alert is
checked separately, with the geometry of `end_to_end.kit.earth` and the filters and languages of
`tests/support/model.py`. The violations are:

    missed       a device lacks the current revision of a live alert that applies to it or was sent to it before
    no_cancel    a device was, or may have been, sent an alert, but not its cancel
    late         a push about an ended alert, or a push that its service may deliver after the end (E1)
    stale        a push after a newer revision or the cancel, or long after a newer revision was published
    outside      a push about an alert that does not concern the device, or a cancel for a device that was sent
                 nothing (R1, R4)
    words        the text is in a language that the device did not request (LA3), or is another alert's text
    twice        an (id, revision) that was answered with 2xx was sent again, without a kill, a pause or a lost answer
                 that explains it
    unread       at the end, a woken phone has not read all pushes due to it, or has read revisions out of order

`again` counts, for each kill and pause, the repeated pushes that it explains; rule WPS3 allows some.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from end_to_end.kit.earth import inside
from end_to_end.kit.outages import Outage
from end_to_end.kit.times import moment
from support.model import Rules

Json = dict[str, Any]

SLACK_S = 2.0
"""The longest time, in seconds, until the stand-in reads a received byte, on a busy machine."""

LATER_S = 15.0
"""Seconds after the answer to a PUT within which pushes that were under way may still arrive."""

CALM_S = 10.0
"""Seconds after which, without faults, no superseded revision is sent any more."""

BEHIND_S = 60.0
"""A time, in seconds, for which faults never keep a process from the log."""

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
    """When the publisher received the answer."""

    @property
    def cancels(self) -> bool:
        return self.area is None


@dataclass
class Saying:
    """The content of a device's PUT request."""

    cells: tuple[str, ...]
    categories: list[str] | None
    min_severity: str
    languages: list[str]
    holding: dict[str, int]
    asked: float
    answered: float = float("inf")


@dataclass
class Request:
    """A request to a push service, and the service's answer: a status, "hang" or "reset"."""

    at: float
    ttl_s: int
    answer: Any = None
    was_heard: bool = True
    """Whether the client was still connected when the answer was sent."""
    message: Json = field(default_factory=dict)
    id: str = ""
    number: int = 0
    sent: float = 0.0
    """When the push was sent, by its own `now`."""

    def read(self, message: Json) -> None:
        """Take the decrypted message."""
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
    """A registration from the first PUT until its deletion; `requests` and `read` cover all its endpoints."""

    name: str
    may_test: bool
    said: list[Saying] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    read: list[Json] = field(default_factory=list)
    forgotten: float = float("inf")
    """When a DELETE was answered."""
    is_gone: bool = False
    """Whether its push service no longer knows it."""

    @property
    def is_there(self) -> bool:
        return self.forgotten == float("inf") and not self.is_gone


@dataclass
class Verdict:
    """All violations, as sentences, and the number of repeated pushes for each fault."""

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
        """Return whether there are no violations."""
        return not any(self._lists().values()) and all(count <= 512 for count in self.again.values())

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {len(found)}" for name, found in self._lists().items())
        lines = [f"{name}: {each}" for name, found in self._lists().items() for each in found[:8]]
        return "\n  ".join([counts, f"pushed again: {dict(self.again)}", *lines])


@dataclass
class PushHistory:
    """The record of a run; see the module. Times are wall-clock seconds."""

    chains: dict[str, list[Item]] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    faults: list[Outage] = field(default_factory=list)
    """The periods in which a process was killed or paused."""
    calm: float = float("inf")
    """The time when all faults were over and every owed push had been sent."""
    _inside: dict[tuple[str, str, int], bool | None] = field(default_factory=dict)

    def publish(self, item: Item) -> Item:
        """Record a requested entry."""
        self.chains.setdefault(item.id, []).append(item)
        return item

    def judge(self, now: float) -> Verdict:
        """Return the verdict on all requests, and on the alerts that each device has at the end."""
        verdict = Verdict()
        for device in self.devices:
            has = self._judge_requests(device, verdict)
            if device.is_there:
                self._judge_end(device, has, now, verdict)
        return verdict

    def judge_phones(self, now: float, verdict: Verdict) -> None:
        """Check, after all phones have woken, that each has read all pushes due to it, in the order of revisions."""
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
                    verdict.unread.append(f"{device.name} woke up, but has {alert_id} {has}, not {newest}")

    def story(self, name: str) -> str:
        """Return everything known about one device or alert, for the investigation of a violation."""
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

    # -- sent pushes

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
        """Return the fault that may have kept the server from learning of the answer, if there was one."""
        if again.at > self.calm:
            return None
        if not first.was_heard:
            return "a lost answer"
        found = [each.name for each in self.faults if first.at <= each.end + SLACK_S and again.at >= each.start]
        return found[-1] if found else None

    def _concerns(self, device: Device, item: Item, at: float) -> bool:
        """Return whether an item concerns a device that was sent nothing before.

        The current registration and recent ones count.
        """
        if any(self._applies(device, said, item) is not False for said in self._in_force(device, at)):
            return True
        if at > self.calm or not any(fault.start <= at for fault in self.faults):
            return False
        # A process may have recorded the device as a recipient, and been killed before it sent the push.
        before = [said for said in device.said if said.asked <= at]
        earlier = [each for each in self.chains[item.id] if each.number <= item.number]
        return any(self._applies(device, said, each) is not False for said in before for each in earlier)

    def _in_force(self, device: Device, at: float) -> list[Saying]:
        """Return the registrations that may apply to a push that arrives at a time."""
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

    # -- pushes owed at the end

    def _judge_end(self, device: Device, has: _Has, now: float, verdict: Verdict) -> None:
        for alert_id, chain in self.chains.items():
            newest = chain[-1]
            if newest.ends < now + SLACK_S or (newest.status != "actual" and not device.may_test):
                continue
            is_recipient = alert_id in has.recipient
            if newest.cancels:
                if is_recipient and alert_id not in has.over:
                    verdict.no_cancel.append(f"{device.name} was sent {alert_id}, but not its cancel")
            elif has.newest.get(alert_id, 0) < newest.number and (
                is_recipient or self._applies(device, device.said[-1], newest)
            ):
                verdict.missed.append(f"{device.name} has {alert_id} {has.newest.get(alert_id)}, not {newest.number}")

    def _applies(self, device: Device, said: Saying, item: Item) -> bool | None:
        """Return whether an item applies to a registration, ignoring the item's end (rules R1, R6 and R7).

        None means that it is within a centimetre of the edge.
        """
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
    """The alerts that a device has, by the requests to its services and by its `holding`."""

    def __init__(self) -> None:
        self.asked: set[str] = set()  # ids of alerts that were pushed to the device or are in its `holding`
        self.recipient: set[str] = set()
        self.newest: dict[str, int] = defaultdict(int)
        self.taken: dict[tuple[str, int], Request] = {}
        self.over: set[str] = set()
        self.held: dict[str, tuple[int, float]] = {}  # id -> (revision, time of the PUT)

    def hold(self, at: float, holding: dict[str, int]) -> None:
        """Record that the device holds these alerts.

        A device that holds a cancelled alert is sent the cancel once more (rule R5d).
        """
        for alert_id, number in holding.items():
            if alert_id in self.over:
                self.taken.pop((alert_id, self.newest[alert_id]), None)
            self.held[alert_id] = number, at
            self.asked.add(alert_id)
            self.recipient.add(alert_id)
            self.newest[alert_id] = max(number, self.newest[alert_id])


def _claims(device: Device, alert_id: str, at: float) -> bool:
    """Return whether a registration of the device after a time has the alert in its `holding`.

    Such a device is sent the cancel once more (rule R5d).
    """
    return any(alert_id in said.holding and said.answered + SLACK_S >= at for said in device.said)


def _of(message: Json) -> tuple[str, int]:
    said = message["alert"] if message["type"] == "alert" else message
    return said["id"], said["revision"]


def _spoken(said: Saying, item: Item) -> str | None:
    languages = tuple(tag for tag in item.text if tag is not None)
    found: str | None = Rules.spoken(said, SimpleNamespace(cancels=False, languages=languages))
    return found
