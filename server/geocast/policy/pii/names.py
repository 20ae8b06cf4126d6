"""Finds people's names in a text: capitalised words after a title, rank or role.

A name without a title is not found.
"""

from collections.abc import Iterator, Sequence

from .tokens import FoldedText, Token, TokenList, is_titled
from .words import words

_W = words("people")
_TITLES, _NEVER_WORDS, _RANKS, _ROLES = _W["titles"], _W["never_words"], _W["ranks"], _W["roles"]
_NOT_NAMES, _GIVEN, _FAMILY = _W["not_names"], _W["given"], _W["family"]
_STREETS = words("streets")
_FUNCTION = _STREETS["function"]
_NO_NAMES = _FUNCTION | _NOT_NAMES | words("crews")["units"] | _STREETS["months"] | _STREETS["weekdays"]
_LONGEST = 3  # the largest number of words in a name


def names(text: FoldedText) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each person's name, including the title before it.

    They are indexes of characters in the folded (normalised) text: the index of the first character, and the index
    after the last one.

    If the words of a text are all in capitals, or all begin with one, capitals do not show which words are names. In
    such a text, a name is found only after a title that can't be another word ("SGT"), or if it is a common name
    ("OFFICER JANE DOE").
    """
    tokens = text.tokens
    titled = is_titled(tokens)
    for at, token in enumerate(tokens):
        end = None
        if token.lower in _TITLES | _RANKS or (token.lower == "dr" and not _ends_a_street(tokens, at)):
            end = _name(tokens, at + 1, at_least=1)
        elif token.lower in _ROLES:
            end = _name(tokens, at + 1, at_least=2)
        if end is not None and (token.lower in _sure_titles(titled, token) or _is_common(tokens[at + 1 : end])):
            yield token.start, tokens[end - 1].end


def _sure_titles(titled: bool, token: Token) -> frozenset[str]:
    """Return the titles after which every capitalised word counts as a name.

    They depend on whether `token`, the title in the text, is in capitals, and on `titled`: whether all longer words of
    the text begin with capitals.
    """
    if token.text.isupper():
        return _NEVER_WORDS
    return _TITLES | {"dr"} if titled else _TITLES | {"dr"} | _RANKS | _ROLES


def _is_common(name: Sequence[Token]) -> bool:
    return any(token.lower in _FAMILY or token.lower in _GIVEN for token in name)


def _ends_a_street(tokens: TokenList, at: int) -> bool:
    """Return whether the token "Dr" at the index `at` means Drive, not Doctor."""
    return at > 0 and (tokens[at - 1].capital or tokens[at - 1].ordinal)


def _name(tokens: TokenList, at: int, *, at_least: int) -> int | None:
    """Find a name (one or more capitalised words) that begins at token `at`.

    Return the index of the first token after it, or None if it has fewer than `at_least` words.
    """
    at += tokens.at(at).text == "."
    end, found = at, 0
    while found < _LONGEST and _may_be_a_name(tokens.at(end)):
        end, found = end + 1, found + 1
        end += tokens.at(end).text == "." and len(tokens[end - 1].text) == 1  # the full stop after an initial
    return end if found >= at_least else None


def _may_be_a_name(token: Token) -> bool:
    return token.capital and (len(token.text) == 1 or token.lower not in _NO_NAMES)
