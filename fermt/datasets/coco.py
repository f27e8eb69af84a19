"""COCO 2017 as a training set: each object is a sequence of one image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..data.annotations import read_objects
from ..data.sequences import Annotation, valid_boxes
from .training import TrainingFolder

MIN_OBJECT_SIDE = 8.0  # pixels a side of an object; a smaller one shows nothing to track


class COCOTraining(TrainingFolder):
    """The objects, without crowds and boxes less than 8 pixels wide or high.

    Annotations without a usable box are left out, with a warning that names them. The unit is the file of
    annotations.
    """

    name = "coco"
    is_video = False
    splits = ("train", "val")
    layout = """\
  annotations/
    instances_train2017.json  (or instances_val2017.json)
  train2017/  (or images/train2017/)
    000000000009.jpg  ..."""

    def listed(self) -> list[str]:
        year = f"{self.split}2017"
        self._images = self.require(self.root / year, self.root / "images" / year)
        self._instances = self.require(self.root / "annotations" / f"instances_{year}.json")
        return [self._instances.stem]

    def files(self, unit: str) -> tuple[Path, ...]:
        return (self._instances,)

    def read(self, unit: str) -> Iterator[tuple[str, Annotation]]:
        for image, box, crowd in read_objects(self._instances):
            if not crowd and (box[2:] >= MIN_OBJECT_SIDE).all():
                yield image["file_name"], Annotation(box[None], valid_boxes(box[None]))

    def image_path(self, sequence: str, t: int) -> Path:
        return self._images / sequence
