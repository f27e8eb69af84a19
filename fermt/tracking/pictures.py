"""The pictures of a run: a video file, a contact sheet and a window. One that fails does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .sheet import ContactSheet
from .target import Track
from .video import VideoWriter, Window, annotate

ERRORS = (OSError, ValueError, RuntimeError, MemoryError, cv2.error)


class Pictures:
    """Draws frames into the requested outputs.

    Args:
        video: the .mp4 to write, or None.
        sheet: the contact sheet to write, or None.
        every: frames from one picture of the sheet to the next.
        show: whether to open a window.
        fps: frames per second of the video.
        label: text on each frame.

    `written` and `failures` have a line for each output that was written, or could not be; after its first error an
    output is given up.

    Raises:
        RuntimeError: the window cannot be opened.
    """

    def __init__(self, video: Path | None, sheet: Path | None, every: int, show: bool, fps: float, label: str) -> None:
        self._label, self._shape, self._closed = label, (0, 0), False
        self.written: list[str] = []
        self.failures: list[str] = []
        self._window = Window().__enter__() if show else None
        self._writer = VideoWriter(video, fps) if video else None
        self._sheet = ContactSheet(sheet, every) if sheet else None

    def add(self, number: int, image: np.ndarray, tracks: Mapping[str, Track]) -> bool:
        """Draws frame `number`, (H, W, 3) RGB; returns False once the user has closed the window."""
        self._shape = self._shape if number else image.shape[:2]
        if not (self._writer or self._window or (self._sheet and self._sheet.wants())):
            if self._sheet:
                self._sheet.skip()
            return True
        drawn = annotate(image, tracks, f"FERMT ({self._label})  frame {number}")
        if drawn.shape[:2] != self._shape:
            drawn = cv2.resize(drawn, self._shape[::-1])
        if self._writer and not self._try(self._writer.write, drawn):
            self._writer.discard()
            self._writer = None
        if self._sheet and not self._try(self._sheet.add, drawn):
            self._sheet = None
        if self._window and not self._try(self._show, self._window, drawn):
            self._window = None
        return not self._closed

    def close(self) -> None:
        """Finishes the video and the sheet, and closes the window."""
        if self._writer and self._try(self._writer.close):
            self.written.append(f"video in {self._writer.path}")
        if self._sheet and self._try(self._sheet.save):
            self.written.append(f"contact sheet in {self._sheet.path}")
        if self._window:
            self._try(self._window.__exit__)
        self._writer = self._sheet = self._window = None

    def discard(self) -> None:
        """Closes everything without writing a file."""
        if self._writer:
            self._writer.discard()
        self._writer = self._sheet = None
        self.close()

    def _show(self, window: Window, drawn: np.ndarray) -> None:
        self._closed = not window.show(drawn)

    def _try(self, write: Callable[..., object], *arguments: Any) -> bool:
        try:
            write(*arguments)
        except ERRORS as error:
            self.failures.append(str(error))
            return False
        return True
