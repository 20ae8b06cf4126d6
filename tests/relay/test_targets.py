"""The file of targets: what it may say, and errors that name keys and repeat no value (WH1, WH7, WH8)."""

import pytest
from support.fakes import a_revision

from geocast.model.alert import Circle
from geocast.model.errors import ConfigError
from geocast.relay.targets import load_targets, parse_url

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIREN = '[targets.siren]\nurl = "https://sirens.example/hook"\nsecret_file = "secret"\n'


MISSING = ["siren.url", "siren.secret_file"]


def load(folder, text=SIREN, **files):
    """Write the file of targets and other files, and return what is loaded."""
    for name, content in {"secret": SECRET, "targets.toml": text, **files}.items():
        (folder / name).write_text(content)
    return load_targets(folder / "targets.toml")


def mistakes(folder, text, **files):
    """Return the lines of the error that the file causes."""
    with pytest.raises(ConfigError) as refused:
        load(folder, text, **files)
    return [line.removeprefix(f"targets {folder}/targets.toml: ") for line in refused.value.problems]


def test_target_without_filters_wants_actual_alerts_of_all_kinds_only(tmp_path):
    """No siren may sound for a test or an exercise unless the operator asks for them (WH1)."""
    siren = load(tmp_path)["siren"]
    assert siren.wants(a_revision(category="anything", severity="minor").alert)
    assert not siren.wants(a_revision(status="test").alert)
    assert not siren.wants(a_revision(status="exercise").alert)


def test_target_wants_alerts_that_match_all_of_its_filters(tmp_path):
    """Categories, least severity, statuses and a polygon (WH1)."""
    filters = (
        'categories = ["flood"]\nmin_severity = "severe"\nstatuses = ["actual", "test"]\n'
        "polygon = [[19.9, 9.9], [20.1, 9.9], [20.1, 10.1], [19.9, 10.1]]\n"
    )
    siren = load(tmp_path, SIREN + filters)["siren"]
    near = {"category": "flood", "area": (Circle(10.0, 20.0, 100.0),)}
    assert siren.wants(a_revision(**near).alert)
    assert siren.wants(a_revision(**near, status="test", severity="extreme").alert)
    for change in (
        {"category": "fire"},
        {"severity": "moderate"},
        {"status": "exercise"},
        {"area": (Circle(11.0, 20.0, 100.0),)},
    ):
        assert not siren.wants(a_revision(**(near | change)).alert), change


def test_target_is_read_with_all_of_its_files(tmp_path):
    """Nothing secret is in its text for debugging (WH8)."""
    table = (
        '[targets.chat]\nurl_file = "url"\nunsigned = true\nheaders_file = "headers"\nallow_private = true\n'
        'body = {text = "{headline}"}\n'
    )
    chat = load(tmp_path, table, url="https://[fd00::1]:8443/hook?key=k1\n", headers="Authorization: Bearer t1\n")[
        "chat"
    ]
    assert chat.url == ("fd00::1", 8443, True, "[fd00::1]:8443", "/hook?key=k1")
    assert chat.headers == {"Authorization": "Bearer t1"}
    assert chat.allow_private
    assert not any(secret in repr(chat) for secret in ("k1", "t1", "fd00"))


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ('url = "https://x.example/"\n', "siren.secret_file: must be given, or unsigned = true instead"),
        ("unsigned = true\n", "siren.url: exactly one of url and url_file must be given"),
        ('url = "http://x.example/"\nunsigned = true\n', "siren.url: must have https; allow_http = true permits http"),
        ('url = "https://x.example/"\nsecret_file = "none"\n', "siren.secret_file: No such file or directory"),
        ('url = "https://x.example/"\nsecret_file = "targets.toml"\n', "siren.secret_file: expected 1 to 4 secrets"),
        ("min_severty = 1\n", "siren.min_severty: is not a known key; did you mean min_severity?"),
        ("statuses = []\n", "siren.statuses: must have at least 1"),
        ('url = "https://x.example/"\nunsigned = true\nca_file = "secret"\n', "siren.ca_file: no certificates in PEM"),
        (
            'url = "https://x.example/"\nunsigned = true\nheaders_file = "secret"\n',
            "siren.headers_file: expected lines Name: value",
        ),
        (
            'url = "https://x.example/"\nunsigned = true\nheaders_file = "host"\n',
            "siren.headers_file: must not have webhook-…",
        ),
        (
            'url = "https://x.example/"\nunsigned = true\nbody = {text = "{headlin}"}\n',
            "siren.body: knows only the words",
        ),
        ('url = "https://x.example/"\nunsigned = true\npolygon = [[1.0, 2.0]]\n', "siren.polygon: must have 3 to 200"),
        ('url = "https://x.example/"\nunsigned = true\nbody = {at = 2030-01-01}\n', "siren.body: takes texts, numbers"),
    ],
)
def test_mistake_in_a_table_is_named_by_target_and_key(tmp_path, table, mistake):
    """The error says what is expected and repeats no value (WH8)."""
    first, *others = mistakes(tmp_path, f"[targets.siren]\n{table}", host="Host: other\n")
    assert first.startswith(mistake)
    assert [line.partition(":")[0] for line in others] == ([] if "url" in table or "unsigned" in table else MISSING)
    assert not any(value in first for value in ("x.example", SECRET, "other", "headlin}"))


def test_all_mistakes_of_a_file_are_listed(tmp_path):
    """A bad name of a target is not repeated; a correct target beside it hides nothing (WH11)."""
    more = 'url = 1\nstatuses = ["actul"]\nheaders_file = "none"\npolygon = [[1.0, 2.0]]\n[targets.c]\nport = 2\n'
    found = mistakes(tmp_path, f'{SIREN}[targets."North Siren"]\n[targets.b]\n{more}')
    keys = ["b.url", "b.statuses.0", "b.secret_file", "b.headers_file", "b.polygon", "c.port", "c.url", "c.secret_file"]
    assert [line.partition(":")[0] for line in found] == ["table 2", *keys]
    assert "b.statuses.0: must be 'actual', 'exercise' or 'test'" in found


@pytest.mark.parametrize("text", ["", "x = 1\n", "targets = 1\n", f"{SIREN}\n[other]\n", "[[targets]]\n"])
def test_file_without_tables_of_targets_is_refused(tmp_path, text):
    """The error says which tables the file takes (WH11)."""
    assert mistakes(tmp_path, text) == ["takes tables [targets.NAME], 1 to 100, and nothing else"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://x.example/", "https"),
        ("https:///path", "host name"),
        ("https://user:pw@x.example/", "headers_file"),
        ("https://x.example/#part", "fragment"),
        ("https://x.example:0/", "port"),
        ("https://x.example:/", "port"),
        ("https://x.example:99999/", "must be a URL"),
        ("https://x.exa mple/", "printable"),
        ("https://x.example/\r\nHost: y", "printable"),
        ("https://[::1/", "must be a URL"),
        ("https://x,y/", "host name"),
        ("https://x.example/" + "a" * 2000, "at most 2,000"),
    ],
)
def test_url_that_is_not_allowed_is_refused_and_not_repeated(url, why):
    """A URL is https, or http where the target allows it (WH7, WH8)."""
    with pytest.raises(ValueError, match=why) as refused:
        parse_url(url, allow_http=True)
    assert "x.example" not in str(refused.value)
