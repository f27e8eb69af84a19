"""Where everything is in a batch of pairs: poses, boxes and crops, drawn for all pairs at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ...config import ModelConfig
from .batch_looks import ANGLES, Outlines, depth
from .config import SyntheticConfig
from .extents import boxes_inside
from .motion import PEAK
from .poses import Poses
from .protocol import MAX_GAP, jittered, squares
from .textures import Generator

CLUTTER = 5  # objects of the background for each pair
MEMORY = 60.0  # frames in which a pose forgets most of what it was
INSET = 0.3  # half sizes that a target's centre stays inside the frame
SAMPLES = (
    0.2,
    0.5,
    0.85,
)  # of the radius: where it is looked whether a target is hidden, at every SAMPLE_STEP-th angle
SAMPLE_STEP = 16


class Layers(NamedTuple):
    """Objects of B pairs, K of them each, the hindmost first. Leading dimension 2: template, then search region."""

    poses: Poses  # (2, B, K)
    look: np.ndarray  # (B, K) int: whose picture
    present: np.ndarray  # (B, K) bool


class Parts(NamedTuple):
    layers: Layers
    targets: Poses  # (2, B)
    boxes: np.ndarray  # (2, B, 4) xywh in pixels of the frame
    squares: np.ndarray  # (2, B, 3) left, top, side
    shift: np.ndarray  # (2, B, 2) pixels of the frame that the background moved
    moved: np.ndarray  # (2, B, 2) pixels of the frame that everything moves while the shutter is open
    light: np.ndarray  # (2, B, 5) gain of each colour, bias in grey levels, gamma


def objects_of(config: SyntheticConfig) -> int:
    """Objects of a pair, present or not, its clutter apart; the first is the target, then distractors, occluders."""
    return 1 + config.distractors + config.occluders


class _Course:
    """Draws values at two times, alike the more the nearer the times are."""

    def __init__(self, rng: Generator, batch: int, frames: int) -> None:
        self._rng, self._batch = rng, batch
        self._kept = np.exp(-rng.integers(1, min(MAX_GAP, frames - 1) + 1, batch) / MEMORY)

    def __call__(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        """(2, B, *shape)."""
        first, other = self._rng.normal(0, deviation, (2, self._batch, *shape))
        kept = self._kept.reshape(-1, *(1,) * len(shape))
        return np.stack((first, kept * first + np.sqrt(1 - kept**2) * other))


def draw(rng: Generator, outline: Outlines, config: SyntheticConfig, model: ModelConfig, batch: int) -> Parts:
    """Everything about a batch but what its objects look like; `outline` has theirs, pair by pair."""
    course = _Course(rng, batch, config.frames)
    n = objects_of(config)
    low, high = np.log(config.size)
    size = np.exp(rng.uniform(low, high, batch)) * config.height
    poses = _poses(rng, course, size, config)
    kind = np.repeat([0, 1, 2], [1, config.distractors, config.occluders])
    there = _counted(rng, batch, config.distractors, config.occluders)
    front = there & ((kind == 2) | ((kind == 1) & (rng.random((batch, n)) < 0.3)))
    targets = poses.of(slice(None), slice(None), 0)
    seen = _visible(poses, outline, front) >= config.min_visible
    there &= ~front | seen[:, None]  # where too little of a target would be seen, nothing passes before it
    shift = course((2,), config.camera * config.height)
    clutter = _clutter(rng, shift, config)
    order = np.argsort(np.where(front, 2, kind == 0), axis=1, kind="stable")
    sorted_poses = (np.take_along_axis(f, order.reshape(1, *order.shape, *(1,) * (f.ndim - 3)), 2) for f in poses)
    layers = Layers(
        Poses(*(np.concatenate(fields, axis=2) for fields in zip(clutter, sorted_poses, strict=True))),
        np.concatenate((rng.integers(batch * n, size=(batch, CLUTTER)), np.arange(batch)[:, None] * n + order), axis=1),
        np.concatenate((_clutter_there(rng, batch, config), np.take_along_axis(there, order, 1)), axis=1),
    )
    points = targets.to_frame(Outlines(*(part[::n] for part in outline)).points())
    boxes = boxes_inside(points, np.roll(np.arange(ANGLES), -1), np.zeros(2), config.width, config.height)
    cuts = np.stack((squares(boxes[0], model.template_factor), squares(jittered(rng, boxes[1]), model.search_factor)))
    moved = rng.normal(0, config.speed * config.shutter, (2, batch, 2)) * size[:, None]
    return Parts(layers, targets, boxes, cuts, shift, moved, _light(course, config))


def _counted(rng: Generator, batch: int, *most: int) -> np.ndarray:
    """(B, 1 + sum of most) bool: the target, and of each kind as many of the first as is drawn, up to the most."""
    kinds = [np.arange(count) < rng.integers(count + 1, size=(batch, 1)) for count in most]
    return np.concatenate((np.ones((batch, 1), bool), *kinds), axis=1)


def _poses(rng: Generator, course: _Course, size: np.ndarray, config: SyntheticConfig) -> Poses:
    """(2, B, objects); `size` is the targets', (B,)."""
    batch, n = len(size), objects_of(config)
    first = np.arange(n) == 0
    log_size = np.log(size)[:, None] + course((n,), config.scale_change) + rng.normal(0, 0.25, (batch, n)) * ~first
    log_aspect = rng.normal(0, 0.35, (batch, n)) + course((n,), config.aspect_change)
    half = 0.5 * np.exp(log_size[..., None] + 0.5 * log_aspect[..., None] * np.array([1, -1]))
    frame = np.array([config.width, config.height], float)
    inset = np.minimum(INSET * half[:, :, 0], 0.5 * frame)
    place = frame * rng.uniform(0.2, 0.8, (batch, 2)) + course((2,), 0.15) * frame
    place = np.clip(place, inset, frame - inset)
    direction, distance = rng.uniform(0, 2 * np.pi, (2, batch, n)), rng.uniform(0.9, 2.5, (2, batch, n))
    around = distance[..., None] * np.stack((np.cos(direction), np.sin(direction)), axis=-1)
    passing = rng.normal(0, 0.7, (2, batch, n, 2))
    beside = np.where((np.arange(n) > config.distractors)[:, None], passing, around) * ~first[:, None]
    bend = np.clip(course((n, 2), config.deformation / PEAK), -config.deformation, config.deformation)
    angle = rng.normal(0, config.rotation, (batch, n)) + course((n,), config.rotation)
    return _posed(rng, place[:, :, None] + beside * size[:, None, None], half, angle, bend)


def _posed(rng: Generator, center: np.ndarray, half: np.ndarray, angle: np.ndarray, bend: np.ndarray) -> Poses:
    """With a warp of one frequency and phase for both times."""
    wave, phase = rng.uniform(1.5, 4.5, half.shape[1:]), rng.uniform(0, 2 * np.pi, half.shape[1:])
    return Poses(center, half, angle, bend, *(np.broadcast_to(value, half.shape) for value in (wave, phase)))


def _clutter(rng: Generator, shift: np.ndarray, config: SyntheticConfig) -> Poses:
    """(2, B, CLUTTER), moving with the background."""
    batch = shift.shape[1]
    frame = np.array([config.width, config.height])
    center = frame * rng.uniform(-0.1, 1.1, (batch, CLUTTER, 2)) + shift[:, :, None]
    half = config.height * np.exp(rng.uniform(np.log(0.03), np.log(0.2), (batch, CLUTTER, 2)))
    angle = rng.uniform(-np.pi, np.pi, (batch, CLUTTER))
    half, angle = (np.broadcast_to(value, (2, *value.shape)) for value in (half, angle))
    return _posed(rng, center, half, angle, np.zeros(center.shape))


def _clutter_there(rng: Generator, batch: int, config: SyntheticConfig) -> np.ndarray:
    """(B, CLUTTER) bool: the part that is there rises with `config.clutter`."""
    return rng.random((batch, CLUTTER)) < min(1.0, config.clutter / 40)


def _visible(poses: Poses, outline: Outlines, front: np.ndarray) -> np.ndarray:
    """(B,) the part of a target that nothing of `front` is before, at the time when it is less."""
    batch, n = front.shape
    target = Outlines(*(part[::n] for part in outline))
    own = np.concatenate([target.points(shrink, SAMPLE_STEP) for shrink in SAMPLES], axis=1)
    points = poses.of(slice(None), slice(None), 0).to_frame(own)
    before = poses.to_own(np.repeat(points[:, :, None], n, axis=2)).reshape(2, batch * n, -1, 2)
    inside = torch.stack([depth(outline, torch.from_numpy(at)) > 0 for at in before]).numpy()
    hidden = (inside.reshape(2, batch, n, -1) & front[..., None]).any(axis=2)
    return 1 - hidden.mean(axis=-1).max(axis=0)


def _light(course: _Course, config: SyntheticConfig) -> np.ndarray:
    gain, tint, bias, gamma = (course((count,), config.light) for count in (1, 3, 1, 1))
    return np.concatenate((np.exp(gain + 0.3 * tint), 40 * bias, np.exp(0.5 * gamma)), axis=-1)
