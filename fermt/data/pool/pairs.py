"""Training pairs from the parts of a pool, drawn by their shares."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from ...config import ModelConfig
from ..augment import Augmentation
from ..pairs import PairSource, generator_for
from ..sampling import PairSampler
from ..sequences import SequenceSet
from ..synthetic import SyntheticConfig, SyntheticPairs
from .folder import require
from .sets import BoxedObjects, PhotoParts, Tracks

SHARES = {"scenes": 0.35, "boxes": 0.25, "photos": 0.4}
STILL = Augmentation(  # for one image used twice: replaces the changes over time in a video
    template_center=0.2, template_scale=0.1, gray=0.15, brightness=0.35, rotation=0.12, stretch=0.15, contrast=0.35,
    color=0.15, blur=0.3, noise=6.0, hidden=0.15,
)  # fmt: skip
MOVING = Augmentation(gray=0.15, rotation=0.05, stretch=0.05, contrast=0.2, color=0.05, blur=0.15, noise=4.0)
_SETS: dict[str, tuple[Callable[[Path, str], SequenceSet], Augmentation]] = {
    "boxes": (BoxedObjects, STILL),
    "photos": (PhotoParts, STILL),
    "video": (Tracks, MOVING),
}
PARTS = ("scenes", *_SETS)


class PoolPairs:
    """A `PairSource` over a folder of free images.

    Args:
        root: the folder of the pool.
        config: configuration of the model, for the crops' sizes.
        seed: random seed.
        pairs: pairs per epoch.
        split: "train" or "val". The parts "boxes", "photos" and "video" of the two have no image or track in common;
            their scenes are made of the same images and differ by the seed.
        shares: relative frequencies of the parts "scenes" (cut-outs moving over photographs), "boxes" (annotated
            objects), "photos" (parts of photographs) and "video" (tracked objects).
        scenes: settings of the scenes; its folders are replaced by the pool's.

    Raises:
        FileNotFoundError: a part of the pool is missing; the message shows the layout.
        ValueError: an unknown part, or a share that is not positive.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        config: ModelConfig | None = None,
        seed: int = 0,
        pairs: int = 60_000,
        *,
        split: str = "train",
        shares: Mapping[str, float] | None = None,
        scenes: SyntheticConfig | None = None,
    ) -> None:
        folder, config, shares = Path(root), config or ModelConfig(), dict(shares or SHARES)
        if unknown := sorted(set(shares) - set(PARTS)):
            raise ValueError(f"a pool has the parts {', '.join(PARTS)}; got {unknown}")
        if not shares or any(not 0 < share < float("inf") for share in shares.values()):
            raise ValueError(f"each part must have a positive share; got {shares}")
        require(folder)
        self.seed, self._pairs = seed, pairs
        self._bounds = np.cumsum(list(shares.values())) / sum(shares.values())
        self._sources: list[PairSource] = []
        for name in shares:
            if name == "scenes":
                objects, backgrounds = (str(require(folder, part)) for part in ("cutouts", "photos"))
                world = dataclasses.replace(scenes or SyntheticConfig(), objects=objects, backgrounds=backgrounds)
                self._sources.append(SyntheticPairs(config, seed, pairs, world))
            else:
                opened, augmentation = _SETS[name]
                sampler = PairSampler(
                    [opened(folder, split)], None, config, seed, pairs, augmentation=augmentation, max_gap=60
                )
                self._sources.append(sampler)

    def __len__(self) -> int:
        return self._pairs

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Makes a pair, as defined by `PairSource`."""
        drawn = generator_for(self.seed, epoch, index).random()
        place = min(int(np.searchsorted(self._bounds, drawn, side="right")), len(self._sources) - 1)
        return self._sources[place].pair(epoch, index)
