"""Calls for help at the API of a real node: opened, corrected, ended, read by their dispatcher, or refused.

The exact place is in no answer, log line, metric or file.
"""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from end_to_end.faults.test_faults import post_into_failpoint, restart_with_failpoint
from end_to_end.kit.alerts import Json, alert, ground
from end_to_end.kit.dispatcher import (
    DISPATCH_SCOPE,
    NEAR,
    ONE_RING,
    PLACE,
    POLICY,
    SECRETS,
    call,
    calling_node,
    make_call_key,
)
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.refusals import CANARY, Row, assert_problem, check, put
from end_to_end.kit.times import moment, stamp, wait_until


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node whose policy has calls."""
    with calling_node(tmp_path_factory.mktemp("calls"), keys, policy=ONE_RING) as node:
        yield node
        node.assert_no_surprise()


def as_dispatcher(node: Node, sub: str = "cad-3", scope: str = DISPATCH_SCOPE) -> str:
    """Return a dispatcher's token."""
    return node.keys.token(sub=sub, scope=scope)


def post(node: Node, path: str, body: Any, token: str | None = None) -> httpx.Response:
    """POST with a dispatcher's token, and return the answer."""
    return node.post(path, body, token or as_dispatcher(node))


def opened(node: Node, **fields: Any) -> Json:
    """Open a call and return its body."""
    body = call(**fields)
    answer = post(node, "/v1/calls", body)
    assert answer.status_code == 201, answer.text
    return body


# -- accepted requests


def test_call_is_opened_corrected_and_ended_and_repeats_get_the_same_answers(node: Node):
    """Each first request gets 201 and its number; the same request again gets 200 (call-rules.md, "The api")."""
    body = call()
    first = post(node, "/v1/calls", body)
    assert first.status_code == 201
    assert first.headers["location"] == f"/v1/calls/{body['id']}"
    answer = first.json()
    assert answer == {
        "id": body["id"],
        "revision": 1,
        "issued_at": answer["issued_at"],
        "expires_at": answer["expires_at"],
        "near": NEAR,
    }
    occurred_at = moment(body["occurred_at"])
    assert (moment(answer["expires_at"]) - occurred_at).total_seconds() == 1_800
    corrected = body | {"replaces": 1, "headline": "Child, not breathing."}
    path = f"/v1/calls/{body['id']}"
    second = post(node, f"{path}/revisions", corrected)
    assert (second.status_code, second.json()["revision"]) == (201, 2)
    third = post(node, f"{path}/end", {"reason": "The crew is there."})
    assert (third.status_code, third.json()["revision"], set(third.json())) == (201, 3, {"id", "revision", "ended_at"})
    for where, sent, said in (
        ("/v1/calls", body, first),
        (f"{path}/revisions", corrected, second),
        (f"{path}/end", {"reason": "Somebody else says so too."}, third),
    ):
        again = post(node, where, sent)
        assert (again.status_code, again.json()) == (200, said.json())


def test_dispatcher_reads_the_state_of_its_calls_and_the_policy(node: Node):
    """A call that has ended is not in the list, but can still be read (call-rules.md, "The api")."""
    token = as_dispatcher(node, "cad-7")
    body = call(expires_at=stamp(minutes=20), status="test")
    assert post(node, "/v1/calls", body, token).status_code == 201
    shown = node.get(f"/v1/calls/{body['id']}", token).json()
    assert shown == {
        "state": "ringing",
        "content": 1,
        "call": {
            **{name: body[name] for name in ("id", "category", "headline", "status")},
            **{name: shown["call"][name] for name in ("occurred_at", "issued_at", "expires_at")},
            "revision": 1,
            "title": "Cardiac arrest: CPR needed",
            "source": "cad-7",
            "answer_s": 30,
            "near": NEAR,
        },
        "ring_m": 2000,
        "rung": 0,
        "seen": 0,
        "declined": 0,
        "seats": [],
    }
    assert moment(shown["call"]["occurred_at"]) == moment(body["occurred_at"])
    assert node.get("/v1/calls", token).json() == {"calls": [shown]}
    assert post(node, f"/v1/calls/{body['id']}/end", {"reason": "Over."}, token).status_code == 201
    assert node.get("/v1/calls", token).json() == {"calls": []}
    assert node.get(f"/v1/calls/{body['id']}", token).json()["state"] == "ended"
    assert set(node.get("/v1/policy", token).json()["calls"]) == {"cardiac_arrest", "choking"}


def test_headline_with_an_address_is_replaced_by_the_title(node: Node):
    """The answer says that the headline was replaced (rule RY3)."""
    body = call(headline="Collapsed at 12 Main Street, flat 3")
    answer = post(node, "/v1/calls", body)
    assert (answer.status_code, answer.json()["headline"]) == (201, "replaced")
    shown = node.get(f"/v1/calls/{body['id']}", as_dispatcher(node)).json()["call"]
    assert shown["headline"] == shown["title"] == "Cardiac arrest: CPR needed"


def test_id_of_a_call_cannot_be_used_for_an_alert_nor_vice_versa(node: Node):
    """A new alert with a call's id gets 409, and any other request for the id gets 404 (rule RY1)."""
    body = opened(node)
    assert_problem(node.post("/v1/alerts", alert(ground(), id=body["id"])), 409, "id-conflict")
    assert_problem(node.get(f"/v1/alerts/{body['id']}"), 404, "unknown-alert")
    warning = alert(ground())
    node.publish(warning)
    assert_problem(post(node, "/v1/calls", call(id=warning["id"])), 409, "id-conflict")
    path = f"/v1/calls/{warning['id']}"
    assert_problem(node.get(path, as_dispatcher(node)), 404, "unknown-call")
    assert_problem(post(node, f"{path}/end", {"reason": "x"}), 404, "unknown-call")
    assert_problem(post(node, f"{path}/revisions", call(id=None, replaces=1)), 404, "unknown-call")
    assert body["id"] not in {each["id"] for each in node.get("/v1/alerts").json()["alerts"]}


def test_call_of_another_dispatcher_is_refused_without_the_scope_to_manage(node: Node):
    """Each path answers 403; with `alerts:manage` it works (call-rules.md, "The api")."""
    body, other = opened(node), as_dispatcher(node, "cad-4")
    path = f"/v1/calls/{body['id']}"
    assert_problem(node.get(path, other), 403, "not-yours")
    assert_problem(post(node, f"{path}/end", {"reason": "x"}, other), 403, "not-yours")
    assert_problem(post(node, f"{path}/revisions", body | {"replaces": 1, "headline": "x"}, other), 403, "not-yours")
    assert body["id"] not in [each["call"]["id"] for each in node.get("/v1/calls", other).json()["calls"]]
    chief = as_dispatcher(node, "chief", f"{DISPATCH_SCOPE} alerts:manage")
    assert body["id"] in [each["call"]["id"] for each in node.get("/v1/calls", chief).json()["calls"]]
    assert post(node, f"{path}/end", {"reason": "x"}, chief).status_code == 201


def test_correction_of_an_outdated_revision_is_refused_with_the_current_one(node: Node):
    """The answer is 409 with `current`, and 410 after the call has ended.

    A correction may not change category and kind; the problem names both (call-rules.md, "The api").
    """
    body = opened(node)
    path = f"/v1/calls/{body['id']}"
    for number, headline in ((1, "Second"), (2, "Third")):
        assert post(node, f"{path}/revisions", body | {"replaces": number, "headline": headline}).status_code == 201
    late = post(node, f"{path}/revisions", body | {"replaces": 1, "headline": "Late"})
    assert assert_problem(late, 409, "revision-conflict")["current"] == 3
    changed = body | {"replaces": 3, "category": "choking", "place": PLACE | {"kind": "public"}}
    check(
        post(node, f"{path}/revisions", changed),
        422,
        [("category-changed", "/category"), ("kind-changed", "/place/kind")],
    )
    assert post(node, f"{path}/end", {"reason": "x"}).status_code == 201
    assert_problem(post(node, f"{path}/revisions", body | {"replaces": 3, "headline": "Fourth"}), 410, "call-ended")


# -- refused requests

ROWS = [
    Row("/id", f"-{CANARY}"),
    Row("/id", f"cap.{CANARY}"),
    Row("/category", "burglary", "category-not-callable"),
    Row("/headline", f"\x00{CANARY}"),
    Row("/status", f"system{CANARY}"),
    Row("/occurred_at", f"2026-01-01T{CANARY}"),
    Row("/expires_at", f"2026-01-01T{CANARY}"),
    Row("/place", f"{CANARY}"),
    Row("/place/lat", 7391.5),
    Row("/place/lat", f"{CANARY}"),
    Row("/place/lng", -7391),
    Row("/place/kind", f"home{CANARY}"),
    Row("/place/address", CANARY * 60),
    Row("/place/access", f"\t{CANARY}"),
    Row("/place/patient", f"Jane{CANARY}", "unknown-field"),
    Row("/approval", {"reviewer": CANARY}, "unknown-field"),
    Row("/severity", f"x{CANARY}", "unknown-field"),
    Row("/threat", "community", "unknown-field"),
    Row("/area", {"lat": 7391}, "unknown-field"),
    Row("/555-0142", CANARY, "unknown-field", ""),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.pointer)
def test_invalid_call_gets_an_error_that_names_the_field_but_not_its_value(node: Node, row: Row):
    """Nothing is stored (rules RY1 to RY8, RO1, H8, H9)."""
    body = put(call(), row.pointer, row.value)
    check(post(node, "/v1/calls", body), 422, row.errors)
    if row.pointer != "/id":
        assert_problem(node.get(f"/v1/calls/{body['id']}", as_dispatcher(node)), 404, "unknown-call")


def test_call_with_several_mistakes_gets_all_errors_at_once(node: Node):
    """Errors of fields come first, then errors of the policy (rule RO2; protocol, section 4, decision 5)."""
    body = call(occurred_at=stamp(hours=-3), headline="", place=PLACE | {"kind": "home"})
    check(
        post(node, "/v1/calls", body),
        422,
        [("invalid-value", "/headline"), ("invalid-value", "/place/kind"), ("stale", "/occurred_at")],
    )


NO_SCOPE = "alerts:publish alerts:manage alerts:audit alerts:receive alerts:test"
PATHS = [
    ("POST", "/v1/calls"),
    ("GET", "/v1/calls"),
    ("GET", "/v1/calls/some-call"),
    ("POST", "/v1/calls/some-call/revisions"),
    ("POST", "/v1/calls/some-call/end"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_requests_for_calls_without_a_token_its_scope_or_a_valid_sub_are_refused(node: Node, method: str, path: str):
    """Without a token the answer is 401.

    Without the scope, or with a `sub` that cannot be shown to others, the answer is 403 (protocol, section 4, decisions
    1 and 2).
    """
    ask = {"method": method, "url": path, "json": {CANARY: CANARY} if method == "POST" else None}
    assert_problem(node.api.request(**ask), 401, "unauthorized")
    for token in (node.keys.token(scope=NO_SCOPE), as_dispatcher(node, "Jane Doe 7391")):
        assert_problem(node.api.request(**ask, headers=bearer(token)), 403, "insufficient-scope")


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("query", ["dry_run=true", "dry_run=false", "limit=1", "x7391=7391"])
def test_requests_for_calls_with_query_parameters_get_422(node: Node, method: str, path: str, query: str):
    """`dry_run` is refused too. The query is checked after the scope and before the body (call-rules.md, "The api")."""
    answer = node.api.request(method, f"{path}?{query}", headers=bearer(as_dispatcher(node)), content=b"{7391")
    check(answer, 422, [("invalid-value", "")])


def test_dispatchers_scope_gives_no_access_to_alerts(node: Node):
    """The dispatcher may neither read nor publish alerts (call-rules.md, "The api")."""
    token = as_dispatcher(node)
    assert_problem(node.get("/v1/alerts", token), 403, "insufficient-scope")
    assert_problem(node.post("/v1/alerts", alert(ground()), token), 403, "insufficient-scope")
    assert_problem(node.get("/v1/alerts/some-alert", token), 403, "insufficient-scope")


BODIES = [
    ("POST", "/v1/calls", b" " * (64 * 1024 + 1), "text/plain", 413, "too-large"),
    ("POST", "/v1/calls", b"{7391", "text/plain", 415, "unsupported-media-type"),
    ("POST", "/v1/calls", b"{7391", "application/json", 400, "malformed-json"),
    ("POST", "/v1/calls", b'{"id": "a", "id": "b"}', "application/json", 400, "malformed-json"),
    ("POST", "/v1/calls", b'{"place": {"lat": NaN}}', "application/json", 400, "malformed-json"),
    ("POST", "/v1/calls/some-call/end", b"[]", "application/json", 400, "malformed-json"),
    ("POST", "/v1/calls/some-call/end", b"{}", "application/json", 422, "missing-field"),
    ("POST", "/v1/calls/some-call/revisions", b"{}", "application/json", 422, "missing-field"),
    ("POST", "/v1/calls/some-call/cancel", b"{}", "application/json", 404, "not-found"),
    ("DELETE", "/v1/calls/some-call", b"", "application/json", 405, "method-not-allowed"),
    ("PUT", "/v1/calls", b"{}", "application/json", 405, "method-not-allowed"),
]


@pytest.mark.parametrize(("method", "path", "content", "media", "status", "slug"), BODIES)
def test_request_with_several_mistakes_gets_the_answer_to_the_first(
    node: Node, method: str, path: str, content: bytes, media: str, status: int, slug: str
):
    """The order is that of the protocol, section 4, decisions 3 to 5."""
    headers = bearer(as_dispatcher(node)) | {"Content-Type": media}
    assert_problem(node.api.request(method, path, content=content, headers=headers), status, slug)


def test_node_whose_policy_has_no_calls_needs_no_call_key_and_refuses_calls(own_node: Node):
    """The built-in policy has no calls (rule RO1)."""
    check(post(own_node, "/v1/calls", call()), 422, [("category-not-callable", "/category")])
    assert own_node.get("/v1/calls", as_dispatcher(own_node)).json() == {"calls": []}


# -- places and reasons in answers, files and logs


def test_exact_place_and_reason_are_in_no_answer_log_line_metric_or_file(own_calling: Node):
    """The reason is the one for which the call was ended (rules RZ2, RZ3)."""
    node = own_calling
    node.options += ["--log-level", "debug"]
    node.restart()
    body = call()
    path = f"/v1/calls/{body['id']}"
    moved = body | {"replaces": 1, "headline": "Second", "place": PLACE | {"address": "Dorfstrasse 6"}}
    answers = [post(node, "/v1/calls", body) for _ in range(2)]
    answers += [post(node, "/v1/calls", body | {"headline": "Other"}), post(node, f"{path}/revisions", moved)]
    answers += [post(node, f"{path}/revisions", moved | {"replaces": 7, "place": PLACE | {"lat": "47.6780089"}})]
    answers += [node.get(path, as_dispatcher(node)), node.get("/v1/calls", as_dispatcher(node))]
    answers += [post(node, f"{path}/end", {"reason": "Mr Hofer is well."}), node.get(path, as_dispatcher(node))]
    answers += [node.api.get("/metrics"), node.api.get("/readyz")]
    assert {answer.status_code for answer in answers} == {200, 201, 409, 422}
    node.terminate()
    said = "".join(answer.text for answer in answers).encode()
    kept = b"".join(file.read_bytes() for file in node.home.iterdir() if file.is_file())
    assert body["headline"].encode() in kept  # the headline is stored as plain text
    for secret in (*SECRETS, "Hofer"):
        assert secret.encode() not in said + kept


# -- kills, workers, reloads and metrics


@pytest.mark.parametrize("point", ["in-commit", "after-append", "after-201"])
def test_request_interrupted_at_any_point_and_repeated_makes_one_call(own_calling: Node, point: str):
    """An answer of 201 is durable, so a client repeats its request until it gets 200 or 201 (rules H1 to H3)."""
    node = own_calling
    restart_with_failpoint(node, point)
    body = call()
    node.desk = as_dispatcher(node)
    answer = post_into_failpoint(node, point, "/v1/calls", body)
    restart_with_failpoint(node, None)
    again = post(node, "/v1/calls", body)
    assert again.status_code == (201 if point == "in-commit" else 200), again.text
    if answer is not None:
        assert answer.json() == again.json()
    assert len(node.get("/v1/calls", as_dispatcher(node)).json()["calls"]) == 1


def test_node_with_several_workers_opens_reads_and_ends_calls(keys: Keys, tmp_path: Path):
    """The API process decides from the log (docs/reference/call-rules.md)."""
    with calling_node(tmp_path, keys, "--workers", "2", policy=ONE_RING) as node:
        body = opened(node)
        assert post(node, "/v1/calls", body).status_code == 200
        assert node.get(f"/v1/calls/{body['id']}", as_dispatcher(node)).json()["state"] == "ringing"
        assert post(node, f"/v1/calls/{body['id']}/end", {"reason": "x"}).status_code == 201


def test_open_call_continues_after_a_reload_if_the_key_file_still_has_its_key(own_calling: Node):
    """Without the key, a request that needs the entry gets 503 (rules RO3, RZ5, BA2)."""
    node = own_calling
    body = opened(node)
    path = f"/v1/calls/{body['id']}"
    policy = POLICY.replace("[calls.cardiac_arrest]", "[calls.collapse]")

    def reloaded() -> None:
        done = count(node, 'geocast_reloads_total{result="ok"}')
        assert node.process
        node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: count(node, 'geocast_reloads_total{result="ok"}') == done + 1, "the reload is counted")

    keys = json.loads((node.home / "call-keys.jwks").read_text())["keys"]
    newer = make_call_key(node.home)["keys"]
    assert len(newer) == 2
    (node.home / "call-keys.jwks").write_text(json.dumps({"keys": newer[::-1]}))
    (node.home / "policy.toml").write_text(policy)
    reloaded()
    assert post(node, "/v1/calls", body).status_code == 200
    second = post(node, f"{path}/revisions", body | {"replaces": 1, "headline": "Second"})
    assert second.status_code == 201
    check(post(node, "/v1/calls", call()), 422, [("category-not-callable", "/category")])
    (node.home / "call-keys.jwks").write_text(json.dumps({"keys": [key for key in newer if key not in keys]}))
    reloaded()
    # Only the second content can be decrypted, which is enough to know the owner and that the call is open.
    assert_problem(node.post_once("/v1/calls", body, as_dispatcher(node)), 503, "log-unavailable")
    assert node.get(path, as_dispatcher(node)).json()["content"] == second.json()["revision"]
    assert post(node, f"{path}/end", {"reason": "x"}).status_code == 201


def count(node: Node, name: str) -> float:
    """Return the value of a metric."""
    [value] = re.findall(rf"^{re.escape(name)} (\S+)$", node.api.get("/metrics").text, re.MULTILINE)
    return float(value)


def test_each_stored_entry_of_a_call_is_counted_once(own_calling: Node):
    """Each kind starts at 0, and a repeated request does not count (docs/reference/behaviour.md, "Metrics")."""
    names = [f'geocast_calls_accepted_total{{kind="{kind}"}}' for kind in ("call", "content", "end")]
    assert [count(own_calling, name) for name in names] == [0, 0, 0]
    body = opened(own_calling)
    post(own_calling, "/v1/calls", body)
    post(own_calling, f"/v1/calls/{body['id']}/revisions", body | {"replaces": 1, "headline": "Second"})
    post(own_calling, f"/v1/calls/{body['id']}/end", {"reason": "x"})
    assert [count(own_calling, name) for name in names] == [1, 1, 1]
    assert count(own_calling, 'geocast_accepted_total{kind="alert"}') == 0


def test_examples_of_the_openapi_document_are_accepted_in_their_order(own_calling: Node):
    """The examples are the life of a call. An example that is sent twice is a repeat (protocol, section 4)."""
    document = own_calling.api.get("/openapi.json").json()
    sent = []
    for path, calls in document["paths"].items():
        if path.startswith("/v1/calls") and "post" in calls:
            [media] = calls["post"]["requestBody"]["content"].values()
            where = path.format(**{each["name"]: each["example"] for each in calls["post"]["parameters"]})
            for example in media["examples"].values():
                answers = [post(own_calling, where, example["value"]) for _ in range(2)]
                assert [answer.status_code for answer in answers] == [201, 200], answers[0].text
                sent.append(where)
    assert len(sent) == 4
