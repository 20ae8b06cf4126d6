"""Tests of docs/deploy/geocast.rules.yml: Prometheus accepts the rules, and each fires exactly when it should.

`promtool test rules` evaluates half an hour of two healthy nodes, and for each alert a case in which some series
differ. (end_to_end/deploy/test_deployed_redis.py tests on real nodes that the metrics in the rules exist.)
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

RULES = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "geocast.rules.yml"
NAMES = re.findall(r"- alert: (\w+)", RULES.read_text("utf-8"))

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (prometheus)")

ROOT = RULES.parents[2]
PAGE = (ROOT / "docs" / "operations" / "monitoring.md").read_text("utf-8")
[SCRAPED] = re.findall(r"^```yaml\n(rule_files.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

MINUTES = 32
BREAKS = 16  # the minute in which the fault of a case begins
STEPS = 2 * MINUTES  # of 30 s


def steady(value):
    """Return the values of a gauge that does not change."""
    return f"{value}x{STEPS}"


def rising(by):
    """Return the values of a counter that grows by `by` every 30 s."""
    return f"0+{by}x{STEPS}"


def then(before, after, by=0, rises=0):
    """Return values that change by `rises` from `before` on, and from minute BREAKS on by `by` from `after` on."""
    head = 2 * BREAKS - 1
    return f"{before}+{rises}x{head} {after}+{by}x{STEPS - head}"


def of_node(name, **labels):
    """Return the name of a series of a node."""
    labels = {"job": "geocast"} | labels
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"


def a(name, **labels):
    """Return the name of a series of the first node."""
    return of_node(name, instance="a", **labels)


def of_push(name, **labels):
    """Return the name of a series of the push process."""
    return of_node(name, job="geocast-push", instance="p", **labels)


def of_fetch(name, **labels):
    """Return the name of a series of the fetch process."""
    return of_node(name, job="geocast-fetch", instance="f", **labels)


def of_relay(name, **labels):
    """Return the name of a series of the relay."""
    return of_node(name, job="geocast-relay", instance="r", **labels)


def healthy():
    """Return the series of two healthy nodes with a thousand sessions each, for half an hour."""
    series = {}
    for instance in ("a", "b"):
        for name, values in {
            "up": steady(1),
            "geocast_ready": steady(1),
            "geocast_stream_processes_missing": steady(0),
            "geocast_stream_restarts_total": steady(0),
            "process_start_time_seconds": steady(1),
            "geocast_log_silence_seconds": steady(0.5),
            "geocast_log_epoch": steady(7),
            "geocast_log_sequence": rising(1),
            "geocast_log_applied_total": rising(1),
            "geocast_log_quarantined_total": steady(0),
            "geocast_log_entries_failed_total": steady(0),
            "geocast_sending_failures_total": steady(0),
            "geocast_break_glass_total": steady(0),
            "geocast_log_rewinds_total": steady(0),
            "geocast_log_put_back_total": steady(0),
            "geocast_log_conflicts_total": steady(0),
            "geocast_redis_memory_bytes": steady(100),
            "geocast_redis_max_memory_bytes": steady(1000),
            "geocast_redis_replicas": steady(2),
            "geocast_publish_to_last_write_seconds_count": rising(1),
            "geocast_oldest_flight_seconds": steady(0),
            "geocast_loop_lag_seconds_count": rising(600),
            "geocast_clock_steps_total": steady(0),
            "geocast_calls_unanswered": steady(0),
            "geocast_calls_degraded": steady(0),
            "geocast_call_unsealed_failed_total": steady(0),
            "geocast_sessions": steady(1000),
            "geocast_connections": steady(1000),
            "geocast_capacity": steady(2000),
            "geocast_slow_sessions": steady(5),
            "geocast_sends_total": rising(400),
        }.items():
            series[of_node(name, instance=instance)] = values
        series[of_node("geocast_accepted_total", instance=instance, kind="alert")] = rising(0.5)
        series[of_node("geocast_log_read_lag_seconds", instance=instance, server="primary")] = steady(0)
        series[of_node("geocast_reloads_total", instance=instance, result="failed")] = steady(0)
        series[of_node("geocast_key_fetches_total", instance=instance, result="failed")] = steady(0)
        series[of_node("geocast_keys_fetched_timestamp_seconds", instance=instance)] = f"0+30x{STEPS}"
        series[of_node("geocast_log_untrusted_total", instance=instance, reason="unsigned")] = steady(0)
        series[of_node("geocast_task_failures_total", instance=instance, task="counts")] = steady(0)
        for file in ("keys", "revoked", "policy"):
            series[of_node("geocast_settings_digest", instance=instance, file=file)] = steady(123456789012345)
        for slug in ("internal", "log-unavailable", "unauthorized", "insufficient-scope"):
            series[of_node("geocast_refused_total", instance=instance, type=slug)] = steady(0)
        for le in ("0.5", "2", "5", "+Inf"):
            series[of_node("geocast_publish_to_last_write_seconds_bucket", instance=instance, le=le)] = rising(1)
        series[of_node("geocast_loop_lag_seconds_bucket", instance=instance, le="0.1")] = rising(599)
        for le in ("0.1", "0.5", "1", "+Inf"):
            series[of_node("geocast_append_seconds_bucket", instance=instance, le=le)] = rising(9)
        series[of_node("geocast_closes_total", instance=instance, code="4401")] = rising(1)
    for name, labels, values in (
        ("up", {}, steady(1)),
        ("geocast_push_ready", {}, steady(1)),
        ("geocast_push_shards", {}, steady(64)),
        ("geocast_push_total", {"outcome": "sent"}, rising(100)),
        ("geocast_push_total", {"outcome": "refused"}, steady(0)),
        ("geocast_push_lane_open", {"service": "push.example"}, steady(1)),
        ("geocast_push_unrecorded_total", {}, steady(0)),
        ("geocast_push_set_aside", {}, steady(0)),
        ("process_start_time_seconds", {}, steady(1)),
        ("geocast_push_restarts_total", {}, steady(0)),
    ):
        series[of_push(name, **labels)] = values
    series[of_fetch("up")] = series[of_fetch("geocast_fetch_ready")] = steady(1)
    for name in ("geocast_fetch_overdue", "geocast_fetch_waiting"):
        series[of_fetch(name, feed="met")] = steady(0)
    for name, labels, values in (
        ("up", {}, steady(1)),
        ("geocast_relay_ready", {}, steady(1)),
        ("geocast_relay_pending_seconds", {"target": "siren"}, steady(1)),
        ("geocast_relay_gone", {"target": "siren"}, steady(0)),
        ("geocast_relay_missed_total", {"target": "siren"}, steady(0)),
    ):
        series[of_relay(name, **labels)] = values
    series['node_timex_offset_seconds{instance="a"}'] = steady(0.001)
    series['node_timex_sync_status{instance="a"}'] = steady(1)
    series['probe_ssl_earliest_cert_expiry{job="geocast-tls",instance="a"}'] = steady(9_000_000)
    return series


def both(name, values, **labels):
    """Return the same series for both nodes."""
    return {of_node(name, instance=instance, **labels): values for instance in ("a", "b")}


def slower():
    """Return series in which every alert takes between 2 and 5 s on the first node."""
    name = "geocast_publish_to_last_write_seconds_bucket"
    stuck = then(0, 2 * BREAKS, rises=1)
    return {a(name, le=le): stuck for le in ("0.5", "2")}


# For each alert: the series that differ from those of healthy nodes, and other alerts that fire as well.
CASES = {
    "GeocastDown": ({a("up"): then(1, 0)}, ()),
    "GeocastNoNodeReady": (both("geocast_ready", then(1, 0)), ("GeocastNotReady",)),
    "GeocastNotReady": ({a("geocast_ready"): then(1, 0)}, ()),
    "GeocastStreamProcessMissing": ({a("geocast_stream_processes_missing"): then(0, 1)}, ()),
    "GeocastRestarting": ({a("geocast_stream_restarts_total"): then(0, 1, by=0.2)}, ()),
    "GeocastInternalErrors": ({a("geocast_refused_total", type="internal"): then(0, 1)}, ()),
    "GeocastTaskFails": ({a("geocast_task_failures_total", task="counts"): then(0, 1)}, ()),
    "GeocastEntryFailed": ({a("geocast_log_entries_failed_total"): then(0, 1)}, ()),
    "GeocastSendingFails": ({a("geocast_sending_failures_total"): then(0, 1)}, ()),
    "GeocastReloadFailed": ({a("geocast_reloads_total", result="failed"): then(0, 1)}, ()),
    "GeocastUntrusted": ({a("geocast_log_untrusted_total", reason="unsigned"): then(0, 1)}, ()),
    "GeocastBreakGlass": ({a("geocast_break_glass_total"): then(0, 1)}, ()),
    "GeocastKeysStale": (
        {
            a("geocast_key_fetches_total", result="failed"): then(0, 1, by=1),
            a("geocast_keys_fetched_timestamp_seconds"): f"0x{STEPS}",
        },
        (),
    ),
    "GeocastSettingsDiffer": ({a("geocast_settings_digest", file="keys"): steady(123456789012346)}, ()),
    "GeocastLogWritesFail": ({a("geocast_refused_total", type="log-unavailable"): then(0, 1, by=1)}, ()),
    "GeocastDeaf": ({a("geocast_log_silence_seconds"): then(0.5, 1, by=30)}, ()),
    "GeocastReplicaBehind": ({a("geocast_log_read_lag_seconds", server="primary"): then(0, 1.5)}, ()),
    "GeocastBehind": ({a("geocast_log_sequence"): then(0, 2 * BREAKS, rises=1)}, ()),
    "GeocastHistoriesDiffer": ({a("geocast_log_epoch"): then(7, 8)}, ()),
    "GeocastNothingApplied": ({a("geocast_log_applied_total"): then(0, 2 * BREAKS, rises=1)}, ()),
    "GeocastQuarantined": ({a("geocast_log_quarantined_total"): then(0, 1)}, ()),
    "GeocastHistoryRewound": ({a("geocast_log_rewinds_total"): then(0, 1)}, ()),
    "GeocastPutBack": ({a("geocast_log_put_back_total"): then(0, 3)}, ()),
    "GeocastConflicts": ({a("geocast_log_conflicts_total"): then(0, 1)}, ()),
    "GeocastRedisMemory": (both("geocast_redis_memory_bytes", then(100, 850)), ()),
    "GeocastRedisReplicas": (both("geocast_redis_replicas", then(2, 0)), ()),
    "GeocastDeliverySlow": (slower(), ()),
    "GeocastFanOutStuck": ({a("geocast_oldest_flight_seconds"): then(0, 1, by=30)}, ()),
    "GeocastLoopLag": (
        {a("geocast_loop_lag_seconds_bucket", le="0.1"): then(0, 599 * 2 * BREAKS, by=400, rises=599)},
        (),
    ),
    "GeocastSlowLog": (
        {a("geocast_append_seconds_bucket", le=le): then(0, 18 * BREAKS, by=8, rises=9) for le in ("0.1", "0.5")},
        (),
    ),
    "GeocastSlowSessions": ({a("geocast_slow_sessions"): then(5, 60)}, ()),
    "GeocastNobodyTold": (both("geocast_sends_total", steady(0)), ()),
    "GeocastSessionsGone": (both("geocast_sessions", then(1000, 400)), ()),
    "GeocastNearlyFull": ({a("geocast_connections"): then(1000, 1700)}, ()),
    "GeocastHandshakesRefused": ({a("geocast_handshakes_refused_total", status="503"): then(0, 40, by=60)}, ()),
    "GeocastTokensRefused": (both("geocast_closes_total", then(0, 100, by=40), code="4401"), ()),
    "GeocastPublishersRefused": ({a("geocast_refused_total", type="unauthorized"): then(0, 1, by=1)}, ()),
    "GeocastCallUnanswered": ({a("geocast_calls_unanswered"): then(0, 1)}, ()),
    "GeocastCallsDegraded": ({a("geocast_calls_degraded"): then(0, 1)}, ()),
    "GeocastCallsSealed": ({a("geocast_call_unsealed_failed_total"): then(0, 1)}, ()),
    "GeocastClockSet": ({a("geocast_clock_steps_total"): then(0, 1)}, ()),
    "GeocastPushNotReady": ({of_push("geocast_push_ready"): then(1, 0)}, ()),
    "GeocastPushShards": ({of_push("geocast_push_shards"): then(64, 32)}, ()),
    "GeocastPushRefused": ({of_push("geocast_push_total", outcome="refused"): then(0, 1, by=2)}, ()),
    "GeocastPushLaneClosed": ({of_push("geocast_push_lane_open", service="push.example"): then(1, 0)}, ()),
    "GeocastPushSetAside": ({of_push("geocast_push_set_aside"): then(0, 1)}, ()),
    "GeocastRelayNotReady": ({of_relay("geocast_relay_ready"): then(1, 0)}, ()),
    "GeocastRelayTargetBehind": ({of_relay("geocast_relay_pending_seconds", target="siren"): then(1, 61, by=30)}, ()),
    "GeocastRelayTargetGone": ({of_relay("geocast_relay_gone", target="siren"): then(0, 1)}, ()),
    "GeocastRelayMissed": ({of_relay("geocast_relay_missed_total", target="siren"): then(0, 1, by=1)}, ()),
    "GeocastPushUnrecorded": ({of_push("geocast_push_unrecorded_total"): then(0, 1, by=1)}, ()),
    "GeocastFetchNotReady": ({of_fetch("geocast_fetch_ready"): then(1, 0)}, ()),
    "GeocastFetchFeedFails": ({of_fetch("geocast_fetch_overdue", feed="met"): then(0, 1)}, ()),
    "GeocastFetchWaiting": ({of_fetch("geocast_fetch_waiting", feed="met"): then(0, 3)}, ()),
    "GeocastClockOff": ({'node_timex_sync_status{instance="a"}': then(1, 0)}, ()),
    "GeocastCertificateEnds": (
        {'probe_ssl_earliest_cert_expiry{job="geocast-tls",instance="a"}': steady(10 * 86_400)},
        (),
    ),
}


def firing(at_minutes, names):
    """Return a promtool check that exactly these alerts fire at this minute."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
    expr = 'sum by (alertname) (ALERTS{alertstate="firing"}) > bool 0'
    return [{"expr": expr, "eval_time": f"{at_minutes}m", "exp_samples": samples}]


def promtool(*arguments):
    """Run promtool and return the ended process."""
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def check(tmp_path, series, at_minutes, names):
    """Fail unless exactly these alerts fire, according to promtool."""
    case = {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": firing(at_minutes, ["GeocastWatchdog", *names]),
    }
    path = tmp_path / "case.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules():
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_rule_has_a_test_case():
    """For each rule there is a case in which it fires; the watchdog always fires."""
    assert set(CASES) == set(NAMES) - {"GeocastWatchdog"}


def test_every_alert_rule_is_documented_in_monitoring_page():
    """The page monitoring.md names every alert, and says how many rules there are."""
    text = (RULES.parents[1] / "operations" / "monitoring.md").read_text("utf-8")
    assert [name for name in NAMES if f"`{name}`" not in text] == []
    assert f"{len(NAMES)} rules" in text


def test_no_alert_fires_for_healthy_nodes(tmp_path):
    """The only exception is the watchdog, which always fires."""
    check(tmp_path, healthy(), MINUTES, [])


@pytest.mark.parametrize("name", ["process_start_time_seconds", "geocast_push_restarts_total"])
def test_repeated_restarts_of_push_process_fire_alert_geocast_restarting(tmp_path, name):
    """The rule for nodes also covers the push process and its workers."""
    check(tmp_path, healthy() | {of_push(name): then(1, 2, by=1)}, MINUTES, ["GeocastRestarting"])


@pytest.mark.parametrize("name", CASES)
def test_each_alert_rule_fires_for_the_fault_of_its_test_case(name, tmp_path):
    """Only the alerts that the case lists fire. They are checked 14 or 5 minutes after the fault."""
    changed, beside = CASES[name]
    series = healthy()
    new = changed.keys() - series.keys()
    assert all("handshakes_refused" in each for each in new), f"a healthy node has no {new}"
    at_minutes = BREAKS + (5 if name == "GeocastSessionsGone" else 14)
    check(tmp_path, series | changed, at_minutes, [name, *beside])


def test_no_alert_fires_for_idle_nodes(tmp_path):
    """Nodes without sessions and alerts are healthy."""
    quiet = {name: steady(0) for name in healthy() if re.match(r"geocast_(accepted|sends|sessions|connections)", name)}
    quiet |= {
        name: steady(5) for name in healthy() if re.match(r"geocast_log_(applied|seq)|geocast_publish_to_last", name)
    }
    check(tmp_path, healthy() | quiet, MINUTES, [])


# ---- what the page on monitoring says ----------------------------------------------------------------------------


def test_documented_configuration_scrapes_every_job_that_a_rule_names(tmp_path):
    """`promtool check config` accepts the configuration of the page, as it is pasted, with the rules."""
    (tmp_path / "prometheus.yml").write_text(SCRAPED)
    (tmp_path / RULES.name).write_text(RULES.read_text("utf-8"))
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    named = {job for jobs in re.findall(r'job=~?"([^"]+)"', RULES.read_text("utf-8")) for job in jobs.split("|")}
    assert named == {each["job_name"] for each in yaml.safe_load(SCRAPED)["scrape_configs"]} - {"node"}


@pytest.mark.parametrize(
    ("job", "file"),
    [
        ("geocast", "geocast.env"),
        ("geocast-push", "push.env"),
        ("geocast-fetch", "fetch.env"),
        ("geocast-relay", "relay.env"),
    ],
)
def test_documented_configuration_scrapes_the_address_of_the_deployed_settings(job, file):
    """The addresses are those of node 1 in docs/deploy."""
    [address] = re.findall(r"^GEOCAST_METRICS=(.*)$", (RULES.parent / file).read_text("utf-8"), re.MULTILINE)
    [config] = [each for each in yaml.safe_load(SCRAPED)["scrape_configs"] if each["job_name"] == job]
    assert address in config["static_configs"][0]["targets"]


def test_page_names_every_row_of_the_dashboard():
    """The sentence lists the rows in their order (docs/operations/monitoring.md)."""
    panels = json.loads((RULES.parent / "grafana.json").read_text("utf-8"))["panels"]
    rows = [each["title"].casefold() for each in panels if each["type"] == "row"]
    [sentence] = re.findall(r"The rows of the dashboard are ([^.]*)\.", " ".join(PAGE.split()))
    assert re.split(r", and |, ", sentence.removeprefix("an ").replace("the ", "").casefold()) == rows
