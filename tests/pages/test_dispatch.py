"""Tests of the dispatch page in a real browser with a real node: from a county's record to a call and its end."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.desk import row, write_feed
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, Dispatcher, call, calling_node
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.responder import Responder, here, north_of
from end_to_end.kit.times import wait_until
from pages.conftest import PHONE, Served, Shown
from support.real_data import dispatch

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
RECORDS, CALLS, TITLE, COUNTS = "#records", "#calls", "#title", "#counts"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node that accepts calls."""
    with calling_node(tmp_path_factory.mktemp("dispatch"), Keys(["cpr"])) as started:
        yield started


@pytest.fixture
def opens(node: Node, serve: Callable[..., Served], show: Callable[..., Shown]) -> Callable[..., Shown]:
    """Return `opens(feed, …)`, which opens the page of a feed, signed in."""

    def opening(feed: Path, *options: str, **context: object) -> Shown:
        token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
        api = f"http://127.0.0.1:{node.api_port}"
        served = serve("dispatch", str(feed), "--port", "0", "--api", api, *options, GEOCAST_DISPATCH_TOKEN=token)
        return show(served.url("dispatch-1"), **context)

    return opening


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """Return a feed: a recent cardiac arrest, a test, a record without a place, one with markup, and a fire."""
    spot = (32.8, -96.8)
    return write_feed(
        tmp_path / "feed.csv",
        [
            row("A", "Cardiac arrest", spot, address="Copper Gate 4"),
            row("B", "TEST", spot, 90, address="Test Street"),
            row("C", "Cardiac arrest", None, 120, address="Nowhere Lane"),
            row("D", "Cardiac arrest", spot, 7200, address=HOSTILE),
            row("E", "Structure fire", spot, 200),
        ],
    )


def choose(shown: Shown, text: str) -> None:
    """Select the record with this text."""
    shown.has(RECORDS, text)
    shown.page.locator(f"{RECORDS} button", has_text=text).click()


def call_responders(shown: Shown, kind: str = "a public place") -> None:
    """Choose the kind of place and send the form."""
    shown.page.get_by_label(kind).check()
    shown.page.get_by_role("button", name="Call responders").click()


def calls_of(node: Node) -> list[Json]:
    """Return the open calls according to the node."""
    headers = bearer(node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE))
    return node.api.get("/v1/calls", headers=headers).json()["calls"]


def ids_of(node: Node) -> set[str]:
    """Return the ids of the open calls."""
    return {state["call"]["id"] for state in calls_of(node)}


def test_real_cardiac_arrest_record_becomes_a_call_unless_it_has_no_location(node, opens):
    """The records are real, and the node does not return the place (rule RZ2)."""
    shown = opens(dispatch("montgomery_pa_911.csv"))
    choose(shown, "NO LOCATION")
    shown.has("#problem", "no location")
    assert not shown.page.locator("#form").is_visible()
    choose(shown, "BARTMAN")
    call_responders(shown)
    shown.has(COUNTS, "0 called")  # the search starts within 100 m and then widens
    shown.has(TITLE, "Cardiac arrest: CPR needed")
    shown.has("#drill", "Exercise")
    state = calls_of(node)[-1]
    assert state["call"]["status"] == "exercise"
    assert "BARTMAN" not in str(state)
    assert "75.6154575" not in str(state)
    wait_until(lambda: shown.page.locator(".mark-patient").count() == 1, "it is on the map")
    shown.picture("dispatch-call")


def test_dispatch_page_shows_the_search_radius_and_the_responders_who_go(node, opens, feed):
    """A responder is shown by a pseudonym and arrival time, never by place (rule RZ7)."""
    shown = opens(feed, "--as-recorded", "--status", "actual")
    spot = (32.8, -96.8)
    with Responder(node, "r-51c0", here(north_of(spot, 600))) as phone:
        choose(shown, "Copper Gate")
        call_responders(shown)
        rung = phone.take("call")
        shown.has(COUNTS, "1 called")
        phone.say("accept", id=rung["call"]["id"], eta_s=240)
        phone.take("task")
        shown.has("#seats", "r-51c0")
        shown.has("#seats", "is going, in")
        phone.say("report", id=rung["call"]["id"], state="arrived")
        shown.has("#seats", "is there")
        shown.has(COUNTS, "within 1500 m")  # seats are free, and not enough responders were called
        shown.has("#announce", "1 going")
        shown.picture("dispatch-going")


def test_no_call_is_opened_before_the_kind_of_place_is_chosen(node, opens, feed):
    """The kind is not guessed; the field shows the error and gets the focus (rule RY6)."""
    before = ids_of(node)
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    shown.page.get_by_role("button", name="Call responders").click()
    shown.has("#kind-refusal", "home or a public place")
    assert shown.page.evaluate("document.activeElement.name") == "kind"
    assert ids_of(node) == before
    shown.troubles.clear()  # the console shows the status of the refusal


def test_call_is_proposed_as_an_exercise_even_with_the_feeds_own_times(opens, feed):
    """Nobody calls responders for real by accident."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    assert shown.page.get_by_label("It is").input_value() == "exercise"


def test_record_that_became_a_call_is_listed_only_as_a_call(opens, feed):
    """The call names its record, and keeps the address no longer than the call lasts (rule RZ4)."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    call_responders(shown)
    shown.has(COUNTS, "called")
    shown.has(f"{CALLS} [aria-current=true]", "From a record · Copper Gate 4 · ")
    shown.has_not(RECORDS, "Copper Gate")
    shown.has(RECORDS, "Nowhere Lane")
    shown.page.get_by_role("button", name="End the call…").click()
    shown.page.get_by_role("button", name="End it").click()
    shown.has("#ended-count", "ended call")
    shown.has_not(CALLS, "Ended")
    shown.page.locator("#ended-count").click()
    shown.has("#ended-calls", "Ended")
    shown.has_not("#ended-calls", "Copper Gate")
    assert "Copper Gate" not in shown.text("body")


def test_news_leave_the_focus_in_the_list_of_records(node, opens, feed):
    """Somebody who moves through the list with the keyboard is not thrown out of it when a call is opened elsewhere."""
    shown = opens(feed, "--as-recorded")
    shown.has(RECORDS, "Test Street")
    shown.page.locator(f"{RECORDS} button", has_text="Test Street").focus()
    with Dispatcher(node) as other:
        body = call()
        other.post("", body)
        wait_until(lambda: body["id"] in ids_of(node), "it is open")
        shown.until(f"document.querySelector('#calls [data-key=\"{body['id']}\"]')", "the page lists it")
        assert "Test Street" in shown.page.evaluate("document.activeElement.textContent")
        other.post(f"/{body['id']}/end", {"reason": "The test is over."})


def test_map_of_the_dispatch_page_starts_at_the_area_of_the_feed(opens, feed):
    """The scale of a map of the world would be thousands of kilometres."""
    shown = opens(feed, "--as-recorded")
    shown.until("/\\d\\sm$/.test(document.querySelector('.maplibregl-ctrl-scale')?.textContent)", "a scale in metres")


SHOWN_M = """() => {
    const [map, scale] = ["#map", ".maplibregl-ctrl-scale"].map(each => document.querySelector(each));
    const [, number, unit] = scale.textContent.match(/([\\d.]+)\\s*(k?m)/);
    const metres = number * (unit === "km" ? 1000 : 1);
    return metres / scale.offsetWidth * Math.min(map.clientWidth, map.clientHeight);
}"""


def test_map_shows_the_surroundings_of_a_record_after_each_change_of_its_size(opens, feed):
    """500 m on each side of the place are in view, until the dispatcher moves or zooms the map."""
    shown = opens(feed, viewport={"width": 1920, "height": 1080})
    choose(shown, "Copper Gate")
    for width, height in ((1920, 1080), (390, 844), (844, 390)):
        shown.page.set_viewport_size({"width": width, "height": height})
        wait_until(lambda: shown.page.evaluate(SHOWN_M) >= 1000, lambda: f"{shown.page.evaluate(SHOWN_M)} m")
    shown.page.get_by_role("button", name="Zoom in").click()
    wait_until(lambda: shown.page.evaluate(SHOWN_M) < 1000, "the map is zoomed in")
    shown.until("document.querySelector('#map').dataset.idle === 'true'", "the map is at rest")
    shown.page.set_viewport_size({"width": 390, "height": 844})
    wait_until(lambda: shown.page.evaluate("document.querySelector('canvas').clientWidth") == 390, "the map is smaller")
    assert shown.page.evaluate(SHOWN_M) < 1000


def test_map_smaller_than_its_margins_causes_no_warning(opens, feed):
    """A map is small while its page is being laid out."""
    shown = opens(feed)
    choose(shown, "Copper Gate")
    for height in (60, 300):
        shown.page.evaluate(f"document.querySelector('#map').style.height = '{height}px'")
        shown.until(f"document.querySelector('canvas').clientHeight === {height}", "the map has changed")
    wait_until(lambda: shown.page.evaluate(SHOWN_M) >= 1000, "the surroundings are in view")


def test_header_of_the_dispatch_page_is_low_on_a_phone(opens, feed):
    """The name of the feed takes one line."""
    shown = opens(feed, viewport={"width": 390, "height": 844})
    shown.has(RECORDS, "Copper Gate")
    assert shown.box("#feed")["height"] < 24
    assert shown.box(".bar")["height"] < 130
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_button_that_calls_responders_is_in_view_when_a_record_is_chosen(opens, feed, width, height):
    """Nobody has to scroll through the form to find it."""
    shown = opens(feed, "--as-recorded", viewport={"width": width, "height": height})
    choose(shown, "Copper Gate")
    shown.until("document.activeElement.id === 'title'", "the record is open")
    box = shown.box("#send")
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= height


def test_no_border_crosses_a_name_of_the_dispatch_form(opens, feed):
    """A browser draws the frame of a group of fields through the middle of the group's name, unless the name floats."""
    shown = opens(feed)
    choose(shown, "Copper Gate")
    shown.page.get_by_role("button", name="Call responders").click()
    shown.has("#kind-refusal", "home or a public place")  # the frame is red now
    assert shown.box("legend")["y"] >= shown.box("fieldset")["y"] + 2
    shown.troubles.clear()  # the console shows the status of the refusal


def test_rows_of_the_dispatch_lists_begin_at_one_line(opens, feed):
    """They are as wide as a tablet, and long and short names begin at the same place."""
    shown = opens(feed, viewport={"width": 768, "height": 1024})
    shown.has(RECORDS, "Copper Gate")
    begins = "[...document.querySelectorAll('#records button > *')].map((part) => part.getBoundingClientRect().left)"
    assert len(set(shown.page.evaluate(begins))) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_zoom_buttons_of_the_dispatch_map_are_easy_to_see(opens, feed, scheme):
    """Their contrast is at least 3 : 1 (WCAG 1.4.11)."""
    shown = opens(feed, color_scheme=scheme)
    shown.box(".maplibregl-ctrl-zoom-in")
    assert shown.contrast(".maplibregl-ctrl-zoom-in") > 3
    assert shown.contrast(".maplibregl-ctrl-zoom-out .maplibregl-ctrl-icon") > 3


def test_phone_number_of_the_dispatcher_is_sent_to_who_goes(node, opens, tmp_path):
    """A refused number is named beside its field (rule RY9)."""
    spot = (33.8, -96.8)  # no other test calls responders here
    feed = write_feed(tmp_path / "feed.csv", [row("A", "Cardiac arrest", spot, address="Tannery Row 9")])
    shown = opens(feed, "--as-recorded", "--status", "actual")
    with Responder(node, "r-77aa", here(north_of(spot, 60))) as phone:
        choose(shown, "Tannery Row")
        shown.page.get_by_label("Your phone number").fill("ask me")
        call_responders(shown)
        shown.has("#callback_phone-refusal", "pattern")
        shown.page.get_by_label("Your phone number").fill("+41 52 555 01 12")
        shown.page.get_by_role("button", name="Call responders").click()
        rung = phone.take("call")
        phone.say("accept", id=rung["call"]["id"])
        assert phone.take("task")["place"]["callback_phone"] == "+41 52 555 01 12"
    shown.troubles.clear()  # the console shows the status of the refusal


def test_form_says_who_is_sent_an_exercise(opens, feed):
    """Responders whose tokens lack `alerts:test` are not called, so a new user would wonder."""
    shown = opens(feed)
    choose(shown, "Copper Gate")
    shown.has("#status-note", "Responders are sent this only if their token has the scope alerts:test.")
    shown.page.get_by_label("It is").select_option("for real")
    assert shown.page.locator("#status-note").inner_text() == ""


def test_address_disappears_from_the_page_when_its_call_ends(node, opens, feed):
    """The address disappears with the call, and a reason is required (rule RZ4)."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    call_responders(shown)
    shown.has(COUNTS, "called")
    shown.has("#subtitle", "Copper Gate 4")
    shown.page.get_by_role("button", name="Correct…").click()
    shown.page.get_by_label("How to get in").fill("Side door")
    shown.page.get_by_label("On the ring").fill("Adult, not breathing")
    shown.page.get_by_role("button", name="Send the correction").click()
    shown.has("#headline", "Adult, not breathing")
    assert calls_of(node)[-1]["content"] > 1  # the number of an entry, which also counts widenings
    shown.page.get_by_role("button", name="End the call…").click()
    shown.page.get_by_role("button", name="End it").click()
    shown.has("#state-word", "Ended")
    shown.has_not("#subtitle", "Copper Gate")
    assert "Side door" not in shown.page.evaluate("document.querySelector('.detail').innerText")
    wait_until(lambda: not shown.page.locator(".mark-patient").count(), "it is gone from the map")


def test_dragging_the_marker_changes_the_place_of_the_call(node, opens, feed):
    """The numbers in the form follow."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    before = shown.page.get_by_label("Latitude").input_value()
    box = shown.box(".mark-patient")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x, y - 60, steps=8)
    shown.page.mouse.up()
    wait_until(
        lambda: float(shown.page.get_by_label("Latitude").input_value()) > float(before), "it lies further north"
    )


def test_record_of_a_test_opens_a_test_call(node, opens, feed):
    """The status comes from the record (rule RU1)."""
    shown = opens(feed, "--as-recorded", "--status", "actual")
    choose(shown, "Test Street")
    assert shown.page.get_by_label("It is").input_value() == "test"
    call_responders(shown)
    shown.has("#drill", "Test")
    assert calls_of(node)[-1]["call"]["status"] == "test"


def test_refusal_of_a_record_that_is_too_old_is_shown_in_words(node, opens, feed):
    """Markup in a record is shown as text (rule RO2)."""
    before = ids_of(node)
    shown = opens(feed, "--as-recorded")
    choose(shown, HOSTILE)
    call_responders(shown)
    wait_until(lambda: shown.text("#problem"), "the refusal")
    assert ids_of(node) == before
    assert shown.page.title() != "owned"
    shown.troubles.clear()  # the console shows the status of the refusal


def test_second_dispatch_page_shows_the_open_call_without_its_place(node, opens, feed):
    """It is chosen by itself. The service keeps the place in memory only, so a correction has to give it again."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    call_responders(shown)
    shown.has(COUNTS, "called")
    other = opens(feed, "--as-recorded")
    other.has(CALLS, "Cardiac arrest: CPR needed")
    other.has(COUNTS, "called")
    assert "Ended" not in other.page.locator(f"{CALLS} button").first.inner_text()
    assert other.page.locator(f"{CALLS} button").first.get_attribute("aria-current") == "true"
    assert re.search(r"20\d\d, \d\d:\d\d", other.page.locator(f"{CALLS} button").first.inner_text())
    assert "Copper Gate" not in other.text(".detail")
    other.page.get_by_role("button", name="Correct…").click()
    assert other.page.get_by_label("Latitude").input_value() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dispatch_page_has_no_wcag_violations(opens, feed, scheme):
    """axe-core checks a wide and a narrow screen."""
    shown = opens(feed, "--as-recorded", color_scheme=scheme)
    choose(shown, "Copper Gate")
    assert shown.violations() == []
    call_responders(shown)
    shown.has(COUNTS, "called")
    shown.page.set_viewport_size(PHONE)
    assert shown.violations() == []
    shown.picture(f"dispatch-{scheme}", full_page=True)
