"""Tests of polygons drawn on the review desk's map."""

from collections.abc import Callable, Iterator

import pytest
from end_to_end.kit.alerts import ground, place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from pages.conftest import Shown
from pages.desk.tools import Show, heard, may_approve, may_not_approve, opened

RIVERS = """
name = "rivers"
[categories]
fire_structure = { title = "Structure fire", polygons = true, min_radius_m = 50 }
arson = { title = "Arson" }
"""


@pytest.fixture(scope="module")
def rivers(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node where fires may have polygons."""
    home = tmp_path_factory.mktemp("rivers")
    (home / "rivers.toml").write_text(RIVERS)
    with Node(home, keys, "--policy", "rivers.toml") as started:
        yield started


@pytest.fixture(scope="module")
def river_desk(rivers: Node) -> Iterator[DeskProcess]:
    """Return a desk of that node with two fires: one gets published, and other tests leave the second unpublished."""
    rows = [row(number, "Structure fire", ground()) for number in ("ONE", "OTHER")]
    with DeskProcess(rivers.home, rivers, write_feed(rivers.home / "feed.csv", rows), "--as-recorded") as process:
        yield process


@pytest.fixture
def drawing(river_desk: DeskProcess, show: Show) -> Shown:
    """Return the desk's page with a fire open and the polygon shape selected."""
    shown = opened(show(river_desk.link("ann")), "Structure fire")
    shown.page.locator(".handle-centre").hover()  # hover() waits until the map stands still
    shown.page.select_option("#shape", "polygon")
    return shown


def press_map(shown: Shown, *points: tuple[float, float]) -> None:
    """Click on the map at these fractions of its width and height."""
    box = shown.box("#map")
    for x, y in points:
        shown.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def corners(shown: Shown) -> list[str]:
    """Return the corners in the form, one per line."""
    return shown.page.input_value("#corners").splitlines()


QUAD = [(0.25, 0.25), (0.75, 0.3), (0.7, 0.75), (0.3, 0.7)]


def test_polygon_can_be_drawn_dragged_and_published(drawing: Shown, rivers: Node, join: Callable[..., Session]) -> None:
    """The published polygon is the drawn one, and a subscriber inside receives the alert."""
    assert corners(drawing) == []
    press_map(drawing, *QUAD[:2])
    drawing.has("#corners-trouble", "Draw three corners")
    may_not_approve(drawing)
    press_map(drawing, *QUAD[2:])
    assert len(corners(drawing)) == 4
    may_approve(drawing)
    drawing.has("#preview-note", "Published: this polygon of 4 corners")
    before = corners(drawing)
    handle = ".handle-corner >> nth=1"
    drawing.page.locator(handle).hover()
    box = drawing.box(handle)
    drawing.page.mouse.down()
    drawing.page.mouse.move(box["x"] + 40, box["y"] - 10, steps=4)
    drawing.page.mouse.up()
    after = corners(drawing)
    assert [each == other for each, other in zip(before, after, strict=True)] == [True, False, True, True]
    may_approve(drawing)
    drawing.picture("desk-polygon")
    drawn = {tuple(map(float, line.split(", "))) for line in after}
    phone = join(rivers, place((sum(lat for lat, _ in drawn) / 4, sum(lng for _, lng in drawn) / 4)))
    drawing.page.click("#approve")
    [shape] = heard(phone, 1)["area"]
    assert {(lat, lng) for lng, lat in shape["coordinates"][0]} == drawn
    drawing.has("#history", "by ann at")
    assert len(corners(drawing)) == 4  # so the alert can be revised


def test_dragging_a_corner_while_the_map_is_resized_adds_no_corner(drawing: Shown) -> None:
    """During a resize the map forgets where the button was pressed, and mistakes the end of the drag for a click."""
    press_map(drawing, *QUAD)
    may_approve(drawing)
    drawing.page.locator(".handle-corner >> nth=1").hover()
    box = drawing.box(".handle-corner >> nth=1")
    drawing.page.mouse.down()
    drawing.page.mouse.move(box["x"] + 20, box["y"] - 5, steps=2)
    size = drawing.page.viewport_size
    assert size
    height = drawing.box("#map")["height"]
    drawing.page.set_viewport_size({"width": size["width"], "height": size["height"] - 60})
    wait_until(lambda: drawing.box("#map")["height"] != height or None, "the map has its new size")
    drawing.page.mouse.move(box["x"] + 40, box["y"] - 10, steps=2)
    drawing.page.mouse.up()
    assert len(corners(drawing)) == 4


def test_click_without_mouse_press_events_adds_a_corner(drawing: Shown) -> None:
    """Assistive software may send only the click."""
    box = drawing.box("#map")
    for x, y in QUAD[:3]:
        at = {"clientX": box["x"] + x * box["width"], "clientY": box["y"] + y * box["height"], "bubbles": True}
        drawing.page.dispatch_event("#map canvas", "click", at)
    assert len(corners(drawing)) == 3


def test_polygon_can_be_edited_with_the_keyboard(drawing: Shown) -> None:
    """Arrow keys move a corner, Delete removes it, and Enter between two corners adds one."""
    page = drawing.page
    press_map(drawing, *QUAD)
    before = corners(drawing)
    page.focus(".handle-corner >> nth=0")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowLeft")
    moved = corners(drawing)
    assert moved[1:] == before[1:]
    (lat, lng), (was_lat, was_lng) = (tuple(map(float, each[0].split(", "))) for each in (moved, before))
    assert lat > was_lat
    assert lng < was_lng
    page.keyboard.press("Delete")
    assert corners(drawing) == moved[1:]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Corner 1 of 3")
    page.focus(".handle-between >> nth=0")
    page.keyboard.press("Enter")
    assert len(corners(drawing)) == 4
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Corner 2 of 4")
    assert drawing.violations() == []


def test_polygon_can_be_typed_as_a_list_of_corners(drawing: Shown) -> None:
    """Each line is a corner, and the ring may be open or closed. A crossed polygon is refused at its field."""
    points = corners_around(drawing)
    drawing.page.fill("#corners", "\n".join([points[0], points[2], points[1], points[3]]))
    drawing.has("#corners-trouble", "Must not cross or touch itself")
    assert drawing.page.get_attribute("#corners", "aria-invalid") == "true"
    may_not_approve(drawing)
    drawing.page.fill("#corners", "\n".join([*points, points[0]]))
    drawing.has("#preview-note", "of 4 corners")
    may_approve(drawing)


def corners_around(shown: Shown) -> list[str]:
    """Return four corners around the place of the record."""
    lat, lng = (float(shown.page.input_value(f"#{name}")) for name in ("lat", "lng"))
    return [f"{lat + y:.4f}, {lng + x:.4f}" for x, y in ((-0.01, -0.01), (0.01, -0.01), (0.01, 0.01), (-0.01, 0.01))]


def test_category_that_allows_no_polygons_is_refused_for_a_polygon(drawing: Shown) -> None:
    """The category is changed after drawing; the node refuses it, and a circle can be chosen again."""
    press_map(drawing, *QUAD)
    drawing.page.select_option("#category", "arson")
    drawing.has("#corners-trouble", "This category takes circles only")
    drawing.page.select_option("#shape", "circle")
    may_approve(drawing)
    assert drawing.page.locator("#shape-row").is_hidden()
    assert drawing.page.locator("#corners-row").is_hidden()


def test_polygons_are_not_offered_if_no_category_allows_them(desk: DeskProcess, show: Show) -> None:
    """The built-in policy allows circles only."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    assert shown.page.locator("#shape-row").is_hidden()
