"""Registrations of sleeping phones with `geocast push` (push-rules.md).

async with Devices("https://alerts.example", token) as devices:
    answer = await devices.register(device_id, subscription.to_map(), [Place.at(32.7767, -96.797)])
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import h3

from .api import Answer, ApiClient, in_path
from .geo import Place, cell_reach_m

RESOLUTION = 8  # resolution of the cells that are sent to the server; the reach of such a cell is about 0.6 km
COARSEST = 5
MAX_PLACES = 8


def new_device_id() -> str:
    """Return a new random id for a phone, which nobody can guess (WPR1). The phone has to store it."""
    return secrets.token_urlsafe(16)


def cells_of(places: Sequence[Place], resolution: int = RESOLUTION) -> list[dict[str, str]]:
    """Return the H3 cells that are sent to the server instead of the exact places.

    `resolution` is between 5 and 9. A less accurate place gets a coarser cell. Raise ValueError if there are more than
    8 places.
    """
    if len(places) > MAX_PLACES:
        raise ValueError(f"at most {MAX_PLACES} places can be registered")
    return [{"cell": cell} for cell in dict.fromkeys(_cell(place, resolution) for place in places)]


def _cell(place: Place, resolution: int) -> str:
    if place.cell is not None:
        return str(h3.cell_to_parent(place.cell, min(resolution, h3.get_resolution(place.cell))))
    cell = str(h3.latlng_to_cell(place.lat, place.lng, resolution))
    is_wide_enough = resolution <= COARSEST or cell_reach_m(cell) >= place.reach_m
    return cell if is_wide_enough else _cell(place, resolution - 1)


class Devices(ApiClient):
    """A connection to the service `geocast push`, with which phones register for pushes.

    It is an async context manager. It needs a token with the scope alerts:receive. Its methods raise Refused if a
    request is refused, and Unanswered if it is not answered in time.
    """

    async def offer(self) -> Answer:
        """Return the settings of the service.

        `vapid` is the key that browsers call `applicationServerKey`, `cells` has the coarsest and the finest
        resolution, and `lease_s` is how long a registration lasts, in seconds.
        """
        return await self._call("GET", "/v1/push")

    async def register(
        self,
        device_id: str,
        subscription: Mapping[str, Any],
        places: Sequence[Place],
        *,
        resolution: int = RESOLUTION,
        holding: Mapping[str, int] | None = None,
        **more: Any,
    ) -> Answer:
        """Register a phone for pushes, or renew its registration.

        The answer has `until` and `live`, and at the first registration also `secret`. `more` may contain `categories`,
        `min_severity`, `languages`, `proofs`, and `try` (an id, to be pushed one test alert: protocol, TR1). Raise
        ValueError if there are more than 8 places.
        """
        body = {
            "subscription": subscription,
            "places": cells_of(places, resolution),
            "holding": holding or None,
            **more,
        }
        said = {name: value for name, value in body.items() if value is not None}
        return await self._call("PUT", f"/v1/devices/{in_path(device_id)}", said)

    async def forget(self, device_id: str) -> None:
        """Delete the registration of a phone: the server sends it no more pushes, and stores nothing about it."""
        await self._answer("DELETE", f"/v1/devices/{in_path(device_id)}")
