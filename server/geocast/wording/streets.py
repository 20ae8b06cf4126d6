"""Addresses: a number and a street, a block, an apartment, a crossing of two streets.

A street's name alone is none: people have to be told which one to avoid (TX3).
"""

from collections.abc import Iterator, Sequence

from .tokens import Text, Token, Tokens
from .words import words

_W = words("streets")
_SUFFIXES, _COMMON, _NAMED, _PREFIXES = _W["suffixes"], _W["common"], _W["named"], _W["prefixes"]
_ROUTES, _DIRECTIONS, _FUNCTION = _W["routes"], _W["directions"], _W["function"]
_APARTMENTS, _CORNERS = _W["apartments"], _W["corners"]
_ENDS = _SUFFIXES | _W["ramps"]
_CROSSINGS = frozenset(["&", "/", "@", "and", "at"])
_LONGEST = 4  # words of a name before its suffix
_MAX_DIGITS = 6  # of a house number

Span = tuple[int, int]  # of tokens, the end excluded


def addresses(text: Text) -> Iterator[tuple[int, int]]:
    """Where addresses stand: start and end in the folded text."""
    tokens = text.tokens
    for at in range(len(tokens)):
        if (span := _address(tokens, at)) is not None:
            yield tokens[span[0]].start, tokens[span[1] - 1].end


def _address(tokens: Tokens, at: int) -> Span | None:
    token, end = tokens[at], None
    if token.digits:
        end = _numbered(tokens, at)
    elif token.lower in _CROSSINGS:
        return _crossing(tokens, at)
    elif token.lower in _APARTMENTS:
        end = _apartment(tokens, at)
    elif token.lower in _CORNERS:
        end = _corner(tokens, at)
    return None if end is None else (at, end)


def _numbered(tokens: Tokens, at: int) -> int | None:
    """Behind which token an address ends that begins with a house number, or with a block, at `at`."""
    if not _is_house(tokens[at]) or _is_fraction(tokens, at):
        return None
    name = at + 1
    if tokens.at(name).lower in ("block", "blk"):
        return name + 1
    if tokens.at(name).lower == "hundred" and tokens.at(name + 1).lower == "block":
        return name + 2
    if tokens.at(name).text == "-" and _is_house(tokens.at(name + 1)):
        name += 2  # 12-14
    return _street(tokens, name)


def _is_house(token: Token) -> bool:
    return token.number and token.digits <= _MAX_DIGITS and len(token.letters) <= 1


def _is_fraction(tokens: Tokens, at: int) -> bool:
    """Whether it belongs to what stands just before it: $5, 1.5, 10:30, #7."""
    return at > 0 and tokens[at - 1].text in "$.,:#" and tokens[at - 1].end == tokens[at].start


def _street(tokens: Tokens, at: int) -> int | None:
    """Behind which token the name of a street ends that begins at `at`."""
    while tokens.at(at).lower in _DIRECTIONS and tokens.at(at + 1).lower not in ("\n", *_SUFFIXES):
        at += 2 if tokens.at(at + 1).text == "." else 1
    first, second = tokens.at(at), tokens.at(at + 1)
    if first.lower in _NAMED:
        return at + 1
    if (
        (first.lower == "the" and second.lower in _NAMED)
        or (first.lower in _ROUTES and second.digits)
        or (first.lower in _PREFIXES and (second.capital or second.lower == "of"))
    ):
        return at + 2
    words = 0
    for end in range(at, min(at + 2 * _LONGEST + 1, len(tokens))):  # a point may stand behind each word
        token = tokens[end]
        if words and token.lower in _SUFFIXES and _is_name(tokens[at:end], token):
            return end + 1
        words += token.word or token.ordinal
        if words > _LONGEST or _is_function(token) or not (token.word or token.ordinal or token.text in "'.-"):
            return None
    return None


def _is_name(before: Sequence[Token], suffix: Token) -> bool:
    """Whether what stands before a suffix is a name: capitalised where the suffix is a word of every day."""
    named = [token for token in before if token.word or token.digits]
    if not named or any(map(_is_function, named)):
        return False
    return suffix.lower not in _COMMON or len(named) == 1 or all(word.capital or word.ordinal for word in named)


def _is_function(token: Token) -> bool:
    return token.lower in _FUNCTION and token.text != "A"  # which may be an initial


def _apartment(tokens: Tokens, at: int) -> int | None:
    at += 1
    while tokens.at(at).text in ".#":
        at += 1
    token = tokens.at(at)
    return at + 1 if token.digits or (token.capital and len(token.text) == 1) else None


def _corner(tokens: Tokens, at: int) -> int | None:
    """ "corner of" and the like, with a street behind."""
    street = tokens.at(at + 2)
    named = street.capital or street.ordinal or street.lower in _ROUTES
    return at + 3 if tokens.at(at + 1).lower == "of" and named else None


def _crossing(tokens: Tokens, at: int) -> Span | None:
    """The crossing whose sign or word stands at `at`: a street before it, and one behind."""
    before, end = _street_before(tokens, at), _street(tokens, at + 1)
    word = tokens[at].lower
    if word in ("and", "at"):  # in prose both have to be streets in full, and no stretch between two of them
        stretch = before and word == "and" and tokens[before - 1].lower in ("between", "from")
        return None if before is None or end is None or stretch else (before, end)
    if before is not None:
        short = tokens.at(at + 1).capital or tokens.at(at + 1).ordinal  # 5th & Main
        return (before, end or at + 2) if end or short else None
    if tokens.at(at + 1).ordinal:
        end = end or at + 2  # Main & 5th
    return (at - 1, end) if end is not None and at and tokens[at - 1].capital else None


def _street_before(tokens: Tokens, at: int) -> int | None:
    """The first token of the street that ends before `at`; of its name the last word will do."""
    last = at - 1
    while last > 0 and tokens[last].lower in _DIRECTIONS:
        last -= 1
    if last < 0:
        return None
    token, before = tokens[last], tokens[max(last - 1, 0)]
    if token.ordinal or token.lower in _NAMED:
        return last
    if last and token.digits and before.lower in _ROUTES:
        return last - 1
    if last and token.lower in _ENDS:
        if last > 1 and before.digits and tokens[last - 2].lower in _ROUTES:
            return last - 2
        if (before.capital or before.ordinal) and _is_name([before], token):
            return last - 1
    return None
