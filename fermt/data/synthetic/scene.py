"""Scenes: a target and other objects in front of a background, and their poses at any time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..pairs import generator_for
from .backgrounds import Background, Backgrounds
from .config import SyntheticConfig
from .extents import boxes_inside
from .motion import PEAK, SPEED, waves
from .objects import HALF_PIXEL, SIZE, Look, Objects, Sprite, lookalike, sprite, to_pixels
from .poses import Poses
from .textures import Generator

STREAM = 2  # first number of the key of random numbers
CHANNELS = 7  # of an object's motion: x, y, log size, log aspect, angle, two bends
GAINS = 3  # color channels


class Camera(NamedTuple):
    """Motion of the camera."""

    pan: np.ndarray  # (T, 2) pixels
    zoom: np.ndarray  # (T,) factor
    roll: np.ndarray  # (T,) radians


class Light(NamedTuple):
    """Illumination and exposure."""

    gain: np.ndarray  # (T, 3), for each channel
    bias: np.ndarray  # (T,) gray levels
    gamma: np.ndarray  # (T,) exponent


class Stage(NamedTuple):
    """Placement and colors of the background, the same for all frames of a scene."""

    zoom: float
    angle: float
    origin: np.ndarray  # (2,) pixel of the background at the frame's center
    colors: np.ndarray  # (256, 3) uint8, lookup table of each channel
    order: list[int]  # permutation of the channels


class World:
    """The objects and backgrounds shared by all scenes with one seed and setting."""

    def __init__(self, config: SyntheticConfig, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"a seed must be at least 0, got {seed}")
        self.config, self.seed = config, seed
        self.objects = Objects(config.objects)
        self.backgrounds = Backgrounds(config.backgrounds, seed, config.clutter)


class Scene:
    """Scene `index` of a world. Object 0 is the target; objects in `front` pass in front of it, others behind."""

    def __init__(self, world: World, index: int) -> None:
        self.world, self.config, self._index = world, world.config, index
        rng = generator_for(STREAM, world.seed, index)
        config = self.config
        self.background: Background = world.backgrounds[int(rng.integers(len(world.backgrounds)))]
        self.stage = self._stage(rng)
        around = int(rng.integers(config.distractors + 1))
        before = int(rng.integers(config.occluders + 1))
        self.count = 1 + around + before
        self.front = np.concatenate(([False], rng.random(around) < 0.3, np.ones(before, bool)))
        self._same = rng.random(self.count) < config.lookalike * (np.arange(self.count) <= around)
        self._sprites: dict[int, Sprite] = {}
        self._look: Look | None = None
        self._move(rng, around)
        drift = np.array([config.camera * config.height] * 2 + [0.15 * config.camera, 0.2 * config.camera])
        light = config.light * np.array([1, 40, 0.5, *(0.3,) * GAINS])
        self._rest = waves(rng, np.concatenate((drift, light)))

    def _stage(self, rng: Generator) -> Stage:
        drawn = self.config.backgrounds is None
        gains = rng.uniform(0.7, 1.2) * np.exp(rng.normal(0, 0.15 if drawn else 0.05, GAINS))
        table = np.clip(np.arange(256)[:, None] * gains + rng.uniform(0, 30), 0, 255).astype(np.uint8)
        height, width = self.background.levels[0].shape[:2]
        fill = max(self.config.height / height, self.config.width / width)
        zoom = rng.uniform(0.7, 1.6) * (1.0 if drawn else fill)
        angle = rng.uniform(-np.pi, np.pi) if drawn else rng.normal(0, 0.1)
        origin = rng.uniform(0.3, 0.7, 2) * (width, height)
        return Stage(zoom, angle, origin, table, rng.permutation(3).tolist() if drawn else [0, 1, 2])

    def _move(self, rng: Generator, around: int) -> None:
        config, n = self.config, self.count
        frame = np.array([config.width, config.height], float)
        low, high = np.log(config.size)
        size = np.exp(rng.uniform(low, high)) * config.height
        sizes = size * np.exp(np.where(np.arange(n) == 0, 0, rng.normal(0, 0.25, n)))
        std = np.empty((n, CHANNELS))
        travel = config.speed / SPEED * size * np.exp(rng.normal(0, 0.4))
        std[:, :2] = travel * 0.5
        std[:, 2:] = config.scale_change, config.aspect_change, config.rotation, *(config.deformation / PEAK,) * 2
        free = np.maximum(0.5 * frame - 0.35 * size, 0)
        std[0, :2] = np.minimum(travel, 0.5 * free)
        self._home = np.empty((n, 2))
        self._home[0] = 0.5 * frame + rng.uniform(-1, 1, 2) * np.maximum(free - std[0, :2], 0)
        self._follows = (rng.random(n) < 0.5) | (np.arange(n) > around)
        distance = rng.uniform(0.9, 2.5, n) * size
        direction = rng.uniform(0, 2 * np.pi, n)
        offset = distance[:, None] * np.stack((np.cos(direction), np.sin(direction)), axis=1)
        self._home[1:] = np.where(self._follows[:, None], 0, self._home[0])[1:] + offset[1:]
        self._home[1 + around :] = 0
        std[1 + around :, :2] = 0.9 * size
        self._log_size = np.log(sizes)
        self._angle = np.where(config.rotation > 0, rng.normal(0, config.rotation, n), 0)
        self._wave, self._phase = rng.uniform(1.5, 4.5, (n, 2)), rng.uniform(0, 2 * np.pi, (n, 2))
        self._waves = waves(rng, std.reshape(-1))

    def poses(self, times: np.ndarray) -> Poses:
        """Poses, (T, objects), of all objects at times, (T,), in frames."""
        values = self._waves.at(times).reshape(len(times), self.count, CHANNELS)
        center = self._home + values[..., :2]
        pan = self._rest.at(times)[:, None, :2]
        center[:, 1:] += np.where(self._follows[1:, None], center[:, :1], pan)
        aspects = np.log([self.sprite(i).aspect for i in range(self.count)])
        log_size, log_aspect = self._log_size + values[..., 2], aspects + values[..., 3]
        half = 0.5 * np.exp(log_size[..., None] + 0.5 * log_aspect[..., None] * np.array([1, -1]))
        shape = (*center.shape[:2], 2)
        wave, phase = (np.broadcast_to(value, shape) for value in (self._wave, self._phase))
        return Poses(center, half, self._angle + values[..., 4], values[..., 5:], wave, phase)

    def camera(self, times: np.ndarray) -> Camera:
        """The camera at times, (T,), in frames."""
        values = self._rest.at(times)
        return Camera(values[:, :2], np.exp(values[:, 2]), values[:, 3])

    def light(self, times: np.ndarray) -> Light:
        """The light at times, (T,), in frames."""
        values = self._rest.at(times)[:, 4:]
        return Light(np.exp(values[:, :1] + values[:, 3:]), values[:, 1], np.exp(values[:, 2]))

    def sprite(self, i: int) -> Sprite:
        """The picture of object i, made on first use."""
        if i not in self._sprites:
            self._sprites[i] = sprite(self._make(i))
        return self._sprites[i]

    def _make(self, i: int) -> Look:
        rng = generator_for(STREAM, self.world.seed, self._index, 1 + i)
        if i > 0:
            self.sprite(0)  # sets the target's look, which the others avoid or imitate
        if self._same[i] and self._look is not None:
            return lookalike(rng, self._look)
        reference = self.stage.colors[self.background.mean.astype(int), range(3)][self.stage.order]
        look = self.world.objects.look(rng, reference, self.config.contrast, self._look)
        if i == 0:
            self._look = look
        return look

    def boxes(self, poses: Poses) -> np.ndarray:
        """Boxes, (T, 4) xywh, of the target's part in the frame, hidden or not; without area if there is none."""
        target = poses.of(slice(None), 0)
        picture = self.sprite(0)
        edge = HALF_PIXEL * np.sqrt((target.matrix() ** 2).sum(axis=-1))  # from the center of a pixel to its edge
        outline = target.to_frame(picture.outline)
        return boxes_inside(outline, picture.after, edge, self.config.width, self.config.height)

    def visible(self, poses: Poses) -> np.ndarray:
        """Share, (T,) in [0, 1], of the target that is in the frame and not hidden."""
        points = poses.of(slice(None), 0).to_frame(self.sprite(0).samples)
        frame = np.array([self.config.width, self.config.height])
        seen = np.all((points >= 0) & (points < frame), axis=-1)
        for i in np.flatnonzero(self.front).tolist():
            alpha = self.sprite(i).levels[0][..., 3]
            pixels = np.round(to_pixels(poses.of(slice(None), i).to_own(points), SIZE)).astype(int)
            inside = np.all((pixels >= 0) & (pixels < SIZE), axis=-1)
            x, y = np.moveaxis(np.where(inside[..., None], pixels, 0), -1, 0)
            seen &= ~(inside & (alpha[y, x] > 127))
        return seen.mean(axis=1)
