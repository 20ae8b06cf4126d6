"""`geocast check`: show the settings that a node would use, where each comes from, and everything that is wrong.

The command starts, creates and changes nothing. So it can be run while a node is running, to check the settings with
which the node will be restarted.
"""

import contextlib
import functools
import json
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import config
from ..config import Settings
from ..model.errors import ConfigError, LogUnavailable
from ..model.server_address import KeyUrl
from .options import node_options, unknown_variables

WONT_START, WOULD_WAIT = 2, 1  # exit statuses: a node would refuse to start, or would start and wait for its log

# Matches URLs in which the secret parts can be found: the user, the password, and all parameters except `prefix` and
# `ca`.
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(?::\d{1,5})?"
_URL = re.compile(rf"([A-Za-z][\w+.-]*://)([^@/?#\s]*@)?({_HOST}(?:,{_HOST})*(?:/[\w./-]*)?)(\?[^\s#]*)?")
_PATH = re.compile(rf"(?:(?:{'|'.join(config.PATH_SCHEMES)}):)?(?:[./](?!.*:/)|[^:@]*\Z)", re.DOTALL)
_PARAMETER = re.compile(r"([?&])(?!prefix=|ca=)((?:[\w.-]+=)?)[^&]*")


class _Lenient(click.Command):
    """A command that collects the mistakes in its options, instead of stopping at the first (see `options._Option`).

    An option with a mistake gets its default value.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and collect the mistakes in the list `obj` of the context."""
        ctx.obj = []
        return super().parse_args(ctx, args)


@click.command("check", cls=_Lenient)
@node_options
@click.pass_context
def command(context: click.Context, /, log_level: str, log_format: str, **options: Any) -> int:  # noqa: ARG001
    """Show the settings that a node would use, and everything that is wrong with them. Takes the options of `serve`.

    Nothing is changed. The exit status is 0 if a node would start, 1 if it would start but could not use its log at the
    moment, and 2 if it would refuse to start.
    """
    settings = Settings(**options)
    for row in _table(context, settings):
        click.echo("  ".join(row).rstrip())
    problems = [*(error.format_message() for _, error in context.obj), *unknown_variables(), *settings.problems()]
    status = 0
    for name, check in _checks(settings):
        try:
            if said := check():
                click.echo(f"{name}: {said}")
        except ConfigError as error:
            problems += error.problems
        except LogUnavailable as error:
            click.echo(f"geocast: not now: {name}: {error}", err=True)
            status = WOULD_WAIT
    for problem in problems:
        click.echo(f"geocast: error: {' '.join(problem.split())}", err=True)
    return WONT_START if problems else status


# ---- the table of settings -----------------------------------------------------------------------------------------


def _table(context: click.Context, settings: Settings) -> Iterator[list[str]]:
    """Yield the rows of a table that shows each option's name, its value, and where the value comes from.

    The first row has the titles of the columns. All cells of a column are padded to the same width.
    """
    refused = {option.name for option, _ in context.obj}
    rows = [["setting", "value", "from"]]
    for option in context.command.params:
        name = str(option.name)
        shown = "(not valid)" if name in refused else _shown(name, context.params[name], settings)
        rows.append([option.opts[0], shown, _source(context, option)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]


def _source(context: click.Context, option: click.Parameter) -> str:
    source = context.get_parameter_source(str(option.name))
    if source is ParameterSource.COMMANDLINE:
        return "option"
    return str(option.envvar) if source is ParameterSource.ENVIRONMENT else "default"


def _shown(name: str, value: object, settings: Settings) -> str:
    if name == "max_sessions":
        return f"{_sessions(settings):,}"
    if isinstance(value, tuple):
        return ", ".join(without_secrets(str(each)) for each in value) or "none"
    if value is None or value == "":
        return {"metrics": "at --api", "policy": "built-in", "publishers": "all alike"}.get(name, "none")
    if isinstance(value, bool):
        return "on" if value else "off"
    is_plain = not isinstance(value, str | Path) or (name == "feed_sender" and "://" not in str(value))
    return str(value) if is_plain else without_secrets(str(value))


def _sessions(settings: Settings) -> int:
    """Return how many connections a stream process would accept.

    The number is `--max-sessions` if that is set, but never more than the limit of file descriptors allows.
    """
    room = config.connections_for(config.descriptor_limit(), api=settings.workers == 1)
    return min(settings.max_sessions or room, room)


def without_secrets(text: str) -> str:
    """Return a URL without its users, its passwords and any parameters that may be secret.

    Return a path or a word unchanged. Of any other text, in which a password can't be found, return only the scheme.
    """
    if _PATH.match(text):
        return text
    url = _URL.fullmatch(text)
    if url is None:
        return " ".join([*re.findall(r"\A\s*([A-Za-z+]+:)", text), "(not shown: it may hold a password)"])
    start, secret, rest, query = url.groups(default="")
    return start + ("***@" if secret else "") + rest + _PARAMETER.sub(r"\1\2***", query)


# ---- the checks of files, addresses and the log --------------------------------------------------------------------


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str | None]]]:
    """Yield a pair (name, check) for each address, for each file in the settings, and for the log.

    `check` is a function, which makes the check. It returns a text about what it has found, or None if there is nothing
    to say. It raises ConfigError if a node would not start, and LogUnavailable if a node would start and wait until the
    log can be used.
    """
    for name, address in settings.addresses:
        yield name, functools.partial(config.see_if_bindable, name, address)
    checks: tuple[tuple[str, Any, Callable[[Any], str | None]], ...] = (
        ("keys", settings.keys, _keys),
        ("revoked", settings.revoked, _revoked),
        ("policy", settings, _policy),
        ("publishers", settings, _publishers),
        ("cap-sources", settings.cap_sources, _sources),
        ("reviewers", settings, _reviewers),
        ("cap-zones", settings.cap_zones, _zones),
        ("call-keys", settings, _call_keys),
        ("aeds", settings.aeds, _aeds),
        ("log", settings, _log),
    )
    for name, given, check in checks:
        if given:
            yield name, functools.partial(check, given)


def _keys(where: Path | KeyUrl) -> str:
    from ..auth.jwks_client import keys_at

    return ", ".join(f"{kid} ({key.algorithm_name}{_of(key.issuer)})" for kid, key in keys_at(where).items())


def _of(issuer: str) -> str:
    return f", of {json.dumps(issuer)}" if issuer else ""


def _revoked(path: Path) -> str:
    from ..auth.revocations import load_revoked

    return f"tokens of {len(load_revoked(path))} subs"


def _policy(settings: Settings) -> str:
    from ..policy import load

    policy = load(settings.policy)
    found = f"{policy.name}, with {len(policy.categories)} categories; {len(policy.never)} are never alerted"
    claims = [len(category.cap) for category in policy.categories.values() if category.cap]
    if claims:
        found += f"; {len(claims)} claim events of CAP, by {sum(claims)} claims"
        found += f", and {len(policy.cap.ignore)} are ignored" if policy.cap.ignore else ""
    return "; warning: ".join([found, *policy.warnings(takes_cap=settings.cap_sources is not None)])


def _publishers(settings: Settings) -> str | None:
    from ..auth.jwks_client import keys_at
    from ..policy import load
    from ..policy.publishers.file import load_publishers

    found = load_publishers(settings.publishers)
    if found is None:
        return None
    warnings: list[str] = []
    with contextlib.suppress(ConfigError):  # `_policy` reports such errors
        warnings = found.warnings(load(settings.policy).categories)
    with contextlib.suppress(ConfigError, LogUnavailable):  # `_keys` reports such errors
        keys = {} if settings.keys is None else keys_at(settings.keys)
        for issuer in sorted({key.issuer for key in keys.values()}):
            if not found.by(issuer).tables:
                whose = f"the issuer {json.dumps(issuer)}" if issuer else "keys without iss"
                warnings.append(f"publishers: no table covers tokens of {whose}, so they may not publish")
    return "; warning: ".join([found.summary(), *warnings])


def _sources(path: Path) -> str:
    from ..ingest.cap.sources import load

    return ", ".join(load(path).names)


def _reviewers(settings: Settings) -> str | None:
    from ..approvals.reviewers import NO_REVIEWERS, load_reviewers, refuse_misfits
    from ..auth.jwks_client import keys_at
    from ..policy import load

    found = load_reviewers(settings.reviewers) if settings.reviewers else NO_REVIEWERS
    try:
        policy = load(settings.policy)
        keys = [] if settings.keys is None else [key.key for key in keys_at(settings.keys).values()]
    except (ConfigError, LogUnavailable):  # `_keys` and `_policy` report such errors
        policy, keys = load(None), []
    refuse_misfits(found, policy, keys)
    return None if not found else f"{len(found)} keys of {len({each.sub for each in found.values()})} reviewers"


def _call_keys(settings: Settings) -> str | None:
    from ..calls.encryption import NO_CALL_KEYS, load_call_keys, refuse_unsealed
    from ..policy import load

    path, categories = settings.call_keys, set[str]()
    with contextlib.suppress(ConfigError):  # `_policy` reports such errors
        categories |= load(settings.policy).calls.keys()
    found = NO_CALL_KEYS if path is None else load_call_keys(path)
    refuse_unsealed(found, categories)
    if path is None:
        return None
    first, *others = found.kids
    said = f"{first} seals" + (f"; {', '.join(others)} open too" if others else "")
    return said + ("; warning: everybody on this machine can read them" if path.stat().st_mode & stat.S_IROTH else "")


def _aeds(path: Path) -> str:
    from ..calls.aeds import read_aeds

    found = read_aeds(path)
    return f"{len(found):,} that may be used" + (f"; {found.unusable:,} records can't be" if found.unusable else "")


def _zones(paths: Sequence[Path]) -> str:
    from ..ingest.cap.zones import read_zones

    return read_zones(paths).summary()


def _log(settings: Settings) -> str:
    import asyncio

    from ..run.backends import open_log

    return asyncio.run(open_log(settings).examine())
