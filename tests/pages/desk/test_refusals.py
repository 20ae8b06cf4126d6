"""Tests of refusals on the review desk's page, and of text with markup."""

from end_to_end.kit.desk import DeskProcess
from end_to_end.kit.subscriber import Session
from pages.desk.tools import HOSTILE, Show, heard, may_approve, may_not_approve, opened

# ---- refused forms -----------------------------------------------------------------------------------------------


REFUSED = [
    ("#radius_m", "50", "#radius_m-trouble", "The radius must be 100 to 20,000 m for this category."),
    ("#headline", "", "#headline-trouble", "The headline needs 1 to 140 characters"),
    ("#headline", "Fire at 1200 Elm Street", "#headline-trouble", "reads like a street address"),
    ("#description", "3 engines are there", "#description-trouble", "reads like units that were sent"),
    ("#lat", "91", "#place-trouble", "a latitude of -90 to 90"),
    ("#lng", "", "#place-trouble", "Place the circle"),
]


def test_refusal_is_shown_beside_its_field_until_the_field_is_corrected(desk: DeskProcess, show: Show) -> None:
    """The button is disabled meanwhile."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    for field, value, where, words in REFUSED:
        good = shown.page.input_value(field)
        shown.page.fill(field, value)
        shown.has(where, words)
        assert shown.page.get_attribute(field, "aria-invalid") == "true"
        assert where.removeprefix("#") in (shown.page.get_attribute(field, "aria-describedby") or "")
        may_not_approve(shown)
        shown.page.fill(field, good)
        may_approve(shown)


def test_ctrl_enter_says_why_nothing_is_approved(desk: DeskProcess, show: Show) -> None:
    """The field with the mistake has the focus then."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.fill("#radius_m", "50")
    shown.has("#radius_m-trouble", "The radius must be 100 to 20,000 m")
    shown.page.keyboard.press("Control+Enter")
    shown.has("#waits", "Not approved: The radius must be 100 to 20,000 m")
    assert shown.page.evaluate("document.activeElement.id") == "radius_m"


def test_text_that_reads_like_an_address_can_be_confirmed(own_desk: DeskProcess, phone: Session, show: Show) -> None:
    """A changed text has to be confirmed again."""
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    shown.page.fill("#headline", "2 men ran down Elm Street")
    shown.has("#headline-trouble", "reads like an address")
    shown.page.check("#confirmed")
    may_approve(shown)
    shown.page.fill("#headline", "3 men ran down Elm Street")
    shown.has("#headline-trouble", "reads like an address")
    shown.page.check("#confirmed")
    may_approve(shown)
    shown.page.click("#approve")
    assert heard(phone, 1)["headline"] == "3 men ran down Elm Street"


def test_revealing_text_is_marked_and_each_part_has_to_be_confirmed(
    own_desk: DeskProcess, phone: Session, show: Show
) -> None:
    """Each kind has a box that names the part.

    A changed text has to be confirmed again (protocol, rules P24 and A21).
    """
    shown = opened(show(own_desk.link("ann")), "Structure fire")
    shown.page.fill("#headline", "Fire at 1204 Main Street. Ask Mr Smith.")
    shown.has("#headline-trouble", "reads like a street address")
    shown.page.wait_for_function("document.querySelectorAll('#held-text input').length === 2")
    assert shown.page.locator("#headline-trouble mark").all_inner_texts() == ["1204 Main Street", "Mr Smith"]
    shown.page.get_by_label("“1204 Main Street”").check()
    may_not_approve(shown)
    shown.page.get_by_label("“Mr Smith”").check()
    may_approve(shown)
    shown.page.fill("#headline", "Fire at 1206 Main Street.")
    shown.has("#headline-trouble", "reads like a street address")
    may_not_approve(shown)
    shown.page.get_by_label("“1206 Main Street”").check()
    may_approve(shown)
    shown.page.click("#approve")
    assert heard(phone, 1)["headline"] == "Fire at 1206 Main Street."


def test_confirmation_stands_beside_its_checkbox(desk: DeskProcess, show: Show) -> None:
    """Its words begin right after the box, not at the far side of the form."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    shown.page.fill("#headline", "Fire at 1206 Main Street.")
    shown.has("#held-text", "may be told, or is no street address")
    box, words = shown.box("#held-text input"), shown.box("#held-text span")
    assert 0 < words["x"] - (box["x"] + box["width"]) < 20


def test_incident_too_old_to_publish_is_grey_and_shows_the_reason(desk: DeskProcess, show: Show) -> None:
    """Stale incidents come after those that can still be published."""
    shown = opened(show(desk.link("ann")), "Commercial fire")
    last = shown.page.locator(".item").last
    assert "item-grey" in (last.get_attribute("class") or "")
    assert "Can’t be published – happened more than an hour ago" in last.inner_text()
    shown.has("#obstacle", "happened more than an hour ago")
    shown.has("#whole-trouble", "more than an hour ago. Alerts are for what is happening now.")
    may_not_approve(shown)


def test_incident_of_a_category_that_is_never_alerted_shows_the_reason(desk: DeskProcess, show: Show) -> None:
    """An incident that is never alerted has no form; one that is only not listed needs a category."""
    shown = show(desk.link("ann"))
    shown.page.get_by_role("button", name="Kept back").click()
    opened(shown, "Assault")
    shown.has("#obstacle", "Not for an alert – never alerted: Assault")
    assert shown.page.locator("#form").is_hidden()
    may_not_approve(shown)
    opened(shown, "Traffic collision")
    shown.has("#obstacle", "not on the policy's list: traffic")
    shown.has("#category-trouble", "Choose a category.")
    may_not_approve(shown)
    shown.page.select_option("#category", "fire_structure")
    assert shown.page.input_value("#headline").startswith("Building on fire")
    may_approve(shown)


# ---- untrusted text ----------------------------------------------------------------------------------------------


def test_markup_in_a_feed_or_an_alert_is_shown_as_text(own_desk: DeskProcess, phone: Session, show: Show) -> None:
    """The list, the title, the record, the form and the preview show it as text."""
    shown = show(own_desk.link("ann"))
    shown.page.get_by_role("button", name="Kept back").click()
    opened(shown, "<img src=x")
    assert "onerror" in shown.text("#title")
    assert "<script>" in shown.text("#record")
    shown.page.select_option("#category", "arson")
    shown.page.fill("#headline", HOSTILE)
    may_approve(shown)
    assert "<img src=x" in shown.text("#preview")
    shown.page.click("#approve")
    assert heard(phone, 1)["headline"] == HOSTILE
    shown.page.get_by_role("button", name="Live").click()
    shown.has("#list", "<img src=x")
    assert shown.page.evaluate("document.querySelectorAll('#desk img, #desk script, #desk b').length") == 0
    assert shown.page.title().endswith("Review desk – geocast")
