"""A server that is not ours, for real: used with care, left as it was found."""

import json
import select
import socket
import time
from pathlib import Path
from threading import Event, Thread
from urllib.request import Request, urlopen

import pytest

from model_analyzer.adapters.triton.embedded import find_embedded
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.local import LocalServer
from model_analyzer.adapters.triton.remote import RemoteEndpoints, RemoteServer
from model_analyzer.core.load import Tls
from model_analyzer.core.variant import ServerInfo, ServerSettings, Variant
from model_analyzer.errors import ModelError, ServerError

pytestmark = pytest.mark.triton
NO_SETTINGS = ServerSettings()


def variant(model: str, **overrides) -> Variant:
    return Variant(model, f"{model}_config", json.dumps(overrides))


class Somebody:
    """The people whose server it is: a client with no wish to help us."""

    def __init__(self, info: ServerInfo) -> None:
        self.info = info

    def call(self, path: str, body=None, method="POST"):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = Request(f"http://{self.info.http_endpoint}/v2/{path}", data, method=method)
        with urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def load(self, model: str, **overrides) -> None:
        self.call(f"repository/models/{model}/load")
        if overrides:
            config = json.dumps({**self.config(model), **overrides})
            self.call(f"repository/models/{model}/load", {"parameters": {"config": config}})

    def unload_all(self) -> None:
        for model in self.ready():
            self.call(f"repository/models/{model}/unload")

    def config(self, model: str):
        return self.call(f"models/{model}/config", method="GET")

    def ready(self):
        return sorted(item["name"] for item in self.call("repository/index") if item.get("state") == "READY")

    def infer(self, model: str) -> None:
        row = {"datatype": "FP32", "shape": [1, 4], "data": [0.0] * 4}
        self.call(f"models/{model}/infer", {"inputs": [{"name": "INPUT", **row}]})


@pytest.fixture
def impatient(monkeypatch):
    """The session's server is not ready once a test has had a model fail to load on it: do not wait for it."""
    monkeypatch.setattr("model_analyzer.adapters.triton.remote.RETRY_S", 0.01)


@pytest.fixture
def somebody(embedded_server):
    somebody = Somebody(embedded_server.info)
    yield somebody
    somebody.unload_all()
    while any(item.get("state") == "UNLOADING" for item in somebody.call("repository/index")):
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["none", "poll"])
def fixed_server(request, model_repository: Path, tmp_path_factory):
    """A Triton that loads its whole repository, of one model, at the start and nothing on request."""
    directory = tmp_path_factory.mktemp("fixed")
    (directory / "models").mkdir()
    (directory / "models" / "no_batching").symlink_to(model_repository / "no_batching")
    server = LocalServer(Launch(directory / "models", directory / "triton.log"), find_embedded)
    server.grace_s = 0
    yield server.start(ServerSettings((("model-control-mode", request.param),)))
    server.stop()


def remote(info: ServerInfo, **options) -> RemoteServer:
    server = RemoteServer(RemoteEndpoints(info.http_endpoint, info.grpc_endpoint, info.metrics_url), **options)
    server.start(NO_SETTINGS)
    return server


@pytest.mark.usefixtures("impatient")
class TestExplicitControl:
    @pytest.mark.parametrize("protocol", ["http", "grpc"])
    def test_what_we_load_we_unload(self, somebody, protocol):
        server = remote(somebody.info, protocol=protocol)
        assert server.load(variant("add_sub", max_batch_size=8)).max_batch_size == 8
        assert somebody.ready() == ["add_sub"]
        server.unload(variant("add_sub", max_batch_size=8))
        assert somebody.ready() == []
        server.stop()

    def test_stop_restores_what_a_broken_run_left(self, somebody):
        server = remote(somebody.info)
        server.load(variant("add_sub"))
        server.stop()
        assert somebody.ready() == []

    def test_a_loaded_model_gets_its_config_back(self, somebody):
        somebody.load("no_batching", instance_group=[{"kind": "KIND_CPU", "count": 2}])
        found = somebody.config("no_batching")
        server = remote(somebody.info)
        four = variant("no_batching", instance_group=[{"kind": "KIND_CPU", "count": 4}])
        assert server.load(four).instance_group == "4:CPU"
        server.unload(four)
        assert somebody.config("no_batching") == found

    def test_the_default_of_a_loaded_model_is_used_as_it_is(self, somebody):
        somebody.load("no_batching", instance_group=[{"kind": "KIND_CPU", "count": 2}])
        executed = somebody.call("models/no_batching/stats", method="GET")
        server = remote(somebody.info)
        assert server.load(variant("no_batching")).instance_group == "2:CPU"
        server.unload(variant("no_batching"))
        server.stop()
        assert somebody.ready() == ["no_batching"]
        assert somebody.call("models/no_batching/stats", method="GET") == executed

    def test_an_override_that_is_refused_leaves_the_model_as_it_was(self, somebody):
        somebody.load("no_batching")
        server = remote(somebody.info)
        with pytest.raises(ModelError, match="no GPUs are available"):
            server.load(variant("no_batching", instance_group=[{"kind": "KIND_GPU"}]))
        assert somebody.ready() == ["no_batching"]
        server.stop()

    def test_a_model_in_use_is_refused_unless_told(self, somebody):
        somebody.load("errors_every_third")
        with busy(somebody, "no_batching"):
            server = remote(somebody.info)
            with pytest.raises(ModelError, match=r"no_batching: is in use: [1-9]\d* requests answered within 1 s"):
                server.load(variant("no_batching"))
            assert server.load(variant("errors_every_third")).max_batch_size == 8
            told = remote(somebody.info, touch_models_in_use=True)
            assert told.load(variant("no_batching")).max_batch_size == 0
            for each in (server, told):
                each.stop()
        assert somebody.ready() == ["errors_every_third", "no_batching"]

    def test_a_model_with_a_request_waiting_is_in_use(self, somebody):
        # One request takes 4 s, so none is answered during the look: only the one that waits behind it shows.
        somebody.load("slow", parameters={"seconds": {"string_value": "4"}})
        clients = [Thread(target=somebody.infer, args=("slow",)) for _ in range(2)]
        for client in clients:
            client.start()
        server = remote(somebody.info)
        wait_for_pending(somebody)
        with pytest.raises(ModelError, match="slow: is in use: 0 requests answered within 1 s, 1 pending"):
            server.load(variant("slow"))
        for client in clients:
            client.join()

    def test_without_reloading_only_what_is_loaded_is_measured(self, somebody):
        somebody.load("no_batching")
        server = remote(somebody.info, reload_model_disable=True)
        assert server.load(variant("no_batching")).instance_group == "1:CPU"
        with pytest.raises(ModelError, match="other config than it is loaded with: reload_model_disable is set"):
            server.load(variant("no_batching", max_batch_size=2))
        with pytest.raises(ModelError, match="add_sub: is not loaded and cannot be: reload_model_disable is set"):
            server.load(variant("add_sub"))


class TestNoControl:
    def test_a_ready_model_is_used_as_it_is(self, fixed_server):
        server = remote(fixed_server)
        assert server.loaded_models() == ["no_batching"]
        assert server.load(variant("no_batching")).max_batch_size == 0
        server.unload(variant("no_batching"))
        server.stop()
        assert server.loaded_models() == ["no_batching"]

    @pytest.mark.parametrize("protocol", ["http", "grpc"])
    @pytest.mark.parametrize(
        ("wanted", "state"),
        [
            (variant("no_batching", instance_group=[{"count": 2}]), "cannot be given other config"),
            (variant("add_sub"), "is not loaded and cannot be"),
        ],
    )
    def test_any_change_is_refused_with_the_reason(self, fixed_server, wanted, state, protocol):
        server = remote(fixed_server, protocol=protocol)
        message = f"{wanted.model}: {state}.*control mode is none or poll; start that server with --model-control-mode"
        with pytest.raises(ModelError, match=message):
            server.load(wanted)
        server.stop()


class TestReaching:
    def test_says_how_often_it_tried(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        server = RemoteServer(RemoteEndpoints(nobody, "", ""), protocol="http", max_retries=2)
        started = time.monotonic()
        with pytest.raises(
            ServerError,
            match=f"{nobody}: no Triton server answers over http after 2 tries: .*refused; start it, correct triton_http_endpoint, choose client_protocol: grpc, or raise client_max_retries",
        ):
            server.start(NO_SETTINGS)
        assert time.monotonic() - started >= 1
        assert "does not answer" in (server.problem() or "")

    def test_grpc_says_the_same(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        server = RemoteServer(RemoteEndpoints("", nobody, ""), protocol="grpc", max_retries=1)
        with pytest.raises(ServerError, match=f"{nobody}: no Triton server answers over grpc after 1 try: .*refused"):
            server.start(NO_SETTINGS)

    def test_a_closed_grpc_port_is_told_whatever_http_answers(self, embedded_server):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            nobody = f"127.0.0.1:{probe.getsockname()[1]}"
        http = embedded_server.info.http_endpoint
        server = RemoteServer(RemoteEndpoints(http, nobody, "", one_server=True), max_retries=1)
        with pytest.raises(ServerError, match=f"{nobody}: no Triton server answers over grpc after 1 try: .*refused"):
            server.start(NO_SETTINGS)

    @pytest.mark.usefixtures("impatient")
    @pytest.mark.parametrize("http_open", [True, False])
    def test_control_goes_over_http_where_that_is_the_same_servers_and_open(self, somebody, http_open):
        info, http = somebody.info, somebody.info.http_endpoint
        if not http_open:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                http = f"127.0.0.1:{probe.getsockname()[1]}"
        endpoints = RemoteEndpoints(http, info.grpc_endpoint, info.metrics_url, one_server=True)
        server = RemoteServer(endpoints)
        server.start(NO_SETTINGS)
        assert server.api.endpoint == (http if http_open else info.grpc_endpoint)
        assert server.load(variant("add_sub", max_batch_size=8)).max_batch_size == 8
        server.stop()
        assert somebody.ready() == []

    @pytest.mark.usefixtures("impatient")
    def test_http_that_nobody_named_is_not_touched(self, somebody):
        with socket.create_server(("127.0.0.1", 0)) as another:
            http = f"127.0.0.1:{another.getsockname()[1]}"
            server = RemoteServer(RemoteEndpoints(http, somebody.info.grpc_endpoint, somebody.info.metrics_url))
            server.start(NO_SETTINGS)
            server.load(variant("add_sub"))
            server.stop()
            another.setblocking(False)
            with pytest.raises(BlockingIOError):
                another.accept()

    def test_tls_against_a_plain_port_is_an_error_and_no_hang(self, embedded_server):
        info = embedded_server.info
        endpoints = RemoteEndpoints(info.http_endpoint, info.grpc_endpoint, info.metrics_url)
        with pytest.raises(ServerError, match=r"(?i)ssl"):
            RemoteServer(endpoints, tls=Tls(), max_retries=1).start(NO_SETTINGS)

    def test_flags_for_a_remote_server_are_said_to_have_no_effect(self, embedded_server):
        said = []
        info = embedded_server.info
        endpoints = RemoteEndpoints(info.http_endpoint, info.grpc_endpoint, info.metrics_url)
        reached = RemoteServer(endpoints, say=said.append).start(ServerSettings((("log-verbose", "1"),)))
        assert not reached.ours
        assert "no effect on a remote server" in said[0]

    def test_a_server_with_a_model_that_failed_to_load_is_used_and_said_to_be_not_ready(
        self, model_repository, tmp_path
    ):
        theirs = LocalServer(Launch(model_repository, tmp_path / "log"), find_embedded)
        theirs.grace_s = 0
        info, said = theirs.start(NO_SETTINGS), []
        try:
            server = remote(info, say=said.append)
            assert said == []
            with pytest.raises(ModelError, match=r"weights\.bin is missing"):
                server.load(variant("fails_to_load"))
            # Strict readiness: nothing that we can do makes it ready again.
            assert said == [line for line in said if "'not ready' since fails_to_load failed to load" in line]
            again = remote(info, say=said.append)
            assert said[1:] == [
                f"{info.grpc_endpoint} is live but not ready: one of its models may have failed to load"
            ]
            assert again.load(variant("no_batching")).max_batch_size == 0
            again.stop()
            assert again.loaded_models() == []
        finally:
            theirs.stop()

    @pytest.mark.usefixtures("impatient")
    def test_an_interrupted_run_does_not_wait_for_a_slow_model_of_ours(self, somebody):
        server = remote(somebody.info)
        server.load(variant("slow"))
        clients = [Thread(target=somebody.infer, args=("slow",)) for _ in range(2)]
        for client in clients:
            client.start()
        wait_for_pending(somebody)
        server.grace_s = 0.2
        server.stop()
        assert any(client.is_alive() for client in clients), "it waited until both were answered, which takes 10 s"
        for client in clients:
            client.join()
        wait_for_none_ready(somebody)

    def test_a_server_that_is_back_is_reached_again(self, model_repository, tmp_path):
        settings = ServerSettings()
        theirs = LocalServer(Launch(model_repository, tmp_path / "log"), find_embedded)
        theirs.grace_s = 0
        info = theirs.start(settings)
        ports = ("http-port", info.http_endpoint), ("grpc-port", info.grpc_endpoint), ("metrics-port", info.metrics_url)
        server = remote(info)
        server.load(variant("add_sub"))
        theirs.stop()
        assert "does not answer" in server.problem()
        server.stop()  # nothing can be restored, and nothing is raised
        same = tuple((flag, where.split(":")[-1].split("/")[0]) for flag, where in ports)
        theirs.start(ServerSettings(same))
        server.start(NO_SETTINGS)
        assert server.problem() is None
        assert server.load(variant("add_sub")).max_batch_size == 64
        server.stop()
        assert server.loaded_models() == []
        theirs.stop()


class Service:
    """Passes connections on to a server as a Kubernetes Service does: once a load is under way new ones are refused, until
    the readiness probe of the pod has passed again, `away_s` after the load."""

    def __init__(self, target: str, away_s: float) -> None:
        host, port = target.rsplit(":", 1)
        self._target, self._away_s = (host, int(port)), away_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.endpoint = f"127.0.0.1:{self._port}"
        self.loads = 0
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            loads = False
            with client, socket.create_connection(self._target) as server:
                other = {client: server, server: client}
                # Until either side closes: the client once it has had its answer. A request may come in several pieces.
                while data := (source := select.select([client, server], [], [])[0][0]).recv(1 << 20):
                    if source is client and b"/load HTTP" in data:
                        loads = True
                        self._listener.close()
                    other[source].sendall(data)
            if loads:
                self.loads += 1
                time.sleep(self._away_s)
                self._listener = socket.create_server(("127.0.0.1", self._port))


def behind(service: Service, info: ServerInfo, said: list[str]) -> RemoteServer:
    return RemoteServer(
        RemoteEndpoints(service.endpoint, info.grpc_endpoint, info.metrics_url), protocol="http", say=said.append
    )


def test_a_service_that_lets_nothing_through_after_a_load_is_waited_for(embedded_server, somebody, impatient) -> None:
    service, said = Service(embedded_server.info.http_endpoint, away_s=0.5), []
    server = behind(service, embedded_server.info, said)
    server.start(NO_SETTINGS)
    info = server.load(variant("identity", max_batch_size=2))
    assert (info.name, info.max_batch_size, service.loads) == ("identity", 2, 2)
    assert [line for line in said if line.startswith("identity is loaded, and ") and "connection refused" in line]
    server.stop()


def test_a_service_that_stays_closed_after_a_load_is_not_waited_for_without_end(
    embedded_server, somebody, impatient, monkeypatch
) -> None:
    monkeypatch.setattr("model_analyzer.adapters.triton.remote.LET_THROUGH_S", 0.3)
    service = Service(embedded_server.info.http_endpoint, away_s=600)
    server = behind(service, embedded_server.info, [])
    server.start(NO_SETTINGS)
    with pytest.raises(ModelError, match="connection refused"):
        server.load(variant("identity"))


def wait_for_none_ready(somebody: Somebody) -> None:
    deadline = time.monotonic() + 60
    while somebody.ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class busy:  # noqa: N801 -- reads as a word
    """Somebody's own traffic on a model that takes no batch dimension."""

    def __init__(self, somebody: Somebody, model: str) -> None:
        somebody.load(model)
        self._done = Event()
        self._flowing = Event()
        self._thread = Thread(target=self._send, args=(somebody, model))

    def _send(self, somebody: Somebody, model: str) -> None:
        row = {"name": "INPUT", "datatype": "FP32", "shape": [4], "data": [0.0] * 4}
        while not self._done.wait(0.02):
            somebody.call(f"models/{model}/infer", {"inputs": [row]})
            self._flowing.set()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._flowing.wait(60)

    def __exit__(self, *_exc) -> None:
        self._done.set()
        self._thread.join()


def wait_for_pending(somebody: Somebody) -> None:
    deadline = time.monotonic() + 4
    while True:
        with urlopen(somebody.info.metrics_url) as page:
            if b'nv_inference_pending_request_count{model="slow",version="1"} 1\n' in page.read():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)
