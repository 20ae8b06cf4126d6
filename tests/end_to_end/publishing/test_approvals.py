"""Approvals signed with the commands that reviewers use, and forged entries written directly into the log."""

import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from end_to_end.kit.alerts import Json, alert, ground, place
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.proofs import AUDIENCE, POLICY
from end_to_end.kit.subscriber import Session, told
from end_to_end.kit.times import wait_until
from support.command import ended
from support.redis_server import RedisServer, missing

from geocast.alertlog import codec

Join = Callable[..., Session]
PEOPLE = ("r-7", "r-8")
NOTHING_ASKED = POLICY.replace("approvals = 2", "approvals = 0").replace("cancel_approvals = 1", "cancel_approvals = 0")


def geocast(home: Path, *arguments: str, told: str = "") -> str:
    """Run `geocast` with the text `told` on standard input, and return its output."""
    done = ended(BIN / "geocast", *arguments, input=told, env=clean_environment(), cwd=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def signing(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node that requires two signatures for a burglary and one for its cancel; the keys are from `geocast keygen`."""
    for person in PEOPLE:
        geocast(tmp_path, "keygen", "--reviewer", person)
    (tmp_path / "policy.toml").write_text(POLICY.format(audience=AUDIENCE))
    with Node(tmp_path, keys, "--policy", "policy.toml", "--reviewers", "reviewers.jwks") as node:
        yield node


def signed(node: Node, path: str, body: Json, *people: str) -> Json:
    """Return the body with an approval, by the steps of approval-rules.md.

    These are a dry run, and `geocast approve` for each reviewer.
    """
    dry = node.post(path, body, dry_run="true")
    assert dry.status_code == 200, dry.text
    sign = ("approve", "--audience", AUDIENCE, "--yes", "--key")
    signatures = [json.loads(geocast(node.home, *sign, f"{person}.jwk", told=dry.text)) for person in people]
    return body | {"approval": {"form": dry.json()["form"], "signatures": signatures}}


def an_alert(spot: tuple[float, float], **fields: Any) -> Json:
    """Return an alert request without an approval."""
    return alert(spot, approval=None, **fields)


def test_alert_needs_two_command_line_signatures_and_cancel_needs_one(signing: Node, join: Join):
    """A refusal says how many signatures are missing.

    A repeated request stores nothing (AP, steps 1 to 3; rules AP5 and AP8).
    """
    spot = ground()
    phone = join(signing, place(spot))
    body = an_alert(spot)
    path = f"/v1/alerts/{body['id']}/cancel"
    alone = signing.post("/v1/alerts", signed(signing, "/v1/alerts", body, "r-7"))
    [problem] = alone.json()["errors"]
    assert (alone.status_code, problem["type"]) == (422, "/problems/approvals-needed")
    assert (problem["needed"], problem["have"]) == (2, 1)
    asked = signed(signing, "/v1/alerts", body, *PEOPLE)
    assert [signing.post("/v1/alerts", asked).status_code for _ in range(2)] == [201, 200]
    phone.listen(body["id"], 1)
    over = signed(signing, path, {"revision": 2, "reason": "False alarm"}, "r-8")
    assert signing.post(path, over).status_code == 201
    phone.listen(body["id"], "cancel")
    assert phone.everything() == [(body["id"], 1), (body["id"], "cancel")]
    signing.assert_no_surprise()


def test_forged_log_entries_are_counted_and_never_sent(signing: Node, join: Join):
    """Entries without signatures, or with the signatures of another form, are not sent.

    A restart does not change this (rules NC1, NC3 and TH7).
    """
    spot = ground()
    phone = join(signing, place(spot))
    first, last = an_alert(spot), an_alert(spot)
    assert signing.post("/v1/alerts", signed(signing, "/v1/alerts", first, *PEOPLE)).status_code == 201
    phone.listen(first["id"], 1)
    insert_beside(signing.log_file, first["id"])
    assert signing.post("/v1/alerts", signed(signing, "/v1/alerts", last, *PEOPLE)).status_code == 201
    phone.listen(last["id"], 1)
    assert phone.everything() == [(first["id"], 1), (last["id"], 1)]
    for _ in range(2):
        assert untrusted(signing) == {"unsigned": 1, "other-place": 2}
        assert signing.live() == {first["id"], last["id"]}
        assert signing.get("/v1/alerts/unsigned").status_code == 404
        assert signing.state(first["id"])["alert"]["headline"] == first["headline"]
        signing.restart()
        late = join(signing, place(spot))
        assert {(each["alert"]["id"], each["alert"]["revision"]) for each in late.batch} == {
            (first["id"], 1),
            (last["id"], 1),
        }


def test_revision_into_a_category_without_approvals_is_refused(signing: Node, join: Join):
    """A revision into a category without approvals is refused by the API, and ignored when it is written into the log.

    A node that starts later decides the same (rule HD1).
    """
    spot = ground()
    phone = join(signing, place(spot))
    body = an_alert(spot)
    assert signing.post("/v1/alerts", signed(signing, "/v1/alerts", body, *PEOPLE)).status_code == 201
    phone.listen(body["id"], 1)
    by_word = alert(spot)["approval"]
    path = f"/v1/alerts/{body['id']}"
    revised = body | {"revision": 2, "category": "robbery", "headline": "False alarm. You may go back in."}
    refused = signing.post(f"{path}/revisions", revised | {"approval": by_word})
    assert [(each["type"], each["needed"], each["have"]) for each in refused.json()["errors"]] == [
        ("/problems/approvals-needed", 2, 0)
    ]
    assert signing.post(f"{path}/revisions", revised, dry_run="true").json()["approvals"] == 2
    insert(signing.log_file, body["id"], {"category": "robbery", "headline": "Go back in", "revision": 2})
    over = {"revision": 3, "reason": "It is over"}
    assert signing.post(f"{path}/cancel", over, dry_run="true").json()["approvals"] == 1
    assert signing.post(f"{path}/cancel", over | {"approval": by_word}).status_code == 422
    mark = signing.publish(alert(spot, category="robbery"))
    phone.listen(mark["id"], 1)
    assert phone.everything() == [(body["id"], 1), (mark["id"], 1)]
    signing.restart()
    late = join(signing, place(spot))
    assert {told(each) for each in late.batch} == {(body["id"], 1), (mark["id"], 1)}
    assert signing.state(body["id"])["alert"]["headline"] == body["headline"]
    assert signing.post(f"{path}/cancel", signed(signing, f"{path}/cancel", over, "r-8")).status_code == 201
    late.listen(body["id"], "cancel")
    assert untrusted(signing) == {"unsigned": 1}
    signing.assert_no_surprise()


@pytest.mark.parametrize("workers", [1, 2])
def test_alert_published_before_stricter_policy_can_be_read_and_cancelled(
    keys: Keys, tmp_path: Path, join: Join, workers: int
):
    """After a reload the API still lists the alert.

    After a restart, clients that have it are still sent its cancel (rule HD7).
    """
    for person in PEOPLE:
        geocast(tmp_path, "keygen", "--reviewer", person)
    policy = tmp_path / "policy.toml"
    policy.write_text(NOTHING_ASKED.format(audience=AUDIENCE))
    options = ("--policy", "policy.toml", "--reviewers", "reviewers.jwks", "--workers", str(workers))
    with Node(tmp_path, keys, *options) as node:
        spot = ground()
        phone = join(node, place(spot))
        first, second = alert(spot), alert(spot)
        for body in (first, second):
            assert node.publish(body)["id"] == body["id"]
            phone.listen(body["id"], 1)
        policy.write_text(POLICY.format(audience=AUDIENCE))
        hang_up(node)
        both = {first["id"], second["id"]}
        wait_until(lambda: node.live() == both, "the api lists what stays on the stream")
        assert node.state(first["id"])["state"] == "live"
        assert {told(each)[0] for each in join(node, place(spot)).batch} == both
        take_back(node, first["id"])
        phone.listen(first["id"], "cancel")
        assert node.state(first["id"])["state"] == "cancelled"

        node.restart()
        assert node.live() == set()
        holder = join(node, place(spot), holding={second["id"]: 1})
        newcomer = join(node, place(spot))
        assert (holder.batch, newcomer.batch) == ([], [])
        take_back(node, second["id"])
        holder.listen(second["id"], "cancel")
        assert newcomer.everything() == []
        node.assert_no_surprise()


def take_back(node: Node, alert_id: str) -> None:
    """Cancel an unsigned alert with the one signature that a cancel needs now."""
    path, over = f"/v1/alerts/{alert_id}/cancel", {"revision": 2, "reason": "It was a mistake"}
    dry = node.post(path, over, dry_run="true")
    assert (dry.status_code, dry.json()["approvals"]) == (200, 1), dry.text
    assert node.post(path, over | {"approval": alert(ground())["approval"]}).status_code == 422
    assert node.post(path, signed(node, path, over, "r-7")).status_code == 201


def test_alerts_of_a_removed_reviewer_key_are_withdrawn_while_redis_is_stopped(keys: Keys, tmp_path: Path, join: Join):
    """The node verifies the live alerts again from memory (rule HD17)."""
    if reason := missing():
        pytest.skip(reason)
    for person in PEOPLE:
        geocast(tmp_path, "keygen", "--reviewer", person)
    (tmp_path / "policy.toml").write_text(POLICY.format(audience=AUDIENCE))
    with RedisServer(tmp_path / "redis") as redis:
        options = ("--policy", "policy.toml", "--reviewers", "reviewers.jwks")
        with Node(tmp_path, keys, *options, log=redis.url) as node:
            spot = ground()
            phone = join(node, place(spot))
            body = an_alert(spot)
            assert node.post("/v1/alerts", signed(node, "/v1/alerts", body, *PEOPLE)).status_code == 201
            phone.listen(body["id"], 1)
            assert [told(each) for each in join(node, place(spot)).batch] == [(body["id"], 1)]
            redis.kill()
            reviewers = json.loads((tmp_path / "reviewers.jwks").read_text())
            left = [key for key in reviewers["keys"] if key["sub"] != "r-7"]
            (tmp_path / "reviewers.jwks").write_text(json.dumps({"keys": left}))
            hang_up(node)
            assert join(node, place(spot)).batch == []
            (tmp_path / "reviewers.jwks").write_text(json.dumps(reviewers))
            hang_up(node)
            assert [told(each) for each in join(node, place(spot)).batch] == [(body["id"], 1)]


def hang_up(node: Node) -> None:
    """Have the node reload its files, and wait until it has."""
    count = reloads(node)
    assert node.process
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: reloads(node) == count + 1, "it has reloaded")


def reloads(node: Node) -> int:
    """Return how many times the node has reloaded its files."""
    [found] = re.findall(r'^geocast_reloads_total\{result="ok"\} (\d+)', node.get("/metrics").text, re.MULTILINE)
    return int(found)


def insert(file: Path, alert_id: str, members: Json) -> None:
    """Write an entry without a proof into the log: the first entry of the alert, with these fields replaced."""
    with closing(sqlite3.connect(file)) as db, db:
        found = db.execute("SELECT ends_at, payload FROM entry WHERE id = ? AND revision = 1", (alert_id,)).fetchall()
        [[ends_at, payload]] = found
        entry = {name: value for name, value in msgpack.unpackb(payload).items() if name != "proof"} | members
        data, number = msgpack.packb(entry), members["revision"]
        row = (alert_id, number, ends_at, data, codec.checksum(alert_id, number, data))
        db.execute("INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)", row)


def insert_beside(file: Path, alert_id: str) -> None:
    """Write three copies of a genuine entry into the log.

    One has no proof, one has another id, and one has the next revision number.
    """
    with closing(sqlite3.connect(file)) as db, db:
        [[ends_at, payload]] = db.execute("SELECT ends_at, payload FROM entry WHERE id = ?", (alert_id,)).fetchall()
        entry = msgpack.unpackb(payload) | {"headline": "Written behind everybody's back"}
        unsigned = {name: value for name, value in entry.items() if name != "proof"}
        assert unsigned != entry
        for new_id, revision, members in (("unsigned", 1, unsigned), ("copy", 1, entry), (alert_id, 2, entry)):
            data = msgpack.packb(members | {"id": new_id, "revision": revision})
            row = (new_id, revision, ends_at, data, codec.checksum(new_id, revision, data))
            db.execute("INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)", row)


def untrusted(node: Node) -> dict[str, int]:
    """Return the number of entries that the node has rejected, by reason."""
    lines = [line for line in node.get("/metrics").text.splitlines() if line.startswith("geocast_log_untrusted_total{")]
    counted = {line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines}
    return {reason: count for reason, count in counted.items() if count}
