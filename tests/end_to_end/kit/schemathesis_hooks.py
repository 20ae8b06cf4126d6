"""Hooks that give schemathesis facts that the API document cannot express: the time, and the policy's limits.

`st run` loads this module through SCHEMATHESIS_HOOKS, in its own process.
"""

import datetime as dt
import itertools
import unicodedata
from typing import Any

import schemathesis
from schemathesis import GenerationMode

ILL_FORMED = {"/problems/missing-field", "/problems/unknown-field", "/problems/invalid-value"}


def stamp(seconds: int) -> str:
    """Return the time `seconds` from now."""
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


OCCURRED_AT, EXPIRES_AT = stamp(-60), stamp(1800)  # a revision keeps `occurred_at`, and may not end earlier
RING = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.77]]
EVEN = ("0", "2", "4", "6", "8")
numbers = itertools.count(1)
current: dict[str, int] = {}  # id -> the revision that was accepted last
CALLS = "/v1/calls"


def is_positive(case: Any) -> bool:
    """Return whether the whole request conforms to the document."""
    return case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE


def shapes_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the shapes of a request; a cancel has none."""
    area = body.get("area", [])
    return area if isinstance(area, list) else [area]


def becomes_a_call(case: Any, body: dict[str, Any]) -> None:
    """Change a valid request about a call into one that the policy allows and that replaces the current content."""
    if "place" not in body:
        return  # a request that ends the call
    body |= {"occurred_at": OCCURRED_AT, "category": "cardiac_arrest", "status": "actual"}
    body.pop("expires_at", None)
    body["place"]["kind"] = "public"
    if "replaces" in body:
        body.pop("id", None)
        body["replaces"] = current.get(case.path_parameters["call_id"], 1)
    else:
        body["id"] = f"call-{next(numbers)}"


def readable(value: Any) -> Any:
    """Return the value with a letter in place of each character that L2 refuses and that no pattern can describe."""
    if isinstance(value, dict):
        return {name: readable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [readable(each) for each in value]
    if isinstance(value, str):
        return "".join("a" if unicodedata.category(each) in ("Cn", "Co") else each for each in value)
    return value


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Change a valid request about a threat to the community into one that the policy allows.

    It gets the next revision number. Other requests stay unchanged, and are refused for the time, the category or the
    radius.
    """
    body = case.body
    if not (is_positive(case) and isinstance(body, dict)):
        return
    body |= readable(body)
    if case.path.startswith(CALLS):
        becomes_a_call(case, body)
        return
    body["approval"] = body["approval"] | {"approved_at": stamp(0)}
    if "revision" in body:
        body.pop("id", None)
        alert_id = case.path_parameters["alert_id"]
        body["revision"] = current.get(alert_id, 1) + 1
        if case.path.endswith("/cancel") and current.get(alert_id) == 1 and alert_id.endswith(EVEN):
            body["revision"] += 1  # the cancel of every second alert is refused, so that the alert is revised first
    else:
        body["id"] = f"alert-{next(numbers)}"
    if body.get("threat") != "individual":
        body.pop("confirm", None)  # such alerts are never held for confirmation
    if body.get("threat") == "community":
        body |= {"occurred_at": OCCURRED_AT, "expires_at": EXPIRES_AT, "category": "burglary", "status": "actual"}
    for shape in shapes_of(body):
        if shape["type"] == "Polygon":
            shape["coordinates"] = [RING]  # a schema cannot describe all rules for a ring
        elif body.get("threat") == "community":
            shape["radius_m"] = 500


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Record the newest accepted revisions."""
    if response.status_code == 201:
        accepted = response.json()
        if case.path.endswith("/end"):
            return
        current[accepted["id"]] = accepted["revision"]


@schemathesis.check
def the_document_tells_what_is_well_formed(context: Any, response: Any, case: Any) -> None:
    """Require that a request which conforms to the document is never refused as ill-formed.

    The policy may refuse it. Errors about `confirm` are exempt, as the document cannot say what needs confirmation.
    """
    if is_positive(case) and response.status_code == 422:
        errors = response.json()["errors"]
        found = {error["type"] for error in errors if not error["pointer"].startswith("/confirm/")}
        assert not found & ILL_FORMED, f"a well-formed request was refused: {response.text}"
