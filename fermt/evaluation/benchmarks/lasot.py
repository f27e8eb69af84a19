"""LaSOT's test sequences, and those of its extension."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...data.readers.reader import read_flags
from ..sequences import TestSequence
from .benchmark import FolderBenchmark, read_attributes, read_truth, sequence_list
from .frames import Frames

ATTRIBUTES = (
    "illumination variation", "partial occlusion", "deformation", "motion blur", "camera motion", "rotation",
    "background clutter", "viewpoint change", "scale variation", "full occlusion", "fast motion", "out-of-view",
    "low resolution", "aspect ratio change",
)  # fmt: skip


class LaSOT(FolderBenchmark):
    """Visible is a target that is neither occluded altogether nor out of view.

    A sequence has as many frames as boxes: some have an image more on disk, and some results (monkey-17) a box more.
    """

    name = "lasot"
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
        folder = self._folder(sequence)
        return folder / "groundtruth.txt", folder / "img"

    def read(self, sequence: str) -> TestSequence:
        truth, images = self.parts(sequence)
        boxes = read_truth(truth)
        visible = np.ones(len(boxes), bool)
        for hidden in ("full_occlusion.txt", "out_of_view.txt"):
            visible &= read_flags(truth.with_name(hidden), len(boxes)) == 0
        attributes = read_attributes(self.root / "att" / f"{sequence}.txt", ATTRIBUTES)
        frames = Frames(sequence, images, count=len(boxes))
        return TestSequence(sequence, frames, boxes, visible, attributes=attributes)

    def _folder(self, sequence: str) -> Path:
        return self.root / sequence.rpartition("-")[0] / sequence


class LaSOTExt(LaSOT):
    """Fifteen classes that LaSOT does not have, ten sequences each; read as LaSOT is."""

    name = "lasot_ext"
    label = "LaSOT_ext"
    published = 150
    layout = LaSOT.layout.replace("airplane", "atv")
