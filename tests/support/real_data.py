"""Real data that is not part of the project. A test that needs missing data is skipped with the reason."""

from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"
DISPATCH = DATA / "dispatch"
WYCHEPROOF = DATA / "wycheproof"


def dispatch(name: str) -> Path:
    """Return the path of a file with real dispatch records."""
    return _there("dispatch", name, "dispatch records")


def cap(name: str) -> Path:
    """Return the path of a file with a real CAP message."""
    return _there("cap", f"{name}.xml", "CAP messages")


def feed(name: str) -> Path:
    """Return the path of a file with a real feed of CAP messages."""
    return _there("feeds", name, "feeds of CAP messages")


def nws(name: str) -> Path:
    """Return the path of a file with real alerts in the format of the weather service's api."""
    return _there("nws", f"{name}.json", "alerts of the weather service")


def aed(name: str) -> Path:
    """Return the path of a file with real defibrillators."""
    return _there("aed", f"{name}.json", "defibrillators")


def _there(folder: str, name: str, what: str) -> Path:
    path = DATA / folder / name
    if not path.exists():
        pytest.skip(f"the real {what} are missing: ../shared/data/{folder}/{name}")
    return path
