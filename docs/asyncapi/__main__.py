"""Writes docs/asyncapi.json, and the two files that a node serves: the same document in one line, and its page."""

import json
from pathlib import Path

from .document import document
from .page import page

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "server" / "geocast" / "api" / "static"


def files() -> dict[Path, str]:
    """Return the text of each file that is made from the document."""
    made = document()
    return {
        ROOT / "docs" / "asyncapi.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
        STATIC / "asyncapi.json": json.dumps(made, ensure_ascii=False),
        STATIC / "stream.html": page(made),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, "utf-8")
