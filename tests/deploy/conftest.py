"""Fixtures of the tests of docs/deploy/kubernetes. Each module has a fixture `objects`: (kind, name) -> object."""

import pytest

WORKLOADS = ("Deployment", "StatefulSet")


@pytest.fixture
def pod(objects):
    """Return the spec of the pods of the only workload."""
    [workload] = [each for (kind, _), each in objects.items() if kind in WORKLOADS]
    return workload["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    """Return the only container of a pod."""
    [container] = pod["containers"]
    return container
