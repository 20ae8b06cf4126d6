"""The stand-in for push services (client_demo/push_service.py), judged by others: phones read by http-ece, and who
pushes is checked by py-vapid. Neither shares a line with the server or with the clients."""

import json

import http_ece
from py_vapid import Vapid02

from client_demo import push_service
from client_demo.push_service import HANG, LONG_HEAD, RESET

__all__ = ["HANG", "LONG_HEAD", "RESET", "PushPhone", "PushService"]


class PushPhone(push_service.Phone):
    """A phone that has each message from http-ece; the client has to read the same."""

    def read(self, body):
        """Decrypt a message."""
        text = http_ece.decrypt(body, private_key=self.private, auth_secret=self.auth, version="aes128gcm")
        message = json.loads(text)
        assert super().read(body) == message
        return message


class PushService(push_service.PushService):
    """The service, to which nobody is known whom py-vapid does not know."""

    phone_type = PushPhone

    def __enter__(self):
        service = super().__enter__()
        self.loop.set_debug(False)  # in which it is too slow for a crowd of phones
        return service

    def knows(self, authorization):
        """Who pushes."""
        return "t=" in authorization and Vapid02.verify(authorization) and super().knows(authorization)
