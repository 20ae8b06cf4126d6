"""Tests of hostile feeds: rows are truncated when read, and parsed outside the event loop."""

import asyncio
import contextlib
import json
import threading

import httpx
import pytest
from support.cpu import cpu_limit

from client_demo.desk import source
from client_demo.desk.feed_format import FeedError
from client_demo.desk.feeds import MOST_CHARACTERS, MOST_COLUMNS, read_records
from client_demo.desk.source import MOST_INCIDENTS, Poll, as_recorded

HEAD = "incident,reported_at,nature,address,unit,lat,lng"


def row(**fields):
    """Return a record of the sample's format, as parsed JSON."""
    usual = {"incident": "1", "reported_at": "2025-03-14T12:00:00Z", "nature": "Structure fire", "lat": 1, "lng": 2}
    return {**usual, **fields}


def read(*rows):
    return read_records("feed.json", json.dumps(rows))


def test_row_and_values_are_truncated():
    """Columns and characters are limited, so no other module sees more (rule 5 of feeds)."""
    found = read(row(nature="x" * 10_000, **{f"column {n}": "y" for n in range(1000)}, **{"z" * 5000: "w"}))
    [kept] = found.groups[0].rows
    assert len(kept) == MOST_COLUMNS
    assert max(len(str(part)) for part in (*kept, *kept.values())) == MOST_CHARACTERS
    assert len(found.groups[0].incident.nature) == MOST_CHARACTERS


def test_csv_values_without_a_column_are_dropped():
    """Without a column's name, nobody can know what its values reveal."""
    found = read_records("feed.csv", f"{HEAD}\n1,2025-03-14T12:00:00Z,Fire,1 Elm St,E1,1,2,secret,more\n")
    assert "secret" not in str(found.groups[0].rows)


@pytest.mark.parametrize("column", ["nature", "incident", "reported_at", "lat", "address"])
@pytest.mark.parametrize("depth", [10, 300, 500, 800, 950, 5000])
def test_nested_values_are_text_or_refused(column, depth):
    """No depth raises another error, which would stop the poll."""
    text = json.dumps([row()]).replace('"incident"', '"spare": 0, "incident"')
    nested = text.replace("[{", "[{" + f'"{column} ": ' + "[" * depth + "]" * depth + ",", 1)
    nested = nested.replace(f'"{column} "', f'"{column}"').replace(f', "{column}":', ', "old":')
    with contextlib.suppress(FeedError):
        as_recorded(read_records("feed.json", nested))


@pytest.mark.parametrize("column", ["nature", "incident", "address", "unit", "lat", "reported_at", "remark"])
@pytest.mark.parametrize(
    "text",
    ["case" + " " * 1_000_000 + "x", "a" + " " * 1_000_000 + "b", "1 a" * 300_000, "a." * 500_000, "9" * 1_000_000],
    ids=["case", "blanks", "words", "dots", "digits"],
)
def test_huge_value_takes_little_time(column, text):
    """Each value has a million characters."""
    records = read(row(**{column: text}))
    with cpu_limit(2.0):
        as_recorded(records)


def test_long_montgomery_title_takes_little_time():
    """A former pattern for services and dashes took quadratic time."""
    usual = {"lat": 1, "lng": 2, "timeStamp": "2020-01-01 00:00:00", "twp": "x"}
    with cpu_limit(2.0):
        found = read({**usual, "title": "EMS: a" + " " * 900 + "b -"}, {**usual, "title": "Fire: SMOKE -"})
    assert [group.incident.nature[:1] for group in found.groups] == ["a", "S"]
    assert found.groups[1].incident.nature == "SMOKE"


def test_newest_incidents_of_a_long_feed_are_kept():
    rows = [
        row(incident=str(n), reported_at=f"2025-03-14T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z")
        for n in range(2100)
    ]
    seen = as_recorded(read(*rows))
    assert len(seen) == MOST_INCIDENTS
    assert seen[-1].key.endswith(" 2099")


def test_feed_is_parsed_outside_the_event_loop(monkeypatch):
    """The page is served meanwhile, however long parsing takes."""
    threads = []

    def noted(function):
        def call(*arguments):
            threads.append(threading.get_ident())
            return function(*arguments)

        return call

    monkeypatch.setattr(source, "read_records", noted(read_records))
    monkeypatch.setattr(source, "as_recorded", noted(as_recorded))
    text = json.dumps([row()])

    async def play():
        poll = Poll("https://data.example/feed.json", 60, httpx.MockTransport(lambda _: httpx.Response(200, text=text)))
        taken = asyncio.get_running_loop().create_future()
        running = asyncio.ensure_future(source._run_poll(poll, taken.set_result, lambda *_: None))
        seen = await asyncio.wait_for(taken, 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return list(seen)

    assert len(asyncio.run(play())) == 1
    assert len(threads) == 2
    assert threading.get_ident() not in threads
