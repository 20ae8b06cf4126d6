"""Web Push in a real browser: what its worker shows for what is pushed (docs/reference/push-rules.md, "The client").

Headless Chromium has no push service. What one would deliver is handed to the worker by the browser's own tools;
worker, store and notifications are real. And where a page subscribes it is given a subscription of the stand-in, which
has what `geocast push` sends, and decrypts it.
"""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, alert, circle, ground, place, revision_of
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.tls import Certificate, make_certificate
from pages.conftest import Shown
from support.push_service import PushService

WEB = Path(__file__).parents[2] / "client_demo" / "web"
HOME = (32.7767, -96.797)
PAGE = "<!doctype html><title>App</title><link rel='icon' href='data:,'><main></main>"
# It counts what it is done with: Chromium forgets a notification if it is asked for all while it shows one. And it has
# them stay: Chromium takes others away after half a minute.
WORKER = """
import { handle } from "/geocast/geocast-push-sw.js";
self.done = 0;
const add = self.addEventListener.bind(self);
self.addEventListener = (name, listener) => add(name, (event) => {
  const wait = event.waitUntil.bind(event);
  event.waitUntil = (promise) => wait(promise.finally(() => self.done++));
  listener(event);
});
self.shown = [];
const show = registration.showNotification.bind(registration);
registration.showNotification = (title, options) => {
  self.shown.push({ title, ...options });
  return show(title, { ...options, requireInteraction: true });
};
handle(self, OPTIONS);
"""


class Files(http.server.SimpleHTTPRequestHandler):
    """The library, an empty page, and a worker."""

    server: Site

    def do_GET(self) -> None:
        """A page of the test, or a file."""
        found = self.server.pages.get(self.path)
        if found is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", found[0])
        self.end_headers()
        self.wfile.write(found[1].encode())

    def log_message(self, *_: object) -> None:
        """Not on the tests' output."""


class Site(http.server.ThreadingHTTPServer):
    """An app's web server."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Files, directory=str(WEB)))
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.pages = {"/": ("text/html", PAGE), "/sw.js": ("text/javascript", "")}
        self.has({})

    def has(self, options: Json) -> None:
        """The worker of the app, with further options."""
        worker = WORKER.replace("OPTIONS", json.dumps({"app": "/", "icon": "/icon.png"} | options))
        self.pages["/sw.js"] = ("text/javascript", worker)


@pytest.fixture
def site() -> Iterator[Site]:
    """It, for one test."""
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The stand-in's."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


class App:
    """A page of the app with its worker, and what the phone shows."""

    def __init__(self, shown: Shown, origin: str) -> None:
        self.shown, self.page, self.origin = shown, shown.page, origin
        self.cdp = shown.context.new_cdp_session(self.page)
        self.activated: list[str] = []
        self.cdp.on("ServiceWorker.workerVersionUpdated", self._updated)
        self.cdp.send("ServiceWorker.enable")

    def _updated(self, event: Any) -> None:
        self.activated += [each["registrationId"] for each in event["versions"] if each["status"] == "activated"]

    def install(self) -> None:
        """Have the worker run."""
        self.page.evaluate("""async () => {
            await navigator.serviceWorker.register("/sw.js", { type: "module" });
            await navigator.serviceWorker.ready;
        }""")
        self.ready()

    def ready(self) -> None:
        """Wait until the worker runs."""
        wait_until(self._is_there, "the worker is there")

    def _is_there(self) -> bool:
        self.page.evaluate("1")  # events come in while something is asked
        return bool(self.activated) and bool(self.shown.context.service_workers)

    def sleep(self) -> None:
        """No page of the app is open."""
        self.page.goto("about:blank")

    def push(self, message: Json | str) -> None:
        """Have the browser hand this to the worker, as a push service would, and wait until it is done with it."""
        done = self.worker("self.done")
        data = message if isinstance(message, str) else json.dumps(message)
        command = {"origin": self.origin, "registrationId": self.activated[-1], "data": data}
        self.cdp.send("ServiceWorker.deliverPushMessage", command)
        wait_until(lambda: self.worker("self.done") > done, "the worker is done")

    def worker(self, expression: str) -> Any:
        """What JavaScript says in the worker."""
        return self.shown.context.service_workers[0].evaluate(expression)

    def notifications(self) -> list[Json]:
        """What the phone shows, by tag, as the worker has shown it last."""
        found: list[Json] = self.worker("""async () => (await registration.getNotifications()).map(({ title, tag }) =>
            self.shown.findLast((each) => each.title === title && each.tag === tag))""")
        return sorted(found, key=lambda each: str(each["tag"]))

    def shows(self, *wanted: tuple[str, str]) -> list[Json]:
        """Wait until exactly these are there, as (tag, title); all of them."""

        def is_so() -> bool:
            return [(each["tag"], each["title"]) for each in self.notifications()] == sorted(wanted)

        try:
            wait_until(is_so, "the notifications")
        except AssertionError:
            raise AssertionError(f"wanted {sorted(wanted)}, there are {self.notifications()}") from None
        return self.notifications()


# What the browser has of a push service, in a page: the subscription of the stand-in's phone, until it is ended.
SUBSCRIBING = """
const subscription = SUBSCRIPTION;
const made = {
  toJSON: () => subscription,
  unsubscribe: async () => (localStorage.removeItem("subscribed"), true),
};
PushManager.prototype.getSubscription = async () => (localStorage.subscribed ? made : null);
PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
  localStorage.subscribed = applicationServerKey;
  return made;
};
"""


def opened(show: Callable[..., Shown], site: Site, subscription: Json | None = None) -> App:
    """The app, open, in a browser that may show notifications, and whose push service gives out this."""
    script = SUBSCRIBING.replace("SUBSCRIPTION", json.dumps(subscription))
    return App(show(f"{site.origin}/", permissions=["notifications"], locale="en-GB", script=script), site.origin)


@pytest.fixture
def app(show: Callable[..., Shown], site: Site) -> App:
    """The app, open, with its worker."""
    found = opened(show, site)
    found.install()
    return found


def alert_of(alert_id: str, **fields: Any) -> Json:
    """A push that tells of an alert at home."""
    alert = {
        "id": alert_id,
        "revision": 1,
        "category": "fire_structure",
        "title": "Structure fire",
        "headline": "Fire in a warehouse",
        "severity": "severe",
        "status": "actual",
        "source": "desk",
        "occurred_at": stamp(minutes=-1),
        "issued_at": stamp(),
        "expires_at": stamp(hours=1),
        "area": [circle(HOME, 1_000)],
    }
    return {"now": stamp(), "type": "alert", "alert": alert | fields}


def cancel_of(alert_id: str, revision: int, reason: str = "The fire is out.") -> Json:
    """A push that calls it off."""
    cancelled = {"id": alert_id, "revision": revision, "reason": reason, "cancelled_at": stamp()}
    return {"now": stamp(), "type": "cancel", **cancelled}


def test_a_revision_takes_the_place_of_an_alert_and_so_does_its_cancel(app: App):
    """WPC1, WPC2, WPC3, WPC4, WPM5: one notification for each push; what is known already is silent."""
    app.sleep()
    first = alert_of("a")
    app.push(first)
    [shown] = app.shows(("a", "Structure fire"))
    clock = "new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' })"
    until = app.worker(f"{clock}.format(new Date('{first['alert']['expires_at']}'))")
    assert (shown["silent"], shown["renotify"], shown["requireInteraction"]) == (False, True, False)
    assert shown["body"].startswith("Fire in a warehouse\nuntil ")
    assert shown["body"].endswith(until)
    app.push(alert_of("a", revision=2, severity="extreme", title="Large fire"))
    [shown] = app.shows(("a", "Large fire"))
    assert (shown["silent"], shown["renotify"], shown["requireInteraction"]) == (False, True, True)
    app.push(alert_of("a"))  # it was late
    app.push(alert_of("b"))
    [first, _] = app.shows(("a", "Large fire"), ("b", "Structure fire"))
    assert (first["silent"], first["renotify"]) == (True, False)
    app.push(cancel_of("a", 3))
    [first, _] = app.shows(("a", "Called off: Large fire"), ("b", "Structure fire"))
    assert (first["silent"], first["body"], first["requireInteraction"]) == (True, "The fire is out.", False)
    app.push(alert_of("c"))
    app.shows(("b", "Structure fire"), ("c", "Structure fire"))


def test_what_ends_is_taken_away_at_the_next_wake(app: App):
    """WPC4, WPC5: by the push's own `now`, if that is later; C3: a cancel of what is not held is told."""
    app.sleep()
    app.push(alert_of("short"))
    app.push(alert_of("long", expires_at=stamp(hours=9)))
    app.shows(("long", "Structure fire"), ("short", "Structure fire"))
    app.push(cancel_of("never heard of", 2) | {"now": stamp(hours=2)})
    ended = ("never heard of", "Called off: an alert near you")
    app.shows(("long", "Structure fire"), ended)
    app.push(alert_of("late", issued_at=stamp(hours=-1), expires_at=stamp(seconds=-1)))
    [late, _] = app.shows(("late", "An alert here has ended"), ("long", "Structure fire"))
    assert (late["silent"], late["body"]) == (True, "Structure fire")
    app.push(alert_of("never heard of"))  # older than its cancel, of which it says what that was about
    app.shows(("long", "Structure fire"), ("never heard of", "Called off: Structure fire"))


def test_a_notification_says_what_it_is_and_in_which_language(app: App):
    """WPC5: C6 first, C7 (no controls), the words around it in the alert's language; what was cut is told as well."""
    app.sleep()
    hostile = "Agua\u202e\n\u0007 <b>alta</b>"
    app.push(alert_of("es", status="exercise", title=hostile, language="es-MX", instruction="Suba."))
    [shown] = app.shows(("es", "SIMULACRO: Agua <b>alta</b>"))
    lines = shown["body"].split("\n")
    assert (shown["lang"], lines[:2], lines[2][:10]) == ("es-MX", ["Fire in a warehouse", "Suba."], "hasta las ")
    push = alert_of("cut")
    del push["alert"]["area"]
    for silent in (False, True):
        app.push(push | {"cut": True})
        [shown, _] = app.shows(("cut", "Structure fire"), ("es", "SIMULACRO: Agua <b>alta</b>"))
        assert shown["silent"] is silent


def test_what_cannot_be_read_is_told_all_the_same(app: App):
    """WPC2, WPC5: each push shows a notification, whatever it is."""
    app.sleep()
    for rubbish in (
        "rubbish",
        "",
        "[]",
        "null",
        '{"type": "later"}',
        '{"type": "alert"}',
        '{"type": "cancel", "id": 3}',
    ):
        app.push(rubbish)
        [shown] = app.shows(("geocast unknown", "There is an alert near you."))
        assert shown["body"] == "Open to see it."
        app.worker("async () => { for (const each of await registration.getNotifications()) each.close(); }")
        wait_until(lambda: app.notifications() == [], "it is closed")


def test_with_verify_a_worker_shows_what_reviewers_have_signed(show: Callable[..., Shown], site: Site):
    """WPC5: by C11 to C15; of what nobody has signed whose word counts there is not a word."""
    vectors = json.loads((WEB.parent / "conformance" / "vectors" / "approvals.json").read_text("utf-8"))
    messages = {case["why"]: case["message"] for case in vectors["cases"]}
    site.has({"verify": {"keys": vectors["reviewers"], "audience": vectors["audience"], "approvals": 2}})
    app = opened(show, site)
    app.install()
    app.sleep()
    unknown = ("geocast unknown", "There is an alert near you.")
    for bad in (alert_of("bare"), messages["moved after it was signed"], {"type": "fetch", "now": stamp()}):
        app.push(bad)
        app.shows(unknown)
    app.push({"now": stamp()} | messages["two have signed"])
    app.shows(unknown, ("desk-7.e3b0c442", "Structure fire"))
    app.push(messages["a cancel"])
    app.shows(unknown, ("desk-7.e3b0c442", "Called off: Structure fire"))


# ---- a page of the app -----------------------------------------------------------------------------------------------

OPENING = """async ([url, stream, token, place, cells]) => {
  const WebSocket = stream ? globalThis.WebSocket : class { send() {} close() {} }; // with no node it hears nothing
  const { Geocast } = await import("/geocast/geocast.js");
  const { Push } = await import("/geocast/geocast-push.js");
  const places = cells.map((cell) => ({ cell }));
  window.push = new Push({ url, stream: stream ?? undefined, token, worker: "/sw.js", places });
  window.problems = [];
  push.on("error", ({ code, message }) => problems.push(`${code}: ${message}`));
  window.geocast = new Geocast({
    url: stream ?? url.replace("http", "ws") + "/stream",
    storage: push.storage,
    token,
    places: [place],
    random: () => 0,
    WebSocket,
  });
  window.events = [];
  for (const name of ["alert", "update", "cancel"])
    geocast.on(name, ({ alert, cause }) => cause === "moved" || events.push(`${name} ${alert.id} ${alert.revision}`));
}"""


def test_what_a_visible_page_shows_is_silent(show: Callable[..., Shown], site: Site):
    """WPC1, WPC3: it is handed to the page, and heard there; the page and the worker hold the same from then on."""
    app = opened(show, site, {"endpoint": "https://push.example/1", "keys": {}})
    answers = {"GET": {"vapid": "B", "cells": [5, 9]}, "PUT": {"until": stamp(days=30), "secret": "s"}}
    app.shown.context.route("**/v1/**", lambda route: route.fulfill(json=answers[route.request.method]))
    opening = [f"{site.origin}/v1", None, "token", place(HOME), []]
    app.page.evaluate(OPENING, opening)
    assert app.page.evaluate("push.enable()")["state"] == "on"
    app.ready()
    app.push(alert_of("a"))
    [shown] = app.shows(("a", "Structure fire"))
    assert shown["silent"] is True
    app.push(alert_of("elsewhere", area=[circle((40, -100), 500)]))  # which this page does not show
    _, shown = app.shows(("a", "Structure fire"), ("elsewhere", "Structure fire"))
    assert shown["silent"] is False
    app.push(alert_of("a", revision=2))
    app.push(cancel_of("a", 3))
    assert app.page.evaluate("events") == ["alert a 1", "update a 2", "cancel a 2"]
    app.sleep()
    app.push(alert_of("b"))
    app.page.goto(site.origin)
    app.page.evaluate(OPENING, opening)
    held = "geocast.held().map(({ alert, affected }) => [alert.id, affected])"
    wait_until(lambda: len(app.page.evaluate(held)) == 2, "the page has what it held, and what the worker has told")
    assert app.page.evaluate(held) == [["b", True], ["elsewhere", False]]
    assert app.page.evaluate("events") == []


def test_two_that_change_the_store_at_once_do_so_one_after_the_other(app: App):
    """WPC1: each finds what the other has written, by connections of their own as page and worker have them."""
    total = app.page.evaluate("""async () => {
        const { Kept } = await import("/geocast/kept.js");
        const both = [new Kept(), new Kept()];
        const adding = Array.from({ length: 100 }, (_, at) => both[at % 2].change(["n"], (n) => [(n ?? 0) + 1]));
        await Promise.all(adding);
        return both[0].read("n");
    }""")
    assert total == 100


def test_an_alert_goes_from_a_node_by_push_to_a_notification(
    show: Callable[..., Shown], site: Site, certificate: Certificate, tmp_path: Path
):
    """WPC1, WPC2, WPC3, WPC6, WPM5: published, pushed, decrypted by the stand-in, shown by a browser, told once."""
    spot = ground()
    with (
        PushService(certificate) as service,
        Node(tmp_path, Keys(), "--origins", site.origin) as node,
        Push(node, service, options=("--origins", site.origin)) as push,
    ):
        phone = service.phone()
        app = opened(show, site, phone.subscription())
        stream = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
        opening = [f"http://127.0.0.1:{push.port}/v1", stream, push.token(), place(spot), [cell(spot)]]

        def come(number: int) -> Json:
            """The next push."""
            service.until(lambda: len(phone.told) == number)
            return phone.told[-1]

        app.page.evaluate(OPENING, opening)
        app.shown.until("push.state.state === 'off'", "it is off")
        assert app.page.evaluate("push.enable()").keys() == {"state", "until"}
        app.ready()
        app.shown.until("geocast.status.state === 'online'", "the page is online")
        first, second = alert(spot), alert(spot)
        node.publish(first)
        app.shown.until("events.length === 1", "the socket has told it")
        app.push(come(1))
        [shown] = app.shows((first["id"], phone.told[0]["alert"]["title"]))
        assert shown["silent"] is True
        app.sleep()
        node.publish(second)
        app.push(come(2))
        assert [each["silent"] for each in app.notifications() if each["tag"] == second["id"]] == [False]
        node.revise(revision_of(second, 2))
        app.push(come(3))
        node.cancel(first["id"], 2)
        app.push(come(4))
        titles = {each["tag"]: each["title"] for each in app.notifications()}
        assert titles[first["id"]].startswith("Called off: ")
        app.page.goto(site.origin)
        app.page.evaluate(OPENING, opening)
        app.shown.until("geocast.status.state === 'online' && push.state.state === 'on'", "both are back")
        assert app.page.evaluate("geocast.held().map(({ alert }) => [alert.id, alert.revision])") == [[second["id"], 2]]
        assert app.page.evaluate("events") == []
        assert app.page.evaluate("problems") == []
        assert push.metric("push_devices") == 1
        assert app.page.evaluate("push.disable()") == {"state": "off"}
        assert push.metric("push_devices") == 0
        assert app.notifications() == []
        push.assert_no_surprise()
    assert service.wrong == []
