"""docs/deploy/grafana.json: it equals the output of its generator, and each of its queries finds data.

A real Prometheus scrapes a real node, a real `geocast push` and a real `geocast relay`, and gets the queries that
Grafana would send. Grafana itself is not needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground, new_id, place, revision_of
from end_to_end.kit.dispatcher import POLICY, Dispatcher, call_at, calling_node
from end_to_end.kit.feed_server import FeedServer, atom, inline
from end_to_end.kit.fetch import Fetch
from end_to_end.kit.issuer import SOURCES, Issuer
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.responder import Responder, here
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from end_to_end.kit.wire import Closed, Wire
from support.ports import free_ports
from support.push_service import PushService
from support.redis_server import RedisServer, needs_redis

from client_demo.webhook_receiver import WebhookReceiver

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
TEXT = " ".join(QUERIES.values())


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module docs/deploy/grafana.py."""
    spec = importlib.util.spec_from_file_location("grafana", DEPLOY / "grafana.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["grafana"] = module
    spec.loader.exec_module(module)
    return module


def test_dashboard_file_equals_the_output_of_its_generator(generator: ModuleType) -> None:
    """`make grafana` writes the file."""
    assert (DEPLOY / "grafana.json").read_text("utf-8") == generator.build()


def test_every_documented_metric_is_on_a_panel_or_deliberately_omitted(generator: ModuleType) -> None:
    """The metrics are those of metrics.md, and no panel shows another one."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    documented = set(re.findall(r"^\| (.*?) \|", page, re.MULTILINE))
    names = {name for cell in documented for name in re.findall(r"`(geocast_\w+)", cell)}
    shown = {re.sub(r"(?<=_seconds)_bucket$", "", name) for name in re.findall(r"\bgeocast_\w+", TEXT)}
    assert shown | set(generator.LEFT_OUT) == names
    assert not shown & set(generator.LEFT_OUT)
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"} <= set(
        re.findall(r"\bprocess_\w+", TEXT)
    )


def test_dashboard_panels_do_not_overlap_and_have_ids_and_descriptions() -> None:
    """No panel exceeds the 24 columns."""
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"].endswith((".", "<type>.")) for panel in PANELS)


# ---- queries to a real Prometheus


class Prometheus:
    """A Prometheus that scrapes a node and its push, fetch and relay processes every second, as four jobs."""

    def __init__(self, home: Path, busy: Busy) -> None:
        (self.port,) = free_ports(1)
        jobs = {
            "geocast": busy.node.api_port,
            "geocast-push": busy.push.metrics_port,
            "geocast-fetch": busy.fetch.metrics_port,
            "geocast-relay": busy.relay.metrics_port,
        }
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for name, port in jobs.items()
            ],
        }
        file = home / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is also YAML
        self.command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        self.output = home / "prometheus.txt"

    def __enter__(self) -> Prometheus:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT)
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()
        self.process.kill()
        self.process.wait(20)

    def ready(self) -> bool:
        """Return whether Prometheus answers."""
        assert self.process.poll() is None, self.output.read_text()
        with contextlib.suppress(httpx.TransportError):
            return self.api.get("/-/ready").status_code == 200
        return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return the current result of a query."""
        answer = self.api.post("/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def has(self, expression: str) -> bool:
        """Return whether a query finds a number."""
        return any(not math.isnan(float(sample["value"][1])) for sample in self.ask(expression))


def as_asked(expression: str) -> str:
    """Return a query with values for Grafana's variables."""
    for name, value in {
        "$job": "geocast",
        "$instance": ".+",
        "$push": "geocast-push",
        "$fetch": "geocast-fetch",
        "$relay": "geocast-relay",
        "$__rate_interval": "1m",
    }.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@dataclass
class Busy:
    """A node with stream processes and a Redis log, its push process and its relay, and clients of all of them."""

    node: Node
    push: Push
    fetch: Fetch
    relay: RelayProcess
    service: PushService
    session: Session
    dispatcher: Dispatcher


@pytest.fixture
def busy(certificate: Certificate, tmp_path: Path) -> Iterator[Busy]:
    """All processes and clients, which end with the test."""
    home = tmp_path / "node"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        log = enter(RedisServer(tmp_path / "redis")).url
        sources = home / "sources.toml"
        sources.write_text(SOURCES)
        options = ("--workers", "2", "--cap-sources", str(sources))
        flood = 'flood = { title = "Flood", polygons = true, cap = ["event:flood"] }'
        policy = POLICY.replace("[categories]", f"[categories]\n{flood}")
        node = enter(calling_node(home, Keys(quals=["cpr"]), *options, log=log, policy=policy))
        fetch = enter(Fetch(home, node, enter(FeedServer())))
        fetch.write_feeds("/feed")
        fetch.start()
        service = enter(PushService(certificate))
        push = enter(Push(node, service, log=log))
        receiver, relay = enter(WebhookReceiver(SECRET)), RelayProcess(node, tmp_path / "relay", log)
        spot = ground()
        relay.targets(spot, siren=receiver)
        session = enter(node.join(place(spot)))
        yield Busy(node, push, fetch, enter(relay), service, session, enter(Dispatcher(node)))


def one_of_each(node: Node, session: Session) -> None:
    """Run an alert through its life, with an acknowledgement, a refusal, a failed handshake and an invalid token."""
    spot = session.places[0]["lat"], session.places[0]["lng"]
    body = alert(spot)
    node.publish(body)
    session.listen(body["id"], 1)
    session.ack(body["id"], 1)
    node.revise(revision_of(body, 2))
    node.cancel(body["id"], 3)
    assert node.post("/v1/alerts", {}).status_code == 422
    with Wire(node.stream_port) as wire:
        assert wire.upgrade("another").status == 400
    with pytest.raises(Closed, match="4401"):
        node.join(place(ground()), token="bad")


def one_call(busy: Busy) -> None:
    """Open a call, let a new responder accept it, and end it."""
    call_id, spot = new_id("call"), ground()
    with Responder(busy.node, call_id, here(spot)) as responder:
        busy.dispatcher.post("", call_at(spot, call_id))
        responder.take("call")
        responder.say("accept", id=call_id)
        responder.take("task")
        busy.dispatcher.post(f"/{call_id}/end", {"reason": "The crew is there."})
        responder.take("standdown")


def one_warning(busy: Busy, issuer: Issuer) -> None:
    """List a new message in the feed, and have the feed read."""
    busy.fetch.server.pages["/feed"] = atom(inline("1", issuer.message(new_id("warning"))))
    busy.fetch.reload()


def one_push(busy: Busy) -> None:
    """Push to a phone until its subscription has ended, and have a registration refused."""
    spot, phone = ground(), busy.service.phone()
    busy.push.register(phone, cell(spot))
    busy.node.publish(alert(spot))
    busy.service.until(lambda: len(phone.told) == 1)
    phone.answers = [410]
    busy.node.publish(alert(spot))
    assert busy.push.put("too-short", {}).status_code == 404


@needs_redis
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (requirements/system.sh)")
def test_every_dashboard_query_finds_data_on_a_busy_node(busy: Busy, tmp_path: Path) -> None:
    """An empty result would mean that the query names a metric or label which does not exist."""
    wanted, issuer = dict(QUERIES), Issuer()
    with Prometheus(tmp_path, busy) as prometheus:
        wait_until(prometheus.ready, "Prometheus answers")

        def all_found() -> bool:
            one_of_each(busy.node, busy.session)
            one_call(busy)
            one_push(busy)
            one_warning(busy, issuer)
            for name in [name for name, expression in wanted.items() if prometheus.has(as_asked(expression))]:
                del wanted[name]
            return not wanted

        with contextlib.suppress(AssertionError):
            wait_until(all_found, "every query finds something")
        assert not wanted
        seen = "geocast_sessions == 1"
        wait_until(lambda: prometheus.ask(seen), "the subscriber alone is there when the responders have gone")
        firing = DASHBOARD["annotations"]["list"][0]["expr"]
        assert prometheus.ask(firing) == [], "no rules are loaded; but Prometheus understands it"
