"""What is sent to the server: a load and the requests it is made of."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["http", "grpc"]
# infer: one reply a request. stream_infer (gRPC's ModelStreamInfer) and generate_stream (HTTP's generate extension): any number
# of responses. generate: the generate extension with one.
Call = Literal["infer", "stream_infer", "generate", "generate_stream"]
# Requests in flight of an open loop at most, where it does not say.
OPEN_LOOP_CONNECTIONS = 1024


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop of `value` requests in flight, or an open loop of `value` requests a second.

    kind: "concurrency" or "request_rate". value: of custom intervals their mean rate, else 1 or more.
    intervals: digest of the custom intervals, which travel with the order; empty without.
    max_concurrency: requests of an open loop in flight at most; what is due beyond it waits. None: the generator's own limit.
    ramp_s: so long the load grows, linearly from nothing, before it counts.
    """

    kind: Literal["concurrency", "request_rate"]
    value: float
    distribution: Literal["constant", "poisson", "intervals"] = "constant"
    intervals: str = ""
    max_concurrency: int | None = None
    ramp_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"

    def terms(self) -> list[str]:
        """What it is beside its number: how it is spread, bounded, begun."""
        spread = {"constant": "evenly spaced", "poisson": "Poisson", "intervals": "custom intervals"}[self.distribution]
        return [
            *([spread] if self.kind == "request_rate" else []),
            *([] if self.max_concurrency is None else [f"at most {self.max_concurrency} in flight"]),
            *([f"ramp {self.ramp_s:g} s"] if self.ramp_s else []),
        ]


def of_intervals(intervals_ns: Sequence[int], max_concurrency: int | None = None, ramp_s: float = 0.0) -> Load:
    """The open loop of custom intervals, named by their mean rate: to six digits, as it stands in the tables.

    intervals_ns: one at least above 0.
    """
    rate = float(f"{len(intervals_ns) / sum(intervals_ns) * 1e9:.6g}")
    digest = hashlib.sha256(array("q", intervals_ns).tobytes()).hexdigest()[:16]
    return Load("request_rate", rate, "intervals", digest, max_concurrency, ramp_s)


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Inputs and outputs lie in system shared memory; requests and replies only say where.

    output_bytes: room for one inference's output where its size does not follow from the model (perf_analyzer's
    output-shared-memory-size and its default).
    """

    output_bytes: int = 102_400


@dataclass(frozen=True, slots=True)
class InputSource:
    """Where input tensors come from, and whether tensors are sent or lie in shared memory.

    mode: "random", "zero", or "file" (then `path` is a perf_analyzer JSON data file).
    shapes: tensor name -> dims without the batch dimension, for dynamic dims.
    string_length: bytes of a random BYTES element. string_data: one fixed BYTES element instead.
    shared_memory: None: tensors are part of requests and replies.
    """

    mode: Literal["random", "zero", "file"] = "random"
    path: str | None = None
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    string_length: int = 128
    string_data: str | None = None
    shared_memory: SharedMemory | None = None


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """One inference request as it goes over the wire, encoded once and replayed.

    http: `head` is the request line and headers incl. the blank line, `body` follows it.
    grpc: `head` is the prefix of a gRPC message, `body` is a serialised ModelInferRequest, whichever the call.
    """

    head: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class RequestSet:
    """Distinct requests to rotate through; inferences: how many one request carries (its batch size)."""

    protocol: Protocol
    requests: tuple[EncodedRequest, ...]
    inferences: int
    call: Call = "infer"


def call_of(asked: Call | None, protocol: Protocol, decoupled: bool) -> Call:
    """How a model is called: as asked (None: nothing was), else as its kind needs it."""
    if asked is not None:
        return asked
    if not decoupled:
        return "infer"
    return "stream_infer" if protocol == "grpc" else "generate_stream"


@dataclass(frozen=True, slots=True)
class Tls:
    """Client side of TLS; all None/True: system CAs, verified."""

    ca_file: str | None = None
    certificate_file: str | None = None
    private_key_file: str | None = None
    verify_peer: bool = True
    verify_host: bool = True


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """All the load generator needs to drive one slice.

    seed: the slice's number. workers: how many processes share it; no more than requests in flight. intervals_ns: the
    load's custom intervals, if it has any.
    """

    address: str  # host:port
    load: Load
    requests: RequestSet
    timeout_s: float
    tls: Tls | None = None
    seed: int = 0
    workers: int = 1
    intervals_ns: tuple[int, ...] = ()
