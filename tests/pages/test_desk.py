"""The review desk in a real browser, against a real node: from a dispatch record to somebody's phone."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from end_to_end.conftest import join, keys  # noqa: F401 (fixtures)
from end_to_end.kit.alerts import ground, place
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from pages.conftest import PHONE, Shown
from playwright.sync_api import Response, Route
from support.real_data import dispatch

from client_demo.desk import feeds

Show = Callable[..., Shown]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>Structure</b> \u202efire"

pytestmark = pytest.mark.skipif(
    not Path(sys.executable).with_name("geocast").exists(), reason="there is no `geocast` command beside this Python"
)


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:  # noqa: F811
    """A node for these tests."""
    with Node(tmp_path_factory.mktemp("node"), keys) as started:
        yield started


@pytest.fixture
def spot() -> tuple[float, float]:
    """A ground of this test's own."""
    return ground()


@pytest.fixture
def desk(node: Node, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:
    """A desk with a fire, a stale one, an arson, an assault, a vehicle on fire, and a record that wants to be code."""
    feed = write_feed(
        tmp_path / "feed.csv",
        [
            row("FIRE", "Structure fire", spot),
            row("FIRE", "Structure fire", spot, 40, unit="Ladder 4"),
            row("OLD", "Commercial fire", spot, 3700),
            row("ARSON", "Arson", spot, 300),
            row("NEVER", "Assault", spot, 400),
            row("CRASH", "Traffic collision", spot, 450),
            row("EVIL", HOSTILE, spot, 500, address="</p><script>document.title='owned'</script>", unit="&amp;"),
        ],
    )
    with DeskProcess(tmp_path, node, feed, "--as-recorded") as process:
        yield process


@pytest.fixture
def phone(node: Node, spot: tuple[float, float], join: Callable[..., Session]) -> Session:  # noqa: F811
    """A subscriber where it happens."""
    return join(node, place(spot))


def opened(shown: Shown, name: str) -> Shown:
    """Open the incident whose row says this, and wait for its preview."""
    shown.page.locator(".item", has_text=name).first.click()
    shown.has("#title", name)
    return shown


def may_approve(shown: Shown) -> None:
    """Wait until the node has said that it would accept this."""
    shown.until("!document.querySelector('#approve').disabled", "the button can be pressed")


def may_not_approve(shown: Shown) -> None:
    """The button can't be pressed, nor is the shortcut of any use."""
    shown.page.keyboard.press("Control+Enter")
    assert shown.page.locator("#approve").is_disabled() or shown.page.locator("#approve").is_hidden()


def heard(phone: Session, revision: int | str) -> dict[str, Any]:
    """The next thing that a subscriber is sent, which must be this."""
    message = phone.take()
    assert message["type"] == ("cancel" if revision == "cancel" else "alert")
    found = message.get("alert", message)
    assert revision in ("cancel", found["revision"])
    return found


def was_meant(shown: Shown, trouble: str) -> None:
    """A trouble that the test made is none; the browser notes it on its console too, sooner or later."""
    wait_until(
        lambda: shown.page.evaluate("1") and any("error:" in each and trouble in each for each in shown.troubles),
        f"{trouble} on the console",
    )
    shown.troubles[:] = [each for each in shown.troubles if trouble not in each]


# ---- the whole way ---------------------------------------------------------------------------------------------


def test_from_a_record_to_a_phone(desk: DeskProcess, node: Node, phone: Session, show: Show) -> None:
    """Read, edit, see what would be published, approve; it arrives, and the counts rise."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    shown.page.fill("#headline", "A warehouse is on fire. Close your windows.")
    shown.page.fill("#radius_m", "700")
    may_approve(shown)
    shown.has("#preview", "A warehouse is on fire.")
    shown.has("#preview-note", "Published: a circle of")
    promised = shown.text("#preview-note")
    shown.picture("desk-preview")
    shown.page.click("#approve")
    alert = heard(phone, 1)
    assert alert["headline"] == "A warehouse is on fire. Close your windows."
    metres = alert["area"][0]["radius_m"]
    assert f"{metres:g} m" in promised or f"{metres / 1000:g} km" in promised
    shown.has("#history", "by ann at")
    shown.has("#sent", "1")
    phone.ack(alert["id"], 1)
    shown.has("#acked", "1")
    assert not shown.page.is_visible("#pushed"), "nothing is said of pushes where there are none"
    with closing(sqlite3.connect(node.log_file)) as db, db:  # as a push process counts
        db.execute("UPDATE delivery SET pushed = 3 WHERE id = ?", (alert["id"],))
    shown.has("#pushed", "3")
    shown.page.fill("#headline", "The fire is out")
    may_approve(shown)
    assert shown.text("#approve") == "Publish revision 2"
    shown.page.click("#approve")
    assert heard(phone, 2)["headline"] == "The fire is out"
    shown.page.click("#cancel")
    shown.page.fill("#reason", "Nothing burns any more")
    shown.page.click("#cancel-now")
    assert heard(phone, "cancel")["reason"] == "Nothing burns any more"
    shown.has("#when", "Cancelled")
    assert shown.page.locator("#cancel").is_hidden()


def test_what_the_feed_tells_is_shown_with_what_is_private_struck(desk: DeskProcess, show: Show) -> None:
    """The reviewer sees it; what is proposed has none of it."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    shown.has("#record", "1 more of the same incident")
    struck = shown.page.locator("#record del").all_inner_texts()
    assert any("1200 Block of Elm St" in text for text in struck)
    assert any("Engine 31" in text for text in struck)
    for field in ("#headline", "#description"):
        assert not any(word in shown.page.input_value(field) for word in ("Elm", "Engine", "1200"))


# ---- the circle ------------------------------------------------------------------------------------------------


def test_the_circle_is_dragged_by_its_edge_and_its_centre(desk: DeskProcess, show: Show) -> None:
    """With the mouse; the numbers follow, and the preview with them."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    page = shown.page

    def drag(handle: str, x: float, y: float) -> None:
        page.locator(handle).hover()  # which waits until the map stands still
        box = shown.box(handle)
        start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(*start)  # where it is by now
        page.mouse.down()
        page.mouse.move(start[0] + x, start[1] + y, steps=4)
        page.mouse.up()

    before = float(page.input_value("#radius_m"))
    drag(".handle-edge", -24, 0)
    assert 100 < float(page.input_value("#radius_m")) < before
    may_approve(shown)  # so the preview of this one does not come in the middle of the next
    lat = float(page.input_value("#lat"))

    def is_of_there(response: Response) -> bool:
        return response.url.endswith("/preview") and float(response.request.post_data_json["form"]["lat"]) > lat

    with page.expect_response(is_of_there) as preview:
        drag(".handle-centre", 0, -60)
    assert float(page.input_value("#lat")) > lat
    assert preview.value.ok
    may_approve(shown)


def test_the_circle_is_moved_with_the_keyboard(desk: DeskProcess, show: Show) -> None:
    """Arrow keys on the handles; Shift goes further."""
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


# ---- polygons --------------------------------------------------------------------------------------------------

RIVERS = """
name = "rivers"
[categories]
fire_structure = { title = "Structure fire", polygons = true, min_radius_m = 50 }
arson = { title = "Arson" }
"""


@pytest.fixture
def rivers(keys: Keys, tmp_path: Path) -> Iterator[Node]:  # noqa: F811
    """A node where fires may have polygons."""
    (tmp_path / "rivers.toml").write_text(RIVERS)
    (tmp_path / "rivers").mkdir()
    with Node(tmp_path / "rivers", keys, "--policy", str(tmp_path / "rivers.toml")) as started:
        yield started


@pytest.fixture
def river_desk(rivers: Node, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:
    """A desk of that node with a fire."""
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with DeskProcess(tmp_path, rivers, feed, "--as-recorded") as process:
        yield process


@pytest.fixture
def drawing(river_desk: DeskProcess, show: Show) -> Shown:
    """That desk with the fire open, and a polygon chosen."""
    shown = opened(show(river_desk.link("ann")), "Structure fire")
    shown.page.locator(".handle-centre").hover()  # which waits until the map stands still
    shown.page.select_option("#shape", "polygon")
    return shown


def press_map(shown: Shown, *points: tuple[float, float]) -> None:
    """Press the map at these shares of its width and height."""
    box = shown.box("#map")
    for x, y in points:
        shown.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def corners(shown: Shown) -> list[str]:
    """The corners in the form, a line each."""
    return shown.page.input_value("#corners").splitlines()


QUAD = [(0.25, 0.25), (0.75, 0.3), (0.7, 0.75), (0.3, 0.7)]


def test_a_polygon_is_drawn_dragged_and_published(
    drawing: Shown,
    rivers: Node,
    join: Callable[..., Session],  # noqa: F811
) -> None:
    """Press by press; what is published is what was drawn, and who is inside hears it."""
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
    assert len(corners(drawing)) == 4  # and can be revised


def test_a_drag_during_which_the_page_is_resized_adds_no_corner(drawing: Shown) -> None:
    """The map then forgets where the button went down, and takes the end of the drag for a press."""
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


def test_a_click_without_a_press_adds_a_corner(drawing: Shown) -> None:
    """What helps people to press may send the click alone."""
    box = drawing.box("#map")
    for x, y in QUAD[:3]:
        at = {"clientX": box["x"] + x * box["width"], "clientY": box["y"] + y * box["height"], "bubbles": True}
        drawing.page.dispatch_event("#map canvas", "click", at)
    assert len(corners(drawing)) == 3


def test_a_polygon_is_edited_with_the_keyboard(drawing: Shown) -> None:
    """Arrow keys move a corner, Delete takes it away, Enter between two adds one."""
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


def test_a_polygon_can_be_written(drawing: Shown) -> None:
    """A line for each corner, closed or not; a crossed one is refused in words, with the field marked."""
    points = corners_around(drawing)
    drawing.page.fill("#corners", "\n".join([points[0], points[2], points[1], points[3]]))
    drawing.has("#corners-trouble", "Must not cross or touch itself")
    assert drawing.page.get_attribute("#corners", "aria-invalid") == "true"
    may_not_approve(drawing)
    drawing.page.fill("#corners", "\n".join([*points, points[0]]))
    drawing.has("#preview-note", "of 4 corners")
    may_approve(drawing)


def corners_around(shown: Shown) -> list[str]:
    """Four corners round the place of the record."""
    lat, lng = (float(shown.page.input_value(f"#{name}")) for name in ("lat", "lng"))
    return [f"{lat + y:.4f}, {lng + x:.4f}" for x, y in ((-0.01, -0.01), (0.01, -0.01), (0.01, 0.01), (-0.01, 0.01))]


def test_a_category_that_takes_no_polygons_says_so(drawing: Shown) -> None:
    """Another category may be chosen after it was drawn: the node refuses it, and a circle can be chosen again."""
    press_map(drawing, *QUAD)
    drawing.page.select_option("#category", "arson")
    drawing.has("#corners-trouble", "This category takes circles only")
    drawing.page.select_option("#shape", "circle")
    may_approve(drawing)
    assert drawing.page.locator("#shape-row").is_hidden()
    assert drawing.page.locator("#corners-row").is_hidden()


def test_where_no_polygon_is_taken_none_is_offered(desk: DeskProcess, show: Show) -> None:
    """The built-in policy has circles alone."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    assert shown.page.locator("#shape-row").is_hidden()


# ---- has it been seen? ---------------------------------------------------------------------------------------------

WIDTHS = [(1280, 800), (1024, 768), (768, 1024), (390, 844)]
IS_SEEN = """(() => {
    const [map, button] = ["map", "approve"].map((id) => document.getElementById(id).getBoundingClientRect());
    const middle = document.elementFromPoint(map.left + map.width / 2, map.top + map.height / 2);
    const isAside = map.left >= button.right || map.right <= button.left;
    const isClear = map.bottom <= button.top || isAside;
    return map.top >= 0 && map.right <= innerWidth && isClear && Boolean(middle.closest("#map"));
})()"""


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_the_circle_stands_before_the_reviewers_eyes_when_it_can_be_approved(
    desk: DeskProcess, show: Show, width: int, height: int
) -> None:
    """At every width, wherever the form has been scrolled to, and after it was changed there."""
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


def test_a_circle_that_nobody_has_seen_cannot_be_approved(desk: DeskProcess, phone: Session, show: Show) -> None:
    """Where the screen is too low for map and form: a button brings it up, and pressing that twice approves nothing."""
    shown = show(desk.link("ann"), viewport={"width": 700, "height": 480})
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


def test_a_circle_that_was_moved_off_the_map_is_brought_back_by_a_number(desk: DeskProcess, show: Show) -> None:
    """Typed, it may be anywhere; it is shown, and can be approved."""
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


# ---- the list ------------------------------------------------------------------------------------------------------


def test_the_newest_come_first_and_of_those_of_the_same_five_minutes_the_most_severe(
    desk: DeskProcess, show: Show
) -> None:
    """What is too old comes last, however severe."""
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


def test_a_row_says_nothing_twice(tmp_path: Path, node: Node, show: Show, spot: tuple[float, float]) -> None:
    """The category stands below the feed's words only where it says something else."""
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
        shown.context.close()  # before the desk does


# ---- streets -------------------------------------------------------------------------------------------------------


def test_streets_come_from_the_one_origin_that_was_named(
    tmp_path: Path, node: Node, show: Show, spot: tuple[float, float], style_url: str
) -> None:
    """The page's policy names it and no other; who made them is said, as text and links."""
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


def test_without_its_streets_the_circle_is_shown_all_the_same(
    tmp_path: Path, node: Node, show: Show, spot: tuple[float, float]
) -> None:
    """A server of tiles that is away stops nobody."""
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with DeskProcess(tmp_path, node, feed, "--as-recorded", "--style", "http://127.0.0.1:9/style.json") as process:
        shown = opened(show(process.link("ann")), "Structure fire")
        shown.has("#credits", "The streets can’t be loaded.")
        may_approve(shown)
        was_meant(shown, "ERR_")
        shown.context.close()


# ---- what can't be approved ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "where", "words"),
    [
        ("#radius_m", "50", "#radius_m-trouble", "The radius must be 100 to 20,000 m for this category."),
        ("#headline", "", "#headline-trouble", "The headline needs 1 to 140 characters"),
        ("#headline", "Fire at 1200 Elm Street", "#headline-trouble", "reads like a street address"),
        ("#description", "3 engines are there", "#description-trouble", "reads like units that were sent"),
        ("#lat", "91", "#place-trouble", "a latitude of -90 to 90"),
        ("#lng", "", "#place-trouble", "Place the circle"),
    ],
)
def test_a_refusal_stands_in_plain_words_beside_its_field(
    desk: DeskProcess, show: Show, field: str, value: str, where: str, words: str
) -> None:
    """And the button can't be pressed until it is mended."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    good = shown.page.input_value(field)
    shown.page.fill(field, value)
    shown.has(where, words)
    assert shown.page.get_attribute(field, "aria-invalid") == "true"
    assert where.removeprefix("#") in (shown.page.get_attribute(field, "aria-describedby") or "")
    may_not_approve(shown)
    shown.page.fill(field, good)
    may_approve(shown)


def test_words_that_only_read_like_an_address_can_be_confirmed(desk: DeskProcess, phone: Session, show: Show) -> None:
    """A person decides; another text has to be confirmed anew."""
    shown = opened(show(desk.link("ann")), "Structure fire")
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


def test_what_the_node_holds_is_marked_and_confirmed_by_name(desk: DeskProcess, phone: Session, show: Show) -> None:
    """Protocol, P24 and A21: each kind by a box that says what is confirmed; another text has to be confirmed anew."""
    shown = opened(show(desk.link("ann")), "Structure fire")
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


def test_what_is_too_old_is_greyed_with_the_reason(desk: DeskProcess, show: Show) -> None:
    """It stands below what can still be published."""
    shown = opened(show(desk.link("ann")), "Commercial fire")
    last = shown.page.locator(".item").last
    assert "item-grey" in (last.get_attribute("class") or "")
    assert "Can’t be published – happened more than an hour ago" in last.inner_text()
    shown.has("#obstacle", "happened more than an hour ago")
    shown.has("#whole-trouble", "more than an hour ago. Alerts are for what is happening now.")
    may_not_approve(shown)


def test_what_is_never_alerted_is_shown_as_such_with_the_reason(desk: DeskProcess, show: Show) -> None:
    """There is no form for it; what is only not on the list waits for a category."""
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


# ---- hostile text ----------------------------------------------------------------------------------------------


def test_markup_in_a_feed_or_an_alert_is_text(desk: DeskProcess, phone: Session, show: Show) -> None:
    """Shown as it is, in list, title, record, form and preview; nothing of it runs."""
    shown = show(desk.link("ann"))
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


# ---- once, and by one ------------------------------------------------------------------------------------------


def test_a_double_click_approves_once(desk: DeskProcess, node: Node, phone: Session, show: Show) -> None:
    """One alert, revision 1."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.dblclick("#approve")
    shown.has("#when", "Live")
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.page.locator("#history li").count() == 1


def test_an_answer_that_is_lost_on_the_way_back_is_no_second_alert(
    desk: DeskProcess, node: Node, phone: Session, show: Show
) -> None:
    """The page learns of it all the same."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    shown.page.route("**/approve", lose, times=1)
    shown.page.click("#approve")
    shown.has("#when", "Live")  # by the event: the answer was lost, and is not missed
    assert node.state(heard(phone, 1)["id"])["alert"]["revision"] == 1
    assert shown.text("#whole-trouble") == ""
    was_meant(shown, "ERR_FAILED")


def test_two_reviewers_see_each_others_decisions(desk: DeskProcess, show: Show) -> None:
    """Without asking; what was decided can't be decided again."""
    ann, ben = (opened(show(desk.link(name)), "Structure fire") for name in ("ann", "ben"))
    may_approve(ben)
    may_approve(ann)
    ann.page.click("#dismiss")
    ben.has("#when", "Dismissed")
    ben.has("#history", "by ann at")
    ben.until("document.querySelector('#announce').textContent.includes('dismissed by ann')", "it is announced")
    assert ben.page.locator("#approve").is_hidden()


def test_who_is_second_is_told_who_was_first(desk: DeskProcess, phone: Session, show: Show) -> None:
    """Ben presses before his page has heard of it: his request is held up until Ann's is through."""
    ann, ben = (opened(show(desk.link(name)), "Structure fire") for name in ("ann", "ben"))
    may_approve(ann)
    may_approve(ben)
    held: list[Route] = []
    ben.page.route("**/approve", lambda route: held.append(route))  # noqa: PLW0108 (playwright marks the handler)
    ben.page.click("#approve")
    wait_until(lambda: ben.page.evaluate("1") and held, "Ben's request is held up")
    ann.page.click("#approve")
    heard(phone, 1)
    held[0].continue_()
    was_meant(ben, "409")
    ben.has("#whole-trouble", "ann was first: approved at")
    ben.has("#when", "Live")


def test_the_page_is_right_again_when_the_service_was_restarted(desk: DeskProcess, phone: Session, show: Show) -> None:
    """By itself, with the decisions of before."""
    shown = opened(show(desk.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.click("#approve")
    heard(phone, 1)
    desk.kill()
    shown.has("#connection", "Connection lost")
    desk.start()
    shown.has("#connection", "Connected again")
    shown.has("#history", "by ann at")
    shown.page.fill("#headline", "After the restart")
    may_approve(shown)
    shown.page.click("#approve")
    assert heard(phone, 2)["headline"] == "After the restart"
    was_meant(shown, "ERR_")


# ---- for everybody ---------------------------------------------------------------------------------------------


def test_everything_can_be_done_with_the_keyboard(desk: DeskProcess, phone: Session, show: Show) -> None:
    """Signed in, the shortcuts alone."""
    shown = show(desk.link("ann"))
    press = shown.page.keyboard.press
    shown.has("#list", "Structure fire")
    press("?")
    shown.has("#shortcuts", "next, previous incident")
    press("Escape")
    press("j")
    press("j")
    assert "Arson" in shown.page.evaluate("document.activeElement.textContent")
    press("k")
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
    press("Enter")
    shown.has("#title", "Arson")
    press("x")
    shown.has("#when", "Dismissed")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible(desk: DeskProcess, show: Show, theme: str) -> None:
    """By axe-core: the list, an incident with refusals, what is locked, the shortcuts, signing in."""
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


def test_a_wrong_key_opens_nothing_and_signing_out_closes_the_desk(desk: DeskProcess, show: Show) -> None:
    """The key leaves the address bar at once."""
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


def test_it_fits_a_phone(desk: DeskProcess, show: Show) -> None:
    """Nothing is wider than the screen; the list and one incident take turns."""
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


# ---- real records ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_desk_at_work_on_real_records(
    tmp_path: Path,
    node: Node,
    show: Show,
    join: Callable[..., Session],  # noqa: F811
    theme: str,
) -> None:
    """San Francisco's fire calls, 60 times as fast: one is live, one is open. Kept as a picture."""
    options = ("--ahead", "80", "--speed", "90", "--status", "actual")
    with DeskProcess(tmp_path, node, dispatch("sf_fire_calls.csv"), *options) as process:
        shown = show(process.link("ann"), color_scheme=theme, viewport={"width": 1440, "height": 900})
        opened(shown, "Structure Fire")
        may_approve(shown)
        where = tuple(float(shown.page.input_value(field)) for field in ("#lat", "#lng"))
        phone = join(node, place(where))
        shown.page.click("#approve")
        phone.ack(heard(phone, 1)["id"], 1)
        shown.has("#acked", "1")
        shown.picture(f"desk-{theme}-live")
        opened(shown, "Structure Fire")
        may_approve(shown)
        shown.picture(f"desk-{theme}-incident")
        shown.context.close()  # before the desk does


# ---- what the node refuses -------------------------------------------------------------------------------------

BRIEF = """
name = "brief"
[categories]
fire_structure = { title = "Structure fire" }
burglary = { title = "Burglary", max_age_s = 300 }
"""


@pytest.fixture
def brief(keys: Keys, tmp_path: Path, spot: tuple[float, float]) -> Iterator[DeskProcess]:  # noqa: F811
    """A desk whose node lets burglaries live for five minutes, and a fire for an hour."""
    (tmp_path / "brief.toml").write_text(BRIEF)
    feed = write_feed(tmp_path / "feed.csv", [row("FIRE", "Structure fire", spot)])
    with (
        Node(tmp_path, keys, "--policy", str(tmp_path / "brief.toml")) as node,
        DeskProcess(tmp_path, node, feed, "--as-recorded") as process,
    ):
        yield process


def test_what_the_node_refuses_stays_in_the_form_with_the_reason(brief: DeskProcess, show: Show) -> None:
    """P6, by ordinary clicks: the refusal stands beside the category before it is sent, after, and after a reload."""
    words = "It was a break-in: lock your doors."
    shown = opened(show(brief.link("ann")), "Structure fire")
    may_approve(shown)
    shown.page.click("#approve")
    shown.has("#approve", "Publish revision 2")
    shown.page.select_option("#category", "burglary")
    shown.page.fill("#headline", words)
    shown.has("#category-trouble", "would end too early")
    may_not_approve(shown)

    # The page of somebody whose preview is older than the refusal: the decision goes out, and comes back refused.
    shown.page.route("**/preview", lambda route: route.fulfill(json={"troubles": [], "area": None, "expires_at": None}))
    shown.page.fill("#headline", words + " ")
    may_approve(shown)
    shown.page.click("#approve")
    was_meant(shown, "422")
    shown.page.unroute("**/preview")
    shown.until("!document.querySelector('#headline').disabled", "the form can be used again")
    shown.has("#category-trouble", "would end too early")
    assert shown.page.input_value("#headline") == words + " "
    assert shown.page.input_value("#category") == "burglary"

    shown.page.reload()
    shown.has("#title", "Structure fire")
    shown.has("#category-trouble", "would end too early")
    assert shown.page.input_value("#headline") == words + " "
    shown.page.select_option("#category", "fire_structure")
    may_approve(shown)
    shown.page.click("#approve")
    shown.has("#approve", "Publish revision 3")
    shown.until(f"document.querySelector('#headline').value === '{words} '", "what was published is in the form")
