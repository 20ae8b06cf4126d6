"""The share of a process's time that requests of strangers may take (FA7)."""

import asyncio
from collections import Counter

import pytest

from geocast.feed import share
from geocast.feed.share import SPARE_S, STEP_S, Share
from geocast.model import problems
from geocast.model.problems import Problem


class Time:
    """A clock that stands still, except while somebody works or sleeps."""

    def __init__(self):
        self.now = 1_000.0
        self.spent = Counter()
        self.longest = 0.0

    async def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds
        self.spent["rest"] += seconds
        self.longest = max(self.longest, self.spent["step"])
        self.spent["step"] = 0
        await asyncio.sleep(0)

    def work(self, seconds):
        """Take time."""
        self.now += seconds
        self.spent["work"] += seconds
        self.spent["step"] += seconds


async def test_flood_of_requests_takes_a_quarter_of_the_time_in_short_steps():
    """100 requests at once, each of which works for 20 ms."""
    time = Time()
    at = Share(lambda: time.now, time.sleep, lambda: time.spent["work"])

    async def request():
        async with at.turn():
            for _ in range(20):
                time.work(0.001)
                await at.step()

    await asyncio.gather(*(request() for _ in range(100)))
    await at._rest()
    assert time.spent["work"] == pytest.approx(2.0)
    assert time.spent["rest"] >= 3 * time.spent["work"] - SPARE_S - 1e-6
    assert time.longest <= STEP_S + 0.001 + 1e-6


@pytest.mark.parametrize(("quiet_s", "rests_s"), [(2.0, 0.0), (0.4, 1.1), (0.0, 1.5)])
async def test_request_needs_no_rests_as_far_as_the_time_before_was_quiet(quiet_s, rests_s):
    """Half a second of work after half a second of work, with a quiet time between them."""
    time = Time()
    at = Share(lambda: time.now, time.sleep, lambda: time.spent["work"])

    async def request():
        before = time.spent["rest"]
        async with at.turn():
            for _ in range(500):
                time.work(0.001)
                await at.step()
        return time.spent["rest"] - before

    assert await request() == pytest.approx(0.0)
    time.now += quiet_s
    assert await request() == pytest.approx(rests_s, abs=0.02)


async def test_request_that_would_wait_too_long_is_answered_503(monkeypatch):
    """With Retry-After; the request whose turn it is goes on."""
    at = Share()
    async with at.turn():
        monkeypatch.setattr(share, "MOST_S", 0)
        with pytest.raises(Problem) as refused:
            async with at.turn():
                pytest.fail("two have their turn at the same time")
    assert refused.value.type is problems.BUSY
    assert "Retry-After" in refused.value.headers


async def test_request_that_takes_too_long_is_answered_503_and_the_next_has_its_turn(monkeypatch):
    """A box with many polygons may need more time than one request may have."""
    at = Share()

    async def request():
        async with at.turn():
            await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(share, "LONGEST_S", 0.01)
        with pytest.raises(Problem) as refused:
            await request()
    assert refused.value.type is problems.BUSY
    async with at.turn():
        pass
