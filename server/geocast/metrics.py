"""What a node counts, for Prometheus. No label ever holds an id, a place or a token."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Metrics:
    """The registry of one node. What other parts count themselves is read by `watch`, when it is asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.accepted = Counter("geocast_accepted", "Entries accepted into the log", ["kind"], registry=self.registry)
        self.refused = Counter(
            "geocast_refused", "Requests that got a problem for an answer", ["type"], registry=self.registry
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
        self.loop_lag = Histogram(
            "geocast_loop_lag_seconds",
            "How late a timer of the event loop was",
            buckets=_LAG_S,
            registry=self.registry,
        )

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have `read` asked for its metrics at each scrape."""
        self.registry.register(_Reader(read))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Reader(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # asked at registration, when there is nothing to read yet

    def collect(self) -> Iterable[Metric]:
        return self._read()


def gauge(name: str, text: str, value: float) -> Metric:
    """One gauge without labels."""
    return GaugeMetricFamily(f"geocast_{name}", text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """One counter without labels."""
    return CounterMetricFamily(f"geocast_{name}", text, value=value)


def counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    """One counter with one label."""
    family = CounterMetricFamily(f"geocast_{name}", text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family
