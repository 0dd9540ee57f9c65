"""The cluster's programs, built once from their Go modules and kept by content.

`node` is etcd, the control plane, the kubelet, the proxy and kubectl in one (see node/main.go); `helm` is the
official one. Cold on two cores the first takes four to six minutes, the second one and a half.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .errors import ClusterError

SOURCES = Path(__file__).parent / "node"
KUBERNETES = "v1.34.4"
HELM = "v3.22.0"
# As in the official build: what `helm template` takes the cluster for, and `helm version` says.
HELM_FLAGS = " ".join(
    (
        "-s -w",
        f"-X helm.sh/helm/v3/internal/version.version={HELM}",
        *(
            f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={value}"
            for package in ("lint/rules", "chartutil")
            for part, value in zip(("Major", "Minor"), KUBERNETES.removeprefix("v").split("."), strict=False)
        ),
    )
)
BUILD_TIMEOUT_S = 2400


def cache() -> Path:
    """Where what is built once stays."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-analyzer"


def programs() -> Path:
    """The folder with `node`, `kubectl`, `pause` and `helm`, built where they are not there yet. Raises ClusterError."""
    folder = cache() / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    version = KUBERNETES.removeprefix("v").split(".")
    names = {"gitVersion": KUBERNETES, "gitMajor": version[0], "gitMinor": version[1]}
    flags = " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in names.items())])
    node = _built(folder, "node", flags, _content(SOURCES.glob("*"), flags), ["go", "build", "-C", str(SOURCES)], ".")
    pause_content = _content((SOURCES / "pause").glob("*"))
    pause = _built(folder, "pause", "-s -w", pause_content, ["go", "build", "-C", str(SOURCES)], "./pause")
    _link(folder / "node", node)
    _link(folder / "kubectl", node)
    _link(folder / "pause", pause)
    _link(folder / "helm", _helm(folder))
    return folder


def _content(files: Iterable[Path], *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for file in sorted(path for path in files if path.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _built(folder: Path, name: str, flags: str, content: str, build: list[str], package: str) -> Path:
    target = folder / f"{name}-{content}"
    if not target.exists():
        draft = folder / f".{target.name}.draft"
        _go([*build, "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", str(draft), package], f"building {name}")
        _replace(draft, target, name)
    return target


def _helm(folder: Path) -> Path:
    target = folder / f"helm-{_content((), HELM_FLAGS)}"
    if not target.exists():
        draft = folder / ".helm.draft"
        install = ["go", "install", "-trimpath", "-ldflags", HELM_FLAGS, f"helm.sh/helm/v3/cmd/helm@{HELM}"]
        _go(install, "building helm", GOBIN=str(draft))
        _replace(draft / "helm", target, "helm")
        draft.rmdir()
    return target


def _go(command: list[str], doing: str, **environment: str) -> None:
    if shutil.which("go") is None:
        raise ClusterError("go: no such program; install Go 1.24 or later (it builds Kubernetes and helm)")
    print(f"{doing}: {' '.join(command[:2])}, minutes when nothing of it is cached", flush=True)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "CGO_ENABLED": "0", **environment},
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        what = f"{doing} took more than {BUILD_TIMEOUT_S / 60:g} minutes; run it again: what is compiled stays"
        raise ClusterError(what) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "downloading" not in line]
        raise ClusterError(f"{doing} failed:\n" + "\n".join(lines[-15:]))


def _replace(draft: Path, target: Path, name: str) -> None:
    """Put a finished program in place, and take its older versions away."""
    older = [path for path in target.parent.glob(f"{name}-*") if path != target]
    draft.replace(target)
    for path in older:
        path.unlink()


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink() or link.readlink() != Path(target.name):
        link.unlink(missing_ok=True)
        link.symlink_to(target.name)
