"""How many requests the load generator sends a second, with one process and with several: `python bench/capacity.py`.

The server is a stub in C (bench/stub.c, compiled with `cc` on the spot) that answers with the same bytes, so that it costs as little as
a server can. On two cores it shares them with two load generator processes: then the figure is what all three do together.
The stub's own count stands against ours, request for request, after everything in flight was answered.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_analyzer.adapters.cpus import usable_cpus
from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource, Load, LoadOrder, Protocol, RequestSet
from model_analyzer.core.variant import ModelInfo, TensorInfo
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.ports import LoadBatch

SOURCE = Path(__file__).with_name("stub.c")
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
IN_FLIGHT = (64, 1024)
# Of two processes, on two quiet cores, with 64 in flight.
GOAL = 50_000
WARM_UP_S, SECONDS, QUICK_SECONDS = 0.5, 3.0, 1.0
MODEL = ModelInfo(
    "add_sub",
    "1",
    8,
    (TensorInfo("INPUT0", "FP32", (4,)), TensorInfo("INPUT1", "FP32", (4,))),
    (TensorInfo("OUTPUT0", "FP32", (4,)), TensorInfo("OUTPUT1", "FP32", (4,))),
    "1:CPU",
    False,
)


class CapacityError(Exception):
    """The stub cannot be built or does not run; one line."""


@dataclass(frozen=True)
class Run:
    """One run. requests: successes that we counted, drained ones included, whose server's count is `served`.

    cpu: share of a core of each process; workers_share: of the replies, of the process with the fewest against an even share;
    slowest, fastest: connection, of the median connection's count; backlog: of the requests in flight, replies unread.
    """

    protocol: Protocol
    in_flight: int
    workers: int
    throughput: float
    requests: int
    served: int
    failures: int
    cpu: list[float]
    workers_share: float
    connections: int
    slowest: float
    fastest: float
    backlog: float
    lag_ms: float


def reply(protocol: Protocol) -> bytes:
    """What the stub says: a reply of MODEL, as Triton writes it."""
    data = struct.pack("<8f", *range(8))
    if protocol == "grpc":
        from tritonclient.grpc import service_pb2

        message = service_pb2.ModelInferResponse(
            model_name=MODEL.name, model_version="1", raw_output_contents=[data[:16], data[16:]]
        )
        for tensor in MODEL.outputs:
            message.outputs.add(name=tensor.name, datatype="FP32", shape=[1, 4])
        serialised = message.SerializeToString()
        return struct.pack(">BI", 0, len(serialised)) + serialised
    outputs = [
        {"name": tensor.name, "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
        for tensor in MODEL.outputs
    ]
    document = json.dumps({"model_name": MODEL.name, "model_version": "1", "outputs": outputs}).encode()
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(document)}\r\nContent-Length: {len(document) + len(data)}\r\n\r\n"
    )
    return head.encode() + document + data


def build(folder: Path) -> Path:
    """Compile the stub. Raises CapacityError."""
    if shutil.which("cc") is None:
        raise CapacityError("there is no C compiler (cc) to build bench/stub.c with; apt-get install build-essential")
    program = folder / "stub"
    command = ["cc", "-O2", "-pthread", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        raise CapacityError(f"cc cannot compile bench/stub.c: {lines[0] if lines else ended.returncode}")
    return program


class Stub:
    """The stub, serving. `count` ends it and says how many requests it has answered on each connection."""

    def __init__(self, program: Path, protocol: Protocol, threads: int) -> None:
        answer = program.with_name(f"reply.{protocol}")
        answer.write_bytes(reply(protocol))
        command = [str(program), protocol, str(answer), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            raise CapacityError(f"the stub ended with {self._process.wait()}")
        self.address = f"127.0.0.1:{port.strip()}"

    def count(self) -> list[int]:
        said, _ = self._process.communicate("end\n", timeout=30)
        found = json.loads(said)
        assert sum(found["connections"]) == found["requests"]
        return list(found["connections"])

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def serving(program: Path, protocol: Protocol, threads: int = 1) -> Iterator[Stub]:
    stub = Stub(program, protocol, threads)
    try:
        yield stub
    finally:
        stub.kill()


def drive(program: Path, protocol: Protocol, in_flight: int, workers: int, seconds: float, threads: int = 1) -> Run:
    """One run against a stub of its own."""
    generator = ProcessLoadGenerator()
    try:
        with serving(program, protocol, threads) as stub:
            requests = TritonEncoder().encode(MODEL, 1, InputSource(), protocol, stub.address)
            warm, measured, rest = _batches(generator, stub.address, requests, in_flight, workers, seconds)
            return _run(protocol, in_flight, workers, (warm, measured, rest), stub.count())
    finally:
        generator.close()


def _batches(
    generator: ProcessLoadGenerator, address: str, requests: RequestSet, in_flight: int, workers: int, seconds: float
) -> tuple[list[LoadBatch], list[LoadBatch], list[LoadBatch]]:
    """What came in the warm-up, in the measured time, and until everything was answered."""
    order = LoadOrder(address, Load("concurrency", in_flight), requests, timeout_s=10.0, workers=workers)
    warm: list[LoadBatch] = []
    measured: list[LoadBatch] = []
    with generator.run(order) as batches:
        for batch in batches:
            if not warm or batch.end_ns - warm[0].end_ns < WARM_UP_S * 1e9:
                warm.append(batch)
                continue
            measured.append(batch)
            if batch.end_ns - warm[-1].end_ns >= seconds * 1e9:
                break
    return warm, measured, list(batches)


def _run(
    protocol: Protocol,
    in_flight: int,
    workers: int,
    pieces: tuple[list[LoadBatch], list[LoadBatch], list[LoadBatch]],
    served: Sequence[int],
) -> Run:
    warm, measured, rest = pieces
    before, after = warm[-1], measured[-1]
    elapsed_ns = after.end_ns - before.end_ns
    replies = [now.replies - then.replies for then, now in zip(before.workers, after.workers, strict=True)]
    everything = [*warm, *measured, *rest]
    middle = statistics.median(served)
    return Run(
        protocol,
        in_flight,
        workers,
        throughput=sum(len(batch.done_ns) for batch in measured) * 1e9 / elapsed_ns,
        requests=sum(len(batch.done_ns) for batch in everything),
        served=sum(served),
        failures=sum(sum(batch.failures.values()) for batch in everything),
        cpu=[(now.cpu_ns - then.cpu_ns) / elapsed_ns for then, now in zip(before.workers, after.workers, strict=True)],
        workers_share=min(replies) * workers / max(sum(replies), 1),
        connections=len(served),
        slowest=min(served) / max(middle, 1),
        fastest=max(served) / max(middle, 1),
        backlog=sum(batch.backlog for batch in measured) / max(sum(batch.inflight for batch in measured), 1),
        lag_ms=max(batch.lag_ns for batch in measured) / 1e6,
    )


def measure(quick: bool = False) -> dict[str, Any]:
    """Every protocol, in flight and number of processes. Raises CapacityError.

    {"figures": name, value, unit, maybe goal and met; "raw": the runs, machine and load average}.
    """
    seconds, cpus = QUICK_SECONDS if quick else SECONDS, usable_cpus()
    # On more cores: as many as leave the stub, with a thread for each four of them, some.
    counts = [1, 2, *(count for count in (4, 8, 16) if count < cpus - cpus // 4)]
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        runs = [
            drive(program, protocol, in_flight, workers, seconds, threads=max(1, cpus // 4))
            for protocol in PROTOCOLS
            for in_flight in IN_FLIGHT
            for workers in counts
        ]
    raw = {"cpus": cpus, "load average": os.getloadavg()[0], "seconds": seconds, "runs": [asdict(run) for run in runs]}
    return {"figures": [figure for run in runs for figure in _figures(run)], "raw": raw}


def _figures(run: Run) -> Iterator[dict[str, Any]]:
    processes = "1 process" if run.workers == 1 else f"{run.workers} processes"
    name = f"{run.protocol}, {run.in_flight} in flight, {processes}"
    goal = {"goal": f">= {GOAL}", "met": run.throughput >= GOAL} if run.workers == 2 and run.in_flight == 64 else {}
    yield {"name": name, "value": run.throughput, "unit": "requests/s", **goal}
    wrong = run.requests - run.served
    yield {
        "name": f"{name}: ours less the stub's count",
        "value": wrong,
        "unit": "requests",
        "goal": "0",
        "met": wrong == 0 and not run.failures,
    }
    if run.workers > 1:
        yield {
            "name": f"{name}: fewest replies of a process, of an even share",
            "value": run.workers_share,
            "unit": "ratio",
        }
    yield {"name": f"{name}: fewest replies of a connection, of the median", "value": run.slowest, "unit": "ratio"}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """For people."""
    lines = [
        "protocol  in flight  processes  requests/s  CPU of each         least process  connections  slowest  fastest  backlog  ours - stub's"
    ]
    for run in runs:
        cpu = " ".join(f"{share:.0%}" for share in run["cpu"])
        lines.append(
            f"{run['protocol']:8}{run['in_flight']:11}{run['workers']:11}{run['throughput']:12.0f}  {cpu:18}"
            f"{run['workers_share']:15.2f}{run['connections']:13}{run['slowest']:9.2f}{run['fastest']:9.2f}{run['backlog']:9.2f}"
            f"{run['requests'] - run['served']:15}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"runs of {QUICK_SECONDS:g} s instead of {SECONDS:g} s")
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {usable_cpus()} CPUs", file=sys.stderr)
    try:
        found = measure(arguments.quick)
    except CapacityError as error:
        sys.exit(f"bench/capacity.py: {error}")
    print(table(found["raw"]["runs"]), file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
