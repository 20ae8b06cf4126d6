"""What may be published: each rule of section 3, its bounds, and what a broken policy file is told."""

import dataclasses
import itertools
from pathlib import Path

import pytest
from support.fakes import HOUR_MS, NOON_MS, a_revision

from geocast import policy
from geocast.errors import ConfigError
from geocast.model.alert import AcceptedTerms
from geocast.policy import SKEW_MS, Policy
from geocast.wire.requests import PolicyFacts

AGE_MS = 600_000
FINE = PolicyFacts("robbery", "community", NOON_MS - AGE_MS, None, NOON_MS - 1_000, (("/area/radius_m", 800.0),))
BUILT_IN = policy.load(None)
TWELVE = {
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
    """What fine claims with these changes break: [(slug, pointer), …]."""
    found = in_force.violations(dataclasses.replace(FINE, **changes), now_ms, current)
    return [(violation.slug, violation.pointer) for violation in found]


# ---- the built-in policy -------------------------------------------------------------------------------------


def test_the_built_in_policy_has_twelve_categories():
    """Section 3: the default lists these twelve; everything else is refused."""
    assert BUILT_IN.name == "neighbourhood"
    assert set(BUILT_IN.categories) == TWELVE


@pytest.mark.parametrize("category", sorted(TWELVE))
def test_each_built_in_category_has_the_default_bounds(category):
    """Section 3: min_radius_m 100, max_radius_m 20,000, max_age_s 3,600, location_resolution 9."""
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
def test_what_is_never_alerted_is_refused_by_name(category):
    """Section 3: it names what is known and never alerted, only so that the refusal can say so."""
    [violation] = BUILT_IN.violations(dataclasses.replace(FINE, category=category), NOON_MS)
    assert (violation.slug, violation.pointer) == ("category-not-alertable", "/category")
    assert category in violation.detail


@pytest.mark.parametrize("category", ["", "Robbery", "robbery ", "john_doe_5550100", "title", "x" * 1000])
def test_all_else_is_refused_without_being_repeated(category):
    """H9: no answer repeats a refused value; a category may be named if it is on the never-list."""
    [violation] = BUILT_IN.violations(dataclasses.replace(FINE, category=category), NOON_MS)
    assert violation.slug == "category-not-alertable"
    assert not category or category not in violation.detail.split()


# ---- the rules -----------------------------------------------------------------------------------------------


def test_fine_claims_break_nothing():
    """Section 3."""
    assert broken() == []


def test_an_individuals_threat_is_refused():
    """P2: `threat` is `community`."""
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
def test_an_approval_is_neither_before_the_incident_nor_in_the_future(approved_at, expected):
    """P3, P8: `approved_at` is not before `occurred_at` and not in the future; 60 s of skew; inclusive."""
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
def test_an_incident_may_be_max_age_s_old(age_ms, expected):
    """P4, P8: at most `max_age_s` old, inclusive, without skew. P6: at the very end its alert would be over."""
    assert broken(occurred_at=NOON_MS - age_ms) == expected


def test_only_a_first_revision_can_be_stale():
    """P4: revision 1 only; `expires_at` bounds the rest."""
    old = NOON_MS - 2 * HOUR_MS
    current = a_revision(occurred_at=old)
    assert broken(occurred_at=old, current=current) == [("expiry-out-of-range", "/category")]


@pytest.mark.parametrize(
    ("ahead_ms", "expected"), [(0, []), (SKEW_MS, []), (SKEW_MS + 1, [("not-yet", "/occurred_at")])]
)
def test_an_incident_is_not_in_the_future(ahead_ms, expected):
    """P5, P8: not in the future, 60 s of clock skew allowed, in a revision too."""
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
def test_an_expiry_is_in_the_future_and_within_max_age_s(expires_at, expected):
    """P6, P8: in the future, at most `occurred_at` + `max_age_s`, inclusive, without skew."""
    assert broken(expires_at=expires_at) == expected


@pytest.mark.parametrize(("earlier_ms", "expected"), [(0, []), (-1, []), (1, [("expiry-out-of-range", "/expires_at")])])
def test_a_revision_does_not_end_earlier_than_the_current_one(earlier_ms, expected):
    """P6: in a revision, not earlier than the current revision's (to end early, cancel)."""
    current = a_revision()
    assert broken(expires_at=current.ends_at - earlier_ms, current=current) == expected


def briefer(**bounds):
    """A policy in which arson lasts as ever and robbery 600 s, with these bounds besides."""
    robbery = {"title": "Robbery", "max_age_s": 600} | bounds
    return Policy.model_validate({"name": "p", "categories": {"robbery": robbery, "arson": {"title": "Arson"}}})


@pytest.mark.parametrize("expires_at", [None, NOON_MS + 1, NOON_MS + 1_800_000, NOON_MS + HOUR_MS])
@pytest.mark.parametrize("age_ms", [0, 300_000, 600_000, 1_200_000])
def test_a_revision_to_a_category_that_lasts_less_long_does_not_end_before_the_current_one(expires_at, age_ms):
    """P6: the expiry that results counts, sent or not. No expiry would do, so the pointer is the category's."""
    occurred_at = NOON_MS - age_ms
    current = a_revision(category="arson", occurred_at=occurred_at)
    claims = {"occurred_at": occurred_at, "approved_at": NOON_MS, "expires_at": expires_at}
    assert broken(briefer(), current=current, **claims) == [("expiry-out-of-range", "/category")]
    assert broken(briefer(), current=current, **claims | {"category": "arson", "expires_at": None}) == []


def test_a_policy_that_lasts_less_long_than_before_leaves_a_live_alert_to_be_cancelled():
    """P6: the same when the category is the same, and its `max_age_s` was lowered; the refusal says what to do."""
    [violation] = briefer().violations(dataclasses.replace(FINE, occurred_at=NOON_MS - 1_000), NOON_MS, a_revision())
    assert violation.detail == (
        "alerts of this category end at occurred_at + 600 s at the latest, and the current revision ends later: "
        "choose one that lasts longer, or cancel"
    )


def test_a_category_that_lasts_less_long_will_do_while_the_current_revision_ends_earlier():
    """P6: within both, and inclusive."""
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
def test_an_alert_lives_for_min_life_s(age_ms, expires_in_ms, expected):
    """P6, P8: at least `min_life_s` ahead of now, inclusive; what results counts, where no expiry was sent."""
    expires_at = None if expires_in_ms is None else NOON_MS + expires_in_ms
    claims = {"occurred_at": NOON_MS - age_ms, "approved_at": NOON_MS, "expires_at": expires_at}
    assert broken(briefer(min_life_s=60), **claims) == ([("expiry-out-of-range", expected)] if expected else [])


@pytest.mark.parametrize(("left_ms", "expected"), [(60_000, []), (59_999, [("expiry-out-of-range", "/category")])])
def test_a_revision_lives_for_min_life_s_too(left_ms, expected):
    """P6: else a series of revisions in an alert's last second would show who is where."""
    occurred_at = NOON_MS + left_ms - 600_000
    current = a_revision(occurred_at=occurred_at, expires_at=NOON_MS + 1)
    claims = {"occurred_at": occurred_at, "approved_at": NOON_MS, "current": current}
    assert broken(briefer(min_life_s=60), **claims) == expected


def test_a_first_revision_may_end_whenever():
    """P6: the current revision's expiry binds only a revision that follows it."""
    assert broken(expires_at=NOON_MS + 1) == []


@pytest.mark.parametrize(
    ("radius_m", "fits"),
    [(249.999, False), (250, True), (500.5, True), (500.501, False), (5e-324, False), (1e300, False)],
)
def test_a_radius_lies_within_the_categorys_bounds(radius_m, fits):
    """P7, P8: each requested radius lies within the category's bounds, inclusive."""
    expected = [] if fits else [("radius-out-of-range", "/area/radius_m")]
    recent = {"occurred_at": NOON_MS - 1_000, "approved_at": NOON_MS}
    assert broken(STRICT, radii=(("/area/radius_m", radius_m),), **recent) == expected


def test_each_radius_is_judged():
    """P7: each requested radius."""
    radii = tuple((f"/area/{n}/radius_m", radius_m) for n, radius_m in enumerate([99, 100, 20_000, 20_001]))
    assert broken(radii=radii) == [
        ("radius-out-of-range", "/area/0/radius_m"),
        ("radius-out-of-range", "/area/3/radius_m"),
    ]


def test_a_detail_names_limits_and_not_what_was_sent():
    """H9: no answer repeats a refused value."""
    claims = dataclasses.replace(FINE, radii=(("/area/radius_m", 33.3),), occurred_at=NOON_MS - 7_777_777)
    details = [violation.detail for violation in BUILT_IN.violations(claims, NOON_MS)]
    assert details == ["must be at most 3600 s ago", "must be 100 to 20000 m"]


def test_limits_are_written_in_digits():
    """HD14: not as 3e+06."""
    warnings = policy.load(Path("builtin:public-warning"))
    claims = dataclasses.replace(FINE, category="tsunami", radii=(("/area/radius_m", 9e6),))
    details = [each.detail for each in warnings.violations(claims, NOON_MS) if each.pointer == "/area/radius_m"]
    assert details == ["must be 100 to 3000000 m"]


# ---- all of them, and none that can't be judged -----------------------------------------------------------------


def test_every_broken_rule_is_listed_in_the_order_of_the_table():
    """P9: every rule that is broken is listed, not only the first; section 4: in the table's order."""
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


def test_an_unknown_category_leaves_only_the_rules_that_need_none():
    """P9: unknown category: no age, expiry or radius rule."""
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
def test_a_rule_whose_inputs_are_unusable_is_not_judged(missing):
    """P9: whatever is missing, the rules that need it say nothing, and the others what they always say."""
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


def test_a_cancels_approval_is_judged_alike():
    """P3: `approved_at` of a cancel is not before `occurred_at` and not in the future."""
    judge = BUILT_IN.approval_violations
    assert judge(NOON_MS, NOON_MS, NOON_MS) == []
    assert [v.slug for v in judge(NOON_MS - 1, NOON_MS, NOON_MS)] == ["not-approved"]
    assert [v.slug for v in judge(NOON_MS + SKEW_MS + 1, None, NOON_MS)] == ["not-approved"]
    assert judge(None, None, NOON_MS) == []


# ---- policy files --------------------------------------------------------------------------------------------


def load(tmp_path, text):
    """The policy in a file with this text."""
    path = tmp_path / "policy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return policy.load(path)


ONE = '[categories]\nflood = { title = "Flood" }\n'


def test_a_policy_is_a_toml_file(tmp_path):
    """Section 3: policy is data."""
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
        ('name = "x"\n[categories]\nFlood = { title = "F" }', "categories.Flood"),
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
def test_a_broken_policy_file_is_told_in_one_line(tmp_path, text, expected):
    """K1: one clear line, with the file's name and the first thing wrong with it."""
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
def test_of_an_unknown_key_the_nearest_known_one_is_named(tmp_path, text, key, nearest):
    """K1: before what may follow from it, as that `categories` is missing."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).endswith(f"{key}: is no key of a policy{nearest}")


def test_all_that_is_wrong_with_a_policy_is_told(tmp_path):
    """`ConfigError.problems`: for who wants more than the first."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, 'names = "x"\n[categories]\nflood = { title = "", max_age_s = 0 }')
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "names",
        "name",
        "categories.flood.title",
        "categories.flood.max_age_s",
    ]


def test_a_policy_file_that_is_not_there_is_told_in_one_line(tmp_path):
    """K1: a file that is missing."""
    with pytest.raises(ConfigError, match=r"^policy .*nowhere\.toml: No such file or directory$"):
        policy.load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"^policy .*: Is a directory$"):
        policy.load(tmp_path)
