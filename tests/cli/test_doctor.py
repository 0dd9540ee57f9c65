"""`doctor`, that `helm test` runs: every check against a server that answers as Triton does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_analyzer.adapters.cpus import usable_cpus
from tests.adapters.kubernetes.node_api import (
    NODE,
    Pods,
    exporter_pod,
    exporting,
    forbidden,
    listening,
    real_page,
    write_kubeconfig,
)
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
        body = PAGES.get(self.path, "").encode()
        self.send_response(200 if self.path in PAGES else 503)
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
    return ["doctor", "-n", model, "-c", "1", "--dcgm-discovery", "off", "--client-protocol", "http", *server]


def test_says_ok_for_each_thing_that_a_run_needs(command: Command, triton: str, tmp_path: Path) -> None:
    ended = command(*_remote(triton), "-e", str(tmp_path / "release"))
    assert ended.code == 0, ended.out
    assert ended.out.splitlines() == [
        "ok   job: 1 phases, remote Triton",
        f"ok   results: {tmp_path} is writable",
        f"ok   client: the load generator may use {usable_cpus()} CPUs; processes: up to {usable_cpus()}",
        f"ok   server: http endpoint {triton}: Triton 2.99.0, live and ready",
        "ok   server: models in the repository: add_sub",
        f"ok   metrics: metrics page http://{triton}/metrics",
        "skip kubernetes: dcgm_discovery is off",
        "skip exporter: none is read",
        "warn gpus: no source shows a GPU: GPU columns stay empty",
    ]
    assert not list(tmp_path.iterdir()), "nothing is left, and the run's folder is the run's to make"


def failures(out: str) -> list[str]:
    return [line.removeprefix("FAIL ") for line in out.splitlines() if line.startswith("FAIL ")]


def test_a_model_that_the_repository_lacks_is_named_with_those_that_it_has(command: Command, triton: str) -> None:
    ended = command(*_remote(triton, "bert"))
    assert ended.code == 3
    (failure,) = failures(ended.out)
    assert "has no model bert in its repository; it has add_sub, resnet" in failure


def test_an_endpoint_may_have_a_scheme(command: Command, triton: str, tmp_path: Path) -> None:
    ended = command(*_remote(triton), "--triton-http-endpoint", f"http://{triton}/", "-e", str(tmp_path / "release"))
    assert ended.code == 0, ended.out
    assert f"ok   server: http endpoint {triton}: Triton 2.99.0, live and ready" in ended.out


def test_a_grpc_endpoint_that_does_not_answer_says_how_to_do_without(command: Command, triton: str) -> None:
    ended = command(*_remote(triton), "--client-protocol", "grpc", "--triton-grpc-endpoint", "127.0.0.1:9")
    assert ended.code == 3
    (failure,) = failures(ended.out)
    assert failure.startswith("server: 127.0.0.1:9: does not answer over grpc (")
    assert "start it, correct triton_grpc_endpoint, choose client_protocol: http; in a pod see" in failure


def test_every_fault_is_said_and_the_first_is_the_exit_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "termination"))
    (tmp_path / "file").write_text("")
    ended = command(*_remote("127.0.0.1:9"), "-e", str(tmp_path / "file"))
    assert ended.code == 6
    one, two, three = failures(ended.out)
    assert one.startswith("results: ")
    assert "is not writable" in one
    assert "server: 127.0.0.1:9: does not answer" in two
    assert "metrics: http://127.0.0.1:9/metrics" in three
    assert (tmp_path / "termination").read_text().count("error: ") == 3


def test_a_cpu_that_is_not_there_and_more_workers_than_cpus_are_said(command: Command, triton: str) -> None:
    ended = command(*_remote(triton), "--client-cpus", "4000")
    assert ended.code == 2
    assert failures(ended.out)[0].startswith("client: client_cpus: CPU 4000 is not there, or not ours; use some of ")
    ended = command(*_remote(triton), "--client-workers", "200")
    assert f"warn client: client_workers is 200: they share {usable_cpus()} CPUs" in ended.out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-server", "--triton-launch-mode", "remote"], "skip server: --no-server"),
        (["--triton-launch-mode", "local"], "skip server: the run starts it (local)"),
    ],
)
def test_without_a_server_says_that_it_is_not_looked_at(
    command: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "add_sub").mkdir()
    ended = command("doctor", "-n", "add_sub", "-m", ".", *arguments)
    assert ended.code == 0, ended.out
    assert said in ended.out.splitlines()


def test_a_server_that_is_not_ready_fails(command: Command, triton: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PAGES, "/v2/health/ready")
    ended = command(*_remote(triton))
    assert ended.code == 3
    assert "no ready Triton server" in failures(ended.out)[0]


def test_the_gpus_that_count_and_the_rule_that_chose_them(command: Command, triton: str) -> None:
    ended = command(*_remote(triton), "--dcgm-exporter-url", f"http://{triton}/dcgm", "--gpus", "0")
    assert ended.code == 0, ended.out
    assert f"ok   exporter: http://{triton}/dcgm; GPUs: 1" in ended.out.splitlines()
    assert "ok   gpus: GPU-1 (rule: gpus)" in ended.out.splitlines()
    ended = command(*_remote(triton), "--dcgm-exporter-url", f"http://{triton}/dcgm")
    assert "warn gpus: all 1 GPUs of the exporter are shown, Triton names none" in ended.out


def test_an_exporter_that_the_job_names_and_shows_no_gpu_fails(command: Command, triton: str) -> None:
    bad = f"http://{triton}/empty"
    ended = command(*_remote(triton), "--dcgm-exporter-url", bad)
    assert ended.code == 1
    assert bad in failures(ended.out)[0]


class TestDiscovery:
    """As in a pod on NODE; the API is a real HTTP server."""

    @pytest.fixture
    def pods(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
        state = Pods()
        with listening(lambda path: state.answer(path)) as port:
            write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
            monkeypatch.setenv("NODE_NAME", NODE)
            monkeypatch.setenv("POD_NAME", "ours")
            monkeypatch.setenv("POD_NAMESPACE", "bench")
            yield state

    DISCOVER = ("--no-server", "--dcgm-discovery", "auto")

    def test_the_exporter_and_our_gpus_are_found(self, command: Command, pods: Pods) -> None:
        with exporting(real_page(pod="ours", namespace="bench", container="triton")) as port:
            pods.items = [exporter_pod(port)]
            ended = command(*_remote("127.0.0.1:9"), *self.DISCOVER)
        assert ended.code == 0, ended.out
        assert ended.out.splitlines()[4:] == [
            f"ok   kubernetes: may list the pods on node {NODE}",
            "ok   kubernetes: exporter gpu-operator/nvidia-dcgm-exporter-x is ready",
            f"ok   exporter: http://127.0.0.1:{port}/metrics; GPUs: 1",
            "ok   gpus: GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a (rule: the exporter maps them to pod bench/ours)",
        ]

    def test_no_exporter_on_the_node_is_no_failure(self, command: Command, pods: Pods) -> None:
        ended = command(*_remote("127.0.0.1:9"), *self.DISCOVER)
        assert ended.code == 0, ended.out
        assert f"warn kubernetes: node {NODE}: no DCGM exporter: no pod on it" in ended.out

    def test_an_exporter_that_does_not_answer_is_no_failure(self, command: Command, pods: Pods) -> None:
        pods.items = [exporter_pod(1, ready=False)]
        ended = command(*_remote("127.0.0.1:9"), *self.DISCOVER)
        assert ended.code == 0, ended.out
        assert "warn kubernetes: exporter gpu-operator/nvidia-dcgm-exporter-x is not ready: it is Running" in ended.out
        assert "warn exporter: exporter gpu-operator/nvidia-dcgm-exporter-x on node" in ended.out

    def test_an_api_that_refuses_fails(self, command: Command, pods: Pods) -> None:
        pods.refuse[""] = forbidden()
        ended = command(*_remote("127.0.0.1:9"), *self.DISCOVER)
        assert ended.code == 3
        assert (
            "may not list pods in all namespaces (HTTP 403); grant it the verb list on pods" in failures(ended.out)[0]
        )

    def test_outside_a_pod_there_is_nothing_to_find(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NODE_NAME", raising=False)
        ended = command(*_remote("127.0.0.1:9"), *self.DISCOVER)
        assert "skip kubernetes: not in a pod (NODE_NAME is not set)" in ended.out.splitlines()


def test_annotations_that_may_not_be_set_give_their_reason(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ended = command(*_remote("127.0.0.1:9"), "--no-server", "--annotate-job", "job-1")
    assert ended.code == 3
    assert failures(ended.out)[0].startswith(f"annotations: {tmp_path / 'none'}: ")


def test_a_wrong_job_ends_as_it_would_end_the_run(command: Command) -> None:
    ended = command("doctor", "-n", "add_sub", "-b", "0", "--triton-launch-mode", "remote")
    assert ended.code == 2
    (failure,) = failures(ended.out)
    assert failure.startswith("job: ")


def test_as_json_each_check_is_an_object(command: Command) -> None:
    ended = command(*_remote("127.0.0.1:9"), "--no-server", "--log-format", "json")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert {(line["check"], line["status"]) for line in lines} >= {("job", "ok"), ("server", "skip")}


def test_a_password_in_the_url_of_the_metrics_page_is_not_shown(command: Command, triton: str, tmp_path: Path) -> None:
    arguments = _remote(triton)
    for page in ("metrics", "nothing"):
        arguments[-1] = f"http://joe:secret@{triton}/{page}"
        ended = command(*arguments, "-e", str(tmp_path))
        assert f"http://{triton}/{page}" in ended.out + ended.err
        assert "secret" not in ended.out + ended.err
