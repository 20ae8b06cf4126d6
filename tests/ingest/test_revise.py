"""Revisions and cancels of an alert: the order of decisions of section 4, on a log in memory."""

import asyncio
from dataclasses import replace

import pytest
from support.fakes import DALLAS, HOUR_MS, NOON_MS
from support.publisher import (
    APPROVAL,
    CIRCLE,
    DESK,
    MANAGER,
    OTHER,
    BrokenLog,
    PublisherHarness,
    a_policy,
    refused,
    slugs,
)

from geocast.alertlog.memory import MemoryLog
from geocast.clock import format_time
from geocast.geometry.sphere import publish_circle
from geocast.ingest.publish import Publisher
from geocast.model.alert import AcceptedTerms, Cancel, Circle
from geocast.policy import Policy

# ---- revise ------------------------------------------------------------------------------------------------------


def test_revision_takes_next_number(desk):
    """Section 4, revisions: n = current + 1."""
    desk.publish()
    for number in (2, 3, 4):
        desk.clock.advance(1)
        status, entry = desk.revise(number, headline=f"Number {number}")
        assert (status, entry.revision, entry.source) == (201, number, "desk")
        assert entry.issued_at == NOON_MS + 1000 * (number - 1)
    assert [entry.revision for entry in desk.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [1, 2, 4, 5, 2**31 - 1])
def test_revision_with_taken_or_skipped_number_is_conflict(desk, number):
    """Section 4, revisions: n taken by other content, or not current + 1: 409 with `current`."""
    desk.publish()
    desk.revise()
    for answer in (desk.revise(number, headline="x"), desk.cancel(number)):
        assert refused(answer) == (409, "revision-conflict")
        assert answer[1].extra == {"current": 2}


def test_revision_1_may_be_repeated_as_revision(desk):
    """Section 4, order of decisions: known (id, revision) with the same content: 200."""
    _, first = desk.publish()
    assert desk.revise(1, headline="Robbery at a shop") == (200, first)


def test_unknown_alert_is_neither_revised_nor_cancelled(desk):
    """Section 4: 404 `unknown-alert`, to whoever asks."""
    desk.publish()
    for who in (DESK, OTHER, MANAGER):
        assert refused(desk.revise(2, who, alert_id="a-2")) == (404, "unknown-alert")
        assert refused(desk.cancel(2, who, alert_id="a-2")) == (404, "unknown-alert")


def test_alert_of_another_publisher_is_refused(desk):
    """Section 4: 403 `not-yours` without alerts:manage; it comes before 410, 409 and section 3."""
    desk.publish()
    assert refused(desk.revise(2, OTHER)) == (403, "not-yours")
    assert refused(desk.revise(9, OTHER, category="gossip")) == (403, "not-yours")
    assert refused(desk.cancel(9, OTHER)) == (403, "not-yours")
    desk.cancel()
    assert refused(desk.cancel(3, OTHER)) == (403, "not-yours")


def test_alert_of_same_sub_from_another_issuer_is_refused(desk):
    """HD5: not with a `manages` that revised it in between either; a manager of any issuer may."""
    other = Publisher("desk", issuer="https://other.example")
    desk.publish()
    assert refused(desk.revise(2, other)) == refused(desk.cancel(2, other)) == (403, "not-yours")
    desk.revise(2, Publisher("desk", manages=True, issuer="https://other.example"))
    assert refused(desk.revise(3, other)) == refused(desk.cancel(3, other)) == (403, "not-yours")
    desk.cancel(3)


def test_manager_may_revise_and_cancel_alerts_of_others(desk):
    """Section 4: scope `alerts:manage`; section 2: `source` is the `sub` of the publisher of this revision."""
    desk.publish()
    assert desk.revise(2, MANAGER)[1].source == "boss"
    assert desk.revise(3, DESK, headline="x")[0] == 201  # still the desk's own
    assert desk.cancel(4, MANAGER)[1].source == "boss"


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_alert_that_has_ended_is_neither_revised_nor_cancelled(desk, end):
    """Section 4: cancelled or expired: 410 `alert-ended`, before 409 and section 3."""
    desk.publish()
    if end == "cancelled":
        desk.cancel()
    else:
        desk.clock.advance(1800)
    for number in (1, 2, 3, 9):
        assert refused(desk.revise(number, category="gossip", headline="x")) == (410, "alert-ended")
        assert refused(desk.cancel(number, reason="x")) == (410, "alert-ended")


def test_alert_is_live_until_millisecond_of_its_expiry(desk):
    """Section 1: live is `now < expires_at`."""
    desk.publish()
    desk.clock.advance(1799.999)
    assert desk.revise()[0] == 201
    assert desk.cancel(3)[0] == 201


def test_revision_keeps_occurred_at_and_status(desk):
    """Section 4, revisions: 422 `occurred-at-changed`, `status-changed`, in the order of section 2's table."""
    desk.publish()
    answer = desk.revise(status="test", occurred_at=format_time(NOON_MS - 500_000), category="gossip")
    assert slugs(answer) == (
        422,
        "status-changed",
        [
            ("status-changed", "/status"),
            ("occurred-at-changed", "/occurred_at"),
            ("category-not-alertable", "/category"),
        ],
    )


def test_missing_status_of_revision_is_actual(desk):
    """Section 2: default `actual`; section 4: it has to be revision 1's."""
    desk.publish(status="test")
    assert refused(desk.revise(status=...)) == (422, "status-changed")
    assert desk.revise(status="test")[0] == 201


def test_revision_with_earlier_expiry_is_refused(desk):
    """P6: not earlier than the current revision's; broken fields or not."""
    desk.publish()
    earlier = format_time(NOON_MS + 1_799_999)
    assert refused(desk.revise(expires_at=earlier)) == (422, "expiry-out-of-range")
    assert slugs(desk.revise(expires_at=earlier, headline=""))[2] == [
        ("invalid-value", "/headline"),
        ("expiry-out-of-range", "/expires_at"),
    ]


def test_revision_is_never_stale(desk):
    """P4: stale for revision 1 only."""
    desk.use(a_policy(max_age_s=7200))
    desk.publish(expires_at=...)
    desk.use(a_policy(max_age_s=3600))
    desk.clock.advance(3600)
    last = format_time(NOON_MS - 600_000 + 7_200_000)
    assert desk.revise(category="arson", expires_at=last)[0] == 201
    assert refused(desk.publish(id="a-2", category="robbery", expires_at=...)) == (422, "stale")


def test_revision_with_broken_field_is_not_reported_as_stale(desk):
    """P4: revision 1 only, whether or not the log knows the alert, or can be asked."""
    old = {"occurred_at": format_time(NOON_MS - 2 * HOUR_MS), "expires_at": ..., "headline": ""}
    for unknown in (desk, PublisherHarness(BrokenLog())):
        assert slugs(unknown.revise(alert_id="a-2", **old))[2] == [
            ("invalid-value", "/headline"),
            ("expiry-out-of-range", "/category"),
        ]
    assert ("stale", "/occurred_at") in slugs(desk.publish(**old))[2]


def test_revision_that_ends_before_it_is_issued_is_refused(desk):
    """P6: what a category of shorter life makes of an expiry that is left out is refused; the alert can be ended."""
    desk.use(a_policy(max_age_s=600))
    desk.publish(category="arson", expires_at=...)
    desk.clock.advance(60)
    assert slugs(desk.revise(category="robbery", expires_at=...)) == (
        422,
        "expiry-out-of-range",
        [("expiry-out-of-range", "/category")],
    )
    assert desk.revise(category="arson", expires_at=...)[0] == 201
    assert desk.cancel(3)[0] == 201


def test_repeated_revision_after_expiry_gets_first_answer(desk):
    """H3: a revision that was accepted under another policy, or has ended, is answered as it was."""
    desk.publish(expires_at=...)
    _, second = desk.revise(expires_at=...)
    desk.use(a_policy(max_age_s=600, min_life_s=300))
    desk.clock.advance(1_800)
    assert desk.publish(expires_at=...)[0] == 200
    assert desk.revise(expires_at=...) == (200, second)
    assert slugs(desk.revise(3, expires_at=...))[2] == [("expiry-out-of-range", "/category")]


def test_all_revisions_have_resolution_of_first(desk):
    """Section 2, the published circle: of revision 1's category, for all revisions."""
    desk.use(a_policy(location_resolution=8))
    _, first = desk.publish()
    _, second = desk.revise(category="arson", severity="extreme")
    desk.use(a_policy(location_resolution=10))
    _, third = desk.revise(3, headline="x")
    assert first.alert.area == second.alert.area == third.alert.area == (Circle(*publish_circle(*DALLAS, 800, 8)),)
    assert second.terms == AcceptedTerms("Arson", 7_200_000, 8)
    assert third.terms == AcceptedTerms("Robbery", HOUR_MS, 8)


def test_altered_log_does_not_make_revision_finer_than_policy_allows(desk):
    """B1, TH7: who writes to the log is not told by the next revision exactly where the incident is."""
    desk.use(a_policy(location_resolution=8))
    _, first = desk.publish()
    finer = replace(first, terms=replace(first.terms, location_resolution=15))
    desk.log = MemoryLog()
    desk.use(a_policy(location_resolution=8))
    asyncio.run(desk.log.append(finer))
    _, second = desk.revise()
    assert second.alert.area == (Circle(*publish_circle(*DALLAS, 800, 8)),)
    assert second.terms.location_resolution == 8
    desk.use(Policy.model_validate({"name": "p", "categories": {"robbery": {"title": "R", "location_resolution": 7}}}))
    assert desk.revise(3, headline="x")[1].terms.location_resolution == 7


NEIGHBOUR = (DALLAS[0] + 0.003, DALLAS[1])  # 330 m north: in the next cell
THERE = CIRCLE | {"lat": NEIGHBOUR[0], "lng": NEIGHBOUR[1]}


def test_revision_in_neighbouring_cell_keeps_published_centre(desk):
    """B11: that of the revision before, which is all that is known of the place."""
    _, first = desk.publish()
    _, second = desk.revise(area=THERE)
    [one], [other] = first.alert.area, second.alert.area
    assert (one.lat, one.lng) == (other.lat, other.lng)
    assert other.radius_m > one.radius_m


def test_dry_run_of_revision_shows_what_would_be_published(desk):
    """Section 4, revisions: the same answer, or the refusal; nothing is stored."""
    assert refused(desk.revise(dry_run=True)) == (404, "unknown-alert")
    desk.publish()
    status, entry = desk.revise(area=THERE, dry_run=True)
    assert status == 200
    assert [entry.revision for entry in desk.history()] == [1]
    assert refused(desk.revise(3, dry_run=True)) == (409, "revision-conflict")
    assert refused(desk.revise(category="gossip", dry_run=True)) == (422, "category-not-alertable")
    assert desk.revise(area=THERE) == (201, entry)
    assert desk.revise(area=THERE, dry_run=True) == (200, entry)


def test_repeated_revision_is_compared_after_revision_that_it_followed(desk):
    """H3, H5, B11: whatever has come after it, and whatever that has made of the published centre."""
    far = CIRCLE | {"lat": DALLAS[0] + 0.02}
    entries = [desk.publish()[1]]
    for number, area in enumerate([THERE, THERE, CIRCLE, far, THERE], 2):
        status, entry = desk.revise(number, area=area, headline=f"H{number}")
        assert status == 201
        entries.append(entry)
    assert desk.publish() == (200, entries[0])
    for number, area in enumerate([THERE, THERE, CIRCLE, far, THERE], 2):
        assert desk.revise(number, area=area, headline=f"H{number}") == (200, entries[number - 1])
    assert refused(desk.revise(6, area=CIRCLE | {"radius_m": 900}, headline="H6")) == (409, "revision-conflict")


def test_entry_of_older_release_is_recognized_as_repeat(desk):
    """H5, B12: an entry that names no rules was accepted by those before B11 and B12."""
    area = [CIRCLE, CIRCLE | {"lat": DALLAS[0] + 0.005}]
    older = [Circle(*publish_circle(shape["lat"], shape["lng"], 800, 9)) for shape in area]
    _, entry = desk.publish(area=area, dry_run=True)
    entry = replace(entry, alert=replace(entry.alert, area=tuple(older)), terms=replace(entry.terms, rules=1))
    asyncio.run(desk.log.append(entry))
    assert desk.publish(area=area) == (200, entry)
    _, second = desk.revise(area=area)
    assert second.terms.rules == 2
    assert desk.revise(area=area) == (200, second)


# ---- cancel ------------------------------------------------------------------------------------------------------


def test_cancel_takes_next_number_and_ends_with_alert(desk):
    """Section 4, cancel: n = current + 1; it is remembered until the alert would have expired."""
    desk.publish()
    _, second = desk.revise()
    status, cancel = desk.cancel(3)
    assert status == 201
    assert isinstance(cancel, Cancel)
    assert (cancel.id, cancel.revision, cancel.reason, cancel.source) == ("a-1", 3, "over", "desk")
    assert (cancel.cancelled_at, cancel.ends_at) == (NOON_MS, second.ends_at)
    assert desk.history()[-1] == cancel


def test_second_cancel_of_same_number_is_refused(desk):
    """Section 4: other content, and the alert has ended: 410."""
    desk.publish()
    desk.cancel()
    assert refused(desk.cancel(reason="x")) == (410, "alert-ended")
    assert refused(desk.cancel(approval=APPROVAL | {"reviewer": "x"})) == (410, "alert-ended")


def test_cancel_needs_approval(desk):
    """P3: `approved_at` is not before `occurred_at` and not in the future."""
    desk.publish()
    for when in (NOON_MS - 600_001, NOON_MS + 60_001):
        approval = APPROVAL | {"approved_at": format_time(when)}
        assert slugs(desk.cancel(approval=approval)) == (
            422,
            "not-approved",
            [("not-approved", "/approval/approved_at")],
        )
    assert desk.cancel(approval=APPROVAL | {"approved_at": format_time(NOON_MS + 60_000)})[0] == 201


def test_cancel_is_not_checked_by_rules_for_alerts(desk):
    """Section 3 names categories, threats and radii: of a cancel these are unknown fields, and no more."""
    desk.publish()
    future = APPROVAL | {"approved_at": format_time(NOON_MS + HOUR_MS)}
    answer = desk.cancel(category="gossip", threat="individual", area=CIRCLE | {"radius_m": 1}, approval=future)
    assert slugs(answer)[2] == [
        ("unknown-field", "/category"),
        ("unknown-field", "/threat"),
        ("unknown-field", "/area"),
        ("not-approved", "/approval/approved_at"),
    ]


def test_alert_of_category_missing_in_policy_can_be_cancelled(desk):
    """P10: a later policy refuses new requests only; live alerts stay live, and can be ended."""
    desk.publish()
    desk.use(Policy.model_validate({"name": "p", "categories": {"arson": {"title": "Arson"}}}))
    assert refused(desk.revise()) == (422, "category-not-alertable")
    assert desk.cancel()[0] == 201
