"""Whether this program runs in a container of ours: what is wrong with a mount is mended outside of it."""

from __future__ import annotations

import os
from pathlib import Path

# Our Dockerfile sets it. A mark of Docker's own would take somebody's development container for ours.
OUR_IMAGE = "MODEL_ANALYZER_IMAGE"


def in_docker() -> bool:
    """Whether this is our image in a `docker run`, or a `podman run`."""
    return OUR_IMAGE in os.environ and not in_pod()


def in_pod() -> bool:
    """Whether Kubernetes did."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def remedy_for_folder(path: Path) -> str | None:
    """How a container must be started so that its user may write `path`; None outside of one."""
    if in_pod():
        return f"set fsGroup: {os.getgid()} in the pod's securityContext, then run again: it resumes"
    if not in_docker():
        return None
    place = next(each for each in (path, *path.parents) if each.is_dir())
    if not any(each.is_mount() for each in (place, *place.parents) if each != Path("/")):
        return f"mount a folder of yours there: add -v EXPORT:{path} to docker run"
    owner = place.stat()
    if owner.st_uid == 0:
        # Docker makes a folder that was not there, as root's.
        return f"give the mounted folder to this user (sudo chown {os.getuid()}:{os.getgid()} EXPORT), then run again"
    return f"run as the mounted folder's owner: add --user {owner.st_uid}:{owner.st_gid} to docker run"
