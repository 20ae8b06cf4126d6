"""Registration of devices: which requests are accepted, and what is stored (rules WPR1 to WPR8, WPR10).

The checks of a request and the statuses of refusals, in order:

    the middleware: 401, 403 ──> the id: 404 ──> the body: 413, 415, 400 ──> this module: 422 ──> 429 ──> 409 ──> 503

This module uses no HTTP. No answer repeats an endpoint, a key or a place.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from ..auth.base64url import decoded
from ..auth.scopes import TEST
from ..auth.tokens import Grant, Subject
from ..clock import Clock, Now
from ..geometry.sphere import cell_from_string
from ..model import problems
from ..model.alert import Severity
from ..model.problems import Problem, Violation
from ..model.times import format_time
from ..policy.publishers.bounds import Rate
from ..policy.publishers.rates import Rates
from ..stream.own_tests import with_request
from ..stream.session import KEY_PATTERN, MAX_HOLDING, MAX_PLACES, Categories, Languages
from ..wire.fields import Id, RevisionNumber, StrictModel, broken_fields
from .addresses import Services
from .device_manager import DeviceManager
from .device_repository import OpenedDevice
from .devices import RENEW_MS, digest_of_secret, new_secret
from .devicestore import Limits, PutResult, RegistrationKey
from .encryption import Record
from .webpush import AUTH_BYTES, Vapid, point

COARSEST_CELL, FINEST_CELL = 5, 9  # H3 resolutions
MAX_DEVICES = 8  # number of devices of one subject (rule HD5)
RATES = (Rate(20, 60), Rate(60, 3600))  # registrations of one subject: 20 in a minute, 60 in an hour
MAX_LEASE_DAYS = 30
_DAY_MS = 86_400_000
_TOPIC_KEY_BYTES = 32
_MAX_EXPIRATION_MS = 2**53

_ID = re.compile("[A-Za-z0-9_-]{16,64}")


class SubscriptionKeys(StrictModel):
    """The keys of a subscription, with which messages are encrypted (RFC 8291), in base64url."""

    p256dh: Annotated[str, Field(max_length=128)]
    auth: Annotated[str, Field(max_length=64)]


class Subscription(StrictModel):
    """A PushSubscription, as browsers serialize it to JSON."""

    endpoint: str
    keys: SubscriptionKeys
    expirationTime: Annotated[float, Field(ge=0, le=_MAX_EXPIRATION_MS)] | None = None  # noqa: N815 (the browsers' word)


class DevicePlace(StrictModel):
    """A place of a device: an H3 cell. The cell's resolution is checked later, together with the other fields."""

    cell: Annotated[str, Field(max_length=32)]


class Registration(StrictModel):
    """The body of a device's PUT. It always replaces the whole registration."""

    subscription: Subscription
    places: Annotated[list[DevicePlace], Field(max_length=MAX_PLACES)]
    holding: Annotated[dict[Id, RevisionNumber], Field(max_length=MAX_HOLDING)] = {}  # noqa: RUF012 (pydantic copies it)
    categories: Categories = []  # noqa: RUF012
    min_severity: Severity = "minor"
    languages: Languages = []  # noqa: RUF012
    proofs: bool = False
    own_test: Annotated[str, Field(alias="try", pattern=KEY_PATTERN)] = ""  # empty means "left out"


class Readdressing(StrictModel):
    """The body of a service worker's PUT, which changes only the subscription of a device."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class RegistrationTerms:
    """The limits on registrations that the operator sets.

    `finest_cell` is an H3 resolution. `lease_days` is the maximum number of days that a registration lasts.
    `max_devices` is the maximum number of devices of all owners together.
    """

    services: Services
    finest_cell: int = FINEST_CELL
    lease_days: int = MAX_LEASE_DAYS
    max_devices: int = 200_000


class Registering:
    """Registers devices, and shows owners what is stored about their devices."""

    def __init__(self, waking: DeviceManager, vapid: Vapid, terms: RegistrationTerms, clock: Clock) -> None:
        self._waking = waking
        self._vapid = vapid
        self._terms = terms
        self._clock = clock
        self._rates = Rates()  # counts the registrations at this process
        self._limits = Limits(MAX_DEVICES, terms.max_devices)

    def offer(self) -> dict[str, Any]:
        """Return what a client has to know before it subscribes to a push service, as a JSON object."""
        return {
            "vapid": self._vapid.public,
            "cells": [COARSEST_CELL, self._terms.finest_cell],
            "lease_s": self._terms.lease_days * _DAY_MS // 1000,
        }

    async def put(self, device_id: str, body: Mapping[str, Any], grant: Grant) -> tuple[dict[str, Any], bool]:
        """Register a device, or replace its registration.

        Return the body of the answer, and whether the device was not registered before. `grant` has the rights of the
        caller's token. Raise Problem (see the order in the module's docstring) if the request is refused.
        """
        asked = self._read(Registration, body)
        now = self._clock.now()
        self._rates.claim(grant.subject, RATES, now.monotonic)
        until_ms = self._until(asked.subscription, now.wall_ms + self._terms.lease_days * _DAY_MS)
        secret = new_secret()
        new = _record(device_id, asked, grant, self._vapid.public, digest_of_secret(secret))
        if until_ms - now.wall_ms <= RENEW_MS:  # no reminder: it would be sent at once, after each registration
            new = replace(new, renewed=True)

        def change(before: OpenedDevice | None) -> tuple[Record, int]:
            return (new if before is None else _reregistered(new, before.record)), until_ms

        digest = self._waking.records.digest_of(grant.subject, device_id)
        holding = with_request(asked.holding, asked.own_test or None)
        if asked.own_test:
            self._count_own_test(grant.subject, now)
        try:
            changed = await self._waking.put(digest, change, self._limits, holding)
            if changed.result is not PutResult.STORED:
                raise Problem(problems.TOO_MANY_DEVICES if changed.result is PutResult.TOO_MANY else problems.FULL)
        except BaseException:
            if asked.own_test:
                self._waking.own_tests.give_back(grant.subject, now.monotonic)
            raise
        answer = {"id": device_id, "until": format_time(until_ms), "live": changed.live}
        is_new = changed.before is None
        return (answer | {"secret": secret} if is_new else answer), is_new

    def _count_own_test(self, owner: Subject, now: Now) -> None:
        """Count the own test that a registration asks for (rule TR5).

        Raise Problem (429) if the owner has had a test within the last hour.
        """
        if wait_s := self._waking.own_tests.wait_s(owner, now):
            detail = f"The next test is allowed in {wait_s} s. Nothing was stored."
            raise Problem.later(problems.RATE_LIMITED, wait_s, detail)

    async def readdress(self, device: OpenedDevice, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give a device another subscription.

        The end of its registration stays the same. Return the body of the answer, or None if the device was forgotten
        meanwhile. Raise Problem if the request is refused.
        """
        asked = self._read(Readdressing, body).subscription
        self._rates.claim(device.record.subject, RATES, self._clock.now().monotonic)
        p256dh, auth = decoded(asked.keys.p256dh), decoded(asked.keys.auth)
        until_ms = self._until(asked, device.stored.until_ms)

        def change(before: OpenedDevice | None) -> tuple[Record, int] | None:
            if before is None or before.stored.secret != device.stored.secret:
                return None
            record = replace(before.record, endpoint=asked.endpoint, p256dh=p256dh, auth=auth, small=False)
            is_same = record.endpoint == before.record.endpoint
            return record if is_same else replace(record, vapid=self._vapid.public, worked=False), until_ms

        changed = await self._waking.put(device.stored.device, change)
        return None if changed.result is None else {"until": format_time(until_ms)}

    def check(self, device_id: str) -> None:
        """Raise Problem (404) if this is not a valid device id (rule WPR1)."""
        if _ID.fullmatch(device_id) is None:
            raise Problem(problems.NOT_FOUND)

    async def find(self, device_id: str, owner: Subject) -> OpenedDevice | None:
        """Return an owner's device, or None.

        Raise Problem (404) for an invalid id, and StoreUnavailable if the store can't be used.
        """
        self.check(device_id)
        return await self._waking.records.find(self._waking.records.digest_of(owner, device_id))

    async def knowing(self, device_id: str, secret: str) -> OpenedDevice | None:
        """Return the device with this id and this secret, or None.

        Raise StoreUnavailable if the store can't be used.
        """
        device = await self._waking.records.knowing(digest_of_secret(secret))
        return device if device is not None and device.record.id == device_id else None

    async def forget(self, device_id: str | None, owner: Subject) -> None:
        """Forget one device of an owner, or all of them if the id is None.

        Raise Problem (404) for an invalid id, and StoreUnavailable if the store can't be used.
        """
        devices: Sequence[RegistrationKey]
        if device_id is None:
            devices = await self._waking.records.owned(owner)
        else:
            found = await self.find(device_id, owner)
            devices = [] if found is None else [found.stored.known]
        await self._waking.forget_asked(devices)

    def shown(self, device: OpenedDevice) -> dict[str, Any]:
        """Return the data that is stored about a device, in the form in which its owner may see it.

        Keys and secrets are left out, and only the host of the endpoint is shown.
        """
        record = device.record
        return {
            "id": record.id,
            "until": format_time(device.stored.until_ms),
            "subscription": {"endpoint": urlsplit(record.endpoint).hostname},
            "places": [{"cell": cell} for cell in record.cells],
            **({} if record.categories is None else {"categories": list(record.categories)}),
            "min_severity": record.min_severity,
            "languages": list(record.languages),
            "proofs": record.proofs,
        }

    # ---- checks of a request's body ------------------------------------------------------------------------------

    def _read(self, model: type[Any], body: Mapping[str, Any]) -> Any:
        try:
            asked = model.model_validate(body)
        except ValidationError as error:
            raise Problem.of(broken_fields(error)) from None
        if broken := list(self._broken(asked)):
            raise Problem.of(broken)
        return asked

    def _broken(self, asked: Registration | Readdressing) -> Iterator[Violation]:
        """Yield a violation for each of the rules WPR2 to WPR4 that the request breaks.

        Rules that are expressed by the types of the fields have been checked before.
        """
        subscription = asked.subscription
        if self._terms.services.allowed(subscription.endpoint) is None:
            wanted = "must be an https URL of at most 1,000 bytes at a push service that this server allows"
            yield Violation(problems.ENDPOINT_NOT_ALLOWED, "/subscription/endpoint", wanted)
        if not _decodes(subscription.keys.p256dh, point):
            wanted = "must be an uncompressed point of P-256, 65 bytes, as base64url"
            yield Violation(problems.INVALID_VALUE, "/subscription/keys/p256dh", wanted)
        if not _decodes(subscription.keys.auth, lambda key: len(key) == AUTH_BYTES):
            wanted = f"must be {AUTH_BYTES} bytes as base64url"
            yield Violation(problems.INVALID_VALUE, "/subscription/keys/auth", wanted)
        expires_ms = subscription.expirationTime
        if expires_ms is not None and expires_ms <= self._clock.now().wall_ms:
            yield Violation(problems.INVALID_VALUE, "/subscription/expirationTime", "must be in the future")
        if isinstance(asked, Registration) and asked.own_test and not asked.places:
            yield Violation(problems.INVALID_VALUE, "/try", "needs at least one place, because none would be alerted")
        for number, place in enumerate(asked.places if isinstance(asked, Registration) else ()):
            if cell_from_string(place.cell, COARSEST_CELL, self._terms.finest_cell) is None:
                wanted = f"must be a cell of resolution {COARSEST_CELL} to {self._terms.finest_cell}"
                yield Violation(problems.INVALID_VALUE, f"/places/{number}", wanted)

    @staticmethod
    def _until(subscription: Subscription, lease_ms: int) -> int:
        """Return the time at which a registration ends, in ms since 1970 (rule WPR4).

        It ends at `lease_ms`, or earlier if the subscription expires before that.
        """
        expires_ms = subscription.expirationTime
        return lease_ms if expires_ms is None else min(lease_ms, int(expires_ms))


def _decodes(text: str, is_right: Callable[[bytes], object]) -> bool:
    try:
        return bool(is_right(decoded(text)))
    except ValueError:
        return False


def _record(device_id: str, asked: Registration, grant: Grant, vapid: str, secret: bytes) -> Record:
    """Return the record of a new device."""
    assert grant.proof is not None
    return Record(
        id=device_id,
        sub=grant.sub,
        endpoint=asked.subscription.endpoint,
        p256dh=decoded(asked.subscription.keys.p256dh),
        auth=decoded(asked.subscription.keys.auth),
        vapid=vapid,
        topic_key=secrets.token_bytes(_TOPIC_KEY_BYTES),
        secret=secret,
        cells=tuple(place.cell for place in asked.places),
        categories=tuple(asked.categories) if "categories" in asked.model_fields_set else None,
        min_severity=asked.min_severity,
        languages=tuple(asked.languages),
        proofs=asked.proofs,
        may_test=TEST in grant.scopes,
        issued_at_s=grant.proof.issued_at,
        expires_at_ms=grant.expires_at,
        kid=str(grant.proof.key.key_id),
        issuer=grant.issuer,
    )


def _reregistered(record: Record, before: Record) -> Record:
    """Return the record of a device that registers again, made from its new record and the record before.

    The device keeps its secret and its Topic key. If the endpoint is the same, it also keeps what is known about the
    endpoint.
    """
    record = replace(record, secret=before.secret, topic_key=before.topic_key)
    if record.endpoint != before.endpoint:
        return record
    return replace(record, vapid=before.vapid, small=before.small, worked=before.worked)
