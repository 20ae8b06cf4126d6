"""Keys at a URL: when they are fetched, and what the result leads to. Fetching itself is tested in `end_to_end/`."""

import asyncio

import pytest

from geocast.config import parse_key_url
from geocast.errors import ConfigError
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
        """End the fetch that is under way with this set, or this error."""
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
            stage = KeySourceHarness(monkeypatch, **options)
            running = asyncio.ensure_future(stage.source.run())
            await turns()
            await scene(stage)
            running.cancel()

        asyncio.run(main())

    return playing


def test_unknown_keys_cause_one_fetch_in_30_s(play):
    """T8: a later token of an unknown key is refused at once."""

    async def scene(stage):
        stage.source.ask()
        stage.source.ask()
        await turns()
        stage.source.ask()
        assert (len(stage.fetches), stage.said) == (1, [])
        await stage.answer(b"second")
        assert stage.said == [b"second"]
        stage.source.ask()
        await turns()
        assert (len(stage.fetches), stage.said) == (1, [b"second", "settled"])

    play(scene)


def test_operator_can_cause_a_fetch_at_any_time(play):
    """BA2: also during a fetch, which is then followed by another, since the set may have changed meanwhile."""

    async def scene(stage):
        stage.source.ask()
        await turns()
        stage.source.fetch_now()
        stage.source.fetch_now()
        await stage.answer(b"second")
        assert len(stage.fetches) == 2
        await stage.answer(b"third")
        assert len(stage.fetches) == 2
        assert stage.said == [b"second", b"third"]

    play(scene)


def test_fetching_the_same_set_only_ends_the_waiting(play):
    """T8."""

    async def scene(stage):
        stage.source.fetch_now()
        await stage.answer(b"first")
        assert stage.said == ["settled"]

    play(scene)


def test_set_is_fetched_regularly(play):
    """BA3: within `every_s`."""

    async def scene(stage):
        while len(stage.fetches) < 3:
            await asyncio.sleep(0.001)
            if stage.fetches and not stage.fetches[-1].done():
                await stage.answer(b"first")

    play(scene, every_s=0.01)


def test_failed_fetch_is_logged_once_and_tried_again(play, caplog, monkeypatch):
    """T8: the last good set stays."""
    monkeypatch.setattr(key_source, "AGAIN_S", 0.001)

    async def scene(stage):
        stage.source.fetch_now()
        for _ in range(2):
            await stage.answer(ConfigError("keys https://idp.example/keys: answered 503, not 200"))
            while stage.fetches[-1].done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await stage.answer(ValueError("a sec" + "ret"))
        stage.source.fetch_now()
        await stage.answer(b"second")
        assert stage.said == ["settled"] * 3 + [b"second"]

    play(scene)
    assert caplog.text.count("answered 503") == 1
    assert "can be fetched again" in caplog.text
    assert "ValueError" in caplog.text
    assert "a secret" not in caplog.text
