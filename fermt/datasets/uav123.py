"""UAV123 as a benchmark: sequences that are cut out of videos."""

from __future__ import annotations

from pathlib import Path

from .benchmark import BenchmarkFolder, TestSequence
from .folder import read_attributes, read_cut, sequence_list
from .frames import Frames

ATTRIBUTES = (
    "scale variation", "aspect ratio change", "low resolution", "fast motion", "full occlusion", "partial occlusion",
    "out-of-view", "background clutter", "illumination variation", "viewpoint change", "camera motion",
    "similar object",
)  # fmt: skip


class UAV123Benchmark(BenchmarkFolder):
    """The benchmark. Boxes are NaN where the target is absent; a list names the video and frames of each sequence."""

    name = "uav123"
    label = "UAV123"
    published = 123
    splits = ("test",)
    layout = """\
  anno/UAV123/
    bike1.txt  bird1_1.txt  ...
    att/  (if attributes are wanted)
      bike1.txt  bird1_1.txt  ...
  data_seq/UAV123/
    bird1/
      000001.jpg  000002.jpg  ..."""

    def listed(self) -> list[str]:
        self._cuts = sequence_list(self.name)
        return list(self._cuts)

    def parts(self, sequence: str) -> tuple[Path, ...]:
        video = self._cuts[sequence]["folder"]
        return self.root / "anno" / "UAV123" / f"{sequence}.txt", self.root / "data_seq" / "UAV123" / video

    def read_sequence(self, sequence: str) -> TestSequence:
        truth, video = self.parts(sequence)
        start, end = (int(self._cuts[sequence][side]) for side in ("start", "end"))
        boxes = read_cut(truth, start, end)
        attributes = read_attributes(truth.parent / "att" / truth.name, ATTRIBUTES)
        return TestSequence(sequence, Frames(sequence, video, start, len(boxes)), boxes, attributes=attributes)
