"""Many targets in one batched frame."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from ..model import FERMT
from .images import check_image
from .network import Packed, network_for
from .target import Options, Target, Track, advance


class MultiTracker:
    """Follows any number of targets through the same frames: all of them in one call of the network.

        tracker = MultiTracker(model)
        left = tracker.add(image_rgb, (x, y, w, h))
        for name, (box, score, lost) in tracker.update(next_image_rgb).items(): ...

    Each is followed as `Tracker` follows one; they do not know of one another.

    Args:
        model, dtype, **options: as for `Tracker`.
    """

    def __init__(self, model: FERMT | Packed, *, dtype: torch.dtype | None = None, **options: Any) -> None:
        self.options = Options(**options)
        self.network = network_for(model, dtype, second_template=self.options.refresh_every > 0)
        self._targets: dict[Hashable, Target] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._targets

    @property
    def names(self) -> tuple[Hashable, ...]:
        """Of the targets, in the order in which they were added."""
        return tuple(self._targets)

    @torch.inference_mode()
    def add(self, image: np.ndarray, box: Sequence[float], name: Hashable = None) -> Hashable:
        """Takes another target, at any time; the next `update` is its first.

        Args:
            image, box: as for `Tracker.init`.
            name: of the target, any that is not in use; None takes the next number, and none twice.

        Returns:
            its name.

        Raises:
            ValueError: the name is in use.
            TypeError, ValueError: as `Tracker.init`.
        """
        if name is None:
            name = next(number for number in self._numbers if number not in self._targets)
        if name in self._targets:
            raise ValueError(f"a target {name!r} is followed already; drop it first, or give another name")
        self._targets[name] = Target(self.network, self.options, image, box)
        return name

    def drop(self, name: Hashable) -> None:
        """Forgets a target. KeyError if there is none of that name."""
        self._checked(name)
        del self._targets[name]

    @torch.inference_mode()
    def reinit(self, name: Hashable, image: np.ndarray, box: Sequence[float]) -> None:
        """As `Tracker.reinit`, of one target. KeyError if there is none of that name."""
        self._checked(name).move(image, box)

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> dict[Hashable, Track]:
        """Every target in the next frame, by name; nothing if there are none.

        Raises:
            RuntimeError: the network's result is not finite for one of them; all stay as they were.
            TypeError, ValueError: the image is not of the form that `Tracker.init` takes.
        """
        check_image(image)
        targets = list(self._targets.values())
        if not targets:
            return {}
        tracks = advance(self.network, targets, [image] * len(targets))
        return dict(zip(self._targets, tracks, strict=True))

    def _checked(self, name: Hashable) -> Target:
        if name not in self._targets:
            raise KeyError(f"no target {name!r}; there are {', '.join(map(repr, self._targets)) or 'none'}")
        return self._targets[name]
