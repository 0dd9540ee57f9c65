"""From a YAML file and command-line values to a JobSpec; every fault with its place, all of a file at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from model_analyzer.core.keys import KEYS, MODE_KEYS, PERF_FLAGS, PERF_FLAGS_WORK, Key
from model_analyzer.core.metric import nearest
from model_analyzer.core.spec import Bound, JobSpec, ModelSpec, Parameters
from model_analyzer.core.values import check_perf_flags
from model_analyzer.errors import Fault, SpecError

_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_LOOK = "see docs/job-spec.md"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
Path_ = tuple[Any, ...]
# The value of a scalar whose variable is not set: the fault is noted, no other is to follow from it.
_UNSET = object()


@dataclass(slots=True)
class Source:
    """Values, and where each stands: path of keys and indices -> "file:line", or a flag."""

    values: Any
    places: dict[Path_, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    default_place: str = "job spec"

    def place(self, path: Path_) -> str:
        """The place of a value, or of the nearest thing around it."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.default_place


def load(
    path: Path | None, overrides: Mapping[str, Any], environ: Mapping[str, str], flag_names: Mapping[str, str]
) -> tuple[JobSpec, list[Fault]]:
    """The job spec and its warnings.

    path: the YAML file, None for a job given by flags alone. overrides: key -> value from the command line; they win
    over the file. flag_names: key -> how the user spells the flag. Raises SpecError with every fault.
    """
    source = _read(path, environ) if path is not None else Source({}, default_place="command line")
    if not isinstance(source.values, dict):
        _fault(source, (), "is no mapping of keys to values", "write `key: value` lines")
        raise SpecError.of(source.faults)
    for key, value in overrides.items():
        source.values[key] = value
        source.places = {p: place for p, place in source.places.items() if p[:1] != (key,)}
        source.places[(key,)] = flag_names.get(key, key)
    warnings = _answer_by_name(source)
    spec = _validate(source)
    if source.faults or spec is None:
        raise SpecError.of(source.faults)
    return spec, [*warnings, *_advice(spec, source)]


# -- reading -----------------------------------------------------------------------------------------


def _read(path: Path, environ: Mapping[str, str]) -> Source:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(str(path), f"cannot be read ({error.strerror})", "name a job spec that exists") from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise SpecError(*_syntax(path, error)) from error
    except RecursionError:
        raise SpecError(str(path), "is nested too deeply", "write it flat") from None
    source = Source(None, default_place=str(path))
    if node is None:
        raise SpecError(str(path), "is empty", "name at least model_repository and profile_models")
    try:
        source.values = _construct(node, (), source, path, environ)
    except RecursionError:
        raise SpecError(str(path), "is nested too deeply, or refers to itself", "write it flat") from None
    return source


def _syntax(path: Path, error: yaml.YAMLError) -> tuple[str, str, str]:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    return where, f"is no YAML: {problem}", "mend the line or the one above it"


def _construct(node: yaml.Node, path: Path_, source: Source, file: Path, environ: Mapping[str, str]) -> Any:
    """The value of a node, its place noted, variables expanded before its type is decided."""
    source.places.setdefault(path, f"{file}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, n), source, file, environ) for n, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, source, file, environ)
    return _scalar(node, path, source, environ)


def _mapping(node: yaml.MappingNode, path: Path_, source: Source, file: Path, environ: Mapping[str, str]) -> Any:
    loader = yaml.SafeLoader("")
    try:
        loader.flatten_mapping(node)  # `<<: *defaults`
    except yaml.YAMLError as error:
        source.faults.append(Fault(*_syntax(file, error)))
        return {}
    made: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = f"{file}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            source.faults.append(Fault(line, "a key is no plain word", "write `key: value`"))
            continue
        key = str(key_node.value)
        where = (*path, key)
        if key in made:
            source.faults.append(Fault(line, f"key {key!r} stands twice", "keep one of them"))
        source.places[where] = line
        value = _construct(value_node, where, source, file, environ)
        if value is not _UNSET:
            made[key] = value
    return made


def _scalar(node: Any, path: Path_, source: Source, environ: Mapping[str, str]) -> Any:
    text: str = node.value
    loader = yaml.SafeLoader("")
    if "${" in text:
        faults = len(source.faults)
        text = _expand(text, path, source, environ)
        if len(source.faults) > faults:
            return _UNSET
        tag = loader.resolve(  # type: ignore[no-untyped-call]
            yaml.ScalarNode, text, (node.style is None, node.style is not None)
        )
    else:
        tag = node.tag
    if ":" in text and tag in _NUMBER_TAGS:
        # YAML 1.1 reads 1:16:5 as a number of base 60; here it is a range.
        tag = "tag:yaml.org,2002:str"
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark, node.end_mark), deep=True)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        what = f"value {text[:40]!r} is not what its form promises ({str(error).splitlines()[0]})"
        _fault(source, path, what, "put it in quotes")
        return None


def _expand(text: str, path: Path_, source: Source, environ: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group(0)[1:]
        if name in environ:
            return environ[name]
        if default is None:
            _fault(source, path, f"variable {name} is not set", f"set it, or write ${{{name}:-default}}")
            return ""
        return default

    return _VARIABLE.sub(replace, text)


def _fault(source: Source, path: Path_, what: str, fix: str) -> None:
    source.faults.append(Fault(source.place(path), what, fix))


# -- keys answered by name ---------------------------------------------------------------------------


def _answer_by_name(source: Source) -> list[Fault]:
    """Take out keys that do nothing here, with a warning; refuse those that would change what is measured."""
    warnings = []
    disabled = str(source.values.get("run_config_search_disable", "")).strip().lower() == "true"
    for path, settings in _model_settings(source.values):
        for name in [name for name in settings if name in KEYS]:
            warnings += _answer(source, (*path, name), KEYS[name], name, settings.pop(name), disabled)
        warnings += _answer_perf_flags(source, path, settings)
    if source.values.get("triton_launch_mode") == "c_api":
        what = "not supported yet: triton_launch_mode c_api (the server as a library of the client)"
        _fault(source, ("triton_launch_mode",), what, "instead use embedded, local, docker or remote")
        del source.values["triton_launch_mode"]
    return warnings


def _answer(
    source: Source, path: Path_, key: Key, shown: str, value: object, search_disabled: bool = True
) -> list[Fault]:
    """The warning that a key is answered with, if any; a fault goes to the source's."""
    answer = key.answer(value, search_disabled)
    if answer == "fault":
        _fault(source, path, f"not supported yet: {shown} ({key.why})", f"instead {key.instead}")
    if answer == "warning":
        return [Fault(source.place(path), f"{shown} has no effect: {key.why}", key.instead)]
    return []


def _model_settings(values: dict[Any, Any]) -> Iterator[tuple[Path_, dict[Any, Any]]]:
    """The top level and each model's own mapping: where settings of a model may stand."""
    yield (), values
    models = values.get("profile_models")
    for path, item in enumerate(models) if isinstance(models, list) else [(None, models)]:
        if isinstance(item, dict):
            for name, settings in item.items():
                if isinstance(settings, dict):
                    yield ("profile_models", *(() if path is None else (path,)), name), settings


def _answer_perf_flags(source: Source, path: Path_, settings: dict[Any, Any]) -> list[Fault]:
    flags = settings.get("perf_analyzer_flags")
    if isinstance(flags, list) and all(isinstance(item, dict) for item in flags):
        everything = [(name, item) for item in flags for name in list(item)]
    elif isinstance(flags, dict):
        everything = [(name, flags) for name in list(flags)]
    else:
        return []
    warnings = []
    for name, holder in everything:
        plain = str(name).lstrip("-").replace("_", "-")
        where = (*path, "perf_analyzer_flags", name)
        value = holder.pop(name)
        if plain in PERF_FLAGS_WORK:
            holder[plain] = value
        elif plain in PERF_FLAGS:
            warnings += _answer(source, where, PERF_FLAGS[plain], f"perf_analyzer flag {plain}", value)
        else:
            known = frozenset({*PERF_FLAGS_WORK, *PERF_FLAGS})
            _fault(source, where, f"unknown perf_analyzer flag {name!r}", _suggest(plain, known))
    if isinstance(flags, dict) and (problem := check_perf_flags(flags)) is not None:
        what, _, fix = problem.partition("; ")
        _fault(source, (*path, "perf_analyzer_flags"), what, fix or _LOOK)
    return warnings


def _suggest(name: str, known: frozenset[str] | Sequence[str]) -> str:
    near = nearest(name, frozenset(known))
    return f"did you mean {near!r}?" if near else _LOOK


# -- validation --------------------------------------------------------------------------------------


def _validate(source: Source) -> JobSpec | None:
    try:
        return JobSpec.model_validate(source.values)
    except ValidationError as error:
        seen = set()
        for item in error.errors(include_url=False):
            path = _source_path(tuple(item["loc"]), source)
            fault = _plain_fault(path, tuple(item["loc"]), dict(item), source)
            if fault not in seen:
                seen.add(fault)
                source.faults.append(fault)
        return None


def _source_path(loc: Path_, source: Source) -> Path_:
    """pydantic's path in the normalised values as the path that the user wrote."""
    if loc[:1] != ("profile_models",) or len(loc) < 2:
        return loc
    names = [path for path, _ in _model_settings(source.values)][1:]
    written = source.values.get("profile_models")
    if isinstance(written, dict):
        name = list(written)[loc[1]] if isinstance(loc[1], int) and loc[1] < len(written) else loc[1]
        return ("profile_models", name, *loc[2:])
    index = loc[1] if isinstance(loc[1], int) else 0
    name_path = next((path for path in names if path[:2] == ("profile_models", index)), None)
    return (*name_path, *loc[2:]) if name_path else ("profile_models", index)


_MODELS: Mapping[str, type[Any]] = {"parameters": Parameters, "constraints": Bound}


def _plain_fault(path: Path_, loc: Path_, item: Mapping[str, Any], source: Source) -> Fault:
    """One of pydantic's findings in plain words."""
    key = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    where, kind, value, context = source.place(path), item["type"], item.get("input"), item.get("ctx", {})
    shown = f"{key} is {value!r}" if not isinstance(value, Mapping) else f"{key} is a mapping"
    if kind == "extra_forbidden":
        return Fault(where, f"unknown key {key!r}", _suggest(key, _known_keys(loc)))
    if kind == "missing":
        return Fault(where, f"{loc[-1]} is missing", _LOOK)
    if kind == "value_error":
        what, _, fix = str(context.get("error", item["msg"])).partition("; ")
        return Fault(where, f"{key} {what}" if what.startswith(("is ", "has ")) else what, fix or _LOOK)
    limits = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le", "less_than": "lt"}
    if kind in limits:
        bound = context[limits[kind]]
        words = {"ge": f"use {bound:g} or more", "gt": f"use more than {bound:g}", "le": f"use {bound:g} or less",
                 "lt": f"use less than {bound:g}"}  # fmt: skip
        return Fault(where, shown, words[limits[kind]])
    if kind == "literal_error":
        return Fault(where, shown, f"use {context['expected']}")
    if kind == "too_short":
        return Fault(where, f"{key} is empty", "name at least one")
    wanted = next((word for start, word in _WANTED.items() if kind.startswith(start)), None)
    return Fault(where, shown, f"use {wanted}" if wanted else str(item["msg"]).lower())


_WANTED = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text", "dict": "a mapping",
           "tuple": "a list", "list": "a list", "model": "a mapping", "mapping": "a mapping"}  # fmt: skip


def _known_keys(loc: Path_) -> frozenset[str]:
    if len(loc) == 1:
        return frozenset({*JobSpec.model_fields, *KEYS})
    for part in reversed(loc[:-1]):
        if part in _MODELS:
            return frozenset(_MODELS[str(part)].model_fields)
    return frozenset(ModelSpec.model_fields) - {"name"}


def _advice(spec: JobSpec, source: Source) -> list[Fault]:
    """What is right, and yet worth a word."""
    advice = [
        Fault(source.place((key,)), f"{key} has no effect", f"it belongs to triton_launch_mode: {mode}")
        for mode, keys in MODE_KEYS.items()
        for key in keys
        if key in source.values and spec.triton_launch_mode != mode
    ]
    loads = (model.parameters for model in spec.profile_models)
    if not (spec.concurrency or spec.request_rate or any(own.concurrency or own.request_rate for own in loads)):
        what = "no concurrency is given, so 1 is measured (Triton Model Analyzer would search)"
        advice.append(Fault(source.default_place, what, "list the values: concurrency: [1, 4, 16]"))
    return advice
