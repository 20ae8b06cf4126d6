"""The check of a ledger: its chain, the contents that were not deleted, and their signatures (rule LE6).

Every line of the chain must have the hash of the line before. Every content must match the hash in its record, and
have the signatures that the record names. The check stops at the first line that breaks one of these rules.
"""

from pathlib import Path
from typing import Any, NamedTuple

from ..approvals.reviewers import Reviewers
from ..approvals.signatures import verifies
from ..model.alert import Signature
from . import chain
from .chain import ChainHead
from .files import CHAIN, CONTENT, data_of, days, is_being_written, lines
from .recording import Members, approvals, salted


class Misfit(Exception):  # noqa: N818 (the mistake is in the ledger, not in the program)
    """Raised if the lines of a ledger do not match each other.

    The error's text names the first wrong line, and the reason.
    """


class Verified(NamedTuple):
    """The result of a check: how many records, contents and signatures were checked.

    `first` is the number of the first record that remains, and `head` has the number and hash of the last one.
    """

    records: int
    contents: int
    signatures: int
    first: int
    head: ChainHead


def verify(folder: Path, head: ChainHead | None = None, reviewers: Reviewers | None = None) -> Verified:
    """Check the whole ledger in `folder`, and return what was checked.

    `head` is the number and hash of an earlier last record, which somebody has kept outside the ledger; the chain must
    contain this record. Without `reviewers`, signatures are not checked. Raise Misfit if the lines of the ledger do not
    match each other, and OSError if a file can't be read.
    """
    check = _Check(folder, head, reviewers)
    all_days = days(folder)
    without_chain = sorted({*days(folder, CONTENT)} - {*all_days})
    for day in [*all_days, *without_chain]:
        check.check_day(day, at_end=day in [*all_days[-1:], *without_chain] and is_being_written(folder))
    return check.result()


class _Check:
    """The state of a check: the last record read so far, and how many records, contents and signatures were checked."""

    def __init__(self, folder: Path, wanted: ChainHead | None, reviewers: Reviewers | None) -> None:
        self._folder, self._wanted, self._reviewers = folder, wanted, reviewers
        self._head: ChainHead | None = None
        self._first = self._records = self._contents = self._signatures = 0

    def check_day(self, day: str, *, at_end: bool) -> None:
        """Check the files of one day, such as "2031-05-01".

        `at_end` is True if a process may be writing to these files; an incomplete last line is then ignored.
        """
        path, content_path = self._folder / f"{day}{CHAIN}", self._folder / f"{day}{CONTENT}"
        # Read the chain before the contents. The content of a record is written before the record itself, so the
        # contents of all records that were read here are in the file by now.
        chain_lines = _whole(path, at_end=at_end)
        contents = _contents(content_path, at_end=at_end) if content_path.exists() else None
        for number, line in chain_lines:
            members = self._follow(path, number, line)
            if contents is not None and "content" in members:
                if members["n"] not in contents:
                    raise Misfit(
                        f"{path}:{number}: its content is missing in {content_path.name}, which was not deleted"
                    )
                self._check_content(content_path, *contents.pop(members["n"]), members)
        written = self._head.n if self._head else 0
        for number, _ in (each for n, each in (contents or {}).items() if not at_end or n <= written):
            raise Misfit(f"{content_path}:{number}: belongs to no record of that day (a crash may leave one such line)")

    def result(self) -> Verified:
        """Return the result of the check, after all days have been checked.

        Raise Misfit if the chain does not contain the record whose number and hash were kept outside the ledger: the
        record was cut off or deleted.
        """
        head, wanted = self._head or chain.NOTHING, self._wanted
        if wanted is not None and wanted.n > head.n:
            raise Misfit(f"the chain ends at record {head.n}: its end was cut off, since there was a record {wanted.n}")
        if wanted is not None and wanted.n < self._first - 1:
            raise Misfit(f"the chain begins at record {self._first}: record {wanted.n} was deleted")
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
            raise Misfit(f"{path}:{number}: is not the record whose hash was kept elsewhere")
        if wanted is not None and wanted.n == before.n and wanted != before:
            raise Misfit(f"{path}:{number}: does not follow the record whose hash was kept elsewhere")
        return members

    def _check_content(self, path: Path, number: int, kept: Members, members: dict[str, Any]) -> None:
        """Raise Misfit if a content does not match its record, or has other signatures than the record says.

        `kept` has the members of the line in the content file, and `members` those of the record.
        """
        try:
            if {"form", "entry"} <= kept.keys():
                raise ValueError
            hashed = salted(bytes.fromhex(kept["salt"]), data_of(kept))
        except (KeyError, TypeError, ValueError):
            raise Misfit(f"{path}:{number}: has no valid content") from None
        if hashed != members["content"]:
            raise Misfit(f"{path}:{number}: is not the content whose hash record {members['n']} has")
        self._contents += 1
        if "approvals" in members:
            self._check_signatures(f"{path}:{number}", kept, members["approvals"])

    def _check_signatures(self, where: str, kept: Members, said: object) -> None:
        """Raise Misfit if the signatures of a content are not those that its record names.

        If there are reviewers, also raise Misfit if a signature is invalid, or was not made by a reviewer. `said` is
        the member `approvals` of the record: a list of key ids and times.
        """
        pairs = kept.get("signatures", [])
        try:
            are_texts = all(isinstance(signature, str) for _, signature in pairs)
            if approvals(pairs) != said or not are_texts or (pairs and "form" not in kept):
                raise ValueError
        except (TypeError, ValueError):
            raise Misfit(f"{where}: has other signatures than its record names") from None
        for (kid, _), (protected, signature) in zip(approvals(pairs), pairs, strict=True):
            if self._reviewers is None:
                return
            if kid not in self._reviewers:
                raise Misfit(f"{where}: is signed by a key that is not in the reviewers' file: {kid}")
            if not verifies(Signature(protected, signature), kept["form"], self._reviewers[kid].key):
                raise Misfit(f"{where}: the signature by key {kid} does not verify")
            self._signatures += 1


def _whole(path: Path, *, at_end: bool) -> list[tuple[int, bytes]]:
    """Return the complete lines of a file, each with its number.

    If the last line is incomplete, raise Misfit. If `at_end` is true, ignore it instead, because a process may be
    writing it.
    """
    found = list(lines(path))
    if found and not found[-1][1].endswith(b"\n"):
        number, _ = found.pop()
        if not at_end:
            raise Misfit(f"{path}:{number}: is torn: a crash leaves such a line, and the next start removes it")
    return found


def _contents(path: Path, *, at_end: bool) -> dict[int, tuple[int, Members]]:
    """Return the contents in a content file as a dict from record number to (line number, members).

    Raise Misfit if a line is invalid, or if two lines have the same record number. `at_end` is True if a process may
    be writing the last line.
    """
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
