"""Where a policy comes from: files, built-in policies, `[defaults]` (P16), and the keys for CAP (P13 to P15)."""

from pathlib import Path

import pytest

from geocast import policy
from geocast.model.errors import ConfigError

ONE = '[categories]\nflood = { title = "Flood" }\n'


def load(tmp_path, text):
    """Load a policy file with this text."""
    path = tmp_path / "policy.toml"
    path.write_text('name = "x"\n' + text)
    return policy.load(path)


def told(tmp_path, text):
    """Return all errors of a policy file with this text, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return [problem.removeprefix(f"policy {tmp_path / 'policy.toml'}: ") for problem in caught.value.problems]


# ---- built-in policies -----------------------------------------------------------------------------------------


def test_built_in_policy_is_loaded_by_name():
    """Without a name, `neighbourhood` is loaded (rule P17)."""
    assert policy.load(Path("builtin:neighbourhood")) == policy.load(None)
    assert policy.load(Path("builtin:public-warning")).name == "public-warning"


def test_unknown_built_in_policy_is_refused(tmp_path):
    """No file outside the package is read (rule K1)."""
    for name in ("builtin:weather", "builtin:", "builtin:../builtin/neighbourhood", f"builtin:{tmp_path}"):
        with pytest.raises(ConfigError, match=r"is not a built-in policy; neighbourhood and public-warning are$"):
            policy.load(Path(name))


# ---- [defaults] ------------------------------------------------------------------------------------------------


def test_category_that_omits_a_setting_gets_its_default(tmp_path):
    """A key in a category counts before the default (rule P16)."""
    found = load(
        tmp_path,
        "[defaults]\nmax_radius_m = 50_000\npolygons = true\nmax_age_s = 7200\nunknown_severity = 'severe'\n"
        "[categories]\nflood = { title = 'Flood' }\n"
        "fire = { title = 'Fire', polygons = false, max_age_s = 60, unknown_severity = 'minor' }\n",
    ).categories
    flood, fire = found["flood"], found["fire"]
    assert (flood.max_radius_m, flood.polygons, flood.max_age_s, flood.unknown_severity) == (
        50_000,
        True,
        7200,
        "severe",
    )
    assert (fire.max_radius_m, fire.polygons, fire.max_age_s, fire.unknown_severity) == (50_000, False, 60, "minor")
    assert (flood.default_age_s, fire.default_age_s) == (7200, 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("defaults = 1\n" + ONE, ["defaults: must be a table"]),
        ("[defaults]\nmax_age = 5\n" + ONE, ["defaults.max_age: is not a known key; did you mean max_age_s?"]),
        ("[defaults]\nmax_age_s = 0\n" + ONE, ["defaults.max_age_s: must be greater than 0"]),
        ("[defaults]\ntitle = 'T'\n" + ONE, ["defaults.title: must not be shared by all categories"]),
        ("[defaults]\ncap = []\n" + ONE, ["defaults.cap: must not be shared by all categories"]),
        (
            "[defaults]\nmin_radius_m = 5e4\n" + ONE,
            ["categories.flood: min_radius_m is greater than max_radius_m"],
        ),
        ("[defaults]\npolygons = true", ["categories: is needed"]),
    ],
)
def test_error_in_defaults_table_is_reported_once(tmp_path, text, expected):
    """A wrong key is named in `[defaults]`, a wrong combination in the category (rules P16, K1)."""
    assert told(tmp_path, text) == expected


def test_default_limits_are_compared_with_the_keys_of_each_category(tmp_path):
    """A default may be valid only together with a key of the category (rule P16)."""
    found = load(tmp_path, "[defaults]\nmin_radius_m = 5e4\n[categories]\nf = { title = 'F', max_radius_m = 1e5 }\n")
    assert found.categories["f"].min_radius_m == 50_000


# ---- keys for CAP ----------------------------------------------------------------------------------------------


def test_missing_cap_keys_have_the_documented_defaults(tmp_path):
    """The defaults are those of the documents (rules P13 to P15)."""
    found = load(tmp_path, ONE)
    flood = found.categories["flood"]
    assert (flood.cap, flood.cap_category, flood.zero_radius_m, flood.unknown_severity) == ([], None, None, "moderate")
    assert (found.cap.ignore, found.cap.texts.model_dump()) == (
        [],
        {"headline": 250, "description": 2_000, "instruction": 1_500},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cap = ['TOR']", "categories.flood.cap.0: must be valueName:value of an event's code"),
        ("cap = ['SAME:']", "categories.flood.cap.0: must be valueName:value"),
        ("cap = ['event: flood']", "categories.flood.cap.0: must be valueName:value"),
        ("cap = ['event:flood ']", "categories.flood.cap.0: must be valueName:value"),
        ("cap = ['category:met']", "categories.flood.cap.0: must name one of CAP's categories: Geo, Met, "),
        ("cap = [1]", "categories.flood.cap.0: "),
        ("cap = 'SAME:TOR'", "categories.flood.cap: "),
        ("cap = ['event:" + "x" * 195 + "']", "categories.flood.cap.0: must have at most 200 characters"),
        (
            "cap = [" + "".join(f"'a:{n}'," for n in range(201)) + "]",
            "categories.flood.cap: must have at most 200",
        ),
        ("cap_category = 'Weather'", "categories.flood.cap_category: must be 'Geo', 'Met'"),
        ("zero_radius_m = 0", "categories.flood.zero_radius_m: "),
        ("zero_radius_m = 20001", "categories.flood: zero_radius_m is not between min"),
        ("zero_radius_m = 99", "categories.flood: zero_radius_m is not between min"),
        ("unknown_severity = 'unknown'", "categories.flood.unknown_severity: must be 'extreme', "),
    ],
)
def test_error_about_an_invalid_cap_key_names_the_key(tmp_path, text, expected):
    """The error names the key and its place (rules P13, P14, K1)."""
    [problem] = told(tmp_path, f"[categories.flood]\ntitle = 'Flood'\n{text}")
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ignored = []", "cap.ignored: is not a known key; did you mean ignore?"),
        ("ignore = ['RWT']", "cap.ignore.0: must be valueName:value"),
        ("texts = { headlines = 1 }", "cap.texts.headlines: is not a known key; did you mean headline?"),
        ("texts = { headline = 301 }", "cap.texts.headline: must be at most 300"),
        ("texts = { description = 4001 }", "cap.texts.description: must be at most 4,000"),
        ("texts = { instruction = 2001 }", "cap.texts.instruction: must be at most 2,000"),
        ("texts = { headline = 19 }", "cap.texts.headline: must be at least 20"),
    ],
)
def test_error_in_cap_table_is_reported(tmp_path, text, expected):
    """The error names the key (rules P13, P15, K1)."""
    [problem] = told(tmp_path, f"{ONE}[cap]\n{text}")
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("ignore", "a", "b", "claim"),
    [
        ([], ["SAME:TOR"], ["SAME:TOR"], "SAME:TOR is mapped twice, by a and by b"),
        ([], ["event:Flood", "event:flood"], [], "event:flood is mapped twice, by a and by a"),
        (["SAME:RWT"], [], ["SAME:RWT"], "SAME:RWT is mapped twice, by cap.ignore and by b"),
    ],
)
def test_duplicate_cap_mapping_is_refused(tmp_path, ignore, a, b, claim):
    """The second one would have no effect (rule P13)."""
    text = f"[categories]\na = {{ title = 'A', cap = {a} }}\nb = {{ title = 'B', cap = {b} }}\n[cap]\nignore = {ignore}"
    assert told(tmp_path, text) == [f"{claim}"]
