"""Real data that is not part of the project: where it lies, and a skip with the reason where it doesn't."""

from pathlib import Path

import pytest

DISPATCH = Path(__file__).parents[2] / "shared" / "data" / "dispatch"


def dispatch(name: str) -> Path:
    """A file of real dispatch records."""
    path = DISPATCH / name
    if not path.exists():
        pytest.skip(f"the real dispatch records are not here: ../shared/data/dispatch/{name}")
    return path
