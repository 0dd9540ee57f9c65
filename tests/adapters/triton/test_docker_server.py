"""The Docker launch mode on a real engine: the container as it was asked for, the ways to it, its deaths."""

import gc
import json
import os
import signal
import time
import warnings
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

import pytest
from triton_container.image import REPOSITORY
from triton_container.registry import layer, registry

from model_analyzer.adapters.triton import docker as adapter
from model_analyzer.adapters.triton import docker_engine
from model_analyzer.adapters.triton.docker import LABEL, Address, DockerOptions, DockerServer, addresses
from model_analyzer.adapters.triton.docker_engine import PullProgress, pull_if_absent
from model_analyzer.adapters.triton.launch import Launch
from model_analyzer.adapters.triton.requests import TritonEncoder
from model_analyzer.core.load import InputSource, SharedMemory
from model_analyzer.core.variant import ServerSettings, Variant
from model_analyzer.errors import ServerError, SpecError

EVENTS = Path(__file__).parents[2] / "data" / "docker" / "pull_events.jsonl"
NO_SETTINGS = ServerSettings()
ADD_SUB = Variant("add_sub", "add_sub_config_default")


@pytest.fixture
def said():
    return []


@pytest.fixture
def make_server(engine, triton_version, model_repository, tmp_path, said, monkeypatch):
    """Makes servers of the test's own, and removes their containers."""
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    servers = []

    def make(launch=None, image=f"{REPOSITORY}:{triton_version}-py3", arguments=None, **options) -> DockerServer:
        values = {"repository": model_repository, "log_path": tmp_path / "export" / "triton.log", "say": said.append}
        if not engine.has_bridge:
            arguments = {"network_mode": "host", **(arguments or {})}
        server = DockerServer(
            Launch(**{**values, **(launch or {})}),
            DockerOptions(image, tmp_path / "export", arguments=arguments or {}, **options),
        )
        server.grace_s = 0  # these tests have no use for a clean exit
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def bridge(engine):
    if not engine.has_bridge:
        pytest.skip("this engine has no bridge network")


def containers(engine, export_path: Path):
    status = export_path.stat()
    label = f"{LABEL}={status.st_dev}-{status.st_ino}"
    return engine.client.containers.list(all=True, ignore_removed=True, filters={"label": label})


class TestPullProgress:
    def test_a_recorded_pull_is_told_in_layers_and_megabytes(self):
        progress = PullProgress()
        told = [str(progress)]
        for line in EVENTS.read_text().splitlines():
            progress.add(json.loads(line))
            if str(progress) != told[-1]:
                told.append(str(progress))
        assert told[0] == "waiting for the registry"
        assert told[1] == "0 of 1 layers, 0 MB so far"
        assert "0 of 3 layers, 5 of 8 MB" in told
        assert told[-1] == "3 of 3 layers, 8 of 8 MB"

    def test_no_total_is_told_before_every_layer_has_one(self):
        progress = PullProgress()
        for name in ("a", "b"):
            progress.add({"status": "Pulling fs layer", "id": name, "progressDetail": {}})
        progress.add({"status": "Downloading", "id": "a", "progressDetail": {"current": 3_000_000, "total": 9_000_000}})
        assert str(progress) == "0 of 2 layers, 3 MB so far"
        progress.add({"status": "Already exists", "id": "b", "progressDetail": {}})
        assert str(progress) == "1 of 2 layers, 3 of 9 MB"

    def test_events_of_other_engines_do_not_break_it(self):
        progress = PullProgress()
        progress.add({"status": "Downloading", "id": "a"})
        progress.add({"status": "Downloading", "id": "b", "progressDetail": {"current": 5_000_000, "units": "s"}})
        progress.add({"stream": "whatever"})
        assert str(progress) == "0 of 2 layers, 5 MB so far"


class TestAddresses:
    FLAGS: ClassVar = {"http-port": "8000", "grpc-port": "8001", "metrics-port": "8002"}
    PUBLISHED: ClassVar = {f"800{n}/tcp": [{"HostIp": "127.0.0.1", "HostPort": f"4000{n}"}] for n in range(3)}

    def found(self, networks, ports):
        attributes = {"NetworkSettings": {"Networks": networks, "Ports": ports}}
        return list(addresses(attributes, self.FLAGS, shares_a_network=False))

    def test_its_own_address_comes_before_the_published_one(self):
        direct, published = self.found({"bridge": {"IPAddress": "172.17.0.2"}}, self.PUBLISHED)
        assert direct == Address("172.17.0.2:8000", "172.17.0.2:8001", "172.17.0.2:8002", direct=True)
        assert published == Address("127.0.0.1:40000", "127.0.0.1:40001", "127.0.0.1:40002", direct=False)

    def test_a_container_that_is_dead_has_none(self):
        # Not port 8000 of this host: another server may answer there.
        assert self.found({"bridge": {"IPAddress": ""}}, {}) == []
        assert self.found(None, None) == []


@pytest.fixture
def connect():
    """docker_engine.connect; what docker-py leaves open after a failure is closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield docker_engine.connect
        gc.collect()


class TestNoEngine:
    def test_an_engine_that_does_not_run_is_one_line(self, monkeypatch, tmp_path, connect):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        with pytest.raises(
            ServerError, match=r"no Docker engine answers at unix://.*: No such file or directory; start"
        ):
            connect()

    def test_an_engine_of_another_host_is_refused_before_it_is_asked(self, monkeypatch, connect):
        monkeypatch.setenv("DOCKER_HOST", "tcp://build-host.invalid:2375")
        with pytest.raises(ServerError, match=r"another host.*triton_launch_mode: remote"):
            connect()

    def test_a_repository_that_is_not_there_needs_no_engine(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        launch = Launch(tmp_path / "models", tmp_path / "triton.log")
        with pytest.raises(SpecError, match=r"models: is not a directory"):
            DockerServer(launch, DockerOptions("image", tmp_path)).start(NO_SETTINGS)


@pytest.mark.docker
class TestPull:
    def test_a_slow_pull_tells_how_far_it_is(self, engine, said, monkeypatch):
        monkeypatch.setattr(docker_engine, "SAY_PULL_EVERY_S", 0.2)
        layers = [layer("a", os.urandom(3_000_000)), layer("b", os.urandom(1_000_000))]
        with registry(layers, bytes_per_second=3_000_000) as name:
            try:
                pull_if_absent(engine.client, name, said.append)
                assert said[0] == f"pulling {name}"
                assert any(line.startswith(f"pulling {name}: 0 of 2 layers, ") for line in said)
                assert said[-1].startswith(f"pulled {name} in ")
                before = len(said)
                pull_if_absent(engine.client, name, said.append)
                assert len(said) == before  # it is there
            finally:
                engine.client.images.remove(name, force=True)

    def test_an_image_that_the_registry_lacks_cannot_be_pulled(self, engine, said):
        with registry([layer("a", b"a")]) as name:
            absent = name.replace("test-py3", "99.99-py3")
            with pytest.raises(ServerError, match=f"{absent}: cannot be pulled: .*--triton-version"):
                pull_if_absent(engine.client, absent, said.append)

    def test_a_name_that_is_none_is_one_line(self, engine, said):
        with pytest.raises(ServerError, match=r"No_Such/Image:\?: cannot be"):
            pull_if_absent(engine.client, "No_Such/Image:?", said.append)


@pytest.mark.docker
class TestContainer:
    def test_it_is_as_the_job_asks(self, make_server, engine, bridge, model_repository, tmp_path):
        (tmp_path / "data").mkdir()
        server = make_server(
            mounts=(f"{tmp_path}/data:/data:rw", f"{tmp_path}/data:/frozen:ro"),
            labels={"team": "vision"},
            shm_size="256M",
            arguments={
                "environment": ["FROM_ARGUMENTS=1"],
                "labels": {"ticket": "7"},
                "ports": {9999: ("127.0.0.1", None)},
                "cpu_shares": 512,
                "detach": True,
                "remove": True,
            },
        )
        server.start(ServerSettings(environment=(("FROM_JOB", "2"),)))
        (container,) = containers(engine, tmp_path / "export")
        attributes = container.attrs
        mounts = {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in attributes["Mounts"]}
        assert mounts[str(model_repository)] == (str(model_repository), False)
        assert mounts["/data"] == (f"{tmp_path}/data", True)
        assert mounts["/frozen"] == (f"{tmp_path}/data", False)
        assert {"FROM_ARGUMENTS=1", "FROM_JOB=2"} <= set(attributes["Config"]["Env"])
        labels = attributes["Config"]["Labels"]
        assert (labels["team"], labels["ticket"]) == ("vision", "7")
        assert attributes["HostConfig"]["ShmSize"] == 256 * 1024 * 1024
        assert attributes["HostConfig"]["CpuShares"] == 512
        published = attributes["NetworkSettings"]["Ports"]
        assert set(published) == {"8000/tcp", "8001/tcp", "8002/tcp", "9999/tcp"}
        assert {binding["HostIp"] for bindings in published.values() for binding in bindings} == {"127.0.0.1"}

    def test_it_sees_the_hosts_shared_memory_where_tensors_lie_there(self, make_server, engine, tmp_path):
        server = make_server(host_ipc=True, shm_size="256M")
        encoder = TritonEncoder(lambda: server.api)
        info = server.start(NO_SETTINGS)
        assert containers(engine, tmp_path / "export")[0].attrs["HostConfig"]["IpcMode"] == "host"
        source = InputSource(shared_memory=SharedMemory())
        try:
            # Made only where the server has opened the region.
            requests = encoder.encode(server.load(ADD_SUB), 1, source, "http", info.http_endpoint).requests
        finally:
            encoder.release()
        assert all(b"shared_memory_region" in request.body for request in requests)

    def test_the_ipc_namespace_that_the_job_gives_wins(self, make_server, engine, tmp_path):
        make_server(host_ipc=True, arguments={"ipc_mode": "private"}).start(NO_SETTINGS)
        assert containers(engine, tmp_path / "export")[0].attrs["HostConfig"]["IpcMode"] == "private"

    def test_a_models_own_arguments_replace_those_of_the_job(self, make_server, engine, tmp_path):
        server = make_server(arguments={"cpu_shares": 512})
        server.start(ServerSettings(docker_arguments_json='{"cpu_shares": 256}'))
        assert containers(engine, tmp_path / "export")[0].attrs["HostConfig"]["CpuShares"] == 256
        server.start(NO_SETTINGS)
        assert containers(engine, tmp_path / "export")[0].attrs["HostConfig"]["CpuShares"] == 512

    def test_it_cannot_write_into_the_repository(self, make_server, engine, model_repository, tmp_path):
        make_server().start(NO_SETTINGS)
        (container,) = containers(engine, tmp_path / "export")
        write = f"open('{model_repository}/add_sub/config.pbtxt', 'a')"
        code, output = container.exec_run(["python3", "-c", write])
        assert code != 0
        assert b"Read-only file system" in output

    def test_it_serves_and_is_gone_after_stop(self, make_server, engine, tmp_path):
        server = make_server()
        server.grace_s = 10
        info = server.start(NO_SETTINGS)
        assert info.ours
        assert info.image.startswith(REPOSITORY)
        assert server.load(ADD_SUB).max_batch_size == 64
        assert server.loaded_models() == ["add_sub"]
        assert server.problem() is None
        with urlopen(info.metrics_url, timeout=10) as page:
            assert b"nv_inference_count" in page.read()
        server.unload(ADD_SUB)
        server.stop()
        assert containers(engine, tmp_path / "export") == []
        assert "Started HTTPService" in (tmp_path / "export" / "triton.log").read_text()

    def test_requests_go_to_its_own_address(self, make_server, bridge, said):
        info = make_server().start(NO_SETTINGS)
        assert not info.http_endpoint.startswith("127.")
        assert not any("proxy" in line for line in said)

    def test_where_that_is_out_of_reach_they_go_through_the_proxy_and_it_is_said(
        self, make_server, bridge, said, monkeypatch
    ):
        reaches = adapter.accepts
        monkeypatch.setattr(adapter, "accepts", lambda address: address.startswith("127.") and reaches(address))
        server = make_server()
        info = server.start(NO_SETTINGS)
        assert {endpoint.split(":")[0] for endpoint in (info.http_endpoint, info.grpc_endpoint)} == {"127.0.0.1"}
        assert server.load(ADD_SUB).name == "add_sub"
        assert any("pass Docker's proxy" in line for line in said)

    def test_on_the_hosts_network_it_listens_on_loopback_only(self, make_server, tmp_path):
        server = make_server(arguments={"network_mode": "host"}, launch={"protocol": "grpc"})
        info = server.start(NO_SETTINGS)
        assert info.http_endpoint.startswith("127.0.0.1:")
        assert server.load(ADD_SUB).name == "add_sub"
        log = (tmp_path / "export" / "triton.log").read_text()
        assert f'Started HTTPService at {info.http_endpoint}"' in log
        assert f'Started GRPCInferenceService at {info.grpc_endpoint}"' in log

    @pytest.mark.triton
    def test_another_server_at_its_port_is_not_taken_for_it(self, make_server, embedded_server):
        port = embedded_server.info.http_endpoint.split(":")[1]
        server = make_server(arguments={"network_mode": "host"})
        with pytest.raises(ServerError, match=r"exited with code 1; its log ends:(.|\n)*already in use"):
            server.start(ServerSettings(flags=(("http-port", port),)))

    def test_gpus_asked_for_by_name_are_not_left_out_silently(self, make_server, engine, said):
        if "nvidia" in engine.client.info()["Runtimes"]:
            pytest.skip("this engine gives GPUs to containers")
        with pytest.raises(ServerError, match=r"the engine gives no GPU to containers: .*gpus: \[\]"):
            make_server(launch={"gpus": ("0",)}).start(NO_SETTINGS)
        make_server().start(NO_SETTINGS)
        assert any("gives no GPU to containers" in line and "CPU only" in line for line in said)

    def test_no_gpus_are_asked_for_where_none_shall_be_used(self, make_server, engine, said, tmp_path):
        make_server(launch={"gpus": ()}).start(NO_SETTINGS)
        (container,) = containers(engine, tmp_path / "export")
        assert not container.attrs["HostConfig"]["DeviceRequests"]
        assert "NVIDIA_VISIBLE_DEVICES=void" in container.attrs["Config"]["Env"]
        assert not any("gives no GPU" in line for line in said)


@pytest.mark.docker
class TestFaults:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"arguments": {"no_such_keyword": 1}}, "no_such_keyword.*check .*triton_docker_args"),
            ({"shm_size": "a lot"}, "a lot"),
            ({"mounts": ("/no/such/folder:/data",)}, "/no/such/folder.*must exist on the engine's host"),
        ],
    )
    def test_an_argument_that_the_engine_refuses_is_one_line(self, make_server, options, message, engine, tmp_path):
        with pytest.raises(ServerError, match=f"its container cannot be started: .*{message}") as refused:
            make_server(**options).start(NO_SETTINGS)
        assert "\n" not in str(refused.value)
        assert containers(engine, tmp_path / "export") == []

    @pytest.mark.parametrize("mount", ["/only/one", "/a:/b:rwx", ":/b", "/a:/b:ro,z"])
    def test_a_mount_that_is_none_is_the_jobs_fault(self, make_server, mount):
        with pytest.raises(SpecError, match=f"triton_docker_mounts: {mount}: is not a mount"):
            make_server(mounts=(mount,)).start(NO_SETTINGS)

    def test_a_server_that_ends_at_once_shows_its_last_words(self, make_server, engine, tmp_path):
        server = make_server()
        with pytest.raises(ServerError, match=r"exited with code 1; its log ends:(.|\n)*no-such-flag"):
            server.start(ServerSettings(flags=(("no-such-flag", "1"),)))
        server.stop()
        assert containers(engine, tmp_path / "export") == []

    def test_an_image_without_triton_says_so(self, make_server, engine):
        with registry([layer("a", b"a")]) as name:
            server = make_server(image=name)
            try:
                with pytest.raises(ServerError, match=r"exited with code 127(.|\n)*tritonserver"):
                    server.start(NO_SETTINGS)
            finally:
                server.stop()
                engine.client.images.remove(name, force=True)

    def test_a_killed_server_is_told_with_its_signal_and_can_be_started_again(self, make_server, engine, tmp_path):
        server = make_server()
        server.start(NO_SETTINGS)
        (container,) = containers(engine, tmp_path / "export")
        container.kill(signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (problem := server.problem()) is None or "SIGKILL" not in problem:
            assert time.monotonic() < deadline, problem
        assert "tritonserver exited with code 137 (SIGKILL); its log ends:" in problem
        assert server.start(NO_SETTINGS).ours
        assert server.problem() is None

    def test_a_container_that_somebody_removed_is_told(self, make_server, engine, tmp_path):
        server = make_server()
        server.start(NO_SETTINGS)
        (container,) = containers(engine, tmp_path / "export")
        container.remove(force=True)
        assert "is gone: its container was removed" in server.problem()

    def test_what_a_killed_run_left_is_removed_and_said(self, make_server, engine, said, tmp_path):
        make_server().start(NO_SETTINGS)  # and never stopped, as by SIGKILL
        (left,) = containers(engine, tmp_path / "export")
        make_server().start(NO_SETTINGS)
        (now,) = containers(engine, tmp_path / "export")
        assert now.id != left.id
        assert f"removing the container {left.name}, left by a run that was killed" in said

    def test_a_run_with_another_export_path_is_left_alone(self, make_server, engine, tmp_path, triton_version):
        first = make_server()
        first.start(NO_SETTINGS)
        options = DockerOptions(first._options.image, tmp_path / "other", arguments=first._options.arguments)
        second = DockerServer(first._launch, options)
        second.grace_s = 0
        try:
            second.start(NO_SETTINGS)
            second.stop()
            assert first.problem() is None
        finally:
            second.stop()
