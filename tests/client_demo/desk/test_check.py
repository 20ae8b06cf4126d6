"""What `feed-check` says of a feed: counts that add up, and nothing private."""

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


def test_rows_incidents_and_what_they_mean_add_up():
    """Every incident has a meaning or is listed as one without."""
    found = report(read_records(SAMPLE.name, feed_text(SAMPLE)))
    assert (found.rows, found.empty, found.incidents) == (101, 0, 43)
    listed = sum(count for _, count in found.unlisted)
    assert sum(meaning.incidents for meaning in found.meanings) + listed == found.incidents
    assert found.unlisted == [("Noise, fireworks", 1)]


def test_what_rows_lack_is_counted_with_its_reason():
    """A time that can't be read is told by its shape: it may be an address that was taken for one."""
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
        "with a place that is none: half of one, 0/0, or beyond 90 and 180 degrees": 2,
        "without a place": 1,
        "without a number": 1,
        "without a nature": 1,
    }
    assert (found.rows, found.empty, found.incidents) == (5, 1, 4)


def test_natures_without_a_category_come_most_frequent_first():
    """With what is private in them taken out."""
    rows = [f"{n},2025-01-02T03:04:05Z,Flood,1,2,,," for n in range(3)]
    found = said(*rows, "9,2025-01-02T03:04:05Z,Row at 12 Elm Street,1,2,,,")
    assert found.unlisted == [("Flood", 3), ("Row at", 1)]


def test_a_category_that_may_be_misspelt_is_questioned(tmp_path):
    """The node would refuse each of its alerts, and nobody would know why."""
    path = tmp_path / "feed.toml"
    path.write_text(
        'title = "x"\nnature = "nature"\ntime = { column = "reported_at", format = "iso", zone = "UTC" }\n'
        '[categories]\n"Arson" = "arsen"\n"Medical, fall" = "medical"\n"Shoplifting" = "theft"\n'
    )
    result = checked(SAMPLE, "--feed-format", path)
    assert result.exit_code == 0
    for line in (
        'arsen .* not known here: did you mean "arson"\\?',
        "medical .* kept back, concerns an individual",
        "theft .* as the node's policy says",
        "place .* not described: each incident has to be placed by hand",
    ):
        assert re.search(line, result.output), line


def test_columns_that_are_not_described_are_named():
    """Reviewers see them; somebody has to know that they are harmless."""
    assert said("1,2025-01-02T03:04:05Z,Arson,1,2,a,b,c").others == ["remark"]


def test_the_box_and_the_times_hold_all_incidents_and_tell_no_place():
    """To a kilometre, outwards; one incident alone is somewhere in it."""
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
    """Of none of its records: no address, no number, no exact place."""
    path = dispatch(name)
    result = checked(path)
    assert result.exit_code == 0, result.output
    values = {row[column] for row in csv.DictReader(StringIO(feed_text(path))) for column in PRIVATE[name]}
    printed = set(re.split(r"\s{2,}|[│:]\s*", result.output))
    assert not [value for value in values if len(value) > 5 and value in result.output]
    assert not printed & {value for value in values if len(value) > 3}
    assert all(f"[{what}]" in result.output for what in (ADDRESS, UNITS if "desc" not in name else CASE))


def test_what_cannot_be_checked_is_told_in_one_line(tmp_path):
    """A feed that nobody knows, with the columns that it has."""
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
