"""Sequence sets of a pool: parts of photographs, annotated objects, and tracked objects in videos."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from ...images import read_image, select_images
from ...textfiles import read_json
from ..annotations import read_objects
from ..pairs import generator_for
from ..sequences import Annotation, valid_boxes
from .folder import LAYOUT, image_files, in_split, require

CACHED_IMAGES = 96  # decoded images in memory, of all sets together
VARIATIONS = 4096  # parts of each photograph
CANDIDATE_BOXES = 4  # boxes drawn for a part; the one with the highest contrast is used
PART_SIDES = (0.12, 0.5)  # square root of a part's area over the photograph's shorter side
ASPECT_STD = 0.4  # standard deviation of the logarithm of a part's width over height
STREAM = 5  # first number of the key of random numbers
MIN_OBJECT_SIDE = 10.0  # pixels a side of an annotated object; a smaller one shows nothing to track
MAX_OBJECT_SHARE = 0.9  # sides of an annotated object over the image's; a larger one has no background


@functools.lru_cache(maxsize=CACHED_IMAGES)
def _decoded(path: Path) -> np.ndarray:
    """Reads an image, or takes it from those read last."""
    return read_image(path)


class PhotoParts:
    """A `SequenceSet` of photographs with a random part as the target: sequence i is a part of photograph i modulo n.

    The target is any part of an image, so a model learns to find again what the template shows.

    Raises:
        FileNotFoundError: there is no such folder, or it has no images.
    """

    name, is_video = "pool-photos", False

    def __init__(self, root: Path, split: str = "train") -> None:
        self._files = image_files(require(root, "photos"), root, split)

    def __len__(self) -> int:
        return len(self._files) * VARIATIONS

    def annotation(self, i: int) -> Annotation:
        image = self.image(i, 0)
        rng = generator_for(STREAM, i)
        boxes = [_part(rng, *image.shape[:2]) for _ in range(CANDIDATE_BOXES)]
        best = max(boxes, key=lambda box: _contrast(image, box))
        return Annotation(best[None], np.ones(1, bool))

    def image(self, i: int, t: int) -> np.ndarray:
        return _decoded(self._files[i % len(self._files)])


class BoxedObjects:
    """A `SequenceSet` of annotated objects, each a sequence of one image.

    Crowds, objects smaller than 10 pixels, objects that fill the image and annotations without a box are left out.

    Raises:
        FileNotFoundError: there is no boxes/annotations.json.
        ValueError: the file is not in COCO's form, or no object in it can be used.
    """

    name, is_video = "pool-boxes", False

    def __init__(self, root: Path, split: str = "train") -> None:
        source = require(root, "boxes", "annotations.json")
        self._objects: list[tuple[Path, np.ndarray]] = []
        for image, box, crowd in read_objects(source):
            if not {"width", "height"} <= image.keys():
                raise ValueError(f"{str(source)!r}: image {image['file_name']!r} has no width and height")
            largest = np.array((image["width"], image["height"])) * MAX_OBJECT_SHARE
            usable = not crowd and (box[2:] >= MIN_OBJECT_SIDE).all() and (box[2:] <= largest).any()
            if usable and in_split(image["file_name"], split):
                self._objects.append((root / image["file_name"], box))
        if not self._objects:
            raise ValueError(f"{str(source)!r} has no object of split {split!r} that can be used")

    def __len__(self) -> int:
        return len(self._objects)

    def annotation(self, i: int) -> Annotation:
        boxes = self._objects[i][1][None]
        return Annotation(boxes, valid_boxes(boxes))

    def image(self, i: int, t: int) -> np.ndarray:
        return _decoded(self._objects[i][0])


class Tracks:
    """A `SequenceSet` of objects tracked through videos; frames with NaN in the box are left out.

    Raises:
        FileNotFoundError: there is no video/tracks.json, or a clip that it names is missing.
        ValueError: a track does not have the form shown in the layout.
    """

    name, is_video = "pool-video", True

    def __init__(self, root: Path, split: str = "train") -> None:
        source = require(root, "video", "tracks.json")
        self._frames: list[list[Path]] = []
        self._annotations: list[Annotation] = []
        clips: dict[str, list[Path]] = {}
        for i, track in enumerate(read_json(source)):
            try:
                clip, first, boxes = str(track["clip"]), int(track["first"]), np.array(track["boxes"], np.float64)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{str(source)!r}: track {i} is not as expected:\n{LAYOUT}") from error
            if clip not in clips:
                folder = require(root, "video", clip)
                clips[clip] = select_images(sorted(folder.iterdir()), folder)
            files = clips[clip]
            if boxes.ndim != 2 or boxes.shape[1] != 4 or first < 0 or first + len(boxes) > len(files):
                raise ValueError(
                    f"{str(source)!r}: track {i} has boxes {boxes.shape} from frame {first} of {len(files)}"
                )
            if in_split(f"{clip}/{i}", split):
                self._frames.append(files[first : first + len(boxes)])
                self._annotations.append(Annotation(boxes, valid_boxes(boxes)))
        if not self._frames:
            raise ValueError(f"{str(source)!r} has no track of split {split!r}")

    def __len__(self) -> int:
        return len(self._frames)

    def annotation(self, i: int) -> Annotation:
        return self._annotations[i]

    def image(self, i: int, t: int) -> np.ndarray:
        return _decoded(self._frames[i][t])


def _part(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a box, (4,) xywh, in an image of the given size."""
    side = np.exp(rng.uniform(*np.log(PART_SIDES))) * min(height, width)
    ratio = np.exp(0.5 * ASPECT_STD * rng.standard_normal())
    sides = np.minimum((side * ratio, side / ratio), (0.9 * width, 0.9 * height))
    corner = rng.random(2) * ((width, height) - sides)
    return np.concatenate((corner, sides))


def _contrast(image: np.ndarray, box: np.ndarray) -> float:
    """Sum of the standard deviations of the channels in a box."""
    x, y, w, h = box.astype(int)
    return float(sum(value[0] for value in cv2.meanStdDev(image[y : y + h + 1, x : x + w + 1])[1]))
