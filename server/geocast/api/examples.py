"""The examples in the OpenAPI document: request bodies that this node accepts unchanged, and its answers to them.

The examples use the current minute and a category of the current policy. In the order of the document they show the
life of one alert. Sending them does no harm: their status is `test`, so no ordinary subscriber receives them (rule R6).
Within one minute the examples stay the same, so sending one twice only repeats the first request (rule H3).
"""

from typing import Any

from ..model.alert import Circle
from ..model.times import format_time
from ..policy import Category, Policy
from ..policy.confirmation import covered_km2

STEP_MS = 60_000  # the examples change once per minute
LAT, LNG, RADIUS_M = 32.7767, -96.797, 800
PUBLISHED = {"lat": 32.77651106192115, "lng": -96.79535520104106}  # the centre of the cell of (LAT, LNG) (B1)
WIDER_M = 220  # added to the radius, because the centre has moved (B2)

Named = dict[str, dict[str, Any]]


def examples(policy: Policy, now_ms: int) -> dict[str, Named]:
    """Return the OpenAPI examples of all models: name of the model -> name of the example -> OpenAPI Example Object."""
    key, category = max(policy.categories.items(), key=lambda item: item[1].max_age_s - item[1].min_life_s)
    began_ms = now_ms - now_ms % STEP_MS
    began, ends = format_time(began_ms), format_time(began_ms + category.lasting.max_age_ms)
    approval = {"reviewer": "desk-7", "approved_at": began}
    least = {
        "id": f"test-{began[:16]}",
        "category": key,
        "headline": "This is a test. Nothing has happened.",
        "severity": "minor",
        "status": "test",
        "threat": "community",
        "occurred_at": began,
        "area": _circle(category),
        "approval": approval,
    }
    most = {
        **least,
        "id": f"{least['id']}-2",
        "description": "Two circles, and an end of its own.",
        "expires_at": ends,
        "area": [_circle(category), _circle(category, 0.02)],
    }
    revision = {**least, "revision": 2, "headline": "This is a test. Still nothing has happened."}
    cancel = {"revision": 3, "reason": "The test is over.", "approval": approval}
    return {
        "AlertRequest": _named(("what is needed", least), ("every field", most)),
        "RevisionRequest": _named(("the next revision", revision)),
        "CancelRequest": _named(("the end", cancel)),
        "Policy": _named(
            ("one category", policy.model_copy(update={"categories": {key: category}}).model_dump(exclude_none=True))
        ),
        **_answers(least, category, began, ends),
        **_calls(policy, began_ms),
    }


_OF_PATHS = {"alert_id": "AlertRequest", "call_id": "CallRequest"}


def example_id(named: dict[str, Named], parameter: str) -> str | None:
    """Return the example value of the path parameter `alert_id` or `call_id`; None for other parameters."""
    model = named.get(_OF_PATHS.get(parameter, ""))
    return None if model is None else str(model["what is needed"]["value"]["id"])


def _circle(category: Category, north: float = 0.0) -> dict[str, Any]:
    radius_m = min(max(RADIUS_M, category.min_radius_m), category.max_radius_m)
    return {"type": "circle", "lat": LAT + north, "lng": LNG, "radius_m": radius_m}


def _answers(sent: dict[str, Any], category: Category, began: str, ends: str) -> dict[str, Named]:
    area = [{**_circle(category), **PUBLISHED}]
    area[0]["radius_m"] += WIDER_M
    circles = [Circle(each["lat"], each["lng"], each["radius_m"]) for each in area]
    accepted = {"id": sent["id"], "revision": 1, "issued_at": began, "expires_at": ends, "area": area}
    dry_run = {"id": sent["id"], "expires_at": ends, "area": area, "reach": {"area_km2": covered_km2(circles)}}
    kept = {name: value for name, value in sent.items() if name not in ("approval", "threat")}
    alert = {**kept, **accepted, "title": category.title, "source": "desk-7"}
    delivery = {"sent": 5200, "acked": 4800, "pushed": 1300, "rounded": True}
    return {
        "AcceptedOut": _named(("accepted", accepted), ("dry run", dry_run)),
        "CancelledOut": _named(("cancelled", {"id": sent["id"], "revision": 3, "cancelled_at": began})),
        "StateOut": _named(("live", {"state": "live", "alert": alert, "delivery": delivery})),
        "LiveOut": _named(("one alert", {"alerts": [alert]})),
    }


def _calls(policy: Policy, began_ms: int) -> dict[str, Named]:
    """Return the examples about one call for help, which has the status `test`.

    Return an empty dict if the policy has no calls.
    """
    if not policy.calls:
        return {}
    key, category = max(policy.calls.items(), key=lambda item: item[1].max_age_s)
    began, ends = format_time(began_ms), format_time(began_ms + category.max_age_s * 1000)
    public = {"lat": LAT, "lng": LNG, "kind": "public"}
    least = {
        "id": f"test-call-{began[:16]}",
        "category": key,
        "headline": "This is a test. Nobody needs help.",
        "status": "test",
        "occurred_at": began,
        "place": public,
    }
    told = {"address": "1500 Marilla St", "access": "Side door.\n3rd floor.", "callback_phone": "+1 214 555 0112"}
    place = {**public, "kind": "residence", **told}
    most = {**least, "id": f"{least['id']}-2", "expires_at": ends, "place": place}
    content = {**least, "replaces": 1, "headline": "This is a test. Still nobody needs help."}
    near = {"type": "circle", **PUBLISHED, "radius_m": float(WIDER_M)}
    accepted = {"id": least["id"], "revision": 1, "issued_at": began, "expires_at": ends, "near": near}
    kept = {name: value for name, value in least.items() if name != "place"}
    shown = {**kept, **accepted, "title": category.title, "source": "cad-3", "answer_s": category.answer_s}
    seats = [{"seat": 1, "role": "cpr", "responder": "r-51c0", "state": "going", "accepted_at": began, "eta_s": 240}]
    state = {"state": "ringing", "content": 1, "call": shown, "ring_m": category.rings_m[0], "rung": 9, "seen": 6}
    state |= {"declined": 2, "seats": seats}
    return {
        "CallRequest": _named(("what is needed", least), ("every field", most)),
        "ContentRequest": _named(("a correction", content)),
        "EndRequest": _named(("the end", {"reason": "The test is over."})),
        "CallAcceptedOut": _named(("accepted", accepted)),
        "CallEndedOut": _named(("ended", {"id": least["id"], "revision": 3, "ended_at": began})),
        "CallStateOut": _named(("ringing", state)),
        "CallsOut": _named(("one call", {"calls": [state]})),
    }


def _named(*examples: tuple[str, Any]) -> Named:
    return {name: {"value": value} for name, value in examples}
