"""`geocast token`: sign a token and print it, or check a token."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..auth.scopes import SCOPES
from ..model.errors import ConfigError, did_you_mean
from ..model.server_address import KeyUrl
from .options import FILE, KEYS, QUALS

if TYPE_CHECKING:
    from ..auth.token_report import TokenReport

MOST = 65_536  # the largest number of bytes that are read from standard input
REFUSED = 1  # the exit status of --check if a node would refuse the token
VARIABLE = "GEOCAST_TOKEN"
_READ = ("aud", "sub", "exp", "nbf", "iat", "scope", "quals")  # the claims that a node reads


@click.command("token", short_help="Sign and print a token, or check a token.")
@click.option(
    "--key",
    "key_path",
    type=FILE,
    default="private.jwk",
    show_default=True,
    help="The private key to sign with (JWK).",
)
@click.option("--sub", help="The subject: a desk or an organisation, never a person.  [needed to sign]")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="May be repeated.  [needed to sign]")
@click.option(
    "--quals", type=QUALS, help="Qualifications of a responder, such as cpr,medic; the key has to grant them."
)
@click.option("--expires-in-s", type=click.IntRange(1), default=3600, show_default=True, help="Lifetime in seconds.")
@click.option("--check", is_flag=True, help="Check the token on standard input, or in GEOCAST_TOKEN.")
@click.option(
    "--keys",
    type=KEYS,
    default="keys.jwks",
    envvar="GEOCAST_KEYS",
    show_envvar=True,
    show_default=True,
    help="With --check: the public keys (JWKS).",
)
@click.option(
    "--revoked",
    type=FILE,
    envvar="GEOCAST_REVOKED",
    show_envvar=True,
    help="With --check: subjects whose tokens are revoked (TOML).",
)
@click.pass_context
def command(
    context: click.Context,
    key_path: Path,
    sub: str | None,
    scopes: tuple[str, ...],
    quals: tuple[str, ...] | None,
    expires_in_s: int,
    check: bool,
    keys: Path | KeyUrl,
    revoked: Path | None,
) -> int:
    """Sign a token with a private key and print it. With --check, show what a token permits, and why a node refuses it.

    The token to check is read from standard input, or from GEOCAST_TOKEN. It can't be given on the command line, which
    everybody on the machine can see.
    """
    if check:
        return _check(_token(), keys, revoked)
    for name, given in (("sub", sub), ("scopes", scopes)):
        if not given:
            parameter = next(each for each in context.command.params if each.name == name)
            raise click.MissingParameter(ctx=context, param=parameter)
    from ..auth.tokens import MAX_QUALIFIED_S, sign

    if quals and expires_in_s > MAX_QUALIFIED_S:
        raise click.UsageError(
            f"--quals count only in tokens of at most a day: --expires-in-s {MAX_QUALIFIED_S}", context
        )
    click.echo(sign(_private_key(key_path), str(sub), scopes, int(time.time()), expires_in_s, quals or ()))
    return 0


def _private_key(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: No such file or directory: make a key pair (geocast keygen), or give --key PATH"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not a JWK") from None


def _token() -> str:
    """Return the token to check: from standard input, from the environment, or typed in at the terminal.

    The first of the three that has a token counts. Raise ConfigError if there is none.
    """
    by_hand = sys.stdin is not None and sys.stdin.isatty()
    piped = b"" if by_hand or sys.stdin is None else sys.stdin.buffer.read(MOST)
    token = piped.decode("utf-8", "replace").strip() or os.environ.get(VARIABLE, "")
    if not token and by_hand:
        token = click.prompt("token (it is not shown)", hide_input=True, err=True)
    if not token:
        raise ConfigError(f"no token to check: give it on standard input, or in {VARIABLE}")
    return token


def _check(token: str, keys: Path | KeyUrl, revoked: Path | None) -> int:
    """Print what a token permits, and the reasons why a node would refuse it.

    Return the exit status: 0 if a node would accept the token, otherwise REFUSED.
    """
    from ..auth.jwks_client import keys_at
    from ..auth.revocations import load_revoked
    from ..auth.token_report import explain
    from ..clock import SystemClock

    now = SystemClock().now()
    found = explain(token, keys_at(keys), load_revoked(revoked), now)
    for name, value in _rows(found, now.wall_ms):
        click.echo(f"{name:<10}{value}")
    for refusal in found.refusals:
        click.echo(f"geocast: refused: {refusal}", err=True)
    if not found.refusals:
        click.echo("a node with these keys accepts the token")
    return REFUSED if found.refusals else 0


def _rows(found: "TokenReport", now_ms: int) -> Iterator[tuple[str, str]]:
    """Yield a pair (name, value) for each part of a token's content.

    Values that are not verified may be anything, so they are shown as JSON.
    """
    from ..auth.tokens import is_date

    header, claims, _, quals, issuer = found
    if header:
        yield "key", f"{json.dumps(header.get('kid'))}, {json.dumps(header.get('alg'))}"
    if issuer:
        yield "issuer", json.dumps(issuer)
    if "sub" in claims:
        yield "sub", json.dumps(claims["sub"])
    scope = claims.get("scope", "")
    for each in scope.split() if isinstance(scope, str) else ():
        yield "scope", each if each in SCOPES else f"{json.dumps(each)} is no scope{did_you_mean(each, SCOPES)}"
    for each, why_not in quals.items():
        yield "qual", f"{each} does not count: {why_not}" if why_not else each
    for name, claim in (("issued", "iat"), ("not before", "nbf"), ("expires", "exp")):
        if is_date(claims.get(claim)):
            yield name, _time(claims[claim], now_ms)
    if others := sorted(claims.keys() - set(_READ)):
        yield "not read", ", ".join(map(json.dumps, others))


def _time(seconds: float, now_ms: int) -> str:
    from ..auth.token_report import in_words
    from ..model.times import format_time

    return f"{format_time(int(seconds * 1000))}, {in_words(seconds - now_ms / 1000)}"
