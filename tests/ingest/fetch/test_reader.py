"""The reader of one feed: a real web server, a real state, and a node that answers as the test says (FE3 to FE6)."""

import asyncio
from dataclasses import replace

import pytest
from end_to_end.kit.feed_server import HANG, RESET, FeedServer, Page, atom, inline, linked
from ingest.cap.issuer import a_cancel, a_message, an_info, time
from support.fakes import NOON_MS, FakeClock

from geocast import tasks
from geocast.ingest.fetch import http_client
from geocast.ingest.fetch import reader as reader_module
from geocast.ingest.fetch.documents import head_of
from geocast.ingest.fetch.http_client import FeedClient, HostQueues
from geocast.ingest.fetch.node_client import NodeAnswer
from geocast.ingest.fetch.outcomes import FetchOutcomes
from geocast.ingest.fetch.reader import FeedReader
from geocast.ingest.fetch.settings import WatchedFeed
from geocast.ingest.fetch.state import FetchState
from geocast.metrics import Metrics

PUBLISHED = NodeAnswer("published", is_final=True)
BUSY = NodeAnswer("rate-limited", is_final=False, retry_after_s=7.0, is_limited=True)
AWAY = NodeAnswer("no-answer", is_final=False)


class ScriptedNode:
    """A node that gives these answers one after another, and then accepts everything. Difference: it posts nothing."""

    def __init__(self):
        self.answers, self.posted = [], []
        self._change = asyncio.Condition()

    async def until(self, names):
        """Wait until these messages have been posted."""
        async with self._change:
            await self._change.wait_for(lambda: set(self.posted) >= names)

    async def post(self, message, charset, token_file, *, dry_run=False):
        """Take note of a message, and answer."""
        self.posted.append(message.decode().partition("<identifier>")[2].partition("<")[0])
        async with self._change:
            self._change.notify_all()
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

    async def __aenter__(self):
        await self.state.start()
        self.client = FeedClient(self.feed, HostQueues(), self.clock)
        self.reader = FeedReader(self.feed, self.client, self.node, self.state, self.outcomes, self.clock)
        return self

    def allow(self, other):
        """Let the feed link to another server."""
        self.feed = replace(self.feed, hosts=self.feed.hosts | {other.host})
        self.client._feed = self.reader.feed = self.feed

    async def __aexit__(self, *_):
        await self.client.close()
        await self.state.stop()

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
        assert bench.reader._posting.at == bench.clock.monotonic + 7
        assert bench.node.posted == ["a", "b"]
        bench.clock.advance(7)
        assert await bench.reader.post() == 0
        assert bench.node.posted == ["a", "b", "b", "c"]
        assert bench.reader._posting.at == float("inf")


async def test_message_that_the_node_never_answers_lets_others_pass(bench):
    """After three attempts the others are posted first (rule FE4)."""
    async with bench:
        bench.lists(inline("a", a_message("a", 1)), inline("b", a_message("b", 2)))
        await bench.reader.read()
        for _ in range(4):
            bench.node.answers = [AWAY]
            assert await bench.reader.post() == 2
            bench.clock.advance(8)
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
        bench.clock.advance(30)
        assert await bench.reader.post() == 0


async def test_link_that_fails_is_tried_again_until_an_hour_after_its_entry_left(bench):
    """A half of a message counts as a failure too (rule FE4)."""
    async with bench:
        bench.server.pages["/half"] = Page(a_message("m")[:-20])
        bench.lists(linked("1", bench.server.url("/gone")), linked("2", bench.server.url("/half")))
        await bench.reader.read()
        assert await bench.reader.post() == 2
        assert bench.reader._posting.at - bench.clock.monotonic == pytest.approx(60, abs=7)
        assert sorted(bench.server.paths()) == ["/feed", "/gone", "/half"]  # two at a time
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
        bench.lists(*(linked(f"{n}", bench.server.url("/a")) for n in range(20)))
        await bench.reader.read()
        await bench.reader.post()
        assert 1 <= bench.server.paths().count("/a") <= http_client.AT_ONCE
        assert bench.reader._posting.at == bench.clock.monotonic + 400


async def test_links_wait_while_the_messages_of_all_feeds_take_too_much_memory(bench, monkeypatch):
    """A feed with more than its share waits for the others, and does not try in vain all the time (rule FE4)."""
    size = len(a_message("0"))
    monkeypatch.setattr(reader_module, "MAX_AHEAD_BYTES", 6 * size)
    bench.state.ahead["other"] = 100 * size
    async with bench:
        for n in range(20):
            bench.server.message(f"{n}", a_message(f"{n}"))
        bench.lists(*(linked(f"{n}", bench.server.url(f"/{n}.xml")) for n in range(20)))
        await bench.reader.read()
        bench.node.answers = [BUSY]
        assert await bench.reader.post() == 20
        assert len(bench.server.paths()) <= 1 + 4 + http_client.AT_ONCE, "the feed, its share and what is under way"
        assert bench.reader._posting.at == bench.clock.monotonic + reader_module.ROUND_S
        assert await bench.reader.post() == 20
        assert bench.server.paths() == []
        del bench.state.ahead["other"]
        for _ in range(4):
            bench.clock.advance(7)
            left = await bench.reader.post()
        assert (left, set(bench.node.posted)) == (0, {f"{n}" for n in range(20)})


async def test_reading_that_fails_is_repeated_later_and_makes_the_process_unready(bench):
    """The reasons name the feed, after three intervals and a minute (rules FE3, FE6)."""
    async with bench:
        assert not await bench.reader.read()
        assert bench.reader._reading.at - bench.clock.monotonic == pytest.approx(60, abs=7)
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
        bench.clock.advance(7)
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
            bench.reader._reading.at = float("inf")
            rounds.put_nowait("read")
            if rounds.qsize() == 1:
                raise ValueError
            return True

        bench.reader.read = read
        async with tasks.running(reader=bench.reader.run):
            await rounds.get()
            bench.reader.read_now()
            await rounds.get()


WAITING_ROOM = Page(status=302, headers={"Location": "https://queue.example/"})
PAGE = Page(b'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>Busy</p></body></html>')


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (WAITING_ROOM, "host-not-allowed"),
        (PAGE, "not-cap"),
        (Page(b"<alert/>"), "not-cap"),
        (Page(b"<a>" * 33), "too-complex"),
        (Page(b"<!DOCTYPE html><html></html>"), "doctype"),
        (Page(b"x" * 3_000_000), "too-long"),
        (Page(status=404), "status-404"),
        (Page(status=410), "status-410"),
        (Page(status=403), "status-403"),
        (RESET, "broken-answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_message_behind_a_link_that_answers_otherwise_first_is_read_later(bench, answer, reason, caplog):
    """Only what the node says about a message is final; `/readyz` and the log name the feed (rules FE4, FE6)."""
    async with bench:
        url = bench.server.url("/m")
        bench.lists(linked("1", url))
        bench.server.pages["/m"] = answer
        await bench.reader.read()
        for _ in range(9):
            assert await bench.reader.post() == 1
            bench.clock.advance(max(bench.reader._posting.at - bench.clock.monotonic, 1))
        late = f"feed met: 1 links fail for more than 10 min: {reason}"
        assert bench.outcomes.unready() == [late]
        for _ in range(2):
            await bench.reader.read()
        assert [record.getMessage() for record in caplog.records].count(late) == 1
        bench.server.pages["/m"] = Page(a_message("m"))
        assert await bench.reader.post() == 0
        assert bench.node.posted == ["m"]
        assert bench.outcomes.unready() == []


async def test_cancel_is_posted_while_alerts_wait_for_the_rate_of_the_source(bench):
    """After 429 only alerts wait, also for a cancel whose link is read later (rule FE4)."""
    async with bench:
        bench.lists(inline("a", a_message("a", 1)), inline("b", a_message("b", 2)), inline("c", a_cancel("c", 3, "x")))
        bench.node.answers = [BUSY]
        await bench.reader.read()
        assert await bench.reader.post() == 2
        assert bench.node.posted == ["a", "c"]
        all_clear = a_message("e", 5, (), an_info(responseType="AllClear"))
        bench.lists(*(inline(name, each) for name, each in (("d", a_message("d", 4)), ("e", all_clear))))
        await bench.reader.read()
        assert await bench.reader.post() == 3
        assert bench.node.posted == ["a", "c", "e"]
        assert bench.outcomes.unready() == [], "the node is limiting for less than a minute"
        bench.clock.advance(7)
        assert await bench.reader.post() == 0
        assert bench.node.posted == ["a", "c", "e", "a", "b", "d"]


async def test_cancel_that_is_refused_like_an_alert_waits_like_one(bench):
    """A node that takes nothing is not asked again before the time that it has said (rule FE4)."""
    async with bench:
        bench.lists(*(inline(name, a_cancel(name, n, "x")) for n, name in enumerate("ab")))
        bench.node.answers = [BUSY]
        await bench.reader.read()
        assert await bench.reader.post() == 2
        assert await bench.reader.post() == 2
        assert bench.node.posted == ["a"]
        assert bench.reader._posting.at == bench.clock.monotonic + 7


async def test_links_that_hang_delay_no_message_of_another_link_or_host(bench, monkeypatch):
    """A host has four requests at a time, and hosts don't wait for each other (rule FE3)."""
    monkeypatch.setattr(reader_module, "ORDER_S", 0.05)
    with FeedServer() as other:
        async with bench:
            bench.allow(other)
            bench.server.pages |= dict.fromkeys(("/1", "/2", "/3"), HANG)
            names = [f"m{n}" for n in range(10)]
            bench.lists(
                *(linked(path, bench.server.url(path)) for path in ("/1", "/2", "/3")),
                *(linked(name, bench.server.message(name, a_message(name))) for name in names),
                linked("o", other.message("o", a_message("o"))),
            )
            posting = asyncio.create_task(bench.reader.run())
            await bench.node.until({*names, "o"})
            bench.lists(linked("late", other.message("late", a_message("late"))))
            bench.reader.read_now()
            await bench.node.until({"late"})
            assert bench.server.most_at_once <= http_client.AT_ONCE + 1  # the feed itself
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)


async def test_forty_feeds_of_one_host_are_read_again_and_again_while_four_of_its_urls_hang(
    server, tmp_path, monkeypatch
):
    """The four hang once at the same time, and then one at a time (rule FE3)."""
    monkeypatch.setattr(http_client, "GET_S", 0.2)
    hanging = [f"/hang{n}" for n in range(4)]
    server.pages |= dict.fromkeys(hanging, HANG)
    queues, node, state = HostQueues(), ScriptedNode(), FetchState(tmp_path / "fetch.db")
    await state.start()
    feeds = [
        WatchedFeed(path[1:], server.url(path), frozenset({server.host}), allow_http=True, allow_private=True)
        for path in (*hanging, *(f"/feed{n}" for n in range(36)))
    ]
    clock, metrics = FakeClock(NOON_MS), Metrics()
    outcomes = FetchOutcomes(clock, metrics)
    clients = [FeedClient(feed, queues, clock) for feed in feeds]
    readers = [
        FeedReader(feed, client, node, state, outcomes, clock) for feed, client in zip(feeds, clients, strict=True)
    ]
    await asyncio.gather(*(reader.read() for reader in readers[:4]))
    assert len(server.paths()) == 4
    monkeypatch.setattr(http_client, "GET_S", 30)
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    for minute in range(3):
        names = {f"{reader.feed.name}-{minute}" for reader in readers[4:]}
        for reader in readers[4:]:
            name = f"{reader.feed.name}-{minute}"
            server.pages[f"/{reader.feed.name}"] = atom(linked(name, server.message(name, a_message(name))))
            reader.read_now()
        await node.until(names)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, *(client.close() for client in clients), return_exceptions=True)
    await state.stop()
    assert sum(path in hanging for path in server.paths()) <= 1
    assert server.most_at_once <= 4 + 4  # the server does not notice that a client of a URL that hangs has gone


async def test_entry_that_can_not_be_read_by_a_mistake_stops_no_other(bench, monkeypatch):
    """It is tried again later, like a link that fails (rule FE4)."""
    async with bench:
        bench.lists(inline("a", a_message("a", 1)), inline("b", a_message("b", 2)))
        await bench.reader.read()

        def broken(body, *_):
            if b">a<" in body:
                raise ZeroDivisionError
            return head_of(body, *_)

        monkeypatch.setattr("geocast.ingest.fetch.documents.head_of", broken)
        assert await bench.reader.post() == 1
        assert bench.node.posted == ["b"]
        monkeypatch.undo()
        bench.clock.advance(70)
        assert await bench.reader.post() == 0
