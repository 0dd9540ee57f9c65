"""examples/kubernetes, as users without helm apply them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cluster_tools import ROOT, Images, Namespace, end_of, wait_for

EXAMPLES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))


def with_images(path: Path, images: Images) -> str:
    """The manifest with the test's images: the only thing that a user has to change."""
    objects = [each for each in yaml.safe_load_all(path.read_text()) if each]
    (job,) = [each for each in objects if each["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        container["image"] = images.triton if container["name"] == "triton" else images.analyzer
        container["imagePullPolicy"] = images.pull_policy
    return yaml.safe_dump_all(objects)


def test_the_cpu_example_runs_to_its_tables(make_namespace: Callable[..., Namespace], tmp_path: Path) -> None:
    namespace = make_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
    path = ROOT / "examples" / "kubernetes" / "cpu.yaml"
    namespace.kubectl("apply", "-f", "-", given=with_images(path, namespace.cluster.images))
    end = wait_for(lambda: end_of(namespace.job_of("cpu")), "the Job to end", 300, namespace.explain)
    assert end == "Complete", namespace.explain()
    results = namespace.results_of("cpu", tmp_path / "results")
    assert results.phases() == [("add_sub", batch, load) for batch in ("1", "4") for load in ("1", "4")]
    assert len(results.rows("metrics-server-only.csv")) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_server_takes_every_example_in_a_restricted_namespace_without_a_warning(
    path: Path, make_namespace: Callable[..., Namespace]
) -> None:
    levels = ("enforce", "warn", "audit")
    namespace = make_namespace(**{f"pod-security.kubernetes.io/{level}": "restricted" for level in levels})
    applied = namespace.cluster.run("kubectl", "-n", namespace.name, "apply", "--dry-run=server", "-f", str(path))
    assert "Warning" not in applied.stdout + applied.stderr
    assert "job.batch/" in applied.stdout
