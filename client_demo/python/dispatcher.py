"""The dispatcher's side of the protocol: open, correct, end and watch calls for help over HTTP."""

from collections.abc import Mapping
from typing import Any

from .api import Answer, ApiClient, in_path

__all__ = ["Dispatcher"]


class Dispatcher(ApiClient):
    """A connection to the server's HTTP API for a dispatcher, who opens and ends calls for help.

    It is an async context manager. It needs a token with the scope calls:dispatch. A call says exactly where somebody
    needs help. No answer of the server contains this place, and it is not stored here.
    """

    async def open_call(self, call: Mapping[str, Any]) -> Answer:
        """Open a call, so that responders near its place are notified.

        `id`, `category`, `headline`, `occurred_at` and `place` (with `lat`, `lng` and `kind`) are required. The answer
        has `id`, `revision`, `issued_at`, `expires_at` and `near`: the circle that responders are shown before they get
        a task. If the request is repeated, no second call is opened.
        """
        return await self._call("POST", "/v1/calls", call)

    async def revise_call(self, call: Mapping[str, Any], replaces: int) -> Answer:
        """Correct the place or the text of a call, by sending the whole call again.

        The call's field `replaces` must be the value of `content` that `call_state` returned last.
        """
        path = f"/v1/calls/{in_path(call['id'])}/revisions"
        return await self._call("POST", path, {**call, "replaces": replaces})

    async def end_call(self, call_id: str, reason: str) -> Answer:
        """End a call, because an ambulance has arrived or nobody needs help. All notified responders are told to stop.

        The `reason` is stored, but sent to nobody.
        """
        return await self._call("POST", f"/v1/calls/{in_path(call_id)}/end", {"reason": reason})

    async def call_state(self, call_id: str) -> Answer:
        """Return the progress of a call.

        The members are `state`, `content`, the `call` as sent, `ring_m`, `rung`, `seen`, `declined` and `seats`.
        """
        return await self._call("GET", f"/v1/calls/{in_path(call_id)}")

    async def calls(self) -> list[Answer]:
        """Return the states of this dispatcher's open calls, each as a dict like that from `call_state`."""
        answer = await self._call("GET", "/v1/calls")
        return list(answer["calls"])
