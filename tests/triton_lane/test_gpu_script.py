"""The GPU benchmark's own code, tried out on small cases: what it checks, counts, prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_checks, triton_tune
from fermt_kernels import triton as room


def test_the_dry_run_checks_measures_and_writes(tmp_path: Path) -> None:
    gpu.main(out=tmp_path, check=True, plan=False, dry_run=True)
    lines = [json.loads(line) for line in (tmp_path / "gpu-dry-run.jsonl").read_text().splitlines()]
    assert {line["runner"] for line in lines} == {"fermt", "eager", "SDPA a group", "SDPA, mask"}
    assert all(line["seconds"] > 0 for line in lines)
    assert (tmp_path / "gpu-dry-run.md").read_text().count("|\n") == 6
    assert not list(tmp_path.glob("*.part"))


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = room.dual_attention_unit_forward

    def wrong(x, weights, out):  # type: ignore[no-untyped-def]
        right(x, weights, out)
        out.mul_(1.001)

    monkeypatch.setattr(room, "dual_attention_unit_forward", wrong)
    _, found = gpu_checks.wrong("cpu", room.DTYPES[:1], small=True)
    assert found
    assert all("unit" in fault for fault in found)


def test_the_tuner_prints_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    triton_tune.main(dims="16", batch=1, dry_run=True)
    printed = capsys.readouterr().out
    for name in ("FORWARD(4, 16)", "BACKWARD_QUERIES(4, 16)", "BACKWARD_KEYS(4, 16)"):
        assert f"{name}: Blocks(" in printed


def test_a_wrong_crop_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = room.crop_forward

    def wrong(image, squares, out):  # type: ignore[no-untyped-def]
        right(image, squares, out)
        out[0, 0, 0, 0] += 1

    monkeypatch.setattr(gpu_checks, "CROP_SIZES", (5,))
    assert gpu_checks.wrong_crops("cpu") == []
    monkeypatch.setattr(room, "crop_forward", wrong)
    assert gpu_checks.wrong_crops("cpu") == ["crop 5x5: 1 of 300 bytes differ"]
