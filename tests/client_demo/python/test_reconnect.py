"""The table of close codes, and how long a client waits."""

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
def test_the_code_decides(codes, expected):
    """A code that is not listed means: within the window."""
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
def test_a_refused_handshake_is_final_only_before_the_first_welcome(status, first_time, welcomed_before):
    """Afterwards the URL is known to be right."""
    assert after_refusal(status, welcomed_before=False) is first_time
    assert after_refusal(status, welcomed_before=True) is welcomed_before


def test_the_first_window_is_1_to_30_s_and_its_upper_end_doubles_up_to_120_s():
    """Before a welcome has given a window."""
    backoff = Backoff(MOST)
    assert [backoff.delay_s(After.WINDOW) for _ in range(5)] == [30, 60, 120, 120, 120]
    assert Backoff(LEAST).delay_s(After.WINDOW) == FIRST_WINDOW_S[0]


def test_the_delay_is_random_over_the_whole_window():
    """Full jitter: the lower end stays where it is."""
    draws = iter([0.0, 0.5, 1.0, 0.0])
    backoff = Backoff(lambda: next(draws))
    backoff.welcomed(2_000, 10_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(4)] == [2, 11, 40, 2]


def test_a_welcome_sets_the_window_back():
    """The doubling counts failed attempts in a row."""
    backoff = Backoff(MOST)
    backoff.welcomed(0, 5_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(3)] == [5, 10, 20]
    backoff.welcomed(0, 5_000)
    assert backoff.delay_s(After.WINDOW) == 5


def test_a_window_wider_than_120_s_is_left_as_it_is():
    """The server knows why it wants so much time."""
    backoff = Backoff(MOST)
    backoff.welcomed(0, 300_000)
    assert [backoff.delay_s(After.WINDOW) for _ in range(2)] == [300, 300]


@pytest.mark.parametrize(("draw", "expected"), [(LEAST, [5, 10, 20, 40, 60, 60]), (MOST, [10, 20, 40, 80, 120, 120])])
def test_later_is_after_all_who_come_back_within_the_window(draw, expected):
    """Between the window's upper end and twice that."""
    backoff = Backoff(draw)
    backoff.welcomed(100, 5_000)
    assert [backoff.delay_s(After.LATER) for _ in range(6)] == expected
    assert max(expected) <= MAX_WINDOW_S


def test_a_slow_client_comes_back_at_once_the_first_time_only():
    """Then as an overloaded server wants it."""
    backoff = Backoff(LEAST)
    backoff.welcomed(100, 5_000)
    assert [backoff.delay_s(After.AT_ONCE), backoff.delay_s(After.AT_ONCE)] == [0, 5]
    backoff.delay_s(After.WINDOW)
    assert backoff.delay_s(After.AT_ONCE) == 0


def test_a_fresh_token_is_tried_at_once_and_then_within_the_window():
    """A token that was welcomed in between counts as good."""
    backoff = Backoff(MOST)
    assert [backoff.delay_s(After.NEW_TOKEN), backoff.delay_s(After.NEW_TOKEN)] == [0, 30]
    backoff.welcomed(0, 5_000)
    assert backoff.delay_s(After.NEW_TOKEN) == 0


def test_retry_after_is_a_lower_bound():
    """Of whatever was drawn."""
    assert Backoff(LEAST).delay_s(After.LATER, retry_after_s=77) == 77
    assert Backoff(MOST).delay_s(After.WINDOW, retry_after_s=7) == 30
