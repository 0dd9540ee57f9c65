"""What the cluster tests do with kubectl and helm: the commands that a user types, and waits with a reason."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "model-analyzer"
# One phase in about a second: these tests look at what happens around the measurement.
QUICK = {
    "slice_seconds": 0.2,
    "min_seconds": 0.4,
    "max_seconds": 0.4,
    "stop_rule": "fixed",
    "duration_seconds": 0.3,
    "batch_sizes": [1],
    "concurrency": [1],
}


@dataclass(frozen=True)
class Images:
    """The references that pods use."""

    analyzer: str
    triton: str
    pull_policy: str

    def values(self) -> dict[str, Any]:
        """The chart's values for them."""
        return {
            "image": _image(self.analyzer, self.pull_policy),
            "triton": {"image": _image(self.triton, self.pull_policy)},
        }


def _image(reference: str, pull_policy: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": pull_policy}


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs. programs: the folder of kubectl and helm, in front of PATH."""

    kubeconfig: Path
    programs: Path
    images: Images

    @property
    def environment(self) -> dict[str, str]:
        """In which a user's commands run."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    @property
    def user_environment(self) -> dict[str, str]:
        """The same, with the command line of this tree."""
        path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{self.environment['PATH']}"
        return {**self.environment, "PATH": path}

    def run(
        self, *command: str, timeout: float = 300, check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command as a user types it; its whole output in the failure."""
        done = subprocess.run(
            command,
            env=self.user_environment,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """What kubectl prints."""
        return self.cluster.run("kubectl", "-n", self.name, *arguments, **options).stdout

    def get(self, *what: str) -> Any:
        """Objects as JSON."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def items(self, *what: str) -> list[Any]:
        """A list of objects as JSON."""
        return list(self.get(*what)["items"])

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def job_of(self, release: str) -> Any:
        """The release's only Job."""
        (job,) = self.items("jobs", "-l", f"app.kubernetes.io/instance={release}")
        return job

    def pods_of(self, release: str) -> list[Any]:
        """The analyzer pods of a release, oldest first."""
        labels = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=analyzer"
        return sorted(self.items("pods", "-l", labels), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def install(self, release: str, *arguments: str, **values: Any) -> str:
        """`helm install` of the chart from disk, with the test's images; what it prints."""
        return self._helm("install", release, *arguments, **values)

    def upgrade(self, release: str, *arguments: str, **values: Any) -> str:
        """`helm upgrade`, as `install`."""
        return self._helm("upgrade", release, *arguments, **values)

    def _helm(self, verb: str, release: str, *arguments: str, **values: Any) -> str:
        merged = merge(self.cluster.images.values(), values)
        command = ["helm", verb, release, str(CHART), "-n", self.name, "-f", "-", *arguments]
        return self.cluster.run(*command, given=yaml.safe_dump(merged)).stdout

    def uninstall(self, release: str) -> None:
        """`helm uninstall`."""
        self.cluster.run("helm", "uninstall", release, "-n", self.name, "--wait")

    def finished(self, release: str, timeout: float = 300) -> str:
        """Wait for the Job's end; "Complete" or "Failed"."""
        return wait_for(lambda: end_of(self.job_of(release)), f"the Job of {release} to end", timeout, self.explain)

    def completes(self, release: str, timeout: float = 300) -> None:
        """Wait for the Job's end, which is a good one."""
        assert self.finished(release, timeout) == "Complete", self.explain()

    def fails(self, release: str, timeout: float = 300) -> None:
        """Wait for the Job's end, which is a bad one."""
        assert self.finished(release, timeout) == "Failed", self.explain()

    def explain(self) -> str:
        """What a person would look at when something hangs; what says most comes last, where a cut leaves it."""
        listed = self.kubectl("get", "jobs,pods,pvc,events", "--no-headers", check=False)
        logs = [
            self.kubectl("logs", pod["metadata"]["name"], *of, "--tail=15", "--prefix", check=False)
            for of in (["--all-containers"], ["--container=analyzer"])
            for pod in self.items("pods")[-3:]
        ]
        return "\n".join([listed, *logs])

    def log_of(self, release: str) -> str:
        """The analyzer's log of the release's latest pod."""
        return self.kubectl("logs", self.pods_of(release)[-1]["metadata"]["name"], "-c", "analyzer")

    def results_of(self, release: str, into: Path, *arguments: str) -> Results:
        """What `model-analyzer fetch` brings."""
        fetch = ["model-analyzer", "fetch", "--release", release, "-n", self.name, "-o", str(into)]
        self.cluster.run(*fetch, *arguments)
        return Results(into)


@dataclass(frozen=True)
class Results:
    """Fetched results."""

    folder: Path
    names: Sequence[str] = field(
        default=("metrics-model-inference.csv", "metrics-model-gpu.csv", "metrics-server-only.csv")
    )

    def rows(self, name: str = "metrics-model-inference.csv") -> list[dict[str, str]]:
        """The rows of a table, by column."""
        return list(csv.DictReader(io.StringIO((self.folder / name).read_text())))

    def phases(self) -> list[tuple[str, str, str]]:
        """(model, batch size, concurrency) of each row."""
        return [(row["Model"], row["Batch"], row["Concurrency"]) for row in self.rows()]


def end_of(job: Any) -> str | None:
    """ "Complete", "Failed", or None while it runs."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def wait_for(
    found: Callable[[], Any], what: str, timeout: float = 240, explain: Callable[[], str] = str, every: float = 0.5
) -> Any:
    """The first truthy answer."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        answer = found()
        if answer:
            return answer
        time.sleep(every)
    raise AssertionError(f"waited {timeout:g} s for {what}\n{explain()}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm merges values: mappings by key, everything else replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
