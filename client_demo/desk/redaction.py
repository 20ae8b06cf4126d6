"""Finds private text: street addresses, names and numbers of units, telephone numbers, case numbers.

Rule 1  A column that is known to contain private text is struck out as a whole. Its value is also struck out wherever
        it appears in another column of the row.
Rule 2  In the other columns, patterns find private text. They strike out too much rather than too little: the reviewer
        sees where something was struck out, and writes the words of the alert.
Rule 3  A reviewer's own text is never changed. If a part looks private, the reviewer has to confirm it: "2 men on Elm
        Street" may be intended.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .feed_format import ADDRESS, CASE, PHONE, UNITS

SHORTEST_REPEATED = 4  # characters; a shorter private value ("3", "B04") is not struck out in other columns
MOST_CHARACTERS = 400  # the longest text of one value that is shown

_STREET = (
    r"(?:street|st|avenue|ave?|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|terrace|ter|way|circle|cir"
    r"|highway|hwy|parkway|pkwy|pike|square|sq|alley|aly|plaza|expressway|expy)\b\.?"
)
# Runs of blanks and runs of word characters are matched possessively (`++`). The character after a run is of another
# kind, so backtracking could not find a match, and would take time quadratic or cubic in the length.
_NAME = r"(?:[\w.'’-]++[ ]++){1,4}?"
_COUNT = r"(?:\d++|one|two|three|four|five|six|seven|eight|nine|ten|a dozen|several|multiple)"
_CREWS = (
    r"(?:units?|engines?|trucks?|ladders?|ambulances?|medics?|paramedics?|officers?|squads?|crews?|battalions?"
    r"|firefighters?|deputies|helicopters?|(?:police|patrol|squad)[ ]cars?)"
)
_NUMBER = r"\b\d{1,6}[A-Z]?(?:-\d{1,6})?[ ]++"
_PATTERNS = {
    PHONE: r"(?<![\w-])(?:\+?1[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]\d{4}(?![\w-])",
    CASE: r"\b(?:case|incident|report|reference|ref)\b[ ]*+(?:no\.?|number|id)?[ ]*+[:#]?[ ]*+[A-Z]{0,3}\d[\d-]+"
    r"|#[ ]*+\d{3,}|\b\d{2}-\d{5,8}\b",
    UNITS: rf"\b{_COUNT}[ ]++(?:\w++[ ]++)?{_CREWS}\b"
    r"|\b(?:engine|truck|ladder|medic|battalion|squad|ambulance|unit|station|tanker)s?[ ]*+[:#]?[ ]*+"
    r"[A-Z]{0,4}\d+[A-Z]?\b",
    ADDRESS: rf"{_NUMBER}block\b(?:[ ]++(?:of[ ]++)?{_NAME}{_STREET}|[ ]++of[ ]++[\w.'’-]++)?"
    rf"|{_NUMBER}{_NAME}{_STREET}"
    r"|\b(?:apartment|apt|suite|ste|room|flat)\b\.?[ ]*+#?[ ]*+[^\W\d]*+\d\w*+",
}
# A match may begin only where a word begins: trying each dot of a name would take time quadratic in the length.
_CROSSING = rf"(?<![\w.'’-]){_NAME}{_STREET}[ ]*+(?:&|/|\band\b|\bat\b)[ ]*+{_NAME}{_STREET}"
_KINDS = {kind.replace(" ", "_"): kind for kind in _PATTERNS}


def _compiled(patterns: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile(
        "|".join(f"(?P<{kind.replace(' ', '_')}>{text})" for kind, text in patterns.items()), re.IGNORECASE
    )


_WRITTEN = _compiled(_PATTERNS)
_RECORDED = _compiled({**_PATTERNS, ADDRESS: f"{_PATTERNS[ADDRESS]}|{_CROSSING}"})


class Part(NamedTuple):
    """A piece of a text, and the kind of private information in it; the kind is None if the piece is not private."""

    text: str
    why: str | None


class Cell(NamedTuple):
    """The value of one column of a row, split into parts that are private or not."""

    column: str
    parts: list[Part]


def struck(row: Mapping[str, Any], private: Mapping[str, str]) -> list[Cell]:
    """Return a row as a reviewer sees it: private parts are marked, and empty columns left out.

    `private` maps the name of a column to the kind of private information in it (Rule 1).
    """
    values = {str(column): _short(value) for column, value in row.items() if value not in (None, "", "null")}
    repeated = {
        value.casefold(): private[column]
        for column, value in values.items()
        if column in private and len(value) >= SHORTEST_REPEATED
    }
    return [
        Cell(column, [Part(value, private[column])] if column in private else list(_parts(value, repeated)))
        for column, value in values.items()
    ]


def kept(text: str) -> str:
    """Return the text without its private parts, and without the gaps that removing them leaves."""
    left = " ".join(part.text for part in _by_pattern(text, _RECORDED) if part.why is None)
    return re.sub(r"\s+([,.;:])|\s+", r" \1", left).replace(" ,", ",").replace(" .", ".").strip(" ,;:-–/&")


def questions(text: str) -> Iterator[Part]:
    """Yield those parts of a reviewer's own text that look like private information (Rule 3).

    The reviewer has to confirm them.
    """
    return (part for part in _by_pattern(text, _WRITTEN) if part.why is not None)


def _short(value: object) -> str:
    text = str(value).strip()
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def _parts(text: str, repeated: Mapping[str, str]) -> Iterator[Part]:
    if not repeated:
        yield from _by_pattern(text, _RECORDED)
        return
    for piece in _anywhere(repeated).split(text):
        if piece.casefold() in repeated:
            yield Part(piece, repeated[piece.casefold()])
        else:
            yield from _by_pattern(piece, _RECORDED)


def _anywhere(values: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of these values as a whole word, preferring the longest."""
    longest_first = sorted(values, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _by_pattern(text: str, pattern: re.Pattern[str]) -> Iterable[Part]:
    end = 0
    for found in pattern.finditer(text):
        if found.start() > end:
            yield Part(text[end : found.start()], None)
        yield Part(found[0], _KINDS[found.lastgroup or ""])
        end = found.end()
    if end < len(text):
        yield Part(text[end:], None)
