"""LaSOT: its training sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..sequences import Annotation, valid_boxes
from .reader import Reader, read_boxes, read_flags, read_lines


class LaSOT(Reader):
    """Targets that are occluded altogether or out of view are not valid."""

    name = "lasot"
    layout = """\
  training_set.txt  (a name such as airplane-1 a line; the data set's own toolkit has it)
  airplane/
    airplane-1/
      groundtruth.txt  full_occlusion.txt  out_of_view.txt
      img/
        00000001.jpg  00000002.jpg  ..."""

    def listed(self) -> list[str]:
        return [line.strip() for line in read_lines(self.require(self.root / "training_set.txt"))]

    def files(self, unit: str) -> tuple[Path, ...]:
        folder = self._folder(unit)
        return folder / "groundtruth.txt", folder / "full_occlusion.txt", folder / "out_of_view.txt"

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        truth, *hidden = self.files(unit)
        boxes = read_boxes(truth)
        valid = valid_boxes(boxes)
        for path in hidden:
            valid &= read_flags(path, len(boxes)) == 0
        yield unit, Annotation(boxes, valid)

    def image_path(self, sequence: str, t: int) -> Path:
        return self._folder(sequence) / "img" / f"{t + 1:08d}.jpg"

    def _folder(self, sequence: str) -> Path:
        return self.root / sequence.rpartition("-")[0] / sequence
