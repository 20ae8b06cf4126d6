"""What a process believes of what it reads: a table of forgeries on each way in, and bytes that were flipped."""

import asyncio
import contextlib
import dataclasses
import random
import sqlite3
import uuid

import msgpack
import pytest
from alertlog.later import Later
from approvals.forgeries import AT_S, FORGERIES, GOOD, NEW, NEXT, OVER, POLICY, stored
from stream.hub.town import Town
from support.fakes import HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision, alert_request
from support.redis_server import RedisServer, missing
from support.reviewers import known, proved

from geocast.alertlog import TrustAll, codec
from geocast.alertlog.memory import MemoryLog
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.redis_streams.stored import Stored
from geocast.alertlog.sqlite import SqliteLog
from geocast.approvals import form
from geocast.approvals.verifier import REASONS, ApprovalVerifier
from geocast.auth.tokens import Requester
from geocast.clock import SystemClock
from geocast.ingest.publish import Publishing
from geocast.model.alert import Cancel, OtherKind, Revision, Untrusted
from geocast.model.problems import Problem
from geocast.policy import Policy
from geocast.stream.log_reader import LogHealth, LogReader

BACKENDS = ("sqlite", "redis")


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """One Redis for all tests here."""
    if reason := missing():
        pytest.skip(reason)
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def place(request, tmp_path):
    """Where a log is: a new one for each test, of the backend that the test names."""
    if request.param == "sqlite":
        return tmp_path / "log.db"
    return f"{request.getfixturevalue('redis').url}?prefix={uuid.uuid4().hex}"


on_each = pytest.mark.parametrize("place", BACKENDS, indirect=True)


@contextlib.asynccontextmanager
async def opened(place, verifier=None):
    """A log there."""
    log = RedisStreamsLog(place, verifier=verifier) if isinstance(place, str) else SqliteLog(place, verifier=verifier)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def put(log, place, later):
    """Write an entry as who may write there writes it."""
    if isinstance(place, str):
        arguments = Stored(*later).arguments("of an intruder", more=False)
        await log._writer.store([arguments], mending=True)
        return
    with contextlib.closing(sqlite3.connect(place)) as db, db:
        values = (later.id, later.revision, later.ends_at, later.payload, later.checksum)
        db.execute("INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)", values)


async def all_of(log):
    """All that is followed."""
    found = []
    async with contextlib.aclosing(log.follow(0)) as batches:
        async for batch in batches:
            if not batch:
                return found
            found += [entry for _, entry in batch]
    return None


def told(entries, verifier):
    """What a subscriber in the middle of it is told, by whom the entries are applied in this order."""
    town = Town()
    town.hub.live.verifier = verifier
    peer = town.join()
    for entry in entries:
        town.publish(entry)
    return peer.received()


def trust(*names):
    """The judge of a node with these reviewers; all, if none is named."""
    return ApprovalVerifier(POLICY, known(*names))


async def written(place, *laters):
    """A log with what two reviewers have signed, and with more."""
    async with opened(place) as log:
        assert await log.append(GOOD)
        for later in laters:
            await put(log, place, later)


# ---- the table -----------------------------------------------------------------------------------------------------


@on_each
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_never_sent(place, name):
    """NC2, NC3: not followed to a subscriber, not listed, not in the history; and the alert stays as it was."""
    verifier = trust()

    async def main():
        await written(place, FORGERIES[name]())
        async with opened(place, verifier) as log:
            followed = await all_of(log)
            page = await log.live(NOON_MS)
            histories = [entry for alert_id in ("a-1", "b", "c") for entry in await log.history(alert_id)]
            return followed, page.revisions, [each for each in histories if not isinstance(each, OtherKind)]

    followed, live, histories = asyncio.run(main())
    assert told(followed, verifier) == ["welcome", "a-1/1"]
    assert list(live) == histories == [GOOD]
    assert sum(verifier.untrusted.values()) == (0 if name.startswith("a proof such as") else 1)


def test_there_are_sixty_of_them():
    """NC2: and as many as there are names, each of which is another entry."""
    assert len({make()[:5] for make in FORGERIES.values()}) == len(FORGERIES) > 60


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_does_not_get_in_by_the_door(name):
    """AP1 to AP7: its proof, posted by the publisher who is named in it."""
    proof = msgpack.unpackb(FORGERIES[name]().payload).get("proof")
    with contextlib.suppress(TypeError, KeyError, ValueError):
        proof = {**proof, "signatures": [{"protected": p, "signature": s} for p, s in proof["signatures"]]}
    log = MemoryLog()
    publishing = Publishing(log, POLICY, FakeClock(), reviewers=known())
    body = alert_request(id="b", headline=NEW.alert.headline, description=..., approval=proof)
    with pytest.raises(Problem) as caught:
        asyncio.run(publishing.publish(body, Requester("desk")))
    assert caught.value.status == 422
    assert asyncio.run(log.history("b")) == ()


@on_each
def test_what_was_signed_is_sent(place):
    """NC1: alert, revision and cancel; and a cancel under a higher number than its form has (AP8)."""
    verifier = trust()
    chain = [proved(NEXT, "r-1", "r-3"), proved(a_cancel("a-1", 2), "r-2")]
    chain[1] = dataclasses.replace(chain[1], revision=3)

    async def main():
        async with opened(place, verifier) as log:
            for entry in (GOOD, *chain):
                assert await log.append(entry)
            return await all_of(log), await log.history("a-1"), await log.live(NOON_MS)

    followed, history, live = asyncio.run(main())
    assert followed == list(history) == [GOOD, *chain]
    assert list(live.revisions) == []
    assert told(followed, verifier) == ["welcome", "a-1/1", "a-1/2", "-a-1/3"]
    assert sum(verifier.untrusted.values()) == 0


@on_each
def test_what_stands_beside_a_form_counts_for_nothing(place):
    """NC1: but for when it was issued."""
    signed = proved(NEW, "r-1", "r-2")
    beside = {"headline": "Run", "category": "arson", "area": [], "severity": "minor", "source": "x"}
    verifier = trust()

    async def main():
        await written(place, stored(signed, **beside, expires_at=NOON_MS + 1))
        async with opened(place, verifier) as log:
            return (await all_of(log))[1], (await log.history("b"))[0], (await log.live(NOON_MS)).revisions[1]

    assert asyncio.run(main()) == (signed, signed, signed)


# ---- what follows --------------------------------------------------------------------------------------------------


@on_each
def test_its_number_stays_taken(place):
    """NC4: `current` of a 409 counts it, and a revision and a cancel may follow."""

    async def main():
        await written(place, stored(NEXT))
        async with opened(place, trust()) as log:
            assert await log.history("a-1") == [GOOD, Untrusted("a-1", 2, NEXT.ends_at)]
            assert not await log.append(NEXT)
            third = proved(dataclasses.replace(NEXT, revision=3), "r-1", "r-2")
            over = proved(a_cancel("a-1", 4), "r-1")
            assert await log.append(third)
            assert list((await log.live(NOON_MS)).revisions) == [third]
            assert await log.append(over)
            return await all_of(log), [third, over]

    followed, added = asyncio.run(main())
    assert [entry for entry in followed if not isinstance(entry, Untrusted)] == [GOOD, *added]


@on_each
def test_nothing_follows_a_cancel_that_is_not_believed(place):
    """NC4: that is for the operator to mend; the alert goes on all the same."""

    async def main():
        await written(place, stored(OVER))
        async with opened(place, trust()) as log:
            assert not await log.append(proved(dataclasses.replace(NEXT, revision=3), "r-1", "r-2"))
            return (await log.live(NOON_MS)).revisions

    assert list(asyncio.run(main())) == [GOOD]


def test_a_cancel_is_judged_by_the_alert_behind_which_it_stands():
    """NC2: also where it comes before it (Rule 6 of the live alerts)."""
    arson = a_revision("c", category="arson")
    assert told([arson, a_cancel("c")], trust()) == ["welcome", "c/1", "-c/2"]
    assert told([a_cancel("c"), arson], trust()) == ["welcome"]
    for entries in ([GOOD, OVER], [OVER, GOOD]):
        assert told(entries, trust()) == ["welcome", "a-1/1"]


def test_a_category_that_is_unknown_asks_for_the_most():
    """NC2: what was accepted under another policy."""
    verifier, entry = trust(), a_revision("u", category="unknown")
    for names, believed in (((), False), (("r-1",), False), (("r-1", "r-2"), True)):
        signed = proved(entry, *names) if names else entry
        assert isinstance(verifier.verify(signed, ("u", 1), f"at {names}"), Revision) == believed


def test_a_node_that_asks_for_nothing_believes_what_others_have_signed():
    """NC7: while nodes are reloaded, one after the other; but not another alert's proof."""
    alone = ApprovalVerifier(Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "Robbery"}}}), {})
    assert alone.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert alone.verify(NEW, ("b", 1), "2") == NEW
    assert isinstance(alone.verify(dataclasses.replace(NEW, proof=GOOD.proof), ("b", 1), "3"), Untrusted)


def test_each_place_is_told_of_once(caplog):
    """NC3: a line with the position and the reason, and a counter; nothing of what it says."""
    verifier = trust()
    for _ in range(3):
        verifier.verify(NEW, ("b", 1), "position 7")
    assert [record.getMessage() for record in caplog.records] == [
        "log: entry at position 7 set aside, it is not approved: unsigned"
    ]
    assert verifier.untrusted == dict.fromkeys(REASONS, 0) | {"unsigned": 1}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (NEW, "unsigned"),
        (proved(NEW, "r-1"), "too-few"),
        (proved(NEW, "r-1", "stranger"), "unknown-key"),
        (dataclasses.replace(NEW, proof=GOOD.proof), "other-place"),
        (proved(NEW, "r-1", "r-2", at_s=1), "signature"),
    ],
)
def test_the_reason_is_named(entry, reason):
    """NC3."""
    verifier = trust()
    verifier.verify(entry, ("b", 1), "1")
    assert +verifier.untrusted == {reason: 1}


def test_what_goes_wrong_in_checking_counts_as_failed(monkeypatch):
    """NC5."""

    def broken(_text):
        raise MemoryError

    monkeypatch.setattr(form, "read", broken)
    assert isinstance(trust().verify(GOOD, ("a-1", 1), "1"), Untrusted)


def test_a_signature_is_checked_once(monkeypatch):
    """NC6: in a process, however often the entry is read; anew when the keys have changed."""
    checked, verifier = [], trust()
    check = ApprovalVerifier._checked
    monkeypatch.setattr(ApprovalVerifier, "_checked", lambda self, proof: checked.append(1) or check(self, proof))
    for _ in range(3):
        assert verifier.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert len(checked) == 1
    verifier.replace(POLICY, known("r-1", "r-2"))
    assert verifier.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert len(checked) == 2


# ---- a reload ------------------------------------------------------------------------------------------------------


def after_reload(before, after, *entries, policies=(POLICY, POLICY)):
    """What a subscriber is told before a reload of the reviewers, and what after it; and one who comes then."""
    verifier = ApprovalVerifier(policies[0], known(*before))
    town, log = Town(), MemoryLog(verifier)
    peer = town.join()
    reader = LogReader(log, town.clock, town.hub.live, town.deliver, LogHealth(log, town.clock))
    said = []

    async def main():
        reading = asyncio.create_task(reader.read_for_ever())
        await asyncio.wait_for(reader.caught_up.wait(), 60)
        town.run()
        said.append(peer.received())
        verifier.replace(policies[1], known(*after))
        await reader._verify_again()
        town.sweep()
        town.run()
        said.append(peer.received())
        reading.cancel()

    for entry in entries:
        log.take(entry)
    asyncio.run(main())
    return *said, town.join().received()[1:]


FEW = Policy.model_validate(
    {"name": "p", "audience": POLICY.audience, "categories": {"robbery": {"title": "Robbery", "approvals": 1}}}
)


def test_a_key_that_is_taken_out_takes_with_it_what_it_alone_approved():
    """NC3, NC8: it is sent to nobody any more, and to nobody twice when the key is back."""
    one = proved(a_revision(), "r-1")
    assert after_reload(["r-1"], ["r-2"], one, policies=(FEW, FEW)) == (["welcome", "a-1/1"], [], [])
    assert after_reload(["r-1"], ["r-1", "r-2"], one, policies=(FEW, FEW)) == (["welcome", "a-1/1"], [], ["a-1/1"])


def test_what_is_good_now_is_sent():
    """NC3: a new key that came late, or fewer who are asked for."""
    assert after_reload(["r-1"], ["r-1", "r-2"], GOOD) == (["welcome"], ["a-1/1"], ["a-1/1"])
    one = proved(a_revision(), "r-1")
    assert after_reload(["r-1"], ["r-1"], one, policies=(POLICY, FEW)) == (["welcome"], ["a-1/1"], ["a-1/1"])


def test_what_is_live_stays_when_more_are_asked_for():
    """NC7: unsigned or signed by fewer; who starts later does not know it."""
    none = Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "Robbery"}}})
    assert after_reload([], ["r-1"], a_revision(), policies=(none, POLICY))[2] == ["a-1/1"]
    assert after_reload(["r-1"], ["r-1", "r-3"], proved(a_revision(), "r-1"), policies=(FEW, POLICY))[2] == ["a-1/1"]
    assert after_reload(["r-1"], ["r-1"], a_revision(), policies=(POLICY, POLICY))[2] == []


def test_what_was_withdrawn_comes_back_and_to_nobody_twice():
    """NC3, R2: the key was taken out by mistake. And a later entry that is good goes to all who were told."""
    verifier, town = ApprovalVerifier(FEW, known("r-1")), Town()
    town.hub.live.verifier = verifier
    early = town.join()
    town.publish(verifier.verify(proved(a_revision(), "r-1"), ("a-1", 1), "1"))
    [alert] = town.hub.live
    verifier.replace(FEW, known("r-2"))
    town.hub.live.verify_again(alert)
    late = town.join()
    town.sweep()
    assert (early.received(), late.received()) == (["welcome", "a-1/1"], ["welcome"])
    verifier.replace(FEW, known("r-1"))
    town.hub.live.verify_again(alert)
    town.sweep()
    town.run()
    assert (early.received(), late.received()) == ([], ["a-1/1"])
    verifier.replace(FEW, known("r-2"))
    town.hub.live.verify_again(alert)
    town.publish(proved(NEXT, "r-2"))
    assert (early.received(), late.received()) == (["a-1/2"], ["a-1/2"])
    verifier.replace(FEW, known("r-1"))
    town.hub.live.verify_again(alert)
    town.publish(proved(a_cancel("a-1", 3), "r-1"))
    assert (early.received(), late.received()) == (["-a-1/3"], ["-a-1/3"])


# ---- putting back --------------------------------------------------------------------------------------------------


def of_today(entry):
    """The same, alive by the clock of the machine, by which a log in Redis knows what it need not put back."""
    now_ms = SystemClock().now().wall_ms
    if isinstance(entry, Cancel):
        return dataclasses.replace(entry, cancelled_at=now_ms, ends_at=now_ms + HOUR_MS)
    alert = dataclasses.replace(entry.alert, occurred_at=now_ms - 1000, expires_at=now_ms + HOUR_MS)
    return dataclasses.replace(entry, alert=alert, issued_at=now_ms)


@pytest.mark.parametrize("forged", [NEXT, OVER], ids=["revision", "cancel"])
def test_what_is_not_believed_is_not_put_back(redis, forged):
    """NC3, NC4: the remedy of operations: delete the log's keys while nodes run."""
    place = f"{redis.url}?prefix={(prefix := uuid.uuid4().hex)}"
    first = of_today(a_revision())
    at_s = first.issued_at // 1000
    chain = [proved(first, "r-1", "r-2", at_s=at_s)]
    if forged is NEXT:
        chain.append(proved(of_today(dataclasses.replace(NEXT, revision=3)), "r-1", "r-2", at_s=at_s))

    async def main():
        async with opened(place) as log:
            assert await log.append(chain[0])
            await put(log, place, stored(of_today(forged)))
            assert [await log.append(entry) for entry in chain[1:]] == [True] * len(chain[1:])
        async with opened(place, trust()) as log, opened(place) as other, asyncio.timeout(30):
            assert (await all_of(log))[0] == chain[0]
            keys = await log._primary.call("KEYS", f"{{{prefix}}}:*")
            await log._primary.call("DEL", *keys)
            async with contextlib.aclosing(log.follow(0)) as batches:
                async for _ in batches:
                    if len(found := await other.history("a-1")) == len(chain):
                        return list(found)
        return None

    assert asyncio.run(main()) == chain


# ---- bytes that were flipped ---------------------------------------------------------------------------------------


ENTRIES = {"alert": proved(NEW, "r-1", "r-2"), "revision": proved(NEXT, "r-1", "r-2"), "cancel": proved(OVER, "r-1")}
BESIDE = {"issued_at", "cancelled_at", "approval"}  # what no form says, and nobody is told


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("seed", range(8))
def test_an_entry_of_which_bytes_were_flipped_says_the_same_or_nothing(kind, seed):
    """NC1, NC5: whatever is changed, nobody is told anything that was not signed."""
    chance, entry, verifier = random.Random(seed), ENTRIES[kind], trust()
    whole = codec.encode(entry)
    expected = told([GOOD, entry], TrustAll())
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read = codec.decode(bytes(data), entry.id, entry.revision, entry.ends_at)
        except ValueError:
            continue
        if isinstance(read, OtherKind):
            continue
        believed = verifier.verify(read, (entry.id, entry.revision), "here")
        if isinstance(believed, Untrusted):
            continue
        seen = told([GOOD, believed], verifier)
        if seen != expected:
            assert seen == ["welcome", "a-1/1"][: len(seen)]
            continue
        assert form.read(believed.proof.form).members == form.read(entry.proof.form).members
        if isinstance(believed, Cancel):
            assert believed.reason == entry.reason
        else:
            assert dataclasses.replace(believed.alert, approval=entry.alert.approval) == entry.alert


def test_the_time_of_a_signature_is_whole_seconds():
    """AP4, NC2: one of the very second of the incident is good."""
    signed = proved(a_revision(occurred_at=NOON_MS + 999), "r-1", "r-2", at_s=AT_S)
    assert trust().verify(signed, ("a-1", 1), "1") == signed


def test_the_stored_bytes_are_those_of_the_codec():
    """The table writes what a backend would: else it would prove nothing."""
    assert stored(GOOD) == Later("a-1", 1, "revision", GOOD.ends_at, codec.encode(GOOD))
