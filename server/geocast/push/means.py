"""The store, the push services, the keys and the clock that the parts of the device manager share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ..clock import Clock
from ..stream.own_tests import OwnTests
from .addresses import Services
from .client import PushClient
from .devicestore import DeviceStore
from .encryption import Keyring, Record
from .shards import Shards
from .webpush import Vapid


@dataclass(frozen=True, slots=True)
class DeviceMeans:
    """The store, the push services, the keys and the clock that `DeviceManager` and its parts share.

    `capacity` is the greatest number of devices of the process. `chance` returns a random number from 0 to 1.
    `own_tests` makes the test alerts that devices ask for; by default, it uses the built-in policy.

    `stands` is called with a device's record. It returns whether the token with which the device registered is still
    valid, or None if this process does not know the key that signed the token. `DeviceReader.recheck` forgets the
    device if the result is False or None. When a single device is read from the store, the device is forgotten only if
    the result is False.
    """

    capacity: int
    store: DeviceStore
    shards: Shards
    client: PushClient
    keyring: Keyring
    services: Services
    vapid: Vapid
    clock: Clock
    chance: Callable[[], float] = random.random
    stands: Callable[[Record], bool | None] = lambda _record: True
    own_tests: OwnTests = field(default_factory=OwnTests)
