"""How many requests a service is sent at once, and for how long a device waits (WPO2)."""

import pytest

from geocast.push import lanes
from geocast.push.lanes import AT_MOST, BAD, GOOD, Lane, Outcome, outcome_of, wait_s

BUSY, FAILED, MAYBE, SENT, REFUSED = Outcome.BUSY, Outcome.FAILED, Outcome.MAYBE, Outcome.SENT, Outcome.REFUSED


def have(lane, outcome, device, now_s=0.0):
    """A request with that outcome."""
    lane.start()
    lane.end(outcome, device, now_s)


def fail(lane, now_s, outcome=FAILED):
    """As many bad answers as it takes, of as many devices."""
    for device in range(BAD):
        have(lane, outcome, device, now_s)


def closed():
    """A lane that was closed at 7 s."""
    lane = Lane("push.example")
    for second in range(8):
        fail(lane, float(second))
    return lane


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, SENT) for status in (200, 201, 202, 204)),
        *((status, Outcome.GONE) for status in (404, 410)),
        (413, Outcome.LARGE),
        *((status, REFUSED) for status in (301, 302, 307, 308, 400, 401, 403, 405, 418)),
        (429, BUSY),
        *((status, FAILED) for status in (500, 502, 503, 504)),
    ],
)
def test_what_an_answer_means(status, outcome):
    """The table of section 4."""
    assert outcome_of(status) is outcome


def test_a_device_waits_longer_each_time_up_to_five_minutes():
    """2, 4, 8 … 300 s, each ± 50 %."""
    grown = [wait_s(FAILED, failures, None, 0.5) for failures in range(1, 11)]
    assert grown == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert wait_s(MAYBE, 3, None, 0.0) == 4.0
    assert wait_s(BUSY, 3, None, 1.0) == 12.0
    assert wait_s(FAILED, 10_000, None, 1.0) == 450.0


@pytest.mark.parametrize(("said", "waits"), [(0.0, 1.0), (30.0, 30.0), (86_400.0, 600.0)])
def test_a_device_waits_as_long_as_a_busy_service_says(said, waits):
    """429: Retry-After, 1 to 600 s."""
    assert wait_s(BUSY, 7, said, 0.5) == waits


def test_what_is_refused_waits_an_hour():
    """Never forgotten for it: our clock may be wrong."""
    assert wait_s(REFUSED, 1, 5.0, 0.0) == 3600.0


def test_what_was_sent_or_too_large_waits_for_nothing():
    """413: at once again, smaller."""
    assert wait_s(SENT, 0, None, 0.5) == wait_s(Outcome.LARGE, 1, None, 0.5) == 0.0


def test_a_lane_has_room_for_so_many():
    """WPO2: 200 requests of a service."""
    lane = Lane("push.example")
    for _ in range(AT_MOST):
        assert lane.has_room(0.0)
        lane.start()
    assert not lane.has_room(0.0)
    lane.withdraw()
    assert lane.has_room(0.0)


@pytest.mark.parametrize("outcome", [BUSY, FAILED, MAYBE])
def test_five_bad_answers_in_a_row_halve_a_lane_once_a_second(outcome):
    """WPO2."""
    lane = Lane("push.example")
    fail(lane, 0.0, outcome)
    assert lane.width == AT_MOST // 2
    fail(lane, 0.9, outcome)
    assert lane.width == AT_MOST // 2
    fail(lane, 1.0, outcome)
    assert lane.width == AT_MOST // 4


def test_five_bad_answers_among_a_hundred_halve_it_too():
    """WPO2: and those that are longer ago count no more."""
    lane = Lane("push.example")
    for device in range(BAD - 1):
        have(lane, FAILED, device)
        have(lane, SENT, device)
    assert lane.width == AT_MOST
    for device in range(lanes.WINDOW):
        have(lane, SENT, device)
    have(lane, FAILED, "late")
    assert lane.width == AT_MOST
    for device in range(BAD - 1):
        have(lane, SENT, device)
        have(lane, FAILED, device)
    assert lane.width == AT_MOST // 2


def test_one_device_that_provokes_bad_answers_does_nothing():
    """WPO2: nor do a few."""
    lane = Lane("push.example")
    for number in range(10 * BAD):
        have(lane, FAILED, number % (BAD - 1), float(number))
    assert lane.width == AT_MOST


@pytest.mark.parametrize("outcome", [REFUSED, Outcome.GONE, Outcome.LARGE])
def test_a_refusal_is_no_failure_of_the_service(outcome):
    """WPO2: the last three rows of the table only."""
    lane = Lane("push.example")
    for device in range(50):
        have(lane, outcome, device, float(device))
    assert lane.width == AT_MOST


def test_a_hundred_successes_widen_a_lane_by_one_up_to_its_width():
    """WPO2: in a row, or between failures too few to count."""
    lane = Lane("push.example")
    fail(lane, 0.0)
    for device in range(GOOD):
        assert lane.width == AT_MOST // 2
        have(lane, SENT, device)
    assert lane.width == AT_MOST // 2 + 1
    for device in range(GOOD * AT_MOST):
        have(lane, SENT, device)
    assert lane.width == AT_MOST


def test_a_closed_lane_is_tried_by_one_request_at_a_time_and_ever_more_rarely():
    """WPO2: after 1 s, then 2, 4 … 30 s."""
    lane = closed()
    assert not lane.is_open
    now_s, waits = 7.0, []
    for _ in range(8):
        began = now_s
        while not lane.has_room(now_s):
            now_s += 0.5
        waits.append(now_s - began)
        lane.start()
        assert not lane.has_room(now_s)
        lane.end(FAILED, "any", now_s)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("outcome", [SENT, Outcome.GONE, REFUSED])
def test_whatever_answers_opens_a_closed_lane_by_one(outcome):
    """WPO2: the service is back."""
    lane = closed()
    have(lane, outcome, "any", 8.0)
    assert (lane.is_open, lane.width) == (True, 1)


def test_what_was_under_way_when_a_lane_closed_does_not_put_the_next_look_off():
    """WPO2: a hundred late failures are not a hundred looks."""
    lane = Lane("push.example")
    for _ in range(50):
        lane.start()
    for second in range(8):
        fail(lane, float(second))
    for device in range(50):
        lane.end(MAYBE, device, 7.5)
    assert not lane.has_room(7.9)
    assert lane.has_room(8.0)
