"""Finds personal data in texts: addresses, units, numbers, names (protocol rules P24 and TX1 to TX5).

    text ── tokens.fold ──> folded text and its tokens ── one module for each kind ──> findings

The detector is a second check after a human review. It does not find everything, for instance a house number in words,
or a name without a title. English is built in. A policy can add patterns for other languages, and literals that are
always allowed.

The modules for the kinds of data go through the tokens and look them up in sets of words (`english.toml`). In this
package, a range of tokens is given as in a Python slice: its *end* is the index of the first token after it. A function
that tests whether something begins at the token `at` returns its end, or None if it does not begin there. Example: in
"at 88 Alder Rd. now" the tokens are at, 88, Alder, Rd, "." and now. The address that begins at token 1 has the end 4.

No regular expression here has a repetition inside a repetition. So the time is proportional to the length of the text
(rule TX4).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from . import addresses, crossings, names, patterns, units
from .tokens import FoldedText, Span, TokenList, fold

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
NEVER = frozenset({"coordinates", "document"})  # kinds that nobody can confirm to be harmless


class Finding(NamedTuple):
    """A part of a text that looks like personal data.

    `kind` is the kind of data, such as "phone". `start` is the index of the part's first character in the text, and
    `end` the index after its last character.
    """

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PiiDetector:
    """Finds personal data in texts, with the settings of a policy.

    `region` is the region (ISO 3166) to which telephone numbers without a country code belong. `allowed` has literals
    that are never reported.
    """

    region: str = BUILT_IN_REGION
    allowed: tuple[str, ...] = ()
    patterns: Mapping[str, tuple[re.Pattern[str], ...]] | None = None  # the policy's own patterns, by kind

    def find(self, text: str) -> list[Finding]:
        """Return the parts of a text that look like personal data, in order and without overlaps.

        If two findings overlap, they are joined. If their kinds differ, the result has the kind that a person can't
        confirm to be harmless; or, if both can be confirmed, the kind of the first finding.
        """
        folded = fold(text)
        spans = [
            Finding(kind, folded.origin[start], folded.origin[end - 1] + 1)
            for kind, start, end in self._spans(folded)
            if not self._is_allowed(folded, start, end)
        ]
        return _disjoint(spans)

    def _spans(self, text: FoldedText) -> Iterator[tuple[str, int, int]]:
        """Yield the kind, start and end of everything that is found, as indexes of characters in the folded text."""
        tokens = text.tokens
        found = [
            ("coordinates", patterns.matches(patterns.COORDINATES, text.folded)),
            ("document", patterns.documents(text.folded)),
            ("contact", patterns.matches(patterns.CONTACTS, text.folded)),
            ("address", _characters(tokens, addresses.addresses(tokens))),
            ("address", _characters(tokens, crossings.crossings(tokens))),
            ("units", _characters(tokens, units.units(tokens))),
            ("name", _characters(tokens, names.names(tokens))),
            ("phone", patterns.phones(text.folded, self.region)),
            *((kind, patterns.matches(own, text.folded)) for kind, own in (self.patterns or {}).items()),
        ]
        return ((kind, start, end) for kind, spans in found for start, end in spans)

    def _is_allowed(self, text: FoldedText, start: int, end: int) -> bool:
        found = text.folded[start:end].casefold()
        return any(found in allowed.casefold() for allowed in self.allowed)


def is_region(code: str) -> bool:
    """Return whether the detector knows how telephone numbers look in a region.

    `code` is the region's code of two capital letters (ISO 3166-1).
    """
    return code == BUILT_IN_REGION or patterns.knows_region(code)


def _characters(tokens: TokenList, spans: Iterable[Span]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each range of tokens, as indexes of characters."""
    return ((tokens[first].start, tokens[end - 1].end) for first, end in spans)


def _disjoint(findings: Iterable[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    for found in sorted(findings, key=lambda f: (f.start, f.start - f.end)):
        if not kept or found.start >= kept[-1].end:
            kept.append(found)
        else:
            kind, start, end = kept[-1]
            if found.kind in NEVER and kind not in NEVER:
                kind = found.kind
            kept[-1] = Finding(kind, start, max(end, found.end))
    return kept
