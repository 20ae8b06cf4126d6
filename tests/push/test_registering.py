"""Registration over HTTP, in this process: which requests are accepted, and the order and text of refusals."""

import asyncio
import json
import time

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from end_to_end.kit.keys import Keys, bearer
from push.memory_devices import MemoryDevices
from support.fakes import DALLAS, FakeClock

from geocast.auth.base64url import encoded
from geocast.auth.tokens import TokenVerifier, parse_keys
from geocast.egress.outcomes import PostOutcome, PostResponse
from geocast.geometry.sphere import cell_of
from geocast.metrics import Metrics
from geocast.model.errors import StoreUnavailable
from geocast.model.times import format_time
from geocast.push.addresses import parse_services
from geocast.push.device_manager import DeviceManager
from geocast.push.encryption import Keyring
from geocast.push.means import DeviceMeans
from geocast.push.registering import MAX_DEVICES, Registering, RegistrationTerms
from geocast.push.routes import DevicesContext, make_app
from geocast.push.shards import StaticShards
from geocast.push.webpush import Vapid, make_vapid_key, parse_vapid

KEYS = Keys()
ORIGIN = "https://app.example"
ID = "n2Vd0sJm3yQe1xKp"
POINT = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
SUBSCRIPTION = {
    "endpoint": "https://fcm.googleapis.com/fcm/send/secret-part",
    "keys": {"p256dh": encoded(POINT), "auth": encoded(bytes(16))},
}
SECRETS = ("secret-part", encoded(POINT), "somebody")
DAY_MS = 86_400_000


def cell(resolution, east=0.0):
    """Return the cell around a point in Dallas."""
    return f"{cell_of(DALLAS[0], DALLAS[1] + east, resolution):x}"


BODY = {"subscription": SUBSCRIPTION, "places": [{"cell": cell(9)}]}


class FullStore(MemoryDevices):
    """A store that is full."""

    async def put(self, *_, **__):
        """Raise StoreUnavailable."""
        raise StoreUnavailable("SQLITE_FULL")


class Takes:
    """A push client whose pushes are all taken."""

    async def send(self, push, within_s):
        """Return SENT at once."""
        return PostResponse(PostOutcome.SENT, "201")


class Listener:
    """The application, with methods to send requests to it."""

    def __init__(self, store=None, max_devices=100, **terms):
        services = parse_services("fcm.googleapis.com,push.example")
        vapid = Vapid(parse_vapid(json.dumps({"keys": [make_vapid_key("x")]}).encode(), "file"), "mailto:a@b.example")
        self.clock = FakeClock(wall_ms=int(time.time() * 1000))
        self.store = store or MemoryDevices()
        waking = DeviceManager(
            DeviceMeans(
                max_devices + 1, self.store, StaticShards(), Takes(), Keyring([bytes(32)]), services, vapid, self.clock
            )
        )
        self.vapid = vapid.public
        self.keys = parse_keys(json.dumps(KEYS.jwks()).encode(), "keys")
        tokens = TokenVerifier(self.keys)
        self.calls = DevicesContext(tokens, self.clock, Metrics(), [ORIGIN], list)
        self.calls.registering = Registering(
            waking, vapid, RegistrationTerms(services, max_devices=max_devices, **terms), self.clock
        )
        self.waking = waking
        self.app = make_app(self.calls)

    async def ask(self, method, path, body=None, token=None, **headers):
        """Send a request, and check that the answer repeats no secret."""
        token = KEYS.token(sub="somebody", scope="alerts:receive") if token is None else token
        content = json.dumps(body).encode() if body is None or isinstance(body, dict) else body
        headers = {"content-type": "application/json"} | bearer(token) | headers
        if not token:
            del headers["Authorization"]
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://push") as client:
            answer = await client.request(method, path, content=content, headers=headers)
        assert not [word for word in SECRETS if word in answer.text]
        return answer

    async def put(self, body=BODY, device_id=ID, **more):
        """Send a registration."""
        return await self.ask("PUT", f"/v1/devices/{device_id}", body, **more)


def with_listener(**options):
    """Make a test of a coroutine that takes a listener."""

    def decorate(test):
        def run():
            async def main():
                await test(Listener(**options))

            asyncio.run(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def slug(answer):
    """Return the problem type of an answer."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["type"].removeprefix("/problems/")


def wrong(answer):
    """Return (type, pointer) of each violation in an answer."""
    assert answer.status_code == 422, answer.text
    return [(each["type"].removeprefix("/problems/"), each["pointer"]) for each in answer.json()["errors"]]


def changed(**fields):
    """Return a registration with other fields; `...` leaves a field out."""
    return {name: value for name, value in (BODY | fields).items() if value is not ...}


def subscribed(**fields):
    """Return a registration with another subscription."""
    return changed(subscription={n: v for n, v in (SUBSCRIPTION | fields).items() if v is not ...})


# ---- accepted requests -------------------------------------------------------------------------------------------


@with_listener()
async def test_push_key_and_limits_can_be_read_without_a_token(listener):
    """`GET /v1/push` has what a client needs to subscribe."""
    answer = await listener.ask("GET", "/v1/push", token="")
    assert answer.json() == {"vapid": listener.vapid, "cells": [5, 9], "lease_s": 30 * 86_400}


@with_listener()
async def test_second_registration_of_a_device_replaces_the_first(listener):
    """The first is answered 201 with a secret, the second 200 without; each renews the lease (rule WPR9)."""
    first = await listener.put()
    assert first.status_code == 201
    assert first.json().keys() == {"id", "until", "live", "secret"}
    listener.clock.advance(3_600)
    again = await listener.put()
    assert again.status_code == 200
    until = format_time(listener.clock.wall_ms + 30 * DAY_MS)
    assert again.json() == {"id": ID, "until": until, "live": 0}
    assert len(listener.waking.devices) == 1


@pytest.mark.parametrize("resolution", [5, 6, 7, 8, 9])
def test_registration_with_cells_of_resolution_5_to_9_is_accepted(resolution):
    """Places are cells of H3 (rule WPR2)."""

    @with_listener()
    async def test(listener):
        assert (await listener.put(changed(places=[{"cell": cell(resolution)}] * 8))).status_code == 201

    test()


@with_listener()
async def test_expiration_time_of_subscription_shortens_the_registration(listener):
    """Browsers send the field, mostly as null (rule WPR4)."""
    assert (await listener.put(subscribed(expirationTime=None))).status_code == 201
    soon = listener.clock.wall_ms + 5_000
    answer = await listener.put(subscribed(expirationTime=float(soon)))
    assert answer.json()["until"] == format_time(soon)


@with_listener(lease_days=1, finest_cell=7)
async def test_operator_may_require_coarser_cells_and_shorter_registrations(listener):
    """The options are `--finest-cell` and `--lease-days`."""
    offer = (await listener.ask("GET", "/v1/push")).json()
    assert (offer["cells"], offer["lease_s"]) == ([5, 7], 86_400)
    assert wrong(await listener.put()) == [("invalid-value", "/places/0")]
    answer = await listener.put(changed(places=[{"cell": cell(7)}]))
    assert answer.json()["until"] == format_time(listener.clock.wall_ms + DAY_MS)


@with_listener()
async def test_same_device_id_of_two_owners_means_two_devices(listener):
    """No answer tells whether another `sub` uses the id (rule WPR1)."""
    other = KEYS.token(sub="other", scope="alerts:receive")
    await listener.put()
    answer = await listener.put(subscribed(endpoint="https://push.example/1"), token=other)
    assert answer.status_code == 201
    assert len(listener.waking.devices) == 2
    await listener.ask("DELETE", f"/v1/devices/{ID}", token=other)
    assert (await listener.ask("GET", f"/v1/devices/{ID}", token=other)).status_code == 404
    assert (await listener.ask("GET", f"/v1/devices/{ID}")).status_code == 200


@with_listener()
async def test_owner_can_forget_all_devices_at_once(listener):
    """`DELETE /v1/devices` is answered 204, even if there is no device."""
    for number in range(3):
        body = subscribed(endpoint=f"https://push.example/{number}")
        await listener.put(body, device_id=f"{ID}{number}")
    other = KEYS.token(sub="other", scope="alerts:receive")
    await listener.put(subscribed(endpoint="https://push.example/o"), token=other)
    for _ in range(2):
        assert (await listener.ask("DELETE", "/v1/devices")).status_code == 204
    assert [device.record.sub for device in listener.waking.devices] == ["other"]


@with_listener()
async def test_devices_of_the_same_sub_from_two_issuers_are_separate(listener):
    """Neither owner can read, replace or forget the other's device. Rates count separately (rules HD5, WPR1, WPR7)."""
    named = json.dumps({"keys": [key | {"iss": "a"} for key in KEYS.jwks()["keys"]]}).encode()
    await listener.put()
    plain = listener.calls.tokens
    of_a = TokenVerifier(parse_keys(named, "keys"))
    listener.calls.tokens = of_a
    assert (await listener.ask("GET", f"/v1/devices/{ID}")).status_code == 404
    assert (await listener.ask("DELETE", f"/v1/devices/{ID}")).status_code == 204
    assert (await listener.ask("DELETE", "/v1/devices")).status_code == 204
    for number in range(20):
        answer = await listener.put(subscribed(endpoint="https://push.example/a"))
        assert answer.status_code == (200 if number else 201)
    assert (await listener.put()).status_code == 429
    assert [each.record.subject for each in listener.waking.devices] == [("", "somebody"), ("a", "somebody")]
    listener.calls.tokens = plain
    assert (await listener.put()).status_code == 200
    assert (await listener.ask("DELETE", "/v1/devices")).status_code == 204
    assert [each.record.subject for each in listener.waking.devices] == [("a", "somebody")]
    listener.calls.tokens = of_a
    assert (await listener.ask("GET", f"/v1/devices/{ID}")).status_code == 200


@with_listener()
async def test_one_of_several_concurrent_registrations_creates_the_device(listener):
    """There is one device, with one valid secret (rule WPR1)."""
    answers = await asyncio.gather(*(listener.put() for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 200, 200, 200, 201]
    assert len(listener.waking.devices) == 1


# ---- refused requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (changed(places=...), ("missing-field", "/places")),
        (changed(subscription=...), ("missing-field", "/subscription")),
        (changed(extra=1), ("unknown-field", "/extra")),
        (changed(places=[{"lat": 1.0, "lng": 1.0}]), ("missing-field", "/places/0/cell")),
        (changed(places=[{"cell": cell(10)}]), ("invalid-value", "/places/0")),
        (changed(places=[{"cell": cell(9)}, {"cell": cell(4)}]), ("invalid-value", "/places/1")),
        (changed(places=[{"cell": cell(9).upper()}]), ("invalid-value", "/places/0")),
        (changed(places=[{"cell": "8926cb19c93fff0"}]), ("invalid-value", "/places/0")),
        (changed(places=[{"cell": cell(9)}] * 9), ("invalid-value", "/places")),
        (changed(places=[{"cell": cell(9), "here": True}]), ("unknown-field", "/places/0/here")),
        (changed(min_severity="bad"), ("invalid-value", "/min_severity")),
        (changed(categories=["A"]), ("invalid-value", "/categories/0")),
        (changed(languages=["english"]), ("invalid-value", "/languages/0")),
        (changed(proofs=1), ("invalid-value", "/proofs")),
        (changed(holding={"x": 0}), ("invalid-value", "/holding/x")),
        (subscribed(endpoint="https://127.0.0.1/x"), ("endpoint-not-allowed", "/subscription/endpoint")),
        (subscribed(endpoint="https://evil.example/x"), ("endpoint-not-allowed", "/subscription/endpoint")),
        (subscribed(keys={"p256dh": encoded(POINT)}), ("missing-field", "/subscription/keys/auth")),
        (
            subscribed(keys={"p256dh": encoded(b"\4" + bytes(64)), "auth": encoded(bytes(16))}),
            ("invalid-value", "/subscription/keys/p256dh"),
        ),
        (
            subscribed(keys={"p256dh": encoded(POINT), "auth": encoded(bytes(15))}),
            ("invalid-value", "/subscription/keys/auth"),
        ),
        (subscribed(expirationTime=5), ("invalid-value", "/subscription/expirationTime")),
        (subscribed(expirationTime="x"), ("invalid-value", "/subscription/expirationTime")),
    ],
)
def test_registration_with_an_invalid_body_is_refused(body, expected):
    """The answer is 422 with a pointer, and nothing is registered (rules WPR2 to WPR5)."""

    @with_listener()
    async def test(listener):
        assert wrong(await listener.put(body))[0] == expected
        assert len(listener.waking.devices) == 0

    test()


@with_listener()
async def test_answer_to_an_invalid_registration_lists_all_violations(listener):
    """With one answer, the sender can correct the whole body (rules WPR3, WPR4, P9)."""
    body = changed(subscription={"endpoint": "http://x", "keys": {"p256dh": "A", "auth": "ä"}}, places=[{"cell": "x"}])
    assert [pointer for _, pointer in wrong(await listener.put(body))] == [
        "/subscription/endpoint",
        "/subscription/keys/p256dh",
        "/subscription/keys/auth",
        "/places/0",
    ]


@pytest.mark.parametrize("device_id", ["short", "x" * 65, "n2Vd0sJm3yQe1xK!", "n2Vd0sJm3yQe1xK%C3%A9"])
def test_invalid_device_id_is_answered_with_404(device_id):
    """The answer is 404, before the body is read (rule WPR1)."""

    @with_listener()
    async def test(listener):
        assert slug(await listener.put(b"no json", device_id=device_id)) == "not-found"

    test()


@with_listener()
async def test_ninth_device_of_owner_is_refused(listener):
    """The answer is 409. A device that is replaced by its id or its endpoint does not count (rule WPR6)."""
    for number in range(MAX_DEVICES):
        body = subscribed(endpoint=f"https://push.example/{number}")
        assert (await listener.put(body, device_id=f"{ID}{number}")).status_code == 201
    answer = await listener.put()
    assert (answer.status_code, slug(answer)) == (409, "too-many-devices")
    assert (await listener.put(device_id=f"{ID}0")).status_code == 200
    moved = subscribed(endpoint="https://push.example/1")
    assert (await listener.put(moved, device_id=f"{ID}new")).status_code == 201


@with_listener()
async def test_more_than_twenty_registrations_a_minute_or_sixty_an_hour_are_refused(listener):
    """Beyond that the answer is 429 with Retry-After. Bodies that were refused with 422 don't count (rule WPR7)."""
    allowed = 0
    for _ in range(4):
        await listener.put(b"{}")
        while (answer := await listener.put()).status_code < 300:
            allowed += 1
        assert (answer.status_code, slug(answer)) == (429, "rate-limited")
        listener.clock.advance(61)
    assert allowed == 60
    assert int(answer.headers["Retry-After"]) > 3_000


@with_listener(max_devices=1)
async def test_registration_beyond_max_devices_is_refused(listener):
    """`--max-devices` limits the devices of all owners (rule WPR10)."""
    await listener.put()
    answer = await listener.put(
        subscribed(endpoint="https://push.example/o"), token=KEYS.token(sub="other", scope="alerts:receive")
    )
    assert (answer.status_code, slug(answer)) == (503, "full")
    assert (await listener.put()).status_code == 200


@with_listener(store=FullStore())
async def test_registration_that_cannot_be_stored_is_answered_with_503(listener):
    """The process does not use a device that a restart would lose (rules WPR10, WPS4)."""
    answer = await listener.put()
    assert (answer.status_code, slug(answer)) == (503, "store-unavailable")
    assert len(listener.waking.devices) == 0
    assert listener.waking.recorder.error == "SQLITE_FULL"


@with_listener()
async def test_registration_checks_the_token_before_the_device_id_and_the_body(listener):
    """First come 401 and 403, then 404, 413, 415, 400 and 422."""
    for token in KEYS.bad_tokens().values():
        answer = await listener.put(b"x" * 20_000, device_id="short", token=token or "x")
        assert slug(answer) == "unauthorized"
    answer = await listener.put(b"x", device_id="short", token=KEYS.token(scope="alerts:publish"))
    assert slug(answer) == "insufficient-scope"
    answer = await listener.put(b" " * 16_385)
    assert (slug(answer), "16 KiB" in answer.json()["detail"]) == ("too-large", True)
    assert slug(await listener.put(b"x", **{"content-type": "text/plain"})) == "unsupported-media-type"
    assert slug(await listener.put(b'{"a": 1, "a": 2}')) == "malformed-json"
    assert slug(await listener.ask("GET", "/v1/devices/x/y/z")) == "not-found"
    answer = await listener.ask("POST", "/v1/devices")
    assert (slug(answer), answer.headers["Allow"]) == ("method-not-allowed", "DELETE")
    answer = await listener.ask("PATCH", f"/v1/devices/{ID}")
    assert (slug(answer), answer.headers["Allow"]) == ("method-not-allowed", "DELETE, GET, HEAD, PUT")
    assert slug(await listener.ask("GET", "/v1/push?x=1")) == "bad-request"


@with_listener()
async def test_token_revoked_while_the_body_arrives_registers_no_device(listener):
    """Token and key are checked again after the body, so a slow body can't evade a reload (rules WPR9, BA3)."""

    async def slowly(keys, revoked):
        data = json.dumps(BODY).encode()
        yield data[:-1]
        listener.calls.tokens.replace(keys, revoked)
        yield data[-1:]

    for keys, revoked in ((listener.keys, {"somebody": time.time() + 60}), ({}, {})):
        listener.calls.tokens.replace(listener.keys, {})
        answer = await listener.put(slowly(keys, revoked))
        assert (answer.status_code, slug(answer)) == (401, "unauthorized")
    assert len(listener.waking.devices) == 0


@with_listener()
async def test_secret_of_a_device_forgotten_while_the_body_arrives_is_refused(listener):
    """`PUT /v1/devices/{id}/subscription` is answered 401, as with a wrong secret."""
    secret = (await listener.put()).json()["secret"]

    async def slowly():
        data = json.dumps({"subscription": SUBSCRIPTION}).encode()
        yield data[:-1]
        await listener.ask("DELETE", f"/v1/devices/{ID}")
        yield data[-1:]

    answer = await listener.ask("PUT", f"/v1/devices/{ID}/subscription", slowly(), token=secret)
    assert (answer.status_code, slug(answer)) == (401, "unauthorized")


@with_listener()
async def test_draining_or_loading_process_refuses_registrations(listener):
    """The answer is 503, before all other checks."""
    listener.calls.drain.begin()
    answer = await listener.put(token="x")
    assert (answer.status_code, slug(answer)) == (503, "draining")
    listener.calls.drain.begun, listener.calls.registering = False, None
    assert slug(await listener.put()) == "store-unavailable"


# ---- requests from web pages (CORS) ------------------------------------------------------------------------------


@with_listener()
async def test_web_pages_of_allowed_origins_may_register_devices(listener):
    """The origin must be on the list literally; the page may then read the answers (rule S2)."""
    asked = {"origin": ORIGIN, "access-control-request-method": "PUT"}
    answer = await listener.ask("OPTIONS", f"/v1/devices/{ID}", token="", **asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert {"PUT", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    for body in (BODY, {}):
        answer = await listener.put(body, origin=ORIGIN)
        assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (ORIGIN, "Origin")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil", "http://app.example"])
def test_web_pages_of_other_origins_may_not_register_devices(origin):
    """`--origins` is a complete list (rule S2)."""

    @with_listener()
    async def test(listener):
        answer = await listener.put(origin=origin)
        assert (answer.status_code, slug(answer)) == (403, "insufficient-scope")
        assert "access-control-allow-origin" not in answer.headers
        asked = {"origin": origin, "access-control-request-method": "PUT"}
        assert (await listener.ask("OPTIONS", f"/v1/devices/{ID}", token="", **asked)).status_code == 403

    test()
