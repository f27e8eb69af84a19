"""GOT-10k: its training and validation sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..sequences import Annotation, valid_boxes
from .reader import Reader, read_boxes, read_flags, read_lines


class GOT10k(Reader):
    """Absent targets and those covered altogether (`cover.label` 0) are not valid.

    `cut_by_image.label` and `meta_info.ini` are not read: a target that the image cuts off is as good as another.
    """

    name = "got10k"
    splits = ("train", "val")
    layout = """\
  train/  (or val/)
    list.txt
    GOT-10k_Train_000001/
      groundtruth.txt  absence.label  cover.label  cut_by_image.label  meta_info.ini
      00000001.jpg  00000002.jpg  ..."""

    def listed(self) -> list[str]:
        return [line.strip() for line in read_lines(self.require(self.root / self.split / "list.txt"))]

    def files(self, unit: str) -> tuple[Path, ...]:
        folder = self.root / self.split / unit
        return folder / "groundtruth.txt", folder / "absence.label", folder / "cover.label"

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        truth, absence, cover = self.files(unit)
        boxes = read_boxes(truth)
        visible = (read_flags(absence, len(boxes)) == 0) & (read_flags(cover, len(boxes)) > 0)
        yield unit, Annotation(boxes, valid_boxes(boxes) & visible)

    def image_path(self, sequence: str, t: int) -> Path:
        return self.root / self.split / sequence / f"{t + 1:08d}.jpg"
