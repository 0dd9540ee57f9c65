"""Where the CPU of a whole run goes that is not load: `python bench/run_profile.py`; written by hand into docs/benchmarks-profile.txt.

One `profile` of add_sub at c = 1 for 8 measured seconds on the embedded Triton, as `make bench PARTS=cost` has it, for each
protocol: once by `-X importtime` (self time of all modules of a library together), once by cProfile (the analyzer's main
thread: no scraping, no load generator). Both take time themselves: read shares, not seconds.
"""

from __future__ import annotations

import compileall
import cProfile
import io
import os
import pstats
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml

from model_analyzer.core.load import Protocol
from model_analyzer.core.variant import ServerInfo

MODEL, SECONDS = "add_sub", 8.0
LIBRARIES, FUNCTIONS = 15, 25
ROOT = Path(__file__).parent.parent
# `import time:  self us | cumulative us | name, indented`.
IMPORTED = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)


def job(info: ServerInfo, protocol: Protocol, folder: Path) -> Path:
    keys = {
        "triton_launch_mode": "remote",
        "triton_http_endpoint": info.http_endpoint,
        "triton_grpc_endpoint": info.grpc_endpoint,
        "triton_metrics_url": info.metrics_url,
        "reload_model_disable": True,
        "profile_models": [MODEL],
        "batch_sizes": [1],
        "concurrency": [1],
        "client_protocol": protocol,
        "stop_rule": "fixed",
        "min_seconds": SECONDS,
        "max_seconds": SECONDS,
        "duration_seconds": 0.1,
        "export_path": str(folder / protocol),
    }
    file = folder / f"{protocol}.yaml"
    file.write_text(yaml.safe_dump(keys))
    return file


def imports(text: str) -> list[tuple[str, float]]:
    """Library -> seconds of its modules, the largest first, from what `-X importtime` wrote."""
    seconds: Counter[str] = Counter()
    for own_us, name in IMPORTED.findall(text):
        seconds[name.partition(".")[0]] += int(own_us)
    return [(name, us / 1e6) for name, us in seconds.most_common()]


def profiled(arguments: list[str]) -> str:
    """The functions with most time of their own while the command line ran in this process."""
    from model_analyzer.cli.main import main

    profile, out = cProfile.Profile(), io.StringIO()
    try:
        profile.runcall(main, arguments)
    except SystemExit as end:
        if end.code:
            raise
    pstats.Stats(profile, stream=out).strip_dirs().sort_stats("tottime").print_stats(FUNCTIONS)
    return out.getvalue()


def report(info: ServerInfo, protocol: Protocol, folder: Path) -> Iterable[str]:
    arguments = ["profile", "-f", str(job(info, protocol, folder))]
    command = [sys.executable, "-X", "importtime", "-m", "model_analyzer", *arguments]
    found = imports(subprocess.run(command, check=True, capture_output=True, text=True).stderr)
    yield f"{protocol}: -X importtime, {sum(seconds for _, seconds in found):.3f} s in all\n"
    yield from (f"{seconds:8.3f} s  {name}" for name, seconds in found[:LIBRARIES])
    again = [sys.executable, __file__, *arguments, "-e", str(folder / f"{protocol}-again")]
    yield f"\n{protocol}: cProfile, by the functions' own time\n"
    text = subprocess.run(again, check=True, capture_output=True, text=True).stdout
    yield text[text.index("function calls") :].partition("\n")[2].rstrip().lstrip("\n") + "\n"


def main() -> None:
    if sys.argv[1:2] == ["profile"]:
        print(profiled(sys.argv[1:]))
        return
    # It stands beside this file, which is on the path where this file is run and not where its parts are imported.
    from loadgen_cost import serving

    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} CPUs", file=sys.stderr)
    # As an installation has it: a checkout may have no bytecode, or an older one.
    compileall.compile_dir(ROOT / "model_analyzer", quiet=1)
    protocols: tuple[Protocol, ...] = ("http", "grpc")
    with serving() as (info, _), tempfile.TemporaryDirectory() as folder:
        for protocol in protocols:
            print("\n".join(report(info, protocol, Path(folder))))


if __name__ == "__main__":
    main()
