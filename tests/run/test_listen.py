"""The waits and lines of `geocast listen`; the conformance kit plays the rest to it (tests/client_demo/conformance)."""

import asyncio

import pytest
from support.ports import a_free_port

from geocast.model.close_codes import Reconnect
from geocast.model.errors import ConfigError
from geocast.run.listen import Listener, line
from geocast.stream.held_alerts import AlertChange

PLACE = {"lat": 32.78, "lng": -96.8, "accuracy_m": 0.0}


def listener(url="ws://127.0.0.1:1/v1/stream", token=lambda: None):
    """Return a listener at one place, without a filter."""
    return Listener(url, {"places": [PLACE]}, token)


def test_listener_without_any_connection_waits_1_2_4_seconds():
    """Somebody who has mistyped the port, or started the node later, need not wait for 30 s (W5)."""
    waiting = listener()
    assert [waiting._wait_s(Reconnect.WINDOW) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_listener_says_why_there_is_no_connection():
    """A port where nothing listens is named by the error of the system."""

    async def first_note():
        notes = asyncio.Queue()
        url = f"ws://127.0.0.1:{a_free_port()}/v1/stream"
        task = asyncio.create_task(listener(url).run(print, notes.put_nowait))
        try:
            return await notes.get()
        finally:
            task.cancel()

    assert "trying again in 1.0 s" in asyncio.run(first_note())


def test_listener_with_a_url_that_is_none_gives_up():
    """The error says what is expected, and does not repeat the URL's query."""
    with pytest.raises(ConfigError, match="expected ws://HOST:PORT/v1/stream"):
        asyncio.run(listener("nonsense").run(print, print))


def test_line_about_an_alert_marks_exercises_and_has_no_control_characters():
    """Texts are plain, so that nobody can move the cursor or reverse a line (C6, C7, C9)."""
    alert = {
        "id": "a", "revision": 2, "status": "exercise", "severity": "severe", "title": "Fire",
        "headline": "Keep\x1b[2J away\u202e", "instruction": "Close windows.", "web": "https://city.example/x",
    }  # fmt: skip
    assert line(AlertChange("new", alert, 61_000)) == (
        "new            [EXERCISE] SEVERE Fire: Keep�[2J away� Close windows. See https://city.example/x"
        "  [1 min 01 s left; a, revision 2]"
    )
