"""Options that can also be set by environment variables, and those of a node, for `serve` and `check`."""

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..config import SHARE, parse_address, parse_key_url, parse_origins
from ..model.errors import ConfigError, did_you_mean
from ..model.qualifications import QUALS_FORM, are_quals
from ..model.server_address import KeyUrl
from .journal import FORMATS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LOG_LEVELS = ("debug", "info", "warning", "error")
PREFIX = "GEOCAST_"
VARIABLES: set[str] = set()  # those of all options of all commands, which may run with the same environment
# Variables of the project's other programs, which may run with the same environment, too.
ELSEWHERE = frozenset(
    PREFIX + name
    for names in (
        "TOKEN TOKEN_URL TOKEN_COMMAND WIRE PUSH_URL FEED_FORMAT PAGE_TOKEN PAGE_BIND MAP_PORT MAP_STYLE",
        # Those of tests and measurements.
        "LOAD_TOKEN LOAD_PUBLISH_TOKEN FAILPOINT INJECTIONS SLOW_FSYNC PICTURES CHECKED COMMAND REPORT_URL",
        "DISPATCH_TOKEN SOAK_EXAMPLES SOAK_FEEDS SOAK_ROUNDS SOAK_STEPS SOAK_SEED SOAK_MINUTES",
    )
    for name in names.split()
)
# Kubernetes sets these variables in every pod that has a Service called `geocast` or `geocast-…` beside it.
_SERVICE_LINK = re.compile(
    r"GEOCAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

Decorator = Callable[[Any], Any]
_Value = TypeVar("_Value")


class Parsed(click.ParamType[_Value, str]):
    """The type of an option whose value a function parses, which raises ConfigError if the value is not valid."""

    def __init__(self, name: str, parse: Callable[[str], _Value], like: click.ParamType[Any, Any] = click.STRING):
        self.name = name
        self._parse = parse
        self._like = like  # the type that completes a word for the shell

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _Value:
        """Return the parsed value of the option. Raise a usage error if it is not valid."""
        if not isinstance(value, str):
            return cast("_Value", value)
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        """Return how to complete a word, for example with the names of files."""
        return self._like.shell_complete(ctx, param, incomplete)


def _parse_quals(text: str) -> tuple[str, ...]:
    """Parse a list of qualifications separated by commas, and remove duplicates."""
    quals = tuple(dict.fromkeys(map(str.strip, text.split(","))))
    if not are_quals([*quals]):
        raise ConfigError(f"expected {QUALS_FORM}, with commas between them")
    return quals


FILE = click.Path(path_type=Path)
ADDRESS = Parsed("HOST:PORT", parse_address)
KEYS = Parsed[Path | KeyUrl](
    "PATH|URL", lambda text: parse_key_url(text) if "://" in text else Path(text), click.Path()
)
ORIGINS = Parsed("LIST", parse_origins)
QUALS = Parsed("LIST", _parse_quals)


class _Seconds(click.FloatRange):
    """A range of seconds that excludes NaN and infinity.

    Click's own range accepts NaN, which is neither above nor below any limit.
    """

    unit = "a number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            bounds = "" if self.max is None else f" from {self.min} to {self.max}"
            self.fail(f"expected {self.unit}{bounds}", param, ctx)
        return number


class Number(_Seconds):
    """A range of finite numbers, such as `--share` and degrees."""

    unit = "a number"


class _Option(click.Option):
    """An option that can collect its errors in a list.

    If the context's `obj` is a list, errors are added to it, and the option gets its default value. Otherwise they are
    raised.
    """

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        try:
            return super().process_value(ctx, value)
        except click.UsageError as error:
            if not isinstance(ctx.obj, list):
                raise
            ctx.obj.append((self, error))
            return super().process_value(ctx, self.get_default(ctx))


def option(name: str, variable: str = "", dest: str = "", **more: Any) -> Decorator:
    """Return a command line option that can also be set by an environment variable.

    By default, the variable is GEOCAST_ and the option's name, such as GEOCAST_LOG. Pass `variable`, the part after
    GEOCAST_, if a node has an option of the same name with a different meaning: all processes may run with the same
    environment. `dest` is the name of the function's parameter, if it is another one than the option's.
    """
    envvar = PREFIX + (variable or name.lstrip("-").upper().replace("-", "_"))
    VARIABLES.add(envvar)
    names = (name, dest) if dest else (name,)
    return click.option(*names, cls=_Option, envvar=envvar, show_envvar=True, show_default=True, **more)


def _api_url(context: click.Context, option: click.Parameter, text: str) -> KeyUrl:
    try:
        url = parse_key_url(text)
    except ConfigError:
        url = None
    if url is None or "?" in url.target:
        raise click.BadParameter("expected the URL of a node's API, such as http://127.0.0.1:8766", context, option)
    return url


def api_url_option(meaning: str) -> Decorator:
    """Return the option `--api` of a command that is a client of a node's API."""
    default = "http://127.0.0.1:8766"
    return option("--api", "API_URL", dest="api_url", metavar="URL", default=default, callback=_api_url, help=meaning)


def together(*options: Decorator) -> Decorator:
    """Return a decorator that adds these options to a command, in the order in which the help lists them."""

    def add(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return add


# The options of commands that run until SIGTERM.
journal_options = together(
    option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="The least level of log lines."),
    option("--log-format", type=click.Choice(FORMATS), default="text", help="Log lines as text or as JSON."),
)
DRAIN_OPTION = option("--drain-s", type=_Seconds(0, 3600), default=10.0, help="Seconds that a drain may take.")
SHARE_OPTION = option(
    "--share",
    type=Number(0, 1, min_open=True),
    default=SHARE,
    help="The part of each bounded resource that one subject may take.",
)
KEYS_REFRESH_OPTION = option(
    "--keys-refresh-s", type=click.IntRange(1, 86_400), default=300, help="Seconds until a URL is read again."
)
REVOKED_OPTION = option("--revoked", type=FILE, help="Subjects whose tokens are revoked (TOML).")
# Options of the processes that run beside the nodes.
LOG_OPTION = option("--log", metavar="URL", default="sqlite:geocast.db", help="The alert log of the nodes.")
POLICY_OPTION = option("--policy", type=FILE, metavar="PATH", help="The policy of the nodes, the same file.")
REVIEWERS_OPTION = option(
    "--reviewers", type=FILE, help="Keys of reviewers who approve alerts (JWKS), the file of the nodes."
)
METRICS_OPTION = option("--metrics", type=ADDRESS, help="Where /metrics, /healthz and /readyz are served.")
# The options of the processes that tell others what is in the log.
follower_options = together(LOG_OPTION, POLICY_OPTION, REVIEWERS_OPTION, METRICS_OPTION, DRAIN_OPTION, journal_options)
# The options of a node.
api_option = option("--api", type=ADDRESS, default="127.0.0.1:8766", help="Where review services publish (HTTP).")
node_options = together(
    option("--stream", type=ADDRESS, default="127.0.0.1:8765", help="Where subscribers connect (WebSocket)."),
    api_option,
    option("--metrics", type=ADDRESS, help="Where /metrics is served, instead of at --api."),
    option("--feed", type=ADDRESS, help="Where the public feed is served (HTTP); no feed if left out."),
    option("--feed-url", default="", metavar="URL", help="The URL at which the public reaches the feed."),
    option("--feed-sender", default="", metavar="NAME", help="The sender of the CAP messages of the feed."),
    option("--feed-areas", is_flag=True, help="Answer weather apps that ask the feed for the alerts in a box."),
    option(
        "--log",
        metavar="URL",
        default="sqlite:geocast.db",
        help="The alert log: sqlite:PATH, redis://HOST:PORT for several machines, or memory:.",
    ),
    option(
        "--log-replicas", type=click.IntRange(0, 10), default=0, help="Replicas of Redis that must have each alert too."
    ),
    option(
        "--log-follow",
        metavar="WHERE",
        default="primary",
        help="The Redis that is followed: primary, replica (the nearest that Sentinels know), or a replica's URL.",
    ),
    option("--allow-volatile-log", is_flag=True, help="Accept a Redis that loses alerts when it ends."),
    option("--keys", type=KEYS, help="Public keys that tokens are checked against (JWKS): a file, or https://…."),
    KEYS_REFRESH_OPTION,
    REVOKED_OPTION,
    option(
        "--policy",
        type=FILE,
        metavar="PATH",
        help="What may be published: a TOML file, or builtin:public-warning. builtin:neighbourhood if left out.",
    ),
    option("--reviewers", type=FILE, help="Keys of reviewers who approve alerts (JWKS)."),
    option("--publishers", type=FILE, help="Rights of each publisher (TOML); else equal rights."),
    option("--cap-sources", type=FILE, help="Sources of CAP messages (TOML); none are taken if left out."),
    option(
        "--cap-zones",
        type=FILE,
        multiple=True,
        metavar="PATH",
        help="Polygons for the area codes of CAP (GeoJSON); may be repeated.",
    ),
    option("--call-keys", type=FILE, help="Secret keys that encrypt calls (JWKS)."),
    option("--aeds", type=FILE, help="Defibrillators for calls (GeoJSON, or Overpass JSON)."),
    option("--origins", type=ORIGINS, default="", help="Origins of web pages that may connect, with commas."),
    option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that share the stream listener."),
    option("--dev", is_flag=True, help="For trying: loopback only, tokens are optional for subscribers."),
    option("--allow-exposed-dev", is_flag=True, help="With --dev: listen beyond loopback, for example in a container."),
    DRAIN_OPTION,
    option("--heartbeat-s", type=click.IntRange(25, 55), default=25, help="Seconds without a write before a ping."),
    option(
        "--max-sessions", type=click.IntRange(1), help="Maximum number of connections; else what descriptors allow."
    ),
    SHARE_OPTION,
    journal_options,
)


def unknown_variables() -> Iterator[str]:
    """Yield a line of text for each environment variable whose name begins with GEOCAST_ but is unknown."""
    known = VARIABLES | ELSEWHERE
    for name in sorted(os.environ.keys() - known):
        if name.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(name):
            yield f"{name} in the environment is no setting{did_you_mean(name, known, PREFIX)}"
