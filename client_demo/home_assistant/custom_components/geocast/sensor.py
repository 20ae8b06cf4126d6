"""A sensor with the headline of the most severe alert."""

from typing import Any

from homeassistant.components.sensor import SensorEntity
from homeassistant.const import MAX_LENGTH_STATE_STATE
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from . import GeocastEntry
from .entity import GeocastEntity, attributes_of

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant,  # noqa: ARG001 (the name is Home Assistant's)
    entry: GeocastEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the sensor of an entry."""
    async_add_entities([HeadlineSensor(entry, "headline")])


class HeadlineSensor(GeocastEntity, SensorEntity):
    """The headline of the most severe alert that concerns the place; unknown if there is none."""

    _unrecorded_attributes = frozenset({"description"})

    @property
    def native_value(self) -> str | None:
        """The headline, shortened to the longest state; the attribute `headline` has all of it."""
        headlines = [str(alert.get("headline", "")) for alert in self.watch.alerts]
        if not headlines:
            return None
        whole = headlines[0]
        return whole if len(whole) <= MAX_LENGTH_STATE_STATE else f"{whole[: MAX_LENGTH_STATE_STATE - 1]}…"

    @property
    def extra_state_attributes(self) -> dict[str, Any]:
        """The number of alerts, and the members of the most severe one."""
        alerts = self.watch.alerts
        return {"alerts": len(alerts)} | (attributes_of(alerts[0]) if alerts else {})
