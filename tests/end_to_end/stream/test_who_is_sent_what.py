"""Section 5, "Who is sent what": rules 1 to 8, each as a client sees it.

Every test has a ground of its own. "Nothing came" is judged after `catch_up`: the node has read its log as
far as a later alert, and has answered a `move` to the same places since.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, ground, new_id, place, revision_of
from end_to_end.kit.earth import Point, beyond, published
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import FORMATS, Session, told
from end_to_end.kit.times import moment, now, wait_until

Join = Callable[..., Session]
TESTER = "alerts:receive alerts:test"


@pytest.fixture
def here() -> Point:
    """Where it happens."""
    return ground()


def far_from(spot: Point, metres: float = 50_000) -> Json:
    """A place well outside."""
    return place(beyond(spot, 90, metres))


def publish(node: Node, spot: Point, **fields: Any) -> Json:
    """Publish an alert; its body."""
    body = alert(spot, **fields)
    node.publish(body)
    return body


# -- rule 1: to whom a revision applies


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_alert_goes_to_those_inside_and_to_nobody_else(node: Node, join: Join, here: Point, fmt: str):
    """Rule 1: a place inside its area; a session without a place is nowhere."""
    edge = published(*here, 800)
    centre = (edge["lat"], edge["lng"])
    inside = [
        join(node, place(beyond(centre, 45, edge["radius_m"] - 1)), fmt=fmt),
        join(node, place(beyond(centre, 225, edge["radius_m"] + 64), accuracy_m=65), fmt=fmt),
        join(node, far_from(here), place(here), fmt=fmt),
    ]
    outside = [
        join(node, place(beyond(centre, 45, edge["radius_m"] + 1)), fmt=fmt),
        join(node, place(beyond(centre, 225, edge["radius_m"] + 66), accuracy_m=65), fmt=fmt),
        join(node, fmt=fmt),
    ]
    body = publish(node, here)
    for session in inside:
        session.listen(body["id"], 1)
    for session in (*inside, *outside):
        session.catch_up()
        assert session.heard(body["id"]) == ([1] if session in inside else [])


def test_a_revision_that_moves_goes_to_the_new_area_and_to_earlier_recipients(node: Node, join: Join, here: Point):
    """Rule 1: a recipient is never left with an old version; those who were never told are not told now."""
    there = beyond(here, 90, 50_000)
    old, new, aside = join(node, place(here)), join(node, place(there)), join(node, far_from(here, 90_000))
    body = publish(node, here)
    old.listen(body["id"], 1)
    node.revise(revision_of(body, 2, area=circle(there)))
    node.settle()
    late = join(node, place(here))
    for session in (old, new):
        session.listen(body["id"], 2)
    for session in (old, new, aside, late):
        session.catch_up()
    assert [session.heard(body["id"]) for session in (old, new, aside, late)] == [[1, 2], [2], [], []]


def test_a_recipient_that_has_left_and_filters_it_out_gets_the_revision(node: Node, join: Join, here: Point):
    """Rule 1: wherever it is now and whatever its filter. Rule 3: once; back home it is sent nothing again."""
    session = join(node, place(here))
    body = publish(node, here)
    session.listen(body["id"], 1)
    session.move(far_from(here))
    session.filter(categories=["shooting"], min_severity="severe")
    node.revise(revision_of(body, 2))
    session.listen(body["id"], 2)
    session.move()
    node.revise(revision_of(body, 3))
    session.listen(body["id"], 3)
    assert session.move(place(here))["live"] == 0
    assert session.heard(body["id"]) == [1, 2, 3]


def test_a_revision_that_begins_to_pass_a_filter_is_sent(node: Node, join: Join, here: Point):
    """Rule 1: each new revision is judged by itself."""
    session = join(node, place(here), min_severity="severe")
    body = publish(node, here)
    node.revise(revision_of(body, 2, severity="severe"))
    session.listen(body["id"], 2)
    node.revise(revision_of(body, 3, severity="minor"))
    session.listen(body["id"], 3)
    assert session.heard(body["id"]) == [2, 3]


# -- rule 2: at most once, in order


@pytest.mark.parametrize("fmt", FORMATS)
def test_several_places_inside_get_one_frame(node: Node, join: Join, here: Point, fmt: str):
    """Rule 2: several places inside, once; several circles of one area too."""
    places = [place(beyond(here, 45 * i, 100)) for i in range(8)]
    early = join(node, *places, fmt=fmt)
    body = publish(node, here, area=[circle(here), circle(beyond(here, 0, 50)), circle(here, 5_000)])
    early.listen(body["id"], 1)
    late = join(node, *places, fmt=fmt)
    for session in (early, late):
        session.catch_up()
        assert session.heard(body["id"]) == [1]


def test_revisions_come_in_rising_order_and_nothing_after_the_cancel(node: Node, join: Join, here: Point):
    """Rule 2: for one id, in order; a superseded revision may be left out."""
    sessions = [join(node, place(here), fmt=FORMATS[i % 2]) for i in range(6)]
    body = publish(node, here)
    for session in sessions:
        session.listen(body["id"], 1)
    for number in range(2, 12):
        node.revise(revision_of(body, number))
    node.cancel(body["id"], 12)
    for session in sessions:
        session.listen(body["id"], "cancel")
        session.catch_up()
        heard = session.heard(body["id"])
        assert heard[-1] == "cancel"
        assert heard[:-1] == sorted(set(heard[:-1]))


def test_a_repeated_post_is_not_sent_again(node: Node, join: Join, here: Point):
    """Rule 2: an (id, revision) is sent at most once on one connection."""
    session = join(node, place(here))
    body = publish(node, here)
    session.listen(body["id"], 1)
    for _ in range(3):
        assert node.post("/v1/alerts", body).status_code == 200
    session.catch_up()
    assert session.heard(body["id"]) == [1]


# -- rule 3: late joiners


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_late_joiner_gets_what_is_live(node: Node, join: Join, here: Point, fmt: str):
    """Rule 3, `hello`: the newest revision of each, directly behind the welcome."""
    first, second = publish(node, here), publish(node, here)
    node.revise(revision_of(first, 2))
    node.settle()
    session = join(node, place(here), fmt=fmt)
    assert session.welcome["live"] == 2
    assert {told(m) for m in session.batch} == {(first["id"], 2), (second["id"], 1)}


def test_who_moves_in_gets_what_is_live(node: Node, join: Join, here: Point):
    """Rule 3, `move`: directly behind the `ok`."""
    body = publish(node, here)
    node.settle()
    session = join(node, far_from(here))
    assert session.move(place(here))["live"] == 1
    assert session.everything() == [(body["id"], 1)]


def test_who_widens_a_filter_gets_what_is_live(node: Node, join: Join, here: Point):
    """Rule 3, `filter`: absent stays, `null` clears."""
    body = publish(node, here, severity="moderate")
    node.settle()
    session = join(node, place(here), categories=["robbery"], min_severity="severe")
    assert session.welcome["live"] == 0
    assert session.filter(min_severity=None)["live"] == 0, "categories stay"
    assert session.filter(categories=["robbery", "burglary"])["live"] == 1
    assert session.everything() == [(body["id"], 1)]


def test_who_gains_a_scope_gets_what_is_live(node: Node, join: Join, here: Point):
    """Rules 3 and 6, `token`."""
    body = publish(node, here, status="exercise")
    node.settle()
    session = join(node, place(here))
    assert session.welcome["live"] == 0
    assert session.renew(TESTER)["live"] == 1
    assert session.everything() == [(body["id"], 1)]


@pytest.mark.parametrize("fmt", FORMATS)
def test_walking_in_and_out_sends_nothing_twice(node: Node, join: Join, here: Point, fmt: str):
    """Rule 3: again and again."""
    body = publish(node, here)
    node.settle()
    session = join(node, place(here), fmt=fmt)
    for _ in range(10):
        assert session.move(far_from(here))["live"] == 0
        assert session.move(place(here))["live"] == 0
        assert session.filter(categories=[])["live"] == 0
        assert session.filter(categories=None)["live"] == 0
    assert session.heard(body["id"]) == [1]


def test_another_connection_starts_afresh(node: Node, join: Join, here: Point):
    """Rule 3: what counts is this connection, not the token."""
    body = publish(node, here)
    for _ in range(2):
        session = join(node, place(here))
        session.listen(body["id"], 1)
        session.leave()


def test_what_has_ended_is_not_sent_to_a_late_joiner(node: Node, join: Join, here: Point):
    """Rules 1 and 3: cancelled or expired, to nobody who comes later."""
    cancelled = publish(node, here)
    node.cancel(cancelled["id"], 2)
    expired, _ = node.publish_brief(alert(here))
    walker, joiner = join(node, far_from(here)), None
    node.wait_for_end(expired["id"])
    joiner = join(node, place(here))
    walker.move(place(here))
    for session in (walker, joiner):
        session.catch_up()
        assert session.everything() == []


def test_an_end_is_told_to_nobody_and_a_moment_before_it_is_live(node: Node, join: Join, here: Point):
    """Section 3: nothing is sent after `expires_at`, not even that it has come."""
    session = join(node, place(here))
    for seconds in (1.5, 6, 24):  # a busy machine may have it come to its end before it can be sent
        body, _ = node.publish_brief(alert(here), seconds)
        session.catch_up()
        if came_in_time := now() < moment(body["expires_at"]):
            break
    assert came_in_time
    node.wait_for_end(body["id"])
    session.catch_up()
    assert session.heard(body["id"]) == [1]


# -- rule 4: cancels


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_cancel_goes_to_recipients_wherever_they_are_and_to_nobody_else(
    node: Node, join: Join, here: Point, fmt: str
):
    """Rule 4: those who left, those who filter it out; not those who were never told."""
    stayed, left, filtering = (join(node, place(here), fmt=fmt) for _ in range(3))
    never = join(node, place(here), fmt=fmt, categories=["robbery"])
    aside = join(node, far_from(here), fmt=fmt)
    body = publish(node, here)
    for session in (stayed, left, filtering):
        session.listen(body["id"], 1)
    left.move(far_from(here))
    filtering.filter(categories=["robbery"], min_severity="extreme")
    answer = node.cancel(body["id"], 2)
    for session in (stayed, left, filtering):
        session.listen(body["id"], "cancel")
        assert session.received[-1] == {
            "type": "cancel",
            "id": body["id"],
            "revision": 2,
            "reason": "False alarm",
            "cancelled_at": answer["cancelled_at"],
        }
    for session in (never, aside):
        session.catch_up()
        session.filter(categories=None)
        assert session.everything() == []


# -- rule 5: holding


class Held:
    """Rows of the table of rule 5: an alert that is there, what the client holds, what is sent at once."""

    def __init__(self, node: Node, spot: Point) -> None:
        self.node, self.spot = node, spot

    def live(self, revision: int = 1, **fields: Any) -> Json:
        body = publish(self.node, self.spot, **fields)
        for number in range(2, revision + 1):
            self.node.revise(revision_of(body, number))
        return body

    def cancelled(self, **fields: Any) -> Json:
        body = publish(self.node, self.spot, **fields)
        self.node.cancel(body["id"], 2)
        return body


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("current", "held", "sent"), [(3, 1, [3]), (3, 2, [3]), (2, 2, []), (1, 1, []), (1, 5, [])])
def test_a_holder_of_a_live_alert_is_made_right_and_becomes_a_recipient(
    node: Node, join: Join, here: Point, current: int, held: int, sent: list[int], fmt: str
):
    """Rule 5, rows 1 to 3: wherever it is and whatever its filter; a cancel reaches it later."""
    body = Held(node, here).live(current)
    node.settle()
    session = join(node, far_from(here), fmt=fmt, holding={body["id"]: held}, categories=[])
    assert [told(m) for m in session.batch] == [(body["id"], number) for number in sent]
    node.cancel(body["id"], current + 1)
    session.listen(body["id"], "cancel")
    session.catch_up()
    assert session.heard(body["id"]) == [*sent, "cancel"]


def test_a_holder_inside_is_not_sent_what_it_holds(node: Node, join: Join, here: Point):
    """Rules 3 and 5: neither at `hello` nor on coming home; the next revision is sent."""
    body = Held(node, here).live(2)
    node.settle()
    session = join(node, place(here), holding={body["id"]: 2})
    assert session.welcome["live"] == 0
    session.move(far_from(here))
    assert session.move(place(here))["live"] == 0
    node.revise(revision_of(body, 3))
    session.listen(body["id"], 3)
    assert session.heard(body["id"]) == [3]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("held", [1, 2, 7])
def test_a_holder_of_a_cancelled_alert_is_told_once(node: Node, join: Join, here: Point, held: int, fmt: str):
    """Rule 5, row 4: its last `expires_at` still ahead: `cancel`, and a recipient no more."""
    body = Held(node, here).cancelled()
    node.settle()
    session = join(node, far_from(here), fmt=fmt, holding={body["id"]: held})
    assert [told(m) for m in session.batch] == [(body["id"], "cancel")]
    session.move(place(here))
    session.catch_up()
    assert session.heard(body["id"]) == ["cancel"]


def test_a_holder_is_told_nothing_of_what_it_cannot_know(node: Node, join: Join, here: Point):
    """Rule 5, row 5: expired, cancelled and expired, unknown, not to be seen: no sign of which."""
    held = Held(node, here)
    expired, _ = node.publish_brief(alert(here))
    bodies = [expired, cancelled_and_over(node, here), held.live(2, status="test"), held.cancelled(status="exercise")]
    node.wait_for_end(expired["id"])
    node.settle()
    holding = dict.fromkeys((*(body["id"] for body in bodies), new_id("unknown")), 1)
    session = join(node, place(here), holding=holding)
    assert session.welcome["live"] == 0
    session.catch_up()
    assert session.everything() == []


def cancelled_and_over(node: Node, spot: Point) -> Json:
    """An alert that was cancelled, and would have come to its end since; its body."""
    for seconds in (1.0, 4, 16):  # a busy machine may have it come to its end first
        body, _ = node.publish_brief(alert(spot), seconds)
        answer = node.post(f"/v1/alerts/{body['id']}/cancel", cancel_body(2))
        if answer.status_code != 410:
            break
    assert answer.status_code == 201, answer.text
    wait_until(lambda: now() > moment(body["expires_at"]), "it would have ended")
    return body


def test_a_holder_with_the_scope_is_told_of_tests(node: Node, join: Join, here: Point):
    """Rules 5 and 6: for whom they exist, they are held like others."""
    held = Held(node, here)
    live, cancelled = held.live(2, status="test"), held.cancelled(status="exercise")
    node.settle()
    session = join(node, scope=TESTER, holding={live["id"]: 1, cancelled["id"]: 1})
    assert [told(m) for m in session.batch] == [(cancelled["id"], "cancel"), (live["id"], 2)]


def test_an_id_that_is_not_known_yet_is_judged_when_it_comes(node: Node, join: Join, here: Point):
    """Rule 5: an unknown id is remembered for 30 s, in case the node is behind."""
    bodies = [alert(here) for _ in range(3)]
    session = join(node, far_from(here), holding={body["id"]: 1 for body in bodies})
    for body in bodies:
        node.publish(body)
    node.cancel(bodies[0]["id"], 2)
    node.revise(revision_of(bodies[1], 2))
    session.listen(bodies[0]["id"], "cancel")
    session.listen(bodies[1]["id"], 2)
    session.catch_up()
    assert [session.heard(body["id"]) for body in bodies] == [["cancel"], [2], []]


def test_holding_two_hundred_and_fifty_six_reconciles_each(node: Node, join: Join, here: Point):
    """Section 5, `hello`: up to 256."""
    held = Held(node, here)
    cancelled, revised = held.cancelled(), held.live(2)
    node.settle()
    holding = {new_id("unknown"): 1 for _ in range(254)} | {cancelled["id"]: 1, revised["id"]: 1}
    session = join(node, holding=holding)
    assert [told(m) for m in session.batch] == [(cancelled["id"], "cancel"), (revised["id"], 2)]


# -- rule 6: tests and exercises


@pytest.mark.parametrize("status", ["test", "exercise"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_tests_exist_only_for_who_may_see_them(node: Node, join: Join, here: Point, status: str, fmt: str):
    """Rule 6: alert, revision, cancel and late joining; even `extreme`."""
    tester, phone = join(node, place(here), scope=TESTER, fmt=fmt), join(node, place(here), fmt=fmt)
    body = publish(node, here, status=status, severity="extreme")
    tester.listen(body["id"], 1)
    assert tester.received[0]["alert"]["status"] == status
    late = join(node, place(here), fmt=fmt, holding={body["id"]: 1})
    node.revise(revision_of(body, 2))
    node.cancel(body["id"], 3)
    tester.listen(body["id"], "cancel")
    for session in (phone, late):
        session.catch_up()
        assert session.everything() == []


def test_who_loses_the_scope_is_sent_nothing_more_of_them(node: Node, join: Join, here: Point):
    """Rule 6: neither revision nor cancel; what is actual still comes."""
    session = join(node, place(here), scope=TESTER)
    test, actual = publish(node, here, status="test"), publish(node, here)
    session.listen(test["id"], 1)
    session.listen(actual["id"], 1)
    assert session.renew("alerts:receive")["live"] == 0
    node.revise(revision_of(test, 2))
    node.cancel(test["id"], 3)
    node.cancel(actual["id"], 2)
    session.listen(actual["id"], "cancel")
    session.catch_up()
    assert session.heard(test["id"]) == [1]


def test_an_ack_of_a_test_by_who_may_not_see_it_counts_nothing(node: Node, join: Join, here: Point):
    """Rule 6: such an id is unknown in `ack` too."""
    tester, phone = join(node, place(here), scope=TESTER), join(node, place(here))
    body = publish(node, here, status="test")
    phone.ack(body["id"], 1)
    phone.catch_up()
    tester.listen(body["id"], 1)
    tester.ack(body["id"], 1)
    node.wait_for_counts(body["id"], sent=1, acked=1)


# -- rule 7: filters

FILTERS = [  # filter, alert, passes
    ({}, {}, True),
    ({"categories": ["burglary"]}, {}, True),
    ({"categories": ["robbery"]}, {}, False),
    ({"categories": []}, {}, False),
    ({"min_severity": "moderate"}, {"severity": "moderate"}, True),
    ({"min_severity": "severe"}, {"severity": "moderate"}, False),
    ({"min_severity": "extreme"}, {"severity": "extreme"}, True),
    ({"categories": ["burglary"], "min_severity": "severe"}, {"severity": "moderate"}, False),
    ({"categories": ["robbery"], "min_severity": "minor"}, {"severity": "severe"}, False),
    ({"categories": [], "min_severity": "extreme"}, {"severity": "extreme"}, True),
]


@pytest.mark.parametrize(("filters", "fields", "passes"), FILTERS)
def test_both_parts_of_a_filter_have_to_pass_and_extreme_passes_all(
    node: Node, join: Join, here: Point, filters: Json, fields: Json, passes: bool
):
    """Rule 7, and section 5: early and late."""
    early = join(node, place(here), **filters)
    body = publish(node, here, **fields)
    node.settle()
    late = join(node, place(here), **filters)
    for session in (early, late):
        session.catch_up()
        assert session.heard(body["id"]) == ([1] if passes else [])


# -- rule 8: the barrier, and the order behind it


def test_what_an_ok_announces_comes_directly_behind_it_in_order(node: Node, join: Join, here: Point):
    """Section 5: cancels first, then the most severe first, exactly `live` of them.

    `Session` checks number and order of every batch; this one has some of each.
    """
    held = Held(node, here)
    severities = ["minor", "extreme", "moderate", "severe", "minor", "extreme"]
    live = [held.live(severity=severity) for severity in severities]
    gone = [held.cancelled() for _ in range(3)]
    stale = held.live(2, severity="severe")
    node.settle()
    holding = {body["id"]: 1 for body in (*gone, stale, live[0])}
    session = join(node, place(here), holding=holding)
    assert session.welcome["live"] == len(gone) + 1 + len(live) - 1
    kinds = [message["type"] for message in session.batch]
    assert kinds == ["cancel"] * 3 + ["alert"] * 6
    shown = [message["alert"]["severity"] for message in session.batch[3:]]
    assert shown == ["extreme", "extreme", "severe", "severe", "moderate", "minor"]


def test_an_ok_is_a_barrier_while_alerts_are_being_published(node: Node, join: Join, here: Point):
    """Rule 8: what comes before an `ok` was judged by the old places, what comes after it by the new."""
    there = beyond(here, 90, 50_000)
    bodies = [alert((here, there)[i % 2]) for i in range(160)]
    owner = {body["id"]: i % 2 for i, body in enumerate(bodies)}
    session = join(node, place(here))
    with publishing(node, bodies):
        for i in range(80):
            seen, old, new = len(session.received), i % 2, 1 - i % 2
            session.move(place((here, there)[new]))
            before = session.received[seen : len(session.received) - len(session.batch)]
            assert {owner[told(m)[0]] for m in before} <= {old}
            assert {owner[told(m)[0]] for m in session.batch} <= {new}
    session.move(place(here), place(there))
    for body in bodies:
        session.listen(body["id"], 1)
    session.catch_up()
    assert len(session.received) == len(bodies), "each, once"


@contextlib.contextmanager
def publishing(node: Node, bodies: list[Json]) -> Iterator[None]:
    """Publish from another thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        published = thread.submit(lambda: [node.publish(body) for body in bodies])
        yield
        published.result()


def test_who_joins_while_alerts_are_being_published_gets_each_once(node: Node, join: Join, here: Point):
    """Rules 2 and 3: whether a session is found by the fan-out or finds the alert itself, never by both."""
    bodies = [alert(here) for _ in range(120)]
    with publishing(node, bodies):
        sessions = [join(node, place(here), fmt=FORMATS[i % 2]) for i in range(60)]
    for session in sessions:
        for body in bodies:
            session.listen(body["id"], 1)
    node.settle()
    for session in sessions:
        session.move(place(here))
        assert len(session.received) == len(bodies)


# -- counts


def test_each_revision_is_counted_for_each_connection(node: Node, join: Join, here: Point):
    """Section 4, "Counts": (connection, revision) pairs; cancels don't count."""
    sessions = [join(node, place(here), fmt=FORMATS[i % 2]) for i in range(3)]
    body = publish(node, here)
    for session in sessions:
        session.listen(body["id"], 1)
    node.wait_for_counts(body["id"], sent=3, acked=0)
    node.revise(revision_of(body, 2))
    for session in sessions:
        session.listen(body["id"], 2)
    node.cancel(body["id"], 3)
    for session in sessions:
        session.listen(body["id"], "cancel")
    node.wait_for_counts(body["id"], sent=6, acked=0)


def test_an_ack_counts_once_and_only_for_what_was_sent_here(node: Node, join: Join, here: Point):
    """Section 5, `ack`: what is wrong comes first, so that it would have been counted by the end."""
    first, second = join(node, place(here)), join(node, place(here))
    body = publish(node, here)
    aside = join(node, far_from(here))
    for session in (first, second):
        session.listen(body["id"], 1)
    for number in (1, 2, 3):
        aside.ack(body["id"], number)
    aside.ask("ping")
    for _ in range(3):
        first.ack(body["id"], 1)
        first.ack(body["id"], 2)
    first.ask("ping")
    second.ack(body["id"], 1)
    node.wait_for_counts(body["id"], sent=2, acked=2)
    node.revise(revision_of(body, 2))
    first.listen(body["id"], 2)
    second.listen(body["id"], 2)
    first.ack(body["id"], 2)
    node.wait_for_counts(body["id"], sent=4, acked=3)


def test_what_is_held_is_not_counted(node: Node, join: Join, here: Point):
    """Section 4, "Counts": claims by `holding` don't count, and cannot be acknowledged."""
    body = publish(node, here)
    node.settle()
    holder = join(node, place(here), holding={body["id"]: 1})
    holder.ack(body["id"], 1)
    holder.ask("ping")
    other = join(node, place(here))
    other.listen(body["id"], 1)
    other.ack(body["id"], 1)
    node.wait_for_counts(body["id"], sent=1, acked=1)
