"""The Dockerfiles as they are written, and what their builds use: no engine is needed here."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from images.archives import INPUTS
from images.context import Context

from model_analyzer import __version__
from model_analyzer.cli import original
from model_analyzer.cli.main import register

ROOT = Path(__file__).parent.parent
DOCKERFILES = ("Dockerfile", "examples/triton-cpu/Dockerfile")


@pytest.fixture(scope="module")
def slim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slim", ROOT / "container" / "slim.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), name],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_builder_can_build_it(name: str) -> None:
    # BuildKit's own instructions are unknown to the classic builder and to others.
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"--mount|<<|# *syntax=|--link|--parents", text)


def test_nothing_of_pythons_library_is_compiled_at_a_start(tmp_path: Path) -> None:
    """The build's own command, on this Python's library and with another place for what it makes."""
    (command,) = re.findall(
        r"^RUN (python3 -m compileall .*(?<=\\)\n.*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "python3").symlink_to(sys.executable)
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "made"), "PATH": f"{bin_}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], env=environment, check=True, timeout=240)
    code = """
import os, sys
import model_analyzer.wire, model_analyzer.loadgen.grpc
library = os.path.dirname(os.__file__) + "/"
ours = [m for m in sys.modules.values() if (getattr(m, "__file__", "") or "").startswith(library) and "-packages/" not in m.__file__]
compiled = [m for m in ours if hasattr(m, "__cached__") and m.__file__.endswith(".py")]
assert len(compiled) > 50, len(compiled)
print([m.__name__ for m in compiled if not os.path.exists(m.__cached__)])
"""
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=240
    )
    assert ran.stdout == "[]\n"


def test_the_build_context_is_what_the_dockerfiles_copy() -> None:
    exclude = pytest.importorskip("docker.utils.build").exclude_paths
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {path for path in exclude(str(ROOT), patterns) if (ROOT / path).is_file()}
    copied = {name for inputs in INPUTS.values() for name in Context.read(inputs).files}
    # What an engine is sent in any case, and what git keeps for itself.
    always = {".dockerignore", "container/ca/.gitignore", *DOCKERFILES}
    ours = {name for name in let_through if not name.endswith(".crt")}
    assert ours - always == copied - always


def test_a_certificate_of_a_company_is_never_committed() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "container/ca/company.crt"], cwd=ROOT, timeout=60, check=False
    )
    if ignored.returncode == 128:
        pytest.skip("not a clone")
    assert ignored.returncode == 0


class TestContext:
    def test_its_hash_follows_names_contents_and_modes(self, tmp_path: Path) -> None:
        file = tmp_path / "a.sh"
        file.write_text("x")
        hashes = {Context.read(["a.sh"], tmp_path).hash()}
        file.chmod(0o755)
        hashes.add(Context.read(["a.sh"], tmp_path).hash())
        file.write_text("y")
        hashes.add(Context.read(["a.sh"], tmp_path).hash())
        file.rename(tmp_path / "b.sh")
        hashes.add(Context.read(["b.sh"], tmp_path).hash())
        hashes.add(Context.read(["b.sh"], tmp_path).hash("another base"))
        assert len(hashes) == 5

    def test_caches_and_certificates_are_not_part_of_it(self, tmp_path: Path) -> None:
        for name in ("a/b.py", "a/__pycache__/b.pyc", "a/company.crt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        assert list(Context.read(["a"], tmp_path).files) == ["a/b.py"]


class TestSlim:
    def test_a_library_without_its_symbols_still_works(self, slim: ModuleType, tmp_path: Path) -> None:
        import _ctypes_test  # a shared library of the standard library's own tests

        library = tmp_path / "library.so"
        shutil.copy(_ctypes_test.__file__, library)
        before = library.stat().st_size
        assert slim.cut_symbols(library)
        assert library.stat().st_size < before
        assert ctypes.CDLL(str(library))._testfunc_i_bhilfd(1, 2, 3, 4, ctypes.c_float(5), ctypes.c_double(6)) == 21

    def test_what_is_no_library_is_left_alone(self, slim: ModuleType, tmp_path: Path) -> None:
        file = tmp_path / "text"
        file.write_bytes(b"\x7fEL" + bytes(200))
        assert not slim.cut_symbols(file)
        assert file.read_bytes() == b"\x7fEL" + bytes(200)

    def test_packages_run_from_bytecode_without_tests_and_stubs(self, slim: ModuleType, tmp_path: Path) -> None:
        package = tmp_path / "package"
        (package / "tests").mkdir(parents=True)
        (package / "__init__.py").write_text('"""Text."""\nANSWER = 42\n')
        (package / "template.py").write_text("{{ no python }}")
        (package / "__init__.pyi").write_text("")
        (tmp_path / "alone.py").write_text("from package import ANSWER")
        slim.remove_unused(tmp_path)
        slim.keep_bytecode_only(tmp_path)
        left = {str(path.relative_to(tmp_path)) for path in slim.regular_files(tmp_path)}
        assert left == {"package/__init__.pyc", "package/template.py", "alone.pyc"}
        code = "import alone, package; print(alone.ANSWER, package.__doc__)"
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
        )
        assert ran.stdout.split() == ["42", "Text."]

    def test_docstrings_of_the_generated_client_go(self, slim: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "kubernetes").mkdir()
        (tmp_path / "kubernetes" / "__init__.py").write_text('"""Text."""\n')
        slim.keep_bytecode_only(tmp_path)
        ran = subprocess.run(
            [sys.executable, "-c", "import kubernetes; print(kubernetes.__doc__)"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        assert ran.stdout.strip() == "None"


def shown(program: str) -> list[str]:
    """Command lines of the pages about images that begin with these words."""
    pages = [ROOT / "docs" / "docker.md", ROOT / "examples" / "triton-cpu" / "README.md"]
    found = [
        line
        for page in pages
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith(program)
    ]
    assert found
    return found


@pytest.mark.parametrize("line", shown("docker build"))
def test_builds_that_a_page_shows_name_what_the_dockerfile_has(line: str) -> None:
    words = shlex.split(line)
    dockerfile = ROOT / (words[words.index("-f") + 1] if "-f" in words else "Dockerfile")
    declared = set(re.findall(r"^ARG (\w+)", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE))
    # Every builder knows these without a declaration.
    declared |= {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    given = {words[index + 1].partition("=")[0] for index, word in enumerate(words) if word == "--build-arg"}
    assert given <= declared


@pytest.mark.parametrize("line", [line for line in shown("docker run") if " model-analyzer:" in line])
def test_runs_that_a_page_shows_parse(line: str) -> None:
    words = shlex.split(line)
    image = next(index for index, word in enumerate(words) if word.startswith("model-analyzer:"))
    assert words[image] == f"model-analyzer:{__version__}"
    group: Any = typer.main.get_command(register())
    name, *rest = words[image + 1 :]
    if name.startswith("-"):
        name, rest = original.NAME, [name, *rest]
    # Parses and converts every flag, and calls nothing. Raises UsageError.
    group.commands[name].make_context(name, rest)
    places = {words[index + 1].split(":")[1] for index, word in enumerate(words) if word == "-v"}
    assert "/results" in places
    # The models are where they are on the host.
    if "--model-folder" in words:
        assert words[words.index("--model-folder") + 1] in places


def test_messages_that_the_page_answers_are_said() -> None:
    table = (
        (ROOT / "docs" / "docker.md").read_text(encoding="utf-8").partition("| message | add |")[2].partition("\n\n")[0]
    )
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
    said = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "model_analyzer" / "adapters").rglob("*.py"))
    # After a semicolon comes the remedy; before it are the operating system's words.
    assert quoted
    assert [text for text in quoted if text.partition("; ")[2] not in said and text not in said] == []
