"""From a YAML file and command-line values to a JobSpec; every fault with its place, all of a file at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from model_analyzer.core.advice import advice
from model_analyzer.core.keys import KEYS, PERF_FLAGS, PERF_FLAGS_WORK, Key
from model_analyzer.core.metric import nearest
from model_analyzer.core.spec import Bound, JobSpec, ModelSpec, Parameters
from model_analyzer.core.values import shown, texts
from model_analyzer.errors import Fault, SpecError

_VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_LOOK = "see docs/job-spec.md"
_UNREADABLE = re.compile(r"\$(\$)?\{")
# Aliases let a short file stand for a huge one; a job has some hundred values.
MOST_VALUES = 100_000
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
Path_ = tuple[Any, ...]
# The value of a scalar whose variable is not set: the fault is noted, no other is to follow from it.
_UNSET = object()


@dataclass(slots=True)
class Source:
    """Values, and where each stands: path of keys and indices -> "file:line", or a flag.

    wrong_keys: keys of the top level with a fault, of which no other is to follow. read: how many values were.
    """

    values: Any
    places: dict[Path_, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    default_place: str = "job spec"
    wrong_keys: set[str] = field(default_factory=set)
    read: int = 0

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
    over the file. flag_names: key -> how the user spells the flag. Raises SpecError with every fault, and with the warnings
    that are known by then.
    """
    source = _read(path, environ) if path is not None else Source({}, default_place="command line")
    if not isinstance(source.values, dict):
        _fault(source, (), "is no mapping of keys to values", "write `key: value` lines")
        raise SpecError.of(source.faults)
    for key, value in overrides.items():
        source.values[key] = value
        source.places = {p: place for p, place in source.places.items() if p[:1] != (key,)}
        source.places[(key,)] = flag_names.get(key, key)
    for _, settings in _model_settings(source.values):
        for key in [key for key, value in settings.items() if value is None]:
            del settings[key]  # `key:` with nothing behind it
    warnings = _answer_by_name(source)
    spec = _validate(source)
    if source.faults or spec is None:
        raise SpecError.of(sorted(source.faults, key=_line)).beside(warnings)
    return spec, [*warnings, *_advice(spec, source)]


def _line(fault: Fault) -> int:
    """Faults of the command line first, then those of the file from top to bottom."""
    line = fault.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


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
    except _TooLarge:
        what = f"stands for more than {MOST_VALUES} values"
        raise SpecError(str(path), what, "name less, or use fewer aliases (*name)") from None
    return source


class _TooLarge(Exception):  # noqa: N818 -- leaves the recursion, nothing else
    pass


def _syntax(path: Path, error: yaml.YAMLError) -> tuple[str, str, str]:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    if "'\\t'" in problem:
        return where, "is indented with a tab, which YAML forbids", "indent with spaces"
    fix = "mend the line or the one above it" if mark else "save it as plain text"
    return where, f"is no YAML: {problem}", fix


def _construct(node: yaml.Node, path: Path_, source: Source, file: Path, environ: Mapping[str, str]) -> Any:
    """The value of a node, its place noted, variables expanded before its type is decided."""
    source.places.setdefault(path, f"{file}:{node.start_mark.line + 1}")
    source.read += 1
    if source.read > MOST_VALUES:
        raise _TooLarge
    if isinstance(node, yaml.SequenceNode):
        items = [_construct(item, (*path, n), source, file, environ) for n, item in enumerate(node.value)]
        return [item for item in items if item is not _UNSET]
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
        # Python's own limit, far above any number that a job could mean.
        too_long = isinstance(error, ValueError) and len(text) > 4000
        why = "too many digits" if too_long else str(error).splitlines()[0]
        what = f"value {text[:40]!r} is not what its form promises ({why})"
        _fault(source, path, what, "put it in quotes")
        return _UNSET


def _expand(text: str, path: Path_, source: Source, environ: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group(0)[1:]
        if name in environ:
            return environ[name]
        if default is not None and "${" in default:
            _fault(source, path, f"variable {name} has another one for a default", "give a plain default")
        if default is None:
            _fault(source, path, f"variable {name} is not set", f"set it, or write ${{{name}:-default}}")
            return ""
        return default

    for begin in _UNREADABLE.finditer(text):
        if not begin.group(1) and not _VARIABLE.match(text, begin.start()):
            what = f"{text[begin.start() :][:40]!r} is no variable"
            _fault(source, path, what, "write ${VAR} or ${VAR:-default}; $${ stands for itself")
            return text
    return _VARIABLE.sub(replace, text)


def _fault(source: Source, path: Path_, what: str, fix: str) -> None:
    source.faults.append(Fault(source.place(path), what, fix))
    source.wrong_keys.update(path[:1])


# -- keys answered by name ---------------------------------------------------------------------------


def _answer_by_name(source: Source) -> list[Fault]:
    """Take out keys that do nothing here, with a warning; refuse those that would change what is measured."""
    warnings = []
    disabled = str(source.values.get("run_config_search_disable", "")).strip().lower() == "true"
    for path, settings in _model_settings(source.values):
        for name in [name for name in settings if name in (_MODEL_KEYS if path else KEYS)]:
            warnings += _answer(source, (*path, name), KEYS[name], name, settings.pop(name), disabled)
        warnings += _answer_perf_flags(source, path, settings)
    if source.values.get("triton_launch_mode") == "c_api":
        what = "not supported yet: triton_launch_mode c_api (the server as a library of the client)"
        _fault(source, ("triton_launch_mode",), what, "instead use embedded, local, docker or remote")
        del source.values["triton_launch_mode"]
    return warnings


# Of the keys that are answered by name, those that a model may have for itself.
_MODEL_KEYS = ("genai_perf_flags",)


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
    holders: list[tuple[Path_, dict[Any, Any]]] = []
    if isinstance(flags, dict):
        holders = [((*path, "perf_analyzer_flags"), flags)]
    elif isinstance(flags, list):
        holders = [((*path, "perf_analyzer_flags", n), one) for n, one in enumerate(flags) if isinstance(one, dict)]
    warnings = []
    for where, holder in holders:
        for name in list(holder):
            plain = str(name).lstrip("-").replace("_", "-")
            value = holder.pop(name)
            if plain in PERF_FLAGS_WORK:
                holder[plain] = value
                source.places.setdefault((*where, plain), source.place((*where, name)))
            elif plain in PERF_FLAGS:
                warnings += _answer(source, (*where, name), PERF_FLAGS[plain], f"perf_analyzer flag {plain}", value)
            else:
                known = frozenset({*PERF_FLAGS_WORK, *PERF_FLAGS})
                _fault(source, (*where, name), f"unknown perf_analyzer flag {name!r}", _suggest(plain, known))
    return warnings


def _suggest(name: str, known: frozenset[str] | Sequence[str]) -> str:
    near = nearest(name, frozenset(known))
    return f"did you mean {near!r}?" if near else _LOOK


# -- validation --------------------------------------------------------------------------------------


def _validate(source: Source) -> JobSpec | None:
    """The spec, or None and the faults noted: first those of single keys, then those between the keys left."""
    try:
        return JobSpec.model_validate(source.values, context=source.wrong_keys)
    except ValidationError as error:
        _note(error, source)
    rest = {key: value for key, value in source.values.items() if key not in source.wrong_keys}
    rest.setdefault("profile_models", "any")
    try:
        JobSpec.model_validate(rest, context=source.wrong_keys)
    except ValidationError as error:
        _note(error, source)
    return None


def _note(error: ValidationError, source: Source) -> None:
    paths = _model_paths(source.values.get("profile_models"))
    for item in error.errors(include_url=False):
        loc = tuple(item["loc"])
        if item["type"] == "default_factory_not_called":
            continue  # follows from another
        fault = _plain_fault(_source_path(loc, paths), loc, dict(item), source)
        source.wrong_keys.update(str(part) for part in loc[:1])
        if item["type"] == "extra_forbidden" and len(loc) == 1:
            source.wrong_keys.add(nearest(str(loc[0]), _known_keys(loc)) or "")
        # An unset variable leaves nothing behind; that its key is missing is known.
        if fault not in source.faults and not (item["type"] == "missing" and _noted(loc, source)):
            source.faults.append(fault)


def _noted(loc: Path_, source: Source) -> bool:
    place = source.places.get(loc)
    return place is not None and any(fault.where == place for fault in source.faults)


def _model_paths(written: Any) -> list[Path_]:
    """Where each of the models stands, in the order of the spec's; a list item may be several."""
    if isinstance(written, dict):
        return [("profile_models", name) for name in written]
    if not isinstance(written, list):
        return []
    paths: list[Path_] = []
    for n, item in enumerate(written):
        if isinstance(item, dict):
            paths += [("profile_models", n, name) for name in item]
        else:
            paths += [("profile_models", n)] * (len(texts(item)) if isinstance(item, str) else 1)
    return paths


def _source_path(loc: Path_, model_paths: list[Path_]) -> Path_:
    """pydantic's path in the normalised values as the path that the user wrote."""
    if loc[:1] == ("profile_models",) and len(loc) > 1 and isinstance(loc[1], int) and loc[1] < len(model_paths):
        return (*model_paths[loc[1]], *loc[2:])
    return loc


_MODELS: Mapping[str, type[Any]] = {"parameters": Parameters, "constraints": Bound}


def _plain_fault(path: Path_, loc: Path_, item: Mapping[str, Any], source: Source) -> Fault:
    """One of pydantic's findings in plain words."""
    key = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    where, kind, value, context = source.place(path), item["type"], item.get("input"), item.get("ctx", {})
    found = f"{key} has no value" if value is None else f"{key} is {shown(value)}"
    if kind == "fault":
        return Fault(where, context["what"], context["fix"])
    if kind == "extra_forbidden":
        return Fault(where, f"unknown key {key!r}", _misplaced(key, loc) or _suggest(key, _known_keys(loc)))
    if kind == "missing":
        fix = "name the models: profile_models: [NAME, ...]" if loc == ("profile_models",) else _LOOK
        return Fault(where, f"{loc[-1]} is missing", fix)
    if kind == "value_error":
        what, _, fix = str(context.get("error", item["msg"])).partition("; ")
        return Fault(where, f"{key} {what}" if what.startswith(("is ", "has ")) else what, fix or _LOOK)
    limits = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le", "less_than": "lt"}
    if kind in limits:
        number = context[limits[kind]]
        bound = f"{number:g}" if isinstance(number, float) else str(number)
        words = {"ge": f"use {bound} or more", "gt": f"use more than {bound}", "le": f"use {bound} or less",
                 "lt": f"use less than {bound}"}  # fmt: skip
        return Fault(where, found, words[limits[kind]])
    if kind == "literal_error":
        return Fault(where, found, f"use {context['expected']}")
    if kind == "too_short":
        return Fault(where, f"{key} is empty", "name at least one")
    if kind == "string_too_short":
        return Fault(where, f"{key or 'a name'} is empty", "give it a name")
    wanted = next((word for start, word in _WANTED.items() if kind.startswith(start)), None)
    return Fault(where, found, f"use {wanted}" if wanted else str(item["msg"]).lower())


def _misplaced(key: str, loc: Path_) -> str | None:
    """A known key at the wrong level: where it belongs."""
    if loc[:1] != ("profile_models",) and len(loc) == 1:
        owners = {
            "cpu_only": "profile_models",
            "parameters": "profile_models",
            "model_config_parameters": "profile_models",
        }
        return f"it belongs to a model, in {owners[key]}" if key in owners else None
    if len(loc) == 3 and key in Parameters.model_fields:
        return f"put it into the model's parameters: {{{key}: ...}}"
    if len(loc) == 3 and (key in JobSpec.model_fields or key in KEYS):
        return "it holds for all models; move it to the top level"
    return None


_WANTED = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text (a number in quotes)", "dict": "a mapping",
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
    paths = _model_paths(source.values.get("profile_models"))
    return [
        # What is about the whole job stands at none of its lines.
        Fault(source.place(_source_path(path, paths)) if path else source.default_place, what, fix)
        for path, what, fix in advice(spec)
    ]
