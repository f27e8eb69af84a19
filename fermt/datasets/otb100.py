"""OTB100 as a benchmark: a hundred targets in 98 videos."""

from __future__ import annotations

from pathlib import Path

from .benchmark import BenchmarkFolder, TestSequence
from .folder import read_cut, sequence_list
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


class OTB100Benchmark(BenchmarkFolder):
    """The benchmark. Its list names the frames that have boxes; further images (Diving, Football1) are not used.

    Tiger1 starts at its sixth frame because the target is hidden before: 59,035 of the 59,040 frames with a box are
    used. Attributes are the published ones.
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

    def read_sequence(self, sequence: str) -> TestSequence:
        row = self._rows[sequence]
        truth, images = self.parts(sequence)
        start, end, omit = (int(row[column]) for column in ("start", "end", "omit"))
        boxes = read_cut(truth, start, end)[omit:]
        attributes = frozenset(ATTRIBUTES[short] for short in row["attributes"].split())
        return TestSequence(sequence, Frames(sequence, images, start + omit, len(boxes)), boxes, attributes=attributes)
