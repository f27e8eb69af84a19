"""Tracking of many targets in one batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count
from typing import Any

import torch

from fermt_kernels.locks import ObjectLock

from ..model import FERMT
from .images import Image, check_image
from .network import Packed, network_for
from .target import Options, Target, Track, advance


class MultiTracker:
    """Tracks any number of targets in the same frames, all in one call of the network.

        tracker = MultiTracker(model)
        left = tracker.add(image_rgb, (x, y, w, h))
        for name, (box, score, lost) in tracker.update(next_image_rgb).items(): ...

    Each target is tracked as by `Tracker`, independently of the others. Calls from several threads wait for each other.

    Args:
        model, dtype, **options: as for `Tracker`.
    """

    def __init__(self, model: FERMT | Packed, *, dtype: torch.dtype | None = None, **options: Any) -> None:
        self.options = Options(**options)
        self.network = network_for(model, dtype, second_template=self.options.refresh_every > 0)
        self._targets: dict[Hashable, Target] = {}
        self._numbers = count()
        self._lock = ObjectLock()

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._targets

    @property
    def names(self) -> tuple[Hashable, ...]:
        """The names of the targets, in the order in which they were added."""
        return tuple(self._targets)

    @torch.inference_mode()
    def add(self, image: Image, box: Sequence[float], name: Hashable = None) -> Hashable:
        """Adds a target, at any time; it is tracked from the next `update` on.

        Args:
            image, box: as for `Tracker.init`.
            name: of the target, not in use; None takes the next number, never the same twice.

        Returns:
            The name.

        Raises:
            ValueError: the name is in use.
            TypeError, ValueError: as `Tracker.init`.
        """
        with self._lock:
            if name is None:
                name = next(number for number in self._numbers if number not in self._targets)
            if name in self._targets:
                raise ValueError(f"there is a target {name!r} already; drop it first, or give another name")
            self._targets[name] = Target(self.network, self.options, image, box)
        return name

    def drop(self, name: Hashable) -> None:
        """Removes a target. KeyError if there is none of that name."""
        with self._lock:
            self._checked(name)
            del self._targets[name]

    @torch.inference_mode()
    def reinit(self, name: Hashable, image: Image, box: Sequence[float]) -> None:
        """Moves a target as `Tracker.reinit` does. KeyError if there is none of that name."""
        with self._lock:
            self._checked(name).move(image, box)

    @torch.inference_mode()
    def update(self, image: Image) -> dict[Hashable, Track]:
        """Tracks every target in the next frame; returns results by name.

        Raises:
            RuntimeError: the network's result for a target is not finite; no target is changed.
            TypeError, ValueError: the image does not have the form that `Tracker.init` expects.
        """
        check_image(image, self.network.device)
        with self._lock:
            targets = list(self._targets.values())
            if not targets:
                return {}
            tracks = advance(self.network, targets, [image] * len(targets))
            return dict(zip(self._targets, tracks, strict=True))

    def _checked(self, name: Hashable) -> Target:
        if name not in self._targets:
            raise KeyError(f"no target {name!r}; there are {', '.join(map(repr, self._targets)) or 'none'}")
        return self._targets[name]
