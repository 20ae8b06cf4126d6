"""`geocast relay --check`: connects to each target, and posts nothing."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from ..clock import SystemClock
from ..egress.post_client import HttpPostClient
from .targets import RelayTarget


async def check_targets(targets: Mapping[str, RelayTarget], report: Callable[[str], None]) -> bool:
    """Connect to each target without posting anything, report a line for each, and return whether all took it."""

    async def connected(target: RelayTarget) -> str:
        private = (target.url.host,) if target.allow_private else ()
        client = HttpPostClient(lambda: SystemClock().now().wall_ms, private, target.tls).open()
        with contextlib.closing(client):
            return await client.connect(target.url.host, target.url.port)

    troubles = await asyncio.gather(*map(connected, targets.values()))
    width = max(map(len, targets))
    for target, trouble in zip(targets.values(), troubles, strict=True):
        report(f"{target.name:{width}}  {trouble or 'connects'}  ({target.asks_for()})")
    return not any(troubles)
