"""The library shapely, imported when it is first used.

The import takes 0.1 s and 3 MB, and many nodes never need the library.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    import shapely

    return getattr(shapely, name)
