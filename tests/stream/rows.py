"""The rows of sessions (their places in the hub's tables), and the live alerts that contain their places."""

import numpy as np
from support.fakes import DALLAS, NOON_MS, a_revision

from geocast.geometry.sphere import unit_vector

CAPACITY = 8
ENDS_MS = a_revision().ends_at
HALF_HOUR_S = (ENDS_MS - NOON_MS) / 1000


def rows(*numbers):
    """Return the numbers of rows (places of sessions in the hub's tables) as the array that the hub passes."""
    return np.array(numbers, np.int32)


def concerned(alerts, place=DALLAS, reach_m=0.0):
    """Return the ids of the alerts whose area contains the place."""
    return [alert.id for alert in alerts.areas.containing(unit_vector(*place), reach_m)]
