"""The rules of `geocast.push.devicestore` as tests, for the suites of the backends.

A backend's test file derives a class from `Contract` and says how to open a store.
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
BATCH = 20  # the size of a batch of `load` that the tests set


def digest(text):
    """Return a digest of the length that devices have."""
    return hashlib.sha256(text.encode()).digest()[:16]


def device(name, endpoint=None, until_ms=FAR_MS, sealed=b"sealed", owner="somebody", secret=None):
    """Return a device whose digest and secret are made from a name."""
    at, known_by = digest(endpoint or f"at-{name}"), digest(secret or f"secret-{name}")
    return StoredDevice(digest(name), digest(owner), at, known_by, until_ms, sealed)


def line(name, alert, number=1, state=State.SENT, ends_at_ms=FAR_MS, secret=None, term=0):
    """Return a line: what a device was sent."""
    known_by = digest(secret or f"secret-{name}")
    return DeliveryRecord(digest(name), digest(alert), number, state, ends_at_ms, known_by, term)


def begin_term(store, shard):
    """Begin a new term of a shard of a store in memory, as if another process took it, and return its number."""
    terms = store._memory.terms
    terms[shard] = terms.get(shard, 0) + 1
    return terms[shard]


def known(name, **more):
    """Return the registration key of a device."""
    return device(name, **more).known


async def all_of(store, shards=EVERY):
    """Return everything in a store: device -> the device and its delivery records by alert."""
    return {
        each.device: (each, {told.alert: told for told in lines})
        async for batch in store.load(shards)
        for each, lines in batch
    }


async def assert_has(store, *expected):
    """Assert that each way to read a store finds exactly these devices, each with its delivery records."""
    found = {each.device: (each, {told.alert: told for told in lines}) for each, *lines in expected}
    assert await all_of(store) == found
    for each, told in found.values():
        got = await store.find(each.device)
        assert got is not None
        assert (got[0], {one.alert: one for one in got[1]}) == (each, told)
        assert await store.knowing(each.secret) == each
        assert each in await store.owned(each.owner)


async def put(store, *devices):
    """Put new devices."""
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
    """The tests of the rules that every store keeps."""

    @abc.abstractmethod
    def new(self, tmp_path):
        """Return a store that is not started."""

    @with_store
    async def test_stored_device_is_read_back_unchanged(self, store):
        """All ways to read the device return it (rules DevS1, DevS9)."""
        a, b = device("a"), device("b", sealed=bytes(5_000), owner="other")
        await put(store, a, b)
        await assert_has(store, (a,), (b,))
        assert await store.owned(digest("other")) == [b]
        assert await store.find(digest("c")) is None
        assert await store.knowing(digest("c")) is None
        assert await store.owned(digest("c")) == []

    @with_store
    async def test_device_stored_again_with_same_secret_keeps_its_delivery_records(self, store):
        """The secret identifies the registration (rules DevS1, DevS4)."""
        a = device("a")
        await put(store, a)
        await store.note([line("a", "x")])
        again = device("a", endpoint="elsewhere", until_ms=FAR_MS + 1, sealed=b"other")
        assert await store.put(again, a) == Put(PutResult.STORED)
        await assert_has(store, (again, line("a", "x")))

    @with_store
    async def test_new_registration_of_device_starts_without_delivery_records(self, store):
        """Delivery records of the old registration are ignored (rules DevS4, DevS6)."""
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
    async def test_device_replaces_another_device_with_the_same_endpoint(self, store):
        """The other device and its delivery records are forgotten (rules DevS1, WPR8)."""
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
    async def test_put_based_on_an_outdated_version_is_refused(self, store):
        """The result is CHANGED, whichever field has changed (rule DevS2)."""
        a, newer = device("a"), device("a", sealed=b"newer")
        assert await store.put(newer, a) == Put(PutResult.CHANGED)
        await assert_has(store)
        await put(store, a)
        assert await store.put(newer, None) == Put(PutResult.CHANGED)
        await store.put(newer, a)
        assert await store.put(device("a", sealed=b"of old", endpoint="else"), a) == Put(PutResult.CHANGED)
        await assert_has(store, (newer,))

    @with_store
    async def test_new_device_beyond_the_limit_of_its_owner_or_of_the_store_is_refused(self, store):
        """A device that replaces another one is accepted.

        A stored device may be stored again (rules DevS2, WPR6, WPR10).
        """
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
    async def test_device_can_be_stored_together_with_delivery_records(self, store):
        """A device gets another digest when its record is encrypted with a new key (rule DevS1)."""
        told = line("a", "x", 2, State.MAYBE)
        assert await store.put(device("a"), None, lines=[told]) == Put(PutResult.STORED)
        await assert_has(store, (device("a"), told))

    @with_store
    async def test_forgetting_a_device_deletes_it_and_its_delivery_records(self, store):
        """A device that does not exist counts as forgotten (rule DevS3)."""
        await put(store, *(device(name) for name in "abc"))
        await store.note([line("a", "x"), line("b", "x"), line("c", "x")])
        await store.forget([known("a"), known("b"), known("none")])
        await assert_has(store, (device("c"), line("c", "x")))
        assert await store.knowing(device("a").secret) is None

    @with_store
    async def test_device_that_has_changed_since_it_was_read_is_not_forgotten(self, store):
        """The device may already have another endpoint when a service says that the old one is gone (rule DevS3)."""
        await put(store, device("a"))
        await store.note([line("a", "x")])
        others = [known("a", endpoint="old"), known("a", until_ms=1), known("a", secret="old")]
        await store.forget(others)
        await assert_has(store, (device("a"), line("a", "x")))

    @with_store
    async def test_newest_delivery_record_of_a_device_and_alert_replaces_older_ones(self, store):
        """Delivery records count in their order, also within one call (rule DevS5)."""
        await put(store, device("a"))
        maybe = line("a", "x", 2, State.MAYBE)
        assert not await store.note([line("a", "x"), line("a", "y"), maybe, line("a", "y", state=None)])
        await assert_has(store, (device("a"), maybe))
        await store.note([line("a", "x", 2), line("a", "z", 1, None)])
        await assert_has(store, (device("a"), line("a", "x", 2)))

    @with_store
    async def test_delivery_record_of_a_missing_device_is_ignored(self, store):
        """The device was forgotten meanwhile (rule DevS6)."""
        await store.note([line("a", "x")])
        await put(store, device("a"))
        await assert_has(store, (device("a"),))

    @with_store
    async def test_purge_removes_delivery_records_of_alerts_that_are_over(self, store):
        """An alert that was revised may live longer than its delivery record says."""
        await put(store, device("a"))
        await store.note([line("a", "x", ends_at_ms=5), line("a", "y", ends_at_ms=5), line("a", "z", ends_at_ms=6)])
        assert await store.purge(EVERY, 5, lambda alert: alert != digest("y")) == 1
        assert set((await all_of(store))[digest("a")][1]) == {digest("y"), digest("z")}

    @with_store
    async def test_load_yields_each_device_once_across_batches(self, store):
        """The test loads all shards (groups of devices) at once, in two halves and one by one (rule DevS9)."""
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
    """The tests of the rules for stores that several processes share."""

    @abc.abstractmethod
    def other(self, store):
        """Return another store of the same devices that is not started."""

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
    async def test_device_stored_by_one_process_is_found_by_another(self, store, other):
        """The stores share their devices (rules DevS1, DevS2)."""
        await put(store, device("a"))
        await other.note([line("a", "x")])
        await assert_has(store, (device("a"), line("a", "x")))
        await assert_has(other, (device("a"), line("a", "x")))

    @with_other
    async def test_follow_yields_changes_made_by_other_processes_in_order(self, store, other):
        """Each change has the note that its process gave. The store's own changes are left out (rule DevS10)."""
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
    """The tests of the rules for shards (groups of devices) that a process has for a term, the time of one lease."""

    @abc.abstractmethod
    async def begin_term(self, store, shard):
        """Begin a new term (lease) of a shard and return its number."""

    @with_store
    async def test_delivery_record_written_under_an_outdated_lease_is_refused(self, store):
        """Records of other shards (groups of devices) in the same call are written (rule DevS7)."""
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
