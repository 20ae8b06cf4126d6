"""Tests of the events that the live map's process sends to its pages; the pages have tests in tests/pages."""

import asyncio
import json

import httpx
import pytest

from client_demo.demo.live_map import BEHIND, FILES, LiveMap, View, by_revision, fan_out
from client_demo.python.publisher import Unanswered
from client_demo.web.server import application, files

ALERT = {"id": "a", "revision": 1}


class Api:
    """A read-only stand-in for `Publisher`: `answer` lists the live alerts, or is None while the API is down."""

    def __init__(self, *answer):
        self.answer = list(answer)

    async def live(self):
        if self.answer is None:
            raise Unanswered("no answer")
        return list(self.answer)


def events(*lines):
    """Return server-sent events as pairs of name and data."""
    fields = [dict(field.split(": ", 1) for field in line.strip().split("\n")) for line in lines]
    return [(each["event"], json.loads(each["data"])) for each in fields]


async def take(page, count):
    """Return the next `count` events of a page."""
    async with asyncio.timeout(60):
        return events(*[await anext(page) for _ in range(count)])


async def test_late_page_gets_current_state_and_no_old_fan_outs():
    """An event replaces the last one of the same name, so the last event of each name is enough."""
    shown = LiveMap(Api(ALERT), View("ws://127.0.0.1:1/v1/stream"))
    await shown.refresh()
    shown.people({"cell": 1})
    shown.people({"cell": 2})
    shown.told({"id": "a"})
    page = shown._lines()
    assert await take(page, 2) == [
        ("published", {"alerts": [ALERT], "current": True}),
        ("people", {"cells": {"cell": 2}}),
    ]
    waiting = asyncio.ensure_future(take(page, 1))
    await asyncio.sleep(0)
    shown.told({"id": "b"})
    assert await waiting == [("told", {"id": "b"})]
    await page.aclose()


async def test_live_alerts_are_kept_and_marked_old_while_the_api_is_down():
    """The page is sent one event when the API fails and one when it answers again."""
    api = Api(ALERT)
    shown = LiveMap(api, View("ws://127.0.0.1:1/v1/stream"))
    page = shown._lines()
    assert await take(page, 1) == [("published", {"alerts": [], "current": False})]
    for answer in ([ALERT], [ALERT], None, None, []):
        api.answer = answer
        await shown.refresh()
    told = [data for _, data in await take(page, 3)]
    assert told == [
        {"alerts": [ALERT], "current": True},
        {"alerts": [ALERT], "current": False},
        {"alerts": [], "current": True},
    ]
    await page.aclose()


async def test_page_that_does_not_read_is_disconnected():
    """The queue of each page is bounded."""
    shown = LiveMap(Api(), View("ws://127.0.0.1:1/v1/stream"))
    page = shown._lines()
    await take(page, 1)
    for number in range(2 * BEHIND):
        shown.told({"number": number})
    rest = [line async for line in page]
    assert len(rest) == BEHIND
    assert not shown._pages


async def test_closing_the_map_ends_its_pages():
    """The responses end properly, so no browser reports a broken one."""
    shown = LiveMap(Api(), View("ws://127.0.0.1:1/v1/stream"))
    page = shown._lines()
    await take(page, 1)
    shown.close()
    assert [line async for line in page] == []


def test_fan_out_seen_by_two_processes_is_merged():
    """For each revision and cell the result is the sum, the earliest and the latest time."""
    rows = [["a", 1, "x", 2, 100, 300], ["b", 1, "x", 1, 10, 10], ["a", 1, "x", 1, 90, 90], ["a", 1, "y", 4, 150, 400]]
    assert by_revision(rows) == {
        ("a", 1): {"x": (3, 90, 300), "y": (4, 150, 400)},
        ("b", 1): {"x": (1, 10, 10)},
    }


def test_fan_out_is_timed_from_the_publishers_request():
    """Times are in ms; without the time of the request there are none."""
    cells = {"x": (3, 4_000_000, 5_000_000), "y": (1, 6_500_000, 6_500_000)}
    assert fan_out(cells, 1_000_000) == {"cells": {"x": [3, 3.0], "y": [1, 5.5]}, "told": 4, "last_ms": 5.5}
    assert fan_out(cells, None) == {"cells": {"x": [3, 0], "y": [1, 0]}, "told": 4}


@pytest.mark.parametrize(
    ("style", "connect", "images"),
    [
        (None, "connect-src 'self' ws://127.0.0.1:8765;", "img-src 'self' data: blob:;"),
        (
            "https://tiles.example/styles/city.json?key=k",
            "connect-src 'self' ws://127.0.0.1:8765 https://tiles.example;",
            "img-src 'self' data: blob: https://tiles.example;",
        ),
    ],
)
def test_page_may_connect_only_to_the_node_and_the_style_origin(style, connect, images):
    """The Content-Security-Policy allows nothing else."""
    policy = View("ws://127.0.0.1:8765/v1/stream", style_url=style).policy()
    assert connect in policy
    assert images in policy
    assert "unsafe" not in policy


def test_page_config_omits_absent_values():
    """An absent value has no key, instead of a null."""
    assert View("ws://h/v1/stream").to_map() == {"stream": "ws://h/v1/stream"}
    full = View("ws://h/v1/stream", "t", (1.0, 2.0), "https://s/style.json").to_map()
    assert full == {
        "stream": "ws://h/v1/stream",
        "token": "t",
        "place": {"lat": 1.0, "lng": 2.0},
        "style": "https://s/style.json",
    }


def test_page_with_push_may_connect_to_the_push_server():
    """The service worker is served at the root, because a worker controls only the folder that contains it."""
    view = View("ws://127.0.0.1:8765/v1/stream", push_url="http://127.0.0.1:8767/v1")
    assert "connect-src 'self' ws://127.0.0.1:8765 http://127.0.0.1:8767;" in view.policy()
    assert view.to_map() == {"stream": "ws://127.0.0.1:8765/v1/stream", "push": "http://127.0.0.1:8767/v1"}
    assert "push" not in View("ws://127.0.0.1:8765/v1/stream").to_map()
    app = application(files(FILES), view.policy())

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
            return await http.get("/worker.js")

    answer = asyncio.run(ask())
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "http://127.0.0.1:8767" in answer.headers["content-security-policy"]
