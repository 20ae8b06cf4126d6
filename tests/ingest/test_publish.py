"""Publishing alerts: the order of decisions in section 4 of the protocol, with a log in memory."""

import asyncio

import pytest
from support.fakes import DALLAS, HOUR_MS, NOON_MS, a_cancel, a_revision, a_warning, alert_request
from support.publisher import (
    APPROVAL,
    CIRCLE,
    DESK,
    MANAGER,
    OTHER,
    BrokenLog,
    PublisherHarness,
    a_policy,
    answer_of,
    refused,
    slugs,
)

from geocast.alertlog.memory import MemoryLog
from geocast.alertlog.optimistic import ATTEMPTS
from geocast.auth.tokens import Requester
from geocast.geometry.sphere import publish_circle
from geocast.ingest.publish import check_size
from geocast.model.alert import AcceptedTerms, Circle, OtherKind, Revision
from geocast.model.errors import LogUnavailable
from geocast.model.problems import Problem
from geocast.model.times import format_time
from geocast.policy import Policy


class SlowLog(MemoryLog):
    """A slow log. Each call takes one turn of the event loop, while calls of a real log take any time."""

    async def history(self, alert_id):
        await asyncio.sleep(0)
        found = await super().history(alert_id)
        await asyncio.sleep(0)
        return found

    async def append(self, entry):
        await asyncio.sleep(0)
        return await super().append(entry)


class DeafLog(MemoryLog):
    """A log that refuses every append, as if other nodes were always first, or as if the last entry were unreadable."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    async def append(self, entry):
        self.asked += 1
        return False


# ---- publishing alerts -------------------------------------------------------------------------------------------


def test_published_alert_is_stored_in_the_log(desk):
    """The answer is 201 with revision 1, the time of acceptance and the published area (section 4, publish)."""
    status, entry = desk.publish()
    assert status == 201
    assert desk.history() == (entry,)
    assert isinstance(entry, Revision)
    assert (entry.revision, entry.source, entry.issued_at) == (1, "desk", NOON_MS)
    assert entry.terms == AcceptedTerms("Robbery", HOUR_MS, 9)
    assert entry.alert.area == (Circle(*publish_circle(*DALLAS, 800, 9)),)
    assert desk.appended == 1


def test_request_with_same_content_gets_first_answer(desk):
    """A repeated request makes no second alert, whatever the `sub` of its publisher is (H3)."""
    _, first = desk.publish()
    desk.clock.advance(60)
    for who in (DESK, OTHER, MANAGER):
        assert desk.publish(who) == (200, first)
    assert desk.history() == (first,)
    assert desk.appended == 1


@pytest.mark.parametrize(
    "changes",
    [{"headline": "x"}, {"severity": "minor"}, {"description": ...}, {"approval": APPROVAL}, {"category": "arson"}],
    ids=str,
)
def test_other_content_under_known_id_is_conflict(desk, changes):
    """The answer is 409 `id-conflict` (section 4, publish)."""
    desk.publish()
    assert refused(desk.publish(**changes)) == (409, "id-conflict")
    assert refused(desk.publish(OTHER, **changes)) == (409, "id-conflict")


def test_ids_that_differ_only_by_case_are_different_alerts(desk):
    """`id` is case-sensitive (section 2)."""
    assert desk.publish(id="a-1")[0] == 201
    assert desk.publish(id="A-1")[0] == 201


def test_repeated_request_gets_first_answer_after_later_changes(desk):
    """A known pair of id and revision with the same content is answered with 200 (section 4, order of decisions)."""
    _, first = desk.publish()
    _, second = desk.revise()
    _, cancel = desk.cancel(3)
    for advance in (0, 7200, 86_000):
        desk.clock.advance(advance)
        assert desk.publish() == (200, first)
        assert desk.revise() == (200, second)
        assert desk.cancel(3) == (200, cancel)
    assert desk.publish(OTHER) == (200, first)
    assert desk.revise(who=OTHER) == (200, second)
    assert desk.cancel(3, OTHER) == (200, cancel)


def test_request_about_individual_threat_is_never_taken_for_a_repeat(desk):
    """Such a request is never accepted, so there is no stored content to which it could be equal (H5)."""
    desk.publish()
    desk.revise()
    assert refused(desk.publish(threat="individual")) == (409, "id-conflict")
    assert refused(desk.revise(threat="individual")) == (409, "revision-conflict")
    assert refused(desk.revise(3, threat="individual")) == (422, "not-community")


@pytest.mark.parametrize(
    "in_force",
    [
        a_policy(title="Hold-up"),
        a_policy(max_age_s=60),
        a_policy(max_age_s=7200),
        a_policy(location_resolution=6),
        a_policy(min_radius_m=5000),
        Policy.model_validate({"name": "p", "categories": {"arson": {"title": "Arson"}}, "never": {"robbery": "R"}}),
    ],
    ids=["title", "shorter", "longer", "coarser", "wider", "never"],
)
def test_repeated_request_after_policy_change_gets_first_answer(desk, in_force):
    """A new policy only refuses new requests (P10, section 4)."""
    _, first = desk.publish(expires_at=...)
    _, second = desk.revise(expires_at=...)
    desk.use(in_force)
    assert desk.publish(expires_at=...) == (200, first)
    assert desk.revise(expires_at=...) == (200, second)
    assert refused(desk.publish(expires_at=..., headline="x")) == (409, "id-conflict")


def test_request_that_breaks_policy_is_refused_with_all_violations(desk):
    """The 422 for the policy in section 3 is the last check (section 4, order of decisions)."""
    area = [CIRCLE, CIRCLE | {"radius_m": 1}]
    answer = desk.publish(
        category="robbery", threat="individual", area=area, occurred_at=format_time(NOON_MS - 2 * HOUR_MS)
    )
    assert slugs(answer) == (
        422,
        "not-community",
        [
            ("not-community", "/threat"),
            ("stale", "/occurred_at"),
            ("expiry-out-of-range", "/expires_at"),
            ("radius-out-of-range", "/area/1/radius_m"),
        ],
    )
    assert desk.history() == ()


def test_violations_of_policy_are_listed_with_invalid_fields(desk):
    """One 422 lists invalid fields and violations of the policy in section 3 (section 4, order of decisions)."""
    assert slugs(desk.publish(headline="", category="gossip", zebra=1)) == (
        422,
        "invalid-value",
        [("invalid-value", "/headline"), ("unknown-field", "/zebra"), ("category-not-alertable", "/category")],
    )


def test_invalid_fields_are_reported_before_log_is_consulted(desk):
    """The 422 for invalid fields comes before 200, 409, 404, 403 and 410 (section 4, order of decisions)."""
    desk.publish()
    assert refused(desk.publish(zebra=1)) == (422, "unknown-field")
    assert refused(desk.revise(2, OTHER, headline="")) == (422, "invalid-value")
    assert refused(desk.revise(2, alert_id="unknown", headline="")) == (422, "invalid-value")
    assert refused(desk.cancel(9, OTHER, reason="")) == (422, "invalid-value")
    desk.cancel()
    assert refused(desk.cancel(reason="")) == (422, "invalid-value")


def test_conflict_is_reported_before_violations_of_policy(desk):
    """The 409 for a known id comes before the 422 for the policy (section 4, order of decisions)."""
    desk.publish()
    assert refused(desk.publish(category="gossip")) == (409, "id-conflict")


def test_refused_request_can_be_sent_again(desk):
    """A refusal stores nothing (section 4)."""
    assert desk.publish(category="gossip")[0] == 422
    assert desk.publish()[0] == 201


# ---- dry runs ----------------------------------------------------------------------------------------------------


def test_dry_run_stores_nothing(desk):
    """A dry run gets the same answer as the real request (section 4, publish)."""
    status, entry = desk.publish(dry_run=True)
    assert status == 200
    assert desk.history() == ()
    assert desk.appended == 0
    assert desk.publish() == (201, entry)


def test_dry_run_gets_answer_of_real_request(desk):
    """A dry run is refused for the same reasons (section 4, publish)."""
    assert refused(desk.publish(dry_run=True, category="gossip")) == (422, "category-not-alertable")
    assert refused(desk.publish(dry_run=True, headline="")) == (422, "invalid-value")
    _, first = desk.publish()
    assert desk.publish(dry_run=True) == (200, first)
    assert refused(desk.publish(dry_run=True, headline="x")) == (409, "id-conflict")


# ---- concurrent requests -----------------------------------------------------------------------------------------


def at_once(desk, *calls):
    """Return the answers to concurrent requests."""

    async def run():
        return await asyncio.gather(*(answer_of(call) for call in calls))

    return asyncio.run(run())


def test_same_request_at_many_nodes_makes_one_alert():
    """One request gets 201, and all others get 200 (H3)."""
    desk = PublisherHarness(SlowLog())
    calls = [desk.publishing.publish(alert_request(), Requester(f"desk-{n}")) for n in range(20)]
    answers = at_once(desk, *calls)
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert {entry.source for _, entry in answers} == {desk.history()[0].source}
    assert len(desk.history()) == 1
    assert desk.appended == 1


def test_only_one_of_concurrent_requests_for_one_id_is_stored():
    """The other requests get 409 `id-conflict` (section 4, publish)."""
    desk = PublisherHarness(SlowLog())
    calls = [desk.publishing.publish(alert_request(headline=f"H{n}"), DESK) for n in range(20)]
    answers = at_once(desk, *calls)
    assert sorted(status for status, _ in answers) == [201] + [409] * 19
    assert len(desk.history()) == 1


def test_only_one_of_concurrent_revisions_with_same_number_is_stored():
    """The other requests get 409 with the new `current` number (section 4, revisions)."""
    desk = PublisherHarness(SlowLog())
    desk.publish()
    calls = [desk.publishing.revise("a-1", alert_request(revision=2, headline=f"H{n}"), DESK) for n in range(10)] + [
        desk.publishing.revise("a-1", alert_request(revision=2, headline="H0"), DESK) for n in range(10)
    ]
    answers = at_once(desk, *calls)
    winner = desk.history()[1]
    for status, answer in answers:
        if status == 409:
            assert (answer.slug, answer.extra) == ("revision-conflict", {"current": 2})
        else:
            assert answer == winner
    assert sum(status == 201 for status, _ in answers) == 1
    assert [entry.revision for entry in desk.history()] == [1, 2]


def test_only_one_of_concurrent_revision_and_cancel_is_stored():
    """The cancel is first, and the revision gets the error for an alert that has ended (section 4, cancel)."""
    desk = PublisherHarness(SlowLog())
    desk.publish()
    cancel = {"revision": 2, "reason": "over", "approval": APPROVAL}
    revision = alert_request(revision=2, headline="x")
    first, second = at_once(
        desk, desk.publishing.cancel("a-1", cancel, DESK), desk.publishing.revise("a-1", revision, DESK)
    )
    assert first[0] == 201
    assert refused(second) == (410, "alert-ended")


# ---- entries of a later release ----------------------------------------------------------------------------------


def another_kind(number, alert_id="a-1"):
    """Return an entry of a kind that this release does not know, which ends later than any revision."""
    return OtherKind(alert_id, number, NOON_MS + 9 * HOUR_MS)


def test_id_of_entry_of_unknown_kind_cannot_be_published_or_revised(desk):
    """Publishing gets 409, and revising gets 404. The same holds for a tombstone (a cancel without an alert; G4)."""
    desk.log.take(another_kind(1))
    desk.log.take(a_cancel("a-2", 1))
    for alert_id in ("a-1", "a-2"):
        assert refused(desk.publish(id=alert_id)) == (409, "id-conflict")
        assert refused(desk.publish(id=alert_id, dry_run=True)) == (409, "id-conflict")
        assert refused(desk.revise(2, alert_id=alert_id)) == (404, "unknown-alert")
        assert refused(desk.cancel(2, alert_id=alert_id)) == (404, "unknown-alert")


def test_next_revision_is_numbered_after_entry_of_unknown_kind(desk):
    """A cancel is numbered in the same way, and a 409 names the number of the last entry (G4)."""
    desk.publish()
    desk.log.take(another_kind(2))
    for call in (desk.revise, desk.cancel):
        status, problem = call(2)
        assert (status, problem.slug, problem.extra) == (409, "revision-conflict", {"current": 2})
    assert desk.publish()[0] == 200
    assert desk.revise(3)[0] == 201
    desk.log.take(another_kind(4))
    assert desk.revise(3)[0] == 200
    assert desk.cancel(5, OTHER)[0] == 403
    assert desk.cancel(5)[0] == 201
    assert desk.cancel(5)[0] == 200
    assert [entry.revision for entry in desk.history()] == [1, 2, 3, 4, 5]


def test_ended_alert_stays_ended_even_if_entry_of_unknown_kind_follows(desk):
    """Requests for a cancelled or expired alert get 410 (G4)."""
    for alert_id in ("a-1", "a-2"):
        desk.publish(id=alert_id)
    desk.cancel(2)
    desk.log.take(another_kind(3))
    desk.log.take(another_kind(2, "a-2"))
    assert refused(desk.revise(4)) == refused(desk.cancel(4)) == (410, "alert-ended")
    desk.clock.advance(3600)
    assert refused(desk.revise(3, alert_id="a-2")) == refused(desk.cancel(3, alert_id="a-2")) == (410, "alert-ended")


def test_alert_that_begins_with_entry_of_unknown_kind_belongs_to_first_publisher(desk):
    """The first entry of a known kind names the owner (G4)."""
    desk.log.take(another_kind(1))
    desk.log.take(a_revision(revision=2, source="desk"))
    assert desk.cancel(3, OTHER)[0] == 403
    assert desk.cancel(3)[0] == 201


# ---- an unavailable log ------------------------------------------------------------------------------------------


def test_request_while_log_is_unavailable_raises_log_unavailable():
    """The API answers 503 `log-unavailable`. An invalid body still gets 422 (section 4)."""
    desk = PublisherHarness(BrokenLog())
    for call in (desk.publish, desk.revise, desk.cancel):
        with pytest.raises(LogUnavailable):
            call()
    assert refused(desk.publish(headline="")) == (422, "invalid-value")
    assert refused(desk.revise(headline="")) == (422, "invalid-value")
    assert refused(desk.cancel(reason="")) == (422, "invalid-value")
    assert desk.appended == 0


def test_publication_that_others_always_overtake_fails_after_limited_attempts():
    """The first attempt comes before the history is read, and the outcome is unknown (section 4)."""
    desk = PublisherHarness(DeafLog())
    with pytest.raises(LogUnavailable):
        desk.publish()
    assert desk.log.asked == 1 + ATTEMPTS


def test_entry_too_large_for_log_is_refused():
    """The 413 names the limit (F8). The fields of publishers are never that long."""
    assert check_size(a_warning("en", "fr")) == a_warning("en", "fr")
    with pytest.raises(Problem) as refused:
        check_size(a_revision(description="x" * 65_536))
    assert (refused.value.status, refused.value.slug) == (413, "too-large")
    assert "64 KiB" in refused.value.body()["detail"]
