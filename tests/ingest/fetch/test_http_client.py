"""GET requests to servers that may be hostile (rules FE1 to FE3)."""

import asyncio
import contextlib
import gzip
import socket

import pytest
from end_to_end.kit.feed_server import HANG, RESET, ZEROS, FeedServer, Page
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from support.fakes import FakeClock

from geocast.ingest.fetch import http_client
from geocast.ingest.fetch.http_client import FeedClient, FetchFailed, HostQueues, plain_url
from geocast.ingest.fetch.settings import WatchedFeed

MIB = 1024 * 1024


@pytest.fixture
def server():
    """Run a web server."""
    with FeedServer() as server:
        yield server


def fetched(url, *more_urls, max_bytes=1_000, hosts=(), conditions=(), **keys):
    """Fetch documents one after another as the documents of one feed; return the last answer."""
    own = url.split("/")[2]
    keys = {"allow_http": True, "allow_private": True, "headers": (("X-Key", "s3cret"),)} | keys
    feed = WatchedFeed("met", url, frozenset({own, *hosts}), **keys)

    async def main():
        client = FeedClient(feed, HostQueues(), FakeClock())
        try:
            for each in (url, *more_urls):
                answer = await client.get(each, max_bytes, conditions)
            return answer
        finally:
            await client.close()

    return asyncio.run(main())


def reason(*arguments, **keys):
    """Return why documents can't be fetched."""
    with pytest.raises(FetchFailed) as caught:
        fetched(*arguments, **keys)
    return caught.value.reason


def test_answer_has_its_body_header_fields_and_charset(server):
    """Names of header fields are in lower case (rule FE2)."""
    server.pages["/a"] = Page(b"x" * 1_000, headers={"Content-Type": "text/xml; Charset=ISO-8859-1", "ETag": '"1"'})
    answer = fetched(server.url("/a"))
    assert (answer.status, answer.body, answer.charset) == (200, b"x" * 1_000, "iso-8859-1")
    assert answer.headers["etag"] == '"1"'
    assert fetched(server.url("/a"), conditions=[("If-None-Match", '"1"')]).status == 304


@pytest.mark.parametrize("kind", ["", "text/xml", "text/xml; charset=utf-7", "text/xml; charset=\\", "x; charset=none"])
def test_charset_that_no_node_accepts_is_left_out(server, kind):
    """The document says itself how it is encoded (rule FE2)."""
    server.pages["/a"] = Page(b"x", headers={"Content-Type": kind})
    assert fetched(server.url("/a")).charset is None


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (RESET, "broken-answer"),
        (Page(b"half", length=10), "broken-answer"),
        (Page(b"x" * 1_001), "too-long"),
        (Page(gzip.compress(bytes(1_001)), headers={"Content-Encoding": "gzip"}), "too-long"),
        (Page(gzip.compress(bytes(900))[:-9], headers={"Content-Encoding": "gzip"}), "broken-answer"),
        (Page(b"no gzip", headers={"Content-Encoding": "gzip"}), "broken-answer"),
        (Page(b"x", headers={"Content-Encoding": "br"}), "unknown-encoding"),
        (Page(status=404), "status-404"),
        (Page(status=500), "status-500"),
        (Page(status=304), "status-304"),
        (Page(status=302), "status-302"),
        (Page(status=302, headers={"Location": "http://127.0.0.1:1/"}), "host-not-allowed"),
        (Page(status=302, headers={"Location": "http://[::1/"}), "host-not-allowed"),
        (Page(status=302, headers={"Location": "file:///etc/passwd"}), "host-not-allowed"),
        (Page(status=302, headers={"Location": "/a"}), "too-many-redirects"),
    ],
)
def test_answer_that_is_not_a_whole_document_is_refused_with_a_reason(server, page, why):
    """Limits on sizes count after decompression (rules FE1, FE3)."""
    server.pages["/a"] = page
    assert reason(server.url("/a"), headers=()) == why


def test_retry_after_of_a_refusal_is_read(server):
    """The next attempt is no earlier (rule FE3)."""
    server.pages["/a"] = Page(status=429, headers={"Retry-After": "77"})
    with pytest.raises(FetchFailed) as caught:
        fetched(server.url("/a"))
    assert (caught.value.reason, caught.value.retry_after_s) == ("status-429", 77.0)


def test_compressed_answer_is_unpacked(server):
    """A bomb is stopped at the limit, so only a little more is ever unpacked (rule FE3)."""
    server.pages["/a"] = Page(gzip.compress(b"x" * 1_000), headers={"Content-Encoding": "gzip"})
    assert fetched(server.url("/a")).body == b"x" * 1_000


def test_bytes_behind_the_end_of_a_compressed_answer_are_not_read(server):
    """They may have no end (rule FE1)."""
    server.pages["/a"] = Page(gzip.compress(b"here"), headers={"Content-Encoding": "gzip"}, then=ZEROS)
    assert fetched(server.url("/a")).body == b"here"
    assert server.sent < 16 * 1024 * 1024  # what fits into the buffers of the connection
    server.pages["/b"] = Page(b"plain", then=ZEROS)
    assert reason(server.url("/b")) == "too-long"


async def together(server, queues, *paths):
    """Request the documents at these paths at the same time, and return the reason or "" of each."""
    feed = WatchedFeed("met", server.url("/"), frozenset({server.host}), allow_http=True, allow_private=True)
    client = FeedClient(feed, queues, FakeClock())

    async def one(path):
        try:
            await client.get(server.url(path), 8 * MIB)
        except FetchFailed as error:
            return error.reason
        return ""

    try:
        return await asyncio.gather(*map(one, paths))
    finally:
        await client.close()


async def test_host_gets_four_requests_at_a_time_and_one_of_them_for_those_that_timed_out(server, monkeypatch):
    """URLs that hang can't keep the others from being read (rule FE3)."""
    monkeypatch.setattr(http_client, "GET_S", 0.2)
    hanging, healthy = [f"/h{n}" for n in range(4)], [f"/m{n}" for n in range(40)]
    server.pages |= dict.fromkeys(hanging, HANG) | dict.fromkeys(healthy, Page(b"x"))
    queues = HostQueues()
    assert await together(server, queues, *hanging) == ["timeout"] * 4
    monkeypatch.setattr(http_client, "GET_S", 30)
    waiting = asyncio.create_task(together(server, queues, *hanging))
    assert await together(server, queues, *healthy) == [""] * 40
    assert sum(path in hanging for path in server.paths()) <= 4 + 1
    assert server.most_at_once <= 4 + 4  # the server does not notice at once that a client has gone
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_hosts_that_hang_keep_no_other_host_of_a_feed_waiting(server):
    """Each has four requests of its own (rule FE3)."""
    with contextlib.ExitStack() as held:
        others = [held.enter_context(FeedServer()) for _ in range(4)]
        server.pages["/a"] = Page(b"x")
        hosts = frozenset(each.host for each in (server, *others))
        feed = WatchedFeed("met", server.url("/"), hosts, allow_http=True, allow_private=True)
        client = FeedClient(feed, HostQueues(), FakeClock())
        for each in others:
            each.pages |= dict.fromkeys(("/0", "/1", "/2", "/3"), HANG)
        hanging = [asyncio.create_task(client.get(each.url(f"/{n}"), 1_000)) for each in others for n in range(4)]
        await asyncio.to_thread(wait_until, lambda: sum(len(each.asked) for each in others) >= 10, "many requests hang")
        assert (await client.get(server.url("/a"), 1_000)).body == b"x"
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        await client.close()


async def test_url_that_answers_again_is_requested_like_others(server, monkeypatch):
    """Only the last request counts (rule FE3)."""
    monkeypatch.setattr(http_client, "GET_S", 0.1)
    server.pages["/a"] = HANG
    queues = HostQueues()
    await together(server, queues, "/a")
    assert queues.is_slow(server.host, server.url("/a"))
    server.pages["/a"] = Page(b"x")
    monkeypatch.setattr(http_client, "GET_S", 30)
    assert await together(server, queues, "/a") == [""]
    assert not queues.is_slow(server.host, server.url("/a"))


async def test_large_answers_at_once_wait_for_each_other_and_all_are_read(server, monkeypatch):
    """Honest servers that send quickly lose nothing, and waiting is not part of the time limit (rule FE3)."""
    monkeypatch.setattr(http_client, "MAX_HELD_BYTES", MIB)
    monkeypatch.setattr(http_client, "OLDEST_S", 60.0)
    paths = [f"/{number}" for number in range(8)]
    server.pages |= dict.fromkeys(paths, Page(bytes(2 * MIB)))
    queues = HostQueues()
    assert await together(server, queues, *paths) == [""] * 8
    assert (queues._held, queues._complete) == (0, 0)


async def test_all_answers_together_have_a_limit_and_the_oldest_is_given_up_if_it_hangs(server, monkeypatch):
    """Strangers who send slowly can't fill the memory, and an answer that is used no more does not count (FE3)."""
    monkeypatch.setattr(http_client, "MAX_HELD_BYTES", 3 * MIB)
    monkeypatch.setattr(http_client, "OLDEST_S", 0.0)
    server.pages["/slow"] = Page(bytes(2 * MIB), then=HANG)
    server.pages["/big"] = Page(bytes(2 * MIB))
    queues, arrived = HostQueues(), asyncio.Event()
    grow = queues.grow

    def growing(limit, size):
        grow(limit, size)
        if size == 2 * MIB:
            arrived.set()

    monkeypatch.setattr(queues, "grow", growing)
    slow = asyncio.create_task(together(server, queues, "/slow"))
    await arrived.wait()
    assert await together(server, queues, "/big") == [""]
    assert await slow == ["timeout"]
    assert queues._held == 0


def test_server_that_hangs_ends_in_a_timeout(server, monkeypatch):
    """The time limit counts for the whole request (rule FE3)."""
    monkeypatch.setattr(http_client, "GET_S", 0.05)
    server.pages["/a"] = HANG
    assert reason(server.url("/a")) == "timeout"


def test_redirects_are_followed_on_allowed_hosts_without_secrets_for_others(server):
    """An API key goes to the feed's own host only (rule FE1)."""
    with FeedServer() as other:
        server.pages["/a"] = Page(status=302, headers={"Location": "/b"})
        server.pages["/b"] = Page(status=307, headers={"Location": other.url("/c")})
        other.pages["/c"] = Page(b"here")
        answer = fetched(server.url("/a"), hosts=[other.host])
        assert (answer.body, answer.url) == (b"here", other.url("/c"))
        assert [headers.get("x-key") for _, headers in (*server.asked, *other.asked)] == ["s3cret", "s3cret", None]
        assert reason(server.url("/a")) == "host-not-allowed"


def test_connection_is_kept_between_requests(server):
    """The second document needs no new connection (rule FE3)."""
    server.pages |= {"/a": Page(b"a"), "/b": Page(b"b")}
    assert fetched(server.url("/a"), server.url("/b")).body == b"b"
    assert server.connections == 1


def test_address_on_the_own_network_is_not_connected_to_unless_allowed(server, monkeypatch):
    """A name that resolves to it is no way round (rule FE1)."""
    server.pages["/a"] = Page(b"a")
    assert reason(server.url("/a"), allow_private=False) == "host-not-allowed"
    resolved = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **more: resolved("127.0.0.1", *rest, **more))
    url = server.url("/a").replace("127.0.0.1", "met.example")
    assert reason(url, allow_private=False) == "host-not-allowed"
    assert server.connections == 0
    assert fetched(url).body == b"a"


def test_http_is_used_only_if_it_is_allowed(server):
    """What is sent in clear can be altered on the way (rule FE1)."""
    server.pages["/a"] = Page(b"a")
    assert reason(server.url("/a"), allow_http=False) == "host-not-allowed"
    assert server.connections == 0


def test_certificate_is_checked_against_the_name_of_the_host(tmp_path):
    """`ca_file` adds an authority (rule FE1)."""
    certificate = make_certificate(tmp_path)
    with FeedServer(certificate) as server:
        server.pages["/a"] = Page(b"a")
        url = server.url("/a")
        assert fetched(url, ca_file=certificate.crt).body == b"a"
        assert reason(url) == "bad-certificate"
        other = url.replace("127.0.0.1", "127.0.0.2")
        assert reason(other, ca_file=certificate.crt) in ("bad-certificate", "no-connection")


def test_closed_port_is_no_connection():
    """The reason is a fixed word."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert reason(f"http://127.0.0.1:{port}/a") == "no-connection"


def test_request_has_no_more_header_fields_than_needed(server):
    """No cookies are sent."""
    server.pages["/a"] = Page(b"a", headers={"Set-Cookie": "a=b"})
    fetched(server.url("/a"), server.url("/a"))
    assert {name for _, headers in server.asked for name in headers} == {
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "x-key",
    }


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("a b", "https://met.example/x/a%20b"),
        ("/ü?q=%C3%BC#part", "https://met.example/%C3%BC?q=%C3%BC"),
        ("//other.example/a", "https://other.example/a"),
        ("\r\na\r\nb", "https://met.example/x/ab"),
        ("http://[::1", ""),
    ],
)
def test_link_becomes_a_url_that_a_request_can_contain(link, url):
    """White space and other characters are percent-encoded (rule FE2)."""
    assert plain_url("https://met.example/x/feed", link) == url
