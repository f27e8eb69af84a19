"""COCO 2017's objects, each a sequence of one image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..sequences import Annotation, valid_boxes
from .reader import Reader

TINY = 8.0  # pixels a side; an object smaller than that shows nothing to follow


class COCO(Reader):
    """Crowds, and boxes less than 8 pixels wide or high, are left out. A unit is the whole file of annotations."""

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
                if not note["iscrowd"] and (boxes[:, 2:] >= TINY).all():
                    yield names[note["image_id"]], Annotation(boxes, valid_boxes(boxes))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(self._instances)!r} is not COCO's file of instances: {_why(error)}") from error

    def image_path(self, sequence: str, t: int) -> Path:
        return self._images / sequence


def _why(error: Any) -> str:
    return f"nothing is called {error}" if isinstance(error, KeyError) else str(error)
