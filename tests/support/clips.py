"""GOT-10k with pictures to track in: a bright rectangle that moves over blurred noise. Sequences differ in length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

LENGTHS = (5, 12, 3, 8)
LABELS = {"val": "GOT-10k_Val", "test": "GOT-10k_Test"}


def names(split: str = "val", lengths: Sequence[int] = LENGTHS) -> list[str]:
    return [f"{LABELS[split]}_{i + 1:06d}" for i in range(len(lengths))]


def box(i: int, t: int) -> tuple[float, ...]:
    return 20.5 + 2 * t % 40, 15.25 + i + t % 20, 26.0, 22.0


def got10k(root: Path, split: str = "val", lengths: Sequence[int] = LENGTHS) -> Path:
    """The test split's truth is withheld: one box a sequence, and no labels."""
    listed = names(split, lengths)
    for i, (name, count) in enumerate(zip(listed, lengths, strict=True)):
        folder = root / split / name
        folder.mkdir(parents=True)
        noise = np.random.default_rng(i).integers(256, size=(90, 120, 3), dtype=np.uint8)
        ground = cv2.GaussianBlur(noise, (0, 0), 3)
        for t in range(count):
            image = ground.copy()
            x, y, w, h = map(int, box(i, t))
            cv2.rectangle(image, (x, y), (x + w, y + h), (0, 200, 255), -1)
            assert cv2.imwrite(str(folder / f"{t + 1:08d}.jpg"), image)
        known = 1 if split == "test" else count
        rows = [",".join(f"{value:.4f}" for value in box(i, t)) + "\n" for t in range(known)]
        (folder / "groundtruth.txt").write_text("".join(rows))
        if split != "test":
            (folder / "absence.label").write_text("0\n" * count)
            (folder / "cover.label").write_text("8\n" * count)
            (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (120, 90)\n")
    (root / split / "list.txt").write_text("\n".join(listed) + "\n")
    return root


def lengthen(root: Path, name: str, count: int) -> None:
    """Makes a sequence of the validation split so long that it is not done soon; its later frames are the first."""
    folder = root / "val" / name
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    for t in range(len(lines), count):
        (folder / f"{t + 1:08d}.jpg").hardlink_to(folder / "00000001.jpg")
    (folder / "groundtruth.txt").write_text("\n".join([*lines, *lines[:1] * (count - len(lines))]) + "\n")
    (folder / "absence.label").write_text("0\n" * count)
    (folder / "cover.label").write_text("8\n" * count)
