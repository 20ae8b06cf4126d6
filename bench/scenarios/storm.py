"""`storm`: a node is killed, and all its sessions reconnect at once.

The node is killed (SIGKILL) and restarted at once, with the same log and ports. Each session tries to reconnect after
random delays of up to `window_ms`, until it is accepted. It then sends an EdDSA token of its own, and says which alerts
it already has. When half of the sessions are back, an alert is published for all. Until all are back, five small alerts
a second are published besides, each for the sessions within NEAR_M of the centre (2 % of them).

Measures the time from the kill until all sessions have their welcome; the CPU of the new process for each connecting
session, without the CPU for starting the process (the CPU for the alerts is included, 1 to 2 ms for each small one);
the time from publishing a small alert until a session has it that was back before; and the time until the last session
has the alert for all. Sessions that are not yet back when that alert is published get it together with their welcome.

Leaves out: TLS. Clients that follow the protocol wait for 1 to 30 s before they reconnect. The delays here (by default
up to 1 s) are far shorter, to find the limit of the node.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from bench import places, processes, screen, stats
from bench.clients.crowd import Crowd
from bench.peers import Geocast
from bench.peers.base import alert_id, next_number
from bench.results import Result, Table, number
from bench.rounds import PATIENCE_S, geocast_alone, ms_since
from bench.runs import Bench, Place

SPREAD_M = 14_000.0
NEAR_M = 2_000.0
EVERY_S = 0.2  # time between two small alerts
QUIET_S = 1.0  # after all are back, the last message has come when none has come for so long


def measure(place: Place, sessions: int, held: int, window_ms: int, inflight: int) -> dict[str, Any]:
    """Connect all sessions, send them some alerts, and kill and restart the node once.

    When the sessions reconnect, they report these alerts as already received.
    """
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place))
        numbers = [next_number() for _ in range(held)]
        joining = node.joining(places.around(sessions, SPREAD_M), {alert_id(each): 1 for each in numbers})
        crowd = stack.enter_context(
            Crowd(
                node.port,
                joining,
                place.home,
                place.cores.clients,
                expected=held + 5,  # besides those that are held: the one for all, and the small ones
                inflight=inflight,
                retry_ms=(0, window_ms),
            )
        )
        with screen.progress("connecting", sessions) as show:
            crowd.wait_ready(show=show)
        for each in numbers:
            node.publish(each)
        crowd.wait_records(held * sessions)
        crowd.take()
        return _storm(node, crowd)


def _storm(node: Geocast, crowd: Crowd) -> dict[str, Any]:
    sessions, before = len(crowd), crowd.counters()
    assert node.process
    killed = time.monotonic_ns()
    processes.stop(node.process, signal.SIGKILL)
    node.start()
    up, cpu, waited = time.monotonic_ns(), node.cpu_s(), node.waited_s()
    with _small_alerts(node) as small, screen.progress("coming back", sessions) as show:
        half = before.readied + sessions // 2
        crowd.wait(lambda counters: counters.readied >= half, "half are back", PATIENCE_S, show)
        middle, middle_alert = time.monotonic_ns(), next_number()
        node.publish(middle_alert)
        everybody = before.readied + sessions
        counters = crowd.wait(
            lambda counters: counters.readied >= everybody and counters.ready == sessions,
            "all are back",
            PATIENCE_S,
            show,
        )
    crowd.wait_records(before.records + sessions + len(small) * sessions, QUIET_S)  # no session gets all small alerts
    cpu, waited = node.cpu_s() - cpu, node.waited_s() - waited
    records = crowd.take()
    is_small = np.isin(records["number"], list(small))
    told = ms_since(middle, records["when_ns"][records["number"] == middle_alert])
    back = ms_since(killed, crowd.ready_ns())
    return {
        "node_up_ms": (up - killed) / 1e6,
        "waited_ms": waited * 1000,
        "back_ms": stats.summary(back),
        "back_by_ms": np.percentile(back, range(101)).round(1).tolist(),
        "connect_cpu_us": cpu / sessions * 1e6,
        "small_alerts": len(small),
        "meanwhile_ms": stats.summary(_meanwhile(records[is_small], small, crowd.ready_ns())),
        "alert_ms": stats.summary(told),
        "never_told": sessions - len(told),
        "sent_again": int(len(records) - np.count_nonzero(is_small) - len(told)),
        "turned_away": counters.failed - before.failed,
        "dropped": counters.closed - before.closed - sessions,
    }


@contextmanager
def _small_alerts(node: Geocast) -> Iterator[dict[int, int]]:
    """Publish small alerts during the `with` block.

    Yield a dict that gets, for the number of each alert, the time in ns at which it was published.
    """
    published: dict[int, int] = {}
    over = threading.Event()

    def publish() -> None:
        while not over.wait(EVERY_S):
            number = next_number()
            published[number] = time.monotonic_ns()
            node.publish(number, radius_m=NEAR_M)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield published
    finally:
        over.set()
        thread.join()


def _meanwhile(records: Any, small: dict[int, int], ready_ns: Any) -> Any:
    """Return the times in ms from publishing a small alert until each session had it that was back before."""
    published = np.array([small[number] for number in records["number"].tolist()], np.int64)
    was_back = ready_ns[records["connection"]].astype(np.int64) < published
    return ((records["when_ns"].astype(np.int64) - published) / 1e6)[was_back]


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each measured value."""
    found = result.found
    rows = [
        ["node up again after the kill, ms", number(found["node_up_ms"]), ""],
        ["half of the sessions back, ms after the kill", number(found["back_ms"]["p50"]), ""],
        ["all sessions back, ms after the kill", number(found["back_ms"]["max"]), "≤ 5,000 (10,000)"],
        ["all sessions back, ms after the node was up", number(found["back_ms"]["max"] - found["node_up_ms"]), ""],
        ["time in which others had the server's core, ms", number(found["waited_ms"]), ""],
        ["CPU per connect with token and holding, µs", number(found["connect_cpu_us"]), "≤ 250"],
        *_rows_of_small_alerts(found),
        ["alert published when half were back: p50, ms", number(found["alert_ms"]["p50"]), ""],
        ["… to the last, including sessions that came back later, ms", number(found["alert_ms"]["max"]), ""],
        ["sessions that never got this alert", str(found["never_told"]), "0"],
        ["alerts sent to sessions that already had them", str(found["sent_again"]), "0"],
        ["attempts to connect that failed (node down, or refused)", str(found["turned_away"]), ""],
        ["sessions that were dropped after they were back", str(found["dropped"]), "0"],
    ]
    return Table(f"storm: {result.parameters['sessions']:,} sessions", ("", "", "goal"), rows)


def _rows_of_small_alerts(found: dict[str, Any]) -> list[list[str]]:
    if "meanwhile_ms" not in found:  # a result from before small alerts were published
        return []
    named = (("small alerts meanwhile, to sessions that are back: p50, ms", "p50", ""), ("… p99, ms", "p99", "≤ 50"))
    return [[name, number(found["meanwhile_ms"][key]), goal] for name, key, goal in named]


def plot(result: Result, figure: Any) -> None:
    """Plot the percentage of sessions that are back, over the time since the kill."""
    axes = figure.subplots()
    axes.plot(result.found["back_by_ms"], range(101))
    axes.axvline(result.found["node_up_ms"], linestyle=":", label="node up")
    axes.set(xlabel="ms after the kill", ylabel="% of the sessions welcome again", xlim=(0, None))
    axes.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "storm",
    "a node is killed, and all its sessions reconnect, each with a token and a list of the alerts that it has.",
    measure,
    table,
    plot,
    {"sessions": 2_000, "held": 3, "window_ms": 500, "inflight": 2_000},
)
