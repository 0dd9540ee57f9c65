"""The many ways in which Triton Model Analyzer lets a value be written, as one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from model_analyzer.core.keys import PERF_FLAGS_WORK
from model_analyzer.core.load import InputSource, Protocol, Tls

_RANGE = re.compile(r"^\s*(\d+)\s*:\s*(\d+)\s*(?::\s*(\d+)\s*)?$")
_RANGE_KEYS = ({"start", "stop"}, {"start", "stop", "step"})
MOST_VALUES = 10_000

NUMBERS_SCHEMA: dict[str, Any] = {
    "type": ["integer", "array", "string", "object"],
    "items": {"type": ["integer", "string", "object"]},
    "properties": {name: {"type": "integer"} for name in ("start", "stop", "step")},
    "additionalProperties": False,
}
OBJECTIVES_SCHEMA: dict[str, Any] = {"type": ["object", "array"], "items": {"type": "string"}}
TEXTS_SCHEMA: dict[str, Any] = {"type": ["array", "string", "number"], "items": {"type": ["string", "number"]}}


def numbers(value: Any) -> Any:
    """4, [1, 4], "1,4", "1:8:2", {start, stop, step} as an ascending tuple without doubles; stop is included."""
    if value is None:
        return None
    found = _numbers(value)
    if not found:
        raise ValueError("is empty; give at least one number")
    if all(isinstance(item, int) for item in found):
        return tuple(sorted(set(found)))
    return tuple(found)


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
            return _range(*(int(group or 1) for group in match.groups()))
        return [number for part in value.split(",") for number in _one(part.strip())]
    return [value]


def _one(part: str) -> list[Any]:
    if match := _RANGE.match(part):
        return _range(*(int(group or 1) for group in match.groups()))
    return [int(part) if part.isdigit() else part]


def _range(start: Any, stop: Any, step: Any) -> list[int]:
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (start, stop, step)):
        raise ValueError("has a start, stop or step that is no integer; use integers")
    if start > stop or step < 1:
        raise ValueError(
            f"is the range {start}:{stop}:{step}, which is empty; start must not be above stop, step is 1 or more"
        )
    if (stop - start) // step > MOST_VALUES:
        raise ValueError(f"has more than {MOST_VALUES} values; use a larger step")
    return list(range(start, stop + 1, step))


def texts(value: Any) -> Any:
    """ "a,b", [a, b] or a single value as a tuple of strings."""
    if value is None:
        return ()
    if isinstance(value, str):
        return () if value.strip() in ("", "[]") else tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        return tuple(
            str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in value
        )
    return (str(value),) if isinstance(value, int | float) and not isinstance(value, bool) else value


def urls(value: Any) -> Any:
    """Like texts; each must be an http URL."""
    found = texts(value)
    for url in found:
        if not isinstance(url, str) or not re.match(r"^https?://[^/\s]+", url):
            raise ValueError(f"{url!r} is no URL; use http://host:port/metrics")
    return found


def flag_values(value: Any) -> Any:
    """A mapping of flags; a list of one-key mappings is one, too."""
    if value is None:
        return {}
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        merged: dict[str, Any] = {}
        for item in value:
            for name, one in item.items():
                merged[name] = [*_as_list(merged[name]), one] if name in merged else one
        return merged
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def objectives(value: Any) -> Any:
    """[metric, ...] or {metric: weight} as weights (10 where none is given, as in Triton Model Analyzer)."""
    if isinstance(value, list | tuple):
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


def check_perf_flags(flags: Mapping[str, Any]) -> str | None:
    """What is wrong with the values of the flags that work; None when nothing is."""
    try:
        input_source({name: value for name, value in flags.items() if name in PERF_FLAGS_WORK})
    except ValueError as error:
        return str(error)
    distribution = flags.get("request-distribution", "constant")
    return (
        None
        if distribution in ("constant", "poisson")
        else f"request-distribution is {distribution!r}; use constant or poisson"
    )


def input_source(flags: Mapping[str, Any]) -> InputSource:
    """From perf_analyzer's flags. Raises ValueError with what is wrong and how to mend it."""
    data = flags.get("input-data", "random")
    if isinstance(data, list):
        if len(data) != 1:
            raise ValueError("input-data names several files; give one")
        data = data[0]
    mode: Literal["random", "zero", "file"] = data if data in ("random", "zero") else "file"
    length = flags.get("string-length", 128)
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        raise ValueError(f"string-length is {length!r}; use a number of bytes")
    text = flags.get("string-data")
    shapes = tuple(_shape(item) for item in _as_list(flags["shape"])) if "shape" in flags else ()
    return InputSource(mode, str(data) if mode == "file" else None, shapes, length, None if text is None else str(text))


def _shape(text: Any) -> tuple[str, tuple[int, ...]]:
    name, colon, dims = str(text).rpartition(":")
    parts = [part.strip() for part in dims.split(",")]
    if not colon or not name or not all(part.isdigit() for part in parts):
        raise ValueError(f"shape {text!r} is not NAME:dim,dim,...; write it like INPUT0:3,224,224")
    return name, tuple(int(part) for part in parts)


def tls_of(flags: Mapping[str, Any], protocol: Protocol, http_endpoint: str) -> Tls | None:
    """TLS of the client, from perf_analyzer's ssl-* flags and an https:// endpoint; None: plain."""
    if protocol == "grpc":
        if not _true(flags.get("ssl-grpc-use-ssl", "ssl-grpc-root-certifications-file" in flags)):
            return None
        return Tls(
            ca_file=flags.get("ssl-grpc-root-certifications-file"),
            certificate_file=flags.get("ssl-grpc-certificate-chain-file"),
            private_key_file=flags.get("ssl-grpc-private-key-file"),
        )
    if not http_endpoint.startswith("https://") and not any(name.startswith("ssl-https-") for name in flags):
        return None
    return Tls(
        ca_file=flags.get("ssl-https-ca-certificates-file"),
        certificate_file=flags.get("ssl-https-client-certificate-file"),
        private_key_file=flags.get("ssl-https-private-key-file"),
        verify_peer=_true(flags.get("ssl-https-verify-peer", True)),
        verify_host=_true(flags.get("ssl-https-verify-host", True)),
    )


def _true(value: Any) -> bool:
    return str(value).strip().lower() not in ("0", "false", "no", "off", "")
