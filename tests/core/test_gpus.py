from __future__ import annotations

from dataclasses import replace

import pytest

from model_analyzer.core.gpus import GpuChoice, Selection, Visible, select_gpus
from model_analyzer.core.telemetry import Gpu, GpuUser, Page

OURS, THEIRS = GpuUser("ours", "space", "triton"), GpuUser("theirs", "space", "main")
POD = GpuChoice(pod="ours", namespace="space", container="triton")
GUESSED = "some may work for others; set `gpus`"


def gpu(index: str = "0", *users: GpuUser) -> Gpu:
    return Gpu("H100", index, users)


def dcgm(**gpus: Gpu) -> Page:
    """Keys as Python names: A_1 is instance 1 of A, GPU__a is GPU-a."""
    named = {key.replace("__", "-").replace("_", "/"): each for key, each in gpus.items()}
    return Page("dcgm", "dcgm", 0, {}, named)


def triton(*keys: str) -> Page:
    return Page("triton", "triton", 0, {}, {key: Gpu() for key in keys})


def choose(choice: GpuChoice, *pages: Page) -> Selection:
    return select_gpus(pages, choice)


A, B = gpu("0", OURS), gpu("1", THEIRS)
FOUR = dcgm(A=gpu("0"), B=gpu("1"), C=gpu("2"), D=gpu("10"))


@pytest.mark.parametrize(
    ("choice", "pages", "gpus", "rule"),
    [
        (GpuChoice(("B",)), [dcgm(A=A, B=B)], ["B"], "gpus"),
        (GpuChoice(("1",)), [dcgm(A=A, B=B)], ["B"], "gpus"),
        (GpuChoice(()), [dcgm(A=A)], [], "gpus"),
        (replace(POD, wanted=("B",)), [dcgm(A=A, B=gpu("1"))], ["B"], "gpus"),
        (GpuChoice(("A",)), [dcgm(A_1=gpu(), A_2=gpu(), B=B)], ["A/1", "A/2"], "gpus"),
        (GpuChoice(("0",)), [dcgm(A_1=gpu(), A_2=gpu())], ["A/1", "A/2"], "gpus"),
        (GpuChoice(("A/2",)), [dcgm(A_1=gpu(), A_2=gpu())], ["A/2"], "gpus"),
        # In the pod the exporter's word comes before Triton's: a privileged container sees every GPU of the node.
        (POD, [dcgm(A=A, B=B)], ["A"], "the exporter maps them to pod space/ours"),
        (POD, [dcgm(A=A, B=B), triton("A")], ["A"], "the exporter maps them to pod space/ours"),
        (POD, [dcgm(A_1=A, A_2=B), triton("A")], ["A/1"], "the exporter maps them to pod space/ours"),
        (GpuChoice(), [dcgm(A=A, B=B), triton("B")], ["B"], "Triton names them"),
        (POD, [dcgm(A=gpu("0"), B=gpu("1")), triton("B")], ["B"], "Triton names them"),
        (POD, [triton("B")], ["B"], "Triton names them"),
        (GpuChoice(), [dcgm(A=gpu(), A_1=gpu()), triton("A")], ["A", "A/1"], "Triton names them"),
        (GpuChoice(), [triton(), Page("host", "h", 0)], [], "no source shows a GPU"),
        (POD, [Page("dcgm", "", 0, problem="no exporter")], [], "no source shows a GPU"),
    ],
)
def test_the_first_rule_that_has_an_answer_decides(
    choice: GpuChoice, pages: list[Page], gpus: list[str], rule: str
) -> None:
    assert choose(choice, *pages) == Selection(tuple(gpus), rule)


@pytest.mark.parametrize(
    ("choice", "pages", "gpus", "said"),
    [
        (GpuChoice(("A", "GPU-x")), [dcgm(A=A)], ["A"], "gpus asked for but not seen: GPU-x"),
        # A server of ours was started with CUDA_VISIBLE_DEVICES=3 and sees that one only.
        (GpuChoice(("3",)), [triton("A")], ["A"], "gives no index"),
        (GpuChoice(("0",)), [triton("A", "B")], [], "gpus asked for but not seen: 0"),
        (GpuChoice(("0",)), [dcgm(A=gpu("0"), B=gpu("0"))], ["A", "B"], "give UUIDs"),
        (GpuChoice(), [FOUR], list("ABCD"), "all 4 GPUs of the exporter are shown, Triton names none: " + GUESSED),
        (GpuChoice(), [dcgm(A_1=gpu(), A_2=gpu()), triton("A")], ["A", "A/1", "A/2"], "all 2 MIG instances of A"),
        # Old exporters map no MIG instance: the reader is told why all of them are there.
        (POD, [dcgm(A_1=gpu(), A_2=gpu()), triton("A")], ["A", "A/1", "A/2"], "maps no MIG instance to a pod"),
        (POD, [dcgm(A_1=gpu(), A_2=gpu())], ["A/1", "A/2"], "maps no MIG instance to a pod"),
        (POD, [dcgm(A=A, B=gpu("1")), triton("A", "B")], ["A"], "Triton also sees B, not mapped to it by the exporter"),
        (GpuChoice(pod="ours", namespace="elsewhere"), [dcgm(A=A)], ["A"], GUESSED),
    ],
)  # fmt: skip
def test_a_choice_that_is_a_guess_says_so(choice: GpuChoice, pages: list[Page], gpus: list[str], said: str) -> None:
    chosen = choose(choice, *pages)
    assert chosen.gpus == tuple(gpus)
    assert said in chosen.notes[0]


class TestContainersOfThePod:
    OTHER = GpuUser("ours", "space", "preprocessing")

    def test_of_several_with_gpus_tritons_own_counts(self) -> None:
        chosen = choose(POD, dcgm(A=A, B=gpu("1", self.OTHER)))
        assert (chosen.gpus, chosen.notes) == (("A",), ())

    def test_the_only_one_with_gpus_is_taken_whatever_its_name(self) -> None:
        assert choose(POD, dcgm(A=gpu("0", self.OTHER), B=B)).gpus == ("A",)

    @pytest.mark.parametrize("container", ["", "unknown"])
    def test_of_several_all_are_shown_where_tritons_is_not_known(self, container: str) -> None:
        chosen = choose(replace(POD, container=container), dcgm(A=A, B=gpu("1", self.OTHER)))
        assert chosen.gpus == ("A", "B")
        assert "several containers of this pod have GPUs (preprocessing, triton)" in chosen.notes[0]


class TestSharing:
    def test_a_gpu_of_ours_that_others_have_too_is_told(self) -> None:
        chosen = choose(POD, dcgm(A=gpu("0", THEIRS, OURS, GpuUser("third", "space"))))
        assert chosen.gpus == ("A",)
        assert chosen.notes == (
            "A: the exporter maps it to space/theirs, space/third: its figures include others' work",
        )

    def test_a_gpu_that_triton_sees_and_the_exporter_maps_to_another_pod_is_told(self) -> None:
        # Time-slicing without --kubernetes-virtual-gpus: of several pods the exporter names one.
        chosen = choose(POD, dcgm(A=gpu("0", THEIRS)), triton("A"))
        assert chosen.gpus == ("A",)
        assert "maps it to space/theirs" in chosen.notes[0]

    def test_two_containers_of_our_pod_are_no_others(self) -> None:
        assert choose(POD, dcgm(A=gpu("0", OURS, GpuUser("ours", "space", "second")))).notes == ()

    def test_outside_a_pod_one_user_is_taken_for_triton(self) -> None:
        assert choose(GpuChoice(), dcgm(A=B), triton("A")).notes == ()
        assert "maps it to space/ours, space/theirs" in choose(
            GpuChoice(), dcgm(A=gpu("0", OURS, THEIRS)), triton("A")
        ).notes[0]  # fmt: skip


class TestElsewhere:
    """Triton runs in another pod, maybe on another node."""

    FAR = replace(POD, elsewhere=True, own_node=True)

    def test_the_nodes_gpus_are_never_taken_for_tritons(self) -> None:
        chosen = choose(self.FAR, FOUR)
        assert chosen.gpus == ()
        assert "Triton runs elsewhere and names no GPU" in chosen.notes[0]

    def test_gpus_of_our_own_pod_are_not_tritons(self) -> None:
        assert choose(self.FAR, dcgm(A=A)).gpus == ()

    def test_our_environment_says_nothing_of_it(self) -> None:
        assert choose(replace(self.FAR, visible=Visible(cuda="0")), FOUR).gpus == ()

    def test_a_gpu_that_it_names_is_its_own_wherever_it_is(self) -> None:
        assert choose(self.FAR, FOUR, triton("B")) == Selection(("B",), "Triton names them")

    def test_an_exporter_that_does_not_know_that_gpu_is_on_another_node(self) -> None:
        chosen = choose(self.FAR, FOUR, triton("X"))
        assert chosen.gpus == ("X",)
        assert "the exporter of this node shows none of Triton's GPUs" in chosen.notes[0]

    def test_what_the_job_asks_for_is_taken(self) -> None:
        assert choose(replace(self.FAR, wanted=("A",)), FOUR).gpus == ("A",)

    def test_the_pod_that_the_exporter_maps_its_gpu_to_is_triton(self) -> None:
        assert choose(self.FAR, dcgm(A=B), triton("A")).notes == ()

    def test_an_exporter_that_the_user_named_is_taken_for_tritons_with_a_note(self) -> None:
        chosen = choose(replace(self.FAR, own_node=False), FOUR)
        assert len(chosen.gpus) == 4
        assert GUESSED in chosen.notes[0]


NODE = dcgm(GPU__aa1=gpu("0"), GPU__ab2=gpu("1"), GPU__b3_4=gpu("2"))


@pytest.mark.parametrize(
    ("nvidia", "cuda", "gpus"),
    [
        (None, "1", ["GPU-ab2"]),
        (None, "1,0", ["GPU-aa1", "GPU-ab2"]),
        (None, "GPU-ab2", ["GPU-ab2"]),
        (None, "GPU-ab", ["GPU-ab2"]),
        (None, "2", ["GPU-b3/4"]),
        (None, "MIG-GPU-b3/4/0", ["GPU-b3/4"]),
        (None, "MIG-0a1b2c3d-0000-1111-2222-333344445555", ["GPU-b3/4"]),
        # CUDA reads up to the first that is not valid; an abbreviation must be of one.
        (None, "0,-1,1", ["GPU-aa1"]),
        (None, "0,7,1", ["GPU-aa1"]),
        (None, "", []),
        (None, "-1", []),
        (None, "none", []),
        (None, "GPU-a", []),
        ("none", None, []),
        ("1", None, ["GPU-ab2"]),
        ("GPU-ab2", None, ["GPU-ab2"]),
        (" GPU-aa1, GPU-ab2 ", None, ["GPU-aa1", "GPU-ab2"]),
        # Within what the runtime gives, CUDA counts from 0.
        ("1", "0", ["GPU-ab2"]),
        ("GPU-b3,GPU-ab2", "0", ["GPU-ab2"]),
        ("all", "1", ["GPU-ab2"]),
        ("void", "1", ["GPU-ab2"]),
        ("", "1", ["GPU-ab2"]),
        ("/var/run/nvidia-container-devices", "1", ["GPU-ab2"]),
    ],
)
def test_the_devices_that_the_environment_leaves_visible(nvidia: str | None, cuda: str | None, gpus: list[str]) -> None:
    shared = choose(GpuChoice(visible=Visible(cuda, nvidia, shared=True)), NODE)
    assert shared.gpus == tuple(gpus)
    assert shared.notes == (() if gpus else (f"no GPU counts: {shared.rule}",))
    assert "VISIBLE_DEVICES=" in shared.rule

    ours_only = choose(replace(POD, visible=Visible(cuda, nvidia)), NODE)
    if gpus:
        assert ours_only.gpus == tuple(gpus)
        assert "of this container; Triton's may differ" in ours_only.notes[0]
    else:
        assert ours_only.rule == "all that the exporter shows", "our container's lack of GPUs says nothing of Triton's"


@pytest.mark.parametrize(
    "visible",
    [
        Visible(None, None),
        Visible(None, "all"),
        Visible(None, "void"),
        Visible(None, ""),
        Visible(None, "/var/run/nvidia-container-devices"),
        Visible(None, "0:1"),
        Visible(None, "GPU-zzz"),
    ],
)
def test_an_environment_that_says_nothing_leaves_all_of_them_with_a_note(visible: Visible) -> None:
    chosen = choose(GpuChoice(visible=replace(visible, shared=True)), NODE)
    assert len(chosen.gpus) == 3
    assert GUESSED in chosen.notes[0]


def test_a_mig_uuid_among_several_instances_cannot_be_told() -> None:
    page = dcgm(GPU__b3_4=gpu("0"), GPU__b3_5=gpu("0"))
    chosen = choose(GpuChoice(visible=Visible("MIG-0a1b2c3d", shared=True)), page)
    assert chosen.gpus == ("GPU-b3/4", "GPU-b3/5")
    assert GUESSED in chosen.notes[0]


def test_an_index_of_a_gpu_that_is_cut_shows_all_of_its_instances_with_a_note() -> None:
    page = dcgm(GPU__b3_4=gpu("0"), GPU__b3_5=gpu("0"), GPU__c=gpu("1"))
    chosen = choose(GpuChoice(visible=Visible("0", shared=True)), page)
    assert chosen.gpus == ("GPU-b3/4", "GPU-b3/5")
    assert "all MIG instances of GPU-b3 are shown" in chosen.notes[0]


def test_the_environment_of_one_host_says_nothing_of_two_nodes() -> None:
    chosen = choose(GpuChoice(visible=Visible("0", shared=True)), dcgm(A=gpu("0"), B=gpu("0")))
    assert chosen.gpus == ("A", "B")


def test_what_a_source_said_last_counts() -> None:
    assert choose(POD, dcgm(A=A, B=gpu("1")), dcgm(A=gpu("0"), B=gpu("1", OURS))).gpus == ("B",)


def test_why_no_gpu_counts_is_a_problem_like_those_of_the_sources() -> None:
    found = {"dcgm": "one exporter of two: refused"}
    none = choose(GpuChoice(("GPU-x",)), dcgm(A=A))
    assert none.problems(found) == {**found, "gpus": "gpus asked for but not seen: GPU-x"}
    assert choose(GpuChoice(("A", "GPU-x")), dcgm(A=A)).problems(found) == found
    assert choose(GpuChoice(()), dcgm(A=A)).problems(found) == found
