"""Rendering of scenes: a whole frame, or a part of it at any resolution."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from ..pairs import generator_for
from .layers import lay_over
from .objects import to_pixels
from .poses import Poses
from .scene import Camera, Light, Scene

STREAM = 3  # first number of the key of random numbers
NODES = 17  # a side of the lattice on which an object's warp is computed and from which it is interpolated
UNIFORM_STD = 256 / 12**0.5  # standard deviation of uniform bytes
SMALLEST_BLUR = 1.5  # pixels
LARGEST_BLUR = 31.0


class View(NamedTuple):
    """The part of a frame to draw, in pixels of the frame, and the size of the picture."""

    left: float
    top: float
    scale: float  # pixels of the picture per pixel of the frame
    height: int  # of the picture
    width: int


def render(scene: Scene, index: int, t: int, view: View) -> np.ndarray:
    """Renders frame t of a scene, (height, width, 3) uint8 RGB.

    Outside the frame the picture is black; as in `crop_target`, the frame's last row and column count as outside if
    the view reaches beyond them.

    Args:
        index: number of the scene, on which the sensor's noise depends.
    """
    half = 0.5 * scene.config.shutter
    times = np.array([t - half, t, t + half])
    poses, camera = scene.poses(times), scene.camera(times)
    image = _ground(scene, camera, view)
    for i in (*np.flatnonzero(~scene.front[1:]) + 1, 0, *np.flatnonzero(scene.front)):
        moved = (poses.center[2, i] - poses.center[0, i]) * view.scale
        if (found := layer(scene, i, poses.of(1), view, moved)) is not None:
            lay_over(image, *found)
    image = _lit(image, scene.light(times[1:2]))
    if scene.config.noise > 0:
        strength = scene.config.noise / UNIFORM_STD
        rng = generator_for(STREAM, scene.world.seed, index, 1 + t)
        grain = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
        image = cv2.addWeighted(image, 1, grain, strength, -127.5 * strength)
    _blacken(image, scene, view)
    return image


def _ground(scene: Scene, camera: Camera, view: View) -> np.ndarray:
    """Renders the background as the camera sees it."""
    stage, levels = scene.stage, scene.background.levels
    scale = view.scale * stage.zoom * camera.zoom[1]  # pixels of the picture per pixel of the background
    level = int(np.clip(np.floor(-np.log2(scale) + 0.5), 0, len(levels) - 1))
    angle = stage.angle + camera.roll[1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    middle = 0.5 * np.array([scene.config.width, scene.config.height]) + camera.pan[1]
    offset = (np.array([view.left, view.top]) - middle) * view.scale + 0.5
    corner = (turn @ offset + stage.origin) / 2**level - 0.5
    matrix = np.concatenate((turn / 2**level, corner[:, None]), axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (view.width, view.height)
    image = cv2.warpAffine(levels[level], matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    image = cv2.LUT(image, stage.colors[None])
    if stage.order != [0, 1, 2]:
        image = np.ascontiguousarray(image[..., stage.order])
    return _blurred(image, (camera.pan[2] - camera.pan[0]) * view.scale)


def layer(
    scene: Scene, i: int, poses: Poses, view: View, moved: np.ndarray | None = None
) -> tuple[np.ndarray, int, int] | None:
    """Renders object i alone.

    Args:
        poses: of all objects at one time.
        moved: (2,) pixels of the picture by which it moves while the shutter is open; None: it does not move.

    Returns:
        Premultiplied RGBA, (h, w, 4) uint8, and the left and top of its corner in the picture; None if the object is
        outside.
    """
    moved = np.zeros(2) if moved is None else moved
    pose = poses.of(i)
    spread = 0.5 * np.abs(moved) + 1
    reach = (pose.reach().reshape(2, 2) - (view.left, view.top)) * view.scale + (-spread, spread)
    low = np.maximum(np.floor(reach[0]), 0).astype(int)
    high = np.minimum(np.ceil(reach[1]), (view.width, view.height)).astype(int)
    if (high - low < 1).any():
        return None
    width, height = high - low
    levels = scene.sprite(i).levels
    shrink = levels[0].shape[0] / (2 * pose.half.mean() * view.scale)  # pixels of the sprite per pixel of the picture
    level = int(np.clip(np.floor(np.log2(shrink) + 0.5), 0, len(levels) - 1))
    own = pose.to_own(_lattice(low + 0.5, high - 0.5) / view.scale + (view.left, view.top))
    pixels = to_pixels(own, levels[level].shape[0]).reshape(NODES, NODES, 2).astype(np.float32)
    rows, columns = _weights(height), _weights(width)
    x, y = (rows @ pixels[..., axis] @ columns.T for axis in (0, 1))
    picture = cv2.remap(levels[level], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return _blurred(picture, moved), int(low[0]), int(low[1])


def _lattice(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lattice points, (NODES * NODES, 2), from `low` to `high`, x fastest."""
    x, y = np.linspace(low, high, NODES).T
    return np.stack((np.tile(x, NODES), np.repeat(y, NODES)), axis=1)


@functools.lru_cache(maxsize=512)
def _weights(count: int) -> np.ndarray:
    """Interpolation weights, (count, NODES) float32, of the nodes for `count` pixels that span them."""
    at = np.linspace(0, NODES - 1, count)[:, None] if count > 1 else np.zeros((1, 1))
    return np.maximum(0, 1 - np.abs(at - np.arange(NODES))).astype(np.float32)


def _blurred(image: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Blurs an image along a motion of (2,) pixels."""
    length = float(np.hypot(*moved))
    if length < SMALLEST_BLUR:
        return image
    way = moved * min(1.0, LARGEST_BLUR / length)
    middle = int(np.ceil(0.5 * np.abs(way).max()))
    kernel = np.zeros((2 * middle + 1,) * 2, np.float32)
    start, end = (np.round((middle + sign * 0.5 * way) * 16).astype(int).tolist() for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _lit(image: np.ndarray, light: Light) -> np.ndarray:
    """Applies gamma, gain and bias."""
    values = 255 * (np.arange(256) / 255)[:, None] ** light.gamma * light.gain + light.bias
    return cv2.LUT(image, np.clip(values, 0, 255).round().astype(np.uint8)[None])


def _blacken(image: np.ndarray, scene: Scene, view: View) -> None:
    """Blackens the part outside the frame, in place."""
    for axis, (start, pixels, side) in enumerate(
        ((view.top, view.height, scene.config.height), (view.left, view.width, scene.config.width))
    ):
        end = start + pixels / view.scale
        first = round(max(0.0, -start) * view.scale)
        last = pixels if end <= side else max(0, round((side - 1 - start) * view.scale))
        lines = image if axis == 0 else image.swapaxes(0, 1)
        lines[:first] = 0
        lines[last:] = 0
