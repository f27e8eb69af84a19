"""OTB100: a hundred targets in 98 videos."""

from __future__ import annotations

from pathlib import Path

from ..sequences import TestSequence
from .benchmark import FolderBenchmark, read_cut, sequence_list
from .frames import Frames

ATTRIBUTES = {
    "IV": "illumination variation",
    "SV": "scale variation",
    "OCC": "occlusion",
    "DEF": "deformation",
    "MB": "motion blur",
    "FM": "fast motion",
    "IPR": "in-plane rotation",
    "OPR": "out-of-plane rotation",
    "OV": "out-of-view",
    "BC": "background clutter",
    "LR": "low resolution",
}


class OTB100(FolderBenchmark):
    """The list says which frames of a video have a box each; images beyond them (Diving, Football1) are left out.

    Tiger1 begins at its sixth frame, for in the first five the target is hidden: 59,035 frames of the 59,040 that have
    a box. Attributes are the published ones.
    """

    name = "otb100"
    label = "OTB100"
    published = 100
    splits = ("test",)
    layout = """\
  Basketball/
    groundtruth_rect.txt  (of Jogging and Skating2 groundtruth_rect.1.txt and .2.txt, of Human4 .2.txt)
    img/
      0001.jpg  0002.jpg  ..."""

    def listed(self) -> list[str]:
        self._rows = sequence_list(self.name)
        return list(self._rows)

    def parts(self, sequence: str) -> tuple[Path, ...]:
        row = self._rows[sequence]
        folder = self.root / row["folder"]
        return folder / row["truth"], folder / "img"

    def read(self, sequence: str) -> TestSequence:
        row = self._rows[sequence]
        truth, images = self.parts(sequence)
        start, end, omit = (int(row[column]) for column in ("start", "end", "omit"))
        boxes = read_cut(truth, start, end)[omit:]
        attributes = frozenset(ATTRIBUTES[short] for short in row["attributes"].split())
        return TestSequence(sequence, Frames(sequence, images, start + omit, len(boxes)), boxes, attributes=attributes)
