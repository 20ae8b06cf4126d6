"""A button that asks the server for a test alert to this place alone."""

from homeassistant.components.button import ButtonEntity
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from . import GeocastEntry
from .client.link import RequestRefused
from .const import DOMAIN
from .entity import GeocastEntity

PARALLEL_UPDATES = 1


async def async_setup_entry(
    hass: HomeAssistant,  # noqa: ARG001 (the name is Home Assistant's)
    entry: GeocastEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
) -> None:
    """Add the button of an entry."""
    async_add_entities([TestButton(entry, "test")])


class TestButton(GeocastEntity, ButtonEntity):
    """Asks for a test alert, which fires the event entity with the status `test`, and turns nothing on."""

    _attr_entity_category = EntityCategory.DIAGNOSTIC

    @property
    def available(self) -> bool:
        """Whether there is a connection."""
        return self.watch.is_connected

    async def async_press(self) -> None:
        """Ask for a test alert."""
        try:
            asked = await self.watch.client.try_me()
        except RequestRefused as refusal:
            reason = {"reason": str(refusal)}
            raise HomeAssistantError(
                translation_domain=DOMAIN, translation_key="test_refused", translation_placeholders=reason
            ) from None
        if asked is None:
            raise HomeAssistantError(translation_domain=DOMAIN, translation_key="not_connected")
