"""The choice of the text that a subscriber is sent (rule LA3)."""

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
def test_choice_of_wanted_languages_picks_best_text(wanted, offered, chosen):
    """For each wanted tag an equal tag is tried, then a longer one, then one of the same language.

    Otherwise the first text is chosen (rule LA3).
    """
    assert offered[choice(understood(wanted), offered)] == chosen


def test_wanted_languages_are_normalized_in_their_order():
    """So subscribers that want the same languages share one number (rule LA2)."""
    assert understood(["fr-CA", "EN", "FR-ca", "en"]) == ("fr-ca", "en")
    assert understood([]) == ()


def test_first_text_is_chosen_if_alert_has_no_languages():
    """Everybody is sent the same alert if it has no languages (rule LA1)."""
    assert choice(("de", "en"), ()) == 0
