"""Pairs from a miniature pool of free images, and the box of a rotated crop against the moments of its pixels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fermt import ModelConfig
from fermt.data.augment import NO_AUGMENTATION, Augmentation, View, make_pair
from fermt.data.pool import SHARES, PoolPairs
from fermt.data.pool.folder import HELD_OUT, LAYOUT, in_split
from fermt.data.pool.pairs import PARTS
from fermt.data.pool.sets import MAX_OBJECT_SHARE, MIN_OBJECT_SIDE, BoxedObjects, PhotoParts, Tracks
from fermt.data.synthetic import synthetic_config
from tools import pool_core

from .support.errors import refused

MODEL = ModelConfig(patterns=("mixed",), dim=32, num_heads=2, template_size=32, search_size=64)
SCENES = synthetic_config("easy", height=120, width=160, frames=40)
HEIGHT, WIDTH, FRAMES, TRACKS = 90, 120, 6, 60


def texture(seed: int, channels: int = 3) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, channels), np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def names(folder: str, training: int) -> list[str]:
    """Names of images of which `training` are for training and two are for validation."""
    candidates = [f"{folder}/{i:03d}.png" for i in range(40 * HELD_OUT)]
    held_out = [name for name in candidates if in_split(name, "val")]
    return [*[name for name in candidates if in_split(name, "train")][:training], *held_out[:2]]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pool")
    for i, name in enumerate(names("photos/a", 6)):
        write(root / name, texture(i))
    for i in range(3):
        image = texture(100 + i, 4)
        image[..., 3] = 0
        cv2.ellipse(image[..., 3:].copy(), (60, 45), (30, 20), 0, 0, 360, 255, -1)
        alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(alpha, (60, 45), (40 - 5 * i, 25), 0, 0, 360, 255, -1)
        image[..., 3] = alpha
        write(root / "cutouts" / f"{i}.png", image)
    images, notes = [], []
    for i, name in enumerate(names("boxes/b", 4)):
        write(root / name, texture(200 + i))
        images.append({"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT})
        notes.append({"image_id": i, "bbox": [20 + i, 30, 40, 30]})
        notes.append({"image_id": i, "bbox": [20, 30, MIN_OBJECT_SIDE - 1, 30]})
        notes.append({"image_id": i, "bbox": [0, 0, WIDTH, HEIGHT * MAX_OBJECT_SHARE + 1]})
        notes.append({"image_id": i, "bbox": [5, 5, 30, 30], "iscrowd": 1})
    (root / "boxes" / "annotations.json").write_text(json.dumps({"images": images, "annotations": notes}))
    for t in range(FRAMES):
        write(root / "video" / "clip" / f"{t:04d}.webp", texture(300 + t))
    tracks = [{"clip": "clip", "first": i % 3, "boxes": [[30 + i % 9, 20, 30, 25]] * 3} for i in range(TRACKS)]
    (root / "video" / "tracks.json").write_text(json.dumps(tracks))
    return root


def opened(root: Path, **options: object) -> PoolPairs:
    return PoolPairs(root, MODEL, 3, 20, scenes=SCENES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("part", PARTS)
def test_every_part_gives_the_same_pairs_again(pool: Path, part: str, split: str) -> None:
    source, again = (opened(pool, split=split, shares={part: 1.0}) for _ in range(2))
    assert len(source) == 20
    pairs = [source.pair(epoch, index) for epoch, index in ((0, 0), (0, 7), (1, 0))]
    for pair in pairs:
        assert pair["template"].shape == (32, 32, 3)
        assert pair["search"].shape == (64, 64, 3)
        assert pair["template"].dtype == pair["search"].dtype == torch.uint8
        x, y, w, h = pair["box"].tolist()
        assert min(w, h) > 0
        assert max(x, y) < 1 < 1 + min(x + w, y + h)  # meets the search region
    repeated = [again.pair(1, 0), again.pair(0, 7)]
    for pair, other in zip((pairs[2], pairs[1]), repeated, strict=True):
        assert all(torch.equal(pair[key], other[key]) for key in pair)
    assert not torch.equal(pairs[0]["search"], pairs[2]["search"])


def test_parts_are_drawn_by_their_shares(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(pool, shares={"photos": 1, "boxes": 3})
    drawn: list[int] = []
    for i, one in enumerate(source._sources):
        monkeypatch.setattr(one, "pair", lambda epoch, index, i=i: drawn.append(i))
    for index in range(400):
        source.pair(0, index)
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.08)
    assert set(SHARES) <= set(PARTS)


def test_training_and_validation_share_no_image(pool: Path) -> None:
    def files(split: str) -> set[Path]:
        boxed, photos = BoxedObjects(pool, split), PhotoParts(pool, split)
        return {file for file, _ in boxed._objects} | set(photos._files)

    train, val = files("train"), files("val")
    assert (len(train), len(val)) == (10, 4)
    assert not train & val
    assert len(Tracks(pool, "train")) + len(Tracks(pool, "val")) == TRACKS
    with refused(ValueError, "train", "val", "'test'"):
        PhotoParts(pool, "test")


def test_objects_that_show_nothing_are_left_out(pool: Path) -> None:
    boxed = BoxedObjects(pool)
    assert len(boxed) == 4
    for i in range(4):
        boxes, valid = boxed.annotation(i)
        assert boxes[0, 1:].tolist() == [30, 40, 30]
        assert valid.all()
        assert boxed.image(i, 0).shape == (HEIGHT, WIDTH, 3)


def test_parts_of_photographs_lie_inside(pool: Path) -> None:
    photos = PhotoParts(pool)
    for i in (0, 1, 500, len(photos) - 1):
        (box,), valid = photos.annotation(i)
        assert valid.all()
        assert (box[:2] >= 0).all()
        assert (box[:2] + box[2:] <= (WIDTH, HEIGHT)).all()
        assert np.array_equal(box, photos.annotation(i)[0][0])
    assert not np.array_equal(photos.annotation(0)[0], photos.annotation(6)[0])  # another part of the same photograph


def test_frames_of_a_track(pool: Path) -> None:
    tracks = Tracks(pool)
    first = 1  # the first frame of the second track, which is for training
    assert in_split("clip/1", "train")
    expected = cv2.imread(str(pool / "video" / "clip" / f"{first + 2:04d}.webp"))[..., ::-1]
    place = sum(in_split(f"clip/{i}", "train") for i in range(1))
    assert np.array_equal(tracks.image(place, 2), expected)
    assert tracks.annotation(place).boxes.shape == (3, 4)


def changed(root: Path, file: str, text: str) -> None:
    (root / file).write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], dict[str, object], type[Exception], tuple[object, ...]]] = {
    "no folder": (lambda root: shutil.rmtree(root / "photos"), {}, FileNotFoundError, ("photos'", LAYOUT)),
    "no images": (
        lambda root: [path.unlink() for path in (root / "photos").rglob("*.png")],
        {"shares": {"photos": 1.0}},
        FileNotFoundError,
        ("photos'", "'train'", LAYOUT),
    ),
    "no COCO": (
        lambda root: changed(root, "boxes/annotations.json", '{"images": []}'),
        {"shares": {"boxes": 1.0}},
        ValueError,
        ("annotations.json'", "'annotations'"),
    ),
    "no boxes": (
        lambda root: changed(root, "video/tracks.json", '[{"clip": "clip"}]'),
        {"shares": {"video": 1.0}},
        ValueError,
        ("tracks.json'", "track 0", LAYOUT),
    ),
    "too many boxes": (
        lambda root: changed(
            root, "video/tracks.json", '[{"clip": "clip", "first": 5, "boxes": [[1,2,3,4],[1,2,3,4]]}]'
        ),
        {"shares": {"video": 1.0}},
        ValueError,
        ("tracks.json'", "track 0", (2, 4), 5, 6),
    ),
    "unknown part": (
        lambda root: None,
        {"shares": {"films": 1.0}},
        ValueError,
        ("scenes, boxes, photos, video", "'films'"),
    ),
    "no share": (lambda root: None, {"shares": {"boxes": 0.0}}, ValueError, ("'boxes': 0.0",)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_missing_or_wrong_is_named(pool: Path, tmp_path: Path, what: str) -> None:
    root = tmp_path / "pool"
    shutil.copytree(pool, root)
    spoil, options, kind, values = BROKEN[what]
    spoil(root)
    with refused(kind, *values):
        opened(root, **options)


def test_there_is_no_such_pool(tmp_path: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "nowhere", LAYOUT):
        PoolPairs(tmp_path / "nowhere")


@pytest.mark.parametrize("seed", range(6))
def test_the_box_of_a_rotated_crop_is_that_of_its_pixels(seed: int) -> None:
    """The half sides of an ellipse are twice the standard deviations of its pixels."""
    image, center, half = np.zeros((300, 400, 3), np.uint8), np.array((203.0, 147.0)), np.array((48.0, 22.0))
    rows, columns = np.mgrid[:300, :400] + 0.5  # pixel k covers [k, k + 1]
    inside = ((columns - center[0]) / half[0]) ** 2 + ((rows - center[1]) / half[1]) ** 2 <= 1
    image[inside] = 255
    box = (*(center - half), *(2 * half))
    augmentation = Augmentation(flip=0.5, gray=0.0, brightness=0.0, rotation=0.5, stretch=0.2, search_center=1.0)
    config = ModelConfig(template_size=128, search_size=256)
    pair = make_pair(View(image, box), View(image, box), config, augmentation, np.random.default_rng(seed))
    assert pair is not None
    pixels = pair["search"].numpy()[..., 0] / 255
    line = np.arange(256) + 0.5
    x, y, w, h = (256 * pair["box"]).tolist()
    for start, side, weights in ((x, w, pixels.sum(axis=0)), (y, h, pixels.sum(axis=1))):
        mean = np.average(line, weights=weights)
        spread = np.sqrt(np.average((line - mean) ** 2, weights=weights))
        assert start + side / 2 == pytest.approx(mean, abs=0.1)
        assert side == pytest.approx(4 * spread, rel=0.01)
    assert NO_AUGMENTATION.rotation == NO_AUGMENTATION.stretch == 0


def test_a_core_of_the_pool_trains_as_the_pool_does(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {path: path.stat().st_size for path in pool.rglob("*") if path.is_file()}
    whole = sum(size for path, size in sizes.items() if path.relative_to(pool).parts[0] in pool_core.WHOLE)
    most = whole + (sum(sizes.values()) - whole) // 2
    core = tmp_path / "new" / "core"
    given = [str(pool), str(core), "--megabytes", str(most / pool_core.MEGABYTE)]
    monkeypatch.setattr("sys.argv", ["pool_core", *given])
    assert pool_core.main() == 0
    copied = {path.relative_to(core): path.read_bytes() for path in core.rglob("*") if path.is_file()}
    assert {*copied} < {path.relative_to(pool) for path in sizes}
    assert all(content == (pool / path).read_bytes() for path, content in copied.items())
    assert whole < sum(map(len, copied.values())) <= most
    assert {path.parts[0] for path in copied} == {*pool_core.WHOLE, *pool_core.SAMPLED}
    assert [path.name for path in core.parent.iterdir()] == ["core"]  # nothing aside is left
    assert opened(core).pair(0, 0)["template"].shape == (32, 32, 3)
    with pytest.raises(SystemExit):  # what is there is not touched
        pool_core.main()
    with refused(ValueError, "boxes and videos alone"):
        pool_core.largest_core(pool, whole)
