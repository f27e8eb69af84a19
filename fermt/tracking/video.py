"""Output of annotated frames: a video file and a window."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fermt_kernels.files import atomic_path

from ..images import opencv_name
from .containers import count_frames
from .target import Track

# RGB, in the order of targets: distinct, and visible on dark and light images.
COLORS = (
    (80, 255, 80),
    (255, 90, 90),
    (90, 160, 255),
    (255, 210, 60),
    (230, 110, 255),
    (70, 240, 240),
    (255, 150, 50),
)
LOST_COLOR = (150, 150, 150)
LARGEST_TERM = 65535  # of a frame rate as a fraction in an MPEG-4 stream
LOWEST_RATE = 0.01  # OpenCV rounds lower ones to 0
NO_WINDOW = (
    "no window can be opened: this needs a display, and an OpenCV with windows "
    "(pip uninstall opencv-python-headless; pip install opencv-python)"
)
WINDOW_TITLE = "fermt track: draw the target, then press Enter (c cancels)"

logger = logging.getLogger(__name__)


class DiscardedError(Exception):
    """The video is not wanted."""


class VideoWriter:
    """Writes RGB frames to an MP4 file, which gets its name when the context ends without an error.

    The frame rate is the nearest one that MPEG-4 can have. OpenCV says nothing about a full disk, so the file is read
    back before it gets its name.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path = Path(path)
        opencv_name(str(self.path))
        self._fps = nearest_rate(fps)
        if abs(self._fps - fps) > 0.01 * fps:
            logger.warning("%r gets %g frames per second instead of %g", str(path), self._fps, fps)
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None
        self._stack = ExitStack()
        self._temporary, self._frames = self.path, 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def close(self) -> None:
        """Finishes the file; OSError if it does not have all frames."""
        if self._writer is None:
            return
        with self._stack:
            self._writer.release()
            self._writer = None
            found = count_frames(self._temporary)
            if found != self._frames:
                raise OSError(
                    f"the video {str(self.path)!r} was not written: {found} of its {self._frames} frames can be read "
                    "back, as if the disk were full"
                )

    def discard(self) -> None:
        """Ends without a file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        with suppress(DiscardedError), self._stack:
            raise DiscardedError

    def write(self, image: np.ndarray) -> None:
        """Appends one (H, W, 3) uint8 frame; ValueError if its size is not the first one's."""
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            self._size = size
            self._temporary = self._stack.enter_context(atomic_path(self.path, keep_suffix=True))
            self._temporary = self._temporary.absolute()  # a relative 10:30.mp4 is a URL to FFmpeg
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
            if not self._writer.isOpened():
                raise ValueError(f"OpenCV cannot write a video of {size[0]} x {size[1]} pixels to {str(self.path)!r}")
            even = (size[0] // 2 * 2, size[1] // 2 * 2)
            if even != size:
                text = "%r keeps %d x %d of the %d x %d pixels of a frame: the sides of a video are even"
                logger.warning(text, str(self.path), *even, *size)
        if size != self._size:
            raise ValueError(f"a video's frames must be of one size, {self._size}; got {size}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._frames += 1


def nearest_rate(fps: float) -> float:
    """The nearest frame rate to `fps` that OpenCV can write to an MPEG-4 stream, whose fractions have 16-bit terms.

    OpenCV takes the fraction of `fps` over 1, 10, 100 or 1000 that is exact to 0.001.

    Raises:
        ValueError: `fps` is not a positive finite number.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"expected a positive number of frames per second, got {fps}")
    fps = min(max(fps, LOWEST_RATE), LARGEST_TERM)
    base = max(base for base in (1, 10, 100, 1000) if round(fps * base) <= LARGEST_TERM)
    return round(fps * base) / base


def select_box(image: np.ndarray) -> tuple[float, ...]:
    """Lets the user draw a box, xywh, on an RGB frame in a window.

    Raises:
        RuntimeError: no window can be opened.
        ValueError: the user cancels, or draws nothing.
    """
    try:
        box = cv2.selectROI(WINDOW_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), showCrosshair=False)
        cv2.destroyWindow(WINDOW_TITLE)
    except cv2.error as error:
        raise RuntimeError(NO_WINDOW) from error
    if not (box[2] > 0 and box[3] > 0):
        raise ValueError("no target was drawn")
    return tuple(float(value) for value in box)


def annotate(image: np.ndarray, tracks: Mapping[str, Track], caption: str) -> np.ndarray:
    """Draws a box for each target, gray if it is lost, and a line of text on a copy of an RGB image."""
    drawn = image.copy()
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    for i, (name, track) in enumerate(tracks.items()):
        x, y, w, h = (round(value) for value in track.box)
        color = LOST_COLOR if track.lost else COLORS[i % len(COLORS)]
        cv2.rectangle(drawn, (x, y), (x + w, y + h), color, 2)
        label = f"{name}: " if len(tracks) > 1 else ""
        text = f"{label}lost" if track.lost else f"{label}{track.score:.2f}"
        cv2.putText(drawn, text, (x + 3, y + h - 5), font, scale, color, 1, cv2.LINE_AA)
    (text_width, text_height), _ = cv2.getTextSize(caption, font, scale, 1)
    cv2.rectangle(drawn, (0, 0), (text_width + 16, text_height + 16), (0, 0, 0), cv2.FILLED)
    cv2.putText(drawn, caption, (8, text_height + 8), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


class Window:
    """A window on the screen, closed when the context ends. RuntimeError if it cannot be opened."""

    TITLE = "fermt track (q ends)"
    ENDS = (ord("q"), 27)  # and Escape

    def __enter__(self) -> Window:
        try:
            cv2.namedWindow(self.TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise RuntimeError(NO_WINDOW) from error
        return self

    def __exit__(self, *_: object) -> None:
        cv2.destroyWindow(self.TITLE)

    def show(self, image: np.ndarray) -> bool:
        """Shows an RGB frame; returns False once the user has pressed q or Escape."""
        cv2.imshow(self.TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in self.ENDS
