"""Grants of publishers (what each may publish), checked together with the policy, with a log in memory."""

import asyncio
import json

import pytest
from support.fakes import DALLAS, NOON_MS, alert_request
from support.publisher import BUILT_IN, DESK, MANAGER, OTHER, PublisherHarness

from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing
from geocast.model.errors import LogUnavailable
from geocast.model.problems import Problem
from geocast.model.times import format_time
from geocast.policy import Policy
from geocast.policy.publishers.bounds import DRY_PER_MINUTE
from geocast.policy.publishers.file import load_publishers

AROUND_DALLAS = [[-97, 32], [-96, 32], [-96, 33], [-97, 33], [-97, 32]]
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}
AUSTIN = {"type": "circle", "lat": 30.2672, "lng": -97.7431, "radius_m": 800}
FLOODS = Policy.model_validate(
    {"name": "p", "categories": {"flood": {"title": "Flood", "polygons": True, "hold_area_km2": 1}}}
)


class GrantsHarness(PublisherHarness):
    """A publisher under a publishers' file, which has the polygon `dallas.geojson` in its folder."""

    def __init__(self, folder, text, in_force=BUILT_IN, log=None):
        (folder / "dallas.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [AROUND_DALLAS]}))
        self._path, self._policy, self._numbers = folder / "publishers.toml", in_force, iter(range(100_000))
        super().__init__(log, in_force, publishers=self._publishers(text))

    def _publishers(self, text):
        self._path.write_text(text)
        return load_publishers(self._path)

    def reload(self, text):
        """Put another publishers' file into force."""
        self.publishing = self.publishing.with_config(self._policy, self._publishers(text))

    def publish(self, who=DESK, *, dry_run=False, **changes):
        """Send `POST /v1/alerts`, with a new id unless one is given."""
        return super().publish(who, dry_run=dry_run, **{"id": f"a-{next(self._numbers)}"} | changes)


def status(answer):
    """Return 200 or 201, or the status and slug of a problem."""
    code, found = answer
    return (code, found.slug) if isinstance(found, Problem) else code


def broken(answer):
    """Return slug, pointer and detail of each violation of a 422, in order."""
    code, problem = answer
    assert code == 422
    return [(each.slug, each.pointer, each.detail) for each in problem.violations]


def kinds(answer):
    """Return slug and pointer of each violation of a 422, in order."""
    return [each[:2] for each in broken(answer)]


# ---- which publishers may publish (rule PG1) -----------------------------------------------------------------


def test_publisher_without_a_grant_may_only_cancel(tmp_path):
    """Dry runs are refused as well (rule PG1)."""
    node = GrantsHarness(tmp_path, "[publishers.desk]")
    assert status(node.publish(id="a")) == 201
    assert status(node.publish(OTHER)) == (403, "insufficient-scope")
    assert status(node.publish(OTHER, dry_run=True)) == (403, "insufficient-scope")
    assert status(node.revise(2, MANAGER, "a")) == (403, "insufficient-scope")
    assert status(node.publish(OTHER, headline=3)) == (403, "insufficient-scope")
    assert status(node.cancel(2, OTHER, "a")) == (403, "not-yours")
    assert status(node.cancel(2, MANAGER, "a")) == 201


def test_same_sub_of_two_issuers_has_separate_grants_and_rates(tmp_path):
    """An issuer that the file does not name may not publish, whatever the other tables say (rules HD5, PG1, PG2)."""
    tables = '[publishers.desk]\nper_minute = 1\n[publishers."*"]\n[issuers.a.publishers.desk]\nper_minute = 1'
    node = GrantsHarness(tmp_path, tables)
    of_a, of_b = (Requester("desk", issuer=issuer) for issuer in ("a", "b"))
    assert [status(node.publish(who)) for who in (DESK, of_a)] == [201, 201]
    assert [status(node.publish(who)) for who in (DESK, of_a)] == [(429, "rate-limited")] * 2
    assert status(node.publish(of_b)) == status(node.publish(of_b, dry_run=True)) == (403, "insufficient-scope")


def test_publishers_are_unlimited_without_a_publishers_file(tmp_path):
    """All publishers may publish everything that the policy allows (rules PG1, PG2)."""
    node = GrantsHarness(tmp_path, "[publishers.desk]\nper_minute = 1")
    node.publishing = Publishing(node.log, BUILT_IN, node.clock)
    assert {status(node.publish(OTHER)) for _ in range(50)} == {201}
    assert {status(node.publish(DESK)) for _ in range(50)} == {201}


# ---- grants and jurisdictions (rules P21 and P22) ------------------------------------------------------------

BOUNDED = """
[publishers.desk]
categories = ["arson", "robbery"]
statuses = ["exercise", "test"]
max_severity = "moderate"
max_radius_m = 500
jurisdiction = "dallas.geojson"

[publishers."*"]
"""
MORE = "no more is granted to this publisher"


def test_alert_within_the_publishers_grant_is_published(tmp_path):
    """Categories, status, severity, radius and place are all within it (rules P21, P22)."""
    node = GrantsHarness(tmp_path, BOUNDED)
    area = CIRCLE | {"radius_m": 500}
    assert status(node.publish(category="arson", status="test", severity="moderate", area=area)) == 201
    assert status(node.publish(OTHER, severity="extreme", area=AUSTIN)) == 201


def test_error_lists_each_field_that_exceeds_the_grant(tmp_path):
    """The violations are in the order of their rules, with the narrower bounds of the radius (rules P9, P21, P22)."""
    answer = GrantsHarness(tmp_path, BOUNDED).publish(category="shooting", severity="severe", area=AUSTIN)
    assert broken(answer) == [
        ("radius-out-of-range", "/area/radius_m", "must be 100 to 500 m"),
        ("not-granted", "/category", f"must be one of these: arson, robbery; {MORE}"),
        ("not-granted", "/status", f"must be exercise or test; {MORE}"),
        ("not-granted", "/severity", f"must be at most moderate; {MORE}"),
        ("outside-jurisdiction", "/area", "must lie in the jurisdiction of this publisher"),
    ]


def test_each_violation_contains_the_limit_that_was_exceeded(tmp_path):
    """Programs need not parse the texts. The fields have the names in the protocol's table (rule H8a)."""
    changes = {"occurred_at": format_time(NOON_MS - 2 * 3_600_000), "headline": "Fire at 1200 Main Street"}
    node = GrantsHarness(tmp_path, BOUNDED + "\n[publishers.fire]\nper_minute = 1", FLOODS)
    found = node.publish(category="flood", severity="severe", area=[CIRCLE, AUSTIN], **changes)[1].violations
    by_place = {(each.slug, each.pointer): dict(each.members) for each in found}
    flood = FLOODS.categories["flood"]
    assert by_place == {
        ("stale", "/occurred_at"): {"max_age_s": flood.max_age_s},
        ("radius-out-of-range", "/area/0/radius_m"): {"min_radius_m": flood.min_radius_m, "max_radius_m": 500},
        ("radius-out-of-range", "/area/1/radius_m"): {"min_radius_m": flood.min_radius_m, "max_radius_m": 500},
        ("not-granted", "/category"): {"allowed": ["arson", "robbery"]},
        ("not-granted", "/status"): {"allowed": ["exercise", "test"]},
        ("not-granted", "/severity"): {"max_severity": "moderate"},
        ("outside-jurisdiction", "/area/1"): {"swapped": False},
        ("expiry-out-of-range", "/expires_at"): {"min_life_s": 0, "max_age_s": flood.max_age_s},
        ("area-unconfirmed", "/area"): {"kind": "area", "area_km2": 8.1, "hold_area_km2": 1},
        ("text-unconfirmed", "/headline"): {"kind": "address", "start": 8, "end": 24, "confirmable": True},
    }
    fire = Requester("fire")
    assert node.publish(fire, category="robbery")[1].violations[0].members == {"never": False}
    assert status(node.publish(fire, category="flood", confirm={"area_km2": 4})) == 201
    refused = node.publish(fire, category="flood", confirm={"area_km2": 4})[1]
    assert refused.body()["retry_after_s"] == int(refused.headers["Retry-After"]) == 60


def test_violations_of_grant_and_policy_are_listed_in_one_documented_order(tmp_path):
    """Section 2 comes first, then P2, P4, P6, P7, P21, P22, P23 and P24 (rules P9, H8)."""
    hold = Policy.model_validate(
        {"name": "p", "categories": {"robbery": {"title": "Robbery", "hold_area_km2": 0.1, "max_radius_m": 600}}}
    )
    text = '[publishers.desk]\nstatuses = ["test"]\nmax_radius_m = 9000\njurisdiction = "dallas.geojson"'
    node = GrantsHarness(tmp_path, text, hold)
    changes = {
        "threat": "individual",
        "occurred_at": format_time(NOON_MS - 2 * 3_600_000),
        "area": [CIRCLE, AUSTIN],
        "headline": "Fire at 1200 Main Street",
    }
    found = [
        ("not-community", "/threat"),
        ("stale", "/occurred_at"),
        ("expiry-out-of-range", "/expires_at"),
        ("radius-out-of-range", "/area/0/radius_m"),
        ("radius-out-of-range", "/area/1/radius_m"),
        ("not-granted", "/status"),
        ("outside-jurisdiction", "/area/1"),
        ("area-unconfirmed", "/area"),
        ("text-unconfirmed", "/headline"),
    ]
    assert kinds(node.publish(**changes)) == found
    assert kinds(node.publish(**changes, colour="red")) == [("unknown-field", "/colour"), *found]


def test_usable_fields_of_a_malformed_request_are_checked_against_the_grant(tmp_path):
    """A missing status counts as actual, and unusable fields are not checked (rule P9)."""
    node = GrantsHarness(tmp_path, BOUNDED)
    area = [AUSTIN, CIRCLE | {"lat": "x"}, {"type": "square"}, 7]
    assert kinds(node.publish(severity="grave", category=3, area=area))[-2:] == [
        ("not-granted", "/status"),
        ("outside-jurisdiction", "/area/0"),
    ]
    assert kinds(node.publish(status="draft", severity="minor", headline="")) == [
        ("invalid-value", "/headline"),
        ("invalid-value", "/status"),
        ("radius-out-of-range", "/area/radius_m"),
    ]


def test_grant_whose_largest_radius_is_below_the_categorys_smallest_refuses_all(tmp_path):
    """The detail says so, instead of giving bounds that no radius can meet (rule P21)."""
    node = GrantsHarness(tmp_path, "[publishers.desk]\nmax_radius_m = 50")
    detail = "must be at most 50 m for this publisher, and in this category at least 100 m"
    assert broken(node.publish()) == [("radius-out-of-range", "/area/radius_m", detail)]


@pytest.mark.parametrize(
    ("lat", "lng", "hint"),
    [(DALLAS[1] + 30, DALLAS[0], False), (-96.5 + 180, 32.5, False), (32.5, -97.2, False)],
)
def test_point_outside_grant_even_with_lat_and_lng_swapped_gets_no_swap_hint(tmp_path, lat, lng, hint):
    """The hint is only for points that would be inside with latitude and longitude exchanged (rule P22)."""
    node = GrantsHarness(tmp_path, '[publishers.desk]\njurisdiction = "dallas.geojson"')
    answer = node.publish(area={"type": "circle", "lat": lat, "lng": lng, "radius_m": 800})
    [(slug, pointer, detail)] = broken(answer)
    assert (slug, pointer) == ("outside-jurisdiction", "/area")
    assert ("exchanged" in detail) == hint
    assert answer[1].violations[0].members == {"swapped": hint}


def test_point_inside_only_with_lat_and_lng_swapped_gets_a_swap_hint(tmp_path):
    """The point would be inside with latitude and longitude exchanged (rule P22)."""
    node = GrantsHarness(
        tmp_path, '[publishers.desk]\njurisdiction = "here.geojson"\n[publishers."*"]'.replace("here", "dallas")
    )
    (tmp_path / "dallas.geojson").write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[16, 48], [17, 48], [17, 49], [16, 49], [16, 48]]]})
    )
    node.reload('[publishers.desk]\njurisdiction = "dallas.geojson"')
    answer = node.publish(area={"type": "circle", "lat": 16.37, "lng": 48.2, "radius_m": 800})
    [(_, _, detail)] = broken(answer)
    assert answer[1].violations[0].members == {"swapped": True}
    assert detail == "must lie in the jurisdiction of this publisher; it would with lat and lng exchanged"
    assert "16.37" not in detail


def ring(*corners):
    """Return a polygon for an area, from its corners."""
    return {"type": "Polygon", "coordinates": [[list(each) for each in (*corners, corners[0])]]}


def test_polygon_with_corner_outside_jurisdiction_is_refused(tmp_path):
    """The requested corners are checked. The grant also limits the radius of rule P7 (rules P21, P22)."""
    node = GrantsHarness(tmp_path, '[publishers.desk]\njurisdiction = "dallas.geojson"\nmax_radius_m = 9000', FLOODS)
    flood = {"category": "flood", "confirm": {"area_km2": 1000}}
    inside, across = [(-96.8, 32.7), (-96.7, 32.7), (-96.7, 32.8)], [(-96.8, 32.95), (-96.7, 32.95), (-96.7, 33.01)]
    assert status(node.publish(**flood, area=ring(*inside))) == 201
    assert kinds(node.publish(**flood, area=[ring(*inside), ring(*across)])) == [("outside-jurisdiction", "/area/1")]
    wide = [(-96.9, 32.6), (-96.7, 32.6), (-96.7, 32.8)]
    assert broken(node.publish(**flood, area=ring(*wide))) == [
        ("radius-out-of-range", "/area/coordinates", "must be 100 to 9000 m from its middle to a corner")
    ]


def test_revision_of_anothers_alert_must_be_within_the_senders_grant(tmp_path):
    """`alerts:manage` allows revising the alerts of others, but widens no grant (rule PG3)."""
    node = GrantsHarness(tmp_path, '[publishers.desk]\n[publishers.boss]\nmax_severity = "minor"\nstatuses = ["test"]')
    assert status(node.publish(id="a", severity="severe")) == 201
    refused = [("not-granted", "/status"), ("not-granted", "/severity")]
    assert kinds(node.revise(2, MANAGER, "a", severity="severe")) == refused
    assert kinds(node.revise(2, MANAGER, "a", severity="severe", dry_run=True)) == refused
    assert status(node.revise(2, alert_id="a", severity="severe")) == 201


def test_repeated_request_is_accepted_although_a_new_grant_would_refuse_it(tmp_path):
    """A publisher who has no table any more is refused even for a repeated request (rules H3, PG1)."""
    node = GrantsHarness(tmp_path, "[publishers.desk]")
    assert status(node.publish(id="a")) == 201
    node.reload('[publishers.desk]\nmax_severity = "minor"')
    assert status(node.publish(id="a")) == 200
    assert status(node.publish(id="b")) == (422, "not-granted")
    node.reload("[publishers.other]")
    assert status(node.publish(id="a")) == (403, "insufficient-scope")


# ---- rate limits (rule PG2) ----------------------------------------------------------------------------------

SLOW = "[publishers.desk]\nper_minute = 2\nper_hour = 3\n[publishers.boss]\n[publishers.other]"


def test_only_alerts_and_revisions_are_rate_limited(tmp_path):
    """Repeats and cancels are never limited. `Retry-After` is exact to the second (rule PG2)."""
    node = GrantsHarness(tmp_path, SLOW)
    assert status(node.publish(id="a")) == 201
    node.clock.advance(10.5)
    assert status(node.revise(2, alert_id="a")) == 201
    for refused in (node.publish(id="b"), node.revise(3, alert_id="a")):
        assert status(refused) == (429, "rate-limited")
        assert refused[1].headers == {"Retry-After": "50"}
    assert status(node.publish(id="a")) == 200
    assert status(node.revise(2, alert_id="a")) == 200
    assert status(node.publish(OTHER, id="c")) == 201
    assert status(node.cancel(3, alert_id="a")) == 201
    assert status(node.cancel(3, alert_id="a")) == 200
    node.clock.advance(49.5)
    assert status(node.publish(id="b")) == 201
    node.clock.advance(60)
    assert node.publish()[1].headers == {"Retry-After": "3480"}


def test_refused_request_does_not_count_towards_the_rate(tmp_path):
    """The rate is checked last (rule PG2)."""
    node = GrantsHarness(tmp_path, SLOW)
    assert status(node.publish(id="a")) == 201
    for _ in range(20):
        assert status(node.publish(severity="grave"))[0] == 422
        assert status(node.publish(threat="individual"))[0] == 422
        assert status(node.publish(id="a", headline="Other"))[0] == 409
        assert status(node.publish(id="a")) == 200
        assert status(node.cancel(2, alert_id="none"))[0] == 404
    assert status(node.publish()) == 201
    assert status(node.publish(threat="individual"))[0] == 422
    assert status(node.publish(id="a", headline="Other"))[0] == 409
    assert status(node.publish()) == (429, "rate-limited")


def test_dry_runs_have_a_separate_rate_limit(tmp_path):
    """Dry runs are limited to 600 a minute, and don't count towards other rates (rule PG2)."""
    node = GrantsHarness(tmp_path, SLOW)
    for _ in range(DRY_PER_MINUTE):
        assert status(node.publish(dry_run=True)) == 200
    assert status(node.publish(dry_run=True)) == (429, "rate-limited")
    assert [status(node.publish()), status(node.publish())] == [201, 201]
    node.clock.advance(60)
    assert status(node.publish(dry_run=True)) == 200


def test_reload_keeps_the_counts_of_requests_and_applies_new_rates(tmp_path):
    """The new rates hold at once (rules PG2, BA2)."""
    node = GrantsHarness(tmp_path, SLOW)
    assert status(node.publish()) == 201
    node.reload("[publishers.desk]\nper_minute = 1")
    assert status(node.publish()) == (429, "rate-limited")
    node.reload(SLOW)
    assert status(node.publish()) == 201


class Interrupted(MemoryLog):
    """A log in memory that can be out of reach for appends. It then stores nothing."""

    away = False

    async def append(self, entry):
        await asyncio.sleep(0)
        if self.away:
            raise LogUnavailable("out of reach")
        return await super().append(entry)


def test_request_with_unknown_outcome_does_not_count_towards_the_rate(tmp_path):
    """A desk may repeat it while the log is out of reach, and still publish afterwards (rules PG2, H2)."""
    log = Interrupted()
    node = GrantsHarness(tmp_path, SLOW, log=log)
    log.away = True
    for _ in range(10):
        with pytest.raises(LogUnavailable):
            node.publish(id="a")
    log.away = False
    assert [status(node.publish(id="a")), status(node.publish()), status(node.publish())] == [
        201,
        201,
        (429, "rate-limited"),
    ]


def test_concurrent_requests_do_not_exceed_the_rate(tmp_path):
    """Requests count before they are stored, however slow the log is (rule PG2)."""
    node = GrantsHarness(tmp_path, SLOW, log=Interrupted())

    async def all_at_once():
        calls = [node.publishing.publish(alert_request(id=f"b-{n}"), DESK) for n in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    assert sum(not isinstance(each, Problem) for each in answers) == 2
    assert {each.slug for each in answers if isinstance(each, Problem)} == {"rate-limited"}
