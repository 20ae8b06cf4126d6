"""Shares: how much of a limited resource, such as running requests, one subject may use (rule HD6)."""

import asyncio
import gc
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocast.model.problems import Problem
from geocast.policy.shares import Shares, Starts, Turns


@given(
    bound=st.integers(1, 12),
    share=st.floats(0, 1, exclude_min=True),
    steps=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["take", "give back", "fail"])), max_size=60),
)
def test_request_is_refused_exactly_when_a_subjects_share_or_the_total_is_used_up(bound, share, steps):
    """A model counts the places in use. A `with` block that has ended, even by an error, uses no place (rule HD6)."""
    shares = Shares("things", bound, share)
    held = {subject: [] for subject in "abcde"}
    for subject, step in steps:
        if step == "take":
            place = ExitStack()
            count, total = len(held[subject]), sum(map(len, held.values()))
            if count < shares.most and total < bound:
                place.enter_context(shares.place(subject))
                held[subject].append(place)
            else:
                with pytest.raises(Problem) as refused:
                    place.enter_context(shares.place(subject))
                assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
                assert ("share" in refused.value.detail) == (count >= shares.most)
        elif held[subject]:
            place = held[subject].pop()
            place.__exit__(*((ValueError, ValueError(), None) if step == "fail" else (None, None, None)))
    assert 1 <= shares.most <= bound
    assert shares.most <= max(1, bound * share)
    for places in held.values():
        for place in places:
            place.close()
    assert (shares._all, dict(shares._taken)) == (0, {}), "a subject without a place takes no memory (Rule 4)"


@pytest.mark.parametrize(("own", "all_of_them", "is_refused"), [(1, 7, False), (2, 2, True), (0, 8, True)])
def test_places_stored_outside_the_process_count_towards_the_share(own, all_of_them, is_refused):
    """Open calls are stored in the log, for instance (Rule 5)."""
    shares = Shares("open calls", 8, 0.25, retry_after_s=5)
    if is_refused:
        with pytest.raises(Problem) as refused, shares.place("a", own, all_of_them):
            pass
        assert refused.value.headers == {"Retry-After": "5"}
    else:
        with shares.place("a", own, all_of_them), pytest.raises(Problem), shares.place("a", own, all_of_them):
            pass


def test_waiting_requests_of_one_subject_do_not_delay_another_subject():
    """A subject may have two of eight requests running.

    Its other requests wait in order, or are refused beyond its share (Rule 6).
    """

    async def main():
        turns, go, at_work = Turns("works", 16, 8, 0.25), asyncio.Event(), []

        async def work(subject, number):
            async with turns.turn(subject):
                at_work.append((subject, number))
                await go.wait()

        async def settle():
            for _ in range(10):
                await asyncio.sleep(0)

        greedy = [asyncio.ensure_future(work("greedy", number)) for number in range(5)]
        await settle()
        other = asyncio.ensure_future(work("other", 0))
        await settle()
        assert at_work == [("greedy", 0), ("greedy", 1), ("other", 0)]
        with pytest.raises(Problem) as refused:
            await greedy[4]
        assert refused.value.status == 429
        greedy[2].cancel()  # while it waits
        greedy[0].cancel()  # while it is at work
        await settle()
        assert at_work[3:] == [("greedy", 3)]
        go.set()
        await asyncio.gather(*greedy, other, return_exceptions=True)
        assert turns.places._all == 0

    asyncio.run(main())


def test_subject_whose_requests_have_ended_uses_no_memory():
    """The subject's semaphore is dropped with its last request (Rule 4)."""

    async def main():
        turns = Turns("works", 16, 8, 0.25)

        async def work():
            async with turns.turn("subject"):
                await asyncio.sleep(0)

        await asyncio.gather(work(), work(), work())
        gc.collect()
        assert len(turns._own) == 0

    asyncio.run(main())


def test_requests_of_one_subject_start_in_different_turns_of_the_event_loop():
    """Requests of other subjects start in the same turns (Rule 7), and finished subjects use no memory (Rule 4)."""

    async def main():
        starts, turn, begun = Starts(), 0, []

        async def request(subject):
            await starts.wait(subject)
            begun.append((turn, subject))

        requests = [asyncio.ensure_future(request(subject)) for subject in ["greedy"] * 5 + ["other"] * 2]
        while not all(each.done() for each in requests):
            turn += 1
            await asyncio.sleep(0)
        assert len(set(begun)) == len(begun) == 7
        assert [subject for _, subject in begun[:2]] == ["greedy", "other"]
        requests.clear()
        gc.collect()
        assert len(starts._own) == 0

    asyncio.run(main())
