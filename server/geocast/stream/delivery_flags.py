"""The delivery flags of one alert: a byte for each recipient. Recipients without flags take little or no memory.

A *row* is the number of one recipient of this process: a WebSocket session or a push device. There may be 100,000 live
alerts and 20,000 rows, and most alerts concern few rows or none. So the flags of an alert have one of three forms:

    no rows     no memory
    few rows    the rows, ascending, and a byte for each: 5 bytes per row
    many rows   an array with a byte for every row of the process. It is used as soon as more than an eighth (1/MANY) of
                the process's rows have flags, so it takes less than 8 bytes for each row that has flags

`live_alerts` defines the flags. For this module, a byte of 0 means that the row has no flags.

Rule 1  When a session leaves, the flags of the alerts are not changed; `Departures` just records that the session in
        its row has left. When the flags of an alert are used the next time, those of all rows whose sessions have left
        meanwhile are cleared first, in one operation.
        Example: a node with 100,000 live alerts loses 5,000 sessions in a second. No flags are changed at that moment.
        When one of the alerts gets a revision an hour later, its flags of the 5,000 rows are cleared first.
Rule 2  Results never depend on which of the three forms the flags have.
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
    """Records, for each row (the number of a session or push device), when the last session in that row left.

    Such a time is a count, not seconds: the number of calls of `note` so far. All alerts of a process share one object
    of this class.
    """

    __slots__ = ("count", "of_row")

    def __init__(self, capacity: int) -> None:
        """Create a record for the rows 0 to `capacity` - 1."""
        self.count = 0
        self.of_row = np.zeros(capacity, np.int64)

    def note(self, rows: Rows) -> None:
        """Record that the sessions in these rows have left now, so that new sessions may use the rows."""
        self.count += 1
        self.of_row[rows] = self.count


class DeliveryFlags:
    """The delivery flags of one alert: one byte for each row (the number of a session or push device).

    `live_alerts` defines the flags, for example that the session was sent the alert. There are two forms. If few rows
    have flags, the rows are stored in ascending order, with one byte for each. If many rows have flags, there is an
    array with a byte for every row of the process.
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
        """The clients that have a later revision than this process has read, as a dict: row -> revision (R5c).

        Callers may change the dict. A row is the number of a session or push device.
        """
        self._drop_departed()
        return self._ahead

    def of(self, row: int) -> int:
        """Return the flags of one row (a session or push device); 0 if it has none."""
        self._drop_departed()
        if self._column is not None:
            return int(self._column[row])
        at = bisect_left(self._rows, row)
        return self._flags[at] if at < len(self._rows) and self._rows[at] == row else 0

    def of_all(self, rows: Rows) -> Flags:
        """Return the flags of these rows (sessions or push devices), as an array in the same order."""
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
        """Replace the flags of one row (a session or push device).

        If the row has no flags and `flags` is 0, no memory is allocated.
        """
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
        """Set all flags in the mask `flags` for each of these rows (sessions or push devices).

        The rows must be distinct. Their other flags do not change.
        """
        self.expect(rows)
        if len(rows):
            all_flags, at = self._locate(rows)
            all_flags[at] |= np.uint8(flags)

    def take_from_all(self, rows: Rows, flags: int) -> None:
        """Clear all flags in the mask `flags` for each of these rows (sessions or push devices).

        The rows must be distinct. Their other flags do not change.
        """
        self.expect(rows)
        if len(rows):
            all_flags, at = self._locate(rows)
            all_flags[at] &= np.uint8(0xFF ^ flags)

    def expect(self, rows: Rows) -> None:
        """Allocate memory for the flags of these rows, which must be distinct.

        The fan-out calls this method once before it sends an alert. Otherwise it would have to merge each batch of rows
        into the sorted list of all earlier batches.
        """
        self._drop_departed()
        if self._column is None and len(rows):
            if self._are_many(len(rows)):
                self._widen()  # at once, as merging 15,000 rows would take 0.1 ms (`bench urgent`)
            else:
                self._merge(self._missing(rows))
                self._widen_if_many()

    def shift(self, keep: int, move: int, steps: int) -> None:
        """In the flags of every row, keep the bits in `keep`, shift those in `move` left, and clear all others.

        `steps` is the number of bits by which to shift. Bits that are shifted out of the byte are lost. A new revision
        needs one call of this method, however many rows have flags.
        """
        self._drop_departed()
        if self._column is None and not self._rows:
            return
        flags = self._column if self._column is not None else self._views()[1]
        moved = ((flags & np.uint8(move)).astype(np.uint16) << steps).astype(np.uint8)
        flags[:] = flags & np.uint8(keep) | moved

    def having(self, flags: int, of: int) -> Rows:
        """Return the rows in which the flags selected by the mask `of` are equal to `flags`.

        A row is the number of a session or push device. The rows are in ascending order. `flags` must not be 0.

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

    # ---- the two forms with memory, and departed sessions --------------------------------------------------------

    def _views(self) -> tuple[Rows, Flags]:
        """Return the sorted rows and their flags as two numpy arrays that share memory with `_rows` and `_flags`.

        There must be at least one row. `_rows` and `_flags` can't be resized while such an array exists. Therefore
        callers must not store the arrays, and `_store_few` replaces `_rows` and `_flags` instead of resizing them.
        """
        return np.frombuffer(self._rows, np.int32), np.frombuffer(self._flags, np.uint8)

    def _locate(self, rows: Rows) -> tuple[Flags, NDArray[Any]]:
        """Return the array of flags, and an array that has, for each row in `rows`, the index of the row's flags in it.

        `expect` must have been called for these rows before, so that each of them has a byte in the array.
        """
        if self._column is not None:
            return self._column, rows
        own, flags = self._views()
        return flags, own.searchsorted(rows)

    def _missing(self, rows: Rows) -> Rows:
        """Return the rows, out of those given, that are not yet in the sorted list `_rows`."""
        if not self._rows:
            return rows
        own, _ = self._views()
        missing: Rows = rows[own[np.minimum(own.searchsorted(rows), len(own) - 1)] != rows]
        return missing

    def _merge(self, rows: Rows) -> None:
        """Insert these rows into the sorted list `_rows`, with all flags cleared.

        None of them may be in the list already.
        """
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
        """Change to an array with a byte for every row if more than 1/MANY of the process's rows have flags."""
        if self._are_many(len(self._rows)):
            self._widen()

    def _are_many(self, count: int) -> bool:
        return count * MANY > len(self._departures.of_row)

    def _widen(self) -> None:
        """Change to an array with a byte for every row of the process. The change is never undone."""
        column = np.zeros(len(self._departures.of_row), np.uint8)
        if self._rows:
            own, flags = self._views()
            column[own] = flags
            self._rows, self._flags = array("i"), bytearray()
        self._column = column

    def _drop_departed(self) -> None:
        """Clear the flags of rows whose sessions have left since this method was last called (Rule 1).

        Every public method calls it first.
        """
        if self._seen != self._departures.count:
            self._apply_departures()

    def _apply_departures(self) -> None:
        """Clear the flags of the rows whose sessions have left since this alert was last used; keep all other flags.

        Example: the session in row 7 left at departure 3, and this alert was last used at departure 5. So the flags of
        row 7 belong to the next session in that row, and are kept. The session in row 8 left at departure 6, so the
        flags of row 8 are cleared.
        """
        since, left = self._seen, self._departures.of_row
        if self._ahead:
            self._ahead = {row: held for row, held in self._ahead.items() if left[row] <= since}
        if self._column is not None:
            self._column[left > since] = 0
        elif self._rows:
            own, flags = self._views()
            stay = left[own] <= since
            if not stay.all():
                self._store_few(own[stay], flags[stay])
        self._seen = self._departures.count  # only now, so that an error before loses no departure
