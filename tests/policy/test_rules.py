"""The rules of section 3 for alerts, the limits in them, and the errors of invalid policy files."""

import dataclasses
import itertools
from pathlib import Path

import pytest
from support.fakes import HOUR_MS, NOON_MS, a_revision

from geocast import policy
from geocast.model.alert import AcceptedTerms
from geocast.model.errors import ConfigError
from geocast.policy import SKEW_MS, Policy
from geocast.wire.requests import PolicyFacts

AGE_MS = 600_000
FINE = PolicyFacts("robbery", "community", NOON_MS - AGE_MS, None, NOON_MS - 1_000, (("/area/radius_m", 800.0),))
BUILT_IN = policy.load(None)
CATEGORIES = {
    "burglary",
    "vehicle_break_in_theft",
    "robbery",
    "shots_fired",
    "shooting",
    "stabbing",
    "hostage",
    "arson",
    "fire_residential",
    "fire_commercial",
    "fire_structure",
    "explosion",
}
STRICT = Policy.model_validate(
    {
        "name": "strict",
        "categories": {
            "robbery": {
                "title": "Robbery",
                "min_radius_m": 250,
                "max_radius_m": 500.5,
                "max_age_s": 60,
                "location_resolution": 8,
            },
            "arson": {"title": "Arson"},
        },
    }
)


def broken(in_force=BUILT_IN, now_ms=NOON_MS, current=None, **changes):
    """Return slug and pointer of each violation by valid facts with these changes."""
    found = in_force.violations(dataclasses.replace(FINE, **changes), now_ms, current)
    return [(violation.slug, violation.pointer) for violation in found]


# ---- the built-in policy -------------------------------------------------------------------------------------


def test_neighbourhood_policy_has_the_listed_categories():
    """Alerts of all other categories are refused (section 3)."""
    assert BUILT_IN.name == "neighbourhood"
    assert set(BUILT_IN.categories) == CATEGORIES


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_neighbourhood_category_has_default_bounds(category):
    """Radius 100 to 20,000 m, age at most 3,600 s, resolution 9 (section 3)."""
    found = BUILT_IN.categories[category]
    assert (found.min_radius_m, found.max_radius_m, found.max_age_s, found.location_resolution) == (
        100,
        20_000,
        3_600,
        9,
    )
    assert found.title
    assert "_" not in found.title
    assert found.terms() == AcceptedTerms(found.title, HOUR_MS, 9)


@pytest.mark.parametrize(
    "category",
    [
        "assault",
        "rape",
        "theft",
        "bomb_threat",
        "school_lockdown",
        "trespassing",
        "vandalism",
        "domestic_dispute",
        "dead_person",
    ],
)
def test_error_about_a_never_alerted_category_names_it(category):
    """The list exists only so that the refusal can name the category (section 3)."""
    [violation] = BUILT_IN.violations(dataclasses.replace(FINE, category=category), NOON_MS)
    assert (violation.slug, violation.pointer) == ("category-not-alertable", "/category")
    assert category in violation.detail


@pytest.mark.parametrize("category", ["", "Robbery", "robbery ", "john_doe_5550100", "title", "x" * 1000])
def test_error_about_an_unknown_category_does_not_repeat_it(category):
    """An answer repeats no refused value, except a category of the never-list (rule H9)."""
    [violation] = BUILT_IN.violations(dataclasses.replace(FINE, category=category), NOON_MS)
    assert violation.slug == "category-not-alertable"
    assert not category or category not in violation.detail.split()


@pytest.mark.parametrize(
    ("category", "nearest"),
    [("robery", "; did you mean robbery?"), ("fire_structur", "; did you mean fire_structure?"), ("john_doe", "")],
)
def test_error_about_an_unknown_category_names_the_nearest(category, nearest):
    """A publisher who misspells a category need not look for it in the policy (rules P1, H9)."""
    [violation] = BUILT_IN.violations(dataclasses.replace(FINE, category=category), NOON_MS)
    assert violation.detail == f"is not a category of the policy{nearest}"


# ---- the rules -----------------------------------------------------------------------------------------------


def test_valid_alert_has_no_violations():
    """The other tests of this module change the facts of this alert (section 3)."""
    assert broken() == []


def test_alert_about_a_threat_to_an_individual_is_refused():
    """`threat` must be `community` (rule P2)."""
    assert broken(threat="individual") == [("not-community", "/threat")]


@pytest.mark.parametrize(
    ("approved_at", "expected"),
    [
        (NOON_MS - AGE_MS, []),
        (NOON_MS - AGE_MS - 1, [("not-approved", "/approval/approved_at")]),
        (NOON_MS, []),
        (NOON_MS + SKEW_MS, []),
        (NOON_MS + SKEW_MS + 1, [("not-approved", "/approval/approved_at")]),
        (None, []),
    ],
)
def test_approval_before_incident_or_in_future_is_refused(approved_at, expected):
    """Bounds are inclusive, and 60 s of clock skew are allowed (rules P3, P8)."""
    assert broken(approved_at=approved_at) == expected


@pytest.mark.parametrize(
    ("age_ms", "expected"),
    [
        (HOUR_MS - 1, []),
        (HOUR_MS, [("expiry-out-of-range", "/occurred_at")]),
        (HOUR_MS + 1, [("stale", "/occurred_at")]),
        (HOUR_MS + SKEW_MS, [("stale", "/occurred_at")]),
    ],
)
def test_alert_about_an_incident_older_than_the_maximum_is_refused_as_stale(age_ms, expected):
    """The bound is inclusive, without skew. At exactly that age the alert could only end at once (rules P4, P6, P8)."""
    assert broken(occurred_at=NOON_MS - age_ms) == expected


def test_revision_of_an_alert_about_an_old_incident_is_not_refused_as_stale():
    """`expires_at` bounds later revisions (rules P4, P6)."""
    old = NOON_MS - 2 * HOUR_MS
    current = a_revision(occurred_at=old)
    assert broken(occurred_at=old, current=current) == [("expiry-out-of-range", "/category")]


@pytest.mark.parametrize(
    ("ahead_ms", "expected"), [(0, []), (SKEW_MS, []), (SKEW_MS + 1, [("not-yet", "/occurred_at")])]
)
def test_alert_about_an_incident_in_the_future_is_refused(ahead_ms, expected):
    """60 s of clock skew are allowed, in later revisions, too (rules P5, P8)."""
    occurred_at = NOON_MS + ahead_ms
    assert broken(occurred_at=occurred_at, approved_at=None) == expected
    assert broken(occurred_at=occurred_at, approved_at=None, current=a_revision()) == expected


@pytest.mark.parametrize(
    ("expires_at", "expected"),
    [
        (NOON_MS - 1, [("expiry-out-of-range", "/expires_at")]),
        (NOON_MS, [("expiry-out-of-range", "/expires_at")]),
        (NOON_MS + 1, []),
        (NOON_MS - AGE_MS + HOUR_MS, []),
        (NOON_MS - AGE_MS + HOUR_MS + 1, [("expiry-out-of-range", "/expires_at")]),
        (None, []),
    ],
)
def test_expiry_in_past_or_beyond_maximum_age_is_refused(expires_at, expected):
    """Bounds are inclusive and have no skew (rules P6, P8)."""
    assert broken(expires_at=expires_at) == expected


@pytest.mark.parametrize(("earlier_ms", "expected"), [(0, []), (-1, []), (1, [("expiry-out-of-range", "/expires_at")])])
def test_revision_ending_before_current_one_is_refused(earlier_ms, expected):
    """Publishers end an alert early by a cancel (rule P6)."""
    current = a_revision()
    assert broken(expires_at=current.ends_at - earlier_ms, current=current) == expected


def briefer(**bounds):
    """Return a policy with arson of the default age and robbery of 600 s, with these bounds."""
    robbery = {"title": "Robbery", "max_age_s": 600} | bounds
    return Policy.model_validate({"name": "p", "categories": {"robbery": robbery, "arson": {"title": "Arson"}}})


@pytest.mark.parametrize("expires_at", [None, NOON_MS + 1, NOON_MS + 1_800_000, NOON_MS + HOUR_MS])
@pytest.mark.parametrize("age_ms", [0, 300_000, 600_000, 1_200_000])
def test_revision_to_a_category_too_short_lived_for_the_current_end_is_refused(expires_at, age_ms):
    """No expiry is possible, so the pointer is `/category`, whether an expiry was sent or not (rule P6)."""
    occurred_at = NOON_MS - age_ms
    current = a_revision(category="arson", occurred_at=occurred_at)
    claims = {"occurred_at": occurred_at, "approved_at": NOON_MS, "expires_at": expires_at}
    assert broken(briefer(), current=current, **claims) == [("expiry-out-of-range", "/category")]
    assert broken(briefer(), current=current, **claims | {"category": "arson", "expires_at": None}) == []


@pytest.mark.parametrize(
    ("min_life_s", "changes", "pointer", "said"),
    [
        (0, {"expires_at": -1}, "/expires_at", "must be in the future"),
        (60, {"expires_at": -1}, "/expires_at", "must be at least 60 s ahead"),
        (60, {"expires_at": 59_999}, "/expires_at", "must be at least 60 s ahead"),
        (0, {"expires_at": 3_000_001}, "/expires_at", "must be at most occurred_at + 3600 s"),
        (
            0,
            {"occurred_at": -HOUR_MS},
            "/occurred_at",
            "must be less than 3600 s ago, or the alert would end at once",
        ),
        (
            60,
            {"occurred_at": -3_540_001},
            "/occurred_at",
            "must be at most 3540 s ago, because an alert must live for 60 s",
        ),
    ],
)
def test_error_about_an_expiry_says_what_is_allowed(min_life_s, changes, pointer, said):
    """Its members have both limits (rules P6 and H8a)."""
    robbery = {"title": "Robbery", "max_age_s": 3600, "min_life_s": min_life_s}
    in_force = Policy.model_validate({"name": "p", "categories": {"robbery": robbery}})
    times = {name: NOON_MS + after_ms for name, after_ms in changes.items()}
    [violation] = in_force.violations(dataclasses.replace(FINE, **times), NOON_MS)
    assert (violation.pointer, violation.detail) == (pointer, said)
    assert violation.members == {"min_life_s": min_life_s, "max_age_s": 3600}


@pytest.mark.parametrize(
    ("granted_m", "said"),
    [
        (None, "must be 250 to 500.5 m"),
        (300, "must be 250 to 300 m"),
        (250, "must be 250 to 250 m"),
        (200, "must be at most 200 m for this publisher, and in this category at least 250 m"),
    ],
)
def test_error_about_a_radius_says_what_category_and_grant_allow(granted_m, said):
    """The smaller of the two maxima counts (rules P7 and P21)."""
    claims = dataclasses.replace(FINE, occurred_at=NOON_MS - 30_000)
    [violation] = STRICT.violations(claims, NOON_MS, max_radius_m=granted_m)
    assert (violation.pointer, violation.detail) == ("/area/radius_m", said)
    assert violation.members == {"min_radius_m": 250, "max_radius_m": granted_m or 500.5}


def test_error_about_an_incident_that_is_too_old_says_how_old_it_may_be():
    """No other expiry would help, so only one error is reported (rule P4)."""
    claims = dataclasses.replace(FINE, occurred_at=NOON_MS - 3_600_001)
    [violation] = BUILT_IN.violations(claims, NOON_MS)
    assert (violation.pointer, violation.detail) == ("/occurred_at", "must be at most 3600 s ago")
    assert violation.members == {"max_age_s": 3600}


def test_error_of_revision_after_max_age_was_lowered_suggests_a_cancel():
    """The type of the error is that for a shorter-lived category. Its text says what to do (rule P6)."""
    [violation] = briefer().violations(dataclasses.replace(FINE, occurred_at=NOON_MS - 1_000), NOON_MS, a_revision())
    assert violation.detail == (
        "alerts of this category end at occurred_at + 600 s at the latest, and the current revision ends later: "
        "choose one that lasts longer, or cancel"
    )


def test_revision_to_a_shorter_lived_category_may_end_when_the_current_one_does():
    """The expiry must be within both bounds, inclusive (rule P6)."""
    occurred_at = NOON_MS - 1_000
    current = a_revision(category="arson", occurred_at=occurred_at, expires_at=occurred_at + 600_000)
    claims = {"occurred_at": occurred_at, "approved_at": NOON_MS}
    assert broken(briefer(), current=current, **claims) == []
    assert broken(briefer(), current=current, expires_at=current.ends_at, **claims) == []
    assert broken(briefer(), current=current, expires_at=current.ends_at - 1, **claims) == [
        ("expiry-out-of-range", "/expires_at")
    ]


@pytest.mark.parametrize(
    ("age_ms", "expires_in_ms", "expected"),
    [
        (0, 60_000, None),
        (0, 59_999, "/expires_at"),
        (0, None, None),
        (540_000, None, None),
        (540_000, 60_000, None),
        (540_001, None, "/occurred_at"),
        (540_001, 59_999, "/occurred_at"),
    ],
)
def test_alert_that_would_live_less_than_the_minimum_is_refused(age_ms, expires_in_ms, expected):
    """The default expiry counts if none was sent; the bound is inclusive (rules P6, P8)."""
    expires_at = None if expires_in_ms is None else NOON_MS + expires_in_ms
    claims = {"occurred_at": NOON_MS - age_ms, "approved_at": NOON_MS, "expires_at": expires_at}
    assert broken(briefer(min_life_s=60), **claims) == ([("expiry-out-of-range", expected)] if expected else [])


@pytest.mark.parametrize(("left_ms", "expected"), [(60_000, []), (59_999, [("expiry-out-of-range", "/category")])])
def test_revision_that_would_live_less_than_the_minimum_is_refused(left_ms, expected):
    """Otherwise a series of revisions in an alert's last second could reveal where subscribers are (rule P6)."""
    occurred_at = NOON_MS + left_ms - 600_000
    current = a_revision(occurred_at=occurred_at, expires_at=NOON_MS + 1)
    claims = {"occurred_at": occurred_at, "approved_at": NOON_MS, "current": current}
    assert broken(briefer(min_life_s=60), **claims) == expected


def test_first_revision_may_expire_at_any_time():
    """Only later revisions have to end with the current one or later (rule P6)."""
    assert broken(expires_at=NOON_MS + 1) == []


@pytest.mark.parametrize(
    ("radius_m", "fits"),
    [(249.999, False), (250, True), (500.5, True), (500.501, False), (5e-324, False), (1e300, False)],
)
def test_radius_out_of_the_range_of_its_category_is_refused(radius_m, fits):
    """Bounds are inclusive (rules P7, P8)."""
    expected = [] if fits else [("radius-out-of-range", "/area/radius_m")]
    recent = {"occurred_at": NOON_MS - 1_000, "approved_at": NOON_MS}
    assert broken(STRICT, radii=(("/area/radius_m", radius_m),), **recent) == expected


def test_each_radius_out_of_range_is_listed():
    """The pointer names the circle (rule P7)."""
    radii = tuple((f"/area/{n}/radius_m", radius_m) for n, radius_m in enumerate([99, 100, 20_000, 20_001]))
    assert broken(radii=radii) == [
        ("radius-out-of-range", "/area/0/radius_m"),
        ("radius-out-of-range", "/area/3/radius_m"),
    ]


def test_detail_of_a_violation_has_the_limits_but_not_the_sent_value():
    """An answer repeats no refused value (rule H9)."""
    claims = dataclasses.replace(FINE, radii=(("/area/radius_m", 33.3),), occurred_at=NOON_MS - 7_777_777)
    details = [violation.detail for violation in BUILT_IN.violations(claims, NOON_MS)]
    assert details == ["must be at most 3600 s ago", "must be 100 to 20000 m"]


def test_large_limit_in_detail_is_written_in_digits():
    """A limit of 3,000 km is not written as 3e+06 (rule HD14)."""
    warnings = policy.load(Path("builtin:public-warning"))
    claims = dataclasses.replace(FINE, category="tsunami", radii=(("/area/radius_m", 9e6),))
    details = [each.detail for each in warnings.violations(claims, NOON_MS) if each.pointer == "/area/radius_m"]
    assert details == ["must be 100 to 3000000 m"]


# ---- several violations at once, and missing inputs -------------------------------------------------------------


def test_all_violations_are_listed_in_the_order_of_the_rules():
    """The answer does not end with the first violation (rule P9, and section 4)."""
    worst = {
        "threat": "individual",
        "approved_at": NOON_MS - 3 * HOUR_MS,
        "occurred_at": NOON_MS - 2 * HOUR_MS,
        "expires_at": NOON_MS - 1,
        "radii": (("/area/0/radius_m", 1.0), ("/area/1/radius_m", 1e6)),
    }
    assert [slug for slug, _ in broken(**worst)] == [
        "not-community",
        "not-approved",
        "stale",
        "expiry-out-of-range",
        "radius-out-of-range",
        "radius-out-of-range",
    ]
    future = worst | {"occurred_at": NOON_MS + HOUR_MS, "expires_at": NOON_MS + 3 * HOUR_MS, "radii": ()}
    assert [slug for slug, _ in broken(**future)] == ["not-community", "not-approved", "not-yet", "expiry-out-of-range"]


def test_alert_of_unknown_category_is_not_checked_for_age_expiry_or_radius():
    """Age, expiry and radius are not checked (rule P9)."""
    found = broken(
        category="gossip",
        threat="individual",
        approved_at=NOON_MS + HOUR_MS,
        occurred_at=NOON_MS - 2 * HOUR_MS,
        expires_at=NOON_MS - 1,
        radii=(("/area/radius_m", 1.0),),
    )
    assert [slug for slug, _ in found] == ["category-not-alertable", "not-community", "not-approved"]
    assert [s for s, _ in broken(category="gossip", occurred_at=NOON_MS + HOUR_MS, approved_at=None)] == [
        "category-not-alertable",
        "not-yet",
    ]


INPUTS = ("category", "threat", "occurred_at", "expires_at", "approved_at", "radii")


@pytest.mark.parametrize(
    "missing",
    [set(names) for count in range(1, 7) for names in itertools.combinations(INPUTS, count)],
    ids=lambda names: "+".join(sorted(names)),
)
def test_rule_with_missing_input_is_not_checked(missing):
    """All other rules are checked, for every combination of missing inputs (rule P9)."""
    worst = {
        "category": "robbery",
        "threat": "individual",
        "occurred_at": NOON_MS - 2 * HOUR_MS,
        "expires_at": NOON_MS - 1,
        "approved_at": NOON_MS - 3 * HOUR_MS,
        "radii": (("/area/radius_m", 1.0),),
    }
    needs = {
        "not-community": {"threat"},
        "not-approved": {"approved_at", "occurred_at"},
        "stale": {"category", "occurred_at"},
        "expiry-out-of-range": {"category", "occurred_at", "expires_at"},
        "radius-out-of-range": {"category", "radii"},
    }
    claims = worst | {name: () if name == "radii" else None for name in missing}
    assert [slug for slug, _ in broken(**claims)] == [slug for slug, names in needs.items() if not names & missing]


def test_approval_of_a_cancel_before_the_incident_or_in_future_is_refused():
    """The same rule holds for an alert (rule P3)."""
    judge = BUILT_IN.approval_violations
    assert judge(NOON_MS, NOON_MS, NOON_MS) == []
    assert [v.slug for v in judge(NOON_MS - 1, NOON_MS, NOON_MS)] == ["not-approved"]
    assert [v.slug for v in judge(NOON_MS + SKEW_MS + 1, None, NOON_MS)] == ["not-approved"]
    assert judge(None, None, NOON_MS) == []


# ---- policy files --------------------------------------------------------------------------------------------


def load(tmp_path, text):
    """Load a policy file with this text or these bytes."""
    path = tmp_path / "policy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return policy.load(path)


ONE = '[categories]\nflood = { title = "Flood" }\n'


def test_policy_is_loaded_from_toml_file(tmp_path):
    """A policy is data (section 3)."""
    found = load(
        tmp_path, 'name = "river"\n[categories.flood]\ntitle = "Flood"\nmax_age_s = 86400\n[never]\nrain = "Rain"'
    )
    assert found.name == "river"
    assert found.categories["flood"].terms() == AcceptedTerms("Flood", 86_400_000, 9)
    assert found.never == {"rain": "Rain"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "name: "),
        ("name = ", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ('name = "x"', "categories: "),
        ('name = "x"\n[categories]', "categories: "),
        ('name = ""\n' + ONE, "name: "),
        ("name = 1\n" + ONE, "name: "),
        ('name = "x"\ntypo = 1\n' + ONE, "typo: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_age = 5 }', "categories.flood.max_age: "),
        ('name = "x"\n[categories]\nflood = { title = "" }', "categories.flood.title: "),
        ('name = "x"\n[categories]\nflood = { }', "categories.flood.title: "),
        ('name = "x"\n[categories]\nflood = "Flood"', "categories.flood: "),
        ('name = "x"\n[categories]\nFlood = { title = "F" }', "categories: entry 1: its name must have 1 to 64 of a-z"),
        ('name = "x"\n[categories]\nflood = { title = "F", max_age_s = 0 }', "max_age_s: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_age_s = 60.5 }', "max_age_s: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_age_s = true }', "max_age_s: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_age_s = "60" }', "max_age_s: "),
        ('name = "x"\n[categories]\nflood = { title = "F", min_life_s = -1 }', "min_life_s: "),
        ('name = "x"\n[categories]\nflood = { title = "F", min_life_s = 3600 }', "min_life_s is not less"),
        ('name = "x"\n[categories]\nflood = { title = "F", min_radius_m = 0 }', "min_radius_m: "),
        ('name = "x"\n[categories]\nflood = { title = "F", min_radius_m = nan }', "min_radius_m: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_radius_m = inf }', "max_radius_m: "),
        ('name = "x"\n[categories]\nflood = { title = "F", max_radius_m = 50 }', "min_radius_m is greater"),
        ('name = "x"\n[categories]\nflood = { title = "F", location_resolution = 16 }', "location_resolution: "),
        ('name = "x"\n[categories]\nflood = { title = "F", location_resolution = -1 }', "location_resolution: "),
        ('name = "x"\n[categories]\nflood = { title = "F", polygons = 1 }', "polygons: "),
        ('name = "x"\n[categories]\nflood = { title = "F", simplify_m = 5001 }', "simplify_m: "),
        ('name = "x"\n[categories]\nflood = { title = "F", default_age_s = 3601 }', "default_age_s is greater"),
        ('name = "x"\n' + ONE + '[never]\nflood = "Flood"', "flood is both"),
        ('name = "x"\n' + ONE + "[never]\nrain = 1", "never.rain: "),
    ],
    ids=range(30),
)
def test_invalid_policy_file_is_reported_in_one_line(tmp_path, text, expected):
    """The line has the file's name and the first error (rule K1)."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"policy {tmp_path / 'policy.toml'}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ('name = "x"\n[categoris]\nflood = { title = "F" }', "categoris", "; did you mean categories?"),
        (
            'name = "x"\n[categories]\nflood = { title = "F", max_age = 60 }',
            "flood.max_age",
            "; did you mean max_age_s?",
        ),
        ('name = "x"\nqqq = 1\n' + ONE, "qqq", ""),
    ],
    ids=range(3),
)
def test_unknown_key_is_reported_first_with_suggestion(tmp_path, text, key, nearest):
    """The unknown key comes before errors that it may have caused, such as a missing `categories` (rule K1)."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).endswith(f"{key}: is not a known key{nearest}")


def test_config_error_lists_all_errors_of_a_policy_file(tmp_path):
    """`ConfigError.problems` has one line for each error (rule K1)."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, 'names = "x"\n[categories]\nflood = { title = "", max_age_s = 0 }')
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "names",
        "name",
        "categories.flood.title",
        "categories.flood.max_age_s",
    ]


def test_missing_policy_file_is_reported_in_one_line(tmp_path):
    """The line has the path and the system's reason (rule K1)."""
    with pytest.raises(ConfigError, match=r"^policy .*nowhere\.toml: No such file or directory$"):
        policy.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"^policy .*: Is a directory$"):
        policy.load(tmp_path)
