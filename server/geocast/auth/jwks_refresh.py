"""Waiting for newer keys, for clients that present a token with an unknown key.

Example: the identity provider starts to sign with a new key, and a phone presents a token signed with it. Instead of
refusing the phone, the node fetches the key set again, and lets the phone wait for the result.

Clients cannot abuse the wait to block the node. The set is fetched at a limited rate, however often clients cause a
fetch (`run/key_source.py`). A wait ends with the fetch, or after WAIT_S. At most MAX_WAITING clients wait. All others
are refused at once, and so are all clients if the keys come from a file.
"""

import asyncio
from collections.abc import Callable

WAIT_S = 5.0
MAX_WAITING = 256  # per process; the first message of each waiting client may take 64 KiB


class NewerKeys:
    """Lets clients of this process wait until it is known whether newer keys have been published.

    `ask` is a function that starts a fetch of the key set. The owner of this object has to call `settle` when the fetch
    is done, or at once if no fetch is possible now.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._waiting: list[Callable[[], None]] = []
        self._deadline: asyncio.TimerHandle | None = None

    def wait(self, then: Callable[[], None]) -> bool:
        """Register a function to call when it is known whether newer keys have been published, and return True.

        `then` is the function. If too many clients are waiting, register nothing and return False.
        """
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(then)
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(WAIT_S, self.settle)
            asyncio.get_running_loop().call_soon(self._ask)
        return True

    async def waited(self) -> None:
        """Wait until it is known whether newer keys have been published.

        Return at once if too many clients are waiting.
        """
        known = asyncio.Event()
        if self.wait(known.set):
            await known.wait()

    def settle(self) -> None:
        """End all waits. Call this method when newer keys have been loaded, or when none were found."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            asyncio.get_running_loop().call_soon(then)  # so that an error in one of them does not concern the others
