"""Approvals in requests: how a desk gets its form signed, and each reason for a refusal, with a log in memory."""

import asyncio
import json
from dataclasses import replace

import pytest
from support.fakes import NOON_MS, a_revision, alert_request
from support.publisher import APPROVAL, PublisherHarness
from support.reviewers import AUDIENCE, known, signed_by

from geocast.alertlog.chain import NO_KINDS
from geocast.approvals.request_check import first_difference, needed_of, unsigned
from geocast.auth.tokens import Requester
from geocast.model.alert import Confirm, OtherKind
from geocast.model.problems import Problem
from geocast.model.times import format_time
from geocast.policy import Policy

NOON_S = NOON_MS // 1000
HELD = {"headline": "Mr Smith is on the run", "confirm": {"text": ["name"]}}


def a_policy(audience=AUDIENCE, **robbery):
    """Return a policy with a category that asks for approvals, one that does not, and one with polygons."""
    robbery = {"title": "Robbery", "approvals": 1} | robbery
    categories = {"robbery": robbery, "arson": {"title": "Arson"}, "flood": {"title": "Flood", "polygons": True}}
    return Policy.model_validate({"name": "p", "categories": categories} | ({"audience": audience} if audience else {}))


class SigningHarness(PublisherHarness):
    """A publisher that works as a desk does: get the form, have it signed, publish."""

    def __init__(self, in_force=None, reviewers=None):
        super().__init__(in_force=in_force or a_policy(), reviewers=known() if reviewers is None else reviewers)

    def answer(self, call):
        """Return (status, outcome), or (status, [(slug, pointer, members)]) of a problem."""
        try:
            outcome = asyncio.run(call)
        except Problem as problem:
            return problem.status, [(each.slug, each.pointer, each.members) for each in problem.violations]
        return 201 if outcome.created else 200, outcome

    def send(self, what="alert", *, sub="desk", issuer="", **changes):
        """Send an alert, a revision or a cancel."""
        who = Requester(sub, manages=True, issuer=issuer)
        if what == "alert":
            return self.publish(who, **changes)
        send = {"revision": self.revise, "cancel": self.cancel}[what]
        return send(changes.pop("revision", 2), who, **changes)

    def publishing_of(self, **changes):
        """Publish an alert, and raise the problem if it is refused."""
        asyncio.run(self.publishing.publish(alert_request(**changes), Requester("desk")))

    def form(self, what="alert", **changes):
        """Return the form of a request."""
        status, outcome = self.send(what, dry_run=True, **{"approval": ...} | changes)
        assert status == 200, outcome
        return outcome.form

    def signed(self, *names, what="alert", at_s=NOON_S, text=None, **changes):
        """Return the approval of a request, signed by these reviewers."""
        text = self.form(what, **changes) if text is None else text
        return {"form": text, "signatures": [each.to_map() for each in signed_by(text, *names, at_s=at_s)]}

    def approved(self, *names, what="alert", **changes):
        """Send a request that these reviewers have signed."""
        return self.send(what, approval=self.signed(*names, what=what, **changes), **changes)


@pytest.fixture
def desk():
    """A desk under a policy where robberies need one reviewer."""
    return SigningHarness()


def slugs(answer):
    """Return the status, slugs and pointers of a refusal."""
    status, found = answer
    return status, [(slug, pointer) for slug, pointer, _ in found]


NOT_THE_FORM = (422, [("not-approved", "/approval/form")])


# ---- the usual order of requests ---------------------------------------------------------------------------------


def test_signed_requests_are_stored_with_their_signed_forms(desk):
    """Alert, revision and cancel are stored with what was signed (AP, steps 1 to 3)."""
    status, outcome = desk.approved("r-1")
    assert status == 201
    assert outcome.entry.alert.approval.reviewer == "r-1"
    assert outcome.entry.alert.approval.approved_at == NOON_MS
    assert desk.approved("r-2", what="revision")[0] == 201
    status, outcome = desk.approved("r-3", what="cancel", revision=3)
    assert (status, outcome.entry.approval.reviewer) == (201, "r-3")
    history = desk.history()
    assert [json.loads(entry.proof.form)["revision"] for entry in history] == [1, 2, 3]


def test_dry_run_returns_form_to_sign_and_stores_nothing(desk):
    """The answer says how many reviewers must sign: one more if something is confirmed (AP, step 1; rule AP6)."""
    status, outcome = desk.send(dry_run=True, approval=...)
    assert (status, outcome.approvals) == (200, 1)
    assert json.loads(outcome.form)["id"] == "a-1"
    assert desk.send(dry_run=True, approval=..., **HELD)[1].approvals == 2
    assert desk.send(dry_run=True, approval=..., category="arson")[1].approvals == 0
    assert desk.history() == ()
    desk.approved("r-1")
    status, outcome = desk.send("cancel", dry_run=True, approval=...)
    assert (status, outcome.approvals, json.loads(outcome.form)["what"]) == (200, 1, "cancel")
    assert len(desk.history()) == 1


def test_request_without_approval_is_refused(desk):
    """Only a dry run may omit the approval (rule A11)."""
    for what in ("alert", "revision", "cancel"):
        assert slugs(desk.send(what, approval=...)) == (422, [("missing-field", "/approval")])


def test_dry_run_under_policy_without_audience_returns_no_form_to_sign():
    """A policy without approvals needs no audience, and a form of another deployment is refused (AP)."""
    desk = SigningHarness(a_policy(audience=None, approvals=0), known())
    status, outcome = desk.send(dry_run=True, approval=...)
    assert (status, outcome.form, outcome.approvals) == (200, None, 0)
    assert slugs(desk.send(approval=desk.signed("r-1", text=SigningHarness().form()))) == NOT_THE_FORM


# ---- rules AP1 to AP8 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"form": 5}, "/approval/form"),
        ({"form": "x"}, "/approval/form"),
        ({"form": "[]"}, "/approval/form"),
        ({"form": '{"v":1,"v":1}'}, "/approval/form"),
        ({"form": '{"v":NaN}'}, "/approval/form"),
        ({"form": "{}" + " " * 20 * 1024}, "/approval/form"),
        ({"form": "é" * 11_000}, "/approval/form"),
        ({"form": "\ud800"}, "/approval/form"),
        ({"form": r'{"later":"\ud800"}'}, "/approval/form"),
        ({"form": '{"later":1e309}'}, "/approval/form"),
        ({"form": '{"later":' + "9" * 309 + "}"}, "/approval/form"),
        ({"signatures": []}, "/approval/signatures"),
        ({"signatures": {}}, "/approval/signatures"),
        ({"signatures": [5]}, "/approval/signatures/0"),
        ({"signatures": [{"protected": "e30", "signature": "x"}]}, "/approval/signatures/0/signature"),
        ({"signatures": [{"protected": "=", "signature": "A" * 86}]}, "/approval/signatures/0/protected"),
        ({"signatures": [{"protected": "e30", "signature": "A" * 86}] * 9}, "/approval/signatures"),
    ],
    ids=lambda value: ascii(value)[:50].replace("\\", ""),
)
def test_malformed_approval_is_refused(desk, change, pointer):
    """The form is a text, and there are 1 to 8 signatures (rule AP1)."""
    assert slugs(desk.send(approval=desk.signed("r-1") | change)) == (422, [("invalid-value", pointer)])


@pytest.mark.parametrize(
    "number", ["1e309", "-1e309", "9" * 309, "-" + "9" * 5000], ids=["1e309", "-1e309", "309", "5000"]
)
def test_signed_form_with_number_too_large_for_double_is_refused(desk, number):
    """The number is refused anywhere in the form, in a new request and in a repeated one (rules AP1, L2)."""
    form = desk.form(**HELD)
    for text in (form.replace('"confirm":{', f'"confirm":{{"area_km2":{number},'), form[:-1] + f',"later":{number}}}'):
        approval = desk.signed("r-1", "r-2", text=text)
        assert slugs(desk.send(approval=approval, **HELD)) == (422, [("invalid-value", "/approval/form")])
    desk.send(approval=desk.signed("r-1", "r-2", text=form), **HELD)
    assert slugs(desk.send(approval=approval, **HELD)) == (422, [("invalid-value", "/approval/form")])


@pytest.mark.parametrize("part", ["form", "signatures"])
def test_approval_with_missing_or_additional_field_is_refused(desk, part):
    """For instance, a form together with a reviewer's name is refused (rule AP1)."""
    approval = desk.signed("r-1")
    assert slugs(desk.send(approval={part: approval[part]})) == (
        422,
        [("missing-field", f"/approval/{'form' if part == 'signatures' else 'signatures'}")],
    )
    assert slugs(desk.send(approval=approval | APPROVAL))[1][0][0] == "unknown-field"
    more = {"form": approval["form"], "signatures": [approval["signatures"][0] | {"x": 1}]}
    assert slugs(desk.send(approval=more)) == (422, [("unknown-field", "/approval/signatures/0/x")])


MOVED = [{"type": "circle", "lat": 32.8, "lng": -96.8, "radius_m": 1020.0}]


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"what": "cancel"}, {"aud": "other"}, {"id": "a-2"}, {"revision": 2}, {"source": "other"},
        {"category": "arson"}, {"title": "Theft"}, {"headline": "Other"}, {"description": ...}, {"severity": "minor"},
        {"status": "test"}, {"occurred_at": format_time(NOON_MS)}, {"expires_at": format_time(NOON_MS + 1)},
        {"expires_at": "soon"}, {"area": []}, {"area": MOVED}, {"area": MOVED * 2}, {"area": None},
        {"location_resolution": 8}, {"location_resolution": 9.0}, {"confirm": {"text": ["name"]}}, {"later": 1},
        {"location_resolution": ...}, {"title": ...}, {"aud": ...}, {"area": [{}]}, {"severity": True},
    ],
    ids=str,
)  # fmt: skip
def test_signed_form_that_differs_from_request_is_refused(desk, change):
    """Fields are compared by value, and more signatures do not help (rule AP2)."""
    members = {**json.loads(desk.form()), **change}
    text = json.dumps({name: value for name, value in members.items() if value is not ...})
    assert slugs(desk.send(approval=desk.signed("r-1", "r-2", "r-3", text=text))) == NOT_THE_FORM


def test_refusal_of_form_of_another_version_says_where_to_get_one(desk):
    """The text is for the people at the desk (rule AP2)."""
    with pytest.raises(Problem) as caught:
        desk.publishing_of(approval=desk.signed("r-1", text=json.dumps(json.loads(desk.form()) | {"v": 2})))
    assert caught.value.violations[0].detail == "is not a form of this version: get one from a dry run"


def test_refusal_names_differing_field_without_its_value(desk):
    """The name of an unknown field is not repeated either (rules AP2, H9)."""
    for change, named in (
        ({"headline": "Secret", "severity": "minor"}, "headline"),
        ({"secret": 1}, "a member too many"),
    ):
        text = json.dumps(json.loads(desk.form()) | change)
        body = alert_request(approval=desk.signed("r-1", text=text))
        with pytest.raises(Problem) as caught:
            asyncio.run(desk.publishing.publish(body, Requester("desk")))
        assert caught.value.detail.endswith(named)
        assert "ecret" not in str(caught.value.body())


CIRCLE = {"type": "circle", "lat": 1.0, "lng": 2.0, "radius_m": 500.0}
RING = {"type": "Polygon", "coordinates": [[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], "buffer_m": 20.0}


@pytest.mark.parametrize(
    ("name", "given", "expected", "equal"),
    [
        ("confirm", {"text": ["name"]}, {"text": ["name"]}, True),
        ("confirm", {"text": ["name"]}, {"text": ["name", "address"]}, False),
        ("confirm", {"text": ["name", "address"]}, {"text": ["name"]}, False),
        ("confirm", {"text": ["name"], "area": 1}, {"text": ["name"]}, False),
        ("confirm", {"text": ["name"]}, {"text": ["name"], "area": 1}, False),
        ("confirm", ["text"], {"text": ["name"]}, False),
        ("confirm", {"text": {"0": "name"}}, {"text": ["name"]}, False),
        ("confirm", {"text": "n"}, {"text": ["n"]}, False),
        ("confirm", {"text": ["n"]}, {"text": "n"}, False),
        ("confirm", {"text": ["other"]}, {"text": ["name"]}, False),
        ("location_resolution", 9.0, 9, True),
        ("location_resolution", 9 + 1e-12, 9, False),
        ("location_resolution", True, 1, False),
        ("location_resolution", 1, True, False),
        ("location_resolution", None, None, True),
        ("area", [CIRCLE], [CIRCLE], True),
        ("area", [CIRCLE], [CIRCLE, CIRCLE], False),
        ("area", [CIRCLE, CIRCLE], [CIRCLE], False),
        ("area", [CIRCLE | {"lat": 1.0 + 9e-10, "lng": 2.0 - 9e-10}], [CIRCLE], True),
        ("area", [CIRCLE | {"lng": 2.0 + 2e-9}], [CIRCLE], False),
        ("area", [CIRCLE | {"radius_m": 500.0 + 1e-10}], [CIRCLE], False),
        ("area", [CIRCLE | {"later": 1}], [CIRCLE], False),
        ("area", [RING], [RING], True),
        ("area", [RING | {"coordinates": [[[0.0, 0.0], [1.0, 1.9e-6], [0.0, 1.0]]]}], [RING], True),
        ("area", [RING | {"coordinates": [[[0.0, 0.0], [1.0, 2.1e-6], [0.0, 1.0]]]}], [RING], False),
        ("area", [RING | {"coordinates": [[[0.0, 0.0], [1.0, 0.0]]]}], [RING], False),
        ("area", [RING | {"buffer_m": 20.0 + 1e-6}], [RING], False),
        ("expires_at", "2026-05-04T12:00:00+02:00", "2026-05-04T10:00:00.000Z", True),
        ("expires_at", "2026-05-04T11:00:00Z", "2026-05-04T12:00:00Z", False),
        ("revision", 2, 3, False),
    ],
    ids=str,
)
def test_member_of_signed_form_is_equal_only_if_value_and_kind_are(name, given, expected, equal):
    """Only coordinates may differ a little (rule AP2)."""
    forms = ({"what": "alert", name: value} for value in (given, expected))
    assert first_difference(*forms) == (None if equal else name)


@pytest.mark.parametrize(("given", "equal"), [(0, False), (1, True), (2, True), (3, True), (4, False)])
def test_revision_in_signed_form_of_cancel_may_be_lower(given, equal):
    """The alert may have been revised after the reviewer signed (rule AP8)."""
    forms = ({"what": "cancel", "revision": number} for number in (given, 3))
    assert first_difference(*forms) == (None if equal else "revision")


def test_signed_form_with_other_key_order_and_time_format_is_accepted(desk):
    """The comparison is by value, and the signed text itself is stored (rule AP2)."""
    members = json.loads(desk.form())
    members["expires_at"] = members["expires_at"].replace(".000Z", "+00:00")
    text = json.dumps(dict(reversed(members.items())), indent=1)
    status, outcome = desk.send(approval=desk.signed("r-1", text=text))
    assert (status, outcome.entry.proof.form) == (201, text)


@pytest.mark.parametrize(("by", "taken"), [(0.9e-9, True), (1.1e-9, False)])
def test_circle_centre_in_signed_form_may_differ_by_a_billionth_of_a_degree(desk, by, taken):
    """Two machines may compute the centre slightly differently. The centre in the form is published (rule AP2)."""
    members = json.loads(desk.form())
    members["area"][0]["lat"] += by
    status, outcome = desk.send(approval=desk.signed("r-1", text=json.dumps(members)))
    assert (status == 201) == taken
    if taken:
        assert outcome.entry.alert.area[0].lat == members["area"][0]["lat"]


@pytest.mark.parametrize(("by", "taken"), [(1.9e-6, True), (2.1e-6, False)])
def test_polygon_corner_in_signed_form_may_differ_in_last_decimal(by, taken):
    """The tolerance is 2e-6 degrees (rule AP2)."""
    ring = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.77]]
    flood = {"category": "flood", "area": {"type": "Polygon", "coordinates": [ring]}}
    desk = SigningHarness()
    members = json.loads(desk.form(**flood))
    members["area"][0]["coordinates"][0][1][0] += by
    assert (desk.send(approval=desk.signed("r-1", text=json.dumps(members)), **flood)[0] == 201) == taken


def test_request_with_one_wrong_signature_is_refused(desk):
    """Enough other signatures don't help (rule AP3)."""
    good = desk.signed("r-1", "r-2")
    [stranger] = desk.signed("stranger")["signatures"]
    other = desk.signed("r-3", text=good["form"] + " ")["signatures"][0]
    for bad in (stranger, other, {"protected": "e30", "signature": "A" * 86}):
        approval = good | {"signatures": [good["signatures"][0], bad, good["signatures"][1]]}
        assert slugs(desk.send(approval=approval)) == (422, [("not-approved", "/approval/signatures/1")])


@pytest.mark.parametrize(
    ("at_s", "taken"),
    [(-601, False), (-600, True), (60, True), (61, False)],
)
def test_signature_before_incident_or_in_future_is_refused(desk, at_s, taken):
    """The incident was ten minutes ago, and clocks may differ by 60 s (rule AP4)."""
    answer = desk.send(approval=desk.signed("r-1", at_s=NOON_S + at_s))
    assert answer[0] == 201 if taken else slugs(answer) == (422, [("not-approved", "/approval/signatures/0")])


@pytest.mark.parametrize(
    ("at_s", "said"),
    [
        (-601, "was made before occurred_at"),
        (-301, "was made more than 300 s ago"),
        (61, "was made in the future (60 s of skew allowed)"),
    ],
)
def test_refusal_of_untimely_signature_says_what_is_wrong_with_its_time(at_s, said):
    """The texts are for the people at the desk (rule AP4)."""
    desk = SigningHarness(a_policy(approval_max_age_s=300))
    with pytest.raises(Problem) as caught:
        desk.publishing_of(approval=desk.signed("r-1", at_s=NOON_S + at_s))
    assert [each.detail for each in caught.value.violations] == [said]


@pytest.mark.parametrize("late", [False, True])
def test_signature_over_maximum_age_is_refused(late):
    """The limit is `approval_max_age_s`. A cancel's signature must not be older than the incident (rule AP4)."""
    desk = SigningHarness(a_policy(approval_max_age_s=60))
    approval = desk.signed("r-1")
    desk.clock.advance(61 if late else 60.9)
    answer = desk.send(approval=approval)
    assert slugs(answer) == (422, [("not-approved", "/approval/signatures/0")]) if late else answer[0] == 201
    if not late:
        approval = desk.signed("r-1", what="cancel", at_s=NOON_S - 601)
        assert slugs(desk.send("cancel", approval=approval)) == (422, [("not-approved", "/approval/signatures/0")])


@pytest.mark.parametrize(
    ("names", "have"),
    [(("r-1",), 1), (("r-1", "r-1"), 1), (("r-2", "r-2 at home"), 1), (("r-1", "desk"), 1), (("desk",), 0)],
)
def test_only_approvals_by_different_persons_other_than_publisher_count(names, have):
    """Persons are recognised by the `sub` of their keys (rule AP5)."""
    desk = SigningHarness(a_policy(approvals=2))
    assert desk.approved(*names) == (422, [("approvals-needed", "/approval", {"needed": 2, "have": have})])
    assert desk.approved(*names, "r-3", "glass")[0] == 201


def test_approval_by_reviewer_with_same_sub_as_publisher_never_counts(desk):
    """This holds for every issuer. The entry keeps its issuer, which the form does not have (rules AP5, HD5)."""
    assert desk.approved("desk", issuer="a") == (422, [("approvals-needed", "/approval", {"needed": 1, "have": 0})])
    status, outcome = desk.approved("r-1", issuer="a")
    assert (status, outcome.entry.source, outcome.entry.issuer) == (201, "desk", "a")
    assert desk.approved("r-1", what="cancel", issuer="a")[1].entry.issuer == "a"


def test_alert_whose_flagged_text_was_confirmed_needs_two_approvals(desk):
    """A cancel with a confirmed reason needs only one, because its reason can be reworded (rule AP6)."""
    assert desk.approved("r-1", **HELD) == (422, [("approvals-needed", "/approval", {"needed": 2, "have": 1})])
    assert desk.approved("r-1", "r-2", **HELD)[0] == 201
    held = {"reason": "Mr Smith is found", "confirm": {"text": ["name"]}}
    assert desk.approved("r-1", what="cancel", **held)[0] == 201


def test_unsigned_approval_is_accepted_if_category_needs_no_signatures(desk):
    """Signatures that are not needed are checked nevertheless (rule AP7)."""
    few = [("approvals-needed", "/approval", {"needed": 1, "have": 0})]
    assert desk.send() == (422, few)
    assert desk.send(id="b", category="arson")[0] == 201
    assert desk.approved("desk", id="c", category="arson")[0] == 201
    approval = desk.signed("stranger", id="d", category="arson")
    assert slugs(desk.send(id="d", category="arson", approval=approval))[1] == [
        ("not-approved", "/approval/signatures/0")
    ]
    desk.approved("r-1")
    assert desk.send("cancel") == (422, few)


def test_refusal_lists_policy_and_approval_violations(desk):
    """The violations of the policy come first (rule P9)."""
    late = {"expires_at": format_time(NOON_MS - 1)}
    answer = desk.send(approval=desk.signed("r-1", "stranger"), **late)
    assert slugs(answer)[1] == [("expiry-out-of-range", "/expires_at"), ("not-approved", "/approval/signatures/1")]
    assert slugs(desk.send(**late))[1] == [("expiry-out-of-range", "/expires_at"), ("approvals-needed", "/approval")]


def test_request_with_same_signed_form_counts_as_repeat_even_with_other_signers(desk):
    """The number and age of signatures don't matter, nor later policies and reviewers (rules AP8, H3)."""
    approval = desk.signed("r-1")
    _, first = desk.send(approval=approval)
    desk.clock.advance(86_400)
    desk.use(a_policy(approvals=2, title="Other"), reviewers=known("r-3"))
    for names in (("r-1",), ("r-2", "r-3"), ("stranger",)):
        again = desk.signed(*names, text=approval["form"])
        status, outcome = desk.send(approval=again)
        assert (status, outcome.entry) == (200, first.entry)


def test_signed_and_unsigned_requests_with_same_content_conflict():
    """The second request gets status 409 (rules AP8, H5)."""
    desk = SigningHarness(a_policy(approvals=0))
    approval = desk.signed("r-1")
    assert desk.send()[0] == 201
    assert desk.send(approval=approval)[0] == 409
    other = SigningHarness(a_policy(approvals=0))
    assert other.send(approval=approval)[0] == 201
    assert other.send(approval={"reviewer": "r-1", "approved_at": format_time(NOON_MS)})[0] == 409


def test_signed_form_of_cancel_stays_valid_after_revision(desk):
    """The revision may even end later than the form says (rule AP8)."""
    desk.approved("r-1")
    approval = desk.signed("r-2", what="cancel")
    later = {"expires_at": format_time(NOON_MS + 2_400_000)}
    assert desk.approved("r-1", what="revision", **later)[0] == 201
    assert desk.send("cancel", approval=approval)[0] == 409
    status, outcome = desk.send("cancel", approval=approval, revision=3)
    assert (status, outcome.entry.revision, outcome.entry.ends_at) == (201, 3, NOON_MS + 2_400_000)
    assert desk.send("cancel", approval=approval, revision=3)[0] == 200


@pytest.mark.parametrize(
    "change", [{"revision": 3}, {"revision": 0}, {"category": "arson"}, {"reason": "x"}, {"id": "b"}]
)
def test_signed_form_of_cancel_that_differs_from_request_is_refused(desk, change):
    """The form of a cancel has the category of the alert (rule AP2)."""
    desk.approved("r-1")
    text = json.dumps(json.loads(desk.form("cancel")) | change)
    assert slugs(desk.send("cancel", approval=desk.signed("r-1", text=text))) == NOT_THE_FORM


def test_signed_form_of_alert_is_refused_for_other_revision_or_alert(desk):
    """A signature is for one revision of one alert (rule AP8)."""
    approval = desk.signed("r-1")
    assert desk.send(approval=approval)[0] == 201
    same = {name: value for name, value in alert_request().items() if name in ("headline", "description")}
    assert slugs(desk.send("revision", approval=approval, **same)) == NOT_THE_FORM
    assert slugs(desk.send(approval=approval, id="b")) == NOT_THE_FORM


def test_use_of_break_glass_key_is_reported(desk):
    """The key counts like any other (AP, break glass)."""
    _, outcome = desk.approved("r-1")
    assert desk.publishing.break_glass(outcome.entry) == []
    _, outcome = desk.approved("glass", id="b")
    assert len(desk.publishing.break_glass(outcome.entry)) == 1
    assert desk.publishing.break_glass(replace(outcome.entry, proof=None)) == []


def test_cap_alert_is_refused_if_category_needs_approvals():
    """A message of CAP carries no form (AP)."""
    in_force = a_policy(approvals=2)
    [found] = needed_of(in_force, "robbery")
    assert (found.slug, found.pointer, found.members) == ("approvals-needed", "/approval", {"needed": 2, "have": 0})
    assert needed_of(in_force, "arson") == []


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        (1, "needs signatures by 1 reviewer other than the publisher; 0 have signed"),
        (2, "needs signatures by 2 reviewers other than the publisher; 0 have signed"),
    ],
)
def test_refusal_of_unsigned_entry_says_how_many_reviewers_it_needs(needed, said):
    """The text is for people, the members for programs (rule HD1)."""
    [found] = unsigned(a_policy(approvals=needed), a_revision(), NO_KINDS)
    assert (found.slug, found.pointer, found.detail) == ("approvals-needed", "/approval", said)
    assert found.members == {"needed": needed, "have": 0}
    assert unsigned(a_policy(), a_revision(category="arson"), NO_KINDS) == []


def test_signed_request_conflicts_with_entry_of_unknown_kind(desk):
    """The number of the request is taken, so it gets status 409 (rule G4)."""
    approval = desk.signed("r-1")
    desk.log.take(OtherKind("a-1", 1, NOON_MS + 1_000_000))
    assert desk.send(approval=approval)[0] == 409


# ---- requirements of the policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{"approvals": 1}, {"approvals": 0, "cancel_approvals": 1}])
def test_policy_that_requires_approvals_without_audience_is_refused(keys):
    """Signatures for a training deployment must be worthless in production (AP)."""
    with pytest.raises(ValueError, match="audience"):
        a_policy(audience=None, **keys)


@pytest.mark.parametrize(
    ("keys", "needed"),
    [({"approvals": 2}, (2, 1)), ({"approvals": 0}, (0, 0)), ({"approvals": 1, "cancel_approvals": 0}, (1, 0))],
)
def test_cancel_needs_one_approval_by_default(keys, needed):
    """A cancel needs no approval if alerts need none. An unknown category needs as many as the strictest one (AP)."""
    in_force = a_policy(**keys)
    assert (in_force.approvals("robbery"), in_force.cancel_approvals("robbery")) == needed
    assert (in_force.approvals("unknown"), in_force.cancel_approvals(None)) == needed
    assert (in_force.approvals("arson"), in_force.cancel_approvals("arson")) == (0, 0)
    assert in_force.approvals("robbery", confirmed=True) == (2 if needed[0] else 0)


@pytest.mark.parametrize("keys", [{"approvals": 3}, {"approvals": True}, {"approvals": [1]}, {"cancel_approvals": -1}])
def test_policy_is_refused_unless_number_of_approvals_is_0_1_or_2(keys):
    """This holds for alerts and for cancels (AP)."""
    with pytest.raises(ValueError, match="pprovals"):
        a_policy(**keys)


def test_confirmation_is_part_of_signed_form(desk):
    """A confirmation counts as content of the alert (rules A21, AP6)."""
    _, outcome = desk.approved("r-1", "r-2", **HELD)
    assert outcome.entry.alert.confirm == Confirm(text=("name",))
    assert json.loads(outcome.entry.proof.form)["confirm"] == {"text": ["name"]}
