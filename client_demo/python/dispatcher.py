"""The dispatcher's side of the protocol: open, correct, end and watch calls for help over HTTP."""

from collections.abc import Mapping
from typing import Any

from .api import Answer, ApiClient, in_path

__all__ = ["Dispatcher"]


class Dispatcher(ApiClient):
    """A connection to the api listener for a token with calls:dispatch; use it as an async context manager.

    A call says exactly where somebody needs help. No answer contains that place, and nothing here keeps it.
    """

    async def open_call(self, call: Mapping[str, Any]) -> Answer:
        """Open a call and notify responders.

        `id`, `category`, `headline`, `occurred_at` and `place` (`lat`, `lng`, `kind`) are required. The answer has
        `id`, `revision`, `issued_at`, `expires_at` and `near`, the only hint at the place that responders get before
        they have a seat. A repeated call is the same call.
        """
        return await self._call("POST", "/v1/calls", call)

    async def revise_call(self, call: Mapping[str, Any], replaces: int) -> Answer:
        """Correct the place or the text by sending the whole call again.

        `replaces` is the `content` that `call_state` returned.
        """
        path = f"/v1/calls/{in_path(call['id'])}/revisions"
        return await self._call("POST", path, {**call, "replaces": replaces})

    async def end_call(self, call_id: str, reason: str) -> Answer:
        """End a call because the crew is there or nobody needs help; all notified responders stand down.

        Nobody is sent the `reason`.
        """
        return await self._call("POST", f"/v1/calls/{in_path(call_id)}/end", {"reason": reason})

    async def call_state(self, call_id: str) -> Answer:
        """Return the progress of a call.

        The members are `state`, `content`, the `call` as sent, `ring_m`, `rung`, `seen`, `declined`, `resting` and
        `seats`.
        """
        return await self._call("GET", f"/v1/calls/{in_path(call_id)}")

    async def calls(self) -> list[Answer]:
        """Return the states of one's own open calls, each in the form of `call_state`."""
        answer = await self._call("GET", "/v1/calls")
        return list(answer["calls"])
