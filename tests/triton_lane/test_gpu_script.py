"""The GPU benchmark's own code, tried out on small cases: what it checks, counts, prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from benchmarks.cases import OURS
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import checks, clocks, frame, frame_checks, ops, triton_tune, tune_frame
from fermt_kernels import triton as triton_backend
from fermt_kernels.triton import frame_head, frame_tiles
from fermt_kernels.triton.attention import FORWARD

RUNNERS = {
    "ops": {"fermt", "eager", "SDPA a group", "SDPA, mask"},
    "frame": {
        *("fermt", "fermt, from the CPU", "fermt, no graph", "fermt, launches alone"),
        *("eager, cached", "eager, cached, channels last", "eager, whole", "eager, whole, channels last"),
    },
    "crop": {
        *("fermt", "fermt, with the image's copy", "OpenCV on the CPU", "OpenCV on the CPU, with the crops' copy"),
    },
    "compiled": {"fermt"},  # it is left out without a GPU
}


def written(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"gpu-dry-run-{part}.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_the_dry_run_checks_measures_and_writes(tmp_path: Path) -> None:
    gpu.main(out=tmp_path, dry_run=True)
    for part, runners in RUNNERS.items():
        lines = written(tmp_path, part)
        assert {line["runner"] for line in lines} == runners
        assert all(line["seconds"] > 0 and line["gpu"] == "dry-run" for line in lines)
    assert (tmp_path / "gpu-dry-run-ops.md").read_text().count("|\n") == 2 + 2 * 2 * len(ops.CLOCKS)
    printed = (tmp_path / "gpu-dry-run-frame.md").read_text()
    assert "| frame | float32 | 1 | fermt, launches alone | - | - | " in printed
    kernels = written(tmp_path, "kernels")
    assert {"embedding_kernel", "maps_kernel", "center_box_kernel"} <= {line["kernel"] for line in kernels}
    assert all(line["seconds"] > line["floor"] for line in kernels)
    assert (
        f"| all |  | {sum(line['launches'] for line in kernels)} |" in (tmp_path / "gpu-dry-run-kernels.md").read_text()
    )
    assert not list(tmp_path.glob("*.part"))


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="got 'frames'"):
        gpu.main(out=tmp_path, only="ops,frames", dry_run=True)


def test_a_stopped_part_leaves_what_it_had(tmp_path: Path) -> None:
    def stopped() -> Iterator[dict[str, Any]]:
        yield {"seconds": 1.0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu._write(tmp_path / "gpu-x", gpu.Part(stopped, str, 1.0), {"gpu": "x"}, "head")
    (file,) = tmp_path.iterdir()
    assert (file.name, file.read_text()) == ("gpu-x.jsonl.part", '{"seconds": 1.0, "gpu": "x"}\n')


def test_a_peer_that_fails_says_why_and_ours_raises() -> None:
    tries = []

    def broken() -> clocks.Run:
        tries.append(1)
        raise ValueError("too wide")

    shared = {"benchmark": "frame", "dtype": "float32", "batch": 4}
    runners = {
        OURS: clocks.Runner.of(list, clocks.FRAME_CLOCKS),
        "a peer": clocks.Runner(broken, clocks.BY_THE_WALL),
    }
    machine = clocks.Machine("cpu", print)
    lines = list(clocks.timed("frame", runners, shared, machine))
    failed = [line.get("failed") for line in lines if line["runner"] == "a peer"]
    assert failed == ["ValueError: too wide"] * 2
    ours = [line for line in lines if line["runner"] == OURS]
    assert [(line["timing"], line["against_ours"]) for line in ours] == [(clock, 1.0) for clock in clocks.FRAME_CLOCKS]
    assert len(tries) == 1
    text = clocks.table(lines)
    assert "| a peer | failed | failed | - | - | 0 | 0 |" in text
    assert "a peer failed: ValueError: too wide" in text
    with pytest.raises(ValueError, match="too wide"):
        list(clocks.timed("frame", {OURS: runners["a peer"]}, shared, machine))


@pytest.mark.slow
@pytest.mark.usefixtures("few_programs")
def test_a_peer_of_another_function_fails() -> None:
    with torch.no_grad():
        subject = frame.Subject.of(torch.float32, 1, "cpu")
        whole = frame.MAKE["whole"](subject.model, *subject.images())
        frame._checked(subject, whole, whole.module)
        with pytest.raises(ValueError, match="_map is .* from ours"):
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
    monkeypatch.setattr(frame_checks, "SMALL", frame_checks.SMALL._replace(models=("center",)))
    _, found = frame_checks.wrong("cpu", triton_backend.DTYPES[:1], print, small=True)
    assert len(found) == 5
    assert found[0].startswith("frame, center, float32, B = 3, score_map: largest error 0.001")
    assert found[-1].startswith("frame, center, float32, B = 3, boxes by its own maps")
    assert frame_checks.differs("cpu", triton_backend.DTYPES[:1], print, runs=1, small=True) == [
        "frame, float32, B = 3, captured"
    ]
    monkeypatch.setattr(frame_checks, "TF32_OF_BFLOAT16", 0.0)
    assert any("score_map" in fault for fault in frame_checks.wrong_in_tf32("cpu", print, small=True))
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = triton_backend.dual_attention_unit_forward

    def wrong(x, weights, out):  # type: ignore[no-untyped-def]
        right(x, weights, out)
        out.mul_(1.001)

    monkeypatch.setattr(triton_backend, "dual_attention_unit_forward", wrong)
    _, found = checks.wrong("cpu", triton_backend.DTYPES[:1], small=True)
    assert found
    assert all("unit" in fault for fault in found)


@pytest.mark.slow
def test_the_tuner_prints_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    triton_tune.main(dims="16", batch=1, dry_run=True)
    printed = capsys.readouterr().out
    for name in ("FORWARD(4, 16)", "BACKWARD_QUERIES(4, 16)", "BACKWARD_KEYS(4, 16)"):
        assert f"{name}: Blocks(" in printed


@pytest.mark.slow
def test_the_frames_tuner_finds_the_best_and_leaves_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an assumed time that falls with rows of the convolution's tile; other rows do not fit the chip."""
    before = frame_tiles.FEW[4]

    def seconds(subject: object, on_gpu: bool) -> float | str:
        return "OutOfResources: shared memory" if frame_tiles.FEW[4].convolution.m == 32 else 1e-3 / rows()

    def rows() -> int:
        return frame_tiles.FEW[4].convolution.m * frame_tiles.FEW[4].attention.get(16, FORWARD[4, 16]).n

    monkeypatch.setattr(tune_frame, "_seconds", seconds)
    monkeypatch.setattr(tune_frame, "_others", partial(every_other, tune_frame._others))
    triton_tune.main(frame=True, dtype="float32", entries="convolution,attention", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert "convolution: Tiles(32, 32, 32, Tuning(4, 1)): left out, OutOfResources: shared memory" in lines
    assert lines[-2:] == [
        "convolution: Tiles(128, 32, 32, Tuning(4, 1))  # new",
        f"attention: Blocks({FORWARD[4, 16].m}, 128, Tuning(4, 1))  # new",
    ]
    assert frame_tiles.FEW[4] is before


def every_other(right: Callable, entry: Any, name: str, number: str, small: bool) -> Iterator[Any]:
    return right(entry, name, number, False)


@pytest.mark.slow
def test_the_frames_tuner_runs(capsys: pytest.CaptureFixture[str]) -> None:
    triton_tune.main(frame=True, dtype="float32", entries="attention", dry_run=True)
    assert "FEW[4], B = 1: " in (printed := capsys.readouterr().out)
    assert "1 tried" in printed
    with pytest.raises(typer.BadParameter, match="got 'float32', 'qvk'"):
        triton_tune.main(frame=True, dtype="float32", entries="qvk", dry_run=True)


@pytest.mark.slow
def test_a_table_that_computes_something_else_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tune_frame._subject("cpu", torch.float32, 1, small=True)
    assert isinstance(tune_frame._seconds(subject, on_gpu=False), float)
    subject.maps.add_(1)
    assert str(tune_frame._seconds(subject, on_gpu=False)).startswith("maps are 1 apart")


def test_a_wrong_crop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = triton_backend.crop_forward

    def wrong(image, squares, out):  # type: ignore[no-untyped-def]
        right(image, squares, out)
        out[0, 0, 0, 0] += 1

    monkeypatch.setattr(checks, "CROP_SIZES", (5,))
    assert checks.wrong_crops("cpu") == []
    monkeypatch.setattr(triton_backend, "crop_forward", wrong)
    assert checks.wrong_crops("cpu") == ["crop 5x5: 1 of 300 bytes differ"]
