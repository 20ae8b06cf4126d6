"""`fanout`: the cost and the time of sending one alert to many sessions, with geocast and with other servers.

Measures the CPU of all processes of a server for each message to a session inside the area. It is counted from before
the alert is published (over HTTP, and stored durably) until all sessions have it. Also measures the time from
publishing until the first session, the nearest 100 and the last have the alert, by the clock of the receivers. Then
measures the same at a steady rate and at full speed. All servers run at once and take turns, so that a busy machine
affects all of them. All servers use the same core, and the receivers use the others.

Leaves out: any network except loopback, TLS, and clients that process what they get. The other servers get the finished
bytes of an alert of geocast, and only send them: they match no place, check no token, expire nothing and store nothing.
"""

from contextlib import ExitStack
from typing import Any

from bench import places, stats
from bench.results import Result, Table, number
from bench.rounds import NEAREST, Audience, Round, Stretch, gather, geocast_alone, in_turns, start_peers, stretch
from bench.runs import Bench, Place

SPREAD_M = 14_000.0


def measure(
    place: Place,
    sessions: int,
    share: float,
    rounds: int,
    payload: int,
    vs: tuple[str, ...],
    deliveries_per_s: int,
    seconds: float,
    flat_out: int,
) -> dict[str, Any]:
    """Publish single alerts to each server in turn.

    Then, for each server, publish alerts at a steady rate and at full speed.
    """
    where = places.around(sessions, SPREAD_M, share)
    steady = max(1, round(deliveries_per_s / sessions * seconds))
    expected = rounds + 1 + steady + flat_out
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place, payload_bytes=payload))
        sample = node.take_sample()
        peers, missing = start_peers(stack, place, vs, sample)
        audiences = [gather(stack, place, system, where, expected) for system in (node, *peers)]
        alone = in_turns(audiences, where.nearest(NEAREST), rounds, "one alert at a time")
        rate = deliveries_per_s / sessions
        found = {
            audience.system.name: _found(audience, alone[audience.system.name])
            | {"steady": _stretch(audience, steady, rate), "flat_out": _stretch(audience, flat_out, None)}
            | {"missing": audience.missing}
            for audience in audiences
        }
    return {"payload_bytes": len(sample), "systems": found, "missing": missing}


def _found(audience: Audience, rounds: list[Round]) -> dict[str, Any]:
    latencies = [value for each in rounds for value in each.latencies_ms]
    return {
        "recipients": audience.wanted,
        "cpu_us": stats.median([each.cpu_us for each in rounds]),
        "cpu_us_by_round": [round(each.cpu_us, 3) for each in rounds],
        "first_ms": stats.median([each.first_ms for each in rounds]),
        "nearest_ms": stats.median([each.nearest_ms for each in rounds]),
        "last_ms": stats.median([each.last_ms for each in rounds]),
        "latency_ms": stats.summary(latencies),
        "waited": stats.median([each.waited for each in rounds]),
        "connect_cpu_us": audience.connect_cpu_us,
        "connect_s": audience.connect_s,
        "idle_cpu": audience.idle_cpu,
        "lacks": audience.system.lacks,
    }


def _stretch(audience: Audience, alerts: int, rate: float | None) -> dict[str, Any]:
    done: Stretch = stretch(audience, alerts, rate)
    return {
        "alerts": alerts,
        "alerts_per_s": rate,
        "deliveries_per_s": done.deliveries / done.seconds,
        "cpu_us": done.cpu_us,
        "latency_ms": stats.summary(done.latencies_ms),
    }


# ---- table and plot ----------------------------------------------------------------------------------------------

_COLUMNS = (
    "",
    "CPU µs/delivery",
    "geocast ÷ it",
    "first ms",
    f"nearest {NEAREST} ms",
    "last ms",
    "p50 ms",
    "p99 ms",
    "steady p99 ms",
    "steady µs",
    "flat out 1/s",
    "connect µs",
    "idle CPU",
)


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each server."""
    systems, parameters = result.found["systems"], result.parameters
    ours = systems["geocast"]
    rows = [
        [
            name,
            number(it["cpu_us"]),
            number(stats.ratio(ours["cpu_us"], it["cpu_us"])),
            *(number(it[key]) for key in ("first_ms", "nearest_ms", "last_ms")),
            *(number(it["latency_ms"][key]) for key in ("p50", "p99")),
            number(it["steady"]["latency_ms"]["p99"]),
            number(it["steady"]["cpu_us"]),
            number(it["flat_out"]["deliveries_per_s"]),
            number(it["connect_cpu_us"]),
            f"{it['idle_cpu']:.1%}",
        ]
        for name, it in systems.items()
    ]
    title = (
        f"fanout: {ours['recipients']:,} of {parameters['sessions']:,} sessions, {result.found['payload_bytes']} bytes"
    )
    return Table(title, _COLUMNS, rows, [*_losses(systems), *_notes(result)])


def _losses(systems: dict[str, Any]) -> list[str]:
    """Return one sentence for each measured value in which a peer is better than geocast.

    Variants of geocast (such as a node in a container) do not count as peers.
    """
    measures = {"CPU per delivery": "cpu_us", "time to the last": "last_ms", "CPU per connect": "connect_cpu_us"}
    ours, found = systems["geocast"], []
    peers = {name: it for name, it in systems.items() if not name.startswith("geocast")}
    for what, key in measures.items():
        ahead = [f"{name} {number(it[key])}" for name, it in peers.items() if it[key] < ours[key]]
        if ahead:
            found.append(f"geocast loses in {what} ({number(ours[key])}) to {', '.join(ahead)}.")
    return found


def _notes(result: Result) -> list[str]:
    systems = result.found["systems"]
    lost = [f"{name}: {it['missing']:,} messages never came." for name, it in systems.items() if it["missing"]]
    lacks = [f"{name}: {it['lacks']}." for name, it in systems.items() if it["lacks"]]
    others = ", ".join(f"{name} {it['waited']:.0%}" for name, it in systems.items())
    lost.append(f"Of the time to the last, others had the server's core (0 % on a quiet machine): {others}.")
    return lost + lacks + [f"{name} is left out: {reason}." for name, reason in result.found["missing"].items()]


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU per delivery, and the times until the first, the nearest 100 and the last session have an alert."""
    systems = result.found["systems"]
    cost, times = figure.subplots(1, 2)
    cost.boxplot(
        [it["cpu_us_by_round"] for it in systems.values()], tick_labels=list(systems), orientation="horizontal"
    )
    cost.set(xlabel="CPU of the server per delivery, µs", xlim=(0, None))
    for key, marker in (("first_ms", "|"), ("nearest_ms", "o"), ("last_ms", "D")):
        times.plot([it[key] for it in systems.values()], list(systems), marker, label=key.removesuffix("_ms"))
    times.set(xlabel="publish → received, ms", xlim=(0, None))
    times.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "fanout",
    "the cost and the time of sending one alert to many sessions, for geocast and servers that push its bytes.",
    measure,
    table,
    plot,
    {
        "sessions": 2_000,
        "share": 1.0,
        "rounds": 10,
        "payload": 400,
        "vs": ("raw", "container", "transports", "websockets", "uws", "nchan", "nats"),
        "deliveries_per_s": 20_000,
        "seconds": 2.0,
        "flat_out": 10,
    },
)
