"""Unexpected exceptions after which work goes on."""

import asyncio


def report_caught(what: str, error: Exception) -> None:
    """Have the event loop's handler log and count an unexpected exception, as one that nobody has caught."""
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error, "caught": True})
