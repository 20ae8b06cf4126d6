"""Units: how many were sent, and which."""

from collections.abc import Iterator

from .tokens import Text, Tokens
from .words import words

_W = words("crews")
_COUNTS, _PEOPLE, _SERVICES, _VEHICLES = _W["counts"], _W["people"], _W["services"], _W["vehicles"]
_UNITS, _CODES, _MEASURES = _W["units"], _W["codes"], _W["measures"]
_MAX_COUNT = 3  # digits of how many
_MAX_NUMBER = 4  # digits of a unit's number


def units(text: Text) -> Iterator[tuple[int, int]]:
    """Where units or their number stand: start and end in the folded text."""
    tokens = text.tokens
    for at, token in enumerate(tokens):
        end = None
        if token.lower in _COUNTS or (token.number and not token.letters and token.digits <= _MAX_COUNT):
            end = _count(tokens, at)
        elif token.lower in _UNITS:
            end = _named(tokens, at)
        if end is None and token.lower in _CODES and token.text.isupper():
            end = _code(tokens, at)
        if end is not None:
            yield token.start, tokens[end - 1].end


def _count(tokens: Tokens, at: int) -> int | None:
    """ "4 units", "three fire engines", "two police cars"."""
    for end in range(at + 1, min(at + 4, len(tokens))):
        word = tokens[end].lower
        if word in _PEOPLE or (word in _VEHICLES and tokens[end - 1].lower in _SERVICES):
            return end + 1
        if not tokens[end].word:
            return None
    return None


def _named(tokens: Tokens, at: int) -> int | None:
    """ "Engine 12", "Engine No. 12"."""
    at += 1
    while tokens.at(at).text in "#." or tokens.at(at).lower in ("no", "number", "company"):
        at += 1
    number = tokens.at(at)
    named = number.number and number.digits <= _MAX_NUMBER and tokens.at(at + 1).lower not in _MEASURES
    return at + 1 if named else None


def _code(tokens: Tokens, at: int) -> int | None:
    """ "E12", "RS1": letters and a number, in one."""
    number = tokens.at(at + 1)
    joined = number.start == tokens[at].end and number.digits and not number.letters
    return at + 2 if joined and number.digits <= _MAX_NUMBER else None
