"""Videos that cameras, broadcasts and editors produce, made small by the FFmpeg of imageio-ffmpeg (the test extra)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 192, 128
_PICTURE = f"testsrc2=size={WIDTH}x{HEIGHT}"
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
_INTERLACED = ("-vf", "interlace", *_H264, "-flags", "+ildct+ilme")

# By name: FFmpeg's arguments before the output. {folder} has the files that come before in the table.
RECIPES: dict[str, tuple[str, ...]] = {
    "whole.mp4": ("-f", "lavfi", "-i", f"{_PICTURE}:rate=25:duration=4", *_H264, "-g", "50", "-movflags", "+faststart"),
    "interlaced.mp4": ("-f", "lavfi", "-i", f"{_PICTURE}:rate=50:duration=1", *_INTERLACED),
    "still.mp4": ("-f", "lavfi", "-i", f"color=gray:size={WIDTH}x{HEIGHT}:rate=25:duration=1", *_H264),
    "progressive.h264": ("-f", "lavfi", "-i", f"{_PICTURE}:rate=25:duration=1", *_H264),
    "interlaced.h264": ("-f", "lavfi", "-i", f"{_PICTURE}:rate=50:duration=1", *_INTERLACED),
    "sound.mkv": (
        *("-f", "lavfi", "-i", f"{_PICTURE}:rate=25:duration=1", "-f", "lavfi", "-i", "sine=duration=3"),
        *(*_H264, "-c:a", "aac"),
    ),
    "whole.mkv": ("-i", "{folder}/whole.mp4", "-c", "copy"),
    "whole.avi": ("-i", "{folder}/whole.mp4", "-c:v", "mjpeg"),
    "cut_by_copy.mp4": ("-ss", "0.5", "-i", "{folder}/whole.mp4", "-c", "copy"),
    "odd_rate.mp4": ("-f", "lavfi", "-i", f"{_PICTURE}:rate=200/3:duration=1", *_H264),
    "variable_rate.mkv": (
        *("-f", "lavfi", "-i", f"{_PICTURE}:rate=30:duration=2", "-vf", "select='not(mod(n,3))+lt(n,15)'"),
        *("-fps_mode", "passthrough", *_H264),
    ),
    "rotated.mp4": ("-display_rotation", "90", "-i", "{folder}/whole.mp4", "-c", "copy"),
    "ten_bits.mp4": (
        *("-f", "lavfi", "-i", f"{_PICTURE}:rate=25:duration=1"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
    ),
}


def ffmpeg(*arguments: str) -> bytes:
    """Runs FFmpeg and returns its standard output."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-nostdin", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make(folder: Path) -> dict[str, Path]:
    """Makes all videos, in about a second, and some that are cut off or damaged."""
    made = {}
    for name, arguments in RECIPES.items():
        made[name] = folder / name
        ffmpeg(*(part.format(folder=folder) for part in arguments), str(made[name]))
    made["mixed.h264"] = folder / "mixed.h264"
    made["mixed.h264"].write_bytes(made["progressive.h264"].read_bytes() + made["interlaced.h264"].read_bytes())
    for suffix in ("mp4", "mkv", "avi"):
        data = made[f"whole.{suffix}"].read_bytes()
        made[f"half.{suffix}"] = folder / f"half.{suffix}"
        made[f"half.{suffix}"].write_bytes(data[: len(data) * 6 // 10])
    data = bytearray(made["whole.mp4"].read_bytes())
    data[len(data) * 6 // 10 :] = bytes(len(data) - len(data) * 6 // 10)
    made["zeros.mp4"] = folder / "zeros.mp4"  # as a download leaves it that reserves the space first
    made["zeros.mp4"].write_bytes(data)
    return made


def decoded(path: Path) -> np.ndarray:
    """The frames of a video by FFmpeg itself, (N, H, W, 3) RGB, turned as its metadata says."""
    raw = ffmpeg("-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    turned = path.name.startswith("rotated")
    height, width = (WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
