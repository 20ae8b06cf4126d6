"""Revising and cancelling alerts: the order of decisions in section 4 of the protocol, with a log in memory."""

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
from geocast.auth.tokens import Requester
from geocast.geometry.sphere import publish_circle
from geocast.model.alert import AcceptedTerms, Cancel, Circle
from geocast.model.times import format_time
from geocast.policy import Policy

# ---- revising alerts ---------------------------------------------------------------------------------------------


def test_revision_takes_next_number(desk):
    """The number must be `current` + 1 (section 4, revisions)."""
    desk.publish()
    for number in (2, 3, 4):
        desk.clock.advance(1)
        status, entry = desk.revise(number, headline=f"Number {number}")
        assert (status, entry.revision, entry.source) == (201, number, "desk")
        assert entry.issued_at == NOON_MS + 1000 * (number - 1)
    assert [entry.revision for entry in desk.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [1, 2, 4, 5, 2**31 - 1])
def test_revision_with_taken_or_skipped_number_is_conflict(desk, number):
    """The 409 names the `current` number (section 4, revisions)."""
    desk.publish()
    desk.revise()
    for answer in (desk.revise(number, headline="x"), desk.cancel(number)):
        assert refused(answer) == (409, "revision-conflict")
        assert answer[1].extra == {"current": 2}


def test_first_revision_may_be_repeated_by_a_revision_request(desk):
    """A known pair of id and revision with the same content gets 200 (section 4, order of decisions)."""
    _, first = desk.publish()
    assert desk.revise(1, headline="Robbery at a shop") == (200, first)


def test_unknown_alert_is_neither_revised_nor_cancelled(desk):
    """Any publisher gets 404 `unknown-alert` (section 4)."""
    desk.publish()
    for who in (DESK, OTHER, MANAGER):
        assert refused(desk.revise(2, who, alert_id="a-2")) == (404, "unknown-alert")
        assert refused(desk.cancel(2, who, alert_id="a-2")) == (404, "unknown-alert")


def test_revision_or_cancel_of_alert_of_another_publisher_is_refused(desk):
    """The 403 `not-yours` comes before 410, 409 and the policy's 422 (section 4)."""
    desk.publish()
    assert refused(desk.revise(2, OTHER)) == (403, "not-yours")
    assert refused(desk.revise(9, OTHER, category="gossip")) == (403, "not-yours")
    assert refused(desk.cancel(9, OTHER)) == (403, "not-yours")
    desk.cancel()
    assert refused(desk.cancel(3, OTHER)) == (403, "not-yours")


def test_publisher_with_same_sub_from_another_issuer_may_not_revise_alert(desk):
    """Managers of any issuer may revise the alert, which does not change its owner (HD5)."""
    other = Requester("desk", issuer="https://other.example")
    desk.publish()
    assert refused(desk.revise(2, other)) == refused(desk.cancel(2, other)) == (403, "not-yours")
    desk.revise(2, Requester("desk", manages=True, issuer="https://other.example"))
    assert refused(desk.revise(3, other)) == refused(desk.cancel(3, other)) == (403, "not-yours")
    desk.cancel(3)


def test_manager_may_revise_and_cancel_alerts_of_others(desk):
    """The scope is `alerts:manage`. In each revision, `source` is the `sub` of whoever revised (sections 2 and 4)."""
    desk.publish()
    assert desk.revise(2, MANAGER)[1].source == "boss"
    assert desk.revise(3, DESK, headline="x")[0] == 201  # still the desk's own
    assert desk.cancel(4, MANAGER)[1].source == "boss"


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_alert_that_has_ended_is_neither_revised_nor_cancelled(desk, end):
    """The 410 `alert-ended` comes before 409 and the policy's 422 (section 4)."""
    desk.publish()
    if end == "cancelled":
        desk.cancel()
    else:
        desk.clock.advance(1800)
    for number in (1, 2, 3, 9):
        assert refused(desk.revise(number, category="gossip", headline="x")) == (410, "alert-ended")
        assert refused(desk.cancel(number, reason="x")) == (410, "alert-ended")


def test_alert_is_live_until_millisecond_of_its_expiry(desk):
    """An alert is live while `now < expires_at` (section 1)."""
    desk.publish()
    desk.clock.advance(1799.999)
    assert desk.revise()[0] == 201
    assert desk.cancel(3)[0] == 201


def test_revision_keeps_occurred_at_and_status(desk):
    """The 422 lists `status-changed` and `occurred-at-changed` in the order of the table in section 2 (section 4)."""
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


def test_missing_status_of_revision_is_read_as_actual(desk):
    """So the status of a test alert must be repeated in each revision (sections 2 and 4)."""
    desk.publish(status="test")
    assert refused(desk.revise(status=...)) == (422, "status-changed")
    assert desk.revise(status="test")[0] == 201


def test_revision_with_earlier_expiry_is_refused(desk):
    """A revision may not end earlier than the current one, whether or not other fields are invalid (P6)."""
    desk.publish()
    earlier = format_time(NOON_MS + 1_799_999)
    assert refused(desk.revise(expires_at=earlier)) == (422, "expiry-out-of-range")
    assert slugs(desk.revise(expires_at=earlier, headline=""))[2] == [
        ("invalid-value", "/headline"),
        ("expiry-out-of-range", "/expires_at"),
    ]


def test_revision_is_never_refused_as_too_old(desk):
    """Only the first revision of an alert can be too old, which is reported as `stale` (P4)."""
    desk.use(a_policy(max_age_s=7200))
    desk.publish(expires_at=...)
    desk.use(a_policy(max_age_s=3600))
    desk.clock.advance(3600)
    last = format_time(NOON_MS - 600_000 + 7_200_000)
    assert desk.revise(category="arson", expires_at=last)[0] == 201
    assert refused(desk.publish(id="a-2", category="robbery", expires_at=...)) == (422, "stale")


def test_revision_with_invalid_field_is_not_reported_as_too_old(desk):
    """This holds for known and unknown alerts, and while the log is unavailable (P4)."""
    old = {"occurred_at": format_time(NOON_MS - 2 * HOUR_MS), "expires_at": ..., "headline": ""}
    for unknown in (desk, PublisherHarness(BrokenLog())):
        assert slugs(unknown.revise(alert_id="a-2", **old))[2] == [
            ("invalid-value", "/headline"),
            ("expiry-out-of-range", "/category"),
        ]
    assert ("stale", "/occurred_at") in slugs(desk.publish(**old))[2]


def test_revision_that_ends_before_it_is_issued_is_refused(desk):
    """In a category with a shorter lifetime the default expiry may be past. The alert can still be cancelled (P6)."""
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
    """The revision may have ended, or the policy may have changed (H3)."""
    desk.publish(expires_at=...)
    _, second = desk.revise(expires_at=...)
    desk.use(a_policy(max_age_s=600, min_life_s=300))
    desk.clock.advance(1_800)
    assert desk.publish(expires_at=...)[0] == 200
    assert desk.revise(expires_at=...) == (200, second)
    assert slugs(desk.revise(3, expires_at=...))[2] == [("expiry-out-of-range", "/category")]


def test_all_revisions_have_location_resolution_of_first_one(desk):
    """The category of the first revision sets the resolution (section 2, the published circle)."""
    desk.use(a_policy(location_resolution=8))
    _, first = desk.publish()
    _, second = desk.revise(category="arson", severity="extreme")
    desk.use(a_policy(location_resolution=10))
    _, third = desk.revise(3, headline="x")
    assert first.alert.area == second.alert.area == third.alert.area == (Circle(*publish_circle(*DALLAS, 800, 8)),)
    assert second.terms == AcceptedTerms("Arson", 7_200_000, 8)
    assert third.terms == AcceptedTerms("Robbery", HOUR_MS, 8)


def test_altered_log_does_not_make_location_of_revision_finer_than_policy_allows(desk):
    """Somebody who can write to the log can't learn the exact place from the next revision (B1, TH7)."""
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
    """The centre comes from the previous published circle, since the requested one is not stored (B11)."""
    _, first = desk.publish()
    _, second = desk.revise(area=THERE)
    [one], [other] = first.alert.area, second.alert.area
    assert (one.lat, one.lng) == (other.lat, other.lng)
    assert other.radius_m > one.radius_m


def test_dry_run_of_revision_shows_what_would_be_published(desk):
    """A dry run gets the same answer or refusal as the request, and stores nothing (section 4, revisions)."""
    assert refused(desk.revise(dry_run=True)) == (404, "unknown-alert")
    desk.publish()
    status, entry = desk.revise(area=THERE, dry_run=True)
    assert status == 200
    assert [entry.revision for entry in desk.history()] == [1]
    assert refused(desk.revise(3, dry_run=True)) == (409, "revision-conflict")
    assert refused(desk.revise(category="gossip", dry_run=True)) == (422, "category-not-alertable")
    assert desk.revise(area=THERE) == (201, entry)
    assert desk.revise(area=THERE, dry_run=True) == (200, entry)


def test_repeated_revision_is_recognized_after_later_revisions(desk):
    """The revision is compared by the published centres before it, not by later ones (H3, H5, B11)."""
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
    """An entry without `rules` was accepted under the rules from before B11 and B12 (H5, B12)."""
    area = [CIRCLE, CIRCLE | {"lat": DALLAS[0] + 0.005}]
    older = [Circle(*publish_circle(shape["lat"], shape["lng"], 800, 9)) for shape in area]
    _, entry = desk.publish(area=area, dry_run=True)
    entry = replace(entry, alert=replace(entry.alert, area=tuple(older)), terms=replace(entry.terms, rules=1))
    asyncio.run(desk.log.append(entry))
    assert desk.publish(area=area) == (200, entry)
    _, second = desk.revise(area=area)
    assert second.terms.rules == 2
    assert desk.revise(area=area) == (200, second)


# ---- cancelling alerts -------------------------------------------------------------------------------------------


def test_cancel_takes_next_number_and_is_kept_until_alert_would_have_ended(desk):
    """The log keeps it until the alert would have expired (section 4, cancel)."""
    desk.publish()
    _, second = desk.revise()
    status, cancel = desk.cancel(3)
    assert status == 201
    assert isinstance(cancel, Cancel)
    assert (cancel.id, cancel.revision, cancel.reason, cancel.source) == ("a-1", 3, "over", "desk")
    assert (cancel.cancelled_at, cancel.ends_at) == (NOON_MS, second.ends_at)
    assert desk.history()[-1] == cancel


def test_second_cancel_with_other_content_is_refused(desk):
    """The alert has ended, so the answer is 410 (section 4)."""
    desk.publish()
    desk.cancel()
    assert refused(desk.cancel(reason="x")) == (410, "alert-ended")
    assert refused(desk.cancel(approval=APPROVAL | {"reviewer": "x"})) == (410, "alert-ended")


def test_cancel_with_approval_at_wrong_time_is_refused(desk):
    """The time `approved_at` must be neither before `occurred_at` nor in the future (P3)."""
    desk.publish()
    for when in (NOON_MS - 600_001, NOON_MS + 60_001):
        approval = APPROVAL | {"approved_at": format_time(when)}
        assert slugs(desk.cancel(approval=approval)) == (
            422,
            "not-approved",
            [("not-approved", "/approval/approved_at")],
        )
    assert desk.cancel(approval=APPROVAL | {"approved_at": format_time(NOON_MS + 60_000)})[0] == 201


def test_alert_fields_in_cancel_are_refused_as_unknown(desk):
    """Such fields are `category`, `threat` and `area` (section 3)."""
    desk.publish()
    future = APPROVAL | {"approved_at": format_time(NOON_MS + HOUR_MS)}
    answer = desk.cancel(category="gossip", threat="individual", area=CIRCLE | {"radius_m": 1}, approval=future)
    assert slugs(answer)[2] == [
        ("unknown-field", "/category"),
        ("unknown-field", "/threat"),
        ("unknown-field", "/area"),
        ("not-approved", "/approval/approved_at"),
    ]


def test_alert_whose_category_is_missing_in_policy_can_be_cancelled(desk):
    """A new policy only refuses new requests. Live alerts stay live (P10)."""
    desk.publish()
    desk.use(Policy.model_validate({"name": "p", "categories": {"arson": {"title": "Arson"}}}))
    assert refused(desk.revise()) == (422, "category-not-alertable")
    assert desk.cancel()[0] == 201
