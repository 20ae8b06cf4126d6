"""Writes docs/asyncapi.json, and what a node serves: both documents, and the page about the stream.

`python -m docs.interfaces` writes the files.
"""

import json
from pathlib import Path

from . import asyncapi, openapi
from .page import page

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "server" / "geocast" / "api" / "static"


def files() -> dict[Path, str]:
    """Return the text of each file that is made from the documents."""
    stream = asyncapi.document()
    return {
        ROOT / "docs" / "asyncapi.json": _for_people(stream),
        STATIC / "asyncapi.json": json.dumps(stream, ensure_ascii=False),
        STATIC / "stream.html": page(stream),
        STATIC / "openapi.json": _for_people(openapi.document()),  # a node parses it: it serves a part of it
    }


def _for_people(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, "utf-8")
