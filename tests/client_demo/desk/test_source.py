"""Tests of feed sources: replays keep their pace, and polls are conditional and bounded."""

import asyncio
import re

import httpx
import pytest
from support.real_data import dispatch

from client_demo.desk import source
from client_demo.desk.feed_format import FeedError
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.desk.source import MOST_BYTES, Poll, Replay, as_recorded, open_feed

NOW = 1_800_000_000_000
TEXT = feed_text(SAMPLE)
URL = "https://data.example/feed.csv?key=secret"


def replay(text=TEXT, speed=1.0, ahead=12):
    return Replay(read_records("feed.csv", text), NOW, speed=speed, ahead=ahead)


# ---- replay ----------------------------------------------------------------------------------------------------


def test_replay_starts_with_incidents_up_to_now():
    """The times of the file are moved by one offset."""
    due = list(replay(ahead=12).due(NOW))
    assert len(due) == 12
    assert due[-1].incident.occurred_at == NOW
    first, last = due[0], due[-1]
    assert last.incident.occurred_at - first.incident.occurred_at == last.recorded_at - first.recorded_at
    assert all(seen.is_retimed for seen in due)


@pytest.mark.parametrize("speed", [0.5, 1, 60])
def test_replay_continues_at_the_pace_of_the_file(speed):
    """The pace is multiplied by the speed."""
    playing = replay(speed=speed)
    list(playing.due(NOW))
    at = playing.next_at()
    assert list(playing.due(at - 1)) == []
    (seen,) = playing.due(at)
    assert seen.incident.occurred_at == at
    records = read_records("feed.csv", TEXT).groups
    assert at - NOW == int((records[12].incident.occurred_at - records[11].incident.occurred_at) / speed)


def test_replay_ends_and_its_title_says_that_it_is_one():
    """Every incident comes once."""
    playing = replay(speed=60)
    assert len(list(playing.due(NOW + 10**9))) == len(read_records("feed.csv", TEXT).groups)
    assert playing.next_at() is None
    assert playing.title == (
        "Replay of the sample of invented incidents, recorded 2025-03-14, 60 times as fast; the times are moved to now"
    )


def test_feed_without_a_readable_time_cannot_be_replayed(tmp_path):
    """Its incidents can be shown as they were recorded."""
    path = tmp_path / "feed.csv"
    path.write_text(re.sub(r"2025-03-14T[0-9:]+Z", "at night", TEXT))
    options = {"speed": 1, "ahead": 5, "every_s": 60, "clock": lambda: NOW}
    with pytest.raises(FeedError, match="no record has a time that can be read; give --as-recorded"):
        open_feed(str(path), is_as_recorded=False, **options)
    assert open_feed(str(path), is_as_recorded=True, **options)


def test_feed_as_recorded_keeps_its_times():
    seen = as_recorded(read_records("feed.csv", TEXT))[0]
    assert seen.incident.occurred_at == seen.recorded_at
    assert not seen.is_retimed


@pytest.mark.parametrize("name", ["sf_fire_calls.csv", "montgomery_pa_911.csv", "dallas_active_calls.csv"])
def test_real_records_can_be_replayed(name):
    """Dallas has no coordinates, but a person can place the circle."""
    records = read_records(name, feed_text(dispatch(name)))
    playing = Replay(records, NOW, speed=1, ahead=5)
    due = list(playing.due(NOW))
    assert 5 <= len(due) < len(records.groups)
    assert len(due) + len(list(playing.due(NOW + 10**13))) == len(records.groups)


# ---- poll ------------------------------------------------------------------------------------------------------


class FakePortal:
    """A fake open-data server without a network: it gives its answers in turn and repeats the last one."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def _answer(self, request):
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def fetch(self, times=1, every_s=60.0):
        """Fetch `times` times.

        Return for each fetch the number of incidents, None or the error, and the wait in seconds.
        """

        async def run():
            poll = Poll(URL, every_s, httpx.MockTransport(self._answer))
            found = []
            for _ in range(times):
                try:
                    records = await poll.fetch()
                    found.append((len(records.groups) if records else None, poll.wait_s))
                except FeedError as error:
                    found.append((str(error), poll.wait_s))
            await poll.close()
            return found

        return asyncio.run(run())


def test_poll_is_conditional():
    """The request carries the validators of the last response."""
    first = httpx.Response(200, text=TEXT, headers={"ETag": '"1"', "Last-Modified": "Fri, 14 Mar 2025 18:00:00 GMT"})
    portal = FakePortal(first, httpx.Response(304), httpx.Response(200, text=TEXT))
    assert [count for count, _ in portal.fetch(4)] == [43, None, 43, 43]
    asked = [request.headers.get("If-None-Match") for request in portal.requests]
    assert asked == [None, '"1"', '"1"', None]
    assert portal.requests[1].headers["If-Modified-Since"] == "Fri, 14 Mar 2025 18:00:00 GMT"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(500), "data.example can't be read: it answers 500"),
        (httpx.Response(302, headers={"Location": "http://127.0.0.1:22/"}), "it answers 302 Found"),
        (httpx.ConnectError("no route to secret"), "data.example can't be read: ConnectError"),
        (httpx.Response(200, text="<html>"), "data.example"),
        (httpx.Response(200, content=b"\xff\xfe"), "not UTF-8"),
        (httpx.Response(200, content=b"x" * (MOST_BYTES + 1)), "more than 16 MiB"),
    ],
)
def test_failed_poll_is_one_line_without_the_address(answer, words):
    """The address may hold a key. Redirects are not followed, since they could lead into the desk's own network."""
    portal = FakePortal(answer)
    ((told, _),) = portal.fetch()
    assert words in told
    assert "secret" not in told
    assert "\n" not in told
    assert len(portal.requests) == 1


def test_poll_backs_off_on_failure_and_retry_after():
    """The interval returns to normal after a success."""
    good = httpx.Response(200, text=TEXT)
    portal = FakePortal(
        *(httpx.Response(503) for _ in range(3)), httpx.Response(429, headers={"Retry-After": "600"}), good
    )
    assert [wait for _, wait in portal.fetch(5)] == [60, 120, 240, 600, 60]


def test_poll_interval_is_at_least_five_seconds():
    assert FakePortal(httpx.Response(200, text=TEXT)).fetch(every_s=0.1)[0][1] == 5


def test_endless_response_times_out(monkeypatch):
    """The timeout covers the whole response, not each read."""
    monkeypatch.setattr(source, "FETCH_S", 0.05)

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

    ((told, _),) = FakePortal(httpx.Response(200, stream=Endless())).fetch()
    assert told == "data.example can't be read: TimeoutError"


@pytest.mark.parametrize(
    ("where", "words"),
    [("ftp://data.example/x", "has to begin with"), ("https://", "has to begin with"), ("absent.csv", "can't be read")],
)
def test_unusable_source_is_refused_at_start(where, words):
    """The error comes before a page is served."""
    with pytest.raises(FeedError, match=words):
        open_feed(where, speed=1, ahead=1, is_as_recorded=False, every_s=60, clock=lambda: NOW)
