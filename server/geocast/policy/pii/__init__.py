"""What a text gives away: addresses, crews, numbers, names (protocol rules P24 and TX1 to TX5).

    text ── tokens.fold, tokens.split ──> tokens ── one finder for each kind ──> findings

It is a belt behind a human review: a house number in words and a bare name are not found. English is built in; a policy
adds patterns for other languages, and literals that are no finding.

Finders walk over tokens and ask sets of words. No pattern here nests a repetition in another, so the time is in
proportion to the length of the text (TX4).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from . import addresses, crossings, names, patterns, units
from .tokens import FoldedText, fold

KINDS = {
    "address": "a street address",
    "units": "units that were sent, or how many",
    "phone": "a telephone number",
    "contact": "an e-mail address, a link or a handle",
    "name": "a person's name",
    "coordinates": "coordinates",
    "document": "the number of a document or a card",
}
BUILT_IN_REGION = "US"
NEVER = frozenset({"coordinates", "document"})  # these can't be confirmed


class Finding(NamedTuple):
    """What was found: its kind, and between which characters of the text, from 0, the end excluded."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PiiDetector:
    """Reads texts. `region`: where numbers without a country code are from (ISO 3166); `allowed`: no finding."""

    region: str = BUILT_IN_REGION
    allowed: tuple[str, ...] = ()
    patterns: Mapping[str, tuple[re.Pattern[str], ...]] | None = None  # further ones, by kind

    def find(self, text: str) -> list[Finding]:
        """What the text gives away, in its order; of what overlaps the longest."""
        folded = fold(text)
        spans = [
            Finding(kind, folded.origin[start], folded.origin[end - 1] + 1)
            for kind, finder in self._finders()
            for start, end in finder(folded)
            if not self._may_be(folded, start, end)
        ]
        return _disjoint(spans)

    def _finders(self) -> Iterable[tuple[str, Callable[[FoldedText], Iterable[tuple[int, int]]]]]:
        yield from _FINDERS
        yield "phone", lambda text: patterns.phones(text, self.region)
        for kind, further in (self.patterns or {}).items():
            for pattern in further:
                yield kind, partial(patterns.matches, pattern)

    def _may_be(self, text: FoldedText, start: int, end: int) -> bool:
        found = text.folded[start:end].casefold()
        return any(found in allowed.casefold() for allowed in self.allowed)


def is_region(code: str) -> bool:
    """Whether telephone numbers are known of this region (ISO 3166-1, two capital letters)."""
    return code == BUILT_IN_REGION or patterns.knows_region(code)


_FINDERS: tuple[tuple[str, Callable[[FoldedText], Iterable[tuple[int, int]]]], ...] = (
    ("coordinates", patterns.coordinates),
    ("document", patterns.documents),
    ("contact", patterns.contacts),
    ("address", addresses.addresses),
    ("address", crossings.crossings),
    ("units", units.units),
    ("name", names.names),
)


def _disjoint(findings: Iterable[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    for found in sorted(findings, key=lambda f: (f.start, f.start - f.end)):
        if not kept or found.start >= kept[-1].end:
            kept.append(found)
        elif kept[-1].kind == found.kind or (found.kind in NEVER and kept[-1].kind not in NEVER):
            kept[-1] = Finding(found.kind, kept[-1].start, max(kept[-1].end, found.end))
    return kept
