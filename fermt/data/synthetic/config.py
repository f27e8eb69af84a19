"""Settings of synthetic sequences, and presets of three difficulties."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Content and motion of synthetic sequences; the defaults are the preset "standard".

    Args:
        height, width: size of a frame in pixels.
        frames: length of a sequence.
        size: smallest and largest square root of the target's area, over the height of the frame.
        speed: root-mean-square motion of the target per frame, over its size.
        scale_change, aspect_change: standard deviations of the logarithms over a long sequence.
        rotation: standard deviation of the angle over a long sequence, in radians.
        deformation: largest displacement of the smooth warp, over half the size of the object.
        shutter: share of the time between frames during which the shutter is open, for motion blur.
        distractors: largest number of other objects near the target.
        lookalike: probability that a distractor has the target's texture on another shape, or its shape in other
            colors; otherwise both are its own.
        occluders: largest number of objects that pass in front of the target.
        clutter: largest number of shapes on a drawn background.
        light: strength of the drift of gain, bias, gamma and color: standard deviation of the logarithm of the gain.
        camera: standard deviation of the camera's pan, over the height of the frame.
        noise: standard deviation of the sensor's noise in gray levels.
        contrast: smallest distance of the target's mean color from the background's, over the largest possible one,
            if it can be reached.
        min_visible: share of the target that must be visible for a frame to be valid.
        objects: folder of images for objects: the opaque part of an image with alpha, or a drawn shape filled with one
            without. None: objects are drawn.
        backgrounds: folder of images for backgrounds. None: they are drawn.

    Raises:
        ValueError: a value is out of range.
    """

    height: int = 360
    width: int = 640
    frames: int = 240
    size: tuple[float, float] = (0.08, 0.3)
    speed: float = 0.04
    scale_change: float = 0.25
    aspect_change: float = 0.15
    rotation: float = 0.4
    deformation: float = 0.07
    shutter: float = 0.5
    distractors: int = 3
    lookalike: float = 0.5
    occluders: int = 1
    clutter: int = 30
    light: float = 0.15
    camera: float = 0.15
    noise: float = 3.0
    contrast: float = 0.2
    min_visible: float = 0.3
    objects: str | None = None
    backgrounds: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], got {value!r}")
        if len(self.size) != 2 or not 0.02 <= self.size[0] <= self.size[1] <= 1:
            raise ValueError(f"size must be two numbers from 0.02 to 1, the smaller first; got {self.size!r}")


_RANGES: dict[str, tuple[float, float]] = {
    "height": (32, 4096),
    "width": (32, 4096),
    "frames": (2, 100_000),
    "speed": (0, 1),
    "scale_change": (0, 0.5),
    "aspect_change": (0, 0.5),
    "rotation": (0, math.pi),
    "deformation": (0, 0.12),  # with more the warp is not invertible
    "shutter": (0, 1),
    "distractors": (0, 16),
    "lookalike": (0, 1),
    "occluders": (0, 8),
    "clutter": (0, 200),
    "light": (0, 0.5),
    "camera": (0, 1),
    "noise": (0, 50),
    "contrast": (0, 1),
    "min_visible": (0.01, 1),
}

PRESETS: dict[str, SyntheticConfig] = {
    "easy": SyntheticConfig(
        size=(0.12, 0.25),
        speed=0.02,
        scale_change=0.15,
        aspect_change=0.05,
        rotation=0.1,
        deformation=0.02,
        shutter=0.0,
        distractors=1,
        lookalike=0.0,
        occluders=0,
        clutter=6,
        light=0.05,
        camera=0.05,
        noise=1.0,
        contrast=0.35,
        min_visible=0.5,
    ),
    "standard": SyntheticConfig(),
    "hard": SyntheticConfig(
        size=(0.06, 0.4),
        speed=0.08,
        scale_change=0.4,
        aspect_change=0.25,
        rotation=0.9,
        deformation=0.11,
        shutter=0.8,
        distractors=6,
        lookalike=0.8,
        occluders=2,
        clutter=60,
        light=0.22,
        camera=0.3,
        noise=6.0,
        contrast=0.1,
        min_visible=0.2,
    ),
}


def synthetic_config(name: str, **overrides: Any) -> SyntheticConfig:
    """Returns the preset "easy", "standard" or "hard" with some fields replaced."""
    if name not in PRESETS:
        raise ValueError(f"unknown synthetic setting {name!r}; expected one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **overrides)
