"""The rows of a log in SQLite: how they are selected, and the entries in them."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from ...model.alert import Entry, OtherKind
from ...model.errors import LogUnavailable
from .. import codec
from ..decoding import Quarantine, believed

Row = tuple[int, str, int, int, bytes, int]  # the values of the columns `log_file.COLUMNS`


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Raise LogUnavailable in place of an error of SQLite in the block."""
    try:
        yield
    except sqlite3.Error as error:
        # SQLite's error messages describe conditions such as "database or disk is full". They never contain stored
        # values, so they can be logged.
        raise LogUnavailable(str(error)) from None


def select(db: sqlite3.Connection, query: str, *values: str | int) -> list[Any]:
    """Run a query and return its rows. Raise LogUnavailable if SQLite fails."""
    with unavailable():
        return db.execute(query, values).fetchall()


def entry_of(row: Row) -> Entry | OtherKind:
    """Return the decoded entry in a row of the log. Raise ValueError if the row is damaged."""
    _, alert_id, revision, ends_at, payload, checksum = row
    if not isinstance(payload, bytes) or codec.checksum(alert_id, revision, payload) != checksum:
        raise ValueError("checksum differs")
    return codec.decode(payload, alert_id, revision, ends_at)


class RowDecoder(Quarantine):
    """Decodes rows of the log. Each row that can't be read is logged and counted once (LogR2)."""

    def readable(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Entry | OtherKind | None]]:
        """Yield a pair (row, entry) for each of these rows of the log.

        The pair of an entry that can't be read has None in place of the entry. The pair of an entry that is not
        accepted has an `Untrusted`, whose content is ignored (LogJ1).
        """
        for row in rows:
            position, alert_id, number, *_ = row
            try:
                yield row, believed(entry_of(row), self.verifier, (alert_id, number), f"position {position}")
            except ValueError as error:
                self.add(position, f"the entry at position {position}", error)
                yield row, None
