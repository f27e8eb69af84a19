"""Tracks with ONNX Runtime, OpenCV and NumPy alone: no torch, and not this package.

    fermt export --weights fermt.safetensors --split --out fermt.onnx
    python examples/onnx_track.py fermt.onnx examples/basketball.mp4 372,108,125,240

Prints `x,y,w,h,score` for each frame after the first. `fermt.template.onnx` runs once, `fermt.frame.onnx` in every
frame; all sizes and factors come from their metadata.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

MARGIN = 10.0  # pixels of a box that stay in the image, and its least side


class Graph:
    """One of the two files: named arrays in, named arrays out."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.settings = self.session.get_modelmeta().custom_metadata_map
        self.inputs = self.session.get_inputs()  # the image first
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, crop: np.ndarray, others: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A crop (S, S, 3) uint8 RGB, and what else the graph takes by name."""
        image = crop[None]
        if self.inputs[0].type == "tensor(float)":  # exported without --uint8
            mean, deviation = (np.float32(json.loads(self.settings[key])) for key in ("mean", "deviation"))
            image = ((image.astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2)
        values = self.session.run(self.outputs, {self.inputs[0].name: image, **others})
        return dict(zip(self.outputs, values, strict=True))


def crop_target(image: np.ndarray, box: tuple[float, ...], factor: float, size: int) -> tuple[np.ndarray, float]:
    """The square of side ceil(factor * sqrt(w h)) around a box, black outside the image, and its scale."""
    x, y, w, h = box
    side = math.ceil(math.sqrt(w * h) * factor)
    height, width = image.shape[:2]
    left, top = round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side)
    right, bottom = left + side, top + side
    # The last row and column count as outside wherever the square passes them.
    pad = (max(0, -top), max(0, bottom - height + 1), max(0, -left), max(0, right - width + 1))
    inside = image[top + pad[0] : bottom - pad[1], left + pad[2] : right - pad[3]]
    square = cv2.copyMakeBorder(inside, *pad, cv2.BORDER_CONSTANT)
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR), size / side


def decode_center(maps: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The box at the best cell of the score map, whose middle a Hann window favors."""
    score, sizes, offsets = (maps[name][0] for name in ("score_map", "size_map", "offset_map"))
    grid = score.shape[-1]
    window = np.hanning(grid + 2)[1:-1]
    row, column = np.unravel_index((score[0] * np.outer(window, window)).argmax(), (grid, grid))
    center = (np.array((column, row)) + offsets[:, row, column]) / grid
    return np.concatenate((center, sizes[:, row, column])), float(score.max())


def decode_corner(maps: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The box between the corners' mean cells."""
    grid = math.isqrt(maps["prob_tl"].shape[1])
    places = np.stack(np.meshgrid(np.arange(grid), np.arange(grid)), axis=-1).reshape(-1, 2) / grid
    first, second = (maps[name][0] @ places for name in ("prob_tl", "prob_br"))
    score = min(maps["prob_tl"].max(), maps["prob_br"].max())
    return np.concatenate(((first + second) / 2, second - first)), float(score)


DECODE = {"center": decode_center, "corner": decode_corner}  # cxcywh in [0, 1] of the search region, and a score


def frames(video: str) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(video)
    while True:
        read, image = capture.read()
        if not read:
            return
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def clip(x: float, y: float, w: float, h: float, width: int, height: int) -> tuple[float, ...]:
    margin = min(MARGIN, width, height)
    left, right = min(max(0.0, x), width - margin), min(max(margin, x + w), width)
    top, bottom = min(max(0.0, y), height - margin), min(max(margin, y + h), height)
    return left, top, max(margin, right - left), max(margin, bottom - top)


def track(pair: Path, video: str, box: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
    """(x, y, w, h, score) of each frame after the first."""
    template, frame = (Graph(pair.with_suffix(f".{part}.onnx")) for part in ("template", "frame"))
    settings = {key: json.loads(frame.settings[key]) for key in ("template_size", "search_size")}
    factors = {key: float(frame.settings[key]) for key in ("template_factor", "search_factor")}
    decode, size = DECODE[frame.settings["head"]], settings["search_size"]
    images = frames(video)
    crop, _ = crop_target(next(images), box, factors["template_factor"], settings["template_size"])
    cache = template(crop, {})
    for image in images:
        crop, scale = crop_target(image, box, factors["search_factor"], size)
        relative, score = decode(frame(crop, cache))
        cx, cy, w, h = (float(value) * size / scale for value in relative)
        x, y, old_w, old_h = box
        left, top = x + (old_w - size / scale) / 2 + cx - w / 2, y + (old_h - size / scale) / 2 + cy - h / 2
        box = clip(left, top, w, h, image.shape[1], image.shape[0])
        yield (*box, score)


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: onnx_track.py fermt.onnx VIDEO x,y,w,h   (fermt.template.onnx and fermt.frame.onnx are read)")
    x, y, w, h = (float(value) for value in sys.argv[3].split(","))
    for result in track(Path(sys.argv[1]), sys.argv[2], (x, y, w, h)):
        print(",".join(f"{value:.3f}" for value in result))


if __name__ == "__main__":
    main()
