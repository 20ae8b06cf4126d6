"""The options of a node, for `serve` and `check`.

Each can also be set by an environment variable: GEOCAST_ and the option's name, such as GEOCAST_LOG.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ..auth.scopes import QUALS_FORM, are_quals
from ..config import SHARE, KeyUrl, parse_address, parse_key_url, parse_origins
from ..errors import ConfigError
from . import environment
from .environment import PREFIX
from .journal import FORMATS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LOG_LEVELS = ("debug", "info", "warning", "error")

_Command = TypeVar("_Command", bound=Callable[..., Any])
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


ADDRESS = Parsed("HOST:PORT", parse_address)
KEYS = Parsed[Path | KeyUrl](
    "PATH|URL", lambda text: parse_key_url(text) if "://" in text else Path(text), click.Path()
)
ORIGINS = Parsed("LIST", parse_origins)
QUALS = Parsed("LIST", _parse_quals)


class _Seconds(click.FloatRange):
    """A range of seconds that excludes NaN.

    Click's own range accepts NaN, which is neither above nor below any limit.
    """

    unit = "a number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"expected {self.unit} from {self.min} to {self.max}", param, ctx)
        return number


class _Share(_Seconds):
    """A range of numbers that excludes NaN.

    It is the type of `--share`, the fraction of a resource that one subject (token owner or CAP source) may use.
    """

    unit = "a number"


SHARE_TYPE = _Share(0, 1, min_open=True)
SHARE_HELP = "The part of each bounded resource that one subject may take."


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


def _option(name: str, *names: str, **more: Any) -> Callable[[Any], Any]:
    envvar = PREFIX + name.lstrip("-").upper().replace("-", "_")
    return click.option(name, *names, cls=_Option, envvar=envvar, show_envvar=True, show_default=True, **more)


api_option = _option("--api", type=ADDRESS, default="127.0.0.1:8766", help="Where review services publish (HTTP).")
_OPTIONS = (
    _option("--stream", type=ADDRESS, default="127.0.0.1:8765", help="Where subscribers connect (WebSocket)."),
    api_option,
    _option("--metrics", type=ADDRESS, help="Where /metrics is served, instead of at --api."),
    _option("--feed", type=ADDRESS, help="Where the public feed is served (HTTP); no feed if left out."),
    _option("--feed-url", default="", metavar="URL", help="The URL at which the public reaches the feed."),
    _option("--feed-sender", default="", metavar="NAME", help="The sender of the CAP messages of the feed."),
    _option("--feed-areas", is_flag=True, help="Answer weather apps that ask the feed for the alerts in a box."),
    _option(
        "--log",
        metavar="URL",
        default="sqlite:geocast.db",
        help="The alert log: sqlite:PATH, redis://HOST:PORT for several machines, or memory:.",
    ),
    _option(
        "--log-replicas", type=click.IntRange(0, 10), default=0, help="Replicas of Redis that must have each alert too."
    ),
    _option("--allow-volatile-log", is_flag=True, help="Accept a Redis that loses alerts when it ends."),
    _option(
        "--keys",
        type=KEYS,
        help="Public keys that tokens are checked against (JWKS): a file, or https://….",
    ),
    _option("--keys-refresh-s", type=click.IntRange(1, 86_400), default=300, help="Seconds until a URL is read again."),
    _option("--revoked", type=click.Path(path_type=Path), help="Subjects whose tokens are revoked (TOML)."),
    _option(
        "--policy",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="What may be published: a TOML file, or builtin:public-warning. builtin:neighbourhood if left out.",
    ),
    _option("--reviewers", type=click.Path(path_type=Path), help="Keys of reviewers who approve alerts (JWKS)."),
    _option(
        "--publishers", type=click.Path(path_type=Path), help="Rights of each publisher (TOML); else equal rights."
    ),
    _option(
        "--cap-sources",
        type=click.Path(path_type=Path),
        help="Sources of CAP messages (TOML); none are taken if left out.",
    ),
    _option(
        "--cap-zones",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="Polygons for the area codes of CAP (GeoJSON); may be repeated.",
    ),
    _option("--call-keys", type=click.Path(path_type=Path), help="Secret keys that encrypt calls (JWKS)."),
    _option("--aeds", type=click.Path(path_type=Path), help="Defibrillators for calls (GeoJSON, or Overpass JSON)."),
    _option("--origins", type=ORIGINS, default="", help="Origins of web pages that may connect, with commas."),
    _option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that share the stream listener."),
    _option("--dev", is_flag=True, help="For trying: loopback only, tokens are optional for subscribers."),
    _option(
        "--allow-exposed-dev", is_flag=True, help="With --dev: listen beyond loopback, for example in a container."
    ),
    _option("--drain-s", type=_Seconds(0, 3600), default=10.0, help="Seconds that a drain may take."),
    _option("--heartbeat-s", type=click.IntRange(25, 55), default=25, help="Seconds without a write before a ping."),
    _option(
        "--max-sessions", type=click.IntRange(1), help="Maximum number of connections; else what descriptors allow."
    ),
    _option("--share", type=SHARE_TYPE, default=SHARE, help=SHARE_HELP),
    _option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="The least level of log lines."),
    _option("--log-format", type=click.Choice(FORMATS), default="text", help="Log lines as text or as JSON."),
)


def node_options(command: _Command) -> _Command:
    """Add the options of a node to a command, in the order in which the help lists them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def unknown_variables() -> list[str]:
    """Return a line of text for each environment variable whose name begins with GEOCAST_ but is unknown."""
    context = click.get_current_context()
    known = {option.envvar for option in context.command.params if isinstance(option.envvar, str)}
    return list(environment.unknown(os.environ, known))
