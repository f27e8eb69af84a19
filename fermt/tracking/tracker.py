"""Tracking of one target, as the authors' test-time tracker does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fermt_kernels.locks import ObjectLock

from ..model import FERMT
from .images import Image
from .network import Packed, network_for
from .target import Options, Target, Track, advance


class Tracker:
    """Tracks one target from frame to frame.

        tracker = Tracker(model)
        tracker.init(image_rgb, (x, y, w, h))
        box, score, lost = tracker.update(next_image_rgb)

    The model is packed (`fermt_kernels.frame`) on the CPU and on a GPU; later changes of its weights have no effect. If
    there is no packed frame (float64, no compiled library or Triton, another backend), the model itself runs. Calls
    from several threads wait for each other; separate trackers run concurrently.

    Args:
        model: a FERMT, which runs in its dtype and on its device; or a packed model.
        dtype: of the packed frame's products: torch.float32, torch.bfloat16, or on a GPU torch.float16; None: that of
            the model.
        **options: fields of `fermt.tracking.Options`: bgr, lost_below, patience, growth, ...

    Raises:
        TypeError, ValueError: there is no packed frame in `dtype`, or an option is not valid; the message says why.
    """

    def __init__(self, model: FERMT | Packed, *, dtype: torch.dtype | None = None, **options: Any) -> None:
        self.options = Options(**options)
        self.network = network_for(model, dtype, second_template=self.options.refresh_every > 0)
        self._target: Target | None = None
        self._lock = ObjectLock()

    @torch.inference_mode()
    def init(self, image: Image, box: Sequence[float]) -> None:
        """Starts tracking a target.

        Args:
            image: the first frame, uint8: (H, W, 3) RGB, or BGR with `bgr=True`; (H, W, 4) with alpha, which is not
                used; or (H, W) or (H, W, 1) grayscale. An array, or a tensor on the CPU or where the model is, as a
                GPU's decoder gives it, complete on the current stream.
            box: (x, y, w, h) in pixels: left, top, width, height.

        Raises:
            TypeError, ValueError: the image has another form, or the box has no area or lies outside the image.
        """
        with self._lock:
            self._target = Target(self.network, self.options, image, box)

    @torch.inference_mode()
    def reinit(self, image: Image, box: Sequence[float]) -> None:
        """Moves the target to where it was found again, for example by a detector; its template stays that of `init`.

        Raises:
            RuntimeError: `init` has not been called.
            TypeError, ValueError: as `init`.
        """
        with self._lock:
            self._checked("reinit").move(image, box)

    @torch.inference_mode()
    def update(self, image: Image) -> Track:
        """Tracks the target in the next frame, in a region around its last box.

        Args:
            image: as for `init`; its size may differ from that of the last frame.

        Raises:
            RuntimeError: `init` has not been called, or the network's result is not finite.
            TypeError, ValueError: the image has another form.
        """
        with self._lock:
            (track,) = advance(self.network, [self._checked("update")], [image])
        return track

    def _checked(self, name: str) -> Target:
        if self._target is None:
            raise RuntimeError(f"Tracker.{name} needs a target: call Tracker.init(image, (x, y, w, h)) first")
        return self._target
