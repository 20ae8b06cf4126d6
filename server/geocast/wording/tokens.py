"""A text, folded and split into tokens (TX1)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

# What shows nothing (Unicode's Default_Ignorable_Code_Point: joiners, marks of direction, variation selectors, tags),
# and the blank of Braille, which looks like one and is none.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_DASHES = frozenset("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")
_LONGEST_FOLD = 4  # characters for one: some ligatures would become eighteen
_TOKEN = re.compile(
    r"(?P<number>[0-9]+)(?P<letters>[A-Za-z]{0,3}(?![A-Za-z]))|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)|[^\s\w]"
)


class Token(NamedTuple):
    """A number with up to three letters behind it ("12", "12B", "5th"), a word, or a sign.

    `capital`: whether it is a word that begins with a capital letter. `digits`: how many a number has, else 0.
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
        """Whether it is a word, and no number or sign."""
        return self.text[0].isalpha()

    @property
    def number(self) -> bool:
        """Whether it is a number, and not one like 5th."""
        return self.digits > 0 and not self.ordinal


END = Token("\n", "\n", 0, 0, 0, "", False, False)  # stands for what is behind the last token


@dataclass(frozen=True)
class Text:
    """A folded text: `origin[i]` is the place in the original of its character i."""

    folded: str
    origin: Sequence[int] = field(repr=False)

    @cached_property
    def tokens(self) -> "Tokens":
        """Its tokens, in their order."""
        return Tokens(_token(match) for match in _TOKEN.finditer(self.folded))


class Tokens(tuple[Token, ...]):
    """The tokens of a text. Behind the last one there are any number of ENDs."""

    __slots__ = ()

    def at(self, place: int) -> Token:
        """The token at this place, which is not negative."""
        return self[place] if place < len(self) else END


def fold(text: str) -> Text:
    """The text by NFKC, without what is invisible; dashes and blanks are plain ones."""
    if text.isascii():
        return Text(text.replace("\n", " "), range(len(text)))
    characters: list[str] = []
    origin: list[int] = []
    for at, character in enumerate(text):
        if not _INVISIBLE.match(character) and not (characters and _is_borne(characters, character)):
            plain = _plain(character)
            characters += plain
            origin += [at] * len(plain)
    return Text("".join(characters), origin)


def _plain(character: str) -> str:
    if character in _DASHES:
        return "-"
    if character.isspace():
        return " "
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) <= _LONGEST_FOLD else character


def _is_borne(characters: list[str], mark: str) -> bool:
    """Whether it is a mark on the last character, which has it from now on where there is such a character.

    What is struck out, boxed or adorned otherwise is read as if it were not; other scripts keep their marks.
    """
    if unicodedata.category(mark) not in ("Mn", "Me"):
        return False
    composed = unicodedata.normalize("NFC", characters[-1] + mark)
    if len(composed) == 1:
        characters[-1] = composed
    return len(composed) == 1 or characters[-1].isascii()


def _token(match: "re.Match[str]") -> Token:
    text = match[0]
    lower = text.lower()
    start, end = match.span()
    if match["number"] is not None:
        letters = match["letters"].lower()
        ordinal = letters in ("st", "nd", "rd", "th")
        return Token(text, lower, start, end, len(text) - len(letters), letters, ordinal, False)
    return Token(text, lower, start, end, 0, "", False, text[0].isupper())
