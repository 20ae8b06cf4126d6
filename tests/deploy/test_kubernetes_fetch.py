"""Tests of docs/deploy/kubernetes/fetch: the objects are valid, and their settings are those of `geocast fetch`."""

import shutil

import pytest
import yaml
from deploy.test_kubernetes import FOLDER as NODES
from deploy.test_kubernetes import (
    RELEASES,
    assert_privileges_of_a_node,
    assert_valid,
    rendered,
    variables_of,
)

from geocast.cli import cli
from geocast.ingest.fetch.settings import load_feeds

FOLDER = NODES / "fetch"
LABELS = {"app.kubernetes.io/name": "geocast-fetch"}
FEEDS = '[feeds.met]\nurl = "https://met.example/feed"\n'


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return the rendered objects as (kind, name) -> object, with files as an operator would add them."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("kubernetes") / "fetch")
    (folder / "feeds.toml").write_text(FEEDS)
    (folder / "token").write_text("a token")
    assert load_feeds(folder / "feeds.toml")
    return rendered(folder)


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_for_kubernetes(objects, release):
    """The validation is strict: an unknown field is an error."""
    assert {"StatefulSet", "Service", "NetworkPolicy", "ServiceMonitor"} <= {kind for kind, _ in objects}
    assert_valid(objects, release)


def test_settings_are_valid_for_geocast_fetch_and_its_files_are_mounted(container):
    """Each variable is one of `geocast fetch`, and the state is on a volume of its own."""
    known = {option.envvar: option for option in cli.commands["fetch"].params}
    values = variables_of(FOLDER / "settings.env")
    assert container["args"] == ["fetch"]
    options = (
        cli.commands["fetch"]
        .make_context("fetch", [f"{known[name].opts[0]}={value}" for name, value in values.items()])
        .params
    )
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert {str(options[name].parent) for name in ("feeds", "token_file")} == {mounts["feeds"]}
    assert str(options["state"].parent) == mounts["state"]
    assert container["ports"] == [{"name": "metrics", "containerPort": options["metrics"].port}]
    nodes = {each["metadata"]["name"]: each for each in yaml.safe_load_all((NODES / "services.yaml").read_text())}
    assert nodes[options["api_url"].server.host]["spec"]["ports"][0]["port"] == options["api_url"].server.port


def test_pod_has_no_privileges(pod, container):
    """The security contexts equal those of a node's pod."""
    assert_privileges_of_a_node(pod, container)


def test_network_policy_allows_only_dns_the_nodes_and_public_https(objects):
    """The nodes' api accepts the process by a policy of its own (rule FE1)."""
    policy = objects["NetworkPolicy", "geocast-fetch"]["spec"]
    assert policy["podSelector"] == {"matchLabels": LABELS}
    push = yaml.safe_load((NODES / "push" / "network.yaml").read_text())
    dns, api, out = policy["egress"]
    assert dns == push["spec"]["egress"][0]
    assert out == push["spec"]["egress"][-1]
    assert api["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "geocast"}}}]
    to_api = objects["NetworkPolicy", "geocast-fetch-to-api"]["spec"]
    assert to_api["ingress"][0]["from"] == [{"podSelector": {"matchLabels": LABELS}}]
