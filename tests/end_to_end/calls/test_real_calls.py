"""Calls made from real dispatch records, with real defibrillators, on a real node (rules RI1 to RI3)."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, call, calling_node
from end_to_end.kit.earth import Point, beyond, distance
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from support.real_data import aed, dispatch

from client_demo.desk.feeds import feed_text, read_records
from client_demo.dispatch.records import calls_for_help

SESSIONS, PLACES = 2, 100  # each session sends 200 messages; a burst may have 300
WITHIN_M = 800  # the default of the policy's `aed_m`
POLICY = """
name = "real"
[categories]
burglary = { title = "Burglary" }
[calls.cardiac_arrest]
title = "Cardiac arrest: CPR needed"
quals = ["cpr"]
rings_m = [3000]
seats = ["aed", "cpr"]
rest_s = 0
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Start a node that knows the defibrillators of Switzerland."""
    started = calling_node(tmp_path, Keys(quals=["cpr"]), "--aeds", str(aed("switzerland_osm_aed")))
    (tmp_path / "policy.toml").write_text(POLICY)
    with started as node:
        yield node
        node.assert_no_surprise()


@contextmanager
def on_duty(node: Node) -> Iterator[Session]:
    """Connect a responder with a qualification."""
    now = int(time.time())
    with Session(node) as session:
        session.hello(token=node.keys.token(sub="r-1", quals=["cpr"], iat=now, exp=now + 3_600, scope=PHONE_SCOPE))
        yield session


def posted(node: Node, path: str, body: Json) -> None:
    """POST as the dispatcher, and assert that the answer is 201."""
    answer = node.post(path, body, node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE))
    assert answer.status_code == 201, answer.text


def task_of(node: Node, responder: Session, patient: Point, start: Point, address: str | None = None) -> Json:
    """Open a call for `patient`, and return the task that a responder at `start` is sent; then end the call."""
    responder.move({"lat": start[0], "lng": start[1], "here": True})
    where = {"lat": patient[0], "lng": patient[1], "kind": "public"} | ({"address": address} if address else {})
    body = call(place=where)
    posted(node, "/v1/calls", body)
    rung = responder.take()
    assert rung["type"] == "call"
    assert rung["call"]["id"] == body["id"]
    responder.say({"type": "accept", "id": body["id"]})
    task = responder.take()
    assert task["type"] == "task"
    assert task["place"] == where
    posted(node, f"/v1/calls/{body['id']}/end", {"reason": "The crew is there."})
    assert responder.take() == {"type": "standdown", "id": body["id"], "reason": "over"}
    return task


def usable() -> dict[str, tuple[Point, Json]]:
    """Return the place and the tags of each public defibrillator by its id."""
    elements = json.loads(aed("switzerland_osm_aed").read_bytes())["elements"]
    found = {f"{each['type']}/{each['id']}": ((each["lat"], each["lon"]), each["tags"]) for each in elements}
    return {name: each for name, each in found.items() if each[1].get("access") not in ("no", "private")}


def test_task_names_the_same_defibrillators_as_a_brute_force_search(node: Node):
    """A task names at most three, nearest first.

    The one to fetch is on the responder's shortest way (rules RI2, RI3).
    """
    known, dice = usable(), random.Random(15)
    told: list[int] = []
    for _ in range(SESSIONS):
        with on_duty(node) as responder:
            told += [at_some_place(node, responder, known, dice) for _ in range(PLACES)]
    assert {told.count(number) > 0 for number in range(4)} == {True}, (
        "some places have no defibrillator near, and some have three"
    )


def at_some_place(node: Node, responder: Session, known: dict[str, tuple[Point, Json]], dice: random.Random) -> int:
    """Open a call at a random place, assert that its task names the right defibrillators, and return their number."""
    patient = beyond(dice.choice(list(known.values()))[0], dice.uniform(0, 360), dice.uniform(0, 1_200))
    start = beyond(patient, dice.uniform(0, 360), dice.uniform(0, 2_000))
    away = {name: distance(patient, spot) for name, (spot, _) in known.items()}
    nearest = sorted((name for name in away if away[name] <= WITHIN_M), key=away.__getitem__)[:3]
    task = task_of(node, responder, patient, start)
    assert [each["id"] for each in task["aeds"]] == nearest
    for each in task["aeds"]:
        (lat, lng), tags = known[each["id"]]
        assert (each["lat"], each["lng"], each["open"]) == (lat, lng, tags.get("opening_hours") == "24/7" or None)
        assert each.keys() <= {"id", "lat", "lng", "where", "level", "indoor", "open", "code"}
    way = {name: distance(start, known[name][0]) + away[name] for name in nearest}
    assert task["role"] == ("aed" if nearest else "cpr")
    assert task.get("fetch") == (nearest.index(min(way, key=way.__getitem__)) if nearest else None)
    return len(nearest)


def test_real_cardiac_arrests_become_calls_except_the_one_without_a_location(node: Node):
    """The records are from Pennsylvania.

    None of the known defibrillators is near, so nobody is sent to fetch one (rules RI2, RV5).
    """
    path = dispatch("montgomery_pa_911.csv")
    records = calls_for_help(read_records(path.name, feed_text(path)), ["cardiac_arrest"])
    assert len(records) == 12
    [nowhere] = [record for record in records if record.obstacle]
    assert nowhere.address.startswith("NO LOCATION")
    assert nowhere.lat is not None, "the record has coordinates, but they mean nothing"
    with on_duty(node) as responder:
        for record in records:
            if record is nowhere:
                continue
            assert record.lat is not None
            assert record.lng is not None
            patient = (record.lat, record.lng)
            task = task_of(node, responder, patient, beyond(patient, 45, 400), record.address)
            assert (task["seat"], task["role"], task["aeds"]) == (1, "cpr", [])
