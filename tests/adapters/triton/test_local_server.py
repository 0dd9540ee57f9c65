"""The embedded Triton, for real: models, faults, deaths."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

import pytest

from model_analyzer.adapters.triton import embedded
from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.local import LocalServer, describe_gpus, find_local
from model_analyzer.adapters.triton.wire_api import GrpcApi, HttpApi
from model_analyzer.core.variant import ServerSettings, Variant
from model_analyzer.errors import ModelError, ServerError, SpecError

NO_SETTINGS = ServerSettings()


def variant(model: str, **overrides) -> Variant:
    return Variant(model, f"{model}_config", json.dumps(overrides))


@pytest.fixture
def make_server(model_repository, tmp_path):
    """Makes servers of the test's own, and stops them."""
    servers = []

    def make(repository: Path = model_repository, **options) -> LocalServer:
        server = LocalServer(Launch(repository, tmp_path / "export" / "triton.log", **options), find_embedded)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.grace_s = 0  # these tests have no use for a clean exit
        server.stop()


@pytest.fixture
def loaded(embedded_server):
    """Loads variants on the session's server, and unloads them."""
    taken = []

    def load(wanted: Variant):
        taken.append(wanted)
        return embedded_server.server.load(wanted)

    yield load
    with ThreadPoolExecutor() as pool:  # each takes a second
        list(pool.map(embedded_server.server.unload, taken))


def infer(endpoint: str, model: str, shape=(1, 4)):
    data = {"name": "INPUT", "datatype": "FP32", "shape": shape, "data": [1.0] * shape[-1]}
    body = json.dumps({"inputs": [data]}).encode()
    with urlopen(Request(f"http://{endpoint}/v2/models/{model}/infer", body), timeout=60) as answer:
        return json.load(answer)


def infer_in_vain(endpoint: str, model: str) -> None:
    with pytest.raises(OSError):
        infer(endpoint, model)


@pytest.mark.triton
class TestModels:
    def test_nothing_is_loaded_at_the_start(self, embedded_server):
        assert embedded_server.server.loaded_models() == []
        assert embedded_server.server.problem() is None
        assert embedded_server.info.ours
        assert re.fullmatch(r"\d+\.\d+\.\d+", embedded_server.info.version)

    def test_a_default_variant_is_described_by_the_server(self, loaded, embedded_server):
        info = loaded(variant("magika"))
        assert (info.max_batch_size, info.instance_group, info.version) == (16, "1:CPU", "1")
        assert [(t.name, t.datatype, t.shape) for t in info.inputs] == [("bytes", "INT32", (2048,))]
        assert [(t.name, t.datatype, t.shape) for t in info.outputs] == [("target_label", "FP32", (214,))]
        assert embedded_server.server.loaded_models() == ["magika"]

    def test_overrides_replace_keys_and_keep_the_rest(self, loaded):
        info = loaded(variant("add_sub", instance_group=[{"kind": "KIND_CPU", "count": 2}], max_batch_size=8))
        assert (info.max_batch_size, info.instance_group) == (8, "2:CPU")
        assert [t.shape for t in info.inputs] == [(16,), (16,)]

    def test_the_default_after_an_override_is_the_models_own_config(self, loaded):
        loaded(variant("add_sub", max_batch_size=8))
        assert loaded(variant("add_sub")).max_batch_size == 64

    def test_unloading_ends_when_the_model_is_gone(self, embedded_server):
        embedded_server.server.load(variant("add_sub"))
        embedded_server.server.unload(variant("add_sub"))
        index = Request(f"http://{embedded_server.info.http_endpoint}/v2/repository/index", b"", method="POST")
        with urlopen(index) as answer:
            states = {item["name"]: item.get("state") for item in json.load(answer)}
        assert states["add_sub"] in (None, "UNAVAILABLE")

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (variant("fails_to_load"), r"cannot be loaded: .*RuntimeError: weights.bin is missing"),
            (variant("nonexistent"), r"model not found in any model repository.*; check that the model is a directory"),
            (variant("add_sub", instance_group=[{"kind": "KIND_GPU"}]), r"no GPUs are available; set cpu_only"),
            (variant("add_sub", max_bach_size=1), r"with these overrides: .*max_bach_size: Cannot find field"),
            (variant("add_sub", backend="onnxruntime"), r"unable to find backend library .*triton_launch_mode docker"),
        ],
    )
    def test_a_model_that_cannot_be_loaded_says_why(self, embedded_server, wanted, message):
        with pytest.raises(ModelError, match=f"(?s){message}"):
            embedded_server.server.load(wanted)
        assert embedded_server.server.loaded_models() == []

    def test_models_of_other_kinds_are_described(self, loaded):
        dynamic, decoupled = loaded(variant("dynamic_dims")), loaded(variant("decoupled"))
        assert (dynamic.max_batch_size, dynamic.inputs[0].shape, dynamic.decoupled) == (8, (-1,), False)
        assert (decoupled.max_batch_size, decoupled.inputs[0].shape, decoupled.decoupled) == (8, (4,), True)

    def test_every_datatype_is_described_in_the_protocols_words(self, loaded):
        info = loaded(variant("identity"))
        assert all(tensor.name == f"INPUT_{tensor.datatype}" for tensor in info.inputs)
        assert {"BOOL", "UINT8", "INT64", "FP16", "BF16", "FP64", "BYTES"} <= {t.datatype for t in info.inputs}
        assert len(info.inputs) == 14


@pytest.mark.triton
def test_a_model_that_only_an_override_makes_loadable_is_loaded(make_server, model_repository, tmp_path):
    repository = tmp_path / "models"
    shutil.copytree(model_repository / "no_batching", repository / "for_gpu")
    config = repository / "for_gpu" / "config.pbtxt"
    text = config.read_text().replace('name: "no_batching"', "")
    assert "KIND_CPU" in text
    config.write_text(text.replace("KIND_CPU", "KIND_GPU"))
    server = make_server(repository)
    server.start(NO_SETTINGS)
    cpu = variant("for_gpu", instance_group=[{"kind": "KIND_CPU", "count": 2}])
    info = server.load(cpu)
    assert (info.name, info.instance_group, info.inputs[0].shape) == ("for_gpu", "2:CPU", (4,))
    server.unload(cpu)
    with pytest.raises(ModelError, match=r"no GPUs are available; set cpu_only: true"):
        server.load(variant("for_gpu"))


@pytest.mark.triton
class TestDeaths:
    def test_a_killed_server_is_told_and_can_be_started_again(self, make_server):
        server = make_server()
        pid = server.start(NO_SETTINGS).pids[0]
        server.load(variant("add_sub"))
        os.kill(pid, signal.SIGKILL)
        problem = wait_for_problem(server)
        assert problem.startswith("tritonserver was ended by SIGKILL (signal 9); its log ends: ")
        assert "successfully loaded 'add_sub'" in problem
        with pytest.raises(ServerError, match="SIGKILL"):
            server.load(variant("add_sub"))
        again = server.start(NO_SETTINGS)
        assert again.pids[0] != pid
        assert server.problem() is None
        assert server.load(variant("add_sub")).max_batch_size == 64

    def test_a_server_that_is_frozen_does_not_answer(self, make_server, monkeypatch):
        monkeypatch.setattr("model_analyzer.adapters.triton.wire_api.CALL_TIMEOUT_S", 0.2)
        server = make_server()
        pid = server.start(NO_SETTINGS).pids[0]
        os.kill(pid, signal.SIGSTOP)
        wait_until_stopped(pid)
        assert server.problem().startswith("tritonserver runs, but does not answer: ")
        os.kill(pid, signal.SIGCONT)

    def test_a_request_that_kills_the_server_is_a_problem(self, make_server):
        server = make_server()
        endpoint = server.start(NO_SETTINGS).http_endpoint
        server.load(variant("crash", parameters={"at_request": {"string_value": "2"}}))
        assert infer(endpoint, "crash")["outputs"][0]["data"] == [1.0] * 4
        with pytest.raises(OSError):
            infer(endpoint, "crash")
        assert "SIGKILL" in wait_for_problem(server)

    def test_a_model_that_kills_the_server_at_load_is_an_error_and_no_hang(self, make_server):
        server = make_server()
        server.start(NO_SETTINGS)
        with pytest.raises(ModelError, match="the server was lost while it loaded the model"):
            server.load(variant("crash_at_load"))
        assert "SIGKILL" in wait_for_problem(server)

    def test_stop_leaves_no_process_and_no_shared_memory(self, make_server):
        server = make_server()
        info = server.start(NO_SETTINGS)
        server.load(variant("slow", parameters={"seconds": {"string_value": "100"}}))
        regions = set(Path("/dev/shm").glob("model_analyzer_*"))
        request = Thread(target=infer_in_vain, args=(info.http_endpoint, "slow"), daemon=True)
        request.start()
        server.grace_s = 0.5
        started = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - started < 20
        assert not Path(f"/proc/{info.pids[0]}").exists()
        assert server.problem() == "the server is not started"
        assert regions - set(Path("/dev/shm").glob("model_analyzer_*"))
        request.join()


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 60
    while any(") T " not in task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_problem(server: LocalServer) -> str:
    deadline = time.monotonic() + 60
    while (problem := server.problem()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return problem


@pytest.mark.triton
class TestStart:
    def test_says_in_one_line_what_it_found(self, make_server, tmp_path):
        said = []
        info = make_server(say=said.append).start(NO_SETTINGS)
        (line,) = said
        assert line.startswith(f"embedded Triton {info.version}: ")
        assert "CPU only" in line or "GPU" in line
        assert "model-analyzer starts: " in (tmp_path / "export" / "triton.log").read_text()

    def test_a_users_flags_and_environment_reach_the_server(self, make_server):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        settings = ServerSettings((("http_port", str(port)), ("log-verbose", "1")), (("MARK", "seen"),))
        info = make_server().start(settings)
        assert info.http_endpoint == f"127.0.0.1:{port}"
        assert b"MARK=seen" in Path(f"/proc/{info.pids[0]}/environ").read_bytes().split(b"\0")

    def test_listens_on_loopback_only(self, make_server):
        info = make_server().start(NO_SETTINGS)
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        for endpoint in (info.http_endpoint, info.grpc_endpoint, info.metrics_url.split("/")[2]):
            port = f":{int(endpoint.split(':')[1]):04X}"
            addresses = re.findall(rf"(\w+){port} \w+:0000 0A", listening)
            assert [address[-8:] for address in addresses] == ["0100007F"]

    def test_a_port_in_use_names_the_flag(self, make_server):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = ServerSettings((("http-port", str(taken.getsockname()[1])),))
            with pytest.raises(ServerError, match=r"triton_server_flags: http-port: .*in use.*; .*choose another port"):
                make_server().start(settings)

    def test_an_unknown_flag_ends_in_the_logs_tail_and_the_remedy(self, make_server):
        with pytest.raises(ServerError, match=r"(?s)exited with code 1; its log ends:.*; correct triton_server_flags"):
            make_server().start(ServerSettings((("nonsense", "1"),)))

    def test_a_repository_that_is_not_there_is_named(self, make_server, tmp_path):
        with pytest.raises(SpecError, match=f"model_repository: {tmp_path}/absent: is not a directory"):
            make_server(tmp_path / "absent").start(NO_SETTINGS)

    def test_a_server_that_never_gets_ready_is_given_up(self, make_server):
        with pytest.raises(ServerError, match="is not ready after 0 s"):
            make_server(ready_timeout_s=0).start(NO_SETTINGS)

    @pytest.mark.parametrize(
        ("flags", "control"), [((), HttpApi), ((("allow-http", "false"),), GrpcApi)], ids=["http", "grpc"]
    )
    def test_control_goes_over_http_unless_that_is_off_and_does_the_same(self, make_server, flags, control):
        server = make_server(protocol="grpc")
        server.start(ServerSettings(flags))
        assert type(server.api) is control
        info = server.load(variant("add_sub"))
        assert (info.max_batch_size, info.instance_group, info.inputs[0].shape) == (64, "1:CPU", (16,))
        assert server.loaded_models() == ["add_sub"]
        with pytest.raises(ModelError, match=r"weights\.bin is missing"):
            server.load(variant("fails_to_load"))
        server.unload(variant("add_sub"))
        assert server.loaded_models() == []


class Page(BaseHTTPRequestHandler):
    """A metrics page."""

    text = ""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, *_args):
        pass


class TestWhatIsFound:
    """The one line that tells with what GPUs can be measured."""

    @pytest.fixture
    def found(self, tmp_path, monkeypatch):
        """What is said of a server whose page shows these GPUs, on a host whose nvidia-smi lists those (None: has none)."""

        def describe(on_page, listed):
            if listed is not None:
                smi = tmp_path / "nvidia-smi"
                lines = "\n".join(f"GPU {n}: {name} (UUID: {uuid})" for n, (uuid, name) in enumerate(listed.items()))
                smi.write_text(f"#!/bin/sh\necho '{lines}'\n")
                smi.chmod(0o755)
            monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if listed is not None else str(tmp_path))
            rows = "".join(f'nv_gpu_utilization{{gpu_uuid="{uuid}"}} 0\n' for uuid in on_page)
            handler = type("Handler", (Page,), {"text": "nv_cpu_utilization 0.1\n" + rows})
            with HTTPServer(("127.0.0.1", 0), handler) as server:
                Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
                try:
                    return describe_gpus(f"http://127.0.0.1:{server.server_port}/metrics")
                finally:
                    server.shutdown()

        return describe

    @pytest.mark.parametrize(
        ("on_page", "listed", "line"),
        [
            ([], None, "CPU only (no NVIDIA driver)"),
            ([], {}, "CPU only (nvidia-smi lists no GPU)"),
            (["GPU-a"], {"GPU-a": "NVIDIA H200"}, "1 GPU (NVIDIA H200)"),
            (["GPU-a", "GPU-b"], {"GPU-a": "NVIDIA H200", "GPU-b": "NVIDIA L4"}, "2 GPUs (NVIDIA H200, NVIDIA L4)"),
            (["GPU-a"], None, "1 GPU (GPU-a)"),
            ([], {"GPU-a": "NVIDIA H200"}, "no GPU metrics, though nvidia-smi lists 1"),
        ],
    )
    def test_gpus_are_named_and_their_absence_has_its_reason(self, found, on_page, listed, line):
        assert found(on_page, listed) == line

    def test_a_page_out_of_reach_is_no_error(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert describe_gpus("http://127.0.0.1:1/metrics") == "CPU only (no NVIDIA driver)"


class TestFinding:
    def test_a_server_on_path_is_found(self, tmp_path, monkeypatch):
        binary = tmp_path / "tritonserver"
        binary.touch(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_local().binary == binary
        assert find_local(str(binary)).binary == binary

    @pytest.mark.parametrize(
        ("path", "message"),
        [(None, "PATH: has no tritonserver; set"), ("/absent", "triton_server_path: /absent: is not an exec")],
    )
    def test_no_server_is_an_error_with_the_other_ways(self, path, message, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ServerError, match=message):
            find_local(path)

    def test_the_wheel_is_missing(self, monkeypatch):
        monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(ServerError, match=re.escape("pip install 'model-analyzer[demo]'")):
            find_embedded()

    @pytest.mark.triton
    def test_no_backend_for_this_python_names_those_there_are(self, monkeypatch):
        monkeypatch.setattr(embedded, "PYTHON", "3.99")
        with pytest.raises(ServerError, match=r"no Python backend for Python 3.99 \(it has 3.10, .*3.9\)"):
            find_embedded()

    @pytest.mark.triton
    def test_libpython_is_missing(self, monkeypatch):
        monkeypatch.setattr(embedded, "LIBPYTHON", "libpython3.99.so.1.0")
        with pytest.raises(ServerError, match="apt-get install libpython3"):
            find_embedded()

    def test_the_interpreters_own_libpython_stands_in_for_the_one_that_the_wheel_brings(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for folder in ("backend", "libs"):
            (tmp_path / folder).mkdir()
        brought = f"libpython3-0a1b2c3d.{sys.version_info.minor}.so.1.0"
        for name in ("backend/libtriton_python.so", "stub", f"libs/{brought}", "libpython.so"):
            (tmp_path / name).write_text(name)
        made = embedded._backend_directory(
            tmp_path / "backend", tmp_path / "stub", tmp_path / "libs", tmp_path / "libpython.so"
        )
        assert (made / "lib" / brought).resolve() == tmp_path / "libpython.so"
        # Through a link the loader would look beside the wheel's stub first.
        stub = made / "python" / "triton_python_backend_stub"
        assert stub.read_text() == "stub"
        assert not stub.is_symlink()

    @pytest.mark.triton
    def test_the_backend_directory_is_made_where_home_is_read_only(self, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
        directory = Path(find_embedded().flags["backend-directory"])
        assert (directory / "python" / "triton_python_backend_stub").is_file()
        assert (directory / "python" / "libtriton_python.so").is_file()

    def test_a_local_server_that_is_no_triton_dies_with_its_words(self, tmp_path):
        binary = tmp_path / "tritonserver"
        binary.write_text("#!/bin/sh\necho 'error while loading shared libraries: libx.so' >&2\nexit 127\n")
        binary.chmod(0o755)
        server = LocalServer(Launch(tmp_path, tmp_path / "triton.log"), partial(find_local, str(binary)))
        with pytest.raises(ServerError, match=r"(?s)exited with code 127.*libx.so.*; install the package"):
            server.start(NO_SETTINGS)
        server.stop()
