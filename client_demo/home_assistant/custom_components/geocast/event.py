"""An event entity that fires for each change of an alert."""

from homeassistant.components.event import EventEntity
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from . import GeocastEntry
from .client import Change, Kind
from .entity import GeocastEntity, attributes_of

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant,  # noqa: ARG001 (the name is Home Assistant's)
    entry: GeocastEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the event entity of an entry."""
    async_add_entities([ChangeEvent(entry, "changes")])


class ChangeEvent(GeocastEntity, EventEntity):
    """An event for each change of an alert: a new one, an update, a cancel, an end. Exercises and tests fire, too."""

    _attr_event_types = [str(kind) for kind in Kind]  # noqa: RUF012 (Home Assistant's form)
    _unrecorded_attributes = frozenset({"description"})

    @property
    def available(self) -> bool:
        """Always true: the last event stays what it is without a connection."""
        return True

    @callback
    def heard(self, change: Change | None) -> None:
        """Fire for a change of an alert."""
        if change is not None:
            reason = {} if change.reason is None else {"reason": change.reason}
            self._trigger_event(change.kind.value, attributes_of(change.alert) | reason)
            self.async_write_ha_state()
