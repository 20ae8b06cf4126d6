"""What every store of devices does: the rules of `geocast.push.devicestore`, for the suites of the backends.

A backend's test file makes a class of its own from `Contract`, and says how to open a store.
"""

import abc
import asyncio
import hashlib

from geocast.push.devicestore import (
    SHARDS,
    Change,
    DeliveryRecord,
    Limits,
    Put,
    PutResult,
    State,
    StoredDevice,
    shard_of,
)

FAR_MS = 2_000_000_000_000
PATIENCE = 60
EVERY = range(SHARDS)
BATCH = 20  # that a store is to give at once at most


def digest(text):
    """As long as digests are."""
    return hashlib.sha256(text.encode()).digest()[:16]


def device(name, endpoint=None, until_ms=FAR_MS, sealed=b"sealed", owner="somebody", secret=None):
    """A device, by a name for its digest; its secret is its own."""
    at, known_by = digest(endpoint or f"at-{name}"), digest(secret or f"secret-{name}")
    return StoredDevice(digest(name), digest(owner), at, known_by, until_ms, sealed)


def line(name, alert, number=1, state=State.SENT, ends_at_ms=FAR_MS, secret=None, term=0):
    """What a device was told."""
    known_by = digest(secret or f"secret-{name}")
    return DeliveryRecord(digest(name), digest(alert), number, state, ends_at_ms, known_by, term)


def known(name, **more):
    """What a device is known by."""
    return device(name, **more).known


async def all_of(store, shards=EVERY):
    """All that a store has: device -> itself and its lines, by alert."""
    return {
        each.device: (each, {told.alert: told for told in lines})
        async for batch in store.load(shards)
        for each, lines in batch
    }


async def assert_has(store, *expected):
    """These devices, each with its lines, are what a store has: from whichever side one looks."""
    found = {each.device: (each, {told.alert: told for told in lines}) for each, *lines in expected}
    assert await all_of(store) == found
    for each, told in found.values():
        got = await store.find(each.device)
        assert got is not None
        assert (got[0], {one.alert: one for one in got[1]}) == (each, told)
        assert await store.knowing(each.secret) == each
        assert each in await store.owned(each.owner)


async def put(store, *devices):
    """Devices that are new."""
    for each in devices:
        assert await store.put(each, None) == Put(PutResult.STORED)


def with_store(test):
    """Make a test of a coroutine that takes an open and empty store."""

    def run(self, tmp_path):
        async def main():
            async with asyncio.timeout(PATIENCE):
                store = self.new(tmp_path)
                await store.start()
                try:
                    await test(self, store)
                finally:
                    await store.stop()

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Contract(abc.ABC):
    """The suite."""

    @abc.abstractmethod
    def new(self, tmp_path):
        """A store, not open yet."""

    @with_store
    async def test_a_device_is_kept_as_it_was_put(self, store):
        """DevS1, DevS9."""
        a, b = device("a"), device("b", sealed=bytes(5_000), owner="other")
        await put(store, a, b)
        await assert_has(store, (a,), (b,))
        assert await store.owned(digest("other")) == [b]
        assert await store.find(digest("c")) is None
        assert await store.knowing(digest("c")) is None
        assert await store.owned(digest("c")) == []

    @with_store
    async def test_a_device_that_is_put_again_keeps_what_it_was_told(self, store):
        """DevS1, DevS4: its secret is what makes it the same."""
        a = device("a")
        await put(store, a)
        await store.note([line("a", "x")])
        again = device("a", endpoint="elsewhere", until_ms=FAR_MS + 1, sealed=b"other")
        assert await store.put(again, a) == Put(PutResult.STORED)
        await assert_has(store, (again, line("a", "x")))

    @with_store
    async def test_another_registration_of_a_device_was_told_nothing(self, store):
        """DevS4, DevS6: whether it was forgotten between, or is put over the old one. An old line is not for it."""
        a, new, newer = (device("a", secret=secret) for secret in (None, "new", "newer"))
        await put(store, a)
        await store.note([line("a", "x")])
        await store.forget([a.known])
        await put(store, new)
        await store.note([line("a", "x")])
        await assert_has(store, (new,))
        told = line("a", "x", secret="new")
        await store.note([told, line("a", "x", state=None)])
        await assert_has(store, (new, told))
        assert await store.put(newer, new) == Put(PutResult.STORED)
        await assert_has(store, (newer,))

    @with_store
    async def test_a_device_takes_the_place_of_another_with_its_endpoint(self, store):
        """DevS1, WPR8: that one and what it was told are forgotten with it."""
        a, b = device("a", endpoint="one"), device("b", endpoint="one")
        await put(store, a)
        await store.note([line("a", "x")])
        assert await store.put(b, None) == Put(PutResult.STORED, (a.device,))
        await assert_has(store, (b,))
        moved = device("b", endpoint="two")
        await store.put(moved, b)
        await put(store, a)
        await assert_has(store, (a,), (moved,))

    @with_store
    async def test_what_was_read_before_another_wrote_is_not_put(self, store):
        """DevS2: CHANGED, whatever it was that changed."""
        a, newer = device("a"), device("a", sealed=b"newer")
        assert await store.put(newer, a) == Put(PutResult.CHANGED)
        await assert_has(store)
        await put(store, a)
        assert await store.put(newer, None) == Put(PutResult.CHANGED)
        await store.put(newer, a)
        assert await store.put(device("a", sealed=b"of old", endpoint="else"), a) == Put(PutResult.CHANGED)
        await assert_has(store, (newer,))

    @with_store
    async def test_an_owner_has_so_many_devices_and_the_store_so_many(self, store):
        """DevS2, WPR6, WPR10: one that is replaced makes room, and one that is there may be put again."""
        limits = Limits(owned=2, devices=3)
        a, b, c = device("a"), device("b"), device("c")
        for each in (a, b):
            assert (await store.put(each, None, limits=limits)).result is PutResult.STORED
        assert await store.put(c, None, limits=limits) == Put(PutResult.TOO_MANY)
        assert (await store.put(device("a", sealed=b"2"), a, limits=limits)).result is PutResult.STORED
        in_place = device("c", endpoint="at-b")
        assert await store.put(in_place, None, limits=limits) == Put(PutResult.STORED, (b.device,))
        other = device("d", owner="other")
        assert (await store.put(other, None, limits=limits)).result is PutResult.STORED
        assert await store.put(device("e", owner="other"), None, limits=limits) == Put(PutResult.FULL)
        assert (
            await store.put(device("e", owner="other", endpoint="at-d"), None, limits=limits)
        ).result is PutResult.STORED
        assert set(await all_of(store)) == {digest(name) for name in "ace"}

    @with_store
    async def test_a_device_may_come_with_what_it_was_told(self, store):
        """DevS1: as one whose digest is another now, with another key."""
        told = line("a", "x", 2, State.MAYBE)
        assert await store.put(device("a"), None, lines=[told]) == Put(PutResult.STORED)
        await assert_has(store, (device("a"), told))

    @with_store
    async def test_what_is_forgotten_is_gone_with_all_it_was_told(self, store):
        """DevS3; one that is not there is forgotten already."""
        await put(store, *(device(name) for name in "abc"))
        await store.note([line("a", "x"), line("b", "x"), line("c", "x")])
        await store.forget([known("a"), known("b"), known("none")])
        await assert_has(store, (device("c"), line("c", "x")))
        assert await store.knowing(device("a").secret) is None

    @with_store
    async def test_what_is_not_known_any_more_is_not_forgotten(self, store):
        """DevS3: an answer that says that an endpoint is gone may come when the device has another one."""
        await put(store, device("a"))
        await store.note([line("a", "x")])
        others = [known("a", endpoint="old"), known("a", until_ms=1), known("a", secret="old")]
        await store.forget(others)
        await assert_has(store, (device("a"), line("a", "x")))

    @with_store
    async def test_the_last_line_of_a_device_and_an_alert_counts(self, store):
        """DevS5: in their order, in one call too."""
        await put(store, device("a"))
        maybe = line("a", "x", 2, State.MAYBE)
        assert not await store.note([line("a", "x"), line("a", "y"), maybe, line("a", "y", state=None)])
        await assert_has(store, (device("a"), maybe))
        await store.note([line("a", "x", 2), line("a", "z", 1, None)])
        await assert_has(store, (device("a"), line("a", "x", 2)))

    @with_store
    async def test_a_line_for_a_device_that_is_not_there_is_passed_over(self, store):
        """DevS6."""
        await store.note([line("a", "x")])
        await put(store, device("a"))
        await assert_has(store, (device("a"),))

    @with_store
    async def test_the_lines_of_what_is_over_are_taken_away(self, store):
        """`purge`: an alert may live longer than a line says, if it was revised since."""
        await put(store, device("a"))
        await store.note([line("a", "x", ends_at_ms=5), line("a", "y", ends_at_ms=5), line("a", "z", ends_at_ms=6)])
        assert await store.purge(EVERY, 5, lambda alert: alert != digest("y")) == 1
        assert set((await all_of(store))[digest("a")][1]) == {digest("y"), digest("z")}

    @with_store
    async def test_more_devices_than_fit_into_a_batch_are_given_once_each(self, store):
        """DevS9: by all shards, or some at a time."""
        names = [f"{number:04}" for number in range(2 * BATCH + 1)]
        await put(store, *(device(name) for name in names))
        await store.note([line(name, "x") for name in names])
        expected = sorted(digest(name) for name in names)
        for parts in ([EVERY], [range(32), range(32, SHARDS)], [[shard] for shard in EVERY]):
            found = [
                each.device
                for shards in parts
                async for batch in store.load(shards)
                for each, lines in batch
                if len(lines) == 1 and shard_of(each.device) in shards
            ]
            assert sorted(found) == expected


class SharedContract(Contract):
    """The rules of what several processes have."""

    @abc.abstractmethod
    def other(self, store):
        """Another store of the same devices as this open one, not open yet."""

    def with_other(test):  # noqa: N805 (a decorator)
        """Make a test of a coroutine that takes two open stores of the same devices."""

        @with_store
        async def run(self, store):
            other = self.other(store)
            await other.start()
            try:
                await test(self, store, other)
            finally:
                await other.stop()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    @with_other
    async def test_what_one_has_put_the_others_find(self, store, other):
        """DevS1, DevS2."""
        await put(store, device("a"))
        await other.note([line("a", "x")])
        await assert_has(store, (device("a"), line("a", "x")))
        await assert_has(other, (device("a"), line("a", "x")))

    @with_other
    async def test_what_others_change_is_followed_in_order(self, store, other):
        """DevS10: with their notes; what this one does itself is not told."""
        before = device("a")
        await store.put(before, None, note=b"of store")
        await other.put(device("b"), None, note=b"first")
        await other.put(device("a", sealed=b"2"), before, note=b"second")
        await other.put(device("c", endpoint="at-b"), None)
        await other.forget([known("c", endpoint="at-b")])
        expected = [
            Change(digest("b"), b"first"),
            Change(digest("a"), b"second"),
            Change(digest("b"), b""),
            Change(digest("c"), b""),
            Change(digest("c"), b""),
        ]
        found = []
        async for changes in store.follow():
            found += changes
            if len(found) >= len(expected):
                break
        assert found == expected
        async for changes in other.follow():
            assert changes == [Change(digest("a"), b"of store")]
            break


class FencedContract(SharedContract):
    """The rules of shards that are held for a term."""

    @abc.abstractmethod
    async def begin_term(self, store, shard):
        """Begin a new term of a shard; its number."""

    @with_store
    async def test_a_line_of_an_old_term_is_refused(self, store):
        """DevS7: those of other shards are written all the same."""
        await put(store, device("a"), device("b"))
        a, b = shard_of(digest("a")), shard_of(digest("b"))
        assert a != b
        old = {shard: await self.begin_term(store, shard) for shard in (a, b)}
        assert not await store.note([line("a", "x", term=old[a]), line("b", "x", term=old[b])])
        new = await self.begin_term(store, a)
        assert new > old[a]
        refused = await store.note(
            [line("a", "x", 2, term=old[a]), line("b", "x", 2, term=old[b]), line("a", "x", state=None, term=old[a])]
        )
        assert set(refused) == {a}
        await assert_has(store, (device("a"), line("a", "x")), (device("b"), line("b", "x", 2)))
        assert not await store.note([line("a", "x", 3, term=new)])
        await assert_has(store, (device("a"), line("a", "x", 3)), (device("b"), line("b", "x", 2)))
