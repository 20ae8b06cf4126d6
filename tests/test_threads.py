"""Work beside the loop (`run.threads`)."""

import asyncio
import threading

import pytest

from geocast.problems import Problem
from geocast.run.threads import MAX_WORKS, THREADS, Threads


def test_the_loop_goes_on_while_a_thread_works():
    """What it comes to comes back, and so does what it raises."""

    async def main():
        aside, go = Threads(), threading.Event()
        waits = asyncio.ensure_future(aside(lambda: go.wait(60) and threading.current_thread(), "a"))
        await asyncio.sleep(0)
        assert not waits.done()
        go.set()
        assert await waits is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 / 0, "a")

    asyncio.run(main())


def test_so_many_work_at_a_time_and_the_others_wait():
    """THREADS of them; each of the others begins when one has ended. One subject has a quarter of them (HD6)."""

    async def main():
        aside, go, begun = Threads(), threading.Event(), threading.Semaphore(0)

        def work():
            begun.release()
            return go.wait(60)

        works = [asyncio.ensure_future(aside(work, n % (2 * THREADS))) for n in range(3 * THREADS)]
        await asyncio.to_thread(lambda: [begun.acquire() for _ in range(THREADS)])
        assert not begun.acquire(blocking=False)
        with pytest.raises(Problem) as refused:
            await asyncio.gather(*(aside(work, "greedy") for _ in range(MAX_WORKS)))
        assert refused.value.status == 429
        go.set()
        assert all(await asyncio.gather(*works))

    asyncio.run(main())
