"""Frames in and out: video files and folders of images through OpenCV, in RGB."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..boxes import Box

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class FrameSource:
    """The frames of a video file, or of a folder of images in the natural order of their names.

    Iterating gives (H, W, 3) uint8 RGB arrays. `count` is how many are announced (a video may end earlier or later,
    0 means unknown), `fps` the frame rate.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is no video that OpenCV can read, or a folder without images; while iterating, an image that
            cannot be read, or a video without a single frame.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"no video and no folder at {os.fspath(path)!r}")
        if self.path.is_dir():
            self._images = sorted(
                (file for file in self.path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_natural
            )
            if not self._images:
                raise ValueError(f"folder {str(path)!r} holds no images ({', '.join(IMAGE_SUFFIXES)})")
            self.count, self.fps = len(self._images), 30.0
            return
        capture = cv2.VideoCapture(str(self.path))
        opened = capture.isOpened()
        self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) if opened else 0
        self.fps = capture.get(cv2.CAP_PROP_FPS) or 30.0
        capture.release()
        if not opened:
            raise ValueError(f"{str(path)!r} is not a video that OpenCV can read; expected one, or a folder of images")

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read_images() if self.path.is_dir() else self._read_video()

    def _read_images(self) -> Iterator[np.ndarray]:
        for file in self._images:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"image {str(file)!r} cannot be read")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _read_video(self) -> Iterator[np.ndarray]:
        capture = cv2.VideoCapture(str(self.path))
        frames = 0
        try:
            while True:
                read, image = capture.read()
                if not read:
                    break
                frames += 1
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        if frames == 0:
            raise ValueError(f"no frame of {str(self.path)!r} can be read")


class VideoWriter:
    """Writes RGB frames to an MP4 file, aside first; the file takes its name when the context ends without an error."""

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path = Path(path)
        self._aside = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._fps = fps
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
            if error_type is None:
                os.replace(self._aside, self.path)
        self._aside.unlink(missing_ok=True)

    def write(self, image: np.ndarray) -> None:
        """Appends one (H, W, 3) uint8 frame; ValueError if its size is not the first one's."""
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            self._size = size
            self._writer = cv2.VideoWriter(str(self._aside), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
            if not self._writer.isOpened():
                raise ValueError(f"OpenCV cannot write a video to {str(self.path)!r}")
        if size != self._size:
            raise ValueError(f"a video's frames must be of one size, {self._size}; got {size}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def annotate(image: np.ndarray, box: Box, caption: str) -> np.ndarray:
    """A copy of the RGB `image` with the xywh `box` and a line of text."""
    x, y, w, h = (round(value) for value in box)
    drawn = image.copy()
    cv2.rectangle(drawn, (x, y), (x + w, y + h), (80, 255, 80), 2)
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (text_width, text_height), _ = cv2.getTextSize(caption, font, scale, 1)
    cv2.rectangle(drawn, (0, 0), (text_width + 16, text_height + 16), (0, 0, 0), cv2.FILLED)
    cv2.putText(drawn, caption, (8, text_height + 8), font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key by which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]
