"""Certificates made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """A folder of PEM files: ca, other_ca; server (127.0.0.1), stranger (another host's) and client, signed by ca; each with a .key."""

    folder: Path

    def pem(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")


def make_certificates(folder: Path) -> Certificates:
    made = Certificates(folder)
    for name in ("ca", "other_ca"):
        _openssl(made, name, f"/CN=Test {name}", "basicConstraints=critical,CA:TRUE")
    for name, host in (
        ("server", "IP:127.0.0.1,DNS:localhost"),
        ("stranger", "DNS:elsewhere"),
        ("client", "DNS:client"),
    ):
        _openssl(made, name, f"/CN={name}", f"subjectAltName={host}", "-CA", made.pem("ca"), "-CAkey", made.key("ca"))
    return made


def _openssl(made: Certificates, name: str, subject: str, extension: str, *more: str) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", made.key(name)]
    # Without a config of the host's: it may add extensions of its own.
    command = ["openssl", "req", "-x509", "-config", "/dev/null", *key, "-out", made.pem(name), "-days", "2"]
    command += ["-subj", subject, "-addext", extension, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
