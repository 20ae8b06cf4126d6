"""Tests of the receiver of webhooks that stands in for a siren."""

import socket
import ssl

import httpx
import pytest
from end_to_end.kit.tls import make_certificate

from client_demo.webhook_receiver import IDLE_S, WebhookReceiver, _Handler


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_idle_connection_does_not_block_the_receiver(tmp_path, scheme):
    """Each connection, and its TLS handshake, has a thread of its own, which ends after a time without a request."""
    crt = make_certificate(tmp_path)
    of_tls = {"crt": str(crt.crt), "key": str(crt.key)} if scheme == "https" else {}
    trust = ssl.create_default_context(cafile=str(crt.crt))
    with WebhookReceiver(**of_tls) as receiver, socket.create_connection(("localhost", receiver.port)):
        assert httpx.post(receiver.url, json={}, verify=trust, trust_env=False, timeout=20).status_code == 200
    assert _Handler.timeout == IDLE_S
