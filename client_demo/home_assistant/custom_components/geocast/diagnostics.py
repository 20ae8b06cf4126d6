"""Diagnostics of a config entry, for bug reports: without the token, the place, and alerts that would give it away."""

from typing import Any

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_LOCATION, CONF_TOKEN
from homeassistant.core import HomeAssistant

from . import GeocastEntry
from .const import CONF_TOKEN_URL


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant,  # noqa: ARG001 (the name is Home Assistant's)
    entry: GeocastEntry,
) -> dict[str, Any]:
    """Return the settings, the state of the connection and the numbers of alerts."""
    watch = entry.runtime_data
    ending = watch.client.ending
    return {
        "settings": async_redact_data(dict(entry.data), {CONF_TOKEN, CONF_TOKEN_URL, CONF_LOCATION}),
        "connected": watch.is_connected,
        "known": watch.is_known,
        "last_ending": None if ending is None else ending.why,
        "alerts": len(watch.client.holdings),
        "dropped": watch.client.dropped,
        "alerts_here": len(watch.alerts),
    }
