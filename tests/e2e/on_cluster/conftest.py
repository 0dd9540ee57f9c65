"""A real cluster: the one that KUBECONFIG names, else a node of our own for as long as the tests run.

With KUBECONFIG the images are those that MODEL_ANALYZER_IMAGE and TRITON_IMAGE name, loaded or pullable there.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import programs as built
from cluster.__main__ import archives
from cluster.errors import ClusterError
from cluster.node import Node
from cluster_tools import Cluster, Images, Namespace

NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            # Not the fixture: with nothing cached it builds Kubernetes and the images.
            item.add_marker(pytest.mark.timeout(1200, func_only=True))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.environ.get("KUBECONFIG"):
        yield _given()
        return
    node = Node()
    # `make e2e` has brought it up, and takes it down. (Not so in a worker of xdist: others may still use it.)
    ours = not node.answers() and "PYTEST_XDIST_WORKER" not in os.environ
    try:
        node.up()
        node.load(*archives())
    except ClusterError as error:
        pytest.skip(f"no cluster here: {error}")
    images = Images("localhost/model-analyzer:test", "localhost/triton-cpu:test", "Never")
    try:
        yield Cluster(node.kubeconfig, built.programs(), images)
    finally:
        if ours and not os.environ.get("KEEP_CLUSTER"):
            node.down()


def _given() -> Cluster:
    missing = [name for name in ("MODEL_ANALYZER_IMAGE", "TRITON_IMAGE") if not os.environ.get(name)]
    if missing:
        pytest.exit(f"KUBECONFIG is set; set {' and '.join(missing)} too: images that its nodes have or can pull", 2)
    helm = shutil.which("helm")
    programs = Path(helm).parent if helm and shutil.which("kubectl") else built.programs()
    images = Images(os.environ["MODEL_ANALYZER_IMAGE"], os.environ["TRITON_IMAGE"], "IfNotPresent")
    return Cluster(Path(os.environ["KUBECONFIG"]), programs, images)


@pytest.fixture
def make_namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., Namespace]]:
    """Make a namespace with these labels; gone at the end of the test, unless it failed and KEEP_CLUSTER is set."""
    made: list[str] = []

    def make(**labels: str) -> Namespace:
        stem = request.node.originalname.removeprefix("test_").replace("_", "-")[:40].strip("-")
        name = f"ma-{stem}-{os.getpid()}-{next(NUMBERS)}"
        cluster.run("kubectl", "create", "namespace", name)
        made.append(name)
        for key, value in labels.items():
            cluster.run("kubectl", "label", "namespace", name, f"{key}={value}")
        return Namespace(cluster, name)

    yield make
    if not os.environ.get("KEEP_CLUSTER"):
        for name in made:
            cluster.run("kubectl", "delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace]) -> Any:
    return make_namespace()
