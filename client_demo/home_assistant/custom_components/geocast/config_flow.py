"""The forms of the integration: a new entry, another token after a refusal, and another server or place.

Each form connects to the server before it stores anything, and says why a connection failed.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import voluptuous as vol
from homeassistant.config_entries import ConfigFlow, ConfigFlowResult
from homeassistant.const import CONF_LATITUDE, CONF_LOCATION, CONF_LONGITUDE, CONF_TOKEN, CONF_URL
from homeassistant.helpers.selector import (
    LocationSelector,
    SelectSelector,
    SelectSelectorConfig,
    SelectSelectorMode,
    TextSelector,
    TextSelectorConfig,
    TextSelectorType,
)

from .const import CONF_MIN_SEVERITY, CONF_TOKEN_URL, DOMAIN, SEVERITIES
from .watch import first_connection, stream_url

_URL = TextSelector(TextSelectorConfig(type=TextSelectorType.URL))
_SECRET = TextSelector(TextSelectorConfig(type=TextSelectorType.PASSWORD, autocomplete="off"))
_SEVERITY = SelectSelector(
    SelectSelectorConfig(
        options=list(reversed(SEVERITIES)), translation_key=CONF_MIN_SEVERITY, mode=SelectSelectorMode.DROPDOWN
    )
)

TOKEN_FIELDS: dict[vol.Marker, Any] = {vol.Optional(CONF_TOKEN): _SECRET, vol.Optional(CONF_TOKEN_URL): _SECRET}
PLACE_FIELDS: dict[vol.Marker, Any] = {
    vol.Required(CONF_LOCATION): LocationSelector(),
    vol.Required(CONF_MIN_SEVERITY, default=SEVERITIES[-1]): _SEVERITY,
}
SCHEMAS = {
    "user": vol.Schema({vol.Required(CONF_URL): _URL, **TOKEN_FIELDS, **PLACE_FIELDS}),
    "reconfigure": vol.Schema({vol.Required(CONF_URL): _URL, **PLACE_FIELDS}),
    "reauth_confirm": vol.Schema(TOKEN_FIELDS),
}


class GeocastConfigFlow(ConfigFlow, domain=DOMAIN):
    """The steps by which a user adds, renews or changes an entry."""

    VERSION = 1

    def __init__(self) -> None:
        self._data: dict[str, Any] = {}
        self._errors: dict[str, str] = {}
        self._reason = ""

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Add an entry, for the home's place unless the user chooses another."""
        if user_input is not None and await self._accepts(user_input):
            return self.async_create_entry(title=str(urlsplit(self._data[CONF_URL]).hostname), data=self._data)
        home = {CONF_LATITUDE: self.hass.config.latitude, CONF_LONGITUDE: self.hass.config.longitude}
        return self._form("user", user_input or {CONF_LOCATION: home})

    async def async_step_reconfigure(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Change the server, the place or the severity of an entry. Its token stays."""
        entry = self._get_reconfigure_entry()
        if user_input is not None and await self._accepts({**entry.data, **user_input}):
            return self.async_update_reload_and_abort(entry, data=self._data)
        return self._form("reconfigure", user_input or entry.data)

    async def async_step_reauth(self, _: Mapping[str, Any]) -> ConfigFlowResult:
        """Ask for another token, because the server has refused the old one."""
        return await self.async_step_reauth_confirm()

    async def async_step_reauth_confirm(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Replace the token of an entry."""
        entry = self._get_reauth_entry()
        kept = {name: value for name, value in entry.data.items() if name not in (CONF_TOKEN, CONF_TOKEN_URL)}
        if user_input is not None and await self._accepts({**kept, **user_input}):
            return self.async_update_reload_and_abort(entry, data=self._data)
        return self._form("reauth_confirm", {}, name=entry.title)

    def _form(self, step: str, suggested: Mapping[str, Any], **words: str) -> ConfigFlowResult:
        schema = self.add_suggested_values_to_schema(SCHEMAS[step], suggested)
        words["reason"] = self._reason
        return self.async_show_form(
            step_id=step, data_schema=schema, errors=self._errors, description_placeholders=words
        )

    async def _accepts(self, said: Mapping[str, Any]) -> bool:
        """Return whether these data serve: the server accepts them. If so, keep them in `_data`.

        Otherwise keep the error of the first field that does not serve, or of the connection, for the form.
        """
        texts = {name: value.strip() for name, value in said.items() if isinstance(value, str)}
        self._data = {name: value for name, value in {**said, **texts}.items() if value != ""}
        self._errors, self._reason = {}, ""
        try:
            self._data[CONF_URL] = stream_url(self._data[CONF_URL])
        except ValueError:
            self._errors = {CONF_URL: "invalid_url"}
            return False
        if CONF_TOKEN in self._data and CONF_TOKEN_URL in self._data:
            self._errors = {CONF_TOKEN_URL: "two_tokens"}
            return False
        if CONF_TOKEN_URL in self._data and urlsplit(self._data[CONF_TOKEN_URL]).scheme not in ("http", "https"):
            self._errors = {CONF_TOKEN_URL: "invalid_token_url"}
            return False
        self._async_abort_entries_match({name: self._data[name] for name in (CONF_URL, CONF_LOCATION)})
        failure = await first_connection(self.hass, self._data)
        if failure is not None:
            error, self._reason = failure
            self._errors = {"base": error}
        return failure is None
