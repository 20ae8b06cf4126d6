"""The publishers' file: it is parsed strictly, and either all of it is applied or nothing."""

import json

import pytest

from geocast.model.errors import ConfigError
from geocast.policy.publishers.bounds import Bounds, Rate
from geocast.policy.publishers.file import MAX_BYTES, load_publishers, parse_publishers, read_publishers

SQUARE = {"type": "Polygon", "coordinates": [[[-97, 32], [-96, 32], [-96, 33], [-97, 33], [-97, 32]]]}
WHOLE = """
[publishers."desk-7"]
categories   = ["robbery", "arson"]
statuses     = ["actual", "test"]
max_severity = "severe"
max_radius_m = 5000
jurisdiction = "dallas.geojson"
per_minute   = 6
per_hour     = 60

[publishers."*"]
statuses = ["exercise"]
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the file of a jurisdiction."""
    (tmp_path / "dallas.geojson").write_text(json.dumps(SQUARE))
    return tmp_path


def written(folder, text):
    """Write a publishers' file with this text, and return its path."""
    path = folder / "publishers.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder, text):
    """Load a publishers' file with this text."""
    return load_publishers(written(folder, text))


def test_publisher_table_applies_to_its_sub_and_star_table_to_all_others(folder):
    """The two tables are not combined (rule PG1)."""
    found = loaded(folder, WHOLE)
    own = found.of("desk-7")
    assert (own.categories, own.statuses) == ({"robbery", "arson"}, {"actual", "test"})
    assert (own.max_severity, own.max_radius_m) == ("severe", 5000)
    assert own.contains(32.5, -96.5)
    assert not own.contains(31.5, -96.5)
    assert found.of("anybody") == Bounds(statuses=frozenset({"exercise"}))
    assert found.of("anybody").contains(0, 0)


def test_sub_without_a_table_or_star_table_may_not_publish(folder):
    """`*` is not a `sub` itself (rule PG1)."""
    found = loaded(folder, "[publishers.desk]\n")
    assert found.of("desk") == Bounds()
    assert found.of("other") is None
    assert found.of("*") is None


def test_tables_without_an_issuer_do_not_apply_to_tokens_of_named_issuers(folder):
    """A named issuer has its own tables, `*` included, or may not publish (rules HD5, PG1)."""
    found = loaded(
        folder,
        '[publishers.desk]\nper_minute = 1\n[publishers."*"]\n'
        '[issuers."https://a".publishers.desk]\nper_minute = 2\ncategories = ["arson"]\n',
    )
    assert found.by("").rates("desk")[0] == Rate(1, 60)
    assert found.by("https://a").rates("desk")[0] == Rate(2, 60)
    assert found.by("https://a").of("other") is found.by("https://b").of("desk") is None
    assert found.of("other") == Bounds()
    assert found.summary().endswith('"https://a": 1 by name, 0 with a jurisdiction; all others may not publish')
    assert len(found.warnings({})) == 1


def test_publisher_without_rates_gets_30_a_minute_and_300_an_hour(folder):
    """`own_rates` has only the rates that the publisher's own table sets (rule PG2)."""
    found = loaded(folder, WHOLE + '[publishers."cap-nws"]\nper_hour = 9\n')
    assert found.rates("desk-7") == (Rate(6, 60), Rate(60, 3600))
    assert found.rates("anybody") == (Rate(30, 60), Rate(300, 3600))
    assert found.rates("cap-nws") == (Rate(30, 60), Rate(9, 3600))
    assert found.own_rates("desk-7") == (Rate(6, 60), Rate(60, 3600))
    assert found.own_rates("cap-nws") == (Rate(9, 3600),)
    assert found.own_rates("anybody") == ()


def test_loading_without_a_publishers_file_returns_none():
    """Without `--publishers` there are no grants at all (rule PG1)."""
    assert read_publishers(None) is None
    assert load_publishers(None) is None


def test_bytes_read_from_the_publishers_file_include_the_jurisdiction_files(folder):
    """Other processes parse the same bytes, and the digest covers all files (rule BA2)."""
    path = written(folder, WHOLE)
    read = read_publishers(path)
    assert read == read_publishers(path)
    (folder / "dallas.geojson").write_text(json.dumps({"type": "MultiPolygon", "coordinates": []}))
    assert parse_publishers(read, path).of("desk-7").contains(32.5, -96.5)
    assert read_publishers(path) != read
    with pytest.raises(ConfigError, match=r"publishers\.toml: dallas\.geojson: holds no polygon"):
        load_publishers(path)


def test_publishers_file_that_is_missing_is_named_once(tmp_path):
    """The system says why it cannot be read (rule K1)."""
    path = tmp_path / "publishers.toml"
    with pytest.raises(ConfigError) as caught:
        load_publishers(path)
    assert str(caught.value) == f"publishers {path}: No such file or directory"


TABLE = "[publishers.desk]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "not TOML"),
        ("[publishers.desk", "not TOML"),
        (b"a = " + b"[" * 5000, "not TOML"),
        ("", 'takes tables [publishers."SUB"] and'),
        ("[publishers]", 'takes tables [publishers."SUB"] and'),
        ("publishers = 3", 'takes tables [publishers."SUB"]'),
        (TABLE + "[others]", "and nothing else"),
        ("issuers = 3\n" + TABLE, "and nothing else"),
        (TABLE + "[issuers.a]", "and nothing else"),
        (TABLE + "[issuers.a.others]", "and nothing else"),
        (TABLE + "[issuers.a.publishers]", "and nothing else"),
        (TABLE + '[issuers."".publishers.b]', "and nothing else"),
        ("[issuers.a.publishers.b]\nper_minute = 0", '"a"."b".per_minute: '),
        ('[publishers."a b"]', "table 1: its name can't be a sub"),
        ("[publishers]\ndesk = 3", '"desk".table: '),
        (TABLE + "categorys = ['a']", '"desk".categorys: is not a known key; did you mean categories?'),
        (TABLE + "categories = []", '"desk".categories: '),
        (TABLE + "categories = ['A b']", '"desk".categories.0: '),
        (TABLE + "statuses = ['draft']", '"desk".statuses.0: '),
        (TABLE + "statuses = 'test'", '"desk".statuses: '),
        (TABLE + "max_severity = 'grave'", '"desk".max_severity: '),
        (TABLE + "max_radius_m = 0", '"desk".max_radius_m: '),
        (TABLE + "max_radius_m = nan", '"desk".max_radius_m: '),
        (TABLE + "max_radius_m = '5'", '"desk".max_radius_m: '),
        (TABLE + "per_minute = 0", '"desk".per_minute: '),
        (TABLE + "per_hour = 2.5", '"desk".per_hour: '),
        (TABLE + "per_hour = true", '"desk".per_hour: '),
        (TABLE + "jurisdiction = '../dallas.geojson'", '"desk".jurisdiction: must be the name of a file in the'),
        (TABLE + "jurisdiction = '/etc/passwd'", '"desk".jurisdiction: must be the name of a file in the'),
        (TABLE + "jurisdiction = '..'", '"desk".jurisdiction: must be the name of a file in the'),
        (TABLE + "jurisdiction = 'austin.geojson'", "publishers.toml: austin.geojson: No such file"),
        (b"#" * (MAX_BYTES + 1), "must have at most 1,048,576 bytes"),
    ],
    ids=range(32),
)
def test_invalid_publishers_file_is_reported_in_one_line(folder, text, said):
    """The line names the key. No part of the file is applied (rule K1)."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    assert str(caught.value).startswith("publishers ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_config_error_lists_all_errors_of_the_publishers_file(folder):
    """`geocast check` prints every line (rule K1)."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, "[publishers.a]\nper_hour = 0\nper_minute = 0\n[publishers.b]\nx = 1\n")
    assert len(caught.value.problems) == 3


def test_granted_category_that_the_policy_lacks_gives_a_warning(folder):
    """A warning is enough, since a category may be removed from the policy in a hurry (docs/guide/publishers.md)."""
    found = loaded(folder, WHOLE)
    assert found.warnings({"robbery": ...}) == ["publishers: arson: not in the policy, so nobody may publish it"]
    assert found.warnings({"robbery": ..., "arson": ...}) == []


def test_check_command_warns_about_a_key_issuer_without_a_publishers_table(geocast, tmp_path, folder):
    """If a key has an `iss`, the tables without an issuer do not apply to its tokens (rules HD5, PG1)."""
    path = written(folder, '[publishers."*"]\n')
    for name in ("https://a", "https://b"):
        assert geocast("keygen", "--issuer", name, "--private", f"{name[-1]}.jwk").status == 0
    options = ["check", "--keys", "keys.jwks", "--log", "memory:", "--publishers", str(path)]
    out = geocast(*options).out
    for name in ("https://a", "https://b"):
        assert f'publishers: no table covers tokens of the issuer "{name}", so they may not publish' in out
    path.write_text('[issuers."https://a".publishers."*"]\n[issuers."https://b".publishers.desk]\n')
    assert "no table covers" not in geocast(*options).out
    assert geocast("keygen", "--private", "c.jwk").status == 0
    assert "publishers: no table covers tokens of keys without iss, so they may not publish" in geocast(*options).out


def test_check_command_prints_a_summary_of_the_publishers(geocast, tmp_path, folder):
    """`geocast check` prints the number of tables, or their errors (rule PG1)."""
    path = written(folder, WHOLE + '[publishers.b]\ncategories = ["spill"]\n')
    options = ["check", "--dev", "--log", "memory:", "--publishers", str(path)]
    outcome = geocast(*options)
    assert (outcome.status, outcome.err) == (0, "")
    assert "publishers: 2 by name, 1 with a jurisdiction; all others by a table of their own; warning: " in outcome.out
    path.write_text("[publishers.b]\nsurprise = 1\n")
    outcome = geocast(*options)
    assert outcome.status == 2
    assert '"b".surprise: is not a known key' in outcome.err
    path.write_text("[publishers.b]\n")
    assert "publishers: 1 by name, 0 with a jurisdiction; all others may not publish" in geocast(*options).out
