"""Tests of Web Push on the live map in a real browser, with the page open and closed."""

import json
from typing import Any

from end_to_end.kit.push import cell
from end_to_end.kit.times import wait_until
from pages.map.tools import AFFECTING, HOME, online

NEEDS_NOTIFICATIONS = True

# Only the browser's push service is replaced: pages get a subscription of the tests' own push service.
SUBSCRIBED = """
const unsubscribe = async () => !void localStorage.removeItem("has");
const make = () => ({ toJSON: () => (SUBSCRIPTION), unsubscribe });
PushManager.prototype.getSubscription = async () => (localStorage.getItem("has") ? make() : null);
PushManager.prototype.subscribe = async () => { localStorage.setItem("has", "1"); return make(); };
"""


def _activated(event: Any) -> list[str]:
    """Return the ids of the workers that Chromium reports as activated."""
    return [each["registrationId"] for each in event["versions"] if each["status"] == "activated"]


def test_push_to_a_closed_page_is_shown_as_a_notification(push, service, waking_url, show, publish):
    """The button registers only a cell; a push arrives and is shown as a notification."""
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


def test_browser_without_a_push_service_shows_a_clear_message(waking_url, show):
    """Headless Chromium has no push service, and also logs that on its console."""
    shown = online(show(waking_url, permissions=["notifications"]))
    shown.page.click("#push")
    shown.has("#push-state", "This browser can’t be told: it has no push service, or can’t reach it.")
    assert shown.violations() == []
    shown.picture("map-no-push")
    shown.troubles[:] = [each for each in shown.troubles if "Push API" not in each]
