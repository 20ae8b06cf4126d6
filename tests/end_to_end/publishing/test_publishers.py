"""`--publishers` at a real node, with one process and with several, and after reloads."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, circle, new_id
from end_to_end.kit.keys import DESK_SCOPE, EVERY_SCOPE, Keys
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until

DALLAS, VIENNA = (32.7767, -96.797), (48.2082, 16.3738)
AUSTRIA = [[[9.5, 46.3], [17.2, 46.3], [17.2, 49.1], [9.5, 49.1], [9.5, 46.3]]]
FILE = """
[publishers."desk-at"]
categories   = ["burglary", "fire_structure"]
max_severity = "severe"
max_radius_m = 1000
jurisdiction = "austria.geojson"

[publishers."desk-slow"]
per_minute = 2

[publishers."exercises"]
statuses = ["exercise", "test"]
"""


class Grants:
    """A node with a publishers' file that tests rewrite."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def token(self, sub: str, scope: str = DESK_SCOPE) -> str:
        """Return a token of a publisher."""
        return self.node.keys.token(sub=sub, scope=scope)

    def post(self, sub: str, body: Json, **params: str) -> tuple[int, str, list[str]]:
        """Return the status, problem type and pointers that `POST /v1/alerts` answers."""
        return _told(self.node.post("/v1/alerts", body, self.token(sub), **params))

    def reload(self, text: str, result: str = "ok") -> None:
        """Reload another file, and wait for the result."""
        before = self._reloads(result)
        (self.node.home / "publishers.toml").write_text(text)
        assert self.node.process
        self.node.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self._reloads(result) == before + 1, f"a reload is {result}")

    def _reloads(self, result: str) -> float:
        return self.metric(f'reloads_total{{result="{result}"}}')

    def metric(self, name: str) -> float:
        """Return a metric of the node."""
        text = self.node.api.get("/metrics").text
        [value] = re.findall(rf"^geocast_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)


def _told(answer) -> tuple[int, str, list[str]]:
    body = answer.json()
    slug = body.get("type", "").removeprefix("/problems/")
    return answer.status_code, slug, [each["pointer"] for each in body.get("errors", [])]


def there(spot: tuple[float, float], radius_m: float = 800, **changes) -> Json:
    """Return an alert around a point."""
    return alert(spot, area=circle(spot, radius_m), **changes)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def grants(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grants]:
    """A node with its own publishers' file and jurisdiction."""
    home: Path = tmp_path_factory.mktemp("publishers")
    (home / "publishers.toml").write_text(FILE)
    (home / "austria.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": AUSTRIA}))
    with Node(home, Keys(), "--workers", str(request.param), "--publishers", "publishers.toml") as node:
        yield Grants(node)


def test_each_publisher_is_limited_by_its_own_table(grants: Grants):
    """One answer lists all broken rules, also for a dry run (rules P21 and P22)."""
    assert grants.post("desk-at", there(VIENNA, severity="severe", category="burglary"))[0] == 201
    beyond = there(DALLAS, 2000, severity="extreme", category="arson")
    refused = (422, "radius-out-of-range", ["/area/radius_m", "/category", "/severity", "/area"])
    assert grants.post("desk-at", beyond) == refused
    assert grants.post("desk-at", beyond, dry_run="true") == refused
    assert grants.post("exercises", there(DALLAS)) == (422, "not-granted", ["/status"])
    assert grants.post("exercises", there(DALLAS, status="exercise"))[0] == 201


def test_error_about_swapped_coordinates_does_not_repeat_them(grants: Grants):
    """The answer says that the place would be inside with `lat` and `lng` exchanged (rules P22 and H9)."""
    answer = grants.node.post("/v1/alerts", there(VIENNA[::-1], category="burglary"), grants.token("desk-at"))
    [error] = answer.json()["errors"]
    assert error["type"] == "/problems/outside-jurisdiction"
    assert error["detail"].endswith("it would with lat and lng exchanged")
    assert not any(number in answer.text for number in ("48.2", "16.3"))
    assert "48.2" not in grants.node.output()


def test_publisher_without_a_table_is_refused_before_the_body_is_read(grants: Grants):
    """Cancels and reads are not limited (rule PG1, step 2)."""
    answer = grants.node.post("/v1/alerts", "no alert", grants.token("stranger"))
    assert _told(answer)[:2] == (403, "insufficient-scope")
    body = grants.node.publish(there(VIENNA, category="burglary"), grants.token("desk-at"))
    path, manager = f"/v1/alerts/{body['id']}", grants.token("stranger", EVERY_SCOPE)
    revision = there(VIENNA, category="burglary") | {"id": body["id"], "revision": 2}
    assert grants.node.post(f"{path}/revisions", revision, manager).status_code == 403
    assert grants.node.get(path, manager).status_code == 200
    assert grants.node.post(f"{path}/cancel", cancel_body(2), manager).status_code == 201


def test_rate_limit_counts_requests_to_all_processes_and_answer_says_how_long_to_wait(grants: Grants):
    """Repeats and cancels do not count, and a reload does not reset the counts (rule PG2)."""
    first, more = there(DALLAS), there(DALLAS)
    assert [grants.post("desk-slow", each)[0] for each in (first, more)] == [201, 201]
    answer = grants.node.post("/v1/alerts", there(DALLAS), grants.token("desk-slow"))
    assert _told(answer)[:2] == (429, "rate-limited")
    wait_s = int(answer.headers["Retry-After"])
    assert 0 < wait_s <= 60
    assert f"in {wait_s} s" in answer.json()["detail"]
    assert grants.post("desk-slow", first)[0] == 200
    assert grants.post("desk-slow", there(DALLAS), dry_run="true")[0] == 200
    grants.reload(FILE)
    assert grants.post("desk-slow", there(DALLAS))[0] == 429
    cancelled = grants.node.post(f"/v1/alerts/{first['id']}/cancel", cancel_body(2), grants.token("desk-slow"))
    assert cancelled.status_code == 201
    assert grants.metric('refused_total{type="rate-limited"}') >= 2


def test_reload_applies_new_grants_and_an_invalid_file_changes_nothing(grants: Grants):
    """The jurisdiction's file is reloaded too; the digest follows the content (rule BA2)."""
    digest = grants.metric('settings_digest{file="publishers"}')
    body = there(DALLAS, category="burglary")
    assert grants.post("desk-at", body)[0] == 422
    grants.reload(FILE + '[publishers."new"]\n')
    assert grants.post("new", there(DALLAS))[0] == 201
    assert grants.metric('settings_digest{file="publishers"}') != digest
    since = len(grants.node.output())
    grants.reload('[publishers."desk-at"]\njurisdiction = "nowhere.geojson"\n', "failed")
    assert "the reload failed, so nothing has changed: publishers " in grants.node.output()[since:]
    assert grants.post("new", there(DALLAS))[0] == 201
    polygon = json.dumps({"type": "Polygon", "coordinates": [[[-97, 32], [-96, 32], [-96, 33], [-97, 33], [-97, 32]]]})
    austria = grants.node.home / "austria.geojson"
    before = austria.read_text()
    austria.write_text(polygon)
    grants.reload(FILE)
    assert grants.post("desk-at", body)[0] == 201
    assert grants.post("new", there(DALLAS))[0] == 403
    austria.write_text(before)
    grants.reload(FILE)
    assert grants.metric('settings_digest{file="publishers"}') == digest


def test_refused_alert_is_not_stored(grants: Grants):
    """The id of a refused alert stays free (rule P22)."""
    name = new_id("refused")
    assert grants.post("desk-at", there(DALLAS, id=name))[0] == 422
    assert grants.node.get(f"/v1/alerts/{name}").status_code == 404


def test_invalid_publishers_file_stops_the_start(tmp_path: Path):
    """The node prints one line and exits with status 2 (rule K1)."""
    (tmp_path / "publishers.toml").write_text('[publishers."a"]\nsurprise = 1\n')
    node = Node(tmp_path, Keys(), "--publishers", "publishers.toml")
    node.launch()
    assert node.process
    assert node.process.wait(30) == 2
    [line] = node.output().splitlines()
    assert line.startswith('geocast: error: publishers publishers.toml: "a".surprise: is not a known key')
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", node.api_port)).close()
