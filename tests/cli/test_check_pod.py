"""`check-pod`, that `helm test` runs: every check against a server that answers as Triton does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Command

PAGES = {
    "/v2/health/live": "",
    "/v2/health/ready": "",
    "/v2": json.dumps({"name": "triton", "version": "2.99.0", "extensions": []}),
    "/v2/repository/index": json.dumps([{"name": "add_sub"}, {"name": "resnet"}]),
    "/metrics": "# TYPE nv_inference_count counter\nnv_inference_count 0\n",
    "/dcgm": "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n"
    'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",device="nvidia0",modelName="L4",Hostname="n"} 0\n',
    "/empty": "# nothing here\n",
}


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        body = PAGES[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def triton() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def _remote(endpoint: str, model: str = "add_sub") -> list[str]:
    metrics = f"http://{endpoint}/metrics"
    server = ["--triton-launch-mode", "remote", "--triton-http-endpoint", endpoint, "--triton-metrics-url", metrics]
    return ["check-pod", "-n", model, "-c", "1", "--dcgm-discovery", "off", *server]


def test_says_ok_for_each_thing_that_a_run_needs(command: Command, triton: str, tmp_path: Path) -> None:
    ended = command(*_remote(triton), "-e", str(tmp_path / "release"))
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        "ok: job: 1 phases",
        f"ok: results: {tmp_path} is writable",
        f"ok: server: http endpoint {triton}: Triton 2.99.0",
        "ok: server: models in the repository: add_sub",
        f"ok: server: metrics page http://{triton}/metrics",
    ]
    assert not list(tmp_path.iterdir())  # nothing is left, and the run's folder is the run's to make


def test_a_model_that_the_repository_lacks_is_named_with_those_that_it_has(command: Command, triton: str) -> None:
    ended = command(*_remote(triton, "bert"))
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert "has no model bert in its repository; it has add_sub, resnet" in ended.errors[0]


def test_every_fault_is_said_and_the_first_is_the_exit_code(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = command(*_remote("127.0.0.1:9"), "-e", str(tmp_path / "file"))
    assert ended.code == 6
    assert len(ended.errors) == 3
    assert "is not writable" in ended.errors[0]
    assert "127.0.0.1:9: does not answer" in ended.errors[1]
    assert "http://127.0.0.1:9/metrics" in ended.errors[2]


def test_without_a_server_in_the_pod_says_that_it_is_not_checked(command: Command) -> None:
    ended = command(*_remote("127.0.0.1:9"), "--no-server")
    assert ended.code == 0
    assert "not checked: server: it is started beside the run only" in ended.out.splitlines()


def test_an_exporter_with_gpus_is_counted_and_one_without_is_a_fault(command: Command, triton: str) -> None:
    good, bad = f"http://{triton}/dcgm", f"http://{triton}/empty"
    ended = command(*_remote(triton), "--dcgm-exporter-url", good)
    assert f"ok: exporter: DCGM exporter {good}: 1 GPUs" in ended.out.splitlines()
    ended = command(*_remote(triton), "--dcgm-exporter-url", bad)
    assert ended.code == 1
    assert bad in ended.errors[0]


def test_discovery_gives_its_reason(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NODE_NAME", "node-1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ended = command(*_remote("127.0.0.1:9"), "--no-server", "--dcgm-discovery", "auto")
    assert ended.code == 1
    assert ended.errors[0].startswith("error: DCGM discovery: ")
    assert str(tmp_path / "none") in ended.errors[0] or "kube" in ended.errors[0].lower()


def test_annotations_that_may_not_be_set_give_their_reason(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ended = command(*_remote("127.0.0.1:9"), "--no-server", "--annotate-job", "job-1")
    assert ended.code == 3
    assert len(ended.errors) == 1


def test_a_wrong_job_ends_as_it_would_end_the_run(command: Command) -> None:
    ended = command("check-pod", "-n", "add_sub", "-b", "0", "--triton-launch-mode", "remote")
    assert ended.code == 2
