"""Videos as cameras, broadcasts and editors leave them: right frames, all that decode, or a clear error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from fermt.images import read_image
from fermt.tracking import conversion, sources
from fermt.tracking.containers import counts_exactly, is_cut_off
from fermt.tracking.conversion import RepeatCheck, conversion_fails
from fermt.tracking.sources import PyAVFile, Stream, VideoFile, open_source
from fermt.tracking.video import LARGEST_TERM, LOWEST_RATE, VideoWriter, nearest_rate

from .support import media
from .support.errors import lacking, refused

pytest.importorskip("imageio_ffmpeg", reason="videos are made by imageio-ffmpeg: pip install imageio-ffmpeg")
GRAY = 1.0  # mean difference of gray levels: decoders are exact, conversions of color differ; the next frame has 2.5


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return media.make(tmp_path_factory.mktemp("media"))


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)


def distance(frames: list[np.ndarray], expected: np.ndarray) -> float:
    assert len(frames) == len(expected)
    gray = np.array([0.299, 0.587, 0.114])
    return max(float(np.abs((a.astype(float) - b) @ gray).mean()) for a, b in zip(frames, expected, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        *("whole.mp4", "whole.mkv", "whole.avi", "sound.mkv", "cut_by_copy.mp4", "still.mp4", "progressive.h264"),
        *("odd_rate.mp4", "variable_rate.mkv", "rotated.mp4", "ten_bits.mp4"),
    ],
)
@pytest.mark.usefixtures("without_pyav")
def test_opencv_reads_every_frame(videos: dict[str, Path], name: str) -> None:
    source = open_source(videos[name])
    assert type(source) is VideoFile
    assert distance(list(source), media.decoded(videos[name])) < GRAY


@pytest.mark.parametrize("name", ["whole.mp4", "interlaced.mp4", "rotated.mp4", "ten_bits.mp4", "cut_by_copy.mp4"])
def test_pyav_reads_every_frame(videos: dict[str, Path], name: str) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    assert distance(list(PyAVFile(str(videos[name]))), media.decoded(videos[name])) < GRAY


@pytest.mark.parametrize("name", ["interlaced.mp4", "interlaced.h264", "mixed.h264"])
def test_interlaced_frames_are_right_with_pyav(videos: dict[str, Path], name: str) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    assert distance(list(open_source(videos[name])), media.decoded(videos[name])) < GRAY


@pytest.mark.usefixtures("without_pyav")
@pytest.mark.parametrize("name", ["interlaced.mp4", "interlaced.h264", "mixed.h264"])
def test_interlaced_frames_are_right_or_refused_without_pyav(videos: dict[str, Path], name: str) -> None:
    frames: list[np.ndarray] = []
    try:
        frames.extend(open_source(videos[name]))
    except ValueError as error:
        assert "pip install av" in str(error)  # noqa: PT017
        assert len(frames) == (25 if name == "mixed.h264" else 0)
        assert conversion_fails(str(videos[name]), 100)
    expected = media.decoded(videos[name])
    assert len(frames) in (0, 25, len(expected))
    assert not frames or distance(frames, expected[: len(frames)]) < GRAY


def test_a_still_picture_is_no_failed_conversion(videos: dict[str, Path]) -> None:
    assert not conversion_fails(str(videos["still.mp4"]), 100)
    assert all(map(np.array_equal, *zip(*pairwise(open_source(videos["still.mp4"])), strict=True)))


def test_repeated_frames_are_checked_at_growing_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    monkeypatch.setattr(conversion, "conversion_fails", lambda source, count: bool(checked.append(count)))
    image, check = np.zeros((9, 9, 3), np.uint8), RepeatCheck("a.mp4", live=False)
    for _ in range(1000):
        assert not check.fails(image)
    assert checked == [66, 196, 456, 976, 2016]
    for source, live in (("", False), ("rtsp://camera", True)):
        checked.clear()
        check = RepeatCheck(source, live)
        assert not any(check.fails(image + i % 200 // 2) for i in range(100))
        assert checked == ([2] if live else [])


@pytest.mark.usefixtures("without_pyav")
@pytest.mark.parametrize("name", ["half.mp4", "half.mkv", "half.avi", "zeros.mp4"])
def test_a_cut_video_says_so(videos: dict[str, Path], name: str) -> None:
    frames = []
    with refused(ValueError, videos[name], 100) as raised:
        frames.extend(open_source(videos[name]))
    assert 40 < len(frames) < 70
    assert lacking(str(raised.value), len(frames)) == []


@pytest.mark.usefixtures("without_pyav")
@pytest.mark.parametrize("name", ["sound.mkv", "cut_by_copy.mp4"])
def test_more_announced_than_decoded_is_a_remark(
    videos: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(videos[name])
    frames = len(list(source))
    assert frames < source.count * 0.9
    assert lacking(caplog.text, frames, source.count) == []


def test_containers(videos: dict[str, Path]) -> None:
    cut = {name for name, path in videos.items() if is_cut_off(path)}
    assert cut == {"half.mp4", "half.mkv", "half.avi"}
    assert {name for name, path in videos.items() if counts_exactly(path)} == {
        name for name in videos if name.endswith(".mp4")
    }
    for data in (b"", b"RIFF", b"\0\0\0\0ftyp", b"\x1a\x45\xdf\xa3", b"\0\0\0\1mdat" + b"\xff" * 8):
        path = videos["whole.mp4"].with_name("odd")
        path.write_bytes(data)
        assert is_cut_off(path) is (data.endswith(b"\xff")) or data == b"RIFF"


@pytest.mark.parametrize("fps", [200 / 3, 30000 / 1001, 60000 / 1001, 24, 0.5, 240.5, 1e-4, 1e6, 90000, 1 / 3])
def test_any_frame_rate_is_written(fps: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps) as writer:
        for i in range(3):
            writer.write(np.full((64, 64, 3), 80 * i, np.uint8))
    source = open_source(tmp_path / "a.mp4")
    assert len(list(source)) == 3
    possible = min(max(fps, LOWEST_RATE), LARGEST_TERM)
    assert source.fps == pytest.approx(possible, rel=1e-3, abs=5e-4)
    assert bool(caplog.text) == (possible != fps)


def test_sides_that_a_video_cannot_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(tmp_path / "a.mp4", 30) as writer:
        writer.write(np.zeros((41, 62, 3), np.uint8))
    assert next(iter(open_source(tmp_path / "a.mp4"))).shape == (40, 62, 3)
    assert lacking(caplog.text, "a.mp4'", "62 x 40", "62 x 41") == []
    with refused(ValueError, "100 x 1", "b.mp4"), VideoWriter(tmp_path / "b.mp4", 30) as writer:
        writer.write(np.zeros((1, 100, 3), np.uint8))


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_no_frame_rate(fps: float) -> None:
    with refused(ValueError, fps):
        nearest_rate(fps)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with refused(ValueError, tmp_path / "pipe.mp4"):
        open_source(tmp_path / "pipe.mp4")


def test_a_url_is_read(videos: dict[str, Path]) -> None:
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=videos["whole.mp4"].parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        source = open_source(f"http://name:secret@127.0.0.1:{port}/whole.mp4")
        assert type(source) is Stream
        assert source.name == f"http://127.0.0.1:{port}/whole.mp4"
        for _ in range(2):
            assert len(list(source)) == 100
        with refused(ValueError, f"'http://127.0.0.1:{port}/none.mp4'"):
            open_source(f"http://127.0.0.1:{port}/none.mp4")
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("name", ["10:30.mp4", "file:a.mp4", "a%05d.mp4"])
def test_names_that_ffmpeg_takes_for_something_else(
    videos: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = list(open_source(videos["whole.mp4"]))
    with VideoWriter(name, 25.0) as writer:
        for image in expected:
            writer.write(image)
    source = open_source(name)
    assert source.name == name
    assert len(list(source)) == len(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf_8(videos: dict[str, Path], tmp_path: Path) -> None:
    """OpenCV crashes at them; PyAV does not."""
    copy = tmp_path / os.fsdecode(b"\xff.mp4")
    copy.write_bytes(videos["whole.mp4"].read_bytes())
    assert len(list(open_source(copy))) == len(list(open_source(videos["whole.mp4"])))
    for refuse in (
        lambda: VideoWriter(copy, 25.0),
        lambda: VideoFile(copy),
        lambda: Stream(f"http://127.0.0.1:9/{copy.name}"),
    ):
        with refused(ValueError, "UTF-8", "xff"):
            refuse()
    page = tmp_path / os.fsdecode(b"\xff.tif")
    page.write_bytes(cv2.imencode(".tif", np.zeros((4, 5, 3), np.uint8))[1].tobytes())
    assert read_image(page).shape == (4, 5, 3)


def test_numbers_with_zeros_before_them_have_one_order(tmp_path: Path) -> None:
    names = ["001.png", "01.png", "1.png", "2.png"]
    for name in reversed(names):
        cv2.imwrite(str(tmp_path / name), np.full((4, 5, 3), names.index(name), np.uint8))
    assert [image[0, 0, 0] for image in open_source(tmp_path)] == [0, 1, 2, 3]


def test_folders_are_read_one_after_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"go{folder}/{i}.png" for folder in (2, 10) for i in (1, 2, 11)]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), i, np.uint8))
    (tmp_path / "go2" / "0.png").mkdir()
    (tmp_path / "go2" / "._1.png").write_bytes(b"junk of macOS")
    (tmp_path / "go2" / "Thumbs.db").write_bytes(b"junk of Windows")
    with caplog.at_level(logging.WARNING):
        assert [int(image[0, 0, 0]) for image in open_source(f"{tmp_path}/go*/*.png")] == list(range(6))
        assert "1 entries are skipped" in caplog.text
        assert [int(image[0, 0, 0]) for image in open_source(tmp_path / "go2")] == [0, 1, 2]
        assert "2 entries are skipped" in caplog.text
        assert "._1.png' (hidden)" in caplog.text
        assert "0.png' (a folder)" in caplog.text
