"""The cluster's storage: a folder of the node for each claim, made when the claim is, gone when it is.

Run as a program beside the control plane. Classes: `standard` (the default) is a plain folder, `limited` a file
system in memory of just the size that the claim asks for, so that a volume can be full.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.utils import parse_quantity

PROVISIONER = "model-analyzer.test/folder"
CLASSES = {"standard": True, "limited": False}
EVERY_S = 0.5


def main() -> None:
    """Make and remove volumes until the process is ended."""
    kubeconfig, folder, node = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    config.load_kube_config(kubeconfig)
    core, storage = client.CoreV1Api(), client.StorageV1Api()
    for name, default in CLASSES.items():
        _create_class(storage, name, default)
    while True:
        try:
            _serve(core, folder, node)
        except Exception as error:
            # The API server comes and goes with the cluster; this program must outlive a bad moment.
            print(f"{type(error).__name__}: {error}", flush=True)
        time.sleep(EVERY_S)


def _create_class(storage: Any, name: str, default: bool) -> None:
    annotation = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
    body = client.V1StorageClass(
        metadata=client.V1ObjectMeta(name=name, annotations=annotation),
        provisioner=PROVISIONER,
        reclaim_policy="Delete",
        volume_binding_mode="Immediate",
    )
    try:
        storage.create_storage_class(body)
    except client.ApiException as error:
        if error.status != 409:
            raise


def _serve(core: Any, folder: Path, node: str) -> None:
    volumes = {volume.metadata.name: volume for volume in core.list_persistent_volume().items}
    for claim in core.list_persistent_volume_claim_for_all_namespaces().items:
        name = f"pvc-{claim.metadata.uid}"
        if claim.status.phase == "Pending" and claim.spec.storage_class_name in CLASSES and name not in volumes:
            _create(core, claim, name, folder / name, node)
            print(f"made {name} for {claim.metadata.namespace}/{claim.metadata.name}", flush=True)
    for name, volume in volumes.items():
        if volume.status.phase == "Released" and volume.spec.persistent_volume_reclaim_policy == "Delete":
            _remove(core, name, folder / name)
            print(f"removed {name}", flush=True)


def _create(core: Any, claim: Any, name: str, place: Path, node: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    size = claim.spec.resources.requests["storage"]
    if claim.spec.storage_class_name == "limited":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(parse_quantity(size))}", "tmpfs", place], check=True)
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    spec = client.V1PersistentVolumeSpec(
        capacity={"storage": size},
        access_modes=claim.spec.access_modes,
        persistent_volume_reclaim_policy="Delete",
        storage_class_name=claim.spec.storage_class_name,
        claim_ref={
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
        },
        local={"path": str(place)},
        node_affinity={"required": {"nodeSelectorTerms": [term]}},
    )
    annotation = {"pv.kubernetes.io/provisioned-by": PROVISIONER}
    core.create_persistent_volume({"metadata": {"name": name, "annotations": annotation}, "spec": spec})


def _remove(core: Any, name: str, place: Path) -> None:
    core.delete_persistent_volume(name)
    subprocess.run(["umount", "--quiet", place], check=False, capture_output=True)
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
