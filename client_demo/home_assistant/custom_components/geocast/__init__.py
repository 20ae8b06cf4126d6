"""The integration of geocast into Home Assistant: alerts that concern a place, pushed by a geocast server.

    watch          the connection of a config entry, with the alerts: Watch
    entity         the common part of all entities; binary_sensor, sensor, event and button have the entities
    config_flow    the forms: a new entry, another token, another place
    diagnostics    what a user may attach to a bug report

The folder `client` is a copy of client_demo/python. It is missing in the source tree: build.py makes a complete folder.
"""

from homeassistant.config_entries import ConfigEntry
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant

from .watch import Watch, store

GeocastEntry = ConfigEntry[Watch]
PLATFORMS = [Platform.BINARY_SENSOR, Platform.BUTTON, Platform.EVENT, Platform.SENSOR]


async def async_setup_entry(hass: HomeAssistant, entry: GeocastEntry) -> bool:
    """Create the entities, then connect: so no change is missed.

    The connection is not waited for, because a stored alert must be shown without a network, too.
    """
    entry.runtime_data = watch = Watch(hass, entry)
    await watch.restore()
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    watch.start()
    return True


async def async_unload_entry(hass: HomeAssistant, entry: GeocastEntry) -> bool:
    """Remove the entities, close the connection and store the alerts."""
    if unloaded := await hass.config_entries.async_unload_platforms(entry, PLATFORMS):
        await entry.runtime_data.close()
    return unloaded


async def async_remove_entry(hass: HomeAssistant, entry: GeocastEntry) -> None:
    """Delete the stored alerts of an entry that the user has removed."""
    await store(hass, entry).async_remove()
