"""Training pairs from synthetic sequences, rendered only where crops show them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...config import ModelConfig
from ..augment import Augmentation, finished_pair, jittered
from ..crops import target_square
from ..pairs import generator_for
from ..sampling import MAX_GAP
from .config import SyntheticConfig
from .render import View, render
from .scene import Scene, World

NUM_SEQUENCES = 2**31  # sequences that pairs are drawn from
MIN_BOX_SIDE = 4.0  # pixels a side of a usable box
MAX_FRAME_PAIRS, MAX_SEQUENCES = 4, 16  # pairs of frames tried in a sequence, and sequences tried
PAPER = Augmentation()


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
        sequences: int = NUM_SEQUENCES,
    ) -> None:
        for name, value in (("pairs", pairs), ("sequences", sequences)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.model_config, self.seed = model_config, seed
        self.config = SyntheticConfig() if config is None else config
        self._pairs, self._sequences = pairs, sequences
        self._world = World(self.config, seed)

    def __len__(self) -> int:
        return self._pairs

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Makes pair `index` of an epoch, as defined by `PairSource`.

        Raises:
            IndexError: there is no such pair.
            RuntimeError: the target is not visible in two frames of any sequence tried.
        """
        if not 0 <= index < self._pairs:
            raise IndexError(f"an epoch has pairs 0 to {self._pairs - 1}, got {index}")
        rng = generator_for(self.seed, epoch, index)
        for _ in range(MAX_SEQUENCES):
            number = int(rng.integers(self._sequences))
            scene = Scene(self._world, number)
            for _ in range(MAX_FRAME_PAIRS):
                times = self._times(rng)
                boxes = self._boxes(scene, times)
                if boxes is not None:
                    return self._cut(rng, scene, number, times, boxes)
        raise RuntimeError(
            f"pair {index} of epoch {epoch}: the target is visible in two frames of none of {MAX_SEQUENCES} sequences; "
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
        if boxes[:, 2:].min() < MIN_BOX_SIDE or scene.visible(poses).min() < self.config.min_visible:
            return None
        return boxes

    def _cut(
        self, rng: np.random.Generator, scene: Scene, number: int, times: tuple[int, int], boxes: np.ndarray
    ) -> dict[str, Tensor]:
        model, first, (x, y, w, h) = self.model_config, tuple(boxes[0].tolist()), boxes[1].tolist()
        around = jittered((x, y, w, h), PAPER.search_center, PAPER.search_scale, rng)
        squares = target_square(first, model.template_factor), target_square(around, model.search_factor)
        places = zip(times, squares, (model.template_size, model.search_size), strict=True)
        pictures = [
            render(scene, number, t, View(left, top, size / side, size, size)) for t, (left, top, side), size in places
        ]
        left, top, side = squares[1]
        box = ((x - left) / side, (y - top) / side, w / side, h / side)
        return finished_pair(pictures, box, PAPER, rng)
