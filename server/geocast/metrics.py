"""What a node counts, for Prometheus. No label ever holds an id, a place or a token."""

import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_MINUTES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800)
_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Metrics:
    """The metrics of one process.

    What the hot path counts is kept as plain integers where it happens; `watch` has them read at each scrape, so that
    counting costs nothing in between. Only what is rare, or needs buckets, is a Counter or a Histogram here.
    """

    def __init__(self, others: Callable[[], list["Export"]] | None = None) -> None:
        """`others` gives the metrics of this node's other processes; `render` adds them to these."""
        self._others = others
        self.registry = CollectorRegistry()
        self.watch(_process)
        self.accepted = Counter("geocast_accepted", "Entries accepted into the log", ["kind"], registry=self.registry)
        self.refused = Counter(
            "geocast_refused", "Requests that got a problem for an answer", ["type"], registry=self.registry
        )
        self.held = Counter(
            "geocast_held", "Requests with something that has to be confirmed", ["kind"], registry=self.registry
        )
        self.cap_messages = Counter(
            "geocast_cap_messages",
            "Messages of CAP, by what became of them",
            ["source", "outcome"],
            registry=self.registry,
        )
        self.calls_accepted = Counter(
            "geocast_calls_accepted",
            "Calls for help, new content of them, and ends, accepted into the log",
            ["kind"],
            registry=self.registry,
        )
        self.break_glass = Counter(
            "geocast_break_glass", "Approvals with a key for whoever is alone", registry=self.registry
        )
        self.fan_out = Histogram(
            "geocast_fan_out_seconds",
            "From an entry read from the log to its last write on this node",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.publish_to_last_write = Histogram(
            "geocast_publish_to_last_write_seconds",
            "From the acceptance of an entry to its last write on this node",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.call_first_ring = Histogram(
            "geocast_call_first_ring_seconds",
            "From the opening of a call to the last write of its first ring on this node",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.call_accept = Histogram(
            "geocast_call_accept_seconds",
            "From an accept that was read to its task",
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.call_seat = Histogram(
            "geocast_call_first_seat_seconds",
            "From the opening of a call to the first task",
            buckets=_MINUTES_S,
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "geocast_loop_lag_seconds",
            "How late a timer of the event loop was",
            buckets=_LAG_S,
            registry=self.registry,
        )

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have `read` called at each scrape; what it gives is shown beside the rest."""
        self.registry.register(_Reader(read))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        if self._others is None:
            return generate_latest(self.registry)
        return generate_latest(_Merged(merged([export(self.registry), *self._others()])))


class _Reader(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # the registry asks when `read` is registered, and what it reads may not be there yet

    def collect(self) -> Iterable[Metric]:
        return self._read()


def gauge(name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> Metric:
    """The gauge `geocast_NAME`, with these labels, as it is now."""
    family = GaugeMetricFamily(f"geocast_{name}", text, labels=list(labels or ()))
    family.add_metric(list((labels or {}).values()), value)
    return family


def gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """The gauge `geocast_NAME` with one label: a value of the gauge for each value of the label."""
    family = GaugeMetricFamily(f"geocast_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """The counter `geocast_NAME_total` without labels, as it is now."""
    return CounterMetricFamily(f"geocast_{name}", text, value=value)


def counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """The counter `geocast_NAME_total` with one label: a value of the counter for each value of the label."""
    family = CounterMetricFamily(f"geocast_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


_STARTED_S = time.time()
_BUILD = {"version": __version__, "python": platform.python_version()}


def _process() -> Iterator[Metric]:
    """What the process uses, under the names that Prometheus' clients give it.

    Their own ProcessCollector counts the open files by listing them all, which held the loop up for 17 ms when there
    were 15,000 (`geocast_loop_lag_seconds` of a node with as many sessions, scraped).
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    yield CounterMetricFamily("process_cpu_seconds", "CPU used, in seconds", value=used.ru_utime + used.ru_stime)
    yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", value=pages * resource.getpagesize())
    yield GaugeMetricFamily("process_start_time_seconds", "Start, in seconds since 1970", value=_STARTED_S)
    yield gauge("build_info", "1, with the releases that run", 1, _BUILD)


# ---- of several processes ----------------------------------------------------------------------------------------

Export = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]  # name, type, text, samples

# Each process knows the same of these, as far as it has read the log: the greatest is the newest.
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
    "geocast_redis_memory_bytes",
    "geocast_redis_max_memory_bytes",
    "geocast_redis_replicas",
)
# A node is as old as its oldest process, and a push service is open to all if it is to each.
_LEAST = ("_created", "process_start_time_seconds", "_lane_open")


def export(registry: CollectorRegistry) -> Export:
    """All metrics of a registry as plain data, which MessagePack can carry to another process."""
    return [
        (m.name, m.type, m.documentation, [(s.name, s.labels, float(s.value)) for s in m.samples])
        for m in registry.collect()
    ]


def lasting(exported: Export) -> Export:
    """The part of `exported` that still counts when its process has died: counters and histograms, not gauges."""
    return [family for family in exported if family[1] in ("counter", "histogram")]


def merged(exports: Iterable[Export]) -> Export:
    """The metrics of several processes as those of one: sums, but for _GREATEST and _LEAST."""
    families: dict[str, tuple[str, str]] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for name, kind, text, samples in (family for exported in exports for family in exported):
        families.setdefault(name, (kind, text))
        of_family = values.setdefault(name, {})
        for sample, labels, value in samples:
            key = (sample, tuple(labels.items()))
            of_family[key] = _joined(sample, of_family[key], value) if key in of_family else value
    return [
        (name, kind, text, [(sample, dict(labels), value) for (sample, labels), value in values[name].items()])
        for name, (kind, text) in families.items()
    ]


def _joined(sample: str, a: float, b: float) -> float:
    if sample in _GREATEST:
        return max(a, b)
    return min(a, b) if sample.endswith(_LEAST) else a + b


class _Merged(CollectorRegistry):
    """What was exported, in the form in which prometheus_client renders a registry."""

    def __init__(self, exported: Export) -> None:
        super().__init__()
        self._exported = exported

    def collect(self) -> Iterable[Metric]:
        for name, kind, text, samples in self._exported:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric
