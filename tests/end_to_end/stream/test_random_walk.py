"""A thousand random steps against a model of the delivery rules, with a kill and a restart in the middle.

The model implements "Who is sent what" of the protocol a second time, from the client's side. It checks for each
message whether it could be sent (soundness, at once), and for each session whether everything owed was sent
(completeness, at a barrier). It computes distances and polygons by itself, from the areas that the server answers to
the publisher. A failure prints its seed; `WALK_SEED` and `WALK_STEPS` choose another walk.
"""

import datetime as dt
import itertools
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import SEVERITIES, Json, alert, cancel_body, circle, ground, new_id, place, revision_of
from end_to_end.kit.earth import Point, beyond, inside
from end_to_end.kit.keys import EVERY_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session, told
from end_to_end.kit.times import moment, now, stamp

SEED = int(os.environ.get("WALK_SEED", "20240611"))
STEPS = int(os.environ.get("WALK_STEPS", "1000"))
CATEGORIES = ("burglary", "robbery", "arson")
TOWN_M = 4_000
PHONES = 12
TESTER = "alerts:receive alerts:test"
A_MOMENT = dt.timedelta(seconds=1)
"""An alert that ends within this time may be sent or not, because the node's clock decides."""


@dataclass
class Alert:
    """An alert as published: its newest body, each revision as the server shows it, and its end."""

    body: Json
    shown: dict[int, Json] = field(default_factory=dict)
    cancelled: int | None = None

    @property
    def current(self) -> int:
        return max(self.shown)

    @property
    def ends(self) -> Any:
        return moment(self.shown[self.current]["expires_at"])

    @property
    def live(self) -> bool:
        return self.cancelled is None and now() < self.ends

    @property
    def last(self) -> int:
        return self.cancelled or self.current


@dataclass
class ModelPhone:
    """A client and its state in the model.

    Of this state, only `newest` may begin with the alerts of an earlier connection.
    """

    name: str
    session: Session
    scope: str
    categories: list[str] | None = None
    min_severity: str | None = None
    newest: dict[str, int] = field(default_factory=dict)
    """Alerts whose recipient this phone is, with the newest revision that it was sent or holds."""
    over: set[str] = field(default_factory=set)
    """Alerts whose cancel this phone was sent."""
    missed: set[str] = field(default_factory=set)
    """Alerts that changed while this phone had no scope to see them. They are owed again only where they apply."""
    read: int = 0
    """How many of the session's messages the model has judged."""

    def may_see(self, shown: Json) -> bool:
        """Return whether the phone's scope allows this alert: tests need `alerts:test` (rule 6)."""
        return shown["status"] == "actual" or "alerts:test" in self.scope

    def lets_pass(self, shown: Json) -> bool:
        """Return whether the phone's filter passes this alert; `extreme` passes every filter (rule 7)."""
        if shown["severity"] == "extreme":
            return True
        if self.categories is not None and shown["category"] not in self.categories:
            return False
        rank = SEVERITIES.index
        return self.min_severity is None or rank(shown["severity"]) <= rank(self.min_severity)

    def applies(self, shown: Json) -> bool | None:
        """Return whether this live alert applies to the phone (rule 1), or `None` within a centimetre of the edge."""
        if not (self.may_see(shown) and self.lets_pass(shown)):
            return False
        return inside(self.session.places, shown["area"])


class Walk:
    """Takes random steps at a node, and compares every message with the model."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node, self.seed, self.dice = node, seed, random.Random(seed)
        self.town = ground()
        self.alerts: dict[str, Alert] = {}
        self.phones: list[ModelPhone] = []
        self.held: list[tuple[str, Json, dict[str, int]]] = []
        self.trace: list[str] = []
        self.messages = 0
        self.numbers = itertools.count(1)
        self.steps = [
            *[self.publish] * 12,
            *[self.revise] * 16,
            *[self.cancel] * 5,
            *[self.move] * 30,
            *[self.filter] * 10,
            *[self.renew] * 5,
            *[self.connect] * 6,
            *[self.hang_up] * 4,
            *[self.come_back] * 6,
            *[self.check] * 4,
        ]

    # -- random steps of the publisher

    def publish(self) -> None:
        """Publish a new alert somewhere in town; one in five ends within seconds."""
        dice = self.dice
        body = alert(
            self.somewhere(),
            id=new_id("walk"),
            category=dice.choice(CATEGORIES),
            severity=dice.choice(SEVERITIES),
            status=dice.choice(("actual", "actual", "actual", "test", "exercise")),
            area=self.area(),
            expires_at=stamp(seconds=dice.uniform(1, 4)) if dice.random() < 0.2 else None,
        )
        answer = self.node.post("/v1/alerts", body)
        if answer.status_code == 422 and body.get("expires_at", "Z") < stamp():
            return  # the alert expired before it was accepted
        assert answer.status_code == 201, answer.text
        self.alerts[body["id"]] = Alert(body)
        self.accepted(body["id"], 1)

    def revise(self) -> None:
        """Publish the next revision of a live alert; area, severity and category may change."""
        if known := self.some_live():
            changes = {
                "area": self.area(),
                "severity": self.dice.choice(SEVERITIES),
                "category": self.dice.choice(CATEGORIES),
            }
            kept = {name: value for name, value in changes.items() if self.dice.random() < 0.5}
            body = revision_of(known.body, known.current + 1, **kept)
            answer = self.node.post(f"/v1/alerts/{body['id']}/revisions", body)
            if self.went_through(known, answer):
                known.body = {name: value for name, value in body.items() if name != "revision"}
                self.accepted(body["id"], body["revision"])

    def cancel(self) -> None:
        """Cancel a live alert."""
        if known := self.some_live():
            name, number = known.body["id"], known.current + 1
            answer = self.node.post(f"/v1/alerts/{name}/cancel", cancel_body(number))
            if self.went_through(known, answer):
                known.cancelled = number
                self.unseen(name)
                self.trace.append(f"cancel {name} {number}")

    def went_through(self, known: Alert, answer: Any) -> bool:
        """Return whether the answer is 201. The only other accepted answer is 410: the alert ended meanwhile."""
        if answer.status_code == 410:
            assert now() >= known.ends, answer.text
            return False
        assert answer.status_code == 201, answer.text
        return True

    def accepted(self, name: str, number: int) -> None:
        shown = self.node.state(name)["alert"]
        assert shown["revision"] == number
        self.alerts[name].shown[number] = shown
        self.unseen(name)
        self.trace.append(f"revision {name} {number} {shown['severity']} {shown['status']}")

    def unseen(self, name: str) -> None:
        """Record which phones know this alert but may not see its newest change (rule 6)."""
        for phone in self.phones:
            if name in phone.newest and not phone.may_see(self.alerts[name].shown[1]):
                phone.missed.add(name)

    def some_live(self) -> Alert | None:
        live = [known for known in self.alerts.values() if known.live]
        return self.dice.choice(live) if live else None

    def area(self) -> list[Json]:
        count = self.dice.choice((1, 1, 1, 2, 5))
        return [self.shape() for _ in range(count)]

    def shape(self) -> Json:
        """Return a circle or, one time in three, a polygon around a spot with corners at random distances."""
        spot, size_m = self.somewhere(), self.dice.choice((150, 400, 1_000))
        if self.dice.random() < 2 / 3:
            return circle(spot, size_m)
        corners = self.dice.randrange(3, 12)
        far = (size_m * self.dice.uniform(0.5, 1) for _ in range(corners))
        ring = [list(beyond(spot, n * 360 / corners, metres)[::-1]) for n, metres in enumerate(far)]
        return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    def somewhere(self) -> Point:
        return beyond(self.town, self.dice.uniform(0, 360), self.dice.uniform(0, TOWN_M))

    # -- random steps of the phones

    def places(self) -> list[Json]:
        dice = self.dice
        count = dice.choice((0, 1, 1, 1, 2, 8))
        return [place(self.somewhere(), accuracy_m=dice.choice((0, 0, 65, 500))) for _ in range(count)]

    def some_phone(self) -> ModelPhone | None:
        return self.dice.choice(self.phones) if self.phones else None

    def connect(self) -> None:
        """Connect a new phone, in either format, with or without a filter."""
        if len(self.phones) < PHONES:
            scope = self.dice.choice((PHONE_SCOPE, PHONE_SCOPE, TESTER))
            self.welcome(scope, self.some_filter(), {})

    def come_back(self) -> None:
        """Connect a phone that left earlier, at new places, with the alerts that it still shows."""
        if self.held:
            scope, filters, holding = self.held.pop(self.dice.randrange(len(self.held)))
            self.welcome(scope, filters, holding)

    def welcome(self, scope: str, filters: Json, holding: dict[str, int]) -> None:
        fmt, places = self.dice.choice(FORMATS), self.places()
        session = Session(self.node, fmt)
        phone = ModelPhone(
            f"phone {next(self.numbers)}", session, scope, filters.get("categories"), filters.get("min_severity")
        )
        self.phones.append(phone)
        phone.newest = {name: held for name, held in holding.items() if self.known_to(phone, name)}
        self.trace.append(f"{phone.name} comes, holding {holding}")
        extra = {"holding": holding} if holding else {}
        token, since = self.node.keys.token(sub="phone", scope=scope), now()
        session.hello(places, token=token, **filters, **extra)
        self.judge(phone, since=since)

    def known_to(self, phone: ModelPhone, name: str) -> bool:
        known = self.alerts[name]
        return phone.may_see(known.shown[1])

    def hang_up(self) -> None:
        """Disconnect a phone, and remember which alerts it shows."""
        if phone := self.some_phone():
            self.judge(phone)
            self.phones.remove(phone)
            if self.dice.random() < 0.5:
                assert phone.session.leave() == 1000
                self.judge(phone)
            phone.session.drop()
            self.remember(phone)

    def remember(self, phone: ModelPhone) -> None:
        filters = {"categories": phone.categories, "min_severity": phone.min_severity}
        holding = {
            name: number
            for name, number in phone.newest.items()
            if name not in phone.over and now() < moment(self.alerts[name].shown[1]["expires_at"])
        }
        given = {name: value for name, value in filters.items() if value is not None}
        self.held.append((phone.scope, given, holding))

    def move(self) -> None:
        """Move a phone. Messages before the `ok` follow the old places, messages after it the new places."""
        if phone := self.some_phone():
            places = self.places()
            self.asking(phone, "move", {"places": places}, lambda: setattr(phone.session, "places", places))

    def filter(self) -> None:
        """Change a phone's filter: an omitted field keeps its value, and `null` clears it."""
        if phone := self.some_phone():
            change = self.some_filter() or {self.dice.choice(("categories", "min_severity")): None}
            self.asking(phone, "filter", change, lambda: vars(phone).update(change))

    def renew(self) -> None:
        """Send a fresh token for a phone, perhaps with another scope."""
        if phone := self.some_phone():
            scope = self.dice.choice((PHONE_SCOPE, TESTER, EVERY_SCOPE))
            token = self.node.keys.token(sub="phone", scope=scope)
            self.asking(phone, "token", {"token": token}, lambda: setattr(phone, "scope", scope))

    def some_filter(self) -> Json:
        chosen: Json = {}
        if self.dice.random() < 0.4:
            chosen["categories"] = self.dice.sample(CATEGORIES, self.dice.randint(0, 3))
        if self.dice.random() < 0.3:
            chosen["min_severity"] = self.dice.choice(SEVERITIES)
        return chosen

    def asking(self, phone: ModelPhone, kind: str, fields: Json, apply: Any) -> None:
        self.trace.append(f"{phone.name} {kind} {fields if kind != 'token' else ''}")
        asked = now()
        answer = phone.session.ask(kind, **fields)
        assert answer["type"] == "ok", answer
        self.judge(phone, until=len(phone.session.received) - len(phone.session.batch))
        apply()
        self.judge(phone, since=asked)

    # -- checks that no phone got a message that it should not get

    def judge(self, phone: ModelPhone, until: int | None = None, since: dt.datetime | None = None) -> None:
        """Compare the phone's new messages, up to message number `until`, with the rules.

        The phone's present places, filter and scope apply. No alert may have ended before `since`.
        """
        for message in phone.session.received[phone.read : until]:
            self.trace.append(f"{phone.name} gets {told(message)}")
            assert since is None or self.alerts[told(message)[0]].ends > since, "an alert was sent after its end"
            self.judge_message(phone, message)
            phone.read += 1
            self.messages += 1

    def judge_message(self, phone: ModelPhone, message: Json) -> None:
        name, what = told(message)
        known = self.alerts[name]
        assert name not in phone.over, "a message came after the cancel (rule 2)"
        assert phone.may_see(known.shown[1]), "a phone without the scope got a test (rule 6)"
        if what == "cancel":
            assert message["revision"] == known.cancelled, "the cancel differs from the published one"
            assert name in phone.newest, "a phone that is no recipient got a cancel (rule 4)"
            phone.over.add(name)
            return
        shown = message["alert"]
        assert shown == known.shown[what], "the alert differs from what was published"
        earlier = phone.newest.get(name)
        assert earlier is None or what > earlier, "a revision came twice or out of order (rule 2)"
        assert earlier is not None or phone.applies(shown) is not False, (
            "the alert does not apply to the phone (rule 1)"
        )
        phone.newest[name] = what
        phone.missed.discard(name)

    # -- checks that each phone got every message that it should get

    def check(self) -> None:
        """Send a `move` for every phone, then assert that each phone was sent everything that it should get."""
        self.node.settle()
        for phone in self.phones:
            self.asking(phone, "move", {"places": phone.session.places}, lambda: None)
        for phone in self.phones:
            for name, what in self.owed(phone):
                phone.session.listen(name, what)
            self.judge(phone)

    def owed(self, phone: ModelPhone) -> list[tuple[str, int | str]]:
        """Return the id and the revision (or "cancel") of all that must have been sent to the phone by now."""
        owed: list[tuple[str, int | str]] = []
        for name, known in self.alerts.items():
            shown = known.shown[known.current]
            told_of_it = name in phone.newest and name not in phone.over | phone.missed
            recipient = told_of_it and phone.may_see(shown)
            if now() + A_MOMENT >= known.ends:
                continue
            if known.cancelled is not None:
                owed += [(name, "cancel")] if recipient else []
            elif name in phone.over:
                raise AssertionError(f"{name} is live, but {phone.name} was sent its cancel")
            elif phone.newest.get(name, 0) < known.current and (recipient or phone.applies(shown)):
                owed.append((name, known.current))
        return owed

    # -- running the random walk

    def kill(self) -> None:
        """Kill the node with signal 9, and restart it on the same log.

        Every phone reconnects and names the alerts that it has.
        """
        self.check()
        for phone in self.phones:
            phone.session.drop()
            self.remember(phone)
        self.phones.clear()
        self.offline_changes()
        self.node.kill()
        self.node.start()
        self.trace.append("killed and started")
        while self.held:
            self.come_back()

    def offline_changes(self) -> None:
        for step in (self.revise, self.cancel, self.publish, self.cancel, self.revise):
            step()

    def go(self, steps: int) -> None:
        """Take random steps with a kill half way. Assert that messages were sent and all of them followed the rules."""
        try:
            for number in range(steps):
                self.dice.choice(self.steps)()
                if number == steps // 2:
                    self.kill()
            self.check()
        except BaseException as problem:
            problem.add_note(f"seed {self.seed}, step {number}:\n" + "\n".join(self.trace[-60:]))
            raise
        finally:
            for phone in self.phones:
                phone.session.drop()
        assert self.messages > steps / 2, "the walk caused too few messages"


def with_polygons(home: Path) -> Path:
    """Write a policy in which every category of the walk accepts polygons of any size. Return its path."""
    path = home / "polygons.toml"
    lines = [f'{name} = {{ title = "{name}", polygons = true, min_radius_m = 10 }}' for name in CATEGORIES]
    path.write_text("\n".join(['name = "walk"', "[categories]", *lines]))
    return path


@pytest.mark.slow
def test_messages_follow_the_delivery_rules_for_a_thousand_random_steps_with_a_kill(tmp_path: Path, keys: Keys):
    """Every message follows rules 1 to 8 of the protocol, section 5, "Who is sent what"."""
    with Node(tmp_path, keys, "--policy", str(with_polygons(tmp_path))) as node:
        Walk(node, SEED).go(STEPS)
