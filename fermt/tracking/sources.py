"""Sources of frames in RGB: video files, streams, folders of images, patterns of file names, cameras."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..images import SUFFIXES, opencv_name, read_image, select_images
from .containers import count_frames, counts_exactly, is_cut_off
from .conversion import RepeatCheck, starts_badly

DEFAULT_FPS = 30.0  # for sources without a frame rate
# Share of the announced frames that may be missing without a remark; containers estimate their number.
MISSING_TOLERANCE = 0.01
PASSWORD = re.compile(r"(?<=://)[^/@]*@")  # in a URL
NOT_CONVERTED = (
    f"OpenCV {cv2.__version__} cannot convert the frames of {{!r}}, which are interlaced: pip install av (PyAV, which "
    "is then used), or convert the video (ffmpeg -i IN -vf yadif OUT.mp4)"
)

logger = logging.getLogger(__name__)


class Source:
    """An iterable of frames, (H, W, 3) uint8 RGB. A new iteration starts again, except with a camera or a live stream.

    `count` is the announced number of frames, 0 if unknown; `fps` is the frame rate. Iterating raises ValueError for a
    frame that cannot be read.
    """

    name = ""
    count = 0
    fps = DEFAULT_FPS

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError


class ImageFiles(Source):
    """Images in the order given."""

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.name, self._files, self.count = name, files, len(files)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_image, self._files)


class _Captured(Source):
    """A source that OpenCV captures from.

    Args:
        source: what OpenCV opens: a path, a URL, or the index of a camera.
        name: what it is called in messages.
        refused: message if it cannot be opened.

    Raises:
        ValueError: it cannot be opened.
    """

    def __init__(self, source: str | int, name: str, refused: str) -> None:
        self.name, self._from = name, source if isinstance(source, int) else opencv_name(source)
        try:
            self._capture: cv2.VideoCapture | None = cv2.VideoCapture(source)
        except cv2.error as error:  # the index of a camera that is no C int
            raise ValueError(refused) from error
        opened = self._capture.isOpened()
        count, fps = (self._capture.get(key) if opened else 0.0 for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        self.count = int(count) if math.isfinite(count) and count > 0 else 0
        self.fps = fps if math.isfinite(fps) and fps > 0 else DEFAULT_FPS
        if not opened:
            raise ValueError(refused)

    def __iter__(self) -> Iterator[np.ndarray]:
        capture, self._capture = self._capture or cv2.VideoCapture(self._from), None
        check, frames = self._check(), 0
        try:
            while True:
                try:
                    read, image = capture.read()
                except cv2.error as error:
                    raise ValueError(f"{self.name!r} cannot be read after {frames} frames: {error}") from error
                if not read:
                    break
                if check.fails(image):
                    yield from islice(_pyav(str(self._from), self.name), frames, None)
                    return
                frames += 1
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        self._end(frames)

    def _check(self) -> RepeatCheck:
        return RepeatCheck("", live=False)

    def _end(self, frames: int) -> None:
        if frames == 0:
            raise ValueError(f"no frame of {self.name!r} can be read")


class VideoFile(_Captured):
    """A video file read by OpenCV."""

    def __init__(self, path: Path) -> None:
        name = str(path)
        refused = f"{name!r} is not a video that OpenCV can read; expected one, or a folder of images"
        super().__init__(os.path.abspath(path), name, refused)  # a relative 10:30.mp4 is a URL to FFmpeg
        capture, self._capture = self._capture, None  # an iteration opens it again
        assert capture is not None
        try:
            if starts_badly(capture, str(self._from)):
                raise ValueError(NOT_CONVERTED.format(name))
        finally:
            capture.release()

    def _check(self) -> RepeatCheck:
        return RepeatCheck(str(self._from), live=False)

    def _end(self, frames: int) -> None:
        super()._end(frames)
        _check_end(Path(str(self._from)), frames, self.count)


class Stream(_Captured):
    """A URL that OpenCV reads: http, https, rtsp, rtmp, udp ... A live stream goes on from where it is."""

    def __init__(self, url: str) -> None:
        name = PASSWORD.sub("", url)
        super().__init__(url, name, f"no video can be opened at {name!r}; expected a URL that OpenCV (FFmpeg) can read")

    def _check(self) -> RepeatCheck:
        return RepeatCheck(str(self._from), live=True)

    def _end(self, frames: int) -> None:
        super()._end(frames)
        if _is_short(frames, self.count):
            logger.warning("%r ended after %d of the %d frames that it announced", self.name, frames, self.count)


class Camera(_Captured):
    """A camera, given by its index, or by a device file such as /dev/video0."""

    def __init__(self, index: int | str) -> None:
        refused = f"no camera {index} can be opened; expected an index (0 is the first), a video or a folder"
        super().__init__(index, f"camera {index}", refused)
        self.count = 0


class PyAVFile(Source):
    """A video file or URL read by PyAV, turned as its metadata says."""

    def __init__(self, source: str, name: str = "") -> None:
        import av

        if not hasattr(av.VideoFrame, "rotation"):
            raise ValueError(f"PyAV {av.__version__} does not say how a video is rotated; expected a newer one")
        self.name, self._from, self._errors = name or source, source, (av.error.FFmpegError,)
        try:
            with av.open(source) as container:
                stream = container.streams.video[0]
                self.count, self.fps = stream.frames, float(stream.average_rate or DEFAULT_FPS)
        except (*self._errors, IndexError) as error:
            raise ValueError(f"{self.name!r} cannot be opened: {error}") from error

    def __iter__(self) -> Iterator[np.ndarray]:
        import av

        frames = 0
        try:
            with av.open(self._from) as container:
                for frame in container.decode(video=0):
                    frames += 1
                    image = frame.to_ndarray(format="rgb24")
                    turns = frame.rotation // 90 % 4
                    yield np.ascontiguousarray(np.rot90(image, turns)) if turns else image
        except self._errors as error:
            raise ValueError(f"{self.name!r} cannot be read after {frames} frames: {error}") from error
        if frames == 0:
            raise ValueError(f"no frame of {self.name!r} can be read")
        if Path(self._from).is_file():
            _check_end(Path(self._from), frames, self.count)


def open_source(text: str | os.PathLike[str]) -> Source:
    """Opens a video, a URL, a folder of images, a pattern such as "frames/*.jpg", or a camera given by its index.

    Images are in natural order, frame2 before frame10, and folder by folder. A video that OpenCV cannot read, or whose
    frames it cannot convert, is opened with PyAV, if that is installed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the video cannot be read, the folder has no images, there is no such camera, the path is a pipe, or
            the text is empty.
    """
    name = os.fspath(text)
    if not name:
        raise ValueError("expected a video, a URL, a folder of images, a pattern or a camera's index, got ''")
    path = Path(name)
    if "://" in name:
        return Stream(name)
    if path.is_dir():
        return _images(list(path.iterdir()), name, f"folder {name!r} holds no images ({', '.join(SUFFIXES)})", path)
    if path.is_fifo() or path.is_socket():
        raise ValueError(f"{name!r} is a pipe, which cannot be read twice; expected a file, a URL, or a folder")
    if path.is_char_device():
        return Camera(name)
    if path.exists():
        return _video(path)
    if name.isdecimal():
        return Camera(int(name))
    if glob.has_magic(name):
        files = [Path(file) for file in glob.glob(name, recursive=True)]
        if not files:
            raise FileNotFoundError(f"no file matches {name!r}")
        return _images(files, name, f"no image ({', '.join(SUFFIXES)}) among the {len(files)} that match {name!r}")
    raise FileNotFoundError(f"no video and no folder at {name!r}")


def _images(entries: Sequence[Path], name: str, none: str, below: Path | None = None) -> ImageFiles:
    files = select_images(sorted(entries, key=_natural), below)
    if not files:
        raise ValueError(none)
    return ImageFiles(files, name)


def _video(path: Path) -> Source:
    try:
        return VideoFile(path)
    except ValueError as refused:
        if find_spec("av") is None:
            raise
        try:
            return PyAVFile(os.path.abspath(path), str(path))
        except ValueError as error:
            raise ValueError(f"{refused}; PyAV: {error}") from error


def _pyav(source: str, name: str) -> Source:
    """Opens with PyAV a video of which OpenCV cannot convert a frame."""
    if find_spec("av") is None:
        raise ValueError(NOT_CONVERTED.format(name))
    return PyAVFile(source, name)


def _is_short(frames: int, announced: int) -> bool:
    return frames < announced * (1 - MISSING_TOLERANCE) - 1


def _check_end(path: Path, frames: int, announced: int) -> None:
    """Raises ValueError if a video is cut off; logs a warning if fewer frames can be decoded than are announced.

    Some containers estimate the number from the longest track, or count frames before the one at which playing starts.
    """
    if not _is_short(frames, announced):
        return
    if is_cut_off(path) or (counts_exactly(path) and _is_short(count_frames(path, coded=True), announced)):
        raise ValueError(
            f"{str(path)!r} ends after {frames} of the {announced} frames that it announces: it is damaged"
        )
    logger.warning(
        "%r has %d frames, and announces %d: it may have a longer track of sound, or was cut without encoding it anew",
        str(path), frames, announced,
    )  # fmt: skip


def _natural(path: Path) -> tuple[list[list[tuple[int, str]]], list[tuple[int, str]], Path]:
    """Sort key by which frame2 comes before frame10, and all files of a folder before those of the next.

    The path itself comes last, so that 01 and 1 have an order that is not the file system's.
    """

    def key(text: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]

    return [key(part) for part in path.parent.parts], key(path.name), path
