"""What a publisher may do: the order of decisions of section 4, on a log in memory."""

import asyncio
from dataclasses import replace

import pytest
from support.fakes import DALLAS, HOUR_MS, NOON_MS, FakeClock, a_cancel, a_revision, a_warning, alert_request

from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.alertlog.optimistic import ATTEMPTS
from geocast.clock import format_time
from geocast.errors import LogUnavailable
from geocast.geometry.sphere import publish_circle
from geocast.ingest.publish import Publisher, Publishing, check_size
from geocast.model.alert import AcceptedTerms, Cancel, Circle, OtherKind, Revision
from geocast.model.problems import Problem
from geocast.policy import Policy

DESK, OTHER, MANAGER = Publisher("desk"), Publisher("other"), Publisher("boss", manages=True)
APPROVAL = {"reviewer": "desk-7", "approved_at": format_time(NOON_MS)}
BUILT_IN = policy.load(None)
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}


def a_policy(**robbery):
    """A policy with robbery (with these bounds) and arson, of two hours and a coarser cell."""
    arson = {"title": "Arson", "max_age_s": 7200, "location_resolution": 7}
    return Policy.model_validate(
        {"name": "p", "categories": {"robbery": {"title": "Robbery"} | robbery, "arson": arson}}
    )


class SlowLog(MemoryLog):
    """A log that takes its time. Lies: it takes a turn of the loop for each call, real ones take any time."""

    async def history(self, alert_id):
        await asyncio.sleep(0)
        found = await super().history(alert_id)
        await asyncio.sleep(0)
        return found

    async def append(self, entry):
        await asyncio.sleep(0)
        return await super().append(entry)


class BrokenLog(MemoryLog):
    """A log that is out of reach. Lies: nothing is stored, while a real one may have stored it."""

    async def history(self, alert_id):
        raise LogUnavailable("out of reach")

    async def append(self, entry):
        raise LogUnavailable("out of reach")


class DeafLog(MemoryLog):
    """A log that takes nothing, as if others always came first, or the last entry could not be read."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    async def append(self, entry):
        self.asked += 1
        return False


class Desk:
    """Publishing and what it works on; each call runs to its end."""

    def __init__(self, log=None, in_force=BUILT_IN):
        self.clock = FakeClock()
        self.log = log or MemoryLog()
        self.appended = 0
        self.use(in_force)

    def use(self, in_force):
        """From now on this policy is in force."""
        self.publishing = Publishing(self.log, in_force, self.clock, self._appended)

    def _appended(self, _entry):
        self.appended += 1

    def publish(self, who=DESK, *, dry_run=False, **changes):
        """`POST /v1/alerts`."""
        return _answer(self.publishing.publish(alert_request(**changes), who, dry_run=dry_run))

    def revise(self, number=2, who=DESK, alert_id="a-1", *, dry_run=False, **changes):
        """`POST /v1/alerts/{id}/revisions`."""
        body = {"headline": "Robbery, again"} | changes | {"id": ..., "revision": number}
        return _answer(self.publishing.revise(alert_id, alert_request(**body), who, dry_run=dry_run))

    def cancel(self, number=2, who=DESK, alert_id="a-1", **changes):
        """`POST /v1/alerts/{id}/cancel`."""
        body = {"revision": number, "reason": "over", "approval": APPROVAL} | changes
        return _answer(self.publishing.cancel(alert_id, body, who))

    def history(self, alert_id="a-1"):
        """What the log has of an alert."""
        return asyncio.run(self.log.history(alert_id))


def _answer(call):
    return asyncio.run(answer_of(call))


async def answer_of(call):
    """(status, entry), or (status, slug) of a problem."""
    try:
        outcome = await call
    except Problem as problem:
        return problem.status, problem
    return 201 if outcome.created else 200, outcome.entry


def slugs(answer):
    """Status, top-level type and all broken rules of an answer that is a problem."""
    status, problem = answer
    assert isinstance(problem, Problem)
    assert not problem.violations or problem.slug == problem.violations[0].slug
    return status, problem.slug, [(v.slug, v.pointer) for v in problem.violations]


def refused(answer):
    """Status and top-level type of an answer that is a problem."""
    return slugs(answer)[:2]


@pytest.fixture
def desk():
    """A desk with an empty log and the built-in policy."""
    return Desk()


# ---- publish -------------------------------------------------------------------------------------------------


def test_what_is_published_is_in_the_log(desk):
    """Section 4, publish: 201 with revision 1, the time of acceptance and the published area."""
    status, entry = desk.publish()
    assert status == 201
    assert desk.history() == (entry,)
    assert isinstance(entry, Revision)
    assert (entry.revision, entry.source, entry.issued_at) == (1, "desk", NOON_MS)
    assert entry.terms == AcceptedTerms("Robbery", HOUR_MS, 9)
    assert entry.alert.area == (Circle(*publish_circle(*DALLAS, 800, 9)),)
    assert desk.appended == 1


def test_the_same_content_again_gets_the_first_answer(desk):
    """H3: a repeated request is safe at any time: one alert; the publisher's `sub` doesn't count."""
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
def test_another_content_under_a_known_id_is_a_conflict(desk, changes):
    """Section 4, publish: same id, other content: 409 `id-conflict`."""
    desk.publish()
    assert refused(desk.publish(**changes)) == (409, "id-conflict")
    assert refused(desk.publish(OTHER, **changes)) == (409, "id-conflict")


def test_ids_differ_by_case(desk):
    """Section 2: `id` is case-sensitive."""
    assert desk.publish(id="a-1")[0] == 201
    assert desk.publish(id="A-1")[0] == 201


def test_a_request_is_repeated_safely_whatever_has_happened_since(desk):
    """Section 4, order of decisions: known (id, revision) with the same content: 200, whatever has happened since."""
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


def test_a_threat_to_an_individual_repeats_nothing(desk):
    """H5: it has no accepted form, so it is not the same content; the order of decisions says what it gets."""
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
def test_a_policy_that_has_changed_makes_no_conflict_of_a_repeated_request(desk, in_force):
    """P10: a later policy refuses new requests only; section 4: the first answer."""
    _, first = desk.publish(expires_at=...)
    _, second = desk.revise(expires_at=...)
    desk.use(in_force)
    assert desk.publish(expires_at=...) == (200, first)
    assert desk.revise(expires_at=...) == (200, second)
    assert refused(desk.publish(expires_at=..., headline="x")) == (409, "id-conflict")


def test_a_request_that_breaks_section_3_is_refused(desk):
    """Section 4, order of decisions: 422 for section 3, last, with every broken rule."""
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


def test_broken_rules_of_section_3_are_listed_with_broken_fields(desk):
    """Section 4, order of decisions: 422 when a field breaks section 2 (broken rules of section 3 with it)."""
    assert slugs(desk.publish(headline="", category="gossip", zebra=1)) == (
        422,
        "invalid-value",
        [("invalid-value", "/headline"), ("unknown-field", "/zebra"), ("category-not-alertable", "/category")],
    )


def test_broken_fields_come_before_all_that_the_log_knows(desk):
    """Section 4, order of decisions: 422 for section 2 comes before 200, 409, 404, 403 and 410."""
    desk.publish()
    assert refused(desk.publish(zebra=1)) == (422, "unknown-field")
    assert refused(desk.revise(2, OTHER, headline="")) == (422, "invalid-value")
    assert refused(desk.revise(2, alert_id="unknown", headline="")) == (422, "invalid-value")
    assert refused(desk.cancel(9, OTHER, reason="")) == (422, "invalid-value")
    desk.cancel()
    assert refused(desk.cancel(reason="")) == (422, "invalid-value")


def test_a_conflict_comes_before_section_3(desk):
    """Section 4, order of decisions: for POST of a known id 409, then section 3."""
    desk.publish()
    assert refused(desk.publish(category="gossip")) == (409, "id-conflict")


def test_what_was_refused_once_may_be_sent_again(desk):
    """Section 4: a refusal leaves nothing behind."""
    assert desk.publish(category="gossip")[0] == 422
    assert desk.publish()[0] == 201


# ---- dry run -------------------------------------------------------------------------------------------------


def test_a_dry_run_stores_nothing(desk):
    """Section 4, publish: with `dry_run` the same answer, or the refusal; nothing is stored."""
    status, entry = desk.publish(dry_run=True)
    assert status == 200
    assert desk.history() == ()
    assert desk.appended == 0
    assert desk.publish() == (201, entry)


def test_a_dry_run_says_what_a_request_would_get(desk):
    """Section 4, publish: the refusal."""
    assert refused(desk.publish(dry_run=True, category="gossip")) == (422, "category-not-alertable")
    assert refused(desk.publish(dry_run=True, headline="")) == (422, "invalid-value")
    _, first = desk.publish()
    assert desk.publish(dry_run=True) == (200, first)
    assert refused(desk.publish(dry_run=True, headline="x")) == (409, "id-conflict")


# ---- revise --------------------------------------------------------------------------------------------------


def test_a_revision_takes_the_next_number(desk):
    """Section 4, revisions: n = current + 1."""
    desk.publish()
    for number in (2, 3, 4):
        desk.clock.advance(1)
        status, entry = desk.revise(number, headline=f"Number {number}")
        assert (status, entry.revision, entry.source) == (201, number, "desk")
        assert entry.issued_at == NOON_MS + 1000 * (number - 1)
    assert [entry.revision for entry in desk.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [1, 2, 4, 5, 2**31 - 1])
def test_a_number_that_is_taken_or_not_the_next_is_a_conflict(desk, number):
    """Section 4, revisions: n taken by other content, or not current + 1: 409 with `current`."""
    desk.publish()
    desk.revise()
    for answer in (desk.revise(number, headline="x"), desk.cancel(number)):
        assert refused(answer) == (409, "revision-conflict")
        assert answer[1].extra == {"current": 2}


def test_revision_1_may_be_repeated_as_a_revision(desk):
    """Section 4, order of decisions: known (id, revision) with the same content: 200."""
    _, first = desk.publish()
    assert desk.revise(1, headline="Robbery at a shop") == (200, first)


def test_an_unknown_alert_is_neither_revised_nor_cancelled(desk):
    """Section 4: 404 `unknown-alert`, to whoever asks."""
    desk.publish()
    for who in (DESK, OTHER, MANAGER):
        assert refused(desk.revise(2, who, alert_id="a-2")) == (404, "unknown-alert")
        assert refused(desk.cancel(2, who, alert_id="a-2")) == (404, "unknown-alert")


def test_another_publishers_alert_is_not_ones_own(desk):
    """Section 4: 403 `not-yours` without alerts:manage; it comes before 410, 409 and section 3."""
    desk.publish()
    assert refused(desk.revise(2, OTHER)) == (403, "not-yours")
    assert refused(desk.revise(9, OTHER, category="gossip")) == (403, "not-yours")
    assert refused(desk.cancel(9, OTHER)) == (403, "not-yours")
    desk.cancel()
    assert refused(desk.cancel(3, OTHER)) == (403, "not-yours")


def test_alert_of_an_equal_sub_of_another_issuer_is_not_ones_own(desk):
    """HD5: not with a `manages` that revised it in between either; a manager of any issuer may."""
    other = Publisher("desk", issuer="https://other.example")
    desk.publish()
    assert refused(desk.revise(2, other)) == refused(desk.cancel(2, other)) == (403, "not-yours")
    desk.revise(2, Publisher("desk", manages=True, issuer="https://other.example"))
    assert refused(desk.revise(3, other)) == refused(desk.cancel(3, other)) == (403, "not-yours")
    desk.cancel(3)


def test_a_manager_may_revise_and_cancel_the_alerts_of_others(desk):
    """Section 4: scope `alerts:manage`; section 2: `source` is the `sub` of the publisher of this revision."""
    desk.publish()
    assert desk.revise(2, MANAGER)[1].source == "boss"
    assert desk.revise(3, DESK, headline="x")[0] == 201  # still the desk's own
    assert desk.cancel(4, MANAGER)[1].source == "boss"


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_an_alert_that_has_ended_is_neither_revised_nor_cancelled(desk, end):
    """Section 4: cancelled or expired: 410 `alert-ended`, before 409 and section 3."""
    desk.publish()
    if end == "cancelled":
        desk.cancel()
    else:
        desk.clock.advance(1800)
    for number in (1, 2, 3, 9):
        assert refused(desk.revise(number, category="gossip", headline="x")) == (410, "alert-ended")
        assert refused(desk.cancel(number, reason="x")) == (410, "alert-ended")


def test_an_alert_is_live_until_the_millisecond_of_its_expiry(desk):
    """Section 1: live is `now < expires_at`."""
    desk.publish()
    desk.clock.advance(1799.999)
    assert desk.revise()[0] == 201
    assert desk.cancel(3)[0] == 201


def test_a_revision_keeps_occurred_at_and_status(desk):
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


def test_a_left_out_status_is_actual_in_a_revision_too(desk):
    """Section 2: default `actual`; section 4: it has to be revision 1's."""
    desk.publish(status="test")
    assert refused(desk.revise(status=...)) == (422, "status-changed")
    assert desk.revise(status="test")[0] == 201


def test_a_revision_does_not_end_the_alert_earlier(desk):
    """P6: not earlier than the current revision's; broken fields or not."""
    desk.publish()
    earlier = format_time(NOON_MS + 1_799_999)
    assert refused(desk.revise(expires_at=earlier)) == (422, "expiry-out-of-range")
    assert slugs(desk.revise(expires_at=earlier, headline=""))[2] == [
        ("invalid-value", "/headline"),
        ("expiry-out-of-range", "/expires_at"),
    ]


def test_a_revision_is_never_stale(desk):
    """P4: stale for revision 1 only."""
    desk.use(a_policy(max_age_s=7200))
    desk.publish(expires_at=...)
    desk.use(a_policy(max_age_s=3600))
    desk.clock.advance(3600)
    last = format_time(NOON_MS - 600_000 + 7_200_000)
    assert desk.revise(category="arson", expires_at=last)[0] == 201
    assert refused(desk.publish(id="a-2", category="robbery", expires_at=...)) == (422, "stale")


def test_a_broken_revision_is_not_called_stale(desk):
    """P4: revision 1 only, whether or not the log knows the alert, or can be asked."""
    old = {"occurred_at": format_time(NOON_MS - 2 * HOUR_MS), "expires_at": ..., "headline": ""}
    for unknown in (desk, Desk(BrokenLog())):
        assert slugs(unknown.revise(alert_id="a-2", **old))[2] == [
            ("invalid-value", "/headline"),
            ("expiry-out-of-range", "/category"),
        ]
    assert ("stale", "/occurred_at") in slugs(desk.publish(**old))[2]


def test_a_revision_never_ends_before_it_was_issued(desk):
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


def test_a_repeat_is_none_of_the_expirys_business(desk):
    """H3: a revision that was accepted under another policy, or has ended, is answered as it was."""
    desk.publish(expires_at=...)
    _, second = desk.revise(expires_at=...)
    desk.use(a_policy(max_age_s=600, min_life_s=300))
    desk.clock.advance(1_800)
    assert desk.publish(expires_at=...)[0] == 200
    assert desk.revise(expires_at=...) == (200, second)
    assert slugs(desk.revise(3, expires_at=...))[2] == [("expiry-out-of-range", "/category")]


def test_all_revisions_are_published_with_the_resolution_of_the_first(desk):
    """Section 2, the published circle: of revision 1's category, for all revisions."""
    desk.use(a_policy(location_resolution=8))
    _, first = desk.publish()
    _, second = desk.revise(category="arson", severity="extreme")
    desk.use(a_policy(location_resolution=10))
    _, third = desk.revise(3, headline="x")
    assert first.alert.area == second.alert.area == third.alert.area == (Circle(*publish_circle(*DALLAS, 800, 8)),)
    assert second.terms == AcceptedTerms("Arson", 7_200_000, 8)
    assert third.terms == AcceptedTerms("Robbery", HOUR_MS, 8)


def test_a_log_that_says_otherwise_makes_no_revision_finer_than_the_policy_has_any(desk):
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


def test_a_revision_in_a_neighbouring_cell_keeps_the_published_centre(desk):
    """B11: that of the revision before, which is all that is known of the place."""
    _, first = desk.publish()
    _, second = desk.revise(area=THERE)
    [one], [other] = first.alert.area, second.alert.area
    assert (one.lat, one.lng) == (other.lat, other.lng)
    assert other.radius_m > one.radius_m


def test_a_dry_run_of_a_revision_shows_what_would_be_published(desk):
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


def test_a_repeated_revision_is_judged_behind_the_one_that_it_followed(desk):
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


def test_what_an_older_release_has_accepted_is_repeated(desk):
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


# ---- cancel --------------------------------------------------------------------------------------------------


def test_a_cancel_takes_the_next_number_and_ends_with_the_alert(desk):
    """Section 4, cancel: n = current + 1; it is remembered until the alert would have expired."""
    desk.publish()
    _, second = desk.revise()
    status, cancel = desk.cancel(3)
    assert status == 201
    assert isinstance(cancel, Cancel)
    assert (cancel.id, cancel.revision, cancel.reason, cancel.source) == ("a-1", 3, "over", "desk")
    assert (cancel.cancelled_at, cancel.ends_at) == (NOON_MS, second.ends_at)
    assert desk.history()[-1] == cancel


def test_another_cancel_of_the_same_number_is_too_late(desk):
    """Section 4: other content, and the alert has ended: 410."""
    desk.publish()
    desk.cancel()
    assert refused(desk.cancel(reason="x")) == (410, "alert-ended")
    assert refused(desk.cancel(approval=APPROVAL | {"reviewer": "x"})) == (410, "alert-ended")


def test_a_cancel_is_approved_too(desk):
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


def test_a_cancel_is_not_judged_by_the_rules_of_an_alert(desk):
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


def test_a_policy_without_the_category_does_not_keep_an_alert_from_being_cancelled(desk):
    """P10: a later policy refuses new requests only; live alerts stay live, and can be ended."""
    desk.publish()
    desk.use(Policy.model_validate({"name": "p", "categories": {"arson": {"title": "Arson"}}}))
    assert refused(desk.revise()) == (422, "category-not-alertable")
    assert desk.cancel()[0] == 201


# ---- many at once --------------------------------------------------------------------------------------------


def at_once(desk, *calls):
    """The answers to calls that are under way at the same time."""

    async def run():
        return await asyncio.gather(*(answer_of(call) for call in calls))

    return asyncio.run(run())


def test_the_same_request_from_many_publishers_makes_one_alert():
    """H3: a repeated request is safe from several publishers at once: one 201, the others 200."""
    desk = Desk(SlowLog())
    calls = [desk.publishing.publish(alert_request(), Publisher(f"desk-{n}")) for n in range(20)]
    answers = at_once(desk, *calls)
    assert sorted(status for status, _ in answers) == [200] * 19 + [201]
    assert {entry.source for _, entry in answers} == {desk.history()[0].source}
    assert len(desk.history()) == 1
    assert desk.appended == 1


def test_of_different_requests_for_one_id_one_wins():
    """Section 4, publish: the others get 409 `id-conflict`."""
    desk = Desk(SlowLog())
    calls = [desk.publishing.publish(alert_request(headline=f"H{n}"), DESK) for n in range(20)]
    answers = at_once(desk, *calls)
    assert sorted(status for status, _ in answers) == [201] + [409] * 19
    assert len(desk.history()) == 1


def test_of_different_revisions_of_one_number_one_wins():
    """Section 4, revisions: the others get 409 with the `current` that the log has by then."""
    desk = Desk(SlowLog())
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


def test_a_revision_and_a_cancel_at_once_leave_one_of_them():
    """Section 4, cancel: it takes the next number; who comes second is told what has happened meanwhile."""
    desk = Desk(SlowLog())
    desk.publish()
    cancel = {"revision": 2, "reason": "over", "approval": APPROVAL}
    revision = alert_request(revision=2, headline="x")
    first, second = at_once(
        desk, desk.publishing.cancel("a-1", cancel, DESK), desk.publishing.revise("a-1", revision, DESK)
    )
    assert first[0] == 201
    assert refused(second) == (410, "alert-ended")


# ---- entries of kinds that a later release writes ------------------------------------------------------------


def another_kind(number, alert_id="a-1"):
    """An entry of a kind that this release does not know; it ends later than any revision."""
    return OtherKind(alert_id, number, NOON_MS + 9 * HOUR_MS)


def test_an_id_that_something_else_has_is_taken_and_is_no_alert(desk):
    """G4: 409 for who wants it, 404 for who means it; a cancel alone (of a message that came too late) is no alert."""
    desk.log.take(another_kind(1))
    desk.log.take(a_cancel("a-2", 1))
    for alert_id in ("a-1", "a-2"):
        assert refused(desk.publish(id=alert_id)) == (409, "id-conflict")
        assert refused(desk.publish(id=alert_id, dry_run=True)) == (409, "id-conflict")
        assert refused(desk.revise(2, alert_id=alert_id)) == (404, "unknown-alert")
        assert refused(desk.cancel(2, alert_id=alert_id)) == (404, "unknown-alert")


def test_numbers_of_other_kinds_are_taken_and_counted(desk):
    """G4: the next revision and the cancel take the numbers behind them, and 409 says which is the last."""
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


def test_what_is_over_stays_over_behind_another_kind(desk):
    """G4: 410 by what this release knows, a cancel or an expiry, whatever comes behind it and whenever that ends."""
    for alert_id in ("a-1", "a-2"):
        desk.publish(id=alert_id)
    desk.cancel(2)
    desk.log.take(another_kind(3))
    desk.log.take(another_kind(2, "a-2"))
    assert refused(desk.revise(4)) == refused(desk.cancel(4)) == (410, "alert-ended")
    desk.clock.advance(3600)
    assert refused(desk.revise(3, alert_id="a-2")) == refused(desk.cancel(3, alert_id="a-2")) == (410, "alert-ended")


def test_an_alert_that_begins_with_another_kind_is_its_first_publishers(desk):
    """G4: whose it is is told by the first entry that is known."""
    desk.log.take(another_kind(1))
    desk.log.take(a_revision(revision=2, source="desk"))
    assert desk.cancel(3, OTHER)[0] == 403
    assert desk.cancel(3)[0] == 201


# ---- the log is out of reach ---------------------------------------------------------------------------------


def test_when_the_log_is_out_of_reach_the_outcome_is_unknown():
    """Section 4: 503 `log-unavailable`; a broken body is refused all the same."""
    desk = Desk(BrokenLog())
    for call in (desk.publish, desk.revise, desk.cancel):
        with pytest.raises(LogUnavailable):
            call()
    assert refused(desk.publish(headline="")) == (422, "invalid-value")
    assert refused(desk.revise(headline="")) == (422, "invalid-value")
    assert refused(desk.cancel(reason="")) == (422, "invalid-value")
    assert desk.appended == 0


def test_always_overtaken_publication_is_tried_once_before_the_log_is_read():
    """Section 4: and then as often as any other request; its outcome is unknown."""
    desk = Desk(DeafLog())
    with pytest.raises(LogUnavailable):
        desk.publish()
    assert desk.log.asked == 1 + ATTEMPTS


def test_what_no_log_can_have_is_too_large():
    """F8: 413, and the answer says the limit; a publisher's fields never come to as much."""
    assert check_size(a_warning("en", "fr")) == a_warning("en", "fr")
    with pytest.raises(Problem) as refused:
        check_size(a_revision(description="x" * 65_536))
    assert (refused.value.status, refused.value.slug) == (413, "too-large")
    assert "64 KiB" in refused.value.body()["detail"]
