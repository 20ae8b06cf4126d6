"""Normalises a text to plain characters, which is called folding, and splits it into tokens (rule TX1)."""

import re
import unicodedata
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

# Invisible characters whose Unicode category is not Cf: those with the property Default_Ignorable_Code_Point, the
# object replacement character, and the Braille blank, which looks like a space.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufffc\U000e0000-\U000e0fff]"
)
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
_LONGEST_FOLD = 4  # one character is replaced by at most this many; NFKC turns some ligatures into eighteen
_TOKEN = re.compile(
    r"(?P<number>[0-9]+)(?P<letters>(?:[A-Za-z]{1,3}(?![A-Za-z]))?)|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|[^\s\w]"
)


class Token(NamedTuple):
    """A token of a text: a number with up to three letters after it ("12", "12B", "5th"), a word, or a sign.

    `start` and `end` are indexes of characters in the folded (normalised) text. `lower` is the token in lower case,
    without the accents on Latin letters. `digits` is the number of digits of a number, and 0 for other tokens;
    `letters` are the letters after a number. `ordinal` is true for numbers like 5th, and `capital` for words that begin
    with a capital letter.
    """

    text: str
    lower: str
    start: int
    end: int
    digits: int
    letters: str
    ordinal: bool
    capital: bool

    @property
    def word(self) -> bool:
        """Whether the token is a word, not a number or a sign."""
        return self.text[0].isalpha()

    @property
    def number(self) -> bool:
        """Whether the token is a number, but not an ordinal like 5th."""
        return self.digits > 0 and not self.ordinal


Span = tuple[int, int]  # a range of tokens: the index of the first one, and the index after the last one

END = Token("\n", "\n", 0, 0, 0, "", False, False)  # returned for every index after the last token


@dataclass(frozen=True)
class FoldedText:
    """A folded text: one that was normalised so that it can be searched for personal data.

    `origin[i]` is the index, in the original text, of the character from which character i of the folded text comes.
    """

    folded: str
    origin: Sequence[int] = field(repr=False)

    @cached_property
    def tokens(self) -> "TokenList":
        """The tokens of the folded text, in order."""
        return TokenList(_token(match) for match in _TOKEN.finditer(self.folded))


class TokenList(tuple[Token, ...]):
    """The tokens of a text, in order.

    The method `at` returns a token by its index, and END for indexes after the last token.
    """

    @cached_property
    def is_titled(self) -> bool:
        """Whether all longer words of the text begin with capitals, as in headlines.

        In such a text, capitals do not show which words are names.
        """
        longer = [token for token in self if token.word and len(token.text) > 3]
        return len(longer) > 3 and all(token.capital for token in longer)

    def at(self, place: int) -> Token:
        """Return the token at the index `place`, or END if the index is after the last token.

        The index must not be negative.
        """
        return self[place] if place < len(self) else END

    def past(self, at: int, words: Set[str], most: int) -> int:
        """Return the index of the first token from the index `at` on that is not one of `words`.

        At most `most` tokens are skipped.
        """
        end = at
        while end < at + most and self.at(end).lower in words:
            end += 1
        return end


def has_any(tokens: Iterable[Token], words: Set[str]) -> bool:
    """Return whether any of the tokens is one of `words`."""
    return any(token.lower in words for token in tokens)


def fold(text: str) -> FoldedText:
    """Return the text normalised for searching by the functions that find personal data (rule HD13).

    The result is in the Unicode form NFKC, without invisible characters, and with plain dashes, spaces and digits.
    """
    if text.isascii():
        return FoldedText(text.replace("\n", " "), range(len(text)))
    characters: list[str] = []
    origin: list[int] = []
    for at, character in enumerate(text):
        if not _is_invisible(character) and not (characters and _is_mark_on_last(characters, character)):
            plain = _plain(character)
            characters += plain
            origin += [at] * len(plain)
    return FoldedText("".join(characters), origin)


def _is_invisible(character: str) -> bool:
    """Return whether a character is invisible: a joiner, a direction mark, an annotation or a filler."""
    return unicodedata.category(character) == "Cf" or _INVISIBLE.match(character) is not None


def _plain(character: str) -> str:
    if character in _DASHES:
        return "-"
    if character.isspace():
        return " "
    if (number := _number(character)) is not None:
        return number
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) <= _LONGEST_FOLD else character


def _number(character: str) -> str | None:
    """Return a digit of any script, or a number in a circle, as ASCII digits; None for other characters."""
    if unicodedata.category(character) not in ("Nd", "No"):
        return None
    value = unicodedata.numeric(character)
    return str(int(value)) if value == int(value) and value < 100 else None


def _is_mark_on_last(characters: list[str], mark: str) -> bool:
    """Return whether `mark` is an accent or another mark on the last of `characters`, so that it is not added itself.

    If Unicode has a single character for the two together, replace the last character by it. Otherwise, marks on ASCII
    characters are dropped, so that text that is struck out or boxed is read as plain text. Other scripts keep their
    marks.
    """
    if unicodedata.category(mark) not in ("Mn", "Me"):
        return False
    composed = unicodedata.normalize("NFC", characters[-1] + mark)
    if len(composed) == 1:
        characters[-1] = composed
    return len(composed) == 1 or characters[-1].isascii()


def _letters(word: str) -> str:
    """Return a word in lower case, without the accents on Latin letters: "Blöck" is looked up as "block"."""
    if word.isascii():
        return word.lower()
    kept: list[str] = []
    is_on_latin = False
    for each in unicodedata.normalize("NFKD", word):
        is_mark = unicodedata.category(each) == "Mn"
        is_on_latin = is_on_latin if is_mark else each.isascii()
        if not (is_mark and is_on_latin):
            kept.append(each)
    return "".join(kept).lower()


def _token(match: "re.Match[str]") -> Token:
    text = match[0]
    lower = _letters(text)
    start, end = match.span()
    if match["number"] is not None:
        letters = match["letters"].lower()
        ordinal = letters in ("st", "nd", "rd", "th")
        return Token(text, lower, start, end, len(text) - len(letters), letters, ordinal, False)
    return Token(text, lower, start, end, 0, "", False, text[0].isupper())
