"""Finds frames that OpenCV could not convert to RGB, for which it returns old or uninitialized memory without an error.

OpenCV 4.13 and 5.0 do so with every frame that is flagged as interlaced. FFmpeg's conversion refuses it, and says so on
the standard error stream only. The memory then keeps what the last conversion left there, so that a frame is suspicious
if it repeats the one before, bit for bit. Because good videos repeat frames, too, a suspicion is checked in another
process, whose standard error stream is read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cv2
import numpy as np

FAULT_MESSAGE = re.compile(r"\[swscaler|interlaced to progressive")
LOG_VARIABLES = ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG")  # variables that change what OpenCV says
READ_SCRIPT = """
import sys, cv2
capture = cv2.VideoCapture(sys.argv[1])
for _ in range(int(sys.argv[2])):
    if not capture.read()[0]:
        break
"""
FRAMES_AHEAD = 64  # frames
ROW_STEP = 61  # distance of the rows that are compared first


def is_repeat(image: np.ndarray, previous: np.ndarray | None) -> bool:
    """Whether two frames are the same bit for bit."""
    if previous is None or image.shape != previous.shape or not np.array_equal(image[::ROW_STEP], previous[::ROW_STEP]):
        return False
    return np.array_equal(image, previous)


def starts_badly(capture: cv2.VideoCapture, source: str) -> bool:
    """Whether the first frames of a video that was just opened cannot be converted; the capture is used up.

    After another frame, the first is read again: a frame that is not converted is then another than before.
    """
    read, first = capture.read()
    if not read:
        return False
    first = first.copy()
    read, second = capture.read()
    if read and not is_repeat(second, first) and capture.set(cv2.CAP_PROP_POS_FRAMES, 0):
        read, again = capture.read()
        if read and is_repeat(again, first):
            return False
    return conversion_fails(source, 2)


def conversion_fails(source: str, count: int) -> bool:
    """Whether OpenCV cannot convert one of a video's first `count` frames, by what it prints in another process."""
    environment = {name: value for name, value in os.environ.items() if name not in LOG_VARIABLES}
    with subprocess.Popen(
        [sys.executable, "-c", READ_SCRIPT, source, str(count)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if FAULT_MESSAGE.search(line.decode(errors="replace")):
                process.kill()
                return True
    return False


class RepeatCheck:
    """Checks frames that repeat the one before; all checks together read about four times as many frames as the video.

    Args:
        source: what OpenCV opens; "" if it cannot be opened twice, and nothing is checked.
        live: whether reading takes the time that the video lasts; only the second frame is checked then.
    """

    def __init__(self, source: str, live: bool) -> None:
        self._source, self._live = source, live
        self._previous: np.ndarray | None = None
        self._frames = self._checked = 0

    def fails(self, image: np.ndarray) -> bool:
        """Whether the next frame of the video, as read, or an earlier one was not converted."""
        number, self._frames = self._frames, self._frames + 1
        repeat = bool(self._source) and is_repeat(image, self._previous)
        self._previous = image
        if not repeat or number < self._checked or (self._live and number != 1):
            return False
        self._checked = 2 if self._live else 2 * number + FRAMES_AHEAD
        return conversion_fails(self._source, self._checked)
