"""TrackingNet: its training sequences, or as many of its twelve parts as are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..sequences import Annotation, valid_boxes
from .reader import Reader, read_boxes


class TrackingNet(Reader):
    """Nothing says which targets are hidden: every box with an area is valid. Names are TRAIN_0/SEQUENCE."""

    name = "trackingnet"
    layout = """\
  TRAIN_0/  (to TRAIN_11/; some of them will do)
    anno/
      SEQUENCE.txt  ...
    frames/
      SEQUENCE/
        0.jpg  1.jpg  ..."""

    def listed(self) -> list[str]:
        found = []
        for part in sorted(self.folders(self.root, "TRAIN_*"), key=lambda name: (len(name), name)):
            self.require(self.root / part / "frames")
            files = sorted(self.require(self.root / part / "anno").glob("*.txt"))
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
