"""The DCGM exporter of the own node: found through the API, or the reason why not."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node_api import (
    CHART,
    NODE,
    OPERATOR,
    Pods,
    exporter_pod,
    exporting,
    forbidden,
    listening,
    real_page,
    write_kubeconfig,
)

from model_analyzer.adapters.kubernetes import api
from model_analyzer.adapters.kubernetes.discovery import LABELS, Discovery, Exporter, NoExporter
from model_analyzer.adapters.telemetry import prometheus
from model_analyzer.adapters.telemetry.discovered import LOOK_AGAIN_S, DiscoveredSampler
from model_analyzer.core.gpus import GpuChoice, select_gpus
from model_analyzer.core.telemetry import GpuUser, Page
from model_analyzer.errors import AnalyzerError

T4 = "GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a"
H100_0 = "GPU-c4529c8d-69c4-b61d-e0bc-7b2460096005"


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    """An API server that has no pods yet, and a kubeconfig that leads to it."""
    state = Pods()
    # Servers in this process share its CPU with the client, and with whatever else runs here.
    monkeypatch.setattr(prometheus, "READ_S", 60.0)
    monkeypatch.setattr(api, "READ_S", 60.0)
    with listening(lambda path: state.answer(path)) as port:
        state.url = f"http://127.0.0.1:{port}"
        write_kubeconfig(tmp_path / "kubeconfig", state.url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield state


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody trusts, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "server.pem", folder / "server.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-config",
        "/dev/null",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    command += ["-nodes", "-keyout", str(key), "-out", str(pem), "-days", "2", "-subj", "/CN=server"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], capture_output=True, check=True, timeout=240)
    return pem, key


def find(*namespaces: str) -> tuple[Exporter, ...]:
    return Discovery(NODE, namespaces).find()


def why(*namespaces: str) -> str:
    with pytest.raises(AnalyzerError) as raised:
        find(*namespaces)
    return str(raised.value)


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """A sampler as a run has it, with its clock and what it told."""

    def __init__(self, pod: str = "ours", namespaces: tuple[str, ...] = ()) -> None:
        self.clock, self.told = Clock(), []  # type: ignore[var-annotated]
        discovery = Discovery(NODE, namespaces)
        self.sampler = DiscoveredSampler(discovery, pod, "bench", self.told.append, self.clock)

    def sample(self, later_s: float = 1.0) -> Page:
        self.clock.now_s += later_s
        return self.sampler.sample()


# -- what is found -------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [CHART, OPERATOR], ids=["chart", "operator"])
def test_the_exporter_of_both_ways_to_install_it(pods: Pods, labels: dict[str, str]) -> None:
    pods.items = [exporter_pod(9400, labels=labels), exporter_pod(9400, "elsewhere", labels=labels, node="other")]
    (found,) = find()
    assert found == Exporter("gpu-operator", "nvidia-dcgm-exporter-x", "http://127.0.0.1:9400/metrics")


def test_an_exporter_with_both_labels_is_one(pods: Pods) -> None:
    pods.items = [exporter_pod(9400, labels={**CHART, **OPERATOR})]
    assert len(find()) == 1


@pytest.mark.parametrize(
    ("made", "url"),
    [
        ({"port": 9500}, "http://127.0.0.1:9500/metrics"),
        ({"port": None}, "http://127.0.0.1:9400/metrics"),
        ({"port": 8080, "port_name": "health"}, "http://127.0.0.1:9400/metrics"),
        ({"port": 9400, "podIP": "fd00::7"}, "http://[fd00::7]:9400/metrics"),
    ],
    ids=["port named metrics", "no port", "another port", "IPv6"],
)
def test_the_address_is_the_pods(pods: Pods, made: dict[str, Any], url: str) -> None:
    pods.items = [exporter_pod(**made)]
    assert find()[0].url == url


def test_a_pod_on_the_hosts_network_has_the_hosts_address(pods: Pods) -> None:
    pod = exporter_pod(9400)
    pod["spec"]["hostNetwork"] = True
    pods.items = [pod]
    assert find()[0].url == "http://127.0.0.2:9400/metrics"


def test_a_pod_that_is_probed_by_https_serves_https(pods: Pods) -> None:
    pod = exporter_pod(9400)
    pod["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": 9400, "scheme": "HTTPS"}}
    pods.items = [pod]
    assert find()[0].url == "https://127.0.0.1:9400/metrics"


def test_ready_ones_come_first_and_ended_ones_not_at_all(pods: Pods) -> None:
    pods.items = [
        exporter_pod(9400, "a-starting", ready=False),
        exporter_pod(9400, "b-ready"),
        exporter_pod(9400, "c-evicted", phase="Failed"),
    ]
    assert [one.pod for one in find()] == ["b-ready", "a-starting"]


def test_only_in_the_namespaces_that_are_named(pods: Pods) -> None:
    pods.items = [exporter_pod(9400, "a", "one"), exporter_pod(9400, "b", "two"), exporter_pod(9400, "c", "three")]
    assert [one.namespace for one in find("one", "two")] == ["one", "two"]
    assert all("/namespaces/" in path for path in pods.asked), "a Role is enough"


def test_a_namespace_that_may_not_be_looked_in_hides_no_exporter_of_another(pods: Pods) -> None:
    pods.items = [exporter_pod(9400, "b", "two")]
    pods.refuse["one"] = forbidden("one")
    assert [one.namespace for one in find("one", "two")] == ["two"]


# -- why nothing is found ------------------------------------------------------------------------------


def test_no_exporter_on_this_node(pods: Pods) -> None:
    pods.items = [exporter_pod(9400, node="other")]
    with pytest.raises(NoExporter) as raised:
        find()
    text = str(raised.value)
    assert text.startswith(
        f"node {NODE}: no DCGM exporter: no pod on it in any namespace has the label {LABELS[0]} or "
    )
    assert LABELS[1] in text
    assert "set dcgm_exporter_url" in text
    assert "no pod on it in one, two has the label" in why("one", "two")


def test_no_right_to_list_pods_in_all_namespaces(pods: Pods) -> None:
    pods.refuse[""] = forbidden()
    assert why() == (
        "kubernetes API: service account bench/analyzer may not list pods in all namespaces (HTTP 403); "
        "grant it the verb list on pods by a ClusterRole, "
        "or name the exporter's namespace in dcgm_exporter_namespaces, where a Role is enough"
    )


def test_no_right_to_list_pods_in_a_namespace(pods: Pods) -> None:
    pods.refuse["gpu-operator"] = forbidden("gpu-operator")
    assert why("gpu-operator") == (
        "kubernetes API: service account bench/analyzer may not list pods in namespace gpu-operator (HTTP 403); "
        "grant it the verb list on pods by a Role there"
    )


def test_a_token_that_is_not_accepted(pods: Pods) -> None:
    pods.refuse[""] = (401, "Unauthorized")
    assert "the credentials are not accepted (HTTP 401: Unauthorized); the token is expired" in why()


def test_an_api_server_that_fails(pods: Pods) -> None:
    pods.refuse[""] = (500, "etcdserver: request timed out")
    assert "kubernetes API: HTTP 500: etcdserver: request timed out" in why()


@pytest.mark.parametrize("body", [b"<html>login</html>", b"{", b"[]", b'{"items": [{"spec": 7}]}'])
def test_something_that_is_no_api_server_is_no_traceback(pods: Pods, body: bytes) -> None:
    pods.garbage = body
    assert World().sample().problem


def test_an_api_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    assert "kubernetes API: cannot be reached (" in why()
    assert "refused" in why()


def test_an_api_server_that_is_slow_is_given_up_once_for_all_namespaces(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_S", 0.2)
    pods.delay_s = 2.0
    assert "kubernetes API: no answer in time" in why("one", "two", "three", "four")
    assert len(pods.asked) == 1, pods.asked


def test_a_certificate_that_is_not_trusted(
    pods: Pods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, self_signed: tuple[Path, Path]
) -> None:
    with listening(pods.answer, self_signed) as port:
        write_kubeconfig(tmp_path / "kubeconfig", f"https://127.0.0.1:{port}")
        assert "kubernetes API: TLS failed (" in why()
        assert "the CA of the kubeconfig or of the service account must be the API server's" in why()


def test_a_pod_without_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(api, "TOKEN", tmp_path / "token")
    assert "no service account token is mounted at" in why()
    assert "automountServiceAccountToken: true" in why()


def test_a_kubeconfig_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert why().startswith(f"{tmp_path / 'none'}: ")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {
                "containerStatuses": [
                    {
                        "name": "exporter", "image": "x", "imageID": "", "ready": False, "restartCount": 7,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
                    }
                ]
            },
            "container exporter: CrashLoopBackOff (back-off 5m0s)",
        ),
        (
            {
                "initContainerStatuses": [
                    {
                        "name": "toolkit-validation", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
                        "state": {"waiting": {"reason": "ImagePullBackOff"}},
                    }
                ]
            },
            "container toolkit-validation: ImagePullBackOff",
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "message": "containers with unready status: [exporter]"}]},
            "it is Running (containers with unready status: [exporter])",
        ),
        ({"phase": "Pending", "conditions": []}, "it is Pending"),
    ],
    ids=["crash loop", "init", "condition", "pending"],
)  # fmt: skip
def test_why_a_pod_is_not_ready(pods: Pods, status: dict[str, Any], reason: str) -> None:
    pods.items = [exporter_pod(9400, ready=False, **status)]
    assert find()[0].unready == reason


def test_a_pod_that_is_being_deleted_is_not_ready(pods: Pods) -> None:
    pod = exporter_pod(9400)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pods.items = [pod]
    assert find()[0].unready == "it is being deleted"


# -- sampling it ---------------------------------------------------------------------------------------


def test_gpus_are_read_from_what_is_found_and_it_is_told_once(pods: Pods) -> None:
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port)]
        world = World()
        pages = [world.sample() for _ in range(30)]
    assert all(page.problem is None and list(page.gpus) == [T4] for page in pages)
    assert {page.origin for page in pages} == {f"http://127.0.0.1:{port}/metrics"}
    assert world.told == [
        f"DCGM exporter gpu-operator/nvidia-dcgm-exporter-x at http://127.0.0.1:{port}/metrics; GPUs: 1"
    ]
    assert len(pods.asked) == len(LABELS), "the API is asked once while the exporter answers"


def test_only_our_pods_gpus_of_the_nodes_eight(pods: Pods) -> None:
    page = real_page("h100x8_pod_mapped.prom")
    page = page.replace("vllm-agg-0-vllmdecodeworker-s65j5", "ours").replace("dynamo-workload", "bench")
    with exporting(page) as port:
        pods.items = [exporter_pod(port, labels=CHART)]
        sampled = World().sample()
    assert len(sampled.gpus) == 8
    assert sampled.gpus[H100_0].users == (GpuUser("ours", "bench", "main"),)
    assert select_gpus([sampled], GpuChoice(pod="ours", namespace="bench", own_node=True)).gpus == (H100_0,)


def test_of_two_exporters_the_one_that_maps_our_pod_is_taken(pods: Pods) -> None:
    with (
        exporting(real_page()) as bare,
        exporting(real_page(pod="ours", namespace="bench", container="triton")) as mapping,
    ):
        pods.items = [exporter_pod(bare, "a"), exporter_pod(mapping, "b", "monitoring", CHART)]
        world = World()
        page = world.sample()
    assert page.origin.endswith(f":{mapping}/metrics")
    assert ", one of 2 on the node; GPUs: 1" in world.told[0]


def test_of_two_exporters_the_one_that_answers_is_taken(pods: Pods) -> None:
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(1, "a"), exporter_pod(port, "b")]
        assert list(World().sample().gpus) == [T4]


def test_an_exporter_that_is_not_ready_but_answers_is_read(pods: Pods) -> None:
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port, ready=False)]
        assert list(World().sample().gpus) == [T4]


def test_an_exporter_that_comes_back_elsewhere_is_found_again(pods: Pods) -> None:
    world = World()
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port)]
        assert world.sample().gpus
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port, "nvidia-dcgm-exporter-y")]
        page = world.sample(LOOK_AGAIN_S)
        assert (page.origin, list(page.gpus)) == (f"http://127.0.0.1:{port}/metrics", [T4])
    assert [text.split(" at ")[0].split("/")[1] for text in world.told] == [
        "nvidia-dcgm-exporter-x",
        "nvidia-dcgm-exporter-y",
    ]


def test_the_api_is_not_asked_again_at_once(pods: Pods) -> None:
    world = World()
    problems = {world.sample().problem for _ in range(9)}
    assert len(pods.asked) == len(LABELS)
    assert len(problems) == 1
    assert len(world.told) == 1
    world.sample(LOOK_AGAIN_S)
    assert len(pods.asked) == 2 * len(LABELS)
    assert len(world.told) == 1, "a reason is told when it changes"


def test_an_exporter_that_starts_later_is_found(pods: Pods) -> None:
    world = World()
    assert "no DCGM exporter" in str(world.sample().problem)
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port)]
        assert list(world.sample(LOOK_AGAIN_S).gpus) == [T4]
    assert len(world.told) == 2


def test_an_api_server_that_fails_later_costs_nothing_while_the_exporter_answers(pods: Pods) -> None:
    with exporting(real_page()) as port:
        pods.items = [exporter_pod(port)]
        world = World()
        world.sample()
        pods.refuse[""] = (500, "down")
        assert all(world.sample(LOOK_AGAIN_S).gpus for _ in range(3))


def test_a_port_that_nothing_listens_on(pods: Pods) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        pods.items = [exporter_pod(port)]
        problem = str(World().sample().problem)
    assert problem == (
        f"exporter gpu-operator/nvidia-dcgm-exporter-x on node {NODE}: http://127.0.0.1:{port}/metrics: connection "
        "refused; nothing listens on this port: name the container's port `metrics`, or set dcgm_exporter_url"
    )


def test_an_exporter_that_cannot_be_reached(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket that accepts nobody: with its queue full, connections are not answered, as behind a NetworkPolicy.
    monkeypatch.setattr(prometheus, "CONNECT_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        queue = [socket.socket() for _ in range(8)]
        try:
            for one in queue:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            pods.items = [exporter_pod(port)]
            problem = str(World().sample().problem)
        finally:
            for one in queue:
                one.close()
    assert "no connection within 0.2 s; a NetworkPolicy that does not let this pod in?" in problem


@pytest.mark.parametrize(
    ("status", "page", "said"),
    [
        (200, "go_goroutines 7\n", "the page has no GPU rows; has the node a GPU, and does its driver run?"),
        (401, "", "HTTP 401; it asks for a password"),
        (503, "", "HTTP 503; see the exporter's log"),
    ],
)
def test_a_page_without_gpus(pods: Pods, status: int, page: str, said: str) -> None:
    with listening(lambda _: (status, page.encode())) as port:
        pods.items = [exporter_pod(port)]
        problem = str(World().sample().problem)
    assert problem.startswith(f"exporter gpu-operator/nvidia-dcgm-exporter-x on node {NODE}: ")
    assert said in problem


def test_a_certificate_of_the_exporter_that_is_not_trusted(pods: Pods, self_signed: tuple[Path, Path]) -> None:
    with listening(lambda _: (200, real_page().encode()), self_signed) as port:
        pod = exporter_pod(port)
        pod["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": port, "scheme": "HTTPS"}}
        pods.items = [pod]
        assert "its TLS certificate is not one that we know" in str(World().sample().problem)


def test_a_pod_without_an_address(pods: Pods) -> None:
    pods.items = [exporter_pod(9400, ready=False, phase="Pending", podIP=None, conditions=[])]
    assert World().sample().problem == (
        f"exporter gpu-operator/nvidia-dcgm-exporter-x on node {NODE}: is not ready: it is Pending; "
        "see kubectl -n gpu-operator describe pod nvidia-dcgm-exporter-x"
    )


def test_an_unready_exporter_that_does_not_answer_says_why(pods: Pods) -> None:
    message = "containers with unready status: [exporter]"
    pods.items = [exporter_pod(1, conditions=[{"type": "Ready", "status": "False", "message": message}])]
    assert f"connection refused; gpu-operator/nvidia-dcgm-exporter-x is not ready: it is Running ({message})" in str(
        World().sample().problem
    )
