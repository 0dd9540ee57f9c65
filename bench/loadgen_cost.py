"""CPU of the load generator per request, on the embedded Triton's add_sub: `python bench/loadgen_cost.py`.

Cost = CPU of the load generator's whole process / successful requests, over the same time. The server's own count
(nv_inference_request_success) stands beside ours: they differ by what was in flight at the end, or a figure is wrong.
Identical runs differ by a lot on a busy machine: compare pairs in one run, and read the load average.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.local import LocalServer
from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource, Load, LoadOrder, Protocol
from model_analyzer.core.variant import ModelInfo, ServerInfo, ServerSettings, Variant
from model_analyzer.loadgen.client import ProcessLoadGenerator

ROOT = Path(__file__).parent.parent
MODEL = "add_sub"
CONCURRENCIES = (1, 8, 64)
SECONDS = 3.0


@dataclass(frozen=True)
class Cost:
    """One run. requests: successes that we saw; server_requests: that the server counted, the drained ones included."""

    cpu_us: float
    throughput: float
    requests: int
    server_requests: int
    failures: int


@contextmanager
def serving() -> Iterator[tuple[ServerInfo, ModelInfo]]:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        build = [sys.executable, str(ROOT / "examples/quickstart/build_models.py"), str(repository)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        server = LocalServer(Launch(repository, Path(folder) / "triton.log", monitoring_interval_s=1.0), find_embedded)
        try:
            info = server.start(ServerSettings())
            yield info, server.load(Variant(MODEL, f"{MODEL}_config_default"))
        finally:
            server.stop()


def measure(info: ServerInfo, model: ModelInfo, protocol: Protocol, concurrency: int) -> Cost:
    address = info.http_endpoint if protocol == "http" else info.grpc_endpoint
    requests = TritonEncoder().encode(model, 1, InputSource(), protocol, address)
    order = LoadOrder(address, Load("concurrency", concurrency), requests, timeout_s=10.0)
    generator = ProcessLoadGenerator()
    count = failures = start_ns = 0
    before = server_count(info)
    try:
        with generator.run(order) as batches:
            for batch in batches:
                start_ns = start_ns or batch.end_ns
                count += len(batch.done_ns)
                failures += sum(batch.failures.values())
                elapsed_s = (batch.end_ns - start_ns) / 1e9
                if elapsed_s >= SECONDS:
                    break
    finally:
        generator.close()
    served = server_count(info) - before
    return Cost(batch.cpu_ns / 1e3 / max(count, 1), count / elapsed_s, count, served, failures)


def server_count(info: ServerInfo) -> int:
    with urllib.request.urlopen(info.metrics_url, timeout=10) as page:
        text = page.read().decode()
    return sum(int(float(n)) for n in re.findall(rf'nv_inference_request_success{{model="{MODEL}".*?}} (\S+)', text))


def main() -> None:
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} CPUs, {SECONDS:g} s each")
    print("protocol     c  CPU us/request   infer/s  requests  server's count  failures")
    protocols: tuple[Protocol, ...] = ("http", "grpc")
    with serving() as (info, model):
        for protocol in protocols:
            for concurrency in CONCURRENCIES:
                cost = measure(info, model, protocol, concurrency)
                print(
                    f"{protocol:8}{concurrency:6}{cost.cpu_us:16.1f}{cost.throughput:10.0f}"
                    f"{cost.requests:10}{cost.server_requests:16}{cost.failures:10}"
                )


if __name__ == "__main__":
    main()
