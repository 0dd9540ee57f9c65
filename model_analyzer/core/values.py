"""The many ways in which Triton Model Analyzer lets a value be written, as one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from model_analyzer.core.load import Call, InputSource, Protocol, SharedMemory, Tls

_RANGE = re.compile(r"^\s*(\d+)\s*:\s*(\d+)\s*(?::\s*(\d+)\s*)?$")
_CPUS = re.compile(r"^\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?$")
_RANGE_KEYS = ({"start", "stop"}, {"start", "stop", "step"})
_ENDPOINT = re.compile(r"^(?:https?://|grpcs?://)?(?:\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]+):\d{1,5}/?$")
MOST_VALUES = 10_000
# Above what a request, a model config (int32) or a socket can carry: a slip of the pen, not a load.
LARGEST = 2**31 - 1

NUMBERS_SCHEMA: dict[str, Any] = {
    "type": ["integer", "array", "string", "object"],
    "items": {"type": ["integer", "string", "object"]},
    "properties": {name: {"type": "integer"} for name in ("start", "stop", "step")},
    "additionalProperties": False,
}
OBJECTIVES_SCHEMA: dict[str, Any] = {"type": ["object", "array"], "items": {"type": "string"}}
CPUS_SCHEMA: dict[str, Any] = {"type": ["array", "string", "integer"], "items": {"type": ["string", "integer"]}}
TEXTS_SCHEMA: dict[str, Any] = {"type": ["array", "string", "number"], "items": {"type": ["string", "number"]}}


# A path below a value, what is wrong there, how to mend it.
Wrong = tuple[tuple[Any, ...], str, str]


def wrong(items: Iterable[Wrong]) -> ValidationError:
    """An error for validators to raise: each item a path below the value, what is wrong there, how to mend it."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("fault", "{what}; {fix}", {"what": what, "fix": fix}), loc=path, input=None
        )
        for path, what, fix in items
    ]
    return ValidationError.from_exception_data("job spec", details)


def shown(value: Any) -> str:
    """A value in a message, short; the digits of a huge integer are not worth their time."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a huge integer"
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."


def number(value: Any) -> Any:
    """A number, or a text of one; pydantic alone would take true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; use a number")
    return value


def finite(value: float) -> float:
    """Not infinite, not NaN."""
    if not math.isfinite(value):
        raise ValueError(f"is {value}; use a finite number")
    return value


def numbers(value: Any) -> Any:
    """4, [1, 4], "1,4", "1:8:2", {start, stop, step} as an ascending tuple without doubles; stop is included."""
    if value is None:
        return None
    found = _numbers(value)
    if not found:
        raise ValueError("is empty; give at least one number")
    if all(isinstance(item, int) and not isinstance(item, bool) for item in found):
        return tuple(sorted(set(found)))
    return tuple(map(number, found))


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [number for item in value for number in _numbers(item)]
    if isinstance(value, Mapping):
        if set(value) not in _RANGE_KEYS:
            raise ValueError(
                f"has the keys {', '.join(map(str, value))}; a range has start, stop and, if you like, step"
            )
        return _range(value["start"], value["stop"], value.get("step", 1))
    if isinstance(value, str):
        if match := _RANGE.match(value):
            return _range(*_bounds(match))
        return [number for part in value.split(",") for number in _one(part.strip())]
    return [value]


def _one(part: str) -> list[Any]:
    if match := _RANGE.match(part):
        return _range(*_bounds(match))
    return [int(part) if part.isdecimal() and len(part) <= len(str(LARGEST)) else part]


def _bounds(match: re.Match[str]) -> tuple[int, int, int]:
    start, stop, step = (group or "1" for group in match.groups())
    return int(start[:20]), int(stop[:20]), int(step[:20])


def _range(start: Any, stop: Any, step: Any) -> list[int]:
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (start, stop, step)):
        raise ValueError("has a start, stop or step that is no integer; use integers")
    if not all(abs(number) <= LARGEST for number in (start, stop, step)):
        raise ValueError(f"is a range with a number above {LARGEST}; use smaller ones")
    if start > stop or step < 1:
        raise ValueError(
            f"is the range {start}:{stop}:{step}, which is empty; start must not be above stop, step is 1 or more"
        )
    if (stop - start) // step > MOST_VALUES:
        raise ValueError(f"has more than {MOST_VALUES} values; use a larger step")
    return list(range(start, stop + 1, step))


def cpu_list(value: Any) -> Any:
    """[2, 3], "2-3,6", 2 or ["2-3", 6] as CPU numbers, in the order given, each once: as taskset writes them."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(cpu for item in value for cpu in cpu_list(item)))
    if not isinstance(value, str):
        return (number(value),)
    return tuple(dict.fromkeys(cpu for part in value.split(",") if part.strip() for cpu in _cpus(part)))


def _cpus(part: str) -> list[int]:
    match = _CPUS.match(part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not 0 <= last - first < MOST_VALUES:
        raise ValueError(f"has {part.strip()!r}, which is neither a CPU nor a range of them; write 2 or 2-3")
    return list(range(first, last + 1))


def workers(value: Any) -> Any:
    """auto, or how many."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value[:10])
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"is {shown(value)}; use auto, or how many processes")
    return value


def texts(value: Any) -> Any:
    """ "a,b", [a, b] or a single value as a tuple of strings."""
    if value is None:
        return ()
    if isinstance(value, str):
        return () if value.strip() in ("", "[]") else tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return tuple(str(item) if _is_small_number(item) else item for item in value)
    return (str(value),) if _is_small_number(value) else value


def _is_small_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**20)


def gpus(value: Any) -> Any:
    """Like texts; `all` among them is all."""
    found = texts(value)
    return ("all",) if isinstance(found, tuple) and "all" in found else found


def endpoint(value: Any) -> Any:
    """host:port, with or without a scheme."""
    if isinstance(value, str) and not _ENDPOINT.match(value):
        raise ValueError(f"is {value!r}; use host:port")
    return value


def host_port(endpoint: str) -> str:
    """An endpoint without its scheme."""
    return endpoint.split("://")[-1].rstrip("/")


def url(value: Any) -> Any:
    """An http URL."""
    if not isinstance(value, str) or not re.match(r"^https?://[^/\s]+", value):
        raise ValueError(f"is {shown(value)}; use http://host:port/metrics")
    return value


def file_name(value: Any) -> Any:
    """The plain name of a file below export_path."""
    if isinstance(value, str) and (not value or "/" in value or value in (".", "..") or "\0" in value):
        raise ValueError(f"is {value!r}; use a plain file name, and export_path for the folder")
    return value


def text(value: Any) -> Any:
    """A text; YAML's plain integer is one, too."""
    return str(value) if _is_small_number(value) and isinstance(value, int) else value


def path_text(value: Any) -> Any:
    """A path; a NUL byte can stand in none."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("has a NUL byte; use a path")
    return value


def urls(value: Any) -> Any:
    """Like texts; each must be an http URL."""
    found = texts(value)
    for one in found if isinstance(found, tuple) else ():
        url(one)
    return found


def flag_values(value: Any) -> Any:
    """A mapping of flags to plain values; a list of one-key mappings is one, too."""
    merged = _merged(value)
    if not isinstance(merged, Mapping):
        return merged
    faults = [
        ((name,), f"{name} is {shown(one)}", "use one plain value")
        for name, one in merged.items()
        if not isinstance(one, str | int | float)
    ]
    if faults:
        raise wrong(faults)
    return {str(name): one for name, one in merged.items()}


def server_flags(value: Any) -> Any:
    """Like flag_values; the dashes that a command line has before a flag may stand."""
    found = flag_values(value)
    if not isinstance(found, Mapping):
        return found
    plain = {name: name.lstrip("-") for name in found}
    if odd := [name for name, flag in plain.items() if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", flag)]:
        raise wrong([((name,), f"{name!r} is no flag", "write it like log-verbose: 1") for name in odd])
    return {plain[name].replace("_", "-"): one for name, one in found.items()}


def environment(value: Any) -> Any:
    """Like flag_values; names and values that a process can be given."""
    found = flag_values(value)
    if isinstance(found, Mapping) and (
        odd := [n for n, one in found.items() if not n or "=" in n or "\0" in n or "\0" in str(one)]
    ):
        raise wrong([((name,), f"{name!r} is no environment variable", "write it like NAME: value") for name in odd])
    return found


def shared_memory(value: Any) -> Any:
    """none or system; perf_analyzer's third kind says what to do."""
    if value == "cuda":
        raise ValueError("is cuda, which is not supported yet; use system: Triton copies it to the GPU")
    if value not in ("none", "system"):
        raise ValueError(f"is {shown(value)}; use none or system")
    return value


def perf_flags(value: Any) -> Any:
    """perf_analyzer's flags for input data, shapes and TLS; the two additive ones may have a list."""
    merged = _merged(value)
    if not isinstance(merged, Mapping):
        return merged
    faults = list(_perf_flag_faults(merged))
    if faults:
        raise wrong(faults)
    return dict(merged)


def _merged(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        merged: dict[Any, Any] = {}
        for item in value:
            for name, one in item.items():
                merged[name] = [*_as_list(merged[name]), one] if name in merged else one
        return merged
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def objectives(value: Any) -> Any:
    """[metric, ...] or {metric: weight} as weights (10 where none is given, as in Triton Model Analyzer)."""
    if isinstance(value, str):
        value = texts(value)
    if isinstance(value, list | tuple):
        if odd := [
            ((n,), f"objective {shown(name)} is no name", "use the tag of a metric")
            for n, name in enumerate(value)
            if not isinstance(name, str)
        ]:
            raise wrong(odd)
        return dict.fromkeys(value, 10.0)
    return value


def models_of(value: Any) -> Any:
    """Names, one comma text, mappings from name to settings, or a list of any of these, as a list of ModelSpec values."""
    if isinstance(value, str):
        return [{"name": name} for name in texts(value)]
    if isinstance(value, Mapping):
        return [_named(name, settings) for name, settings in value.items()]
    if isinstance(value, list | tuple):
        return [model for item in value for model in (models_of(item) if isinstance(item, str | Mapping) else [item])]
    return value


def _named(name: Any, settings: Any) -> Any:
    if settings is None:
        return {"name": str(name)}
    return {**settings, "name": str(name)} if isinstance(settings, Mapping) else settings


_ADDITIVE = ("input-data", "shape")
_SWITCHES = ("ssl-grpc-use-ssl", "ssl-https-verify-peer", "streaming")
ENDPOINTS = ("infer", "generate", "generate_stream")
_TYPES = ("ssl-https-client-certificate-type", "ssl-https-private-key-type")
_FILES = (
    "request-intervals",
    "ssl-https-ca-certificates-file",
    "ssl-https-client-certificate-file",
    "ssl-https-private-key-file",
    "ssl-grpc-root-certifications-file",
    "ssl-grpc-certificate-chain-file",
    "ssl-grpc-private-key-file",
)
_PAIRS = (
    ("ssl-https-client-certificate-file", "ssl-https-private-key-file"),
    ("ssl-grpc-certificate-chain-file", "ssl-grpc-private-key-file"),
)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def _perf_flag_faults(flags: Mapping[str, Any]) -> Iterator[Wrong]:
    for name, value in flags.items():
        values = value if isinstance(value, list) and name in _ADDITIVE and value else [value]
        if odd := [one for one in values if not isinstance(one, str | int | float)]:
            yield (name,), f"{name} is {shown(odd[0])}", "use one plain value"
        elif (answer := _perf_flag_fault(name, value)) is not None:
            yield (name,), *answer
    for certificate, key in _PAIRS:
        if (certificate in flags) != (key in flags):
            there, missing = (certificate, key) if certificate in flags else (key, certificate)
            yield (there,), f"{there} is given without {missing}", "give both: a client proves itself with the pair"


def _perf_flag_fault(name: str, value: Any) -> tuple[str, str] | None:
    text = str(value).strip()
    if name == "input-data" and isinstance(value, list) and len(value) != 1:
        return "input-data names several files", "give one"
    if name == "string-length" and not (text.isdecimal() and len(text) < 10):
        return f"string-length is {shown(value)}", "use a number of bytes"
    if name == "output-shared-memory-size" and not (text.isdecimal() and int(text[:12]) > 0 and len(text) <= 12):
        return f"output-shared-memory-size is {shown(value)}", "use a number of bytes for one inference's output"
    if name == "shared-memory":
        try:
            shared_memory(value)
        except ValueError as error:
            what, _, fix = str(error).partition("; ")
            return f"shared-memory {what}", fix
    if name == "request-count" and not (text.isdecimal() and int(text[:20]) <= LARGEST):
        return f"request-count is {shown(value)}", "use a number of requests"
    if name == "request-distribution" and value not in ("constant", "poisson"):
        return f"request-distribution is {shown(value)}", "use constant or poisson"
    if name == "endpoint" and value not in ENDPOINTS:
        return f"endpoint is {shown(value)}", f"use {', '.join(ENDPOINTS[:-1])} or {ENDPOINTS[-1]}"
    if name in _TYPES and text.upper() != "PEM":
        return f"not supported yet: {name} {text}", "instead use PEM; `openssl x509` and `openssl pkey` convert"
    if name in _FILES and (not isinstance(value, str) or not text or "\0" in text):
        return f"{name} is {shown(value)}", "use the path of a file"
    if name in _SWITCHES and text.lower() not in (*_TRUE, *_FALSE):
        return f"{name} is {shown(value)}", "use 1 or 0"
    if name == "ssl-https-verify-host" and text.lower() not in ("2", *_TRUE, *_FALSE):
        return f"{name} is {shown(value)}", "use 0, 1 or 2"
    if name == "shape":
        for item in _as_list(value):
            try:
                _shape(item)
            except ValueError as error:
                what, _, fix = str(error).partition("; ")
                return what, fix
    return None


def input_source(flags: Mapping[str, Any], shared: str = "none", output_bytes: int = 0) -> InputSource:
    """From perf_analyzer's flags, without faults.

    shared, output_bytes: the job's shared_memory and output_shared_memory_size, where the flags have none.
    """
    kind = flags.get("shared-memory", shared)
    room = int(flags.get("output-shared-memory-size", output_bytes))
    data = _as_list(flags.get("input-data", "random"))[0]
    mode: Literal["random", "zero", "file"] = data if data in ("random", "zero") else "file"
    text = flags.get("string-data")
    return InputSource(
        mode,
        str(data) if mode == "file" else None,
        tuple(_shape(item) for item in _as_list(flags.get("shape", []))),
        int(flags.get("string-length", 128)),
        None if text is None else str(text),
        SharedMemory(room) if kind == "system" else None,
    )


def call_asked(flags: Mapping[str, Any], protocol: Protocol) -> Call | None:
    """How a model is to be called, from perf_analyzer's streaming and endpoint; None: as its kind needs it."""
    streaming = is_true(flags.get("streaming", False))
    endpoint = str(flags.get("endpoint", "infer"))
    if endpoint != "infer":
        return "generate_stream" if streaming or endpoint == "generate_stream" else "generate"
    if not streaming:
        return None
    return "stream_infer" if protocol == "grpc" else "generate_stream"


def _shape(text: Any) -> tuple[str, tuple[int, ...]]:
    name, colon, dims = str(text).rpartition(":")
    parts = [part.strip() for part in dims.split(",")]
    if not colon or not name or not all(part.isdecimal() and len(part) < 12 for part in parts):
        raise ValueError(f"shape {text!r} is not NAME:dim,dim,...; write it like INPUT0:3,224,224")
    return name, tuple(int(part) for part in parts)


def tls_of(flags: Mapping[str, Any], protocol: Protocol, endpoint: str) -> Tls | None:
    """TLS of the client, from perf_analyzer's ssl-* flags and a grpcs:// or https:// endpoint; None: plain."""
    secure = endpoint.startswith(("https://", "grpcs://"))
    if protocol == "grpc":
        if not is_true(flags.get("ssl-grpc-use-ssl", secure or "ssl-grpc-root-certifications-file" in flags)):
            return None
        return Tls(
            ca_file=flags.get("ssl-grpc-root-certifications-file"),
            certificate_file=flags.get("ssl-grpc-certificate-chain-file"),
            private_key_file=flags.get("ssl-grpc-private-key-file"),
        )
    if not secure and not any(name.startswith("ssl-https-") for name in flags):
        return None
    return Tls(
        ca_file=flags.get("ssl-https-ca-certificates-file"),
        certificate_file=flags.get("ssl-https-client-certificate-file"),
        private_key_file=flags.get("ssl-https-private-key-file"),
        verify_peer=is_true(flags.get("ssl-https-verify-peer", True)),
        verify_host=is_true(flags.get("ssl-https-verify-host", True)),
    )


def is_true(value: Any) -> bool:
    """A switch of perf_analyzer's, whose value is right."""
    return str(value).strip().lower() not in _FALSE
