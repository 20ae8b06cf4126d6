"""Cleaning up and shortening the texts of a message (CP21)."""

import pytest

from geocast.ingest.cap.texts import cut, one_line, tidy


def test_line_breaks_and_control_characters_of_text_are_cleaned_up():
    """Tabs, blanks and empty lines are cleaned up, too (CP21)."""
    assert tidy("  a\t b \r\n\r\n\r\n \n c\rd\x07\x85e  \n") == "a  b\n\nc\nd\ne"


def test_headline_is_joined_into_one_line():
    """The issuer's editor may have broken the line (CP21)."""
    assert one_line("operated by Caltech and\n            USGS ") == "operated by Caltech and USGS"


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("Go in. Stay in.", 15, "Go in. Stay in."),
        ("Go in. Stay in.", 14, "Go in.…"),
        ("Go in. Stay in.", 7, "Go in.…"),
        ("Go in. Stay in.", 6, "Go…"),
        ("Winds of 3.5 m.p.h. or more", 16, "Winds of 3.5…"),
        ("unbroken", 5, "unbr…"),
        ("一二三。四五六。七八九", 8, "一二三。…"),
        ("one two three", 8, "one two…"),
        ("one two three", 9, "one two…"),
    ],
)
def test_long_text_is_cut_after_sentence_or_word(text, limit, short):
    """With its ellipsis the result is within the limit (CP21)."""
    assert cut(text, limit) == short
    assert len(short) <= limit
