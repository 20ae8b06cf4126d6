"""Tests that the node's refusals become plain sentences beside their fields; the problems are those a node sends."""

import pytest

from client_demo.desk.refusals import span, troubles
from client_demo.python.publisher import Refused
from client_demo.staff_page.decisions import Trouble

RADII = {"min_radius_m": 100, "max_radius_m": 20000}
OUTSIDE = "This is outside of the area for which this desk may publish."


def refused(*errors, status=422):
    problem = {
        "type": f"/problems/{errors[0][0]}",
        "title": "Title",
        "detail": "detail",
        "errors": [
            {"type": f"/problems/{slug}", "pointer": pointer, "detail": "a text that may change", **members}
            for slug, pointer, members in errors
        ],
    }
    return Refused(status, problem)


@pytest.mark.parametrize(
    ("error", "field", "text"),
    [
        (
            ("radius-out-of-range", "/area/radius_m", RADII),
            "radius_m",
            "The radius must be 100 to 20,000 m for this category.",
        ),
        (
            ("radius-out-of-range", "/area/0/coordinates", RADII),
            "corners",
            "From its middle to its farthest corner it must be 100 to 20,000 m in this category.",
        ),
        (
            (
                "invalid-value",
                "/area/0/coordinates",
                {"detail": "must not cross or touch itself"},
            ),
            "corners",
            "Must not cross or touch itself.",
        ),
        (
            ("shape-not-allowed", "/area/0/type", {}),
            "corners",
            "This category takes circles only: a polygon would give an address away.",
        ),
        (
            ("area-too-complex", "/area", {"max_corners": 500}),
            "place",
            "The outline has too many corners to be published. Draw it with fewer.",
        ),
        (
            ("radius-out-of-range", "/area/0/radius_m", RADII),
            "radius_m",
            "The radius must be 100 to 20,000 m for this category.",
        ),
        (
            ("not-granted", "/category", {"allowed": ["arson"]}),
            "category",
            "This desk may not publish alerts of this category.",
        ),
        (
            ("not-granted", "/severity", {"max_severity": "moderate"}),
            "severity",
            "This desk may not publish anything as severe. Moderate is the most.",
        ),
        (
            ("not-granted", "/status", {"allowed": ["exercise", "test"]}),
            "",
            "This desk may not publish this; another one may.",
        ),
        (
            ("outside-jurisdiction", "/area", {"swapped": False}),
            "place",
            OUTSIDE,
        ),
        (
            (
                "outside-jurisdiction",
                "/area/0",
                {"swapped": True},
            ),
            "place",
            f"{OUTSIDE} With latitude and longitude exchanged it would be inside: look at them again.",
        ),
        (
            ("stale", "/occurred_at", {"max_age_s": 3600}),
            "",
            "This happened more than an hour ago. Alerts are for what is happening now.",
        ),
        (
            ("category-not-alertable", "/category", {"never": False}),
            "category",
            "Choose a category: the policy lists what may be alerted.",
        ),
        (
            ("category-not-alertable", "/category", {"never": True}),
            "category",
            "This category is never alerted.",
        ),
        (
            ("invalid-value", "/area/0/lat", {}),
            "place",
            "The centre is a latitude of -90 to 90 and a longitude of -180 to 180 degrees.",
        ),
        (
            ("invalid-value", "/headline", {}),
            "headline",
            "The headline needs 1 to 140 characters of plain text.",
        ),
        (("invalid-value", "/expires_at", {"detail": "must be a time"}), "", "Must be a time."),
        (("something-new", "/nowhere", {"detail": "a rule of tomorrow"}), "", "A rule of tomorrow."),
    ],
)
def test_broken_rule_is_shown_at_its_field(error, field, text):
    """An unknown rule is shown in the node's words."""
    assert troubles(refused(error)) == [Trouble(field, text, error[0])]


def test_every_broken_rule_is_shown_in_order():
    found = troubles(refused(("stale", "/occurred_at", {"max_age_s": 600}), ("invalid-value", "/headline", {})))
    assert [(trouble.field, trouble.slug) for trouble in found] == [("", "stale"), ("headline", "invalid-value")]
    assert "10 minutes" in found[0].text


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ({"type": "/problems/unauthorized", "title": "Unauthorized"}, "token is not accepted"),
        ({"type": "/problems/revision-conflict", "title": "x", "current": 3}, "revised this alert elsewhere"),
        ({"title": "status 418 I'm a teapot"}, "418"),
    ],
)
def test_problem_without_errors_is_one_sentence(problem, words):
    """A response that is no problem document is covered as well."""
    (trouble,) = troubles(Refused(400, problem))
    assert trouble.field == ""
    assert words in trouble.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3600, "an hour"),
        (7200, "2 hours"),
        (600, "10 minutes"),
        (60, "a minute"),
        (90, "90 seconds"),
        (5400, "90 minutes"),
    ],
)
def test_span_in_words(seconds, words):
    assert span(seconds) == words


def test_held_text_or_area_is_explained_with_its_confirmation():
    """The page also gets the kind and position of each part (protocol, rules P23 and P24)."""
    errors = [
        {"pointer": "/headline", "kind": "address", "confirmable": True},
        {"pointer": "/reason", "kind": "coordinates", "confirmable": False},
        {"pointer": "/area"},
    ]
    errors[0] |= {"type": "/problems/text-unconfirmed", "start": 8, "end": 24}
    errors[1] |= {"type": "/problems/text-unconfirmed", "start": 0, "end": 9}
    errors[2] |= {"type": "/problems/area-unconfirmed", "kind": "area", "area_km2": 2560.1}
    found = troubles(Refused(422, {"type": "/problems/area-unconfirmed", "errors": errors}))
    assert [(each.field, each.text, each.held) for each in found] == [
        (
            "headline",
            "This reads like a street address. Reword it, or confirm it below.",
            {"kind": "address", "start": 8, "end": 24},
        ),
        (
            "reason",
            "This reads like coordinates, which is never published. Reword it.",
            {"kind": "coordinates", "start": 0, "end": 9},
        ),
        (
            "place",
            "This covers 2,560 km². Look at it again; if that is meant, confirm it below.",
            {"kind": "area", "area_km2": 2560.1},
        ),
    ]


def test_rate_limited_desk_is_told_how_long_to_wait():
    """The rate limit's problem has status 429 and no list of errors (rule PG2)."""
    problem = {"type": "/problems/rate-limited", "status": 429, "retry_after_s": 50}
    [trouble] = troubles(Refused(429, problem))
    assert trouble.text == (
        "This desk has published as often as it may for now. Try again in 50 seconds; cancels are never held up."
    )
