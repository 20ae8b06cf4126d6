"""Finds people's names in a text: capitalised words after a title, rank or role.

A name without a title is not found.
"""

from collections.abc import Iterator, Sequence

from .tokens import Span, Token, TokenList
from .words import WordSets

_W = WordSets("people")
_STREETS, _CREWS = WordSets("streets"), WordSets("crews")
_NO_NAMES = _STREETS.function | _W.not_names | _CREWS.units | _STREETS.months | _STREETS.weekdays
_LONGEST = 3  # the largest number of words in a name


def names(tokens: TokenList) -> Iterator[Span]:
    """Yield each person's name, including the title before it, as a range of tokens.

    If the words of a text are all in capitals, or all begin with one, capitals do not show which words are names. In
    such a text, a name is found only after a title that can't be another word ("SGT"), or if it is a common name
    ("OFFICER JANE DOE").
    """
    for at, token in enumerate(tokens):
        end = None
        if token.lower in _W.titles | _W.ranks or (token.lower == "dr" and not _ends_a_street(tokens, at)):
            end = _name(tokens, at + 1, at_least=1)
        elif token.lower in _W.roles:
            end = _name(tokens, at + 1, at_least=2)
        if end is not None and (token.lower in _sure_titles(tokens, at) or _is_common(tokens[at + 1 : end])):
            yield at, end


def _sure_titles(tokens: TokenList, at: int) -> frozenset[str]:
    """Return the titles after which every capitalised word counts as a name.

    They depend on whether the title, which is token `at`, is in capitals, and on whether all longer words of the text
    begin with capitals.
    """
    if tokens[at].text.isupper():
        return _W.never_words
    return _W.titles | {"dr"} if tokens.is_titled else _W.titles | {"dr"} | _W.ranks | _W.roles


def _is_common(name: Sequence[Token]) -> bool:
    return any(token.lower in _W.family or token.lower in _W.given for token in name)


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
