"""ImageNet VID as a training set: each track in a snippet is a sequence."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data.sequences import Annotation, valid_boxes
from .training import TrainingFolder


class ImageNetVIDTraining(TrainingFolder):
    """The tracks. A frame is not valid if the target is occluded or the track is missing. A unit is a snippet."""

    name = "imagenet_vid"
    layout = """\
  Annotations/VID/train/
    ILSVRC2015_VID_train_0000/  (to ..._0003/)
      ILSVRC2015_train_00000000/
        000000.xml  000001.xml  ...
  Data/VID/train/
    ILSVRC2015_VID_train_0000/
      ILSVRC2015_train_00000000/
        000000.JPEG  000001.JPEG  ..."""

    def listed(self) -> list[str]:
        self._images = self.require(self.root / "Data" / "VID" / "train")
        self._notes = self.require(self.root / "Annotations" / "VID" / "train")
        parts = self.folders(self._notes, "ILSVRC2015_VID_train_*")
        return [f"{part}/{snippet}" for part in parts for snippet in self.folders(self._notes / part, "*")]

    def files(self, unit: str) -> tuple[Path, ...]:
        return (self._notes / unit,)

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        paths = sorted((self._notes / unit).glob("[!.]*.xml"))
        tracks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for t, path in enumerate(paths):
            if path.stem != f"{t:06d}":
                raise ValueError(f"{str(path)!r}: expected {t:06d}.xml, frames being numbered from 0 without a gap")
            for track, box, visible in _objects(path):
                boxes, seen = tracks.setdefault(track, (np.zeros((len(paths), 4)), np.zeros(len(paths), bool)))
                boxes[t], seen[t] = box, visible
        for track, (boxes, seen) in tracks.items():
            yield f"{unit}#{track}", Annotation(boxes, seen & valid_boxes(boxes))

    def image_path(self, sequence: str, t: int) -> Path:
        return self._images / sequence.rpartition("#")[0] / f"{t:06d}.JPEG"


def _objects(path: Path) -> Iterator[tuple[str, tuple[float, ...], bool]]:
    """Reads track, xywh box and visibility of each object in the file of a frame."""
    try:
        for target in ET.parse(path).getroot().iter("object"):
            left, top, right, bottom = (
                float(target.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            box = left, top, right - left, bottom - top
            yield target.findtext("trackid", ""), box, target.findtext("occluded", "0") == "0"
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a frame's annotation: {error}") from error
