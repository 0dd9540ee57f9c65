"""Renders the chart and takes what came out apart."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from scripts.chart import CHART, KUBE_VERSION

Object = dict[str, Any]


class HelmError(Exception):
    """helm refused; the text is its own."""


@dataclass(frozen=True)
class Rendered:
    """What one `helm template` printed."""

    text: str

    @cached_property
    def objects(self) -> list[Object]:
        return [one for one in yaml.safe_load_all(self.text) if one]

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.of(kind)
        return found

    @property
    def job(self) -> Object:
        return self.one("Job")

    @property
    def pod(self) -> Object:
        """The spec of the Job's pod."""
        spec: Object = self.job["spec"]["template"]["spec"]
        return spec

    @property
    def test_pod(self) -> Object:
        spec: Object = self.one("Pod")["spec"]
        return spec

    @property
    def analyzer(self) -> Object:
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def triton(self) -> Object:
        (container,) = self.pod["initContainers"]
        return dict(container)

    @property
    def job_file(self) -> str:
        text: str = self.one("ConfigMap")["data"]["job.yaml"]
        return text

    def flag(self, name: str) -> list[str]:
        """The values of a flag of the analyzer."""
        args = self.analyzer["args"]
        return [value for flag, value in pairwise(args) if flag == name]

    def volume(self, name: str) -> Object:
        (found,) = [one for one in self.pod["volumes"] if one["name"] == name]
        return dict(found)

    @property
    def has_token(self) -> bool:
        """Whether the analyzer has an API token. (No other container has one.)"""
        return has_token(self.pod, "analyzer")

    def pods(self) -> Iterator[Object]:
        """The spec of every pod that the chart starts."""
        yield self.pod
        yield from (pod["spec"] for pod in self.of("Pod"))


def has_token(pod: Object, container: str) -> bool:
    """Whether a container of the pod has an API token."""
    (found,) = [one for one in (*pod.get("initContainers", ()), *pod["containers"]) if one["name"] == container]
    mounted = {one["name"] for one in found.get("volumeMounts", ())}
    tokens = {
        volume["name"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    return bool(pod["automountServiceAccountToken"] or mounted & tokens)


@dataclass(frozen=True)
class Chart:
    """The chart, and the program that renders it."""

    helm: str
    folder: Path = CHART

    def render(
        self, values: Mapping[str, Any] | None = None, *args: str, release: str = "demo", namespace: str = "bench"
    ) -> Rendered:
        """Raises HelmError."""
        command = [
            self.helm,
            "template",
            release,
            str(self.folder),
            "-n",
            namespace,
            "--kube-version",
            KUBE_VERSION,
            "-f",
            "-",
        ]
        return _rendered((*command, *args), json.dumps(values or {}))

    def refusal(self, values: Mapping[str, Any], *args: str) -> str:
        """What helm says to values that it refuses."""
        try:
            self.render(values, *args)
        except HelmError as error:
            return str(error)
        raise AssertionError(f"helm rendered {values}")

    def notes(self, folder: Path, values: Mapping[str, Any] | None = None, **named: str) -> str:
        """What helm prints after an install. `helm template` does not; so a copy of the chart renders it as an object."""
        copy = folder / "chart"
        shutil.copytree(CHART, copy)
        notes = copy / "templates" / "NOTES.txt"
        text = notes.read_text(encoding="utf-8")
        (copy / "templates" / "_notes.tpl").write_text(
            f'{{{{- define "notes" -}}}}\n{text}{{{{- end }}}}', encoding="utf-8"
        )
        (copy / "templates" / "notes.yaml").write_text('kind: Notes\nnotes: {{ include "notes" . | toJson }}\n')
        notes.unlink()
        copied = Chart(self.helm, copy)
        printed: str = copied.render(values, "-s", "templates/notes.yaml", **named).one("Notes")["notes"]
        return printed

    def lint(self, *args: str) -> str:
        """Raises HelmError for anything but notes."""
        return _run((self.helm, "lint", "--strict", str(self.folder), "--kube-version", KUBE_VERSION, *args), "")


@cache
def _rendered(command: tuple[str, ...], given: str) -> Rendered:
    """The chart does not change while the tests run, and many look at the same values."""
    return Rendered(_run(command, given))


def _run(command: tuple[str, ...], given: str) -> str:
    ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=240)
    if ended.returncode != 0:
        raise HelmError(ended.stderr + ended.stdout)
    return ended.stdout
