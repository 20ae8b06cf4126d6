"""The live map in a real browser, against a real node: what a person sees, with the mouse, the keyboard, the ears."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from end_to_end.conftest import keys  # noqa: F401 (a fixture)
from end_to_end.kit import warnings_of_cap
from end_to_end.kit.alerts import Json, alert, cancel_body
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.tls import make_certificate
from end_to_end.kit.wire import PATIENCE
from pages.conftest import PHONE, Served, Shown
from PIL import Image
from support.ports import free_ports
from support.push_service import PushService

from client_demo.python.geo import distance_m, offset

HOME = (32.7767, -96.797)
INSIDE_M = 750  # of the middle of an alert that `publish` makes: inside of its circle
AFFECTING, ELSEWHERE, STATUS = "#affecting", "#elsewhere", "#status"


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:  # noqa: F811
    """A node that allows the origins of two maps."""
    ports = free_ports(2)
    home = tmp_path_factory.mktemp("map")
    origins = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    with Node(home, keys, "--origins", origins, *warnings_of_cap.options(home)) as started:
        started.map_port, started.waking_port = ports  # type: ignore[attr-defined]
        yield started


@pytest.fixture(scope="module")
def url(node: Node, serve: Callable[..., Served]) -> str:
    """The map of that node. The page may see exercises."""
    return serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream"),
        *("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.map_port)),  # type: ignore[attr-defined]
        GEOCAST_TOKEN=node.desk,
        GEOCAST_PAGE_TOKEN=node.keys.token(sub="page", scope="alerts:receive alerts:test"),
    ).url("map")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    """A push service."""
    with PushService(make_certificate(tmp_path_factory.mktemp("tls"))) as service:
        yield service
    assert service.wrong == []


@pytest.fixture(scope="module")
def push(node: Node, service: PushService) -> Iterator[Push]:
    """`geocast push`, with which the pages of the second map may register."""
    origin = f"http://127.0.0.1:{node.waking_port}"  # type: ignore[attr-defined]
    with Push(node, service, options=("--origins", origin)) as push:
        yield push
        push.assert_no_surprise()


@pytest.fixture(scope="module")
def waking_url(node: Node, push: Push, serve: Callable[..., Served]) -> str:
    """A map that can tell who has closed it."""
    return serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream"),
        *("--lat", str(HOME[0]), "--lng", str(HOME[1]), "--port", str(node.waking_port)),  # type: ignore[attr-defined]
        *("--push", f"http://127.0.0.1:{push.port}"),
        GEOCAST_TOKEN=node.desk,
        GEOCAST_PAGE_TOKEN=node.keys.token(sub="page", scope="alerts:receive"),
    ).url("map")


@pytest.fixture
def publish(node: Node) -> Iterator[Callable[..., Json]]:
    """`publish(east_m=…, headline=…, …)`: an alert so far from home, which is cancelled when the test is over."""
    sent: dict[str, int] = {}

    def publishing(north_m: float = 0, east_m: float = 0, **fields: Any) -> Json:
        body = alert(offset(*HOME, north_m, east_m), **fields)
        node.publish(body)
        sent[body["id"]] = 2
        return body

    yield publishing
    for alert_id, number in sent.items():
        node.post(f"/v1/alerts/{alert_id}/cancel", cancel_body(number))


def online(shown: Shown) -> Shown:
    """Wait until the page is connected."""
    shown.has(STATUS, "Live")
    return shown


def press_until(shown: Shown, key: str, is_there: Callable[[float, float], bool]) -> None:
    """Move the marker by a key until the place that the page tells is there, and no farther."""
    shown.page.locator("#you").focus()
    for _ in range(12):
        before = shown.text("#place")
        shown.page.keyboard.press(key)
        wait_until(lambda: shown.text("#place") != before, "the marker has moved")  # noqa: B023 (called at once)
        if is_there(*map(float, shown.text("#place").split(", "))):
            return
    raise AssertionError(f"the marker went past it, to {shown.text('#place')}")


def middle(shown: Shown, selector: str) -> tuple[float, float]:
    """Where something is on the screen."""
    box = shown.box(selector)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_an_alert_posted_over_http_is_on_the_map_and_in_the_list_and_said_and_acknowledged(node, url, show, publish):
    """Circle, card, announcement, latency; and the node hears that somebody was shown it."""
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
    shown.has(AFFECTING, "after it was accepted, drawn")
    node.wait_for_counts(sent["id"], sent=1, acked=1)
    shown.picture("map-alert")


def test_who_drags_the_marker_into_a_circle_is_told_what_is_live_there(url, show, publish):
    """A late joiner, with the mouse."""
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
    shown.has(AFFECTING, "joined late")
    assert not shown.page.locator("#elsewhere-block").is_visible()
    shown.picture("map-late-joiner")


def test_the_arrow_keys_move_the_marker_into_a_circle_and_out_again(url, show, publish):
    """The same for those who use no mouse; what has been left stays held, and says so."""
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


def test_a_card_and_a_row_stay_themselves_while_how_far_they_are_changes(url, show, publish):
    """So what one reads, selects or presses in them is not taken away meanwhile."""
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


def test_a_polygon_is_drawn_and_felt_to_its_edge(url, show, publish):
    """A band that bends round the place: outside in its bend, inside an arm of it. The page works it out (C4)."""
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


def test_what_a_polygon_reaches_beyond_its_ring_is_drawn(node, url, show, publish):
    """B9: a ring of many corners is published with fewer, and with a buffer that holds those that were left out."""
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
    apart = [(round(x), round(y + 1500 * px_per_m)), spots[-1]]  # one inside of the ring, and one beyond all
    wait_until(lambda: len(set(colours(shown, apart))) == 2, "the ring is drawn")
    seen = colours(shown, spots)
    shown.picture("map-buffer")
    node.post(f"/v1/alerts/{sent['id']}/cancel", cancel_body(2))
    wait_until(lambda: shown.page.locator(".chip").count() == 0, "the alert is gone")
    wait_until(lambda: len(set(colours(shown, apart))) == 1, "the ring is gone")
    changed = [one != other for one, other in zip(seen, colours(shown, spots), strict=True)]
    assert sum(changed[:4]) >= 3, changed  # one may lie in a notch between two corners
    assert changed[4:] == [False] * 4


def colours(shown: Shown, spots: list[tuple[int, int]]) -> list[tuple[int, ...]]:
    """What the screen shows at these pixels."""
    picture = Image.open(io.BytesIO(shown.page.screenshot(animations="disabled"))).convert("RGB")
    return [picture.getpixel(spot) for spot in spots]


def test_an_official_warning_is_shown_in_the_language_of_the_browser_with_what_to_do(node, url, show):
    """C9, LA2: the instruction is there to be read; more is offered by its host's name, and never opened."""
    assert warnings_of_cap.send(node, warnings_of_cap.warning("w-1", HOME, "en-CA", "fr-CA")).status_code == 201
    shown = online(show(url, locale="fr-FR"))
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


def test_who_tells_only_a_cell_is_told_all_the_same(url, show, publish):
    """The place does not leave the page; its cell is outlined."""
    shown = online(show(url))
    shown.page.locator("#coarse").check()
    publish(headline="Near your cell")
    shown.has(AFFECTING, "Near your cell")


def test_a_cancelled_alert_leaves_the_page(node, url, show, publish):
    """From the map and from the list, with the reason for those who listen."""
    shown = online(show(url))
    sent = publish(headline="It will be called off")
    shown.has(AFFECTING, "It will be called off")
    node.cancel(sent["id"], 2)
    shown.has_not("main", "It will be called off")
    assert "Cancelled, False alarm" in shown.text("#announce")
    wait_until(lambda: shown.page.locator(".chip").count() == 0, "the circle is gone")
    assert shown.page.locator("#nothing").is_visible()


def test_after_a_restart_of_the_node_the_page_becomes_right_by_itself(node, url, show, publish):
    """One alert is called off and one is new when it comes back; nobody touches the page."""
    soon = "const { random } = Math; Math.random = () => random() / 50"  # in the first half second of the window
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


HOSTILE = {
    "markup": '<img src=x onerror="globalThis.hacked=1"><script>globalThis.hacked=1</script><b>bold</b>',
    "bidi": "safe \u202eevil\u2066 \u2067text",
    "long": "W" * 140,
    "emoji": "🔥👩‍👩‍👧‍👦🏳️‍🌈" * 9,
    "entities": "&lt;b&gt; &amp; &#x3C;",
    "right to left": "حريق في المبنى، ابتعدوا",
    "combining": "Z" + "\u0351\u0324" * 60,
}


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE], ids=["desktop", "phone"])
def test_text_is_text_whatever_it_says(url, show, publish, viewport):
    """Shown as it was sent, in a headline, a description and on the map; nothing of it runs or breaks the page."""
    shown = online(show(url, viewport=viewport))
    for text in HOSTILE.values():
        publish(headline=text, description=text)
    wait_until(lambda: shown.page.locator(f"{AFFECTING} li").count() == len(HOSTILE), "all cards")
    said = shown.page.evaluate("[...document.querySelectorAll('#affecting p')].map(p => p.textContent)")
    for text in HOSTILE.values():
        assert said.count(text) == 2
    assert shown.page.evaluate("globalThis.hacked") is None
    assert shown.page.locator("main :is(img, script, b:not(#fan-out-told))").count() == 0
    shown.page.locator(".chip").first.hover(force=True)
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.picture(f"map-hostile-{viewport['width']}", full_page=True)


def test_exercises_are_marked_as_such(url, show, publish):
    """In words, in the list, on the map's rim, and for those who listen."""
    shown = online(show(url))
    publish(headline="This is only a drill", status="exercise")
    shown.has(AFFECTING, "Exercise")
    assert "exercise, moderate, Burglary" in shown.text("#announce")


def test_an_alert_that_ends_leaves_the_page(url, show, publish):
    """By the server's clock, without a message."""
    shown = online(show(url))
    publish(headline="Short", expires_at=stamp(seconds=10))
    shown.has(AFFECTING, "Short")
    assert re.search(r"0:(0\d|10)", shown.text(AFFECTING))
    shown.has_not("main", "Short")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(url, show, publish, scheme, viewport):
    """Contrast, names, roles, in both themes and at both widths, with an alert of each severity."""
    for number, severity in enumerate(("extreme", "severe", "moderate", "minor")):
        publish(headline=f"{severity} here", severity=severity)
        publish(east_m=4000 + 1500 * number, headline=f"{severity} elsewhere", severity=severity)
    shown = online(show(url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce"))
    wait_until(lambda: shown.page.locator(f"{AFFECTING} li").count() == 4, "all cards")
    wait_until(lambda: shown.page.locator(f"{ELSEWHERE} li").count() == 4, "all rows")
    assert shown.violations() == []
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.picture(f"map-{scheme}-{viewport['width']}", full_page=True)


def test_the_theme_button_is_remembered(url, show):
    """Over page loads."""
    shown = online(show(url, color_scheme="light"))
    light = shown.page.evaluate("getComputedStyle(document.body).color")
    shown.page.locator("#theme").click()
    dark = shown.page.evaluate("getComputedStyle(document.body).color")
    assert dark != light
    shown.page.reload()
    assert shown.page.evaluate("getComputedStyle(document.body).color") == dark
    wait_until(lambda: shown.page.locator("#theme").get_attribute("aria-pressed") == "true", "the button says so")


def test_the_policy_of_the_page_is_strict_and_the_browser_enforces_it(url, show):
    """No inline script, no eval, no markup from strings, no other hosts."""
    shown = online(show(url))
    assert shown.answer
    headers = shown.answer.headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    for directive in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert directive in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    tried = shown.page.evaluate(
        """[() => { document.body.innerHTML = '<b>no</b>' }, () => new Worker('/map/map.js'), () => setTimeout('1')]
        .map((attempt) => { try { attempt(); return 'went through' } catch (error) { return error.name } })"""
    )
    assert "went through" not in tried
    shown.troubles = [trouble for trouble in shown.troubles if "Trusted" not in trouble]


def test_only_named_files_are_served_and_only_to_this_machines_name(url):
    """No way out of the folder, no way in for a stranger's name (DNS rebinding), and copies are asked about."""
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as http:
        page = http.get("/")
        assert page.status_code == 200
        assert http.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
        for path in ("/package.json", "/../cli.py", "/%2e%2e/cli.py", "/npm/maplibre-gl/package.json", "/geocast/"):
            answer = http.get(path)
            assert answer.status_code == 404, path
            assert "content-security-policy" in answer.headers
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
        assert http.post("/").status_code == 405


def test_a_style_with_streets_is_drawn_and_credited(node, serve, show, publish, style_url):
    """From its own origin, which the page's policy names and no other; the credit is text and links."""
    address = serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--lat", str(HOME[0]), "--lng", str(HOME[1])),
        *("--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", "--port", "0", "--style", style_url),
        GEOCAST_TOKEN=node.desk,
    ).url("map")
    publish(headline="On streets")
    shown = show(address)
    shown.has(".credits", "© Mappers")
    assert shown.page.locator(".credits a").get_attribute("href") == "https://maps.example/c"
    assert shown.page.locator(".credits img").count() == 0
    shown.has("#summary", "1 live alert")
    assert shown.answer
    origin = style_url.removesuffix("/style.json")
    policy = shown.answer.headers["content-security-policy"]
    assert f"connect-src 'self' ws://127.0.0.1:{node.stream_port} {origin};" in policy
    assert f"img-src 'self' data: blob: {origin};" in policy
    shown.picture("map-style")
    shown.page.goto("about:blank")  # it tries again and again, and so would have another trouble any moment
    shown.troubles = [trouble for trouble in shown.troubles if "WebSocket" not in trouble]  # not an allowed origin


# ---- honest, and legible -------------------------------------------------------------------------------------------


def test_a_median_is_one_of_several_and_there_is_no_percentile_of_few(url, show, publish):
    """One alert has a time, five have a median; what the server took is told from what the browser took."""
    shown = online(show(url))
    for number in range(5):
        publish(headline=f"Number {number}")
        shown.has(AFFECTING, f"Number {number}")
        shown.has(AFFECTING, "drawn")
        if number < 4:
            assert shown.text("#told-median") == "–"
    shown.has("#median-of", "median of 5")
    assert "%" not in shown.text(".readout")
    assert re.search(r"here (< )?\d+ ms after it was accepted, drawn \d+ ms later", shown.text(AFFECTING))


HIDES = """(() => {
    const box = (element) => element.getBoundingClientRect();
    const middle = (element) => {
        const { left, right, top, bottom, width } = box(element), rim = width / 4;
        return { left: left + rim, right: right - rim, top: top + rim, bottom: bottom - rim };
    };
    const hides = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    const chips = [...document.querySelectorAll(".chip")];
    const names = chips.map((chip) => chip.querySelector(".chip-text")).filter((name) => name.offsetWidth);
    const still = [...document.querySelectorAll(".legend, .maplibregl-ctrl-group")].map(box);
    const others = [...[...chips, document.getElementById("you")].map(middle), ...still];
    const hidden = names.flatMap((name) => others.filter((other) => hides(box(name), other)));
    const times = names.filter((name) => /min|:/.test(name.innerText));
    return { names: names.length, times: times.length, hidden: hidden.length };
})()"""


@pytest.mark.parametrize("viewport", [{"width": 1280, "height": 800}, PHONE], ids=["desktop", "phone"])
def test_no_name_hides_a_marker_and_none_repeats_a_time_that_is_far_off(url, show, publish, viewport):
    """Among alerts that lie close together; who has little time left says how much."""
    for number in range(8):
        publish(400 * (number % 3) - 400, 500 * number, headline="x", severity=("minor", "severe")[number % 2])
    shown = online(show(url, viewport=viewport))
    wait_until(lambda: shown.page.locator(".chip").count() == 8, "all of them on the map")
    shown.until(f"{HIDES}.names > 0 && {HIDES}.hidden === 0", "a name on the map, and none that hides anything")
    found = shown.page.evaluate(HIDES)
    assert (found["hidden"], found["times"]) == (0, 0)
    shown.picture(f"map-names-{viewport['width']}")
    publish(north_m=-3000, headline="Soon over", expires_at=stamp(minutes=5))
    shown.until(f"{HIDES}.times === 1", "one that says when it ends")


def test_the_map_explains_its_signs(url, show, publish):
    """What a ring is, and what a cell is where there are any."""
    shown = online(show(url))
    shown.has(".legend", "alert, and its time left")
    assert "phones" not in shown.text(".legend")  # nobody plays any here


def test_on_a_phone_the_alerts_come_first_and_nothing_is_said_of_keys(url, show, publish):
    """One sees what concerns oneself without scrolling, and it is below no button."""
    shown = online(show(url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True))
    publish(headline="At the top")
    shown.has(AFFECTING, "At the top")
    shown.has(AFFECTING, "drawn")  # its last line: it is as high as it will be
    card, button = (shown.box(each) for each in (f"{AFFECTING} li", "#locate"))
    assert card["y"] + card["height"] <= 844
    assert card["y"] < button["y"]
    assert "arrow keys" not in shown.text("body")
    assert "Drag the marker." in shown.text("#place-help")
    with_keys = online(show(url))
    assert "arrow keys" in with_keys.text("#place-help")


def test_without_its_streets_the_map_shows_its_alerts_all_the_same(node, serve, show):
    """A server of tiles that is away takes nothing but the streets."""
    address = serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--lat", str(HOME[0]), "--lng", str(HOME[1])),
        *("--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", "--port", "0"),
        *("--style", "http://127.0.0.1:9/style.json"),
        GEOCAST_TOKEN=node.desk,
    ).url("map")
    shown = show(address)
    shown.has("#notice", "The streets can’t be loaded.")
    shown.has("#credits", "Natural Earth")
    shown.context.close()  # or it tries again, and fails again
    shown.troubles = [each for each in shown.troubles if "WebSocket" not in each and "ERR_" not in each]


@pytest.mark.slow
def test_the_demos_map_shows_who_was_told_and_goes_on_until_it_is_stopped(serve, show):
    """Fan-outs in slow motion, a verdict, and the status of the verdict after Ctrl-C."""
    demo = serve("demo", "--seconds", "12", "--subscribers", "300", "--port", "0", "--stay")
    shown = online(show(demo.url("map")))
    shown.has("#fan-out-time", "of 300 simulated phones told")
    wait_until(lambda: int(shown.text("#fan-out-told")) > 0, "a fan-out")
    shown.has("#fan-out-note", "ms after the request to publish")
    shown.has(".legend", "phones, few to many")
    assert shown.page.locator("#simulated").is_visible()
    shown.picture("map-demo")
    demo.url("Map")  # behind the verdict
    shown.has_not("#summary", "0 live")
    shown.context.close()  # before what it talks to goes away
    _, status = demo.stop()
    assert status == 0


# ---- while the page is closed ----------------------------------------------------------------------------------------

# The browser's push service is the only part that is not there: its place has a subscription of the tests' own service.
SUBSCRIBED = """
const unsubscribe = async () => !void localStorage.removeItem("has");
const make = () => ({ toJSON: () => (SUBSCRIPTION), unsubscribe });
PushManager.prototype.getSubscription = async () => (localStorage.getItem("has") ? make() : null);
PushManager.prototype.subscribe = async () => { localStorage.setItem("has", "1"); return make(); };
"""


def _activated(event: Any) -> list[str]:
    """Which workers run now, by Chromium's own tools."""
    return [each["registrationId"] for each in event["versions"] if each["status"] == "activated"]


def test_a_page_that_is_closed_is_woken_by_its_worker(push, service, waking_url, show, publish):
    """The whole way: the button, a registration with a cell and no more, a push, and what the phone shows for it."""
    phone = service.phone()
    script = SUBSCRIBED.replace("SUBSCRIPTION", json.dumps(phone.subscription()))
    shown = online(show(waking_url, script=script, permissions=["notifications"], locale="en-GB"))
    activated: list[str] = []
    tools = shown.context.new_cdp_session(shown.page)
    tools.on("ServiceWorker.workerVersionUpdated", lambda event: activated.extend(_activated(event)))
    tools.send("ServiceWorker.enable")
    shown.has("#push-state", "not what")
    with shown.page.expect_request(lambda request: request.method == "PUT") as asked:
        shown.page.click("#push")
    said = asked.value.post_data_json
    assert said["places"] == [{"cell": cell(HOME, 8)}]
    assert said["subscription"] == phone.subscription()
    shown.has("#push-state", "On until")
    shown.picture("map-push")
    assert shown.violations() == []
    publish(headline="With the page open")
    shown.has(AFFECTING, "With the page open")
    service.until(lambda: len(phone.told) == 1)
    origin = shown.page.evaluate("location.origin")
    shown.page.goto("about:blank")
    publish(headline="With the page closed", severity="extreme")
    service.until(lambda: len(phone.told) == 2)
    wait_until(lambda: (shown.page.evaluate("1"), activated)[1], "the worker is there")
    for message in phone.told:
        pushed = {"origin": origin, "registrationId": activated[-1], "data": json.dumps(message)}
        tools.send("ServiceWorker.deliverPushMessage", pushed)
    shown.page.goto(waking_url)
    online(shown)
    told = "navigator.serviceWorker.ready.then((r) => r.getNotifications()).then((all) => all.map(({ body }) => body))"
    wait_until(lambda: any("With the page closed" in each for each in shown.page.evaluate(told)), "a notification")
    shown.has("#push-state", "On until")
    shown.page.click("#push")
    shown.has("#push", "Tell me")
    wait_until(lambda: push.metric("push_devices") == 0, "it is forgotten")


def test_a_browser_without_a_push_service_says_so_in_plain_words(waking_url, show):
    """Such as this one, which says it on its console, too."""
    shown = online(show(waking_url, permissions=["notifications"]))
    shown.page.click("#push")
    shown.has("#push-state", "This browser can’t be told: it has no push service, or can’t reach it.")
    assert shown.violations() == []
    shown.picture("map-no-push")
    shown.troubles[:] = [each for each in shown.troubles if "Push API" not in each]


def test_a_map_without_push_has_no_button(url, show):
    """Nothing of it is on the page."""
    shown = online(show(url))
    assert not shown.page.locator("#push").is_visible()
    assert shown.text("#push-state") == ""
