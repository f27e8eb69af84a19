"""Synthetic sequences as a `SequenceSet`, and single synthetic videos."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import numpy as np

from ..sequences import Annotation
from .config import SyntheticConfig
from .render import View, render
from .scene import Scene, World

CACHED_SCENES = 8  # scenes in memory
MAX_TRIES = 100  # sequences tried for one whose target is visible in the first frame


class SyntheticSequences:
    """A `SequenceSet` whose frames are rendered on access.

    Frame t of sequence i depends on (config, seed, i, t) only, and costs the same in any order.

    Args:
        sequences: number of sequences.
        seed: random seed, at least 0.
        config: settings of the sequences, with their length `frames`.

    Raises:
        FileNotFoundError, ValueError: a folder of images is missing or empty, or a number is out of range.
    """

    is_video = True

    def __init__(self, sequences: int = 1000, seed: int = 0, config: SyntheticConfig | None = None) -> None:
        if sequences < 1:
            raise ValueError(f"sequences must be at least 1, got {sequences}")
        self.config = SyntheticConfig() if config is None else config
        self.name = f"synthetic-{seed}"
        self.seed, self._sequences = seed, sequences
        self._world = World(self.config, seed)
        self._kept: OrderedDict[int, tuple[Scene, Annotation | None]] = OrderedDict()

    def __len__(self) -> int:
        return self._sequences

    def annotation(self, i: int) -> Annotation:
        """Computes the target's boxes: of its part in the frame, hidden by other objects or not.

        A frame is valid if at least `config.min_visible` of the target is visible.

        Raises:
            IndexError: there is no sequence i.
        """
        scene, annotation = self._scene(i)
        if annotation is None:
            poses = scene.poses(np.arange(self.config.frames))
            boxes = scene.boxes(poses)
            valid = (scene.visible(poses) >= self.config.min_visible) & (boxes[:, 2:] > 0).all(axis=1)
            annotation = Annotation(boxes, valid)
            self._kept[i] = scene, annotation
        return annotation

    def image(self, i: int, t: int) -> np.ndarray:
        """Renders frame t of sequence i, (height, width, 3) uint8 RGB.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= t < self.config.frames:
            raise IndexError(f"sequence {i} has frames 0 to {self.config.frames - 1}, got {t}")
        return render(self._scene(i)[0], i, t, View(0, 0, 1, self.config.height, self.config.width))

    def _scene(self, i: int) -> tuple[Scene, Annotation | None]:
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name} has sequences 0 to {len(self) - 1}, got {i}")
        if i in self._kept:
            self._kept.move_to_end(i)
        else:
            self._kept[i] = Scene(self._world, i), None
            if len(self._kept) > CACHED_SCENES:
                self._kept.popitem(last=False)
        return self._kept[i]


def synthetic_video(
    seed: int = 0, frames: int = 60, size: tuple[int, int] = (360, 640), config: SyntheticConfig | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a video whose target is visible in the first frame.

    Args:
        size: height and width in pixels; they and `frames` replace the fields of `config`.

    Returns:
        Frames (frames, height, width, 3) uint8 RGB, and boxes (frames, 4) float64, xywh in pixels, as
        `SyntheticSequences.annotation` gives them.

    Raises:
        ValueError: a number is out of range.
    """
    config = dataclasses.replace(config or SyntheticConfig(), height=size[0], width=size[1], frames=frames)
    sequences = SyntheticSequences(MAX_TRIES, seed, config)
    for i in range(MAX_TRIES):
        boxes, valid = sequences.annotation(i)
        if valid[0]:
            return np.stack([sequences.image(i, t) for t in range(frames)]), boxes
    raise ValueError(f"the target is hidden in the first frame of each of {MAX_TRIES} sequences of seed {seed}")
