"""The code in the project's documents: fenced blocks with their headings, and short pieces within the prose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    page: str  # the path of the document, relative to the repository
    heading: str  # the nearest heading above it
    language: str
    text: str


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document, in order."""
    heading, language, lines = "", None, list[str]()
    for line in (ROOT / page).read_text("utf-8").splitlines(keepends=True):
        if line.startswith("```"):
            if language is None:
                language, lines = line[3:].strip(), []
            else:
                yield Block(page, heading, language, "".join(lines))
                language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()


def inline_code_of(page: str) -> Iterator[str]:
    """Yield the pieces of code within the prose of a document, each on one line."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", prose):
        yield " ".join(code.split())
