"""Rules 1 to 8 of the protocol, section 5, "Who is sent what", as a client sees them.

Every test publishes at a place of its own. To assert that nothing came, a test first calls `catch_up`: the node has
then read its log up to a later alert, and has answered a `move` to the same places.
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
    """Return the place of this test's alerts."""
    return ground()


def far_from(spot: Point, metres: float = 50_000) -> Json:
    """Return a place well outside the alert's area."""
    return place(beyond(spot, 90, metres))


def publish(node: Node, spot: Point, **fields: Any) -> Json:
    """Publish an alert, and return its body."""
    body = alert(spot, **fields)
    node.publish(body)
    return body


# -- rule 1: to whom a revision applies


@pytest.mark.parametrize("fmt", FORMATS)
def test_alert_goes_only_to_sessions_with_a_place_inside(node: Node, join: Join, here: Point, fmt: str):
    """A session without places gets nothing (rule 1)."""
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


def test_revision_with_a_new_area_reaches_sessions_there_and_earlier_recipients(node: Node, join: Join, here: Point):
    """A recipient never keeps an old version; other sessions in the old area are not sent the revision (rule 1)."""
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


def test_recipient_gets_revisions_after_it_left_the_area_and_filtered_the_alert_out(
    node: Node, join: Join, here: Point
):
    """A recipient gets each revision wherever it is and whatever it filters (rule 1).

    When the recipient returns, nothing is sent again (rule 3).
    """
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


def test_revision_that_passes_the_filter_is_sent_although_an_earlier_one_did_not(node: Node, join: Join, here: Point):
    """Each revision is compared with the filter (rule 1), until the session is a recipient."""
    session = join(node, place(here), min_severity="severe")
    body = publish(node, here)
    node.revise(revision_of(body, 2, severity="severe"))
    session.listen(body["id"], 2)
    node.revise(revision_of(body, 3, severity="minor"))
    session.listen(body["id"], 3)
    assert session.heard(body["id"]) == [2, 3]


# -- rule 2: at most once, in order


@pytest.mark.parametrize("fmt", FORMATS)
def test_session_with_several_places_inside_gets_the_alert_once(node: Node, join: Join, here: Point, fmt: str):
    """This also holds for an area of several circles (rule 2)."""
    places = [place(beyond(here, 45 * i, 100)) for i in range(8)]
    early = join(node, *places, fmt=fmt)
    body = publish(node, here, area=[circle(here), circle(beyond(here, 0, 50)), circle(here, 5_000)])
    early.listen(body["id"], 1)
    late = join(node, *places, fmt=fmt)
    for session in (early, late):
        session.catch_up()
        assert session.heard(body["id"]) == [1]


def test_revisions_come_in_rising_order_and_nothing_follows_the_cancel(node: Node, join: Join, here: Point):
    """A superseded revision may be left out (rule 2)."""
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


def test_repeated_post_is_not_sent_again(node: Node, join: Join, here: Point):
    """Each revision is sent at most once on a connection (rule 2)."""
    session = join(node, place(here))
    body = publish(node, here)
    session.listen(body["id"], 1)
    for _ in range(3):
        assert node.post("/v1/alerts", body).status_code == 200
    session.catch_up()
    assert session.heard(body["id"]) == [1]


# -- rule 3: late joiners


@pytest.mark.parametrize("fmt", FORMATS)
def test_late_joiner_gets_the_live_alerts_directly_after_the_welcome(node: Node, join: Join, here: Point, fmt: str):
    """The newest revision of each live alert follows the `welcome` (rule 3, `hello`)."""
    first, second = publish(node, here), publish(node, here)
    node.revise(revision_of(first, 2))
    node.settle()
    session = join(node, place(here), fmt=fmt)
    assert session.welcome["live"] == 2
    assert {told(m) for m in session.batch} == {(first["id"], 2), (second["id"], 1)}


def test_session_that_moves_into_the_area_gets_the_live_alerts(node: Node, join: Join, here: Point):
    """The alerts follow the `ok` (rule 3, `move`)."""
    body = publish(node, here)
    node.settle()
    session = join(node, far_from(here))
    assert session.move(place(here))["live"] == 1
    assert session.everything() == [(body["id"], 1)]


def test_session_that_widens_its_filter_gets_the_live_alerts(node: Node, join: Join, here: Point):
    """An omitted field keeps its value, and `null` clears it (rule 3, `filter`)."""
    body = publish(node, here, severity="moderate")
    node.settle()
    session = join(node, place(here), categories=["robbery"], min_severity="severe")
    assert session.welcome["live"] == 0
    assert session.filter(min_severity=None)["live"] == 0, "the filter lost its categories"
    assert session.filter(categories=["robbery", "burglary"])["live"] == 1
    assert session.everything() == [(body["id"], 1)]


def test_session_that_gains_the_test_scope_gets_the_live_test_alerts(node: Node, join: Join, here: Point):
    """The alerts follow the `ok` to `token` (rules 3 and 6)."""
    body = publish(node, here, status="exercise")
    node.settle()
    session = join(node, place(here))
    assert session.welcome["live"] == 0
    assert session.renew(TESTER)["live"] == 1
    assert session.everything() == [(body["id"], 1)]


@pytest.mark.parametrize("fmt", FORMATS)
def test_session_that_repeatedly_leaves_and_enters_the_area_is_sent_nothing_twice(
    node: Node, join: Join, here: Point, fmt: str
):
    """Changing the filter back and forth sends nothing twice either (rule 3)."""
    body = publish(node, here)
    node.settle()
    session = join(node, place(here), fmt=fmt)
    for _ in range(10):
        assert session.move(far_from(here))["live"] == 0
        assert session.move(place(here))["live"] == 0
        assert session.filter(categories=[])["live"] == 0
        assert session.filter(categories=None)["live"] == 0
    assert session.heard(body["id"]) == [1]


def test_new_connection_with_the_same_token_gets_the_alert_again(node: Node, join: Join, here: Point):
    """The rules apply to the connection, not to the token (rule 3)."""
    body = publish(node, here)
    for _ in range(2):
        session = join(node, place(here))
        session.listen(body["id"], 1)
        session.leave()


def test_late_joiner_is_not_sent_cancelled_or_expired_alerts(node: Node, join: Join, here: Point):
    """A session that joins later, or moves inside later, gets nothing (rules 1 and 3)."""
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


def test_alert_is_live_until_its_expiry_and_no_message_announces_the_expiry(node: Node, join: Join, here: Point):
    """No message announces the expiry (protocol, section 3)."""
    session = join(node, place(here))
    for seconds in (1.5, 6, 24):  # on a busy machine the alert may expire before it can be sent
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
def test_cancel_goes_to_all_recipients_wherever_they_are_and_to_nobody_else(
    node: Node, join: Join, here: Point, fmt: str
):
    """Recipients that left or filter the alert out get the cancel; other sessions do not (rule 4)."""
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


# -- rule 5: clients that already have alerts (`holding`)


class Held:
    """Publishes live and cancelled alerts for the tests of rule 5."""

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
def test_client_that_already_has_a_live_alert_gets_newer_revisions_and_the_cancel(
    node: Node, join: Join, here: Point, current: int, held: int, sent: list[int], fmt: str
):
    """The client may be anywhere, with any filter (rule 5, rows 1 to 3)."""
    body = Held(node, here).live(current)
    node.settle()
    session = join(node, far_from(here), fmt=fmt, holding={body["id"]: held}, categories=[])
    assert [told(m) for m in session.batch] == [(body["id"], number) for number in sent]
    node.cancel(body["id"], current + 1)
    session.listen(body["id"], "cancel")
    session.catch_up()
    assert session.heard(body["id"]) == [*sent, "cancel"]


def test_client_inside_is_not_sent_the_revision_that_it_already_has(node: Node, join: Join, here: Point):
    """The revision is sent neither after `hello` nor when the client returns; the next revision is (rules 3 and 5)."""
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
def test_client_that_has_a_cancelled_alert_gets_the_cancel_once(
    node: Node, join: Join, here: Point, held: int, fmt: str
):
    """The alert was cancelled before its `expires_at`.

    After the cancel, the client is no longer a recipient (rule 5, row 4).
    """
    body = Held(node, here).cancelled()
    node.settle()
    session = join(node, far_from(here), fmt=fmt, holding={body["id"]: held})
    assert [told(m) for m in session.batch] == [(body["id"], "cancel")]
    session.move(place(here))
    session.catch_up()
    assert session.heard(body["id"]) == ["cancel"]


def test_client_that_names_ended_unknown_or_invisible_alerts_is_sent_nothing(node: Node, join: Join, here: Point):
    """The client cannot find out which of these cases applies (rule 5, row 5)."""
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
    """Publish and cancel an alert, and wait until its `expires_at` has passed. Return its body."""
    for seconds in (1.0, 4, 16):  # on a busy machine the alert may expire before its cancel
        body, _ = node.publish_brief(alert(spot), seconds)
        answer = node.post(f"/v1/alerts/{body['id']}/cancel", cancel_body(2))
        if answer.status_code != 410:
            break
    assert answer.status_code == 201, answer.text
    wait_until(lambda: now() > moment(body["expires_at"]), "the cancelled alert has expired")
    return body


def test_returning_client_with_the_test_scope_gets_tests_and_exercises(node: Node, join: Join, here: Point):
    """With the scope, tests and exercises follow the same rules as other alerts (rules 5 and 6)."""
    held = Held(node, here)
    live, cancelled = held.live(2, status="test"), held.cancelled(status="exercise")
    node.settle()
    session = join(node, scope=TESTER, holding={live["id"]: 1, cancelled["id"]: 1})
    assert [told(m) for m in session.batch] == [(cancelled["id"], "cancel"), (live["id"], 2)]


def test_client_is_sent_changes_of_an_alert_that_the_node_learns_of_later(node: Node, join: Join, here: Point):
    """A node that is behind remembers an unknown id for 30 s (rule 5)."""
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


def test_hello_that_names_256_alerts_gets_those_that_have_changed(node: Node, join: Join, here: Point):
    """A `hello` may name up to 256 alerts (protocol, section 5)."""
    held = Held(node, here)
    cancelled, revised = held.cancelled(), held.live(2)
    node.settle()
    holding = {new_id("unknown"): 1 for _ in range(254)} | {cancelled["id"]: 1, revised["id"]: 1}
    session = join(node, holding=holding)
    assert [told(m) for m in session.batch] == [(cancelled["id"], "cancel"), (revised["id"], 2)]


# -- rule 6: tests and exercises


@pytest.mark.parametrize("status", ["test", "exercise"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_test_alerts_and_exercises_are_sent_only_to_sessions_with_the_test_scope(
    node: Node, join: Join, here: Point, status: str, fmt: str
):
    """The rule covers alert, revision, cancel and late joiners, even for severity `extreme` (rule 6)."""
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


def test_session_that_loses_the_test_scope_gets_no_more_messages_of_a_test_alert(node: Node, join: Join, here: Point):
    """The session gets neither revision nor cancel of the test; actual alerts still come (rule 6)."""
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


def test_ack_of_a_test_alert_without_the_test_scope_is_not_counted(node: Node, join: Join, here: Point):
    """Without the scope, the id of a test is unknown to `ack` too (rule 6)."""
    tester, phone = join(node, place(here), scope=TESTER), join(node, place(here))
    body = publish(node, here, status="test")
    phone.ack(body["id"], 1)
    phone.catch_up()
    tester.listen(body["id"], 1)
    tester.ack(body["id"], 1)
    node.wait_for_counts(body["id"], sent=1, acked=1)


# -- rule 7: filters

FILTERS = [  # filter, members of the alert, whether the alert passes
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
def test_alert_must_pass_both_parts_of_a_filter_unless_it_is_extreme(
    node: Node, join: Join, here: Point, filters: Json, fields: Json, passes: bool
):
    """The filter applies to sessions that join before and after the alert (rule 7)."""
    early = join(node, place(here), **filters)
    body = publish(node, here, **fields)
    node.settle()
    late = join(node, place(here), **filters)
    for session in (early, late):
        session.catch_up()
        assert session.heard(body["id"]) == ([1] if passes else [])


# -- rule 8: what an `ok` means for messages before and after it


def test_messages_counted_in_the_live_field_follow_at_once_in_documented_order(node: Node, join: Join, here: Point):
    """Cancels come first, then alerts by falling severity, `live` messages in all (protocol, section 5).

    `Session` checks number and order of every batch; this batch has cancels, a revision and new alerts.
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


def test_alerts_before_an_ok_match_the_old_places_and_later_ones_the_new_places(node: Node, join: Join, here: Point):
    """Messages before an `ok` follow the old places, messages after it the new places (rule 8)."""
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
    assert len(session.received) == len(bodies), "an alert was sent twice"


@contextlib.contextmanager
def publishing(node: Node, bodies: list[Json]) -> Iterator[None]:
    """Publish these alerts from another thread during the block."""
    with ThreadPoolExecutor(1) as thread:
        published = thread.submit(lambda: [node.publish(body) for body in bodies])
        yield
        published.result()


def test_session_that_joins_while_alerts_are_published_gets_each_once(node: Node, join: Join, here: Point):
    """Each alert reaches the session either through the fan-out or after its welcome, never both (rules 2 and 3)."""
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


# -- counts of deliveries and acknowledgements


def test_each_revision_is_counted_for_each_connection(node: Node, join: Join, here: Point):
    """Each pair of connection and revision counts once, and cancels do not count (protocol, section 4, "Counts")."""
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


def test_ack_counts_once_and_only_for_a_revision_sent_on_that_connection(node: Node, join: Join, here: Point):
    """The wrong acks come first, so that they would have been counted by the end (protocol, section 5, `ack`)."""
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


def test_revisions_that_a_client_already_has_are_not_counted_as_sent(node: Node, join: Join, here: Point):
    """A revision in `holding` does not count as sent and cannot be acknowledged (protocol, section 4, "Counts")."""
    body = publish(node, here)
    node.settle()
    holder = join(node, place(here), holding={body["id"]: 1})
    holder.ack(body["id"], 1)
    holder.ask("ping")
    other = join(node, place(here))
    other.listen(body["id"], 1)
    other.ack(body["id"], 1)
    node.wait_for_counts(body["id"], sent=1, acked=1)
