"""docs/deploy/kubernetes: rendered as by `kubectl apply -k`, valid by Kubernetes' own schemas, and at one with itself.

Where there is no kubectl the files are read as they are: then what Kustomize does to them is not tested.
"""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from geocast.cli import cli
from geocast.cli.options import settings_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "deploy" / "kubernetes"
RELEASES = ["1.31", "1.34", "1.37"]
WITHOUT_SCHEMA = {"ServiceMonitor"}  # not Kubernetes' own: the Prometheus operator's
SPARE_S = 20.0  # of a drain, docs/operations.md


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """What would be applied, (kind, name) -> object, with a key file like one that an operator brings."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("kubernetes") / "base")
    with pytest.raises(SystemExit, match="0"):
        command("keygen", "--private", folder / "private.jwk", "--public", folder / "keys.jwks")
    (folder / "private.jwk").unlink()
    return rendered(folder)


def rendered(folder):
    """All objects of a folder, (kind, name) -> object, as Kustomize has them if it is there."""
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
    """A command of geocast's, in this process."""
    cli.main(list(map(str, arguments)))


def named(objects, kind):
    """The only object of a kind."""
    [found] = [each for (of, _), each in objects.items() if of == kind]
    return found


@pytest.fixture
def pod(objects):
    """The pods' spec."""
    return named(objects, "Deployment")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    """The only container of a pod."""
    [container] = pod["containers"]
    return container


def variables():
    """The lines of settings.env and log.env."""
    return variables_of(FOLDER / "settings.env", FOLDER / "log.env")


def variables_of(*files):
    """The variables that the lines of files set."""
    lines = [line for file in files for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# ---- valid ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_for_kubernetes(objects, release):
    """Strictly: a field that is not known is an error, not a thing that does nothing."""
    kinds = {kind for kind, _ in objects}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "Namespace"} <= kinds
    assert_valid(objects, release)


def assert_valid(objects, release):
    """By the schemas of a release."""
    for each in objects.values():
        if each["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(each, release, strict=True)


def test_every_file_of_the_folder_is_used():
    """And none is asked for that is not there, but the keys: nobody can start it with somebody else's."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    generators = kustomization["configMapGenerator"] + kustomization["secretGenerator"]
    generated = [name for each in generators for name in [*each.get("envs", ()), *each.get("files", ())]]
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} | {"keys.jwks"} == {
        "kustomization.yaml",
        *kustomization["resources"],
        *generated,
    }
    assert not (FOLDER / "keys.jwks").exists()


# ---- at one with the image and the settings ------------------------------------------------------------------


def test_the_settings_are_a_nodes(container):
    """Each variable is one of `geocast serve`, and all of them together are no mistake."""
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
    settings_of(**{name: value for name, value in options.items() if name not in ("log_level", "log_format")}).check()


def test_a_pod_is_ended_when_it_has_drained_and_not_before(pod, container):
    """After it has left the services: preStop, the drain, and what the parts of a node have beyond it."""
    [_, first_s] = container["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = float(variables()["GEOCAST_DRAIN_S"])
    assert pod["terminationGracePeriodSeconds"] >= float(first_s) + drain_s + SPARE_S
    probe = container["readinessProbe"]
    assert float(first_s) > probe["periodSeconds"] * probe["failureThreshold"]


def test_a_node_that_waits_for_redis_is_not_started_again(container):
    """Alive is /healthz; ready, and so sent newcomers, is /readyz."""
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in paths.values()} == {"api"}


def test_a_pod_has_no_rights(pod, container):
    """What the namespace enforces (Pod Security Standards, "restricted"), and a root that can't be written to."""
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


def test_services_of_the_cluster_are_no_settings(pod):
    """A service called `geocast-stream` would set GEOCAST_STREAM_PORT and six more."""
    assert pod["enableServiceLinks"] is False


def test_everything_finds_the_pods(objects, pod, container):
    """Selectors, ports by name, and what the pods take from elsewhere."""
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


def test_only_desks_may_publish_and_only_prometheus_may_count(objects):
    """The stream is everybody's; Kustomize must not have put our own label where theirs are meant."""
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
