"""`frames`: how the size of an alert affects a fan-out, compared with a bare send loop, which sends the same bytes.

For each size there are a node and a send loop, which take turns to send one alert to all sessions. If 1,000 characters
of description are too few for a size, the area is a polygon with many corners instead of a circle.

Measures the CPU of the server for each message to a session inside the area, and the time from publishing until the
first session, the nearest 100 and the last have the alert. Leaves out the same as `fanout`.
"""

from contextlib import ExitStack
from typing import Any

from bench import places, stats
from bench.results import Result, Table, number
from bench.rounds import NEAREST, gather, geocast_alone, in_turns, start_peers
from bench.runs import Bench, Place

SPREAD_M = 14_000.0


def measure(place: Place, sessions: int, rounds: int, payloads: tuple[int, ...]) -> dict[str, Any]:
    """Measure one size of frames after the other."""
    return {"sizes": [_size(place, sessions, rounds, payload) for payload in payloads]}


def _size(place: Place, sessions: int, rounds: int, payload: int) -> dict[str, Any]:
    where = places.around(sessions, SPREAD_M)
    with ExitStack() as stack:
        node = stack.enter_context(geocast_alone(place, payload_bytes=payload))
        sample = node.take_sample()
        peers, missing = start_peers(stack, place, ("raw",), sample)
        audiences = [gather(stack, place, system, where, rounds + 1) for system in (node, *peers)]
        found = in_turns(audiences, where.nearest(NEAREST), rounds, f"{len(sample):,} bytes")
        return {
            "bytes": len(sample),
            "missing": missing | {each.system.name: each.missing for each in audiences if each.missing},
            "systems": {name: _medians(of) for name, of in found.items()},
        }


def _medians(rounds: list[Any]) -> dict[str, float]:
    keys = ("cpu_us", "first_ms", "nearest_ms", "last_ms", "waited")
    return {key: stats.median([getattr(each, key) for each in rounds]) for key in keys}


def table(result: Result) -> Table:
    """Return the result as a table, with one row for each combination of size and server."""
    rows = []
    for size in result.found["sizes"]:
        ours = size["systems"]["geocast"]
        for name, it in size["systems"].items():
            rows.append(
                [
                    f"{size['bytes']:,} bytes: {name}",
                    number(it["cpu_us"]),
                    number(stats.ratio(ours["cpu_us"], it["cpu_us"])),
                    *(number(it[key]) for key in ("first_ms", "nearest_ms", "last_ms")),
                    number(stats.ratio(ours["last_ms"], it["last_ms"])),
                    number(size["bytes"] * result.parameters["sessions"] / it["last_ms"] / 1000),
                    f"{it['waited']:.0%}",
                ]
            )
    columns = (
        "",
        "CPU µs/delivery",
        "geocast ÷ it",
        "first ms",
        f"nearest {NEAREST} ms",
        "last ms",
        "geocast ÷ it",
        "MB/s",
        "others had the core",
    )
    notes = [f"{size['bytes']:,} bytes: {size['missing']}." for size in result.found["sizes"] if size["missing"]]
    return Table(f"frames: {result.parameters['sessions']:,} sessions, alerts of several sizes", columns, rows, notes)


def plot(result: Result, figure: Any) -> None:
    """Plot the CPU per delivery, and the time until the last session has an alert, over the size of the frame."""
    sizes = result.found["sizes"]
    cost, times = figure.subplots(1, 2)
    for name in sizes[0]["systems"]:
        x, of = [size["bytes"] for size in sizes], [size["systems"].get(name) for size in sizes]
        cost.plot(x, [it["cpu_us"] for it in of], "o-", label=name)
        times.plot(x, [it["last_ms"] for it in of], "o-", label=f"{name}: last")
    cost.set(xlabel="bytes of a frame", ylabel="CPU of the server per delivery, µs", ylim=(0, None))
    times.set(xlabel="bytes of a frame", ylabel="publish → received, ms", ylim=(0, None))
    cost.legend()
    times.legend()
    figure.suptitle(table(result).title)


BENCH = Bench(
    "frames",
    "how the size of an alert affects a fan-out, compared with a bare send loop.",
    measure,
    table,
    plot,
    {"sessions": 2_000, "rounds": 5, "payloads": (400, 4_000, 15_000)},
)
