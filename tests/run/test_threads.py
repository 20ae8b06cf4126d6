"""Threads for slow work beside the event loop (`run.threads`)."""

import asyncio
import gc
import subprocess
import sys
import threading
import time

import pytest

from geocast.model import problems
from geocast.model.problems import Problem
from geocast.run.threads import LONG_S, MAX_WORKS, MOST_S, THREADS, CollectionPause, Threads


def test_event_loop_continues_while_a_thread_works():
    """The result of the work is returned, or its error is raised."""

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


def test_objects_of_refused_work_are_freed_in_its_thread():
    """To free the tree of a large message takes milliseconds, which the event loop must not spend (rule HD14)."""
    freed_in = []

    class Tree:
        def __del__(self):
            freed_in.append(threading.current_thread())

    def work():
        tree = Tree()
        try:
            raise ValueError(str(tree))
        except ValueError:
            raise Problem(problems.MALFORMED_XML) from None

    async def main():
        with pytest.raises(Problem) as refused:
            await Threads()(work, "a")
        assert refused.value.type is problems.MALFORMED_XML
        assert freed_in
        assert freed_in[0] is not threading.current_thread()

    asyncio.run(main())


def test_no_garbage_is_collected_while_threads_work():
    """The collector would stop the event loop to examine what the work has made. It goes on when all work has ended."""

    async def main():
        threads, go = Threads(), threading.Event()
        first = asyncio.ensure_future(threads(lambda: (gc.isenabled(), go.wait(60)), "a"))
        assert await threads(gc.isenabled, "b") is False
        go.set()
        assert await first == (False, True)

    asyncio.run(main())
    assert gc.isenabled()


def test_garbage_is_collected_again_if_threads_always_work(monkeypatch):
    """Otherwise reference cycles could fill the memory."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pause = CollectionPause()
    with pause:
        with pause:
            now = MOST_S
        assert not gc.isenabled()
        with pause:
            now = MOST_S + 1
        assert gc.isenabled()
    assert gc.isenabled()


def test_work_waits_if_all_threads_are_busy_and_is_refused_beyond_a_share():
    """Waiting work starts when other work ends. One subject may have a quarter of all waiting work (HD6)."""

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


def test_process_exits_although_threads_are_still_working():
    """A shutdown waits neither for running nor for waiting work, since no client would get the result (HD3)."""
    program = """
import asyncio, threading
from geocast.run.threads import THREADS, Threads

def work():
    begun.release()
    threading.Event().wait()

async def main():
    aside = Threads()
    works = [asyncio.ensure_future(aside(work, n % (2 * THREADS))) for n in range(3 * THREADS)]
    await asyncio.to_thread(lambda: [begun.acquire() for _ in range(THREADS)])
    print("drained", flush=True)

begun = threading.Semaphore(0)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "drained\n", "")


def test_work_of_one_thread_pool_does_not_wait_for_another_pool():
    """CAP messages have threads of their own (HD3)."""

    async def main():
        cap, polygons, go = Threads(), Threads(), threading.Event()
        busy = [asyncio.ensure_future(cap(lambda: go.wait(60), n)) for n in range(2 * THREADS)]
        await asyncio.sleep(0)
        assert await polygons(lambda: 7, "a") == 7
        assert not any(each.done() for each in busy)
        go.set()
        assert all(await asyncio.gather(*busy))

    asyncio.run(main())


def test_cancelled_work_that_waits_for_a_thread_is_never_started():
    """The client has disconnected while the work waited (HD3)."""

    async def main():
        aside, begun, go, done = Threads(number=1), threading.Event(), threading.Event(), []
        first = asyncio.ensure_future(aside(lambda: begun.set() or go.wait(60), "a"))
        await asyncio.to_thread(begun.wait)
        first.cancel()
        second = asyncio.ensure_future(aside(lambda: done.append(2), "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        await aside(lambda: done.append(3), "c")
        assert done == [3]

    asyncio.run(main())


def test_subject_has_to_pause_after_long_work_and_others_do_not():
    """The pause is as long as the CPU time of the work. Short work causes no pause (HD3, HD6)."""

    def compute():
        until = time.thread_time() + 2 * LONG_S
        while time.thread_time() < until:
            pass

    async def main():
        pauses = []

        async def note(seconds):
            pauses.append(seconds)

        aside = Threads(sleep=note)
        await aside(lambda: None, "long")
        await aside(compute, "long")
        assert pauses == []
        await aside(lambda: None, "other")
        assert pauses == []
        await aside(lambda: None, "long")
        assert len(pauses) == 1
        assert 0 < pauses[0] <= 60

    asyncio.run(main())


def test_thread_serves_other_subjects_while_one_subject_pauses():
    """One thread serves another subject while the first one pauses (HD6)."""

    async def main():
        go = asyncio.Event()
        aside = Threads(number=1, sleep=lambda _seconds: go.wait())
        aside._paused["long"] = asyncio.get_running_loop().time() + 3_600
        waits = asyncio.ensure_future(aside(lambda: 1, "long"))
        await asyncio.sleep(0)
        assert await aside(lambda: 2, "other") == 2
        assert not waits.done()
        go.set()
        assert await waits == 1

    asyncio.run(main())
