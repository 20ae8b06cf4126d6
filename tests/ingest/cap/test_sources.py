"""The file given with `--cap-sources`: its content, and errors for invalid files."""

import hashlib
from pathlib import Path

import pytest

from geocast.ingest.cap import sources
from geocast.model.errors import ConfigError

SECRET = "s" * 32
HASH = hashlib.sha256(SECRET.encode()).hexdigest()
GOOD = f"""
[sources.belize-met]
approver = "NMS Belize"
senders = ["drudon@nms.gov.bz", "b@nms.gov.bz"]
secret_sha256 = "{HASH}"
assume_offset = "-06:00"

[sources."a.b:c_d"]
approver = "An aggregator"
senders = ["*"]
"""


def parsed(text):
    """Return the sources in this text of a file."""
    return sources.parse(text.encode(), Path("s.toml"))


def test_source_with_issuer_is_found_only_by_tokens_of_that_issuer():
    """The source's webhook secret does not depend on the issuer (HD5, CP1)."""
    found = parsed(GOOD.replace("[sources.belize-met]", '[sources.belize-met]\nissuer = "https://met.example"'))
    belize = found.named("belize-met", "https://met.example")
    assert belize is found.of_secret(SECRET)
    assert found.named("belize-met") is found.named("belize-met", "https://other.example") is None


def test_source_is_found_by_name_and_by_secret():
    """A token contains the name, and a webhook sends the secret (CP1)."""
    found = parsed(GOOD)
    belize = found.named("belize-met")
    assert found.names == ("belize-met", "a.b:c_d")
    assert found.of_secret(SECRET) is belize
    assert (belize.approver, belize.assume_offset) == ("NMS Belize", "-06:00")
    assert found.named("nobody") is None
    assert found.named("belize-met", "https://met.example") is None
    assert found == parsed(GOOD)
    assert found != parsed(GOOD.replace("Belize", "Belice"))


@pytest.mark.parametrize("secret", ["", "s", "s" * 31, "s" * 33, "S" * 32, "s" * 256, "\xff" * 32, "\u0100" * 32])
def test_unknown_secret_finds_no_source(secret):
    """A source without a secret is not found either (CP1)."""
    assert parsed(GOOD).of_secret(secret) is None


def test_too_short_secret_finds_no_source():
    """A secret needs at least 32 characters, even if the file has the hash of a shorter one."""
    short = hashlib.sha256(b"secret").hexdigest()
    assert parsed(GOOD.replace(HASH, short)).of_secret("secret") is None


def test_senders_are_compared_literally():
    """Only "*" in the file matches any sender, as aggregators need (CP1)."""
    found = parsed(GOOD)
    belize = found.named("belize-met")
    assert [belize.speaks_for(s) for s in ("drudon@nms.gov.bz", "DRUDON@nms.gov.bz", "*")] == [True, False, False]
    assert found.named("a.b:c_d").speaks_for("anybody")


def test_repr_of_source_contains_no_secret():
    """The hash of the secret is not shown either."""
    assert HASH[:8] not in repr(parsed(GOOD).named("belize-met"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("approver =", "aprover =", "sources.belize-met.aprover: is not a known key; did you mean approver?"),
        ('approver = "NMS Belize"\n', "", "sources.belize-met.approver: is needed"),
        ('["*"]', "[]", "sources.a.b:c_d.senders: must have at least 1"),
        ('["*"]', '["a b"]', 'must be a <sender> without blanks, commas, "<" and "&", or "*"'),
        (HASH, "secret", "sources.belize-met.secret_sha256: must be the SHA-256 of the secret: 64 hexadecimal digits"),
        ("-06:00", "UTC", "sources.belize-met.assume_offset: must be an offset such as +00:00"),
        ("belize-met", '"a/b"', "sources: entry 1: its name must match the grammar of an id"),
        ("[sources.belize-met]", "[[", "not TOML: at line"),
        (
            'senders = ["*"]',
            f'senders = ["*"]\nsecret_sha256 = "{HASH.upper()}"',
            "two sources have the same secret_sha256",
        ),
        ("[sources.", "[source.", "source: is not a known key; did you mean sources?"),
    ],
)
def test_invalid_sources_file_is_refused_without_repeating_values(old, new, said):
    """Each line of the error names the file (BA2)."""
    with pytest.raises(ConfigError) as caught:
        parsed(GOOD.replace(old, new))
    assert any(said in problem for problem in caught.value.problems)
    assert all(problem.startswith("cap-sources s.toml: ") for problem in caught.value.problems)
    assert HASH not in str(caught.value)


def test_missing_sources_file_is_named_in_error(tmp_path):
    """The error has the path and the reason (K1)."""
    with pytest.raises(ConfigError, match="No such file"):
        sources.load(tmp_path / "x.toml")
