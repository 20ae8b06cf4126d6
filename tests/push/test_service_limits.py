"""Limits on requests to a push service, and the time until a failed push is repeated (rule WPO2)."""

import pytest

from geocast.egress.outcomes import PostOutcome
from geocast.push import service_limits
from geocast.push.service_limits import AT_MOST, BAD, FIRST, GOOD, IDLE_S, OWNERS, UNKNOWN, ServiceLimit, Slots, wait_s

BUSY, FAILED, AWAY, MAYBE = PostOutcome.BUSY, PostOutcome.FAILED, PostOutcome.AWAY, PostOutcome.MAYBE
SENT, REFUSED, LONG_S = PostOutcome.SENT, PostOutcome.REFUSED, 3_600.0


def have(lane, outcome, owner, now_s=0.0, **more):
    """End a request of this owner with this outcome."""
    lane.start()
    lane.record(outcome, owner, now_s, **more)
    lane.end()


def fail(lane, now_s, outcome=AWAY):
    """End just enough requests with failures to halve the request limit of a host."""
    for owner in range(BAD):
        have(lane, outcome, owner, now_s)


def closed():
    """Return the lane (request limit) of a host that was suspended at 7 s."""
    lane = ServiceLimit("push.example", "push.example")
    for second in range(8):
        fail(lane, float(second))
    return lane


def a_lane(**more):
    """Return a new lane (request limit of a host)."""
    return ServiceLimit("push.example", "*.example", **more)


def test_wait_doubles_with_each_failure_up_to_five_minutes():
    """Waits are 2, 4, 8 … 300 s, each ± 50 %."""
    grown = [wait_s(FAILED, failures, None, LONG_S, 0.5) for failures in range(1, 11)]
    assert grown == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert wait_s(MAYBE, 3, None, LONG_S, 0.0) == 4.0
    assert wait_s(BUSY, 3, None, LONG_S, 1.0) == 12.0
    assert wait_s(FAILED, 10_000, None, LONG_S, 1.0) == 450.0


@pytest.mark.parametrize("outcome", [BUSY, FAILED])
@pytest.mark.parametrize(
    ("said", "left_s", "waits"),
    [
        (0.0, LONG_S, 1.0),
        (30.0, LONG_S, 30.0),
        (86_400.0, LONG_S, 600.0),
        (300.0, 65.0, 60.0),
        (300.0, 3.0, 1.0),
        (float("-inf"), 60.0, 1.0),
    ],
)
def test_wait_follows_retry_after_but_ends_before_the_alert_does(outcome, said, left_s, waits):
    """A `Retry-After` of 1 to 600 s is obeyed, and one more attempt is made before the alert ends (rule HD19)."""
    assert wait_s(outcome, 7, said, left_s, 0.5) == waits


def test_wait_after_refusal_is_an_hour():
    """A device is never forgotten for a refusal: this server's clock may be wrong."""
    assert wait_s(REFUSED, 1, 5.0, LONG_S, 0.0) == 3600.0


def test_wait_is_zero_after_success_or_413():
    """After 413 a smaller body is sent at once."""
    assert wait_s(SENT, 0, None, LONG_S, 0.5) == wait_s(PostOutcome.LARGE, 1, None, LONG_S, 0.5) == 0.0


def test_request_limit_of_a_host_starts_low_and_grows_with_each_quick_push():
    """A host that hangs or is slow gets few slots.

    After a time without pushes, the limit starts low again (rule HD2).
    """
    lane = a_lane()
    assert lane.free(0.0) == FIRST
    have(lane, SENT, "slow", took_s=service_limits.QUICK_S + 1)
    assert lane.free(0.0) == FIRST
    for owner in range(2 * AT_MOST):
        have(lane, SENT, owner)
    assert lane.free(IDLE_S) == AT_MOST
    assert lane.free(IDLE_S + 0.1) == FIRST
    lane.start()
    assert lane.free(IDLE_S + 0.1) == FIRST - 1
    lane.end()
    assert lane.free(IDLE_S + 0.1) == FIRST


def test_host_without_a_successful_push_gets_few_requests_until_its_first_success():
    """Failures of such a host don't suspend it (rule HD2)."""
    lane = a_lane(named=False)
    for owner in range(10 * BAD):
        have(lane, AWAY, owner, float(owner), served=False)
    assert (lane.known, lane.width, lane.free(0.0)) == (False, AT_MOST, UNKNOWN)
    have(lane, SENT, "first")
    assert (lane.known, lane.free(0.0)) == (True, FIRST + 1)


def test_one_owner_can_take_only_a_limited_number_of_slots():
    """Slots are the requests that may run at a time. No owner of devices can take all of them (rule HD2)."""
    slots = Slots(3, of_one=2)
    for _ in range(2):
        assert slots.allows("one")
        slots.start("one")
    assert not slots.allows("one")
    slots.start("other")
    assert slots.free() == 0
    slots.end("one")
    assert slots.allows("one")
    assert (slots.free(), slots.under_way) == (1, 2)


@pytest.mark.parametrize("outcome", [BUSY, AWAY, MAYBE])
def test_five_failures_in_a_row_halve_the_request_limit_at_most_once_a_second(outcome):
    """The test fails requests of different owners at 0, 0.9 and 1 s (rule WPO2)."""
    lane = a_lane()
    fail(lane, 0.0, outcome)
    assert lane.width == AT_MOST // 2
    fail(lane, 0.9, outcome)
    assert lane.width == AT_MOST // 2
    fail(lane, 1.0, outcome)
    assert lane.width == AT_MOST // 4


def test_request_limit_is_halved_only_if_most_of_the_last_owners_failed():
    """Only the latest outcome of each owner counts, however often an owner fails (rules WPO2, HD2)."""
    lane = a_lane()
    for owner in range(OWNERS // 2):
        have(lane, SENT, f"good-{owner}")
    for again in range(3):
        for owner in range(OWNERS // 2):
            have(lane, AWAY, f"bad-{owner}", float(again))
    assert lane.width == AT_MOST
    have(lane, AWAY, "one more")
    assert lane.width == AT_MOST // 2


def test_failures_of_fewer_than_five_owners_do_not_lower_the_request_limit():
    """One owner who provokes failures does not affect the others (rule WPO2)."""
    lane = a_lane()
    for number in range(10 * BAD):
        have(lane, AWAY, number % (BAD - 1), float(number))
    assert lane.width == AT_MOST


@pytest.mark.parametrize("outcome", [BUSY, AWAY, MAYBE])
def test_failure_of_a_device_whose_previous_push_failed_too_does_not_lower_the_limit(outcome):
    """Such a failure may concern only the endpoint, not the whole push service (rule HD2)."""
    lane = a_lane()
    for owner in range(50):
        have(lane, outcome, owner, float(owner), served=False)
    assert lane.width == AT_MOST


@pytest.mark.parametrize("outcome", [REFUSED, FAILED, PostOutcome.GONE, PostOutcome.LARGE])
def test_answers_about_a_single_endpoint_do_not_lower_the_request_limit(outcome):
    """The answers are refusals, 404, 410, 413, 500 and 507 (rules WPO2, HD2)."""
    lane = a_lane()
    for device in range(50):
        have(lane, outcome, device, float(device))
    assert lane.width == AT_MOST


def test_hundred_successes_raise_the_request_limit_by_one_up_to_its_maximum():
    """Single failures between the successes make no difference (rule WPO2)."""
    lane = a_lane()
    fail(lane, 0.0)
    for device in range(GOOD):
        assert lane.width == AT_MOST // 2
        have(lane, SENT, device)
    assert lane.width == AT_MOST // 2 + 1
    for device in range(GOOD * AT_MOST):
        have(lane, SENT, device)
    assert lane.width == AT_MOST


def test_suspended_host_is_tested_by_single_requests_at_growing_intervals():
    """The tests come after 1 s, then 2, 4 … 30 s (rule WPO2)."""
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
        lane.record(AWAY, "any", now_s)
        lane.end()
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("outcome", [SENT, PostOutcome.GONE, REFUSED, FAILED])
def test_suspended_host_that_answers_may_get_one_request_at_a_time_again(outcome):
    """An answer shows that the service is back (rule WPO2)."""
    lane = closed()
    have(lane, outcome, "any", 8.0)
    assert (lane.is_open, lane.width) == (True, 1)


def test_late_failures_do_not_delay_the_next_test_of_a_suspended_host():
    """Requests that were in progress when the host was suspended don't count as tests of the host (rule WPO2)."""
    lane = a_lane()
    for _ in range(50):
        lane.start()
    for second in range(8):
        fail(lane, float(second))
    for device in range(50):
        lane.record(MAYBE, device, 7.5)
        lane.end()
    assert not lane.has_room(7.9)
    assert lane.has_room(8.0)


def test_suspended_host_is_tested_first_with_devices_whose_last_push_succeeded():
    """After a while any device may test the host, so that new phones get pushes, too (rule HD2)."""
    lane = closed()
    assert (lane.has_room(8.0, served=True), lane.has_room(8.0, served=False)) == (True, False)
    assert lane.has_room(8.0 + service_limits.GRACE_S, served=False)
