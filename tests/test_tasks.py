"""Supervised tasks: what happens when one fails, returns, or does not end."""

import asyncio
import contextlib

import pytest

from geocast import tasks

PLACE = "48.2, 16.3"


class Odd(Exception):  # noqa: N818 (an exception that nobody expects)
    """An unexpected exception, whose text must not be logged."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.0)


class Flaky:
    """Work that fails `failures` times, then waits for ever."""

    def __init__(self, failures, error=Odd):
        self.left, self.error, self.tries = failures, error, 0
        self.done = asyncio.Event()

    async def run(self):
        self.tries += 1
        if self.left:
            self.left -= 1
            raise self.error(PLACE)
        self.done.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [Odd, asyncio.CancelledError, OSError])
def test_task_that_raises_is_logged_counted_and_started_again(caplog, error):
    """Also if a library raises CancelledError although nobody has cancelled the task."""

    async def main():
        work, before = Flaky(2, error), tasks.failures.get("some-work", 0)
        async with tasks.running(some_work=work.run):
            await work.done.wait()
            assert tasks.unready() == []
        assert (work.tries, tasks.failures["some-work"] - before) == (3, 2)

    asyncio.run(main())
    assert caplog.text.count(f"task some-work failed: {error.__name__}") == 2
    assert ", in run" in caplog.text
    assert "48.2" not in caplog.text


def test_task_with_a_group_of_which_a_child_fails_starts_again(caplog):
    """A task group of Python 3.11 cancels its own task then, and leaves it so; before, the task ended silently."""

    async def main():
        work, before = Flaky(1), tasks.failures.get("group", 0)

        async def children():
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                group.create_task(work.run())

        async with tasks.running(group=children):
            async with asyncio.timeout(20):
                await work.done.wait()
        assert tasks.failures["group"] - before == 1

    asyncio.run(main())
    assert "task group failed: Odd" in caplog.text


def test_task_that_returns_counts_as_failed(caplog):
    """A task of this kind has no end."""

    async def main():
        returned, times = asyncio.Event(), iter(range(4))

        async def work():
            if next(times) == 3:
                returned.set()

        async with tasks.running(short=work):
            await returned.wait()

    asyncio.run(main())
    assert caplog.text.count("task short failed: RuntimeError") >= 3


def test_task_that_fails_repeatedly_is_a_reason_to_be_unready_until_it_works():
    """From the third failure in a row, until it has worked once."""

    async def main():
        may_work, tried, tries = asyncio.Event(), asyncio.Event(), []

        def work():
            tries.append(list(tasks.unready()))
            tried.set()
            if not may_work.is_set():
                raise Odd

        async with tasks.running(sweep=tasks.every(0.0, work)):
            while len(tries) < 6:
                tried.clear()
                await tried.wait()
            assert tasks.unready() == ["task sweep fails: Odd"]
            may_work.set()
            while tasks.unready():
                tried.clear()
                await tried.wait()
                await asyncio.sleep(0)
        assert tries[:6] == [[]] * 3 + [["task sweep fails: Odd"]] * 3

    asyncio.run(main())
    assert tasks.unready() == []


def test_waits_between_failures_double_up_to_30_s(monkeypatch):
    """The waits are 0.1 s, 0.2 s and so on."""
    monkeypatch.setattr(tasks, "FIRST_WAIT_S", 0.1)

    async def work():
        """Never called."""

    task = tasks._Task("waits", work)
    assert [round(task._failed(Odd()), 1) for _ in range(11)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


def test_work_whose_event_was_set_is_done_again_after_a_failure():
    """A reload that fails halfway is repeated."""

    async def main():
        event, work = asyncio.Event(), Flaky(1)
        async with tasks.running(reload=tasks.whenever(event, work.run)):
            event.set()
            await work.done.wait()
        assert work.tries == 2

    asyncio.run(main())


def test_task_that_ignored_its_cancellation_is_cancelled_again(monkeypatch):
    """A node ends even if a library's `asyncio.wait_for` loses the cancellation of a task."""
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.0)
    lost = []
    started = asyncio.Event()

    async def loses_one():
        while True:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append("one")

    async def main():
        async with tasks.running(deaf=loses_one):
            await started.wait()

    asyncio.run(main())
    assert lost == ["one"]


def test_failure_of_callback_or_of_task_that_runs_once_is_logged_and_counted(caplog):
    """Nothing that the loop runs can fail unnoticed."""

    async def fail():
        raise Odd(PLACE)

    async def main():
        tasks.watch_loop()
        before = tasks.failures["callback"]
        asyncio.get_running_loop().call_soon(dict[str, int]().__getitem__, "x")
        once = asyncio.ensure_future(fail())
        with contextlib.suppress(Odd):
            await asyncio.wait([once])
        del once
        await asyncio.sleep(0)
        assert tasks.failures["callback"] - before == 2

    asyncio.run(main())
    assert "once failed: KeyError" in caplog.text
    assert "once failed: Odd" in caplog.text
    assert "48.2" not in caplog.text


@pytest.mark.parametrize(
    ("message", "error", "counted"),
    [
        ("Fatal error on SSL protocol", RuntimeError("the handler is closed"), 0),
        ("Fatal error on SSL protocol", ValueError("another"), 1),
        ("Task exception was never retrieved", RuntimeError("another"), 1),
    ],
)
async def test_late_tls_write_to_closed_connection_is_neither_logged_nor_counted(message, error, counted, caplog):
    """Nothing has failed: uvloop still had bytes to write. All other errors are logged and counted."""
    tasks.watch_loop()
    before = tasks.failures["callback"]
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
    assert (tasks.failures["callback"] - before, len(caplog.records)) == (counted, counted)
