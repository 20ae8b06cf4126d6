"""Requests that the api refuses, in the order of its decisions: size, media type, token, scope, state of the alert."""

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


def test_the_body_is_too_large_beyond_64_kib_and_not_before(node: Node):
    """Section 4: 413 over 64 KiB, whether its length is announced or not."""
    text = json.dumps(alert(ground()))
    assert send(node, text.ljust(KIB64).encode()).status_code == 201
    assert_problem(send(node, text.ljust(KIB64 + 1).encode()), 413, "too-large")
    headers = {"Content-Type": "application/json"} | bearer(node.desk)
    chunks = (text.ljust(KIB64).encode() for _ in range(2))
    assert_problem(node.api.post("/v1/alerts", content=chunks, headers=headers), 413, "too-large")


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/problem+xml", ""]
)
def test_other_media_types_are_not_supported(node: Node, media: str):
    """Section 4: 415."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    assert_problem(send(node, body, **{"Content-Type": media}), 415, "unsupported-media-type")


def test_no_media_type_is_not_supported(node: Node):
    """Section 4: 415 without a Content-Type, too."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    answer = node.api.post("/v1/alerts", content=body, headers=bearer(node.desk))
    assert_problem(answer, 415, "unsupported-media-type")


def test_json_with_a_charset_is_json(node: Node):
    """Section 4, "JSON in and out": a parameter of the media type does no harm."""
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
def test_the_first_decision_that_fits_wins(
    node: Node, scope: str | None, method: str, path: str, body: bytes, headers: Json, status: int, slug: str
):
    """Section 4, "Order of decisions"."""
    token = None if scope is None else node.keys.token(scope=scope)
    headers = {"Content-Type": "application/json"} | bearer(token) | headers
    answer = node.api.request(method, path, content=body, headers=headers)
    assert_problem(answer, status, slug)


# ---- tokens ------------------------------------------------------------------------------------------------------


def test_anything_wrong_with_a_token_gets_one_and_the_same_answer(node: Node, keys: Keys):
    """Section 6; with `WWW-Authenticate`."""
    body, answers = alert(ground()), set()
    for name, token in keys.bad_tokens().items():
        answer = node.post("/v1/alerts", body, token)
        assert answer.status_code == 401, name
        assert "bearer" in answer.headers["www-authenticate"].lower()
        assert_problem(answer, 401, "unauthorized")
        answers.add((answer.text, answer.headers["www-authenticate"]))
    assert len(answers) == 1
    assert node.get(f"/v1/alerts/{body['id']}").status_code == 404


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic ZGVzazo3Mzkx", "Token x7391", "x7391"])
def test_no_bearer_token_is_unauthorized(node: Node, header: str | None):
    """Section 4: `Authorization: Bearer <JWT>`."""
    headers = {} if header is None else {"Authorization": header}
    assert_problem(node.api.get("/v1/alerts", headers=headers), 401, "unauthorized")


@pytest.mark.parametrize("call", ["/v1/alerts", "/v1/alerts/some-alert", "/v1/policy"])
def test_every_call_but_the_open_ones_needs_a_token(node: Node, call: str):
    """Section 4, the table."""
    assert_problem(node.api.get(call), 401, "unauthorized")


@pytest.mark.parametrize("sub", ["Jane Doe 7391", "desk@7391", "-desk7391", "d" * 129, "désk7391", "desk7391\n"])
def test_a_publisher_whose_sub_is_no_id_may_not_publish(node: Node, keys: Keys, sub: str):
    """Section 6: a publisher's `sub` matches the grammar of `id`, else 403."""
    problem_of(node.post("/v1/alerts", alert(ground()), keys.token(sub=sub)), 403)


GOOD_CLAIMS: dict[str, Json] = {
    "aud in a list": {"aud": ["other", "geocast"]},
    "nbf in the past": {"nbf": 1},
    "more scopes": {"scope": "alerts:publish other:scope"},
    "more claims": {"name": "desk", "iat": 1},
}


@pytest.mark.parametrize("claims", GOOD_CLAIMS.values(), ids=GOOD_CLAIMS.keys())
def test_a_good_token_is_good(node: Node, keys: Keys, claims: Json):
    """Section 6: the claims that are asked for, and any others."""
    node.publish(alert(ground()), keys.token(**claims))


def test_an_hs256_key_that_says_so_is_good(node: Node, keys: Keys):
    """Section 6: `oct` keys with HS256 for development."""
    token = keys.signed(keys.claims(), key=keys.secret, alg="HS256", kid="hs")
    node.publish(alert(ground()), token)


# ---- 404, 403, 410, 409 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_an_alert_that_was_never_published_is_unknown(node: Node, call: str):
    """Section 4: 404, for a revision and a cancel."""
    name = new_id()
    body = cancel_body(2) if call == "cancel" else revision_of(alert(ground(), id=name), 2)
    assert_problem(node.post(f"/v1/alerts/{name}/{call}", body), 404, "unknown-alert")


def test_get_of_an_alert_that_was_never_published_is_404(node: Node):
    """Section 4, `GET /v1/alerts/{id}`."""
    assert_problem(node.get(f"/v1/alerts/{new_id()}"), 404, "unknown-alert")


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_another_publishers_alert_needs_the_scope_to_manage(node: Node, keys: Keys, call: str):
    """Section 4: 403 `not-yours`, before 409 and 410; with `alerts:manage` it works."""
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
def test_a_cancelled_alert_has_ended(node: Node, keys: Keys, call: str):
    """Section 4: 410, after 403 `not-yours` and before 409."""
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
def test_a_number_that_is_not_the_next_conflicts(node: Node, number: int):
    """Section 4: 409 `revision-conflict`, with `current`."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}"
    for answer in (
        node.post(f"{path}/revisions", revision_of(body, number)),
        node.post(f"{path}/cancel", cancel_body(number)),
    ):
        assert assert_problem(answer, 409, "revision-conflict")["current"] == 1


def test_a_number_that_is_taken_by_other_content_conflicts(node: Node):
    """Section 4: 409, for another revision and for a cancel of that number."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2))
    path = f"/v1/alerts/{body['id']}"
    other = node.post(f"{path}/revisions", revision_of(body, 2, headline="Something else"))
    assert assert_problem(other, 409, "revision-conflict")["current"] == 2
    cancel = node.post(f"{path}/cancel", cancel_body(2))
    assert assert_problem(cancel, 409, "revision-conflict")["current"] == 2


def test_a_known_id_conflicts_before_the_rules_and_after_the_fields(node: Node):
    """Section 4, "Order": 422 for section 2, then 409, then 422 for section 3."""
    body = alert(ground())
    node.publish(body)
    assert_problem(node.post("/v1/alerts", body | {"headline": "Other"}), 409, "id-conflict")
    assert_problem(node.post("/v1/alerts", body | {"threat": "individual"}), 409, "id-conflict")
    check(node.post("/v1/alerts", body | {"headline": ""}), 422, [("invalid-value", "/headline")])


def test_a_revision_keeps_the_incident(node: Node):
    """Section 4: another `occurred_at`, `status` or `id` than revision 1's is refused."""
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


def test_a_revision_may_not_end_earlier_than_the_current_one(node: Node):
    """Section 3: to end early, cancel; the same end or a later one is fine."""
    body = alert(ground(), expires_at=stamp(seconds=1_000))
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    earlier = revision_of(body, 2, expires_at=stamp(seconds=900))
    check(node.post(path, earlier), 422, [("expiry-out-of-range", "/expires_at")])
    node.revise(revision_of(body, 2))
    node.revise(revision_of(body, 3, expires_at=stamp(seconds=1_100)))
    back = revision_of(body, 4, expires_at=stamp(seconds=1_050))
    check(node.post(path, back), 422, [("expiry-out-of-range", "/expires_at")])


def test_a_refused_revision_is_judged_by_the_rules_like_an_alert(node: Node):
    """Section 3 applies to revisions, but for the incident's age."""
    body = alert(ground())
    node.publish(body)
    bad = revision_of(body, 2, threat="individual", area=circle(ground(), 9))
    errors = [("not-community", "/threat"), ("radius-out-of-range", "/area/radius_m")]
    check(node.post(f"/v1/alerts/{body['id']}/revisions", bad), 422, errors)


# ---- afterwards --------------------------------------------------------------------------------------------------


def test_every_problem_type_of_the_protocol_is_explained_without_a_token(node: Node):
    """Section 4, "Errors": `GET /problems/<slug>` explains it."""
    table = re.findall(r"^\| \d{3} \| ([^|]*)\|", (ROOT / "docs" / "protocol.md").read_text("utf-8"), re.MULTILINE)
    slugs = [slug for row in table for slug in re.findall(r"`([a-z-]+)`", row)]
    assert len(slugs) > 50
    for slug in slugs:
        answer = node.api.get(f"/problems/{slug}")
        assert answer.status_code == 200, slug
        assert slug in answer.text
        assert len(answer.text) > len(slug) + 20, slug


def test_a_problem_type_that_does_not_exist_is_not_explained(node: Node):
    """An unknown slug is 404."""
    assert node.api.get("/problems/no-such-problem").status_code in (401, 404)


def test_the_node_goes_on_serving_after_all_of_this(node: Node):
    """A good alert still reaches a good session."""
    node.assert_serving()
