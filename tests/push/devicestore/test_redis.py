"""Devices in a Redis: the rules of the port (`geocast.push.devicestore`), and failures that only a Redis has."""

import asyncio
import dataclasses
import os
import re
import uuid
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgpack
import pytest

pytest.register_assert_rewrite("push.devicestore.contract")

from push.devicestore.contract import (  # noqa: E402 (asserts come first)
    EVERY,
    FAR_MS,
    FencedContract,
    all_of,
    assert_has,
    device,
    digest,
    known,
    line,
    put,
)
from support.redis_server import RedisServer, needs_redis, sentinel_url, trio  # noqa: E402

from geocast.model.errors import ConfigError, StoreUnavailable  # noqa: E402
from geocast.push.devicestore import Change, Put, PutResult, State, shard_of  # noqa: E402
from geocast.push.devicestore import redis as redis_devices  # noqa: E402
from geocast.push.devicestore.redis import RedisDevices  # noqa: E402
from geocast.push.encryption import Keyring, Record  # noqa: E402

DOCS = Path(__file__).resolve().parents[3] / "docs"

pytestmark = needs_redis


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Run one Redis for all tests that do not harm it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class TestRedisDevices(FencedContract):
    """The rules of the port on Redis."""

    @pytest.fixture(autouse=True)
    def _server(self, shared):
        self._url = f"{shared.url}?prefix={uuid.uuid4().hex}"
        self._numbers = {}

    def new(self, tmp_path):
        return RedisDevices(self._url)

    def other(self, store):
        return RedisDevices(self._url)

    async def begin_term(self, store, shard):
        held = {each: number for each, number in self._numbers.items() if each == shard}
        await store.release("somebody", held, leaving=False)
        others = {each: number for each, number in self._numbers.items() if each != shard}
        self._numbers = dict((await store.lease("somebody", others, may_take=True)).numbers)
        return self._numbers[shard]


async def test_odd_values_are_read_as_maybe_sent_and_as_a_device_that_no_key_opens(shared):
    """They harm no other device (rule DevS13)."""
    store = RedisDevices(f"{shared.url}?prefix=odd")
    await store.start()
    await put(store, device("a"), device("b"))
    await store.note([line("a", "x"), line("a", "y")])
    prefix = b"{odd}:push:"
    with shared.client() as client:
        client.hset(prefix + b"told:%d:%b" % (shard_of(digest("a")), digest("x")), digest("a"), b"\xc1")
        client.hset(prefix + b"devices:%d" % shard_of(digest("b")), digest("b"), b"\x93")
    found = await all_of(store)
    assert found[digest("a")] == (
        device("a"),
        {digest("x"): line("a", "x", 0, State.MAYBE, 0), digest("y"): line("a", "y")},
    )
    damaged, lines = found[digest("b")]
    assert (damaged.secret, damaged.sealed, lines) == (b"", b"\x93", {})
    await store.stop()


@pytest.mark.parametrize(
    "value",
    [b"\x93", b"\xc1", b"", b"\x01", msgpack.packb([1, 2, 3, 4, 5]), msgpack.packb([{}, {}, {}, 4, "x"])],
)
async def test_damaged_device_can_be_replaced_by_itself_and_by_a_device_with_its_endpoint(shared, value):
    """Its lines and its old secret are gone, and the index of its old endpoint harms nobody (DevS1, DevS4, DevS13)."""
    store = RedisDevices(f"{shared.url}?prefix={uuid.uuid4().hex}")
    await store.start()
    await put(store, device("a"), device("b"))
    await store.note([line("a", "x")])
    with shared.client() as client:
        for name in ("a", "b"):
            client.hset(store._key(f"devices:{shard_of(digest(name))}"), digest(name), value)
    damaged = (await store.find(digest("a")))[0]
    again = device("a", endpoint="new", secret="fresh")
    assert (await store.put(again, damaged)).result is PutResult.STORED
    assert await store.find(digest("a")) == (again, [])
    assert await store.knowing(device("a").secret) is None
    assert await store.knowing(again.secret) == again
    thief = device("c", endpoint="at-a")
    assert await store.put(thief, None) == Put(PutResult.STORED)
    assert (await store.find(digest("a")))[0] == again
    successor = device("d", endpoint="at-b")
    assert await store.put(successor, None) == Put(PutResult.STORED, (digest("b"),))
    assert await store.find(digest("b")) is None
    await store.stop()


@pytest.fixture
def server(tmp_path):
    """Run a Redis for a single test."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


@asynccontextmanager
async def opened(url, **options):
    """Open a store for the duration of the block."""
    store = RedisDevices(url, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def back(store):
    """Call a store until it works again: each broken connection fails once."""
    while True:
        try:
            return await store.find(digest("a"))
        except StoreUnavailable:
            await asyncio.sleep(0.05)


def fresh(server):
    """Return the URL of a new store."""
    return f"{server.url}?prefix={uuid.uuid4().hex}"


# ---- requirements for Redis, and durability ------------------------------------------------------------------


async def test_devices_and_delivery_records_survive_crash_of_redis(server):
    """Writes are on stable storage (rules DevS1, DevS5)."""
    async with opened(server.url) as store:
        await put(store, device("a"))
        await store.note([line("a", "x")])
        server.kill()
        server.start()
        await back(store)
        await assert_has(store, (device("a"), line("a", "x")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"appendonly": "no"}, "has no append-only file (appendonly yes), and would forget devices"),
        ({"appendfsync": "no"}, "never syncs its append-only file"),
        (
            {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"},
            "may evict devices: set maxmemory-policy noeviction",
        ),
        ({"cluster_enabled": "yes"}, "cluster mode"),
    ],
)
async def test_redis_configured_so_that_devices_can_be_lost_is_refused(tmp_path, options, message):
    """The requirements are those of a log in Redis (rule K1, ADR 5)."""
    with RedisServer(tmp_path / "redis", **options) as server:
        with pytest.raises(ConfigError) as caught:
            await RedisDevices(server.url).start()
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"--devices Redis at 127.0.0.1:{server.port}: it ")


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://10.0.0.1:6379/0", "redis://127.0.0.1?secret=1"])
def test_invalid_redis_url_is_refused(url):
    """The error names the option and repeats nothing of the URL (rule K1)."""
    with pytest.raises(ConfigError, match=r"^--devices: ") as caught:
        RedisDevices(url)
    assert "secret" not in str(caught.value)


async def test_wrong_password_is_refused(tmp_path):
    """The error does not contain the password (rule K1)."""
    with RedisServer(tmp_path / "redis", password="right") as server:
        with pytest.raises(ConfigError, match="it refuses the user, the password") as caught:
            await RedisDevices(server.url.replace("right", "other")).start()
        assert "other" not in str(caught.value)


async def test_documented_rights_of_redis_user_suffice_for_all_operations(server):
    """The rights in settings.md for a log are enough for devices in the same Redis."""
    [acl] = re.findall(r"^ACL SETUSER .*$", (DOCS / "reference" / "settings.md").read_text("utf-8"), re.MULTILINE)
    server.command(*acl.split())
    async with opened(server.url.replace("//", "//geocast:PASSWORD@")) as store, opened(server.url) as other:
        for answer in everything(store):
            await answer
        await other.put(device("b"), None)
        async with aclosing(store.follow()) as following:
            assert await anext(following) == [Change(digest("b"), b"")]


async def test_redis_that_stops_syncing_to_disk_grants_no_lease(server):
    """Redis could forget the lease (rules WPN1, DevS8)."""
    async with opened(server.url) as store:
        assert (await store.lease("somebody", {}, may_take=True)).numbers
        server.command("CONFIG", "SET", "appendfsync", "no")
        with pytest.raises(StoreUnavailable, match="synced not here"):
            await store.lease("somebody", {}, may_take=True)
        with pytest.raises(StoreUnavailable, match="synced not here"):
            await store.put(device("a"), None)


def everything(store):
    """Call every operation of a store."""

    async def loaded():
        return await all_of(store)

    return [
        loaded(),
        store.find(digest("a")),
        store.knowing(digest("a")),
        store.owned(digest("somebody")),
        store.put(device("a"), None),
        store.forget([known("a")]),
        store.note([line("a", "x")]),
        store.restore([(device("a"), 1)]),
        store.purge(EVERY, FAR_MS, lambda _alert: True),
        store.lease("somebody", {}, may_take=True),
        store.release("somebody", {}, leaving=True),
    ]


@pytest.mark.parametrize(
    ("harm", "heal", "reason"),
    [("kill", "start", "Redis can't be reached"), ("pause", "resume", "Redis does not answer")],
)
async def test_unreachable_redis_raises_store_unavailable_and_works_again_later(server, harm, heal, reason):
    """Nothing hangs, and the store needs no restart (rules DevS8, WPS4)."""
    async with opened(server.url) as store:
        await put(store, device("b"))
        getattr(server, harm)()
        for answer in await asyncio.gather(*everything(store), return_exceptions=True):
            assert isinstance(answer, StoreUnavailable), answer
            assert str(answer) == reason
        getattr(server, heal)()
        await back(store)
        for answer in everything(store):
            await answer
        assert device("b") in (await all_of(store))[digest("b")]


async def test_store_works_as_soon_as_redis_is_reachable_after_start(server):
    """Followers get None, because changes may have been missed (rule DevS8)."""
    server.stop()
    async with opened(server.url) as store:
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await store.put(device("a"), None)
        server.start()
        await put(store, device("a"))
        async with aclosing(store.follow()) as following:
            assert await anext(following) is None


async def test_full_redis_refuses_new_devices_but_can_forget_devices(server):
    """Redis is configured with `noeviction` (rules DevS8, WPS4)."""
    async with opened(server.url) as store:
        await put(store, device("a"))
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match=r"^Redis is full \(maxmemory\)$"):
            await store.put(device("b"), None)
        with pytest.raises(StoreUnavailable, match="full"):
            await store.note([line("a", "x")])
        assert len((await store.lease("somebody", {}, may_take=True)).numbers) == 64
        await store.forget([known("a")])
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert await all_of(store) == {}


async def test_write_that_reaches_too_few_replicas_raises_store_unavailable(server, tmp_path):
    """`replicas` says how many are needed (rule DevS1)."""
    async with opened(server.url, replicas=1) as store:
        with pytest.raises(StoreUnavailable, match="on 0 of 1 replicas"):
            await store.put(device("a"), None)
        with RedisServer(tmp_path / "replica", replica_of=server):
            while (await store.find(digest("b"))) is None:
                try:
                    await store.put(device("b"), None)
                except StoreUnavailable:
                    await asyncio.sleep(0.1)
            await store.note([line("b", "x")])


# ---- several processes ---------------------------------------------------------------------------------------


async def test_one_of_two_devices_stored_at_once_with_one_endpoint_keeps_it(shared):
    """The two devices may be stored by different processes (rule WPR8)."""
    url = fresh(shared)
    async with opened(url) as one, opened(url) as other:
        for number in range(20):
            pair = device(f"a{number}", endpoint=f"{number}"), device(f"b{number}", endpoint=f"{number}")
            done = await asyncio.gather(one.put(pair[0], None), other.put(pair[1], None))
            assert [each.result for each in done] == [PutResult.STORED] * 2
            assert sorted(len(each.replaced) for each in done) == [0, 1]
        assert len(await all_of(one)) == 20


async def test_second_of_two_concurrent_changes_of_a_device_is_refused(shared):
    """The caller of the refused change has to read the device again (rule DevS2)."""
    url = fresh(shared)
    async with opened(url) as one, opened(url) as other:
        await put(one, device("a"))
        new = [device("a", sealed=sealed) for sealed in (b"1", b"2")]
        done = await asyncio.gather(one.put(new[0], device("a")), other.put(new[1], device("a")))
        assert {each.result for each in done} == {PutResult.STORED, PutResult.CHANGED}


async def test_follow_yields_none_if_changes_were_missed_and_continues(shared):
    """Redis no longer has some of the changes (rule DevS10)."""
    url = fresh(shared)
    async with opened(url) as store, opened(url) as other:
        await put(other, device("a"))
        shared.command("XTRIM", f"{{{url.partition('=')[2]}}}:push:changes", "MAXLEN", 0)
        await put(other, device("b"))
        async with aclosing(store.follow()) as following:
            assert await anext(following) is None
            await put(other, device("c"))
            assert await anext(following) == [Change(digest("c"), b"")]


async def test_follow_yields_changes_made_while_redis_was_unreachable(server):
    """Changes during its reconnection are not lost (rule DevS10)."""
    async with opened(server.url) as store, opened(server.url) as other, aclosing(store.follow()) as following:
        await put(other, device("a"))
        assert await anext(following) == [Change(digest("a"), b"")]
        await put(other, device("b"))
        server.restart()
        await back(other)
        await put(other, device("c"))
        found = []
        while len(found) < 2:
            found += await anext(following)
        assert found == [Change(digest("b"), b""), Change(digest("c"), b"")]


# ---- a Redis that has lost data ------------------------------------------------------------------------------


async def held(store):
    """Take all shards and return the number of the lease of each."""
    return (await store.lease("somebody", {}, may_take=True)).numbers


@pytest.mark.parametrize("first", ["renewal", "follower"])
async def test_devices_that_redis_lost_are_restored_by_their_process(server, first):
    """The follower or a renewal notices the loss first; afterwards all is as before (rules DevS12, WPN2)."""
    async with opened(server.url) as store, opened(server.url) as other:
        terms = await held(store)
        for each in (device("a"), device("b")):
            await put(store, each)
        told = line("a", "x", term=terms[shard_of(digest("a"))])
        await store.note([told])
        async with aclosing(store.follow()) as following:
            server.command("FLUSHALL")
            if first == "renewal":
                assert (await store.lease("somebody", terms, may_take=True)).numbers == terms
                assert store.lost
            assert await anext(following) is None
            assert store.lost
            assert await all_of(store) == {}
            rows = [(each, terms[shard_of(each.device)]) for each in (device("a"), device("b"))]
            assert not await store.restore(rows)
            assert not await store.note([told])
            store.lost = False
            await assert_has(store, (device("a"), told._replace(term=0)), (device("b"),))
            leased = await store.lease("somebody", terms, may_take=True)
            assert leased.numbers == terms
            assert leased.lost == (first == "follower")
            store.lost = False
            names = iter("cdef")
            while True:  # until the follower has noticed the new life of the store
                name = next(names)
                await put(other, device(name))
                if changes := await anext(following):
                    break
            assert changes == [Change(digest(name), b"")]


async def test_restore_of_lost_devices_does_not_overwrite_newer_ones(shared):
    """A device may have registered meanwhile, or lost its endpoint to another one (rule DevS12)."""
    async with opened(fresh(shared)) as store:
        terms = await held(store)
        renewed, moved = device("a", until_ms=FAR_MS + 1), device("c", endpoint="at-b")
        await put(store, renewed, moved)
        rows = [(each, terms[shard_of(each.device)]) for each in (device("a"), device("b"))]
        assert not await store.restore(rows)
        await assert_has(store, (renewed,), (moved,))
        same = device("a", until_ms=FAR_MS + 1, sealed=b"as it is known here")
        await store.restore([(same, terms[shard_of(same.device)])])
        await assert_has(store, (same,), (moved,))


async def test_restore_under_an_outdated_lease_is_refused(shared):
    """The device is refused like a delivery record under an outdated lease (rules DevS7, DevS12)."""
    async with opened(fresh(shared)) as store:
        terms = await held(store)
        await store.release("somebody", terms, leaving=True)
        await held(store)
        shard = shard_of(digest("a"))
        assert await store.restore([(device("a"), terms[shard])]) == {shard}
        assert await all_of(store) == {}


async def test_failover_to_a_replica_counts_as_loss_of_data(tmp_path):
    """The promoted replica has the confirmed writes and the leases, but other writes may be missing (rule DevS12)."""
    with trio(tmp_path) as (servers, sentinels):
        async with opened(sentinel_url(sentinels), replicas=1) as store:
            terms = await held(store)
            await put(store, device("a"))
            assert not (await store.lease("somebody", terms, may_take=True)).lost
            servers[0].kill()
            while True:
                try:
                    leased = await store.lease("somebody", terms, may_take=True)
                except StoreUnavailable:
                    await asyncio.sleep(0.2)
                    continue
                break
            assert leased.lost
            assert leased.numbers == terms
            await assert_has(store, (device("a"),))


# ---- content and size of the stored data ---------------------------------------------------------------------

RECORD = Record(
    id="n2Vd0sJm3yQe1xKp",
    sub="somebody@example.org",
    endpoint="https://updates.push.services.mozilla.com/wpush/v2/gAAAAAB-not-a-real-one",
    p256dh=os.urandom(65),
    auth=os.urandom(16),
    vapid="BDd3_hN42-public-key-of-ours",
    topic_key=os.urandom(32),
    secret=os.urandom(32),
    cells=("8826cb19cbfffff", "8926cb19c93ffff"),
    categories=("fire_structure",),
    min_severity="moderate",
    languages=("es", "en"),
    proofs=False,
    may_test=False,
    issued_at_s=1.0,
    expires_at_ms=FAR_MS,
    kid="key-of-the-issuer",
)


def stored(keyring, number):
    """Return a device as `geocast push` stores it."""
    record = dataclasses.replace(RECORD, id=f"{RECORD.id}{number}")
    by = keyring.digest("device", record.sub, record.id)
    endpoint = keyring.digest("endpoint", f"{record.endpoint}{number}")
    owner, secret = keyring.digest("owner", f"{record.sub}{number // 2}"), os.urandom(32)
    return redis_devices.StoredDevice(by, owner, endpoint, secret, FAR_MS, keyring.seal(record, by, FAR_MS))


async def test_devices_stored_in_redis_reveal_no_identity_and_no_place(server):
    """Keys, values and the append-only file are searched (rule WPP2)."""
    keyring, alert_id = Keyring([os.urandom(32)]), "desk-7.e3b0c442"
    async with opened(server.url) as store:
        each = stored(keyring, 0)
        await put(store, each)
        alert = keyring.digest("alert", alert_id)
        told = line("", "")._replace(device=each.device, alert=alert, secret=each.secret)
        await store.note([told])
        assert (await store.find(each.device))[1] == [told]
        control = [each.device, each.endpoint, each.owner, each.secret, alert]
    server.stop()
    kept = b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
    assert all(digest in kept for digest in control)
    texts = [
        RECORD.id,
        RECORD.sub,
        RECORD.endpoint,
        *RECORD.cells,
        *RECORD.categories,
        RECORD.vapid,
        RECORD.kid,
        alert_id,
    ]
    secret = [RECORD.p256dh, RECORD.auth, RECORD.topic_key, RECORD.secret, *map(str.encode, texts)]
    secret += [int(cell, 16).to_bytes(8, order) for cell in RECORD.cells for order in ("big", "little")]
    assert not [each for each in secret if each in kept]


async def test_memory_that_redis_uses_for_a_device_is_within_documented_size(shared):
    """push.md says 3 KB for a device and at most 90 bytes for a line."""
    url, number = fresh(shared), 2_000
    prefix = url.partition("=")[2]

    def used():
        with shared.client() as client:
            keys = client.scan_iter(match=f"{{{prefix}}}*", count=1000)
            return sum(client.memory_usage(key, samples=0) for key in keys)

    async with opened(url) as store:
        keyring, terms = Keyring([os.urandom(32)]), await held(store)
        before = used()
        devices = [stored(keyring, each) for each in range(number)]
        for start in range(0, number, 200):
            assert not await store.restore([(each, terms[shard_of(each.device)]) for each in devices[start:][:200]])
        with_devices = used()
        for start in range(0, number, 200):
            rows = [(each.device, each.secret, terms[shard_of(each.device)]) for each in devices[start:][:200]]
            told = [line("", "x")._replace(device=by, secret=secret, term=term) for by, secret, term in rows]
            assert not await store.note(told)
        a_device, a_line = (with_devices - before) / number, (used() - with_devices) / number
    print(f"a device: {a_device:.0f} bytes; a line: {a_line:.0f}")
    assert 2_048 < a_device < 3_100
    assert 29 < a_line <= 90
