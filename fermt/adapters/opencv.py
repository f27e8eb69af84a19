"""The interface of OpenCV's own trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tracking import Track
from .build import Source, tracker_for


class Tracker:
    """Stands where a `cv2.TrackerVit` or another of OpenCV's trackers stood.

        tracker = fermt.adapters.opencv.Tracker("fermt.safetensors", lost_below=0.3)
        tracker.init(image, (x, y, w, h))
        ok, box = tracker.update(next_image)

    Images are uint8 (H, W, 3) BGR, or as `fermt.Tracker` takes them otherwise. `track` is the last frame's result in
    floats, a `fermt.Track`, or None before `init`.

    Args:
        model, **options: as for `fermt.adapters.build.tracker_for`. Without `lost_below` every frame is `ok`.
    """

    def __init__(self, model: Source, **options: Any) -> None:
        self._tracker = tracker_for(model, bgr=True, **options)
        self.track: Track | None = None

    def init(self, image: np.ndarray, boundingBox: Sequence[float]) -> None:  # noqa: N803  (OpenCV's name)
        """Takes the target in the first frame; the box (x, y, w, h) may be floats, which OpenCV's trackers refuse.

        Raises:
            TypeError, ValueError: as `fermt.Tracker.init`.
        """
        self._tracker.init(image, boundingBox)
        x, y, w, h = map(float, boundingBox)
        self.track = Track((x, y, w, h), 1.0, False)

    def update(self, image: np.ndarray) -> tuple[bool, tuple[int, ...]]:
        """Whether the target is there, and its box (x, y, w, h) in whole pixels, as OpenCV gives it.

        Where it is not, the box is where it was last seen.

        Raises:
            RuntimeError, TypeError, ValueError: as `fermt.Tracker.update`.
        """
        self.track = self._tracker.update(image)
        return not self.track.lost, tuple(map(round, self.track.box))

    def getTrackingScore(self) -> float:  # noqa: N802  (OpenCV's name)
        """The last frame's score in (0, 1), not calibrated; 1 after `init`. RuntimeError before it."""
        if self.track is None:
            raise RuntimeError("Tracker.getTrackingScore needs a target: call Tracker.init(image, (x, y, w, h)) first")
        return self.track.score
