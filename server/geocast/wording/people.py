"""Names: a title or a role, and capitalised words behind it. A bare name is not found."""

from collections.abc import Iterator

from .tokens import Text, Token, Tokens
from .words import words

_W = words("people")
_TITLES, _ROLES = _W["titles"], _W["roles"]
_FUNCTION = words("streets")["function"]
_LONGEST = 3  # words of a name


def names(text: Text) -> Iterator[tuple[int, int]]:
    """Where names stand, their titles included: start and end in the folded text."""
    tokens = text.tokens
    titled = _is_titled(tokens)
    for at, token in enumerate(tokens):
        end = None
        if token.lower in _TITLES or (token.lower == "dr" and not _ends_a_street(tokens, at)):
            end = _name(tokens, at + 1, at_least=1)
        elif token.lower in _ROLES and not titled:
            end = _name(tokens, at + 1, at_least=2)
        if end is not None and not token.text.isupper():
            yield token.start, tokens[end - 1].end


def _ends_a_street(tokens: Tokens, at: int) -> bool:
    """Whether "Dr" is a drive and no doctor."""
    return at > 0 and (tokens[at - 1].capital or tokens[at - 1].ordinal)


def _name(tokens: Tokens, at: int, *, at_least: int) -> int | None:
    """Behind which token a name of at least so many capitalised words ends that begins at `at`."""
    at += tokens.at(at).text == "."
    end, found = at, 0
    while found < _LONGEST and _may_be_a_name(tokens.at(end)):
        end, found = end + 1, found + 1
        end += tokens.at(end).text == "." and len(tokens[end - 1].text) == 1  # an initial
    return end if found >= at_least else None


def _may_be_a_name(token: Token) -> bool:
    if len(token.text) == 1:
        return token.capital  # an initial
    return token.capital and token.lower not in _FUNCTION and not token.text.isupper()


def _is_titled(tokens: Tokens) -> bool:
    """Whether all longer words begin with capitals, as in headlines: then a capital says nothing."""
    longer = [token for token in tokens if token.word and len(token.text) > 3]
    return len(longer) > 3 and all(token.capital for token in longer)
