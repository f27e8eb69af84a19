"""`fermt train`: what it says it will do, that it does it, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.training import TRAINING

from .support import datasets, micro
from .support.errors import lacking

SMALL = ("epochs=1", "pairs=8", "batch=4", "workers=0", "validation_pairs=4", "log_every=1")


class Ran(NamedTuple):
    exit_code: int
    output: str


def run(*arguments: str | Path) -> Ran:
    wide = {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}  # so that no name is broken within a word
    result = CliRunner().invoke(app, ["train", *map(str, arguments)], env=wide)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ran(result.exit_code, " ".join(result.output.replace("│", "").split()))


def changes(*more: str) -> list[str]:
    model = f"model_options={json.dumps(micro.MODEL)}"
    return [part for change in (model, *SMALL, *more) for part in ("--set", change)]


def test_a_small_run_goes_on_and_its_weights_load(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("--out", out, "--device", "cpu", *changes())
    assert result.exit_code == 0, result.output
    for said in ("model fermt, ", "data synthetic 100%", "1 epochs x 2 of 4 pairs", "cpu, backend auto"):
        assert said in result.output
    assert f"Weights in {out / 'weights.safetensors'}" in result.output
    assert fermt.load(out / "weights.safetensors").config.dim == micro.MODEL["dim"]
    assert {path.name for path in out.iterdir()} == {
        *("weights.safetensors", "best.safetensors", "metrics.csv", "config.json", "state-000000002.pt")
    }
    again = run("--out", out, "--device", "cpu", *changes("epochs=2"))
    assert "Continues after step 2 of 4." in again.output
    shorter = run("--out", out, "--device", "cpu", *changes("epochs=1"))
    assert (shorter.exit_code, "The time is over" in shorter.output) == (0, False), shorter.output
    assert run("--out", out, "--device", "cpu", *changes("lr=0.1")).exit_code == 1
    fresh = run("--out", out, "--device", "cpu", "--fresh", *changes("lr=0.1"))
    assert fresh.exit_code == 0, fresh.output
    assert "Continues" not in fresh.output


def test_a_file_of_a_run_gives_the_same_run(tmp_path: Path) -> None:
    first = run("--out", tmp_path / "a", "--device", "cpu", *changes())
    second = run("--out", tmp_path / "b", "--device", "cpu", "--config", tmp_path / "a" / "config.json")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()


def test_the_papers_recipe_on_miniatures_of_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of a few pairs of the full model through every stage: four data sets, validation, states, weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    roots = {
        name: make(tmp_path / name)
        for name, make in (
            ("got10k", datasets.got10k),
            ("lasot", datasets.lasot),
            ("trackingnet", datasets.trackingnet),
            ("coco", datasets.coco),
        )
    }
    shutil.copytree(roots["got10k"] / "train", roots["got10k"] / "val")
    damaged = next((roots["coco"] / "train2017").glob("*.jpg"))
    datasets.cut(damaged)
    given = [part for name, root in roots.items() for part in ("--dataset", f"{name}={root}")]
    small = ("epochs=1", "pairs=32", "batch=8", "workers=1", "validation_pairs=4", "log_every=1")
    result = run(
        "--config", "paper", "--out", tmp_path / "run", "--device", "cpu", *given,
        *(part for change in small for part in ("--set", change)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "held-out IoU" in result.output
    assert "replaced so far: " in result.output
    assert "unreadable images" in result.output
    assert fermt.load(tmp_path / "run" / "weights.safetensors").config == fermt.CONFIGS["fermt"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        steps = list(csv.DictReader(file))
    assert [row["step"] for row in steps] == ["1", "2", "3", "4"]
    assert all(float(row["loss"]) > 0 for row in steps)


@pytest.mark.parametrize("model", ["a2a5-3-9", "fermt-corner"])
def test_dry_run_does_nothing(tmp_path: Path, model: str) -> None:
    options = ("--config", "synthetic", "--model", model, "--no-dau", "--dry-run", "--device", "cpu")
    result = run("--out", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    assert f"model {model}, " in result.output
    assert "without Dual Attention Unit" in result.output
    assert not (tmp_path / "run").exists()


def test_help_names_every_recipe() -> None:
    printed = run("--help").output
    assert all(name in printed for name in TRAINING)


REFUSED = [
    (("--config", "papper"), ("'papper'", "paper, paper-got10k")),
    (("--config", "paper"), ("coco, got10k, lasot, trackingnet", "--dataset coco=FOLDER")),
    (("--dataset", "got10k="), ("--dataset", "NAME=FOLDER", "'got10k='")),
    (("--dataset", "got10k=/data"), ("dataset", "synthetic", "'got10k'")),
    (("--set", "epochs"), ("'epochs'",)),
    (("--set", "epoch=1"), ("'epoch'", "epochs")),
    (("--set", "synthetic=hardest"), ("'hardest'", "hard")),
    (("--set", 'synthetic_options={"color": 1}'), ("synthetic_options", "{'color': 1}")),
    (("--device", "tpu"), ("auto, cpu, cuda or cuda:N", "'tpu'")),
    (("--backend", "fast"), ("backend", "'fast'")),
]


@pytest.mark.parametrize(("arguments", "values"), REFUSED)
def test_what_is_refused(tmp_path: Path, arguments: tuple[str, ...], values: tuple[str, ...]) -> None:
    result = run("--out", tmp_path / "run", *arguments)
    assert result.exit_code in (1, 2)
    assert lacking(result.output, *values) == []
    assert not (tmp_path / "run").exists()


def test_a_root_that_is_not_there_shows_the_layout(tmp_path: Path) -> None:
    result = run("--config", "paper-got10k", "--dataset", f"got10k={tmp_path / 'nowhere'}", "--dry-run")
    assert result.exit_code == 1
    assert "list.txt" in result.output
