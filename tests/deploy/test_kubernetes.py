"""Tests of docs/deploy/kubernetes: the rendered objects are valid by Kubernetes' own schemas and consistent.

If kubectl is not installed, the files are read without Kustomize, and its changes to them are not tested.
"""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from geocast.cli import cli
from geocast.config import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "deploy" / "kubernetes"
RELEASES = ["1.31", "1.34", "1.37"]
WITHOUT_SCHEMA = {"ServiceMonitor"}  # defined by the Prometheus operator, not by Kubernetes
SPARE_S = 20.0  # extra time for the end of a drain, see docs/operations.md


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Return the rendered objects as (kind, name) -> object, with a key file as an operator would add it."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("kubernetes") / "base")
    with pytest.raises(SystemExit, match="0"):
        command("keygen", "--private", folder / "private.jwk", "--public", folder / "keys.jwks")
    (folder / "private.jwk").unlink()
    return rendered(folder)


def rendered(folder):
    """Return all objects of a folder as (kind, name) -> object, rendered by Kustomize if it is installed."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        text = "\n---\n".join((folder / name).read_text() for name in names)
    else:
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        text = done.stdout
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def command(*arguments):
    """Run a geocast command in this process."""
    cli.main(list(map(str, arguments)))


def named(objects, kind):
    """Return the only object of a kind."""
    [found] = [each for (of, _), each in objects.items() if of == kind]
    return found


def variables():
    """Return the variables in settings.env and log.env."""
    return variables_of(FOLDER / "settings.env", FOLDER / "log.env")


def files_of(folder):
    """Return the names of all files that the kustomization of a folder refers to, and its own name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    generators = kustomization["configMapGenerator"] + kustomization["secretGenerator"]
    generated = [name for each in generators for name in [*each.get("envs", ()), *each.get("files", ())]]
    return {"kustomization.yaml", *kustomization["resources"], *generated}


def assert_privileges_of_a_node(pod, container):
    """Fail unless the security contexts are those of a node's pod, without a service account's token."""
    nodes = yaml.safe_load((FOLDER / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["securityContext"] == nodes["securityContext"]
    assert container["securityContext"] == nodes["containers"][0]["securityContext"]
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)


def variables_of(*files):
    """Return the variables that the lines of these files set."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# ---- valid objects -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_for_kubernetes(objects, release):
    """The validation is strict: an unknown field is an error."""
    kinds = {kind for kind, _ in objects}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "Namespace"} <= kinds
    assert_valid(objects, release)


def assert_valid(objects, release):
    """Fail unless all objects are valid by the schemas of a release."""
    for each in objects.values():
        if each["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(each, release, strict=True)


def test_kustomization_uses_every_file_of_the_folder():
    """It refers to no missing file, except the keys, which everybody must create."""
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} | {"keys.jwks"} == files_of(FOLDER)
    assert not (FOLDER / "keys.jwks").exists()


# ---- agreement with the image and the settings ---------------------------------------------------------------


def test_settings_are_valid_for_geocast_serve(container):
    """Each variable is one of `geocast serve`, and all of them together are accepted."""
    given = {each["name"]: each.get("value") for each in container["env"]}
    assert given.keys() == {"GEOCAST_KEYS", "GEOCAST_LOG"}
    [mount] = [each for each in container["volumeMounts"] if given["GEOCAST_KEYS"].startswith(each["mountPath"])]
    assert mount["readOnly"]
    serve = cli.commands["serve"]
    known = {option.envvar: option for option in serve.params}
    values = variables() | {"GEOCAST_KEYS": given["GEOCAST_KEYS"]}
    assert values.keys() <= known.keys()
    arguments = [f"{known[name].opts[0]}={value}" for name, value in values.items()]
    options = serve.make_context("serve", arguments).params
    Settings(**{name: value for name, value in options.items() if name not in ("log_level", "log_format")}).check()


def test_pod_has_enough_shutdown_time_to_leave_services_and_drain(pod, container):
    """The grace period covers preStop, the drain and SPARE_S.

    preStop is longer than the readiness probe needs to fail.
    """
    [_, first_s] = container["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = float(variables()["GEOCAST_DRAIN_S"])
    assert pod["terminationGracePeriodSeconds"] >= float(first_s) + drain_s + SPARE_S
    probe = container["readinessProbe"]
    assert float(first_s) > probe["periodSeconds"] * probe["failureThreshold"]


def test_node_waiting_for_redis_is_not_restarted(container):
    """The liveness probe uses /healthz. The readiness probe, which decides about new connections, uses /readyz."""
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in paths.values()} == {"api"}


def test_pod_has_no_privileges(pod, container):
    """The pod meets the "restricted" Pod Security Standard, and its root file system is read-only."""
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [pod["securityContext"][name] for name in ("runAsUser", "runAsGroup")] == [int(user[1]), int(user[2])]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]


def test_environment_variables_for_cluster_services_are_disabled(pod):
    """A service called `geocast-stream` would set GEOCAST_STREAM_PORT and six other variables."""
    assert pod["enableServiceLinks"] is False


def test_selectors_ports_and_references_match_the_pods(objects, pod, container):
    labels = {"app.kubernetes.io/name": "geocast"}
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    listeners = {"stream": 8765, "api": 8766, "metrics": int(variables()["GEOCAST_METRICS"].rpartition(":")[2])}
    assert ports == listeners
    services = [each for (kind, _), each in objects.items() if kind == "Service"]
    for service in services:
        assert service["spec"]["selector"] == labels
        for port in service["spec"]["ports"]:
            assert (port["port"], port["targetPort"]) == (ports[port["name"]], port["name"])
    for kind, selector in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert named(objects, kind)["spec"][selector] == {"matchLabels": labels}
    monitor = named(objects, "ServiceMonitor")["spec"]
    [watched] = [
        service
        for service in services
        if monitor["selector"]["matchLabels"].items() <= service["metadata"].get("labels", {}).items()
    ]
    assert [each["port"] for each in monitor["endpoints"]] == [each["name"] for each in watched["spec"]["ports"]]
    if named_by_hash := [name for kind, name in objects if kind in ("Secret", "ConfigMap")]:
        taken = {container["envFrom"][0]["configMapRef"]["name"], pod["volumes"][0]["secret"]["secretName"]}
        assert taken == set(named_by_hash)
        assert container["env"][1]["valueFrom"]["secretKeyRef"]["name"] in taken


def test_network_policy_limits_api_to_desks_and_metrics_to_prometheus(objects):
    """The stream is open to everybody. Kustomize must not add our labels to the selectors of other pods."""
    policy = named(objects, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    sources = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["ingress"]}
    assert sources.keys() == {"stream", "api", "metrics"}
    assert sources["stream"] is None
    [desk], [prometheus] = sources["api"], sources["metrics"]
    assert desk["podSelector"] == {"matchLabels": {"app.kubernetes.io/component": "review-desk"}}
    assert prometheus["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert "namespaceSelector" in desk
    assert "namespaceSelector" in prometheus
