"""When feeds are read again, and messages tried again (rules FE3, FE4)."""

import pytest

from geocast.ingest.fetch import timing


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({}, 60),
        ({"cache-control": "max-age=120"}, 120),
        ({"cache-control": "public, Max-Age=120, must-revalidate", "age": "20"}, 100),
        ({"cache-control": "max-age=5"}, 60),
        ({"cache-control": "max-age=86400"}, 600),
        ({"cache-control": "s-maxage=300"}, 60),
        ({"cache-control": "no-store"}, 60),
    ],
)
def test_feed_is_read_again_after_its_interval_or_its_max_age(headers, pause_s):
    """`max-age` is obeyed up to 10 minutes (rule FE3)."""
    assert timing.after_success(60, headers, 0) == pause_s


def test_jitter_only_shortens_a_pause():
    """A message is at the node within the interval (rule FE3)."""
    assert timing.after_success(60, {}, 1) == 54
    assert 54 <= timing.after_success(60, {}, timing.chance()) <= 60


def test_failures_in_a_row_double_the_pause_up_to_a_quarter_of_an_hour():
    """A feed with a longer interval keeps it (rule FE3)."""
    assert [timing.after_failure(60, n, None, 0) for n in (1, 2, 3, 4, 5, 6, 10_000)] == [
        60,
        120,
        240,
        480,
        900,
        900,
        900,
    ]
    assert timing.after_failure(3_600, 4, None, 0) == 3_600


def test_retry_after_is_obeyed_up_to_ten_minutes():
    """It lengthens a pause, and never shortens it (rule FE3)."""
    assert [timing.after_failure(60, 1, asked, 0) for asked in (-5, 30, 300, 9_999)] == [60, 60, 300, 600]


def test_pause_before_the_node_is_tried_again_doubles_up_to_half_a_minute():
    """`Retry-After` of the node is obeyed too (rule FE4)."""
    assert [timing.node_pause(n, None) for n in (1, 2, 3, 6, 10_000)] == [1, 2, 4, 30, 30]
    assert timing.node_pause(1, 12) == 12
