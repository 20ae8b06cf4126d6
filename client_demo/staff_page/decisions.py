"""Decisions of staff: the reasons why a decision is refused, and the tasks that send decisions to the node."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple


class Trouble(NamedTuple):
    """One reason why a decision is refused.

    `field` is the field of the page's form that the reason concerns, or "" for the form as a whole.
    """

    field: str
    text: str
    slug: str = ""  # the problem type, if the node refused
    # A part of an alert that a person may confirm (protocol, A21): its `kind`, and `area_km2` for a shape, or `start`
    # and `end` of the words in a text.
    held: dict[str, Any] | None = None

    def to_map(self) -> dict[str, Any]:
        """Return the reason as a dict for the page."""
        return {"field": self.field, "text": self.text} | ({"held": self.held} if self.held else {})


class Conflict(Exception):  # noqa: N818 (an answer)
    """Raised if the item or call has changed since the person saw it. The text is one line for the person."""


class NotAllowed(Exception):  # noqa: N818
    """Raised if a decision is not allowed. `troubles` has the reasons."""

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        self.troubles = list(troubles)
        super().__init__("; ".join(trouble.text for trouble in troubles))


class RequestTasks:
    """Tasks that send a request to the node repeatedly until the node answers.

    There is at most one task for each item or call.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, item_id: str, send: Callable[[], Awaitable[None]]) -> None:
        """Run `send` in a task. It must send the request, and return when the node has answered it."""

        async def until_answered() -> None:
            try:
                await send()
            finally:
                del self._tasks[item_id]

        self._tasks[item_id] = asyncio.create_task(until_answered())

    async def answered(self, item_id: str, most_s: float) -> None:
        """Wait until the node has answered the item's request, but at most `most_s` seconds."""
        if task := self._tasks.get(item_id):
            await asyncio.wait([task], timeout=most_s)

    async def cancel(self) -> None:
        """Cancel all tasks, and wait for their end."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
