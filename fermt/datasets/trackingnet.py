"""TrackingNet: its training sequences, and as a benchmark its test sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..data.sequences import Annotation, valid_boxes
from .benchmark import BenchmarkFolder, TestSequence
from .folder import read_boxes, read_truth
from .frames import Frames
from .training import TrainingFolder


class TrackingNetTraining(TrainingFolder):
    """The training set, or those of its twelve parts that are there. Names are TRAIN_0/SEQUENCE.

    There are no flags of visibility: every box with an area is valid.
    """

    name = "trackingnet"
    layout = """\
  TRAIN_0/  (to TRAIN_11/; some of them are enough)
    anno/
      SEQUENCE.txt  ...
    frames/
      SEQUENCE/
        0.jpg  1.jpg  ..."""

    def listed(self) -> list[str]:
        found = []
        for part in sorted(self.folders(self.root, "TRAIN_*"), key=lambda name: (len(name), name)):
            self.require(self.root / part / "frames")
            files = sorted(self.require(self.root / part / "anno").glob("[!.]*.txt"))
            found += [f"{part}/{file.stem}" for file in files]
        return found

    def files(self, unit: str) -> tuple[Path, ...]:
        part, _, sequence = unit.partition("/")
        return (self.root / part / "anno" / f"{sequence}.txt",)

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        boxes = read_boxes(*self.files(unit))
        yield unit, Annotation(boxes, valid_boxes(boxes))

    def image_path(self, sequence: str, t: int) -> Path:
        part, _, name = sequence.partition("/")
        return self.root / part / "frames" / name / f"{t}.jpg"


class TrackingNetBenchmark(BenchmarkFolder):
    """The benchmark, in the order of the names. A sequence with one box has as many frames as images."""

    name = "trackingnet"
    label = "TrackingNet test"
    published = 511
    splits = ("test",)
    layout = """\
  TEST/
    anno/
      SEQUENCE.txt  ...  (of each of 511 sequences the first box)
    frames/
      SEQUENCE/
        0.jpg  1.jpg  ..."""

    def listed(self) -> list[str]:
        self.require(self.root / "TEST" / "frames")
        names = sorted(path.stem for path in self.require(self.root / "TEST" / "anno").glob("[!.]*.txt"))
        if not names:
            self.require(self.root / "TEST" / "anno" / "*.txt")
        return names

    def parts(self, sequence: str) -> tuple[Path, ...]:
        return self.root / "TEST" / "anno" / f"{sequence}.txt", self.root / "TEST" / "frames" / sequence

    def read_sequence(self, sequence: str) -> TestSequence:
        truth, images = self.parts(sequence)
        boxes = read_truth(truth)
        return TestSequence(sequence, Frames(sequence, images, 0, None if len(boxes) == 1 else len(boxes)), boxes)
