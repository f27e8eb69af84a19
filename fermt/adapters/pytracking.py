"""Adapter for pytracking and its descendants: OSTrack, MixFormer, STARK ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .build import Source, tracker_for


class Tracker:
    """A tracker for `get_tracker_class` of these frameworks.

        def get_tracker_class():
            return lambda params, dataset_name=None: Tracker("fermt.safetensors", params=params)

    Args:
        model, **options: as for `fermt.adapters.build.tracker_for`.
        params: the framework's parameters, kept for the framework to read; `save_all_boxes` must be off.
    """

    def __init__(self, model: Source, *, params: Any = None, **options: Any) -> None:
        self.params = params
        self.visdom: Any = None  # set by the framework
        self._tracker = tracker_for(model, **options)

    def initialize(self, image: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Starts tracking in the first frame.

        Args:
            image: uint8 (H, W, 3) RGB.
            info: has `init_bbox`, (x, y, w, h) in pixels.

        Returns:
            That box as `target_bbox`.

        Raises:
            TypeError, ValueError: as `fermt.Tracker.init`; also if `info` has no such box, or names several objects.
        """
        if names := info.get("init_object_ids"):
            raise ValueError(f"this tracker follows one object, without init_object_ids; got {list(names)}")
        if info.get("init_bbox") is None:
            raise ValueError(f"info must have init_bbox, (x, y, w, h) in pixels; it has {sorted(info)}")
        self._tracker.init(image, info["init_bbox"])
        return {"target_bbox": [float(value) for value in info["init_bbox"]]}

    def track(self, image: np.ndarray, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns `target_bbox` [x, y, w, h] in the next frame and `best_score` in (0, 1); `info` is not used.

        Raises:
            RuntimeError, TypeError, ValueError: as `fermt.Tracker.update`.
        """
        box, score, _ = self._tracker.update(image)
        return {"target_bbox": list(box), "best_score": score}
