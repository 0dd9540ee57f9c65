"""Build contexts: the files that go in, their hash, and the tar that an engine takes."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of no build, wherever they lie.
LEFT_OUT = {"__pycache__", ".gitignore"}
# Names of a bundle of certificates that this machine's programs trust.
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
# What a build behind a proxy needs to know, from this machine's environment.
NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")


@dataclass(frozen=True)
class Context:
    """Files as they were when it was read: an edit while an image is built does not get into it, nor into its name.

    files: content and whether it is a program, by path; certificates for the build are not among them.
    """

    files: Mapping[str, tuple[bytes, bool]]

    @classmethod
    def read(cls, paths: Iterable[str], root: Path = ROOT) -> Context:
        """The files named, and those in the folders named."""
        found: set[Path] = set()
        for name in paths:
            path = root / name
            found |= {path} if path.is_file() else {each for each in path.rglob("*") if each.is_file()}
        kept = (
            path for path in sorted(found) if not LEFT_OUT & set(path.parts) and path.suffix not in (".crt", ".pyc")
        )
        return cls({str(path.relative_to(root)): (path.read_bytes(), os.access(path, os.X_OK)) for path in kept})

    def hash(self, *more: str) -> str:
        """Of names, contents, and whether they are programs; and of the texts."""
        digest = hashlib.sha256("\n".join(more).encode())
        for name, (content, is_program) in self.files.items():
            digest.update(f"\n{name} {is_program} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:12]

    def tar(self) -> io.BytesIO:
        """What an engine takes, with the certificates that this machine trusts."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as target:
            for name, (content, is_program) in self.files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755 if is_program else 0o644
                target.addfile(entry, io.BytesIO(content))
            for path in certificates(os.environ):
                target.add(path.resolve(), "container/ca/this-machine.crt", recursive=False)
        stream.seek(0)
        return stream


def certificates(environment: Mapping[str, str]) -> list[Path]:
    """The bundle that this machine's pip trusts, where one is named."""
    named = [Path(environment[name]) for name in CERTIFICATES if environment.get(name)]
    return [path for path in named if path.is_file()][:1]


def network_arguments(environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments."""
    return {name: environment[name] for name in NETWORK if environment.get(name)}
