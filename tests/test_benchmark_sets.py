"""Benchmarks as they lie on disk: what is read of every one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fermt.datasets import BENCHMARKS, open_benchmark
from fermt.datasets.folder import sequence_list
from fermt.images import read_image

from .support import datasets
from .support.datasets import BENCHMARK_MAKERS
from .support.errors import refused

NAMES = sorted(BENCHMARK_MAKERS)
LISTED = ("lasot", "lasot_ext", "nfs", "otb100", "uav123")  # by the project itself, not by files on disk


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, list[str]]:
    """The name of a benchmark, a miniature of it, and the names of the sequences in that."""
    root = tmp_path / "root"
    return request.param, root, BENCHMARK_MAKERS[request.param](root)


def test_every_benchmark_has_a_miniature() -> None:
    assert set(BENCHMARKS) == set(BENCHMARK_MAKERS)


def test_what_is_read(made: tuple[str, Path, list[str]]) -> None:
    name, root, names = made
    benchmark = open_benchmark(name, root, only=names)
    split = {"got10k": "val", "nfs": "30"}.get(name, "test")
    assert (benchmark.name, benchmark.split, benchmark.sequence_names) == (name, split, names)
    assert len(benchmark) == len(names)
    assert benchmark.title.endswith(f", {len(names)} of {BENCHMARKS[name].published} sequences")
    for i, sequence in enumerate(benchmark[i] for i in range(len(names))):
        assert sequence.name == names[i]
        assert sequence.boxes.dtype == np.float64
        assert sequence.withheld == (name == "trackingnet")
        assert len(sequence.boxes) == (1 if sequence.withheld else len(sequence.frames))
        assert read_image(sequence.frames[0]).ndim == read_image(sequence.frames[-1]).ndim == 3
        assert len(set(sequence.frames)) == len(sequence.frames) > 1
    with pytest.raises(IndexError):
        benchmark[len(names)]


def test_a_whole_benchmark_has_its_own_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.got10k(tmp_path, split="val")
    monkeypatch.setattr(BENCHMARKS["got10k"], "published", datasets.SEQUENCES)
    assert open_benchmark("got10k", tmp_path).title == "GOT-10k val"


def test_opening_reads_no_sequence(made: tuple[str, Path, list[str]]) -> None:
    name, root, names = made
    for path in [*root.rglob("*.txt"), *root.rglob("*.label")]:
        if path.name != "list.txt":
            path.write_text("1,2,3\n")
    for path in [*root.rglob("*.jpg")]:
        path.unlink()
    benchmark = open_benchmark(name, root, only=names)
    with refused(ValueError, "line 1", "'1,2,3'"):
        benchmark[0]


@pytest.mark.parametrize("name", LISTED)
def test_listed_sequences_that_are_not_there_are_told(tmp_path: Path, name: str) -> None:
    names = BENCHMARK_MAKERS[name](tmp_path)
    absent, published = BENCHMARKS[name].published - len(names), BENCHMARKS[name].published
    with refused(FileNotFoundError, name, absent, published, tmp_path, "only") as raised:
        open_benchmark(name, tmp_path)
    assert BENCHMARKS[name].layout in str(raised.value)


def annotation(name: str, root: Path, sequence: str) -> Path:
    return open_benchmark(name, root, only=[sequence]).parts(sequence)[0]  # type: ignore[attr-defined]


def test_a_missing_annotation(made: tuple[str, Path, list[str]]) -> None:
    name, root, names = made
    path = annotation(name, root, names[1])
    benchmark = open_benchmark(name, root, only=names)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        benchmark[1]
    if name == "trackingnet":  # its annotations are its list
        assert names[1] not in open_benchmark(name, root).sequence_names
        return
    with refused(FileNotFoundError, 1, len(names), names[1], path):
        open_benchmark(name, root, only=names)


def test_a_missing_folder_of_frames(made: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    name, root, names = made
    benchmark = open_benchmark(name, root, only=names)
    folder = benchmark[0].frames[0].parent
    folder.rename(tmp_path / "elsewhere")
    with refused(FileNotFoundError, names[0], folder):
        open_benchmark(name, root, only=names)
    with pytest.raises(OSError, match=folder.name):
        list(benchmark[0].frames)


def test_a_missing_frame(made: tuple[str, Path, list[str]]) -> None:
    name, root, names = made
    paths = open_benchmark(name, root, only=names)[0].frames[2:4]
    for path in paths:
        path.unlink()
    sequence, number = open_benchmark(name, root, only=names)[0], int(paths[0].stem)
    with refused(ValueError, f"'{names[0]}'", number, 1):
        sequence.frames[0]


def test_a_line_that_is_wrong(made: tuple[str, Path, list[str]]) -> None:
    name, root, names = made
    path = annotation(name, root, names[0])
    path.write_text("1,2,3\n" + path.read_text())
    with refused(ValueError, f"{path.name}'", "line 1", "'1,2,3'"):
        open_benchmark(name, root, only=names)[0]
    path.write_text("")
    with refused(ValueError, f"{path.name}'"):
        open_benchmark(name, root, only=names)[0]


def test_the_choice_of_sequences(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = BENCHMARK_MAKERS["uav123"](root)
    chosen = tmp_path / "only.txt"
    chosen.write_text("uav6\nperson8_2\n")
    assert open_benchmark("uav123", root, only=chosen).sequence_names == ["person8_2", "uav6"]
    index = list(sequence_list("uav123")).index("uav6")
    chosen.write_text(f"{index}\n")
    assert open_benchmark("uav123", root, only=str(chosen)).sequence_names == ["uav6"]
    assert open_benchmark("uav123", root, only=names[::-1]).sequence_names == names
    with refused(ValueError, "uav123", "bird, uav9", "bike1"):
        open_benchmark("uav123", root, only=["bird", "uav6", "uav9"])
    chosen.write_text("bird\n")
    with refused(ValueError, "'bike1'", "bird"):
        open_benchmark("uav123", root, only=chosen)
    with refused(ValueError, "uav123", 123):
        open_benchmark("uav123", root, only=[])


@pytest.mark.parametrize("name", NAMES)
def test_roots_that_are_not_there_or_empty(tmp_path: Path, name: str) -> None:
    for root in (tmp_path / "none", tmp_path):
        with refused(FileNotFoundError, root) as raised:
            open_benchmark(name, root)
        assert BENCHMARKS[name].layout in str(raised.value)


def test_names_splits_and_lists_that_are_not_there(tmp_path: Path) -> None:
    with refused(ValueError, "'otb'", "got10k", "otb100"):
        open_benchmark("otb", tmp_path)
    for name, split, known in (("got10k", "train", "val or test"), ("nfs", "60", "30 or 240"), ("uav123", "x", "test")):
        with refused(ValueError, name, known, f"'{split}'"):
            open_benchmark(name, tmp_path, split=split)
    datasets.got10k(tmp_path, split="val")
    (tmp_path / "val" / "list.txt").unlink()
    with refused(FileNotFoundError, "got10k", tmp_path / "val" / "list.txt"):
        open_benchmark("got10k", tmp_path)
    (tmp_path / "TEST" / "frames").mkdir(parents=True)
    (tmp_path / "TEST" / "anno").mkdir()
    with refused(FileNotFoundError, "trackingnet", tmp_path / "TEST" / "anno" / "*.txt"):
        open_benchmark("trackingnet", tmp_path)
