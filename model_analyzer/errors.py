"""The errors a user can cause: one line each, with an exit code.

A line says where, what, and how to mend. A file with several faults raises
one error that carries them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where it stands, what it is, how to mend it."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        """One line, whatever stands in the names that it quotes."""
        line = f"{self.where}: {self.what}; {self.fix}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class AnalyzerError(Exception):
    """An error for people. `faults` is never empty; `exit_code` is the process's."""

    exit_code = 1

    def __init__(self, where: str, what: str, fix: str, also: Sequence[Fault] = ()) -> None:
        self.faults: tuple[Fault, ...] = (Fault(where, what, fix), *also)
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> Self:
        """One error of this kind from all the faults of a file (at least one)."""
        first, *also = faults
        return cls(first.where, first.what, first.fix, also)


class SpecError(AnalyzerError):
    """The job spec, or the command line, is wrong."""

    exit_code = 2
    warnings: tuple[Fault, ...] = ()

    def beside(self, warnings: Sequence[Fault]) -> SpecError:
        """The same, with what else is worth a word in the job: who mends the faults wants to know both."""
        self.warnings = (*warnings,)
        return self


class ServerError(AnalyzerError):
    """The server cannot be started, reached or kept alive."""

    exit_code = 3


class ExportPathError(AnalyzerError):
    """The export path is not writable, full, locked by another run, or gone."""

    exit_code = 6


class Interrupted(AnalyzerError):  # noqa: N818 -- a state, not a fault
    """SIGINT or SIGTERM: what is finished is kept, a rerun resumes."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum
        name = {2: "SIGINT", 15: "SIGTERM"}.get(signum, f"signal {signum}")
        super().__init__("run", f"interrupted by {name}", "run the same command again to resume")


class ModelError(AnalyzerError):
    """A model cannot be loaded or described; its phases fail, the run goes on."""


class ServerLostError(ModelError):
    """The server was lost while it loaded the model: the model's fault, or somebody killed it just then."""


class InputError(AnalyzerError):
    """Requests cannot be made for a phase (shape missing, data file unfit); the run goes on."""


class LoadGeneratorError(AnalyzerError):
    """The load-generator process broke; the phase fails, the run goes on."""


PHASES_FAILED = 4
CONSTRAINTS_UNMET = 5

EXIT_CODES = {
    0: "every phase was measured",
    1: "something unforeseen; a bug, please report it",
    2: "the job spec or the command line is wrong",
    3: "the server cannot be started or reached",
    PHASES_FAILED: "some phases failed; their rows say why",
    CONSTRAINTS_UNMET: "nothing satisfies the constraints",
    6: "the export path is not writable, full, gone, or in use by another run",
    130: "interrupted by Ctrl-C; the same command resumes",
    143: "ended by SIGTERM; the same command resumes",
}
