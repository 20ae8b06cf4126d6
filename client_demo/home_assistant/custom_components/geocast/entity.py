"""The common part of all entities of the integration."""

from typing import Any

from homeassistant.config_entries import ConfigEntry
from homeassistant.core import callback
from homeassistant.helpers.device_registry import DeviceEntryType, DeviceInfo
from homeassistant.helpers.entity import Entity

from .client import Change
from .client.holdings import Alert
from .const import DOMAIN
from .watch import Watch

SHOWN_MEMBERS = (
    *(
        "id",
        "revision",
        "category",
        "title",
        "severity",
        "status",
        "headline",
        "description",
        "issued_at",
        "expires_at",
    ),
)
"""The members of an alert that entities have as attributes. Its area is not among them."""


class GeocastEntity(Entity):
    """An entity of a config entry, whose state follows the alerts.

    It is unavailable if nobody knows whether there is an alert (watch, Rule 3).
    """

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(self, entry: ConfigEntry[Watch], key: str) -> None:
        """Make the entity with a key that is also its key in the translations."""
        self.watch = entry.runtime_data
        self._attr_translation_key = key
        self._attr_unique_id = f"{entry.entry_id}_{key}"
        self._attr_device_info = DeviceInfo(
            identifiers={(DOMAIN, entry.entry_id)}, name=entry.title, entry_type=DeviceEntryType.SERVICE
        )

    async def async_added_to_hass(self) -> None:
        """Follow the alerts until the entity is removed."""
        self.async_on_remove(self.watch.listen(self.heard))

    @callback
    def heard(self, _: Change | None) -> None:
        """Write the state again after a change of an alert, or of the connection."""
        self.async_write_ha_state()

    @property
    def available(self) -> bool:
        """Whether the state is known."""
        return self.watch.is_known or bool(self.watch.alerts)


def attributes_of(alert: Alert) -> dict[str, Any]:
    """Return an alert's members as attributes."""
    return {"status": "actual"} | {name: alert[name] for name in SHOWN_MEMBERS if name in alert}
