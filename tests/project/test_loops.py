"""Tests of the check that replaces asyncio's debug mode in the tests."""

import asyncio
import threading


def test_callback_added_in_a_thread_other_than_the_loops_raises_an_error():
    """`call_soon_threadsafe` is the way to add one."""
    refused: list[RuntimeError] = []

    def add(loop, added):
        try:
            loop.call_soon(added.set)
        except RuntimeError as error:
            refused.append(error)
        loop.call_soon_threadsafe(added.set)

    async def wait():
        added = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=add, args=(loop, added)).start()
        await added.wait()
        assert not loop.get_debug()

    asyncio.run(wait())
    assert "Non-thread-safe" in str(refused)
