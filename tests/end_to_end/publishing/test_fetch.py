"""`geocast fetch`: from feeds on a web server that misbehaves to a node and its subscribers (rules FE1 to FE7)."""

import contextlib
import gzip
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.disks import full
from end_to_end.kit.feed_server import HANG, RESET, FeedServer, Page, atom, inline, linked
from end_to_end.kit.fetch import Fetch, taken
from end_to_end.kit.issuer import SPOT, Issuer, options
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from ingest.cap.issuer import moved
from support.ports import free_ports
from support.real_data import DATA, cap

Join = Callable[..., Session]


@pytest.fixture(scope="module")
def warned(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that accepts CAP messages."""
    home = tmp_path_factory.mktemp("warned")
    with Node(home, keys, *options(home)) as node:
        yield node


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """An issuer, whose messages all tests share."""
    return Issuer()


@pytest.fixture
def server() -> Iterator[FeedServer]:
    """A web server with feeds."""
    with FeedServer() as server:
        yield server


@pytest.fixture
def fetch(tmp_path: Path, warned: Node, server: FeedServer) -> Iterator[Fetch]:
    """A `geocast fetch` that posts to the node."""
    with Fetch(tmp_path, warned, server) as fetch:
        yield fetch


@pytest.fixture
def new(warned: Node) -> Callable[[], dict[str, int]]:
    """Return a function that says which messages the node has taken since the last call, by outcome."""
    known = taken(warned)

    def since() -> dict[str, int]:
        nonlocal known
        before, known = known, taken(warned)
        return {each: count - before.get(each, 0) for each, count in known.items() if count > before.get(each, 0)}

    return since


def test_fetch_of_every_kind_of_feed_publishes_each_message_once(fetch, server, issuer, new):
    """The next reading is conditional, and asks for no message again (rules FE2, FE3, FE4)."""
    link = server.message("kinds-2", issuer.message("kinds-2"))
    server.pages["/atom"] = atom(inline("1", issuer.message("kinds-1")), linked("2", link), etag='"one"')
    link = server.message("kinds-3", issuer.message("kinds-3"))
    item = f"<item><guid>3</guid><title>3</title><link>{link}</link></item>"
    server.pages["/rss"] = Page(f'<rss version="2.0"><channel>{item}</channel></rss>'.encode())
    server.pages["/bare"] = Page(issuer.message("kinds-4"))
    both = issuer.message("kinds-5") + b"<!-- and -->" + issuer.message("kinds-6")
    envelope = b'<EDXLDistribution xmlns="urn:oasis:names:tc:emergency:EDXL:DE:1.0">%s</EDXLDistribution>'
    server.pages["/edxl"] = Page(envelope % (b"<contentObject>%s</contentObject>" % both))
    fetch.write_feeds("/atom", "/rss", "/bare", "/edxl")
    assert fetch.once() == 0
    assert new() == {"published": 6}
    server.paths()
    assert fetch.once() == 0
    assert new() == {}
    assert sorted(server.paths()) == ["/atom", "/bare", "/edxl", "/rss"]
    assert fetch.run("--check").stdout.split("\n")[1].split() == ["atom", "2", "2", "2"]


def test_fetch_of_broken_feeds_gives_each_a_reason_and_reads_the_others(fetch, server, issuer, new):
    """A feed that can't be read stops no other feed (rules FE1 to FE3)."""
    bomb = gzip.compress(b"<feed>" + b" " * 6_000_000)
    message = issuer.message("broken-1")
    laughs = b'<!DOCTYPE feed [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><feed>&b;</feed>'
    server.pages |= {
        "/reset": RESET,
        "/half": Page(message, length=10_000),
        "/bomb": Page(bomb, headers={"Content-Encoding": "gzip"}),
        "/away": Page(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        "/loop": Page(status=302, headers={"Location": "/loop"}),
        "/laughs": Page(laughs),
        "/busy": Page(status=429, headers={"Retry-After": "300"}),
        "/page": Page(b"<html/>"),
        "/moved": Page(status=301, headers={"Location": "/good"}),
        "/good": atom(inline("1", message)),
    }
    fetch.write_feeds(*server.pages, public=server.url("/good"))
    text = fetch.feeds_file.read_text()
    fetch.feeds_file.write_text(text[: text.rindex("allow_private")])  # of `public`, whose server is on loopback
    done = fetch.run("--once")
    assert done.returncode == 1
    assert new() in ({"published": 1, "repeated": 1}, {"published": 1})
    said = dict(
        line.split("feed ")[1].split(" can't be read: ") for line in done.stderr.splitlines() if "can't" in line
    )
    assert {name: why.partition(";")[0] for name, why in said.items()} == {
        "reset": "broken-answer",
        "half": "broken-answer",
        "bomb": "too-long",
        "away": "host-not-allowed",
        "loop": "too-many-redirects",
        "laughs": "doctype",
        "busy": "status-429",
        "page": "no-feed",
        "public": "host-not-allowed",
    }
    assert float(said["busy"].rpartition("in ")[2].split()[0]) == 300
    assert server.most_at_once <= 4, "four requests to a host at a time"


@pytest.mark.parametrize("point", ["fetch-in-commit", "fetch-listed", "fetch-linked", "fetch-posted"])
def test_fetch_killed_at_any_point_loses_nothing_and_publishes_nothing_twice(fetch, server, issuer, new, point):
    """Messages are published once, also those that left the feed before the restart (rule FE4)."""
    bodies = {name: issuer.message(f"{point}-{name}") for name in "ab"}
    full = atom(inline("a", bodies["a"]), linked("b", server.message(f"{point}-b", bodies["b"])), etag='"1"')
    server.pages["/feed"] = full
    fetch.write_feeds("/feed")
    fetch.dies_at(point)
    if point != "fetch-in-commit":
        server.pages["/feed"] = atom(etag='"2"')
    assert fetch.once() == 0
    found = new()
    assert found.pop("published") == 2
    assert found in ({}, {"repeated": 1})


def test_fetch_posts_messages_of_a_chain_by_sent_when_the_node_is_back(keys, tmp_path, server, issuer):
    """Messages wait for the node, also if the feed drops them meanwhile (rules FE4, FE5)."""
    first, update = issuer.message("chain-1"), issuer.message("chain-2", ("chain-1",))
    server.pages["/feed"] = atom(inline("update", update), inline("first", first))
    with Node(tmp_path, keys, *options(tmp_path)) as node, Fetch(tmp_path, node, server) as fetch:
        fetch.write_feeds("/feed")
        node.kill()
        assert fetch.once() == 1
        server.pages["/feed"] = atom()
        node.start()
        fetch.token_file.write_text("not-a-token")
        assert fetch.once() == 1  # 401 says nothing about the message
        fetch.token_file.write_text(node.keys.token(sub="met", scope="alerts:publish"))
        assert fetch.once() == 0
        assert taken(node) == {"published": 1, "updated": 1}


def test_two_fetchers_of_one_feed_publish_each_message_once(fetch, server, issuer, new, tmp_path, warned):
    """What the second one posts is answered 200 (rule FE7)."""
    server.pages["/feed"] = atom(*(inline(str(n), issuer.message(f"two-{n}")) for n in range(5)))
    (tmp_path / "other").mkdir()
    with Fetch(tmp_path / "other", warned, server) as other:
        for each in (fetch, other):
            each.write_feeds("/feed")
        both = [subprocess.Popen(each.command("--once"), stderr=subprocess.DEVNULL) for each in (fetch, other)]
        assert [each.wait(60) for each in both] == [0, 0]
    assert new() == {"published": 5, "repeated": 5}


def test_fetch_goes_on_while_the_disk_of_its_state_is_full(fetch, server, issuer, new, small_disk):
    """The node answers 200 to what is posted again later (rule FE4)."""
    fetch.state = small_disk / "fetch.db"
    server.pages["/feed"] = atom(*(inline(str(n), issuer.message(f"full-{n}")) for n in range(3)))
    fetch.write_feeds("/feed")
    server.pages["/feed"], page = atom(), server.pages["/feed"]
    assert fetch.once() == 0
    server.pages["/feed"] = page
    with full(small_disk):
        assert fetch.once() == 1
        assert new() == {"published": 3}
    assert fetch.once() == 0
    assert new() == {"repeated": 3}
    assert fetch.once() == 0
    assert new() == {}


def test_running_fetch_reads_its_feeds_despite_one_that_hangs(fetch, server, issuer, warned, join):
    """SIGHUP makes it read a changed file; an invalid file changes nothing (rules FE1, FE3, FE6)."""
    other = FeedServer()
    with other:
        other.pages["/stuck"] = HANG
        server.pages["/feed"] = atom()
        fetch.write_feeds("/feed", stuck=other.url("/stuck"))
        fetch.start()
        read = 'geocast_fetch_reads_total{feed="feed",result="read"} 1.0'
        wait_until(lambda: read in fetch.metrics_api.get("/metrics").text, "the feed has been read without entries")
        inside = join(warned, SPOT)
        server.pages["/feed"] = atom(inline("1", issuer.message("running-1")))
        fetch.reload()
        assert inside.take()["alert"]["headline"] == "High water"
        published = 'geocast_fetch_entries_total{feed="feed",outcome="published"} 1.0'
        wait_until(
            lambda: published in fetch.metrics_api.get("/metrics").text, "the answer of the node has arrived, too"
        )
        accepted = 'geocast_fetch_sent_to_accepted_seconds_count{feed="feed"} 1.0'
        wait_until(lambda: accepted in fetch.metrics_api.get("/metrics").text, "the time that it took is counted")
        wait_until(lambda: fetch.metrics_api.get("/readyz").json() == {"status": "ready"}, "/readyz says so")
        fetch.feeds_file.write_text("[feeds.feed]\nurls = 1\n")
        fetch.reload()
        wait_until(lambda: "not reloaded" in fetch.output(), "the invalid file is refused")
        server.pages["/more"] = atom(inline("1", issuer.message("running-2")))
        fetch.write_feeds("/more")
        fetch.reload()
        wait_until(
            lambda: 'feed="more",outcome="published"' in fetch.metrics_api.get("/metrics").text, "the new feed is read"
        )
        assert 'fetch_overdue{feed="feed"}' not in fetch.metrics_api.get("/metrics").text
        assert fetch.terminate() == 0


def test_feed_of_2000_entries_costs_one_request_when_nothing_is_new(fetch, server, issuer, new):
    """If one entry is new, its message is one more request (rule FE3)."""
    known = [f"<entry><id>urn:{n}</id><title>{n}</title></entry>" for n in range(2_000)]
    server.pages["/feed"] = atom(*known, etag='"1"')
    fetch.write_feeds("/feed")
    assert fetch.once() == 0
    assert fetch.once() == 0
    assert server.paths() == ["/feed", "/feed"]
    server.pages["/feed"] = atom(linked("new", server.message("big", issuer.message("big"))), *known, etag='"2"')
    assert fetch.once() == 0
    assert (server.paths(), new()) == (["/feed", "/big.xml"], {"published": 1})


def test_check_of_a_node_that_does_not_take_messages_ends_with_status_1_and_the_reason(fetch, server, tmp_path, warned):
    """That is so for a feed without entries, too: a missing token file, a wrong `sub`, no node (rule FE1)."""
    server.pages["/empty"] = atom()
    fetch.write_feeds("/empty")
    assert fetch.run("--check").returncode == 0
    other = tmp_path / "other.token"
    other.write_text(warned.keys.token(sub="nobody", scope="alerts:publish"))
    for more, why in (
        (("--token-file", str(tmp_path / "none")), "no-token: the token file: No such file or directory"),
        (("--token-file", str(other)), "insufficient-scope: The token's sub is not the name of a CAP source"),
        (("--api", f"http://127.0.0.1:{free_ports(1)[0]}"), "no-answer"),
    ):
        done = fetch.run("--check", *more)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"the node does not take messages: {why}" in done.stdout


def test_check_of_real_messages_says_why_the_node_would_not_take_them(fetch, server, new):
    """Nothing is posted, and messages of all kinds have an outcome or a reason (rule FE1)."""
    cap("google__invalid")
    links = []
    for path in sorted((DATA / "cap").glob("*.xml")):
        body = path.read_bytes()
        with contextlib.suppress(Exception):  # an invalid message stays as it is
            body = moved(body, int(time.time() * 1000) - 60_000)
        links.append(linked(path.stem, server.message(path.stem, body)))
    server.pages["/real"] = atom(*links)
    for path in sorted((DATA / "feeds").iterdir()):
        server.pages[f"/{path.stem}"] = Page(path.read_bytes())
    fetch.write_feeds("/real", *(f"/{path.stem}" for path in sorted((DATA / "feeds").iterdir())))
    done = fetch.run("--check")
    print(done.stdout)
    rows = {row[0]: row[1:] for line in done.stdout.splitlines()[1:] if (row := line.split(maxsplit=4))}
    entries, found, accepted, why = rows["real"]
    assert int(entries) == len(links)
    assert int(found) > 30
    assert int(accepted) > 5
    assert "no-area" in why
    assert rows["google__xee"] == ["0", "0", "0", "doctype"]
    assert rows["google__no_entries"] == ["0", "0", "0"]
    assert rows["google__weather_index"] == ["2", "0", "0", "host-not-allowed 2"]
    assert new() == {}
