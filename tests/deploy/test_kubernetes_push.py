"""Tests of docs/deploy/kubernetes/push: the objects are valid, consistent, and agree with those of the nodes.

If kubectl is not installed, the files are read without Kustomize, as in test_kubernetes.py.
"""

import ipaddress
import shutil

import pytest
from deploy.test_kubernetes import FOLDER as NODES
from deploy.test_kubernetes import (
    RELEASES,
    SPARE_S,
    assert_privileges_of_a_node,
    assert_valid,
    command,
    files_of,
    named,
    rendered,
    variables_of,
)

from geocast.cli import cli
from geocast.egress.host_addresses import is_global
from geocast.push.addresses import DEFAULT_SERVICES
from geocast.push.settings import PushSettings

FOLDER = NODES / "push"
LABELS = {"app.kubernetes.io/name": "geocast-push"}
KEYS = {"keys.jwks", "push.jwks", "vapid.jwks"}  # the operator adds these files


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return the rendered objects as (kind, name) -> object, with keys as an operator would add them."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("kubernetes") / "push")
    private = folder.parent / "private.jwk"
    for options in (
        ("--private", private, "--public", folder / "keys.jwks"),
        ("--push", folder / "push.jwks", "--vapid", folder / "vapid.jwks"),
    ):
        with pytest.raises(SystemExit, match="0"):
            command("keygen", *options)
    return rendered(folder)


def variables():
    """Return the variables in settings.env and redis.env."""
    return variables_of(FOLDER / "settings.env", FOLDER / "redis.env")


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_for_kubernetes(objects, release):
    """The validation is strict: an unknown field is an error."""
    kinds = {kind for kind, _ in objects}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"} <= kinds
    assert_valid(objects, release)


def test_kustomization_uses_every_file_of_the_folder():
    """It refers to no missing file, except the keys."""
    there = {path.name for path in FOLDER.iterdir()}
    assert there | KEYS == files_of(FOLDER)
    assert not there & KEYS


def test_settings_are_valid_for_geocast_push(pod, container):
    """Each variable is one of `geocast push`, the key files are mounted at their paths, and everything is accepted."""
    given = {each["name"]: each.get("value") for each in container["env"]}
    files = {name: value for name, value in given.items() if value is not None}
    [mount] = container["volumeMounts"]
    items = pod["volumes"][0]["secret"]["items"]
    assert {each["path"] for each in items} == {each["key"] for each in items} == KEYS
    assert set(files.values()) == {f"{mount['mountPath']}/{name}" for name in KEYS}
    known = {option.envvar: option for option in cli.commands["push"].params}
    values = variables() | files
    assert values.keys() <= known.keys()
    assert container["args"] == ["push"]
    arguments = [f"{known[name].opts[0]}={value}" for name, value in values.items()]
    options = cli.commands["push"].make_context("push", arguments).params
    left = ("log_level", "log_format", "push_services", "push_private")
    settings = PushSettings(**{name: value for name, value in options.items() if name not in left})
    assert list(settings.problems()) == []
    nodes = (NODES / "log.env").read_text()
    assert f"GEOCAST_LOG={values['GEOCAST_LOG']}\n" in nodes, "it follows the log of the nodes"


def test_pod_has_enough_shutdown_time_to_leave_services_and_drain(pod, container):
    """The grace period covers preStop, the drain and SPARE_S."""
    [_, first_s] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] >= float(first_s) + float(variables()["GEOCAST_DRAIN_S"]) + SPARE_S
    probe = container["readinessProbe"]
    assert float(first_s) > probe["periodSeconds"] * probe["failureThreshold"]
    assert {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness")} == {"/healthz"}
    assert probe["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_pod_has_no_privileges(pod, container):
    """The security contexts equal those of a node's pod."""
    assert_privileges_of_a_node(pod, container)


def test_selectors_and_ports_match_only_pods_of_push(objects, container):
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"push": 8767, "metrics": int(variables()["GEOCAST_METRICS"].rpartition(":")[2])}
    for service in (each for (kind, _), each in objects.items() if kind == "Service"):
        assert service["spec"]["selector"] == LABELS
        for port in service["spec"]["ports"]:
            assert (port["port"], port["targetPort"]) == (ports[port["name"]], port["name"])
    for kind, selector in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert named(objects, kind)["spec"][selector] == {"matchLabels": LABELS}
    monitor = named(objects, "ServiceMonitor")["spec"]
    metrics = objects["Service", "geocast-push-metrics"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= metrics.items()
    if any(kind == "Secret" for kind, _ in objects):
        assert metrics[monitor["jobLabel"]] == "geocast-push", "which is the job that the rules ask for"


def test_network_policy_allows_only_dns_redis_and_public_https(objects):
    """Addresses to which `geocast push` would not connect are blocked by the network too (WPO4)."""
    policy = named(objects, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    dns, redis, out = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in redis["ports"]} == {6379, 26379}
    assert [port["port"] for port in out["ports"]] == [443]
    assert ":" not in DEFAULT_SERVICES, "all of them are at 443"
    four, six = (each["ipBlock"] for each in out["to"])
    excepted = [ipaddress.ip_network(net) for net in four["except"]]
    for net in excepted:
        assert not is_global(str(net[1]))
    for inside in (
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "172.31.0.1",
        "192.168.1.1",
        "100.100.100.200",
        "0.0.0.0",
    ):
        assert any(ipaddress.ip_address(inside) in net for net in excepted)
    for inside in ("::1", "fd00::1", "fe80::1", "64:ff9b::7f00:1"):
        assert ipaddress.ip_address(inside) not in ipaddress.ip_network(six["cidr"])
