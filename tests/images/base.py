"""A base image without a registry: Debian's own packages, by debootstrap."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ImagesError

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
# Half of the size, and of no use in a container: Debian's slim images leave most of it out too.
LEFT_OUT = (
    *(f"usr/share/{name}" for name in ("doc", "man", "info", "locale", "lintian")),
    *("var/cache/apt", "var/lib/apt/lists", "var/log"),
)
SETTINGS = ("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["python3"]')
TIMEOUT_S = 600


def build(client: Any, ref: str, say: Callable[[str], None]) -> None:
    """Make it, as `ref` in the engine. Raises ImagesError."""
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        raise ImagesError("there is no debootstrap; run scripts/system-deps.sh --cluster")
    if os.geteuid() != 0:
        raise ImagesError("debootstrap needs root; run as root")
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
    say(f"debootstrap {SUITE} from {mirror}")
    with tempfile.TemporaryDirectory(prefix="model-analyzer-base-") as scratch:
        root, archive = Path(scratch) / "root", Path(scratch) / "root.tar"
        command = [program, "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), mirror]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["it says nothing"])[-1]
            raise ImagesError(f"debootstrap: {last}; check the network, or name a mirror by DEBIAN_MIRROR")
        for name in LEFT_OUT:
            for path in (root / name).iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
        repository, _, tag = ref.rpartition(":")
        client.api.import_image(str(archive), repository=repository, tag=tag, changes=list(SETTINGS))
