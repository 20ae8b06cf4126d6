"""The lines and errors of `geocast listen`. The conformance kit plays the rest to it (client_demo/conformance)."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from geocast.cli.listen import command, line
from geocast.model.errors import ConfigError
from geocast_client import Change, Kind

HERE = ("--lat", "32.78", "--lng", "-96.80")


def refused(*options):
    """Run the command, which must end with the exit status 1 at once, and return its error."""
    done = CliRunner().invoke(command, [*HERE, *options], standalone_mode=False)
    assert done.return_value == 1, done.exception
    return done.stderr


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:8765", "ws://127.0.0.1:port/v1/stream", "ws://a..b/"])
def test_listen_with_a_url_that_is_none_gives_up(url):
    """The error is one line, which says what is wrong."""
    said = refused("--url", url)
    assert said.startswith(f"geocast: error: {url} isn't a valid URI: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("option", "value"), [("--cell", "nonsense"), ("--language", "English")])
def test_listen_with_a_wrong_value_names_the_option(option, value):
    done = CliRunner().invoke(command, [*HERE, option, value], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{option}: ")
    assert value not in str(done.exception)


def test_listen_with_an_empty_token_file_names_it(tmp_path):
    """It does not connect without a token instead."""
    (tmp_path / "token").touch()
    said = refused("--url", "ws://127.0.0.1:1/v1/stream", "--token-file", str(tmp_path / "token"))
    assert said == f"geocast: error: --token-file {tmp_path / 'token'}: the file is empty\n"


def test_line_about_an_alert_marks_exercises_and_has_no_control_characters():
    """Texts are plain, so that nobody can move the cursor or reverse a line (C6, C7, C9)."""
    alert = {
        "id": "a", "revision": 2, "status": "exercise", "severity": "severe", "title": "Fire",
        "headline": "Keep\x1b[2J away\u202e", "instruction": "Close windows.", "web": "https://city.example/x",
        "expires_at": "1970-01-01T00:01:01Z",
    }  # fmt: skip
    assert line(Change(Kind.NEW, alert, here=True), 0) == (
        "new            [EXERCISE] SEVERE Fire: Keep�[2J away� Close windows. See https://city.example/x"
        "  [1 min 01 s left; a, revision 2]"
    )
    assert line(Change(Kind.CANCELLED, alert, here=True, reason="All clear"), 0) == (
        "cancelled      [EXERCISE] SEVERE Fire: Keep�[2J away� (All clear)  [a, revision 2]"
    )


def test_client_for_listening_imports_no_package_that_the_server_does_not_require():
    """`geocast listen` runs with the requirements of the server: httpx is for publishers and the feed."""
    program = "import sys; sys.modules['httpx'] = None; from geocast_client import Client; Client('ws://a', []).stop()"
    subprocess.run([sys.executable, "-c", program], check=True)
