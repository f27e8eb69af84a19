"""GOT-10k: its validation sequences, and its test sequences, whose truth a server keeps."""

from __future__ import annotations

import re
from pathlib import Path

from ...data.readers.reader import read_flags, read_lines
from ..sequences import TestSequence
from .benchmark import FolderBenchmark, read_truth
from .frames import Frames

RESOLUTION = re.compile(r"^resolution:\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.MULTILINE)


class GOT10k(FolderBenchmark):
    """Visible is a target that is neither absent nor covered altogether (`cover.label` 0).

    A test sequence has one box, and as many frames as there are images; its labels are kept by the server too.
    """

    name = "got10k"
    label = "GOT-10k {split}"
    published = 180
    splits = ("val", "test")
    layout = """\
  val/  (or test/)
    list.txt
    GOT-10k_Val_000001/  (or GOT-10k_Test_000001/)
      groundtruth.txt  (of a test sequence: one box)
      absence.label  cover.label  meta_info.ini  (not of a test sequence)
      00000001.jpg  00000002.jpg  ..."""

    def listed(self) -> list[str]:
        return [line.strip() for line in read_lines(self.require(self.root / self.split / "list.txt"))]

    def parts(self, sequence: str) -> tuple[Path, ...]:
        return (self.root / self.split / sequence / "groundtruth.txt",)

    def read(self, sequence: str) -> TestSequence:
        folder = self.root / self.split / sequence
        boxes = read_truth(folder / "groundtruth.txt")
        if self.split == "test" and len(boxes) == 1:
            return TestSequence(sequence, Frames(sequence, folder), boxes)
        cover = read_flags(folder / "cover.label", len(boxes))
        visible = (read_flags(folder / "absence.label", len(boxes)) == 0) & (cover > 0)
        frames = Frames(sequence, folder, count=len(boxes))
        return TestSequence(sequence, frames, boxes, visible, cover, _resolution(folder / "meta_info.ini"))


def _resolution(path: Path) -> tuple[int, int]:
    found = RESOLUTION.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{str(path)!r}: expected a line such as 'resolution: (1920, 1080)'")
    return int(found[1]), int(found[2])
