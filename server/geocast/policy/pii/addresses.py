"""Finds addresses in the text of an alert: a number and a street, a block, or an apartment.

A text that contains an address is not published unless the publisher confirms it (rule P24). The name of a street alone
does not count as an address, so that an alert can say "avoid Main Street" (rule TX3). Crossings of streets are found by
the module `crossings`.

In all functions, `at` is the index of a token, and the *end* of something is the index of the first token after it.
"""

from collections.abc import Iterator, Sequence

from .tokens import Span, Token, TokenList
from .words import WordSets

_W = WordSets("streets")
_ENDS = _W.suffixes | _W.ramps
SMALL = (_W.suffixes - _W.common) | _W.plain | {"way"}  # suffixes that also count in lower case: oak st, pine ave
_CAPITALISED = frozenset({"cl", "close", "parade"})  # suffixes that count only with a capital letter
DATES = _W.months | _W.weekdays
_IN_NAMES = frozenset({"first", "new"})  # for example: "First Avenue", "New Street"
_RANGES = frozenset({"-", "to", "through", "thru", "and"})
_POINTED, _NOT_PLAIN = _W.suffixes | _W.directions, _W.function | _W.suffixes | _W.prefixes | DATES
_KINDS = _W.prefixes | _W.prefixes_of
_FILLS, _ORDERS = _W.block_fills | _W.directions, _W.ordinals | {"last"}
_LONGEST = 5  # the largest number of words in a street's name, without its suffix
_FEWEST_OF_HOUSE = 4  # a number with this many digits can only be that of a house; with fewer, it may be a street
_MAX_DIGITS = 6  # the largest number of digits in a house number
_MOST_FILLS = 5  # the largest number of tokens between a number and the word "block"


def addresses(tokens: TokenList) -> Iterator[Span]:
    """Yield each address in the text, as a range of tokens."""
    for at in range(len(tokens)):
        if (end := _address(tokens, at)) is not None:
            yield at, end


def _address(tokens: TokenList, at: int) -> int | None:
    """Find an address that begins at token `at`.

    Return the index of the first token after it, or None if there is no address.
    """
    token, end = tokens[at], None
    if token.digits:
        end = _block(tokens, at) or _numbered(tokens, at)
    elif token.lower in _W.block_leads:
        end = _word_block(tokens, at + 1)
    elif token.lower in _W.apartments:
        end = _apartment(tokens, at)
    elif token.lower in _ORDERS and tokens.at(at + 1).lower in _W.blocks and tokens.at(at + 2).lower == "of":
        end = _of_street(tokens, at + 2)  # for example: "the last block of Elm Street"
    elif token.lower in _W.blocks:
        end = _block_number(tokens, at + 1 + (tokens.at(at + 1).lower in (":", "#", "no", "number")))
    return end


def _block(tokens: TokenList, at: int) -> int | None:
    """Find a street block that begins at token `at`, such as "300 block", "300-block" or "300 and 400 blocks".

    Return the index of the first token after it, or None if there is no block. A number that measures a distance ("5
    blocks away") is not found.
    """
    if tokens[at].digits > _MAX_DIGITS or _is_fraction(tokens, at):
        return None
    if tokens[at].letters == "s" and tokens[at].digits > 2 and tokens.at(at + 1).lower == "of":
        return _of_street(tokens, at + 1)  # for example: "the 600s of Main Street"
    if tokens[at].digits > 2 and [token.lower for token in tokens[at + 1 : at + 4]] == ["'", "s", "of"]:
        return _of_street(tokens, at + 3)
    ranged = tokens[at].digits > 2 and tokens.at(at + 1).lower in _RANGES and tokens.at(at + 2).digits > 2
    if ranged and tokens.at(at + 3).lower in ("on", "of", "along") and (end := _of_street(tokens, at + 3)):
        return end  # for example: "1400 to 1450 on Elm Street"
    if tokens[at].letters in _W.blocks or (tokens[at].letters == "xx" and tokens.at(at + 1).capital):
        return _of_street(tokens, at + 1) or at + 1  # for example: "300BLK", "27XX"
    if tokens.at(at + 1).text == "-" and tokens[at].text.endswith("00") and _is_end_of_block(tokens, at):
        return at + 3  # for example: "300-399 Elm"
    end = at + 1
    while end <= at + _MOST_FILLS and (tokens.at(end).digits or tokens.at(end).lower in _FILLS):
        end += 1
    several = tokens.at(end).lower.endswith("s") and len(tokens[at].text) < 3  # "5 blocks away"
    return None if several else _word_block(tokens, end)


def _word_block(tokens: TokenList, at: int) -> int | None:
    """Find the word "block" and the name of a street after it. The word is token `at`, or follows a hyphen there.

    Return the index of the first token after the street, or after the word if there is no street. Return None if there
    is no such word, or if it is a part of a size ("10-block area").
    """
    at += tokens.at(at).text == "-"
    sized = tokens.at(at + 1).lower in _W.block_sizes
    if [token.lower for token in tokens[at : at + 3]] == ["b", "/", "o"]:
        at += 2  # for example: "300 B/O Elm"
    elif tokens.at(at).lower not in _W.blocks or sized:
        return None
    return _of_street(tokens, at + 1) or at + 1


def _of_street(tokens: TokenList, at: int) -> int | None:
    """Find the name of a street that begins at token `at`, right after a block ("300 block of Elm Street").

    Return the index of the first token after the name, or None if there is no name. The word "of" may come before the
    name.
    """
    at += tokens.at(at).text == "."
    of = tokens.at(at).lower in ("of", "on", "along")
    named = tokens.at(at + 1).capital or tokens.at(at + 1).ordinal
    return street(tokens, at + of) or (at + 2 if of and named else None)


def _is_end_of_block(tokens: TokenList, at: int) -> bool:
    """Return whether the numbers of a whole block, followed by a street's name, begin at token `at`: "300-399 Elm"."""
    return tokens.at(at + 2).text == tokens[at].text[:-2] + "99" and tokens.at(at + 3).capital


def _block_number(tokens: TokenList, at: int) -> int | None:
    """Find the rest of an address such as "block 300 of Elm Street", from its number, which is token `at`.

    Return the index of the first token after the address, or None if there is no address. A number of two digits
    without a street ("Block 12") is a part of a plan or a network, not an address.
    """
    number = tokens.at(at)
    if not number.number or not _is_house(number) or len(number.text) < 2:
        return None
    return _of_street(tokens, at + 1) or (at + 1 if number.digits > 2 else None)


def _numbered(tokens: TokenList, at: int) -> int | None:
    """Find an address that begins with a house number, which is token `at`.

    Return the index of the first token after the address, or None if there is no address.
    """
    if not _is_house(tokens[at]) or _is_fraction(tokens, at):
        return None
    name = at + 1
    if tokens.at(name).text == "-" and _is_house(tokens.at(name + 1)):
        name += 2  # for example: "12-14"
    return street(tokens, name)


def _is_house(token: Token) -> bool:
    return token.number and token.digits <= _MAX_DIGITS and (len(token.letters) <= 1 or token.letters == "xx")  # "27XX"


def _is_fraction(tokens: TokenList, at: int) -> bool:
    """Return whether the number at token `at` continues what is written just before it, as in $5, 1.5, 10:30 or #7."""
    return at > 0 and tokens[at - 1].text in "$.,:#" and tokens[at - 1].end == tokens[at].start


def street(tokens: TokenList, at: int) -> int | None:
    """Find the name of a street that begins at token `at`.

    Return the index of the first token after the name, or None if there is no such name.
    """
    while tokens.at(at).lower in _W.directions and tokens.at(at + 1).lower not in ("\n", *_W.suffixes):
        at += 2 if tokens.at(at + 1).text == "." else 1
    first, second = tokens.at(at), tokens.at(at + 1)
    if first.lower in _W.named:
        return at + 1
    if first.lower == "the" and second.lower in _W.named:
        return at + 2
    if (end := prefixed(tokens, at) or route(tokens, at)) is not None:
        return end
    if first.lower in _W.misread and second.capital:
        return at + 2
    if first.number and first.digits < _FEWEST_OF_HOUSE and second.capital and second.lower in _W.suffixes:
        return at + 2  # for example: "SW 8 ST"
    words = 0
    for end in range(at, min(at + 2 * _LONGEST + 1, len(tokens))):  # a full stop may follow each word
        token = tokens[end]
        if words and token.lower in _W.suffixes and _is_name(tokens[at:end], token):
            return end + 1
        words += token.word or token.ordinal
        function = _is_function(token) and tokens[end - 1].text != "-"  # for example: "Stratford-upon-Avon Road"
        if words > _LONGEST or function or not (token.word or token.ordinal or token.text in "'.-"):
            return None
    return None


def prefixed(tokens: TokenList, at: int) -> int | None:
    """Find a street whose kind comes before its name, and which begins at token `at`.

    Examples: "Avenue B", "Calle Ocho", "Avenue of the Palms". Return the index of the first token after the street, or
    None if there is no such street.
    """
    token, end = tokens.at(at), at + 1
    if token.lower not in _KINDS:
        return None
    end = tokens.past(end, _W.particles, _LONGEST - 1)
    last, particles = tokens.at(end), end > at + 1
    name = (last.capital and not _is_function(last)) or last.ordinal or last.digits > 0
    if token.lower == "avenue":
        suffix = at > 0 and tokens[at - 1].capital and not particles  # for example: "MAIN AVENUE NORTH"
        named = token.capital and name and (len(last.text) == 1 or last.digits > 0 or not suffix)
    elif token.lower in _W.misread | _W.prefixes_of:
        named = token.capital and particles and name and tokens.at(at + 1).lower in _W.particles
        named = named and (token.lower in _W.misread or tokens.at(at + 1).lower == "of")
    else:
        named = token.lower in _W.prefixes and (name or (particles and last.word))
        longer = named and last.capital and not last.text.isupper()  # for example: "Avenida Cesar Chavez"
        while longer and end < at + _LONGEST and _is_plain(tokens.at(end + 1)):
            end += 1
    return end + 1 if named else None


def _is_plain(token: Token) -> bool:
    return token.capital and token.lower not in _NOT_PLAIN


def route(tokens: TokenList, at: int) -> int | None:
    """Find a numbered road that begins at token `at`.

    Examples: "US 422", "I-76", "U.S. 422", "County Road 12". Return the index of the first token after the road, or
    None if there is no such road.
    """
    first, second = tokens.at(at).lower, tokens.at(at + 1).lower
    if first in _W.routes:
        end = at + 1
    elif first in ("state", "county") and second in ("road", "rd", *_W.routes):
        end = at + 2
    elif [token.text for token in tokens[at : at + 4]] == ["U", ".", "S", "."]:
        end = at + 4
    elif at and tokens[at - 1].lower == "the" and first in _W.roads and tokens[at].end == tokens.at(at + 1).start:
        end = at + 1  # for example: "the A202"
    else:
        return None
    end += tokens.at(end).text in "-."
    return end + 1 if tokens.at(end).digits else None


def _is_name(before: Sequence[Token], suffix: Token) -> bool:
    """Return whether the tokens `before`, which precede a suffix such as "Road", are the name of a street.

    If the suffix is an everyday word, the name must have capitals.
    """
    after = ["", *(token.text for token in before)]
    named = [token for token, last in zip(before, after, strict=False) if (token.word or token.digits) and last != "-"]
    if [token.lower for token in named] == ["first"]:
        return suffix.lower not in _W.common or named[0].capital
    if not named or any(map(_is_function, named)) or (suffix.lower in _CAPITALISED and not suffix.capital):
        return False
    short = len(named) == 1 and suffix.lower not in _CAPITALISED
    return suffix.lower not in _W.common or short or all(word.capital or word.ordinal for word in named)


def _is_function(token: Token) -> bool:
    return token.lower in _W.function and token.text != "A" and not (token.capital and token.lower in _IN_NAMES)


def is_ordinal(token: Token) -> bool:
    """Return whether a token is an ordinal: in digits ("5th"), or a word with a capital letter ("Fifth")."""
    return token.ordinal or (token.capital and token.lower in _W.ordinals)


def _apartment(tokens: TokenList, at: int) -> int | None:
    at = tokens.past(at + 1, {".", "#"}, len(tokens))
    token = tokens.at(at)
    return at + 1 if token.digits or (token.capital and len(token.text) == 1) else None


def _is_point(tokens: TokenList, at: int) -> bool:
    """Return whether token `at` is the full stop of an abbreviated suffix or direction: "Pine Rd. is closed"."""
    return tokens[at].text == "." and tokens[at - 1].lower in _POINTED


def street_before(tokens: TokenList, at: int) -> int | None:
    """Find a street that ends just before token `at`.

    Return the index of its first token, or None if there is no such street. If the name of the street is long, the
    result may be the index of a later word of the name.
    """
    if (start := suffixed_before(tokens, at)) is not None:
        return start
    starts = (start for start in range(max(at - 1 - _LONGEST, 0), at - 1) if tokens[start].lower in _KINDS)
    return next((start for start in starts if prefixed(tokens, start) == at), None)


def suffixed_before(tokens: TokenList, at: int) -> int | None:
    """Find a street that ends just before token `at`, except one whose kind comes before its name ("Avenue B").

    Return the index of its first token, or None if there is no such street.
    """
    last = at - 1
    while last > 0 and (tokens[last].lower in _W.directions or _is_point(tokens, last)):
        last -= 1
    if last < 0:
        return None
    token, before = tokens[last], tokens[max(last - 1, 0)]
    if before.text == "." and last > 1:
        before = tokens[last - 2]  # for example: "Martin Luther King Jr. Blvd"
    if is_ordinal(token) or token.lower in _W.named:
        return last
    if token.digits:
        return next((start for start in range(max(last - 5, 0), last) if route(tokens, start) == last + 1), None)
    if last and token.lower in _ENDS:
        if last > 1 and before.digits and tokens[last - 2].lower in _W.routes:
            return last - 2
        numbered = before.number and before.digits < _FEWEST_OF_HOUSE and token.capital  # for example: "SW 8 ST"
        named = numbered or before.capital or before.ordinal
        named = named or (before.word and not token.capital and token.lower in SMALL)
        if named and _is_name([before], token):
            return last - 1
    return None
