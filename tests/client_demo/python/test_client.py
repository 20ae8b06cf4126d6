"""Tests of the asyncio client against a small WebSocket server in this process."""

import asyncio
import base64
import json
import ssl
from http import HTTPStatus

import pytest
from end_to_end.kit.tls import make_certificate
from support.fake_nodes import FAR, GUARD_S, HOME, FakeNode, alert, quick

from client_demo.conformance import approval_vectors as proofs
from client_demo.python.client import Client, ClientError, RequestRefused, token_expiry_ms
from client_demo.python.link import Pace, first_to_end
from client_demo.python.times import format_time, wall_ms
from client_demo.python.verify import Verifier


def run_once(*scripts, **options):
    """Play one script per connection to a client.

    Return the reported changes and the node. The client stops when the last script ends.
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
    """Play a script for which the client raises ClientError. Return the node."""
    node = FakeNode(script)

    async def play():
        async with node.running() as url:
            with pytest.raises(ClientError, match=match):
                await quick(url, **options).run()

    asyncio.run(asyncio.wait_for(play(), GUARD_S))
    return node


async def welcomed(session):
    """Welcome the client and send nothing more."""
    await session.welcome()


def closing(code, reason=""):
    """Return a script that closes the connection at once."""
    return lambda session: session.socket.close(code, reason)


@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_client_sends_places_and_acknowledges_shown_alerts(wire):
    """The hello also has the filter and token; both formats are tried."""
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


def test_fields_without_a_value_are_omitted():
    """A field without a value is never sent as null."""
    _, node = run_once(welcomed)
    assert set(node.hellos[0]) == {"type", "places"}


async def test_alert_not_shown_is_acknowledged_only_by_ack():
    """The callback returned False, and `ack` acknowledges it later."""

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


def test_reconnecting_client_lists_held_alerts_and_gets_changes():
    """One alert was cancelled and one revised while the client was away."""

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
def test_client_reconnects_after_close_code(code):
    """Code 1006 stands for a broken connection."""

    async def cut(session):
        await session.welcome()
        if code == 1006:
            session.socket.transport.abort()
        else:
            await session.socket.close(code)

    _, node = run_once(cut, welcomed)
    assert len(node.hellos) == 2


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4400, 4401, 4403])
def test_client_gives_up_after_close_code(code):
    """Without a token callback, 4401 is final too."""
    assert len(gives_up(closing(code), str(code)).hellos) == 1


def test_refused_token_is_replaced_by_a_fresh_one():
    """The callback may be a coroutine function."""
    tokens = iter(["old", "fresh"])

    async def token():
        return next(tokens)

    _, node = run_once(closing(4401), welcomed, token=token)
    assert [hello["token"] for hello in node.hellos] == ["old", "fresh"]


def test_refused_token_is_not_sent_again():
    """If the callback gives the same token again, the client gives up."""
    node = gives_up(closing(4401), "there is no other one", token=lambda: "always the same")
    assert len(node.hellos) == 1


@pytest.mark.parametrize(
    ("script", "refuses"), [(closing(4401), True), (closing(4403), True), (closing(4400), False), (welcomed, None)]
)
def test_client_says_how_its_last_connection_ended(script, refuses):
    """`ending` is None while a connection is open, and says whether another token may help."""
    endings = []

    async def play():
        async with FakeNode(script).running() as url:
            client = quick(url, on_status=lambda _: (endings.append(client.ending), client.stop()))
            try:
                await client.run()
            except ClientError:
                endings.append(client.ending)

    asyncio.run(asyncio.wait_for(play(), GUARD_S))
    assert [ending and ending.refuses_token for ending in endings] == [refuses]


def test_alert_ends_after_the_client_has_given_up():
    """A program that still shows alerts calls `expire` until the next `run`."""
    ended = asyncio.Event()

    async def script(session):
        await session.welcome(live=1)
        await session.send(type="alert", alert=alert(lasts_ms=2_000))
        await session.read()
        await session.socket.close(4403)

    def note(change):
        if change.kind == "expired":
            ended.set()

    async def play():
        async with FakeNode(script).running() as url:
            client = quick(url, on_change=note)
            with pytest.raises(ClientError):
                await client.run()
            assert len(client.holdings) == 1
            await first_to_end(client.expire(), ended.wait())
            assert len(client.holdings) == 0

    asyncio.run(asyncio.wait_for(play(), GUARD_S))


def test_client_uses_the_tls_context_that_it_is_given(tmp_path):
    """A plain URL needs none."""
    certificate = make_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.crt, certificate.key)

    async def play(**options):
        node = FakeNode(welcomed)
        async with node.running(**options) as url:
            secure = url.replace("ws:", "wss:") if options else url
            tls = ssl.create_default_context(cafile=certificate.crt)
            client = quick(secure, tls=tls, on_status=lambda _: client.stop())
            await client.run()
        return len(node.hellos)

    assert asyncio.run(asyncio.wait_for(play(ssl=server), GUARD_S)) == 1
    assert asyncio.run(asyncio.wait_for(play(), GUARD_S)) == 1


def test_token_is_renewed_before_it_expires():
    """The session stays open; the `exp` of the second token says when the third is due."""
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
def test_unreadable_token_has_no_known_expiry(token):
    """The client then learns of the expiry from close code 4401."""
    assert token_expiry_ms(token) is None


def test_silent_server_is_pinged_and_then_left():
    """The ping is sent after `heartbeat_s`; without an answer the client reconnects."""
    pings = []

    async def silent(session):
        await session.welcome(heartbeat_s=0.01)
        pings.append(await session.read())
        await session.stay()

    run_once(silent, welcomed, pong_s=0.05)
    assert pings == [{"type": "ping"}]


def test_pong_keeps_the_connection_and_sets_the_clock():
    """The server's `now` is an hour ahead, so an alert that ends within the hour is over."""
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


def test_alert_over_by_a_wrong_server_clock_is_shown_once_corrected():
    """The client asks for the time once, however many such alerts come."""
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


async def test_alert_is_dropped_when_it_ends():
    """The client needs no message from the server for this."""
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


async def test_move_returns_when_the_server_knows_the_places():
    """Held alerts change at once; a refusal is raised; the next `hello` has the new places."""
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


async def test_move_without_a_connection_does_not_wait():
    """The next `hello` has the new places."""
    client = Client("ws://127.0.0.1:1/v1/stream", [HOME])
    await client.move([FAR])
    assert client.holdings.places == (FAR,)


async def test_languages_are_sent_in_the_first_hello():
    """Live alerts then come in the right language (rule LA2)."""
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


async def test_languages_are_withheld_from_an_older_server():
    """After a 4400 they are omitted.

    After a `welcome` with languages they go into a `filter`, and then into `hello` (rule LA2).
    """
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
def test_malformed_hello_without_languages_ends_the_client(languages):
    """A 4400 shows a bug in the client; with languages, the client first tries once more without them (rule W3)."""
    node = gives_up(closing(4400, "malformed message"), "malformed", languages=languages)
    assert ["languages" in hello for hello in node.hellos] == ([True, False] if languages else [False])


@pytest.mark.parametrize("languages", ["en", ["en_US"], ["e"], ["en"] * 9, ["en\n"]])
def test_invalid_languages_raise_valueerror(languages):
    """The server would refuse every `hello`; the error names the option and repeats no value (rule LA2)."""
    with pytest.raises(ValueError, match=r"^languages: at most 8 tags"):
        Client("ws://127.0.0.1:1/v1/stream", [HOME], languages=languages)


def test_malformed_message_after_the_welcome_is_not_blamed_on_languages():
    """The server had accepted the `hello` (rules LA2, W3)."""

    async def refuses(session):
        await session.welcome(languages=["en"])
        await session.socket.close(4400, "malformed message")

    gives_up(refuses, "malformed", languages=["en"])


def test_unknown_or_malformed_messages_are_ignored():
    """Later releases of version 1 may send new messages and fields."""

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


def test_message_before_the_welcome_is_dropped_and_ends_nothing():
    """The next good alert is heard on the same connection."""

    async def strange(session):
        await session.send(type="greetings")
        await session.welcome()
        await session.send(type="alert", alert=alert())
        await session.read()

    changes, _ = run_once(strange)
    assert [change.kind for change in changes] == ["new"]


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN])
async def test_permanently_refused_handshake_raises_clienterror(status):
    """These statuses mean that the URL or the client is wrong."""

    def refuse(socket, request):
        return socket.respond(status, "no")

    async def never(session):
        raise AssertionError

    async with FakeNode(never).running(process_request=refuse) as url:
        with pytest.raises(ClientError, match=f"answered {status.value}"):
            await quick(url).run()


async def test_invalid_url_raises_clienterror():
    with pytest.raises(ClientError, match="isn't a valid URI"):
        await quick("http://127.0.0.1/").run()


async def test_client_reconnects_after_an_interruption():

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


async def test_stop_closes_with_1000():
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


async def test_error_in_a_callback_ends_the_run():

    async def script(session):
        await session.welcome()
        await session.send(type="alert", alert=alert())
        await session.stay()

    def broken(change):
        raise ZeroDivisionError

    async with FakeNode(script).running() as url:
        with pytest.raises(ZeroDivisionError):
            await quick(url, on_change=broken).run()


def test_acknowledgements_stay_below_the_servers_limit():
    """A burst is sent at once, then a steady pace is kept; after a rest the burst is available again."""
    pace = Pace(per_s=8, burst=3)
    assert [pace.wait_s(100.0) for _ in range(5)] == [0, 0, 0, 1 / 8, 2 / 8]
    assert pace.wait_s(1000.0) == 0


async def test_first_to_end_cancels_the_others():
    """The error of the first coroutine is raised."""
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


# ---- verification ----------------------------------------------------------------------------------------------------

SIGNED_NOW = "2031-05-01T12:00:00.000Z"  # a time at which the alert of the vectors is live
SMOKE = proofs.ALERT | {"revision": 1, "headline": "Smoke"}
OTHER = proofs.ALERT | {"id": "other"}


def verifier():
    return Verifier(proofs.approvals()["reviewers"], proofs.AUDIENCE, approvals=2)


@pytest.mark.parametrize("wire", ["json", "msgpack"])
def test_unverified_message_is_dropped_and_held_alert_stays(wire):
    """A dropped message is not acknowledged, and later ones are read in order (rules C13, C14, C15)."""
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
        await session.send(**proofs.alert(proofs.proof(proofs.ALERT)))  # this alert was cancelled and stays so
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


def test_dropped_alert_counts_as_received():
    """`fetch` ends when all alerts that the welcome announced have come, trusted or not."""

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


async def test_test_alert_is_asked_for_and_comes_like_any_alert():
    """TR1: `try_me` returns its id; a refusal has the wait; without a connection nothing is asked."""
    changes, refused = [], []

    async def script(session):
        await session.welcome()
        asked = await session.read()
        await session.send(type="ok", ref=asked["ref"], live=1)
        await session.send(type="alert", alert=alert(f"try:{asked['id']}") | {"status": "test"})
        while (message := await session.read())["type"] != "try":
            pass
        await session.send(type="error", code="rate-limited", detail="later", retry_after_s=1200, ref=message["ref"])
        await session.stay()

    async def walk():
        assert await client.try_me() is None
        await client.caught_up()
        changes.append(await client.try_me())
        await shown.wait()
        with pytest.raises(RequestRefused) as error:
            await client.try_me()
        refused.append((error.value.code, error.value.retry_after_s))
        client.stop()

    def note(change):
        changes.append(change.alert["id"])
        shown.set()

    shown = asyncio.Event()
    async with FakeNode(script).running() as url:
        client = quick(url, on_change=note)
        await asyncio.gather(client.run(), walk())
    assert len(changes) == 2
    assert changes[0] == changes[1]
    assert refused == [("rate-limited", 1200)]
