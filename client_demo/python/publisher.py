"""The review desk's side of the protocol: publish, revise, cancel, get and list alerts over HTTP."""

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from .api import (
    MAX_RETRY_AFTER_S,
    Answer,
    ApiClient,
    PublishError,
    Refused,
    Unanswered,
    in_path,
    json_of,
    retry_after_s,
)

__all__ = [
    "MAX_RETRY_AFTER_S",
    "Answer",
    "PublishError",
    "Publisher",
    "Refused",
    "Unanswered",
    "retry_after_s",
]


class Publisher(ApiClient):
    """A connection to the api listener for a token with alerts:publish; use it as an async context manager."""

    async def publish(self, alert: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Publish revision 1 of an alert and return the answer.

        With `dry_run`, publish nothing, but return the answer that it would get.
        """
        return await self._call("POST", "/v1/alerts" + ("?dry_run=true" if dry_run else ""), alert)

    async def revise(self, alert: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Publish the next revision of an alert: the whole alert, with its `id` and `revision`.

        `dry_run` works as in `publish`.
        """
        path = f"/v1/alerts/{in_path(alert['id'])}/revisions"
        return await self._call("POST", path + ("?dry_run=true" if dry_run else ""), alert)

    async def cancel(self, alert_id: str, cancel: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Cancel an alert.

        The dict has the next number as `revision`, a `reason`, and an `approval`. `dry_run` works as in `publish`.
        """
        path = f"/v1/alerts/{in_path(alert_id)}/cancel"
        return await self._call("POST", path + ("?dry_run=true" if dry_run else ""), cancel)

    async def get(self, alert_id: str) -> Answer:
        """Return the state, the alert and, for one's own alert, delivery counts (rounded without alerts:audit)."""
        return await self._call("GET", f"/v1/alerts/{in_path(alert_id)}")

    async def live(self) -> list[Answer]:
        """Return the newest revision of each live alert, reading all pages of the list."""
        found: dict[str, Answer] = {}
        path: str | None = "/v1/alerts"
        while path is not None:
            response = await self._answer("GET", path)
            for alert in json_of(response)["alerts"]:
                newest = max(found.pop(alert["id"], alert), alert, key=lambda each: cast(int, each["revision"]))
                found[alert["id"]] = newest
            path = _next_page(response)
        return list(found.values())


def _next_page(response: httpx.Response) -> str | None:
    """Return the path with the query of `Link: <…>; rel="next"` (RFC 8288).

    The host is ignored, so that no answer can send the token elsewhere.
    """
    link = response.links.get("next", {}).get("url")
    return None if link is None else "/v1/alerts?" + urlsplit(link).query
