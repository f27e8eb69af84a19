"""Objects of a file of annotations in COCO's form."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..messages import first_few
from ..textfiles import read_json

logger = logging.getLogger(__name__)


class AnnotatedObject(NamedTuple):
    """An object, its image as the file describes it, and its box, (4,) float64 xywh."""

    image: dict[str, Any]
    box: np.ndarray
    crowd: bool


def read_objects(path: Path) -> Iterator[AnnotatedObject]:
    """Reads the objects of a file in COCO's form.

    Annotations without an image of the file, without a box of four finite numbers, or with an `iscrowd` that is neither
    0 nor 1 are left out; a warning counts and names them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not in COCO's form, or none of its annotations can be used.
    """
    content = read_json(path)
    try:
        images = {image["id"]: image for image in content["images"]}
        notes = list(content["annotations"])
        faults = [fault for image in images.values() if (fault := _image_fault(image))]
        if len(images) < len(content["images"]):
            count = Counter(image["id"] for image in content["images"])
            faults.append(f"several images have the id {count.most_common(1)[0][0]!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not a COCO file of instances: {_why(error)}") from error
    if faults:
        raise ValueError(f"{str(path)!r} is not a COCO file of instances: {faults[0]}")
    left_out = []
    for i, note in enumerate(notes):
        fault, found = _parse(note, images)
        if found is None:
            left_out.append(f"{_name(note, i)} ({fault})")
        else:
            yield found
    if not left_out:
        return
    text = f"{str(path)!r}: {len(left_out)} of {len(notes)} annotations are left out: {first_few(left_out)}"
    if len(left_out) == len(notes):
        raise ValueError(text)
    logger.warning("%s", text)


def _image_fault(image: Any) -> str:
    return "" if isinstance(image["file_name"], str) else f"file_name {image['file_name']!r} of an image is not text"


def _parse(note: Any, images: dict[Any, dict[str, Any]]) -> tuple[str, AnnotatedObject | None]:
    """Returns an object, or the reason why there is none."""
    if not isinstance(note, dict):
        return f"it is {type(note).__name__}, not a mapping", None
    try:
        image = images[note.get("image_id")]
    except (KeyError, TypeError):
        return f"no image {note.get('image_id')!r}", None
    given = note.get("bbox")
    try:
        box = np.array(given, np.float64)
    except (TypeError, ValueError):
        box = np.zeros(0)
    if box.shape != (4,) or not np.isfinite(box).all():
        return f"box {given!r}", None
    crowd = note.get("iscrowd", 0)
    if crowd not in (0, 1):
        return f"iscrowd {crowd!r}", None
    return "", AnnotatedObject(image, box, bool(crowd))


def _name(note: Any, i: int) -> str:
    return f"id {note['id']}" if isinstance(note, dict) and "id" in note else f"number {i}"


def _why(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
