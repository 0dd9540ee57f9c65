"""What telemetry costs the throughput that it watches: `python bench/telemetry_cost.py`.

The load generator drives the embedded Triton's add_sub with 8 requests in flight, in pairs of slices: one with everything
scraped every 100 ms (Triton, the host, and an exporter of 8 GPUs that refreshes as often), one with no scrape at all. The order within a
pair changes from pair to pair, and a pair takes seconds, so that what else the machine does falls on both. The figure is
the mean of the pairs' log ratios of throughput, with the 95 % interval of Student's t.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from loadgen_cost import serving

from model_analyzer.adapters.clock import SystemClock
from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.adapters.telemetry.host import HostSampler
from model_analyzer.adapters.telemetry.triton import TritonSampler
from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource, Load, LoadOrder
from model_analyzer.core.stats import t_quantile
from model_analyzer.core.variant import ModelInfo, ServerInfo
from model_analyzer.engine.recorder import Recorder
from model_analyzer.loadgen.client import ProcessLoadGenerator
from model_analyzer.ports import LoadBatch

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests/data/dcgm"
INTERVAL_S = 0.1
CONCURRENCY = 8
WARMUP_S = 0.5
SLICE_S = 1.5
PAIRS = 24  # two minutes


def full_page(seed: int) -> str:
    """8 H100s as a real page names them, with every field of a default exporter (a real page of one L4), values made up."""
    eight = (DATA / "h100x8_pod_mapped.prom").read_text().splitlines()
    labels = [
        line[line.index("{") : line.rindex("}") + 1] for line in eight if line.startswith("DCGM_FI_DEV_GPU_TEMP{")
    ]
    fields = [line.partition("{")[::2] for line in (DATA / "l4_gpu-operator_full.prom").read_text().splitlines()
              if line and not line.startswith("#")]  # fmt: skip
    random = np.random.default_rng(seed)
    rows = []
    for name, rest in fields:
        whole = "." not in rest.rpartition("}")[2]
        for each in labels:
            value = float(random.uniform(0, 1000))
            rows.append(f"{name}{each} {value:.0f}" if whole else f"{name}{each} {value:.6f}")
    return "\n".join(rows) + "\n"


def export() -> None:
    """Serve the page, another one every 100 ms, until standard input ends; the port is the first line of the output."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    bodies = [full_page(seed).encode() for seed in range(16)]

    class Exporter(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20  # one packet for head and body, as an exporter sends them

        def do_GET(self) -> None:
            body = bodies[int(time.monotonic() / INTERVAL_S) % len(bodies)]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


@contextmanager
def exporting() -> Iterator[str]:
    """A process of its own, as an exporter is."""
    code = [sys.executable, __file__, "--export"]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/metrics"
        finally:
            process.stdin.close()


@contextmanager
def watching(info: ServerInfo, exporter: str) -> Iterator[Recorder]:
    samplers = [TritonSampler(info.metrics_url), HostSampler(info.pids), DcgmSampler(exporter)]
    recorder = Recorder(samplers, INTERVAL_S, SystemClock())
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


def receive(batches: Iterator[LoadBatch], seconds: float) -> tuple[int, float]:
    """(replies, seconds) of the next so many seconds."""
    first = next(batches)
    count, start_ns = 0, first.end_ns
    for batch in batches:
        count += len(batch.done_ns)
        if batch.end_ns - start_ns >= seconds * 1e9:
            return count, (batch.end_ns - start_ns) / 1e9
    raise RuntimeError("the load generator ended early")


def one_slice(batches: Iterator[LoadBatch], info: ServerInfo, exporter: str, watched: bool) -> tuple[float, float, int]:
    """(replies a second, our CPU in seconds a second without the receiving of batches, scrapes)."""
    with watching(info, exporter) if watched else nullcontext() as recorder:
        receive(batches, WARMUP_S)
        before = len(recorder.pages()) if recorder else 0
        cpu_s = time.process_time()
        count, seconds = receive(batches, SLICE_S)
        share = (time.process_time() - cpu_s) / seconds
        scrapes = len(recorder.pages()) - before if recorder else 0
    return count / seconds, share, scrapes


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width."""
    mean = float(np.mean(values))
    return mean, t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def measure(pairs: int = PAIRS) -> dict[str, Any]:
    """throughput_cost: 1 - with / without, with its interval; cpu_*: shares of one core."""
    ratios, shares, scrapes, rates = [], [], 0, []
    own = psutil.Process()
    with serving() as (info, model), exporting() as exporter, _load(info, model) as batches:
        one_slice(batches, info, exporter, watched=True)  # everything once
        server = [psutil.Process(pid) for pid in info.pids]
        for number in range(pairs):
            found = {}
            for watched in (True, False) if number % 2 else (False, True):
                found[watched] = one_slice(batches, info, exporter, watched)
            ratios.append(math.log(found[True][0] / found[False][0]))
            shares.append(found[True][1] - found[False][1])
            scrapes += found[True][2]
            rates.append(found[False][0])
        per_scrape_ms, server_ms = _each_alone(info, exporter, server)
        rss_mb = own.memory_info().rss / 1e6
    mean, half = interval(ratios)
    share, share_half = interval(shares)
    return {
        "pairs": pairs,
        "slice_s": SLICE_S,
        "interval_s": INTERVAL_S,
        "gpus": 8,
        "throughput_without": float(np.median(rates)),
        "throughput_ratio": math.exp(mean),
        "throughput_cost": 1 - math.exp(mean),
        "throughput_cost_low": 1 - math.exp(mean + half),
        "throughput_cost_high": 1 - math.exp(mean - half),
        "cpu_share": share,
        "cpu_share_half_width": share_half,
        "cpu_ms_per_scrape": per_scrape_ms,
        "server_cpu_ms_per_scrape": server_ms,
        "scrapes": scrapes,
        "rss_mb": rss_mb,
        "raw_log_ratios": ratios,
    }


@contextmanager
def _load(info: ServerInfo, model: ModelInfo) -> Iterator[Iterator[LoadBatch]]:
    requests = TritonEncoder().encode(model, 1, InputSource(), "http", info.http_endpoint)
    generator = ProcessLoadGenerator()
    try:
        order = LoadOrder(info.http_endpoint, Load("concurrency", CONCURRENCY), requests, timeout_s=10.0)
        with generator.run(order) as batches:
            yield batches
    finally:
        generator.close()


def _each_alone(info: ServerInfo, exporter: str, server: Sequence[psutil.Process]) -> tuple[dict[str, float], float]:
    """CPU of one scrape of each source, in ms, and what Triton itself spends on one of its page."""
    found, count = {}, 100
    samplers = [TritonSampler(info.metrics_url), HostSampler(info.pids), DcgmSampler(exporter)]
    for sampler in samplers:
        sampler.sample()
        cpu_s = time.process_time()
        for _ in range(count):
            sampler.sample()
            if sampler.name == "dcgm":
                time.sleep(INTERVAL_S / 4)  # so that the page is another one now and then, as at the interval
        found[sampler.name] = (time.process_time() - cpu_s) / count * 1e3
    return found, _server_ms(samplers[0], server, count)


def _server_ms(sampler: Any, server: Sequence[psutil.Process], count: int) -> float:
    time.sleep(0.5)
    idle, before, began = _rate(server), _cpu_s(server), time.monotonic()
    for _ in range(count):
        sampler.sample()
    return (_cpu_s(server) - before - idle * (time.monotonic() - began)) / count * 1e3


def _rate(processes: Sequence[psutil.Process]) -> float:
    before, began = _cpu_s(processes), time.monotonic()
    time.sleep(1.0)
    return (_cpu_s(processes) - before) / (time.monotonic() - began)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        export()
        return
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} CPUs", file=sys.stderr)
    print(json.dumps(measure(arguments.pairs), indent=1))


if __name__ == "__main__":
    main()
