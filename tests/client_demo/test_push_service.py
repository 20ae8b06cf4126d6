"""Tests of the push service of the demo: it keeps messages for sleeping phones and records errors in pushes."""

import json
import socket
import ssl
import time

import httpx
import pytest
from end_to_end.kit.wire import PATIENCE

from client_demo.push_service import PushService, make_certificate
from geocast.auth.base64url import decoded
from geocast.push.webpush import Vapid, encrypt, make_vapid_key, parse_vapid

CONTACT = "mailto:ops@city.example"


@pytest.fixture(scope="module")
def vapid_key():
    """Return the VAPID keys of a server that sends pushes."""
    return parse_vapid(json.dumps({"keys": [make_vapid_key("k")]}).encode(), "vapid")


@pytest.fixture
def service(tmp_path):
    """Return a push service with the demo's settings; the `service` fixture of other tests is stricter."""
    with PushService(make_certificate(tmp_path / "ca.pem")) as service:
        yield service


@pytest.fixture
def push(service, vapid_key):
    """Return a function that posts a message as the server does, with the given changes, and returns the status."""
    tls = ssl.create_default_context(cafile=service.certificate.crt)
    with httpx.Client(verify=tls, trust_env=False, timeout=PATIENCE) as http:

        def post(phone, text='{"type": "renew"}', size=3_000, contact=CONTACT, aud=None, now_s=None, **changed):
            keys = phone.subscription()["keys"]
            body = encrypt(text.encode(), decoded(keys["p256dh"]), decoded(keys["auth"]), size)
            vapid = Vapid(vapid_key, contact)
            origin = f"https://localhost:{service.port}" if aud is None else aud
            headers = {
                "Authorization": vapid.header(vapid.public, origin, int(time.time()) if now_s is None else now_s),
                "Content-Encoding": "aes128gcm",
                "TTL": "60",
                "Urgency": "high",
                "Topic": "t" * 32,
            } | {name.replace("_", "-"): value for name, value in changed.items()}
            return http.post(phone.endpoint, content=body, headers=headers).status_code

        yield post


def test_awake_phone_gets_message_at_once_and_sleeping_phone_on_waking(service, push):
    """Sleeping phones get the newest message of each Topic within its TTL; `on_told` is called for each message."""
    heard = []
    awake, asleep = service.phone(on_told=heard.append), service.phone(asleep=True)
    assert push(awake, '{"n": 1}') == 201
    assert awake.told == heard == [{"n": 1}]
    for number in (1, 2):
        assert push(asleep, f'{{"n": {number}}}') == 201
    push(asleep, '{"n": 3}', Topic="u" * 32)
    push(asleep, '{"n": 4}', Topic="v" * 32)
    asleep.kept["v" * 32].at -= 61
    assert asleep.told == []
    asleep.wake()
    assert asleep.told == [{"n": 2}, {"n": 3}]
    assert service.wrong == []


def test_push_to_ended_subscription_returns_404(service, push):
    phone = service.phone()
    service.forget(phone)
    assert push(phone) == 404


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"size": 2_999}, "the length of the body"),
        ({"Content_Encoding": "aesgcm"}, "Content-Encoding"),
        ({"TTL": "0"}, "TTL"),
        ({"TTL": "soon"}, "TTL"),
        ({"Urgency": "extreme"}, "Urgency"),
        ({"Topic": "short"}, "Topic"),
        ({"Cookie": "a=b"}, "a cookie"),
        ({"Authorization": ""}, "VAPID"),
        ({"Authorization": "vapid t=a.b.c,k=AAAA"}, "VAPID"),
        ({"aud": "https://localhost"}, "VAPID"),
        ({"now_s": 0}, "VAPID"),
        ({"now_s": int(time.time()) + 100_000}, "VAPID"),
        ({"contact": "ops"}, "VAPID"),
    ],
)
def test_error_in_push_is_recorded(service, push, changed, what):
    """The service accepts the push all the same; tests read its list `wrong`."""
    phone = service.phone(asleep=True)
    push(phone, **changed)
    assert service.wrong == [what]


def test_push_signed_by_another_key_than_named_is_recorded(service, push, vapid_key):
    """The key named in the header must be the key that signed the token."""
    other = parse_vapid(json.dumps({"keys": [make_vapid_key("k")]}).encode(), "vapid")
    vapid = Vapid(vapid_key, CONTACT)
    header = vapid.header(vapid.public, f"https://localhost:{service.port}", int(time.time()))
    push(service.phone(), Authorization=header)
    assert service.wrong == []
    push(service.phone(), Authorization=header.replace(vapid.public, other[0].public))
    assert service.wrong == ["VAPID"]


def test_taken_port_raises_oserror(tmp_path):
    """The error is raised in the thread that starts the service."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        PushService(make_certificate(tmp_path / "ca.pem"), port=taken.getsockname()[1]).__enter__()
