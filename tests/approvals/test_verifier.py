"""The check of log entries: a table of forgeries on each way into a process, and entries with changed bytes."""

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
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.approvals import form
from geocast.approvals import verifier as verifier_module
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
    """A Redis server for all tests of this module."""
    if reason := missing():
        pytest.skip(reason)
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def place(request, tmp_path):
    """The URL or path of a new log, of the backend that the test names."""
    if request.param == "sqlite":
        return tmp_path / "log.db"
    return f"{request.getfixturevalue('redis').url}?prefix={uuid.uuid4().hex}"


on_each = pytest.mark.parametrize("place", BACKENDS, indirect=True)


@contextlib.asynccontextmanager
async def opened(place, verifier=None):
    """Start a log at this place, and stop it at the end."""
    log = RedisStreamsLog(place, verifier=verifier) if isinstance(place, str) else SqliteLog(place, verifier=verifier)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def put(log, place, later):
    """Write an entry to the log as an intruder with write access would."""
    if isinstance(place, str):
        arguments = Stored(*later).arguments("of an intruder", more=False)
        await log._writer.store([arguments], mending=True)
        return
    with contextlib.closing(sqlite3.connect(place)) as db, db:
        values = (later.id, later.revision, later.ends_at, later.payload, later.checksum)
        db.execute("INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)", values)


async def all_of(log):
    """Return all entries that the log's followers are given."""
    found = []
    async with contextlib.aclosing(log.follow(0)) as batches:
        async for batch in batches:
            if not batch:
                return found
            found += [entry for _, entry in batch]
    return None


def told(entries, verifier):
    """Return the messages to a subscriber inside the area when these entries are applied in this order."""
    town = Town()
    town.hub.fanout.live.verifier = verifier
    peer = town.join()
    for entry in entries:
        town.publish(entry)
    return peer.received()


def trust(*names):
    """Return the verifier of a node with these reviewers, or with all of them."""
    return ApprovalVerifier(POLICY, known(*names))


async def written(place, *laters):
    """Write a log with one alert that two reviewers have signed, and with more entries."""
    async with opened(place) as log:
        assert await log.append(GOOD)
        for later in laters:
            await put(log, place, later)


# ---- the table of forgeries ----------------------------------------------------------------------------------------


@on_each
@pytest.mark.parametrize("name", FORGERIES)
def test_forged_entry_is_never_sent_listed_or_returned_in_history(place, name):
    """The alert stays as it was before the forgery (rules NC2, NC3)."""
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


def test_table_of_forgeries_has_more_than_sixty_different_entries():
    """No two names of the table stand for the same entry (rule NC2)."""
    assert len({make()[:5] for make in FORGERIES.values()}) == len(FORGERIES) > 60


@pytest.mark.parametrize("name", FORGERIES)
def test_request_with_forged_proof_is_refused(name):
    """The request has the forgery's proof and comes from the publisher named in it (rules AP1 to AP7)."""
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
def test_signed_alert_revision_and_cancel_are_sent(place):
    """A cancel may have a higher revision than its form (rules AP8, NC1)."""
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
def test_fields_outside_signed_form_are_ignored(place):
    """Only the time of issue is taken from fields outside the form (rule NC1)."""
    signed = proved(NEW, "r-1", "r-2")
    beside = {"headline": "Run", "category": "arson", "area": [], "severity": "minor", "source": "x"}
    verifier = trust()

    async def main():
        await written(place, stored(signed, **beside, expires_at=NOON_MS + 1))
        async with opened(place, verifier) as log:
            return (await all_of(log))[1], (await log.history("b"))[0], (await log.live(NOON_MS)).revisions[1]

    assert asyncio.run(main()) == (signed, signed, signed)


# ---- entries after a forged one ------------------------------------------------------------------------------------


@on_each
def test_next_revision_is_numbered_after_forged_one(place):
    """The field `current` of a 409 counts the forgery, and a revision or a cancel may follow it (rule NC4)."""

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
def test_revision_after_forged_cancel_is_refused(place):
    """An operator has to remove the cancel. The alert stays live meanwhile (rule NC4)."""

    async def main():
        await written(place, stored(OVER))
        async with opened(place, trust()) as log:
            assert not await log.append(proved(dataclasses.replace(NEXT, revision=3), "r-1", "r-2"))
            return (await log.live(NOON_MS)).revisions

    assert list(asyncio.run(main())) == [GOOD]


def test_approvals_of_cancel_are_checked_by_category_of_its_alert():
    """This holds even if the cancel is read before its alert (rule NC2, and Rule 6 of the live alerts)."""
    arson = a_revision("c", category="arson")
    assert told([arson, a_cancel("c")], trust()) == ["welcome", "c/1", "-c/2"]
    assert told([a_cancel("c"), arson], trust()) == ["welcome"]
    for entries in ([GOOD, OVER], [OVER, GOOD]):
        assert told(entries, trust()) == ["welcome", "a-1/1"]


def test_alert_in_unknown_category_needs_greatest_number_of_approvals_in_policy():
    """The alert was accepted under another policy (rule NC2)."""
    verifier, entry = trust(), a_revision("u", category="unknown")
    for names, believed in (((), False), (("r-1",), False), (("r-1", "r-2"), True)):
        signed = proved(entry, *names) if names else entry
        assert isinstance(verifier.verify(signed, ("u", 1), f"at {names}"), Revision) == believed


def test_node_whose_policy_needs_no_approvals_accepts_signed_entries():
    """This matters while nodes are reloaded one by one. A proof of another alert still fails (rule NC7)."""
    alone = ApprovalVerifier(Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "Robbery"}}}), {})
    assert alone.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert alone.verify(NEW, ("b", 1), "2") == NEW
    assert isinstance(alone.verify(dataclasses.replace(NEW, proof=GOOD.proof), ("b", 1), "3"), Untrusted)


def test_unapproved_entry_is_logged_and_counted_once(caplog):
    """The log message has the position and the reason, but none of the content (rule NC3)."""
    verifier = trust()
    for _ in range(3):
        verifier.verify(NEW, ("b", 1), "position 7")
    assert [record.getMessage() for record in caplog.records] == [
        "log: the entry at position 7 is ignored, because it is not approved as required: unsigned"
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
def test_unapproved_entry_is_counted_by_reason(entry, reason):
    """Each failure has one reason (rule NC3)."""
    verifier = trust()
    verifier.verify(entry, ("b", 1), "1")
    assert +verifier.untrusted == {reason: 1}


def test_entry_under_another_number_has_no_content():
    """It is somebody else's content, so its number has no kind either (rule NC3)."""
    other = trust().verify(GOOD, ("b", 1), "1")
    assert (other, other.said) == (Untrusted("b", 1, GOOD.ends_at), None)
    assert trust().verify(NEW, ("b", 1), "1").said == NEW


def test_error_during_check_makes_entry_untrusted(monkeypatch, caplog):
    """An unexpected error never lets an entry pass, and is logged with its place in the code (rule NC5)."""

    def broken(_text):
        raise MemoryError

    monkeypatch.setattr(form, "read", broken)
    verifier = trust()
    assert verifier.verify(GOOD, ("a-1", 1), "1") == Untrusted("a-1", 1, GOOD.ends_at, None)
    assert verifier.untrusted == dict.fromkeys(REASONS, 0) | {"signature": 1}
    said = "log: an entry is ignored, because checking its approval caused an unexpected error: "
    assert caplog.messages[0].startswith(said + "MemoryError")


def test_signature_is_checked_again_only_after_change_of_keys(monkeypatch):
    """Results are remembered in each process (rule NC6)."""
    checked, verifier = [], trust()
    check = verifier_module.who_signed
    monkeypatch.setattr(verifier_module, "who_signed", lambda *given: checked.append(1) or check(*given))
    for _ in range(3):
        assert verifier.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert len(checked) == 1
    verifier.replace(POLICY, known("r-1", "r-2"))
    assert verifier.verify(GOOD, ("a-1", 1), "1") == GOOD
    assert len(checked) == 2


# ---- reloading keys and policy -------------------------------------------------------------------------------------


def after_reload(before, after, *entries, policies=(POLICY, POLICY)):
    """Return the messages to a subscriber before and after a reload, and those to a subscriber who comes afterwards."""
    verifier = ApprovalVerifier(policies[0], known(*before))
    town, log = Town(), MemoryLog(verifier)
    peer = town.join()
    reader = LogReader(log, town.clock, town.hub.fanout.live, town.deliver, LogHealth(log, town.clock))
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


def test_alert_is_withdrawn_if_key_of_its_only_approval_is_removed():
    """If the key returns, subscribers who have the alert are not sent it again (rules NC3, NC8)."""
    one = proved(a_revision(), "r-1")
    assert after_reload(["r-1"], ["r-2"], one, policies=(FEW, FEW)) == (["welcome", "a-1/1"], [], [])
    assert after_reload(["r-1"], ["r-1", "r-2"], one, policies=(FEW, FEW)) == (["welcome", "a-1/1"], [], ["a-1/1"])


def test_reload_sends_alert_that_now_has_enough_approvals():
    """A missing key was added, or the policy asks for fewer approvals (rule NC3)."""
    assert after_reload(["r-1"], ["r-1", "r-2"], GOOD) == (["welcome"], ["a-1/1"], ["a-1/1"])
    one = proved(a_revision(), "r-1")
    assert after_reload(["r-1"], ["r-1"], one, policies=(POLICY, FEW)) == (["welcome"], ["a-1/1"], ["a-1/1"])


def test_alert_stays_live_when_new_policy_needs_more_approvals():
    """A process that starts later does not send the alert (rule NC7)."""
    none = Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "Robbery"}}})
    assert after_reload([], ["r-1"], a_revision(), policies=(none, POLICY))[2] == ["a-1/1"]
    assert after_reload(["r-1"], ["r-1", "r-3"], proved(a_revision(), "r-1"), policies=(FEW, POLICY))[2] == ["a-1/1"]
    assert after_reload(["r-1"], ["r-1"], a_revision(), policies=(POLICY, POLICY))[2] == []


def test_alert_approved_by_restored_key_is_not_sent_again_to_sessions_that_have_it():
    """A later signed entry goes to everybody who has the alert (rules NC3, R2)."""
    verifier, town = ApprovalVerifier(FEW, known("r-1")), Town()
    town.hub.fanout.live.verifier = verifier
    early = town.join()
    town.publish(verifier.verify(proved(a_revision(), "r-1"), ("a-1", 1), "1"))
    [alert] = town.hub.fanout.live
    verifier.replace(FEW, known("r-2"))
    town.hub.fanout.live.verify_again(alert)
    late = town.join()
    town.sweep()
    assert (early.received(), late.received()) == (["welcome", "a-1/1"], ["welcome"])
    verifier.replace(FEW, known("r-1"))
    town.hub.fanout.live.verify_again(alert)
    town.sweep()
    town.run()
    assert (early.received(), late.received()) == ([], ["a-1/1"])
    verifier.replace(FEW, known("r-2"))
    town.hub.fanout.live.verify_again(alert)
    town.publish(proved(NEXT, "r-2"))
    assert (early.received(), late.received()) == (["a-1/2"], ["a-1/2"])
    verifier.replace(FEW, known("r-1"))
    town.hub.fanout.live.verify_again(alert)
    town.publish(proved(a_cancel("a-1", 3), "r-1"))
    assert (early.received(), late.received()) == (["-a-1/3"], ["-a-1/3"])


def a_policy(approvals):
    """Return a policy in which robberies need this number of reviewers."""
    robbery = {"title": "Robbery", "approvals": approvals}
    return Policy.model_validate({"name": "p", "audience": POLICY.audience, "categories": {"robbery": robbery}})


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ((0, []), (0, []), 0),
        ((1, ["r-1"]), (1, ["r-1"]), 0),
        ((0, []), (0, ["r-1"]), 1),
        ((0, ["r-1"]), (0, []), 1),
        ((0, []), (1, []), 1),
        ((1, []), (0, []), 1),
        ((1, ["r-1"]), (1, ["r-2"]), 1),
        ((0, ["r-1"]), (1, ["r-1"]), 1),
    ],
)
def test_watchers_are_called_if_reload_may_change_result_of_a_check(before, after, changes):
    """The version rises with each such reload, and by one (rule NC3)."""
    called, verifier = [], ApprovalVerifier(a_policy(before[0]), known(*before[1]) if before[1] else {})
    verifier.watch(lambda: called.append(verifier.version))
    verifier.replace(a_policy(after[0]), known(*after[1]) if after[1] else {})
    assert (verifier.version, called) == (changes, list(range(1, changes + 1)))
    verifier.replace(a_policy(2), known("r-3"))
    assert verifier.version == changes + 1


def test_reload_of_policy_without_approvals_and_reviewers_changes_no_check():
    """All entries were accepted before, and still are."""
    called, verifier = [], ApprovalVerifier(a_policy(0), {})
    verifier.watch(lambda: called.append(1))
    verifier.replace(Policy.model_validate({"name": "other", "categories": {"arson": {"title": "Arson"}}}), {})
    assert (verifier.version, called) == (0, [])


def test_entry_that_stays_live_is_accepted_with_the_same_content_only():
    """The policy asks for a signature that the alert does not have (rules NC7, HD7)."""
    alert, verifier = a_revision(), ApprovalVerifier(a_policy(0), {})
    verifier.replace(a_policy(1), known("r-1"))
    assert isinstance(verifier.verify(alert, ("a-1", 1), "1"), Untrusted)
    assert verifier.still_valid(alert, frozenset())
    assert verifier.verify(alert, ("a-1", 1), "2") == alert
    for other in (a_revision(headline="Other"), a_revision("b"), a_revision(revision=2)):
        assert isinstance(verifier.verify(other, (other.id, other.revision), other.alert.headline), Untrusted)


def test_signer_who_was_removed_in_an_earlier_reload_is_still_missing():
    """Two reviewers signed. One of them was removed, and a later policy asks for two (rule NC7)."""
    alert, verifier = proved(a_revision(), "r-1", "r-2"), ApprovalVerifier(a_policy(1), known("r-1", "r-2"))
    for names in (["r-1", "r-2"], ["r-1"], ["r-1", "r-3"]):
        verifier.replace(a_policy(1), known(*names))
        assert verifier.verify(alert, ("a-1", 1), "1") == alert
    verifier.replace(a_policy(2), known("r-1"))
    assert not verifier.still_valid(alert, frozenset())
    verifier.replace(a_policy(2), known("r-1", "r-2"))
    assert verifier.still_valid(alert, frozenset())


def test_cancel_needs_approvals_unless_it_is_the_first_entry_of_an_unknown_alert(caplog):
    """Nothing is cancelled by the first entry of an id, which only says that the alert has ended (rules HD1, CP15)."""
    verifier, behind = ApprovalVerifier(a_policy(1), known("r-1")), frozenset({("robbery", False)})
    for cancel, alert, is_good in [
        (a_cancel(revision=1), None, True),
        (a_cancel(revision=1), a_revision(), False),
        (a_cancel(revision=2), None, False),
        (a_cancel(revision=2), a_revision(), False),
        (proved(a_cancel(revision=2), "r-1"), a_revision(), True),
    ]:
        verifier.verify(cancel, (cancel.id, cancel.revision), f"position {cancel.revision}")
        assert verifier.verify_cancel(cancel, alert, behind) is is_good
    assert verifier.untrusted == dict.fromkeys(REASONS, 0) | {"unsigned": 2}
    assert caplog.messages[-1] == (
        "log: the entry at position 2 is ignored, because it is not approved as required: unsigned"
    )


def test_metric_counts_untrusted_entries_by_reason():
    """A reason that did not occur is there too, with 0."""
    verifier = trust()
    verifier.verify(NEW, ("b", 1), "1")
    [metric] = verifier.metrics()
    assert (metric.name, metric.type) == ("geocast_log_untrusted", "counter")
    assert metric.documentation == "Entries of the log that were set aside because they are not approved"
    counted = {sample.labels["reason"]: sample.value for sample in metric.samples if sample.name.endswith("_total")}
    assert counted == dict.fromkeys(REASONS, 0) | {"unsigned": 1}


# ---- restoring a lost log ------------------------------------------------------------------------------------------


def of_today(entry):
    """Return the entry with times around now: a log in Redis restores only what is live by the system clock."""
    now_ms = SystemClock().now().wall_ms
    if isinstance(entry, Cancel):
        return dataclasses.replace(entry, cancelled_at=now_ms, ends_at=now_ms + HOUR_MS)
    alert = dataclasses.replace(entry.alert, occurred_at=now_ms - 1000, expires_at=now_ms + HOUR_MS)
    return dataclasses.replace(entry, alert=alert, issued_at=now_ms)


@pytest.mark.parametrize("forged", [NEXT, OVER], ids=["revision", "cancel"])
def test_forged_entry_is_not_restored_to_empty_log(redis, forged):
    """An operator may delete the log's keys while nodes run, to remove a forgery (rules NC3, NC4)."""
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


# ---- entries with changed bytes ------------------------------------------------------------------------------------


ENTRIES = {"alert": proved(NEW, "r-1", "r-2"), "revision": proved(NEXT, "r-1", "r-2"), "cancel": proved(OVER, "r-1")}
BESIDE = {"issued_at", "cancelled_at", "approval"}  # members that no form has, and that subscribers are not sent


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("seed", range(8))
def test_entry_with_changed_bytes_has_same_content_or_is_untrusted(kind, seed):
    """Subscribers are sent nothing that was not signed (rules NC1, NC5)."""
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


def test_signature_in_same_second_as_incident_is_valid():
    """Signatures have whole seconds, incidents milliseconds (rules AP4, NC2)."""
    signed = proved(a_revision(occurred_at=NOON_MS + 999), "r-1", "r-2", at_s=AT_S)
    assert trust().verify(signed, ("a-1", 1), "1") == signed


def test_table_of_forgeries_encodes_entries_like_codec():
    """Otherwise tests with the table would prove nothing."""
    assert stored(GOOD) == Later("a-1", 1, "revision", GOOD.ends_at, codec.encode(GOOD))
