"""The reader of one feed: a real web server, a real state, and a node that answers as the test says (FE3 to FE6)."""

import asyncio

import pytest
from end_to_end.kit.feed_server import FeedServer, Page, atom, inline, linked
from ingest.cap.issuer import a_message, an_info, time
from support.fakes import NOON_MS, FakeClock

from geocast.ingest.fetch.http_client import FeedClient, HostQueues
from geocast.ingest.fetch.node_client import NodeAnswer
from geocast.ingest.fetch.outcomes import FetchOutcomes
from geocast.ingest.fetch.reader import FeedReader
from geocast.ingest.fetch.settings import WatchedFeed
from geocast.ingest.fetch.state import FetchState
from geocast.metrics import Metrics

PUBLISHED = NodeAnswer("published", is_final=True)
BUSY = NodeAnswer("rate-limited", is_final=False, retry_after_s=7.0)
AWAY = NodeAnswer("no-answer", is_final=False)


class ScriptedNode:
    """A node that gives these answers one after another, and then accepts everything. Difference: it posts nothing."""

    def __init__(self):
        self.answers, self.posted = [], []

    async def post(self, message, charset, token_file, *, dry_run=False):
        """Take note of a message, and answer."""
        self.posted.append(message.decode().partition("<identifier>")[2].partition("<")[0])
        return self.answers.pop(0) if self.answers else PUBLISHED


class Bench:
    """A reader of the feed /feed on a web server, a minute after noon."""

    def __init__(self, server, folder):
        self.server, self.clock, self.node = server, FakeClock(NOON_MS + 60_000), ScriptedNode()
        self.feed = WatchedFeed(
            "met", server.url("/feed"), frozenset({server.host}), allow_http=True, allow_private=True
        )
        self.metrics = Metrics()
        self.outcomes = FetchOutcomes(self.clock, self.metrics)
        self.state = FetchState(folder / "fetch.db")
        self.state.open()

    async def __aenter__(self):
        self.client = FeedClient(self.feed, HostQueues(), self.clock)
        self.reader = FeedReader(self.feed, self.client, self.node, self.state, self.outcomes, self.clock)
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        self.state.close()

    def lists(self, *entries):
        """Change the feed."""
        self.server.pages["/feed"] = atom(*entries)

    def metric(self, name):
        """Return the value of a series of the metrics."""
        [line] = [line for line in self.metrics.render().decode().splitlines() if line.startswith(f"geocast_{name} ")]
        return float(line.rpartition(" ")[2])


@pytest.fixture
def server():
    """Run a web server."""
    with FeedServer() as server:
        yield server


@pytest.fixture
def bench(server, tmp_path):
    """Return a bench, to be entered."""
    return Bench(server, tmp_path)


async def test_messages_wait_for_the_node_as_long_as_it_asks_for(bench):
    """They are posted in the order of `sent`, and again from the first that was not accepted (rules FE4, FE5)."""
    async with bench:
        bench.lists(*(inline(name, a_message(name, minutes)) for name, minutes in (("c", 3), ("a", 1), ("b", 2))))
        bench.node.answers = [PUBLISHED, BUSY]
        await bench.reader.read()
        assert await bench.reader.post() == 2
        assert bench.reader._post_at == bench.clock.monotonic + 7
        assert bench.node.posted == ["a", "b"]
        assert await bench.reader.post() == 0
        assert bench.node.posted == ["a", "b", "b", "c"]
        assert bench.reader._post_at == float("inf")


async def test_message_that_the_node_never_answers_lets_others_pass(bench):
    """After three attempts the others are posted first (rule FE4)."""
    async with bench:
        bench.lists(inline("a", a_message("a", 1)), inline("b", a_message("b", 2)))
        await bench.reader.read()
        for _ in range(4):
            bench.node.answers = [AWAY]
            assert await bench.reader.post() == 2
        assert bench.node.posted == ["a"] * 4
        assert await bench.reader.post() == 1
        assert bench.node.posted[4:] == ["b"]


async def test_message_that_expires_while_the_node_is_away_is_given_up(bench):
    """It would be ignored by the node too (rule FE4)."""
    async with bench:
        bench.lists(inline("a", a_message("a", 0, (), an_info(expires=time(5)))), inline("b", a_message("b", 1)))
        await bench.reader.read()
        bench.node.answers = [AWAY]
        assert await bench.reader.post() == 2
        bench.clock.advance(300)
        bench.node.answers = [AWAY]
        assert await bench.reader.post() == 1
        assert bench.metric('fetch_entries_total{feed="met",outcome="expired"}') == 1
        assert await bench.reader.post() == 0


async def test_link_that_fails_is_tried_again_until_an_hour_after_its_entry_left(bench):
    """A half of a message counts as a failure too (rule FE4)."""
    async with bench:
        bench.server.pages["/half"] = Page(a_message("m")[:-20])
        bench.lists(linked("1", bench.server.url("/gone")), linked("2", bench.server.url("/half")))
        await bench.reader.read()
        assert await bench.reader.post() == 2
        assert bench.reader._post_at - bench.clock.monotonic == pytest.approx(60, abs=7)
        assert bench.server.paths() == ["/feed", "/gone", "/half"]
        assert await bench.reader.post() == 2
        assert bench.server.paths() == [], "not yet"
        bench.lists()
        await bench.reader.read()
        bench.clock.advance(3_500)
        bench.server.message("half", a_message("m"))
        bench.server.pages["/half"] = bench.server.pages["/half.xml"]
        assert await bench.reader.post() == 1
        bench.clock.advance(200)
        bench.reader.read_now()
        assert await bench.reader.post() == 0
        assert bench.metric('fetch_entries_total{feed="met",outcome="unreachable"}') == 1
        assert bench.node.posted == ["m"]


async def test_links_wait_as_long_as_their_server_asks_for(bench):
    """One 429 stops the requests for all links of the feed (rule FE3)."""
    async with bench:
        bench.server.pages["/a"] = Page(status=429, headers={"Retry-After": "400"})
        bench.lists(linked("1", bench.server.url("/a")), linked("2", bench.server.url("/b")))
        await bench.reader.read()
        await bench.reader.post()
        assert bench.server.paths() == ["/feed", "/a"]
        assert bench.reader._post_at == bench.clock.monotonic + 400


async def test_reading_that_fails_is_repeated_later_and_makes_the_process_unready(bench):
    """The reasons name the feed, after three intervals and a minute (rules FE3, FE6)."""
    async with bench:
        assert not await bench.reader.read()
        assert bench.reader._read_at - bench.clock.monotonic == pytest.approx(60, abs=7)
        bench.clock.advance(240)
        assert not await bench.reader.read()
        assert bench.outcomes.unready() == []
        bench.clock.advance(1)
        assert bench.outcomes.unready() == ["feed met fails for 241 s: status-404"]
        assert bench.metric('fetch_overdue{feed="met"}') == 1
        bench.lists()
        assert await bench.reader.read()
        assert bench.outcomes.unready() == []
        assert bench.metric('fetch_reads_total{feed="met",result="failed"}') == 2


async def test_messages_that_wait_for_a_minute_make_the_process_unready(bench):
    """The reasons say what the node answered (rule FE6)."""
    async with bench:
        bench.lists(inline("a", a_message("a")))
        await bench.reader.read()
        bench.node.answers = [BUSY, BUSY]
        await bench.reader.post()
        bench.clock.advance(61)
        await bench.reader.post()
        assert bench.outcomes.unready() == ["feed met: 1 messages wait for the node: rate-limited"]
        assert bench.metric('fetch_waiting{feed="met"}') == 1
        await bench.reader.post()
        assert bench.outcomes.unready() == []


async def test_delays_are_measured_from_sent_to_listed_and_to_accepted(bench):
    """`Last-Modified` says when the feed had it, if plausible. The first reading does not count (rule FE6)."""
    async with bench:
        bench.lists(inline("old", a_message("old")))
        await bench.reader.read()
        await bench.reader.post()
        bench.server.pages["/feed"] = Page(
            atom(inline("a", a_message("a"))).body, headers={"Last-Modified": "Sat, 31 Jan 2026 12:00:20 GMT"}
        )
        await bench.reader.read()
        bench.clock.advance(5)
        await bench.reader.post()
        assert bench.metric('fetch_sent_to_listed_seconds_sum{feed="met"}') == 20
        assert bench.metric('fetch_sent_to_accepted_seconds_sum{feed="met"}') == 65


async def test_reader_goes_on_when_it_is_asked_to(bench):
    """`read_now` ends a pause, as SIGHUP does; an error in one round does not end the reader (rule FE1)."""
    async with bench:
        rounds = asyncio.Queue()

        async def read():
            bench.reader._read_at = float("inf")
            rounds.put_nowait("read")
            if rounds.qsize() == 1:
                raise ValueError
            return True

        bench.reader.read = read
        task = asyncio.create_task(bench.reader.run())
        await rounds.get()
        bench.reader.read_now()
        await rounds.get()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
