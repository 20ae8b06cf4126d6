"""The table `[calls]` of a policy: its keys and their limits, errors at the start, and which calls may be opened."""

import dataclasses

import pytest
from support.fakes import HOUR_MS, NOON_MS

from geocast import policy
from geocast.model.errors import ConfigError
from geocast.policy import SKEW_MS, Policy
from geocast.policy.ages import Lasting
from geocast.wire.requests import PolicyFacts

ALERTS = 'name = "x"\n[categories]\nflood = { title = "Flood" }\n'
LEAST = '[calls.arrest]\ntitle = "Cardiac arrest"\nquals = ["cpr", "medic"]\n'
IN_FORCE = policy.parse((ALERTS + LEAST + 'residence_quals = ["medic"]\n').encode(), None)
AGE_MS = 600_000
FINE = PolicyFacts("arrest", None, NOON_MS - AGE_MS, None, None, (), takes_default=True)


def told(text):
    """Return the errors of a policy with these calls."""
    with pytest.raises(ConfigError) as caught:
        policy.parse((ALERTS + text).encode(), None)
    return [problem.removeprefix("policy None: ") for problem in caught.value.problems]


def broken(now_ms=NOON_MS, opened=None, ends_at=None, **changes):
    """Return slug and pointer of each violation by valid facts with these changes."""
    found = IN_FORCE.call_violations(dataclasses.replace(FINE, **changes), now_ms, opened, ends_at)
    return [(violation.slug, violation.pointer) for violation in found]


# ---- the keys of a call category ---------------------------------------------------------------------------------


def test_missing_keys_of_call_category_have_documented_defaults():
    """A call stores the values that it needs (rule RO3; docs/reference/call-rules.md, Policy)."""
    terms = IN_FORCE.calls["arrest"].terms("public")
    assert dataclasses.asdict(terms) == {
        "title": "Cardiac arrest",
        "quals": ["cpr", "medic"],
        "rings_m": [100, 300, 500, 750, 1_000, 1_500],
        "enough": 7,
        "seats": ["cpr", "aed", "cpr", "aed"],
        "answer_s": 30,
        "rest_s": 3_600,
        "aed_m": 800,
        "location_resolution": 9,
        "max_age_s": 1_800,
    }


def test_residence_quals_apply_to_calls_in_homes_and_default_to_quals():
    """docs/reference/call-rules.md, section Policy."""
    assert IN_FORCE.calls["arrest"].terms("residence").quals == ["medic"]
    same = policy.parse((ALERTS + LEAST).encode(), None).calls["arrest"]
    assert same.terms("residence") == same.terms("public")


@pytest.mark.parametrize(
    ("key", "fits", "does_not"),
    [
        ("title", ['"x"'], ['""', f'"{"x" * 141}"', "1"]),
        ("max_age_s", ["1", "7_200"], ["0", "7_201", "60.5", "true"]),
        ("location_resolution", ["0", "15"], ["-1", "16"]),
        ("quals", ['["a"]', str([f"q{n}" for n in range(16)])], ["[]", '["CPR"]', '[""]', f'["{"q" * 33}"]', '"cpr"']),
        ("residence_quals", ['["medic"]'], ["[]", '["a b"]', str([f"q{n}" for n in range(17)])]),
        ("rings_m", ["[50]", "[50, 20_000]", str([*range(50, 66)])], ["[]", "[49]", "[20_001]", "[100.5]"]),
        ("rings_m", ["[100, 101]"], ["[100, 100]", "[300, 100]", str([*range(50, 67)])]),
        ("enough", ["1", "1_000"], ["0", "1_001"]),
        ("seats", ['["aed"]', str(["cpr"] * 16)], ["[]", '["medic"]', str(["cpr"] * 17)]),
        ("answer_s", ["5", "300"], ["4", "301"]),
        ("rest_s", ["0", "86_400"], ["-1", "86_401"]),
        ("aed_m", ["0", "5_000"], ["-1", "5_001"]),
    ],
)
def test_value_out_of_range_for_its_key_is_refused(key, fits, does_not):
    """Bounds are inclusive, and the error names the key (docs/reference/call-rules.md, Policy)."""
    least = {"title": '"Arrest"', "quals": '["cpr"]'}
    for value, good in [*((each, True) for each in fits), *((each, False) for each in does_not)]:
        keys = least | {key: value}
        text = "[calls.arrest]\n" + "".join(f"{name} = {written}\n" for name, written in keys.items())
        if good:
            policy.parse((ALERTS + text).encode(), None)
        else:
            assert told(text)[0].startswith(f"calls.arrest.{key}"), value


def test_refusal_of_rings_says_that_they_must_rise():
    """Equal rings are refused as well (docs/reference/call-rules.md, Policy)."""
    said = "calls.arrest.rings_m: must rise: each must be greater than the one before"
    assert told(LEAST + "rings_m = [100, 300, 300]\n") == [said]


def test_unknown_key_of_a_call_category_is_refused_with_a_suggestion():
    """The error names the most similar known key (rule K1)."""
    assert told(LEAST + "ring_m = [100]\n") == ["calls.arrest.ring_m: is not a known key; did you mean rings_m?"]


def test_call_category_with_a_malformed_name_is_refused():
    """Keys match `[a-z0-9_]{1,64}`, as those of alerts do (section 3)."""
    assert told(LEAST.replace("arrest", '"Cardiac arrest"'))


def test_defaults_table_does_not_apply_to_calls():
    """`[defaults]` is for `[categories]` only (rule P16)."""
    found = policy.parse((ALERTS + LEAST + "[defaults]\nmax_age_s = 60\n").encode(), None)
    assert (found.calls["arrest"].max_age_s, found.categories["flood"].max_age_s) == (1_800, 60)


# ---- which calls may be opened -----------------------------------------------------------------------------------


def test_category_of_both_alerts_and_calls_is_refused():
    """A node with such a policy does not start (rule RO1)."""
    [problem] = told(LEAST.replace("arrest", "flood"))
    assert problem.endswith("flood is a category of alerts and of calls")


@pytest.mark.parametrize("name", policy.files.BUILT_IN)
def test_built_in_policy_has_no_calls(name):
    """Operators have to decide who is called for help (rule RO1)."""
    assert policy.parse(policy.files._built_in(name), None).calls == {}


@pytest.mark.parametrize("category", ["flood", "gossip", "", "john_doe_5550100"])
def test_error_about_an_unknown_call_category_does_not_repeat_it(category):
    """A category of alerts is refused, too.

    Without a valid category, age and expiry are not checked (rules RO1, RY2, H9, P9).
    """
    [violation] = IN_FORCE.call_violations(
        dataclasses.replace(FINE, category=category, occurred_at=NOON_MS - HOUR_MS), NOON_MS
    )
    assert (violation.slug, violation.pointer) == ("category-not-callable", "/category")
    assert not category or category not in violation.detail
    assert broken(category=category, occurred_at=NOON_MS + HOUR_MS) == [
        ("category-not-callable", "/category"),
        ("not-yet", "/occurred_at"),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"occurred_at": NOON_MS - 1_800_001}, [("stale", "/occurred_at")]),
        ({"occurred_at": NOON_MS - 1_800_000}, [("expiry-out-of-range", "/occurred_at")]),
        ({"occurred_at": NOON_MS - 1_799_999}, []),
        ({"occurred_at": NOON_MS + SKEW_MS}, []),
        ({"occurred_at": NOON_MS + SKEW_MS + 1}, [("not-yet", "/occurred_at")]),
        ({"expires_at": NOON_MS}, [("expiry-out-of-range", "/expires_at")]),
        ({"expires_at": NOON_MS + 1}, []),
        ({"expires_at": NOON_MS - AGE_MS + 1_800_000}, []),
        ({"expires_at": NOON_MS - AGE_MS + 1_800_001}, [("expiry-out-of-range", "/expires_at")]),
        ({"occurred_at": None, "expires_at": NOON_MS}, []),
    ],
)
def test_age_and_expiry_of_a_call_follow_the_rules_of_alerts(changes, expected):
    """P4 to P6 apply with the call's `max_age_s`; unusable facts are not checked (rules RO2, P9)."""
    changes = changes if changes.get("expires_at") is None else changes | {"takes_default": False}
    assert broken(**changes) == expected


def test_new_content_of_a_call_is_checked_by_the_policy_when_it_was_opened():
    """New content is accepted even if calls of the category may no longer be opened (rules RO2, RO3)."""
    then, ends_at = Lasting(7_200, 7_200), NOON_MS + 60_000
    old = {"category": "gone", "occurred_at": NOON_MS - 7_000_000, "takes_default": False}
    assert broken(opened=then, ends_at=ends_at, expires_at=ends_at, **old) == []
    assert broken(opened=then, ends_at=ends_at, expires_at=ends_at - 1, **old) == [
        ("expiry-out-of-range", "/expires_at")
    ]
    assert broken(opened=then, ends_at=ends_at, expires_at=NOON_MS + 200_001, **old) == [
        ("expiry-out-of-range", "/expires_at")
    ]


def test_dumped_policy_contains_calls_and_can_be_loaded():
    """`GET /v1/policy` returns this dump (section 4)."""
    shown = IN_FORCE.model_dump(exclude_none=True)
    assert shown["calls"]["arrest"]["quals"] == ["cpr", "medic"]
    assert Policy.model_validate(shown) == IN_FORCE
