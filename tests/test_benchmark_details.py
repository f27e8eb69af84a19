"""What each benchmark has of its own: its published list of sequences, and how its files are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fermt.datasets import BENCHMARKS, open_benchmark
from fermt.datasets.folder import sequence_list
from fermt.datasets.frames import Frames
from fermt.datasets.nfs import NFSBenchmark
from fermt.datasets.otb100 import ATTRIBUTES as OTB_ATTRIBUTES

from .support import datasets
from .support.datasets import BENCHMARK_MAKERS, FRAMES, NFS, following
from .support.errors import refused


def length(row: dict[str, str]) -> int:
    return int(row["end"]) - int(row["start"]) + 1


def test_published_numbers_of_sequences() -> None:
    published = {name: one.published for name, one in BENCHMARKS.items()}
    assert published == {
        "got10k": 180, "trackingnet": 511, "lasot": 280, "lasot_ext": 150, "nfs": 100, "uav123": 123, "otb100": 100
    }  # fmt: skip
    for name in ("lasot", "lasot_ext", "nfs", "otb100", "uav123"):
        assert len(sequence_list(name)) == published[name]


def test_the_list_of_uav123() -> None:
    rows = sequence_list("uav123")
    assert sum(map(length, rows.values())) == 112578
    assert rows["car1_2"] == {"name": "car1_2", "folder": "car1", "start": "751", "end": "1627"}
    assert rows["uav1_3"] == {"name": "uav1_3", "folder": "uav1", "start": "2473", "end": "3469"}
    assert rows["person3_s"]["folder"] == "person3_s"
    for name, row in rows.items():
        assert name == row["folder"] or name.rpartition("_")[0] == row["folder"]


def test_the_list_of_otb100() -> None:
    rows = sequence_list("otb100")
    assert sum(map(length, rows.values())) == 59040
    assert sum(length(row) - int(row["omit"]) for row in rows.values()) == 59035
    ranges = {name: (int(row["start"]), int(row["end"])) for name, row in rows.items()}
    assert {name: cut for name, cut in ranges.items() if cut[0] != 1} == {
        "BlurCar1": (247, 988), "BlurCar3": (3, 359), "BlurCar4": (18, 397), "David": (300, 770)
    }  # fmt: skip
    assert [ranges[name][1] for name in ("Diving", "Football1", "Freeman3", "Freeman4")] == [215, 74, 460, 283]
    two = {name: (row["folder"], row["truth"]) for name, row in rows.items() if name != row["folder"]}
    assert two == {
        "Human4-2": ("Human4", "groundtruth_rect.2.txt"),
        "Jogging-1": ("Jogging", "groundtruth_rect.1.txt"),
        "Jogging-2": ("Jogging", "groundtruth_rect.2.txt"),
        "Skating2-1": ("Skating2", "groundtruth_rect.1.txt"),
        "Skating2-2": ("Skating2", "groundtruth_rect.2.txt"),
    }
    assert {name for name, row in rows.items() if row["omit"] != "0"} == {"Tiger1"}
    attributes = Counter(short for row in rows.values() for short in row["attributes"].split())
    assert set(attributes) == set(OTB_ATTRIBUTES)
    assert (attributes["OCC"], attributes["IPR"], attributes["OV"]) == (49, 51, 14)


def test_the_lists_of_nfs_and_lasot() -> None:
    assert sum(int(row["frames"]) for row in sequence_list("nfs").values()) == 47953
    for name, classes, each in (("lasot", 70, 4), ("lasot_ext", 15, 10)):
        counts = Counter(sequence.rpartition("-")[0] for sequence in sequence_list(name))
        assert len(counts) == classes
        assert set(counts.values()) == {each}


def test_got10k(tmp_path: Path) -> None:
    datasets.got10k(tmp_path, split="val")
    sequence = open_benchmark("got10k", tmp_path)[1]
    assert np.array_equal(sequence.boxes, datasets.boxes(1))
    assert sequence.visible is not None
    assert sequence.visible.tolist() == [True, False, False, True, True]
    assert sequence.cover is not None
    assert sequence.cover.tolist() == [8, 7, 0, 7, 8]
    assert sequence.resolution == (datasets.WIDTH, datasets.HEIGHT)
    folder = tmp_path / "val" / sequence.name
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: unknown\n")
    with refused(ValueError, "meta_info.ini'", "resolution"):
        open_benchmark("got10k", tmp_path)[1]
    (folder / "cover.label").write_text("8\n8\n")
    with refused(ValueError, "cover.label'", 5, 2):
        open_benchmark("got10k", tmp_path)[1]


def test_got10k_test_has_first_boxes(tmp_path: Path) -> None:
    datasets.got10k(tmp_path, split="test")
    sequence = open_benchmark("got10k", tmp_path, split="test")[2]
    assert (sequence.name, sequence.withheld, len(sequence.frames)) == ("GOT-10k_Test_000003", True, FRAMES)
    assert np.array_equal(sequence.boxes, datasets.boxes(2, 1))
    assert (sequence.visible, sequence.cover, sequence.resolution) == (None, None, None)
    for path in sequence.frames:
        path.unlink()
    with refused(ValueError, "'GOT-10k_Test_000003'", 1):
        len(open_benchmark("got10k", tmp_path, split="test")[2].frames)


def test_trackingnet_with_and_without_its_truth(tmp_path: Path) -> None:
    names = datasets.trackingnet_test(tmp_path)
    datasets.write_rows(tmp_path / "TEST" / "anno" / f"{names[0]}.txt", following(0, FRAMES - 1).tolist())
    (tmp_path / "TEST" / "anno" / "._abc_0.txt").write_bytes(b"\x00")  # what macOS leaves beside a file
    benchmark = open_benchmark("trackingnet", tmp_path)
    assert benchmark.sequence_names == names
    assert [(benchmark[i].withheld, len(benchmark[i].frames)) for i in range(2)] == [(False, 4), (True, 5)]
    assert [path.name for path in benchmark[1].frames] == [f"{t}.jpg" for t in range(FRAMES)]


@pytest.mark.parametrize("name", ["lasot", "lasot_ext"])
def test_lasot(tmp_path: Path, name: str) -> None:
    names = BENCHMARK_MAKERS[name](tmp_path)
    folder = tmp_path / names[0].rpartition("-")[0] / names[0]
    datasets.write_images(folder / "img", [FRAMES + 1], 8)
    sequence = open_benchmark(name, tmp_path, only=names)[0]
    assert (len(sequence.frames), sequence.attributes) == (FRAMES, frozenset())
    assert sequence.frames[-1] == folder.resolve() / "img" / f"{FRAMES:08d}.jpg"
    assert np.array_equal(sequence.boxes, datasets.boxes(0))
    assert sequence.visible is not None
    assert sequence.visible.tolist() == [True, False, False, True, True]
    flags = [0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    datasets.write_rows(tmp_path / "att" / f"{names[0]}.txt", [flags])
    attributes = open_benchmark(name, tmp_path, only=names)[0].attributes
    assert attributes == {"partial occlusion", "rotation", "scale variation", "low resolution"}
    with refused(FileNotFoundError, tmp_path / "att" / f"{names[1]}.txt"):
        open_benchmark(name, tmp_path, only=names)[1]
    (folder / "out_of_view.txt").write_text("0,0,1,0")
    with refused(ValueError, "out_of_view.txt'", 5, 4):
        open_benchmark(name, tmp_path, only=names)[0]


def test_uav123(tmp_path: Path) -> None:
    names = datasets.uav123(tmp_path)
    benchmark = open_benchmark("uav123", tmp_path, only=names)
    first, second, third = (benchmark[i] for i in range(3))
    assert [len(sequence.frames) for sequence in (first, second, third)] == [451, 139, 109]
    assert [first.frames[t].name for t in (0, -1)] == ["001075.jpg", "001525.jpg"]
    assert np.isnan(first.boxes[-2]).all()
    assert np.array_equal(first.boxes[:-2], following(0, 451)[:-2])
    assert third.attributes == {"scale variation", "fast motion", "similar object"}
    path = tmp_path / "anno" / "UAV123" / "att" / "uav6.txt"
    path.write_text("1,0,1")
    with refused(ValueError, "uav6.txt'", 12, 3):
        benchmark[2]
    for part in (path, *path.parent.glob("*")):
        part.unlink(missing_ok=True)
    path.parent.rmdir()
    assert benchmark[2].attributes == frozenset()
    datasets.write_rows(tmp_path / "anno" / "UAV123" / "uav6.txt", following(2, 108).tolist())
    with refused(ValueError, "uav6.txt'", 109, 1, 108):
        benchmark[2]


def test_otb100(tmp_path: Path) -> None:
    names = datasets.otb100(tmp_path)
    benchmark = open_benchmark("otb100", tmp_path, only=names)
    read = {name: benchmark[i] for i, name in enumerate(names)}
    ends = {name: (len(one.frames), one.frames[0].stem, one.frames[-1].stem) for name, one in read.items()}
    assert ends == {
        "David": (471, "0300", "0770"),
        "Football1": (74, "0001", "0074"),
        "Jogging-1": (307, "0001", "0307"),
        "Jogging-2": (307, "0001", "0307"),
        "Tiger1": (349, "0006", "0354"),
    }
    for i, name in enumerate(names):
        omitted = 5 if name == "Tiger1" else 0
        assert np.array_equal(read[name].boxes, following(i, omitted + ends[name][0])[omitted:])
    assert read["Jogging-1"].frames[0] == read["Jogging-2"].frames[0]
    assert read["Jogging-1"].attributes == {"occlusion", "deformation", "out-of-plane rotation"}
    for path in read["Football1"].frames:
        path.rename(path.with_suffix(".png"))  # KiteSurf has been published so
    assert benchmark[1].frames[0].name == "0001.png"


@pytest.mark.parametrize(("split", "step"), [("30", 8), ("240", 1)])
def test_nfs_as_published(tmp_path: Path, split: str, step: int) -> None:
    names = datasets.nfs_published(tmp_path)
    benchmark = open_benchmark("nfs", tmp_path, split=split, only=names)
    assert benchmark.title.startswith(f"NFS, {split} frames per second")
    for i, frames in enumerate(NFS.values()):
        assert len(benchmark[i].frames) == 8 * frames // step
        assert np.array_equal(benchmark[i].boxes, following(i, 8 * frames)[::step])
        assert benchmark[i].frames[0].parent.parent.name == split
    path = tmp_path / "car_camaro" / split / "car_camaro.txt"
    lines = path.read_text().splitlines()
    for left_out, kept in ((0, 1), (step, 1), (2 * step, 0)):
        path.write_text("\n".join(lines[: len(lines) - left_out]))
        if kept:
            assert len(benchmark[0].frames) == len(benchmark[0].boxes) == (len(lines) - left_out) // step
        else:
            with refused(ValueError, len(lines) // step):
                benchmark[0]
    path.write_text("\n".join([*lines[:2], "0 1 2 x 4 3 0 0 0", *lines[3:]]))
    with refused(ValueError, "car_camaro.txt'", "line 3", "'0 1 2 x 4 3 0 0 0'"):
        benchmark[0]


def test_nfs_of_boxes_a_frame_each(tmp_path: Path) -> None:
    """Boxes that are there for 30 frames a second already are taken as they are."""
    names = datasets.nfs_published(tmp_path)
    path = tmp_path / names[1] / "30" / f"{names[1]}.txt"
    path.write_text("\n".join(path.read_text().splitlines()[::8]))
    assert np.array_equal(open_benchmark("nfs", tmp_path, only=names)[1].boxes, following(1, 8 * 22)[::8])


def test_nfs_sorted_is_of_30_frames_a_second(tmp_path: Path) -> None:
    names = datasets.nfs(tmp_path)
    benchmark = open_benchmark("nfs", tmp_path, only=names)
    assert [len(benchmark[i].frames) for i in range(3)] == list(NFS.values())
    assert np.array_equal(benchmark[1].boxes, following(1, 22))
    with refused(FileNotFoundError, "nfs", 3, NFSBenchmark.layout) as raised:
        open_benchmark("nfs", tmp_path, split="240", only=names)
    assert str(Path("car_camaro") / "240" / "car_camaro.txt") in str(raised.value)


def test_frames_by_number(tmp_path: Path) -> None:
    datasets.write_images(tmp_path, range(3, 8), 5)
    for name in ("._00004.jpg", "cover.jpg", "00009.txt"):
        (tmp_path / name).touch()
    frames = Frames("car", tmp_path, 3)
    assert [int(path.stem) for path in frames] == [3, 4, 5, 6, 7]
    assert frames[-1] == tmp_path / "00007.jpg"
    assert list(frames[1:3]) == [tmp_path / "00004.jpg", tmp_path / "00005.jpg"]
    assert [int(path.stem) for path in Frames("car", tmp_path, 4, 2)] == [4, 5]
    with refused(ValueError, "'car'", 3, 8, tmp_path):
        Frames("car", tmp_path, 3, 6)[0]
    (tmp_path / "4.png").touch()
    with refused(ValueError, "'car'", 4, "'00004.jpg'", "'4.png'"):
        len(Frames("car", tmp_path, 3))
