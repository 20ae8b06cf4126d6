"""`geocast cap`: its output for files, and its exit status."""

import pytest
from click.testing import CliRunner
from support.real_data import cap

from geocast.cli import cli


def run(*arguments):
    """Return the exit status and the printed lines."""
    done = CliRunner().invoke(cli, ["cap", *map(str, arguments)], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output.splitlines()


def a_file(tmp_path, text):
    """Return a file with this text."""
    path = tmp_path / "message.xml"
    path.write_text(text)
    return path


def test_command_summarizes_real_message():
    """The command prints version, type, blocks of infos, languages, shapes and codes (cap.md)."""
    path = cap("google__canada")
    status, lines = run(path)
    assert status == 0
    assert [line.removeprefix(f"{path}: ") for line in lines] == [
        "CAP 1.2, unsigned: Update, Actual, Public",
        "2.49.0.1.124.6bddbc91.2012 of cap@ec.gc.ca, sent 2012-05-02T23:21:04.000Z, refers to 2",
        "- thunderstorm: minor, urgency past, certainty observed, until 2012-05-03T00:20:00.000Z",
        "  in en-CA, fr-CA: severe thunderstorm watch",
        "  2 polygons with 53 corners, 2 codes of layer:EC-MSC-SMC:1.0:CLC, 11 codes of profile:CAP-CP:Location:0.3",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<alert", "malformed-xml: the document is not well-formed XML"),
        ("<rss/>", "not-cap: "),
        ('<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"/>', "missing-field at /alert/"),
        ("x" * (2 * 1024 * 1024 + 1), "too-large: a message may have 2 MiB"),
    ],
)
def test_command_reports_violations_line_by_line(text, said, tmp_path):
    """The exit status is 1, even if another file is valid (CP2 to CP5)."""
    path = a_file(tmp_path, text)
    status, lines = run(path)
    assert status == 1
    assert lines
    assert all(line.startswith(f"{path}: {said}") for line in lines)


def test_command_reads_times_without_offset_with_given_offset():
    """The option is `--assume-offset` (CP6)."""
    path = cap("alerthub__msg_actual-public_en_of_hp")
    assert run(path)[0] == 1
    assert run("--assume-offset", "+00:00", path)[0] == 0


def test_command_refuses_invalid_offset(tmp_path):
    """The command refuses before it reads a file (CP6)."""
    done = CliRunner().invoke(cli, ["cap", "--assume-offset", "noon", str(tmp_path / "x")])
    assert done.exit_code == 2
    assert "expected an offset such as +00:00" in done.output
