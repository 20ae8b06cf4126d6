"""The open pages, and the items that have changed since each page was last updated.

Rule 1  Events are not queued. A slow page is sent only the latest state of each item that has changed in the meantime.
"""

import asyncio
import contextlib
from collections.abc import Iterator

TICK_S = 10.0


class PageChanges:
    """The ids of the items that have changed since their state was last sent to one page.

    The id "" stands for the page as a whole.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._event = asyncio.Event()

    def add(self, item_id: str) -> None:
        """Record that this item has changed."""
        self._ids.add(item_id)
        self._event.set()

    async def next(self) -> set[str]:
        """Wait for a change, and return the ids of all items that have changed since the last call of this method.

        After TICK_S seconds without a change, return an empty set.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._event.wait()
        self._event.clear()
        ids, self._ids = self._ids, set()
        return ids


class OpenPages:
    """The set of open pages."""

    def __init__(self) -> None:
        self._pages: set[PageChanges] = set()

    def changed(self, item_id: str = "") -> None:
        """Record, for every open page, that this item has changed."""
        for page in self._pages:
            page.add(item_id)

    @contextlib.contextmanager
    def joined(self) -> Iterator[PageChanges]:
        """Add a page to the set during the `with` block; yield the object that collects the changes for it."""
        page = PageChanges()
        self._pages.add(page)
        try:
            yield page
        finally:
            self._pages.remove(page)
