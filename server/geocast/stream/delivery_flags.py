"""Who was told what of one alert: a byte of flags for each session, and memory only for those who have one.

    nobody   nothing
    few      the rows, ascending, and a byte for each: 5 bytes for a session
    many     a byte for every row there could be. From one in MANY on, so at most MANY bytes for a session

The flags' meaning is `live`'s; to this module a byte is 0 or it isn't.

Rule 1  Whoever leaves is forgotten at no cost: `Departures` notes for its row when that was. An alert that is asked or
        told something next passes over what is older than that. So it does not matter how many alerts there are, and
        the rows of all who have left in between are cleared in one operation.
Rule 2  No answer depends on which of the three it is.
"""

from array import array
from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
Flags = NDArray[np.uint8]

MANY = 8


class Departures:
    """When the last session of each row has left, counted in calls of `note`; shared by all alerts of a process."""

    __slots__ = ("count", "of_row")

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many rows there are."""
        self.count = 0
        self.of_row = np.zeros(capacity, np.int64)

    def note(self, rows: Rows) -> None:
        """The sessions of these rows have left; from now on they may be other sessions'."""
        self.count += 1
        self.of_row[rows] = self.count


class DeliveryFlags:
    """The flags of one alert, by row."""

    __slots__ = ("_ahead", "_column", "_departures", "_flags", "_rows", "_seen")

    def __init__(self, departures: Departures) -> None:
        self._departures = departures
        self._seen = departures.count  # the departures that were applied here
        self._rows: array[int] = array("i")  # ascending, while these are few
        self._flags = bytearray()  # of each of them
        self._column: Flags | None = None  # of every row, once there are many
        self._ahead: dict[int, int] = {}

    @property
    def ahead(self) -> dict[int, int]:
        """Row -> the revision that its session holds, while this process has read less (R5c). To be written to."""
        self._pass_over_the_gone()
        return self._ahead

    def of(self, row: int) -> int:
        """The flags of one row."""
        self._pass_over_the_gone()
        if self._column is not None:
            return int(self._column[row])
        at = bisect_left(self._rows, row)
        return self._flags[at] if at < len(self._rows) and self._rows[at] == row else 0

    def of_all(self, rows: Rows) -> Flags:
        """The flags of each of these rows, in their order."""
        self._pass_over_the_gone()
        if self._column is not None:
            found: Flags = self._column[rows]
            return found
        if not self._rows:
            return np.zeros(len(rows), np.uint8)
        own, flags = self._views()
        at = np.minimum(own.searchsorted(rows), len(own) - 1)
        return np.where(own[at] == rows, flags[at], np.uint8(0))

    def put(self, row: int, flags: int) -> None:
        """Write the flags of one row."""
        self._pass_over_the_gone()
        if self._column is not None:
            self._column[row] = flags
            return
        at = bisect_left(self._rows, row)
        if at < len(self._rows) and self._rows[at] == row:
            self._flags[at] = flags
        elif flags:
            self._rows.insert(at, row)
            self._flags.insert(at, flags)
            self._widen_if_many()

    def add_to_all(self, rows: Rows, flags: int) -> None:
        """Give these distinct rows these flags besides those that they have."""
        self.expect(rows)
        if len(rows):
            all_flags, at = self._at(rows)
            all_flags[at] |= np.uint8(flags)

    def take_from_all(self, rows: Rows, flags: int) -> None:
        """Take these flags from these distinct rows."""
        self.expect(rows)
        if len(rows):
            all_flags, at = self._at(rows)
            all_flags[at] &= np.uint8(0xFF ^ flags)

    def expect(self, rows: Rows) -> None:
        """These distinct rows are about to be told: make room for all at once, instead of for a slice at a time."""
        self._pass_over_the_gone()
        if self._column is None and len(rows):
            self._merge(self._missing(rows))
            self._widen_if_many()

    def shift(self, keep: int, move: int, steps: int) -> None:
        """Of every row keep the flags in `keep`, move those in `move` up by `steps` bits, and drop all others."""
        self._pass_over_the_gone()
        if self._column is None and not self._rows:
            return
        flags = self._column if self._column is not None else self._views()[1]
        moved = ((flags & np.uint8(move)).astype(np.uint16) << steps).astype(np.uint8)
        flags[:] = flags & np.uint8(keep) | moved

    def having(self, flags: int, of: int) -> Rows:
        """The rows that of the flags in `of` have exactly these, ascending; `flags` is not 0."""
        self._pass_over_the_gone()
        if self._column is not None:
            return np.flatnonzero(self._column & of == flags).astype(np.int32)
        if not self._rows:
            return np.empty(0, np.int32)
        own, all_flags = self._views()
        found: Rows = own[all_flags & of == flags]
        return found

    def __len__(self) -> int:
        """How many rows take memory; what they take is that of `nbytes`."""
        return len(self._flags) if self._column is None else len(self._column)

    @property
    def nbytes(self) -> int:
        """The bytes that rows and flags take."""
        return len(self._rows) * self._rows.itemsize + len(self._flags) if self._column is None else self._column.nbytes

    # ---- inside --------------------------------------------------------------------------------------------------

    def _views(self) -> tuple[Rows, Flags]:
        """Rows and flags of few, as numpy sees them; there must be some."""
        return np.frombuffer(self._rows, np.int32), np.frombuffer(self._flags, np.uint8)

    def _at(self, rows: Rows) -> tuple[Flags, NDArray[Any]]:
        """All flags, and where among them those of these rows are, for which there is room."""
        if self._column is not None:
            return self._column, rows
        own, flags = self._views()
        return flags, own.searchsorted(rows)

    def _missing(self, rows: Rows) -> Rows:
        if not self._rows:
            return rows
        own, _ = self._views()
        missing: Rows = rows[own[np.minimum(own.searchsorted(rows), len(own) - 1)] != rows]
        return missing

    def _merge(self, rows: Rows) -> None:
        """Take in rows that are not there yet, without flags."""
        if len(rows) == 0:
            return
        rows = np.concatenate([np.frombuffer(self._rows, np.int32), rows]) if self._rows else rows
        flags = np.zeros(len(rows), np.uint8)
        flags[: len(self._flags)] = self._flags
        order = np.argsort(rows, kind="stable")
        self._fill(rows[order], flags[order])

    def _fill(self, rows: Rows, flags: Flags) -> None:
        self._rows = array("i")
        self._rows.frombytes(rows.tobytes())
        self._flags = bytearray(flags.tobytes())

    def _widen_if_many(self) -> None:
        capacity = len(self._departures.of_row)
        if len(self._rows) * MANY > capacity:
            column = np.zeros(capacity, np.uint8)
            own, flags = self._views()
            column[own] = flags
            self._column = column
            self._rows, self._flags = array("i"), bytearray()

    def _pass_over_the_gone(self) -> None:
        """Clear the rows whose sessions have left since this was last done (Rule 1)."""
        if self._seen != self._departures.count:
            self._apply_departures()

    def _apply_departures(self) -> None:
        since, self._seen = self._seen, self._departures.count
        left = self._departures.of_row
        if self._ahead:
            self._ahead = {row: held for row, held in self._ahead.items() if left[row] <= since}
        if self._column is not None:
            self._column[left > since] = 0
        elif self._rows:
            own, flags = self._views()
            stay = left[own] <= since
            if not stay.all():
                self._fill(own[stay], flags[stay])
