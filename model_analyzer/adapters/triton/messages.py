"""Triton's protobuf messages, from tritonclient, without its gRPC client.

`from tritonclient.grpc import service_pb2` runs the package's __init__, which imports grpc, grpc.aio and asyncio: more CPU
than all that a run encodes. The load generator speaks gRPC without them, so the messages are all that most runs need.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_PACKAGE = "tritonclient.grpc"
# While the placeholder stands for the package, nobody may take it for the real one.
_lock = threading.Lock()


@cache
def service_pb2() -> Any:
    """The messages of Triton's gRPC service."""
    return _messages("service_pb2")


@cache
def model_config_pb2() -> Any:
    """The messages that a config.pbtxt is made of."""
    return _messages("model_config_pb2")


def grpc_client() -> Any:
    """tritonclient.grpc itself; it has the same message modules, whichever is imported first."""
    with _lock:
        return import_module(_PACKAGE)


def _messages(name: str) -> ModuleType:
    with _lock:
        if _PACKAGE not in sys.modules:
            # A tritonclient of another layout is left to its package.
            with suppress(Exception):
                return _without_package(name)
        module: ModuleType = getattr(import_module(_PACKAGE), name)
        return module


def _without_package(name: str) -> ModuleType:
    """Import a module of the package beside a placeholder that knows the package's folder and has run nothing of it."""
    spec = find_spec(_PACKAGE)
    if spec is None:
        raise ImportError(_PACKAGE)
    sys.modules[_PACKAGE] = module_from_spec(spec)
    try:
        return import_module(f"{_PACKAGE}.{name}")
    finally:
        del sys.modules[_PACKAGE]
