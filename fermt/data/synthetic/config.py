"""How hard synthetic sequences are: one dataclass, and three settings by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """What is in a sequence and how it moves; the defaults are the setting "standard".

    Args:
        height, width: of a frame in pixels.
        frames: of a sequence.
        size: least and largest square root of the target's area, in heights of the frame.
        speed: of the target, in its own sizes a frame (root mean square of what is drawn on average).
        scale_change, aspect_change: standard deviations of the logarithms over a long sequence.
        rotation: standard deviation of the angle over a long sequence, in radians.
        deformation: largest displacement of the smooth warp, in half sizes of the object.
        shutter: part of the time between frames that the shutter is open, for motion blur.
        distractors: the most other objects that move near the target.
        lookalike: probability that such an object has the target's texture on another shape, or its shape in other
            colours; otherwise it has nothing in common with it.
        occluders: the most objects that pass in front of the target.
        clutter: the most shapes drawn on a background.
        light: how far gain, bias, gamma and colour drift, standard deviation of the logarithm of the gain.
        camera: standard deviation of the camera's pan, in heights of the frame.
        noise: of the sensor, standard deviation in grey levels.
        contrast: least distance of the target's mean colour from the background's, of 1, where it can be had.
        min_visible: the part of the target that must be visible for a frame to be valid.
        objects: a folder of images that become objects: the opaque part of one with alpha, a drawn shape filled with
            one without. None: objects are drawn.
        backgrounds: a folder of images that become backgrounds. None: they are drawn.

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
            raise ValueError(f"size must be two numbers from 0.02 to 1, the lesser first; got {self.size!r}")


_RANGES: dict[str, tuple[float, float]] = {
    "height": (32, 4096),
    "width": (32, 4096),
    "frames": (2, 100_000),
    "speed": (0, 1),
    "scale_change": (0, 0.5),
    "aspect_change": (0, 0.5),
    "rotation": (0, math.pi),
    "deformation": (0, 0.12),  # beyond, the warp folds
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
    """The setting called `name`: "easy", "standard" or "hard", some of its fields replaced."""
    if name not in PRESETS:
        raise ValueError(f"unknown synthetic setting {name!r}; expected one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **overrides)
