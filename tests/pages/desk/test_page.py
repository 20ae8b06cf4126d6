"""Tests of the review desk's page: its list, keyboard, layout and sign-in."""

from pathlib import Path

import pytest
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from pages.conftest import PHONE
from pages.desk.tools import Show, heard, may_approve, opened, was_meant

from client_demo.desk import feeds

# ---- the list of incidents ---------------------------------------------------------------------------------------


def test_incident_list_is_sorted_by_five_minute_intervals_and_then_by_severity(desk: DeskProcess, show: Show) -> None:
    """The newest items come first, and stale ones come last, however severe."""
    shown = show(desk.link("ann"))
    shown.has("#list", "Structure fire")
    made = """import("/desk/list.js").then(({ listed }) => {
        const at = (minute, severity, isStale = false) => ({
            id: `${minute} ${severity}`, state: "waiting", category: "x", occurred_at: minute * 60_000, history: [],
            proposal: { severity }, form: null, stale_at: isStale ? 0 : 1e12 });
        const items = [at(101, "minor"), at(104, "moderate"), at(102, "extreme"), at(99, "extreme"), at(105, "minor"),
            at(103, "moderate"), at(104.5, "extreme", true)];
        return listed(items, "decide", 1e11).map(({ id }) => id);
    })"""
    assert shown.page.evaluate(made) == [
        *("105 minor", "102 extreme", "104 moderate", "103 moderate", "101 minor", "99 extreme", "104.5 extreme"),
    ]


def test_row_omits_a_category_that_only_repeats_the_feeds_words(
    tmp_path: Path, node: Node, show: Show, spot: tuple[float, float]
) -> None:
    """The category is shown only if it differs from the feed's words."""
    rows = [row(nature, nature, spot) for nature in ("Vehicle break-in", "Armed robbery", "Burglary, residence")]
    feed = write_feed(tmp_path / "feed.csv", [*rows, row("WILD", "Wildfire in town", spot)])
    told = tmp_path / "my-city.toml"
    sample = (Path(feeds.__file__).parent / "feed_formats" / "sample.toml").read_text("utf-8")
    told.write_text(f'{sample}"wildfire*" = "fire_structure"\n')
    with DeskProcess(tmp_path, node, feed, "--as-recorded", "--feed-format", str(told)) as process:
        shown = show(process.link("ann"))
        shown.has("#list", "Wildfire in town")
        for nature in ("Vehicle break-in", "Armed robbery", "Burglary, residence"):
            assert shown.page.locator(".item", has_text=nature).locator(".item-category").count() == 0
        assert shown.text(".item:has-text('Wildfire') .item-category") == "Structure fire"
        shown.context.close()  # close the page before the desk


def test_list_says_how_it_is_sorted(desk: DeskProcess, show: Show) -> None:
    """The words depend on the list."""
    shown = show(desk.link("ann"))
    shown.has("#sorted", "Newest first; by severity within 5 minutes.")
    shown.page.keyboard.press("3")
    shown.has("#sorted", "Newest first.")
    shown.has("#list", "Assault")
    shown.page.keyboard.press("2")
    shown.page.locator("#sorted").wait_for(state="hidden")


# ---- keyboard, accessibility and sign-in -------------------------------------------------------------------------


def test_every_action_of_the_desk_page_can_be_done_with_the_keyboard(
    own_desk: DeskProcess, phone: Session, show: Show
) -> None:
    """The test uses only shortcuts after signing in."""
    shown = show(own_desk.link("ann"))
    press = shown.page.keyboard.press
    shown.has("#list", "Structure fire")
    press("?")
    shown.has("#shortcuts", "open the next, previous incident")
    press("Escape")
    press("j")
    shown.has("#title", "Structure fire")
    press("j")
    shown.has("#title", "Arson")
    assert "Arson" in shown.page.evaluate("document.activeElement.textContent")
    press("ArrowUp")
    assert shown.text("#title") == "Arson"
    press("Enter")
    shown.has("#title", "Structure fire")
    press("e")
    press("Control+a")
    shown.page.keyboard.type("Typed, not clicked")
    may_approve(shown)
    press("Control+Enter")
    assert heard(phone, 1)["headline"] == "Typed, not clicked"
    shown.has("#when", "Live")
    press("c")
    shown.page.keyboard.type("That will do")
    press("Enter")
    assert heard(phone, "cancel")["reason"] == "That will do"
    shown.has("#when", "Cancelled")
    press("Escape")
    assert shown.page.locator("#detail").is_hidden()
    press("1")
    press("j")
    shown.has("#title", "Arson")
    press("x")
    shown.has("#when", "Dismissed")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_desk_page_has_no_wcag_violations(desk: DeskProcess, show: Show, theme: str) -> None:
    """axe-core checks the list, an incident with refusals, a locked one, the shortcuts and the sign-in."""
    shown = show(desk.link("ann"), color_scheme=theme)
    shown.has("#list", "Structure fire")
    assert shown.violations() == []
    opened(shown, "Structure fire")
    shown.page.fill("#headline", "Fire at 1200 Elm Street")
    shown.has("#headline-trouble", "reads like")
    assert shown.violations() == []
    shown.page.get_by_role("button", name="Kept back").click()
    opened(shown, "Assault")
    assert shown.violations() == []
    shown.page.click("#help")
    assert shown.violations() == []
    stranger = show(desk.link("ann").partition("#")[0], color_scheme=theme)
    stranger.page.locator("#sign-in").wait_for(state="visible")
    assert stranger.violations() == []
    was_meant(stranger, "401")


def test_wrong_key_is_refused_and_signing_out_closes_the_desk(desk: DeskProcess, show: Show) -> None:
    """The key disappears from the address bar at once."""
    shown = show(desk.link("ann").partition("#")[0])
    shown.page.fill("#key", "guess")
    shown.page.keyboard.press("Enter")
    shown.has("#key-refusal", "This key opens nothing here.")
    was_meant(shown, "401")
    shown.page.fill("#key", desk.link("ben").partition("#key=")[2])
    shown.page.keyboard.press("Enter")
    shown.has("#list", "Structure fire")
    assert "key=" not in shown.page.url
    assert shown.text("#me") == "ben"
    with shown.page.expect_navigation():
        shown.page.get_by_role("button", name="Sign out", exact=True).click()
    shown.page.locator("#sign-in").wait_for(state="visible")
    was_meant(shown, "401")


def test_desk_page_fits_on_a_phone(desk: DeskProcess, show: Show) -> None:
    """Nothing is wider than the screen, and the list and an incident are shown in turn."""
    shown = show(desk.link("ann"), viewport=PHONE)
    shown.has("#list", "Structure fire")
    is_wide = "document.documentElement.scrollWidth > innerWidth"
    assert not shown.page.evaluate(is_wide)
    shown.picture("desk-phone-list")
    opened(shown, "Structure fire")
    may_approve(shown)
    assert not shown.page.evaluate(is_wide)
    assert shown.page.locator("#list").is_hidden()
    shown.picture("desk-phone-incident")
    shown.page.click("#back")
    assert shown.page.locator("#detail").is_hidden()
