"""Finds coordinates, H3 cells, documents, telephone numbers and links in a text, by regular expressions.

Each function yields the start and end of what it finds, as indexes of characters in the folded (normalised) text.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

_DECIMAL = r"[0-9]{1,3}\.[0-9]{3,12}"
_PAIR = re.compile(
    rf"(?<![\d.])[+-]?{_DECIMAL}\s?°?\s?[NSns]?[,;/| ()\[\]]{{1,6}}[EWew]?\s?[+-]?{_DECIMAL}\s?°?\s?[EWew]?(?![\d.])"
)
_NAMED = re.compile(rf"(?i)(?<![a-z])(?:lat|latitude|lng|lon|longitude)[\"']?\s?[:=]?\s?[+-]?{_DECIMAL}")
_DEGREES = re.compile(rf"(?<![\d.]){_DECIMAL}\s?°")
_MINUTES = re.compile(r"(?<![\d.])[0-9]{1,3}\s?°\s?[0-9]{1,2}(?:\.[0-9]{1,6})?\s?['′’]")
_CELL = re.compile(r"(?<![0-9A-Za-z])8[0-9a-fA-F]{14}(?![0-9A-Za-z])")  # the id of an H3 cell
# Pairs of coordinates in decimal or sexagesimal degrees, if they are precise to about 100 m or better, and H3 cells.
COORDINATES = (_PAIR, _NAMED, _DEGREES, _MINUTES, _CELL)
_SOCIAL = re.compile(r"(?<![\d-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\d-])")
_CARD = re.compile(r"(?<![\d-])[0-9](?:[ -]?[0-9]){12,18}(?![\d-])")
_TOP_LEVEL = "com|org|net|gov|edu|mil|int|info|biz|us|uk|ca|au|de|fr|io|app|dev|city|news|co|me|tv|ly|gl"
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}")
_LINK = re.compile(r"(?i)(?<!\w)(?:https?://|www\.)[^\s<>\"]{1,200}")
_HOST = re.compile(
    rf"(?i)(?<![\w.@-])[a-z0-9][a-z0-9-]{{0,62}}(?:\.[a-z0-9-]{{1,63}}){{0,3}}\.(?:{_TOP_LEVEL})(?![\w-])"
    r"(?:/[^\s<>\"]{0,200})?"
)
_HANDLE = re.compile(r"(?<![\w@])@[A-Za-z_][\w.]{1,30}")
CONTACTS = (_EMAIL, _LINK, _HOST, _HANDLE)
# A telephone number as people write it: digits, with up to three separators between them.
_TELEPHONE = re.compile(r"(?<![\w.])\+?\(?[0-9](?:[ ().\-/]{0,3}[0-9]){6,16}(?![\w])")
_PIECE = re.compile(r"[^ /]+")  # a match may contain other numbers as well, so it is cut into pieces
_FEWEST, _MOST_PIECES = 7, 6  # the smallest number of digits, and largest number of pieces, of a telephone number
_MAX_NUMBERS = 16  # the largest number of matches, and of parts of matches, to test; a test takes about 50 µs
_MAX_PARTS = 8  # the largest number of parts of one match to test


def matches(patterns: Iterable[re.Pattern[str]], text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each part of the text that matches one of the patterns, except empty matches."""
    return (match.span() for pattern in patterns for match in pattern.finditer(text) if match[0])


def documents(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each US social security number and each number of a payment card in the text.

    Numbers of cards must satisfy the Luhn formula (ISO/IEC 7812-1, annex B).
    """
    yield from matches([_SOCIAL], text)
    for match in _CARD.finditer(text):
        if _luhn([int(character) for character in match[0] if character.isdigit()]):
            yield match.span()


def knows_region(code: str) -> bool:
    """Return whether it is known how telephone numbers look in the region with this code (ISO 3166-1)."""
    import phonenumbers

    return code in phonenumbers.SUPPORTED_REGIONS


def phones(text: str, region: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each telephone number in the text that is valid in the region, or internationally."""
    left = []
    for match in islice(_TELEPHONE.finditer(text), _MAX_NUMBERS):
        if _is_valid(match[0], region):
            yield match.span()
        else:
            left.append(match)
    parts = (part for match in left for part in islice(_parts(match), _MAX_PARTS))
    for at, end in islice(parts, _MAX_NUMBERS):
        if _is_valid(text[at:end], region):
            yield at, end


def _parts(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of those parts of a match that may be a telephone number.

    A match consists of pieces, and a part consists of one or more successive pieces. It may begin at any piece; for
    each beginning, the longest part is yielded first.
    """
    pieces = [(match.start() + each.start(), match.start() + each.end()) for each in _PIECE.finditer(match[0])]
    digits = [sum(map(str.isdigit, match.string[at:end])) for at, end in pieces]
    for first, (at, _) in enumerate(pieces):
        for last in range(min(first + _MOST_PIECES, len(pieces)) - 1, first - 1, -1):
            if digits[first] and digits[last] and sum(digits[first : last + 1]) >= _FEWEST:
                yield at, pieces[last][1]


def _is_valid(number: str, region: str) -> bool:
    import phonenumbers  # imported here, because its tables take 30 ms to load, and most processes never need them

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _luhn(digits: list[int]) -> bool:
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
