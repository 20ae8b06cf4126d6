"""The generator of docs/deploy/grafana.json, a dashboard built from one table; `make grafana` renews the file.

Queries are abbreviated: `rate(geocast_sends_total{}[R])`. `{` stands for the selector of the nodes that are chosen at
the top of the dashboard or, in metrics of processes beside the nodes, for the selector of their jobs. `[R]`
stands for the interval over which Grafana computes a rate. The thresholds are those of geocast.rules.yml. The
description of a panel answers the question that an operator would ask about it.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)

NODES = 'job="$job",instance=~"$instance"'
# The selectors of the processes beside the nodes.
BESIDE = {f"geocast_{name}_": f'job="${name}"' for name in ("push", "fetch", "relay")}
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
TALL, LOW = 7, 4  # heights, in rows of Grafana's grid


class Panel(NamedTuple):
    """A panel with its queries, each with the name of its lines; from `wrong` on, a value needs attention."""

    title: str
    says: str
    queries: list[tuple[str, str]]
    unit: str = "short"  # Grafana's name of the unit
    wrong: float | None = None
    one_number: bool = False  # shows one large number instead of lines
    span: int = 8  # of the 24 columns of Grafana's grid
    below: bool = False  # values below `wrong` need attention, rather than those above


def quantile(q: float, histogram: str, name: str = "") -> tuple[str, str]:
    """Return the query for a quantile of a histogram on each node."""
    rate = f"sum by (instance, le) (rate({histogram}_bucket{{}}[R]))"
    return f"histogram_quantile({q}, {rate})", f"{name or f'p{q * 100:g}'} {{{{instance}}}}"


def by_feed(q: float, histogram: str) -> tuple[str, str]:
    """Return the query for a quantile of a histogram of each feed."""
    return f"histogram_quantile({q}, sum by (feed, le) (rate({histogram}_bucket{{}}[R])))", "{{feed}}"


def each(metric: str, name: str = "") -> tuple[str, str]:
    """Return the query for a gauge on each node."""
    return f"{metric}{{}}", f"{name} {{{{instance}}}}".strip()


def rate(metric: str, name: str = "", by: str = "instance") -> tuple[str, str]:
    """Return the query for a counter's rate in a second, by node or by other labels, separated by commas."""
    lines = " ".join(f"{{{{{label}}}}}" for label in by.split(","))
    return f"sum by ({by}) (rate({metric}{{}}[R]))", f"{name} {lines}".strip()


def grown(metric: str, name: str = "") -> tuple[str, str]:
    """Return the query for the increase of a counter that normally does not change, on each node."""
    return f"increase({metric}{{}}[R])", f"{name} {{{{instance}}}}".strip()


ROWS: dict[str, list[Panel]] = {
    "Overview": [
        Panel(
            "Nodes ready",
            "Nodes whose /readyz says 200.",
            [("sum(geocast_ready{})", "")],
            wrong=1,
            below=True,
            one_number=True,
            span=4,
        ),
        Panel(
            "Sessions", "Subscribers that are connected.", [("sum(geocast_sessions{})", "")], one_number=True, span=4
        ),
        Panel(
            "Alerts",
            "Alerts that have not ended, including cancelled ones. All nodes know the same alerts.",
            [("max(geocast_live_alerts{})", "")],
            one_number=True,
            span=4,
        ),
        Panel(
            "Deliveries",
            "Alerts and cancels per second that were handed to connections.",
            [("sum(rate(geocast_sends_total{}[R]))", "")],
            unit="ops",
            one_number=True,
            span=4,
        ),
        Panel(
            "Accept to last write, p99",
            "The time after which 99 % of the alerts have reached their last subscriber, over all nodes.",
            [("histogram_quantile(0.99, sum by (le) (rate(geocast_publish_to_last_write_seconds_bucket{}[R])))", "")],
            unit="s",
            wrong=2,
            one_number=True,
            span=4,
        ),
        Panel(
            "Connections of those possible",
            "The node with the largest fraction. Its file descriptors limit the connections.",
            [("max(geocast_connections{} / geocast_capacity{})", "")],
            unit="percentunit",
            wrong=0.8,
            one_number=True,
            span=4,
        ),
        Panel(
            "Sessions by node",
            "The sessions of a node that drains or dies go to the others.",
            [each("geocast_sessions")],
        ),
        Panel(
            "Accept to last write",
            "The time from the 201 of an alert to its last write on a node.",
            [quantile(q, "geocast_publish_to_last_write_seconds") for q in (0.5, 0.99)],
            unit="s",
            wrong=2,
        ),
        Panel(
            "Deliveries and acknowledgements",
            "Alerts and cancels sent per second, and acknowledgements by clients that showed them to somebody.",
            [rate("geocast_sends_total", "sent"), rate("geocast_acks_total", "acknowledged")],
            unit="ops",
        ),
    ],
    "Health": [
        Panel(
            "Ready",
            "1 if /readyz answers 200. Otherwise /readyz says why.",
            [each("geocast_ready")],
            wrong=1,
            below=True,
        ),
        Panel(
            "Loop lag, p99",
            "How late the timers of the event loops are. If they are late, the node lacks CPU.",
            [quantile(0.99, "geocast_loop_lag_seconds")],
            unit="s",
            wrong=0.1,
        ),
        Panel(
            "Storing an entry",
            "The time until the log has stored an entry durably. If it is long, the disk or Redis is slow.",
            [quantile(q, "geocast_append_seconds") for q in (0.5, 0.99)],
            unit="s",
            wrong=0.5,
        ),
        Panel(
            "Fan-out",
            "The time from reading an entry to its last write (p99), and the age of the oldest running fan-out.",
            [quantile(0.99, "geocast_fan_out_seconds"), each("geocast_oldest_flight_seconds", "under way")],
            unit="s",
            wrong=5,
        ),
        Panel(
            "Slow sessions", "Sessions that don't read what they are sent.", [each("geocast_slow_sessions")], wrong=50
        ),
        Panel("Unsent bytes", "Bytes that wait in all transports.", [each("geocast_unsent_bytes")], unit="bytes"),
        Panel(
            "Sessions ended by the node",
            "By close code (docs/protocol.md). 4401: the token is no longer valid. 4420: the client read too slowly.",
            [rate("geocast_closes_total", by="code")],
            unit="ops",
        ),
        Panel(
            "Handshakes refused",
            "By HTTP status (docs/protocol.md). 503: the node is full or drains.",
            [rate("geocast_handshakes_refused_total", by="status")],
            unit="ops",
        ),
        Panel(
            "Stream processes",
            "With --workers: processes that do not report, and processes that died and were replaced. Unbatched: "
            "processes without Linux AIO, which need more CPU.",
            [
                each("geocast_stream_processes_missing", "missing"),
                grown("geocast_stream_restarts_total", "restarted"),
                each("geocast_stream_processes_unbatched", "unbatched"),
            ],
            wrong=1,
        ),
        Panel(
            "Clocks",
            "Alerts that ended only by a node's wall clock; how often that clock was set by half a second or more.",
            [each("geocast_withheld_alerts", "withheld"), grown("geocast_clock_steps_total", "set")],
            wrong=1,
        ),
    ],
    "Log": [
        Panel(
            "Silence",
            "With a log in Redis: the time since a node last read anything. Heartbeats come once a second.",
            [each("geocast_log_silence_seconds")],
            unit="s",
            wrong=5,
            span=6,
        ),
        Panel(
            "Lag of the server that is read",
            "With a log in Redis: how far the primary or the replica that a node reads is behind the primary.",
            [("geocast_log_read_lag_seconds{}", "{{instance}} reads {{server}}")],
            unit="s",
            wrong=1,
            span=6,
        ),
        Panel(
            "Entries behind",
            "With a log in Redis: how many entries another node has read and this node has not.",
            [("scalar(max(geocast_log_sequence{})) - geocast_log_sequence{}", "{{instance}}")],
            span=6,
        ),
        Panel(
            "Histories",
            "With a log in Redis: how many histories the nodes follow. If it is two, they use different Redis servers.",
            [('count(count_values("epoch", geocast_log_epoch{}))', "histories")],
            wrong=2,
            span=6,
        ),
        Panel(
            "Entries applied",
            "Log entries applied per second, by all stream processes of a node together.",
            [rate("geocast_log_applied_total")],
            unit="ops",
            span=6,
        ),
        Panel(
            "Errors",
            "Requests refused because the log can't be written; entries that can't be read or applied, or are not "
            "approved; unexpected errors of tasks and of sending.",
            [
                ('increase(geocast_refused_total{type="log-unavailable"}[R])', "503 {{instance}}"),
                each("geocast_log_quarantined_total", "quarantined"),
                ("sum by (instance) (geocast_log_untrusted_total{})", "untrusted {{instance}}"),
                each("geocast_log_entries_failed_total", "not applied"),
                ("sum by (instance) (increase(geocast_task_failures_total{}[R]))", "tasks {{instance}}"),
                each("geocast_sending_failures_total", "sending"),
            ],
            wrong=1,
            span=6,
        ),
        Panel(
            "What Redis had lost",
            "New epochs (losses of entries), entries that were restored, and entries that conflict with others.",
            [
                grown("geocast_log_rewinds_total", "rewound"),
                grown("geocast_log_put_back_total", "put back"),
                grown("geocast_log_conflicts_total", "conflicts"),
            ],
            wrong=1,
            span=6,
        ),
        Panel(
            "Redis' memory",
            "When the memory is full, nothing can be published. maxmemory is 0 if it is not set.",
            [
                ("max(geocast_redis_memory_bytes{})", "used"),
                ("max(geocast_redis_max_memory_bytes{})", "maxmemory"),
            ],
            unit="bytes",
            span=6,
        ),
        Panel(
            "Redis' replicas",
            "As the primary counts them. Without a replica, the next failure is an outage.",
            [("max(geocast_redis_replicas{})", "replicas")],
            span=6,
        ),
    ],
    "API": [
        Panel(
            "Accepted",
            "Alerts, revisions and cancels that were stored per second.",
            [rate("geocast_accepted_total", by="kind")],
            unit="ops",
            span=12,
        ),
        Panel(
            "Refused by type",
            "Requests refused per second, by type of problem. The meaning of a type is at /problems/<type>.",
            [rate("geocast_refused_total", by="type")],
            unit="ops",
            span=12,
        ),
    ],
    "Calls for help": [
        Panel("Open calls", "This row needs --call-keys.", [("max(geocast_calls_open{})", "open")], span=6),
        Panel(
            "Unanswered calls",
            "Calls that were opened at least a minute ago, and which nobody has accepted.",
            [("max(geocast_calls_unanswered{})", "unanswered")],
            wrong=1,
            span=6,
        ),
        Panel(
            "On duty",
            "Responders with a qualification that counts, who share the place where they are.",
            [("sum(geocast_responders_on_duty{})", "on duty")],
            span=6,
        ),
        Panel(
            "Opening to ring, to seat",
            "The median time until the first responders are notified, and until the first of them is told where to go.",
            [
                quantile(0.5, "geocast_call_first_ring_seconds", "ring"),
                quantile(0.5, "geocast_call_first_seat_seconds", "seat"),
            ],
            unit="s",
            span=6,
        ),
        Panel(
            "Rings, answers, seats",
            "Calls sent to responders, answers of responders, and responders who were told where to go, per second.",
            [
                rate("geocast_call_rings_total", "rung"),
                rate("geocast_call_answers_total", by="answer"),
                rate("geocast_call_seats_total", "seat", by="role"),
            ],
            unit="ops",
        ),
        Panel(
            "Rings that widen, responders stood down",
            "Radii are widened if too few accept. Responders are stood down if a call is full, over or called off.",
            [rate("geocast_call_widenings_total", "widened"), rate("geocast_call_standdowns_total", by="reason")],
            unit="ops",
        ),
        Panel(
            "Accept to task, p99",
            "The time until a responder who accepts is told where to go. It is mostly the time of a write to the log.",
            [quantile(0.99, "geocast_call_accept_seconds")],
            unit="s",
        ),
        Panel(
            "Stored",
            "Calls, corrections of calls and ends of calls that dispatchers have stored, per second.",
            [rate("geocast_calls_accepted_total", by="kind")],
            unit="ops",
            span=12,
        ),
        Panel(
            "Can't be opened",
            "Entries of calls that no key can decrypt: a key is missing here, or somebody else writes to the log.",
            [grown("geocast_call_unsealed_failed_total", "entries"), each("geocast_calls_degraded", "calls")],
            wrong=1,
            span=12,
        ),
    ],
    "Phones that sleep": [
        Panel(
            "Push ready",
            "This row needs `geocast push`. 1 if its /readyz answers 200. Otherwise /readyz says why.",
            [each("geocast_push_ready")],
            wrong=1,
            below=True,
        ),
        Panel(
            "Devices",
            "Registered devices. Those set aside get no pushes, because a key or their service is not configured.",
            [each("geocast_push_devices", "registered"), each("geocast_push_set_aside", "set aside")],
        ),
        Panel(
            "Shards",
            "Shards of devices by process. If there are fewer than 64 in all, some devices get no pushes.",
            [each("geocast_push_shards")],
        ),
        Panel(
            "Accept to push service",
            "The time from the 201 until a push service has accepted the push. Nobody learns when the phone gets it.",
            [quantile(q, "geocast_push_seconds") for q in (0.5, 0.99)],
            unit="s",
        ),
        Panel(
            "Pushes by outcome",
            "Refused: a clock or a key is wrong. Busy, failed: the push is retried. Maybe: it may arrive twice.",
            [rate("geocast_push_total", by="outcome")],
            unit="ops",
        ),
        Panel(
            "Answers of push services",
            "Answers per second, by entry of --push-services and HTTP status.",
            [rate("geocast_push_answers_total", by="service,status")],
            unit="ops",
        ),
        Panel(
            "Lanes",
            "The fraction of a service's phones whose host accepts pushes. The others wait.",
            [("min by (service) (geocast_push_lane_open{})", "{{service}}")],
            wrong=1,
            below=True,
        ),
        Panel(
            "Under way, waiting",
            "Requests that are not answered yet, and devices that wait for their push service.",
            [each("geocast_push_under_way", "under way"), each("geocast_push_waiting", "waiting")],
        ),
        Panel(
            "Forgotten, by why",
            "Gone: the push service said so, for instance because an app was removed. Look into many at once.",
            [rate("geocast_push_forgotten_total", by="why")],
            unit="ops",
        ),
        Panel(
            "Not noted, refused",
            "Delivery records that were not stored in time, and requests of devices that were refused.",
            [
                grown("geocast_push_unrecorded_total", "not noted"),
                ("sum by (type) (increase(geocast_push_refused_total{}[R]))", "{{type}}"),
            ],
        ),
    ],
    "Feeds of warnings": [
        Panel(
            "Fetch ready",
            "This row needs `geocast fetch`. 1 if its /readyz answers 200. Otherwise /readyz names the feed.",
            [each("geocast_fetch_ready")],
            wrong=1,
            below=True,
        ),
        Panel(
            "Feeds that fail",
            "Feeds that have failed for more than three intervals and a minute.",
            [("max by (feed) (geocast_fetch_overdue{})", "{{feed}}")],
            wrong=1,
        ),
        Panel(
            "Readings",
            "Readings of each feed per second, by result. Not modified is what a feed should mostly answer.",
            [rate("geocast_fetch_reads_total", by="feed,result")],
            unit="ops",
        ),
        Panel(
            "Since the last reading",
            "The time since each feed was last read, changed or not.",
            [("min by (feed) (geocast_fetch_success_age_seconds{})", "{{feed}}")],
            unit="s",
        ),
        Panel(
            "Since the last new entry",
            "A feed that has had nothing new for very long may be out of order at its issuer.",
            [("min by (feed) (geocast_fetch_change_age_seconds{})", "{{feed}}")],
            unit="s",
        ),
        Panel(
            "Waiting",
            "Entries whose link can't be read, or whose message the node does not accept now.",
            [("max by (feed) (geocast_fetch_waiting{})", "{{feed}}")],
        ),
        Panel(
            "Entries by outcome",
            "What the node did with the messages, or why they were not posted.",
            [rate("geocast_fetch_entries_total", by="feed,outcome")],
            unit="ops",
        ),
        Panel(
            "Sent to listed, p90",
            "How much of the delay is the feed's: from the issuer's `sent` until the feed had the message.",
            [by_feed(0.9, "geocast_fetch_sent_to_listed_seconds")],
            unit="s",
        ),
        Panel(
            "Sent to accepted, p90",
            "The whole delay: from the issuer's `sent` until the node had accepted the message.",
            [by_feed(0.9, "geocast_fetch_sent_to_accepted_seconds")],
            unit="s",
        ),
    ],
    "Webhooks": [
        Panel(
            "Relay ready",
            "This row needs `geocast relay`. 1 if its /readyz answers 200. Otherwise /readyz says why.",
            [each("geocast_relay_ready"), each("geocast_relay_targets", "targets")],
            wrong=1,
            below=True,
            span=6,
        ),
        Panel(
            "Oldest event that is due",
            "For each target. More than a minute: the target is down, or it refuses the event.",
            [("max by (target) (geocast_relay_pending_seconds{})", "{{target}}")],
            unit="s",
            wrong=60,
            span=6,
        ),
        Panel(
            "Alerts that a target lacks",
            "Alerts of which the target has not taken the last event yet.",
            [("max by (target) (geocast_relay_pending{})", "{{target}}")],
            span=6,
        ),
        Panel(
            "Log to target",
            "The time from the reading of an entry until a target has taken its event.",
            [quantile(q, "geocast_relay_seconds") for q in (0.5, 0.99)],
            unit="s",
            span=6,
        ),
        Panel(
            "Requests by answer",
            "Requests per second, by target and HTTP status. `no connection`: nothing has reached the target.",
            [rate("geocast_relay_posts_total", by="target,outcome")],
            unit="ops",
            span=12,
        ),
        Panel(
            "Gone, missed, not noted",
            "Targets that answered 410; alerts that a target missed; rows of the state not on the disk, or not read.",
            [
                each("geocast_relay_set_aside", "rows set aside"),
                ("max by (target) (geocast_relay_gone{})", "{{target}} gone"),
                ("sum by (target) (increase(geocast_relay_missed_total{}[R]))", "{{target}} missed"),
                each("geocast_relay_unrecorded", "not noted"),
            ],
            span=12,
        ),
    ],
    "Processes": [
        Panel("CPU", "Cores used by all processes of a node.", [rate("process_cpu_seconds_total")]),
        Panel("Memory", "Resident memory.", [each("process_resident_memory_bytes")], unit="bytes"),
        Panel("Up for", "A drop is a restart.", [("time() - process_start_time_seconds{}", "{{instance}}")], unit="s"),
        Panel(
            "Connections",
            "Each connection needs a file descriptor. A node accepts no more connections than its descriptors allow.",
            [each("geocast_connections", "open"), each("geocast_capacity", "possible")],
            span=12,
        ),
        Panel("Places", "Places that sessions watch, up to eight each.", [each("geocast_places")], span=12),
    ],
}

LEFT_OUT = {
    "geocast_break_glass_total": "rare, and a rule pages",
    "geocast_aeds": "with --aeds only",
    "geocast_aeds_unusable": "with --aeds only",
    "geocast_cap_messages_total": "with --cap-sources only",
    "geocast_build_info": "the release of a node, which is looked up but not watched",
    "geocast_feed_alerts": "with --feed only",
    "geocast_feed_alerts_left_out": "with --feed only",
    "geocast_feed_answers_total": "with --feed only",
    "geocast_feed_app_requests_total": "with --feed-areas only",
    "geocast_held_total": "requests that a desk had to confirm, which are also among the refusals by type",
    "geocast_key_fetches_total": "rare, and a rule watches the fetches that fail",
    "geocast_keys_fetched_timestamp_seconds": "a rule watches it",
    "geocast_log_position": "too large to distinguish neighbours with a log in Redis; the sequence is shown instead",
    "geocast_keys": "to compare nodes after a reload, not to watch",
    "geocast_settings_digest": "to compare nodes after a reload, not to watch",
    "geocast_push_processes_missing": "with geocast push --workers only; readiness, which is shown, includes it",
    "geocast_push_restarts_total": "with geocast push --workers only; a process that dies is missing for a moment",
    "geocast_reloads_total": "rare, and a rule watches the reloads that fail",
    "geocast_last_reload_timestamp_seconds": "to compare nodes after a reload, not to watch",
}


def expression(short: str) -> str:
    """Expand an abbreviated query; the result still contains Grafana's variables."""

    def selected(found: re.Match[str]) -> str:
        name, first = found.groups()
        of = next((job for prefix, job in BESIDE.items() if name.startswith(prefix)), NODES)
        return f"{name}{{{of}{'' if first == '}' else ','}"

    return re.sub(r"(\w+)\{(?=(.?))", selected, short).replace("[R]", "[$__rate_interval]")


def thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Return the colours of a panel's values: green, and red for values that need attention."""
    good, bad = ("red", "green") if panel.below else ("green", "red")
    steps = [model.Threshold(value=None, color=good)]
    if panel.wrong is not None:
        steps.append(model.Threshold(value=panel.wrong, color=bad))
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def lines(panel: Panel) -> timeseries.Panel:
    """Return a panel with lines over time, and a dashed line at the threshold, if there is one."""
    shown = GraphThresholdsStyleMode.OFF if panel.wrong is None else GraphThresholdsStyleMode.DASHED
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return (
        timeseries.Panel()
        .min(0)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(shown))
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )


def number() -> stat.Panel:
    """Return a panel with the last value as a number, above a small graph of earlier values."""
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.AREA)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def picture(panel: Panel) -> timeseries.Panel | stat.Panel:
    """Return the panel in the form for Grafana."""
    made = number() if panel.one_number else lines(panel)
    made.title(panel.title).description(panel.says).unit(panel.unit).datasource(SOURCE)
    made.span(panel.span).height(LOW if panel.one_number else TALL).thresholds(thresholds(panel))
    for letter, (short, name) in zip("ABCDEF", panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression(short)).legend_format(name or "__auto").ref_id(letter)
        made.with_target(query.datasource(SOURCE).range())
    return made


def chosen() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    """Return the variables at the top of the dashboard: the Prometheus server, the jobs and the nodes."""
    job = dashboard.QueryVariable("job").label("Job").query("label_values(geocast_ready, job)").datasource(SOURCE)
    push = dashboard.QueryVariable("push").label("Push").query("label_values(geocast_push_ready, job)")
    fetch = dashboard.QueryVariable("fetch").label("Fetch").query("label_values(geocast_fetch_ready, job)")
    relay = dashboard.QueryVariable("relay").label("Relay").query("label_values(geocast_relay_ready, job)")
    nodes = dashboard.QueryVariable("instance").label("Node").query('label_values(geocast_ready{job="$job"}, instance)')
    every = model.VariableRefresh.ON_TIME_RANGE_CHANGED
    return [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        job.refresh(every),
        nodes.datasource(SOURCE).refresh(every).multi(True).include_all(True),
        push.datasource(SOURCE).refresh(every),
        fetch.datasource(SOURCE).refresh(every),
        relay.datasource(SOURCE).refresh(every),
    ]


def alarms() -> dashboard.AnnotationQuery:
    """Return the annotation that marks when alerts of geocast.rules.yml were firing."""
    firing = 'ALERTS{alertstate="firing",alertname=~"Geocast.+",severity!="none"}'
    return (
        dashboard.AnnotationQuery()
        .name("Alerts of the rules")
        .expr(firing)
        .datasource(SOURCE)
        .icon_color("red")
        .enable(True)
    )


def build() -> str:
    """Return the dashboard as JSON."""
    made = dashboard.Dashboard("Geocast").uid("geocast").tags(["geocast"]).editable()
    made.description("Nodes of geocast. docs/operations/monitoring.md says what to watch and what to do.")
    made.time("now-1h", "now").refresh("30s").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    made.annotation(alarms())
    for variable in chosen():
        made.with_variable(variable)
    ids = itertools.count(1)  # Grafana has them in the address of a panel that is shown alone
    for title, panels in ROWS.items():
        made.with_row(dashboard.Row(title).id(next(ids)))
        for panel in panels:
            made.with_panel(picture(panel).id(next(ids)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(build())
