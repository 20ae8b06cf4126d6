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

RESOLUTION = 8  # of the cells that the server gets; the reach of such a cell is about 0.6 km
COARSEST = 5
MAX_PLACES = 8


def new_device_id() -> str:
    """Return a new id for a phone to keep; nobody can guess it (WPR1)."""
    return secrets.token_urlsafe(16)


def cells_of(places: Sequence[Place], resolution: int = RESOLUTION) -> list[dict[str, str]]:
    """Return the H3 cells that the server is sent instead of these places, with a `resolution` of 5 to 9.

    A place that is less accurate gets a coarser cell. The places themselves stay on the phone. Raise ValueError for
    more than 8 places.
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
    """A connection to `geocast push` for a token with alerts:receive; use it as an async context manager.

    A refused request raises Refused, a request without an answer in time Unanswered.
    """

    async def offer(self) -> Answer:
        """Return what the service offers.

        The members are `vapid` (the browsers' `applicationServerKey`), `cells` (the coarsest and the finest resolution)
        and `lease_s`.
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
        """Register a phone, or renew its registration: the answer has `until`, `live` and, the first time, `secret`.

        `more` may contain `categories`, `min_severity`, `languages` and `proofs`. Raises ValueError for more than 8
        places.
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
        """Delete a registration. After that, the server sends no pushes to the phone, and stores nothing about it."""
        await self._answer("DELETE", f"/v1/devices/{in_path(device_id)}")
