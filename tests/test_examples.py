"""The example scripts do what they say, run as a reader would run them."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fermt
from fermt.tracking.sources import open_source

from .support.packed import small_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_every_script_is_run_by_a_test() -> None:
    run = {"track_video.py", "flops_and_latency.py", "swap_into_training.py"}
    elsewhere = {"onnx_track.py"}  # test_export.py
    assert {file.name for file in EXAMPLES.glob("*.py")} == run | elsewhere


def test_track_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fermt.save(fermt.build_model(small_model("center").config), tmp_path / "small.safetensors")
    example = runpy.run_path(str(EXAMPLES / "track_video.py"))
    assert example["main"](str(tmp_path / "small.safetensors"), 5, str(tmp_path / "tracked.mp4")) == 5
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        f"frame {i}, {name}" for i in range(1, 5) for name in ("player", "basket")
    ]
    assert len(list(open_source(tmp_path / "tracked.mp4"))) == 5


def test_flops_and_latency(capsys: pytest.CaptureFixture[str]) -> None:
    found = runpy.run_path(str(EXAMPLES / "flops_and_latency.py"))["main"](0.05)
    assert found["GMAC by closed forms"] == pytest.approx(2.671, abs=5e-4)
    assert found["GMAC by torch's counter"] == pytest.approx(found["GMAC by closed forms"], rel=1e-3)
    assert all(value > 0 for value in found.values())
    assert "ms, the packed frame" in capsys.readouterr().out


def test_swap_into_training() -> None:
    before, same, asymmetric = runpy.run_path(str(EXAMPLES / "swap_into_training.py"))["main"](12)
    torch.testing.assert_close(torch.tensor(same), torch.tensor(before), rtol=1e-4, atol=1e-5)
    for losses in (before, same, asymmetric):
        assert losses[-1] < 0.8 * losses[0]


def test_a_script_runs_on_its_own() -> None:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / "swap_into_training.py")], capture_output=True, text=True, check=True
    )
    assert "largest difference of the first two" in finished.stdout
