"""Base64url (RFC 7515, section 2)."""

import pytest

from geocast.auth.base64url import decoded, decoded_strictly, encoded


@pytest.mark.parametrize("data", [b"", b"f", b"fo", b"foo", bytes(range(248, 256))])
def test_decoders_return_the_encoded_bytes(data):
    """`decoded` accepts padding; `encoded` writes none."""
    text = encoded(data)
    assert "=" not in text
    assert decoded(text) == decoded(text + "=" * (-len(text) % 4)) == decoded_strictly(text) == data


@pytest.mark.parametrize("text", ["a+b", "a/b", "a b", "ä", "A", "=A"])
def test_decoders_refuse_text_that_is_not_base64url(text):
    """Characters of other alphabets are refused, and so are lengths that no bytes can have (WPR4)."""
    for decode in (decoded, decoded_strictly):
        with pytest.raises(ValueError, match=r"."):
            decode(text)


@pytest.mark.parametrize("text", ["Zg==", "Zh"])
def test_strict_decoder_refuses_other_spellings_of_the_same_bytes(text):
    """The strict decoder refuses padding, and unused bits of the last character that are not 0."""
    assert decoded(text) == b"f"
    with pytest.raises(ValueError, match=r"."):
        decoded_strictly(text)
