"""What the live map's process tells its pages. The pages themselves: tests/pages."""

import asyncio
import json

import httpx
import pytest

from client_demo.demo.live_map import BEHIND, FILES, LiveMap, View, by_revision, fan_out
from client_demo.python.publisher import Unanswered
from client_demo.web.server import application, files

ALERT = {"id": "a", "revision": 1}


class Api:
    """Stands in for a Publisher that only looks: `answer` is what is live, or None while nothing answers."""

    def __init__(self, *answer):
        self.answer = list(answer)

    async def live(self):
        if self.answer is None:
            raise Unanswered("no answer")
        return list(self.answer)


def events(*lines):
    """Server-sent events as (name, data)."""
    fields = [dict(field.split(": ", 1) for field in line.strip().split("\n")) for line in lines]
    return [(each["event"], json.loads(each["data"])) for each in fields]


async def take(page, count):
    """The next events that a page is sent."""
    async with asyncio.timeout(60):
        return events(*[await anext(page) for _ in range(count)])


async def test_a_page_that_comes_late_is_told_how_things_are_and_no_old_fan_outs():
    """Each event replaces what was said before, so the last of each name is enough."""
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


async def test_while_the_api_does_not_answer_what_was_live_stays_and_is_said_to_be_old():
    """It is told once, and that it is current again once."""
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


async def test_a_page_that_does_not_read_has_to_come_again():
    """What waits for it is bounded."""
    shown = LiveMap(Api(), View("ws://127.0.0.1:1/v1/stream"))
    page = shown._lines()
    await take(page, 1)
    for number in range(2 * BEHIND):
        shown.told({"number": number})
    rest = [line async for line in page]
    assert len(rest) == BEHIND
    assert not shown._pages


async def test_a_map_that_closes_lets_its_pages_go():
    """They end as answers do, so that no browser sees a broken one."""
    shown = LiveMap(Api(), View("ws://127.0.0.1:1/v1/stream"))
    page = shown._lines()
    await take(page, 1)
    shown.close()
    assert [line async for line in page] == []


def test_what_two_processes_saw_of_a_fan_out_is_brought_together():
    """For each revision and cell: the sum, the first, the last."""
    rows = [["a", 1, "x", 2, 100, 300], ["b", 1, "x", 1, 10, 10], ["a", 1, "x", 1, 90, 90], ["a", 1, "y", 4, 150, 400]]
    assert by_revision(rows) == {
        ("a", 1): {"x": (3, 90, 300), "y": (4, 150, 400)},
        ("b", 1): {"x": (1, 10, 10)},
    }


def test_a_fan_out_is_timed_from_the_publishers_request():
    """In ms; and those who came upon it later have no time."""
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
def test_the_page_may_talk_to_the_node_and_to_the_origin_of_the_style_alone(style, connect, images):
    """The Content-Security-Policy says so."""
    policy = View("ws://127.0.0.1:8765/v1/stream", style_url=style).policy()
    assert connect in policy
    assert images in policy
    assert "unsafe" not in policy


def test_the_page_is_told_only_what_there_is():
    """No null for a browser to trip over."""
    assert View("ws://h/v1/stream").to_map() == {"stream": "ws://h/v1/stream"}
    full = View("ws://h/v1/stream", "t", (1.0, 2.0), "https://s/style.json").to_map()
    assert full == {
        "stream": "ws://h/v1/stream",
        "token": "t",
        "place": {"lat": 1.0, "lng": 2.0},
        "style": "https://s/style.json",
    }


def test_a_page_that_may_register_for_pushes_may_talk_to_their_server_and_knows_where_it_is():
    """And its worker is at the root, since a worker's scope is the folder that it is in."""
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
