"""Addresses: a number and a street, a block, an apartment, a crossing of two streets.

A street's name alone is none: people have to be told which one to avoid (TX3).
"""

from collections.abc import Iterator, Sequence

from .tokens import Text, Token, Tokens, is_titled
from .words import words

_W = words("streets")
_SUFFIXES, _COMMON, _NAMED, _PREFIXES = _W["suffixes"], _W["common"], _W["named"], _W["prefixes"]
_ROUTES, _DIRECTIONS, _FUNCTION = _W["routes"], _W["directions"], _W["function"]
_APARTMENTS, _CORNERS = _W["apartments"], _W["corners"]
_ENDS = _SUFFIXES | _W["ramps"]
_BLOCKS, _BLOCK_LEADS, _BLOCK_FILLS, _BLOCK_SIZES = (_W[f"block{each}"] for each in ("s", "_leads", "_fills", "_sizes"))
_SIGNS = frozenset(["&", "/", "@", "+"])
_JOINS, _BEHIND_JOINS, _NOT_STREETS = _W["joins"], _W["behind_joins"], _W["not_streets"]
_PREFIXES_OF = _W["prefixes_of"]
_BARE_JOINS, _PLAIN, _MEETINGS = _W["bare_joins"], _W["plain"], _W["meetings"]
_SMALL = (_SUFFIXES - _COMMON) | _PLAIN | {"way"}  # they say a street even in small letters: oak st and pine ave
_PLURALS = _W["plurals"]
_CAPITALISED = frozenset({"cl", "close", "parade"})  # they end a street's name with a capital letter only
_DATES = _W["months"] | _W["weekdays"]
_LONGEST = 5  # words of a name before its suffix
_MAX_DIGITS = 6  # of a house number
_MOST_FILLS = 5  # tokens between the number and the word "block", and on each side of a join

Span = tuple[int, int]  # of tokens, the end excluded


def addresses(text: Text) -> Iterator[tuple[int, int]]:
    """Yield where addresses are: start and end in the folded text."""
    tokens = text.tokens
    titled = is_titled(tokens)
    for at in range(len(tokens)):
        if (span := _address(tokens, at, titled)) is not None:
            yield tokens[span[0]].start, tokens[span[1] - 1].end


def _address(tokens: Tokens, at: int, titled: bool) -> Span | None:
    token, end = tokens[at], None
    if token.digits:
        end = _block(tokens, at) or _numbered(tokens, at)
    elif token.text in _SIGNS:
        return _crossing_by_sign(tokens, at)
    elif token.text == "-":
        span = _crossing_by_sign(tokens, at)
        return span if span is not None and _meets(tokens, span[1]) else None
    elif token.lower in _CORNERS and (corner := _corner(tokens, at)):
        end = corner
    elif token.lower in _JOINS and at:
        return _crossing_in_prose(tokens, at, titled)
    elif token.lower in _BLOCK_LEADS:
        end = _word_block(tokens, at + 1)
    elif token.lower in _APARTMENTS:
        end = _apartment(tokens, at)
    elif token.lower in _BLOCKS and len(tokens.at(at + 1).text) > 1 and _is_house(tokens.at(at + 1)):
        end = at + 2  # block 300 of a street
    return None if end is None else (at, end)


def _block(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "300 block" ends, or "300-block", "the 300 and 400 blocks"; a size is no address."""
    if tokens[at].digits > _MAX_DIGITS or _is_fraction(tokens, at):
        return None
    if tokens[at].letters == "s" and tokens[at].digits > 2 and tokens.at(at + 1).lower == "of":
        return at + 2 if tokens.at(at + 2).capital or tokens.at(at + 2).ordinal else None  # the 600s of Main Street
    end = at + 1
    while end <= at + _MOST_FILLS and (tokens.at(end).digits or tokens.at(end).lower in _BLOCK_FILLS):
        end += 1
    several = tokens.at(end).lower.endswith("s") and len(tokens[at].text) < 3  # "5 blocks away"
    return None if several else _word_block(tokens, end)


def _word_block(tokens: Tokens, at: int) -> int | None:
    """Return behind which token the word "block" ends at `at`, which may follow a hyphen, if it is no size."""
    at += tokens.at(at).text == "-"
    sized = tokens.at(at + 1).lower in _BLOCK_SIZES
    return at + 1 if tokens.at(at).lower in _BLOCKS and not sized else None


def _numbered(tokens: Tokens, at: int) -> int | None:
    """Return behind which token an address ends that begins with a house number at `at`."""
    if not _is_house(tokens[at]) or _is_fraction(tokens, at):
        return None
    name = at + 1
    if tokens.at(name).text == "-" and _is_house(tokens.at(name + 1)):
        name += 2  # 12-14
    return _street(tokens, name)


def _is_house(token: Token) -> bool:
    return token.number and token.digits <= _MAX_DIGITS and (len(token.letters) <= 1 or token.letters == "xx")  # 27XX


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
        or (first.lower in _PREFIXES and (second.capital or second.lower == "of"))
        or (first.capital and first.lower in _PREFIXES_OF and second.lower == "of")
    ):
        return at + 2
    if (route := _route(tokens, at)) is not None:
        return route
    words = 0
    for end in range(at, min(at + 2 * _LONGEST + 1, len(tokens))):  # a point may stand behind each word
        token = tokens[end]
        if words and token.lower in _SUFFIXES and _is_name(tokens[at:end], token):
            return end + 1
        words += token.word or token.ordinal
        function = _is_function(token) and tokens[end - 1].text != "-"  # Stratford-upon-Avon Road
        if words > _LONGEST or function or not (token.word or token.ordinal or token.text in "'.-"):
            return None
    return None


def _route(tokens: Tokens, at: int) -> int | None:
    """Return behind which token a numbered road ends that begins at `at`: US 422, I-76, U.S. 422, County Road 12."""
    first, second = tokens.at(at).lower, tokens.at(at + 1).lower
    if first in _ROUTES:
        end = at + 1
    elif first in ("state", "county") and second in ("road", "rd", *_ROUTES):
        end = at + 2
    elif [token.text for token in tokens[at : at + 4]] == ["U", ".", "S", "."]:
        end = at + 4
    else:
        return None
    end += tokens.at(end).text in "-."
    return end + 1 if tokens.at(end).digits else None


def _is_name(before: Sequence[Token], suffix: Token) -> bool:
    """Whether what stands before a suffix is a name: capitalised where the suffix is a word of every day."""
    after = ["", *(token.text for token in before)]
    named = [token for token, last in zip(before, after, strict=False) if (token.word or token.digits) and last != "-"]
    if not named or any(map(_is_function, named)) or (suffix.lower in _CAPITALISED and not suffix.capital):
        return False
    short = len(named) == 1 and suffix.lower not in _CAPITALISED
    return suffix.lower not in _COMMON or short or all(word.capital or word.ordinal for word in named)


def _is_function(token: Token) -> bool:
    return token.lower in _FUNCTION and token.text not in ("A", "First")  # an initial, a street


def _apartment(tokens: Tokens, at: int) -> int | None:
    at += 1
    while tokens.at(at).text in ".#":
        at += 1
    token = tokens.at(at)
    return at + 1 if token.digits or (token.capital and len(token.text) == 1) else None


def _corner(tokens: Tokens, at: int) -> int | None:
    """ "corner of" and the like, with a street behind."""
    street = tokens.at(at + 2)
    named = street.capital or street.ordinal or _street(tokens, at + 2) is not None
    return at + 3 if tokens.at(at + 1).lower == "of" and named else None


def _crossing_by_sign(tokens: Tokens, at: int) -> Span | None:
    """Return the crossing whose sign is at `at`: a street before the sign and one behind; one may be a bare name."""
    before, end = _street_before(tokens, at), _street(tokens, at + 1)
    if before is not None:
        short = tokens.at(at + 1).capital or tokens.at(at + 1).ordinal  # 5th & Main
        return (before, end or at + 2) if end or short else None
    if tokens.at(at + 1).ordinal:
        end = end or at + 2  # Main & 5th
    return (at - 1, end) if end is not None and at and tokens[at - 1].capital else None


def _crossing_in_prose(tokens: Tokens, at: int, titled: bool) -> Span | None:
    """Return the crossing whose word ("and", "at", "near", "meets") is at `at`.

    Both streets have a suffix or a number, or one of them has and the other is a bare name (5th and Main). "Elm Street
    between 5th Street and 7th Street" is a stretch of one street, and no crossing; nor are "I-35 and US 290", which are
    roads that are closed.
    """
    word, first, last = tokens[at].lower, at, at + 1
    if first > 1 and (tokens[first - 1].lower in ("just", "(") or (tokens[first - 1].text == "," and word != "and")):
        first -= 1
    while last - at < _MOST_FILLS and tokens.at(last).lower in _BEHIND_JOINS:
        last += 1
    before, end = _street_before(tokens, first), _street(tokens, last)
    if before and word == "and" and tokens[before - 1].lower == "between":
        return None
    if before is not None and end is not None:
        roads = word == "and" and _route(tokens, before) is not None and _route(tokens, last) is not None
        named = tokens[last].capital or tokens[end - 1].digits or tokens[last].digits or tokens[end - 1].lower in _SMALL
        return (before, end) if named and (not roads or _meets(tokens, end)) else None
    return _half_crossing(tokens, at, before, end, titled) if word in _BARE_JOINS else None


def _half_crossing(tokens: Tokens, at: int, before: int | None, end: int | None, titled: bool) -> Span | None:
    """Return the crossing at `at` of which one street or none is more than a bare name, if that is sure enough."""
    word, bare_before, bare_behind = tokens[at].lower, at > 0 and _is_bare(tokens, at - 1), _is_bare(tokens, at + 1)
    if before is not None:
        sure = tokens[at - 1].ordinal or _is_sure(tokens, before, at, titled)
        if sure and bare_behind and not _is_date(tokens, before):
            return before, at + 2
    if (bare_before or before is not None) and (plural := _plural(tokens, at + 1)) is not None:
        return (at - 1 if before is None else before), plural
    if not bare_before or before is not None:
        return None
    if tokens.at(at + 1).ordinal and tokens.at(at + 2).lower not in _DATES:
        return at - 1, end or at + 2  # Main and 5th
    met = word in ("meets", "crosses") or _meets(tokens, at + 2)
    if bare_behind and met:
        return at - 1, end or at + 2
    inside = at > 1 and tokens[at - 2].text not in ".!?:" and word != "at"
    return (at - 1, end) if end is not None and inside and _is_sure(tokens, at + 1, end, titled) else None


def _plural(tokens: Tokens, at: int) -> int | None:
    """Return behind which token "Pine Streets" ends that begins at `at`."""
    for end in range(at, min(at + _LONGEST, len(tokens))):
        token = tokens[end]
        if end > at and token.lower in _PLURALS:
            return end + 1
        if not (token.capital or token.ordinal):
            return None
    return None


def _is_sure(tokens: Tokens, start: int, end: int, titled: bool) -> bool:
    """Return whether what ends before `end` is a street so surely that a bare name beside it is another."""
    suffix = {token.lower for token in tokens[start:end]} & _SUFFIXES
    return bool(suffix - _COMMON) or (not titled and bool(suffix & _PLAIN))


def _is_bare(tokens: Tokens, at: int) -> bool:
    """Return whether the token may be the name of a street without its suffix."""
    token = tokens.at(at)
    return token.capital and token.lower not in _NOT_STREETS and token.lower not in _FUNCTION | _DATES


def _is_date(tokens: Tokens, at: int) -> bool:
    """Return whether the ordinal at `at` belongs to a month: May 5th, the 5th of May."""
    return tokens[at].ordinal and at > 0 and tokens[at - 1].lower in _DATES


def _is_point(tokens: Tokens, at: int) -> bool:
    """Return whether the token is the full stop of an abbreviated suffix or direction: Pine Rd., Main St. W."""
    return tokens[at].text == "." and tokens[at - 1].lower in _SUFFIXES | _DIRECTIONS


def _meets(tokens: Tokens, end: int) -> bool:
    """Return whether a word behind two names says that both are streets: the Oak St.-Main St. intersection."""
    return tokens.at(end + (tokens.at(end).text == ".")).lower in _MEETINGS


def _street_before(tokens: Tokens, at: int) -> int | None:
    """The first token of the street that ends before `at`; of its name the last word will do."""
    last = at - 1
    while last > 0 and (tokens[last].lower in _DIRECTIONS or _is_point(tokens, last)):
        last -= 1
    if last < 0:
        return None
    token, before = tokens[last], tokens[max(last - 1, 0)]
    if before.text == "." and last > 1:
        before = tokens[last - 2]  # Martin Luther King Jr. Blvd
    if token.ordinal or token.lower in _NAMED:
        return last
    if token.digits:
        return next((start for start in range(max(last - 5, 0), last) if _route(tokens, start) == last + 1), None)
    if last and token.lower in _ENDS:
        if last > 1 and before.digits and tokens[last - 2].lower in _ROUTES:
            return last - 2
        named = before.capital or before.ordinal or (before.word and token.lower in _SMALL)
        if named and _is_name([before], token):
            return last - 1
    return None
