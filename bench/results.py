"""Results of measurements: JSON files with the parameters and the machine, and tables made from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import rich.table

from bench import machine as this

FOLDER = Path(__file__).with_name("results")
README = Path(__file__).with_name("README.md")
TABLES = Path(__file__).with_name("tables.md")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run of a benchmark: what was measured (`found`), and the parameters and the environment."""

    name: str
    parameters: dict[str, Any]
    found: dict[str, Any]
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    commit: str = field(default_factory=this.commit)
    machine: dict[str, Any] = field(default_factory=this.facts)
    versions: dict[str, str] = field(default_factory=this.versions)

    def save(self, folder: Path = FOLDER) -> Path:
        """Write the result to `folder`/NAME.json, replacing an earlier result; return the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result from its file.

        Raise OSError if the file can't be read; ValueError or TypeError if it is not a result.
        """
        return cls(**json.loads(path.read_text("utf-8")))


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts: a title, the headings of the columns, the rows, and notes to be printed below the table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def for_screen(self, width: int) -> rich.table.Table:
        """Return the table, without the notes, as an object that the library rich can print on the terminal.

        If the table is wider than `width` characters, it has the measures in its rows. No cell is cut.
        """
        grid = [self.columns, *self.rows]
        if sum(max(map(len, cells)) + 3 for cells in zip(*grid, strict=True)) + 1 > width:
            grid = list(zip(*grid, strict=True))
        drawn = rich.table.Table(title=self.title, title_justify="left")
        for at, column in enumerate(grid[0]):
            drawn.add_column(column, justify="left" if at == 0 else "right", overflow="fold")
        for row in grid[1:]:
            drawn.add_row(*row)
        return drawn

    def markdown(self) -> str:
        """Return the table and its notes as Markdown.

        The heading is only the first word of the title, so that links to the heading remain valid if the rest of the
        title changes.
        """
        name, _, about = self.title.partition(": ")
        lines = [f"## {name}", "", *([about, ""] if about else []), _row(self.columns)]
        lines += [_row(["---", *["--:"] * (len(self.columns) - 1)]), *(_row(row) for row in self.rows)]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def between_markers(text: str, new: str) -> str:
    """Return `text` with the part between BEGIN and END replaced by `new`. Raise ValueError if a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{new.strip()}\n\n{END}{after}"


def rewrite(path: Path, new: str) -> None:
    """In a document, replace the text between the markers BEGIN and END by `new`."""
    path.write_text(between_markers(path.read_text("utf-8"), new), "utf-8")


def markdown(results: Sequence[Result], tables: Sequence[Table]) -> str:
    """Return all tables as Markdown, each with a note that names its date, commit, machine and versions."""
    pairs = zip(results, tables, strict=True)
    return "\n".join(replace(table, notes=[*table.notes, _provenance(result)]).markdown() for result, table in pairs)


def _provenance(result: Result) -> str:
    on = result.machine
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        f"Measured {result.when[:10]} at commit {result.commit} on {on['cores']} cores of {on['cpu']}, "
        f"{on['memory_gib']} GiB, Linux {on['kernel']}. {versions}."
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` significant digits and no exponent, or a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def parameters_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the command, except tokens, as values that can be written as JSON."""
    kept = {name: value for name, value in options.items() if not name.endswith("token")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
