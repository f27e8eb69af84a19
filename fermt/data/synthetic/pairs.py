"""Training pairs from synthetic sequences, rendered only where crops show them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from ...config import ModelConfig
from .config import SyntheticConfig
from .protocol import BRIGHTNESS, FLIP, GRAY, MAX_GAP, in_square, jittered, squares
from .render import View, render
from .scene import Scene, World

SEQUENCES = 2**31  # sequences that pairs are drawn from
SMALLEST = 4.0  # pixels a side of a usable box
TRIES, SCENES = 4, 16  # pairs of frames tried in a sequence, and sequences tried


class SyntheticPairs:
    """A `PairSource` with the paper's augmentation: jitter of search regions, flip, grayscale, brightness.

    A pair depends on (model_config, seed, config, epoch, index) alone, and its sequence is one of
    `SyntheticSequences(seed=seed, config=config)`.

    Args:
        model_config: configuration of the model, for the crops' sizes and factors.
        seed: random seed, at least 0.
        pairs: pairs per epoch.
        config: settings of the sequences.
        sequences: number of sequences that pairs are drawn from; a small number can be memorized.

    Raises:
        FileNotFoundError, ValueError: a folder of images is missing or empty, or a number is out of range.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        seed: int = 0,
        pairs: int = 60_000,
        config: SyntheticConfig | None = None,
        sequences: int = SEQUENCES,
    ) -> None:
        for name, value in (("pairs", pairs), ("sequences", sequences)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model_config, self.seed = model_config, seed
        self.config = SyntheticConfig() if config is None else config
        self._pairs, self._sequences = pairs, sequences
        self._world = World(self.config, seed)
        self.redrawn = 0  # sequences given up because the target was not visible in the frames tried

    def __len__(self) -> int:
        return self._pairs

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Makes pair `index` of an epoch.

        Returns:
            `template` (St, St, 3) and `search` (Ss, Ss, 3), uint8 RGB; `box` (4,) float32, xywh in [0, 1] of the search
            region; it reaches outside if the target does.

        Raises:
            IndexError: there is no such pair.
            RuntimeError: the target is not visible in two frames of any sequence tried.
        """
        if not 0 <= index < self._pairs:
            raise IndexError(f"an epoch has pairs 0 to {self._pairs - 1}, got {index}")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, index))))
        for _ in range(SCENES):
            number = int(rng.integers(self._sequences))
            scene = Scene(self._world, number)
            for _ in range(TRIES):
                times = self._times(rng)
                boxes = self._boxes(scene, times)
                if boxes is not None:
                    return self._cut(rng, scene, number, times, boxes)
            self.redrawn += 1
        raise RuntimeError(
            f"pair {index} of epoch {epoch}: the target is visible in two frames of none of {SCENES} sequences; "
            f"min_visible is {self.config.min_visible}"
        )

    def _times(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draws the template frame and the search frame."""
        gap = int(rng.integers(1, min(MAX_GAP, self.config.frames - 1) + 1))
        first = int(rng.integers(self.config.frames - gap))
        return first, first + gap

    def _boxes(self, scene: Scene, times: tuple[int, int]) -> np.ndarray | None:
        """The target's boxes in both frames, (2, 4); None if it is not visible in both."""
        poses = scene.poses(np.array(times))
        boxes = scene.boxes(poses)
        if boxes[:, 2:].min() < SMALLEST or scene.visible(poses).min() < self.config.min_visible:
            return None
        return boxes

    def _cut(
        self, rng: np.random.Generator, scene: Scene, number: int, times: tuple[int, int], boxes: np.ndarray
    ) -> dict[str, Tensor]:
        model = self.model_config
        template = squares(boxes[0], model.template_factor)
        search = squares(jittered(rng, boxes[1]), model.search_factor)
        crops = ((times[0], template, model.template_size), (times[1], search, model.search_size))
        pictures = [render(scene, number, t, _view(square, size)) for t, square, size in crops]
        return _augmented(rng, pictures, in_square(boxes[1], search))


def _view(square: np.ndarray, size: int) -> View:
    left, top, side = square.tolist()
    return View(left, top, size / side, size, size)


def _augmented(rng: np.random.Generator, pictures: list[np.ndarray], box: np.ndarray) -> dict[str, Tensor]:
    flip, gray = rng.random() < FLIP, rng.random() < GRAY
    brightness = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, len(pictures))
    if flip:
        pictures = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
        box = np.array([1 - box[0] - box[2], *box[1:]], np.float32)
    if gray:
        pictures = [cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for p in pictures]
    template, search = (cv2.convertScaleAbs(p, alpha=factor) for p, factor in zip(pictures, brightness, strict=True))
    return {"template": torch.from_numpy(template), "search": torch.from_numpy(search), "box": torch.from_numpy(box)}
