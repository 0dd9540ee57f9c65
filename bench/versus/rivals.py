"""perf_analyzer and Triton Model Analyzer, installed once into the user's cache. `python -m bench.versus.rivals` does just that.

perf_analyzer's wheel asks for glibc 2.38. On an older system its program runs from the root of a newer release of the same
distribution, made by debootstrap, with that root's loader and libraries; it is the same process either way.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERF_ANALYZER = "2.60.0"
MODEL_ANALYZER = "1.58.0"
# A perf_analyzer of the user's own, instead of ours.
OVERRIDE = "PERF_ANALYZER"
TAGS = ("--platform", "manylinux_2_38_x86_64", "--python-version", "3.12", "--only-binary=:all:", "--no-deps")
# What it loads that glibc is not, by the names of both distributions since 2024.
LIBRARIES = ("libssl3t64", "libcurl4t64", "libb64-0d")
# The first release with glibc 2.38 or more.
NEWER = {"debian": "trixie", "ubuntu": "noble"}
MIRROR = "DEBIAN_MIRROR"
TIMEOUT_S = 1200


class RivalsError(Exception):
    """What is missing and how to mend it, in one line."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Programs that run. versions: what they are, for the record."""

    perf_analyzer: Path
    model_analyzer: Path | None
    versions: dict[str, Any]


def install(say: Callable[[str], None], with_model_analyzer: bool = True) -> Rivals:
    """What is there already is left alone. Raises RivalsError."""
    if platform.machine() != "x86_64":
        raise RivalsError(f"perf_analyzer has no wheel for {platform.machine()}; run this on x86_64")
    own = os.environ.get(OVERRIDE)
    program = Path(own) if own else perf_analyzer(cache(), say)
    said = _answers(program)
    if said is None:
        raise RivalsError(f"{program} does not run; see `{program} --version`, or name another by {OVERRIDE}")
    known: dict[str, Any] = {"perf_analyzer": f"{PERF_ANALYZER}; it says: {said}" if not own else f"{own}: {said}"}
    analyzer = None
    if with_model_analyzer:
        analyzer = model_analyzer(cache(), say)
        known["triton-model-analyzer"] = MODEL_ANALYZER
    return Rivals(program, analyzer, known)


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-analyzer" / "rivals"


def perf_analyzer(folder: Path, say: Callable[[str], None]) -> Path:
    """The program, or the script that starts it in a newer root."""
    home = folder / f"perf_analyzer-{PERF_ANALYZER}"
    binary, script = home / "perf_analyzer", home / "perf_analyzer.sh"
    for program in (script, binary):
        if program.exists() and _answers(program):
            return program
    if not binary.exists():
        say(f"fetching perf-analyzer {PERF_ANALYZER}")
        _unpack(home, binary)
    if _answers(binary):
        return binary
    root = _newer_root(folder, say)
    fresh = script.with_suffix(".new")
    fresh.write_text(
        f'#!/bin/sh\nexec {root}/lib64/ld-linux-x86-64.so.2 --library-path {root}/lib/x86_64-linux-gnu {binary} "$@"\n'
    )
    fresh.chmod(0o755)
    fresh.replace(script)
    if not _answers(script):
        raise RivalsError(f"perf_analyzer does not run from {root}; remove {folder} and try again, or set {OVERRIDE}")
    return script


def model_analyzer(folder: Path, say: Callable[[str], None]) -> Path:
    """Its command, in a virtual environment of its own."""
    home = folder / f"triton-model-analyzer-{MODEL_ANALYZER}-py{sys.version_info.major}.{sys.version_info.minor}"
    program, done = home / "bin" / "model-analyzer", home / ".installed"
    if done.exists() and program.exists():
        return program
    say(f"installing triton-model-analyzer {MODEL_ANALYZER} (600 MB)")
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip"]
    _call([*pip, "install", "--quiet", f"triton-model-analyzer=={MODEL_ANALYZER}"], "see pip's configuration")
    frozen = _call([*pip, "freeze"], "remove it and try again")
    done.write_text(frozen)
    return program


def _unpack(home: Path, binary: Path) -> None:
    """The program out of the wheel: pip fetches it for a newer platform than this one may be."""
    home.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", *TAGS, "--dest", str(home)]
    _call([*pip, f"perf-analyzer=={PERF_ANALYZER}"], "see pip's configuration")
    wheel = next(home.glob("perf_analyzer-*.whl"))
    fresh = binary.with_suffix(".new")
    with zipfile.ZipFile(wheel) as archive, fresh.open("wb") as file:
        file.write(archive.read("perf_analyzer/bin/perf_analyzer"))
    fresh.chmod(0o755)
    fresh.replace(binary)
    wheel.unlink()


def _newer_root(folder: Path, say: Callable[[str], None]) -> Path:
    release = _os_release()
    suite = next(
        (NEWER[name] for name in (release.get("ID", ""), *release.get("ID_LIKE", "").split()) if name in NEWER), None
    )
    otherwise = f"run on Debian 13 or Ubuntu 24.04, or name a perf_analyzer that runs here by {OVERRIDE}"
    if suite is None:
        raise RivalsError(f"perf_analyzer does not run here ({platform.libc_ver()[1]} is an old glibc); {otherwise}")
    root = folder / suite
    if (root / ".made").exists():
        return root
    debootstrap = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if debootstrap is None:
        raise RivalsError(f"perf_analyzer needs a newer glibc: apt-get install debootstrap, or {otherwise}")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    mirror = os.environ.get(MIRROR) or own_mirror(_sources(), release.get("VERSION_CODENAME", ""))
    if mirror is None:
        raise RivalsError(f"apt's sources name no mirror; name one by {MIRROR}, or {otherwise}")
    say(f"debootstrap {suite} from {mirror} for perf_analyzer's libraries (230 MB)")
    scratch = folder / f".{suite}.new"
    _call([*as_root, "rm", "-rf", str(scratch)], "remove it by hand")
    make = [debootstrap, "--variant=minbase", f"--include={','.join(LIBRARIES)}", suite, str(scratch), mirror]
    _call([*as_root, *make], f"run as root, check the network, or name a mirror by {MIRROR}")
    _call([*as_root, "touch", str(scratch / ".made")], "run as root")
    _call([*as_root, "rm", "-rf", str(root)], "remove it by hand")
    _call([*as_root, "mv", str(scratch), str(root)], "run as root")
    return root


def own_mirror(sources: Iterable[str], codename: str) -> str | None:
    """Where apt gets this release from, out of its files' texts: the one-line form and the deb822 one."""
    for text in sources:
        for stanza in re.split(r"\n\s*\n", text):
            fields: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", stanza, re.MULTILINE))
            uris = fields.get("URIs", "").split()
            if uris and uris[0].startswith("http") and codename in fields.get("Suites", "").split():
                return uris[0].rstrip("/")
        for line in text.splitlines():
            found = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(https?://\S+)\s+(\S+)\s", line.strip())
            if found and found[2] == codename:
                return found[1].rstrip("/")
    return None


def _sources() -> Iterable[str]:
    folder = Path("/etc/apt")
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        with suppress(OSError):
            yield path.read_text(errors="replace")


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _answers(program: Path) -> str | None:
    """What `--version` says; None where it does not run."""
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # perf_analyzer says it on standard error.
    found = re.search(r"^Perf Analyzer Version .*$", done.stdout + done.stderr, re.MULTILINE)
    return str(found[0]) if found else None


def _call(command: Sequence[str], mend: str) -> str:
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RivalsError(f"{Path(command[0]).name}: {error}; {mend}") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        raise RivalsError(f"{' '.join(map(str, command[:4]))} ...: {lines[-1].strip()}; {mend}")
    return done.stdout


if __name__ == "__main__":
    try:
        found = install(lambda line: print(line, file=sys.stderr, flush=True))
    except RivalsError as error:
        sys.exit(f"error: {error}")
    print(found.perf_analyzer, found.model_analyzer, sep="\n")
