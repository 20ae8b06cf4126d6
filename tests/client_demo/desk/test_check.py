"""Tests of the `feed-check` command: its counts add up, and it prints nothing private."""

import csv
import re
from io import StringIO

import pytest
from click.testing import CliRunner
from support.real_data import dispatch

from client_demo.desk.check import report
from client_demo.desk.feed_format import ADDRESS, CASE, UNITS
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.terminal.cli import main

HEAD = "incident,reported_at,nature,lat,lng,address,unit,remark"


def said(*rows, head=HEAD):
    return report(read_records("feed.csv", "\n".join([head, *rows])))


def checked(*arguments):
    return CliRunner().invoke(main, ["feed-check", *map(str, arguments)])


def test_counts_of_rows_incidents_and_categories_add_up():
    """Every incident has a category or is listed without one."""
    found = report(read_records(SAMPLE.name, feed_text(SAMPLE)))
    assert (found.rows, found.empty, found.incidents) == (101, 0, 43)
    listed = sum(count for _, count in found.unlisted)
    assert sum(meaning.incidents for meaning in found.meanings) + listed == found.incidents
    assert found.unlisted == [("Noise, fireworks", 1)]


def test_rows_with_gaps_are_counted_by_reason():
    """An unreadable time is printed as a pattern of its characters, because it may be an address."""
    found = said(
        "1,2025-01-02T03:04:05Z,Arson,1,2,,,",
        "2,,Arson,0,0,,,",
        "3,12 Elm St,Arson,95,2,,,",
        ",2025-01-02T03:04:05Z,,,,,,",
        ",,,,,,,x",
    )
    assert dict(found.gaps) == {
        "without a time": 1,
        "with a time in another form than described: 00 aaa aa": 1,
        "with an invalid place: only one coordinate, 0/0, or beyond 90 and 180 degrees": 2,
        "without a place": 1,
        "without a number": 1,
        "without a nature": 1,
    }
    assert (found.rows, found.empty, found.incidents) == (5, 1, 4)


def test_unlisted_natures_are_sorted_by_frequency():
    """Private parts of a nature are removed."""
    rows = [f"{n},2025-01-02T03:04:05Z,Flood,1,2,,," for n in range(3)]
    found = said(*rows, "9,2025-01-02T03:04:05Z,Row at 12 Elm Street,1,2,,,")
    assert found.unlisted == [("Flood", 3), ("Row at", 1)]


def test_misspelt_category_gets_a_suggestion(tmp_path):
    """Otherwise the node would refuse each of its alerts."""
    path = tmp_path / "feed.toml"
    path.write_text(
        'title = "x"\nnature = "nature"\ntime = { column = "reported_at", format = "iso", zone = "UTC" }\n'
        '[categories]\n"Arson" = "arsen"\n"Medical, fall" = "medical"\n"Shoplifting" = "theft"\n'
    )
    result = checked(SAMPLE, "--feed-format", path)
    assert result.exit_code == 1
    for line in (
        'arsen .* not known here: did you mean "arson"\\?',
        "medical .* kept back, concerns an individual",
        "theft .* as the node's policy says",
        "place .* not described: each incident has to be placed by hand",
        "^error: these categories may be misspelt: arsen$",
    ):
        assert re.search(line, result.output, re.MULTILINE), line


def test_undescribed_columns_are_listed():
    """Reviewers see these columns, so somebody must check that they are harmless."""
    assert said("1,2025-01-02T03:04:05Z,Arson,1,2,a,b,c").others == ["remark"]


def test_bounding_box_is_rounded_outwards_and_reveals_no_place():
    """The box is rounded to 0.01 degrees, about a kilometre."""
    found = said("1,2025-01-02T03:04:05Z,Arson,-1.23456,2.34567,,,")
    assert found.box == (-1.24, 2.34, -1.23, 2.35)
    assert found.times[0] == found.times[1]
    assert said("1,,Arson,,,,,").box is None


PRIVATE = {
    "dallas_active_calls.csv": ("location", "incident_number", "unit_number"),
    "montgomery_pa_911.csv": ("addr", "lat", "lng"),
    "sf_fire_calls.csv": ("Address", "Location", "IncidentNumber", "UnitID"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_nothing_private_of_a_real_feed_is_printed(name):
    """No address, number or exact place of any record appears in the output."""
    path = dispatch(name)
    result = checked(path)
    assert result.exit_code == 0, result.output
    values = {row[column] for row in csv.DictReader(StringIO(feed_text(path))) for column in PRIVATE[name]}
    printed = set(re.split(r"\s{2,}|[│:]\s*", result.output))
    assert not [value for value in values if len(value) > 5 and value in result.output]
    assert not printed & {value for value in values if len(value) > 3}
    assert all(f"[{what}]" in result.output for what in (ADDRESS, UNITS if "desc" not in name else CASE))


def test_unusable_feed_is_refused_in_one_line(tmp_path):
    """For an unknown feed the line names its columns."""
    unknown = tmp_path / "calls.csv"
    unknown.write_text("what,when\nFire,now\n")
    for arguments, line in (
        ([tmp_path / "absent.csv"], "can't be read"),
        ([unknown], "describe it in a file, and give that with --feed-format. Its columns: what, when"),
        ([SAMPLE, "--feed-format", tmp_path / "absent.toml"], "absent.toml can't be read"),
        (["ftp://x/y"], "has to begin with https:// or http://"),
    ):
        result = checked(*arguments)
        assert (result.exit_code, result.output.count("\n")) == (2, 1), result.output
        assert line in result.output
