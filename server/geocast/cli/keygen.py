"""`geocast keygen`: make a key pair."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError


@click.command("keygen", short_help="Make a key pair: to sign tokens, and to check them.")
@click.option("--kid", help="The key's id; random if left out.")
@click.option(
    "--private",
    "private_path",
    type=click.Path(path_type=Path),
    default="private.jwk",
    show_default=True,
    help="Where the private JWK goes.",
)
@click.option(
    "--public",
    "public_path",
    type=click.Path(path_type=Path),
    default="keys.jwks",
    show_default=True,
    help="Where the public JWKS goes.",
)
def command(kid: str | None, private_path: Path, public_path: Path) -> None:
    """Make an Ed25519 key pair: a private JWK to sign with, and a public JWKS for --keys.

    A JWKS that exists gets the new key added, so that old tokens stay good; a private key is never overwritten.
    """
    from ..tokens import make_key

    private, public = make_key(kid)
    keys = _public_keys(public_path)
    if any(key.get("kid") == public["kid"] for key in keys):
        raise ConfigError(f"{public_path} has a key with this kid already")
    _write_pair(private_path, private, public_path, {"keys": [*keys, public]})
    click.echo(f"private key: {private_path}\npublic keys: {public_path}")


def _public_keys(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    from ..tokens import load_keys

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
    except FileExistsError:
        raise ConfigError(
            f"{path} exists, and a private key is never overwritten: it can sign as it is (geocast token --key); "
            "to make another, give --private PATH"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
