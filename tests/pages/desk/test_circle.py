"""Tests of the circle on the review desk's map, which the reviewer must have seen, and of the streets below."""

from pathlib import Path

import pytest
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from pages.conftest import only_chromium
from pages.desk.tools import Show, heard, may_approve, may_not_approve, opened, was_meant
from playwright.sync_api import Response

# ---- moving and resizing the circle ------------------------------------------------------------------------------


@only_chromium("Playwright sees no bodies of requests over BiDi")
def test_circle_can_be_dragged_by_its_edge_and_by_its_centre(desk: DeskProcess, show: Show) -> None:
    """The numbers and the preview follow the mouse."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    page = shown.page

    def drag(handle: str, x: float, y: float) -> None:
        page.locator(handle).hover()  # hover() waits until the map stands still
        box = shown.box(handle)
        start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*start)  # the handle's present position
        page.mouse.down()
        page.mouse.move(start[0] + x, start[1] + y, steps=4)
        page.mouse.up()

    before = float(page.input_value("#radius_m"))
    drag(".handle-edge", -24, 0)
    assert 100 < float(page.input_value("#radius_m")) < before
    may_approve(shown)  # wait, so that this preview does not arrive during the next drag
    lat = float(page.input_value("#lat"))

    def is_of_there(response: Response) -> bool:
        return response.url.endswith("/preview") and float(response.request.post_data_json["form"]["lat"]) > lat

    with page.expect_response(is_of_there) as preview:
        drag(".handle-centre", 0, -60)
    assert float(page.input_value("#lat")) > lat
    assert preview.value.ok
    may_approve(shown)


def test_circle_can_be_moved_with_the_keyboard(desk: DeskProcess, show: Show) -> None:
    """Arrow keys move the handles; with Shift they go further."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    page = shown.page
    page.focus(".handle-edge")
    before = float(page.input_value("#radius_m"))
    page.keyboard.press("ArrowRight")
    assert float(page.input_value("#radius_m")) > before
    page.keyboard.press("Shift+ArrowLeft")
    assert float(page.input_value("#radius_m")) < before
    page.focus(".handle-centre")
    lng = float(page.input_value("#lng"))
    page.keyboard.press("ArrowRight")
    assert float(page.input_value("#lng")) > lng


# ---- visibility before approval ----------------------------------------------------------------------------------


WIDTHS = [(1280, 800), (1024, 768), (768, 1024), (390, 844)]
IS_SEEN = """(() => {
    const [map, button] = ["map", "approve"].map((id) => document.getElementById(id).getBoundingClientRect());
    const middle = document.elementFromPoint(map.left + map.width / 2, map.top + map.height / 2);
    const isAside = map.left >= button.right || map.right <= button.left;
    const isClear = map.bottom <= button.top || isAside;
    return map.top >= 0 && map.right <= innerWidth && isClear && Boolean(middle.closest("#map"));
})()"""


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_circle_is_visible_on_the_map_whenever_it_can_be_approved(
    desk: DeskProcess, show: Show, width: int, height: int
) -> None:
    """The map is visible at every width, after scrolling the form, and after changing the form there."""
    shown = opened(show(desk.link("ann"), viewport={"width": width, "height": height}), "Structure fire")
    may_approve(shown)
    assert shown.page.evaluate(IS_SEEN)
    shown.page.locator("#lng").scroll_into_view_if_needed()
    shown.page.fill("#radius_m", "1500")
    shown.page.evaluate("document.getElementById('detail-body').scrollTo(0, 1e6)")
    may_approve(shown)
    assert shown.page.evaluate(IS_SEEN)
    assert not shown.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    shown.picture(f"desk-{width}")


def test_circle_that_is_out_of_sight_cannot_be_approved(own_desk: DeskProcess, phone: Session, show: Show) -> None:
    """On a low screen the map may be out of sight.

    A button shows the map, and pressing the button twice approves nothing.
    """
    shown = show(own_desk.link("ann"), viewport={"width": 700, "height": 480})
    shown.has("#list", "Structure fire")
    opened(shown, "Structure fire")
    shown.page.locator("#lat").scroll_into_view_if_needed()
    shown.page.fill("#radius_m", "1500")
    shown.page.evaluate("document.getElementById('detail-body').scrollTo(0, 1e6)")
    shown.has("#unseen", "You have not seen the area")
    may_not_approve(shown)
    shown.page.evaluate("document.getElementById('detail-body').scrollTo(0, 1e6)")
    shown.page.fill("#radius_m", "1600")
    shown.page.evaluate("document.getElementById('detail-body').scrollTo(0, 1e6)")
    shown.has("#unseen", "You have not seen the area")
    assert shown.violations() == []
    shown.page.dblclick("#look")
    assert shown.page.evaluate(IS_SEEN)
    may_approve(shown)
    assert shown.text("#unseen") == ""
    assert "Live" not in shown.text("#when")
    shown.page.click("#approve")
    assert heard(phone, 1)["area"][0]["radius_m"] >= 1600


def test_map_moves_to_a_circle_whose_coordinates_are_typed(desk: DeskProcess, show: Show) -> None:
    """The map follows the numbers, and the circle can be approved."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    before = shown.box(".handle-centre")
    shown.page.fill("#lat", "10")
    shown.page.fill("#lng", "20")
    may_approve(shown)
    assert shown.page.evaluate(IS_SEEN)
    after = shown.box(".handle-centre")
    assert abs(after["x"] - before["x"]) < 100
    assert abs(after["y"] - before["y"]) < 100


# ---- the street map ----------------------------------------------------------------------------------------------


def test_street_map_is_loaded_only_from_the_configured_origin(
    tmp_path: Path, node: Node, show: Show, spot: tuple[float, float], style_url: str
) -> None:
    """The page's policy names no other origin, and the attribution is shown as text and links."""
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with DeskProcess(tmp_path, node, feed, "--as-recorded", "--style", style_url) as process:
        shown = opened(show(process.link("ann")), "Structure fire")
        may_approve(shown)
        shown.has("#credits", "© Mappers")
        assert shown.page.get_attribute("#credits a", "href") == "https://maps.example/c"
        assert shown.answer
        origin = style_url.removesuffix("/style.json")
        policy = shown.answer.headers["content-security-policy"]
        assert f"connect-src 'self' {origin};" in policy
        assert f"img-src 'self' data: blob: {origin};" in policy
        assert shown.violations() == []
        shown.context.close()


def test_circle_is_shown_without_a_street_map(
    tmp_path: Path, node: Node, show: Show, spot: tuple[float, float]
) -> None:
    """An unavailable tile server does not prevent an approval."""
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with DeskProcess(tmp_path, node, feed, "--as-recorded", "--style", "http://127.0.0.1:9/style.json") as process:
        shown = opened(show(process.link("ann")), "Structure fire")
        shown.has("#credits", "The streets can’t be loaded.")
        may_approve(shown)
        was_meant(shown, "ERR_")
        shown.context.close()
