"""A client that openapi-python-client makes from `/openapi.json` publishes, revises, cancels and lists alerts."""

import importlib
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from checked.tool import Tool
from end_to_end.kit.alerts import cancel_body, ground, new_id
from end_to_end.kit.node import Node

TOOL = Tool("openapi-python-client", "a client made from the OpenAPI document", pypi=("openapi-python-client",))
NOT_MADE = ["POST /v1/cap"]  # its bodies are XML, which the generator does not know


@pytest.fixture(scope="module")
def made(node: Node, tmp_path_factory):
    """Make the client; return its name and what the generator said."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(node.api.get("/openapi.json").text, "utf-8")
    (folder / "config.yaml").write_text("post_hooks: []\n", "utf-8")
    command = [Path(sys.executable).parent / "openapi-python-client", "generate", "--meta", "none"]
    options = ["--path", "openapi.json", "--output-path", "made_client", "--config", "config.yaml"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield "made_client", done.stdout
    sys.path.remove(str(folder))


def test_generator_understands_every_operation_but_those_with_xml(made, record_property):
    """A warning means that an operation or a model is missing in the client."""
    _, said = made
    warned = [line for line in said.splitlines() if line.startswith("WARNING")]
    assert [line for line in warned if not any(each in line for each in NOT_MADE)] == []
    operations = [path for path in Path(sys.path[0]).rglob("api/*/*.py") if path.name != "__init__.py"]
    assert len(operations) >= 15
    record_property("cases", len(operations))


def test_generated_client_publishes_revises_cancels_and_pages(made, node, record_property):
    """All requests are made from the client's models, and all answers are read as its models."""
    package, _ = made
    client = importlib.import_module(package).AuthenticatedClient(str(node.api.base_url), node.desk)
    models = importlib.import_module(f"{package}.models")

    def call(name):
        return importlib.import_module(f"{package}.api.alerts.{name}")

    now = datetime.now(UTC)
    approval = models.ApprovalRequest(reviewer="desk-lead", approved_at=now - timedelta(seconds=30))

    def content(spot):
        return {
            "category": "burglary",
            "headline": "Burglary nearby",
            "severity": models.AlertRequestSeverity.MODERATE,
            "threat": models.AlertRequestThreat.COMMUNITY,
            "occurred_at": now - timedelta(seconds=60),
            "area": models.CircleRequest(type_="circle", lat=spot[0], lng=spot[1], radius_m=800),
            "approval": approval,
        }

    ids, spot = [new_id("made") for _ in range(3)], ground()
    with client:
        for alert_id in ids:
            answer = call("publish").sync_detailed(
                client=client, body=models.AlertRequest(id=alert_id, **content(spot))
            )
            assert (answer.status_code, answer.parsed.id, answer.parsed.revision) == (201, alert_id, 1)
        wrong = models.AlertRequest(id=new_id(), **(content(spot) | {"category": "unheard-of"}))
        refused = call("publish").sync_detailed(client=client, body=wrong)
        assert refused.status_code == 422
        assert refused.parsed.errors[0].pointer == "/category"

        body = models.RevisionRequest(id=ids[0], revision=2, **(content(spot) | {"headline": "Two burglaries nearby"}))
        revised = call("revise").sync(ids[0], client=client, body=body)
        assert (revised.id, revised.revision) == (ids[0], 2)

        body = models.CancelRequest.from_dict(cancel_body(2))
        cancelled = call("cancel").sync(ids[1], client=client, body=body)
        assert (cancelled.id, cancelled.revision) == (ids[1], 2)
        assert abs((cancelled.cancelled_at - now).total_seconds()) < 600

        found, pages, after = {}, 0, {}
        while pages == 0 or after:
            page = call("list_").sync_detailed(client=client, limit=1, **after)
            found |= {alert.id: alert for alert in page.parsed.alerts}
            pages += 1
            after = dict(re.findall(r"[?&](after)=([^&>]+)", page.headers.get("link", "")))
        assert set(ids) & set(found) == {ids[0], ids[2]}
        assert pages >= 2
        shown = found[ids[0]]
        assert (shown.revision, shown.headline) == (2, "Two burglaries nearby")
        assert type(shown.area[0]).__name__ == "CircleOut"
        assert shown.area[0].radius_m >= 800
    record_property("cases", 7 + pages)
