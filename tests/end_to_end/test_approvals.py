"""What reviewers have signed, with the commands that they use; and what somebody has written into the log himself."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from end_to_end.alerts import Json, alert, ground, place
from end_to_end.keys import Keys
from end_to_end.node import BIN, Node, clean_environment
from end_to_end.proofs import AUDIENCE, POLICY
from end_to_end.subscriber import Session
from end_to_end.wire import PATIENCE

from geocast.alertlog import codec

Join = Callable[..., Session]
PEOPLE = ("r-7", "r-8")


def geocast(home: Path, *arguments: str, told: str = "") -> str:
    """What `geocast` prints, told something on standard input."""
    done = subprocess.run(
        [BIN / "geocast", *arguments],
        input=told,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def signing(keys: Keys, tmp_path: Path) -> Iterator[Node]:
    """A node whose burglaries two have to sign, and whose cancels one; their keys are drawn by `geocast keygen`."""
    for person in PEOPLE:
        geocast(tmp_path, "keygen", "--reviewer", person)
    (tmp_path / "policy.toml").write_text(POLICY.format(audience=AUDIENCE))
    with Node(tmp_path, keys, "--policy", "policy.toml", "--reviewers", "reviewers.jwks") as node:
        yield node


def signed(node: Node, path: str, body: Json, *people: str) -> Json:
    """The body with an approval, by the steps of docs/approvals.md: a dry run, and `geocast approve` for each."""
    dry = node.post(path, body, dry_run="true")
    assert dry.status_code == 200, dry.text
    sign = ("approve", "--audience", AUDIENCE, "--yes", "--key")
    signatures = [json.loads(geocast(node.home, *sign, f"{person}.jwk", told=dry.text)) for person in people]
    return body | {"approval": {"form": dry.json()["form"], "signatures": signatures}}


def an_alert(spot: tuple[float, float], **fields: Any) -> Json:
    """What a desk asks for: nobody has approved it yet."""
    return alert(spot, approval=None, **fields)


def test_two_reviewers_sign_by_the_command_line_and_one_takes_back(signing: Node, join: Join):
    """AP, steps 1 to 3, AP5, AP8: too few are told how many; a repeat is one; one signature is enough to cancel."""
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


def test_what_was_written_into_the_file_by_hand_is_not_sent_and_is_counted(signing: Node, join: Join):
    """NC1, NC3, TH7: neither unsigned, nor with the signatures of something else; nor when the node starts anew."""
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


def insert_beside(file: Path, alert_id: str) -> None:
    """Three entries made of a good one: unsigned; under an id of its own; and as its next revision."""
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
    """How many entries the node has set aside, by reason."""
    lines = [line for line in node.get("/metrics").text.splitlines() if line.startswith("geocast_log_untrusted_total{")]
    counted = {line.split('"')[1]: int(float(line.rpartition(" ")[2])) for line in lines}
    return {reason: count for reason, count in counted.items() if count}
