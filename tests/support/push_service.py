"""The fake push service (client_demo/push_service.py), checked by independent libraries.

Phones decrypt with http-ece, and py-vapid verifies the sender. Neither shares code with the server or the clients.
"""

import json

import http_ece
from py_vapid import Vapid02

from client_demo import push_service
from client_demo.push_service import HANG, LONG_HEAD, RESET

__all__ = ["HANG", "LONG_HEAD", "RESET", "PushPhone", "PushService"]


class PushPhone(push_service.Phone):
    """A phone that decrypts each message with http-ece and checks that the client's own code gives the same."""

    def read(self, body):
        """Return the decrypted message."""
        text = http_ece.decrypt(body, private_key=self.private, auth_secret=self.auth, version="aes128gcm")
        message = json.loads(text)
        assert super().read(body) == message
        return message


class PushService(push_service.PushService):
    """The push service, which accepts a sender only if py-vapid verifies it."""

    phone_type = PushPhone

    def knows(self, authorization):
        """Return whether the sender is known and verified."""
        return "t=" in authorization and Vapid02.verify(authorization) and super().knows(authorization)
