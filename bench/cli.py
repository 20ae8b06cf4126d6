"""The command line of the benchmarks: one subcommand for each measurement, plus `all` and `table`.

Every measurement limits its size and its duration, shows its progress, and writes a JSON file and a PNG image to the
folder of the results.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import oceans, results, screen, summary
from bench.rounds import peer_names
from bench.runs import Bench
from bench.scenarios import areas as areas_module
from bench.scenarios import calls as calls_module
from bench.scenarios import fanout as fanout_module
from bench.scenarios import feed as feed_module
from bench.scenarios import fetch as fetch_module
from bench.scenarios import frames as frames_module
from bench.scenarios import growth as growth_module
from bench.scenarios import idle as idle_module
from bench.scenarios import ingest as ingest_module
from bench.scenarios import load as load_module
from bench.scenarios import many as many_module
from bench.scenarios import match as match_module
from bench.scenarios import memory as memory_module
from bench.scenarios import plan as plan_module
from bench.scenarios import polls as polls_module
from bench.scenarios import push as push_module
from bench.scenarios import readers as readers_module
from bench.scenarios import regions as regions_module
from bench.scenarios import relay as relay_module
from bench.scenarios import shapes as shapes_module
from bench.scenarios import slope as slope_module
from bench.scenarios import slow as slow_module
from bench.scenarios import storm as storm_module
from bench.scenarios import urgent as urgent_module

BENCHES: dict[str, Bench] = {
    module.BENCH.name: module.BENCH
    for module in (
        fanout_module,
        frames_module,
        slope_module,
        urgent_module,
        memory_module,
        many_module,
        storm_module,
        match_module,
        growth_module,
        shapes_module,
        areas_module,
        feed_module,
        fetch_module,
        polls_module,
        idle_module,
        ingest_module,
        readers_module,
        regions_module,
        slow_module,
        calls_module,
        push_module,
        relay_module,
        plan_module,
        load_module,
    )
}
MOST_SESSIONS = 100_000
_sessions = click.IntRange(1, MOST_SESSIONS)
_seconds = click.FloatRange(0.5, 3600)


class Peers(click.ParamType):  # type: ignore[type-arg]  # has none before click 8.4
    """The type of an option that lists peers (servers to compare geocast with), such as `raw,nats`, or is `none`."""

    name = "LIST"

    def convert(self, value: Any, _param: Any, _context: Any) -> tuple[str, ...]:
        """Return the names of the peers. Raise BadParameter if a name is unknown."""
        if isinstance(value, tuple):
            return value
        return () if value == "none" else tuple(peer_names(value))


class Numbers(click.ParamType):  # type: ignore[type-arg]  # has none before click 8.4
    """The type of an option that lists integers from `least` to `most`, such as `1,8,64`."""

    name = "LIST"
    least, most = 1, 1024

    def convert(self, value: Any, param: Any, context: Any) -> tuple[int, ...]:
        """Parse the comma-separated integers. Raise BadParameter if one is not between `least` and `most`."""
        if isinstance(value, tuple):
            return value
        return tuple(click.IntRange(self.least, self.most).convert(each, param, context) for each in value.split(","))


class Counts(Numbers):
    """The type of an option that lists integers from 1 to a million, such as `10,100000`."""

    most = 1_000_000


class Crowds(Numbers):
    """The type of an option that lists numbers of sessions from 100 to 18,000, such as `1000,16000`."""

    least, most = 100, 18_000


class Few(Numbers):
    """The type of an option that lists integers from 0 to 1,000, such as `0,1000`."""

    least, most = 0, 1_000


class Sizes(Numbers):
    """The type of an option that lists frame sizes from 300 to 15,000 bytes, such as `400,15000`."""

    least, most = 300, 15_000


class Point(click.ParamType):  # type: ignore[type-arg]  # has none before click 8.4
    """The type of an option that is a position in degrees, written `LAT,LNG`."""

    name = "LAT,LNG"

    def convert(self, value: Any, param: Any, context: Any) -> tuple[float, float]:
        """Return the latitude and the longitude in degrees. Raise BadParameter if the value is not two numbers."""
        if isinstance(value, tuple):
            return value
        try:
            lat, lng = (float(each) for each in value.split(","))
        except ValueError:
            self.fail("expected LAT,LNG", param, context)
        return lat, lng


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default=results.FOLDER,
    help="Folder for the results.",
    show_default="bench/results",
)
@click.pass_context
def cli(context: click.Context, folder: Path) -> None:
    """Measure geocast, and other servers that push to many sockets, on this machine. Results are in bench/README.md."""
    context.obj = folder


def _command(name: str, *options: Callable[[Any], Any]) -> None:
    """Add the subcommand that runs the benchmark `name`.

    The docstring of the benchmark's module becomes the help text.
    """

    @click.pass_obj
    def run(folder: Path, /, **parameters: Any) -> None:
        BENCHES[name].run(folder, **parameters)

    about = (sys.modules[f"bench.scenarios.{name}"].__doc__ or "").partition(": ")[2]
    run.__doc__ = about[:1].upper() + about[1:]
    for option in reversed(options):
        run = option(run)
    cli.command(name)(run)


_vs = click.option(
    "--vs",
    type=Peers(),
    default="raw,container,transports,websockets,uws,nchan,nats",
    help="Servers to compare with, or none.",
)
_command(
    "fanout",
    click.option("--sessions", type=_sessions, default=10_000),
    click.option(
        "--share",
        type=click.FloatRange(0.001, 1),
        default=1.0,
        help="Fraction of the sessions that are inside the area.",
    ),
    click.option("--rounds", type=click.IntRange(1, 1000), default=20),
    click.option(
        "--payload", type=click.IntRange(300, 1400), default=400, help="Approximate size of an alert's frame in bytes."
    ),
    _vs,
    click.option(
        "--deliveries-per-s",
        type=click.IntRange(1, 1_000_000),
        default=50_000,
        help="Rate of the part at a steady rate.",
    ),
    click.option("--seconds", type=_seconds, default=5.0, help="Duration of the part at a steady rate."),
    click.option("--flat-out", type=click.IntRange(1, 60), default=20, help="Alerts published at full speed."),
)
_command(
    "frames",
    click.option("--sessions", type=_sessions, default=10_000),
    click.option("--rounds", type=click.IntRange(1, 1000), default=10),
    click.option(
        "--payloads", type=Sizes(), default="400,4000,15000", help="Approximate size of an alert's frame in bytes."
    ),
)
_command(
    "slope",
    click.option(
        "--sizes", type=Crowds(), default="1000,4000,8000,16000", help="Numbers of sessions, one for each run."
    ),
    click.option("--rounds", type=click.IntRange(1, 1000), default=15),
    click.option("--alone", type=click.IntRange(1, 10_000), default=1_000, help="Alerts that nobody is sent."),
)
_command(
    "urgent",
    click.option("--sessions", type=click.IntRange(200, MOST_SESSIONS), default=15_000),
    click.option("--rounds", type=click.IntRange(1, 1000), default=10),
)
_command(
    "memory",
    click.option("--sessions", type=_sessions, default=15_000),
    click.option("--vs", type=Peers(), default="websockets,uws,nchan,nats", help="Servers to compare with, or none."),
    click.option(
        "--settle-s", type=click.FloatRange(0, 60), default=3.0, help="Seconds to wait before memory is read."
    ),
)
_command(
    "many",
    click.option("--sessions", type=click.IntRange(1, 2_000_000), default=100_000),
    click.option("--rounds", type=click.IntRange(1, 100), default=5, help="Alerts to all sessions."),
    click.option(
        "--hold-s", type=click.FloatRange(1, 3600), default=60.0, help="Seconds to keep the sessions connected."
    ),
    click.option("--moves", type=click.IntRange(0, 1_000_000), default=2_000, help="Sessions that move in that time."),
    click.option("--heartbeat-s", type=click.IntRange(25, 55), default=25, help="The option of the node."),
)
_command(
    "storm",
    click.option("--sessions", type=_sessions, default=10_000),
    click.option("--held", type=click.IntRange(1, 256), default=3, help="Alerts that each session already has."),
    click.option(
        "--window-ms", type=click.IntRange(1, 120_000), default=1_000, help="Longest random delay before a reconnect."
    ),
    click.option("--inflight", type=_sessions, default=10_000, help="Largest number of handshakes at once."),
)
_command(
    "match",
    click.option("--count", type=click.IntRange(1_000, 5_000_000), default=1_000_000, help="Number of places."),
    click.option("--queries", type=click.IntRange(1, 1_000), default=50, help="Queries for each radius."),
    click.option(
        "--moves", type=click.IntRange(1, 1_000_000), default=100_000, help="Number of moves, at most `count`."
    ),
    click.option("--redis/--no-redis", default=True),
)
_command(
    "growth",
    click.option("--alerts", type=Counts(), default="10,10000,100000", help="Numbers of live alerts, ascending."),
    click.option("--rounds", type=click.IntRange(1, 100), default=7, help="Rounds of connects, moves and so on."),
    click.option("--redis/--no-redis", default=True),
)
_command(
    "shapes",
    click.option("--alerts", type=click.IntRange(10, 20_000), default=2_000, help="Number of live alerts."),
    click.option("--rounds", type=click.IntRange(1, 100), default=7, help="Rounds of connects, moves and so on."),
)
_command(
    "areas",
    click.option(
        "--rounds", type=click.IntRange(1, 100), default=3, help="Times that each message or request is processed."
    ),
)
_command(
    "feed",
    click.option("--alerts", type=click.IntRange(10, 20_000), default=1_000, help="Alerts that become live at once."),
    click.option("--reads-s", type=_seconds, default=0.5, help="Seconds between two reads of the feed's documents."),
)
_command(
    "fetch",
    click.option("--entries", type=click.IntRange(1, 10_000), default=2_000, help="Entries of the feed."),
    click.option("--rounds", type=click.IntRange(1, 100), default=11, help="Readings with nothing and with one new."),
)
_command(
    "polls",
    click.option("--alerts", type=click.IntRange(1, 5_000), default=200, help="Alerts in the document."),
    click.option("--clients", type=click.IntRange(1, 400), default=50, help="Clients that ask at once."),
    click.option("--seconds", type=_seconds, default=5.0, help="For how long they ask."),
)
_command(
    "idle",
    click.option(
        "--workers", type=Numbers(), default="1,10,40", help="Numbers of stream processes, each for a node of its own."
    ),
    click.option("--sessions", type=_sessions, default=15_000, help="Sessions of each node, over all its processes."),
    click.option("--redis/--no-redis", default=True),
)
_command(
    "ingest",
    click.option(
        "--concurrency", type=Numbers(), default="1,8,64,256", help="Numbers of publishers that publish at once."
    ),
    click.option("--seconds", type=click.FloatRange(0.5, 60), default=5.0, help="Seconds for each concurrency."),
)
_command(
    "readers",
    click.option("--readers", type=Counts(), default="100,500,2000", help="Numbers of processes that follow the log."),
    click.option("--rates", type=Numbers(), default="1,10", help="Rates, in appends a second."),
    click.option("--replicas", type=Few(), default="0,2,6", help="Numbers of replicas that the processes read."),
    click.option("--seconds", type=click.FloatRange(1, 60), default=5.0, help="Seconds for each rate."),
)
_command(
    "regions",
    click.option("--rounds", type=click.IntRange(1, 1000), default=100, help="Alerts one by one."),
    click.option("--cut-s", type=click.FloatRange(0.5, 600), default=60.0, help="Seconds for which oceans are cut."),
    click.option("--near-ms", type=click.IntRange(0, 1000), default=40, help="Round trip between a and b."),
    click.option("--far-ms", type=click.IntRange(0, 1000), default=150, help="Round trips to c."),
)
_command(
    "slow",
    click.option("--sessions", type=_sessions, default=5_000),
    click.option(
        "--percent", type=click.FloatRange(0.01, 5), default=1.0, help="Percentage of each kind of slow session."
    ),
    click.option(
        "--payload",
        type=click.IntRange(300, 1400),
        default=1_300,
        help="Approximate size of an alert's frame in bytes.",
    ),
    click.option("--rate", type=click.FloatRange(0.1, 1000), default=8.0, help="Alerts a second."),
    click.option("--seconds", type=_seconds, default=45.0),
)
_command(
    "calls",
    click.option("--sessions", type=_sessions, default=2_000, help="Responders on duty far away."),
    click.option("--rounds", type=click.IntRange(4, 1000), default=200),
    click.option(
        "--opened", type=Few(), default="0,100,1000", help="Numbers of open calls far from everybody, ascending."
    ),
    click.option("--redis/--no-redis", default=True),
)
_command(
    "push",
    click.option("--devices", type=click.IntRange(10, MOST_SESSIONS), default=10_000),
    click.option("--rounds", type=click.IntRange(1, 1000), default=20, help="Alerts to all devices."),
    click.option(
        "--many", type=click.IntRange(10, 200_000), default=100_000, help="Devices when memory and start are measured."
    ),
)
_command(
    "relay",
    click.option("--alerts", type=click.IntRange(1, 100_000), default=1_000, help="Alerts at once."),
    click.option("--targets", type=click.IntRange(2, 100), default=10, help="Targets, of which the last one hangs."),
    click.option("--rounds", type=click.IntRange(1, 1000), default=100, help="Alerts one by one."),
)
_command(
    "plan",
    click.option("--sessions", type=click.FloatRange(1e3, 1e10), default=100e6, help="Such as 100e6."),
    click.option("--alerts-per-s", type=click.FloatRange(0.001, 1000), default=25.0, help="In all regions together."),
    click.option(
        "--recipients", type=click.FloatRange(1, 1e9), default=5_000.0, help="Sessions that an alert reaches."
    ),
    click.option("--regions", type=click.IntRange(1, 100), default=5),
    click.option("--machine-gib", type=click.FloatRange(1, 10_000), default=64.0, help="Memory of one machine."),
)
_command(
    "load",
    click.option("--url", required=True, help="ws:// or wss://, with the path."),
    click.option("--api-url", required=True, help="http:// or https://, without a path."),
    click.option("--token", envvar="GEOCAST_LOAD_TOKEN", help="Token of the subscribers, if the node requires one."),
    click.option("--publish-token", envvar="GEOCAST_LOAD_PUBLISH_TOKEN", required=True),
    click.option("--sessions", type=click.IntRange(1, 18_000), default=500),
    click.option("--center", type=Point(), default="32.7767,-96.797"),
    click.option(
        "--spread-km",
        type=click.FloatRange(0.01, 500),
        default=10.0,
        help="Largest distance of a session from the center.",
    ),
    click.option("--rate", type=click.FloatRange(0.01, 1000), default=2.0, help="Alerts a second."),
    click.option("--seconds", type=_seconds, default=30.0),
    click.option("--ramp-up", type=click.FloatRange(0, 600), default=5.0, help="Seconds over which sessions join."),
    click.option(
        "--radius-m", type=click.FloatRange(1), help="Radius of the alerts; default: all sessions are inside."
    ),
    click.option("--category", default="robbery"),
    click.option("--severity", type=click.Choice(["extreme", "severe", "moderate", "minor"]), default="minor"),
    click.option(
        "--status",
        type=click.Choice(["test", "exercise", "actual"]),
        default="test",
        help="actual: every subscriber inside gets the alert, people included.",
    ),
    click.option("--lifetime-s", type=click.FloatRange(5, 3600), default=60.0, help="Seconds until alerts expire."),
)


@cli.command(name="all")
@click.option("--short", is_flag=True, help="Make smaller runs, which take about nine minutes in all.")
@click.pass_obj
def run_all(folder: Path, short: bool) -> None:
    """Run every measurement except `load`, one after the other, then rewrite tables.md and the table in README.md."""
    for name, bench in _without_load().items():
        if name == "regions" and (reason := oceans.missing()):
            screen.say(f"regions is left out: {reason}")
            continue
        parameters = bench.short if short else _defaults(name)
        bench.run(folder, **parameters)
    _rewrite(folder)


def _without_load() -> dict[str, Bench]:
    return {name: bench for name, bench in BENCHES.items() if name != "load"}


def _defaults(name: str) -> dict[str, Any]:
    command = cli.commands[name]
    context = command.make_context(name, [])
    return {key: value for key, value in context.params.items() if key != "help"}


@cli.command()
@click.pass_obj
def table(folder: Path) -> None:
    """From the existing results, rewrite tables.md, the table in README.md, and the plots."""
    for name, bench in _without_load().items():
        path = folder / f"{name}.json"
        if path.exists():
            bench.draw(results.Result.load(path), path.with_suffix(".png"))
    _rewrite(folder)


def _rewrite(folder: Path) -> None:
    there = {name: folder / f"{name}.json" for name in _without_load() if (folder / f"{name}.json").exists()}
    found = [results.Result.load(path) for path in there.values()]
    if found:
        tables = [BENCHES[each.name].table(each) for each in found]
        results.rewrite(results.TABLES, results.markdown(found, tables))
        results.rewrite(results.README, summary.markdown(found, tables))
        screen.say(f"rewrote {results.README.name} and {results.TABLES.name} from the results of {', '.join(there)}")


def main() -> None:
    """Run the command line of the benchmarks."""
    cli(prog_name="python -m bench")
