"""Tests of Web Push in a real browser: what the service worker shows for pushes (docs/reference/push-rules.md).

Headless Chromium has no push service, so the browser's developer tools hand pushes to the worker. The worker, its
storage and the notifications are real. A page that subscribes gets a subscription of the demo's push service, which
receives and decrypts the pushes of `geocast push`.
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

NEEDS_NOTIFICATIONS = True
WEB = Path(__file__).parents[2] / "client_demo" / "web"
HOME = (32.7767, -96.797)
PAGE = "<!doctype html><title>App</title><link rel='icon' href='data:,'><main></main>"
# The worker counts finished events, because Chromium loses a notification if all notifications are listed while
# another one is being shown. The worker's notifications require interaction, because Chromium removes others after half
# a minute.
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
    """A handler that serves the library, an empty page and a worker."""

    server: Site

    def do_GET(self) -> None:
        """Serve a page of the test, or a file."""
        found = self.server.pages.get(self.path)
        if found is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", found[0])
        self.end_headers()
        self.wfile.write(found[1].encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Site(http.server.ThreadingHTTPServer):
    """The web server of an app."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Files, directory=str(WEB)))
        self.origin = f"http://127.0.0.1:{self.server_port}"
        self.pages = {"/": ("text/html", PAGE), "/sw.js": ("text/javascript", "")}
        self.has({})

    def has(self, options: Json) -> None:
        """Set the worker of the app, with further options."""
        worker = WORKER.replace("OPTIONS", json.dumps({"app": "/", "icon": "/icon.png"} | options))
        self.pages["/sw.js"] = ("text/javascript", worker)


@pytest.fixture
def site() -> Iterator[Site]:
    """Return the web server of one test."""
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return the certificate of the push service."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


class App:
    """A page of the app with its worker and notifications."""

    def __init__(self, shown: Shown, origin: str) -> None:
        self.shown, self.page, self.origin = shown, shown.page, origin
        self.cdp = shown.context.new_cdp_session(self.page)
        self.activated: list[str] = []
        self.cdp.on("ServiceWorker.workerVersionUpdated", self._updated)
        self.cdp.send("ServiceWorker.enable")

    def _updated(self, event: Any) -> None:
        self.activated += [each["registrationId"] for each in event["versions"] if each["status"] == "activated"]

    def install(self) -> None:
        """Register the worker and wait until it runs."""
        self.page.evaluate("""async () => {
            await navigator.serviceWorker.register("/sw.js", { type: "module" });
            await navigator.serviceWorker.ready;
        }""")
        self.ready()

    def ready(self) -> None:
        """Wait until the worker runs."""
        wait_until(self._is_there, "the worker is there")

    def _is_there(self) -> bool:
        self.page.evaluate("1")  # events arrive only during a request
        return bool(self.activated) and bool(self.shown.context.service_workers)

    def sleep(self) -> None:
        """Leave the page, so that none of the app is open."""
        self.page.goto("about:blank")

    def push(self, message: Json | str) -> None:
        """Deliver a push to the worker through the browser, and wait until it is handled."""
        done = self.worker("self.done")
        data = message if isinstance(message, str) else json.dumps(message)
        command = {"origin": self.origin, "registrationId": self.activated[-1], "data": data}
        self.cdp.send("ServiceWorker.deliverPushMessage", command)
        wait_until(lambda: self.worker("self.done") > done, "the worker is done")

    def worker(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the worker."""
        return self.shown.context.service_workers[0].evaluate(expression)

    def notifications(self) -> list[Json]:
        """Return the open notifications sorted by tag, with the options last given to each."""
        found: list[Json] = self.worker("""async () => (await registration.getNotifications()).map(({ title, tag }) =>
            self.shown.findLast((each) => each.title === title && each.tag === tag))""")
        return sorted(found, key=lambda each: str(each["tag"]))

    def shows(self, *wanted: tuple[str, str]) -> list[Json]:
        """Wait until exactly these (tag, title) pairs are open, and return the notifications."""

        def is_so() -> bool:
            return [(each["tag"], each["title"]) for each in self.notifications()] == sorted(wanted)

        try:
            wait_until(is_so, "the notifications")
        except AssertionError:
            raise AssertionError(f"wanted {sorted(wanted)}, there are {self.notifications()}") from None
        return self.notifications()


# Replaces the browser's push service in a page: subscribing returns the subscription of a phone that is registered with
# the tests' own push service.
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
    """Open the app in a browser that allows notifications and gives out this subscription."""
    script = SUBSCRIBING.replace("SUBSCRIPTION", json.dumps(subscription))
    return App(show(f"{site.origin}/", permissions=["notifications"], locale="en-GB", script=script), site.origin)


@pytest.fixture
def app(show: Callable[..., Shown], site: Site) -> App:
    """Return the open app with its worker."""
    found = opened(show, site)
    found.install()
    return found


def alert_of(alert_id: str, **fields: Any) -> Json:
    """Return a push with an alert at home."""
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
    """Return a push that cancels an alert."""
    cancelled = {"id": alert_id, "revision": revision, "reason": reason, "cancelled_at": stamp()}
    return {"now": stamp(), "type": "cancel", **cancelled}


def test_revision_and_cancel_replace_the_notification_of_their_alert(app: App):
    """Each push shows one notification, and a known revision is silent (rules WPC1, WPC2, WPC3, WPC4)."""
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
    app.push(alert_of("a"))  # a late older revision
    app.push(alert_of("b"))
    [first, _] = app.shows(("a", "Large fire"), ("b", "Structure fire"))
    assert (first["silent"], first["renotify"]) == (True, False)
    app.push(cancel_of("a", 3))
    [first, _] = app.shows(("a", "Called off: Large fire"), ("b", "Structure fire"))
    assert (first["silent"], first["body"], first["requireInteraction"]) == (True, "The fire is out.", False)
    app.push(alert_of("c"))
    app.shows(("b", "Structure fire"), ("c", "Structure fire"))


def test_notification_of_an_expired_alert_is_removed_at_the_next_push(app: App):
    """The push's own `now` counts if it is later (rules WPC4, WPC5).

    The cancel of an unknown alert is shown (rule C3).
    """
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
    app.push(alert_of("never heard of"))  # older than its cancel, whose notification it completes
    app.shows(("long", "Structure fire"), ("never heard of", "Called off: Structure fire"))


def test_notification_shows_the_status_in_the_language_of_the_alert(app: App):
    """The status comes first (rule C6), and control codes are removed (rule C7).

    The wording follows the alert's language; a shortened alert is shown too (rule WPC5).
    """
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


def test_unreadable_push_shows_a_placeholder_notification(app: App):
    """Each push shows a notification (rules WPC2, WPC5)."""
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


def test_service_worker_that_verifies_shows_only_signed_alerts(show: Callable[..., Shown], site: Site):
    """No text of an unverified alert is shown (rules WPC5, C11 to C15)."""
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
    app.push({"now": stamp()} | messages["two reviewers have signed"])
    app.shows(unknown, ("desk-7.e3b0c442", "Structure fire"))
    app.push(messages["a cancel"])
    app.shows(unknown, ("desk-7.e3b0c442", "Called off: Structure fire"))


# ---- a page that registers for push ----------------------------------------------------------------------------------

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


def test_notification_is_silent_if_a_visible_page_shows_the_alert(show: Callable[..., Shown], site: Site):
    """The service worker hands the alert to the page. From then on, both know the same alerts (rules WPC1, WPC3)."""
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
    app.push(alert_of("elsewhere", area=[circle((40, -100), 500)]))  # this page does not show it
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


def test_concurrent_changes_of_the_browsers_store_are_serialized(app: App):
    """Page and worker have their own connections, and each reads the other's writes (rule WPC1)."""
    total = app.page.evaluate("""async () => {
        const { Kept } = await import("/geocast/kept.js");
        const both = [new Kept(), new Kept()];
        const adding = Array.from({ length: 100 }, (_, at) => both[at % 2].change(["n"], (n) => [(n ?? 0) + 1]));
        await Promise.all(adding);
        return both[0].read("n");
    }""")
    assert total == 100


def test_published_alert_is_pushed_and_shown_as_a_notification(
    show: Callable[..., Shown], site: Site, certificate: Certificate, tmp_path: Path
):
    """An alert is published, pushed, decrypted and shown once (rules WPC1, WPC2, WPC3, WPC6)."""
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
            """Return the push with this number."""
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
