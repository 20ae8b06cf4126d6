"""Successful reads at the API: alerts, the policy, and the pages for operators and programmers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import (
    CATEGORIES,
    SEVERITIES,
    Json,
    alert,
    cancel_body,
    circle,
    ground,
    revision_of,
)
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, make_call_key
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import moment, now, stamp, wait_until
from jsonschema_rs import Draft202012Validator
from jsonschema_rs import meta as metaschema

# ---- alerts and the policy ---------------------------------------------------------------------------------------


def test_state_of_an_alert_follows_publication_revision_and_cancel(node: Node):
    """The answer to `GET /v1/alerts/{id}` is live with the newest revision, then cancelled (section 4)."""
    body = alert(ground())
    node.publish(body)
    assert node.state(body["id"])["state"] == "live"
    node.revise(revision_of(body, 2))
    state = node.state(body["id"])
    assert (state["state"], state["alert"]["revision"]) == ("live", 2)
    assert state["alert"]["headline"] == "Burglary nearby, revision 2"
    node.cancel(body["id"], 3)
    assert node.state(body["id"])["state"] == "cancelled"


def test_cancelled_alert_stays_cancelled_after_its_end(node: Node):
    """An alert that was not cancelled expires at its end (section 4)."""
    for seconds in (1.0, 4, 16):  # on a busy machine the alert may end before its cancel
        body, _ = node.publish_brief(alert(ground()), seconds)
        answer = node.post(f"/v1/alerts/{body['id']}/cancel", cancel_body(2))
        if answer.status_code != 410:
            break
    assert answer.status_code == 201, answer.text
    wait_until(lambda: now() > moment(body["expires_at"]), "it would have ended")
    other, _ = node.publish_brief(alert(ground()))
    node.wait_for_end(other["id"])
    assert node.state(body["id"])["state"] == "cancelled"


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_change_of_expired_alert_is_refused_as_ended(node: Node, call: str):
    """The answer is 410 `alert-ended` (section 4)."""
    body, _ = node.publish_brief(alert(ground()))
    node.wait_for_end(body["id"])
    attempt = cancel_body(2) if call == "cancel" else revision_of(body, 2, expires_at=stamp(seconds=99))
    answer = node.post(f"/v1/alerts/{body['id']}/{call}", attempt)
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems/alert-ended")


def test_alert_list_contains_exactly_the_live_alerts(node: Node):
    """The list is that of `GET /v1/alerts` (section 4)."""
    live, cancelled = alert(ground()), alert(ground())
    node.publish(live)
    node.publish(cancelled)
    node.cancel(cancelled["id"], 2)
    listed, page = [], "/v1/alerts"
    while page:  # other tests have left more alerts than one page holds
        answer = node.get(page)
        assert answer.status_code == 200
        assert "approval" not in answer.text
        listed += [shown["id"] for shown in answer.json()["alerts"]]
        page = answer.links["next"]["url"] if "next" in answer.links else ""
    assert listed.count(live["id"]) == 1
    assert cancelled["id"] not in listed


def test_policy_page_lists_every_category(node: Node):
    """`GET /v1/policy` returns the policy in force (sections 3 and 4)."""
    answer = node.get("/v1/policy")
    assert answer.status_code == 200
    names = set(keys_of(answer.json()))
    texts = set(re.findall(r'"([a-z_]+)"', answer.text))
    assert set(CATEGORIES) <= names | texts
    assert {"title", "min_radius_m", "max_radius_m", "max_age_s", "min_life_s", "location_resolution"} <= names


def keys_of(value: Any) -> list[str]:
    """Return all keys in a JSON value."""
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in keys_of(inner))]
    return [key for inner in value for key in keys_of(inner)] if isinstance(value, list) else []


# ---- pages for operators and API documents -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/asyncapi.json", "/docs", "/docs/stream"]
)
def test_pages_for_operators_need_no_token(node: Node, path: str):
    """The pages are listed in section 4."""
    assert node.api.get(path).status_code == 200


METRIC_LINE = re.compile(
    r"# (HELP|TYPE|EOF|UNIT).*"
    r'|[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="([^"\\\n]|\\.)*",?)*\})? [-+]?([0-9.eE+-]+|Inf|NaN)( \d+)?'
    r"|"
)


def test_metrics_are_prometheus_text(node: Node):
    """The format is described in section 4, `GET /metrics`."""
    node.publish(alert(ground()))
    answer = node.api.get("/metrics")
    assert answer.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))
    lines = answer.text.splitlines()
    assert [line for line in lines if not METRIC_LINE.fullmatch(line)] == []
    assert any(line.startswith("geocast_") for line in lines)


TABLE = {
    "/v1/alerts": {"get", "post"},
    "/v1/alerts/{id}": {"get"},
    "/v1/alerts/{id}/revisions": {"post"},
    "/v1/alerts/{id}/cancel": {"post"},
    "/v1/policy": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}


def test_openapi_document_describes_every_route(node: Node):
    """The document is OpenAPI 3.1, its references resolve, and its schemas are JSON Schema 2020-12 (section 4)."""
    document = node.api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"]
    assert document["info"]["version"]
    paths = {re.sub(r"\{\w+\}", "{id}", path): item for path, item in document["paths"].items()}
    for path, methods in TABLE.items():
        assert methods <= set(paths[path]), path
        assert all(paths[path][method]["responses"] for method in methods)
    for reference in re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document)):
        resolve(document, reference)
    for schema in document["components"]["schemas"].values():
        metaschema.validate(schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"})


def resolve(document: Json, reference: str) -> Any:
    """Return the value that a reference inside the document points to."""
    assert reference.startswith("#/"), reference
    for part in reference[2:].split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_openapi_schema_accepts_valid_alerts_and_rejects_invalid_ones(node: Node):
    document = node.api.get("/openapi.json").json()
    content = document["paths"]["/v1/alerts"]["post"]["requestBody"]["content"]["application/json"]
    schema = content["schema"] | {"components": document["components"]}
    validator = Draft202012Validator(schema)
    spot = ground()
    for body in (alert(spot), alert(spot, area=[circle(spot)] * 16, status="test", description="x")):
        assert list(validator.iter_errors(body)) == []
    for bad in ({"headline": ""}, {"area": []}, {"caller": "x"}, {"severity": "bad"}, {"id": 7}):
        assert list(validator.iter_errors(alert(spot) | bad)), bad


OWN_POLICY = """
name = "own"
[categories]
gale = { title = "Gale", min_radius_m = 5000, max_radius_m = 6000, max_age_s = 900, min_life_s = 300 }
[calls]
arrest = { title = "Cardiac arrest", quals = ["cpr"] }
"""


@pytest.mark.parametrize("own", [False, True], ids=["built-in policy", "a policy of one's own"])
def test_openapi_examples_are_accepted_unchanged(own: bool, keys: Keys, tmp_path: Path):
    """Each example, in the order of the document, is accepted; sent twice, it is a repeat (section 4; rule H3).

    The document has examples of calls if the policy has any.
    """
    (tmp_path / "policy.toml").write_text(OWN_POLICY)
    make_call_key(tmp_path)
    options = ("--policy", str(tmp_path / "policy.toml"), "--call-keys", str(tmp_path / "call-keys.jwks"))
    with Node(tmp_path, keys, *(options if own else ())) as node:
        scopes = {"v1/alerts": node.desk, "v1/calls": node.keys.token(sub="cad-3", scope=DISPATCH_SCOPE)}
        sent: dict[str, list[Json]] = {name: [] for name in scopes}
        for path, calls in node.api.get("/openapi.json").json()["paths"].items():
            call = calls.get("post", {"requestBody": {"content": {}}})
            for media in call["requestBody"]["content"].values():
                where = path.format(**{each["name"]: each.get("example") for each in call["parameters"]})
                name = "/".join(where.split("/")[1:3])
                for example in media.get("examples", {}).values():
                    answers = [node.post(where, example["value"], scopes[name]) for _ in range(2)]
                    assert [answer.status_code for answer in answers] == [201, 200], answers[0].text
                    sent[name].append(example["value"])
        alerts, opened = (list(sent[name]) for name in scopes)
        assert [each.get("category") for each in alerts[:3]] == ["gale" if own else "burglary"] * 3
        assert (len(alerts), len(opened)) == (4, 4 if own else 0)


def test_every_severity_and_status_is_published(node: Node):
    """The values are those of CAP 1.2 (section 2)."""
    for severity in SEVERITIES:
        for status in ("actual", "exercise", "test"):
            body = alert(ground(), severity=severity, status=status)
            node.publish(body)
            shown = node.state(body["id"])["alert"]
            assert (shown["severity"], shown["status"]) == (severity, status)
