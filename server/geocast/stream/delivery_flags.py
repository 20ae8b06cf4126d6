"""The delivery flags of one alert: a byte for each row, in memory that depends on how many rows have flags.

A *row* is the number of one recipient of this process: a WebSocket session or a push device. There may be 100,000 live
alerts and 20,000 rows, and most alerts concern few rows or none. So an alert has one of three forms:

    no rows     no memory
    few rows    the rows, ascending, and a byte for each: 5 bytes per row
    many rows   a column with a byte for every row of the process. It is used as soon as more than one row in MANY has
                flags, so it takes less than MANY bytes per row that has flags

`live_alerts` defines the flags. This module only distinguishes 0 (no flags) from other values.

Rule 1  When a session leaves, no alert is changed. `Departures` records the time of the departure for its row. When an
        alert is used again, it drops the flags that are older than the departures of their rows, for all such rows in
        one operation.
        Example: a node with 100,000 live alerts loses 5,000 sessions in a second. No alert is changed at that moment.
        When one of them gets a revision an hour later, the flags of these rows are dropped first.
Rule 2  No result depends on the form.
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
    """For each row (recipient number), when its last session left. All alerts of a process share the object.

    Time is counted in calls of `note`.
    """

    __slots__ = ("count", "of_row")

    def __init__(self, capacity: int) -> None:
        """Create the record for `capacity` rows."""
        self.count = 0
        self.of_row = np.zeros(capacity, np.int64)

    def note(self, rows: Rows) -> None:
        """Record that the sessions of these rows have left, so that other sessions may get the rows."""
        self.count += 1
        self.of_row[rows] = self.count


class DeliveryFlags:
    """The flags of one alert for each row (a session or push device): whether it was sent the alert, and so on.

    There are two forms: the sorted rows and a byte of flags for each if few rows have flags, or a column with a byte
    for every row of the process.
    """

    __slots__ = ("_ahead", "_column", "_departures", "_flags", "_rows", "_seen")

    def __init__(self, departures: Departures) -> None:
        self._departures = departures
        self._seen = departures.count  # departures up to this count have been applied to these flags
        self._rows: array[int] = array("i")  # few rows: the rows, ascending
        self._flags = bytearray()  # few rows: the flags of each
        self._column: Flags | None = None  # many rows: the flags of every row
        self._ahead: dict[int, int] = {}

    @property
    def ahead(self) -> dict[int, int]:
        """Row -> the revision that its client has and that this process has not read yet (R5c).

        Callers may change the dict.
        """
        self._drop_departed()
        return self._ahead

    def of(self, row: int) -> int:
        """Return the flags of one row."""
        self._drop_departed()
        if self._column is not None:
            return int(self._column[row])
        at = bisect_left(self._rows, row)
        return self._flags[at] if at < len(self._rows) and self._rows[at] == row else 0

    def of_all(self, rows: Rows) -> Flags:
        """Return the flags of each of these rows, in their order."""
        self._drop_departed()
        if self._column is not None:
            found: Flags = self._column[rows]
            return found
        if not self._rows:
            return np.zeros(len(rows), np.uint8)
        own, flags = self._views()
        at = np.minimum(own.searchsorted(rows), len(own) - 1)  # the index of each row, or where it would be inserted
        return np.where(own[at] == rows, flags[at], np.uint8(0))

    def put(self, row: int, flags: int) -> None:
        """Replace the flags of one row. Writing 0 to a row without flags takes no memory."""
        self._drop_departed()
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
        """Set these flags for these distinct rows; keep the flags that they have already."""
        self.expect(rows)
        if len(rows):
            all_flags, at = self._locate(rows)
            all_flags[at] |= np.uint8(flags)

    def take_from_all(self, rows: Rows, flags: int) -> None:
        """Clear these flags for these distinct rows."""
        self.expect(rows)
        if len(rows):
            all_flags, at = self._locate(rows)
            all_flags[at] &= np.uint8(0xFF ^ flags)

    def expect(self, rows: Rows) -> None:
        """Allocate memory for the flags of these distinct rows.

        The fan-out calls this once before it starts to send an alert. Otherwise each batch of rows that it handles
        would have to be merged into the sorted rows of all batches before.
        """
        self._drop_departed()
        if self._column is None and len(rows):
            self._merge(self._missing(rows))
            self._widen_if_many()

    def shift(self, keep: int, move: int, steps: int) -> None:
        """For every row, keep the flags in `keep`, move the flags in `move` up by `steps` bits, and clear the rest.

        A new revision costs one call, however many rows have flags. Bits that move beyond the byte are lost.
        """
        self._drop_departed()
        if self._column is None and not self._rows:
            return
        flags = self._column if self._column is not None else self._views()[1]
        moved = ((flags & np.uint8(move)).astype(np.uint16) << steps).astype(np.uint8)
        flags[:] = flags & np.uint8(keep) | moved

    def having(self, flags: int, of: int) -> Rows:
        """Return the rows, ascending, whose flags in the mask `of` are exactly `flags`, which must not be 0.

        Example: `having(RECIPIENT, RECIPIENT | CURRENT)` returns the recipients that lack the current revision.
        """
        self._drop_departed()
        if self._column is not None:
            return np.flatnonzero(self._column & of == flags).astype(np.int32)
        if not self._rows:
            return np.empty(0, np.int32)
        own, all_flags = self._views()
        found: Rows = own[all_flags & of == flags]
        return found

    def __len__(self) -> int:
        """Return how many rows take memory."""
        return len(self._flags) if self._column is None else len(self._column)

    @property
    def nbytes(self) -> int:
        """The number of bytes that the rows and their flags take."""
        return len(self._rows) * self._rows.itemsize + len(self._flags) if self._column is None else self._column.nbytes

    # ---- the two forms with memory, and departed sessions --------------------------------------------------------

    def _views(self) -> tuple[Rows, Flags]:
        """Return the rows and flags of the form for few rows as numpy arrays that share their memory.

        There must be at least one row. `_rows` and `_flags` can't be resized while such an array exists. So no array
        may be kept, and `_store_few` replaces both objects.
        """
        return np.frombuffer(self._rows, np.int32), np.frombuffer(self._flags, np.uint8)

    def _locate(self, rows: Rows) -> tuple[Flags, NDArray[Any]]:
        """Return the array of all flags and the indices of these rows in it.

        `expect` must have been called for the rows.
        """
        if self._column is not None:
            return self._column, rows
        own, flags = self._views()
        return flags, own.searchsorted(rows)

    def _missing(self, rows: Rows) -> Rows:
        """Return those of these rows that have no entry in the form for few rows."""
        if not self._rows:
            return rows
        own, _ = self._views()
        missing: Rows = rows[own[np.minimum(own.searchsorted(rows), len(own) - 1)] != rows]
        return missing

    def _merge(self, rows: Rows) -> None:
        """Add rows that have no entry yet, without flags."""
        if len(rows) == 0:
            return
        rows = np.concatenate([np.frombuffer(self._rows, np.int32), rows]) if self._rows else rows
        flags = np.zeros(len(rows), np.uint8)
        flags[: len(self._flags)] = self._flags
        order = np.argsort(rows, kind="stable")  # fast here: the old rows are sorted already
        self._store_few(rows[order], flags[order])

    def _store_few(self, rows: Rows, flags: Flags) -> None:
        self._rows = array("i")
        self._rows.frombytes(rows.tobytes())
        self._flags = bytearray(flags.tobytes())

    def _widen_if_many(self) -> None:
        """Change to the form for many rows if more than one row in MANY has flags. The form is never changed back."""
        capacity = len(self._departures.of_row)
        if len(self._rows) * MANY > capacity:
            column = np.zeros(capacity, np.uint8)
            own, flags = self._views()
            column[own] = flags
            self._column = column
            self._rows, self._flags = array("i"), bytearray()

    def _drop_departed(self) -> None:
        """Drop the flags of rows whose sessions have left since the last call (Rule 1).

        Every method calls this first.
        """
        if self._seen != self._departures.count:
            self._apply_departures()

    def _apply_departures(self) -> None:
        """Drop the flags of the rows whose last departure came after the last call; keep the flags of the others.

        Example: row 7 left at departure 3, and this alert was last used at departure 5. The flags of row 7 belong to
        the session that came after departure 3, so they stay. Row 8 left at departure 6: its flags are dropped.
        """
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
                self._store_few(own[stay], flags[stay])
