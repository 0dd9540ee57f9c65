"""What cannot be measured fails at once, and says why where people look."""

from __future__ import annotations

from typing import Any

from cluster_tools import QUICK, Namespace


def test_a_wrong_spec_fails_the_job_at_once(namespace: Namespace) -> None:
    # jobFile is text: only the pod finds out.
    namespace.install("wrong", jobFile="profile_models: [add_sub]\nbatch_size: [1]\n", backoffLimit=3)
    namespace.fails("wrong")
    ended = _only_ended(namespace, "wrong")
    assert ended["exitCode"] == 2
    assert "did you mean 'batch_sizes'?" in ended["message"]
    pod = namespace.pods_of("wrong")[0]["metadata"]["name"]
    assert "did you mean 'batch_sizes'?" in namespace.kubectl("describe", "pod", pod)
    assert "PodFailurePolicy" in namespace.kubectl("describe", "job", namespace.job_of("wrong")["metadata"]["name"])


def test_a_full_claim_ends_with_code_6(namespace: Namespace) -> None:
    many = {**QUICK, "profile_models": ["add_sub"], "batch_sizes": list(range(1, 41))}
    namespace.install("full", job=many, results={"storageClassName": "limited", "size": "96Ki"}, backoffLimit=3)
    namespace.fails("full")
    ended = _only_ended(namespace, "full")
    assert ended["exitCode"] == 6
    assert "No space left on device" in ended["message"]


def test_a_model_that_is_not_there_ends_with_code_4_and_its_row_says_so(namespace: Namespace) -> None:
    namespace.install("absent", job={**QUICK, "profile_models": ["absent", "add_sub"]}, backoffLimit=3)
    namespace.fails("absent")
    ended = _only_ended(namespace, "absent")
    assert ended["exitCode"] == 4
    assert "1 of 2 phases failed" in ended["message"]
    assert "absent" in namespace.log_of("absent")


def _only_ended(namespace: Namespace, release: str) -> Any:
    """How the analyzer of the only pod ended: a second one would have been a retry."""
    (pod,) = namespace.pods_of(release)
    (analyzer,) = pod["status"]["containerStatuses"]
    return analyzer["state"]["terminated"]
