"""The review desk's side of the protocol: publish, revise, cancel, get and list alerts over HTTP."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

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

if TYPE_CHECKING:
    import httpx

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
    """A connection to the server's HTTP API for a publisher of alerts.

    It is an async context manager. It needs a token with the scope alerts:publish.
    """

    async def publish(self, alert: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Publish an alert (its revision 1).

        With `dry_run`, publish nothing, but return the answer that the server would give.
        """
        return await self._call("POST", "/v1/alerts" + ("?dry_run=true" if dry_run else ""), alert)

    async def revise(self, alert: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Publish the next revision of an alert: the whole alert with its `id` and the new `revision`.

        With `dry_run`, publish nothing, but return the answer that the server would give.
        """
        path = f"/v1/alerts/{in_path(alert['id'])}/revisions"
        return await self._call("POST", path + ("?dry_run=true" if dry_run else ""), alert)

    async def cancel(self, alert_id: str, cancel: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Cancel an alert. The request needs `revision` (the next revision number), `reason` and `approval`.

        With `dry_run`, cancel nothing, but return the answer that the server would give.
        """
        path = f"/v1/alerts/{in_path(alert_id)}/cancel"
        return await self._call("POST", path + ("?dry_run=true" if dry_run else ""), cancel)

    async def get(self, alert_id: str) -> Answer:
        """Return the state of an alert, and the alert itself.

        For the publisher's own alerts, the answer also has the numbers of deliveries. They are rounded, unless the
        token has alerts:audit.
        """
        return await self._call("GET", f"/v1/alerts/{in_path(alert_id)}")

    async def live(self) -> list[Answer]:
        """Return the newest revision of each live alert. All pages of the server's list are read."""
        found: dict[str, Answer] = {}
        path: str | None = "/v1/alerts"
        while path is not None:
            response = await self._answer("GET", path)
            for alert in json_of(response)["alerts"]:
                newest = max(found.pop(alert["id"], alert), alert, key=lambda each: cast(int, each["revision"]))
                found[alert["id"]] = newest
            path = _next_page(response)
        return list(found.values())


def _next_page(response: "httpx.Response") -> str | None:
    """Return the path and query of the next page, from the header `Link: <…>; rel="next"` (RFC 8288).

    The host in the header is ignored, so that no answer can make the client send its token elsewhere.
    """
    link = response.links.get("next", {}).get("url")
    return None if link is None else "/v1/alerts?" + urlsplit(link).query
