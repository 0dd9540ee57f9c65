"""Every value does what its comment says: one row a value, and no value without a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from helm_chart import Chart, Rendered

from scripts.chart import CHART, documented

VALUES = [value.key for value in documented((CHART / "values.yaml").read_text(encoding="utf-8"))]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
REMOTE = {"enabled": False, "endpoints": {"http": "t:8000", "grpc": "t:8001", "metrics": "http://t:8002/metrics"}}
DIGEST = f"sha256:{'0' * 64}"


class Row(NamedTuple):
    """values: given to helm. seen: read from what it rendered. expected: equal to that."""

    values: dict[str, Any]
    seen: Callable[[Rendered], Any]
    expected: Any


def _env(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container["env"]}


def _mounts(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["mountPath"] for one in container["volumeMounts"]}


def _egress_ports(rendered: Rendered) -> set[int]:
    rules = rendered.one("NetworkPolicy")["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule.get("ports", ())}


def _named(rendered: Rendered) -> set[str]:
    return {one["metadata"]["name"] for one in rendered.objects}


def _every(rendered: Rendered, field: str, key: str) -> set[Any]:
    return {one["metadata"].get(field, {}).get(key) for one in rendered.objects}


def _with(container: Callable[[Rendered], dict[str, Any]], key: str) -> Callable[[Rendered], Any]:
    return lambda rendered: container(rendered)[key]


def analyzer(rendered: Rendered) -> dict[str, Any]:
    return rendered.analyzer


def triton(rendered: Rendered) -> dict[str, Any]:
    return rendered.triton


def pod(rendered: Rendered) -> dict[str, Any]:
    return rendered.pod


ENVIRONMENT = [{"name": "TOKEN", "value": "x"}]
FROM_SECRET = [{"secretRef": {"name": "more"}}]
TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
AFFINITY = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
SPREAD = [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
ALIASES = [{"ip": "10.0.0.1", "hostnames": ["triton"]}]
VOLUMES = [{"name": "data", "emptyDir": {}}]
MOUNTS = [{"name": "data", "mountPath": "/data"}]
POLICY = {"enabled": True}

ROWS: dict[str, Row] = {
    "job": Row(
        {"job": {"profile_models": ["bert"]}}, lambda r: r.job_file.strip(), "profile_models:\n- bert"
    ),
    "jobFile": Row({"jobFile": "# mine\nprofile_models: bert\n"}, lambda r: r.job_file, "# mine\nprofile_models: bert\n"),
    "files": Row(
        {"files": {"intervals.txt": "10\n20\n"}},
        lambda r: (r.one("ConfigMap")["data"]["intervals.txt"], _mounts(r.analyzer)["job"]),
        ("10\n20\n", "/etc/model-analyzer"),
    ),
    "image.repository": Row({"image": {"repository": "r.io/ma"}}, _with(analyzer, "image"), "r.io/ma:0.1.0"),
    "image.tag": Row({"image": {"tag": "9"}}, _with(analyzer, "image"), "model-analyzer:9"),
    "image.digest": Row({"image": {"digest": DIGEST}}, _with(analyzer, "image"), f"model-analyzer@{DIGEST}"),
    "image.pullPolicy": Row({"image": {"pullPolicy": "Never"}}, _with(analyzer, "imagePullPolicy"), "Never"),
    "imagePullSecrets": Row(
        {"imagePullSecrets": [{"name": "regcred"}]}, _with(pod, "imagePullSecrets"), [{"name": "regcred"}]
    ),
    "extraArgs": Row(
        {"extraArgs": ["--min-seconds", "5"]}, lambda r: r.analyzer["args"][-2:], ["--min-seconds", "5"]
    ),
    "logFormat": Row({"logFormat": "json"}, lambda r: r.flag("--log-format"), ["json"]),
    "annotateJob": Row(
        {"annotateJob": True}, lambda r: r.flag("--annotate-job") == [r.job["metadata"]["name"]], True
    ),
    "metrics.port": Row(
        {"metrics": {"port": 9100}},
        lambda r: (r.flag("--metrics-port"), r.analyzer["ports"]),
        (["9100"], [{"name": "metrics", "containerPort": 9100}]),
    ),
    "triton.enabled": Row({"triton": REMOTE}, lambda r: "initContainers" in r.pod, False),
    "triton.endpoints.http": Row({"triton": REMOTE}, lambda r: r.flag("--triton-http-endpoint"), ["t:8000"]),
    "triton.endpoints.grpc": Row({"triton": REMOTE}, lambda r: r.flag("--triton-grpc-endpoint"), ["t:8001"]),
    "triton.endpoints.metrics": Row(
        {"triton": REMOTE}, lambda r: r.flag("--triton-metrics-url"), ["http://t:8002/metrics"]
    ),
    "triton.identity": Row(
        {"triton": {**REMOTE, "identity": "blue"}}, lambda r: r.flag("--triton-server-identity"), ["blue"]
    ),
    "triton.image.repository": Row(
        {"triton": {"image": {"repository": "r.io/t"}}}, _with(triton, "image"), "r.io/t:26.09-py3"
    ),
    "triton.image.tag": Row(
        {"triton": {"image": {"tag": "25.01"}}}, _with(triton, "image"), "nvcr.io/nvidia/tritonserver:25.01"
    ),
    "triton.image.digest": Row(
        {"triton": {"image": {"digest": DIGEST}}}, _with(triton, "image"), f"nvcr.io/nvidia/tritonserver@{DIGEST}"
    ),
    "triton.image.pullPolicy": Row(
        {"triton": {"image": {"pullPolicy": "Always"}}}, _with(triton, "imagePullPolicy"), "Always"
    ),
    "triton.extraArgs": Row(
        {"triton": {"extraArgs": ["--log-info=0"]}}, lambda r: r.triton["args"][-1], "--log-info=0"
    ),
    "triton.env": Row({"triton": {"env": ENVIRONMENT}}, lambda r: _env(r.triton)["TOKEN"], "x"),
    "triton.envFrom": Row({"triton": {"envFrom": FROM_SECRET}}, _with(triton, "envFrom"), FROM_SECRET),
    "triton.ports.http": Row(
        {"triton": {"ports": {"http": 9000}}},
        lambda r: (r.flag("--triton-http-endpoint"), "--http-port=9000" in r.triton["args"], r.triton["ports"][0]),
        (["localhost:9000"], True, {"name": "http", "containerPort": 9000}),
    ),
    "triton.ports.grpc": Row(
        {"triton": {"ports": {"grpc": 9001}}},
        lambda r: (r.flag("--triton-grpc-endpoint"), "--grpc-port=9001" in r.triton["args"], r.triton["ports"][1]),
        (["localhost:9001"], True, {"name": "grpc", "containerPort": 9001}),
    ),
    "triton.ports.metrics": Row(
        {"triton": {"ports": {"metrics": 9002}}},
        lambda r: (r.flag("--triton-metrics-url"), "--metrics-port=9002" in r.triton["args"]),
        (["http://localhost:9002/metrics"], True),
    ),
    "triton.metricsIntervalMs": Row(
        {"triton": {"metricsIntervalMs": 100}}, lambda r: "--metrics-interval-ms=100" in r.triton["args"], True
    ),
    "triton.logVerbose": Row({"triton": {"logVerbose": 2}}, lambda r: "--log-verbose=2" in r.triton["args"], True),
    "triton.resources": Row(
        {"triton": {"resources": {"limits": {"nvidia.com/gpu": 1}}}},
        _with(triton, "resources"),
        {"limits": {"nvidia.com/gpu": 1}, "requests": {"cpu": "500m", "memory": "1Gi"}},
    ),
    "triton.shmSize": Row(
        {"triton": {"shmSize": "4Gi"}},
        lambda r: r.volume("shm")["emptyDir"],
        {"medium": "Memory", "sizeLimit": "4Gi"},
    ),
    "triton.shareMemory": Row(
        {"triton": {"shareMemory": True}},
        lambda r: {one["mountPath"]: one["name"] for one in r.analyzer["volumeMounts"]}.get("/dev/shm"),
        "shm",
    ),
    "triton.tmpSize": Row(
        {"triton": {"tmpSize": "9Gi"}}, lambda r: r.volume("triton-tmp")["emptyDir"], {"sizeLimit": "9Gi"}
    ),
    "triton.startupProbe": Row(
        {"triton": {"startupProbe": {"periodSeconds": 7}}},
        lambda r: (r.triton["startupProbe"]["periodSeconds"], r.triton["startupProbe"]["httpGet"]["path"]),
        (7, "/v2/health/ready"),
    ),
    "triton.securityContext": Row(
        {"triton": {"securityContext": {"runAsUser": 7}}}, lambda r: r.triton["securityContext"]["runAsUser"], 7
    ),
    "triton.extraVolumeMounts": Row(
        {"extraVolumes": VOLUMES, "triton": {"extraVolumeMounts": MOUNTS}},
        lambda r: (_mounts(r.triton)["data"], "data" in _mounts(r.analyzer)),
        ("/data", False),
    ),
    "models.repository": Row(
        {"models": {"repository": "s3://b/m"}}, lambda r: "--model-repository=s3://b/m" in r.triton["args"], True
    ),
    "models.existingClaim": Row(
        {"models": {"existingClaim": "models"}},
        lambda r: (r.volume("models")["persistentVolumeClaim"], r.flag("--model-repository")),
        ({"claimName": "models", "readOnly": True}, ["/models"]),
    ),
    "models.subPath": Row(
        {"models": {"existingClaim": "models", "subPath": "prod"}},
        lambda r: [m for c in (r.analyzer, r.triton) for m in c["volumeMounts"] if m["name"] == "models"],
        [{"name": "models", "mountPath": "/models", "subPath": "prod", "readOnly": True}] * 2,
    ),
    "models.existingSecret": Row(
        {"models": {"repository": "s3://b/m", "existingSecret": "s3"}},
        lambda r: (r.triton["envFrom"], r.analyzer.get("envFrom")),
        ([{"secretRef": {"name": "s3"}}], None),
    ),
    "models.secretMountPath": Row(
        {"models": {"repository": "gs://b/m", "existingSecret": "gcs", "secretMountPath": "/key"}},
        lambda r: (_mounts(r.triton)["models-secret"], r.volume("models-secret"), "envFrom" in r.triton),
        ("/key", {"name": "models-secret", "secret": {"secretName": "gcs"}}, False),
    ),
    "results.existingClaim": Row(
        {"results": {"existingClaim": "bench"}},
        lambda r: (r.volume("results")["persistentVolumeClaim"]["claimName"], r.of("PersistentVolumeClaim")),
        ("bench", []),
    ),
    "results.emptyDir": Row(
        {"results": {"emptyDir": True}},
        lambda r: (r.volume("results"), r.of("PersistentVolumeClaim")),
        ({"name": "results", "emptyDir": {}}, []),
    ),
    "results.directory": Row(
        {"results": {"directory": "july/l4"}}, lambda r: r.flag("--export-path"), ["/results/july/l4"]
    ),
    "results.size": Row(
        {"results": {"size": "3Gi"}},
        lambda r: r.one("PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"],
        "3Gi",
    ),
    "results.accessModes": Row(
        {"results": {"accessModes": ["ReadWriteMany"]}},
        lambda r: r.one("PersistentVolumeClaim")["spec"]["accessModes"],
        ["ReadWriteMany"],
    ),
    "results.storageClassName": Row(
        {"results": {"storageClassName": ""}},
        lambda r: r.one("PersistentVolumeClaim")["spec"]["storageClassName"],
        "",
    ),
    "results.annotations": Row(
        {"results": {"annotations": {"a": "b"}}},
        lambda r: r.one("PersistentVolumeClaim")["metadata"]["annotations"],
        {"helm.sh/resource-policy": "keep", "a": "b"},
    ),
    "dcgm.discovery": Row(
        {"dcgm": {"discovery": "auto"}},
        lambda r: (r.flag("--dcgm-discovery"), r.has_token, r.one("ClusterRole")["rules"]),
        (["auto"], True, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]),
    ),
    "dcgm.namespaces": Row(
        {"dcgm": {"discovery": "auto", "namespaces": ["gpu-operator", "monitoring"]}},
        lambda r: (
            r.flag("--dcgm-exporter-namespaces"),
            [role["metadata"]["namespace"] for role in r.of("Role")],
            r.of("ClusterRole"),
        ),
        (["gpu-operator", "monitoring"], ["gpu-operator", "monitoring"], []),
    ),
    "dcgm.urls": Row(
        {"dcgm": {"urls": ["http://a:9400/metrics", "http://b:9400/metrics"]}},
        lambda r: (r.flag("--dcgm-exporter-url"), r.has_token),
        (["http://a:9400/metrics", "http://b:9400/metrics"], False),
    ),
    "serviceAccount.create": Row(
        {"serviceAccount": {"create": False}},
        lambda r: (r.of("ServiceAccount"), r.pod["serviceAccountName"]),
        ([], "default"),
    ),
    "serviceAccount.name": Row(
        {"serviceAccount": {"name": "bench"}},
        lambda r: (r.one("ServiceAccount")["metadata"]["name"], r.pod["serviceAccountName"]),
        ("bench", "bench"),
    ),
    "serviceAccount.annotations": Row(
        {"serviceAccount": {"annotations": {"iam": "role"}}},
        lambda r: r.one("ServiceAccount")["metadata"]["annotations"],
        {"iam": "role"},
    ),
    "rbac.create": Row(
        {"rbac": {"create": False}, "dcgm": {"discovery": "auto"}, "annotateJob": True},
        lambda r: (r.of("ClusterRole"), r.of("Role"), r.has_token),
        ([], [], True),
    ),
    "networkPolicy.enabled": Row(
        {"networkPolicy": POLICY},
        lambda r: (r.one("NetworkPolicy")["spec"]["ingress"], _egress_ports(r)),
        ([], {53}),
    ),
    "networkPolicy.apiServerPorts": Row(
        {"networkPolicy": {**POLICY, "apiServerPorts": [16443]}, "annotateJob": True}, _egress_ports, {53, 16443}
    ),
    "networkPolicy.exporterPorts": Row(
        {"networkPolicy": {**POLICY, "exporterPorts": [9500]}, "dcgm": {"discovery": "auto"}},
        _egress_ports,
        {53, 443, 6443, 9500},
    ),
    "networkPolicy.extraEgress": Row(
        {"networkPolicy": {**POLICY, "extraEgress": [{"ports": [{"port": 3128}]}]}}, _egress_ports, {53, 3128}
    ),
    "networkPolicy.extraIngress": Row(
        {"networkPolicy": {**POLICY, "extraIngress": [{"ports": [{"port": 8000}]}]}},
        lambda r: r.one("NetworkPolicy")["spec"]["ingress"],
        [{"ports": [{"port": 8000}]}],
    ),
    "shards": Row(
        {"shards": 3},
        lambda r: (
            *(r.job["spec"][key] for key in ("completionMode", "completions", "parallelism", "backoffLimitPerIndex")),
            r.flag("--shards"),
        ),
        ("Indexed", 3, 3, 2, ["3"]),
    ),
    "parallelism": Row({"shards": 3, "parallelism": 2}, lambda r: r.job["spec"]["parallelism"], 2),
    "suspend": Row({"suspend": True}, lambda r: r.job["spec"]["suspend"], True),
    "backoffLimit": Row({"backoffLimit": 0}, lambda r: r.job["spec"]["backoffLimit"], 0),
    "activeDeadlineSeconds": Row({"activeDeadlineSeconds": 0}, lambda r: r.job["spec"]["activeDeadlineSeconds"], 0),
    "ttlSecondsAfterFinished": Row(
        {"ttlSecondsAfterFinished": 0}, lambda r: r.job["spec"]["ttlSecondsAfterFinished"], 0
    ),
    "terminationGracePeriodSeconds": Row(
        {"terminationGracePeriodSeconds": 0},
        lambda r: (r.pod["terminationGracePeriodSeconds"], r.flag("--export-path-wait-seconds")),
        (0, ["60"]),
    ),
    "resources": Row(
        {"resources": {"requests": {"cpu": "2"}}},
        _with(analyzer, "resources"),
        {"requests": {"cpu": "2", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
    ),
    "podSecurityContext": Row(
        {"podSecurityContext": {"runAsUser": None, "fsGroup": 7}},
        lambda r: ("runAsUser" in r.pod["securityContext"], r.pod["securityContext"]["fsGroup"]),
        (False, 7),
    ),
    "securityContext": Row(
        {"securityContext": {"seccompProfile": None}}, lambda r: "seccompProfile" in r.analyzer["securityContext"], False
    ),
    "nodeSelector": Row({"nodeSelector": {"pool": "l4"}}, _with(pod, "nodeSelector"), {"pool": "l4"}),
    "affinity": Row({"affinity": AFFINITY}, _with(pod, "affinity"), AFFINITY),
    "tolerations": Row({"tolerations": TOLERATIONS}, _with(pod, "tolerations"), TOLERATIONS),
    "topologySpreadConstraints": Row(
        {"topologySpreadConstraints": SPREAD, "shards": 2}, _with(pod, "topologySpreadConstraints"), SPREAD
    ),
    "runtimeClassName": Row({"runtimeClassName": "nvidia"}, _with(pod, "runtimeClassName"), "nvidia"),
    "priorityClassName": Row({"priorityClassName": "low"}, _with(pod, "priorityClassName"), "low"),
    "schedulerName": Row({"schedulerName": "volcano"}, _with(pod, "schedulerName"), "volcano"),
    "dnsPolicy": Row({"dnsPolicy": "Default"}, _with(pod, "dnsPolicy"), "Default"),
    "dnsConfig": Row({"dnsConfig": {"searches": ["a"]}}, _with(pod, "dnsConfig"), {"searches": ["a"]}),
    "hostAliases": Row({"hostAliases": ALIASES}, _with(pod, "hostAliases"), ALIASES),
    "extraEnv": Row({"extraEnv": ENVIRONMENT}, lambda r: _env(r.analyzer)["TOKEN"], "x"),
    "extraEnvFrom": Row({"extraEnvFrom": FROM_SECRET}, _with(analyzer, "envFrom"), FROM_SECRET),
    "extraVolumes": Row({"extraVolumes": VOLUMES}, lambda r: r.volume("data"), VOLUMES[0]),
    "extraVolumeMounts": Row(
        {"extraVolumes": VOLUMES, "extraVolumeMounts": MOUNTS},
        lambda r: (_mounts(r.analyzer)["data"], "data" in _mounts(r.triton)),
        ("/data", False),
    ),
    "extraObjects": Row(
        {
            "extraObjects": [
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "{{ .Release.Name }}-map"}},
                "apiVersion: v1\nkind: Secret\nmetadata: {name: '{{ .Release.Name }}-text'}",
            ]
        },
        lambda r: {"demo-map", "demo-text"} <= _named(r),
        True,
    ),
    "commonLabels": Row(
        {"commonLabels": {"team": "ml"}, "networkPolicy": POLICY, "dcgm": {"discovery": "auto"}, "annotateJob": True},
        lambda r: (_every(r, "labels", "team"), r.job["spec"]["template"]["metadata"]["labels"]["team"]),
        ({"ml"}, "ml"),
    ),
    "commonAnnotations": Row(
        {"commonAnnotations": {"by": "me"}, "networkPolicy": POLICY, "dcgm": {"discovery": "auto"}, "annotateJob": True},
        lambda r: _every(r, "annotations", "by"),
        {"me"},
    ),
    "jobLabels": Row(
        {"jobLabels": {"kueue.x-k8s.io/queue-name": "gpu"}},
        lambda r: (
            r.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"],
            "kueue.x-k8s.io/queue-name" in r.job["spec"]["template"]["metadata"]["labels"],
        ),
        ("gpu", False),
    ),
    "jobAnnotations": Row({"jobAnnotations": {"a": "b"}}, lambda r: r.job["metadata"]["annotations"], {"a": "b"}),
    "podLabels": Row(
        {"podLabels": {"a": "b"}}, lambda r: r.job["spec"]["template"]["metadata"]["labels"]["a"], "b"
    ),
    "podAnnotations": Row(
        {"podAnnotations": {"a": "b"}}, lambda r: r.job["spec"]["template"]["metadata"]["annotations"], {"a": "b"}
    ),
    "fullnameOverride": Row(
        {"fullnameOverride": "bench"},
        lambda r: {name.removeprefix("bench")[:9] for name in _named(r)} >= {"", "-results"},
        True,
    ),
    "tests.server": Row(
        {"tests": {"server": False}},
        lambda r: ("initContainers" in r.test_pod, r.test_pod["containers"][0]["args"][:2], "initContainers" in r.pod),
        (False, ["doctor", "--no-server"], True),
    ),
}  # fmt: skip


def test_no_value_is_without_a_row() -> None:
    assert ROWS.keys() == set(VALUES)


@pytest.fixture(scope="session")
def default(chart: Chart) -> Rendered:
    return chart.render()


@pytest.mark.parametrize("key", ROWS)
def test_value_is_seen_in_what_is_rendered(chart: Chart, default: Rendered, key: str) -> None:
    row = ROWS[key]
    assert row.seen(chart.render(row.values)) == row.expected
    # A row that the defaults meet as well would show nothing.
    try:
        unset = row.seen(default)
    except (KeyError, ValueError, IndexError):  # what is looked for is not there at all
        return
    assert unset != row.expected


def _nested(keys: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in keys:
        *path, last = key.split(".")
        node = values
        for name in path:
            node = node.setdefault(name, {})
        node[last] = None
    return values


def _needed(key: str) -> bool:
    """Whether the schema refuses values without this one."""
    *path, last = key.split(".")
    node = SCHEMA
    for name in path:
        node = node["properties"][name]
    return last in node["required"]


def test_every_value_can_be_null_or_is_said_to_be_missing(chart: Chart) -> None:
    """A null removes a default, and in a file it is soon written: `affinity:` with nothing behind it."""
    needed = [key for key in VALUES if _needed(key)]
    assert {"shards", "models.repository", "triton.enabled", "triton.image.tag", "results.size"} <= set(needed)
    refusal = chart.refusal(_nested(needed))
    assert all(f"'{key.rpartition('.')[2]}'" in refusal for key in needed)
    free = [key for key in VALUES if not _needed(key)]
    assert {"affinity", "job", "commonLabels", "resources", "podSecurityContext", "image.tag"} <= set(free)
    assert chart.render(_nested(free)).job["spec"]
