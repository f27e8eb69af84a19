"""Every command, run twice with outputs among its inputs: the second run replaces what the first has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from fermt.cli import app
from fermt.datasets import BENCHMARK_FILES, TRAINING_FILES
from fermt.evaluation.results import write_result
from fermt.marks import is_marked

from .support import clips, datasets
from .support.errors import lacking

BOX = ("--box", "30,20,25,22")


# Reads all of every miniature data set; prints kind and suffix of each file that is opened in its folder.
READER = """
import sys
from pathlib import Path
from fermt.datasets import open_benchmark, open_set
from fermt.images import read_image
from tests.support.datasets import BENCHMARK_MAKERS, MAKERS
now = [("", "")]
def hook(event, arguments):
    if event == "open" and now[0][0] and str(arguments[0]).startswith(now[0][1]):
        print(now[0][0], Path(arguments[0]).suffix.lower())
sys.addaudithook(hook)
for kind, makers in (("training", MAKERS), ("benchmark", BENCHMARK_MAKERS)):
    for name, make in makers.items():
        root = Path(FOLDER, kind, name)
        names = make(root)
        now[0] = (kind, str(root))
        if kind == "training":
            read = open_set(name, root, cache=False)
            for i in range(len(read)):
                read.annotation(i), read.image(i, 0)
        else:
            for sequence in open_benchmark(name, root, only=names):
                read_image(sequence.frames[0])
        now[0] = ("", "")
"""


class Command(NamedTuple):
    arguments: tuple[str, ...]  # DATA: the folder of inputs; WEIGHTS and RESULTS: those of a run over GOT-10k
    outputs: tuple[str, ...]  # in DATA
    write: Callable[[Path], object] = clips.got10k  # what is in DATA


def frames(folder: Path) -> None:
    folder.mkdir()
    for i in range(3):
        image = np.random.default_rng(i).integers(256, size=(90, 120, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{i}.png"), image)


def withheld(folder: Path) -> None:
    clips.got10k(folder, "test")
    for i, (name, count) in enumerate(zip(clips.names("test"), clips.LENGTHS, strict=True)):
        boxes = np.array([clips.box(i, t) for t in range(count)])
        write_result(folder / "results", name, boxes, np.full(count, 0.01))


GOT10K = ("--dataset", "got10k=DATA")
TRACK = ("track", "DATA", *BOX, "--weights", "WEIGHTS", "--out")
COMMANDS = {
    "track to .csv and .mp4": Command(
        (*TRACK, "DATA/a.csv", "--video", "DATA/a.mp4"), ("a.csv", "a.mp4"), write=frames
    ),
    "track to .jsonl": Command((*TRACK, "DATA/a.jsonl"), ("a.jsonl",), write=frames),
    "track to .txt, from a pattern": Command(
        ("track", "DATA/*.png", *BOX, "--weights", "WEIGHTS", "--out", "DATA/a.txt"), ("a.txt",), write=frames
    ),
    "bench": Command(
        ("bench", "--video", "DATA", "--json", "DATA/a.json", "--seconds", "0.1", "--weights", "WEIGHTS"),
        ("a.json",),
        write=frames,
    ),
    "eval of results": Command(
        ("eval", *GOT10K, "--results", "RESULTS", "--json", "DATA/a.json", "--plot", "DATA/a.png"), ("a.json", "a.png")
    ),
    "eval of weights": Command(
        ("eval", *GOT10K, "--weights", "WEIGHTS", "--workers", "1", "--out", "DATA/run", "--plot", "DATA/a.svg"),
        ("run/run.json", "a.svg"),
    ),
    "pack": Command(("pack", *GOT10K, "--results", "DATA/results", "--out", "DATA/a.zip"), ("a.zip",), write=withheld),
    "preview": Command(
        ("data", "preview", *GOT10K, "--no-cache", "--pairs", "2", "--out", "DATA/a.png"),
        ("a.png",),
        write=datasets.got10k,
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_run_replaces_what_the_first_has_written(
    command: str, tmp_path: Path, small_weights: Path, whole_run: Path
) -> None:
    arguments, outputs, write = COMMANDS[command]
    data, places = tmp_path / "data", {"DATA": tmp_path / "data", "WEIGHTS": small_weights, "RESULTS": whole_run}
    write(data)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for name, place in places.items():
        arguments = tuple(part.replace(name, str(place)) for part in arguments)
    for run in ("first", "second"):
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
        assert result.exit_code == 0, f"{run}: {result.output}"
        assert all((data / name).stat().st_size for name in outputs)
    assert {path: path.read_bytes() for path in before} == before


def test_a_picture_that_would_become_a_frame_is_refused(tmp_path: Path, small_weights: Path) -> None:
    """Or the second run would track in it."""
    frames(tmp_path / "data")
    for source in ("data", "data/*.png", "data/*"):
        arguments = ("track", str(tmp_path / source), *BOX, "--out", str(tmp_path / "data" / "a.csv"), "--every", "1")
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
        assert (result.exit_code, lacking(result.output, "a.png'")) == (2, [])
    assert len(list((tmp_path / "data").iterdir())) == 3


def test_pictures_of_a_data_set_have_no_mark(tmp_path: Path) -> None:
    data = clips.got10k(tmp_path / "data")
    image = data / "val" / clips.names()[0] / "1.png"
    assert cv2.imwrite(str(image), np.zeros((4, 4, 3), np.uint8))
    arguments = ("eval", "--dataset", f"got10k={data}", "--results", str(tmp_path), "--plot", str(image))
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert not is_marked(image)
    assert (result.exit_code, lacking(result.output, "--plot", image.name)) == (2, [])


def test_all_files_that_data_sets_read_have_suffixes_that_are_known(
    fresh_python: Callable[..., str], tmp_path: Path
) -> None:
    """So that no output can take the place of one."""
    printed = fresh_python(f"FOLDER = {str(tmp_path)!r}\n{READER}")
    found = {tuple(line.split(" ")) for line in printed.splitlines()}
    assert {suffix for kind, suffix in found if kind == "training"} <= set(TRAINING_FILES)
    assert {suffix for kind, suffix in found if kind == "benchmark"} <= set(BENCHMARK_FILES)
    assert {suffix for _, suffix in found} == set(TRAINING_FILES) - {".png"}
