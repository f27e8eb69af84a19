"""GOT-10k: training and validation sequences, and as a benchmark its validation and test sequences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..data.sequences import Annotation, valid_boxes
from ..textfiles import read_names, read_text
from .benchmark import BenchmarkFolder, TestSequence
from .folder import DatasetFolder, read_boxes, read_flags, read_truth
from .frames import Frames
from .training import TrainingFolder

RESOLUTION = re.compile(r"^resolution:\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.MULTILINE)


class _GOT10k(DatasetFolder):
    """A target is visible if it is neither absent nor fully covered (`cover.label` 0)."""

    name = "got10k"

    def listed(self) -> list[str]:
        return read_names(self.require(self.root / self.split / "list.txt"))

    def folder(self, sequence: str) -> Path:
        return self.root / self.split / sequence


class GOT10kTraining(_GOT10k, TrainingFolder):
    """The training set. Targets that the image cuts off (`cut_by_image.label`) are used like any others."""

    splits = ("train", "val")
    layout = """\
  train/  (or val/)
    list.txt
    GOT-10k_Train_000001/
      groundtruth.txt  absence.label  cover.label  cut_by_image.label  meta_info.ini
      00000001.jpg  00000002.jpg  ..."""

    def files(self, unit: str) -> tuple[Path, ...]:
        return tuple(self.folder(unit) / name for name in ("groundtruth.txt", "absence.label", "cover.label"))

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        truth, absence, cover = self.files(unit)
        boxes = read_boxes(truth)
        visible = (read_flags(absence, len(boxes)) == 0) & (read_flags(cover, len(boxes)) > 0)
        yield unit, Annotation(boxes, valid_boxes(boxes) & visible)

    def image_path(self, sequence: str, t: int) -> Path:
        return self.folder(sequence) / f"{t + 1:08d}.jpg"


class GOT10kBenchmark(_GOT10k, BenchmarkFolder):
    """The benchmark. A test sequence has one box and no labels, which the server keeps, and one frame per image."""

    label = "GOT-10k {split}"
    published = 180
    splits = ("val", "test")
    layout = """\
  val/  (or test/)
    list.txt
    GOT-10k_Val_000001/  (or GOT-10k_Test_000001/)
      groundtruth.txt  (of a test sequence: one box)
      absence.label  cover.label  meta_info.ini  (not of a test sequence)
      00000001.jpg  00000002.jpg  ..."""

    def parts(self, sequence: str) -> tuple[Path, ...]:
        return (self.folder(sequence) / "groundtruth.txt",)

    def read_sequence(self, sequence: str) -> TestSequence:
        folder = self.folder(sequence)
        boxes = read_truth(folder / "groundtruth.txt")
        if self.split == "test" and len(boxes) == 1:
            return TestSequence(sequence, Frames(sequence, folder), boxes)
        cover = read_flags(folder / "cover.label", len(boxes))
        visible = (read_flags(folder / "absence.label", len(boxes)) == 0) & (cover > 0)
        frames = Frames(sequence, folder, count=len(boxes))
        return TestSequence(sequence, frames, boxes, visible, cover, _resolution(folder / "meta_info.ini"))


def _resolution(path: Path) -> tuple[int, int]:
    found = RESOLUTION.search(read_text(path))
    if found is None:
        raise ValueError(f"{str(path)!r}: expected a line such as 'resolution: (1920, 1080)'")
    return int(found[1]), int(found[2])
