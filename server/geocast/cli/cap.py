"""`geocast cap`: show how a node would read files with CAP messages, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..ingest.cap.language_groups import Block
    from ..ingest.cap.message import CapMessage

BROKEN = 1  # the exit status if something is wrong with a file


@click.command("cap", short_help="Show how files with CAP messages are read.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--assume-offset", metavar="±HH:MM", help="For times without an offset; they are refused otherwise.")
def command(files: tuple[Path, ...], assume_offset: str | None) -> int:
    """Show how files with messages of CAP 1.2, 1.1 or 1.0 are read, and everything that is wrong with them.

    The exit status is 0 if nothing is wrong, and 1 otherwise.
    """
    from ..model.times import parse_time

    if assume_offset is not None:
        try:
            parse_time(f"2000-01-01T00:00:00{assume_offset}")
        except ValueError:
            raise click.BadParameter("expected an offset such as +00:00", param_hint="--assume-offset") from None
    return max(_print_file(path, assume_offset) for path in files)


def _print_file(path: Path, assume_offset: str | None) -> int:
    """Print what the messages in one file contain and return 0, or print what is wrong with them and return BROKEN."""
    from ..ingest.cap import MAX_CAP_BYTES, language_groups, message
    from ..model.errors import ConfigError
    from ..model.problems import Problem

    try:
        with path.open("rb") as file:
            body = file.read(MAX_CAP_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(body) > MAX_CAP_BYTES:
        click.echo(f"{path}: too-large: a message may have {MAX_CAP_BYTES >> 20} MiB")
        return BROKEN
    try:
        found = message.read(body, assume_offset=assume_offset)
        parts = language_groups.of(found)
    except Problem as problem:
        for each in problem.violations:
            where = f" at {each.pointer}" if each.pointer else ""
            click.echo(f"{path}: {each.slug}{where}: {each.detail}")
        if problem.total > len(problem.violations):
            click.echo(f"{path}: and {problem.total - len(problem.violations)} more")
        if not problem.violations:
            click.echo(f"{path}: {problem.slug}: {problem.detail or problem.type.explanation}")
        return BROKEN
    for line in (*_head(found), *(line for block in parts for line in _block(block))):
        click.echo(f"{path}: {line}")
    return 0


def _head(found: CapMessage) -> Iterator[str]:
    from ..model.times import format_time

    notes = "".join(f", {note}" for note in sorted(found.notes) if not note.startswith("cap-"))
    yield f"CAP {found.version}{notes}: {found.type}, {found.status}, {found.scope}"
    yield f"{found.identifier} of {found.sender}, sent {format_time(found.sent)}, refers to {len(found.references)}"


def _block(block: Block) -> Iterator[str]:
    from ..model.times import format_time

    info = block.infos[0]
    ends = "no expiry" if info.expires_at is None else f"until {format_time(info.expires_at)}"
    said = f"{info.severity or 'no severity'}, urgency {info.urgency}, certainty {info.certainty}, {ends}"
    yield f"- {info.event}: {said}"
    yield f"  in {', '.join(each.language for each in block.infos)}: {info.headline}"
    yield f"  {_where(block)}"


def _where(block: Block) -> str:
    """Return a line of text that says how many polygons, circles and area codes an alert in a message has.

    The codes of each code list are counted separately.
    """
    from ..ingest.cap.shapes import CapRing

    rings = [shape for shape in block.shapes if isinstance(shape, CapRing)]
    circles = len(block.shapes) - len(rings)
    corners = sum(len(ring.corners) - 1 for ring in rings)
    codes = Counter(code.name for area in block.infos[0].areas for code in area.codes)
    parts = [f"{_count(len(rings), 'polygon')} with {corners} corners"] if rings else []
    parts += [_count(circles, "circle")] if circles else []
    parts += [f"{_count(number, 'code')} of {name}" for name, number in sorted(codes.items())]
    return ", ".join(parts) or "nowhere"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
