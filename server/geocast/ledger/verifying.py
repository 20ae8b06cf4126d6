"""Whether a ledger fits together: chain, content that is left, signatures (LE6)."""

from pathlib import Path
from typing import Any, NamedTuple

from ..approvals.reviewers import Reviewers
from ..approvals.signatures import verifies
from ..model.alert import Signature
from . import chain
from .chain import ChainHead
from .files import CHAIN, CONTENT, data_of, days, is_being_written, lines
from .recording import Members, approvals, salted


class Misfit(Exception):  # noqa: N818 (what it is about)
    """The first line that does not fit, and why, in one line."""


class Verified(NamedTuple):
    """What was looked at: records, contents and signatures; and where the chain begins and ends."""

    records: int
    contents: int
    signatures: int
    first: int
    head: ChainHead


def verify(folder: Path, head: ChainHead | None = None, reviewers: Reviewers | None = None) -> Verified:
    """Look at all of it. Raises Misfit and OSError.

    `head`: one that was kept elsewhere, and has to be in it. Without `reviewers` signatures are not checked.
    """
    looked = _Looked(folder, head, reviewers)
    all_days = days(folder)
    without_chain = sorted({*days(folder, CONTENT)} - {*all_days})
    for day in [*all_days, *without_chain]:
        looked.at_day(day, at_end=day in [*all_days[-1:], *without_chain] and is_being_written(folder))
    return looked.done()


class _Looked:
    """What has been looked at so far."""

    def __init__(self, folder: Path, wanted: ChainHead | None, reviewers: Reviewers | None) -> None:
        self._folder, self._wanted, self._reviewers = folder, wanted, reviewers
        self._head: ChainHead | None = None
        self._first = self._records = self._contents = self._signatures = 0

    def at_day(self, day: str, *, at_end: bool) -> None:
        """Look at the files of a day. `at_end`: a process writes to them now: what it has begun is passed over."""
        path, beside = self._folder / f"{day}{CHAIN}", self._folder / f"{day}{CONTENT}"
        chain_lines = _whole(path, at_end=at_end)  # before the contents: each of those is written before its record
        contents = _contents(beside, at_end=at_end) if beside.exists() else None
        for number, line in chain_lines:
            members = self._follow(path, number, line)
            if contents is not None and "content" in members:
                if members["n"] not in contents:
                    raise Misfit(f"{path}:{number}: its content is not in {beside.name}, which has others'")
                self._fits(beside, *contents.pop(members["n"]), members)
        written = self._head.n if self._head else 0
        for number, _ in (each for n, each in (contents or {}).items() if not at_end or n <= written):
            raise Misfit(f"{beside}:{number}: is of no record of that day (a crash may leave one such, the last)")

    def done(self) -> Verified:
        """What all of it comes to."""
        head, wanted = self._head or chain.NOTHING, self._wanted
        if wanted is not None and wanted.n > head.n:
            raise Misfit(f"it ends at record {head.n}: the end was cut off, for there has been record {wanted.n}")
        if wanted is not None and wanted.n < self._first - 1:
            raise Misfit(f"it begins at record {self._first}: record {wanted.n} is not there any more")
        return Verified(self._records, self._contents, self._signatures, self._first, head)

    def _follow(self, path: Path, number: int, line: bytes) -> dict[str, Any]:
        try:
            members, self._head = chain.follow(self._head, line[:-1])
        except ValueError as error:
            raise Misfit(f"{path}:{number}: {error}") from None
        self._first = self._first or members["n"]
        self._records += 1
        wanted, before = self._wanted, ChainHead(members["n"] - 1, members["prev"])
        if wanted is not None and wanted.n == members["n"] and wanted != self._head:
            raise Misfit(f"{path}:{number}: is another record than the one whose hash was kept elsewhere")
        if wanted is not None and wanted.n == before.n and wanted != before:
            raise Misfit(f"{path}:{number}: follows another record than the one whose hash was kept elsewhere")
        return members

    def _fits(self, path: Path, number: int, kept: Members, members: dict[str, Any]) -> None:
        """See that a content is its record's."""
        try:
            if {"form", "entry"} <= kept.keys():
                raise ValueError
            hashed = salted(bytes.fromhex(kept["salt"]), data_of(kept))
        except (KeyError, TypeError, ValueError):
            raise Misfit(f"{path}:{number}: keeps no content") from None
        if hashed != members["content"]:
            raise Misfit(f"{path}:{number}: is not what record {members['n']} was written for")
        self._contents += 1
        if "approvals" in members:
            self._signed(f"{path}:{number}", kept, members["approvals"])

    def _signed(self, where: str, kept: Members, said: object) -> None:
        """See that the signatures are those that the record names, and good."""
        pairs = kept.get("signatures", [])
        try:
            are_texts = all(isinstance(signature, str) for _, signature in pairs)
            if approvals(pairs) != said or not are_texts or (pairs and "form" not in kept):
                raise ValueError
        except (TypeError, ValueError):
            raise Misfit(f"{where}: its signatures are not those that its record names") from None
        for (kid, _), (protected, signature) in zip(approvals(pairs), pairs, strict=True):
            if self._reviewers is None:
                return
            if kid not in self._reviewers:
                raise Misfit(f"{where}: is signed by a key that is not among the reviewers': {kid}")
            if not verifies(Signature(protected, signature), kept["form"], self._reviewers[kid].key):
                raise Misfit(f"{where}: the signature by {kid} is not good")
            self._signatures += 1


def _whole(path: Path, *, at_end: bool) -> list[tuple[int, bytes]]:
    """The lines of a file, each with its number. One that is torn does not fit, unless it is `at_end`."""
    found = list(lines(path))
    if found and not found[-1][1].endswith(b"\n"):
        number, _ = found.pop()
        if not at_end:
            raise Misfit(f"{path}:{number}: is torn: a crash leaves such a line, and the next start takes it off")
    return found


def _contents(path: Path, *, at_end: bool) -> dict[int, tuple[int, Members]]:
    """The contents of a day: by the number of the record, each with the number of its line. Raises Misfit."""
    found: dict[int, tuple[int, Members]] = {}
    for number, line in _whole(path, at_end=at_end):
        try:
            kept = chain.read(line[:-1])
        except ValueError as error:
            raise Misfit(f"{path}:{number}: {error}") from None
        if kept["n"] in found:
            raise Misfit(f"{path}:{number}: is a second content of record {kept['n']}")
        found[kept["n"]] = number, kept
    return found
