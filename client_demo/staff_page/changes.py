"""The open pages, and what each of them has to be told of.

Rule 2  An event is never queued: a page that is slow is sent the latest state of what has changed meanwhile.
"""

import asyncio
import contextlib
from collections.abc import Iterator

TICK_S = 10.0


class PageChanges:
    """What one page has to be told of: the ids of items that have changed; "" is the desk itself."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._event = asyncio.Event()

    def add(self, item_id: str) -> None:
        """Something has changed."""
        self._ids.add(item_id)
        self._event.set()

    async def next(self) -> set[str]:
        """What has changed since the last call; empty after TICK_S without anything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._event.wait()
        self._event.clear()
        ids, self._ids = self._ids, set()
        return ids


class OpenPages:
    """The pages that are open."""

    def __init__(self) -> None:
        self._pages: set[PageChanges] = set()

    def changed(self, item_id: str = "") -> None:
        """Tell everybody."""
        for page in self._pages:
            page.add(item_id)

    @contextlib.contextmanager
    def joined(self) -> Iterator[PageChanges]:
        """What changes while the block runs, from its beginning."""
        page = PageChanges()
        self._pages.add(page)
        try:
            yield page
        finally:
            self._pages.remove(page)
