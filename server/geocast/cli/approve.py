"""`geocast approve`: show an alert or a cancel, and sign it, on the reviewer's own machine (approval-rules.md)."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..model.errors import ConfigError
from ..model.problems import digits
from .client_options import read_object

if TYPE_CHECKING:
    from ..approvals.form import Form

MOST = 65_536  # the largest number of bytes that standard input may have
_FIRST = ("what", "aud", "id", "revision", "source", "category", "title", "severity", "status")
_LAST = ("occurred_at", "expires_at", "location_resolution")


@click.command("approve", short_help="Show an alert or a cancel, and sign it.")
@click.option(
    "--key",
    "key_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The reviewer's private key (JWK), made by keygen --reviewer.",
)
@click.option("--audience", help="Sign only forms of this deployment; of any if left out.")
@click.option("--yes", is_flag=True, help="Don't ask: the form has been read.")
def command(key_path: Path, audience: str | None, yes: bool) -> int:
    """Show a form (the text to be signed) and sign it.

    The form, or the answer to a dry run, is read from standard input. The signature is printed on standard output. Send
    it with the others in `approval.signatures`.
    """
    from ..approvals import form, signatures

    text = _form_in(sys.stdin.buffer.read(MOST + 1))
    try:
        read = form.read(text)
    except ValueError:
        raise ConfigError("standard input has no form: expected the answer to a dry run, or its member form") from None
    if audience is not None and read.audience != audience:
        raise ConfigError("the form is for another deployment than --audience names")
    _, private = read_object(key_path, "--key ", "not a JWK")
    click.echo("\n".join(_shown(read)), err=True)
    if not yes and not _agreed():
        raise click.Abort
    click.echo(json.dumps(signatures.sign(text, private, int(time.time())).to_map()))
    return 0


def _form_in(data: bytes) -> str:
    """Return the form (the text to be signed) in `data`.

    That is the member `form` if the data is an answer to a dry run, and otherwise all of the data. The final line end
    is removed. Raise ConfigError if the data is not JSON or is too large.
    """
    if len(data) > MOST:
        raise ConfigError(f"standard input has more than {MOST // 1024} KiB")
    try:
        text = data.decode()
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("standard input is not JSON") from None
    found = document.get("form") if isinstance(document, dict) else None
    return found if isinstance(found, str) else text.rstrip("\r\n")


def _agreed() -> bool:
    """Ask the reviewer at the terminal whether to sign, and return True if the answer is yes.

    Standard input can't be used for the answer, because the form is read from it. Raise ConfigError if there is no
    terminal.
    """
    try:
        terminal = open("/dev/tty", "r+b", buffering=0)  # noqa: SIM115 (closed below)
    except OSError:
        raise ConfigError("there is no terminal to ask at: give --yes when the form has been read") from None
    with terminal:
        terminal.write(b"Sign this? [y/N] ")
        return terminal.readline().strip().lower() in (b"y", b"yes")


# ---- the form as text for a person ---------------------------------------------------------------------------------


def _shown(read: "Form") -> Iterator[str]:
    """Yield the whole form (the text to be signed) as lines for a person to read.

    The texts that the public will read come first, then all other members.
    """
    members = dict(read.members)
    for name in ("headline", "description", "reason"):
        if name in members:
            yield click.style(name, bold=True)
            yield from (f"  {_plain(line)}" for line in str(members.pop(name)).split("\n"))
    area = members.pop("area", [])
    for name in (*_FIRST, *_LAST):
        if name in members:
            yield f"{click.style(name, bold=True)}: {_plain(members.pop(name))}"
    for shape in area:
        yield f"{click.style('area', bold=True)}: {_shape(shape)}"
    members.pop("v", None)
    for name, value in members.items():
        yield f"{click.style(_plain(name), bold=True)}: {_plain(value)}"


def _shape(members: dict[str, Any]) -> str:
    """Return a shape as one line of text.

    If the shape has unknown members, the line is JSON, so that nothing is hidden.
    """
    from ..model.alert import Circle, Polygon
    from ..model.members import to_shape

    shape = to_shape(members)
    if shape.to_map() == members:
        if isinstance(shape, Circle):
            return f"circle of {digits(shape.radius_m)} m around {shape.lat:.6f}, {shape.lng:.6f}"
        if isinstance(shape, Polygon):
            corners = " ".join(f"{lat:.5f},{lng:.5f}" for lng, lat in shape.ring)
            return f"polygon, {digits(shape.buffer_m)} m beyond {corners}"
    return _plain(members)


def _plain(value: object) -> str:
    """Return a value as one line of text. Control characters are escaped, because a terminal would obey them."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
