"""Tests of docs/deploy/kubernetes/relay: the objects are valid, consistent, and agree with those of the nodes.

If kubectl is not installed, the files are read without Kustomize, as in test_kubernetes.py.
"""

import shutil

import pytest
from deploy.test_kubernetes import FOLDER as NODES
from deploy.test_kubernetes import (
    RELEASES,
    SPARE_S,
    assert_privileges_of_a_node,
    assert_valid,
    files_of,
    named,
    rendered,
    variables_of,
)

from geocast.cli import cli

FOLDER = NODES / "relay"
LABELS = {"app.kubernetes.io/name": "geocast-relay"}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return the rendered objects as (kind, name) -> object, with targets as an operator would add them."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("kubernetes") / "relay")
    (folder / "targets.toml").write_text('[targets.a]\nurl = "https://a.example/"\nunsigned = true\n')
    return rendered(folder)


def variables():
    """Return the variables in settings.env and redis.env."""
    return variables_of(FOLDER / "settings.env", FOLDER / "redis.env")


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_for_kubernetes(objects, release):
    """The validation is strict: an unknown field is an error."""
    assert {"StatefulSet", "Service", "NetworkPolicy", "ServiceMonitor"} <= {kind for kind, _ in objects}
    assert_valid(objects, release)


def test_kustomization_uses_every_file_of_the_folder():
    """It refers to no missing file, except the targets."""
    there = {path.name for path in FOLDER.iterdir()}
    assert there | {"targets.toml"} == files_of(FOLDER)


def test_settings_are_valid_for_geocast_relay(pod, container):
    """Each variable is one of `geocast relay`; targets and state are on mounted volumes; there is one process."""
    known = {option.envvar: option for option in cli.commands["relay"].params if option.envvar}
    values = variables()
    assert values.keys() <= known.keys()
    assert container["args"] == ["relay"]
    options = cli.commands["relay"].make_context(
        "relay", [f"{known[name].opts[0]}={value}" for name, value in values.items()]
    )
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert str(options.params["targets"].parent) == mounts["targets"]
    assert str(options.params["state"].parent) == mounts["state"]
    assert f"GEOCAST_LOG={values['GEOCAST_LOG']}\n" in (NODES / "log.env").read_text(), "it follows the nodes' log"
    assert pod["terminationGracePeriodSeconds"] >= float(values["GEOCAST_DRAIN_S"]) + SPARE_S


def test_pod_has_no_privileges_and_its_selectors_match_only_itself(objects, pod, container):
    """The security contexts equal those of a node's pod; only one process uses the state."""
    assert_privileges_of_a_node(pod, container)
    assert named(objects, "StatefulSet")["spec"]["replicas"] == 1
    assert named(objects, "StatefulSet")["spec"]["selector"] == {"matchLabels": LABELS}
    assert named(objects, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": LABELS}
    service = objects["Service", "geocast-relay-metrics"]
    assert service["spec"]["selector"] == LABELS
    [port] = container["ports"]
    assert port["containerPort"] == int(variables()["GEOCAST_METRICS"].rpartition(":")[2])
    assert [each["port"] for each in service["spec"]["ports"]] == [port["containerPort"]]
    monitor = named(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= service["metadata"]["labels"].items()
