"""What the chart renders as a whole: names, upgrades, security, the job file, what it refuses."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import Chart, Rendered, has_token
from restricted import violations

from model_analyzer.errors import EXIT_CODES
from model_analyzer.job import load_job
from scripts.chart import CHART, EXAMPLES, KUBE_VERSION, MANIFESTS, NAMESPACE, render_manifest

CI = sorted((CHART / "ci").glob("*-values.yaml"))
REMOTE = {"enabled": False, "endpoints": {"http": "t:8000", "grpc": "t:8001", "metrics": "http://t:8002/metrics"}}
EVERYTHING: dict[str, Any] = {
    "dcgm": {"discovery": "auto"},
    "annotateJob": True,
    "networkPolicy": {"enabled": True},
    "models": {"existingClaim": "models"},
    "metrics": {"port": 9100},
    "shards": 2,
}
# A name of 63 characters is the longest; an Indexed Job's pods have its index behind it, as their host name.
LONGEST = 63


def _names(rendered: Rendered) -> set[tuple[str, str, str]]:
    return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in rendered.objects}


def _job_name(rendered: Rendered) -> str:
    name: str = rendered.job["metadata"]["name"]
    return name


# Names


def test_two_releases_in_one_namespace_share_no_object(chart: Chart) -> None:
    one, other = (chart.render(EVERYTHING, release=name) for name in ("one", "other"))
    assert not _names(one) & _names(other)


def test_the_same_release_in_two_namespaces_shares_no_object(chart: Chart) -> None:
    one, other = (chart.render(EVERYTHING, namespace=name) for name in ("one", "other"))
    assert not _names(one) & _names(other)


def test_every_object_but_the_cluster_wide_ones_is_in_the_release_s_namespace(chart: Chart) -> None:
    rendered = chart.render(EVERYTHING, namespace="elsewhere")
    placed = {one["kind"]: one["metadata"].get("namespace") for one in rendered.objects}
    assert placed.pop("ClusterRole") is None
    assert placed.pop("ClusterRoleBinding") is None
    assert set(placed.values()) == {"elsewhere"}
    assert rendered.one("ClusterRoleBinding")["subjects"][0]["namespace"] == "elsewhere"


# The longest that is not cut with -model-analyzer behind it, the next, the longest that helm takes.
@pytest.mark.parametrize("length", [31, 32, 45, 53])
def test_names_of_a_long_release_fit_with_the_largest_index(chart: Chart, length: int) -> None:
    rendered = chart.render({**EVERYTHING, "shards": 10000}, release="r" * length)
    assert len(f"{_job_name(rendered)}-9999") <= LONGEST
    for kind, _, name in _names(rendered):
        if not kind.startswith("ClusterRole"):
            assert len(name) <= LONGEST, (kind, name)
            assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name), (kind, name)


def test_long_releases_that_differ_at_their_end_share_no_object(chart: Chart) -> None:
    one, other = (chart.render(EVERYTHING, release="r" * 52 + end) for end in "ab")
    assert not _names(one) & _names(other)


def test_a_release_may_have_dots_in_its_name_though_a_shard_s_host_may_not(chart: Chart) -> None:
    dotted, dashed = (chart.render({**EVERYTHING, "shards": 2}, release=name) for name in ("a.b", "a-b"))
    assert "." not in _job_name(dotted)
    assert not _names(dotted) & _names(dashed)


@pytest.mark.parametrize("word", ["123", "1e6", "true", "null", "0x1f"])
def test_names_that_yaml_would_read_as_something_else_stay_texts(chart: Chart, word: str) -> None:
    values: dict[str, Any] = {
        "fullnameOverride": word,
        "serviceAccount": {"name": word},
        "models": {"existingClaim": word, "existingSecret": word},
        "runtimeClassName": word,
        "priorityClassName": word,
        "schedulerName": word,
        "dcgm": {"discovery": "auto", "namespaces": [word]},
        "networkPolicy": {"enabled": True},
        "annotateJob": True,
        "shards": 2,
    }
    claim = {**values, "results": {"existingClaim": word}}
    secret = {**values, "models": {"existingSecret": word, "secretMountPath": "/s"}}
    for rendered in (chart.render(one, release=word, namespace=word) for one in (values, claim, secret)):
        assert not list(_not_texts(rendered.objects))


# Keys whose values Kubernetes wants as text, wherever they stand.
TEXTS = frozenset(
    [
        "name",
        "namespace",
        "claimName",
        "secretName",
        "serviceAccountName",
        "runtimeClassName",
        "priorityClassName",
        "schedulerName",
        "app.kubernetes.io/instance",
    ]
)


def _not_texts(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, list):
        for one in node:
            yield from _not_texts(one)
    elif isinstance(node, dict):
        yield from ((key, value) for key, value in node.items() if key in TEXTS and not isinstance(value, str))
        for value in node.values():
            yield from _not_texts(value)


def test_a_namespace_that_is_named_twice_has_one_role(chart: Chart) -> None:
    rendered = chart.render({"dcgm": {"discovery": "auto", "namespaces": ["gpu", "gpu"]}})
    assert rendered.one("Role")["metadata"]["namespace"] == "gpu"


# Upgrades


def test_an_unchanged_upgrade_renders_the_same_bytes(chart: Chart, tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "chart")
    again = Chart(chart.helm, tmp_path / "chart")  # the same path would be answered from the cache
    assert again.render(EVERYTHING).text == chart.render(EVERYTHING).text


def test_another_version_of_the_chart_alone_changes_no_job(chart: Chart, tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "chart")
    file = tmp_path / "chart" / "Chart.yaml"
    about = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r"^version: .*", "version: 9.9.9", about, flags=re.MULTILINE), encoding="utf-8")
    pinned = {"image": {"tag": "1"}}
    old, new = chart.render(pinned), Chart(chart.helm, tmp_path / "chart").render(pinned)
    assert old.text != new.text
    assert _job_name(old) == _job_name(new)
    assert old.job["spec"] == new.job["spec"]


@pytest.mark.parametrize(
    "values",
    [
        {"job": {"profile_models": ["add_sub"], "batch_sizes": [2]}},
        {"image": {"tag": "2"}},
        {"triton": {"extraArgs": ["--log-info=0"]}},
        {"files": {"intervals.txt": "1\n"}},
        {"podAnnotations": {"a": "b"}},
        {"shards": 2},
        {"nodeSelector": {"pool": "l4"}},
    ],
)
def test_a_change_that_a_job_cannot_take_makes_a_new_job_and_config_map(chart: Chart, values: dict[str, Any]) -> None:
    before, after = chart.render(), chart.render(values)
    assert _job_name(before) != _job_name(after)
    assert after.one("ConfigMap")["metadata"]["name"] == _job_name(after)
    assert after.volume("job")["configMap"]["name"] == _job_name(after)
    # The results stay where they are.
    assert before.volume("results") == after.volume("results")
    assert before.flag("--export-path") == after.flag("--export-path")


@pytest.mark.parametrize(
    "values",
    [
        {"suspend": True},
        {"backoffLimit": 0},
        {"activeDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 60},
        {"jobLabels": {"kueue.x-k8s.io/queue-name": "q"}},
        {"results": {"size": "2Gi"}},
        {"tests": {"server": False}},
    ],
)
def test_a_change_that_a_job_can_take_keeps_it(chart: Chart, values: dict[str, Any]) -> None:
    assert _job_name(chart.render(values)) == _job_name(chart.render())


def test_retries_of_a_shard_are_fixed_in_a_job(chart: Chart) -> None:
    assert _job_name(chart.render({"shards": 2})) != _job_name(chart.render({"shards": 2, "backoffLimit": 4}))


def test_another_job_keeps_the_server_s_identity_and_another_server_does_not(chart: Chart) -> None:
    default, job, server = (
        chart.render(values).flag("--triton-server-identity")
        for values in ({}, {"job": {"profile_models": ["x"]}}, {"triton": {"resources": {"limits": {"cpu": "1"}}}})
    )
    assert default == job
    assert default != server
    assert default[0].startswith("nvcr.io/nvidia/tritonserver:26.09-py3#")


# How it ends


def _rules(rendered: Rendered) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = rendered.job["spec"]["podFailurePolicy"]["rules"]
    return rules


@pytest.mark.parametrize(("shards", "of_a_shard"), [(1, "FailJob"), (3, "FailIndex")])
def test_exit_codes_decide_between_a_retry_and_the_end(chart: Chart, shards: int, of_a_shard: str) -> None:
    disruption, *codes = _rules(chart.render({"shards": shards}))
    assert disruption["action"] == "Ignore"
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert {rule["onExitCodes"]["containerName"] for rule in codes} == {"analyzer"}
    actions = {code: rule["action"] for rule in codes for code in rule["onExitCodes"]["values"]}
    assert actions == {
        130: "Ignore", 143: "Ignore", 2: "FailJob", 4: of_a_shard, 5: of_a_shard, 6: of_a_shard
    }  # fmt: skip
    # 0 is success, and what is left is tried again.
    assert EXIT_CODES.keys() - actions.keys() == {0, 1, 3}


def test_times_that_are_not_given_are_not_rendered(chart: Chart) -> None:
    spec = chart.render().job["spec"]
    assert not {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "suspend", "completionMode"} & spec.keys()


def test_zero_is_a_number_of_retries_for_shards_too(chart: Chart) -> None:
    spec = chart.render({"shards": 2, "backoffLimit": 0}).job["spec"]
    assert spec["backoffLimitPerIndex"] == 0
    assert "backoffLimit" not in spec


# Security


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, {"triton": REMOTE}, {"results": {"emptyDir": True}}, {"models": {"repository": "s3://b/m"}}],
)
def test_every_pod_meets_the_restricted_level(chart: Chart, values: dict[str, Any]) -> None:
    for pod in chart.render(values).pods():
        assert violations(pod) == []
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"securityContext": {"runAsUser": 0}},
        {"containers": [{"name": "analyzer"}]},
    ],
)
def test_the_checker_of_the_restricted_level_finds_what_is_wrong(chart: Chart, change: dict[str, Any]) -> None:
    pod = copy.deepcopy(chart.render().pod)
    assert violations({**pod, **change}) != []


@pytest.mark.parametrize("path", CI, ids=lambda path: path.stem)
def test_other_settings_meet_the_restricted_level_and_lint(chart: Chart, path: Path) -> None:
    chart.lint("-f", str(path))
    for pod in chart.render({}, "-f", str(path)).pods():
        assert violations(pod) == []


def test_the_default_passes_lint(chart: Chart) -> None:
    chart.lint()


@pytest.mark.parametrize(
    ("values", "uses"),
    [({}, False), ({"dcgm": {"discovery": False}}, False), ({"dcgm": {"discovery": "off"}}, False),
     ({"dcgm": {"discovery": "auto"}}, True), ({"annotateJob": True}, True)],
)  # fmt: skip
def test_the_pod_has_a_token_and_rights_only_where_it_uses_the_api(
    chart: Chart, values: dict[str, Any], uses: bool
) -> None:
    rendered = chart.render(values)
    assert [has_token(pod, "analyzer") for pod in rendered.pods()] == [uses, uses]
    # Models are code of others.
    assert [has_token(pod, "triton") for pod in rendered.pods()] == [False, False]
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert bool(rendered.of("Role") or rendered.of("ClusterRole")) is uses


def test_bare_off_of_yaml_turns_discovery_off(chart: Chart, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("dcgm: {discovery: off}\n", encoding="utf-8")
    assert chart.render({}, "-f", str(values)).flag("--dcgm-discovery") == ["off"]


def test_annotating_is_allowed_for_the_one_job_only(chart: Chart) -> None:
    rendered = chart.render({"annotateJob": True})
    assert rendered.one("Role")["rules"] == [
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "resourceNames": [_job_name(rendered)],
            "verbs": ["get", "patch"],
        }
    ]


def test_every_rule_of_a_role_says_why(chart: Chart) -> None:
    text = chart.render({**EVERYTHING, "dcgm": {"discovery": "auto"}}).text
    assert re.findall(r"^rules:\n(.*)$", text, flags=re.MULTILINE)
    for first in re.findall(r"^rules:\n(.*)$", text, flags=re.MULTILINE):
        assert first.strip().startswith("# ")


def test_the_network_policy_opens_the_ports_that_values_name(chart: Chart) -> None:
    values = {
        "networkPolicy": {"enabled": True},
        "triton": {
            "enabled": False,
            "endpoints": {"http": "https://t.example", "grpc": "t:8001", "metrics": "http://t/metrics"},
        },
        "dcgm": {"urls": ["http://[::1]:9401/metrics"]},
        "metrics": {"port": 9100},
    }
    policy = chart.render(values).one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 80, 443, 8001, 9401}
    assert policy["ingress"] == [{"ports": [{"port": 9100, "protocol": "TCP"}]}]
    labels = chart.render(values).job["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("http", "port"),
    [
        ("t", 80),
        ("http://t", 80),
        ("https://t", 443),
        ("https://t:8443", 8443),
        ("t:8000", 8000),
        ("https://[::1]", 443),
    ],
)
def test_the_network_policy_knows_the_port_of_an_endpoint(chart: Chart, http: str, port: int) -> None:
    endpoints = {"http": http, "metrics": "http://t:8002/metrics"}
    job = {"profile_models": ["add_sub"], "client_protocol": "http"}
    values = {"networkPolicy": {"enabled": True}, "triton": {"enabled": False, "endpoints": endpoints}, "job": job}
    egress = chart.render(values).one("NetworkPolicy")["spec"]["egress"]
    assert {one["port"] for rule in egress for one in rule["ports"]} == {53, port, 8002}


@pytest.mark.parametrize(
    ("repository", "port"),
    [
        ("s3://b/m", 443),
        ("gs://b/m", 443),
        ("as://account/m", 443),
        ("s3://minio:9000/b/m", 9000),
        ("s3://https://minio:9443/b/m", 9443),
        ("s3://http://minio/b/m", 80),
    ],
)
def test_the_network_policy_lets_triton_reach_an_object_store(chart: Chart, repository: str, port: int) -> None:
    values = {"networkPolicy": {"enabled": True}, "models": {"repository": repository}}
    egress = chart.render(values).one("NetworkPolicy")["spec"]["egress"]
    assert {one["port"] for rule in egress for one in rule["ports"]} == {53, port}


# The pod


def test_triton_is_a_native_sidecar_that_the_analyzer_waits_for(chart: Chart) -> None:
    rendered = chart.render()
    triton = rendered.triton
    assert triton["restartPolicy"] == "Always"
    assert triton["startupProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert "--model-control-mode=explicit" in triton["args"]
    # The images' own entrypoints start it.
    assert triton["args"][0] == "tritonserver"
    assert "command" not in triton
    assert "command" not in rendered.analyzer


def test_a_pod_is_tried_once_and_replaced_when_it_is_gone(chart: Chart) -> None:
    rendered = chart.render()
    assert rendered.pod["restartPolicy"] == "Never"
    assert rendered.job["spec"]["podReplacementPolicy"] == "Failed"
    assert rendered.analyzer["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_analyzer_knows_its_node_its_pod_and_its_server_s_container(chart: Chart) -> None:
    rendered = chart.render()
    env = {
        one["name"]: one.get("value") or one["valueFrom"]["fieldRef"]["fieldPath"] for one in rendered.analyzer["env"]
    }
    assert env == {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "TRITON_CONTAINER": rendered.triton["name"],
        "TERMINATION_LOG": "/dev/termination-log",
        "HOME": "/tmp",
    }
    remote = chart.render({"triton": REMOTE}).analyzer["env"]
    assert "TRITON_CONTAINER" not in {one["name"] for one in remote}


def test_what_a_read_only_root_lacks_is_mounted(chart: Chart) -> None:
    rendered = chart.render()
    volumes = {volume["name"]: volume for volume in rendered.pod["volumes"]}
    for container, needed in ((rendered.triton, {"/tmp", "/dev/shm"}), (rendered.analyzer, {"/tmp", "/results"})):
        mounted = {one["mountPath"]: one for one in container["volumeMounts"] if not one.get("readOnly")}
        assert mounted.keys() == needed
        assert all(one["name"] in volumes for one in mounted.values())


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        ({}, False),
        ({"job": {"profile_models": ["m"], "shared_memory": "system"}}, True),
        ({"job": {"profile_models": ["m"], "shared_memory": "none"}}, False),
        ({"job": {"profile_models": ["m"], "shared_memory": "system"}, "triton": {"shareMemory": False}}, False),
        ({"jobFile": "profile_models: m\nshared_memory: system\n", "triton": {"shareMemory": True}}, True),
        ({"job": {"profile_models": ["m"], "shared_memory": "system"}, "triton": REMOTE}, False),
    ],
)
def test_tensors_in_shared_memory_are_seen_by_both_containers(
    chart: Chart, values: Mapping[str, Any], shared: bool
) -> None:
    rendered = chart.render(values)
    mounts = {one["mountPath"]: one["name"] for one in rendered.analyzer["volumeMounts"]}
    assert ("/dev/shm" in mounts) is shared
    if shared:
        theirs = {one["mountPath"]: one["name"] for one in rendered.triton["volumeMounts"]}
        assert mounts["/dev/shm"] == theirs["/dev/shm"]
        assert rendered.volume("shm")["emptyDir"]["medium"] == "Memory"


def test_the_config_map_never_changes_under_a_pod(chart: Chart) -> None:
    assert chart.render().one("ConfigMap")["immutable"] is True


def test_flags_of_the_pod_are_known_to_the_command(chart: Chart, tmp_path: Path) -> None:
    """The job that the pod would run, with all of its arguments, is a job."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from model_analyzer.cli.main import register

    rendered = chart.render({**EVERYTHING, "dcgm": {"discovery": "auto", "namespaces": ["a"], "urls": ["http://d/m"]}})
    file = tmp_path / "job.yaml"
    file.write_text(rendered.job_file, encoding="utf-8")
    _, _, mounted, *flags = rendered.analyzer["args"]
    assert mounted == "/etc/model-analyzer/job.yaml"
    assert get_command(register())
    ended = CliRunner().invoke(register(), ["validate", "-f", str(file), *flags], env={"JOB_COMPLETION_INDEX": "0"})
    assert ended.exit_code == 0, ended.output
    assert "ok: " in ended.output


def test_the_test_pod_is_the_job_s_pod_asked_to_check(chart: Chart) -> None:
    rendered = chart.render({"dcgm": {"discovery": "auto"}, "models": {"existingClaim": "m"}})
    job, test = copy.deepcopy(rendered.pod), copy.deepcopy(rendered.test_pod)
    assert job["containers"][0]["args"].pop(0) == "profile"
    assert test["containers"][0]["args"].pop(0) == "doctor"
    near = test.pop("affinity")["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = near[0]["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert labels.items() <= rendered.job["spec"]["template"]["metadata"]["labels"].items()
    assert job == test


def test_the_test_pod_of_shards_is_none_of_them(chart: Chart) -> None:
    assert "--shards" not in chart.render({"shards": 3}).test_pod["containers"][0]["args"]


def test_a_test_pod_keeps_the_affinity_that_is_asked_for(chart: Chart) -> None:
    own = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    assert chart.render({"affinity": own}).test_pod["affinity"].keys() == {"nodeAffinity", "podAffinity"}


def test_shards_spread_over_nodes_unless_told_not_to(chart: Chart) -> None:
    spread = chart.render({"shards": 2}).pod["topologySpreadConstraints"]
    assert [(one["topologyKey"], one["whenUnsatisfiable"]) for one in spread] == [
        ("kubernetes.io/hostname", "ScheduleAnyway")
    ]
    assert "topologySpreadConstraints" not in chart.render({"shards": 2, "topologySpreadConstraints": []}).pod
    assert "topologySpreadConstraints" not in chart.render().pod


def test_results_claim_is_kept_and_its_class_is_left_to_the_cluster(chart: Chart) -> None:
    claim = chart.render().one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "storageClassName" not in claim["spec"]


# The job file


def _load(rendered: Rendered, folder: Path) -> Any:
    file = folder / "job.yaml"
    file.write_text(rendered.job_file, encoding="utf-8")
    return load_job(file, {"triton_launch_mode": "remote"}, {}).spec


def test_the_default_job_is_valid(chart: Chart, tmp_path: Path) -> None:
    assert [model.name for model in _load(chart.render(), tmp_path).models()] == ["add_sub"]


def test_the_job_comes_through_as_it_was_given(chart: Chart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {
        "profile_models": {
            "bert": None,
            "resnet": {
                "parameters": {"batch_sizes": [1, 1000000], "concurrency": {"start": 1, "stop": 3}},
                "model_config_parameters": {"dynamic_batching": {"max_queue_delay_microseconds": [100, 12345678]}},
                "perf_analyzer_flags": {"measurement-interval": 1000000},
            },
        },
        "export_path": "${FOLDER}/x {{ .Values.job }}",
        "precision": 0.000001,
        "monitoring_interval": 0.25,
        "filename_model_gpu": "yes",
        "dcgm_exporter_namespaces": ["off", "1e3", "0x10", "12:30:45", "2026-01-01"],
    }
    rendered = chart.render({"job": job})
    assert yaml.safe_load(rendered.job_file) == {**job, "precision": "1e-06"}  # a text to YAML 1.1, a number to us
    monkeypatch.setenv("FOLDER", "/f")
    spec = _load(rendered, tmp_path)
    assert spec.precision == 0.000001
    assert spec.export_path == "/f/x {{ .Values.job }}"
    assert spec.models()[1].batch_sizes == (1, 1000000)
    assert spec.dcgm_exporter_namespaces == ("off", "1e3", "0x10", "12:30:45", "2026-01-01")
    assert spec.filename_model_gpu == "yes"


def test_a_job_file_keeps_order_comments_and_indentation(chart: Chart, tmp_path: Path) -> None:
    text = "   # indented\nprofile_models:\n  zeta:\n  alpha:   # second\nbatch_sizes: [1000000]\n"
    rendered = chart.render({"jobFile": text})
    assert rendered.job_file == text
    assert [model.name for model in _load(rendered, tmp_path).models()] == ["zeta", "alpha"]


def test_no_default_key_comes_into_a_job(chart: Chart) -> None:
    rendered = chart.render({"job": {"profile_models": {"bert": {"cpu_only": True}}}})
    assert yaml.safe_load(rendered.job_file) == {"profile_models": {"bert": {"cpu_only": True}}}


def test_job_keys_of_every_example_job_pass_the_schema(chart: Chart, tmp_path: Path) -> None:
    jobs = sorted((CHART.parent.parent / "examples").glob("*/job.yaml"))
    assert jobs
    for path in jobs:
        job = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert yaml.safe_load(chart.render({"job": job}).job_file) == job


# The files beside it


def test_files_lie_beside_the_job_file_read_only_and_as_they_were_given(chart: Chart, tmp_path: Path) -> None:
    texts = {
        "intervals.txt": "10000\n20000\n",
        "data.json": '{"data": [{"INPUT": ["<a & b>", "{{ .Values }}", "ü"]}]}\n',
        "odd_name-1": " : leading\n\ttab: no\n",
    }
    job = {"profile_models": ["bert"], "request_intervals": "/etc/model-analyzer/intervals.txt"}
    rendered = chart.render({"job": job, "files": texts})
    data = dict(rendered.one("ConfigMap")["data"])
    assert yaml.safe_load(data.pop("job.yaml")) == job
    assert data == texts
    (mount,) = [one for one in rendered.analyzer["volumeMounts"] if one["name"] == "job"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/model-analyzer", True)
    assert rendered.volume("job") == {"name": "job", "configMap": {"name": _job_name(rendered)}}
    # The pod finds its intervals where the job says that they are.
    for name, text in data.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    file = tmp_path / "job.yaml"
    file.write_text(rendered.job_file.replace("/etc/model-analyzer", str(tmp_path)), encoding="utf-8")
    (group,) = load_job(file, {"triton_launch_mode": "remote"}, {}).groups
    assert [phase.load.distribution for phase in group.phases] == ["intervals"]


def test_a_file_from_the_disk_is_handed_over_as_it_is(chart: Chart, tmp_path: Path) -> None:
    text = '{"data": [{"INPUT": ["a, b", "c=d"]}]}\n'
    (tmp_path / "requests.json").write_text(text, encoding="utf-8")
    rendered = chart.render({}, "--set-file", f"files.requests\\.json={tmp_path / 'requests.json'}")
    assert rendered.one("ConfigMap")["data"]["requests.json"] == text


# What is refused


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"modls": {}}, "modls"),
        ({"triton": {"imag": {}}}, "imag"),
        ({"models": {"claim": "x"}}, "claim"),
        ({"results": {"persistence": {}}}, "persistence"),
        ({"job": {"profile_models": ["a"], "batch_size": [1]}}, "batch_size"),
        ({"job": {"profile_models": {"a": {"paramters": {}}}}}, "profile_models"),
        ({"job": {"batch_sizes": [1]}}, "profile_models"),
        ({"image": {"tag": 1.0}}, "tag"),
        ({"image": {"digest": "abc"}}, "digest"),
        ({"image": {"pullPolicy": "always"}}, "pullPolicy"),
        ({"dcgm": {"discovery": "on"}}, "discovery"),
        ({"shards": 0}, "shards"),
        ({"shards": None}, "shards"),
        ({"backoffLimit": -1}, "backoffLimit"),
        ({"triton": None}, "triton"),
        ({"results": {"directory": "../elsewhere"}}, "directory"),
        ({"results": {"directory": "/results/x"}}, "directory"),
        ({"extraEnv": [{"name": "N", "value": 1}]}, "extraEnv"),
        ({"extraArgs": [5]}, "extraArgs"),
        ({"models": {"repository": "models"}}, "repository"),
        ({"logFormat": "xml"}, "logFormat"),
        ({"files": {"a/b": "x"}}, "a/b"),
        ({"files": {"a": 5}}, "files"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_the_schema_does_not_know_are_refused_by_name(
    chart: Chart, values: dict[str, Any], named: str
) -> None:
    refusal = chart.refusal(values)
    assert "schema" in refusal
    assert named in refusal


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"triton": {"enabled": False}}, "triton.endpoints: is empty, and triton.enabled is false; name"),
        ({"triton": {**REMOTE, "endpoints": {"grpc": "t:8001"}}}, "triton.endpoints.metrics: is empty; name the URL"),
        (
            {"triton": {**REMOTE, "endpoints": {"http": "t:8000"}}},
            "triton.endpoints.grpc: is empty, and the job's client_protocol is grpc; name it as host:port, or choose",
        ),
        (
            {"triton": {**REMOTE, "endpoints": {"grpc": "t:8001"}}, "job": {"profile_models": ["a"], "client_protocol": "http"}},
            "triton.endpoints.http: is empty, and the job's client_protocol is http; name it",
        ),
        ({"triton": {"endpoints": {"http": "t:8000"}}}, "triton.endpoints: is given, and triton.enabled is true; set"),
        (
            {"models": {"existingClaim": "m", "repository": "s3://b/m"}},
            "models.existingClaim: is given, and models.repository is s3://b/m; make",
        ),
        ({"models": {"subPath": "x"}}, "models.subPath: is given without models.existingClaim; name"),
        ({"models": {"secretMountPath": "/x"}}, "models.secretMountPath: is given without models.existingSecret; name"),
        ({"results": {"emptyDir": True, "existingClaim": "x"}}, "results.emptyDir: is true, and results.existingClaim"),
        ({"dcgm": {"namespaces": ["a"]}}, "dcgm.namespaces: is given, and dcgm.discovery is off; set"),
        ({"triton": {"image": {"tag": ""}}}, "triton.image.tag: is empty, as is triton.image.digest; name one of them"),
        ({"metrics": {"port": 8001}}, "metrics.port: is 8001, as is one of triton.ports, and the two share the pod's"),
        (
            {"annotateJob": True, "serviceAccount": {"create": False}},
            "serviceAccount.name: is empty, and serviceAccount.create is false; name an account",
        ),
        ({"job": {"profile_models": ["a"], "shards": 3}}, "job.shards: is 3, and the Job has 1; set the value shards"),
        ({"job": {"profile_models": ["a"], "shard_index": 0}}, "job.shard_index: is given for all pods; leave it out"),
        ({"job": {"profile_models": ["a"]}, "jobFile": "profile_models: a"}, "jobFile: job is given, too; leave out"),
        ({"jobFile": "- a\n- b"}, "jobFile: is no YAML mapping"),
        ({"files": {"job.yaml": "a"}}, "files: names job.yaml, which is the job file itself; give it another name"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused_in_one_line(
    chart: Chart, values: dict[str, Any], line: str
) -> None:
    said = [text for text in chart.refusal(values).splitlines() if text.strip() and "--debug" not in text]
    assert len(said) == 1
    assert line in said[0]


def test_a_kubernetes_without_native_sidecars_is_refused(chart: Chart) -> None:
    assert "kubeVersion" in chart.refusal({}, "--kube-version", "1.28.9")
    assert KUBE_VERSION > "1.29"


# Examples


@pytest.mark.parametrize("name", MANIFESTS)
def test_example_manifest_is_what_the_chart_renders(chart: Chart, name: str) -> None:
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    assert text == render_manifest(chart.helm, name), "run `make docs`"


@pytest.mark.parametrize("name", MANIFESTS)
def test_example_manifest_can_be_applied_by_kubectl_alone(name: str, tmp_path: Path) -> None:
    rendered = Rendered((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert rendered.of("Pod") == []  # a test is helm's
    for one in rendered.objects:
        assert "namespace" not in one["metadata"]
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == name
        assert not [label for label in one["metadata"]["labels"] if label.startswith("helm.sh/")]
        assert "app.kubernetes.io/managed-by" not in one["metadata"]["labels"]
        for subject in one.get("subjects", ()):
            assert subject["namespace"] == NAMESPACE
    for pod in rendered.pods():
        assert violations(pod) == []
    assert _load(rendered, tmp_path).profile_models


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == MANIFESTS.keys()
    used = {part for parts in MANIFESTS.values() for part in parts}
    assert {path.stem for path in (EXAMPLES / "values").glob("*.yaml")} == used
