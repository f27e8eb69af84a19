"""Folders of data sets from the environment, where nobody gives them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fermt.cli import app
from fermt.cli.common import Dataset
from fermt.datasets import open_benchmark
from fermt.evaluation.results import write_result
from fermt.roots import ROOTS_VARIABLE, roots

from .support.datasets import got10k, lasot_test
from .support.errors import refused


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Miniatures of GOT-10k and LaSOT, in the environment and nowhere else."""
    for split in ("train", "val"):
        got10k(tmp_path / "got 10k", split=split)
    lasot_test(tmp_path / "lasot")
    places = (("got10k", "got 10k"), ("lasot", "lasot"))
    monkeypatch.setenv(ROOTS_VARIABLE, os.pathsep.join(f"{name}={tmp_path / folder}" for name, folder in places))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_what_is_given_comes_first(environment: Path) -> None:
    assert roots() == {"got10k": str(environment / "got 10k"), "lasot": str(environment / "lasot")}
    assert Dataset("got10k", None).root == environment / "got 10k"
    assert Dataset("got10k", Path("/given")).root == Path("/given")
    assert Dataset("nfs", None).place is None
    with refused(ValueError, "nfs", "--dataset", ROOTS_VARIABLE):
        _ = Dataset("nfs", None).root


@pytest.mark.parametrize("text", ["/data", "=/data", "got10k=", f"got10k=/a{os.pathsep}lasot"])
def test_another_form_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, text)
    with refused(ValueError, ROOTS_VARIABLE, "NAME=FOLDER", repr(text.split(os.pathsep)[-1])):
        roots()


def test_evaluation(environment: Path) -> None:
    benchmark = open_benchmark("got10k", environment / "got 10k")
    for i in range(len(benchmark)):
        sequence = benchmark[i]
        write_result(environment / "mine", sequence.name, sequence.boxes, sequence.boxes[:, 0] * 0 + 0.01)
    status, printed = invoke("eval", "--dataset", "got10k", "--results", environment / "mine")
    assert status == 0, printed
    assert "1.000 [1.000, 1.000]" in printed
    status, printed = invoke("eval", "--dataset", "nfs", "--results", environment / "mine")
    assert status == 1
    assert f"{ROOTS_VARIABLE}=nfs=FOLDER" in printed


def test_training(environment: Path) -> None:
    command = ("train", "--config", "paper-got10k", "--dry-run", "--set", "workers=0")
    status, printed = invoke(*command)
    assert status == 0, printed
    assert "got10k 100%" in printed
    status, printed = invoke(*command, "--dataset", f"got10k={environment / 'nowhere'}")
    assert status == 1
    assert "nowhere" in printed


def test_a_preview(environment: Path) -> None:
    out = environment / "pairs.png"
    status, printed = invoke("data", "preview", "--dataset", "got10k", "--pairs", 2, "--out", out, "--no-cache")
    assert status == 0, printed
    assert out.exists()
    status, printed = invoke("data", "preview", "--dataset", "coco", "--out", out)
    assert status == 1
    assert f"{ROOTS_VARIABLE}=coco=FOLDER" in printed
