"""Pushes over HTTP to a local service: the outcome of each answer, and the addresses that are refused (WPO4)."""

import asyncio
import contextlib
import gc
import socket
import ssl

import pytest
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import make_certificate
from support.fakes import FakeClock
from support.push_service import HANG, LONG_HEAD, RESET, PushService

from geocast.egress.outcomes import PostOutcome
from geocast.push.addresses import Endpoint
from geocast.push.client import Push
from geocast.push.http_client import HttpPushClient


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate for localhost."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def service(certificate):
    """Run a push service."""
    with PushService(certificate) as service:
        yield service


def send(service, *, host="localhost", private=("localhost",), times=1, within_s=5.0, trusted=True):
    """Send pushes to a phone of the service, under any name of its host; return the results."""
    phone = service.phone(asleep=True)

    async def main():
        tls = ssl.create_default_context(cafile=service.certificate.crt if trusted else None)
        url = phone.endpoint.replace("localhost", host)
        push = Push(Endpoint(url, host, service.port, host), bytes(3_000), 60, "high", "t" * 32, "")
        with contextlib.closing(HttpPushClient(lambda: FakeClock().wall_ms, private, tls).open()) as client:
            return [await client.send(push, within_s) for _ in range(times)]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "outcome", "status"),
    [
        (404, PostOutcome.GONE, "404"),
        (413, PostOutcome.LARGE, "413"),
        (403, PostOutcome.REFUSED, "403"),
        ((307, {"Location": "https://localhost/"}), PostOutcome.REFUSED, "307"),
        (503, PostOutcome.BUSY, "503"),
        (507, PostOutcome.FAILED, "507"),
        (RESET, PostOutcome.MAYBE, "broken"),
        (LONG_HEAD, PostOutcome.MAYBE, "broken"),
    ],
)
def test_outcome_of_a_push_follows_from_the_status_of_the_answer(service, said, outcome, status):
    """An answer with a head of more than 16 KiB is invalid; the service may still have accepted the push."""
    service.answers = [said]
    [answer] = send(service)
    assert (answer.outcome, answer.status) == (outcome, status)


def test_push_without_an_answer_in_time_counts_as_maybe_sent(service):
    """The wait ends with the alert (rules WPO2, E1)."""
    service.always = HANG
    [answer] = send(service, within_s=0.3)
    assert (answer.outcome, answer.status) == (PostOutcome.MAYBE, "no answer")


def test_connection_is_reused_for_the_next_push(service):
    """Three pushes use one connection (rule WPO5)."""
    service.always = 204
    assert [each.status for each in send(service, times=3)] == ["204"] * 3
    assert service.connections == 1


def test_fake_push_service_leaves_no_open_connections_to_later_tests(certificate):
    """Open requests and connections of a closed loop would make a later test fail."""
    tls = ssl.create_default_context(cafile=certificate.crt)

    def serve(lines):
        with PushService(certificate, always=HANG) as service:
            path = service.phone().endpoint.partition(str(service.port))[2]
            for said in ("", f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"):
                line = socket.create_connection(("localhost", service.port))
                line = lines.enter_context(tls.wrap_socket(line, server_hostname="localhost"))
                line.sendall(said.encode())
            wait_until(lambda: service.under_way == 1, "it hangs")

    with contextlib.ExitStack() as lines:
        serve(lines)
        gc.collect()


def test_invalid_certificate_ends_the_connection_before_a_request_is_sent(service):
    """A certificate for another name ends the connection, too (rule WPO4)."""
    [answer] = send(service, trusted=False)
    assert (answer.outcome, answer.status) == (PostOutcome.AWAY, "no connection")
    assert service.statuses == {}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "64:ff9b::7f00:1", "::ffff:127.0.0.1", "2002:7f00:1::"],
)
def test_internal_address_is_never_connected_to(service, monkeypatch, address):
    """Only names of `--push-private` may resolve to internal addresses (rule WPO4)."""
    resolved = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolved(address, *rest, **more))
    [answer] = send(service, host="fcm.googleapis.com")
    assert (answer.outcome, answer.status) == (PostOutcome.AWAY, "no connection")
    assert (service.connections, service.statuses) == (0, {})


def test_only_global_addresses_of_a_host_are_tried(service, monkeypatch):
    """If the public address of a name refuses, its private address is not tried (rule WPO4)."""
    tried = []

    async def connects(self, sock, address):
        tried.append(address[0])
        raise ConnectionRefusedError

    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, service.port)) for each in ("192.0.9.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: both)
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", connects)
    [answer] = send(service, host="fcm.googleapis.com")
    assert answer.outcome is PostOutcome.AWAY
    assert set(tried) == {"192.0.9.1"}
    assert service.connections == 0


def test_proxy_from_environment_variables_is_not_used(service, monkeypatch):
    """A proxy would resolve names itself (rule WPO4)."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        send(service)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert service.connections == 1


def test_request_has_only_the_headers_that_push_services_need(service):
    """No name of a program, no cookie and no language is sent (rule WPP1)."""
    service.always = 204
    send(service)
    wanted = {"Host", "Authorization", "Content-Encoding", "TTL", "Urgency", "Topic", "Content-Length"}
    assert service.headers == wanted
