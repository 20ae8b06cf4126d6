"""The thread that logs which function kept the event loop from its other work."""

import asyncio
import logging
import sys
import threading
import time

import uvloop

from geocast.run.loop_watch import LoopWatch, _waits, described


def test_function_that_blocks_the_loop_is_named_in_the_log(caplog):
    """The log message names the function and how long it took, and is written when the loop works again."""
    with asyncio.Runner() as runner, LoopWatch(runner.get_loop()) as watch, caplog.at_level(logging.WARNING):
        runner.run(_block(watch))
        while not _messages(caplog):
            runner.run(asyncio.sleep(0))
    assert "waiting for the CPU, or for a callback of another package" in _messages(caplog)[0]


def _messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "geocast.run.loop_watch"]


async def _block(watch):
    while not watch.stalls:
        time.monotonic()


def test_loop_that_waits_for_its_sockets_is_not_asked():
    """Only a loop that runs a callback can be late; to wake an idle one would cost CPU in each process."""
    ends, begun, blocked, free = asyncio.Event(), threading.Event(), threading.Event(), threading.Event()

    def block():
        blocked.set()
        free.wait()

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        begun.set()
        await ends.wait()

    def serve():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    loop = None
    thread = threading.Thread(target=serve)
    thread.start()
    begun.wait()
    while not _waits(sys._current_frames()[thread.ident]):
        time.sleep(0)
    loop.call_soon_threadsafe(block)
    blocked.wait()
    assert not _waits(sys._current_frames()[thread.ident])
    free.set()
    loop.call_soon_threadsafe(ends.set)
    thread.join()


def test_description_names_the_own_function_and_the_one_that_it_calls():
    """Only names of functions are shown, never values."""
    module = type(sys)("geocast.example")
    code = "def slow(secret, look):\n    return look(secret)\n"
    exec(code, vars(module))

    def look(_secret):
        return described(sys._getframe())

    found = module.slow("hunter2", look)
    assert found.startswith("in geocast.example.slow, line 2, calling ")
    assert found.endswith("look")
    assert "hunter2" not in found


def test_description_without_own_function_says_that_the_loop_waits():
    """Then the machine gave the process no CPU, or another package's callback ran."""
    assert described(None) == described(sys._getframe()) == "waiting for the CPU, or for a callback of another package"
