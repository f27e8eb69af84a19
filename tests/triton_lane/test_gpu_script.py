"""The GPU benchmark's own code, tried out on small cases: what it checks, counts, prints and chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cases import OURS
from benchmarks.gpu import checks, clocks, frame, frame_checks, ops, triton_tune
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.work import H200
from benchmarks.harness import Sample
from fermt_kernels import triton as triton_backend
from fermt_kernels.triton import frame_head, measured
from fermt_kernels.triton.attention import FORWARD
from fermt_kernels.triton.launch import Blocks, Tiles, Tuning
from fermt_kernels.triton.measured import Candidate

from ..support.errors import refused

RUNNERS = {
    "ops": {"fermt", "eager", "SDPA a group", "SDPA, mask"},
    "frame": {
        *("fermt", "fermt, from the CPU", "fermt, no graph", "fermt, launches alone"),
        *("fermt, from an image", "fermt, from an image on the GPU", "fermt, from OpenCV's crops"),
        "fermt, launches alone from an image",
        *("eager, cached", "eager, cached, channels last", "eager, cached, channels last, SDPA"),
        "eager, whole, channels last",
    },
    "crop": {
        *("fermt", "fermt, with the image's copy", "OpenCV on the CPU", "OpenCV on the CPU, with the crops' copy"),
    },
    "compiled-frame-1": {"fermt"},  # it is left out without a GPU
}
MACHINE = clocks.Machine("cpu", print)


def lines_of(part: str) -> list[dict[str, Any]]:
    return list(PARTS[part].lines(MACHINE, (0, 1)))


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("part", RUNNERS)
def test_every_runner_is_timed(part: str) -> None:
    lines = lines_of(part)
    assert {line["runner"] for line in lines} == RUNNERS[part]
    assert all(line["seconds"] > 0 for line in lines)
    text = PARTS[part].table(lines, H200)
    if part == "ops":
        assert text.count("|\n") + 1 == 2 + 2 * 2 * len(ops.CLOCKS)
    if part == "frame":
        assert "| frame | float32 | 1 | fermt, launches alone | - | - | " in text


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_every_kernel_is_beside_its_floor() -> None:
    lines = lines_of("kernels")
    assert {"embedding_kernel", "maps_kernel", "center_box_kernel"} <= {line["kernel"] for line in lines}
    assert f"| all |  | {sum(line['launches'] for line in lines)} |" in PARTS["kernels"].table(lines, H200)


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("part", ["agree", "check-frames", "memcheck"])
def test_checks_find_nothing(part: str) -> None:
    lines = lines_of(part)
    assert lines
    assert [line for line in lines if line["faults"]] == []
    assert f"{len(lines)} checks, " in PARTS[part].table(lines, H200)


def test_shares_are_all_of_it_once() -> None:
    names = [name for name, _ in checks.of_ops("cpu", triton_backend.DTYPES, small=True)]
    assert len(names) > 4
    assert len(set(names)) == len(names)


def test_a_check_that_raises_is_a_fault_and_the_next_runs() -> None:
    def broken() -> checks.Found:
        raise RuntimeError("an illegal memory access")

    lines = list(checks.run([("broken", broken), ("right", lambda: (3, []))]))
    assert [line["faults"] for line in lines] == [["RuntimeError: an illegal memory access"], []]
    assert checks.faults_in([("broken", broken)]) == ["broken: RuntimeError: an illegal memory access"]


def test_what_fails_says_why() -> None:
    tries = []

    def broken() -> clocks.Run:
        tries.append(1)
        raise ValueError("too wide")

    shared = {"benchmark": "frame", "dtype": "float32", "batch": 4}
    runners = {
        OURS: clocks.Runner.of(list, clocks.FRAME_CLOCKS),
        "a peer": clocks.Runner(broken, clocks.BY_THE_WALL),
    }
    lines = list(clocks.timed("frame", runners, shared, MACHINE))
    failed = [line.get("failed") for line in lines if line["runner"] == "a peer"]
    assert failed == ["ValueError: too wide"] * 2
    ours = [line for line in lines if line["runner"] == OURS]
    assert [(line["timing"], line["against_ours"]) for line in ours] == [(clock, 1.0) for clock in clocks.FRAME_CLOCKS]
    assert len(tries) == 1
    text = clocks.table(lines)
    assert "| a peer | failed | failed | - | - | 0 | 0 |" in text
    assert "a peer failed: ValueError: too wide" in text
    without = {OURS: runners["a peer"], "a peer": runners[OURS]}  # a peer's time is worth having by itself
    lines = list(clocks.timed("frame", without, shared, MACHINE))
    assert {line["runner"]: "failed" in line for line in lines} == {OURS: True, "a peer": False}
    assert all(line["against_ours"] is None for line in lines if line["runner"] == "a peer")
    assert "| a peer | " in clocks.table(lines)


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_a_peer_of_another_function_fails() -> None:
    with torch.no_grad():
        subject = frame.Subject.of(torch.float32, 1, "cpu")
        whole = frame.MAKE["whole"](subject.model, *subject.images())
        frame._checked(subject, whole, whole.module)
        with refused(ValueError, "score_map"):
            frame._checked(subject, whole, lambda *images: [1 - x for x in whole.module(*images)])


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_wrong_frames_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right, runs = frame_head.Head.run, []

    def wrong(self, tokens):  # type: ignore[no-untyped-def]
        right(self, tokens)
        self.maps.add_(1e-3)
        runs.append(1)
        self.boxes.mul_(1 + 1e-6 * len(runs))

    monkeypatch.setattr(frame_head.Head, "run", wrong)
    monkeypatch.setattr(frame_checks, "TF32_OF_BFLOAT16", 0.0)
    plan = frame_checks.SMALL._replace(models=("center",))
    exact, tf32, bits, images = frame_checks.of_frames("cpu", triton_backend.DTYPES[:1], plan, small=True, runs=1)
    found = checks.faults_in([exact])
    assert len(found) == 5
    assert found[0].startswith("frame, center, float32: B = 3, score_map: largest error 0.001")
    assert found[-1].startswith("frame, center, float32: B = 3, boxes by its own maps")
    assert "frame, float32, B = 3, 1 runs: captured" in checks.faults_in([bits])
    assert checks.faults_in([images])[0].startswith("frame from an image, float32, B = 3: 48 x 64, from the CPU")
    assert any("score_map" in fault for fault in checks.faults_in([tf32]))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = triton_backend.dual_attention_unit_forward

    def wrong(x, weights, out):  # type: ignore[no-untyped-def]
        right(x, weights, out)
        out.mul_(1.001)

    monkeypatch.setattr(triton_backend, "dual_attention_unit_forward", wrong)
    by_rule = [each for each in checks.of_ops("cpu", triton_backend.DTYPES[:1], small=True) if "float32" in each[0]]
    found = checks.faults_in(by_rule)
    assert found
    assert all("unit" in fault for fault in found)


def test_a_wrong_crop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = triton_backend.crop_forward

    def wrong(image, squares, out):  # type: ignore[no-untyped-def]
        right(image, squares, out)
        out[0, 0, 0, 0] += 1

    monkeypatch.setattr(checks, "CROP_SIZES", (5,))
    assert checks.wrong_crops("cpu") == (1, [])
    monkeypatch.setattr(triton_backend, "crop_forward", wrong)
    assert checks.wrong_crops("cpu") == (1, ["crop 5x5: 1 of 300 bytes differ"])


SLOWER, FASTER, ELSEWHERE = (Blocks(32, 16, Tuning(4)), Blocks(16, 32, Tuning(4)), Blocks(16, 16, Tuning(4)))
NORM = Tiles(8, 1, 64, Tuning(4))
TRIED = {
    ("FORWARD", 4, 16): (Candidate(SLOWER, (0,)), Candidate(FASTER, (0, 90)), Candidate(ELSEWHERE, (90,)),
                         Candidate(ELSEWHERE, (0,), newest=(3, 4))),
}  # fmt: skip


def test_the_fastest_candidate_of_the_architecture_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By assumed times: a second for each row of the blocks in use."""

    (entry,) = TRIED
    rows: list[float] = []

    def sample(ready: triton_tune.Ready, on_gpu: bool) -> Sample:
        ready.run()
        seconds = rows[-1]
        return lambda: seconds

    def seen(*arguments: Any) -> None:
        rows.append(float(measured.sizes(0, *entry, FORWARD[4, 16]).m))
        right(*arguments)

    right = triton_backend.attention_forward
    monkeypatch.setattr(triton_backend, "attention_forward", seen)
    monkeypatch.setattr(triton_tune, "_sample", sample)
    lines = list(triton_tune.lines(MACHINE, TRIED))
    assert [line.get("runner") for line in lines] == [triton_tune.NOW, str(SLOWER), str(FASTER), None]
    assert lines[-1]["entries"] == measured.written({entry: FASTER})
    assert str(SLOWER) in triton_tune.table(lines)
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"80": {"gpu": "another", "entries": {}}}))
    triton_tune.write(lines[-1] | {"arch": 90}, {"gpu": "a GPU"}, path)
    assert measured.read(json.loads(path.read_text())) == {80: {}, 90: {entry: FASTER}}


def test_a_candidate_that_computes_something_else_or_fails_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    right = triton_backend.attention_forward

    def wrong(q, k, v, out, *others):  # type: ignore[no-untyped-def]
        right(q, k, v, out, *others)
        chosen = measured._replaced.get(("FORWARD", 4, 16))
        out.add_(chosen == SLOWER)
        if chosen == FASTER:
            raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(triton_backend, "attention_forward", wrong)
    lines = list(triton_tune.lines(MACHINE, TRIED))
    failed = {line["runner"]: line["failed"] for line in lines if "failed" in line}
    assert failed == {
        str(SLOWER): "ValueError: results are 1 from those of the present sizes",
        str(FASTER): "RuntimeError: out of resource: shared memory",
    }
    assert lines[-1]["entries"] == {}


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_a_frames_entry_is_timed_by_the_whole_frame() -> None:
    lines = list(triton_tune.lines(MACHINE, {("FEW", 4, "norm"): (Candidate(NORM, (0,)),)}))
    assert [line["runner"] for line in lines[:-1]] == [triton_tune.NOW, str(NORM)]
    assert all(line["seconds"] > 0 for line in lines[:-1])
