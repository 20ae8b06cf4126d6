"""Requests that the API refuses, in the order of its decisions: size, media type, token, scope, state of the alert."""

import json
import re

import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, ground, new_id, revision_of
from end_to_end.kit.deploy_files import ROOT
from end_to_end.kit.keys import DESK_SCOPE, Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.refusals import KIB64, TEXT, assert_problem, check, problem_of, send
from end_to_end.kit.times import stamp

# ---- order of decisions ------------------------------------------------------------------------------------------


NO_SCOPE = "alerts:receive alerts:test alerts:manage"


def test_body_of_64_kib_is_accepted_and_a_larger_one_is_refused(node: Node):
    """The answer is 413, whether or not the length is announced (section 4)."""
    text = json.dumps(alert(ground()))
    assert send(node, text.ljust(KIB64).encode()).status_code == 201
    assert_problem(send(node, text.ljust(KIB64 + 1).encode()), 413, "too-large")
    headers = {"Content-Type": "application/json"} | bearer(node.desk)
    chunks = (text.ljust(KIB64).encode() for _ in range(2))
    assert_problem(node.api.post("/v1/alerts", content=chunks, headers=headers), 413, "too-large")


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/problem+xml", ""]
)
def test_other_media_types_are_refused(node: Node, media: str):
    """The answer is 415 (section 4)."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    assert_problem(send(node, body, **{"Content-Type": media}), 415, "unsupported-media-type")


def test_missing_media_type_is_refused(node: Node):
    """The answer is 415 (section 4)."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    answer = node.api.post("/v1/alerts", content=body, headers=bearer(node.desk))
    assert_problem(answer, 415, "unsupported-media-type")


def test_json_media_type_with_a_charset_is_accepted(node: Node):
    """Parameters of the media type are ignored (section 4, "JSON in and out")."""
    body = json.dumps(alert(ground())).encode()
    assert send(node, body, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 201


HUGE = b"7391" * (KIB64 // 2)
PLAIN = {"Content-Type": "text/plain"}
ORDER = [  # scope (None: no token), method, path, body, headers, status, slug
    (None, "POST", "/v1/nowhere", HUGE, PLAIN, 401, "unauthorized"),
    (None, "GET", "/v1/nowhere", b"", {}, 401, "unauthorized"),
    (None, "DELETE", "/v1/alerts", b"", {}, 401, "unauthorized"),
    (None, "POST", "/v1/alerts", b"{7391", {}, 401, "unauthorized"),
    (NO_SCOPE, "POST", "/v1/alerts", HUGE, PLAIN, 403, "insufficient-scope"),
    (NO_SCOPE, "POST", "/v1/alerts", b"{7391", {}, 403, "insufficient-scope"),
    ("", "POST", "/v1/alerts", b"{}", {}, 403, "insufficient-scope"),
    (DESK_SCOPE, "POST", "/v1/nowhere", HUGE, PLAIN, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v1", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v2", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v1/alerts/a/b/c", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "PUT", "/v1/alerts", HUGE, PLAIN, 405, "method-not-allowed"),
    (DESK_SCOPE, "DELETE", "/v1/alerts", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "PATCH", "/v1/alerts/some-alert", b"{}", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "GET", "/v1/alerts/some-alert/cancel", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "GET", "/v1/alerts/some-alert/revisions", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "POST", "/v1/policy", b"{}", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "POST", "/v1/alerts", HUGE, PLAIN, 413, "too-large"),
    (DESK_SCOPE, "POST", "/v1/alerts", b"{7391", PLAIN, 415, "unsupported-media-type"),
    (DESK_SCOPE, "POST", "/v1/alerts", b"{7391", {}, 400, "malformed-json"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/cancel", b"[7391]", {}, 400, "malformed-json"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/cancel", b"{}", {}, 422, "missing-field"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/revisions", b"{}", {}, 422, "missing-field"),
]


@pytest.mark.parametrize(("scope", "method", "path", "body", "headers", "status", "slug"), ORDER)
def test_request_with_several_faults_gets_the_answer_to_the_first_in_documented_order(
    node: Node, scope: str | None, method: str, path: str, body: bytes, headers: Json, status: int, slug: str
):
    """The order is that of section 4, "Order of decisions"."""
    token = None if scope is None else node.keys.token(scope=scope)
    headers = {"Content-Type": "application/json"} | bearer(token) | headers
    answer = node.api.request(method, path, content=body, headers=headers)
    assert_problem(answer, status, slug)


# ---- tokens ------------------------------------------------------------------------------------------------------


def test_invalid_tokens_get_one_answer_and_expired_ones_another(node: Node, keys: Keys):
    """The answer has `WWW-Authenticate` with `invalid_token`. Only a valid signature is told the expiry (H10)."""
    body, answers, expired = alert(ground()), set(), set()
    forged = {"expired and forged": keys.signed(keys.claims() | {"exp": 1}, key=keys.stranger)}
    for name, token in (keys.bad_tokens() | forged).items():
        answer = node.post("/v1/alerts", body, token)
        assert answer.status_code == 401, name
        assert answer.headers["www-authenticate"] == 'Bearer realm="geocast", error="invalid_token"', name
        assert_problem(answer, 401, "unauthorized")
        (expired if name in ("expired", "expired long ago") else answers).add(answer.json()["detail"])
    assert expired == {"The token has expired."}
    [detail] = answers
    assert "geocast token --check" in detail
    assert node.get(f"/v1/alerts/{body['id']}").status_code == 404


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic ZGVzazo3Mzkx", "Token x7391", "x7391"])
def test_request_without_a_bearer_token_is_unauthorized(node: Node, header: str | None):
    """The header is `Authorization: Bearer <JWT>` (section 4)."""
    headers = {} if header is None else {"Authorization": header}
    answer = node.api.get("/v1/alerts", headers=headers)
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer realm="geocast"'  # no error without a token (RFC 6750, 3.1)


def test_handshake_at_the_port_of_the_api_is_told_where_the_stream_is(node: Node):
    """A client that took the wrong port needs no token to learn it (H10)."""
    answer = node.api.get("/v1/stream", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert_problem(answer, 404, "not-found")
    assert "--stream" in answer.json()["detail"]


@pytest.mark.parametrize("call", ["/v1/alerts", "/v1/alerts/some-alert", "/v1/policy"])
def test_protected_routes_need_a_token(node: Node, call: str):
    """The routes are listed in the table of section 4."""
    assert_problem(node.api.get(call), 401, "unauthorized")


@pytest.mark.parametrize("sub", ["Jane Doe 7391", "desk@7391", "-desk7391", "d" * 129, "désk7391", "desk7391\n"])
def test_publisher_with_an_invalid_sub_may_not_publish(node: Node, keys: Keys, sub: str):
    """A publisher's `sub` must match the grammar of `id`, or the answer is 403 (section 6)."""
    problem_of(node.post("/v1/alerts", alert(ground()), keys.token(sub=sub)), 403)


GOOD_CLAIMS: dict[str, Json] = {
    "aud in a list": {"aud": ["other", "geocast"]},
    "nbf in the past": {"nbf": 1},
    "more scopes": {"scope": "alerts:publish other:scope"},
    "more claims": {"name": "desk", "iat": 1},
}


@pytest.mark.parametrize("claims", GOOD_CLAIMS.values(), ids=GOOD_CLAIMS.keys())
def test_token_with_additional_claims_is_accepted(node: Node, keys: Keys, claims: Json):
    """Claims that are not required are ignored (section 6)."""
    node.publish(alert(ground()), keys.token(**claims))


def test_token_of_an_hs256_key_is_accepted(node: Node, keys: Keys):
    """`oct` keys with HS256 are meant for development (section 6)."""
    token = keys.signed(keys.claims(), key=keys.secret, alg="HS256", kid="hs")
    node.publish(alert(ground()), token)


# ---- unknown alerts (404), other publishers' (403), ended ones (410), conflicts (409) ----------------------------


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_change_of_an_unknown_alert_is_answered_with_404(node: Node, call: str):
    """Revisions and cancels get the same answer (section 4)."""
    name = new_id()
    body = cancel_body(2) if call == "cancel" else revision_of(alert(ground(), id=name), 2)
    assert_problem(node.post(f"/v1/alerts/{name}/{call}", body), 404, "unknown-alert")


def test_get_of_an_unknown_alert_is_answered_with_404(node: Node):
    """The route is `GET /v1/alerts/{id}` (section 4)."""
    assert_problem(node.get(f"/v1/alerts/{new_id()}"), 404, "unknown-alert")


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_change_of_another_publishers_alert_needs_the_manage_scope(node: Node, keys: Keys, call: str):
    """The answer is 403 `not-yours`, before 409 and 410; with `alerts:manage` the change succeeds (section 4)."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/{call}"

    def attempt(number: int) -> Json:
        return cancel_body(number) if call == "cancel" else revision_of(body, number)

    other = keys.token(sub="desk-two", scope=DESK_SCOPE)
    assert_problem(node.post(path, attempt(2), other), 403, "not-yours")
    assert_problem(node.post(path, attempt(9), other), 403, "not-yours")
    manager = keys.token(sub="desk-two", scope=f"{DESK_SCOPE} alerts:manage")
    assert node.post(path, attempt(2), manager).status_code == 201


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_change_of_a_cancelled_alert_is_refused_as_ended(node: Node, keys: Keys, call: str):
    """The answer is 410, after 403 `not-yours` and before 409 (section 4)."""
    body = alert(ground())
    node.publish(body)
    node.cancel(body["id"], 2)
    path = f"/v1/alerts/{body['id']}/{call}"
    attempt = cancel_body(3, reason="Again") if call == "cancel" else revision_of(body, 3)
    assert_problem(node.post(path, attempt), 410, "alert-ended")
    assert_problem(node.post(path, attempt | {"revision": 7}), 410, "alert-ended")
    other = keys.token(sub="desk-two", scope=DESK_SCOPE)
    assert_problem(node.post(path, attempt, other), 403, "not-yours")


@pytest.mark.parametrize("number", [1, 3, 2**31 - 1])
def test_revision_number_that_is_not_the_next_conflicts(node: Node, number: int):
    """The answer is 409 `revision-conflict` with `current` (section 4)."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}"
    for answer in (
        node.post(f"{path}/revisions", revision_of(body, number)),
        node.post(f"{path}/cancel", cancel_body(number)),
    ):
        assert assert_problem(answer, 409, "revision-conflict")["current"] == 1


def test_revision_number_that_already_has_other_content_conflicts(node: Node):
    """The answer is 409 for another revision and for a cancel with that number (section 4)."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2))
    path = f"/v1/alerts/{body['id']}"
    other = node.post(f"{path}/revisions", revision_of(body, 2, headline="Something else"))
    assert assert_problem(other, 409, "revision-conflict")["current"] == 2
    cancel = node.post(f"{path}/cancel", cancel_body(2))
    assert assert_problem(cancel, 409, "revision-conflict")["current"] == 2


def test_known_id_is_checked_after_invalid_fields_and_before_policy_rules(node: Node):
    """The order is 422 for section 2, then 409, then 422 for section 3 (section 4, "Order")."""
    body = alert(ground())
    node.publish(body)
    assert_problem(node.post("/v1/alerts", body | {"headline": "Other"}), 409, "id-conflict")
    assert_problem(node.post("/v1/alerts", body | {"threat": "individual"}), 409, "id-conflict")
    check(node.post("/v1/alerts", body | {"headline": ""}), 422, [("invalid-value", "/headline")])


def test_revision_with_another_incident_is_refused(node: Node):
    """`occurred_at`, `status` and `id` must be those of revision 1 (section 4)."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    changes = [
        ({"occurred_at": stamp(seconds=-50)}, "occurred-at-changed", "/occurred_at"),
        ({"status": "test"}, "status-changed", "/status"),
        ({"id": new_id()}, "id-mismatch", "/id"),
    ]
    for change, slug, pointer in changes:
        check(node.post(path, revision_of(body, 2) | change), 422, [(slug, pointer)])
    assert node.state(body["id"])["alert"]["revision"] == 1


def test_revision_may_not_end_before_the_current_revision(node: Node):
    """A revision may end at the same time or later.

    To end an alert early, the publisher has to cancel it (section 3).
    """
    body = alert(ground(), expires_at=stamp(seconds=1_000))
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    earlier = revision_of(body, 2, expires_at=stamp(seconds=900))
    check(node.post(path, earlier), 422, [("expiry-out-of-range", "/expires_at")])
    node.revise(revision_of(body, 2))
    node.revise(revision_of(body, 3, expires_at=stamp(seconds=1_100)))
    back = revision_of(body, 4, expires_at=stamp(seconds=1_050))
    check(node.post(path, back), 422, [("expiry-out-of-range", "/expires_at")])


def test_revision_is_checked_by_the_same_rules_as_an_alert(node: Node):
    """The rule for the incident's age is the only exception (section 3)."""
    body = alert(ground())
    node.publish(body)
    bad = revision_of(body, 2, threat="individual", area=circle(ground(), 9))
    errors = [("not-community", "/threat"), ("radius-out-of-range", "/area/radius_m")]
    check(node.post(f"/v1/alerts/{body['id']}/revisions", bad), 422, errors)


# ---- problem pages, and the node afterwards ----------------------------------------------------------------------


def test_every_problem_type_has_a_page_that_needs_no_token(node: Node):
    """The page is `GET /problems/<slug>` (section 4, "Errors")."""
    table = re.findall(r"^\| \d{3} \| ([^|]*)\|", (ROOT / "docs" / "protocol.md").read_text("utf-8"), re.MULTILINE)
    slugs = [slug for row in table for slug in re.findall(r"`([a-z-]+)`", row)]
    assert len(slugs) > 50
    for slug in slugs:
        answer = node.api.get(f"/problems/{slug}")
        assert answer.status_code == 200, slug
        assert slug in answer.text
        assert len(answer.text) > len(slug) + 20, slug


def test_unknown_problem_type_has_no_page(node: Node):
    assert node.api.get("/problems/no-such-problem").status_code in (401, 404)


def test_node_still_serves_after_all_refused_requests(node: Node):
    node.assert_serving()
