"""Numbers that regular expressions find in texts (rules P24 and TX4): which count, and how many are tested."""

import re

import pytest

from geocast.policy.pii import patterns


def parts_of(text, spans):
    """Return the parts of a text with these starts and ends."""
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("378282246310005", ["378282246310005"]),
        ("4222222222222", ["4222222222222"]),  # 13 digits
        ("422222222222", []),
        ("6304000000000000000", ["6304000000000000000"]),  # 19 digits
        ("4111-1111-1111-1111", ["4111-1111-1111-1111"]),
        ("4111 1111 1111 1112", []),  # a wrong check digit
        ("4111 1111 1111 1119", []),
        ("5555555555554444", ["5555555555554444"]),
        ("123-45-6789", ["123-45-6789"]),
        ("899-45-6789", ["899-45-6789"]),
        ("000-45-6789", []),
        ("666-45-6789", []),
        ("900-45-6789", []),
        ("123-00-6789", []),
        ("123-45-0000", []),
        ("1123-45-6789", []),
    ],
)
def test_numbers_of_cards_and_social_security_are_found_if_they_are_valid(text, found):
    """Cards have a check digit, and some numbers of social security are never issued."""
    assert parts_of(text, patterns.documents(text)) == found


def test_parts_of_a_number_are_its_pieces_with_enough_digits_longest_first():
    """A part has at least seven digits, at most six pieces, and begins and ends with a digit."""
    text = "12 415-555 - 2671 24"
    [match] = patterns._TELEPHONE.finditer(text)
    assert match[0] == text
    expected = ["12 415-555 - 2671 24", "12 415-555 - 2671", "12 415-555", "415-555 - 2671 24", "415-555 - 2671"]
    assert parts_of(text, patterns._parts(match)) == expected
    [match] = patterns._TELEPHONE.finditer("1 2 3 4 5 6 7 8")
    assert parts_of("1 2 3 4 5 6 7 8", patterns._parts(match)) == []


def test_only_sixteen_telephone_numbers_are_tested():
    """A text can't make the check slow (rule TX4)."""
    for count, found in ((15, 15), (16, 16), (17, 16)):
        text = ", ".join(["415-555-2671"] * count)
        assert len(list(patterns.phones(text, "US"))) == found
    mixed = ", ".join(["12 34 415-555-2671"] * 17)  # the third part of each is a number, and 16 parts are tested
    assert len(list(patterns.phones(mixed, "US"))) == 16 // 3


def test_empty_match_of_a_pattern_is_left_out():
    """A policy's pattern may match nothing."""
    assert parts_of("a RTW b", patterns.matches([re.compile(r"(RTW)?")], "a RTW b")) == ["RTW"]
