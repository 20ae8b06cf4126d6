"""Tests of the commands: their help, one-line errors, and safe output of untrusted text."""

import socket

import pytest
from click.testing import CliRunner

from client_demo.console import alert_line, make_console, plain
from client_demo.demo.progress import verdict_table
from client_demo.demo.show import MIN_SECONDS
from client_demo.demo.verdict import Published, Row
from client_demo.python.geo import Place
from client_demo.python.holdings import Holdings
from client_demo.python.times import format_time
from client_demo.terminal.cli import main
from client_demo.terminal.listen import change_line, details, held_table, host_of

NOW = 1_800_000_000_000
COMMANDS = ("listen", "walk", "respond", "review", "feed-check", "desk", "map", "demo")


def run(*arguments, **environment):
    return CliRunner(env={"GEOCAST_TOKEN": "t", **environment}).invoke(main, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help(command):
    """The help names the environment variables of options."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "env var:" in result.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["listen", "--lat", "1"], "say where you are"),
        (["listen"], "say where you are"),
        (["listen", "--cell", "xyz"], "not an H3 cell"),
        (["listen", "--lat", "1", "--lng", "2", "--approvals", "1"], "--audience and --approvals go with --reviewers"),
        (["listen", "--lat", "1", "--lng", "2", "--reviewers", __file__], "goes with --audience and --approvals"),
        (
            ["listen", "--lat", "1", "--lng", "2", "--reviewers", __file__, "--audience", "a", "--approvals", "1"],
            "can't be used: it is not a JWKS",
        ),
        (["listen", "--lat", "91", "--lng", "0"], "91"),
        (["listen", "--lat", "1", "--lng", "2", "--language", "en_US"], "languages: at most 8 tags"),
        (["listen", "--url", "nonsense", "--lat", "1", "--lng", "2"], "isn't a valid URI"),
        (["listen", "--push", "http://h", "--lat", "1", "--lng", "2", "--once"], "and not with --once"),
        (
            ["listen", "--push", "http://h", *["--cell", "8826cb19cbfffff"] * 2, "--push-ca", "no/ca.pem"],
            "no/ca.pem can't",
        ),
        (["map", "--push", "http://h"], "--push goes with --page-token"),
        (["walk", "--from", "1,2", "--to", "nowhere"], "two numbers with a comma"),
        (["walk", "--from", "1,2", "--to", "91,0"], "a latitude of -90 to 90"),
        (["walk", "--from", "1,2", "--to", "nan,0"], "a latitude of -90 to 90"),
        (["listen", "--lat", "nan", "--lng", "0"], "Invalid value for '--lat'"),
        (["listen", "--lat", "0", "--lng", "inf"], "Invalid value for '--lng'"),
        (["walk", "--speed", "nan"], "Invalid value for '--speed'"),
        (["walk", "--every", "nan"], "Invalid value for '--every'"),
        (["review", "--every", "inf"], "Invalid value for '--every'"),
        (["review", "--speed", "nan"], "Invalid value for '--speed'"),
        (["review", "--port", "99999"], "99999"),
        (["desk", "absent.csv"], "absent.csv can't be read"),
        (["desk", "x.csv", "--feed-format", "absent.toml"], "absent.toml can't be read"),
        (["demo", "--feed-format", "absent.toml"], "absent.toml can't be read"),
        (["demo", "--seconds", str(MIN_SECONDS - 1)], "too short"),
        (["demo", "--feed", "absent.csv"], "absent.csv can't be read"),
    ],
)
def test_wrong_input_prints_one_line(arguments, line):
    """The exit status is not 0."""
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert line in result.output
    assert "Traceback" not in result.output


def test_map_on_a_taken_port_prints_one_line(monkeypatch):
    """If a port was requested, no other port is used."""
    monkeypatch.setattr("client_demo.terminal.pages.missing", lambda files: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("map", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "can't be served on port" in result.output
    assert "Traceback" not in result.output


def test_map_without_its_packages_prints_one_line(monkeypatch):
    """The line names the command that installs them."""
    monkeypatch.setattr("client_demo.terminal.pages.missing", lambda files: "client_demo/web/node_modules/x.js")
    result = run("map")
    assert result.exit_code == 1
    assert "`make demo` gets it" in result.output


def test_demo_with_an_unusable_feed_exits_with_2(tmp_path):
    """No process is started."""
    feed = tmp_path / "feed.csv"
    feed.write_text(
        "incident_number,nature_of_call,date_time,location,unit_number\n1,11V - Burg,2018-01-09T09:26:00.000,x,y\n"
    )
    result = run("demo", DEMO_FEED=str(feed))
    assert result.exit_code == 2
    assert result.output == (
        "error: feed.csv can't be used: Dallas active calls give no coordinates, and nothing here looks addresses up\n"
    )


def shown(**more):
    alert = {
        "id": "a",
        "revision": 2,
        "category": "arson",
        "title": "Arson",
        "headline": "Fire set on purpose",
        "severity": "severe",
        "expires_at": format_time(NOW + 125_000),
        "area": [{"type": "circle", "lat": 10.0, "lng": 20.0, "radius_m": 5000.0}],
        **more,
    }
    holdings = Holdings([Place.at(10.0, 20.01)])
    (change,) = holdings.take_alert(alert, NOW)
    return change_line(change, holdings, NOW).plain


def test_line_shows_what_where_and_how_long():
    """The distance is computed by the client."""
    assert shown() == (
        "new            SEVERE Arson: Fire set on purpose"
        "  [inside, 1.1 km from the centre; 2 min 05 s left; revision 2]"
    )


def test_instruction_and_host_of_a_link_are_shown_below():
    """The text is plain, and the full URL is not shown because it may contain any text (rule C9)."""
    warning = {"instruction": "Go  inside.\nStay\x1b[2J there.", "web": "https://weather.example:8443/x?y=\u202e"}
    assert details(warning).plain.split("\n") == [
        "",
        "               Go inside. Stay\ufffd[2J there.",
        "               more at weather.example",
    ]
    assert details({"headline": "x"}).plain == ""


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://w.example", "w.example"),
        ("HTTPS://W.Example./a", "w.example."),
        ("https://good.example@evil.example/", "evil.example"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("https://[::1]:5/", "::1"),
        ("javascript:alert(1)", None),
        ("https://", None),
        ("https://[", None),
        ("https://" + "x" * 64 + ".example", None),
        ("w.example", None),
        (5, None),
        (None, None),
    ],
)
def test_host_of_a_url_is_the_one_to_be_contacted(url, host):
    """Text before an @ is ignored, and look-alike letters are shown in Punycode (rule C9)."""
    assert host_of(url) == host


def test_table_lists_alerts_inside_first_then_by_end():
    """Each row has the place, the time left and the revision."""
    holdings = Holdings([Place.at(10.0, 20.0)])
    for name, minutes, lat in (("far", 1, 11.0), ("late", 30, 10.0), ("soon", 2, 10.0)):
        alert = {"id": name, "revision": 3, "category": "arson", "headline": name, "severity": "severe"}
        area = [{"type": "circle", "lat": lat, "lng": 20.0, "radius_m": 5000.0}]
        holdings.take_alert({**alert, "expires_at": format_time(NOW + minutes * 60_000), "area": area}, NOW)
    console = make_console()
    with console.capture() as capture:
        console.print(held_table(holdings, "connected", NOW))
    head, *rows, status = [line for line in capture.get().splitlines() if line.strip()]
    assert head.split() == ["alert", "where", "left", "rev"]
    assert [row.split()[2] for row in rows] == ["soon", "late", "far"]
    assert rows[0].split()[-1] == "3"
    assert [next(word for word in row.split() if "side" in word).strip(",") for row in rows] == [
        "inside",
        "inside",
        "outside",
    ]
    assert status.strip() == "connected"


@pytest.mark.parametrize("text", ["", "7", '{"a": 1}', "[1]", '[{"alert": {}}]'])
def test_foreign_file_is_refused_and_unchanged(tmp_path, text):
    """The file may contain a person's data."""
    path = tmp_path / "held.json"
    path.write_text(text)
    result = run("listen", "--lat", "1", "--lng", "2", "--held", str(path))
    assert result.exit_code == 2
    assert "does not hold what" in result.output
    assert path.read_text() == text


@pytest.mark.parametrize("status", ["exercise", "test"])
def test_exercise_and_test_are_marked(status):
    """The duty is in the protocol's section on clients."""
    assert f"[{status.upper()}] SEVERE Arson" in shown(status=status)


def test_untrusted_text_is_shown_as_plain_text():
    """Markup, control codes and direction overrides have no effect."""
    assert "[red]x[/red]" in shown(headline="[red]x[/red]")
    assert plain("a\x1b[31mb\u202ec\x07\n") == "a�[31mb�c��"
    assert alert_line({"severity": "minor", "category": "arson", "headline": "x\x1b[2J"}) == "MINOR arson: x�[2J"


@pytest.mark.parametrize("width", [80, 132])
def test_verdict_keeps_its_numbers_in_a_narrow_terminal(width):
    """The headlines are shortened. The times are that until the answer, and those from then to the deliveries."""
    item = Published("a", 1, [], 0, 4_000_000, "vehicle_break_in_theft", "A headline that is rather long " * 4)
    console = make_console()
    console.width = width
    with console.capture() as capture:
        console.print(verdict_table([Row(item, 9, 1234, 1234, 0, 5, 6, [5.0, 6.0, 304.0])], width))
    lines = capture.get().rstrip().split("\n")
    assert {"expected", "delivered", "outside", "missed"} <= set(" ".join(lines[:-1]).split())
    words = lines[-1].split()
    assert {"1", "1234", "0", "5", "4.0", "300.0"} <= set(words)
