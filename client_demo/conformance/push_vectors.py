"""Test vectors, for `make_vectors`, about the notifications that phones show for pushes.

They check the rules WPC1 to WPC5 of docs/guide/push.md.
"""

from collections.abc import Iterator
from typing import Any

from . import approval_vectors as signed
from .call_vectors import MINUTE_MS, stamp
from .exact import Json

ENDS_MS = 45 * MINUTE_MS
HERE: Json = {"lat": 32.7767, "lng": -96.797}
ELSEWHERE: Json = {"lat": 32.79, "lng": -96.83}
AREA: list[Json] = [{"type": "circle", "lat": 32.77651106192115, "lng": -96.79535520104106, "radius_m": 1020.0}]
HEADLINE, TITLE = "Keep windows closed.", "Structure fire"
Story = list[Json]


# ---- messages ------------------------------------------------------------------------------------------------------


def alert(revision: int = 1, key: str = "a", *, at_ms: int = 0, ends_ms: int = ENDS_MS, **more: Any) -> Json:
    """Return an `alert` message that was pushed at a moment, given in ms after noon.

    With `cut`, it is a message that was too long for a push, so that only a part of it was pushed.
    """
    content: Json = {
        "id": key,
        "revision": revision,
        "category": "fire_structure",
        "title": TITLE,
        "headline": HEADLINE,
        "severity": "severe",
        "status": "actual",
        "issued_at": stamp(0),
        "expires_at": stamp(ends_ms),
    }
    if more.pop("cut", False):
        return {"now": stamp(at_ms), "type": "alert", "cut": True, "alert": content | more}
    rest = {"description": "Smoke.", "source": "desk-7", "occurred_at": stamp(0), "area": AREA}
    return {"now": stamp(at_ms), "type": "alert", "alert": content | rest | more}


def cancel(revision: int = 2, key: str = "a", *, at_ms: int = 0, reason: str | None = "The fire is out.") -> Json:
    """Return a `cancel` message for the alert with the id `key`, sent at a moment (in ms after noon)."""
    said = {} if reason is None else {"reason": reason}
    return {
        "now": stamp(at_ms),
        "type": "cancel",
        "id": key,
        "revision": revision,
        **said,
        "cancelled_at": stamp(at_ms),
    }


# ---- notifications ---------------------------------------------------------------------------------------------------


def shown(tag: str | None = "a", *text: str, sound: bool | None = False, **more: Any) -> Json:
    """Return an expected notification, in the format that the member `about` of the file explains."""
    return {"tag": tag, "sound": sound, "stays": False, "text": list(text), **more}


def news(tag: str = "a", *text: str, ends_ms: int = ENDS_MS, **more: Any) -> Json:
    """Return the expected notification, with a sound, for an alert that the person has not seen before."""
    said: dict[str, Any] = {"sound": True, "until": stamp(ends_ms), "outside": False, **more}
    return shown(tag, *(text or (TITLE, HEADLINE)), **said)


def step(what: str, message: object, shows: Json | None, opened: list[str], at_ms: int = 0, **more: Any) -> Json:
    """Return a step of a case. `opened` lists the alerts whose notifications must be open after the step."""
    return {"at": stamp(at_ms), what: message, **more, "shows": shows, "open": opened}


def push(message: Json, shows: Json, opened: list[str], at_ms: int = 0, **more: Any) -> Json:
    """Return a step of a case: a push arrives."""
    return step("push", message, shows, opened, at_ms, **more)


# ---- cases ---------------------------------------------------------------------------------------------------------


def revisions() -> Iterator[tuple[str, str, Story]]:
    """Yield cases about the sound of notifications, and about which notification replaces which."""
    first = push(alert(1), news(), ["a"])
    yield "WPC2", "the tag of a notification is the alert's id", [first]
    yield (
        "WPC3",
        "a revision replaces the notification, with sound",
        [first, push(alert(2, headline="More."), news("a", TITLE, "More."), ["a"])],
    )
    yield "WPC3", "a repeated push is shown again, without sound", [first, push(alert(1), news(sound=False), ["a"])]
    yield (
        "WPC3",
        "a push of a lower revision shows the held revision again, without sound",
        [
            push(alert(2, headline="More."), news("a", TITLE, "More."), ["a"]),
            push(alert(1), news("a", TITLE, "More.", sound=False), ["a"]),
        ],
    )
    yield (
        "WPC2",
        "two alerts have two notifications",
        [first, push(alert(1, "b", headline="Flood."), news("b", TITLE, "Flood."), ["a", "b"])],
    )
    extreme = alert(1, severity="extreme")
    yield "WPC3", "the notification of an extreme alert stays", [push(extreme, news(stays=True), ["a"])]
    yield (
        "WPC3",
        "a visible page shows the alert, so the notification has no sound",
        [push(alert(1), news(sound=False), ["a"], visible=True)],
    )
    yield (
        "WPC3",
        "an alert that a visible page has shown makes no sound later",
        [push(alert(1), news(sound=False), ["a"], visible=True), push(alert(1), news(sound=False), ["a"])],
    )


def shared() -> Iterator[tuple[str, str, Story]]:
    """Yield cases about alerts that the phone has already received over its WebSocket."""
    by_socket = step("socket", alert(1), None, [])
    yield (
        "WPC1",
        "the socket has delivered the same revision: no sound",
        [by_socket, push(alert(1), news(sound=False), ["a"])],
    )
    yield "WPC1", "the socket has delivered an earlier revision: sound", [by_socket, push(alert(2), news(), ["a"])]
    yield (
        "WPC1",
        "the socket has delivered a newer revision: the newer one is shown",
        [
            step("socket", alert(2, headline="More."), None, []),
            push(alert(1), news("a", TITLE, "More.", sound=False), ["a"]),
        ],
    )


def ends() -> Iterator[tuple[str, str, Story]]:
    """Yield cases about cancelled and ended alerts, and about closing their notifications."""
    first = push(alert(1), news(), ["a"])
    off = shown("a", "Called off", TITLE, "The fire is out.")
    yield (
        "WPC4",
        "a cancel replaces the alert's notification, with its reason and without sound",
        [first, push(cancel(), off, ["a"])],
    )
    yield (
        "WPC4",
        "a cancel without a reason",
        [first, push(cancel(reason=None), shown("a", "Called off", TITLE), ["a"])],
    )
    yield (
        "WPC4",
        "a cancel of an alert that is not held is shown too",
        [push(cancel(), shown("a", "Called off", "The fire is out."), ["a"])],
    )
    yield (
        "WPC4",
        "a cancel that is not newer than the held revision is ignored",
        [push(alert(2), news(), ["a"]), push(cancel(2), news(sound=False), ["a"])],
    )
    yield (
        "WPC4",
        "a cancelled alert does not come back",
        [
            first,
            push(cancel(), off, ["a"]),
            push(alert(1), shown("a", "Called off", TITLE), ["a"]),
            push(alert(1, "b"), news("b"), ["b"]),
        ],
    )
    yield (
        "WPC4",
        "the notification of a cancel is closed at the next push",
        [first, push(cancel(), off, ["a"]), push(alert(1, "b"), news("b"), ["b"])],
    )
    over = shown("a", "ended")
    late = ENDS_MS + MINUTE_MS
    yield (
        "WPC4",
        "an alert that ended before it came is shown as ended, without sound",
        [push(alert(1), over, ["a"], late)],
    )
    yield (
        "WPC4",
        "the notification of an alert that ended before it came is closed at the next push",
        [
            push(alert(1), over, ["a"], late),
            push(alert(1, "b", ends_ms=2 * ENDS_MS), news("b", ends_ms=2 * ENDS_MS), ["b"], late),
        ],
    )
    yield (
        "WPC5",
        "the notification of an ended alert is closed at the next push",
        [first, push(alert(1, "b", ends_ms=2 * ENDS_MS), news("b", ends_ms=2 * ENDS_MS), ["b"], late)],
    )
    yield (
        "WPC5",
        "the notification of an ended alert is closed when the app is opened",
        [first, step("opened", True, None, [], late)],
    )
    yield (
        "WPC5",
        "the notification of a live alert stays when the app is opened",
        [first, step("opened", True, None, ["a"], MINUTE_MS)],
    )


def words() -> Iterator[tuple[str, str, Story]]:
    """Yield cases about the text of a notification, and about clocks that are wrong."""
    yield (
        "WPC5",
        "the phone's clock is slow: by the later `now` of the push the alert has ended",
        [push(alert(1, at_ms=ENDS_MS), shown("a", "ended"), ["a"])],
    )
    yield (
        "WPC5",
        "a push is late: its earlier `now` does not set the clock back",
        [push(alert(1, at_ms=0), shown("a", "ended"), ["a"], ENDS_MS)],
    )
    yield "WPC5", "an exercise is named as such first", [push(alert(status="exercise"), news(first="exercise"), ["a"])]
    yield "WPC5", "a test is named as such first", [push(alert(status="test"), news(first="test"), ["a"])]
    text = "<b>Fire</b> & smoke: https://city.example"
    yield "WPC5", "markup is shown as plain text", [push(alert(headline=text), news("a", TITLE, text), ["a"])]
    spanish: dict[str, Any] = {"language": "es", "title": "Incendio", "headline": "Cierre las ventanas."}
    yield (
        "WPC5",
        "the notification has the language of the alert's words",
        [push(alert(**spanish), news("a", "Incendio", "Cierre las ventanas.", lang="es"), ["a"])],
    )


def rest() -> Iterator[tuple[str, str, Story]]:
    """Yield cases about alerts that can't be shown in full, and about messages that are not alerts."""
    cut = alert(cut=True)
    yield "WPC3", "a cut alert is shown with the members that it has", [push(cut, news(), ["a"])]
    yield (
        "WPC3",
        "a cut alert that comes again makes no sound",
        [push(cut, news(), ["a"]), push(cut, news(sound=False), ["a"])],
    )
    near = shown(None, sound=True)
    yield (
        "WPC5",
        "a push without an alert shows one notification without details",
        [push({"type": "fetch", "now": stamp(0)}, near, [])],
    )
    yield (
        "WPC2",
        "the end of a lease shows a notification too",
        [push({"type": "renew", "now": stamp(0), "until": stamp(72 * 60 * MINUTE_MS)}, shown(None, sound=None), [])],
    )
    yield "WPC2", "an unknown message shows a notification too", [push({"type": "later", "now": stamp(0)}, near, [])]


def notices() -> Json:
    """Return the content of the file `notices.json`."""
    cases: list[Json] = [
        {"rule": rule, "why": why, "places": [HERE], "steps": steps}
        for each in (revisions, shared, ends, words, rest)
        for rule, why, steps in each()
    ]
    outside = push(alert(), news(outside=True), ["a"])
    cases.append(
        {"rule": "WPC5", "why": "the phone's places are outside the area", "places": [ELSEWHERE], "steps": [outside]}
    )
    cases.append(
        {"rule": "WPC5", "why": "the phone has no place", "places": [], "steps": [push(alert(), news(), ["a"])]}
    )
    believed = signed.alert(signed.proof(signed.ALERT)) | {"now": stamp(0)}
    headline, key = signed.ALERT["headline"], signed.ALERT["id"]
    for why, message, shows, opened in (
        ("two reviewers have signed", believed, news(key, TITLE, headline), [key]),
        ("nobody has signed", alert(), shown(None, sound=True), []),
        (
            "one reviewer has signed",
            signed.alert(signed.proof(signed.ALERT, signed.sign(signed.text(signed.ALERT), signed.NINE))),
            shown(None, sound=True),
            [],
        ),
    ):
        steps = [push(message, shows, opened)]
        cases.append(
            {
                "rule": "WPC5",
                "why": f"a client that verifies: {why}",
                "places": [HERE],
                "verifies": True,
                "steps": steps,
            }
        )
    return {
        "about": "The notification that a phone shows for each push (docs/guide/push.md, WPC1 to WPC5). Each step "
        "happens `at` a time of the phone's own clock: a `push` arrives (with the app on the screen if `visible`), or "
        "the app's `socket` receives the same kind of message, or the app is `opened`. Then the phone `shows` this one "
        "notification, or none (null). Afterwards the notifications of the alerts in `open` are open. `tag`: null "
        "means any tag that is no alert's id. `sound`: whether the notification makes a sound, even if it replaces an "
        "open one; null allows both. `stays`: whether it stays until a person dismisses it. `text`: parts that title "
        "and body contain, in this order; clients may have other words for 'Called off' and 'ended'. `first`: the "
        "notification begins with the word for exercise or test. `until`: the body ends with this time, by the "
        "person's clock. `outside`: whether it says that the phone is not in the area. `lang`: the language of the "
        "alert's words. With `verifies` two reviewers must have signed.",
        "audience": signed.AUDIENCE,
        "reviewers": signed.approvals()["reviewers"],
        "cases": cases,
    }
