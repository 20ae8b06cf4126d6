"""A text, folded and split into tokens (TX1)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

# Characters that a reader does not see and whose category is not Cf: Unicode's Default_Ignorable_Code_Point, the object
# replacement character, and the Braille blank, which looks like a space.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufffc\U000e0000-\U000e0fff]"
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
class FoldedText:
    """A folded text: `origin[i]` is the place in the original of its character i."""

    folded: str
    origin: Sequence[int] = field(repr=False)

    @cached_property
    def tokens(self) -> "TokenList":
        """Its tokens, in their order."""
        return TokenList(_token(match) for match in _TOKEN.finditer(self.folded))


class TokenList(tuple[Token, ...]):
    """The tokens of a text. Behind the last one there are any number of ENDs."""

    __slots__ = ()

    def at(self, place: int) -> Token:
        """The token at this place, which is not negative."""
        return self[place] if place < len(self) else END


def is_titled(tokens: TokenList) -> bool:
    """Return whether all longer words begin with capitals, as in headlines: then a capital letter says nothing."""
    longer = [token for token in tokens if token.word and len(token.text) > 3]
    return len(longer) > 3 and all(token.capital for token in longer)


def fold(text: str) -> FoldedText:
    """Return the text by NFKC, without invisible characters, with plain dashes, blanks and digits (rule HD13)."""
    if text.isascii():
        return FoldedText(text.replace("\n", " "), range(len(text)))
    characters: list[str] = []
    origin: list[int] = []
    for at, character in enumerate(text):
        if not _is_invisible(character) and not (characters and _is_borne(characters, character)):
            plain = _plain(character)
            characters += plain
            origin += [at] * len(plain)
    return FoldedText("".join(characters), origin)


def _is_invisible(character: str) -> bool:
    """Return whether a reader does not see the character: a joiner, a mark of direction, an annotation, a filler."""
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
    """Return the whole number that a digit of any script stands for, or a number in a circle, in ASCII digits."""
    if unicodedata.category(character) not in ("Nd", "No"):
        return None
    value = unicodedata.numeric(character, 0.5)
    return str(int(value)) if value == int(value) and value < 100 else None


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


def _letters(word: str) -> str:
    """Return the word in small letters without the marks on Latin letters: "Blöck" is looked up as "block"."""
    if word.isascii():
        return word.lower()
    parts = unicodedata.normalize("NFKD", word)
    return "".join(each for at, each in enumerate(parts) if not (at and _is_mark_on_latin(parts, at))).lower()


def _is_mark_on_latin(parts: str, at: int) -> bool:
    return unicodedata.category(parts[at]) == "Mn" and parts[:at].rstrip(parts[at])[-1:].isascii()


def _token(match: "re.Match[str]") -> Token:
    text = match[0]
    lower = _letters(text)
    start, end = match.span()
    if match["number"] is not None:
        letters = match["letters"].lower()
        ordinal = letters in ("st", "nd", "rd", "th")
        return Token(text, lower, start, end, len(text) - len(letters), letters, ordinal, False)
    return Token(text, lower, start, end, 0, "", False, text[0].isupper())
