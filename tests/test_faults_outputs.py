"""Outputs of every command that cannot be written: status 1, one line that names the file, and nothing left of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.evaluation.results import write_result

from .support import clips, datasets
from .test_train_command import changes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the limits are those of POSIX")
READ_ONLY, FULL = "Read-only file system", "File too large"  # a file at its limit is as a full disk


class Command(NamedTuple):
    """GOT10K, SUBMITTED, WEIGHTS, RESULTS, FRAMES, CHECKPOINT and OUT, the folder of outputs, stand for paths."""

    arguments: tuple[str, ...]
    named: str  # the file in the message


SCORES = ("eval", "--dataset", "got10k=GOT10K", "--results", "RESULTS")
COMMANDS = {
    "track": Command(
        ("track", "FRAMES", "--box", "20,15,26,22", "--weights", "WEIGHTS", "--out", "OUT/a.csv"), "a.csv"
    ),
    "eval": Command(
        ("eval", "--dataset", "got10k=GOT10K", "--weights", "WEIGHTS", "--workers", "1", "--out", "OUT/run"), "OUT/run"
    ),
    "scores": Command((*SCORES, "--json", "OUT/a.json"), "OUT/a.json"),
    "plot": Command((*SCORES, "--plot", "OUT/a.png"), "OUT/a.png"),
    "pack": Command(
        ("pack", "--dataset", "got10k=GOT10K", "--results", "SUBMITTED", "--out", "OUT/a.zip"), "OUT/a.zip"
    ),
    "preview": Command(
        ("data", "preview", "--dataset", "got10k=GOT10K", "--no-cache", "--pairs", "1", "--out", "OUT/a.png"),
        "OUT/a.png",
    ),
    "bench": Command(
        ("bench", "--weights", "WEIGHTS", "--video", "FRAMES", "--seconds", "0.1", "--json", "OUT/a.json"), "OUT/a.json"
    ),
    "convert": Command(("convert", "CHECKPOINT", "OUT/a.safetensors"), "OUT/a.safetensors"),
    "export": Command(("export", "--weights", "WEIGHTS", "--out", "OUT/a.pt2"), "OUT/a.pt2"),
    "train": Command(("train", "--out", "OUT/run", "--device", "cpu", *changes()), "OUT/run"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, small_weights: Path, whole_run: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("given")
    (root / "frames").mkdir()
    for i in range(3):
        assert cv2.imwrite(str(root / "frames" / f"{i}.png"), np.full((90, 120, 3), 80 + i, np.uint8))
    for i, (name, count) in enumerate(zip(clips.names("test"), clips.LENGTHS, strict=True)):
        write_result(root / "submitted", name, np.array([clips.box(i, 0)] * count), np.full(count, 0.01))
    torch.save({"net": fermt.build_model("fermt").state_dict()}, root / "authors.pth.tar")
    return {
        "GOT10K": datasets.got10k(clips.got10k(clips.got10k(root / "got10k"), "test")),
        "SUBMITTED": root / "submitted",
        "WEIGHTS": small_weights,
        "RESULTS": whole_run,
        "FRAMES": root / "frames",
        "CHECKPOINT": root / "authors.pth.tar",
    }


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for root, to whom modes mean nothing: as on a file system that is mounted read-only."""
    opened, made = os.open, os.mkdir

    def refuse(path: object, flags: int, *more: int, **options: int) -> int:
        if flags & os.O_CREAT and "out" in str(path):
            raise OSError(30, READ_ONLY, str(path))
        return opened(path, flags, *more, **options)  # type: ignore[call-overload]

    def refuse_folder(path: object, *more: int) -> None:
        if "out" in str(path):
            raise OSError(30, READ_ONLY, str(path))
        made(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse_folder)


@pytest.fixture
def full() -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def failing(command: str, places: dict[str, Path], out: Path) -> str:
    arguments, named = COMMANDS[command]
    for name, place in (places | {"OUT": out}).items():
        arguments, named = tuple(part.replace(name, str(place)) for part in arguments), named.replace(name, str(place))
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    line = next(line for line in result.output.splitlines() if line.startswith("Error: "))
    assert named in line
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_read_only(
    command: str, places: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "out").mkdir()
    request.getfixturevalue("read_only")
    assert READ_ONLY in failing(command, places, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("command", ["scores", "plot", "pack", "convert"])
def test_a_full_disk(command: str, places: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The other commands are in test_faults.py, stopped at drawn moments."""
    (tmp_path / "out").mkdir()
    request.getfixturevalue("full")
    assert FULL in failing(command, places, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("command", ["eval", "train"])
def test_a_file_where_a_folder_is_expected(command: str, places: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run").write_text("mine")
    failing(command, places, tmp_path / "out")
    assert (tmp_path / "out" / "run").read_text() == "mine"
