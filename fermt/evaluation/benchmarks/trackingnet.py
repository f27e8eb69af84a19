"""TrackingNet: its test sequences, whose truth a server keeps."""

from __future__ import annotations

from pathlib import Path

from ..sequences import TestSequence
from .benchmark import FolderBenchmark, read_truth
from .frames import Frames


class TrackingNet(FolderBenchmark):
    """In the order of their names. With one box a sequence has as many frames as there are images, else one a box."""

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
        return self._truth(sequence), self._frames(sequence)

    def read(self, sequence: str) -> TestSequence:
        boxes = read_truth(self._truth(sequence))
        count = None if len(boxes) == 1 else len(boxes)
        return TestSequence(sequence, Frames(sequence, self._frames(sequence), 0, count), boxes)

    def _truth(self, sequence: str) -> Path:
        return self.root / "TEST" / "anno" / f"{sequence}.txt"

    def _frames(self, sequence: str) -> Path:
        return self.root / "TEST" / "frames" / sequence
