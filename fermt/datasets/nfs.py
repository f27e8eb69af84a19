"""NFS (Need for Speed) as a benchmark, at 30 or 240 frames per second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..textfiles import read_lines
from .benchmark import BenchmarkFolder, TestSequence
from .folder import read_boxes, sequence_list
from .frames import Frames

RATIO = 8  # of the two frame rates
CORNERS = slice(1, 5)  # columns of a line of the original annotation: track, corners, frame, three flags, label


class NFSBenchmark(BenchmarkFolder):
    """The published data set, or the copy at 30 frames per second on which trackers are usually compared.

    The published annotation has 240 frames per second for both rates; at 30, every eighth line is used. The numbers of
    boxes and frames may differ by one, and the surplus one is dropped; if they differ by more, reading raises
    ValueError.
    """

    name = "nfs"
    label = "NFS, {split} frames per second"
    published = 100
    splits = ("30", "240")
    layout = """\
  as published:
    Gymnastics/
      30/  (or 240/)
        Gymnastics.txt  (a line: 0 x1 y1 x2 y2 frame 0 0 0 "label")
        Gymnastics/
          00001.jpg  00002.jpg  ...
  or, at 30 frames per second only, as sorted by the authors of pytracking:
    anno/
      nfs_Gymnastics.txt  (a line: x y w h)
    sequences/
      Gymnastics/
        00001.jpg  00002.jpg  ..."""

    def listed(self) -> list[str]:
        self._rows = sequence_list(self.name)
        self._sorted = self.split == "30" and (self.root / "anno").is_dir()
        return list(self._rows)

    def parts(self, sequence: str) -> tuple[Path, ...]:
        if self._sorted:
            return self.root / "anno" / f"nfs_{sequence}.txt", self.root / "sequences" / sequence
        folder = self.root / sequence / self.split
        return folder / f"{sequence}.txt", folder / sequence

    def read_sequence(self, sequence: str) -> TestSequence:
        truth, images = self.parts(sequence)
        if self._sorted:
            boxes, count = read_boxes(truth), int(self._rows[sequence]["frames"])
        else:
            boxes, count = _read_corners(truth), len(Frames(sequence, images))
            if self.split == "30" and len(boxes) > RATIO / 2 * count:
                boxes = boxes[::RATIO]
        if abs(len(boxes) - count) > 1:
            raise ValueError(f"{str(truth)!r}: expected boxes for {count} frames, got {len(boxes)}")
        count = min(len(boxes), count)
        return TestSequence(sequence, Frames(sequence, images, count=count), boxes[:count])


def _read_corners(path: Path) -> np.ndarray:
    """Reads boxes, (N, 4) float64 xywh, in the published format; ValueError names a line of another form."""
    lines = read_lines(path)
    boxes = np.empty((len(lines), 4))
    for number, line in enumerate(lines, 1):
        try:
            left, top, right, bottom = (float(word) for word in line.split()[CORNERS])
        except ValueError as error:
            raise ValueError(
                f"{str(path)!r}, line {number}: expected a line such as '0 10 20 50 60 1 0 0 0 \"label\"', got {line!r}"
            ) from error
        boxes[number - 1] = left, top, right - left, bottom - top
    return boxes
