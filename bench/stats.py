"""Statistics of measured values. No I/O."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9}


def summary(values: Sequence[float] | Any) -> dict[str, float]:
    """Return the p50, p99, p99.9 and maximum of the values, by name. If there are no values, all four are 0."""
    array = np.asarray(values, dtype=float)
    if not array.size:
        return dict.fromkeys([*PERCENTILES, "max"], 0.0)
    found = {name: float(np.percentile(array, percent)) for name, percent in PERCENTILES.items()}
    return found | {"max": float(array.max())}


def median(values: Sequence[float] | Any) -> float:
    """Return the median of the values, or 0 if there are none."""
    return float(np.median(values)) if len(values) else 0.0


def ratio(ours: float, theirs: float) -> float | None:
    """Return `ours` divided by `theirs`, or None if `theirs` is 0."""
    return ours / theirs if theirs > 0 else None
