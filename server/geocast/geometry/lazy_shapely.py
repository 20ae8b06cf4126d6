"""The library shapely, imported at its first use: the import takes 0.1 s and 3 MB, and many nodes never need it."""

from typing import Any


def __getattr__(name: str) -> Any:
    import shapely

    return getattr(shapely, name)
