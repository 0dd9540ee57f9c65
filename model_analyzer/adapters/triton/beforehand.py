"""What a job names on this host, looked at before anything is started: the model repository, and the inputs' data.

Of a repository that lies here, a model's own config says which inputs there are. What it leaves to Triton to complete,
and what a remote server serves, is seen at run time only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from model_analyzer.adapters.triton.inputdata import check_form, check_shapes, recorded, shapes_of
from model_analyzer.adapters.triton.launch import check_repository
from model_analyzer.adapters.triton.model_config import describe, read_written
from model_analyzer.adapters.triton.requests import refuse_sequences, refuse_shared_memory
from model_analyzer.core.load import call_of
from model_analyzer.core.spec import JobSpec, ResolvedModel
from model_analyzer.core.variant import ModelInfo
from model_analyzer.errors import Fault, InputError, SpecError

_SHOWN = 20


def faults(spec: JobSpec, mode: str) -> Iterator[Fault]:
    """All that would keep the job, or a model of it, from being measured. mode: the launch mode."""
    repository = None
    if mode != "remote" and spec.model_repository is not None and "://" not in spec.model_repository:
        repository = Path(spec.model_repository).absolute()
        try:
            check_repository(repository)
        except SpecError as error:
            yield from error.faults
            repository = None
    for model in spec.models():
        if repository is not None and not (repository / model.name).is_dir():
            yield _unknown(model.name, repository)
        try:
            _check_inputs(model, None if repository is None else _written(model, repository), spec)
        except InputError as error:
            yield from error.faults


def _unknown(name: str, repository: Path) -> Fault:
    there = sorted(path.name for path in repository.iterdir() if path.is_dir())
    has = ", ".join(there[:_SHOWN]) + (" ..." if len(there) > _SHOWN else "") or "none at all"
    return Fault(f"model_repository: {repository}", f"has no model {name}; it has {has}", "correct profile_models")


def _written(model: ResolvedModel, repository: Path) -> ModelInfo | None:
    """The model as its own config has it; None where that leaves its inputs open, or the job overrides them."""
    config = read_written(repository / model.name)
    if config is None or not config.get("input") or {"input", "output"} & model.model_config_parameters.keys():
        return None
    return describe(config, version="")


def _check_inputs(model: ResolvedModel, info: ModelInfo | None, spec: JobSpec) -> None:
    """Raises InputError."""
    source = model.input_source
    path = Path(source.path) if source.mode == "file" and source.path is not None else None
    if info is None:
        if path is not None:
            check_form(path)
        return
    where = f"model {model.name}"
    refuse_sequences(info)
    if source.shared_memory is not None:
        refuse_shared_memory(info, call_of(model.call, spec.client_protocol, info.decoupled))
    if path is None:
        shapes_of(info.inputs, source, where)
    else:
        check_shapes(info.inputs, source, where)
        recorded(path, info, dict(source.shapes))
