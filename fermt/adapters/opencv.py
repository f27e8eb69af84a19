"""Adapter with the interface of OpenCV's trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tracking import Track
from .build import Source, tracker_for


class Tracker:
    """A replacement for `cv2.TrackerVit` and other trackers of OpenCV.

        tracker = fermt.adapters.opencv.Tracker("fermt.safetensors", lost_below=0.3)
        tracker.init(image, (x, y, w, h))
        ok, box = tracker.update(next_image)

    Images are uint8 (H, W, 3) BGR, or of the other forms of `fermt.Tracker`. `track` is the result in the last frame, a
    `fermt.Track` with floats, or None before `init`.

    Args:
        model, **options: as for `fermt.adapters.build.tracker_for`. Without `lost_below` every frame is `ok`.
    """

    def __init__(self, model: Source, **options: Any) -> None:
        self._tracker = tracker_for(model, bgr=True, **options)
        self.track: Track | None = None

    def init(self, image: np.ndarray, boundingBox: Sequence[float]) -> None:  # noqa: N803  (OpenCV's name)
        """Starts tracking in the first frame; unlike in OpenCV, the box (x, y, w, h) may have floats.

        Raises:
            TypeError, ValueError: as `fermt.Tracker.init`.
        """
        self._tracker.init(image, boundingBox)
        x, y, w, h = map(float, boundingBox)
        self.track = Track((x, y, w, h), 1.0, False)

    def update(self, image: np.ndarray) -> tuple[bool, tuple[int, ...]]:
        """Returns whether the target is visible, and its box (x, y, w, h) in whole pixels, as OpenCV does.

        If it is not visible, the box is the last one in which it was.

        Raises:
            RuntimeError, TypeError, ValueError: as `fermt.Tracker.update`.
        """
        self.track = track = self._tracker.update(image)
        return not track.lost, tuple(map(round, track.box))

    def getTrackingScore(self) -> float:  # noqa: N802  (OpenCV's name)
        """Returns the score of the last frame in (0, 1), not calibrated; 1 after `init`. RuntimeError before `init`."""
        if self.track is None:
            raise RuntimeError("Tracker.getTrackingScore needs a target: call Tracker.init(image, (x, y, w, h)) first")
        return self.track.score
