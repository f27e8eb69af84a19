"""LaSOT: its training sequences, and as benchmarks its test sequences and those of its extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data.sequences import Annotation, valid_boxes
from ..textfiles import read_names
from .benchmark import BenchmarkFolder, TestSequence
from .folder import DatasetFolder, read_attributes, read_boxes, read_flags, read_truth, sequence_list
from .frames import Frames
from .training import TrainingFolder

ATTRIBUTES = (
    "illumination variation", "partial occlusion", "deformation", "motion blur", "camera motion", "rotation",
    "background clutter", "viewpoint change", "scale variation", "full occlusion", "fast motion", "out-of-view",
    "low resolution", "aspect ratio change",
)  # fmt: skip
HIDDEN = ("full_occlusion.txt", "out_of_view.txt")  # flags of frames in which the target is not visible


class _LaSOT(DatasetFolder):
    """A target is visible if it is neither fully occluded nor out of view."""

    name = "lasot"

    def folder(self, sequence: str) -> Path:
        return self.root / sequence.rpartition("-")[0] / sequence

    def visible(self, sequence: str, count: int) -> np.ndarray:
        visible = np.ones(count, bool)
        for name in HIDDEN:
            visible &= read_flags(self.folder(sequence) / name, count) == 0
        return visible


class LaSOTTraining(_LaSOT, TrainingFolder):
    """The training set."""

    layout = """\
  training_set.txt  (a name such as airplane-1 a line; the data set's own toolkit has it)
  airplane/
    airplane-1/
      groundtruth.txt  full_occlusion.txt  out_of_view.txt
      img/
        00000001.jpg  00000002.jpg  ..."""

    def listed(self) -> list[str]:
        return read_names(self.require(self.root / "training_set.txt"))

    def files(self, unit: str) -> tuple[Path, ...]:
        return tuple(self.folder(unit) / name for name in ("groundtruth.txt", *HIDDEN))

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        boxes = read_boxes(self.files(unit)[0])
        yield unit, Annotation(boxes, valid_boxes(boxes) & self.visible(unit, len(boxes)))

    def image_path(self, sequence: str, t: int) -> Path:
        return self.folder(sequence) / "img" / f"{t + 1:08d}.jpg"


class LaSOTBenchmark(_LaSOT, BenchmarkFolder):
    """The benchmark. A sequence has as many frames as boxes; some have one more image on disk."""

    label = "LaSOT"
    published = 280
    splits = ("test",)
    layout = """\
  airplane/
    airplane-1/
      groundtruth.txt  full_occlusion.txt  out_of_view.txt
      img/
        00000001.jpg  00000002.jpg  ...
  att/  (if attributes are wanted: annos/att of the data set's own toolkit)
    airplane-1.txt  ..."""

    def listed(self) -> list[str]:
        return list(sequence_list(self.name))

    def parts(self, sequence: str) -> tuple[Path, ...]:
        folder = self.folder(sequence)
        return folder / "groundtruth.txt", folder / "img"

    def read_sequence(self, sequence: str) -> TestSequence:
        truth, images = self.parts(sequence)
        boxes = read_truth(truth)
        visible = self.visible(sequence, len(boxes))
        attributes = read_attributes(self.root / "att" / f"{sequence}.txt", ATTRIBUTES)
        frames = Frames(sequence, images, count=len(boxes))
        return TestSequence(sequence, frames, boxes, visible, attributes=attributes)


class LaSOTExtBenchmark(LaSOTBenchmark):
    """The extension: fifteen classes that LaSOT does not have, with ten sequences each, in the same layout."""

    name = "lasot_ext"
    label = "LaSOT_ext"
    published = 150
    layout = LaSOTBenchmark.layout.replace("airplane", "atv")
