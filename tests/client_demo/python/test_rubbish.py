"""Tests of malformed server messages: the client does not end, and keeps a bounded delay before reconnecting."""

import asyncio
import base64
import itertools
import json
import math

import pytest
from websockets.asyncio.server import serve

from client_demo.python.client import Client, token_expiry_ms
from client_demo.python.geo import Place
from client_demo.python.holdings import MAX_HELD, Holdings, Kind
from client_demo.python.publisher import MAX_RETRY_AFTER_S, retry_after_s
from client_demo.python.reconnect import After, Backoff
from client_demo.python.times import format_time, wall_ms

GUARD_S = 60.0  # a test that takes longer is considered hung
HOME = Place.at(32.7767, -96.797)
NO_WINDOWS = [
    (0, 0),
    (0, 99),
    (-1, 5_000),
    (5_000, 1_000),
    (1_000, math.inf),
    (math.inf, math.inf),
    (math.nan, 5_000),
    (1_000, 3_600_001),
    (1_000, 10**400),
    (False, 5_000),
    ("0", "5000"),
    (None, None),
]


@pytest.mark.parametrize(("low", "high"), NO_WINDOWS)
def test_invalid_retry_window_is_ignored(low, high):
    """The previous window applies again, without doublings (rule 3 of reconnect)."""
    soonest, latest = Backoff(lambda: 0.0), Backoff(lambda: 1.0)
    for backoff in (soonest, latest):
        backoff.welcomed(2_000, 9_000)
        backoff.delay_s(After.WINDOW)
        backoff.welcomed(low, high)
    assert (soonest.delay_s(After.WINDOW), latest.delay_s(After.WINDOW)) == (2, 9)


NOW = format_time(wall_ms())
WELCOMES = [
    {},
    {"now": None, "live": None, "heartbeat_s": None, "retry": None},
    {"now": "noon", "live": "many", "heartbeat_s": "often", "retry": "soon", "token_expires_at": "never"},
    {"now": NOW, "live": math.inf, "heartbeat_s": math.inf, "retry": {"min_ms": math.inf, "max_ms": math.inf}},
    {"now": NOW, "live": -1, "heartbeat_s": 10**400, "retry": {}, "token_expires_at": 7},
    {"now": [], "live": [], "heartbeat_s": [], "retry": []},
]
MESSAGES = [
    {"type": "alert"},
    {"type": "alert", "alert": []},
    {"type": "alert", "alert": {"id": "b", "revision": 1, "expires_at": "9999-12-31T00:00:00Z", "area": "circle"}},
    {"type": "cancel"},
    {"type": "cancel", "id": [], "revision": 2},
    {"type": "pong"},
    {"type": "pong", "now": "noon"},
    {"type": "error"},
    {"type": "error", "ref": []},
    {"type": "ok", "ref": {}},
    {"type": "move", "ref": None},
]


@pytest.mark.parametrize("fields", WELCOMES, ids=range(len(WELCOMES)))
def test_client_survives_any_welcome_and_any_message(fields):
    """The client shows the next alert and is caught up."""
    alert = {
        "id": "a",
        "revision": 1,
        "expires_at": "9999-12-31T00:00:00Z",
        "area": [{"type": "circle", "lat": HOME.lat, "lng": HOME.lng, "radius_m": 1000.0}],
    }

    async def node(socket):
        await socket.recv()
        await socket.send(json.dumps({"type": "welcome", **fields}))
        for message in [*MESSAGES, {"type": "alert", "alert": alert}]:
            await socket.send(json.dumps(message))
        await socket.wait_closed()

    async def play():
        shown = asyncio.get_running_loop().create_future()
        async with serve(node, "127.0.0.1", 0, subprotocols=["geocast.v1.json"], compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            client = Client(f"ws://127.0.0.1:{port}/v1/stream", [HOME], on_change=shown.set_result)
            running = asyncio.ensure_future(client.run())
            await asyncio.wait({running, shown}, return_when=asyncio.FIRST_COMPLETED)
            await client.caught_up()
            client.stop()
            await running
        return shown.result()

    change = asyncio.run(asyncio.wait_for(play(), GUARD_S))
    assert change.alert["id"] == "a"


@pytest.mark.parametrize("exp", [math.inf, -math.inf, math.nan, "soon", None, [], 10**400])
def test_token_with_an_odd_expiry_has_none(exp):
    """The client learns of the expiry from close code 4401."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).decode().rstrip("=")
    assert token_expiry_ms(f"x.{claims}.x") in (None, 10**403)


@pytest.mark.parametrize(
    "value", ["9" * 400, "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"]
)
def test_retry_after_is_at_most_an_hour(value):
    assert retry_after_s(value) in (0, MAX_RETRY_AFTER_S)


@pytest.mark.parametrize("value", ["", "-1", "1e999", "soon", "Fri, 31 Dec " + "9" * 30 + " 23:59:59 GMT", "²"])
def test_invalid_retry_after_is_ignored(value):
    assert retry_after_s(value) == 0


def test_every_pair_of_odd_values_gives_a_bounded_delay():
    """The delay is between 0.1 s and an hour."""
    values = [*itertools.chain.from_iterable(NO_WINDOWS), 100, 3_600_000]
    for low, high in itertools.product(values, repeat=2):
        backoff = Backoff(lambda: 1.0)
        backoff.welcomed(low, high)
        assert 0.1 <= backoff.delay_s(After.WINDOW) <= 3600


GOOD = {
    "id": "good",
    "revision": 1,
    "expires_at": "9999-12-31T00:00:00Z",
    "area": [{"type": "circle", "lat": HOME.lat, "lng": HOME.lng, "radius_m": 1000.0}],
}
ODD_STORED = [{"revision": 2**40}, {"revision": 1.5}, {"id": "x" * 300}, {"id": "a b"}, {"more": math.inf}]


def test_stored_odd_alerts_are_left_out_and_good_ones_are_kept():
    """An earlier release may have stored what a `hello` must not list."""
    stored = [{"alert": GOOD | odd, "shown": True, "keep_until": 2**60} for odd in (*ODD_STORED, {})]
    holdings = Holdings([HOME])
    assert holdings.restore([*stored, None, {}], 0) == len(ODD_STORED) + 2
    assert holdings.holding(0)[0] == {"good": 1}
    assert Holdings([HOME]).restore("nonsense", 0) == 1


def test_alerts_between_two_hellos_are_bounded():
    holdings = Holdings([HOME])
    changes = [each for n in range(MAX_HELD + 5) for each in holdings.take_alert(GOOD | {"id": f"a{n}"}, 0)]
    assert len(holdings) == MAX_HELD
    assert sum(change.kind is Kind.DROPPED for change in changes) == 5


def test_client_without_a_node_tries_again_soon():
    """The delays are about 1, 2 and 4 s, until something answers."""
    soonest, latest = Backoff(lambda: 0.0), Backoff(lambda: 1.0)
    delays = [tuple(each.delay_s(After.WINDOW, 0.0, False) for each in (soonest, latest)) for _ in range(5)]
    assert delays == [(0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16)]
    latest.welcomed(None, None)
    assert latest.delay_s(After.WINDOW, 0.0, False) == 30
