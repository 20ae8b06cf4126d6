"""Tests of the benchmarks' arithmetic and files, and one small run of several benchmarks from end to end."""

import io
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

pytest.importorskip("hdrh", reason="needs requirements/bench.txt")
pytest.importorskip("matplotlib", reason="needs requirements/bench.txt")

from support.redis_server import needs_redis

from bench import machine, oceans, places, results, stats, summary
from bench.cli import BENCHES, cli
from bench.clients.websocket import masked, unmasked
from bench.peers.base import Payload, alert_id
from bench.results import BEGIN, END, Result, Table, between_markers, number, parameters_of
from bench.scenarios import calls, push
from geocast.geometry.sphere import distance_m


def test_summary_has_percentiles_and_maximum():
    found = stats.summary(range(1, 101))
    assert found["p50"] == 50.5
    assert found["p99"] == pytest.approx(99.01)
    assert found["max"] == 100


def test_summary_of_no_values_is_zero():
    assert set(stats.summary([]).values()) == {0.0}
    assert stats.median([]) == 0.0
    assert stats.ratio(1.0, 0.0) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.5, "1.5"), (123.4, "123"), (1234567, "1,230,000"), (None, "–")],
)
def test_number_is_shown_with_three_significant_digits(value, text):
    assert number(value) == text


def test_only_text_between_markers_is_replaced():
    """Replacing the text a second time changes nothing."""
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = between_markers(text, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert between_markers(once, "new") == once


def test_text_without_markers_is_refused():
    with pytest.raises(ValueError, match="results: begin"):
        between_markers("no markers here", "new")


def test_table_renders_as_markdown_and_on_screen():
    """In Markdown, a bar in a cell is escaped."""
    table = Table("title", ("", "a|b"), [["x", "1"]], ["a note"])
    assert "| x | 1 |" in table.markdown()
    assert "a\\|b" in table.markdown()
    assert table.markdown().endswith("- a note\n")
    assert table.for_screen(80).row_count == 1


def test_table_that_is_too_wide_for_the_screen_has_the_measures_in_rows():
    """No figure is cut, as it would be in 80 columns (rich cuts what does not fit)."""
    columns = ("", *(f"measure number {n}" for n in range(9)))
    table = Table("title", columns, [["now", *(f"{n},123.45 ms" for n in range(9))]])
    console = Console(file=io.StringIO(), width=80)
    console.print(table.for_screen(80))
    shown = console.file.getvalue()
    assert all(text in shown for n in range(9) for text in (f"measure number {n}", f"{n},123.45 ms"))
    assert table.for_screen(80).row_count == 9


def test_benchmark_pages_match_saved_results():
    """README.md and tables.md equal the output of `python -m bench table` for bench/results."""
    paths = (results.FOLDER / f"{name}.json" for name in BENCHES)
    found = [Result.load(path) for path in paths if path.exists()]
    tables = [BENCHES[each.name].table(each) for each in found]
    for page, made in ((results.README, summary.markdown), (results.TABLES, results.markdown)):
        text = page.read_text("utf-8")
        assert between_markers(text, made(found, tables)) == text


@pytest.mark.parametrize(
    ("goal", "values", "missed"),
    [
        ("", [7], False),
        ("≤ 1,000", [1_000.4, 3], False),
        ("≤ 1,000", [3, 1_010], True),
        ("≥ 99.9", [99.9], False),
        ("≥ 99.9", [100, 99.8], True),
        ("0", [0, 0], False),
        ("0", [0, 1], True),
    ],
)
def test_summary_row_gives_reason_only_when_goal_is_missed(goal, values, missed):
    """Values are compared as they are shown, and each value must reach the goal."""
    assert ("the reason" in summary.Figure("what", values, goal, "the reason").row()) is missed


def test_saved_result_loads_without_secrets(tmp_path):
    result = Result("some", parameters_of({"vs": ("raw",), "publish_token": "secret"}), {"x": [1.5, "µ"]})
    path = result.save(tmp_path)
    assert Result.load(path) == result
    assert "secret" not in path.read_text("utf-8")
    assert result.machine["cores"] >= 1
    assert result.versions["python"]


def test_places_marked_inside_are_within_radius():
    """The other places are far away, and `nearest` sorts by distance."""
    found = places.around(200, 5_000.0, share=0.25)
    distances = np.array([distance_m(*places.CENTRE, *found.to_map(at).values()) for at in range(200)])
    assert found.inside.sum() == 50
    assert (distances[found.inside] <= 5_050).all()
    assert (distances[~found.inside] > 1_000_000).all()
    assert (np.diff(distances[found.nearest(50)]) >= 0).all()


def test_payloads_differ_only_in_alert_number():
    """All payloads have the same size, as the frames of one alert do."""
    payload = Payload(b'{"id":"' + alert_id(7).encode() + b'"}', alert_id(7))
    assert payload.of(12) == b'{"id":"bench-0000012"}'
    assert len(payload) == len(payload.of(9_999_999))


@pytest.mark.parametrize(("size", "head"), [(5, 2), (126, 4), (65_536, 10)])
def test_length_of_frame_head_depends_on_payload_size(size, head):
    """The length of the head follows RFC 6455, 5.2."""
    assert len(unmasked(b"x" * size)) == head + size
    assert len(masked(b"x" * size)) == head + 4 + size


def test_every_subcommand_has_help():
    """Parameters for `all --short` must be options of the subcommand."""
    for name, bench in BENCHES.items():
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert bench.short.keys() <= {each.name for each in cli.commands[name].params}


def test_unknown_benchmark_peer_is_refused_with_list_of_peers():
    result = CliRunner().invoke(cli, ["fanout", "--vs", "raw,other"])
    assert result.exit_code == 2
    assert "choose from raw" in result.output


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")
def test_small_run_of_fanout_benchmark_writes_result_and_plot(tmp_path):
    """The run has 20 sessions, half of them inside the area, and is compared with a bare send loop."""
    options = "--sessions 20 --share 0.5 --rounds 2 --vs raw --deliveries-per-s 100 --seconds 0.5 --flat-out 2"
    cores_before = machine.cores()
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "fanout", *options.split()])
    assert result.exit_code == 0, result.output
    found = Result.load(tmp_path / "fanout.json")
    ours, raw = found.found["systems"]["geocast"], found.found["systems"]["raw"]
    assert ours["recipients"] == raw["recipients"] == 10
    assert ours["cpu_us"] > raw["cpu_us"] > 0
    assert ours["first_ms"] <= ours["last_ms"]
    assert (tmp_path / "fanout.png").stat().st_size > 1_000
    assert machine.cores() == cores_before


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="needs a C compiler")
def test_small_run_of_calls_benchmark_reaches_all_waves(tmp_path, monkeypatch):
    """Everybody in the first wave gets each call, the last wave comes in time, and all durations are positive."""
    small = {
        "IDLE_S": 0.2,
        "SETTLE_S": 0.0,
        "LAST_RING_ROUNDS": 1,
        "SEALINGS": 100,
        "VISITS": 5,
        "BURST": 5,
        "LISTS": 1,
    }
    for name, value in small.items():
        monkeypatch.setattr(calls, name, value)
    options = "--sessions 20 --rounds 4 --opened 2 --no-redis"
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "calls", *options.split()])
    assert result.exit_code == 0, result.output
    found = Result.load(tmp_path / "calls.json").found
    of_sqlite = found["stores"]["SQLite"]
    assert of_sqlite["missing"] == 0
    assert 0 < of_sqlite["accept_ms"]["p50"] <= of_sqlite["accept_ms"]["max"]
    assert of_sqlite["last_ring_ms"]["max"] > 200 * (len(calls.RINGS_M) - 1)
    assert of_sqlite["list"]["busy"]["took"]["max"] > 0
    assert min(found["open"]["2"][of] for of in ("visit_with", "visit_without", "move_with", "move_without")) > 0


def test_small_run_of_push_benchmark_misses_no_device(tmp_path, monkeypatch):
    """Every device gets the push despite a hanging service and two kills."""
    monkeypatch.setattr(push, "URGENT_ROUNDS", 1)
    options = "--devices 20 --rounds 1 --many 10"
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "push", *options.split()])
    assert result.exit_code == 0, result.output
    found = Result.load(tmp_path / "push.json").found
    assert found["cpu_us"] > 0
    assert found["soon_ms"]["p50"] == found["last_ms"]["p50"] > 0
    assert all(abs(found[key]["max"]) < 60_000 for key in ("urgent_ms", "hanging_ms"))  # below 0: before the 201
    assert (found["killed"]["missed"], found["killed"]["without_cancel"]) == (0, 0)
    assert found["many"]["ready_s"] > 0


@needs_redis
def test_small_run_of_readers_benchmark_misses_no_entry(tmp_path):
    """Three readers get everything that is appended, and Redis reports CPU and bytes for it."""
    options = "--readers 3 --rates 20 --replicas 0,1 --seconds 1"
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "readers", *options.split()])
    assert result.exit_code == 0, result.output
    stretches = Result.load(tmp_path / "readers.json").found["stretches"]
    assert [(it["replicas"], it["rate"]) for it in stretches] == [(0, 0), (0, 20), (1, 0), (1, 20)]
    for idle, busy in (stretches[:2], stretches[2:]):
        assert busy["missing"] == 0
        assert busy["read_ms"]["max"] > 0
        assert busy["cpu_us_per_append"] > 0
        assert busy["bytes_per_s"] > idle["bytes_per_s"]


def test_plan_uses_results_of_named_benches_and_grows_with_sessions(tmp_path):
    """Each coefficient is named with its bench and date, and replicas relieve the primary."""
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "plan", "--sessions", "3e6"])
    assert result.exit_code == 0, result.output
    found = Result.load(tmp_path / "plan.json").found
    assert [note.split("`")[1] for note in found["notes"]] == ["many", "growth", "storm", "idle", "fanout", "readers"]
    assert [row["sessions"] for row in found["rows"]] == [1e4, 1e5, 1e6, 3e6, 1e7, 1e8, 1e9]
    for key in ("processes", "cores", "memory_gib", "primary", "primary_alone"):
        values = [row[key] for row in found["rows"]]
        assert values == sorted(values), key
    assert all(row["primary"] < row["primary_alone"] for row in found["rows"][2:])
    assert list(found["limits"].values()) == sorted(found["limits"].values())


@needs_redis
@pytest.mark.skipif(oceans.missing() is not None, reason=str(oceans.missing()))
def test_small_run_of_regions_benchmark_tells_everybody_after_cut_and_death(tmp_path):
    """Sessions stay connected, and publishers beyond the cut get 503."""
    options = "--rounds 3 --cut-s 3 --near-ms 10 --far-ms 30"
    result = CliRunner().invoke(cli, ["--results", str(tmp_path), "regions", *options.split()])
    assert result.exit_code == 0, result.output
    found = Result.load(tmp_path / "regions.json").found
    assert found["told"]["b"]["p50"] >= 0
    assert (found["cut"]["closed"], found["dead"]["closed"]) == (0, 0)
    assert "201" in found["cut"]["statuses"]["a"]
    assert "503" in found["cut"]["statuses"]["c"]
