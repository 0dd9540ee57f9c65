"""The pages written by hand: what they point at exists, what they show works, what they quote is said."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jsonschema
import pytest
import typer.main
import yaml

from model_analyzer import __version__
from model_analyzer.adapters import jobfile
from model_analyzer.cli import original
from model_analyzer.cli.main import register
from model_analyzer.core.metric import (
    DEFAULT_GPU_FIELDS,
    DEFAULT_INFERENCE_FIELDS,
    DEFAULT_SERVER_FIELDS,
    OWN_GPU_FIELDS,
    OWN_INFERENCE_FIELDS,
    OWN_SERVER_FIELDS,
    STREAM_FIELDS,
    header,
)
from model_analyzer.core.spec import JobSpec
from model_analyzer.errors import EXIT_CODES
from scripts.chart import KUBE_VERSION, find_helm

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
CHART = ROOT / "helm" / "model-analyzer"
# On the line before a YAML block that is not a whole job; that is values of the chart; that is an object of Kubernetes.
FRAGMENT = "<!-- fragment -->"
VALUES = "<!-- values -->"
MANIFEST = "<!-- manifest -->"
# Parts of a quoted message that are said by others, or too short to tell one message from another.
SHORT = 6


class Block(NamedTuple):
    """A fenced block: the page and line that it begins on, its language, its text, the line before it."""

    page: Path
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if opened is None and line.strip().startswith("```"):
            opened = number
        elif opened is not None and line.strip() == "```":
            text = textwrap.dedent("\n".join(lines[opened + 1 : number]))
            before = lines[opened - 1].strip() if opened else ""
            yield Block(page, opened + 1, lines[opened].strip().removeprefix("```"), text + "\n", before)
            opened = None
    assert opened is None, f"{page}:{opened}: the block is not closed"


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


def in_language(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in ALL_BLOCKS if block.language == language]


by_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


# -- what is pointed at --------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@by_page
def test_links_inside_the_project_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


@by_page
def test_files_of_the_project_that_a_page_names_exist(page: Path) -> None:
    for name in re.findall(r"`((?:model_analyzer|tests|docs|examples|scripts)/[\w./-]*)`", prose(page)):
        assert (ROOT / name).exists(), f"{name} does not exist"


@by_page
def test_tests_that_a_page_names_exist(page: Path) -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", prose(page)):
        assert f"def {name}(" in source, f"{name} is no test"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"]({page.name})" not in index]
    assert missing == []


@by_page
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(named) <= targets


def test_the_readmes_two_commands_are_those_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("make demo", "make test"):
        assert command in readme
        assert f"step {command}" in ci


# -- what is shown -------------------------------------------------------------------------------------


def shell_lines(page: Path) -> Iterator[str]:
    """The commands of its sh blocks, those of several lines as one."""
    for block in blocks(page):
        if block.language == "sh":
            yield from re.sub(r"\\\n\s*", "", block.text).splitlines()


def command_lines() -> Iterator[Any]:
    for page in PAGES:
        shown = [*shell_lines(page)]
        shown += re.findall(r"`([^`]+)`", prose(page))
        for text in dict.fromkeys(shown):
            words = shlex.split(text, comments=True) if "model-analyzer " in text else []
            if words and words[0] in ("model-analyzer", ".venv/bin/model-analyzer"):
                yield pytest.param(words[1:], id=f"{page.name}: {text}")


@pytest.mark.parametrize("words", list(command_lines()))
def test_command_lines_that_a_page_shows_parse(words: list[str]) -> None:
    group: Any = typer.main.get_command(register())
    name, *rest = [original.NAME, *words] if words[0].startswith("-") and words[0] != "--version" else words
    if name.startswith("-"):
        return
    assert name in group.commands, f"no command {name}"
    # Parses and converts every flag, and calls nothing. Raises UsageError.
    group.commands[name].make_context(name, rest)


@pytest.mark.parametrize("block", in_language("yaml"))
def test_jobs_that_a_page_shows_are_valid(block: Block, tmp_path: Path) -> None:
    if block.before in (FRAGMENT, VALUES, MANIFEST):
        return
    file = tmp_path / "job.yaml"
    file.write_text(block.text, encoding="utf-8")
    spec, _ = jobfile.load(file, {}, {}, {})
    assert spec.models()


def test_a_fragment_is_marked_only_where_it_is_one(tmp_path: Path) -> None:
    for block in ALL_BLOCKS:
        if block.before == FRAGMENT:
            file = tmp_path / "job.yaml"
            file.write_text(block.text, encoding="utf-8")
            with pytest.raises(Exception, match="missing"):
                jobfile.load(file, {}, {}, {})


def of_the_chart(values: dict[str, Any]) -> dict[str, Any]:
    """The chart's defaults with these values over them, as helm merges: mappings by key, null removes."""

    def merged(base: Any, over: Any) -> Any:
        if not isinstance(base, dict) or not isinstance(over, dict):
            return over
        both = {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
        return {key: value for key, value in both.items() if over.get(key, value) is not None or key not in base}

    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return dict(merged(defaults, values))


def marked(mark: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in ALL_BLOCKS if block.before == mark]


@pytest.mark.parametrize("block", marked(VALUES))
def test_values_that_a_page_shows_fit_the_charts_schema(block: Block) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load(block.text)
    assert values.keys() <= of_the_chart({}).keys()
    jsonschema.validate(of_the_chart(values), schema)


@pytest.mark.parametrize("block", marked(MANIFEST))
def test_objects_that_a_page_shows_are_objects(block: Block) -> None:
    shown = yaml.safe_load(block.text)
    assert shown["apiVersion"]
    assert shown["kind"]
    assert shown["metadata"]["name"]


def render(*arguments: str) -> None:
    """`helm template` of the chart; its refusal in the failure."""
    helm = find_helm()
    if helm is None:
        pytest.skip("NOT TESTED: there is no helm (name it by HELM, or put it on PATH)")
    command = [helm, "template", "shown", str(CHART), "--kube-version", KUBE_VERSION, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.helm
@pytest.mark.parametrize("block", marked(VALUES))
def test_values_that_a_page_shows_render(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(block.text, encoding="utf-8")
    render("-f", str(file))


def helm_lines() -> list[Any]:
    """The words of every shown helm command on the chart in the clone."""
    lines = (line for page in PAGES for line in shell_lines(page) if line.startswith("helm "))
    shown = {line: shlex.split(line, comments=True) for line in lines}
    return [pytest.param(words, id=line) for line, words in shown.items() if "helm/model-analyzer" in words]


@pytest.mark.helm
@pytest.mark.parametrize("words", helm_lines())
def test_values_that_a_helm_command_sets_are_known(words: list[str], tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("profile_models: [add_sub]\n", encoding="utf-8")
    given: list[str] = []
    for flag, value in pairwise(words):
        if flag in ("--set", "--set-string"):
            given += [flag, value]
        elif flag == "--set-file":
            given += [flag, f"{value.partition('=')[0]}={job}"]
        elif flag == "-f" and (ROOT / value).exists():
            given += [flag, str(ROOT / value)]
    render(*given)


def test_the_example_from_triton_model_analyzer_is_answered_as_its_page_says(tmp_path: Path) -> None:
    page = DOCS / "coming-from-triton-model-analyzer.md"
    (block,) = (block for block in blocks(page) if block.language == "yaml")
    file = tmp_path / "job.yaml"
    file.write_text(block.text, encoding="utf-8")
    _, warnings = jobfile.load(file, {}, {}, {})
    keys = [line.partition(":")[0] for line in block.text.splitlines()[:3]]
    assert [warning.what.partition(" ")[0] for warning in warnings] == keys


# -- what is said --------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_program() -> None:
    table = (DOCS / "cli.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table, flags=re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


@by_page
def test_exit_codes_that_a_page_names_are_known(page: Path) -> None:
    named = re.findall(r"[Ee]xit code(?: is)? (\d+)", prose(page))
    assert {int(code) for code in named} <= set(EXIT_CODES)


def test_launch_modes_of_the_readme_are_those_of_the_job_spec() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Launch modes")[2].partition("\n\n|")[2]
    rows = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], flags=re.MULTILINE)
    annotation: Any = JobSpec.model_fields["triton_launch_mode"].annotation
    known = {mode for literal in get_args(annotation) for mode in get_args(literal)}
    assert set(rows) == known


@pytest.mark.parametrize(
    ("title", "fields"),
    [
        ("The inference table", (*DEFAULT_INFERENCE_FIELDS, *STREAM_FIELDS, *OWN_INFERENCE_FIELDS)),
        ("The GPU table", (*DEFAULT_GPU_FIELDS, *OWN_GPU_FIELDS)),
        ("The server-only table", (*DEFAULT_SERVER_FIELDS, *OWN_SERVER_FIELDS)),
    ],
)
def test_every_column_of_a_table_is_described(title: str, fields: tuple[str, ...]) -> None:
    page = (DOCS / "outputs.md").read_text(encoding="utf-8")
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    cells = {
        cell.strip() for row in re.findall(r"^\| ([^|]+) \|", section, flags=re.MULTILINE) for cell in row.split(", ")
    }
    assert {header(tag) for tag in fields} - cells == set()


def test_every_kind_of_record_is_described() -> None:
    written = re.findall(r'_Head\(\s*"(\w+)"', (ROOT / "model_analyzer/adapters/store.py").read_text(encoding="utf-8"))
    section = (DOCS / "outputs.md").read_text(encoding="utf-8").partition("## The store\n")[2].partition("\n## ")[0]
    assert written
    assert set(written) == set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


def test_the_changelog_has_the_version() -> None:
    assert __version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@cache
def sayings() -> str:
    """Every text in the program's code, the fixed parts of f-strings included."""
    found = []
    for file in (ROOT / "model_analyzer").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    # The chart's own refusals.
    found += [file.read_text(encoding="utf-8") for file in (CHART / "templates").rglob("*.tpl")]
    return "\n".join(found)


def quoted_messages() -> Iterator[Any]:
    """What the program or the chart says: text blocks. (What others say is in console blocks.)"""
    for page in (DOCS / "troubleshooting.md", DOCS / "kubernetes.md"):
        lines = [line for block in blocks(page) if block.language == "text" for line in block.text.splitlines()]
        for table in re.findall(
            r"^\| you see \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text("utf-8"), flags=re.MULTILINE
        ):
            lines += re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)
        for line in lines:
            yield pytest.param(line, id=line)


@pytest.mark.parametrize("message", list(quoted_messages()))
def test_messages_that_a_page_explains_are_what_the_program_says(message: str) -> None:
    # An error is put together from where, what and fix, and `…` stands for what differs.
    parts = [part.strip(" ()") for part in re.split(r"…|: |; ", message)]
    telling = [part for part in parts if len(part) >= SHORT]
    assert telling, "nothing in this message can be checked"
    missing = [part for part in telling if part not in sayings()]
    assert missing == [], f"not said anywhere: {missing}"
