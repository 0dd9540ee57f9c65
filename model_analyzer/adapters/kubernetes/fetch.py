"""Results of a release in a cluster, copied into a folder here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from model_analyzer.adapters.files import write_atomically
from model_analyzer.adapters.kubernetes.api import Api, KubernetesError, connect
from model_analyzer.adapters.kubernetes.copying import Copied, copy_folder
from model_analyzer.adapters.kubernetes.reader import READY_S, Reading, reader
from model_analyzer.adapters.kubernetes.release import (
    READER,
    Release,
    analyzer_of,
    failure,
    find,
    last_end,
    last_warning,
    told,
    trouble,
)
from model_analyzer.errors import ExportPathError, SpecError

# Names what a folder was fetched from, so that results of two runs are never mixed.
MARKER = ".fetched.json"
LOOK_EVERY_S = 2.0
# So long may the API be away while a Job is waited for.
AWAY_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch. None: what the release's Job says. timeout_s: of the wait for the Job, and of the reader's start."""

    release: str
    output: Path
    namespace: str | None = None
    context: str | None = None
    claim: str | None = None
    path: str | None = None
    image: str | None = None
    wait: bool = False
    timeout_s: float | None = None
    keep_pod: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came, and from where. state: of the Job. exit_code: of the analyzer of a Job that failed, where it is known."""

    copied: Copied
    namespace: str
    path: str
    state: str
    failure: str = ""
    exit_code: int | None = None


def fetch(wanted: Wanted, say: Say) -> Fetched:
    """Find, wait if asked, copy. Raises SpecError, KubernetesError, ExportPathError; the reader is gone afterwards."""
    api = connect(wanted.context)
    try:
        namespace = wanted.namespace or api.namespace
        release = find(api, namespace, wanted.release, wanted.claim, wanted.path)
        _check_output(wanted, release)
        if wanted.wait:
            release = _await_end(api, wanted, release, say)
        if not release.finished:
            say(f"job {release.job.metadata.name} is {_standing(api, release)}: fetching what is there so far")
        # First, so that what a copy that breaks off has left is known to be of this run.
        _mark(wanted, release)
        copied = _copy(api, wanted, release, say)
    finally:
        api.close()
    end = last_end(release.pods) if release.state == "failed" else None
    return Fetched(
        copied,
        namespace,
        release.results.path,
        release.state,
        failure(release.job) if release.state == "failed" else "",
        end.exit_code if end is not None else None,
    )


def _copy(api: Api, wanted: Wanted, release: Release, say: Say) -> Copied:
    source, running = release.results.path, release.running_pods
    if running and (release.results.claim is None or release.claim_of_one_pod):
        # Nobody else can mount it; the analyzer itself can read it.
        container = analyzer_of(running[0].spec.containers).name
        return copy_folder(api, release.namespace, running[0].metadata.name, container, source, wanted.output)
    if release.results.claim is None:
        what = f"its results were on a volume that went with its pod (no claim is mounted at {source})"
        raise SpecError(f"release {release.name}", what, "install it with a claim for the results")
    reading = Reading(wanted.image, wanted.keep_pod, wanted.timeout_s or READY_S)
    with reader(api, release, reading, say) as pod:
        return copy_folder(api, release.namespace, pod, READER, source, wanted.output)


def _await_end(api: Api, wanted: Wanted, release: Release, say: Say) -> Release:
    """The release when its Job is finished. Raises KubernetesError after wanted.timeout_s."""
    began, shown = time.monotonic(), ""
    while not release.finished:
        if (now := _standing(api, release)) != shown:
            shown = now
            say(f"job {release.job.metadata.name}: {now}")
        if wanted.timeout_s is not None and time.monotonic() - began > wanted.timeout_s:
            what = f"is {now} after {wanted.timeout_s:g} s"
            fix = "wait longer by --timeout, or fetch what is there without --wait"
            raise KubernetesError(f"job {release.job.metadata.name}", what, fix)
        time.sleep(LOOK_EVERY_S)
        found = _look_again(api, wanted, release, say)
        # Removed at its end (ttlSecondsAfterFinished), or uninstalled: what it said of image and folder still holds.
        release = found if found.job is not None else replace(release, pods=(), removed=True)
    if release.job is not None:
        say(f"job {release.job.metadata.name}: {release.state}")
    return release


def _look_again(api: Api, wanted: Wanted, release: Release, say: Say) -> Release:
    """As it is now; an API that is away for a while in the hours of a Job is waited for. Raises KubernetesError."""
    began, said = time.monotonic(), False
    while True:
        try:
            return find(api, release.namespace, release.name, wanted.claim, wanted.path)
        except KubernetesError as error:
            passing = error.status is None or error.status >= 500
            if not passing or time.monotonic() - began > AWAY_S:
                raise
            if not said:
                said = True
                say(f"{error}; trying again for {AWAY_S:g} s")
        time.sleep(LOOK_EVERY_S)


def _standing(api: Api, release: Release) -> str:
    """Running, and how far; or pending, and why."""
    parts = [release.state]
    if progress := told(release.job):
        parts.append(f"{progress} phases")
    problems = [f"pod {pod.metadata.name} {problem}" for pod in release.pods[-1:] if (problem := trouble(pod))]
    if not release.pods and release.state == "pending":
        # Nothing has to be wrong yet; where its pod was refused, only the Job's events say so.
        problems += filter(None, [last_warning(api, release.namespace, release.job.metadata.name)])
    return ", ".join(parts + problems)


def _check_output(wanted: Wanted, release: Release) -> None:
    """Refuse a folder that holds something else. Raises SpecError, ExportPathError."""
    output = wanted.output
    try:
        there = [path.name for path in output.iterdir()] if output.exists() else []
    except OSError as error:
        raise ExportPathError(str(output), f"cannot be read ({error.strerror})", "name a folder by -o") from error
    if set(there) <= {MARKER} or wanted.force:
        return
    fix = "use another folder, or --force to put these results over it"
    marker = output / MARKER
    if not marker.exists():
        raise SpecError(str(output), "is not empty, and was not fetched", fix)
    before, now = {}, _origin(release)
    with suppress(OSError, ValueError):
        before = json.loads(marker.read_text(encoding="utf-8"))
    if before != now:
        of = f"{before.get('release', '?')} in namespace {before.get('namespace', '?')}, {before.get('path', '?')}"
        raise SpecError(str(output), f"holds what was fetched from another run ({of})", fix)


def _mark(wanted: Wanted, release: Release) -> None:
    write_atomically(wanted.output / MARKER, json.dumps(_origin(release), indent=1) + "\n")


def _origin(release: Release) -> dict[str, str]:
    """What tells this run's results from those of others; a claim made anew under its old name is another one."""
    uid = release.claim.metadata.uid if release.claim is not None else ""
    return {
        "release": release.name,
        "namespace": release.namespace,
        "claim": release.results.claim or "",
        "claim_uid": uid,
        "path": release.results.path,
    }
