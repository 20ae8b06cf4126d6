"""Keys at a URL: when they are fetched, and what follows from the result.

Fetching itself is tested in `end_to_end/`.
"""

import asyncio

import pytest

from geocast import tasks
from geocast.config import parse_key_url
from geocast.model.errors import ConfigError
from geocast.run import key_source
from geocast.run.key_source import KeySource

URL = parse_key_url("https://idp.example/keys")


class KeySourceHarness:
    """A source whose server answers when the test says so.

    Purpose: to see what a fetch does at each moment. Lies: there is no server; `answer` gives the fetched set.
    """

    def __init__(self, monkeypatch, every_s=3600.0):
        self.said = []
        self.fetches = []
        self.have = b"first"
        monkeypatch.setattr(key_source, "fetch_keys", self._fetch)
        self.source = KeySource(URL, every_s, lambda: self.have, self._changed, lambda: self.said.append("settled"))

    def _changed(self, keys):
        self.said.append(keys)
        self.have = keys

    async def _fetch(self, _url):
        self.fetches.append(asyncio.get_running_loop().create_future())
        return await self.fetches[-1]

    async def answer(self, what):
        """End the fetch in progress with this key set, or this error."""
        await turns()
        fetch = self.fetches[-1]
        fetch.set_exception(what) if isinstance(what, Exception) else fetch.set_result(what)
        await turns()


async def turns():
    """Let the loop do all that there is to do now."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def play(monkeypatch):
    """`play(scene)`: run a scene with a running source."""

    def playing(scene, **options):
        async def main():
            harness = KeySourceHarness(monkeypatch, **options)
            async with tasks.running(keys=harness.source.run):
                await turns()
                await scene(harness)

        asyncio.run(main())

    return playing


def test_tokens_of_unknown_keys_cause_at_most_one_fetch_in_30_s(play):
    """A later token of an unknown key is refused at once, without a fetch (T8)."""

    async def scene(harness):
        harness.source.ask()
        harness.source.ask()
        await turns()
        harness.source.ask()
        assert (len(harness.fetches), harness.said) == (1, [])
        await harness.answer(b"second")
        assert harness.said == [b"second"]
        harness.source.ask()
        await turns()
        assert (len(harness.fetches), harness.said) == (1, [b"second", "settled"])

    play(scene)


def test_fetch_requested_by_the_operator_is_made_at_once(play):
    """If a fetch is in progress, another one follows, since the key set may have changed meanwhile (BA2)."""

    async def scene(harness):
        harness.source.ask()
        await turns()
        harness.source.fetch_now()
        harness.source.fetch_now()
        await harness.answer(b"second")
        assert len(harness.fetches) == 2
        await harness.answer(b"third")
        assert len(harness.fetches) == 2
        assert harness.said == [b"second", b"third"]

    play(scene)


def test_fetch_of_an_unchanged_key_set_only_releases_waiting_connections(play):
    """Connections that wait for newer keys go on (T8)."""

    async def scene(harness):
        harness.source.fetch_now()
        await harness.answer(b"first")
        assert harness.said == ["settled"]

    play(scene)


def test_key_set_is_fetched_at_regular_intervals(play):
    """A withdrawn key is dropped within `every_s` (BA3)."""

    async def scene(harness):
        while len(harness.fetches) < 3:
            await asyncio.sleep(0.001)
            if harness.fetches and not harness.fetches[-1].done():
                await harness.answer(b"first")

    play(scene, every_s=0.01)


def test_failed_fetch_of_the_keys_is_logged_once_and_tried_again(play, caplog, monkeypatch):
    """The last valid key set stays in use (T8)."""
    monkeypatch.setattr(key_source, "AGAIN_S", 0.001)

    async def scene(harness):
        harness.source.fetch_now()
        for _ in range(2):
            await harness.answer(ConfigError("keys https://idp.example/keys: answered 503, not 200"))
            while harness.fetches[-1].done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await harness.answer(ValueError("a sec" + "ret"))
        while harness.fetches[-1].done():  # noqa: ASYNC110 (the task starts again)
            await asyncio.sleep(0.001)
        await harness.answer(b"second")
        assert harness.said == ["settled"] * 3 + [b"second"]

    play(scene)
    assert caplog.text.count("answered 503") == 1
    assert "fetching works again" in caplog.text
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text
