"""Work beside the loop (`run.threads`)."""

import asyncio
import threading

import pytest

from geocast.run.threads import THREADS, Threads


def test_the_loop_goes_on_while_a_thread_works():
    """What it comes to comes back, and so does what it raises."""

    async def main():
        aside, go = Threads(), threading.Event()
        waits = asyncio.ensure_future(aside(lambda: go.wait(60) and threading.current_thread()))
        await asyncio.sleep(0)
        assert not waits.done()
        go.set()
        assert await waits is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 / 0)

    asyncio.run(main())


def test_so_many_work_at_a_time_and_the_others_wait():
    """THREADS of them; each of the others begins when one has ended."""

    async def main():
        aside, go, begun = Threads(), threading.Event(), threading.Semaphore(0)

        def work():
            begun.release()
            return go.wait(60)

        works = [asyncio.ensure_future(aside(work)) for _ in range(3 * THREADS)]
        await asyncio.to_thread(lambda: [begun.acquire() for _ in range(THREADS)])
        assert not begun.acquire(blocking=False)
        go.set()
        assert all(await asyncio.gather(*works))

    asyncio.run(main())
