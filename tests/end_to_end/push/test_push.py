"""Sleeping phones, woken by a real `geocast push` through a push service of the tests (push-rules.md)."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground, place, revision_of
from end_to_end.kit.keys import bearer
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.push import Push, cell
from end_to_end.kit.responders import POLICY
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.ports import free_ports
from support.push_service import HANG, LONG_HEAD, RESET, PushService


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def push(node: Node, service: PushService) -> Iterator[Push]:
    """Start `geocast push` with a device store of its own."""
    for path in node.home.glob("devices.db*"):
        path.unlink()
    (node.home / "revoked.toml").write_text("[sub]\n")
    with Push(node, service, options=("--revoked", "revoked.toml")) as push:
        yield push
        push.assert_no_surprise()


def test_phone_gets_an_alert_its_revision_and_its_cancel(node: Node, push: Push, service: PushService):
    """The three messages have the same length and Topic (rules WPT1, WPT2, R1, R4)."""
    spot, phone, far = ground(), service.phone(), service.phone()
    push.register(phone, cell(spot))
    push.register(far, cell(ground()))
    body = alert(spot)
    node.publish(body)
    service.until(lambda: len(phone.told) == 1)
    node.revise(revision_of(body, 2))
    service.until(lambda: len(phone.told) == 2)
    node.cancel(body["id"], 3)
    service.until(lambda: len(phone.told) == 3)
    assert phone.alerts() == [(body["id"], 1), (body["id"], 2)]
    assert phone.cancels() == [body["id"]]
    assert {len(each.body) for each in phone.requests} == {3_000}
    assert len({each.topic for each in phone.requests}) == 1
    assert far.told == []


def test_phone_that_asks_for_a_test_gets_it_like_any_alert(node: Node, push: Push, service: PushService):
    """TR1, TR3 and TR8: the message has the length of an alert, and a phone beside it gets none."""
    spot, phone, other = ground(), service.phone(), service.phone()
    push.register(other, cell(spot))
    assert push.register(phone, cell(spot), **{"try": "k1"})["live"] == 1
    service.until(lambda: len(phone.told) == 1)
    assert phone.alerts() == [("try:k1", 1)]
    assert (phone.told[0]["alert"]["status"], len(phone.requests[0].body)) == ("test", 3_000)
    body = node.publish(alert(spot))
    service.until(lambda: len(phone.told) == 2)
    service.until(lambda: len(other.told) == 1)
    assert phone.alerts() == [("try:k1", 1), (body["id"], 1)]


# ---- phones that sleep -----------------------------------------------------------------------------------------------


def test_sleeping_phone_gets_the_newest_state_of_each_alert_when_it_wakes(node: Node, push: Push, service: PushService):
    """A revision or cancel replaces the unread message.

    A phone that a PUT has moved away is still a recipient (rules WPT3, WPO3).
    """
    spot, elsewhere, phone = ground(), ground(), service.phone()
    device = push.register(phone, cell(spot))["id"]
    told, revised, cancelled, missed = (alert(spot) for _ in range(4))
    node.publish(told)
    service.until(lambda: len(phone.told) == 1)
    phone.asleep = True
    for body in (revised, cancelled):
        node.publish(body)
    service.until(lambda: len(phone.kept) == 2)
    push.register(phone, cell(elsewhere), device_id=device)
    node.revise(revision_of(revised, 2))
    node.cancel(cancelled["id"], 2)
    node.publish(missed)
    node.revise(revision_of(told, 2))
    late = alert(elsewhere)
    node.publish(late)
    service.until(lambda: len(phone.requests) == 7)
    phone.wake()
    assert sorted(phone.alerts()[1:]) == sorted([(told["id"], 2), (revised["id"], 2), (late["id"], 1)])
    assert phone.cancels() == [cancelled["id"]]


def test_new_device_gets_the_live_alerts_that_it_does_not_have_yet(node: Node, push: Push, service: PushService):
    """The field `live` says how many pushes follow (rules R3, R5a, R5b)."""
    spot = ground()
    first, second, witness = alert(spot), alert(spot), service.phone()
    push.register(witness, cell(spot))
    for body in (first, second):
        node.publish(body)
    node.revise(revision_of(second, 2))
    service.until(lambda: (second["id"], 2) in witness.alerts())  # the log has been read up to this revision
    new, holding = service.phone(), service.phone()
    assert push.register(new, cell(spot))["live"] == 2
    answer = push.register(holding, cell(spot), holding={first["id"]: 1, second["id"]: 1})
    assert answer["live"] == 1
    service.until(lambda: len(new.told) == 2 and len(holding.told) == 1)
    assert sorted(new.alerts()) == sorted([(first["id"], 1), (second["id"], 2)])
    assert holding.alerts() == [(second["id"], 2)]
    node.cancel(first["id"], 2)
    service.until(lambda: new.cancels() == holding.cancels() == [first["id"]])


def test_expired_alert_is_not_pushed_and_ttl_of_a_push_ends_with_its_alert(
    node: Node, push: Push, service: PushService
):
    """A device that waits for its service is not sent an alert that expired meanwhile (rules E1, WPT3)."""
    spot, phone = ground(), service.phone()
    phone.answers = [(503, {"Retry-After": "5"})]
    device = push.register(phone, cell(spot))["id"]
    for _ in range(20):  # on a busy machine the alert may expire before the first attempt to send it
        body, _ = node.publish_brief(alert(spot), 1.5)
        node.wait_for_end(body["id"])
        if service.statuses[503]:
            break
    assert service.statuses[503] == 1
    lasting = alert(spot)
    node.publish(lasting)
    service.until(lambda: phone.alerts() == [(lasting["id"], 1)])
    [kept] = phone.requests
    assert 3_000 < kept.ttl_s <= 3_600
    wait_until(lambda: push.metric("push_under_way") == 0, "the process knows that the push was accepted")
    assert push.register(phone, cell(spot), device_id=device)["live"] == 0


def test_pushes_accepted_by_services_are_counted_separately_from_stream_sends(
    node: Node, push: Push, service: PushService
):
    """Only pushes of revisions count.

    Stored counts survive a kill, and SIGTERM stores the remaining counts (rule H7).
    """
    spot, phones, refused = ground(), [service.phone() for _ in range(2)], service.phone()
    refused.answers = [400] * 3  # one for each process: after a 400 the device waits an hour
    for phone in (*phones, refused):
        push.register(phone, cell(spot))
    body = alert(spot)
    node.publish(body)
    node.wait_for_counts(body["id"], sent=0, acked=0, pushed=2)
    push.restart()
    session = node.join(place(spot))
    node.revise(revision_of(body, 2))
    service.until(lambda: all((body["id"], 2) in phone.alerts() for phone in phones))
    assert push.terminate() == 0
    node.wait_for_counts(body["id"], sent=2, acked=0, pushed=4)
    push.start()
    node.cancel(body["id"], 3)
    service.until(lambda: all(phone.cancels() == [body["id"]] for phone in phones))
    last = alert(spot)
    node.publish(last)
    node.wait_for_counts(last["id"], sent=1, acked=0, pushed=2)
    node.wait_for_counts(body["id"], sent=2, acked=0, pushed=4)
    session.drop()


# ---- answers of push services ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 410])
def test_device_whose_subscription_has_ended_is_forgotten(node: Node, push: Push, service: PushService, status: int):
    """The device and its delivery records are deleted from the store (rule WPR9)."""
    spot, phone = ground(), service.phone()
    phone.answers = [status]
    device, token = push.register(phone, cell(spot))["id"], push.token(sub=phone.name)
    node.publish(alert(spot))
    headers = bearer(token)
    wait_until(
        lambda: push.api.get(f"/v1/devices/{device}", headers=headers).status_code == 404, "the device is forgotten"
    )
    assert push.metric('push_forgotten_total{why="gone"}') == 1
    assert push.terminate() == 0
    push.start()
    assert push.metric("push_devices") == 0


def test_push_service_that_answers_413_is_sent_short_messages_from_then_on(
    node: Node, push: Push, service: PushService
):
    """The message is sent again at once, cut to 1,024 bytes. After a restart, messages are still short."""
    spot, phone = ground(), service.phone()
    phone.answers = [413]
    push.register(phone, cell(spot))
    for number in (1, 2):
        body = alert(spot, description="語" * 800)
        node.publish(body)
        service.until(lambda number=number: len(phone.told) == number)  # type: ignore[misc]
        assert phone.told[-1]["cut"] is True
        assert phone.told[-1]["alert"]["id"] == body["id"]
        push.terminate()
        push.start()
    assert {len(each.body) for each in phone.requests} == {1_024}


@pytest.mark.parametrize("answer", [(429, {"Retry-After": "1"}), 500, RESET, LONG_HEAD])
def test_failed_push_is_repeated_with_the_newest_revision(node: Node, push: Push, service: PushService, answer: object):
    """Pushes to the device are paused first. The Topic of the push stays the same (rule WPO2)."""
    spot, phone, witness = ground(), service.phone(), service.phone()
    phone.answers = [answer] * 50
    for each in (phone, witness):
        push.register(each, cell(spot))
    body, began = alert(spot), time.monotonic()
    node.publish(body)
    service.until(lambda: len(phone.answers) < 50)
    node.revise(revision_of(body, 2))
    service.until(lambda: (body["id"], 2) in witness.alerts())
    # After the failure the device is paused for at least a second. After that second, a push of revision 1 may be in
    # progress, so one more failure is kept for it.
    del phone.answers[0 if time.monotonic() < began + 1 else 1 :]
    service.until(lambda: len(phone.told) == 1)
    assert phone.alerts() == [(body["id"], 2)]


@pytest.mark.parametrize("status", [301, 307, 400, 403])
def test_refused_push_pauses_the_device_until_it_has_a_new_endpoint(
    node: Node, push: Push, service: PushService, status: int
):
    """A redirect is not followed.

    The device waits an hour, or until it registers with another endpoint (rules WPO2, WPO4).
    """
    spot, phone, other = ground(), service.phone(), service.phone()
    phone.answers = [(status, {"Location": other.endpoint})]
    device, token = push.register(phone, cell(spot))["id"], push.token(sub=phone.name)
    body = alert(spot)
    node.publish(body)
    service.until(lambda: service.statuses[status] == 1)
    node.settle()
    assert (phone.told, other.told) == ([], [])
    assert push.register(other, cell(spot), device_id=device, token=token)["live"] == 1
    service.until(lambda: other.alerts() == [(body["id"], 1)])


def test_push_service_that_hangs_does_not_delay_pushes_to_another_service(
    node: Node, push: Push, service: PushService, certificate: Certificate
):
    """The phones of one service all hang, and there are more of them than requests at a time (rules WPO1, WPO2)."""
    spot = ground()
    with PushService(certificate, always=HANG) as hanging, Push(node, service, hanging, devices="others.db") as both:
        for _ in range(260):
            both.register(hanging.phone(), cell(spot))
        phones = [service.phone() for _ in range(20)]
        for phone in phones:
            both.register(phone, cell(spot))
        minor, extreme = alert(spot, severity="minor"), alert(spot, severity="extreme")
        node.publish(minor)
        service.until(lambda: all(phone.told for phone in phones))
        node.publish(extreme)
        service.until(lambda: all(len(phone.told) == 2 for phone in phones))
        assert hanging.most_under_way <= 200
        both.assert_no_surprise()


# ---- a push process that is killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["push-in-commit", "push-noted", "push-answered"])
def test_phone_gets_the_alert_and_its_cancel_although_the_process_was_killed(
    node: Node, push: Push, service: PushService, point: str
):
    """The process is killed before the commit, after the commit, or after an answer.

    The alert is sent at most once more, under the same Topic (rules WPS2, WPS3).
    """
    spot, phone = ground(), service.phone()
    device = push.register(phone, cell(spot))["id"]
    push.terminate()
    push.start(GEOCAST_FAILPOINT=point)
    body = alert(spot)
    node.publish(body)
    push.dies()
    push.start()
    service.until(lambda: (body["id"], 1) in phone.alerts())
    assert len(phone.alerts()) <= 1 + (point == "push-answered")
    assert len({each.topic for each in phone.requests}) == 1
    push.register(phone, cell(ground()), device_id=device)  # the device moves away, and is still a recipient
    push.restart()
    node.cancel(body["id"], 2)
    service.until(lambda: phone.cancels() == [body["id"]])


def test_shutdown_stores_the_outcome_of_every_push_in_progress(node: Node, push: Push, service: PushService):
    """After the restart, no phone gets the alert twice."""
    spot = ground()
    phones = [service.phone() for _ in range(100)]
    for phone in phones:
        push.register(phone, cell(spot))
    body = alert(spot)
    node.publish(body)
    service.until(lambda: any(phone.told for phone in phones))
    assert push.terminate() == 0
    push.start()
    service.until(lambda: all(phone.told for phone in phones))
    node.cancel(body["id"], 2)
    service.until(lambda: all(phone.cancels() for phone in phones))
    assert all(phone.alerts() == [(body["id"], 1)] for phone in phones)


# ---- registrations ---------------------------------------------------------------------------------------------------


def test_registration_survives_a_restart_and_only_its_owner_can_read_it(node: Node, push: Push, service: PushService):
    """The owner's GET shows no key, and only the host of the endpoint (rules WPR1, WPR10, WPP3)."""
    spot, phone = ground(), service.phone()
    said = {"categories": ["burglary"], "min_severity": "moderate", "languages": ["es", "en"], "proofs": True}
    answer = push.register(phone, cell(spot, 8), **said)
    push.restart()
    path, mine = f"/v1/devices/{answer['id']}", bearer(push.token(sub=phone.name))
    shown = push.api.get(path, headers=mine).json()
    assert shown == {
        "id": answer["id"],
        "until": answer["until"],
        "subscription": {"endpoint": "localhost"},
        "places": [{"cell": cell(spot, 8)}],
        **said,
    }
    assert push.api.get(path, headers=bearer(push.token(sub="other"))).status_code == 404
    assert push.api.delete(path, headers=bearer(push.token(sub="other"))).status_code == 204
    assert push.api.get(path, headers=mine).status_code == 200
    assert push.api.delete(path, headers=mine).status_code == 204
    assert push.api.get(path, headers=mine).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/stream"), ("POST", "/v1/stream"), ("GET", "/v1/stream?token=x"), ("POST", "/v1/alerts")],
)
def test_request_for_another_listener_is_told_what_the_port_is_for(push: Push, method: str, path: str):
    """A client that took the wrong port needs no token to learn it, and may offer an upgrade (H10)."""
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"} if method == "GET" else {}
    answer = push.api.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    assert "Only devices register at this port" in answer.json()["detail"]


def test_input_that_is_not_http_is_refused_and_a_wrong_method_is_told_the_right_ones(push: Push):
    """The bytes are the beginning of a TLS connection, and then HTTP/2's preface (BA1c)."""
    tls, http2 = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for noise, status in ((tls, b"400"), (http2, b"404")):
        with socket.create_connection(("127.0.0.1", push.port), timeout=PATIENCE) as raw:
            raw.sendall(noise)
            assert raw.recv(65536).startswith(b"HTTP/1.1 " + status)
    answer = push.api.post("/v1/push")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = push.api.post("/v1/devices", headers=bearer(push.token()))
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE")


def test_reload_forgets_devices_of_revoked_tokens_and_removed_keys(node: Node, push: Push, service: PushService):
    """The devices are forgotten within a second of the reload (rules WPR9, BA2, BA3)."""
    first, second, third = (service.phone() for _ in range(3))
    spot = ground()
    push.register(first, cell(spot), token=push.token(sub="lost"))
    push.register(second, cell(spot), token=push.token(sub="kept"))
    push.register(
        third, cell(spot), token=node.keys.signed(node.keys.claims(sub="secret"), node.keys.secret, "HS256", "hs")
    )
    keys = node.home / "keys.json"
    before = keys.read_bytes()
    (node.home / "revoked.toml").write_text(f'[sub]\n"lost" = {stamp(seconds=5)}\n')
    keys.write_text(json.dumps({"keys": [each for each in node.keys.jwks()["keys"] if each["kid"] != "hs"]}))
    try:
        push.reload()
        wait_until(lambda: push.metric('push_forgotten_total{why="revoked"}') == 2, "two devices are forgotten")
        body = alert(spot)
        node.publish(body)
        service.until(lambda: second.alerts() == [(body["id"], 1)])
        assert first.told == third.told == []
    finally:
        keys.write_bytes(before)
        (node.home / "revoked.toml").write_text("[sub]\n")


def test_phone_registered_by_a_new_owner_gets_only_the_new_owners_alerts(node: Node, push: Push, service: PushService):
    """An endpoint has only one registration (rule WPR8)."""
    here, there, phone = ground(), ground(), service.phone()
    push.register(phone, cell(here), token=push.token(sub="old"))
    push.register(phone, cell(there), token=push.token(sub="new"))
    assert push.metric("push_devices") == 1
    old, new = alert(here), alert(there)
    node.publish(old)
    node.publish(new)
    service.until(lambda: phone.alerts() == [(new["id"], 1)])
    node.settle()
    assert phone.alerts() == [(new["id"], 1)]


def test_service_worker_can_replace_the_endpoint_if_it_knows_the_devices_secret(
    node: Node, push: Push, service: PushService
):
    """The `PUT …/subscription` needs no token and does not extend the registration."""
    spot, before, after = ground(), service.phone(), service.phone()
    answer = push.register(before, cell(spot))
    path, body = f"/v1/devices/{answer['id']}/subscription", {"subscription": after.subscription()}
    for wrong in ("x", answer["secret"] + "x", push.token(sub=before.name)):
        assert push.api.put(path, json=body, headers=bearer(wrong)).status_code == 401
    elsewhere = path.replace(answer["id"], "x" * 16)
    assert push.api.put(elsewhere, json=body, headers=bearer(answer["secret"])).status_code == 401
    done = push.api.put(path, json=body, headers=bearer(answer["secret"]))
    assert (done.status_code, done.json()) == (200, {"until": answer["until"]})
    push.restart()
    told = alert(spot)
    node.publish(told)
    service.until(lambda: after.alerts() == [(told["id"], 1)])
    assert before.told == []


def test_all_stored_devices_are_re_encrypted_with_a_new_key_and_keep_deliveries(
    node: Node, push: Push, service: PushService
):
    """The new key comes before the old one in the file. After the next start the old key can be removed (rule WPS1)."""
    spot, phone = ground(), service.phone()
    answer = push.register(phone, cell(spot))
    body = alert(spot)
    node.publish(body)
    service.until(lambda: len(phone.told) == 1)
    push.terminate()
    keys = node.home / "push.jwks"
    assert ended(BIN / "geocast", "keygen", "--push", keys).returncode == 0
    push.start()
    push.terminate()
    keys.write_text(json.dumps({"keys": json.loads(keys.read_text())["keys"][:1]}))
    push.start()
    assert push.metric("push_set_aside") == 0
    path = f"/v1/devices/{answer['id']}"
    assert push.api.get(path, headers=bearer(push.token(sub=phone.name))).status_code == 200
    node.cancel(body["id"], 2)
    service.until(lambda: phone.cancels() == [body["id"]])
    assert phone.alerts() == [(body["id"], 1)]


def test_personal_data_of_a_device_is_in_no_file_log_line_or_metric(node: Node, push: Push, service: PushService):
    """The search covers endpoint, place, `sub`, id, key and secret (rules WPP2, M9)."""
    spot, phone = ground(), service.phone()
    phone.answers = [500]
    answer = push.register(phone, cell(spot), token=push.token(sub="sub-of-somebody"))
    node.publish(alert(spot))
    service.until(lambda: len(phone.told) == 1)
    metrics = push.metrics_api.get("/metrics").content
    push.terminate()
    seen = b"".join([metrics, push.output().encode(), *(path.read_bytes() for path in push.files())])
    subscription = phone.subscription()
    words = [phone.name, cell(spot), "sub-of-somebody", answer["id"], answer["secret"], *subscription["keys"].values()]
    assert not [word for word in words if word.encode() in seen]
    assert phone.auth not in seen
    assert int(cell(spot), 16).to_bytes(8, "big") not in seen


def test_prometheus_rules_use_only_metrics_that_exist(push: Push, service: PushService, node: Node):
    """All metrics of this process that docs/deploy/geocast.rules.yml names exist.

    None has the name of a node's metric.
    """
    spot, phone = ground(), service.phone()
    phone.answers = [403]
    push.register(phone, cell(spot))
    node.publish(alert(spot))
    service.until(lambda: service.statuses[403] == 1)
    rules = (Path(__file__).parents[3] / "docs" / "deploy" / "geocast.rules.yml").read_text("utf-8")
    # Restarts are counted only with --workers (test_push_workers.py).
    wanted = set(re.findall(r"\bgeocast_push_\w+", rules)) - {"geocast_push_restarts_total"}
    assert wanted

    def shown() -> set[str]:
        text = push.metrics_api.get("/metrics").text
        return set(re.findall(r"^geocast_\w+", text, re.MULTILINE))

    wait_until(lambda: wanted <= shown(), f"the metrics have all of {sorted(wanted)}")
    assert not {"geocast_ready", "geocast_settings_digest", "geocast_refused_total"} & shown()


# ---- starting the push process ---------------------------------------------------------------------------------------


def test_push_process_needs_no_call_keys_for_a_policy_with_calls(node: Node, push: Push, service: PushService):
    """The process skips log entries of calls. Only nodes need the option `--call-keys` (rule RU4)."""
    (node.home / "calls.toml").write_text(POLICY)
    with Push(node, service, options=("--policy", "calls.toml"), devices="calls.db") as other:
        assert other.metric("push_ready") == 1


def test_second_push_process_on_the_same_store_does_not_start(node: Node, push: Push):
    """The error says that another process has the file (rule DevS7)."""
    ports = dict(zip((push.port, push.metrics_port), free_ports(2), strict=True))
    other = [*push.options]
    for mine, another in ports.items():
        other = [each.replace(f"127.0.0.1:{mine}", f"127.0.0.1:{another}") for each in other]
    done = ended(BIN / "geocast", "push", *other, cwd=node.home)
    assert done.returncode == 2
    assert "another process has it" in done.stderr


def test_node_does_not_import_the_push_modules():
    program = "import sys, geocast.run.node, geocast.cli; print([m for m in sys.modules if '.push' in m])"
    listed = ended(sys.executable, "-c", program, env=clean_environment())
    assert listed.stdout == "['geocast.cli.push']\n"
