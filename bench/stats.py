"""Numbers out of many numbers. No I/O."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9}


def summary(values: Sequence[float] | Any) -> dict[str, float]:
    """p50, p99, p99.9 and max; zeros if there is nothing."""
    array = np.asarray(values, dtype=float)
    if not array.size:
        return dict.fromkeys([*PERCENTILES, "max"], 0.0)
    found = {name: float(np.percentile(array, percent)) for name, percent in PERCENTILES.items()}
    return found | {"max": float(array.max())}


def median(values: Sequence[float] | Any) -> float:
    """The median; 0 if there is nothing."""
    return float(np.median(values)) if len(values) else 0.0


def ratio(ours: float, theirs: float) -> float | None:
    """How many times theirs ours is; None if that means nothing."""
    return ours / theirs if theirs > 0 else None
