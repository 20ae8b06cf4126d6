"""The checks of asyncio's debug mode, without its costs.

With `-X dev`, asyncio notes the stack of each callback and how long each one takes: a quarter of the CPU time of the
tests. A call from a wrong thread, which is what the mode finds, is checked here instead.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any


def check_threads_only() -> None:
    """Switch off asyncio's debug mode, and let each event loop check that callbacks are added in its own thread."""
    asyncio.coroutines._is_debug_mode = lambda: False  # type: ignore[attr-defined]
    for name in ("call_soon", "call_at"):
        setattr(asyncio.BaseEventLoop, name, _in_its_own_thread(getattr(asyncio.BaseEventLoop, name)))


def _in_its_own_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(loop: Any, *arguments: Any, **options: Any) -> Any:
        loop._check_thread()
        return method(loop, *arguments, **options)

    return checked
