"""Tests of both clocks."""

import datetime as dt
import time

import pytest

from geocast.clock import Now, SystemClock
from geocast.push.settings import PushSettings
from geocast.run.backends import open_devices


def test_deadline_is_a_time_of_the_monotonic_clock():
    """A change of the wall clock does not move the deadline (protocol, section 3)."""
    assert Now(1_000, 50.0).deadline(3_500) == 52.5
    assert Now(1_000, 50.0).deadline(0) == 49.0


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="the system has no such clock")
def test_lease_clock_goes_on_while_the_machine_sleeps(monkeypatch):
    """Another process may have taken the shard meanwhile (rule WPN1)."""
    slept_s = {time.CLOCK_BOOTTIME: 30.0}
    whole = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: whole(clock) + slept_s.get(clock, 0.0))
    before = whole(time.CLOCK_BOOTTIME)
    names = "listen", "log", "push_keys", "vapid", "contact", "keys"
    _, shards = open_devices(PushSettings(**dict.fromkeys(names, ""), devices="redis://127.0.0.1:1/0"))
    assert shards._clock.now().monotonic >= before + 30.0


def test_system_clock_reads_the_wall_clock_and_the_monotonic_clock():
    """`now` in a welcome is the server's clock, in UTC (protocol, section 5)."""
    before = dt.datetime.now(dt.UTC)
    first, second = SystemClock().now(), SystemClock().now()
    assert first.wall_ms >= int(before.timestamp() * 1000)
    assert second.monotonic >= first.monotonic
