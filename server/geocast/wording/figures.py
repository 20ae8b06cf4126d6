"""What is found by its form: coordinates, cells, documents, telephone numbers, links."""

import re
from collections.abc import Iterator

from .tokens import Text

_DECIMAL = r"[0-9]{1,3}\.[0-9]{3,12}"
_PAIR = re.compile(rf"(?<![\d.])[+-]?{_DECIMAL}\s?°?\s?[NSns]?\s?[,;/ ]\s?[+-]?{_DECIMAL}\s?°?\s?[EWew]?(?![\d.])")
_DEGREES = re.compile(rf"(?<![\d.]){_DECIMAL}\s?°")
_MINUTES = re.compile(r"(?<![\d.])[0-9]{1,3}\s?°\s?[0-9]{1,2}(?:\.[0-9]{1,6})?\s?['′’]")
_CELL = re.compile(r"(?<![0-9A-Za-z])8[0-9a-fA-F]{14}(?![0-9A-Za-z])")  # of H3
_COORDINATES = (_PAIR, _DEGREES, _MINUTES, _CELL)
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
_CONTACTS = (_EMAIL, _LINK, _HOST, _HANDLE)
# A number as people write it: digits, and what stands between groups of them.
_TELEPHONE = re.compile(r"(?<![\w.])\+?\(?[0-9](?:[ ().\-/]{0,3}[0-9]){6,16}(?![\w])")
_MAX_NUMBERS = 16  # of one text that are looked up: each takes some 50 us


def matches(pattern: re.Pattern[str], text: Text) -> Iterator[tuple[int, int]]:
    """Where the pattern matches something."""
    return (match.span() for match in pattern.finditer(text.folded) if match[0])


def coordinates(text: Text) -> Iterator[tuple[int, int]]:
    """Decimal or sexagesimal degrees to about 100 m, and H3 cells."""
    return (match.span() for pattern in _COORDINATES for match in pattern.finditer(text.folded))


def documents(text: Text) -> Iterator[tuple[int, int]]:
    """Numbers of the US social security, and of payment cards (ISO/IEC 7812-1, annex B: the Luhn formula)."""
    yield from (match.span() for match in _SOCIAL.finditer(text.folded))
    for match in _CARD.finditer(text.folded):
        if _luhn([int(character) for character in match[0] if character.isdigit()]):
            yield match.span()


def contacts(text: Text) -> Iterator[tuple[int, int]]:
    """E-mail addresses, links, names of hosts, handles."""
    return (match.span() for pattern in _CONTACTS for match in pattern.finditer(text.folded))


def knows_region(code: str) -> bool:
    """Whether telephone numbers of this region are known."""
    import phonenumbers

    return code in phonenumbers.SUPPORTED_REGIONS


def phones(text: Text, region: str) -> Iterator[tuple[int, int]]:
    """Numbers that are valid in the region, or international."""
    found = [match for match, _ in zip(_TELEPHONE.finditer(text.folded), range(_MAX_NUMBERS), strict=False)]
    if not found:
        return
    import phonenumbers  # its tables take 30 ms to load, which most processes never need

    for match in found:
        try:
            number = phonenumbers.parse(match[0], region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            yield match.span()


def _luhn(digits: list[int]) -> bool:
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
