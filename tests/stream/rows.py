"""Rows of subscribers beside the live alerts that concern them."""

import numpy as np
from support.fakes import DALLAS, NOON_MS, a_revision

from geocast.geometry.sphere import unit_vector

CAPACITY = 8
ENDS_MS = a_revision().ends_at
HALF_HOUR_S = (ENDS_MS - NOON_MS) / 1000


def rows(*numbers):
    """Rows as the hub passes them."""
    return np.array(numbers, np.int32)


def concerned(alerts, place=DALLAS, reach_m=0.0):
    """The ids of the alerts whose area the place is inside of."""
    return [alert.id for alert in alerts.containing(unit_vector(*place), reach_m)]
