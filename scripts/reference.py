"""Write the generated pages under docs/, or check that they are up to date (--check)."""

from __future__ import annotations

import sys
from pathlib import Path

from model_analyzer.adapters import reference
from model_analyzer.cli.reference import render_cli

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {
    "job-spec.schema.json": reference.render_schema,
    "job-spec.md": reference.render_job_spec,
    "metrics.md": reference.render_metrics,
    "cli.md": render_cli,
}


def main() -> None:
    """With --check: exit code 1 and the names of the pages that differ."""
    check = "--check" in sys.argv[1:]
    stale = [name for name, render in PAGES.items() if _differs(DOCS / name, render())]
    if check:
        sys.exit(f"out of date, run `make docs`: {', '.join(stale)}" if stale else 0)
    DOCS.mkdir(exist_ok=True)
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text


if __name__ == "__main__":
    main()
