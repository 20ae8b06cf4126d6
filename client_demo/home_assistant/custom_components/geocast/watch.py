"""The connection of a config entry: it keeps the alerts that concern one place, and informs the entities of changes.

Rule 1  Alerts come from the client library, which is copied into the folder `client`. It reconnects, drops an alert at
        its end even without a network, and sends the alerts that it has with each `hello`.
Rule 2  After a restart of Home Assistant the alerts come from storage, so that a siren stays on without a network, and
        no event is repeated.
Rule 3  After GRACE_S without a connection, nobody knows whether there is an alert. The entities are then unavailable,
        unless an alert is live.
Rule 4  No alert is acknowledged, because a house is no person who has seen it.
Rule 5  If the server refuses the token, Home Assistant asks the user for another one. Meanwhile, alerts still end in
        time, and a token URL is asked again every TRY_AGAIN_S.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError as HttpError
from aiohttp import ClientTimeout
from homeassistant.config_entries import ConfigEntry
from homeassistant.const import CONF_LATITUDE, CONF_LOCATION, CONF_LONGITUDE, CONF_TOKEN, CONF_URL
from homeassistant.core import CALLBACK_TYPE, HomeAssistant, callback
from homeassistant.helpers.aiohttp_client import async_get_clientsession
from homeassistant.helpers.event import async_call_later
from homeassistant.helpers.storage import Store
from homeassistant.util.ssl import get_default_context

from .client import Change, Client, ClientError, Place
from .client.holdings import Alert
from .client.link import first_to_end
from .client.times import own_ms, wall_ms
from .const import CONF_MIN_SEVERITY, CONF_TOKEN_URL, DOMAIN, SEVERITIES

_LOGGER = logging.getLogger(__name__)

STREAM_PATH = "/v1/stream"
GRACE_S = 60.0  # a node that restarts is back in less
TRY_AGAIN_S = 300.0  # after an answer that says that reconnecting makes no sense
FIRST_TRY_S = 15.0  # for the whole attempt while the user waits
TOKEN_TIMEOUT = ClientTimeout(total=10)
SAVE_AFTER_S = 1.0

Listener = Callable[[Change | None], None]


def stream_url(url: str) -> str:
    """Return the URL of a server's stream. `url` may be that of the server, or of the stream itself.

    Raise ValueError if it is neither, or if it has a user, a query or a fragment.
    """
    parts = urlsplit(url.strip())
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the URL of a geocast server is needed, such as https://alerts.example")
    path = parts.path.rstrip("/")
    return parts._replace(scheme=scheme, path=path if path.endswith(STREAM_PATH) else path + STREAM_PATH).geturl()


def client_for(hass: HomeAssistant, data: Mapping[str, Any], **options: Any) -> Client:
    """Return a client for the data of a config entry; `options` are further arguments of the client."""

    async def token() -> str:
        return await _token_from(hass, data[CONF_TOKEN_URL]) if data.get(CONF_TOKEN_URL) else str(data[CONF_TOKEN])

    place = data[CONF_LOCATION]
    return Client(
        data[CONF_URL],
        [Place.at(place[CONF_LATITUDE], place[CONF_LONGITUDE])],
        token=token if data.get(CONF_TOKEN_URL) or data.get(CONF_TOKEN) else None,
        min_severity=data.get(CONF_MIN_SEVERITY),
        languages=[hass.config.language],
        tls=get_default_context(),
        **options,
    )


async def _token_from(hass: HomeAssistant, url: str) -> str:
    """Fetch a token, which is the whole answer to a GET.

    Raise ClientError if the answer refuses it, and OSError if there is none. Neither text has the URL, which may be
    a secret.
    """
    session = async_get_clientsession(hass)
    try:
        async with session.get(url, timeout=TOKEN_TIMEOUT, allow_redirects=False) as answer:
            text = (await answer.text()).strip()
    except (HttpError, TimeoutError, ValueError) as error:
        raise OSError(f"the token URL did not answer: {type(error).__name__}") from None
    if answer.status in (401, 403, 404, 410):
        raise ClientError(f"the token URL answered {answer.status}")
    if answer.status != 200 or not text:
        raise OSError(f"the token URL answered {answer.status} without a token")
    return text


async def first_connection(hass: HomeAssistant, data: Mapping[str, Any]) -> tuple[str, str] | None:
    """Try to connect once, for a form. Return None, or the key of an error in the translations, and its reason."""
    refusals, is_decided = 0, asyncio.Event()

    def status(_: str) -> None:
        nonlocal refusals
        refusals += client.ending is not None and client.ending.refuses_token
        if client.ending is None or not client.ending.refuses_token or refusals > 1:  # the client tries two tokens
            is_decided.set()

    client = client_for(hass, data, on_status=status)
    with contextlib.suppress(ClientError, TimeoutError):
        async with asyncio.timeout(FIRST_TRY_S):
            await first_to_end(client.run(), is_decided.wait())
    if client.ending is None:
        return None if is_decided.is_set() else ("cannot_connect", f"no answer in {FIRST_TRY_S:g} s")
    return "invalid_auth" if client.ending.refuses_token else "cannot_connect", client.ending.why


class Watch:
    """The alerts for the place of a config entry, and the task that keeps them up to date."""

    def __init__(self, hass: HomeAssistant, entry: ConfigEntry[Any]) -> None:
        self._hass, self._entry = hass, entry
        self.client = client_for(hass, entry.data, on_change=self._changed, on_status=self._status)
        self.is_connected = False
        self.is_known = False  # whether an alert would have been received (Rule 3)
        self._refusals = 0  # of tokens, since the last connection
        self._listeners: list[Listener] = []
        self._end_grace: CALLBACK_TYPE | None = None
        self._task: asyncio.Task[None] | None = None
        self._store = store(hass, entry)

    @property
    def alerts(self) -> list[Alert]:
        """The live alerts that concern the place, the most severe first, without exercises and tests."""
        actual = [alert for alert in self.client.holdings.here() if alert.get("status", "actual") == "actual"]
        actual.sort(key=lambda alert: str(alert.get("issued_at")), reverse=True)
        return sorted(actual, key=_rank)

    @callback
    def listen(self, listener: Listener) -> CALLBACK_TYPE:
        """Call `listener` with each change of an alert, and with None when the connection opens or ends.

        Return a function that ends this.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def restore(self) -> None:
        """Load the alerts that were stored before a restart (Rule 2). Those that have ended meanwhile are dropped."""
        holdings = self.client.holdings
        holdings.set_clock(wall_ms(), own_ms())
        odd = holdings.restore(await self._store.async_load() or [], own_ms(), wall_ms() - own_ms())
        if odd:
            _LOGGER.warning("%s: %d stored alerts are malformed and are left out", self._entry.title, odd)
        holdings.expire(own_ms())

    def start(self) -> None:
        """Start the task that follows the alerts."""
        name = f"{DOMAIN} {self._entry.title}"
        self._task = self._entry.async_create_background_task(self._hass, self._run(), name)

    async def _run(self) -> None:
        """Follow the alerts until cancelled. Alerts end in time, whatever the server answers."""
        while True:
            try:
                await self.client.run()
            except ClientError as error:
                self._status(str(error))
                if self.client.ending is not None and self.client.ending.refuses_token:
                    self._entry.async_start_reauth(self._hass)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRY_AGAIN_S):
                    await self.client.expire()

    async def close(self) -> None:
        """Close the connection, and store the alerts."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._stop_grace()
        await self._store.async_save(self._saved())

    def _saved(self) -> list[dict[str, Any]]:
        return self.client.holdings.saved(wall_ms() - own_ms())

    @callback
    def _changed(self, change: Change) -> bool:
        self._store.async_delay_save(self._saved, SAVE_AFTER_S)
        self._tell(change)
        return False  # Rule 4

    @callback
    def _status(self, text: str) -> None:
        ending = self.client.ending
        was_connected, self.is_connected = self.is_connected, ending is None
        if ending is None:
            self._refusals, self.is_known = 0, True
            self._stop_grace()
            _LOGGER.info("%s: %s", self._entry.title, text)
        else:
            _LOGGER.log(logging.WARNING if was_connected else logging.DEBUG, "%s: %s", self._entry.title, text)
            self._end_grace = self._end_grace or async_call_later(self._hass, GRACE_S, self._grace_over)
            self._refusals += ending.refuses_token
            if self._refusals > 1:  # after the first, the client has fetched another token
                self._entry.async_start_reauth(self._hass)
        self._tell(None)

    @callback
    def _grace_over(self, _: object) -> None:
        self._end_grace, self.is_known = None, False
        self._tell(None)

    def _stop_grace(self) -> None:
        if self._end_grace is not None:
            self._end_grace()
            self._end_grace = None

    def _tell(self, change: Change | None) -> None:
        for listener in list(self._listeners):
            listener(change)


def _rank(alert: Alert) -> int:
    """Return the place of an alert's severity among SEVERITIES; -1 for an unknown one, which a newer server sends."""
    severity = alert.get("severity")
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def store(hass: HomeAssistant, entry: ConfigEntry[Any]) -> Store[list[dict[str, Any]]]:
    """Return the file in which a config entry's alerts are stored. It has no place of the user."""
    return Store(hass, 1, f"{DOMAIN}.{entry.entry_id}", private=True)
