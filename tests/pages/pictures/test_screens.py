"""Pictures of every page in its states, in four sizes and two themes, compared with the accepted ones."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h3
import pytest
from end_to_end.kit.alerts import alert, circle
from end_to_end.kit.desk import DeskProcess, row, write_feed
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, Dispatcher, call
from end_to_end.kit.earth import Point
from end_to_end.kit.keys import PHONE_SCOPE
from end_to_end.kit.node import Node
from end_to_end.kit.responder import A_DAY_S, Responder, here
from end_to_end.kit.times import stamp, wait_until
from pages.conftest import ROOT, Served, Shown, files_served
from pages.pictures.conftest import HOME
from pages.pictures.screens import ACCEPTED, STEADY, Screens

from client_demo.demo.live_map import LiveMap
from client_demo.python.geo import offset

pytestmark = pytest.mark.skipif("GEOCAST_PICTURES" not in os.environ, reason="takes ten minutes: `make look`")

Show = Callable[..., Shown]
Serve = Callable[..., Served]

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" + "w" * 50
ARABIC = "حريق كبير في المبنى، ابتعدوا عن المكان وأغلقوا النوافذ"
SETTINGS = {"timezone_id": "UTC", "locale": "en-GB", "script": STEADY}
PATIENT = {
    "lat": round(HOME[0] + 0.002, 4),
    "lng": round(HOME[1] + 0.001, 4),
    "kind": "public",
    "address": "Copper Gate 4",
}
PATIENT |= {"access": "Door code 4711.\n3rd floor, left."}


# ---- the live map ------------------------------------------------------------------------------------------------


def publish(node: Node, alert_id: str, spot: Point, minutes: int, category: str, severity: str, **fields: str) -> None:
    """Publish an alert about an incident of three minutes ago that ends in `minutes`, at most 56."""
    times = {"occurred_at": stamp(minutes=-3), "expires_at": stamp(minutes=minutes, seconds=30)}
    node.publish(
        alert(spot, id=alert_id, category=category, severity=severity, area=circle(spot, 700), **times, **fields)
    )


def end_alerts(node: Node) -> None:
    """Cancel all live alerts, which have revision 1."""
    for alert_id in node.live():
        node.cancel(alert_id, 2)


def open_map(city: LiveMap, show: Show) -> Shown:
    """Open the live map, and wait until it is connected and has its outlines."""
    shown = show(city.url, **SETTINGS)
    shown.has("#status", "Live")
    shown.until("document.querySelector('#map[data-outlines]')", "the outlines")
    return shown


def crowded(city: LiveMap) -> list[str]:
    """Put simulated phones into cells around the place of the page, and return these cells."""
    cells = sorted(h3.grid_disk(h3.latlng_to_cell(*HOME, 9), 12))
    city.call(city.people, {cell: 1 + number % 7 for number, cell in enumerate(cells)})
    return cells


def test_live_map_without_alerts_looks_as_accepted(city: LiveMap, show: Show, screens: Screens) -> None:
    """The page is connected."""
    shown = open_map(city, show)
    screens.check(shown, "map-empty")


LAPTOP = (1280, 800)
DEFECTS = {  # a defect in the map's style: the size and the theme in which it must be found
    "hidden button": ("#locate { visibility: hidden }", (LAPTOP, "light")),
    "wider column": (".page { grid-template-columns: minmax(0, 1fr) 27rem }", (LAPTOP, "light")),
    "colour of a panel": (".side { background: #e6ddc8 }", (LAPTOP, "light")),
    "moved box": (".legend { translate: 0 1.5rem }", (LAPTOP, "dark")),
    "dark text on dark": (".side :is(h2, p, label) { color: #222c36 }", (LAPTOP, "dark")),
    "hidden map": ("#map canvas { visibility: hidden }", (LAPTOP, "light")),
    "text cut off": ("#nothing { white-space: nowrap; overflow: hidden }", ((390, 844), "light")),
    "text that runs out": ("#place-help { white-space: nowrap; width: 100vw }", ((390, 844), "light")),
    "small button": ("#find { min-height: 0; height: 1rem }", ((768, 1024), "light")),
    "covered button": (".credits { position: fixed; inset: 0; z-index: 9; opacity: 0.01 }", ((1920, 1080), "light")),
    "faint button": (".maplibregl-ctrl-group button span { opacity: 0.1 }", ((1920, 1080), "dark")),
}
HARMLESS = {  # what another browser may do
    "antialiasing": "body { filter: blur(0.4px) }",
    "letters": "body { font-kerning: none }",
    "colours": "body { filter: brightness(0.985) }",
    "digits": "#place { font-variant-numeric: oldstyle-nums }",
}


def styled(shown: Shown, css: str) -> None:
    """Add rules to the page's style that count more than its own."""
    important = css.replace(" }", " !important }").replace("; ", " !important; ")
    shown.page.evaluate(
        "css => { const sheet = new CSSStyleSheet(); sheet.replaceSync(css); document.adoptedStyleSheets = [sheet]; }",
        important,
    )


def test_defects_of_a_page_are_found_and_differences_of_browsers_are_not(
    city: LiveMap, show: Show, screens: Screens
) -> None:
    """Each defect is found in a single size and theme; the page without it is as accepted."""
    shown = open_map(city, show)
    missed = []
    for name, (css, cell) in DEFECTS.items():
        styled(shown, css)
        missed += [] if screens.look(shown, "map-empty", cell) else [name]
    assert missed == []
    for css in ("", *HARMLESS.values()):
        styled(shown, css)
        for cell in ((LAPTOP, "light"), (LAPTOP, "dark"), ((390, 844), "light")):
            assert screens.look(shown, "map-empty", cell) == [], css


def test_live_map_with_alerts_looks_as_accepted(node: Node, city: LiveMap, show: Show, screens: Screens) -> None:
    """With many alerts and a fan-out, and with long words and a language that is written from right to left."""
    near = offset(*HOME, 200, 150)
    far = [offset(*HOME, 1800 * north, 2200 * east) for north, east in ((1, 1), (-1, 2), (2, -1))]
    publish(node, "near-a", near, 55, "fire_structure", "extreme", headline="Large fire. Close windows and stay away.")
    publish(node, "near-b", HOME, 40, "robbery", "minor", headline="Robbery reported near you.", status="exercise")
    for number, (spot, severity) in enumerate(zip(far, ("severe", "moderate", "minor"), strict=True)):
        publish(node, f"far-{number}", spot, 50 - number, "burglary", severity, headline="Burglary reported.")
    shown = open_map(city, show)
    shown.has("#elsewhere-count", "(3)")
    wait_until(lambda: shown.page.locator("#affecting li").count() == 2, "the alerts here")
    cells = crowded(city)
    told = {
        "id": "near-a",
        "revision": 1,
        "title": "Structure fire",
        "severity": "extreme",
        "told": 1200,
        "last_ms": 9.0,
    }
    shown.page.locator("#simulated").wait_for()
    city.call(city.told, {**told, "told": 1200, "last_ms": 9.0, "cells": {cell: [3, 4.0] for cell in cells[:9]}})
    shown.has("#fan-out-told", "1,200")
    screens.check(shown, "map-busy")

    end_alerts(node)
    publish(node, "long", near, 55, "fire_structure", "severe", headline=LONG, description=LONG * 3)
    publish(node, "arabic", HOME, 50, "fire_structure", "moderate", headline=ARABIC, description=f"{ARABIC}. " * 4)
    shown = open_map(city, show)
    wait_until(lambda: shown.page.locator("#affecting li").count() == 2, "the alerts here")
    screens.check(shown, "map-foreign")
    end_alerts(node)


# ---- the responder's page ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pager(node: Node, serve: Serve) -> str:
    """Return the address of the responder's page."""
    place = ("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.pager_port))  # type: ignore[attr-defined]
    return serve("pager", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", *place).url("pager")


def medic(node: Node, sub: str) -> str:
    """Return the token of a medic."""
    now = int(time.time())
    return node.keys.token(sub=sub, scope=PHONE_SCOPE, iat=now, exp=now + A_DAY_S, quals=["medic"])


def without_notice(shown: Shown) -> None:
    """Wait for a notice, which would disappear after a while, and hide it."""
    shown.page.locator("#notice").wait_for()
    shown.page.evaluate("document.querySelector('#notice').hidden = true")


def test_responder_page_looks_as_accepted(node: Node, pager: str, show: Show, screens: Screens) -> None:
    """Off duty, on duty, called, called in long words and from right to left, on the way, and resting."""
    shown = show(f"{pager}/#token={medic(node, 'r-pictures')}", **SETTINGS)
    shown.has("#status", "Connected")
    screens.check(shown, "respond-off-duty")
    shown.page.click("#duty")
    shown.has("#duty-text", "as medic")
    shown.has("#quiet", "Nobody")
    screens.check(shown, "respond-on-duty")
    with Dispatcher(node) as dispatcher, Responder(node, "r-first", here(HOME), quals=("medic",)) as first:
        dispatcher.post("", call(id="foreign", place=PATIENT, headline=f"{ARABIC} {LONG[:80]}"))
        shown.has("#calls", LONG[:20])
        screens.check(shown, "respond-foreign")
        dispatcher.post("/foreign/end", {"reason": "The test is over."})
        wait_until(lambda: shown.text("#calls") == "", "the call is gone")
        dispatcher.post("", call(id="pictured", place=PATIENT))
        while first.any().get("call", {}).get("id") != "pictured":
            pass
        shown.has("#calls", "Bystander does compressions")
        without_notice(shown)
        screens.check(shown, "respond-called")
        first.say("accept", id="pictured")
        while first.any()["type"] != "task":
            pass
        shown.page.get_by_role("button", name="I am going").click()
        shown.has("#calls", "Town hall")
        wait_until(lambda: shown.page.locator(".mark-fetch").count() == 1, "the defibrillator is on the map")
        screens.check(shown, "respond-task")
        dispatcher.post("/pictured/end", {"reason": "The crew is there."})
        shown.has("#quiet", "You rest until")
        without_notice(shown)
        screens.check(shown, "respond-resting")


# ---- the dispatch page -------------------------------------------------------------------------------------------


def dispatch_feed(path: Path) -> Path:
    """Write a feed of records: a cardiac arrest, a test, one without a place, one in long words, one in Arabic."""
    spot = (PATIENT["lat"], PATIENT["lng"])
    return write_feed(
        path,
        [
            row("A", "Cardiac arrest", spot, address="Copper Gate 4"),
            row("B", "TEST", spot, 90, address="Test Street"),
            row("C", "Cardiac arrest", None, 120, address="Nowhere Lane"),
            row("D", "Cardiac arrest", spot, 7200, address=LONG),
            row("E", "Cardiac arrest", spot, 240, address=ARABIC),
        ],
    )


def test_dispatch_page_looks_as_accepted(
    node: Node, serve: Serve, show: Show, screens: Screens, tmp_path: Path
) -> None:
    """Signed out, with records, a form, a refused form, long words and right to left, and a call with a responder."""
    token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
    options = ("--port", "0", "--api", f"http://127.0.0.1:{node.api_port}", "--as-recorded", "--status", "actual")
    served = serve("dispatch", str(dispatch_feed(tmp_path / "feed.csv")), *options, GEOCAST_DISPATCH_TOKEN=token)
    link = served.url("dispatch-1")
    stranger = show(link.partition("#")[0], **SETTINGS)
    stranger.page.locator("#sign-in").wait_for()
    screens.check(stranger, "dispatch-sign-in")
    stranger.troubles.clear()  # the console shows the refusal
    shown = show(link, **SETTINGS)
    shown.has("#records", "Copper Gate")
    screens.check(shown, "dispatch-records")
    record = shown.page.locator("#records button")
    record.filter(has_text=LONG[:20]).click()
    shown.page.get_by_label("a home").check()
    shown.page.get_by_role("button", name="Call responders").click()
    wait_until(lambda: shown.text("#problem"), "the refusal")
    screens.check(shown, "dispatch-refused")
    shown.troubles.clear()  # the console shows the status of the refusal
    record.filter(has_text=ARABIC).click()
    shown.has("#subtitle", ARABIC)
    screens.check(shown, "dispatch-foreign")
    with Responder(node, "r-dispatch", here(HOME), quals=("cpr",)) as phone:
        record.filter(has_text="Copper Gate").click()
        shown.page.get_by_label("a public place").check()
        shown.page.get_by_role("button", name="Call responders").click()
        call_id = phone.take("call")["call"]["id"]
        phone.say("accept", id=call_id, eta_s=240)
        while phone.any()["type"] != "task":
            pass
        shown.has("#seats", "is going")
        screens.check(shown, "dispatch-going")
        shown.page.get_by_role("button", name="Correct…").click()
        screens.check(shown, "dispatch-correcting")
    with Dispatcher(node) as dispatcher:
        dispatcher.post(f"/{call_id}/end", {"reason": "The test is over."})


# ---- the review desk ---------------------------------------------------------------------------------------------


MAY_APPROVE = "!document.querySelector('#approve').disabled"


def desk_feed(path: Path) -> Path:
    """Write a feed of incidents: a fire, an old fire, an arson, an assault, and one in long words and Arabic."""
    spot = offset(*HOME, 9000, 9000)
    return write_feed(
        path,
        [
            row("FIRE", "Structure fire", spot, 130),
            row("FIRE", "Structure fire", spot, 125, unit="Ladder 4"),
            row("OLD", "Residential fire", spot, 3700),
            row("ARSON", "Arson", spot, 320),
            row("NEVER", "Assault", spot, 440),
            row("LONG", "Commercial fire", spot, 560, address=ARABIC, unit=LONG),
            row("WORD", LONG, spot, 620, address=LONG),
        ],
    )


def test_review_desk_looks_as_accepted(node: Node, show: Show, screens: Screens, tmp_path: Path) -> None:
    """Signed out, with a list, an incident, its refusals, long words, the shortcuts, and a live alert."""
    with DeskProcess(tmp_path, node, desk_feed(tmp_path / "feed.csv"), "--as-recorded") as desk:
        stranger = show(desk.link("ann").partition("#")[0], **SETTINGS)
        stranger.page.locator("#sign-in").wait_for()
        screens.check(stranger, "desk-sign-in")
        stranger.troubles.clear()  # the console shows the refusal
        shown = show(desk.link("ann"), **SETTINGS)
        shown.has("#list", "Commercial fire")
        screens.check(shown, "desk-list")
        shown.page.click("#help")
        screens.check(shown, "desk-shortcuts", root="#shortcuts")
        shown.page.keyboard.press("Escape")
        item = shown.page.locator(".item")
        item.filter(has_text="Commercial fire").click()
        shown.has("#title", "Commercial fire")
        shown.page.fill("#headline", ARABIC)
        shown.page.fill("#description", LONG)
        shown.has("#preview", ARABIC)
        shown.until(MAY_APPROVE, "the node would accept it")
        screens.check(shown, "desk-foreign")
        shown.page.set_viewport_size({"width": 1280, "height": 800})
        item.filter(has_text="Structure fire").first.click()
        shown.page.fill("#headline", "Fire at 1200 Elm Street")
        shown.has("#headline-trouble", "reads like")
        screens.check(shown, "desk-refused")
        shown.page.fill("#headline", "Building on fire. Keep windows closed and stay away.")
        shown.has("#preview", "Keep windows closed")
        shown.until(MAY_APPROVE, "the node would accept it")
        screens.check(shown, "desk-incident")
        shown.page.click("#approve")
        shown.has("#approve", "Publish revision 2")
        shown.has("#sent", "0")
        shown.page.get_by_role("button", name="Cancel the alert…").click()
        screens.check(shown, "desk-live")
        shown.page.get_by_role("button", name="Kept back").click()
        item.filter(has_text=LONG[:10]).click()
        shown.has("#title", LONG[:10])
        screens.check(shown, "desk-kept-back")
        shown.context.close()
    end_alerts(node)


# ---- the node's own pages, and the example -----------------------------------------------------------------------


def test_pages_of_the_node_look_as_accepted(node: Node, show: Show, screens: Screens) -> None:
    """The HTTP calls, with one of them open, and the messages of the stream."""
    shown = show(f"{node.api.base_url}/docs", **SETTINGS)
    shown.page.click("#operations-alerts-publish .opblock-summary-control")
    shown.has("#operations-alerts-publish .body-param__example", '"category"')
    screens.check(shown, "node-calls", root="nav")  # the rest belongs to Swagger UI
    screens.check(show(f"{node.api.base_url}/docs/stream", **SETTINGS), "node-stream")


def test_example_page_looks_as_accepted(node: Node, show: Show, screens: Screens, tmp_path: Path) -> None:
    """The page that the library's readers copy, with an alert."""
    token = node.keys.token(sub="page", scope=PHONE_SCOPE)
    shutil.copytree(ROOT / "client_demo" / "web" / "geocast", tmp_path, dirs_exist_ok=True)
    page = tmp_path / "example.html"
    here = f'token: "{token}", url: "ws://127.0.0.1:{node.stream_port}'
    page.write_text(page.read_text("utf-8").replace('url: "ws://127.0.0.1:8765', here), "utf-8")
    port = node.example_port  # type: ignore[attr-defined]
    publish(node, "example", (32.78, -96.8), 50, "burglary", "minor", headline="Burglary reported near you.")
    with files_served(tmp_path, port):
        shown = show(f"http://127.0.0.1:{port}/example.html", **SETTINGS)
        shown.has("#alerts", "Burglary")
        screens.check(shown, "example", root="#alerts")
        shown.context.close()
    end_alerts(node)


MOST_BYTES = 2_500_000  # of all accepted pictures


def test_every_accepted_picture_is_compared_and_all_are_small() -> None:
    """A picture that no test names would never be looked at again."""
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    pictures = sorted(ACCEPTED.iterdir())
    assert [path.name for path in pictures if f'"{path.stem}"' not in tests] == []
    assert sum(path.stat().st_size for path in pictures) <= MOST_BYTES


# ---- without the node --------------------------------------------------------------------------------------------


def test_pages_without_their_node_look_as_accepted(
    node: Node, city: LiveMap, pager: str, show: Show, serve: Serve, screens: Screens, tmp_path: Path
) -> None:
    """The map, the responder and the desk lose the node, dispatch its service. This test is the last one."""
    on_map = open_map(city, show)
    crowded(city)
    on_map.page.locator("#simulated").wait_for()
    responder = show(f"{pager}/#token={medic(node, 'r-offline')}", **SETTINGS)
    responder.page.click("#duty")
    token = node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)
    options = ("--port", "0", "--api", f"http://127.0.0.1:{node.api_port}", "--as-recorded", "--status", "actual")
    served = serve("dispatch", str(dispatch_feed(tmp_path / "calls.csv")), *options, GEOCAST_DISPATCH_TOKEN=token)
    dispatch = show(served.url("dispatch-1"), **SETTINGS)
    dispatch.has("#records", "Copper Gate")
    with DeskProcess(tmp_path, node, desk_feed(tmp_path / "feed.csv"), "--as-recorded") as process:
        desk = show(process.link("ann"), **SETTINGS)
        desk.has("#list", "Structure fire")
        responder.has("#status", "Connected")
        node.kill()
        on_map.has("#status", "Disconnected")
        screens.check(on_map, "map-offline")
        responder.has("#status", "No connection")
        screens.check(responder, "respond-offline")
        served.stop()
        dispatch.page.locator("#warning").wait_for()
        screens.check(dispatch, "dispatch-offline")
        desk.page.locator("#warning").wait_for()
        screens.check(desk, "desk-offline")
        for each in (on_map, responder, dispatch, desk):
            each.context.close()
            each.troubles.clear()  # the console shows that there is no connection
