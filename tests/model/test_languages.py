"""Which text of an alert a subscriber is sent (LA3)."""

import pytest

from geocast.model.languages import choice, understood

CANADA = ("en-CA", "fr-CA")
ALPS = ("it-IT", "de-AT", "de-DE", "de")


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ([], CANADA, "en-CA"),
        (["fr-CA"], CANADA, "fr-CA"),
        (["FR-ca"], CANADA, "fr-CA"),
        (["fr"], CANADA, "fr-CA"),
        (["fr-FR"], CANADA, "fr-CA"),
        (["es", "pt-BR"], CANADA, "en-CA"),
        (["es", "fr-FR", "en-CA"], CANADA, "fr-CA"),
        (["de"], ALPS, "de"),
        (["de-AT"], ALPS, "de-AT"),
        (["de-CH"], ALPS, "de-AT"),
        (["de"], ALPS[:3], "de-AT"),
        (["de-DE", "it"], ALPS, "de-DE"),
        (["zh-Hant"], ("zh-Hans-CN", "zh-Hant-TW", "zh-Hant-HK"), "zh-Hant-TW"),
        (["zh-Ha"], ("zh-Hans-CN", "zh-Hant-TW"), "zh-Hans-CN"),
        (["zh-Hant-MO"], ("en", "zh-Hans-CN", "zh-Hant-TW"), "zh-Hans-CN"),
        (["de"], ("den-CA", "en"), "den-CA"),
        (["de", "en"], ("den-CA", "en"), "en"),
        (["en"], ("iu", "EN-ca"), "EN-ca"),
    ],
    ids=str,
)
def test_a_subscriber_is_sent_the_text_that_fits_its_wishes_best(wanted, offered, chosen):
    """LA3: tag by tag: the same, one that it begins, one of its language; the issuer's first of those, or of all."""
    assert offered[choice(understood(wanted), offered)] == chosen


def test_wishes_are_kept_in_one_spelling_and_in_their_order():
    """LA2: so that those who want the same share a number."""
    assert understood(["fr-CA", "EN", "FR-ca", "en"]) == ("fr-ca", "en")
    assert understood([]) == ()


def test_an_alert_without_languages_is_the_same_for_everybody():
    """LA1."""
    assert choice(("de", "en"), ()) == 0
