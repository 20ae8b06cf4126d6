"""Tests of the table of close codes and of the reconnection delays."""

import pytest

from client_demo.python.reconnect import (
    FIRST_WINDOW_S,
    MAX_WINDOW_S,
    After,
    Backoff,
    after_close,
    after_refusal,
    meaning,
)

LEAST, MOST = (lambda: 0.0), (lambda: 1.0)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((1000, 1001, 1006, 1011, 1012, 4408), After.WINDOW),
        ((1002, 1003, 1007, 1009, 4400, 4403), After.NEVER),
        ((1013, 4429), After.LATER),
        ((4401,), After.NEW_TOKEN),
        ((4420,), After.AT_ONCE),
        ((1005, 1015, 3000, 4000, 4999), After.WINDOW),
    ],
)
def test_close_code_decides_the_reaction(codes, expected):
    """An unknown code means to reconnect within the window."""
    assert {after_close(code) for code in codes} == {expected}
    assert all(meaning(code) for code in codes)


@pytest.mark.parametrize(
    ("status", "first_time", "welcomed_before"),
    [
        (400, After.NEVER, After.WINDOW),
        (403, After.NEVER, After.WINDOW),
        (404, After.NEVER, After.WINDOW),
        (426, After.NEVER, After.WINDOW),
        (429, After.LATER, After.LATER),
        (502, After.WINDOW, After.WINDOW),
        (503, After.LATER, After.LATER),
    ],
)
def test_refused_handshake_is_final_only_before_the_first_welcome(status, first_time, welcomed_before):
    """After a welcome, the URL is known to be right."""
    assert after_refusal(status, welcomed_before=False) is first_time
    assert after_refusal(status, welcomed_before=True) is welcomed_before


def test_default_window_is_1_to_30_s_and_doubles_up_to_120_s():
    """The default window applies until a welcome gives another."""
    backoff = Backoff(MOST)
    assert [backoff.delay_s(After.WINDOW) for _ in range(5)] == [30, 60, 120, 120, 120]
    assert Backoff(LEAST).delay_s(After.WINDOW) == FIRST_WINDOW_S[0]


def test_delay_is_random_over_the_whole_window():
    """The lower end stays the same (full jitter)."""
    draws = iter([0.0, 0.5, 1.0, 0.0])
    backoff = Backoff(lambda: next(draws))
    backoff.welcomed(2_000, 10_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(4)] == [2, 11, 40, 2]


def test_welcome_resets_the_window():
    """Only consecutive failures double the window's upper end."""
    backoff = Backoff(MOST)
    backoff.welcomed(0, 5_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(3)] == [5, 10, 20]
    backoff.welcomed(0, 5_000)
    assert backoff.delay_s(After.WINDOW) == 5


def test_window_wider_than_120_s_is_not_doubled():
    """The server has chosen such a wide window itself."""
    backoff = Backoff(MOST)
    backoff.welcomed(0, 300_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(2)] == [300, 300]


@pytest.mark.parametrize(("draw", "expected"), [(LEAST, [5, 10, 20, 40, 60, 60]), (MOST, [10, 20, 40, 80, 120, 120])])
def test_later_delay_is_beyond_the_window(draw, expected):
    """The delay lies between the window's upper end and twice that."""
    backoff = Backoff(draw)
    backoff.welcomed(100, 5_000)
    assert [backoff.delay_s(After.LATER) for _ in range(6)] == expected
    assert max(expected) <= MAX_WINDOW_S


def test_slow_client_reconnects_at_once_only_the_first_time():
    """The second time the delay is the same as for an overloaded server."""
    backoff = Backoff(LEAST)
    backoff.welcomed(100, 5_000)
    assert [backoff.delay_s(After.AT_ONCE), backoff.delay_s(After.AT_ONCE)] == [0, 5]
    backoff.delay_s(After.WINDOW)
    assert backoff.delay_s(After.AT_ONCE) == 0


def test_fresh_token_is_tried_at_once_and_then_within_the_window():
    """A welcome in between shows that the token was valid."""
    backoff = Backoff(MOST)
    assert [backoff.delay_s(After.NEW_TOKEN), backoff.delay_s(After.NEW_TOKEN)] == [0, 30]
    backoff.welcomed(0, 5_000)
    assert backoff.delay_s(After.NEW_TOKEN) == 0


def test_retry_after_is_a_lower_bound_of_the_delay():
    assert Backoff(LEAST).delay_s(After.LATER, retry_after_s=77) == 77
    assert Backoff(MOST).delay_s(After.WINDOW, retry_after_s=7) == 30
