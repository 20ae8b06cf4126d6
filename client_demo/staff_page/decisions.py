"""Decisions of staff: the reasons for refusing a decision, and the requests to the node that carry it out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple


class Trouble(NamedTuple):
    """One reason why a decision is refused. `field` is a field of the page's form, or "" for the form as a whole."""

    field: str
    text: str
    slug: str = ""  # the problem type, if the node refused
    # A part that a person may confirm (protocol, A21): its `kind`, and `area_km2` or the words' `start` and `end`.
    held: dict[str, Any] | None = None

    def to_map(self) -> dict[str, Any]:
        """Return the reason in the form for the page."""
        return {"field": self.field, "text": self.text} | ({"held": self.held} if self.held else {})


class Conflict(Exception):  # noqa: N818 (an answer)
    """Raised if the item or call has changed since the person saw it. The text is one line for a person."""


class NotAllowed(Exception):  # noqa: N818
    """Raised for a decision that is not allowed, with the reasons in `troubles`."""

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        self.troubles = list(troubles)
        super().__init__("; ".join(trouble.text for trouble in troubles))


class RequestTasks:
    """Tasks that repeat a request to the node until the node answers; at most one for each item or call."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, item_id: str, send: Callable[[], Awaitable[None]]) -> None:
        """Run `send`, which ends when the request is answered."""

        async def until_answered() -> None:
            try:
                await send()
            finally:
                del self._tasks[item_id]

        self._tasks[item_id] = asyncio.create_task(until_answered())

    async def answered(self, item_id: str, most_s: float) -> None:
        """Wait until the pending request is answered, but at most `most_s` seconds."""
        if task := self._tasks.get(item_id):
            await asyncio.wait([task], timeout=most_s)

    async def cancel(self) -> None:
        """Cancel all tasks, and wait for their end."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
