"""Folding of texts to plain characters, and their tokens (rules TX1 and HD13)."""

import pytest

from geocast.policy.pii.tokens import END, Token, fold


@pytest.mark.parametrize(
    ("text", "folded", "origin"),
    [
        ("a\nb", "a b", [0, 1, 2]),
        ("é\nb", "é b", [0, 1, 2]),
        ("１２—x", "12-x", [0, 1, 2, 3]),
        ("y\u200bz\ufe0f!", "yz!", [0, 2, 4]),
        ("ﬃ x", "ffi x", [0, 0, 0, 1, 2]),
        ("ﷺ x", "ﷺ x", [0, 1, 2]),  # it would be eighteen characters
        ("⑩㊿", "1050", [0, 0, 1, 1]),
        ("½௱", "1⁄2௱", [0, 0, 0, 1]),  # neither a digit nor a whole number below 100
        ("e\u0301x", "éx", [0, 2]),
        ("a\u0337x\u20e3", "ax", [0, 2]),  # marks on ASCII characters are dropped
        ("д\u0337", "д\u0337", [0, 1]),
        ("\u0301é", "\u0301é", [0, 1]),  # a mark at the start is on no character
    ],
)
def test_folded_text_is_plain_and_knows_the_origin_of_each_character(text, folded, origin):
    """One character may become several, or none."""
    found = fold(text)
    assert (found.folded, list(found.origin)) == (folded, origin)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("12B", [Token("12B", "12b", 0, 3, 2, "b", False, False)]),
        ("5TH", [Token("5TH", "5th", 0, 3, 1, "th", True, False)]),
        (
            "123abcd",
            [Token("123", "123", 0, 3, 3, "", False, False), Token("abcd", "abcd", 3, 7, 0, "", False, False)],
        ),
        ("Blöck's", [Token("Blöck's", "block's", 0, 7, 0, "", False, True)]),
        ("Ǟa", [Token("Ǟa", "aa", 0, 2, 0, "", False, True)]),  # two accents on one letter
        ("Йод", [Token("Йод", "йод".replace("й", "и\u0306"), 0, 3, 0, "", False, True)]),
        (
            "a_ ,",
            [Token("a", "a", 0, 1, 0, "", False, False), Token(",", ",", 3, 4, 0, "", False, False)],
        ),
    ],
)
def test_text_is_split_into_numbers_words_and_signs(text, tokens):
    """Up to three letters belong to a number. Accents are only dropped from Latin letters."""
    assert list(fold(text).tokens) == tokens


def test_token_is_a_word_a_number_or_an_ordinal():
    """A sign and an ordinal are neither a word nor a number."""
    tokens = fold("Elm 12 5th &").tokens
    assert [token.word for token in tokens] == [True, False, False, False]
    assert [token.number for token in tokens] == [False, True, False, False]


def test_token_after_the_last_one_is_the_end():
    """The end is neither a word nor a number."""
    tokens = fold("Elm Street").tokens
    assert [tokens.at(place).text for place in (0, 1)] == ["Elm", "Street"]
    assert tokens.at(2) is tokens.at(3) is END
    assert (END.word, END.number, END.capital) == (False, False, False)


@pytest.mark.parametrize(
    ("text", "titled"),
    [
        ("Suspect Vehicle Located Downtown", True),
        ("Suspect Vehicle Located", False),  # too few words
        ("Suspect in the Big Vehicle is Located at the Park", True),
        ("Suspect Vehicle Located Near park", False),
        ("Big Red Car Near Elm Was Old", False),
    ],
)
def test_text_is_titled_if_its_words_of_four_letters_or_more_begin_with_capitals(text, titled):
    """There must be at least four of them."""
    assert fold(text).tokens.is_titled is titled
