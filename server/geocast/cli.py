"""The command line. Every option of `serve` is also an environment variable: GEOCAST_ and the option's name.

A mistake of the caller's ends with one line on standard error and exit status 2, never with a traceback.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
import uvloop
from jwt import PyJWK

from . import __version__
from .config import Address, Settings, listening, parse_address
from .errors import ConfigError
from .run import node
from .run.workers import supervise
from .tokens import SCOPES, Tokens, load_keys, make_key, sign

LOG_LEVELS = ("debug", "info", "warning", "error")
DEV_TOKEN_S = 365 * 86_400  # how long the token of --dev is good
# After this long a thread that waits for the GIL asks for it. The log's threads take it half a dozen times for an
# append; with Python's default of 5 ms each time may take as long, in the middle of a fan-out.
SWITCH_S = 0.0001


class _AddressType(click.ParamType[Address, str]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class _Seconds(click.FloatRange):
    """A range of seconds without NaN, which click's own range lets in: it is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"expected a number of seconds from {self.min} to {self.max}", param, ctx)
        return seconds


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="geocast")
def cli() -> None:
    """Geocast: a real-time geo alert fan-out server."""


def _option(name: str, *names: str, **more: Any) -> Callable[[Any], Any]:
    envvar = "GEOCAST_" + name.lstrip("-").upper().replace("-", "_")
    return click.option(name, *names, envvar=envvar, show_envvar=True, show_default=True, **more)


@cli.command()
@_option("--stream", type=_AddressType(), default="127.0.0.1:8765", help="Where subscribers connect (WebSocket).")
@_option("--api", type=_AddressType(), default="127.0.0.1:8766", help="Where review services publish (HTTP).")
@_option("--metrics", type=_AddressType(), help="Where /metrics is, instead of at --api.")
@_option(
    "--log",
    "log_url",
    metavar="URL",
    default="sqlite:geocast.db",
    help="The alert log: sqlite:PATH, redis://HOST:PORT for several machines, or memory:.",
)
@_option("--log-replicas", type=click.IntRange(0, 10), default=0, help="Replicas of Redis that must have an alert too.")
@_option("--allow-volatile-log", is_flag=True, help="Accept a Redis that forgets alerts when it ends.")
@_option("--keys", type=click.Path(path_type=Path), help="Public keys that tokens are checked against (JWKS).")
@_option("--policy", type=click.Path(path_type=Path), help="What may be published (TOML); built-in if left out.")
@_option("--origins", default="", metavar="LIST", help="Origins of browsers that may connect, separated by commas.")
@_option("--workers", type=click.IntRange(1, 256), default=1, help="Processes that share the stream listener.")
@_option("--dev", is_flag=True, help="Try it on this machine: loopback only, tokens optional for subscribers.")
@_option("--drain-s", type=_Seconds(0, 3600), default=10.0, help="Seconds that a drain may take.")
@_option("--heartbeat-s", type=click.IntRange(25, 55), default=25, help="Seconds without a write, then a ping.")
@_option("--max-sessions", type=click.IntRange(1), help="At most so many connections; else what descriptors allow.")
@_option("--log-level", type=click.Choice(LOG_LEVELS), default="info", help="How much to say on standard error.")
def serve(log_url: str, origins: str, log_level: str, **options: Any) -> None:
    """Run a node until SIGTERM."""
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))
    listed = tuple(origin.strip() for origin in origins.split(",") if origin.strip())
    settings = Settings(log=log_url, origins=listed, **options)
    settings.check()
    tokens = _tokens(settings)
    with listening(settings) as listeners:
        if settings.workers == 1:
            _run(node.run(settings, tokens, listeners))
        else:
            supervise(settings, tokens, listeners, _run)


def _run(main: Coroutine[Any, Any, None]) -> None:
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _tokens(settings: Settings) -> Tokens:
    if settings.keys is not None:
        return Tokens(load_keys(settings.keys))
    dev_jwks = _dev_keys()
    return Tokens({dev_jwks["kid"]: PyJWK(dev_jwks, "EdDSA")}, required=False)


def _dev_keys() -> dict[str, Any]:
    """The public key for --dev; its private half signs one token that may do everything, and is forgotten."""
    private, public = make_key("dev")
    click.echo(f"GEOCAST_TOKEN={sign(private, 'dev', SCOPES, int(time.time()), DEV_TOKEN_S)}")
    return dict(public)


@cli.command()
@click.option("--kid", help="The key's id; random if left out.")
@click.option("--private", "private_path", type=click.Path(path_type=Path), default="private.jwk", show_default=True)
@click.option("--public", "public_path", type=click.Path(path_type=Path), default="keys.jwks", show_default=True)
def keygen(kid: str | None, private_path: Path, public_path: Path) -> None:
    """Make an Ed25519 key pair: a private JWK to sign with, and a public JWKS for --keys.

    A JWKS that exists gets the new key added, so that old tokens stay good; a private key is never overwritten.
    """
    private, public = make_key(kid)
    keys = _public_keys(public_path)
    if any(key.get("kid") == public["kid"] for key in keys):
        raise ConfigError(f"{public_path} has a key with this kid already")
    _write_pair(private_path, private, public_path, {"keys": [*keys, public]})
    click.echo(f"private key: {private_path}\npublic keys: {public_path}")


def _public_keys(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    load_keys(path)  # raises ConfigError if anything is wrong with the file
    keys: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["keys"]
    return keys


def _write_pair(private_path: Path, private: Mapping[str, Any], public_path: Path, public: Mapping[str, Any]) -> None:
    """Write both files or none. The private one must not be there yet, and only its owner can read it."""
    public_path = public_path.resolve()
    beside = public_path.with_name(f".{public_path.name}.{secrets.token_hex(4)}")
    with contextlib.ExitStack() as undo:
        with _told(public_path):
            undo.callback(beside.unlink, missing_ok=True)
            beside.write_text(json.dumps(public, indent=2) + "\n", "utf-8")
            if public_path.exists():
                shutil.copymode(public_path, beside)
        with _told(private_path):
            descriptor = os.open(private_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            undo.callback(private_path.unlink)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(private, indent=2) + "\n")
        with _told(public_path):
            beside.replace(public_path)
        undo.pop_all()


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError that tells which file could not be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


@cli.command()
@click.option("--key", "key_path", type=click.Path(path_type=Path), default="private.jwk", show_default=True)
@click.option("--sub", required=True, help="Who the token is for: a desk or an organisation, never a person.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--expires-in-s", type=click.IntRange(1), default=3600, show_default=True, help="Lifetime in seconds.")
def token(key_path: Path, sub: str, scopes: tuple[str, ...], expires_in_s: int) -> None:
    """Sign a token with a private key, and print it."""
    try:
        private = json.loads(key_path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{key_path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{key_path}: not a JWK") from None
    click.echo(sign(private, sub, scopes, int(time.time()), expires_in_s))


def main() -> NoReturn:
    """Run the command and exit: with 0; with 2 and one line for a mistake of the caller; with 130 if interrupted."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message())
    except (ConfigError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    print(f"geocast: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
