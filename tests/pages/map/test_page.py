"""Tests of the live map's page in a real browser: hostile text, widths, themes, map styles, and the demo's map."""

import contextlib

import httpx
import playwright.sync_api
import pytest
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.wire import PATIENCE
from pages.conftest import DESKTOP, PHONE
from pages.map.tools import AFFECTING, ELSEWHERE, HOME, online

HOSTILE = {
    "markup": '<img src=x onerror="globalThis.hacked=1"><script>globalThis.hacked=1</script><b>bold</b>',
    "bidi": "safe \u202eevil\u2066 \u2067text",
    "long": "W" * 140,
    "emoji": "🔥👩‍👩‍👧‍👦🏳️‍🌈" * 9,
    "entities": "&lt;b&gt; &amp; &#x3C;",
    "right to left": "حريق في المبنى، ابتعدوا",
    "combining": "Z" + "\u0351\u0324" * 60,
}


def test_markup_in_an_alert_is_shown_as_plain_text(url, show, publish):
    """Headline, description and map show the markup as it was sent. No script runs, and the page stays intact."""
    shown = online(show(url))
    for text in HOSTILE.values():
        publish(headline=text, description=text)
    wait_until(lambda: shown.page.locator(f"{AFFECTING} li").count() == len(HOSTILE), "all cards")
    said = shown.page.evaluate("[...document.querySelectorAll('#affecting p')].map(p => p.textContent)")
    for text in HOSTILE.values():
        assert said.count(text) == 2
    assert shown.page.evaluate("globalThis.hacked") is None
    assert shown.page.locator("main :is(img, script, b:not(#fan-out-told))").count() == 0
    for viewport in (DESKTOP, PHONE):
        shown.page.set_viewport_size(viewport)
        shown.page.locator(".chip").first.hover(force=True)
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown.picture(f"map-hostile-{viewport['width']}", full_page=True)


def test_button_sends_the_person_one_test_and_then_says_when_the_next_may_come(url, show):
    """TR1 and TR5: the test is a card marked as a test."""
    shown = online(show(url))
    shown.page.locator("#try").click()
    wait_until(lambda: shown.page.locator(f"{AFFECTING} li").count() == 1, "the card of the test")
    assert "test" in shown.page.locator(f"{AFFECTING} li").inner_text().lower()
    shown.page.locator("#try").click()
    wait_until(lambda: "within the last hour" in shown.page.locator("#notice").inner_text(), "the wait is said")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_map_page_has_no_wcag_violations(url, show, publish, scheme):
    """axe-core checks both themes and widths, with an alert of each severity."""
    for number, severity in enumerate(("extreme", "severe", "moderate", "minor")):
        publish(headline=f"{severity} here", severity=severity)
        publish(east_m=4000 + 1500 * number, headline=f"{severity} elsewhere", severity=severity)
    shown = online(show(url, color_scheme=scheme, reduced_motion="reduce"))
    wait_until(lambda: shown.page.locator(f"{AFFECTING} li").count() == 4, "all cards")
    wait_until(lambda: shown.page.locator(f"{ELSEWHERE} li").count() == 4, "all rows")
    for viewport in (DESKTOP, PHONE):
        shown.page.set_viewport_size(viewport)
        assert shown.violations() == []
        assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown.picture(f"map-{scheme}-{viewport['width']}", full_page=True)


def test_chosen_theme_is_remembered_after_a_reload(url, show):
    """The chosen theme survives a reload."""
    shown = online(show(url, color_scheme="light"))
    light = shown.page.evaluate("getComputedStyle(document.body).color")
    shown.page.locator("#theme").click()
    dark = shown.page.evaluate("getComputedStyle(document.body).color")
    assert dark != light
    shown.page.reload()
    assert shown.page.evaluate("getComputedStyle(document.body).color") == dark
    wait_until(lambda: shown.page.locator("#theme").get_attribute("aria-pressed") == "true", "the button says so")


def test_content_security_policy_is_strict_and_enforced(url, show):
    """Inline scripts, eval, markup from strings and other hosts are refused."""
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


def test_only_files_of_the_page_are_served_and_foreign_host_names_are_refused(url):
    """Foreign host names mean DNS rebinding. Cached files are revalidated."""
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


def test_configured_map_style_is_drawn_with_its_attribution(node, serve, show, publish, style_url):
    """The page's policy allows only the style's origin, and the attribution is text and links."""
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
    shown.page.goto("about:blank")  # leave the page, which would keep retrying and log further errors
    shown.troubles = [trouble for trouble in shown.troubles if "WebSocket" not in trouble]  # its origin is not allowed


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


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_label_of_an_alert_hides_no_marker_and_shows_time_only_near_its_end(url, show, publish, viewport):
    """The alerts lie close together, and an alert that ends soon shows the time left."""
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


def test_legend_explains_the_map_and_push_button_is_hidden_if_unavailable(url, show):
    """The legend explains circles, and cells only where there are any."""
    shown = online(show(url))
    shown.has(".legend", "alert, and its time left")
    assert "phones" not in shown.text(".legend")  # there are no simulated phones here
    assert not shown.page.locator("#push").is_visible()
    assert shown.text("#push-state") == ""


def test_phone_shows_alerts_first_and_no_keyboard_help(url, show, publish):
    """Alerts that concern the person are visible without scrolling, above the buttons."""
    shown = online(show(url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True))
    publish(headline="At the top")
    shown.has(AFFECTING, "At the top")
    shown.has(AFFECTING, "reached you in")  # the card's last line, so its height is final
    card, button = (shown.box(each) for each in (f"{AFFECTING} li", "#locate"))
    assert card["y"] + card["height"] <= 844
    assert card["y"] < button["y"]
    assert "arrow keys" not in shown.text("body")
    assert "Drag the marker." in shown.text("#place-help")
    with_keys = online(show(url))
    assert "arrow keys" in with_keys.text("#place-help")


def test_map_shows_alerts_although_the_street_map_is_unavailable(node, serve, show):
    """An unavailable tile server removes only the streets."""
    address = serve(
        *("map", "--api", f"http://127.0.0.1:{node.api_port}", "--lat", str(HOME[0]), "--lng", str(HOME[1])),
        *("--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", "--port", "0"),
        *("--style", "http://127.0.0.1:9/style.json"),
        GEOCAST_TOKEN=node.desk,
    ).url("map")
    shown = show(address)
    shown.has("#notice", "The streets can’t be loaded.")
    shown.has("#credits", "Natural Earth")
    shown.context.close()  # otherwise the page would retry and fail again
    shown.troubles = [each for each in shown.troubles if "WebSocket" not in each and "ERR_" not in each]


@pytest.mark.slow
def test_demo_map_shows_recipients_until_it_is_stopped(serve, show):
    """The demo shows fan-outs in slow motion and a verdict, and exits with the verdict's status after Ctrl-C."""
    demo = serve("demo", "--seconds", "12", "--subscribers", "300", "--port", "0", "--stay")
    pager = show(demo.url("responder's page, for you"), viewport=PHONE)
    pager.page.locator("#duty").click()
    demo_map = demo.url("map")
    shown = online(show(demo_map))
    shown.has("#fan-out-time", "of 300 simulated phones told")
    wait_until(lambda: int(shown.text("#fan-out-told")) > 0, "a fan-out")
    shown.has("#fan-out-note", "ms after it was published")
    shown.has(".legend", "phones, few to many")
    assert shown.page.locator("#simulated").is_visible()
    shown.picture("map-demo")
    assert demo.url("live map") == demo_map  # printed after the verdict
    shown.has_not("#summary", "0 live")
    for _ in range(4):  # on a slow machine the visitor may click when the seats are taken; the next call comes soon
        pager.has("#calls", "Cardiac arrest: CPR needed")
        with contextlib.suppress(playwright.sync_api.Error):
            # Not `click`, which on a busy machine may wait for ever until the page, drawn each second, stands still.
            pager.page.get_by_role("button", name="I am going").first.evaluate(
                "button => button.click()", timeout=5_000
            )
        wait_until(lambda: "Demo door code 80417" in pager.text("#calls") or not pager.text("#calls"), "an answer")
        if "Demo door code 80417" in pager.text("#calls"):
            break
    else:
        raise AssertionError("no seat was kept for the visitor")
    for each in (shown, pager):
        each.context.close()  # close the pages before their servers
    assert demo.stop() == 0


def test_visitor_may_tell_the_server_nothing_about_the_place(url, show, publish, node):
    """The page opens no connection, also after a reload, and its requests are the same for all (rules PF6 and DP29)."""
    publish(headline="before")
    shown = online(show(url))
    cards = shown.page.locator(f"{AFFECTING} li")
    wait_until(lambda: cards.count() == 1, "the first card")
    sockets, requests = [], []
    shown.page.on("websocket", lambda socket: sockets.append(socket.url))
    shown.page.on(
        "request", lambda request: requests.append(request) if request.url.startswith(node.feed_url) else None
    )
    shown.page.check("#secret")
    shown.until("document.querySelector('#status').textContent.startsWith('Up to 36 s late')", "the feed is followed")
    wait_until(lambda: "geocast_sessions 0" in node.api.get("/metrics").text, "the node knows no place")
    shown.page.reload()
    shown.until("document.querySelector('#status').textContent.startsWith('Up to 36 s late')", "the feed is followed")
    assert cards.count() == 1
    publish(headline="after")

    def is_told():
        shown.page.evaluate("dispatchEvent(new Event('pageshow'))")  # the page comes to the front
        return cards.count() == 2

    wait_until(is_told, "the alert of the feed")
    assert sockets == []
    assert {request.url for request in requests} == {f"{node.feed_url}/v1/alerts.geojson"}
    for request in requests:
        assert not any(request.header_value(name) for name in ("cookie", "authorization", "referer"))
    shown.page.uncheck("#secret")
    shown.until("document.querySelector('#status').textContent === 'Live'", "the page is connected again")
    assert len(sockets) == 1
    assert cards.count() == 2
