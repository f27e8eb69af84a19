"""Adapter for the GOT-10k toolkit, which must be installed: `pip install got10k`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .build import Source, toolkit, tracker_for

ToolkitTracker: Any = toolkit("got10k.trackers", "got10k").Tracker


class Tracker(ToolkitTracker):
    """A tracker for the experiments of the GOT-10k toolkit.

        from got10k.experiments import ExperimentGOT10k
        ExperimentGOT10k("data/GOT-10k", subset="test").run(Tracker("fermt.safetensors"))

    Args:
        model, **options: as for `fermt.adapters.build.tracker_for`.
        name: name of the folder for results.
    """

    def __init__(self, model: Source, name: str = "FERMT", **options: Any) -> None:
        super().__init__(name=name, is_deterministic=True)
        self._tracker = tracker_for(model, **options)

    def init(self, image: Any, box: Sequence[float]) -> None:
        """Starts tracking in the first frame: a PIL image of any mode, and (x, y, w, h) in pixels.

        Raises:
            TypeError, ValueError: as `fermt.Tracker.init`.
        """
        self._tracker.init(_rgb(image), box)

    def update(self, image: Any) -> np.ndarray:
        """Returns the box (x, y, w, h) in the next frame: float64 (4,), in pixels.

        Raises:
            RuntimeError, TypeError, ValueError: as `fermt.Tracker.update`.
        """
        return np.array(self._tracker.update(_rgb(image)).box)


def _rgb(image: Any) -> np.ndarray:
    if not hasattr(image, "convert"):
        raise TypeError(f"an image must be a PIL image, as the toolkit opens it; got {type(image).__name__}")
    return np.asarray(image.convert("RGB"))
