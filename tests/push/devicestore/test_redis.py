"""Devices in a Redis: the rules of the port, and what only a Redis can do to them."""

import asyncio
import dataclasses
import os
import re
import uuid
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

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

from geocast.errors import ConfigError, StoreUnavailable  # noqa: E402
from geocast.push.devicestore import Change, PutResult, shard_of  # noqa: E402
from geocast.push.devicestore import redis as redis_devices  # noqa: E402
from geocast.push.devicestore.redis import RedisDevices  # noqa: E402
from geocast.push.encryption import Keyring, Record  # noqa: E402

DOCS = Path(__file__).resolve().parents[3] / "docs"

pytestmark = needs_redis


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One Redis for all tests that do it no harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class TestRedisDevices(FencedContract):
    """All rules."""

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


@pytest.fixture
def server(tmp_path):
    """A Redis of a test's own."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


@asynccontextmanager
async def opened(url, **options):
    """A store that is open for as long as the block runs."""
    store = RedisDevices(url, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def back(store):
    """Ask until a store is not away any more: connections that were open are found to be broken once."""
    while True:
        try:
            return await store.find(digest("a"))
        except StoreUnavailable:
            await asyncio.sleep(0.05)


def fresh(server):
    """The URL of a store that nobody has."""
    return f"{server.url}?prefix={uuid.uuid4().hex}"


# ---- which Redis, and what of it lasts -----------------------------------------------------------------------


async def test_it_is_there_after_a_crash_of_redis(server):
    """DevS1, DevS5."""
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
async def test_a_redis_that_would_forget_is_refused(tmp_path, options, message):
    """K1: what is fit to keep a log is fit to keep devices (ADR 5)."""
    with RedisServer(tmp_path / "redis", **options) as server:
        with pytest.raises(ConfigError) as caught:
            await RedisDevices(server.url).start()
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"--devices Redis at 127.0.0.1:{server.port}: it ")


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://10.0.0.1:6379/0", "redis://127.0.0.1?secret=1"])
def test_what_names_no_redis_is_refused(url):
    """K1: by the name of the option, and nothing is repeated."""
    with pytest.raises(ConfigError, match=r"^--devices: ") as caught:
        RedisDevices(url)
    assert "secret" not in str(caught.value)


async def test_a_password_that_is_wrong_is_refused(tmp_path):
    """K1: it does not stand in the line that says so."""
    with RedisServer(tmp_path / "redis", password="right") as server:
        with pytest.raises(ConfigError, match="it refuses the user, the password") as caught:
            await RedisDevices(server.url.replace("right", "other")).start()
        assert "other" not in str(caught.value)


async def test_a_user_with_few_rights_will_do(server):
    """settings.md: the rights that it names for a log are enough for devices in the same Redis."""
    [acl] = re.findall(r"^ACL SETUSER .*$", (DOCS / "reference" / "settings.md").read_text("utf-8"), re.MULTILINE)
    server.command(*acl.split())
    async with opened(server.url.replace("//", "//geocast:PASSWORD@")) as store, opened(server.url) as other:
        for answer in everything(store):
            await answer
        await other.put(device("b"), None)
        async with aclosing(store.follow()) as following:
            assert await anext(following) == [Change(digest("b"), b"")]


async def test_a_redis_that_stops_to_sync_gives_no_lease(server):
    """WPN1, DevS8: what it would say could be forgotten."""
    async with opened(server.url) as store:
        assert (await store.lease("somebody", {}, may_take=True)).numbers
        server.command("CONFIG", "SET", "appendfsync", "no")
        with pytest.raises(StoreUnavailable, match="synced not here"):
            await store.lease("somebody", {}, may_take=True)
        with pytest.raises(StoreUnavailable, match="synced not here"):
            await store.put(device("a"), None)


def everything(store):
    """All that may be asked of a store."""

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
async def test_a_store_that_is_away_says_so_and_is_used_again(server, harm, heal, reason):
    """DevS8, WPS4: nothing hangs, and nothing has to be opened anew."""
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


async def test_one_that_is_away_at_the_start_is_waited_for(server):
    """DevS8: and whoever follows is told that something may have been missed."""
    server.stop()
    async with opened(server.url) as store:
        with pytest.raises(StoreUnavailable, match="can't be reached"):
            await store.put(device("a"), None)
        server.start()
        await put(store, device("a"))
        async with aclosing(store.follow()) as following:
            assert await anext(following) is None


async def test_a_full_redis_takes_no_device_and_forgets_those_it_has(server):
    """DevS8, WPS4: `noeviction`."""
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


async def test_what_is_not_on_as_many_replicas_as_was_asked_is_not_stored_for_sure(server, tmp_path):
    """DevS1: `replicas`."""
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


async def test_of_two_that_take_one_endpoint_at_once_one_has_it(shared):
    """WPR8: through any process."""
    url = fresh(shared)
    async with opened(url) as one, opened(url) as other:
        for number in range(20):
            pair = device(f"a{number}", endpoint=f"{number}"), device(f"b{number}", endpoint=f"{number}")
            done = await asyncio.gather(one.put(pair[0], None), other.put(pair[1], None))
            assert [each.result for each in done] == [PutResult.STORED] * 2
            assert sorted(len(each.replaced) for each in done) == [0, 1]
        assert len(await all_of(one)) == 20


async def test_of_two_that_change_one_device_at_once_one_is_told_to_read_it_again(shared):
    """DevS2."""
    url = fresh(shared)
    async with opened(url) as one, opened(url) as other:
        await put(one, device("a"))
        new = [device("a", sealed=sealed) for sealed in (b"1", b"2")]
        done = await asyncio.gather(one.put(new[0], device("a")), other.put(new[1], device("a")))
        assert {each.result for each in done} == {PutResult.STORED, PutResult.CHANGED}


async def test_who_misses_changes_is_told_so(shared):
    """DevS10: when more came than are kept; and then it goes on."""
    url = fresh(shared)
    async with opened(url) as store, opened(url) as other:
        await put(other, device("a"))
        shared.command("XTRIM", f"{{{url.partition('=')[2]}}}:push:changes", "MAXLEN", 0)
        await put(other, device("b"))
        async with aclosing(store.follow()) as following:
            assert await anext(following) is None
            await put(other, device("c"))
            assert await anext(following) == [Change(digest("c"), b"")]


async def test_who_follows_goes_on_where_it_was_when_redis_is_back(server):
    """DevS10: what others have changed before its connection is back, too."""
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


# ---- a Redis that has lost something -------------------------------------------------------------------------


async def held(store):
    """Take all shards: their terms."""
    return (await store.lease("somebody", {}, may_take=True)).numbers


@pytest.mark.parametrize("first", ["renewal", "follower"])
async def test_what_redis_has_lost_is_put_back(server, first):
    """DevS12, WPN2: whoever notices it first, the follower is told, and then it is as it was."""
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
            while True:  # until it has come to the new life of the store
                name = next(names)
                await put(other, device(name))
                if changes := await anext(following):
                    break
            assert changes == [Change(digest(name), b"")]


async def test_what_is_newer_is_not_put_back_over(shared):
    """DevS12: a device that registered meanwhile, or was replaced by one with its endpoint."""
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


async def test_who_has_lost_a_shard_puts_nothing_back(shared):
    """DevS7, DevS12: like a line."""
    async with opened(fresh(shared)) as store:
        terms = await held(store)
        await store.release("somebody", terms, leaving=True)
        await held(store)
        shard = shard_of(digest("a"))
        assert await store.restore([(device("a"), terms[shard])]) == {shard}
        assert await all_of(store) == {}


async def test_another_server_may_lack_something(tmp_path):
    """DevS12: Sentinels promote a replica; it has what was asked to be there, and the leases."""
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


# ---- what is in it, and how much -----------------------------------------------------------------------------

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
    """A device as `geocast push` has it stored."""
    record = dataclasses.replace(RECORD, id=f"{RECORD.id}{number}")
    by = keyring.digest("device", record.sub, record.id)
    endpoint = keyring.digest("endpoint", f"{record.endpoint}{number}")
    owner, secret = keyring.digest("owner", f"{record.sub}{number // 2}"), os.urandom(32)
    return redis_devices.StoredDevice(by, owner, endpoint, secret, FAR_MS, keyring.seal(record, by, FAR_MS))


async def test_nothing_that_says_who_or_where_is_in_redis(server):
    """WPM4, WPP2: in no key, no value and not in the append-only file, where what is searched would be found."""
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


async def test_what_a_device_takes_in_redis(shared):
    """push.md: 3 KB of memory, and at most 90 bytes for each line of what it was told."""
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
