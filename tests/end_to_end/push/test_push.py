"""Phones that sleep, woken by a real process, through a push service that plays the browsers' (push-rules.md)."""

import json
import re
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
from support.command import ended
from support.ports import free_ports
from support.push_service import HANG, LONG_HEAD, RESET, PushService


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def push(node: Node, service: PushService) -> Iterator[Push]:
    """The process, with a store of its own."""
    for path in node.home.glob("devices.db*"):
        path.unlink()
    (node.home / "revoked.toml").write_text("[sub]\n")
    with Push(node, service, options=("--revoked", "revoked.toml")) as push:
        yield push
        push.assert_no_surprise()


def test_a_phone_is_told_of_an_alert_its_revision_and_its_cancel(node: Node, push: Push, service: PushService):
    """WPT1, WPT2, R1, R4: by three messages that look alike."""
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


# ---- phones that sleep -----------------------------------------------------------------------------------------------


def test_a_phone_that_slept_is_told_the_newest_of_each_alert_when_it_wakes(
    node: Node, push: Push, service: PushService
):
    """WPT3, WPO3: a revision and a cancel take the place of what it has not read; moved by a PUT, it is a recipient."""
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


def test_who_registers_is_told_what_is_live_and_who_holds_it_is_not(node: Node, push: Push, service: PushService):
    """R3, R5a, R5b: `live` says how many pushes follow."""
    spot = ground()
    first, second, witness = alert(spot), alert(spot), service.phone()
    push.register(witness, cell(spot))
    for body in (first, second):
        node.publish(body)
    node.revise(revision_of(second, 2))
    service.until(lambda: (second["id"], 2) in witness.alerts())  # the log has been read as far as that
    new, holding = service.phone(), service.phone()
    assert push.register(new, cell(spot))["live"] == 2
    answer = push.register(holding, cell(spot), holding={first["id"]: 1, second["id"]: 1})
    assert answer["live"] == 1
    service.until(lambda: len(new.told) == 2 and len(holding.told) == 1)
    assert sorted(new.alerts()) == sorted([(first["id"], 1), (second["id"], 2)])
    assert holding.alerts() == [(second["id"], 2)]
    node.cancel(first["id"], 2)
    service.until(lambda: new.cancels() == holding.cancels() == [first["id"]])


def test_nothing_is_sent_of_what_is_over(node: Node, push: Push, service: PushService):
    """E1, WPT3: a device that waits for its service is not sent what has ended meanwhile, and TTL says until when."""
    spot, phone = ground(), service.phone()
    phone.answers = [(503, {"Retry-After": "5"})]
    device = push.register(phone, cell(spot))["id"]
    for _ in range(20):  # a busy machine may have it come to its end before anybody is asked to hand it over
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
    wait_until(lambda: push.metric("push_under_way") == 0, "it knows that it was taken")
    assert push.register(phone, cell(spot), device_id=device)["live"] == 0


def test_what_services_took_is_counted_beside_what_nodes_sent(node: Node, push: Push, service: PushService):
    """H7: revisions alone; what is stored outlasts a kill, and what is not is stored by who is told to end."""
    spot, phones, refused = ground(), [service.phone() for _ in range(2)], service.phone()
    refused.answers = [400] * 3  # once for each process: then it waits an hour
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


# ---- what services answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 410])
def test_a_device_whose_subscription_is_over_is_forgotten(node: Node, push: Push, service: PushService, status: int):
    """WPR9: row, record and what it was told."""
    spot, phone = ground(), service.phone()
    phone.answers = [status]
    device, token = push.register(phone, cell(spot))["id"], push.token(sub=phone.name)
    node.publish(alert(spot))
    headers = bearer(token)
    wait_until(lambda: push.api.get(f"/v1/devices/{device}", headers=headers).status_code == 404, "it is forgotten")
    assert push.metric('push_forgotten_total{why="gone"}') == 1
    assert push.terminate() == 0
    push.start()
    assert push.metric("push_devices") == 0


def test_a_service_that_takes_no_large_bodies_is_sent_small_ones_from_then_on(
    node: Node, push: Push, service: PushService
):
    """413: at once, cut, in 1,024 bytes; after a restart too."""
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
def test_a_push_that_failed_is_made_again_with_what_is_owed_by_then(
    node: Node, push: Push, service: PushService, answer: object
):
    """WPO2: of a device that was paused, the newest revision, under the same Topic."""
    spot, phone, witness = ground(), service.phone(), service.phone()
    phone.answers = [answer] * 50
    for each in (phone, witness):
        push.register(each, cell(spot))
    body, began = alert(spot), time.monotonic()
    node.publish(body)
    service.until(lambda: len(phone.answers) < 50)
    node.revise(revision_of(body, 2))
    service.until(lambda: (body["id"], 2) in witness.alerts())
    # It is paused for a second at least. Later than that, a push of before may be under way.
    del phone.answers[0 if time.monotonic() < began + 1 else 1 :]
    service.until(lambda: len(phone.told) == 1)
    assert phone.alerts() == [(body["id"], 2)]


@pytest.mark.parametrize("status", [301, 307, 400, 403])
def test_what_is_refused_is_not_made_again_soon_and_nobody_is_forgotten_for_it(
    node: Node, push: Push, service: PushService, status: int
):
    """WPO2, WPO4: a redirect is not followed; the device waits an hour, or until it registers with another endpoint."""
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


def test_an_extreme_alert_overtakes_and_a_service_that_hangs_holds_up_no_other(
    node: Node, push: Push, service: PushService, certificate: Certificate
):
    """WPO1, WPO2: the phones of one service all hang, with more of them than there are slots."""
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


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["push-in-commit", "push-noted", "push-answered"])
def test_after_a_kill_whoever_may_have_been_told_is_told_and_has_the_cancel(
    node: Node, push: Push, service: PushService, point: str
):
    """WPS2, WPS3: before the commit, after it, after an answer; at most once more, under the same Topic."""
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
    push.register(phone, cell(ground()), device_id=device)  # a recipient, wherever it is by now
    push.restart()
    node.cancel(body["id"], 2)
    service.until(lambda: phone.cancels() == [body["id"]])


def test_told_to_end_it_stores_what_has_come_of_all_that_was_under_way(node: Node, push: Push, service: PushService):
    """The drain: nobody is told twice after it."""
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


# ---- who there is ----------------------------------------------------------------------------------------------------


def test_what_a_device_said_is_there_after_a_restart_and_nobody_else_is_shown_it(
    node: Node, push: Push, service: PushService
):
    """WPR1, WPR10, WPP3; the owner's GET has no key, and of the endpoint the host alone."""
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


def test_a_revoked_token_and_a_key_that_is_gone_end_registrations(node: Node, push: Push, service: PushService):
    """WPR9, BA2, BA3: within a second of a reload."""
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
        wait_until(lambda: push.metric('push_forgotten_total{why="revoked"}') == 2, "two are forgotten")
        body = alert(spot)
        node.publish(body)
        service.until(lambda: second.alerts() == [(body["id"], 1)])
        assert first.told == third.told == []
    finally:
        keys.write_bytes(before)
        (node.home / "revoked.toml").write_text("[sub]\n")


def test_a_phone_that_changed_hands_is_told_for_its_new_owner_alone(node: Node, push: Push, service: PushService):
    """WPR8: one registration for an endpoint."""
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


def test_a_service_worker_says_a_new_endpoint_by_the_secret(node: Node, push: Push, service: PushService):
    """`PUT …/subscription`: without a token, and with no new lease."""
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


def test_a_new_key_of_the_store_seals_all_anew_and_what_was_told_stays(node: Node, push: Push, service: PushService):
    """WPS1: put in front of the old one, which can be taken away after the next start."""
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


def test_nothing_of_a_device_is_in_a_file_a_line_or_a_metric(node: Node, push: Push, service: PushService):
    """WPM4, WPP2, M9: no endpoint, place, `sub`, id, key or secret; and nothing at all once it is forgotten."""
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


def test_the_rules_for_prometheus_ask_for_what_is_there(push: Push, service: PushService, node: Node):
    """docs/deploy/geocast.rules.yml: all metrics of this process that they name; none is called as one of a node."""
    spot, phone = ground(), service.phone()
    phone.answers = [403]
    push.register(phone, cell(spot))
    node.publish(alert(spot))
    service.until(lambda: service.statuses[403] == 1)
    rules = (Path(__file__).parents[3] / "docs" / "deploy" / "geocast.rules.yml").read_text("utf-8")
    # Restarts are counted with --workers alone (test_push_workers.py).
    wanted = set(re.findall(r"\bgeocast_push_\w+", rules)) - {"geocast_push_restarts_total"}
    assert wanted

    def shown() -> set[str]:
        text = push.metrics_api.get("/metrics").text
        return set(re.findall(r"^geocast_\w+", text, re.MULTILINE))

    wait_until(lambda: wanted <= shown(), f"all of {sorted(wanted)}")
    assert not {"geocast_ready", "geocast_settings_digest", "geocast_refused_total"} & shown()


# ---- starting --------------------------------------------------------------------------------------------------------


def test_it_runs_on_a_policy_with_calls_and_has_no_key_to_open_them(node: Node, push: Push, service: PushService):
    """RU4: entries of calls are passed over; `--call-keys` is the nodes' alone."""
    (node.home / "calls.toml").write_text(POLICY)
    with Push(node, service, options=("--policy", "calls.toml"), devices="calls.db") as other:
        assert other.metric("push_ready") == 1


def test_two_processes_on_one_store_are_one_too_many(node: Node, push: Push):
    """DevS7: the second does not start."""
    ports = dict(zip((push.port, push.metrics_port), free_ports(2), strict=True))
    other = [*push.options]
    for mine, another in ports.items():
        other = [each.replace(f"127.0.0.1:{mine}", f"127.0.0.1:{another}") for each in other]
    done = ended(BIN / "geocast", "push", *other, cwd=node.home)
    assert done.returncode == 2
    assert "another process has it" in done.stderr


def test_no_other_command_has_to_load_what_pushes():
    """A node imports nothing of it."""
    program = "import sys, geocast.run.node, geocast.cli; print([m for m in sys.modules if '.push' in m])"
    listed = ended(sys.executable, "-c", program, env=clean_environment())
    assert listed.stdout == "['geocast.cli.push']\n"
