"""The asyncio shell against a small WebSocket server in this process: what it says, hears, shows and survives."""

import asyncio
import base64
import json
from http import HTTPStatus

import pytest
from support.fake_nodes import FAR, GUARD_S, HOME, FakeNode, alert, quick

from client_demo.conformance import approval_vectors as proofs
from client_demo.python.client import Client, ClientError, RequestRefused, token_expiry_ms
from client_demo.python.link import Pace, first_to_end
from client_demo.python.times import format_time, wall_ms
from client_demo.python.verify import Verifier


def run_once(*scripts, **options):
    """Play scripts, one for each connection, to a client; return the changes that it reported, and the node.

    The client stops when the last script is over.
    """

    async def play():
        changes = []

        async def last(session):
            await scripts[-1](session)
            client.stop()
            await session.stay()

        node = FakeNode(*scripts[:-1], last)
        async with node.running() as url:
            client = quick(url, **{"on_change": changes.append, **options})
            await client.run()
        return changes, node

    return asyncio.run(asyncio.wait_for(play(), GUARD_S))


def gives_up(script, match, **options):
    """Play a script to a client that raises ClientError for it; return the node."""
    node = FakeNode(script)

    async def play():
        async with node.running() as url:
            with pytest.raises(ClientError, match=match):
                await quick(url, **options).run()

    asyncio.run(asyncio.wait_for(play(), GUARD_S))
    return node


async def welcomed(session):
    """Welcome the client, and say no more."""
    await session.welcome()


def closing(code, reason=""):
    """Return a script that closes the connection at once."""
    return lambda session: session.socket.close(code, reason)


@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_a_client_says_where_it_is_and_acknowledges_what_it_has_shown(wire):
    """In both formats, with the filter and the token that it was given."""
    acks = []

    async def script(session):
        await session.welcome(live=1)
        await session.send(type="alert", alert=alert())
        acks.append(await session.read())

    changes, node = run_once(
        script, wire=wire, categories=["arson"], min_severity="minor", token=lambda: "secret", places=[HOME, FAR]
    )
    assert node.hellos == [
        {
            "type": "hello",
            "places": [{"lat": HOME.lat, "lng": HOME.lng}, {"lat": FAR.lat, "lng": FAR.lng}],
            "token": "secret",
            "categories": ["arson"],
            "min_severity": "minor",
        }
    ]
    assert [(change.kind, change.here) for change in changes] == [("new", True)]
    assert acks == [{"type": "ack", "id": "a", "revision": 1}]


def test_fields_without_a_value_are_left_out():
    """Never null."""
    _, node = run_once(welcomed)
    assert set(node.hellos[0]) == {"type", "places"}


async def test_what_the_caller_did_not_show_is_not_acknowledged():
    """It returned False; `ack` says it later."""

    async def script(session):
        await session.welcome()
        await session.send(type="alert", alert=alert("a"))
        await session.send(type="alert", alert=alert("b"))
        assert await session.read() == {"type": "ack", "id": "b", "revision": 1}
        client.ack("a", 1)
        assert await session.read() == {"type": "ack", "id": "a", "revision": 1}
        client.stop()
        await session.stay()

    async with FakeNode(script).running() as url:
        client = quick(url, on_change=lambda change: change.alert["id"] != "a")
        await client.run()


def test_a_client_that_comes_back_says_what_it_holds_and_is_made_right():
    """The node went away; meanwhile one alert was cancelled and one revised."""

    async def first(session):
        await session.welcome()
        await session.send(type="alert", alert=alert("a"))
        await session.send(type="alert", alert=alert("b", revision=2))
        await session.socket.close(1012)

    async def second(session):
        await session.welcome(live=2)
        await session.send(type="cancel", id="a", revision=2, reason="over", cancelled_at=format_time(wall_ms()))
        await session.send(type="alert", alert=alert("b", revision=3, at=FAR))

    changes, node = run_once(first, second)
    assert "holding" not in node.hellos[0]
    assert node.hellos[1]["holding"] == {"a": 1, "b": 2}
    assert [(change.kind, change.alert["id"]) for change in changes] == [
        ("new", "a"),
        ("new", "b"),
        ("cancelled", "a"),
        ("no_longer_here", "b"),
    ]


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 4408, 4420, 4999])
def test_after_these_codes_a_client_comes_back(code):
    """1006 is a connection that is cut."""

    async def cut(session):
        await session.welcome()
        if code == 1006:
            session.socket.transport.abort()
        else:
            await session.socket.close(code)

    _, node = run_once(cut, welcomed)
    assert len(node.hellos) == 2


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4400, 4401, 4403])
def test_after_these_codes_a_client_gives_up_and_says_why(code):
    """4401 too, where there is nobody to ask for a token."""
    assert len(gives_up(closing(code), str(code)).hellos) == 1


def test_a_refused_token_is_replaced_by_a_fresh_one():
    """The callback may be a coroutine function."""
    tokens = iter(["old", "fresh"])

    async def token():
        return next(tokens)

    _, node = run_once(closing(4401), welcomed, token=token)
    assert [hello["token"] for hello in node.hellos] == ["old", "fresh"]


def test_a_refused_token_is_not_sent_again():
    """Without another one there is no point in coming back."""
    node = gives_up(closing(4401), "there is no other one", token=lambda: "always the same")
    assert len(node.hellos) == 1


def test_a_token_is_renewed_before_it_expires():
    """The session goes on; the second one's own `exp` tells when the third is due."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": wall_ms() / 1000 + 0.2}).encode()).decode().rstrip("=")
    tokens = iter(["first", f"x.{claims}.x", "third"])
    sent = []

    async def script(session):
        await session.welcome(token_expires_at=format_time(wall_ms() + 100))
        for _ in range(2):
            message = await session.read()
            sent.append(message)
            await session.send(type="ok", ref=message["ref"], live=0)

    run_once(script, token=lambda: next(tokens))
    assert [(message["type"], message["token"]) for message in sent] == [
        ("token", f"x.{claims}.x"),
        ("token", "third"),
    ]


@pytest.mark.parametrize("token", ["", "opaque", "a.!.c", "a.e30.c", "a.W10.c"])
def test_a_token_that_cannot_be_read_has_no_known_expiry(token):
    """Then the server's 4401 is how we learn of it."""
    assert token_expiry_ms(token) is None


def test_a_server_that_goes_silent_is_asked_and_then_left():
    """`ping` after `heartbeat_s`, dead when no answer comes."""
    pings = []

    async def silent(session):
        await session.welcome(heartbeat_s=0.01)
        pings.append(await session.read())
        await session.stay()

    run_once(silent, welcomed, pong_s=0.05)
    assert pings == [{"type": "ping"}]


def test_a_pong_keeps_the_connection_and_sets_the_clock():
    """The server's `now` is an hour ahead: an alert that ends within it is over."""
    ahead = 3_600_000

    async def script(session):
        await session.welcome(heartbeat_s=0.01)
        assert await session.read() == {"type": "ping"}
        await session.send(type="pong", now=format_time(wall_ms() + ahead))
        await session.send(type="alert", alert=alert("over", lasts_ms=ahead - 60_000))
        await session.send(type="alert", alert=alert("lives", lasts_ms=ahead + 60_000))
        while (await session.read())["type"] != "ack":
            pass

    changes, node = run_once(script)
    assert [change.alert["id"] for change in changes] == ["lives"]
    assert len(node.hellos) == 1


def test_what_is_over_when_it_comes_is_shown_when_the_servers_clock_turns_out_to_be_wrong():
    """The client asks for the time at once; once, however much comes."""
    pings, changes = [], []
    hours = 7_200_000

    async def script(session):
        await session.welcome(now=format_time(wall_ms() + hours))
        for key in ("a", "b"):
            await session.send(type="alert", alert={**alert(key), "issued_at": format_time(wall_ms())})
        pings.append(await session.read())
        assert changes == []
        await session.send(type="pong", now=format_time(wall_ms()))
        assert [(await session.read())["type"] for _ in range(2)] == ["ack", "ack"]

    run_once(script, on_change=lambda change: changes.append((change.kind, change.alert["id"])))
    assert [message["type"] for message in pings] == ["ping"]
    assert changes == [("new", "a"), ("new", "b")]


async def test_an_alert_is_dropped_when_it_ends():
    """Without a word from the server."""
    changes = []

    async def script(session):
        await session.welcome()
        await session.send(type="alert", alert=alert(lasts_ms=60))
        await session.stay()

    def note(change):
        changes.append(change.kind)
        if change.kind == "expired":
            client.stop()

    async with FakeNode(script).running() as url:
        client = quick(url, on_change=note)
        await client.run()
    assert changes == ["new", "expired"]


async def test_a_move_is_known_to_the_server_when_it_returns():
    """At once for what is held; a refusal is raised; the next `hello` says the new place."""
    changes, moved = [], []

    async def first(session):
        await session.welcome()
        await session.send(type="alert", alert=alert())
        assert (await session.read())["type"] == "ack"
        message = await session.read()
        moved.append(message["places"])
        await session.send(type="ok", ref=message["ref"], live=0)
        message = await session.read()
        await session.send(type="error", code="bad-field", detail="no such severity", ref=message["ref"])
        assert (await session.read())["type"] == "move"
        await session.socket.close(1012)

    async def second(session):
        await session.welcome()
        client.stop()
        await session.stay()

    async def walk():
        await shown.wait()
        await client.move([FAR])
        assert moved == [[{"lat": FAR.lat, "lng": FAR.lng}]]
        with pytest.raises(RequestRefused, match="no such severity"):
            await client.filter(min_severity="minor")
        await client.move([FAR, HOME])  # the connection ends before the answer

    def note(change):
        changes.append(change.kind)
        shown.set()

    shown = asyncio.Event()
    node = FakeNode(first, second)
    async with node.running() as url:
        client = quick(url, on_change=note)
        await asyncio.gather(client.run(), walk())
    assert changes == ["new", "no_longer_here", "back_here"]
    assert len(node.hellos[1]["places"]) == 2
    assert node.hellos[1]["min_severity"] == "minor"


async def test_without_a_connection_a_move_waits_for_nothing():
    """The next `hello` says it."""
    client = Client("ws://127.0.0.1:1/v1/stream", [HOME])
    await client.move([FAR])
    assert client.holdings.places == (FAR,)


async def test_languages_are_said_in_the_first_hello():
    """LA2: so that what is live already comes in the right one."""
    said = []

    async def script(session):
        await session.welcome(languages=["de-at", "en"])
        said.append(await session.read())
        await session.send(type="ok", ref=said[-1]["ref"], live=0)
        client.stop()
        await session.stay()

    node = FakeNode(script)
    async with node.running() as url:
        client = quick(url, languages=["de-AT", "en"])

        async def change():
            await client.caught_up()
            await client.filter(languages=None)

        await asyncio.gather(client.run(), change())
    assert node.hellos[0]["languages"] == ["de-AT", "en"]
    assert [(each["type"], each["languages"]) for each in said] == [("filter", None)]


async def test_a_server_of_an_older_release_is_told_no_languages_until_it_shows_that_it_knows_them():
    """LA2: after a 4400 they are left out; a `welcome` that has them is answered by `filter`; then `hello` has them."""
    filters = []

    async def refuses(session):
        assert "languages" in node.hellos[-1]
        await session.socket.close(4400, "malformed message")

    async def older(session):
        assert "languages" not in node.hellos[-1]
        await session.welcome()
        await client.filter(languages=["fr"])
        asked = asyncio.ensure_future(client.filter(languages=["fr", "iu"], min_severity="minor"))
        filters.append(await session.read())
        await session.socket.close(1012, "node is draining")
        await asked

    async def newer(session):
        assert "languages" not in node.hellos[-1]
        await session.welcome(languages=[])
        filters.append(await session.read())
        await session.socket.close(1012, "node is draining")

    async def newer_again(session):
        assert node.hellos[-1]["languages"] == ["fr", "iu"]
        await session.welcome(languages=["fr", "iu"])
        client.stop()
        await session.stay()

    node = FakeNode(refuses, older, newer, newer_again)
    async with node.running() as url:
        client = quick(url, languages=["de"])
        await client.run()
    assert [{name: each[name] for name in each.keys() - {"type", "ref"}} for each in filters] == [
        {"min_severity": "minor"},
        {"languages": ["fr", "iu"]},
    ]


@pytest.mark.parametrize("languages", [None, ["en"]])
def test_a_hello_that_is_malformed_without_languages_ends_it(languages):
    """W3: 4400 is a bug of ours; with languages it is found at the second time."""
    node = gives_up(closing(4400, "malformed message"), "malformed", languages=languages)
    assert ["languages" in hello for hello in node.hellos] == ([True, False] if languages else [False])


@pytest.mark.parametrize("languages", ["en", ["en_US"], ["e"], ["en"] * 9, ["en\n"]])
def test_what_is_no_language_is_refused_at_once(languages):
    """LA2: the server would close every `hello`. The error names the option, and repeats nothing."""
    with pytest.raises(ValueError, match=r"^languages: at most 8 tags"):
        Client("ws://127.0.0.1:1/v1/stream", [HOME], languages=languages)


def test_what_is_malformed_later_is_not_taken_for_a_matter_of_languages():
    """LA2, W3: the `hello` was welcomed."""

    async def refuses(session):
        await session.welcome(languages=["en"])
        await session.socket.close(4400, "malformed message")

    gives_up(refuses, "malformed", languages=["en"])


def test_what_is_unknown_or_nonsense_is_ignored():
    """Within version 1 the server may add messages and fields; and a listener outlives nonsense."""

    async def script(session):
        await session.welcome(future="field")
        await session.send(type="weather", degrees=31)
        await session.send(no_type=True)
        await session.socket.send("{")
        await session.send(type="alert", alert={"id": "incomplete"})
        await session.send(type="ok", ref=99, live=0)
        await session.send(type="error", code="unknown-type", detail="what?")
        await session.send(type="alert", alert={**alert(), "future": {"field": 1}})
        await session.read()

    changes, _ = run_once(script)
    assert [change.kind for change in changes] == ["new"]


def test_a_server_that_does_not_begin_with_a_welcome_speaks_something_else():
    """There is no point in coming back."""

    async def strange(session):
        await session.send(type="greetings")
        await session.stay()

    gives_up(strange, "does not speak this protocol")


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN])
async def test_a_handshake_that_is_refused_for_good_is_one_clear_error(status):
    """The URL, or this client, is wrong."""

    def refuse(socket, request):
        return socket.respond(status, "no")

    async def never(session):
        raise AssertionError

    async with FakeNode(never).running(process_request=refuse) as url:
        with pytest.raises(ClientError, match=f"answered {status.value}"):
            await quick(url).run()


async def test_an_url_that_is_none_is_one_clear_error():
    """Before anything is tried."""
    with pytest.raises(ClientError, match="isn't a valid URI"):
        await quick("http://127.0.0.1/").run()


async def test_an_interruption_is_survived():
    """As in a tunnel."""

    async def first(session):
        await session.welcome()
        await session.send(type="alert", alert=alert())
        await session.stay()

    async def second(session):
        await session.welcome()
        client.stop()
        await session.stay()

    node = FakeNode(first, second)
    async with node.running() as url:
        client = quick(url, on_change=lambda change: client.interrupt())
        await client.run()
    assert len(node.hellos) == 2


async def test_stopping_closes_with_1000():
    """The client's own end."""
    codes = []

    async def script(session):
        await session.welcome()
        client.stop()
        await session.stay()
        codes.append(session.socket.close_code)

    async with FakeNode(script).running() as url:
        client = quick(url)
        await client.run()
    assert codes == [1000]


async def test_what_the_caller_raises_ends_the_run():
    """It is not swallowed."""

    async def script(session):
        await session.welcome()
        await session.send(type="alert", alert=alert())
        await session.stay()

    def broken(change):
        raise ZeroDivisionError

    async with FakeNode(script).running() as url:
        with pytest.raises(ZeroDivisionError):
            await quick(url, on_change=broken).run()


def test_acknowledgements_keep_below_the_servers_limit():
    """A burst at once, then a steady pace, and the burst again after a rest."""
    pace = Pace(per_s=8, burst=3)
    assert [pace.wait_s(100.0) for _ in range(5)] == [0, 0, 0, 1 / 8, 2 / 8]
    assert pace.wait_s(1000.0) == 0


async def test_the_first_to_end_ends_the_others():
    """And what it raised is raised."""
    ended = []

    async def long():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("long")

    async def broken():
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await first_to_end(long(), broken())
    assert ended == ["long"]


# ---- a client that verifies ------------------------------------------------------------------------------------------

SIGNED_NOW = "2031-05-01T12:00:00.000Z"  # when the alert of the vectors lives
SMOKE = proofs.ALERT | {"revision": 1, "headline": "Smoke"}
OTHER = proofs.ALERT | {"id": "other"}


def verifier():
    return Verifier(proofs.approvals()["reviewers"], proofs.AUDIENCE, approvals=2)


@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_what_fails_is_not_held_nor_acknowledged_and_what_was_held_stays(wire):
    """C13, C14: in both formats. Behind it, in order (C15), what is good counts."""
    form = proofs.text(proofs.ALERT)
    forged = proofs.alert(
        proofs.proof(form, proofs.sign(form, proofs.SEVEN), proofs.sign(form, proofs.NINE, by=proofs.SEVEN))
    )
    acks, dropped = [], []

    async def script(session):
        await session.welcome(now=SIGNED_NOW, live=1)
        await session.send(**proofs.alert(proofs.proof(SMOKE), revision=1))
        acks.append(await session.read())
        for message in (forged, proofs.cancel(None, reason="All is well."), proofs.alert(None, **proofs.ALERT)):
            await session.send(**message)
        await session.send(**proofs.cancel(proofs.proof(proofs.CANCEL), revision=4))
        await session.send(**proofs.alert(proofs.proof(proofs.ALERT)))  # it is over, and stays so
        await session.send(**proofs.alert(proofs.proof(OTHER), id="other"))
        acks.append(await session.read())

    changes, _ = run_once(script, wire=wire, verify=verifier(), on_untrusted=dropped.append)
    assert [(change.kind, change.alert["revision"], change.reason) for change in changes] == [
        ("new", 1, None),
        ("cancelled", 1, "The fire is out."),
        ("new", 2, None),
    ]
    assert changes[0].alert["headline"] == "Smoke"
    assert [(ack["id"], ack["revision"]) for ack in acks] == [(proofs.ALERT["id"], 1), ("other", 2)]
    assert [(each.kind, each.reason) for each in dropped] == [
        ("alert", "signature"),
        ("cancel", "unsigned"),
        ("alert", "unsigned"),
    ]
    assert str(dropped[1]) == "a cancel was dropped: unsigned"


def test_what_is_dropped_counts_as_come():
    """`fetch` ends when all that the welcome announced is there, believed or not."""

    async def script(session):
        await session.welcome(now=SIGNED_NOW, live=1)
        await session.send(**proofs.alert(None, **proofs.ALERT))
        await session.stay()

    async def fetch():
        async with FakeNode(script).running() as url:
            await quick(url, verify=verifier(), on_untrusted=dropped.append).fetch()

    dropped = []
    asyncio.run(asyncio.wait_for(fetch(), GUARD_S))
    assert [each.reason for each in dropped] == ["unsigned"]
