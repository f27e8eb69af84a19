"""The interface of trackers in pytracking and in its descendants: OSTrack, MixFormer, STARK ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .build import Source, tracker_for


class Tracker:
    """What a `get_tracker_class` there stands for, once it has its weights.

        def get_tracker_class():
            return lambda params, dataset_name=None: Tracker("fermt.safetensors", params=params)

    Args:
        model, **options: as for `fermt.adapters.build.tracker_for`.
        params: the framework's own, kept for it to read, and not otherwise used; its `save_all_boxes` must be off.
    """

    def __init__(self, model: Source, *, params: Any = None, **options: Any) -> None:
        self.params = params
        self.visdom: Any = None  # the framework sets it
        self._tracker = tracker_for(model, **options)

    def initialize(self, image: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Takes the target in the first frame.

        Args:
            image: uint8 (H, W, 3) RGB.
            info: `init_bbox`, (x, y, w, h) in pixels.

        Returns:
            `target_bbox`, that box.

        Raises:
            TypeError, ValueError: as `fermt.Tracker.init`, or `info` has no such box, or names objects.
        """
        if names := info.get("init_object_ids"):
            raise ValueError(f"this tracker follows one object, without init_object_ids; got {list(names)}")
        if info.get("init_bbox") is None:
            raise ValueError(f"info must have init_bbox, (x, y, w, h) in pixels; it has {sorted(info)}")
        self._tracker.init(image, info["init_bbox"])
        return {"target_bbox": [float(value) for value in info["init_bbox"]]}

    def track(self, image: np.ndarray, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """`target_bbox` [x, y, w, h] in the next frame, in floats, and `best_score` in (0, 1); `info` is not used.

        Raises:
            RuntimeError, TypeError, ValueError: as `fermt.Tracker.update`.
        """
        box, score, _ = self._tracker.update(image)
        return {"target_bbox": list(box), "best_score": score}
