"""Binary sensors: whether an alert concerns the place, and whether there is a connection."""

from homeassistant.components.binary_sensor import BinarySensorDeviceClass, BinarySensorEntity
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from . import GeocastEntry
from .entity import GeocastEntity

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant,  # noqa: ARG001 (the name is Home Assistant's)
    entry: GeocastEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add both sensors of an entry."""
    async_add_entities([AlertSensor(entry, "alert"), ConnectionSensor(entry, "connection")])


class AlertSensor(GeocastEntity, BinarySensorEntity):
    """A sensor that is on while an alert concerns the place."""

    _attr_device_class = BinarySensorDeviceClass.SAFETY

    @property
    def is_on(self) -> bool:
        """Whether an alert concerns the place."""
        return bool(self.watch.alerts)


class ConnectionSensor(GeocastEntity, BinarySensorEntity):
    """A sensor that is on while there is a connection to the server."""

    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC

    @property
    def available(self) -> bool:
        """Always true: this sensor is for the times without a connection."""
        return True

    @property
    def is_on(self) -> bool:
        """Whether there is a connection."""
        return self.watch.is_connected
