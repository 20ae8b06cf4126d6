"""`geocast token`: sign a token."""

import json
import time
from pathlib import Path

import click

from ..errors import ConfigError
from ..scopes import SCOPES


@click.command("token")
@click.option("--key", "key_path", type=click.Path(path_type=Path), default="private.jwk", show_default=True)
@click.option("--sub", required=True, help="Who the token is for: a desk or an organisation, never a person.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True, help="May be repeated.")
@click.option("--expires-in-s", type=click.IntRange(1), default=3600, show_default=True, help="Lifetime in seconds.")
def command(key_path: Path, sub: str, scopes: tuple[str, ...], expires_in_s: int) -> None:
    """Sign a token with a private key, and print it."""
    try:
        private = json.loads(key_path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{key_path}: No such file or directory: make a key pair (geocast keygen), or give --key PATH"
        ) from None
    except OSError as error:
        raise ConfigError(f"{key_path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{key_path}: not a JWK") from None
    from ..tokens import sign

    click.echo(sign(private, sub, scopes, int(time.time()), expires_in_s))
