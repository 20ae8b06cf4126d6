"""The files of a ledger: DIR/2031-05-01.jsonl, the chain, and DIR/2031-05-01.content.jsonl, what it is about.

Rule 1  A content is synced before its record is written, and a record before the next one. So a crash leaves at most
        one line that is torn, at the end, and at most one content without a record. Both are taken off at the next
        start, which says so; what they were about comes again out of the log.
Rule 2  Nothing else is ever taken off or changed. What does not fit stops the start, and is named.
Rule 3  One process writes: it holds a lock.
Rule 4  A file is never older than the one before it, whatever the clock says, so their names are in the order of the
        chain.
"""

import contextlib
import fcntl
import logging
import os
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..clock import Clock, format_time
from ..errors import ConfigError
from . import chain
from .chain import NOTHING, ChainHead
from .recording import Members, RecordedEntries

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
KNOWN_DAYS = 9  # a week that an alert may live, a day that a log remembers it, and one for clocks
CHAIN, CONTENT, LOCK = ".jsonl", ".content.jsonl", ".lock"


def days(folder: Path, suffix: str = CHAIN) -> list[str]:
    """The days that there are files for, of the chain or with CONTENT for a suffix, in order."""
    return sorted(path.name.removesuffix(suffix) for path in folder.glob(f"????-??-??{suffix}"))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are whole or not, each with its number and its end; none where there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        yield from enumerate(file, start=1)


def is_being_written(folder: Path) -> bool:
    """Whether a process writes to a ledger now (Rule 3)."""
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def data_of(kept: Members) -> bytes:
    """What a line of content keeps, as bytes. Raises ValueError."""
    try:
        if "form" in kept:
            return str(kept["form"]).encode()
        return b64decode(kept["entry"], validate=True)
    except (KeyError, TypeError):
        raise ValueError("keeps no content") from None


def head(folder: Path) -> ChainHead:
    """The head of a ledger, by its last whole line. Raises ValueError and OSError."""
    for day in reversed(days(folder)):
        whole = [line for _, line in lines(folder / f"{day}{CHAIN}") if line.endswith(b"\n")]
        if whole:
            return chain.head_of(whole[-1][:-1])
    return NOTHING


class Ledger:
    """A ledger that is open for writing; use as a context manager. Raises ConfigError (Rules 2 and 3) and OSError."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """The folder is made if there is none."""
        self.head = NOTHING
        self.known = RecordedEntries()
        self._folder, self._clock = folder, clock
        self._day = ""  # of the last file (Rule 4)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Ledger":
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context((self._folder / LOCK).open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"ledger {self._folder}: another process writes to it") from None
            self._mend()
            self._recall()
            self._stack = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, members: Members, kept: Members | None = None) -> None:
        """Write a record, and what is kept beside it: durable when this returns (Rule 1)."""
        now = format_time(self._clock.now().wall_ms)
        self._day = max(self._day, now[:10])
        line = chain.behind(self.head, {"at": now, **members})
        if kept is not None:
            _append(self._folder / f"{self._day}{CONTENT}", chain.written({"n": self.head.n + 1, **kept}))
        _append(self._folder / f"{self._day}{CHAIN}", line)
        self.head = chain.head_of(line)

    # ---- at the start ----------------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Take off what a crash has left (Rule 1)."""
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
        """Cut off a last line without an end."""
        whole = sum(len(line) for _, line in lines(path) if line.endswith(b"\n"))
        self._cut(path, whole, "a torn last line")

    def _cut_content(self, path: Path) -> None:
        """Cut off contents at the end whose record was never written."""
        kept = 0
        for number, line in lines(path):
            with _named(path, number):
                if chain.read(line)["n"] > self.head.n:
                    break
            kept += len(line)
        self._cut(path, kept, "a content without a record")

    @staticmethod
    def _cut(path: Path, size: int, what: str) -> None:
        cut = path.stat().st_size - size
        if cut:
            logger.warning("%s: %s was cut off, %d bytes: a crash has left it", path, what, cut)
            with path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())

    def _recall(self) -> None:
        """Learn what the last days have, and see that it fits (Rule 2)."""
        since = format_time(max(0, self._clock.now().wall_ms - KNOWN_DAYS * DAY_MS))[:10]
        at: ChainHead | None = None
        for day in (each for each in days(self._folder) if each >= since):
            path = self._folder / f"{day}{CHAIN}"
            contents = self._contents(self._folder / f"{day}{CONTENT}")
            for number, line in lines(path):
                with _named(path, number):
                    members, at = chain.follow(at, line[:-1])
                    self._remember(members, contents.get(members["n"]))

    def _contents(self, path: Path) -> dict[int, bytes]:
        found = {}
        for number, line in lines(path):
            with _named(path, number):
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
def _named(path: Path, number: int) -> Iterator[None]:
    """Name the line that does not fit."""
    try:
        yield
    except (ValueError, KeyError) as error:
        why = str(error) if isinstance(error, ValueError) else "lacks a member"
        raise ConfigError(f"{path}:{number}: {why}; geocast ledger verify looks at all of it") from None


def _append(path: Path, line: bytes) -> None:
    """Append a line, durable when this returns. Raises OSError."""
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
