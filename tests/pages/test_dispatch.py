"""The dispatch page in a real browser, against a real node: from a county's record to a call, and to its end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json
from end_to_end.kit.desk import row, write_feed
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, calling_node
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
    """A node that takes calls."""
    with calling_node(tmp_path_factory.mktemp("dispatch"), Keys(["cpr"])) as started:
        yield started


@pytest.fixture
def opens(node: Node, serve: Callable[..., Served], show: Callable[..., Shown]) -> Callable[..., Shown]:
    """`opens(feed, …)`: the page of a feed, signed in."""

    def opening(feed: Path, *options: str, **context: object) -> Shown:
        token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
        api = f"http://127.0.0.1:{node.api_port}"
        served = serve("dispatch", str(feed), "--port", "0", "--api", api, *options, GEOCAST_DISPATCH_TOKEN=token)
        return show(served.url("dispatch-1"), **context)

    return opening


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """A cardiac arrest of a minute ago, a test, a record without a place, and one that wants to be code."""
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
    """Press the record that says this."""
    shown.has(RECORDS, text)
    shown.page.locator(f"{RECORDS} button", has_text=text).click()


def call_responders(shown: Shown, kind: str = "a public place") -> None:
    """Say what kind of place it is, and send the form."""
    shown.page.get_by_label(kind).check()
    shown.page.get_by_role("button", name="Call responders").click()


def calls_of(node: Node) -> list[Json]:
    """The open calls, by the node itself."""
    headers = bearer(node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE))
    return node.api.get("/v1/calls", headers=headers).json()["calls"]


def ids_of(node: Node) -> set[str]:
    """The ids of the open calls."""
    return {state["call"]["id"] for state in calls_of(node)}


def test_a_countys_cardiac_arrest_becomes_a_call_and_the_one_without_a_location_does_not(node, opens):
    """RZ2: real records; and of the call the node gives no place back."""
    shown = opens(dispatch("montgomery_pa_911.csv"))
    choose(shown, "NO LOCATION")
    shown.has("#problem", "no location")
    assert not shown.page.locator("#form").is_visible()
    choose(shown, "BARTMAN")
    call_responders(shown)
    shown.has(COUNTS, "0 called")  # within 100 m at first, and then further
    shown.has(TITLE, "Cardiac arrest: CPR needed")
    shown.has("#drill", "Exercise")
    state = calls_of(node)[-1]
    assert state["call"]["status"] == "exercise"
    assert "BARTMAN" not in str(state)
    assert "75.6154575" not in str(state)
    wait_until(lambda: shown.page.locator(".mark-patient").count() == 1, "it is on the map")
    shown.picture("dispatch-call")


def test_the_ring_widens_and_who_goes_and_who_is_there_is_on_the_page(node, opens, feed):
    """RZ7: of a responder a pseudonym and the time until they are there; never where they are."""
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
        shown.has(COUNTS, "within 1500 m")  # seats are free, and fewer than enough were called
        shown.has("#announce", "1 going")
        shown.picture("dispatch-going")


def test_nobody_is_called_before_somebody_says_whether_it_is_a_home(node, opens, feed):
    """RY6: it is no guess; the field says so, and has the focus."""
    before = ids_of(node)
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    shown.page.get_by_role("button", name="Call responders").click()
    shown.has("#kind-refusal", "home or a public place")
    assert shown.page.evaluate("document.activeElement.name") == "kind"
    assert ids_of(node) == before
    shown.troubles.clear()  # the refusal's status, on the console


def test_a_call_is_corrected_and_ended_and_then_the_page_has_no_place_of_it(node, opens, feed):
    """RZ4: the address goes from the screen with the call; the reason is asked for."""
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
    assert calls_of(node)[-1]["content"] > 1  # the number of an entry: the ring widens, too
    shown.page.get_by_role("button", name="End the call…").click()
    shown.page.get_by_role("button", name="End it").click()
    shown.has("#state-word", "Ended")
    shown.has_not("#subtitle", "Copper Gate")
    assert "Side door" not in shown.page.evaluate("document.querySelector('.detail').innerText")
    wait_until(lambda: not shown.page.locator(".mark-patient").count(), "it is gone from the map")


def test_a_mark_that_is_dragged_says_another_place(node, opens, feed):
    """And the numbers follow."""
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


def test_a_test_stays_one_and_looks_like_it(node, opens, feed):
    """RU1: the record says so."""
    shown = opens(feed, "--as-recorded", "--status", "actual")
    choose(shown, "Test Street")
    assert shown.page.get_by_label("It is").input_value() == "test"
    call_responders(shown)
    shown.has("#drill", "Test")
    assert calls_of(node)[-1]["call"]["status"] == "test"


def test_what_is_too_old_is_refused_by_the_node_in_words(node, opens, feed):
    """RO2: and markup in a record is text."""
    before = ids_of(node)
    shown = opens(feed, "--as-recorded")
    choose(shown, HOSTILE)
    call_responders(shown)
    wait_until(lambda: shown.text("#problem"), "the refusal")
    assert ids_of(node) == before
    assert shown.page.title() != "owned"
    shown.troubles.clear()  # the refusal's status, on the console


def test_who_comes_back_finds_the_open_call_and_has_to_say_its_place_again(node, opens, feed):
    """Nothing of it is kept on this side but in memory."""
    shown = opens(feed, "--as-recorded")
    choose(shown, "Copper Gate")
    call_responders(shown)
    shown.has(COUNTS, "called")
    other = opens(feed, "--as-recorded")
    other.has(CALLS, "Cardiac arrest: CPR needed")
    other.page.locator(f"{CALLS} button").first.click()
    other.has(COUNTS, "called")
    assert "Copper Gate" not in other.text(".detail")
    other.page.get_by_role("button", name="Correct…").click()
    assert other.page.get_by_label("Latitude").input_value() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_the_rules_of_wcag(opens, feed, scheme):
    """By axe-core, on a wide screen and a narrow one."""
    shown = opens(feed, "--as-recorded", color_scheme=scheme)
    choose(shown, "Copper Gate")
    assert shown.violations() == []
    call_responders(shown)
    shown.has(COUNTS, "called")
    shown.page.set_viewport_size(PHONE)
    assert shown.violations() == []
    shown.picture(f"dispatch-{scheme}", full_page=True)
