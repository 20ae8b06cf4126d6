"""Hostile feeds: their rows are cut when they are read, and taken apart without holding up the page."""

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
    """A record of the sample's kind, as JSON has it."""
    usual = {"incident": "1", "reported_at": "2025-03-14T12:00:00Z", "nature": "Structure fire", "lat": 1, "lng": 2}
    return {**usual, **fields}


def read(*rows):
    return read_records("feed.json", json.dumps(rows))


def test_a_row_is_cut_to_so_many_columns_and_a_value_to_so_many_characters():
    """Rule 5 of feeds: no other module sees more."""
    found = read(row(nature="x" * 10_000, **{f"column {n}": "y" for n in range(1000)}, **{"z" * 5000: "w"}))
    [kept] = found.groups[0].rows
    assert len(kept) == MOST_COLUMNS
    assert max(len(str(part)) for part in (*kept, *kept.values())) == MOST_CHARACTERS
    assert len(found.groups[0].incident.nature) == MOST_CHARACTERS


def test_csv_with_more_values_than_columns_is_read_without_them():
    """They have no name, so nobody could say what they give away."""
    found = read_records("feed.csv", f"{HEAD}\n1,2025-03-14T12:00:00Z,Fire,1 Elm St,E1,1,2,secret,more\n")
    assert "secret" not in str(found.groups[0].rows)


@pytest.mark.parametrize("column", ["nature", "incident", "reported_at", "lat", "address"])
@pytest.mark.parametrize("depth", [10, 300, 500, 800, 950, 5000])
def test_values_within_values_are_text_or_refused(column, depth):
    """Never a traceback: the poll has to go on."""
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
def test_a_value_without_end_takes_no_time(column, text):
    """A million characters in any column."""
    records = read(row(**{column: text}))
    with cpu_limit(2.0):
        as_recorded(records)


def test_montgomerys_titles_are_read_in_time_by_their_length():
    """Its services and dashes were once found by a pattern that took the square of it."""
    usual = {"lat": 1, "lng": 2, "timeStamp": "2020-01-01 00:00:00", "twp": "x"}
    with cpu_limit(2.0):
        found = read({**usual, "title": "EMS: a" + " " * 900 + "b -"}, {**usual, "title": "Fire: SMOKE -"})
    assert [group.incident.nature[:1] for group in found.groups] == ["a", "S"]
    assert found.groups[1].incident.nature == "SMOKE"


def test_of_a_long_feed_the_newest_are_taken():
    """As many as a desk can use."""
    rows = [
        row(incident=str(n), reported_at=f"2025-03-14T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z")
        for n in range(2100)
    ]
    seen = as_recorded(read(*rows))
    assert len(seen) == MOST_INCIDENTS
    assert seen[-1].key.endswith(" 2099")


def test_a_feed_is_taken_apart_beside_the_loop(monkeypatch):
    """So that the page is answered meanwhile, however long it takes."""
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
