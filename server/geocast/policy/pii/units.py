"""Units: how many were sent, and which."""

from collections.abc import Iterator

from .tokens import Text, Token, Tokens
from .words import words

_W = words("crews")
_COUNTS, _PEOPLE, _SERVICES, _VEHICLES = _W["counts"], _W["people"], _W["services"], _W["vehicles"]
_UNITS, _UNIT_FILLS, _CODES, _MEASURES, _STOPS = _W["units"], _W["unit_fills"], _W["codes"], _W["measures"], _W["stops"]
_HYPHENED = _CODES - {"a", "b", "c", "d", "m", "p", "u", "x"}  # not A-10, B-12, C-4, M-25
_SINGLE, _MONTHS = _W["single"], words("streets")["months"]
_ROADS = frozenset({"a", "b", "m"})  # the M25
_GROUPS = (("strike", "team"), ("task", "force"))
_MAX_COUNT = 3  # digits of how many
_MAX_NUMBER = 4  # digits of a unit's number
_MOST_BETWEEN = 5  # tokens between a count and what is counted: two large red fire trucks


def units(text: Text) -> Iterator[tuple[int, int]]:
    """Yield where units or their number are: start and end in the folded text."""
    tokens = text.tokens
    for at, token in enumerate(tokens):
        end = None
        before = tokens[at - 1].lower if at else ""
        if token.lower in ("one", "single", "1"):
            end = _one(tokens, at) or _count(tokens, at)
        elif token.lower in _COUNTS or (_is_number(token) and before not in _MONTHS):
            end = _count(tokens, at)
        elif _is_unit(token) or (token.lower, tokens.at(at + 1).lower.removesuffix("s")) in _GROUPS:
            end = _named(tokens, at)
        if (
            end is None
            and token.lower in _CODES
            and token.text.isupper()
            and not (before == "the" and token.lower in _ROADS)
        ):
            end = _code(tokens, at)
        if end is not None:
            yield token.start, tokens[end - 1].end


def _is_number(token: Token) -> bool:
    return token.number and token.letters in ("", "x") and token.digits <= _MAX_COUNT


def _one(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "one ladder truck" ends; "one firefighter was hurt" says nothing of who was sent."""
    for end in range(at + 1, min(at + 4, len(tokens))):
        token = tokens[end]
        if token.lower in _SINGLE and tokens.at(end + 1).lower not in _SINGLE | _VEHICLES | _PEOPLE:
            return end + 1
        if not token.word or token.lower in _STOPS:
            return None
    return None


def _count(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "4 units", "three fire engines" or "two police cars" ends."""
    service = False
    for end in range(at + 1, min(at + 1 + _MOST_BETWEEN, len(tokens))):
        token = tokens[end]
        if token.lower in _PEOPLE or (service and token.lower in _VEHICLES):
            return end + 1
        if not (token.word or token.text in "-+" or token.digits) or token.lower in _STOPS:
            return None
        service = service or token.lower in _SERVICES
    return None


def _is_unit(token: Token) -> bool:
    return token.lower in _UNITS or token.lower.removesuffix("s") in _UNITS


def _leads_to_a_number(token: Token) -> bool:
    return token.lower.removesuffix("s") in _UNIT_FILLS or _is_unit(token)


def _named(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "Engine 12", "Engine No. 12" or "Ladders 3 and 4" ends."""
    end = at + 1
    while end <= at + _MOST_BETWEEN and _leads_to_a_number(tokens.at(end)):
        end += 1
    number = tokens.at(end)
    named = number.number and number.digits <= _MAX_NUMBER and tokens.at(end + 1).lower not in _MEASURES
    return end + 1 if named else None


def _code(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "E12", "RS1" or "E-12" ends: letters and a number, with nothing or a hyphen between."""
    hyphen = tokens.at(at + 1)
    joined = hyphen.text == "-" and hyphen.start == tokens[at].end and tokens[at].lower in _HYPHENED
    at += 1 + joined
    number = tokens.at(at)
    joined = number.start == tokens[at - 1].end and number.digits > 0 and not number.letters
    return at + 1 if joined and number.digits <= _MAX_NUMBER else None
