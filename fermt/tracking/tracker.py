"""The tracker: crop, normalise, forward, window, decode, map back, clip (the authors' test-time tracker)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..model import FERMT
from .network import Packed, network_for
from .target import Options, Target, Track, advance


class Tracker:
    """Follows one target from frame to frame.

        tracker = Tracker(model)
        tracker.init(image_rgb, (x, y, w, h))
        box, score, lost = tracker.update(next_image_rgb)

    The model is packed (`fermt_kernels.frame`), on the CPU and on a GPU: its weights as they are now, so train first.
    Where there is no packed frame (float64, no compiled library or no Triton, another backend asked for), the model
    itself runs.

    Args:
        model: a FERMT, whose dtype and device are those that tracking runs in; or a packed model.
        dtype: of the packed frame's products, torch.float32 or torch.bfloat16, on a GPU also torch.float16; None takes
            the model's own.
        **options: those of `fermt.tracking.Options`: bgr, lost_below, patience, growth, ...

    Raises:
        TypeError, ValueError: `dtype` is asked for and there is no packed frame for it, or an option is not what
            `Options` takes; the message says why.
    """

    def __init__(self, model: FERMT | Packed, *, dtype: torch.dtype | None = None, **options: Any) -> None:
        self.options = Options(**options)
        self.network = network_for(model, dtype, second_template=self.options.refresh_every > 0)
        self._target: Target | None = None

    @torch.inference_mode()
    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        """Takes the target in the first frame.

        Args:
            image: uint8 (H, W, 3) RGB, or BGR with `bgr=True`; (H, W, 4) with alpha, which is left out; or (H, W) or
                (H, W, 1) grey.
            box: (x, y, w, h) in pixels: left, top, width, height.

        Raises:
            TypeError, ValueError: the image is not of that form, or the box has no area or lies outside the image.
        """
        self._target = Target(self.network, self.options, image, box)

    @torch.inference_mode()
    def reinit(self, image: np.ndarray, box: Sequence[float]) -> None:
        """Puts the target where it was found again, by a detector say: its template stays that of `init`.

        Raises:
            RuntimeError: `init` has not been called.
            TypeError, ValueError: as `init`.
        """
        self._checked("reinit").move(image, box)

    @torch.inference_mode()
    def update(self, image: np.ndarray) -> Track:
        """The target in the next frame, looked for around the last box.

        Args:
            image: as for `init`; it may be of another size than the one before.

        Raises:
            RuntimeError: `init` has not been called, or the network's result is not finite.
            TypeError, ValueError: the image is not of that form.
        """
        (track,) = advance(self.network, [self._checked("update")], [image])
        return track

    def _checked(self, name: str) -> Target:
        if self._target is None:
            raise RuntimeError(f"Tracker.{name} needs a target: call Tracker.init(image, (x, y, w, h)) first")
        return self._target
