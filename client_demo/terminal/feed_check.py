"""The command `python -m client_demo feed-check`, a report on a feed before anybody depends on it."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client_demo.console import make_console, plain
from client_demo.desk.check import Report, report
from client_demo.desk.feed_format import FeedError, optional_format
from client_demo.desk.feeds import Records, feed_text, read_records
from client_demo.desk.redaction import Cell
from client_demo.desk.source import Poll
from client_demo.python.times import format_time

from .command import WRONG_INPUT, fail, feed_format_option

MOST_NATURES = 25


@click.command("feed-check")
@click.argument("feed")
@feed_format_option
def feed_check(feed: str, feed_format: Path | None) -> None:
    """Report how the review desk would read a feed: a CSV or JSON file, or a URL.

    Nothing is published, no node is needed, and private text is struck out. Exits with 2 if the feed, or the file that
    describes it, can't be used, and with 1 if a category may be misspelt.
    """
    try:
        records = asyncio.run(_read(feed, feed_format))
    except FeedError as error:
        fail(error, WRONG_INPUT)
    found = report(records)
    show(make_console(), found)
    if misspelt := [each.key for each in found.meanings if each.may_be_misspelt]:
        fail(f"these categories may be misspelt: {', '.join(misspelt)}")


async def _read(feed: str, feed_format: Path | None) -> Records:
    kind = optional_format(feed_format)
    if "://" not in feed:
        return read_records(Path(feed).name, feed_text(Path(feed)), kind)
    poll = Poll(feed, 0, kind=kind)
    try:
        records = await poll.fetch()
    finally:
        await poll.close()
    assert records is not None  # None means "unchanged", which a first fetch never returns
    return records


def show(console: Console, found: Report) -> None:
    """Print the tables and the examples of the report on a feed."""
    tables = {found.title: _counts, "categories": _meanings, "natures without a category": _unlisted}
    for title, make in tables.items():
        table = make(found)
        if table.row_count:
            console.print(Text(plain(title), style="bold"))
            console.print(table)
    for number, cells in enumerate(found.examples, 1):
        console.print(Text(f"example {number}: ", style="bold").append_text(_example(cells)), soft_wrap=True)
    if found.others:
        line = f"not described, shown to reviewers except for private-looking text: {', '.join(found.others)}"
        console.print(Text(plain(line)), soft_wrap=True)


def _counts(found: Report) -> Table:
    rows: list[tuple[str, object]] = [
        ("rows read", found.rows),
        ("rows left out: without nature, place and time", found.empty),
        *((f"rows {gap}", count) for gap, count in found.gaps),
        ("incidents", found.incidents),
    ]
    if found.times:
        rows.append(("from, to", " – ".join(f"{format_time(at)[:16]}Z" for at in found.times)))
    if found.box:
        south, west, north, east = found.box
        rows.append(("within, to 0.01°", f"latitude {south:g} to {north:g}, longitude {west:g} to {east:g}"))
    if not found.has_places:
        rows.append(("place", "not described: each incident has to be placed by hand"))
    return _table(("", ""), [row for row in rows if row[1]])


def _meanings(found: Report) -> Table:
    rows = [(each.key, each.incidents, each.note) for each in found.meanings]
    return _table(("category", "incidents", "treatment"), rows)


def _unlisted(found: Report) -> Table:
    most = found.unlisted[:MOST_NATURES]
    rest = found.unlisted[MOST_NATURES:]
    more = [(f"{len(rest)} more", sum(count for _, count in rest))] if rest else []
    return _table(("nature", "incidents"), [*most, *more])


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(show_header=any(columns))
    for column in columns:
        table.add_column(column, justify="right" if column == "incidents" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(value)) for value in row))
    return table


def _example(cells: Iterable[Cell]) -> Text:
    """Return a record as reviewers see it, with its private parts struck out."""
    line = Text()
    for cell in cells:
        line.append(f"{plain(cell.column)} ", style="dim")
        for part in cell.parts:
            line.append(plain(part.text) if part.why is None else f"[{part.why}]", style="red" if part.why else "")
        line.append("  ")
    return line
