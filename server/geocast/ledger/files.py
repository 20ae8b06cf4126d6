"""The files of a ledger: DIR/2031-05-01.jsonl has the chain, DIR/2031-05-01.content.jsonl the contents of its records.

The chain is a series of records, one per line. The record of an alert has the alert's id, times and signing keys. Its
content is the text that was signed, or the entry of the log if it is unsigned. Contents are in files of their own, so
that an operator can delete them and keep the chain.

Rule 1  The content of a record is synced to the disk before the record is written, and a record is synced before the
        next one is written. So a crash leaves at most one incomplete line, at the end, and at most one content without
        a record. The next start removes both and logs a warning. Nothing is lost, because the log delivers the entry
        again. Example: the machine loses power after the content of record 17 was synced, and half of record 17 is on
        the disk. The next start removes this half and the content. Both are written again when the log delivers the
        entry.
Rule 2  Nothing else is ever removed or changed. If a line is invalid or does not follow the line before, the process
        does not start, and the error names the line.
Rule 3  Only one process writes to a ledger. It holds a lock on DIR/.lock.
Rule 4  A new file never has an earlier date than the last file, even if the clock was set back. So the order of the
        names is the order of the chain.
"""

import contextlib
import fcntl
import logging
import os
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..model.errors import ConfigError
from ..model.times import format_time
from . import chain
from .chain import NOTHING, ChainHead
from .recording import Members, RecordedEntries

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
KNOWN_DAYS = 9  # an alert lives for up to 7 days, the log keeps it for 1 more, and clocks may be wrong by 1
CHAIN, CONTENT, LOCK = ".jsonl", ".content.jsonl", ".lock"


def days(folder: Path, suffix: str = CHAIN) -> list[str]:
    """Return the days for which there is a file with this suffix, such as "2031-05-01", in order.

    `suffix` is CHAIN for files with records, or CONTENT for files with their contents.
    """
    return sorted(path.name.removesuffix(suffix) for path in folder.glob(f"????-??-??{suffix}"))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line of a file together with its number; the first line has the number 1.

    Yield nothing if there is no file. Lines include their line break. If the last line is incomplete, it has none.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        yield from enumerate(file, start=1)


def is_being_written(folder: Path) -> bool:
    """Return whether a process is writing to the ledger now (Rule 3)."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def data_of(kept: Members) -> bytes:
    """Return the content in a line of a content file, as bytes: the text that was signed, or the entry of the log.

    Raise ValueError if the line has neither.
    """
    try:
        if "form" in kept:
            return str(kept["form"]).encode()
        return b64decode(kept["entry"], validate=True)
    except (KeyError, TypeError):
        raise ValueError("has no content") from None


def head(folder: Path) -> ChainHead:
    """Return the number and hash of a ledger's last complete line, or NOTHING if the ledger is empty.

    Raise ValueError if this line is invalid, and OSError if the files can't be read.
    """
    for day in reversed(days(folder)):
        whole = [line for _, line in lines(folder / f"{day}{CHAIN}") if line.endswith(b"\n")]
        if whole:
            return chain.head_of(whole[-1][:-1])
    return NOTHING


class Ledger:
    """A ledger that is open for writing in the body of a `with` statement.

    Entering it raises ConfigError if a line is invalid (Rule 2) or another process is writing (Rule 3), and OSError if
    the files can't be read or written.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Prepare to use the ledger in `folder`.

        If the folder does not exist, it is created when the `with` block begins.
        """
        self.head = NOTHING
        self.known = RecordedEntries()
        self._folder, self._clock = folder, clock
        self._day = ""  # the day of the last file (Rule 4)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Ledger":
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context((self._folder / LOCK).open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"ledger {self._folder}: another process writes to it") from None
            self._repair()
            self._read_recent()
            self._stack = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, members: Members, kept: Members | None = None) -> None:
        """Write a record with these members, and its content if it has one.

        `kept` has the members of the line in the content file, or is None. When this method returns, both lines are on
        the disk (Rule 1).
        """
        now = format_time(self._clock.now().wall_ms)
        self._day = max(self._day, now[:10])
        line = chain.behind(self.head, {"at": now, **members})
        if kept is not None:
            _append(self._folder / f"{self._day}{CONTENT}", chain.written({"n": self.head.n + 1, **kept}))
        _append(self._folder / f"{self._day}{CHAIN}", line)
        self.head = chain.head_of(line)

    # ---- reading and repair at the start ---------------------------------------------------------------------------

    def _repair(self) -> None:
        """Remove what a crash may have left (Rule 1): an incomplete last line, and a content without a record.

        Set the head to the number and hash of the last complete line.
        """
        all_days = days(self._folder)
        if all_days:
            self._day = all_days[-1]
            self._cut_torn(self._folder / f"{self._day}{CHAIN}")
        try:
            self.head = head(self._folder)
        except ValueError as error:
            raise ConfigError(f"ledger {self._folder}: the last line {error}") from None
        for path in sorted(self._folder.glob(f"????-??-??{CONTENT}"))[-2:]:
            self._cut_torn(path)
            self._cut_content(path)

    def _cut_torn(self, path: Path) -> None:
        """Remove the last line of a file if it is incomplete, that is, if it has no line break."""
        whole = sum(len(line) for _, line in lines(path) if line.endswith(b"\n"))
        self._cut(path, whole, "an incomplete last line")

    def _cut_content(self, path: Path) -> None:
        """Remove those contents at the end of a content file whose records were never written.

        A crash may leave such a content (Rule 1).
        """
        kept = 0
        for number, line in lines(path):
            with _errors_name_line(path, number):
                if chain.read(line)["n"] > self.head.n:
                    break
            kept += len(line)
        self._cut(path, kept, "a content without a record")

    @staticmethod
    def _cut(path: Path, size: int, what: str) -> None:
        cut = path.stat().st_size - size
        if cut:
            logger.warning("%s: removed %s (%d bytes) that a crash had left; nothing is lost", path, what, cut)
            with path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def _read_recent(self) -> None:
        """Read the files of the last KNOWN_DAYS days, to check their chain (Rule 2).

        Remember which entries of the log they have.
        """
        since = format_time(max(0, self._clock.now().wall_ms - KNOWN_DAYS * DAY_MS))[:10]
        at: ChainHead | None = None
        for day in (each for each in days(self._folder) if each >= since):
            path = self._folder / f"{day}{CHAIN}"
            contents = self._contents(self._folder / f"{day}{CONTENT}")
            for number, line in lines(path):
                with _errors_name_line(path, number):
                    members, at = chain.follow(at, line[:-1])
                    self._remember(members, contents.get(members["n"]))

    def _contents(self, path: Path) -> dict[int, bytes]:
        found = {}
        for number, line in lines(path):
            with _errors_name_line(path, number):
                kept = chain.read(line)
                found[kept["n"]] = data_of(kept)
        return found

    def _remember(self, members: dict[str, Any], data: bytes | None) -> None:
        epoch, rewound = members.get("epoch", 0), members["what"] == "rewound"
        if "position" in members:
            self.known.add(members.get("id", ""), members["revision"], data)
            self.known.reached(epoch, members["position"])
        elif rewound:
            self.known.reached(epoch, 0, rewound=True)


@contextlib.contextmanager
def _errors_name_line(path: Path, number: int) -> Iterator[None]:
    """Turn a ValueError or KeyError in the `with` block into a ConfigError. It names the file and the line."""
    try:
        yield
    except (ValueError, KeyError) as error:
        why = str(error) if isinstance(error, ValueError) else "lacks a member"
        raise ConfigError(f"{path}:{number}: {why}; geocast ledger verify checks the whole ledger") from None


def _append(path: Path, line: bytes) -> None:
    """Append a line and a line break to a file, and sync it to the disk. Raise OSError if that fails."""
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        data = memoryview(line + b"\n")
        while data:
            data = data[os.write(descriptor, data) :]
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
