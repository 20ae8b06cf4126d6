"""All revisions of an alert decide how many reviewers an entry needs (HD1), and live alerts can be cancelled (HD7)."""

import asyncio
import contextlib
import dataclasses
import itertools

import pytest
from approvals.forgeries import GOOD, POLICY, stored
from approvals.test_request_check import SigningHarness
from approvals.test_verifier import all_of, on_each, opened, place, put, redis, told, trust  # noqa: F401 (fixtures)
from stream.hub.town import Town
from support.fakes import NOON_MS, a_cancel, a_revision
from support.reviewers import AUDIENCE, known, proved

from geocast.alertlog.chain import Chain
from geocast.alertlog.memory import MemoryLog
from geocast.approvals.asked import asked, max_age_s
from geocast.approvals.request_check import unsigned
from geocast.approvals.verifier import ApprovalVerifier
from geocast.model.alert import Confirm, OtherKind, Untrusted
from geocast.policy import Policy
from geocast.stream import live_alerts
from geocast.stream.log_reader import LogHealth, LogReader

# Each category needs a different number of approvals for its alerts, and for its cancels.
MIXED = Policy.model_validate(
    {
        "name": "mixed",
        "audience": AUDIENCE,
        "categories": {
            "robbery": {"title": "Robbery", "approvals": 2, "cancel_approvals": 1, "approval_max_age_s": 60},
            "flood": {"title": "Flood", "approvals": 1, "cancel_approvals": 2},
            "arson": {"title": "Arson"},
        },
    }
)
NONE = Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "R"}, "arson": {"title": "A"}}})
FALSE_ALARM = a_revision("a-1", 2, category="arson", headline="False alarm. You may go back in.")


def few(needed, have=0):
    """Return the refusal for too few approvals."""
    return 422, [("approvals-needed", "/approval", {"needed": needed, "have": have})]


def mixed_desk():
    """Return a desk under MIXED, which has published a robbery that two reviewers have signed."""
    desk = SigningHarness(MIXED)
    assert desk.approved("r-1", "r-2")[0] == 201
    return desk


# ---- approvals that requests need ----------------------------------------------------------------------------------


def test_change_of_category_does_not_reduce_needed_approvals():
    """The category of the first revision still counts (rule HD1)."""
    desk = mixed_desk()
    assert desk.send("revision", category="arson") == few(2)
    assert desk.approved("r-1", what="revision", category="arson") == few(2, 1)
    assert desk.approved("r-1", "r-2", what="revision", category="arson")[0] == 201
    assert desk.send("revision", revision=3, category="arson") == few(2)


def test_cancel_needs_greatest_number_of_approvals_of_all_revisions():
    """The greatest `cancel_approvals` of all revisions' categories counts (rule HD1)."""
    desk = mixed_desk()
    assert desk.approved("r-1", "r-2", what="revision", category="flood")[0] == 201
    assert desk.approved("r-1", "r-2", what="revision", revision=3, category="arson")[0] == 201
    assert desk.send("cancel", revision=4) == few(2)
    assert desk.approved("r-1", what="cancel", revision=4) == few(2, 1)
    assert desk.approved("r-1", "r-2", what="cancel", revision=4)[0] == 201


def test_dry_run_returns_number_of_approvals_that_request_will_need():
    """The number is the one that the request itself will need (rule HD1)."""
    desk = mixed_desk()
    revised = {"what": "revision", "category": "arson"}
    assert desk.send(dry_run=True, approval=..., **revised)[1].approvals == 2
    approval = desk.signed("r-1", "r-2", **revised)
    assert desk.send(approval=approval, **revised)[0] == 201
    assert desk.send("cancel", dry_run=True, approval=..., revision=3)[1].approvals == 1
    repeated = desk.send(dry_run=True, approval=approval, **revised)
    assert (repeated[0], repeated[1].approvals) == (200, 2)


def test_revision_after_one_with_confirmed_text_needs_two_approvals():
    """This category needs one approval, and two after a revision with something confirmed (rules AP6, HD1)."""
    desk = SigningHarness(MIXED)
    held = {"headline": "Mr Smith is on the run", "confirm": {"text": ["name"]}}
    assert desk.approved("r-1", "r-2", category="flood", **held)[0] == 201
    assert desk.approved("r-1", what="revision", category="flood", headline="Found") == few(2, 1)


def test_shortest_signature_age_limit_of_all_categories_of_an_alert_applies():
    """A signature for a robbery may be 60 s old. This also holds for later revisions in other categories (rule HD1)."""
    desk = mixed_desk()
    revised = {"what": "revision", "category": "arson"}
    approval = desk.signed("r-1", "r-2", **revised)
    desk.clock.advance(61)
    status, found = desk.send(approval=approval, **revised)
    assert (status, [slug for slug, *_ in found]) == (422, ["not-approved", "not-approved"])


def test_revision_after_cancel_is_refused():
    """The request gets status 410 (rule HD9)."""
    desk = mixed_desk()
    assert desk.approved("r-1", what="cancel")[0] == 201
    assert desk.send("revision", revision=3)[0] == 410


@pytest.mark.parametrize("category", ["robbery", "flood", "arson"])
def test_number_of_approvals_depends_only_on_category_and_confirmations(category):
    """Status, severity and texts don't change it (rule HD1)."""
    plain = a_revision(category=category)
    others = [{"status": "test"}, {"severity": "minor"}, {"headline": "x"}, {"description": "x"}]
    for change in others:
        changed = dataclasses.replace(plain, alert=dataclasses.replace(plain.alert, **change))
        assert asked(MIXED, changed, Chain().kinds) == asked(MIXED, plain, Chain().kinds)


def test_cap_message_is_refused_for_alert_that_needs_approvals():
    """A CAP message carries no signed form (the text that reviewers sign), so it has no approvals (rule HD1)."""
    behind = Chain.of([GOOD]).kinds
    assert [each.slug for each in unsigned(MIXED, FALSE_ALARM, behind)] == ["approvals-needed"]
    assert [each.slug for each in unsigned(MIXED, a_cancel(), behind)] == ["approvals-needed"]
    assert unsigned(MIXED, FALSE_ALARM, Chain().kinds) == []


# ---- incomplete and untrusted entries ------------------------------------------------------------------------------


def test_alert_with_missing_entry_needs_greatest_number_of_approvals_in_policy():
    """A missing or unreadable entry may have been of any category (rule HD1)."""
    arson = a_revision("a-1", 1, category="arson")
    for entries in ([None], [arson, None], [a_revision("a-1", 3, category="arson")]):
        chain = Chain.of(entries)
        assert asked(MIXED, a_revision("a-1", chain.last + 1, category="arson"), chain.kinds) == 2
        assert asked(MIXED, a_cancel("a-1", chain.last + 1), chain.kinds) == 2
        assert max_age_s(MIXED, a_cancel("a-1", 9), chain.kinds) in (None, 900)
    assert asked(MIXED, a_revision("a-1", 4, category="arson"), Chain.of([arson]).before(4)) == 2
    whole = Chain.of([arson, OtherKind("a-1", 2, 0), Untrusted("a-1", 3, 0)])
    assert asked(MIXED, a_revision("a-1", 4, category="arson"), whole.before(4)) == 0


def test_category_of_untrusted_entry_counts_for_number_of_approvals():
    """Other processes may know the keys that signed the entry (rule HD1)."""
    chain = Chain.of([a_revision("a-1", category="arson"), Untrusted("a-1", 2, 0, a_revision("a-1", 2))])
    assert asked(MIXED, a_revision("a-1", 3, category="arson"), chain.kinds) == 2


# ---- entries in the log --------------------------------------------------------------------------------------------


SIGNED_ARSON = proved(FALSE_ALARM, "r-1", "r-2")
BYPASSES = {
    "a revision": [FALSE_ALARM],
    "a revision that one has signed": [proved(FALSE_ALARM, "r-1")],
    "a revision and a cancel": [FALSE_ALARM, a_cancel("a-1", 3)],
    "a cancel behind a good revision": [SIGNED_ARSON, a_cancel("a-1", 3)],
    "a revision behind what was set aside": [a_revision("a-1", 2), a_revision("a-1", 3, category="arson")],
    "a revision far ahead": [a_revision("a-1", 7, category="arson")],
}


@on_each
@pytest.mark.parametrize("name", BYPASSES)
def test_forged_entry_in_category_without_approvals_is_not_sent(place, name):  # noqa: F811
    """Neither a running node nor one that starts later sends the entry (rule HD1)."""
    forged = BYPASSES[name]
    good = [GOOD, *(entry for entry in forged if entry is SIGNED_ARSON)]
    numbers = [f"a-1/{entry.revision}" for entry in good]

    async def main():
        async with opened(place) as writer, opened(place, trust()) as log:
            assert await writer.append(GOOD)
            async with following(log) as (reader, peer):
                seen = peer.received()
                for entry in forged:
                    await put(writer, place, stored(entry))
                await until(lambda: reader.applied > len(forged))
                assert seen + peer.received() == ["welcome", *numbers]
            await check(log)
        async with opened(place, trust()) as log:
            async with following(log) as (_, peer):
                assert peer.received() == ["welcome", numbers[-1]]
            await check(log)

    async def check(log):
        believed = [each for each in await log.history("a-1") if not isinstance(each, OtherKind)]
        assert (list((await log.live(NOON_MS)).revisions), believed) == (good[-1:], good)
        assert sum(log.verifier.untrusted.values()) == len(forged) - (len(good) - 1)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def following(log):
    """A process that follows the log and has caught up, and a subscriber of it."""
    town = Town()
    peer = town.join()

    def deliver(entry):
        town.deliver(entry)
        town.run()

    reader = LogReader(log, town.clock, town.hub.fanout.live, town.deliver, LogHealth(log, town.clock))
    reading = asyncio.create_task(reader.read_for_ever())
    try:
        await asyncio.wait_for(reader.caught_up.wait(), 60)
        town.run()
        reader._take = deliver
        yield reader, peer
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def until(holds):
    """Wait until `holds` returns true."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 (it is asked of many things)
            await asyncio.sleep(0.005)


@on_each
def test_expired_revision_counts_for_approvals_in_process_that_starts_later(place):  # noqa: F811
    """The first revision has expired, and a signed revision in a laxer category is live (rule HD1)."""
    short = proved(a_revision(expires_at=NOON_MS - 1), "r-1", "r-2")
    longer = proved(a_revision("a-1", 2, category="arson"), "r-1", "r-2")
    unsigned_ones = [a_revision("c", n, category="arson", expires_at=NOON_MS + n - 2) for n in (1, 2, 3)]

    async def main():
        async with opened(place) as log:
            for entry in (short, longer, *unsigned_ones):
                assert await log.append(entry)
            await put(log, place, stored(a_revision("a-1", 3, category="arson", headline="Go back in")))
        async with opened(place, trust()) as log, following(log) as (_, peer):
            return peer.received(), await log.live(NOON_MS)

    seen, page = asyncio.run(main())
    assert seen == ["welcome", "a-1/2", "c/3"]
    assert set(page.revisions) == {longer, unsigned_ones[2]}


def test_cancel_read_before_its_alert_is_checked_when_all_revisions_are_read():
    """The check waits until all entries of the alert are known (Rule 6 of the live alerts)."""
    arson = a_revision("a-1", category="arson")
    robbery = proved(a_revision("a-1", 2), "r-1", "r-2")
    assert told([a_cancel("a-1", 3), arson, robbery], trust())[-1] == "a-1/2"
    assert told([a_cancel("c", 2), a_revision("c", category="arson")], trust()) == ["welcome"]


def test_revision_that_follows_cancel_of_unknown_alert_is_not_sent():
    """The process has read the cancel, but not the alert's earlier revisions (rule HD9)."""
    later = a_revision("c", 3, category="arson")
    assert told([a_cancel("c", 2), later], ApprovalVerifier(NONE, {})) == ["welcome"]

    async def main():
        log = MemoryLog(ApprovalVerifier(NONE, {}))
        for entry in (a_revision("c", category="arson"), a_cancel("c"), later):
            log.take(entry)
        return await log.history("c")

    assert isinstance(asyncio.run(main())[-1], Untrusted)


def test_publishing_reading_and_following_agree_on_number_of_approvals():
    """All three ways of counting give the same number for any three revisions of an alert (rule HD1)."""
    kinds = [("robbery", ()), ("flood", ()), ("flood", ("name",)), ("arson", ())]
    for chosen in itertools.product(kinds, repeat=3):
        chain = [
            a_revision("a-1", n, category=category, confirm=Confirm(text=text))
            for n, (category, text) in enumerate(chosen, start=1)
        ]
        by_steps = Chain()
        for entry in chain:
            expected = max(
                MIXED.approvals(each.alert.category, confirmed=bool(each.alert.confirm.text))
                for each in chain[: entry.revision]
            )
            assert asked(MIXED, entry, by_steps.before(entry.revision)) == expected
            by_steps = by_steps.then(entry)
        assert by_steps == Chain.of(chain)
        assert asked(MIXED, a_cancel("a-1", 4), by_steps.kinds) == max(
            MIXED.cancel_approvals(each.alert.category) for each in chain
        )


# ---- copied entries ------------------------------------------------------------------------------------------------


@on_each
@pytest.mark.parametrize("in_force", [POLICY, NONE], ids=["asks", "asks nothing"])
@pytest.mark.parametrize("whose", ["its own", "another alert's"])
def test_copied_entry_is_ignored_and_alert_continues(place, in_force, whose):  # noqa: F811
    """The copy is counted as untrusted, and revisions and a cancel may follow it (rule HD15)."""
    copy = stored(GOOD if whose == "its own" else a_revision("c", 2, category="arson"), ("a-1", 2))
    rest = [proved(a_revision("a-1", 3, headline="Still on"), "r-1", "r-2"), proved(a_cancel("a-1", 4), "r-1")]

    async def main():
        verifier = ApprovalVerifier(in_force, known())
        async with opened(place, verifier) as log:
            assert await log.append(GOOD)
            await put(log, place, copy)
            assert await log.append(rest[0])
            assert list((await log.live(NOON_MS)).revisions) == [rest[0]]
            assert await log.append(rest[1])
            history = await log.history("a-1")
            async with following(log) as (_, peer):
                assert peer.received() == ["welcome"]
            return history, +verifier.untrusted

    history, counted = asyncio.run(main())
    assert history == [GOOD, Untrusted("a-1", 2, copy.ends_at), *rest]
    assert counted == {"other-place": 1}


# ---- alerts that only other processes accept -------------------------------------------------------------------------


def a_town(in_force, *reviewers):
    """Return a town whose verifier has these reviewers, and the verifier."""
    town, verifier = Town(), ApprovalVerifier(in_force, known(*reviewers))
    town.hub.fanout.live.verifier = verifier
    return town, verifier


def read(town, verifier, entry):
    """Apply an entry as the log gives it."""
    town.publish(verifier.verify(entry, (entry.id, entry.revision), f"{entry.id}/{entry.revision}"))


def test_cancel_of_untrusted_alert_is_sent_only_to_sessions_that_have_it():
    """Another process has sent the alert, under another policy or with another key (rule HD7)."""
    town, verifier = a_town(POLICY)
    read(town, verifier, a_revision())
    holder, newcomer = town.join(holding={"a-1": 1}), town.join()
    assert (holder.received(), newcomer.received()) == (["welcome"], ["welcome"])
    assert len(town.hub.fanout.live) == town.hub.fanout.live.suspended(town.clock.now()) == 0
    read(town, verifier, a_cancel("a-1", 2))
    assert (holder.received(), newcomer.received()) == ([], [])
    read(town, verifier, proved(a_cancel("a-1", 3), "r-1"))
    assert (holder.received(), newcomer.received()) == (["-a-1/3"], [])


def test_alert_that_becomes_valid_is_sent_to_sessions_that_lack_it():
    """A reviewer's key was added late. Sessions that have the alert are not sent it again (rule NC3)."""
    town, verifier = a_town(POLICY, "r-1")
    read(town, verifier, GOOD)
    holder, newcomer = town.join(holding={"a-1": 1}), town.join()
    verifier.replace(POLICY, known())
    read(town, verifier, GOOD)
    town.sweep()
    town.run()
    assert (holder.received(), newcomer.received()) == (["welcome"], ["welcome", "a-1/1"])
    assert len(town.hub.fanout.live) == 1


def test_signed_revision_replaces_forgery_with_higher_number():
    """The signed revision is sent under its own number (rule NC3)."""
    town, verifier = a_town(POLICY)
    for forged in (a_revision(headline="Run"), a_revision("a-1", 2, headline="Run")):
        read(town, verifier, forged)
    peer = town.join()
    read(town, verifier, GOOD)
    assert peer.received() == ["welcome", "a-1/1"]


def test_number_of_remembered_untrusted_alerts_is_limited(monkeypatch):
    """Alerts beyond the limit are forgotten (rule NC3)."""
    monkeypatch.setattr(live_alerts, "MAX_UNBELIEVED", 3)
    town, verifier = a_town(POLICY)
    for number in range(5):
        read(town, verifier, a_revision(f"b-{number}"))
    assert (len(list(town.hub.fanout.live)), len(town.hub.fanout.live)) == (3, 0)
    town.clock.advance(86_400)
    town.sweep()
    read(town, verifier, a_revision("c", occurred_at=town.clock.wall_ms, expires_at=town.clock.wall_ms + 60_000))
    assert [alert.id for alert in town.hub.fanout.live] == ["c"]


def test_cancel_of_forgotten_alert_does_not_end_new_alert_with_same_id():
    """When an alert is forgotten, so is its cancel (rule HD9)."""
    town, verifier = a_town(NONE)
    read(town, verifier, a_cancel("a-1", 2))
    town.clock.advance(2 * 86_400)
    now_ms = town.clock.wall_ms
    read(town, verifier, a_revision(occurred_at=now_ms, issued_at=now_ms, expires_at=now_ms + 60_000))
    assert town.join().received() == ["welcome", "a-1/1"]


@on_each
def test_alert_history_is_read_when_new_policy_requires_approvals(place):  # noqa: F811
    """The first revision had ended when the process started, so it did not know the alert's history (rule HD1)."""
    chain = [a_revision("c", n, category="arson", expires_at=NOON_MS + n - 2) for n in (1, 2, 3)]
    verifier = ApprovalVerifier(NONE, {})

    async def main():
        async with opened(place, verifier) as log:
            for entry in chain[:2]:
                assert await log.append(entry)
            async with following(log) as (reader, peer):
                verifier.replace(POLICY, known())
                await reader._verify_again()
                assert await log.append(chain[2])
                await until(lambda: reader._live.knows(chain[2]))
                return peer.received()

    assert asyncio.run(main()) == ["welcome", "c/3"]
