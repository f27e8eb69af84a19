"""COCO 2017 as a training set: each object is a sequence of one image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sequences import Annotation, valid_boxes
from .training import TrainingFolder

SMALLEST = 8.0  # pixels a side of an object; a smaller one shows nothing to track


class COCOTraining(TrainingFolder):
    """The objects, without crowds and boxes less than 8 pixels wide or high. The unit is the file of annotations."""

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
        try:
            content = json.loads(self._instances.read_bytes())
            names = {image["id"]: image["file_name"] for image in content["images"]}
            for note in content["annotations"]:
                boxes = np.array([note["bbox"]], np.float64).reshape(1, 4)
                if not note["iscrowd"] and (boxes[:, 2:] >= SMALLEST).all():
                    yield names[note["image_id"]], Annotation(boxes, valid_boxes(boxes))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(self._instances)!r} is not a COCO file of instances: {_why(error)}") from error

    def image_path(self, sequence: str, t: int) -> Path:
        return self._images / sequence


def _why(error: Any) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
