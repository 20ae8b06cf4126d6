"""Tests of alerts on the live map in a real browser with a real node, by mouse, keyboard and announcements."""

import itertools
import math
import re

from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import cancel_body
from end_to_end.kit.times import stamp, wait_until
from pages.map.tools import AFFECTING, ELSEWHERE, HOME, INSIDE_M, STATUS, colours, middle, online, press_until

from client_demo.python.geo import distance_m, offset


def test_published_alert_is_shown_on_the_map_and_in_the_list_and_acknowledged(node, url, show, publish):
    """The page shows the latency, and the node counts the acknowledgement."""
    shown = online(show(url))
    sent = publish(headline="Stay inside", severity="severe", description="Police are on the scene.")
    shown.has(AFFECTING, "Stay inside")
    for text in ("severe", "Burglary", "Police are on the scene.", "min"):
        assert text in shown.text(AFFECTING)
    assert "severe, Burglary. Stay inside" in shown.text("#announce")
    shown.has("#summary", "1 live alert")
    wait_until(lambda: shown.page.locator(".chip-affecting").count() == 1, "it is on the map")
    shown.has("#told", "ms")
    shown.has("#drawn", "ms")
    shown.has(AFFECTING, "reached you in")
    node.wait_for_counts(sent["id"], sent=1, acked=1)
    shown.picture("map-alert")


def test_dragging_the_marker_into_a_circle_shows_its_live_alert(url, show, publish):
    """The mouse moves the marker, and the page counts as a late joiner."""
    publish(east_m=5000, headline="Five kilometres east")
    shown = online(show(url))
    shown.has(ELSEWHERE, "Burglary")
    assert "Five kilometres east" not in shown.text("body")
    x, y = middle(shown, ".chip .ring")
    shown.page.mouse.move(*middle(shown, "#you"))
    shown.page.mouse.down()
    shown.page.mouse.move(x, y, steps=12)
    shown.page.mouse.up()
    shown.has(AFFECTING, "Five kilometres east")
    shown.has(AFFECTING, "published at")
    assert not shown.page.locator("#elsewhere-block").is_visible()
    shown.picture("map-late-joiner")


def test_arrow_keys_can_move_the_marker_into_a_circle_and_out_again(url, show, publish):
    """After the marker has left the circle, the alert is still listed and marked as left."""
    publish(east_m=2500, headline="Two kilometres east")
    shown = online(show(url))
    shown.has(ELSEWHERE, "Burglary")
    middle_at = offset(*HOME, 0, 2500)
    press_until(shown, "Shift+ArrowRight", lambda lat, lng: distance_m(*middle_at, lat, lng) < INSIDE_M)
    shown.has(AFFECTING, "Two kilometres east")
    assert shown.page.evaluate("document.activeElement.id") == "you"
    for _ in range(12):
        shown.page.keyboard.press("Shift+ArrowLeft")
    shown.has("#left", "Two kilometres east")
    assert "Two kilometres east" not in shown.text(AFFECTING)
    shown.has("#announce", "You have left the area")


def test_card_and_list_row_of_an_alert_are_not_replaced_when_the_distance_changes(url, show, publish):
    """The page does not replace an element that a person may be reading, selecting or pressing."""
    publish(headline="Here")
    publish(east_m=9000, headline="Far east")
    shown = online(show(url))
    shown.has(AFFECTING, "centre")
    shown.has(ELSEWHERE, "km")
    far = {each: re.search(r"\d+ m\b|[\d.]+ km", shown.text(each))[0] for each in (AFFECTING, ELSEWHERE)}
    items = [f"{each} li" for each in far]
    for each in items:
        shown.page.locator(each).evaluate("item => (item.isTheSame = true)")
    shown.page.locator("#you").focus()
    shown.page.keyboard.press("Shift+ArrowRight")
    for each, before in far.items():
        shown.has_not(each, before)
    assert [shown.page.locator(each).evaluate("item => item.isTheSame") for each in items] == [True, True]


def test_polygon_is_drawn_and_place_in_its_bend_is_shown_as_outside(url, show, publish):
    """The place is first outside in the bend of an L-shaped polygon, then inside an arm.

    The page computes this (rule C4).
    """
    bend = [(-3000, -3000), (3000, -3000), (3000, -1500), (-1500, -1500), (-1500, 3000), (-3000, 3000)]
    ring = [offset(*HOME, north, east)[::-1] for north, east in bend]
    shape = {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]}
    publish(headline="Along the river", area=shape)
    shown = online(show(url))
    shown.has(ELSEWHERE, "Burglary")
    assert "Along the river" not in shown.text(AFFECTING)
    wait_until(lambda: shown.page.locator(".chip").count() == 1, "it is on the map")
    press_until(shown, "Shift+ArrowDown", lambda lat, _: 1_550 < distance_m(*HOME, lat, HOME[1]) < 2_950)
    shown.has(AFFECTING, "Along the river")
    shown.picture("map-polygon")


def test_buffer_of_a_simplified_polygon_is_drawn(node, url, show, publish):
    """A ring with many corners is published with fewer corners and a buffer that covers the omitted ones (rule B9)."""
    middle_at = offset(*HOME, 0, 6000)
    bearings = [2 * math.pi * n / 1500 for n in range(1500)]
    zigzag = [
        offset(*middle_at, far_m * math.cos(turn), far_m * math.sin(turn))[::-1]
        for turn, far_m in zip(bearings, itertools.cycle([2000, 2900]))
    ]
    shape = {
        "type": "Polygon",
        "coordinates": [[[round(each, 6) for each in corner] for corner in (*zigzag, zigzag[0])]],
    }
    sent = publish(headline="In a wide ring", area=shape)
    [published] = node.get(f"/v1/alerts/{sent['id']}").json()["alert"]["area"]
    assert published["buffer_m"] >= 500
    corners = [(lat, lng) for lng, lat in published["coordinates"][0]]
    farthest_m = max(distance_m(*middle_at, *corner) for corner in corners)
    shown = online(show(url))
    shown.has(ELSEWHERE, "Burglary")
    (x, y), (home_x, _) = middle(shown, ".chip .ring"), middle(shown, "#you")
    px_per_m = (x - home_x) / 6000
    spots = [
        (round(x + far_m * px_per_m * math.sin(turn)), round(y - far_m * px_per_m * math.cos(turn)))
        for far_m in (farthest_m + 0.3 * published["buffer_m"], farthest_m + 1.3 * published["buffer_m"])
        for turn in (0.7, 2.4, 3.9, 5.5)
    ]
    apart = [(round(x), round(y + 1500 * px_per_m)), spots[-1]]  # one point inside the ring, and one beyond the buffer
    wait_until(lambda: len(set(colours(shown, apart))) == 2, "the ring is drawn")
    seen = colours(shown, spots)
    shown.picture("map-buffer")
    node.post(f"/v1/alerts/{sent['id']}/cancel", cancel_body(2))
    wait_until(lambda: shown.page.locator(".chip").count() == 0, "the alert is gone")
    wait_until(lambda: len(set(colours(shown, apart))) == 1, "the ring is gone")
    changed = [one != other for one, other in zip(seen, colours(shown, spots), strict=True)]
    assert sum(changed[:4]) >= 3, changed  # one may lie in a notch between two corners
    assert changed[4:] == [False] * 4


def test_official_warning_is_shown_in_the_browsers_language_with_instructions(node, url, show):
    """The link is named by its host and never opened automatically (rules C9, LA2)."""
    shown = online(show(url, locale="fr-FR"))
    assert warnings_of_cap.send(node, warnings_of_cap.warning("w-1", HOME, "en-CA", "fr-CA")).status_code == 201
    for text in ("Flood (fr-CA)", "The river rises (fr-CA)", "More than ever (fr-CA).", "Go up the hill (fr-CA)."):
        shown.has(AFFECTING, text)
    assert "(en-CA)" not in shown.text("main")
    link = shown.page.get_by_role("link", name="weather.example", exact=True)
    assert link.get_attribute("href") == "https://weather.example/flood?x=1"
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert shown.page.locator(f"{AFFECTING} .instruction").get_attribute("lang") == "fr-CA"
    assert shown.violations() == []
    shown.picture("map-warning")
    assert warnings_of_cap.send(node, warnings_of_cap.cancel("w-2", "w-1", "C'est fini")).status_code == 201
    shown.has_not("main", "The river rises")
    assert "Cancelled, C'est fini" in shown.text("#announce")


def test_map_page_that_sends_only_a_cell_gets_alerts(url, show, publish):
    """The exact place does not leave the page, and its cell is outlined."""
    shown = online(show(url))
    shown.page.locator("#coarse").check()
    publish(headline="Near your cell")
    shown.has(AFFECTING, "Near your cell")


def test_cancelled_alert_disappears_from_the_map_page(node, url, show, publish):
    """The alert leaves the map and the list, and the reason is announced."""
    shown = online(show(url))
    sent = publish(headline="It will be called off")
    shown.has(AFFECTING, "It will be called off")
    node.cancel(sent["id"], 2)
    shown.has_not("main", "It will be called off")
    assert "Cancelled, False alarm" in shown.text("#announce")
    wait_until(lambda: shown.page.locator(".chip").count() == 0, "the circle is gone")
    assert shown.page.locator("#nothing").is_visible()


def test_map_page_recovers_after_a_restart_of_the_node(node, url, show, publish):
    """Meanwhile one alert is cancelled and one is published; nobody touches the page."""
    soon = "const { random } = Math; Math.random = () => random() / 50"  # reconnect early in the window
    shown = online(show(url, script=soon))
    old = publish(headline="Before the restart")
    shown.has(AFFECTING, "Before the restart")
    node.kill()
    shown.has_not(STATUS, "Live")
    assert "Before the restart" in shown.text(AFFECTING)
    node.start()
    node.cancel(old["id"], 2)
    publish(headline="After the restart")
    shown.has(AFFECTING, "After the restart")
    shown.has_not(AFFECTING, "Before the restart")
    online(shown)
    shown.troubles = [trouble for trouble in shown.troubles if "WebSocket connection" not in trouble]


def test_exercise_is_marked_as_such_on_the_map_page(url, show, publish):
    """The mark is in the text, in the list, on the map's rim and in the announcement."""
    shown = online(show(url))
    publish(headline="This is only a drill", status="exercise")
    shown.has(AFFECTING, "Exercise")
    assert "exercise, moderate, Burglary" in shown.text("#announce")


def test_expired_alert_disappears_from_the_map_page(url, show, publish):
    """The end follows the server's clock, without a message."""
    shown = online(show(url))
    publish(headline="Short", expires_at=stamp(seconds=10))
    shown.has(AFFECTING, "Short")
    assert re.search(r"0:(0\d|1[01])", shown.text(AFFECTING))  # a busy page read the server's clock a moment late
    shown.has_not("main", "Short")


def test_median_delivery_time_is_shown_after_five_alerts_without_percentiles(url, show, publish):
    """The server's time is shown separately from the browser's."""
    shown = online(show(url))
    for number in range(5):
        publish(headline=f"Number {number}")
        shown.has(AFFECTING, f"Number {number}")
        shown.has(AFFECTING, "reached you in")
        if number < 4:
            assert shown.text("#told-median") == "–"
    shown.has("#median-of", "median of 5")
    assert "%" not in shown.text(".latency")
    assert re.search(r"reached you in \d+ ms", shown.text(AFFECTING))
