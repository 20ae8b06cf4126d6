"""Tests of the responder's page in a real browser with a phone's screen, against a real node."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from end_to_end.kit.alerts import Json, new_id
from end_to_end.kit.dispatcher import PLACE, Dispatcher, call, calling_node
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.responder import A_DAY_S, Responder, here
from end_to_end.kit.times import wait_until
from pages.conftest import PHONE, Served, Shown
from support.ports import free_ports

HOME = (47.6765, 8.8280)  # 270 m from the centre of the call's circle
HALL = (47.6772, 8.8300)
DUTY, CALLS, QUIET, STATUS = "#duty", "#calls", "#quiet", "#status"
OF_THE_PLACE = ("Dorfstrasse", "4711", "3rd floor", "47.678008", "8.831112", "2580")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node that accepts calls, knows a defibrillator, and allows the page's origin."""
    (port,) = free_ports(1)
    home = tmp_path_factory.mktemp("pager")
    tags = {"emergency": "defibrillator", "access": "yes", "opening_hours": "24/7"}
    tags |= {"defibrillator:location": "Mehrzweckhalle", "defibrillator:code": "2580"}
    point = {"type": "Point", "coordinates": [HALL[1], HALL[0]]}
    hall = {"type": "Feature", "id": "node/1", "geometry": point, "properties": tags}
    (home / "aeds.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [hall]}))
    options = ("--origins", f"http://127.0.0.1:{port}", "--aeds", "aeds.geojson")
    with calling_node(home, Keys(["cpr", "medic"]), *options) as started:
        started.page_port = port  # type: ignore[attr-defined]
        yield started


@pytest.fixture(scope="module")
def url(node: Node, serve: Callable[..., Served]) -> str:
    """Return the address of the page for that node."""
    options = ("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.page_port))  # type: ignore[attr-defined]
    return serve("pager", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", *options).url("pager")


@pytest.fixture
def phone(node: Node, url: str, show: Callable[..., Shown]) -> Callable[..., Shown]:
    """Return `phone(token)`, which opens the page on a phone's screen and waits until it is connected."""

    def showing(token: str, **context: object) -> Shown:
        shown = show(f"{url}/#token={token}", viewport=PHONE, **context)
        shown.has(STATUS, "Connected")
        return shown

    return showing


@pytest.fixture
def dispatcher(node: Node) -> Iterator[Dispatcher]:
    """Return a dispatcher whose open calls are ended with the test."""
    with Dispatcher(node) as calling:
        yield calling
        for state in calling.api.get("/v1/calls").json()["calls"]:
            calling.post(f"/{state['call']['id']}/end", {"reason": "The test is over."})


def medic(node: Node, *, may_test: bool = False) -> str:
    """Return the token of a new medic; each test needs a new one, because a responder rests after a call."""
    now = int(time.time())
    scope = f"{PHONE_SCOPE} alerts:test" if may_test else PHONE_SCOPE
    return node.keys.token(sub=new_id("r"), scope=scope, iat=now, exp=now + A_DAY_S, quals=["medic"])


def on_duty(shown: Shown) -> Shown:
    """Go on duty and wait until the node knows."""
    shown.page.locator(DUTY).click()
    shown.has("#duty-text", "as medic")
    return shown


def traces(shown: Shown) -> list[str]:
    """Return the parts of the place that are in the page, its title or its storage."""
    said = shown.page.evaluate(
        "document.documentElement.outerHTML + document.title + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    return [each for each in OF_THE_PLACE if each in said]


def seats(dispatcher: Dispatcher, body: Json) -> list[str]:
    """Return the states of the taken seats (places among the responders who go)."""
    return [seat["state"] for seat in dispatcher.state(body["id"])["seats"]]


def test_no_place_remains_on_the_page_after_an_accepted_call_has_ended(node, phone, dispatcher):
    """The exact place is on the page only while there is a seat (rules RU1, RU2, RU3)."""
    shown = on_duty(phone(medic(node)))
    body = call()
    dispatcher.post("", body)
    shown.has(CALLS, "Cardiac arrest: CPR needed")
    shown.has(CALLS, "Bystander does compressions")
    shown.has(CALLS, "270 m from you")
    shown.has("#announce", "270 m from you")
    assert "Call for help" in shown.page.title()
    assert shown.page.locator(".mark-patient").count() == 0
    assert traces(shown) == []
    wait_until(lambda: dispatcher.state(body["id"])["seen"] == 1, "the dispatcher hears that it was shown")
    shown.picture("pager-rings")
    shown.page.get_by_role("button", name="I am going").click()
    shown.has(CALLS, "Dorfstrasse 4, Ossingen")
    shown.has(CALLS, "Door code 4711.")
    shown.has(CALLS, "do CPR")
    wait_until(lambda: shown.page.locator(".mark-patient").count() == 1, "the patient is on the map")
    wait_until(lambda: shown.page.locator(".mark-aed").count() == 1, "the defibrillator is on the map")
    assert "Dorfstrasse" not in shown.text("#announce")
    assert "Call for help" not in shown.page.title()
    assert seats(dispatcher, body) == ["going"]
    shown.page.get_by_role("button", name="I am there").click()
    wait_until(lambda: seats(dispatcher, body) == ["arrived"], "the dispatcher hears of it")
    shown.has(CALLS, "Told: you are there")
    dispatcher.post(f"/{body['id']}/end", {"reason": "The crew is there."})
    shown.has("#notice", "This call is over")
    wait_until(lambda: shown.text(CALLS) == "", "the call is gone")
    wait_until(lambda: shown.page.locator(".mark-patient, .mark-aed").count() == 0, "nothing is on the map")
    assert traces(shown) == []
    shown.has("#quiet", "You rest until")
    shown.has("#duty-text", "You have helped, so you are not called to anybody else until")
    other = call()
    dispatcher.post("", other)
    wait_until(lambda: dispatcher.state(other["id"])["ring_m"] > 300, "the call finds nobody")
    assert shown.text(CALLS) == ""


def test_second_responder_is_shown_the_defibrillator_to_fetch_and_its_code(node, phone, dispatcher):
    """The defibrillator is on the map and in the text (rules RI2, RI3)."""
    shown = on_duty(phone(medic(node)))
    body = call()
    dispatcher.post("", body)
    with Responder(node, new_id("r"), here(HOME), quals=("medic",)) as first:
        first.take("call")
        first.say("accept", id=body["id"])
        first.take("task")
        shown.page.get_by_role("button", name="I am going").click()
        shown.has(CALLS, "Mehrzweckhalle")
        shown.has(CALLS, "2580")
        wait_until(lambda: shown.page.locator(".mark-fetch").count() == 1, "it is on the map")
        shown.page.get_by_role("button", name="I have the AED").click()
        wait_until(lambda: seats(dispatcher, body) == ["going", "aed"], "the dispatcher hears of it")
        shown.picture("pager-task", full_page=True)


def test_responder_with_a_seat_is_offered_directions_and_the_dispatchers_number(node, phone, dispatcher):
    """The links lead to the exact place and to the defibrillator, and are gone after the call (rules RU2, RI3, RY9)."""
    shown = on_duty(phone(medic(node)))
    body = call(place={**PLACE, "callback_phone": "+41 (52) 555 01 12"})
    dispatcher.post("", body)
    shown.has(CALLS, "I am going")
    links = f"[...document.querySelectorAll('{CALLS} a')].map(({{ href }}) => href)"
    assert shown.page.evaluate(links) == []
    with Responder(node, new_id("r"), here(HOME), quals=("medic",)) as first:
        first.take("call")
        first.say("accept", id=body["id"])
        first.take("task")
        shown.page.get_by_role("button", name="I am going").click()
        shown.has(CALLS, "Mehrzweckhalle")
        assert shown.page.get_by_role("link", name="Directions to the AED", exact=True).count() == 1
        at, hall = f"{PLACE['lat']},{PLACE['lng']}", f"{HALL[0]},{HALL[1]}"
        web = "https://www.openstreetmap.org/directions?to="
        numbers = [f"geo:{at}?q={at}", f"{web}{at}", f"geo:{hall}?q={hall}", f"{web}{hall}", "tel:+41525550112"]
        assert shown.page.evaluate(links) == numbers
        for box in shown.page.locator(f"{CALLS} a").all():
            assert box.bounding_box()["height"] >= 40, "big enough for a thumb"
    dispatcher.post(f"/{body['id']}/end", {"reason": "The test is over."})
    wait_until(lambda: not shown.text(CALLS), "the call is gone from the page")
    assert shown.page.evaluate(links) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_zoom_buttons_of_the_responders_map_are_easy_to_see(node, phone, scheme):
    """Their contrast is at least 3 : 1 (WCAG 1.4.11)."""
    shown = phone(medic(node), color_scheme=scheme)
    shown.box(".maplibregl-ctrl-zoom-in")
    assert shown.contrast(".maplibregl-ctrl-zoom-in .maplibregl-ctrl-icon") > 3


def test_responder_on_duty_without_a_connection_is_not_told_that_nobody_needs_help(node, phone):
    """Nobody knows that, and the responder can't be called."""
    shown = on_duty(phone(medic(node)))
    shown.has(QUIET, "Nobody near you needs help.")
    node.kill()
    shown.has(QUIET, "Without a connection you can’t be called.")
    shown.has("#duty-text", "Without a connection")
    node.start()
    shown.has("#duty-text", "as medic")
    shown.has(QUIET, "Nobody near you needs help.")
    shown.troubles.clear()  # the console shows the attempts to connect


OVERLAPS = """words => {
    const [status, title] = ["#status", "h1"].map(each => document.querySelector(each));
    const text = document.createRange();
    text.selectNodeContents(title);
    return words.filter(word => {
        status.textContent = word;
        const [a, b] = [text.getBoundingClientRect(), status.getBoundingClientRect()];
        return a.right > b.left && a.left < b.right && a.bottom > b.top && a.top < b.bottom;
    });
}"""


def test_title_of_the_page_is_not_under_its_status_on_any_phone(node, phone):
    """The countdown of a lost connection has one digit or two."""
    shown = phone(medic(node))
    words = ["Connected", "No connection, back in 9 s", "No connection, back in 10 s"]
    for width in range(320, 460, 10):
        shown.page.set_viewport_size({"width": width, "height": 740})
        assert shown.page.evaluate(OVERLAPS, words) == []


def test_responder_who_accepted_can_give_up_the_seat(node, phone, dispatcher):
    """The place disappears from the page at once (rule RV5)."""
    shown = on_duty(phone(medic(node)))
    body = call()
    dispatcher.post("", body)
    shown.page.get_by_role("button", name="I am going").click()
    shown.has(CALLS, "Dorfstrasse 4")
    shown.page.get_by_role("button", name="after all").click()
    wait_until(lambda: not shown.text(CALLS), "the call is gone from the page")
    assert traces(shown) == []
    wait_until(lambda: seats(dispatcher, body) == [], "the seat is free again")


def test_declined_call_is_not_shown_again(node, phone, dispatcher):
    """New content does not bring it back (rule RU1)."""
    shown = on_duty(phone(medic(node)))
    body = call()
    dispatcher.post("", body)
    shown.page.get_by_role("button", name="I can’t").click()
    wait_until(lambda: dispatcher.state(body["id"])["declined"] == 1, "the dispatcher hears of it")
    dispatcher.post(f"/{body['id']}/revisions", {**body, "headline": "Adult, in the garden", "replaces": 1})
    other = call(headline="Another one")
    dispatcher.post("", other)
    shown.has(CALLS, "Another one")
    assert "in the garden" not in shown.text(CALLS)


@pytest.mark.parametrize(("status", "word"), [("exercise", "Exercise"), ("test", "Test")])
def test_test_or_exercise_call_is_marked_as_no_emergency(node, phone, dispatcher, status, word):
    """A drill has a badge, no alarm, and an announcement for screen readers (rule RU1)."""
    shown = on_duty(phone(medic(node, may_test=True)))
    dispatcher.post("", call(status=status))
    shown.has(CALLS, f"{word}: no emergency")
    shown.has("#announce", f"{status}, no emergency")
    assert shown.page.locator(".call-drill").count() == 1
    style = shown.page.locator(".call-drill").evaluate("item => getComputedStyle(item).borderTopStyle")
    assert style == "dashed"


def test_responder_off_duty_is_not_called(node, phone, dispatcher):
    """A responder who goes on duty later is called then (rules RQ4, RJ3)."""
    shown = phone(medic(node))
    body = call()
    dispatcher.post("", body)
    wait_until(lambda: dispatcher.state(body["id"])["ring_m"] > 100, "the ring has widened meanwhile")
    assert shown.text(CALLS) == ""
    on_duty(shown)
    shown.has(CALLS, "Cardiac arrest")
    shown.page.locator(DUTY).click()
    shown.has("#duty-text", "You are not called.")


def test_untrusted_text_is_shown_as_plain_text(node, phone, dispatcher):
    """Markup in a headline, an address or the access notes has no effect."""
    evil = "<img src=x onerror=\"document.title='owned'\">"
    shown = on_duty(phone(medic(node)))
    dispatcher.post("", call(headline=evil, place={**PLACE, "address": evil, "access": evil}))
    shown.page.get_by_role("button", name="I am going").click()
    wait_until(lambda: shown.text(CALLS).count("<img src=x") >= 2, "the address is shown as text")
    assert shown.page.title() != "owned"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_with_a_call_or_task_has_no_wcag_violations(node, phone, dispatcher, scheme):
    shown = on_duty(phone(medic(node), color_scheme=scheme, reduced_motion="reduce"))
    dispatcher.post("", call())
    shown.has(CALLS, "I am going")
    assert shown.violations() == []
    shown.page.get_by_role("button", name="I am going").click()
    shown.has(CALLS, "Dorfstrasse 4")
    assert shown.violations() == []
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the phone"


def test_responder_without_a_qualification_is_shown_a_notice(node, phone):
    """Going on duty would have no effect (rule RQ3)."""
    shown = phone(node.keys.token(sub="r-1", scope=PHONE_SCOPE))
    shown.has("#duty-text", "You are not called.")
    shown.page.locator(DUTY).click()
    shown.has("#duty-text", "no qualification that counts")
    assert shown.page.locator(DUTY).get_attribute("aria-checked") == "true"


def test_token_is_kept_only_in_the_browser_tab(node, phone, url):
    """The token is not in the address bar, and not at the page's server."""
    token = node.keys.token(sub="r-1", scope=PHONE_SCOPE)
    shown = phone(token)
    assert shown.page.url == f"{url}/"
    assert token not in json.dumps(shown.page.evaluate("fetch('/view.json').then((answer) => answer.json())"))
    assert shown.page.evaluate("localStorage.length") == 0
    shown.page.reload()
    shown.has(STATUS, "Connected")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_responder_page_off_duty_has_no_wcag_violations(node, phone, scheme):
    shown = phone(node.keys.token(sub="r-1", scope=PHONE_SCOPE), color_scheme=scheme)
    assert shown.violations() == []
