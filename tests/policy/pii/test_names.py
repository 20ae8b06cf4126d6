"""Names of people after titles, ranks and roles (rule P24): which words belong to the name."""

import pytest

from geocast.policy.pii.names import names
from geocast.policy.pii.tokens import fold


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mr Juan Carlos Maria Lopez is here", "Mr Juan Carlos Maria"),  # at most three words
        ("See Mr. A. B. Lopez. Then leave", "Mr. A. B. Lopez"),
        ("Mr Smith. Then leave", "Mr Smith"),  # only an initial has a full stop
        ("Mr J. left", "Mr J."),
        ("Mr X left", "Mr X"),
        ("Dr Smith left", "Dr Smith"),
        ("see Dr. Ana", "Dr. Ana"),
        ("on Main Dr Smith", None),  # Drive
        ("on 5th Dr Smith", None),
        ("on main dr Smith", "dr Smith"),
        ("resident Ana Lopez", "resident Ana Lopez"),
        ("resident Ana", None),  # a role needs two words
        ("Officer Kowalczyk left", "Officer Kowalczyk"),
        ("OFFICER KOWALCZYK", None),  # capitals do not show that this is a name
        ("OFFICER SMITH", "OFFICER SMITH"),
        ("OFFICER JANE", "OFFICER JANE"),
        ("SGT KOWALCZYK", "SGT KOWALCZYK"),
        ("Officer Kowalczyk Talks Here Today", None),
        ("Officer Jane Talks Here Today", "Officer Jane Talks Here"),
        ("Mr Kowalczyk Talks Here Today", "Mr Kowalczyk Talks Here"),
        ("Dr Kowalczyk Talks Here Today", "Dr Kowalczyk Talks Here"),
        ("Mr Monday", None),
        ("Mr Engine", None),
        ("Mr", None),
        ("a Mr smith", None),
    ],
)
def test_name_is_the_capitalised_words_after_a_title(text, found):
    """In a text of capitals or headlines, only common names count, or those after a sure title."""
    tokens = fold(text).tokens
    spans = [text[tokens[first].start : tokens[end - 1].end] for first, end in names(tokens)]
    assert spans == ([] if found is None else [found])
