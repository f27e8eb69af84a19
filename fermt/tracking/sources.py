"""Sources of frames in RGB: video files, folders of images, patterns of file names, cameras."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
FPS = 30.0  # for sources without a frame rate
TOLERANCE = 0.01  # share of the announced frames that may be missing; some containers only estimate their number


class Source:
    """An iterable of frames, (H, W, 3) uint8 RGB. A new iteration starts again, except with a camera.

    `count` is the announced number of frames, 0 if unknown; `fps` is the frame rate. Iterating raises ValueError for a
    frame that cannot be read.
    """

    name = ""
    count = 0
    fps = FPS

    def __iter__(self) -> Iterator[np.ndarray]:
        raise NotImplementedError


class ImageFiles(Source):
    """Images in the order given."""

    def __init__(self, files: Sequence[Path], name: str) -> None:
        self.name, self._files, self.count = name, files, len(files)

    def __iter__(self) -> Iterator[np.ndarray]:
        for file in self._files:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f"image {str(file)!r} cannot be read")
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class _Captured(Source):
    """A source that OpenCV captures from."""

    _from: str | int = ""
    _refused = ""  # message if it cannot be opened

    def __init__(self, name: str) -> None:
        self.name = name
        capture = cv2.VideoCapture(self._from)
        opened = capture.isOpened()
        self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))) if opened else 0
        self.fps = (capture.get(cv2.CAP_PROP_FPS) if opened else 0) or FPS
        capture.release()
        if not opened:
            raise ValueError(self._refused)

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = cv2.VideoCapture(self._from)
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
        _check_end(self.name, frames, self.count)


class VideoFile(_Captured):
    """A video file read by OpenCV."""

    def __init__(self, path: Path) -> None:
        self._from = str(path)
        self._refused = f"{str(path)!r} is not a video that OpenCV can read; expected one, or a folder of images"
        super().__init__(str(path))


class Camera(_Captured):
    """A camera, given by its index."""

    def __init__(self, index: int) -> None:
        self._from = index
        self._refused = f"no camera {index} can be opened; expected an index (0 is the first), a video or a folder"
        super().__init__(f"camera {index}")
        self.count = 0


class PyAVFile(Source):
    """A video file read by PyAV."""

    def __init__(self, path: Path) -> None:
        import av

        self.name, self._path, self._errors = str(path), path, (av.error.FFmpegError,)
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                self.count, self.fps = stream.frames, float(stream.average_rate or FPS)
        except (*self._errors, IndexError) as error:
            raise ValueError(f"{str(path)!r} cannot be opened: {error}") from error

    def __iter__(self) -> Iterator[np.ndarray]:
        import av

        frames = 0
        try:
            with av.open(str(self._path)) as container:
                for frame in container.decode(video=0):
                    frames += 1
                    yield frame.to_ndarray(format="rgb24")
        except self._errors as error:
            raise ValueError(f"{self.name!r} cannot be read after {frames} frames: {error}") from error
        _check_end(self.name, frames, self.count)


def open_source(text: str | os.PathLike[str]) -> Source:
    """Opens a video, a folder of images, a pattern such as "frames/*.jpg", or a camera given by its index.

    Images are in the natural order of their names, frame2 before frame10. A video that OpenCV cannot read is opened
    with PyAV, if that is installed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the video cannot be read, the folder has no images, or there is no such camera.
    """
    name = os.fspath(text)
    path = Path(name)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise ValueError(f"folder {name!r} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        return ImageFiles(sorted(files, key=_natural), name)
    if path.exists():
        return _video(path)
    if name.isdecimal():
        return Camera(int(name))
    if glob.has_magic(name):
        files = [Path(file) for file in glob.glob(name, recursive=True)]
        if not files:
            raise FileNotFoundError(f"no file matches {name!r}")
        return ImageFiles(sorted(files, key=_natural), name)
    raise FileNotFoundError(f"no video and no folder at {name!r}")


def _video(path: Path) -> Source:
    try:
        return VideoFile(path)
    except ValueError as refused:
        if find_spec("av") is None:
            raise
        try:
            return PyAVFile(path)
        except ValueError as error:
            raise ValueError(f"{refused}; PyAV: {error}") from error


def _check_end(name: str, frames: int, announced: int) -> None:
    """Raises ValueError if frames are missing at the end of a video."""
    if frames == 0:
        raise ValueError(f"no frame of {name!r} can be read")
    if frames < announced * (1 - TOLERANCE) - 1:
        raise ValueError(f"{name!r} ends after {frames} of the {announced} frames that it announces: it is damaged")


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key by which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]
