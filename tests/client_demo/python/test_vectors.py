"""Tests of the Python client with the test vectors in client_demo/conformance/vectors."""

import json
from pathlib import Path

import pytest

import client_demo.conformance
from client_demo.conformance.device_vectors import as_json
from client_demo.python.calls import Calls
from client_demo.python.client import Client
from client_demo.python.geo import Place, away_m, depth_m, distance_m, is_inside, judge_of
from client_demo.python.holdings import SHOWN, Holdings, Kind
from client_demo.python.notices import RENEWAL, SOMETHING, Notices
from client_demo.python.reconnect import NO_CLOSE_FRAME, After, Backoff, after_close
from client_demo.python.times import format_time, parse_time
from client_demo.python.verify import Untrusted, Verifier

VECTORS = Path(client_demo.conformance.__file__).with_name("vectors")
AREA = [{"type": "circle", "lat": 32.78, "lng": -96.8, "radius_m": 1020.0}]
HOME = Place.at(32.7767, -96.797)


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def cases(name):
    return [pytest.param(case, id=case["why"]) for case in vectors(name)["cases"]]


def alert(held):
    return {"area": AREA, "severity": "severe", "category": "robbery", **held}


@pytest.mark.parametrize("case", cases("inside"))
def test_inside_matches_vector(case):
    places = [Place.from_map(place) for place in case["places"]]
    assert is_inside(case["area"], places) == case["inside"]
    if "cell_place" in case:
        found = {"lat": places[0].lat, "lng": places[0].lng, "reach_m": pytest.approx(places[0].reach_m, abs=1e-5)}
        assert case["cell_place"] == found


@pytest.mark.parametrize("case", cases("polygons"))
def test_inside_polygon_matches_vector(case):
    """The distance to the edge is compared to the millimetre, because it decides near the edge (rules D4, D5)."""
    places = [Place.from_map(place) for place in case["places"]]
    assert is_inside(case["area"], places) == case["inside"]
    assert depth_m(case["area"], places) == pytest.approx(case["margin_m"], abs=0.001)


@pytest.mark.parametrize("case", cases("device"))
def test_judge_of_the_feed_matches_vector(case):
    """The circles around polygons exclude no place that is inside (rules PF6 and G4)."""
    judge = judge_of(case["area"])
    places = [Place.from_map(as_json(place)) for place in case["places"]]
    assert "".join("1" if judge([place]) else "0" for place in places) == case["inside"]
    assert judge(places) == ("1" in case["inside"])


RING = [[0, 0], [1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"coordinates": None},
        {"coordinates": []},
        {"coordinates": [RING, RING]},
        {"coordinates": [[]]},
        {"coordinates": [RING[1:]]},
        {"coordinates": [[*RING, [0]]]},
        {"coordinates": [[*RING, ["0", 0]]]},
        {"coordinates": [RING], "buffer_m": "20"},
    ],
)
def test_unsupported_polygon_counts_as_unknown(members):
    """An alert with such a polygon is shown (rule G2)."""
    assert is_inside([{"type": "Polygon", **members}], [Place.at(50, 50)])
    assert away_m([{"type": "Polygon", **members}], [Place.at(50, 50)]) is None


def test_distance_to_a_polygon_is_measured_to_its_centre():
    """The distance serves to sort alerts, nearest first (rule D6)."""
    square = {"type": "Polygon", "coordinates": [[[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]]}
    assert away_m([square], [Place.at(0, 10), Place.at(0, 3)]) == pytest.approx(distance_m(0, 0, 0, 3))


@pytest.mark.parametrize("case", cases("clock"))
def test_expiry_by_the_servers_clock_matches_vector(case):
    holdings = Holdings([HOME])
    long_ago = case["readings"][0]
    holdings.set_clock(parse_time(long_ago["now"]) - 10**9, long_ago["own_ms"])
    holdings.take_alert(alert({"id": "a", "revision": 1, "expires_at": case["expires_at"]}), long_ago["own_ms"])
    assert len(holdings) == 1
    for reading in case["readings"]:
        holdings.set_clock(parse_time(reading["now"]), reading["own_ms"])
    assert parse_time(case["expires_at"]) - holdings.server_ms(case["own_ms"]) == case["left_ms"]
    holdings.expire(case["own_ms"])
    assert len(holdings) == case["live"]


@pytest.mark.parametrize("case", cases("kept"))
def test_alerts_kept_during_a_wrong_clock_match_vector(case):
    """Alerts are shown by the server's clock, and forgotten when they are live by no clock (rules C2, C2a)."""
    holdings = Holdings([Place.from_map(vectors("kept")["place"])])
    for step in case["steps"]:
        own, message = step["own_ms"], step.get("message")
        if "now" in step:
            holdings.set_clock(parse_time(step["now"]), own)
        elif message is not None:
            take = {"alert": lambda m, at: holdings.take_alert(m["alert"], at)}
            take.get(message["type"], lambda m, at: holdings.take_cancel(m))(message, own)
        holdings.expire(own)
        assert {held["id"]: held["revision"] for held in holdings.here()} == step["shown"]
        assert holdings.holding(own)[0] == step["holding"]


@pytest.mark.parametrize("case", cases("holding"))
def test_holding_matches_vector(case):
    holdings, now = Holdings([HOME]), parse_time(case["now"])
    holdings.set_clock(now - 10**9, 0)
    for held in case["held"]:
        holdings.take_alert(alert(held), 0)
    assert len(holdings) == len(case["held"])
    holdings.set_clock(now, 0)
    listed, changes = holdings.holding(0)
    assert listed == case["holding"]
    assert sorted(change.alert["id"] for change in changes if change.kind is Kind.DROPPED) == case["dropped"]


@pytest.mark.parametrize("case", cases("revisions"))
def test_revisions_match_vector(case):
    whole = vectors("revisions")
    holdings = Holdings([Place.from_map(whole["place"])])
    holdings.set_clock(parse_time(whole["now"]), 0)
    for step in case["steps"]:
        message = step["message"]
        if message["type"] == "alert":
            changes = holdings.take_alert(message["alert"], 0)
        else:
            changes = holdings.take_cancel(message)
        effects = ["shown" if change.kind in SHOWN else str(change.kind) for change in changes]
        assert (effects or ["nothing"]) == [step["effect"]]
        assert {held["id"]: held["revision"] for held in holdings} == step["held"]


@pytest.mark.parametrize("case", cases("reconnect"))
def test_reconnection_delays_match_vector(case):
    """The lowest and highest random values give the ends of the window."""
    soonest, latest = Backoff(lambda: 0.0), Backoff(lambda: 1.0)
    for step in case["steps"]:
        if "welcome" in step:
            for backoff in (soonest, latest):
                backoff.welcomed(**step["welcome"]["retry"])
            continue
        after = after_close(step["closed"])
        if step["delay_ms"] is None:
            assert after is After.NEVER
            continue
        assert (after is After.NEW_TOKEN) == step.get("new_token", False)
        low, high = soonest.delay_s(after) * 1000, latest.delay_s(after) * 1000
        if after in (After.WINDOW, After.AT_ONCE) and step["delay_ms"][1] is not None:
            assert [low, high] == step["delay_ms"]
        else:
            assert low >= step["delay_ms"][0]
            assert step["delay_ms"][1] is None or high <= step["delay_ms"][1]


def test_missing_close_frame_counts_as_1006():
    assert NO_CLOSE_FRAME == 1006


@pytest.mark.parametrize("case", cases("near"))
def test_distance_to_a_call_matches_vector(case):
    """The responder sees this distance (rule RU1)."""
    client = Client("ws://nowhere", [Place.from_map(place) for place in case["places"]])
    expected = case["away_m"] if case["away_m"] is None else pytest.approx(case["away_m"], abs=0.005)
    assert client.away_m({"near": case["near"]}) == expected


def step_of_a_responder(calls, step, ahead_ms):
    """Play one step and return the changes that the person is shown."""
    own = step["own_ms"]
    clocks = (own, own + ahead_ms)
    told = calls.expire(*clocks)
    match step.get("message"):
        case {"type": "call", "call": call}:
            told += calls.take_call(call, *clocks)
        case {"type": "task"} as task:
            told += calls.take_task(task, *clocks)
        case {"type": "standdown"} as standdown:
            told += calls.take_standdown(standdown)
    match step.get("person"):
        case {"type": "accept"} as said:
            calls.accept(said["id"], said.get("eta_s"), own)
        case {"type": "decline"} as said:
            calls.decline(said["id"], own)
        case {"type": "report"} as said:
            calls.report(said["id"], said["state"], own)
    if "connected" in step:
        calls.connected(own)
    return told


@pytest.mark.parametrize("case", cases("calls"))
def test_responders_messages_match_vector(case):
    """Calls, tasks, standdowns and answers are covered (rules RU1, RU2, RU3, M18, M19, M20, M21, M22, M23)."""
    calls, ahead_ms = Calls(), 0
    for step in case["steps"]:
        if "now" in step:
            ahead_ms = parse_time(step["now"]) - step["own_ms"]
        told = step_of_a_responder(calls, step, ahead_ms)
        said = calls.due(step["own_ms"])
        assert [change.kind for change in told] == ([step["told"]] if step["told"] else [])
        assert calls.holding(256) == step["holding"]
        assert bool(calls.tasks()) == step["place"]
        assert said == step.get("says", said)


@pytest.mark.parametrize("case", cases("approvals"))
def test_verification_matches_vector(case):
    """Only messages with enough valid signatures are accepted (rules C11 to C14, AP3, AP5)."""
    pinned = vectors("approvals")
    approvals, cancel_approvals = case.get("approvals", 2), case.get("cancel_approvals", 1)
    verifier = Verifier(pinned["reviewers"], pinned["audience"], approvals=approvals, cancel_approvals=cancel_approvals)
    message = case["message"]
    if "dropped" in case:
        with pytest.raises(Untrusted) as untrusted:
            verifier.read(message)
        assert (untrusted.value.kind, untrusted.value.reason) == (message["type"], case["dropped"])
        return
    found = verifier.read(message)
    if message["type"] == "alert":
        assert found == {"type": "alert", "alert": case["alert"]}
    else:
        assert {name: found[name] for name in ("id", "revision", "reason", "cancelled_at")} == case["cancel"]


@pytest.mark.parametrize("case", cases("notices"))
def test_notifications_match_vector(case):
    """Each push shows one notification; the open ones are compared (rules WPC1, WPC2, WPC3, WPC4, WPC5)."""
    pinned = vectors("notices")
    verifier = Verifier(pinned["reviewers"], pinned["audience"], approvals=2) if "verifies" in case else None
    holdings = Holdings([Place.from_map(place) for place in case["places"]])
    notices = Notices(holdings, verify=verifier, time_of=lambda moment, _: format_time(moment))
    screen = {}
    for step in case["steps"]:
        own_ms = parse_time(step["at"])
        if "push" in step:
            taken = notices.take(step["push"], own_ms, visible=step.get("visible", False))
            assert taken.notice.tag not in taken.closed
            screen = {tag: each for tag, each in screen.items() if tag not in taken.closed}
            screen[taken.notice.tag] = taken.notice
            judge_notice(taken.notice, step["shows"])
        elif "socket" in step:
            holdings.take_alert(step["socket"]["alert"], own_ms)
        else:
            closed = notices.opened(own_ms)
            screen = {tag: each for tag, each in screen.items() if tag not in closed}
        assert [tag for tag in screen if not tag.startswith("-")] == step["open"]
        assert sorted(notices.open) == sorted(screen)


def judge_notice(notice, wanted):
    """Assert that a notification is the one of the vector."""
    if wanted["tag"] is None:
        assert notice.tag in (SOMETHING, RENEWAL)
    else:
        assert notice.tag == wanted["tag"]
    assert notice.sound is wanted["sound"] or wanted["sound"] is None
    assert (notice.stays, notice.lang) == (wanted["stays"], wanted.get("lang"))
    text = f"{notice.title}\n{notice.body}"
    for piece in wanted["text"]:
        found, piece_there, text = text.partition(piece)
        assert piece_there, (piece, found)
    first = {"exercise": "Exercise: ", "test": "Test: "}.get(wanted.get("first"), "")
    assert notice.title.startswith(first)
    if "until" in wanted:
        assert notice.body.endswith(f"\nuntil {wanted['until']}")
        assert ("Not where you are." in notice.body) == wanted["outside"]
