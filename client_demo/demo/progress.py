"""The output of the demo in a terminal: progress bars, lines of text, and the verdict as a table."""

from collections.abc import Iterable

from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client_demo.console import plain

from .verdict import Row, percentile

WIDE = 120  # terminal columns that the complete table needs
NUMBERS = 66  # terminal columns that the numbers of the narrow table need
REST = 102  # terminal columns that the complete table needs beside its headlines


class Progress:
    """The progress of the demo, shown as bars in a terminal, or as lines if the output goes to a file."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, progress.TaskID] = {}

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def bar(self, name: str, total: int) -> None:
        """Add a progress bar with this name, which is full at `total`."""
        self._tasks[name] = self._bars.add_task(name, total=total)

    def advance(self, name: str, done: int) -> None:
        """Set the progress bar with this name to `done`."""
        self._bars.update(self._tasks[name], completed=done)

    def say(self, line: str, style: str = "") -> None:
        """Print one line of text."""
        self.console.print(Text(plain(line), style=style), soft_wrap=True)


def verdict_table(rows: Iterable[Row], width: int) -> Table:
    """Return a table with one row for each revision and cancellation.

    `stored` is the time from the request to its answer. The node needs most of this time to write to its disk. The
    other times are from the answer to the deliveries, so a slow disk does not look like a slow fan-out.

    In a narrow terminal, the table has no column for the headlines.
    """
    is_wide = width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    category = None if is_wide else max(8, width - NUMBERS)
    table.add_column("category", no_wrap=True, overflow="ellipsis", max_width=category)
    if is_wide:
        table.add_column("headline", no_wrap=True, overflow="ellipsis", max_width=min(36, width - REST))
    counts = ["rev", "expected", "delivered", "outside", "missed", *(["later"] if is_wide else [])]
    times = ["stored", *(["p50"] if is_wide else []), "p99", "max"]  # until the 201, and from then to the deliveries
    for name in (*counts, *(f"{name}\nms" for name in times)):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, is_wide), style="bold red" if row.outside or row.missed else "")
    return table


def _cells(row: Row, is_wide: bool) -> list[Text]:
    item, times = row.published, row.told_ms
    what: list[object] = [item.category, *([item.text] if is_wide else []), item.revision]
    counts = [row.expected, row.delivered, row.outside, row.missed, *([row.later] if is_wide else [])]
    shares = (0.5, 0.99, 1.0) if is_wide else (0.99, 1.0)
    latencies = [f"{percentile(times, share):.1f}" if times else "–" for share in shares]
    return [Text(plain(cell)) for cell in (*what, *counts, f"{row.stored_ms:.1f}", *latencies)]
