"""`geocast keygen`: make a key pair for tokens or approvals, or a secret for calls, push devices or webhooks."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ..model.errors import ConfigError
from .options import FILE, QUALS

KEPT_CALL_KEYS = 3  # how many keys --rotate keeps besides the new one: today's, and those of the two days before (RZ5)


@click.command("keygen", short_help="Make a key pair to sign and check tokens, or a key to encrypt calls.")
@click.option(
    "--reviewer", metavar="NAME", help="Make a reviewer's pair. NAME stands for the person and should reveal nothing."
)
@click.option("--break-glass", is_flag=True, help="With --reviewer: a key for emergencies, whose use raises an alarm.")
@click.option(
    "--quals", type=QUALS, help="Qualifications that tokens of the key may claim, such as cpr,medic; else none."
)
@click.option("--issuer", metavar="NAME", help="The issuer of the key: equal subs of two issuers are two subjects.")
@click.option("--call", is_flag=True, help="Make a key that encrypts calls, for --call-keys.")
@click.option("--rotate", is_flag=True, help="With --call, daily: the last key encrypts from now on; drop old keys.")
@click.option("--push", "of_store", type=FILE, help="Make a key for --push-keys, in this file.")
@click.option("--vapid", type=FILE, help="Make a key for --vapid, in this file.")
@click.option("--webhook", type=FILE, help="Make a secret for a target of relay, in this file.")
@click.option("--ed25519", is_flag=True, help="With --webhook: a private key; print the public one for receivers.")
@click.option("--kid", help="The key's id; random if left out.")
@click.option(
    "--private",
    "private_path",
    type=FILE,
    show_default="private.jwk, NAME.jwk, or call-keys.jwks",
    help="The file for the private JWK; with --call, for the secret JWKS.",
)
@click.option(
    "--public",
    "public_path",
    type=FILE,
    show_default="keys.jwks, or reviewers.jwks",
    help="The file for the public JWKS.",
)
def command(
    reviewer: str | None,
    break_glass: bool,
    quals: tuple[str, ...] | None,
    issuer: str | None,
    call: bool,
    rotate: bool,
    of_store: Path | None,
    vapid: Path | None,
    webhook: Path | None,
    ed25519: bool,
    kid: str | None,
    private_path: Path | None,
    public_path: Path | None,
) -> None:
    """Make an Ed25519 key pair: a private JWK to sign tokens with, and a public JWKS for --keys.

    With --reviewer, make a pair to sign approvals with; the JWKS is for --reviewers. With --call, make one secret key,
    in a JWKS for --call-keys.

    If the JWKS exists, the new key is added to it, so that old tokens stay valid. A private key is never overwritten.

    With --push or --vapid, make only a key for `geocast push`. If the file exists, the new key becomes its first key.

    With --webhook, make only a secret for a target of `geocast relay`. If the file exists, the secret is added to it.
    """
    if webhook is not None or ed25519:
        if webhook is None or any((reviewer, break_glass, quals, issuer, call, rotate, of_store, vapid, kid)):
            raise click.UsageError("--webhook goes with --ed25519 alone", click.get_current_context())
        _add_webhook_secret(webhook, ed25519=ed25519)
        return
    if of_store is not None or vapid is not None:
        if any((reviewer, break_glass, quals, issuer, call, rotate, private_path, public_path)):
            raise click.UsageError("--push and --vapid go with --kid alone", click.get_current_context())
        _make_push_keys(of_store, vapid, kid)
        return
    from ..approvals.reviewers import load_reviewers, parse_reviewers
    from ..auth.tokens import ISSUER_FORM, is_issuer, load_keys, make_key

    of_person = reviewer is not None
    is_other = call or of_person
    text = "is for keys that sign tokens, and so not for --call or --reviewer"
    for is_wrong, problem in (
        (break_glass and not of_person, "--break-glass is for --reviewer NAME"),
        (rotate and not call, "--rotate is for --call"),
        (quals and is_other, f"--quals {text}"),
        (issuer is not None and is_other, f"--issuer {text}"),
        (issuer is not None and not is_issuer(issuer), f"--issuer: expected {ISSUER_FORM}"),
        (call and (of_person or public_path), "--call has no --reviewer and no --public: it makes one secret key"),
    ):
        if is_wrong:
            raise click.UsageError(problem, click.get_current_context())
    if call:
        _add_call_key(private_path or Path("call-keys.jwks"), kid, rotate=rotate)
        return
    private, public = make_key(kid)
    shown: dict[str, Any] = public | ({"quals": list(quals)} if quals else {}) | ({"iss": issuer} if issuer else {})
    if reviewer is not None:
        of_reviewer = {"sub": reviewer, "alg": "Ed25519"}
        private |= of_reviewer
        shown |= of_reviewer | ({"break_glass": True} if break_glass else {})
        parse_reviewers(json.dumps({"keys": [shown]}).encode(), "to be")  # raises ConfigError if the name is not valid
    private_path = private_path or Path(f"{reviewer or 'private'}.jwk")
    public_path = public_path or Path("keys.jwks" if reviewer is None else "reviewers.jwks")
    keys = _keys_in(public_path, load_keys if reviewer is None else load_reviewers)
    if any(key.get("kid") == public["kid"] for key in keys):
        raise ConfigError(f"{public_path} has a key with this kid already")
    _write_pair(private_path, private, public_path, {"keys": [*keys, shown]})
    click.echo(f"private key: {private_path}\npublic keys: {public_path}")


def _add_call_key(path: Path, kid: str | None, *, rotate: bool) -> None:
    """Add a new key to the end of a JWKS that only its owner can read.

    The first key in the file is used for encryption. If `rotate` is true, first move the last key to the front, so that
    it is used from now on, and drop old keys.
    """
    from ..calls.encryption import load_call_keys, make_call_key, parse_call_keys

    keys = _keys_in(path, load_call_keys)
    if rotate:
        keys = [*keys[-1:], *keys[:-1]][:KEPT_CALL_KEYS]
    text = json.dumps({"keys": [*keys, make_call_key(kid)]}, indent=2) + "\n"
    kids = parse_call_keys(text.encode(), f"{path}, as it would be").kids
    _write_secret(path.resolve(), text)
    click.echo(f"call keys: {path}\nseals: {kids[0]}\nnew: {kids[-1]}")


def _make_push_keys(of_store: Path | None, vapid: Path | None, kid: str | None) -> None:
    """Add new keys for `geocast push` to the front of their files. The first key in a file is used from now on."""
    from ..push import encryption, webpush

    for path, make, parse in (
        (of_store, encryption.make_push_key, encryption.parse_push_keys),
        (vapid, webpush.make_vapid_key, webpush.parse_vapid),
    ):
        if path is not None:
            with _naming_file(path):
                keys = _keys_in(path, lambda at, parse=parse: parse(at.read_bytes(), at))  # type: ignore[misc]
            text = json.dumps({"keys": [make(kid or secrets.token_hex(8)), *keys]}, indent=2) + "\n"
            parse(text.encode(), f"{path}, as it would be")
            _write_secret(path.resolve(), text)
            click.echo(f"keys: {path}")


def _add_webhook_secret(path: Path, *, ed25519: bool) -> None:
    """Add a new secret for a target of `geocast relay` to the front of its file."""
    from ..relay.signing import make_key_pair, make_secret, parse_secrets

    secret, public = make_key_pair() if ed25519 else (make_secret(), "")
    with _naming_file(path):
        text = f"{secret}\n{path.read_text('ascii') if path.exists() else ''}"
    try:
        parse_secrets(text)
    except ValueError as error:
        raise ConfigError(f"{path}, as it would be: {error}") from None
    _write_secret(path.resolve(), text)
    click.echo(f"secret: {path}" + (f"\npublic key: {public}" if public else ""))


def _keys_in(path: Path, load: Callable[[Path], object]) -> list[dict[str, Any]]:
    """Return the keys of a JWKS file, or none if there is no file. `load` raises ConfigError if it can't be used."""
    if not path.exists():
        return []
    load(path)
    keys: list[dict[str, Any]] = json.loads(path.read_bytes())["keys"]
    return keys


def _write_pair(private_path: Path, private: Mapping[str, Any], public_path: Path, public: Mapping[str, Any]) -> None:
    """Write a file with a private key and a file with public keys.

    If either can't be written, write neither. The private file must not exist yet; only its owner will be able to read
    it.
    """
    public_path = public_path.resolve()
    beside = public_path.with_name(f".{public_path.name}.{secrets.token_hex(4)}")
    with contextlib.ExitStack() as undo:
        with _naming_file(public_path):
            undo.callback(beside.unlink, missing_ok=True)
            beside.write_text(json.dumps(public, indent=2) + "\n", "utf-8")
            if public_path.exists():
                shutil.copymode(public_path, beside)
        with _naming_file(private_path):
            descriptor = os.open(private_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            undo.callback(private_path.unlink)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(private, indent=2) + "\n")
        with _naming_file(public_path):
            beside.replace(public_path)
        undo.pop_all()


def _write_secret(path: Path, text: str) -> None:
    """Write a secret to a file atomically.

    Only its owner can read a new file; an existing file keeps its permissions.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with contextlib.ExitStack() as undo, _naming_file(path):
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        undo.callback(beside.unlink, missing_ok=True)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)


@contextlib.contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Turn an OSError that is raised in the `with` block into a ConfigError that names the file."""
    try:
        yield
    except FileExistsError:
        raise ConfigError(
            f"{path} exists, and a private key is never overwritten: use it (geocast token --key), or give "
            "--private PATH to make another one"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
