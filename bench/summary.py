"""The table of README.md: the key figures of each benchmark, their goals, and the reasons for missed goals."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results import Result, Table, number
from bench.stats import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table in README.md.

    A goal begins with ≤ or ≥, or is the number that all values must equal. `reason` says why a goal is missed; it is
    shown only then.
    """

    what: str
    values: Sequence[float]
    goal: str = ""
    reason: str = ""

    @property
    def missed(self) -> bool:
        """Whether any value, rounded as shown, misses the goal."""
        if not self.goal:
            return False
        goal = _parsed(self.goal.lstrip("≤≥ "))
        shown = [_parsed(number(value)) for value in self.values]
        if self.goal.startswith("≤"):
            return max(shown) > goal
        return min(shown) < goal if self.goal.startswith("≥") else set(shown) != {goal}

    def row(self) -> str:
        """Return the row as a line of Markdown."""
        goal = f"{self.goal}; **missed**: {self.reason}" if self.missed else self.goal
        return f"| {self.what} | {' / '.join(map(number, self.values))} | {goal} |"


def _parsed(text: str) -> float:
    return float(text.replace(",", ""))


def _fanout(found: dict[str, Any]) -> Iterator[Figure]:
    peers = {name: it for name, it in found["systems"].items() if not name.startswith("geocast")}
    ours, raw = found["systems"]["geocast"], peers.get("raw")
    yield Figure("CPU for each delivery, µs", [ours["cpu_us"]])
    if peers:
        yield Figure(f"… of {' / '.join(peers)}", [it["cpu_us"] for it in peers.values()])
    yield Figure("publish → the nearest 100, ms", [ours["nearest_ms"]])
    yield Figure("publish → the last, ms", [ours["last_ms"]])
    if raw:
        yield Figure("CPU for each delivery: geocast ÷ raw", [ours["cpu_us"] / raw["cpu_us"]], "≤ 1",
                     "geocast also stores the alert, finds and sorts its recipients, and sends in batches")  # fmt: skip
        yield Figure("publish → the last: geocast ÷ raw", [ours["last_ms"] / raw["last_ms"]], "≤ 1.2",
                     "5 to 6 ms pass before geocast's first write; raw gets the finished bytes")  # fmt: skip


def _frames(found: dict[str, Any]) -> Iterator[Figure]:
    sizes = found["sizes"]
    yield Figure(f"CPU for each delivery of {' / '.join(number(it['bytes']) for it in sizes)} bytes, µs",
                 [it["systems"]["geocast"]["cpu_us"] for it in sizes])  # fmt: skip


def _slope(found: dict[str, Any]) -> Iterator[Figure]:
    ours, raw = found["lines"]["geocast"], found["lines"]["raw"]
    yield Figure("CPU of one more delivery: geocast ÷ raw", [ours["slope_us"] / raw["slope_us"]], "≤ 1",
                 "finding and recording a recipient takes 0.25 µs, more than AIO saves on this machine")  # fmt: skip
    yield Figure("CPU of an alert that nobody is sent, µs", [found["alone_us"]])


def _urgent(found: dict[str, Any]) -> Iterator[Figure]:
    yield Figure("publish → the nearest 100, median ms", [median(found["nearest_ms"])], "≤ 10")
    yield Figure("`extreme` while `minor` is sent → its first 100, median ms", [median(found["extreme_first_100_ms"])],
                 "≤ 8", "an alert alone takes 6 ms, and a slice of the minor one another 2")  # fmt: skip
    yield Figure("timers that are at most 5 ms late, %", [found["loop_lag"]["0.005"] * 100], "≥ 99.9")


def _memory(found: dict[str, Any]) -> Iterator[Figure]:
    systems = found["systems"]
    yield Figure("KiB for each session", [systems["geocast"]["bytes_per_session"] / 1024], "≤ 2.5")
    if peers := [name for name in systems if name != "geocast"]:
        yield Figure(f"… of {' / '.join(peers)}", [systems[name]["bytes_per_session"] / 1024 for name in peers])


def _many(found: dict[str, Any]) -> Iterator[Figure]:
    yield Figure("memory of the machine for the node and the clients, GiB", [found["machine_bytes"] / 2**30], "≤ 18")
    yield Figure("sessions dropped / messages missing", [found["dropped"], found["missing"]], "0")
    yield Figure("publish → the nearest 100 of each process, ms", [median(found["near_each_ms"])], "≤ 100",
                 "all processes share one core, so each waits for the others before its first send")  # fmt: skip
    yield Figure("publish → the last, ms", [median(found["last_ms"])], "≤ 10,000",
                 "a delivery costs 15 µs here instead of 5, presumably because of cache misses")  # fmt: skip


def _storm(found: dict[str, Any]) -> Iterator[Figure]:
    yield Figure("kill → all sessions are back, ms", [found["back_ms"]["max"]], "≤ 5,000",
                 "all sessions connect on one core, each at the cost in the next row")  # fmt: skip
    yield Figure("CPU for each connect with token and `holding`, µs", [found["connect_cpu_us"]], "≤ 250",
                 "until 0.2.0 the check of the Ed25519 signature alone took 107 µs; now it takes 53")  # fmt: skip
    yield Figure("sessions without the alert / alerts sent again / sessions dropped",
                 [found["never_told"], found["sent_again"], found["dropped"]], "0")  # fmt: skip


def _match(found: dict[str, Any]) -> Iterator[Figure]:
    radii, polygons = found["radii"], found.get("polygons", {}).values()
    names = " / ".join(f"{float(radius) / 1000:g}" for radius in radii)
    yield Figure(f"who is within {names} km, µs", [it["index_us"]["p50"] for it in radii.values()])
    if redis := [it["redis_server_us"] for it in radii.values() if "redis_server_us" in it]:
        yield Figure("… Redis, inside the server", redis)
    ratios = [it["index_us"]["p50"] / it["circle_us"]["p50"] for it in polygons]
    yield Figure("a polygon ÷ the circle around it, least / most", sorted(ratios)[:: max(1, len(ratios) - 1)], "≤ 3")
    yield Figure(
        "answers that differ from the brute force", [sum(it["wrong"] for it in (*radii.values(), *polygons))], "0"
    )


def _growth(found: dict[str, Any]) -> Iterator[Figure]:
    few, most = min(found["counts"], key=int), max(found["counts"], key=int)
    first, last = found["counts"][few], found["counts"][most]
    each = (last["rss_bytes"] - first["rss_bytes"]) / max(1, int(most) - int(few))
    starts = [last[key] for key in ("start_s", "redis_start_s") if key in last]
    ratios = [last[key] / first[key] for key in ("visit", "move", "filter", "token")]
    yield Figure(f"connect / move / filter / token: {int(most):,} live ÷ {int(few):,} live", ratios, "≤ 1.05",
                 "runs differ by a tenth; another had 1.02, 1.04, 1.06 and 1.00")  # fmt: skip
    if "idle_cpu" in last:
        yield Figure(f"at rest, 1,000 sessions and {int(most):,} live alerts, % of a core", [100 * last["idle_cpu"]],
                     "≤ 0.3")  # fmt: skip
    yield Figure("CPU of an entry that concerns nobody, µs", [last["foreign_us"]], "≤ 100",
                 "six runs had 82 to 135, as fast as the machine was; 49 µs in the hub")  # fmt: skip
    yield Figure("memory of a live alert, bytes", [each], "≤ 1,024")
    yield Figure("time until ready, SQLite / Redis, s", starts, "≤ 10")
    yield Figure("all alerts end at once: longest sweep for ended alerts, ms", [last["let_go_ms"]], "≤ 5")
    yield Figure("… CPU of the node before it answers a ping, ms", [last["ending_ms"]["spent"]["max"]], "≤ 5")


def _shapes(found: dict[str, Any]) -> Iterator[Figure]:
    one, polygons = found["kinds"]["one circle"], found["kinds"]["eight rings"]
    yield Figure("connect / move: eight polygons ÷ one circle", [polygons[key] / one[key] for key in ("visit", "move")])


def _idle(found: dict[str, Any]) -> Iterator[Figure]:
    goals = {
        "1": ("≤ 0.2", "with Redis, each process checks its Redis once a second, which takes 0.5 ms"),
        "40": ("≤ 10", "as above: 40 processes check their Redis"),
    }
    for name, it in found["nodes"].items():
        values = [it[key] for key in ("rest_percent", "redis_percent") if key in it]
        yield Figure(f"`--workers {name}` at rest, SQLite / Redis, % of a core", values, *goals.get(name, ()))
    alive = [it["sessions_percent"] for name, it in found["nodes"].items() if name == "1"]
    yield Figure("`--workers 1` with all sessions kept alive, % of a core", alive, "≤ 1.5")
    further = {name: it for name, it in found["nodes"].items() if name != "1"}
    what = f"a further process of {' / '.join(further)}"
    yield Figure(f"{what}: CPU until ready, s", [it["ready_cpu_each_s"] for it in further.values()], "≤ 0.3")
    yield Figure(f"{what}: memory, MiB", [it["pss_each_mib"] for it in further.values()], "≤ 15",
                 "the memory that all share is divided among fewer processes")  # fmt: skip


def _ingest(found: dict[str, Any]) -> Iterator[Figure]:
    publishers = found["by_concurrency"]
    yield Figure(
        f"alerts a second, {' / '.join(publishers)} publishers", [it["alerts_per_s"] for it in publishers.values()]
    )


def _readers(found: dict[str, Any]) -> Iterator[Figure]:
    last = found["stretches"][-1]
    same = [it for it in found["stretches"] if all(it[key] == last[key] for key in ("readers", "rate"))]
    name = f"{last['readers']} readers, {last['rate']} appends a second, {{}} replicas"
    counts = " / ".join(str(it["replicas"]) for it in same)
    yield Figure(f"{name.format(counts)}: CPU of the primary, %",
                 [it["cpu_share"] * 100 for it in same])  # fmt: skip
    yield Figure(f"{name.format(last['replicas'])}: → read, p50 / p99 ms",
                 [last["read_ms"]["p50"], last["read_ms"]["p99"]])  # fmt: skip


def _regions(found: dict[str, Any]) -> Iterator[Figure]:
    told, cut, dead = found["told"], found["cut"], found["dead"]
    yield Figure("a request in a → told in a / b / c, p50 ms", [told[name]["p50"] for name in sorted(told)])
    yield Figure("sessions closed when oceans are cut / a region dies", [cut["closed"], dead["closed"]], "0")
    after = [cut["told_after_s"][name] for name in ("b", "c")]
    why = "a node so far away needs a second for a new connection to the primary, and notices the lag in another"
    yield Figure("oceans mended → told everything in b / c, s", after, "≤ 2", why)


def _plan(found: dict[str, Any]) -> Iterator[Figure]:
    for name, sessions in found["limits"].items():
        yield Figure(f"sessions at which ends: {name}", [sessions])


def _slow(found: dict[str, Any]) -> Iterator[Figure]:
    alone, beside = (it["latency_ms"]["p99"] for it in found["runs"].values())
    yield Figure("p99 of the others: beside slow sessions ÷ alone", [beside / alone], "≤ 1.1")


def _calls(found: dict[str, Any]) -> Iterator[Figure]:
    stores, opened = found["stores"], list(found["open"].values())
    for (name, it), goal in zip(stores.items(), ("≤ 10", "≤ 50"), strict=False):
        yield Figure(f"201 → the last of the first wave, {name}, p99 ms", [it["ring_ms"]["p99"]], goal)
    names = " / ".join(stores)
    for what, key, of, goal in (
        ("201 → a responder in the last wave only", "last_ring_ms", "max", "≤ 1,500"),
        ("`accept` → `task`", "accept_ms", "p99", "≤ 50"),
        ("8 responders accept at once → the last of 4 tasks", "at_once_ms", "p99", "≤ 50"),
    ):
        yield Figure(f"{what}, {names}, {of} ms", [it[key][of] for it in stores.values()], goal)
    held = [it["list"]["busy"]["spent"]["max"] for it in stores.values()]
    yield Figure(f"list of the open calls, {names}: CPU of the node before it answers a ping, ms", held, "≤ 5",
                 "presumably because the thread that reads the log runs on the same core")  # fmt: skip
    ratios = [opened[-1][key] / opened[0][key] for key in ("visit_with", "visit_without", "move_with", "move_without")]
    yield Figure("connect and move: most open calls ÷ fewest, largest ratio", [max(ratios)], "≤ 1.3")


def _push(found: dict[str, Any]) -> Iterator[Figure]:
    killed = found["killed"]
    yield Figure("total CPU of a push, µs", [found["cpu_us"]], "≤ 300")
    yield Figure("201 → the first 100 handed over, p99 ms", [found["soon_ms"]["p99"]], "≤ 150")
    yield Figure("201 → the last handed over, max ms", [found["last_ms"]["max"]], "≤ 4,000")
    yield Figure("`extreme` while `minor` is sent / one service hangs: → its first, max ms",
                 [found["urgent_ms"]["max"], found["hanging_ms"]["max"]], "≤ 250")  # fmt: skip
    yield Figure("many devices: time until ready, s", [found["many"]["ready_s"]], "≤ 20")
    yield Figure("… memory of each, KiB", [found["many"]["kib"]], "≤ 2.5")
    yield Figure(
        "killed in an alert / in its cancel: devices without it", [killed["missed"], killed["without_cancel"]], "0"
    )
    yield Figure("… devices that got it twice", [killed["twice"], killed["cancel_twice"]], "≤ 512")


def _relay(found: dict[str, Any]) -> Iterator[Figure]:
    yield Figure("201 → the last working target has it, p99 ms", [found["last_ms"]["p99"]], "≤ 100")
    yield Figure("CPU of a webhook, µs", [found["cpu_us"]], "≤ 500")
    yield Figure("1,000 alerts at once: last 201 → the last webhook, ms", [found["behind_ms"]], "≤ 1,000")
    yield Figure("… webhooks missing / twice", [found["missing"], found["twice"]], "0")


FIGURES: dict[str, Callable[[dict[str, Any]], Iterator[Figure]]] = {
    each.__name__.removeprefix("_"): each
    for each in (
        *(_fanout, _frames, _slope, _urgent, _memory, _many, _storm, _match, _growth),
        *(_shapes, _idle, _ingest, _readers, _regions, _slow, _calls, _push, _relay, _plan),
    )
}


def markdown(results: Sequence[Result], tables: Sequence[Table]) -> str:
    """Return the summary as Markdown text.

    It lists the machines, each with the benchmarks that ran on it, and the key figures of each benchmark.
    """
    machines: dict[str, list[str]] = {}
    for result in results:
        on = result.machine
        machine = f"{on['cores']} cores of {on['cpu']}, {on['memory_gib']:.0f} GiB"
        machines.setdefault(machine, []).append(f"`{result.name}` ({result.when[:10]})")
    lines = [f"- {machine}: {', '.join(names)}." for machine, names in machines.items()]
    lines += ["", "| measured | figure | goal |", "| --- | --: | --- |"]
    for result, table in zip(results, tables, strict=True):
        if figures := FIGURES.get(result.name):
            lines.append(f"| **[{result.name}](tables.md#{result.name})**{table.title.removeprefix(result.name)} | | |")
            lines += [figure.row() for figure in figures(result.found) if figure.values]
    return "\n".join(lines)
