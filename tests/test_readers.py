"""Data sets as they lie on disk: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fermt.datasets import GENERATED, TRAINING_SETS, open_set

from .support import datasets
from .support.datasets import FRAMES, MAKERS, SEQUENCES
from .support.errors import refused

NAMES = sorted(MAKERS)


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of a data set, and a miniature of it."""
    return request.param, MAKERS[request.param](tmp_path / "root")


def test_every_reader_has_a_miniature() -> None:
    assert set(TRAINING_SETS) == set(MAKERS)


def test_boxes_and_visibility(made: tuple[str, Path]) -> None:
    name, root = made
    read = open_set(name, root, cache=False)
    assert (read.name, len(read), read.is_video) == (name, SEQUENCES, name != "coco")
    for i in range(SEQUENCES):
        annotation = read.annotation(i)
        frames = FRAMES if read.is_video else 1
        assert annotation.boxes.dtype == np.float64
        assert annotation.valid.dtype == bool
        assert annotation.valid.tolist() == [True, False, False, True, True][:frames]
        assert np.array_equal(annotation.boxes[annotation.valid], datasets.boxes(i, frames)[annotation.valid])
    with pytest.raises(IndexError):
        read.annotation(SEQUENCES)


def test_images_are_those_of_the_frames(made: tuple[str, Path]) -> None:
    name, root = made
    read = open_set(name, root, cache=False)
    for i in range(SEQUENCES):
        for t in range(FRAMES if read.is_video else 1):
            image = read.image(i, t)
            shown = datasets.color(i - i % 2 if name == "imagenet_vid" else i, t)  # two tracks share a snippet
            assert (image.shape, image.dtype) == ((datasets.HEIGHT, datasets.WIDTH, 3), np.uint8)
            assert np.abs(image.astype(int) - shown).max() <= 3  # JPEG


def test_coco_in_a_folder_of_images(tmp_path: Path) -> None:
    read = open_set("coco", datasets.coco(tmp_path, "images/train2017"), cache=False)
    assert read.image(2, 0).shape == (datasets.HEIGHT, datasets.WIDTH, 3)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("got10k", "train/list.txt"),
        ("lasot", "training_set.txt"),
        ("trackingnet", "TRAIN_2/frames"),
        ("trackingnet", "TRAIN_10/anno"),
        ("coco", "train2017"),
        ("coco", "annotations/instances_train2017.json"),
        ("imagenet_vid", "Data/VID/train"),
        ("imagenet_vid", "Annotations/VID/train"),
    ],
)
def test_what_a_root_lacks_is_named(tmp_path: Path, name: str, part: str) -> None:
    root = MAKERS[name](tmp_path / "root")
    (root / part).rename(tmp_path / "elsewhere")
    with refused(FileNotFoundError, name, root / part) as raised:
        open_set(name, root, cache=False)
    assert TRAINING_SETS[name].layout in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_roots_that_are_not_there_or_empty(tmp_path: Path, name: str) -> None:
    for root in (tmp_path / "none", tmp_path):
        with refused(FileNotFoundError, root) as raised:
            open_set(name, root, cache=False)
        assert TRAINING_SETS[name].layout in str(raised.value)
    with refused(ValueError, name, "root"):
        open_set(name, None)


def test_names_and_splits_that_are_not_there(tmp_path: Path) -> None:
    with refused(ValueError, "'got'", "got10k", "synthetic"):
        open_set("got", tmp_path)
    with refused(ValueError, "got10k", "train or val", "'test'"):
        open_set("got10k", tmp_path, split="test")


def test_a_validation_split(tmp_path: Path) -> None:
    root = datasets.got10k(tmp_path)
    (root / "train").rename(root / "val")
    assert len(open_set("got10k", root, split="val", cache=False)) == SEQUENCES


def chosen(root: Path, **files: str) -> list[float]:
    """First numbers of the first boxes of the GOT-10k sequences that are left, by a file for each option."""
    paths = {}
    for option, text in files.items():
        paths[option] = root / f"{option}.txt"
        paths[option].write_text(text)
    read = open_set("got10k", root, cache=False, **paths)
    return [read.annotation(i).boxes[0, 0] for i in range(len(read))]


def test_sequences_by_name_by_index_and_without_some(tmp_path: Path) -> None:
    root = datasets.got10k(tmp_path)
    first = [datasets.boxes(i)[0, 0] for i in range(SEQUENCES)]
    assert chosen(root, only="2\n0\n") == [first[0], first[2]]
    assert chosen(root, only="GOT-10k_Train_000002\n") == [first[1]]
    assert chosen(root, exclude="GOT-10k_Train_000002\n") == [first[0], first[2]]
    assert chosen(root, only="0\n1", exclude="1") == [first[0]]
    assert chosen(root, exclude="") == first
    with refused(ValueError, "'GOT-10k_Train_000001'", "GOT-10k_Train_9"):
        chosen(root, exclude="GOT-10k_Train_9\n")
    with refused(ValueError, 3, "3, 4, 5, 6, 7", 2):
        chosen(root, only="\n".join(map(str, range(10))))
    with refused(ValueError, 3, root):
        chosen(root, exclude="0\n1\n2")


def test_rows_that_are_not_numbers_are_not_valid(tmp_path: Path) -> None:
    root = datasets.lasot(tmp_path)
    path = root / "airplane" / "airplane-2" / "groundtruth.txt"
    path.write_text("1,2,3,4\nNaN,NaN,NaN,NaN\n1\t2\t3\tinf\n1 2 -3 4\n5.5, 6.25, 7, 8\n")
    for hidden in ("full_occlusion.txt", "out_of_view.txt"):
        path.with_name(hidden).write_text("0,0,0,0,0")
    annotation = open_set("lasot", root, cache=False).annotation(1)
    assert annotation.valid.tolist() == [True, False, False, False, True]
    assert annotation.boxes[4].tolist() == [5.5, 6.25, 7, 8]


def removed(path: Path) -> None:
    path.unlink()


def shortened(path: Path) -> None:
    path.write_text("\n".join(path.read_text().split()[:-1]))


def written(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


GOT = "train/GOT-10k_Train_000002/"
DAMAGES = [
    ("got10k", GOT + "groundtruth.txt", removed, ("groundtruth.txt'",)),
    ("got10k", GOT + "groundtruth.txt", shortened, ("absence.label'", 4, 5)),
    ("got10k", GOT + "absence.label", shortened, ("absence.label'", 5, 4)),
    ("got10k", GOT + "cover.label", written("8\n8\n8\n8\nfull\n"), ("cover.label'", "'full'")),
    ("got10k", GOT + "cover.label", removed, ("cover.label'",)),
    (
        "got10k",
        GOT + "groundtruth.txt",
        written("1,2,3,4\n1,2,3\n"),
        ("groundtruth.txt'", "line 2", "'1,2,3'"),
    ),
    ("got10k", GOT + "groundtruth.txt", written("1,2,3,4\n\n1,2,3,4\n"), ("groundtruth.txt'", "line 2", "''")),
    ("got10k", GOT + "groundtruth.txt", written("a,b,c,d\n"), ("groundtruth.txt'", "line 1", "'a,b,c,d'")),
    ("lasot", "hand-fan/hand-fan-7/out_of_view.txt", written("0,0"), ("out_of_view.txt'", 5, 2)),
    ("trackingnet", "TRAIN_0/anno/abc_0.txt", written("\0\1\2"), ("abc_0.txt'", "line 1")),
    ("coco", "annotations/instances_train2017.json", datasets.cut, ("instances_train2017.json'", "JSON")),
    ("coco", "annotations/instances_train2017.json", written("{}"), ("instances_train2017.json'", "'images'")),
    (
        "coco",
        "annotations/instances_train2017.json",
        written('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3], "iscrowd": 0}]}'),
        ("instances_train2017.json'", "number 0", "image 1"),
    ),
    (
        "imagenet_vid",
        "Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001/000003.xml",
        datasets.cut,
        ("000003.xml'",),
    ),
    (
        "imagenet_vid",
        "Annotations/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000001/000003.xml",
        removed,
        ("000004.xml'", "000003.xml"),
    ),
]


@pytest.mark.parametrize(
    ("name", "member", "damage", "values"), DAMAGES, ids=[f"{d[0]}-{i}" for i, d in enumerate(DAMAGES)]
)
def test_damaged_annotations(
    tmp_path: Path, name: str, member: str, damage: Callable[[Path], object], values: tuple[object, ...]
) -> None:
    root = MAKERS[name](tmp_path / "root")
    damage(root / member)
    with refused(ValueError, name, 1, root, *values):
        open_set(name, root, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_all_damage_is_told_at_once_and_can_be_left_out(tmp_path: Path) -> None:
    root = datasets.got10k(tmp_path, sequences=9, frames=1)
    for i in range(7):
        (root / "train" / f"GOT-10k_Train_{i + 1:06d}" / "groundtruth.txt").unlink()
    with refused(ValueError, "got10k", 7, 9, 2, "exclude"):
        open_set("got10k", root, cache=False)
    (tmp_path / "broken.txt").write_text("\n".join(map(str, range(7))))
    assert len(open_set("got10k", root, exclude=tmp_path / "broken.txt", cache=False)) == 2


def test_a_set_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GENERATED, "synthetic", lambda: "made")
    assert open_set("synthetic", None) == "made"
    with refused(ValueError, "synthetic", "'/data'"):
        open_set("synthetic", "/data")
