"""A run with devices, a desk, failing push services, and push processes that are killed and paused.

The seed decides what the desk and the devices do, how services answer and which faults happen; the machine decides the
exact timing. Everything is in one thread. `push_history.py` has the verdict.
"""

import asyncio
import contextlib
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import h3
import httpx
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import SEVERITIES, Json, alert, cancel_body, circle, ground, new_id, revision_of
from end_to_end.kit.earth import Point, beyond
from end_to_end.kit.fault_schedule import Fault, FaultSchedule
from end_to_end.kit.keys import PHONE_SCOPE, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push
from end_to_end.kit.push_history import Device, Item, PushHistory, Saying, Verdict
from end_to_end.kit.push_weather import Service
from end_to_end.kit.times import moment, stamp, wait_until
from support.push_service import RESET

from client_demo.push_service import Phone

CATEGORIES = ("burglary", "robbery", "arson")
LANGUAGES = ("en", "fr-CA", "es")
TOWN_M = 5_000
DEVICES = 300
ROUNDS = 2  # rounds of work after the faults
KNOWN_S = 5.0
"""Seconds after which all processes know a published entry."""

PAUSE_S = 13.0
"""Seconds of a pause, longer than the lease of 10 s."""

HEAL_S = 240.0
"""Seconds until no push is due or under way any more, on a machine up to twenty times slower than usual."""

POLICY = "\n".join(
    [
        'name = "push"',
        "[categories]",
        *[f'{name} = {{ title = "{name}", polygons = true, min_radius_m = 10 }}' for name in CATEGORIES],
        'flood = { title = "Flood", polygons = true, cap = ["event:flood", "category:Met"] }',
    ]
)


def policy_in(home: Path) -> tuple[str, ...]:
    """Return the options of a node that accepts polygons and multilingual warnings.

    A push process takes the first two.
    """
    more = warnings_of_cap.options(home)
    (home / "policy.toml").write_text(POLICY)
    return more


# ---- processes ---------------------------------------------------------------------------------------------------


@dataclass
class Processes:
    """The push processes, each started by a command of its own, perhaps with workers."""

    all: Sequence[Push]
    out: set[int] = field(default_factory=set)
    """The numbers of the killed or paused processes, which get no requests."""
    unanswered: int = 0
    """The number of unanswered requests, whose results are unknown."""

    def call(self, dice: random.Random, method: str, path: str, token: str, body: Json | None = None) -> httpx.Response:
        """Send a request to random processes until one answers with any status except 503."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            push = self.all[dice.choice([n for n in range(len(self.all)) if n not in self.out])]
            with contextlib.suppress(httpx.TransportError):
                answers.append(push.api.request(method, path, json=body, headers=bearer(token)))
                return answers[-1].status_code != 503
            self.unanswered += 1
            return False

        wait_until(answered, f"an answer to {method}")
        return answers[-1]

    def faults(self, dice: random.Random) -> list[Fault]:
        """Return the faults of the processes."""
        found: list[Fault] = []
        for number, push in enumerate(self.all):
            found.append(Fault(f"process {number} killed", push, partial(self._killed, number, push)))
            if "--workers" in push.options:
                found.append(Fault(f"a worker of {number} killed", push, partial(self._worker_killed, push, dice)))
            if len(self.all) > 1:
                found.append(Fault(f"process {number} paused", push, partial(self._paused, number, push)))
        return found

    @asynccontextmanager
    async def _killed(self, number: int, push: Push) -> AsyncIterator[None]:
        self.out.add(number)
        push.kill()
        yield
        push.start()
        self.out.discard(number)

    @asynccontextmanager
    async def _worker_killed(self, push: Push, dice: random.Random) -> AsyncIterator[None]:
        push.kill_child(dice)
        yield

    @asynccontextmanager
    async def _paused(self, number: int, push: Push) -> AsyncIterator[None]:
        """Pause a process, at least until its lease has ended."""
        self.out.add(number)
        push.signal(signal.SIGSTOP)
        until = time.monotonic() + PAUSE_S
        try:
            yield
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        finally:
            push.signal(signal.SIGCONT)
        self.out.discard(number)


# ---- the run -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Handset:
    """A person's phone: its device, its subscriptions, of which the last is current, and its registration."""

    device: Device
    id: str
    sub: str
    service: Service
    phones: list[Phone]
    secret: str = ""
    decoded: list[int] = field(default_factory=lambda: [0])
    """The number of requests of each phone that are already in the device's record."""
    asleep: bool = False


class PushRun:
    """A run; `go` executes it and returns the verdict."""

    def __init__(self, node: Node, services: Sequence[Service], processes: Processes, seed: int, s: float, *only: str):
        """Prepare a run with at least `s` seconds of faults; `only` names the faults to use, all if empty."""
        self.node, self.services, self.processes = node, services, processes
        self.seed, self.seconds = seed, s
        self.dice = random.Random(seed)
        self.weather = services[0].weather
        self.history = PushHistory()
        self.town = ground()
        self.handsets: list[Handset] = []
        self.bodies: dict[str, Json] = {}
        self.cap: dict[str, tuple[str, Point]] = {}
        """For each warning: the issuer's id of its last message, and its place."""
        self.steps: Counter[str] = Counter()
        self.figures: dict[str, float] = {}
        self.numbers = itertools.count(1)
        faults = self.processes.faults(self.dice) + self._outages()
        self.schedule = FaultSchedule([each for each in faults if each.name in only] or faults, self.dice)

    def go(self) -> Verdict:
        """Run everything under faults, then one more round without faults, and return the verdict."""
        for _ in range(DEVICES):
            self.register()
        asyncio.run(self._torment(), debug=False)
        self.weather.bad = 0.0
        self.figures["at rest after s"] = self._rest()
        self.history.calm = time.time()
        for _ in range(ROUNDS):
            for step in (self.publish, self.publish, self.warn, self.revise, self.revise, self.cancel, self.move):
                step()
            self._widely("extreme")
            self.figures["one more round after s"] = self._rest()
        return self._verdict()

    async def _torment(self) -> None:
        """Apply each fault once, in a random order, and then random faults."""
        faults = self.schedule.faults

        async def before() -> None:
            self._work(self.dice.randint(20, 40))
            self._widely(self.dice.choice(SEVERITIES))  # keep pushes under way when the fault begins
            await asyncio.sleep(self.dice.uniform(0, 0.25))

        async def during() -> None:
            self._work(self.dice.randint(10, 20))

        await self.schedule.run(self.seconds, before, during, first=self.dice.sample(faults, len(faults)))
        self.history.faults = [each for each in self.schedule.log if not each.name.startswith("service")]

    def _outages(self) -> list[Fault]:
        """Return the faults of a push service."""

        @asynccontextmanager
        async def away(answer: Any) -> AsyncIterator[None]:
            self.weather.away = self.dice.choice(self.services), answer
            yield
            self.weather.away = None, None

        return [
            Fault("service away", "services", partial(away, 503)),
            Fault("service resets", "services", partial(away, RESET)),
        ]

    def _work(self, count: int) -> None:
        """Take `count` random steps."""
        steps = [
            *[self.publish] * 5,
            *[self.warn] * 1,
            *[self.revise] * 6,
            *[self.cancel] * 2,
            *[self.move] * 10,
            *[self.sleep] * 6,
            *[self.wake] * 5,
            *[self.resubscribe] * 2,
            *[self.delete] * 1,
            *[self.uninstall] * 1,
        ]
        for _ in range(count):
            step = self.dice.choice(steps)
            self.steps[step.__name__] += 1
            step()
            time.sleep(self.dice.uniform(0, 0.02))

    # -- actions of the desk

    def publish(self) -> None:
        """Publish an alert somewhere in town; one alert in five ends within seconds."""
        dice = self.dice
        ends = stamp(seconds=dice.uniform(2, 6)) if dice.random() < 0.2 else None
        self._publish(
            alert(
                self._somewhere(),
                id=new_id("push"),
                category=dice.choice(CATEGORIES),
                severity=dice.choice(SEVERITIES),
                status=dice.choice(("actual", "actual", "actual", "test", "exercise")),
                area=self._area(),
                expires_at=ends,
            )
        )

    def _widely(self, severity: str) -> None:
        """Publish an alert to half of the town."""
        spot = beyond(self.town, self.dice.uniform(0, 360), TOWN_M / 2)
        self._publish(alert(spot, id=new_id("wide"), severity=severity, area=circle(spot, 0.6 * TOWN_M)))

    def _publish(self, body: Json) -> None:
        asked = time.time()
        answer = self.node.post("/v1/alerts", body)
        if answer.status_code == 422 and body.get("expires_at", "Z") < stamp():
            return  # the alert ended before the node got it
        assert answer.status_code == 201, answer.text
        self.bodies[body["id"]] = body
        self._accepted(body["id"], asked)

    def _accepted(self, alert_id: str, asked: float) -> None:
        known = time.time()
        shown = self.node.state(alert_id)["alert"]
        tags = shown.get("languages", [None])
        text = {tag: _headline(tag) if tag else shown["headline"] for tag in tags}
        self.history.publish(
            Item(
                *(alert_id, shown["revision"], moment(shown["expires_at"]).timestamp(), asked),
                *(shown["area"], shown["severity"], shown["category"], shown["status"], text, known),
            )
        )

    def warn(self) -> None:
        """Post an official warning in three languages."""
        spot, identifier, asked = self._somewhere(), f"w{next(self.numbers)}", time.time()
        answer = warnings_of_cap.send(self.node, warnings_of_cap.warning(identifier, spot, *LANGUAGES))
        assert answer.status_code == 201, answer.text
        [made] = answer.json()["alerts"]
        self.cap[made["id"]] = identifier, spot
        self._accepted(made["id"], asked)

    def revise(self) -> None:
        """Publish the next revision of a live alert, perhaps with another area, severity or category."""
        if (alert_id := self._some_live()) is None:
            return
        number, asked = self.history.chains[alert_id][-1].number + 1, time.time()
        if alert_id in self.cap:
            before, spot = self.cap[alert_id]
            identifier = f"w{next(self.numbers)}"
            refers = f"<references>{warnings_of_cap.SENDER},{before},2026-01-01T00:00:00Z</references>"
            severity = self.dice.choice(("Minor", "Extreme"))
            message = warnings_of_cap.warning(identifier, spot, *LANGUAGES, severity=severity)
            message = message.replace("<msgType>Alert", "<msgType>Update").replace("</scope>", f"</scope>{refers}")
            answer = warnings_of_cap.send(self.node, message)
            assert answer.status_code == 201, answer.text
            self.cap[alert_id] = identifier, spot
            self._accepted(alert_id, asked)
            return
        changes = {
            "area": self._area(),
            "severity": self.dice.choice(SEVERITIES),
            "category": self.dice.choice(CATEGORIES),
        }
        kept = {name: value for name, value in changes.items() if self.dice.random() < 0.5}
        body = revision_of(self.bodies[alert_id], number, **kept)
        answer = self.node.post(f"/v1/alerts/{alert_id}/revisions", body)
        if answer.status_code != 410:
            assert answer.status_code == 201, answer.text
            self.bodies[alert_id] = {name: value for name, value in body.items() if name != "revision"}
            self._accepted(alert_id, asked)

    def cancel(self) -> None:
        """Cancel a live alert."""
        if (alert_id := self._some_live()) is None:
            return
        newest, asked = self.history.chains[alert_id][-1], time.time()
        if alert_id in self.cap:
            before, _ = self.cap[alert_id]
            answer = warnings_of_cap.send(self.node, warnings_of_cap.cancel(f"w{next(self.numbers)}", before))
        else:
            answer = self.node.post(f"/v1/alerts/{alert_id}/cancel", cancel_body(newest.number + 1))
        if answer.status_code != 410:
            assert answer.status_code == 201, answer.text
            item = replace(newest, number=newest.number + 1, area=None, asked=asked, known=time.time())
            self.history.publish(item)

    def _some_live(self) -> str | None:
        now = time.time()
        live = [each for each, (*_, last) in self.history.chains.items() if not last.cancels and last.ends > now]
        return self.dice.choice(live) if live else None

    def _area(self) -> list[Json]:
        return [self._shape() for _ in range(self.dice.choice((1, 1, 1, 2, 5)))]

    def _shape(self) -> Json:
        """Return a circle, or one time in four a polygon with corners at random distances around a point."""
        spot, size_m = self._somewhere(), self.dice.choice((150, 400, 1_000, 2_000))
        if self.dice.random() < 3 / 4:
            return circle(spot, size_m)
        corners = self.dice.randrange(3, 9)
        far = (size_m * self.dice.uniform(0.5, 1) for _ in range(corners))
        ring = [list(beyond(spot, n * 360 / corners, metres)[::-1]) for n, metres in enumerate(far)]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    def _somewhere(self) -> Point:
        return beyond(self.town, self.dice.uniform(0, 360), self.dice.uniform(0, TOWN_M))

    # -- actions of devices

    def register(self) -> None:
        """Register a new device."""
        service, number = self.dice.choice(self.services), next(self.numbers)
        device = Device(f"device {number}", may_test=self.dice.random() < 0.25)
        handset = Handset(device, f"device-{number:012}", f"sub-{number}", service, [service.phone()])
        if self.dice.random() < 0.1:
            self.weather.small.add(handset.phones[0].name)
        self.handsets.append(handset)
        self.history.devices.append(device)
        self._put(handset)

    def move(self) -> None:
        """Register a device again with its place, filter, languages and perhaps the alerts it holds."""
        if handset := self._some():
            self._put(handset)

    def _put(self, handset: Handset) -> None:
        dice, device = self.dice, handset.device
        finest = [dice.choice((7, 8, 9, 9)) for _ in range(dice.choice((0, 1, 1, 1, 2, 8)))]
        cells = tuple(h3.latlng_to_cell(*self._somewhere(), resolution) for resolution in finest)
        said = Saying(
            cells,
            dice.sample(CATEGORIES, dice.randint(1, 3)) if dice.random() < 0.3 else None,
            dice.choice(SEVERITIES) if dice.random() < 0.3 else "minor",
            dice.sample(["en", "fr", "es", "de", "fr-CA"], dice.randint(0, 2)),
            self._held(handset) if dice.random() < 0.5 else {},
            time.time(),
        )
        body = {
            "subscription": handset.phones[-1].subscription(),
            "places": [{"cell": cell} for cell in said.cells],
            "holding": said.holding,
            "min_severity": said.min_severity,
            "languages": said.languages,
            **({"categories": said.categories} if said.categories is not None else {}),
        }
        unanswered = self.processes.unanswered
        answer = self._call("PUT", handset, body=body)
        if answer.status_code == 429 and device.said:
            return
        assert answer.status_code in (200, 201), answer.text
        is_repeated = self.processes.unanswered > unanswered  # an unanswered attempt may have been accepted
        assert is_repeated or (answer.status_code == 201) == (not device.said), "201 is the answer to a new device only"
        handset.secret = answer.json().get("secret", handset.secret)
        said.answered = time.time()
        device.said.append(said)

    def _held(self, handset: Handset) -> dict[str, int]:
        """Return the live alerts that the device has read, perhaps with one that came by a stream connection."""
        held: dict[str, int] = {}
        for message in (each for phone in handset.phones for each in list(phone.told)):
            if message["type"] == "alert":
                held[message["alert"]["id"]] = message["alert"]["revision"]
            elif message["type"] == "cancel":
                held.pop(message["id"], None)
        now, chains = time.time(), self.history.chains.values()
        known = [last for *_, last in chains if last.known + KNOWN_S < now < last.ends and not last.cancels]
        seen = [each for each in known if each.status == "actual" or handset.device.may_test]
        if seen and self.dice.random() < 0.4:
            other = self.dice.choice(seen)
            held[other.id] = max(held.get(other.id, 0), self.dice.randint(1, other.number))
        return held

    def _call(self, method: str, handset: Handset, more: str = "", body: Json | None = None) -> httpx.Response:
        scope = PHONE_SCOPE + " alerts:test" * handset.device.may_test
        token = handset.secret if more else self.node.keys.token(sub=handset.sub, scope=scope)
        return self.processes.call(self.dice, method, f"/v1/devices/{handset.id}{more}", token, body)

    def resubscribe(self) -> None:
        """Replace the endpoint of a device, authorized by its secret."""
        if (handset := self._some()) is None or not handset.secret:
            return
        phone = handset.service.phone(asleep=handset.asleep)
        answer = self._call("PUT", handset, "/subscription", {"subscription": phone.subscription()})
        assert answer.status_code in (200, 429), answer.text
        if answer.status_code == 200:
            handset.phones.append(phone)
            handset.decoded.append(0)

    def delete(self) -> None:
        """Delete a device, and register a new one."""
        if handset := self._some():
            answer = self._call("DELETE", handset)
            assert answer.status_code == 204, answer.text
            handset.device.forgotten = time.time()
            self.register()

    def uninstall(self) -> None:
        """Let the push service forget a phone, and register a new device."""
        if handset := self._some():
            handset.device.is_gone = True
            self.weather.gone.update(phone.name for phone in handset.phones)
            self.register()

    def sleep(self) -> None:
        """Let a phone fall asleep."""
        if handset := self._some():
            self._turn(handset, asleep=True)

    def wake(self) -> None:
        """Wake a phone, which reads the messages that its service kept."""
        if handset := self._some():
            self._turn(handset, asleep=False)

    @staticmethod
    def _turn(handset: Handset, *, asleep: bool) -> None:
        """Set whether a phone sleeps, in the thread of its service, because a message may be arriving there."""
        handset.asleep = asleep

        async def turn() -> None:
            for phone in handset.phones:
                if asleep:
                    phone.asleep = True
                else:
                    phone.wake()

        asyncio.run_coroutine_threadsafe(turn(), handset.service.loop).result()

    def _some(self) -> Handset | None:
        there = [each for each in self.handsets if each.device.is_there]
        return self.dice.choice(there) if there and len(self.processes.out) < len(self.processes.all) else None

    # -- the verdict

    def _rest(self) -> float:
        """Wait until no push is under way and no device lacks one; return the seconds that it took."""
        started = time.monotonic()
        while True:
            is_idle = all(self._idle(push) for push in self.processes.all)
            verdict = self._judged()
            if is_idle and not (verdict.missed or verdict.no_cancel):
                return time.monotonic() - started
            if time.monotonic() - started > HEAL_S:
                self.assert_well(verdict)
                raise AssertionError(f"not at rest after {HEAL_S:g} s: {self.report()}")
            time.sleep(0.5)

    @staticmethod
    def _idle(push: Push) -> bool:
        return push.metric("push_under_way") + push.metric("push_waiting") == 0

    def _judged(self) -> Verdict:
        for handset in self.handsets:
            for number, phone in enumerate(handset.phones):
                new = handset.service.log.get(phone.name, [])[handset.decoded[number] :]
                for request, body in new:
                    request.read(phone.read(body))
                    handset.device.requests.append(request)
                handset.decoded[number] += len(new)
        return self.history.judge(time.time())

    def _verdict(self) -> Verdict:
        for handset in self.handsets:
            self._turn(handset, asleep=False)
            handset.device.read = [message for phone in handset.phones for message in phone.told]
        verdict = self._judged()
        self.history.judge_phones(time.time(), verdict)
        return verdict

    def report(self) -> str:
        """Return a summary of the actions, the faults and their effects."""
        history = self.history
        requests = [each for device in history.devices for each in device.requests]
        answers = Counter(each.answer for each in requests)
        there, entries = sum(each.is_there for each in history.devices), sum(map(len, history.chains.values()))
        lines = [
            f"{len(history.devices)} devices, {there} of them there; {entries} entries of {len(history.chains)} alerts",
            f"{len(requests)} requests: {dict(answers)}; steps {dict(self.steps)}",
            f"{ {name: round(value, 2) for name, value in self.figures.items()} }",
        ]
        return "\n".join([*lines, *map(str, self.schedule.log)])

    def assert_well(self, verdict: Verdict) -> None:
        """Require a verdict without violations, and no error that the faults do not explain."""
        history = self.history
        wrong = str(verdict)
        names = [device.name for device in history.devices if f" {device.name} " in wrong]
        outputs = [push.output()[-3_000:] for push in self.processes.all]
        assert verdict, "\n".join([str(verdict), *map(history.story, names[:4]), self.report(), *outputs])
        for service in self.services:
            assert service.wrong == []
        for push in self.processes.all:
            push.assert_no_surprise()
        there = sum(device.is_there for device in history.devices)
        registered = sum(push.metric("push_devices") for push in self.processes.all)
        assert there <= registered <= there + len(self.weather.gone), self.report()


def _headline(tag: str) -> str:
    return f"The river rises ({tag})"
