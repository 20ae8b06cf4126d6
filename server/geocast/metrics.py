"""The metrics of a node, for Prometheus. No label ever contains an id, a place or a token."""

import asyncio
import platform
import resource
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__, commit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_MINUTES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800)
_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Metrics:
    """The metrics of one process.

    Code that runs for every message counts in plain integers of its own objects. Functions given to `watch` read these
    integers at each scrape, so counting is nearly free. Only rare events, and values with buckets, are Counter or
    Histogram objects here.
    """

    def __init__(self) -> None:
        """Create the metrics of this process."""
        self.others: Callable[[], Awaitable[list[Export]]] | None = None  # those of other processes, for `scrape`
        self.registry = CollectorRegistry()
        self.watch(_process)
        self.accepted = self.add_counter("accepted", "Entries accepted into the log", "kind")
        self.refused = self.add_counter("refused", "Requests that were answered with a problem", "type")
        self.held = self.add_counter("held", "Requests that needed a confirmation", "kind")
        self.cap_messages = self.add_counter("cap_messages", "CAP messages by outcome", "source", "outcome")
        text = "Openings, new contents and ends of calls for help, accepted into the log"
        self.calls_accepted = self.add_counter("calls_accepted", text, "kind")
        self.break_glass = self.add_counter("break_glass", "Approvals with a break-glass key")
        text = "From an entry read from the log to its last write on this node"
        self.fan_out = self.add_histogram("fan_out_seconds", text, _LATENCY_S)
        text = "From the acceptance of an entry to its last write on this node"
        self.publish_to_last_write = self.add_histogram("publish_to_last_write_seconds", text, _LATENCY_S)
        text = "From the opening of a call to the last write of its first wave on this node"
        self.call_first_ring = self.add_histogram("call_first_ring_seconds", text, _LATENCY_S)
        text = "From the reading of an accept message to the sending of its task"
        self.call_accept = self.add_histogram("call_accept_seconds", text, _LATENCY_S)
        text = "From the opening of a call to the first task"
        self.call_seat = self.add_histogram("call_first_seat_seconds", text, _MINUTES_S)
        self.loop_lag = self.add_histogram("loop_lag_seconds", "Delay of a timer of the event loop", _LAG_S)

    def add_counter(self, name: str, text: str, *labels: str) -> Counter:
        """Create a counter called `geocast_NAME_total` with these labels. `text` is its description."""
        return Counter(f"geocast_{name}", text, labels, registry=self.registry)

    def add_histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        """Create a histogram called `geocast_NAME`. `text` is its description."""
        return Histogram(f"geocast_{name}", text, buckets=buckets, registry=self.registry)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Register a function that returns metrics. It is called at each scrape."""
        self.registry.register(_Reader(read))

    async def scrape(self) -> bytes:
        """Return the metrics of this process and the others, in the text format of Prometheus, encoded in UTF-8."""
        if self.others is None:
            return self.render()
        others = await self.others()
        return generate_latest(_Merged(merged([export(self.registry), *others])))

    def render(self) -> bytes:
        """Return the metrics of this process, in the text format of Prometheus, encoded in UTF-8."""
        return generate_latest(self.registry)


def append_times() -> Histogram:
    """Return a histogram for the time that the log takes to store an entry durably. The log itself exports it."""
    return Histogram(
        "geocast_append_seconds",
        "From the decision to append an entry until the log has stored it durably",
        buckets=_LATENCY_S,
        registry=None,
    )


class _Reader(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # called at the registration, when the objects that `read` needs may not exist yet

    def collect(self) -> Iterable[Metric]:
        return self._read()


def gauge(name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """Return a gauge called `geocast_NAME` with this value and these labels. `text` is its description."""
    family = GaugeMetricFamily(f"geocast_{name}", text, labels=list(labels or ()))
    family.add_metric(list((labels or {}).values()), value)
    return family


def gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """Return a gauge called `geocast_NAME` that has several values, which differ in one label.

    `values` has pairs of the label's value and the gauge's value. `text` is the gauge's description.
    """
    return _filled(GaugeMetricFamily(f"geocast_{name}", text, labels=[label]), values)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter called `geocast_NAME_total` with this value and no labels. `text` is its description."""
    return CounterMetricFamily(f"geocast_{name}", text, value=value)


def counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """Return a counter called `geocast_NAME_total` that has several values, which differ in one label.

    `values` has pairs of the label's value and the count. `text` is the counter's description.
    """
    return _filled(CounterMetricFamily(f"geocast_{name}", text, labels=[label]), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float]]) -> Metric:
    for key, value in values:
        family.add_metric([key], value)
    return family


def report_caught(what: str, error: BaseException) -> None:
    """Have `tasks.watch_loop` log and count an unexpected exception that was caught because the work goes on."""
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error, "caught": True})


def by_server(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the log's servers that a process reads, with the lag of each in seconds; empty for a log without servers.

    `metrics` are the metrics of the log.
    """
    lag = "geocast_log_read_lag_seconds"
    return {each.labels["server"]: round(each.value, 3) for one in metrics if one.name == lag for each in one.samples}


_STARTED_S = time.time()


@cache
def _build() -> dict[str, str]:
    return {"version": __version__, "commit": commit(), "python": platform.python_version()}


def _process() -> Iterator[Metric]:
    """Yield the CPU time, memory and start time of the process, under the names that Prometheus clients use.

    The client library's ProcessCollector is not used, because it lists all open files in order to count them. With
    15,000 sessions, each scrape blocked the event loop for 17 ms (`geocast_loop_lag_seconds`).
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    yield CounterMetricFamily("process_cpu_seconds", "CPU used, in seconds", value=used.ru_utime + used.ru_stime)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", value=pages * resource.getpagesize())
    yield GaugeMetricFamily("process_start_time_seconds", "Start, in seconds since 1970", value=_STARTED_S)
    yield gauge("build_info", "Always 1, with the running versions as labels", 1, _build())


# ---- merging the metrics of several processes --------------------------------------------------------------------

Export = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]  # name, type, text, samples

# All processes compute these metrics from the log, and differ only in how far they have read it. So the greatest value
# is the newest.
_GREATEST = (
    "geocast_build_info",
    "geocast_oldest_flight_seconds",
    "geocast_live_alerts",
    "geocast_withheld_alerts",
    "geocast_clock_steps_total",
    "geocast_calls_open",
    "geocast_calls_unanswered",
    "geocast_log_position",
    "geocast_log_epoch",
    "geocast_log_sequence",
    "geocast_log_silence_seconds",
    "geocast_log_read_lag_seconds",
    "geocast_redis_memory_bytes",
    "geocast_redis_max_memory_bytes",
    "geocast_redis_replicas",
)
# The least value is taken for these metrics. A node started when its oldest process did. The share of a push service's
# devices that can be reached is that of the process with the smallest share.
_LEAST = ("_created", "process_start_time_seconds", "_lane_open")


def export(registry: CollectorRegistry) -> Export:
    """Return all metrics of a registry as plain data, which can be sent to another process as MessagePack."""
    return [
        (m.name, m.type, m.documentation, [(s.name, s.labels, float(s.value)) for s in m.samples])
        for m in registry.collect()
    ]


def lasting(exported: Export) -> Export:
    """Return the metrics of a process that must still be counted when the process has died: counters and histograms.

    Gauges are left out.
    """
    return [family for family in exported if family[1] in ("counter", "histogram")]


def merged(exports: Iterable[Export]) -> Export:
    """Add up the metrics of several processes, and return the result as one export.

    The metrics in _GREATEST and _LEAST are not added up: the greatest or the least value is taken.
    """
    families: dict[str, tuple[str, str]] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for name, kind, text, samples in (family for exported in exports for family in exported):
        families.setdefault(name, (kind, text))
        of_family = values.setdefault(name, {})
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            of_family[key] = _combined(sample, of_family[key], value) if key in of_family else value
    return [
        (name, kind, text, [(sample, dict(labels), value) for (sample, labels), value in values[name].items()])
        for name, (kind, text) in families.items()
    ]


def _combined(sample: str, a: float, b: float) -> float:
    if sample in _GREATEST:
        return max(a, b)
    return min(a, b) if sample.endswith(_LEAST) else a + b


class _Merged(CollectorRegistry):
    """A registry that contains exported metrics, so that prometheus_client can render them."""

    def __init__(self, exported: Export) -> None:
        super().__init__()
        self._exported = exported

    def collect(self) -> Iterable[Metric]:
        for name, kind, text, samples in self._exported:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric
