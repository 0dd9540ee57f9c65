"""Which GPUs count: those that the measured server works on, and never another tenant's silently.

The first rule that has an answer decides: asked for in the job spec; mapped to our pod by the exporter's labels; named
by Triton; visible by CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES; all that the exporter shows, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from model_analyzer.core.telemetry import Gpu, GpuUser, Page


@dataclass(frozen=True, slots=True)
class Visible:
    """The values of CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES in our environment; None: not set.

    shared: Triton runs with the same environment, because we start it as a process of ours.
    """

    cuda: str | None = None
    nvidia: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """What is known beforehand. wanted: None for all of ours, else UUIDs or indices.

    pod, namespace: our own, "" outside Kubernetes. container: Triton's in our pod. elsewhere: Triton is not in our pod
    (nor on our host). own_node: the exporter was found on our node, and not named by the user as Triton's.
    """

    wanted: tuple[str, ...] | None = None
    pod: str = ""
    namespace: str = ""
    container: str = ""
    visible: Visible = Visible()
    elsewhere: bool = False
    own_node: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """The keys of the GPUs that count, sorted; the rule that chose them; what a reader of their figures should know.

    With no GPU the notes are why: `problems` has them, as the reason of each empty cell.
    """

    gpus: tuple[str, ...]
    rule: str
    notes: tuple[str, ...] = ()

    @property
    def of_figures(self) -> tuple[str, ...]:
        """The notes that belong to figures."""
        return self.notes if self.gpus else ()

    def problems(self, found: Mapping[str, str]) -> dict[str, str]:
        """The sources' problems, and why no GPU counts where that is a choice: then the sources do show some."""
        return {**found, "gpus": "; ".join(self.notes)} if self.notes and not self.gpus else dict(found)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What each source last said of each GPU."""

    triton: Mapping[str, Gpu] = field(default_factory=dict)
    dcgm: Mapping[str, Gpu] = field(default_factory=dict)

    def instances(self, gpu: str) -> set[str]:
        """The keys of a GPU's MIG instances."""
        return {key for key in self.dcgm if key != gpu and parent(key) == gpu}


OTHERS = "some may work for others; set `gpus`"
_UNMAPPED = "; the exporter maps no MIG instance to a pod (older ones cannot)"


def select_gpus(pages: Iterable[Page], choice: GpuChoice) -> Selection:
    """Choose among the GPUs that the pages show."""
    triton: dict[str, Gpu] = {}
    dcgm: dict[str, Gpu] = {}
    for page in pages:
        (triton if page.source == "triton" else dcgm).update(page.gpus)
    seen = _Seen(triton, dcgm)
    rules = (_asked_for, _of_our_pod, _of_triton, _by_environment, _all_shown)
    chosen = next(found for rule in rules if (found := rule(seen, choice)) is not None)
    return replace(chosen, notes=(*chosen.notes, *_shared(chosen.gpus, seen, choice)))


def parent(key: str) -> str:
    """The GPU of a MIG instance, or the GPU itself."""
    return key.partition("/")[0]


def _selection(gpus: Iterable[str], rule: str, *notes: str | None) -> Selection:
    return Selection(tuple(sorted(gpus)), rule, tuple(note for note in notes if note))


# -- asked for -----------------------------------------------------------------------------------------


def _asked_for(seen: _Seen, choice: GpuChoice) -> Selection | None:
    wanted = choice.wanted
    if wanted is None:
        return None
    known = {**seen.triton, **seen.dcgm}
    chosen = {key for key, gpu in known.items() if any(_is(name, key, gpu) for name in wanted)}
    missing = [name for name in wanted if not any(_is(name, key, known[key]) for key in chosen)]
    nameless = {key for key in seen.triton if not known[key].index} - chosen
    if missing and all(name.isdigit() for name in missing) and len(missing) == len(nameless):
        # A server of ours was started with these devices visible only, and its page gives no index.
        note = f"gpus {', '.join(missing)}: taken as what Triton reports, which gives no index"
        return _selection(chosen | nameless, "gpus", note)
    if missing:
        return _selection(chosen, "gpus", f"gpus asked for but not seen: {', '.join(missing)}")
    for name in wanted:
        several = {parent(key) for key in chosen if known[key].index == name}
        if len(several) > 1:
            note = f"gpus {name}: {len(several)} exporters have a GPU of this index; give UUIDs to choose"
            return _selection(chosen, "gpus", note)
    return _selection(chosen, "gpus")


def _is(name: str, key: str, gpu: Gpu) -> bool:
    return name in (key, parent(key), gpu.index)


# -- mapped to our pod ---------------------------------------------------------------------------------


def _of_our_pod(seen: _Seen, choice: GpuChoice) -> Selection | None:
    if choice.elsewhere or not choice.pod:
        return None
    users = {key: [user for user in gpu.users if _in_pod(user, choice)] for key, gpu in seen.dcgm.items()}
    ours = {key for key, found in users.items() if found}
    if not ours:
        return None
    containers = {user.container for found in users.values() for user in found}
    of_triton = {key for key in ours if any(user.container == choice.container for user in users[key])}
    note = None
    if len(containers) > 1 and of_triton:
        ours = of_triton
    elif len(containers) > 1:
        names = ", ".join(sorted(filter(None, containers)))
        note = f"several containers of this pod have GPUs ({names}): all are shown; name Triton's in TRITON_CONTAINER"
    beyond = sorted(gpu for gpu in seen.triton if gpu not in {parent(key) for key in ours})
    more = f"Triton also sees {', '.join(beyond)}, not mapped to it by the exporter: not shown" if beyond else None
    return _selection(ours, f"the exporter maps them to pod {choice.namespace}/{choice.pod}", note, more)


def _in_pod(user: GpuUser, choice: GpuChoice) -> bool:
    return (user.pod, user.namespace) == (choice.pod, choice.namespace)


# -- named by Triton -----------------------------------------------------------------------------------


def _of_triton(seen: _Seen, choice: GpuChoice) -> Selection | None:
    """Triton names whole GPUs. Of one that is cut into MIG instances it does not say which."""
    if not seen.triton:
        return None
    chosen: set[str] = set()
    notes = []
    for gpu in seen.triton:
        instances = seen.instances(gpu)
        chosen |= {gpu, *instances}
        if len(instances) > 1:
            unmapped = _UNMAPPED if choice.pod and not any(seen.dcgm[key].users for key in instances) else ""
            notes.append(f"all {len(instances)} MIG instances of {gpu} are shown: {OTHERS}{unmapped}")
    if choice.own_node and seen.dcgm and not chosen & seen.dcgm.keys():
        notes.append(
            "the exporter of this node shows none of Triton's GPUs: set dcgm_exporter_url to that of Triton's node"
        )
    return _selection(chosen, "Triton names them", *notes)


# -- visible to this process ---------------------------------------------------------------------------


def _by_environment(seen: _Seen, choice: GpuChoice) -> Selection | None:
    """The container runtime gives what NVIDIA_VISIBLE_DEVICES says, CUDA counts within that."""
    visible = choice.visible
    indices = [gpu.index for gpu in {parent(key): gpu for key, gpu in seen.dcgm.items()}.values()]
    if choice.elsewhere or not indices or len(indices) > len(set(indices)):
        return None  # no host's, or several hosts': the environment is of one
    given = _given(visible.nvidia, seen)
    # In a container the devices are in the node's order, whatever the order they were named in.
    devices = [gpu for gpu in _in_order(seen.dcgm) if given is None or gpu in map(parent, given)]
    chosen = _counted(visible.cuda, devices, seen)
    if chosen is None:
        chosen = given
    names = {"CUDA_VISIBLE_DEVICES": visible.cuda, "NVIDIA_VISIBLE_DEVICES": visible.nvidia}
    rule = " and ".join(f"{name}={value}" for name, value in names.items() if value is not None)
    if chosen is None or not (chosen or visible.shared):
        # That our own container has no GPU says nothing of Triton's.
        return None
    if not chosen:
        return _selection((), rule, f"no GPU counts: {rule}")
    note = None if visible.shared else f"chosen by {rule} of this container; Triton's may differ: set `gpus`"
    several = [gpu for gpu in chosen if len(seen.instances(gpu)) > 1]
    mig = f"all MIG instances of {', '.join(several)} are shown: {OTHERS}" if several else None
    return _selection(
        {key for gpu in chosen for key in (gpu, *seen.instances(gpu)) if key in seen.dcgm}, rule, note, mig
    )


def _in_order(dcgm: Mapping[str, Gpu]) -> list[str]:
    """Whole GPUs by their index."""
    indices = {parent(key): gpu.index for key, gpu in dcgm.items()}
    return sorted(indices, key=lambda gpu: (int(indices[gpu]) if indices[gpu].isdigit() else 0, gpu))


def _given(value: str | None, seen: _Seen) -> list[str] | None:
    """The devices that a container runtime was told to give; None: it does not say.

    void, an empty value or a path: the devices come another way (CDI, volume mounts), if at all; all is no narrower
    than the node. Source: the NVIDIA Container Toolkit's docker-specialized documentation, and its device plugin's.
    """
    if value is None or value.strip() in ("", "void", "all") or "/var/run" in value:
        return None
    if value.strip() == "none":
        return []
    at = {gpu.index: parent(key) for key, gpu in seen.dcgm.items()}
    found = [at.get(token) if token.isdigit() else _by_uuid(token, seen) for token in _tokens(value)]
    return None if None in found else [key for key in found if key is not None]


def _counted(value: str | None, given: Sequence[str], seen: _Seen) -> list[str] | None:
    """The devices that CUDA may use; None: it does not say. CUDA reads up to the first name that is not valid."""
    if value is None:
        return None
    found: list[str] = []
    for token in _tokens(value):
        if token.startswith("MIG-") and _by_uuid(token, seen) is None:
            return None
        key = _at(token, given) if re.fullmatch(r"-?\d+", token) else _by_uuid(token, seen)
        if key is None:
            break
        found.append(key)
    return found


def _tokens(value: str) -> list[str]:
    return [token.strip() for token in value.split(",") if token.strip()]


def _at(token: str, given: Sequence[str]) -> str | None:
    return given[int(token)] if 0 <= int(token) < len(given) else None


def _by_uuid(token: str, seen: _Seen) -> str | None:
    """The key of a GPU's UUID (may be abbreviated), or of a MIG device; None: none, or several.

    The exporter's rows have a MIG instance's parent and number, but not its UUID: the name of before R470
    (MIG-GPU-<uuid>/<instance>/<compute instance>) can be told, that of today only where there is one instance.
    """
    instances = [key for key in seen.dcgm if "/" in key]
    if token.startswith("MIG-GPU-"):
        key = token.removeprefix("MIG-").rpartition("/")[0]
        return key if key in seen.dcgm else None
    if token.startswith("MIG-"):
        return instances[0] if len(instances) == 1 else None
    matching = {parent(key) for key in seen.dcgm if key.startswith(token)} if token.startswith("GPU-") else set()
    return matching.pop() if len(matching) == 1 else None


# -- all of them ---------------------------------------------------------------------------------------


def _all_shown(seen: _Seen, choice: GpuChoice) -> Selection:
    if not seen.dcgm:
        return Selection((), "no source shows a GPU")
    if choice.elsewhere and choice.own_node:
        note = (
            "Triton runs elsewhere and names no GPU: those of this node are not its; set dcgm_exporter_url and `gpus`"
        )
        return Selection((), "none is known to be Triton's", (note,))
    unmapped = any("/" in key for key in seen.dcgm) and not any(gpu.users for gpu in seen.dcgm.values())
    note = f"all {len(seen.dcgm)} GPUs of the exporter are shown, Triton names none: {OTHERS}"
    return _selection(seen.dcgm, "all that the exporter shows", note + (_UNMAPPED if choice.pod and unmapped else ""))


def _shared(gpus: Iterable[str], seen: _Seen, choice: GpuChoice) -> Iterable[str]:
    """Notes on the GPUs that the exporter maps to other pods, too (time-slicing, MPS)."""
    for key in gpus:
        users = {f"{user.namespace}/{user.pod}" for user in seen.dcgm[key].users} if key in seen.dcgm else set()
        ours = f"{choice.namespace}/{choice.pod}"
        others = sorted(users - {ours})
        if len(users) > 1 or (others and choice.pod and not choice.elsewhere):
            yield f"{key}: the exporter maps it to {', '.join(others)}: its figures include others' work"
