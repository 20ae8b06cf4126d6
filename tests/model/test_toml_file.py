"""The mistakes of each TOML file that geocast reads: all at once, in words, and without a value."""

import re

import pytest

from geocast.approvals.reviewers import load_reviewers
from geocast.auth.revocations import load_revoked
from geocast.ingest.cap import sources
from geocast.ingest.fetch.settings import load_feeds
from geocast.model.errors import ConfigError
from geocast.policy import load as load_policy
from geocast.policy.publishers.file import load_publishers
from geocast.relay.targets import load_targets

VALUE = "s3cret"
WORDS_OF_PYDANTIC = re.compile(r"Input should|String should|List should|Field required|valid |Value error|pattern|\^")
FILES = {
    "feeds": (
        load_feeds,
        f"""
        [feeds.a]
        url = "{VALUE}"
        intervall_s = 5
        link_hosts = ["https://{VALUE}"]
        token_file = 5
        ca_file = "none-{VALUE}"
        [feeds.b]
        url = "https://b.example/"
        interval_s = 1
        allow_private = "{VALUE}"
        [feeds."{VALUE} c"]
        """,
        [
            "feeds.a.intervall_s: is not a known key; did you mean interval_s?",
            "feeds.a.url: expected https://HOST/PATH, without a user and a fragment",
            "feeds.a.token_file: must be a text",
            "feeds.a.link_hosts.0: must be HOST or HOST:PORT, in lower case",
            "feeds.a.ca_file: No such file or directory",
            "feeds.b.interval_s: must be at least 15",
            "feeds.b.allow_private: must be true or false",
            "feeds: entry 3: its name must have 1 to 64 letters, digits or . _ -",
            "feeds: entry 3.url: is needed",
        ],
    ),
    "targets": (
        load_targets,
        f"""
        [targets.a]
        url = "https://{VALUE}@a.example/"
        sekret_file = "{VALUE}"
        min_severity = "{VALUE}"
        categories = ["{VALUE.upper()}"]
        [targets.b]
        url_file = "none"
        unsigned = true
        polygon = 1
        """,
        [
            "a.sekret_file: is not a known key; did you mean secret_file?",
            "a.categories.0: must have 1 to 64 of a-z, 0-9 and _",
            "a.min_severity: must be 'extreme', 'severe', 'moderate' or 'minor'",
            "a.secret_file: must be given, or unsigned = true instead",
            "a.url: must have no user name, no password and no fragment; headers_file takes Authorization",
            "b.polygon: must be a list",
            "b.url_file: No such file or directory",
        ],
    ),
    "policy": (
        load_policy,
        f"""
        name = "x"
        audiense = "{VALUE}"
        text = "{VALUE}"
        [defaults]
        max_age = 5
        [categories.flood]
        title = "Flood"
        max_radius_m = "{VALUE}"
        [categories.fire]
        title = "Fire"
        min_radius_m = 30_000
        min_life_s = 4_000
        [cap.texts]
        headlin = 5
        """,
        [
            "defaults.max_age: is not a known key; did you mean max_age_s?",
            "cap.texts.headlin: is not a known key; did you mean headline?",
            "audiense: is not a known key; did you mean audience?",
            "categories.flood.max_radius_m: must be a number",
            "categories.fire: min_radius_m is greater than max_radius_m",
            "categories.fire: min_life_s is not less than max_age_s, so nothing could be published",
            "text: must be 'hold' or 'off'",
        ],
    ),
    "publishers": (
        load_publishers,
        f"""
        [publishers.a]
        per_hour = 0
        jurisdiction = "../{VALUE}"
        [publishers.b]
        jurisdiction = "none.geojson"
        [publishers."{VALUE} c"]
        max_severty = 1
        """,
        [
            '"a".jurisdiction: must be the name of a file in the same folder, without a path',
            '"a".per_hour: must be at least 1',
            "table 3: its name can't be a sub: it must match the grammar of id, or be *",
            "table 3.max_severty: is not a known key; did you mean max_severity?",
            "none.geojson: No such file or directory",
        ],
    ),
    "sources": (
        sources.load,
        f"""
        sorces = 1
        [sources.a]
        approver = 5
        senders = ["{VALUE} x"]
        secret_sha256 = "{VALUE}"
        [sources."{VALUE}/b"]
        sender = []
        """,
        [
            "sources: entry 2.sender: is not a known key; did you mean senders?",
            "sorces: is not a known key; did you mean sources?",
            "sources.a.approver: must be a text",
            'sources.a.senders.0: must be a <sender> without blanks, commas, "<" and "&", or "*"',
            "sources.a.secret_sha256: must be the SHA-256 of the secret: 64 hexadecimal digits",
            "sources: entry 2: its name must match the grammar of an id: letters, digits and . _ : -",
            "sources: entry 2.approver: is needed",
            "sources: entry 2.senders: is needed",
        ],
    ),
    "revoked": (
        load_revoked,
        f'[sub]\n"{VALUE}" = 5\ngood = 2031-05-01T12:00:00Z\nx = 2031-05-01\n',
        [
            f"entry {number} of [sub]: "
            'expected "SUB" = a time with its offset, such as 2031-05-01T12:00:00Z, without quotes'
            for number in (1, 3)
        ],
    ),
    "reviewers": (
        load_reviewers,
        f'{{"keys": [{{"kid": "{VALUE} x"}}, {{"kid": "b"}}]}}',
        [
            "key 1: needs a kid of 1 to 128 printable ASCII characters, without blanks",
            "key 2: needs a sub in the grammar of an alert's id, the same for all keys of a person",
        ],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_error_about_a_file_lists_all_of_its_mistakes(tmp_path, name):
    """Each line says which file it is about; the order of the lines is that of the checks (K1)."""
    load, text, expected = FILES[name]
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    told = [line.partition(f"{path}: ")[2] for line in refused.value.problems]
    assert sorted(told) == sorted(expected)
    assert not any(WORDS_OF_PYDANTIC.search(line) for line in told)
    assert not any(VALUE in line.casefold() for line in told)


def test_command_prints_a_line_for_each_mistake(geocast):
    """`fetch` and `relay` end with status 2 (FE1, WH11)."""
    for options, name in ((("fetch", "--feeds"), "feeds"), (("relay", "--log", "sqlite:x.db", "--targets"), "targets")):
        _, text, expected = FILES[name]
        with open(name, "w") as file:
            file.write(text)
        outcome = geocast(*options, name)
        lines = outcome.err.splitlines()
        assert (outcome.status, len(lines)) == (2, len(expected)), lines
        assert all(line.startswith("geocast: error: ") for line in lines)
