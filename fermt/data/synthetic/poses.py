"""Poses of objects: maps between an object's own coordinates and the frame, with a smooth invertible warp.

An object's own coordinates run from -1 to 1 over its picture. The warp moves each of x and y by a wave along the other
(a shear that varies from row to row), followed by scaling, rotation and translation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SWEEPS = 4  # iterations that invert the warp; each divides the error by at least 3


class Poses(NamedTuple):
    """Poses of objects at times, which are the leading dimensions (...)."""

    center: np.ndarray  # (..., 2) x and y in pixels of the frame, from its top left corner
    half: np.ndarray  # (..., 2) half width and height in pixels, without the warp
    angle: np.ndarray  # (...,) radians
    bend: np.ndarray  # (..., 2) amplitude of the warp's wave
    wave: np.ndarray  # (..., 2) its frequency, radians
    phase: np.ndarray  # (..., 2)

    def of(self, *index: int | slice) -> Poses:
        """Selects poses by index."""
        return Poses(*(field[index] for field in self))

    def matrix(self) -> np.ndarray:
        """The matrices, (..., 2, 2), of scaling and rotation."""
        cos, sin = np.cos(self.angle)[..., None], np.sin(self.angle)[..., None]
        rows = (np.concatenate((cos, -sin), axis=-1), np.concatenate((sin, cos), axis=-1))
        return np.stack(rows, axis=-2) * self.half[..., None, :]

    def to_own(self, points: np.ndarray) -> np.ndarray:
        """Maps points, (..., n, 2), from the frame to the object's own coordinates, in [-1, 1] inside its picture."""
        inverse = np.linalg.inv(self.matrix())
        x, y = np.moveaxis((points - self.center[..., None, :]) @ np.swapaxes(inverse, -1, -2), -1, 0)
        return np.stack((x + self._shift(0, y), y + self._shift(1, x)), axis=-1)

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Maps points, (..., n, 2), from the object's own coordinates to pixels of the frame."""
        x, y = (np.broadcast_to(line, (*self.angle.shape, points.shape[-2])) for line in np.moveaxis(points, -1, 0))
        straight_x, straight_y = x, y
        for _ in range(SWEEPS):
            straight_x = x - self._shift(0, straight_y)
            straight_y = y - self._shift(1, straight_x)
        straight = np.stack((straight_x, straight_y), axis=-1)
        return straight @ np.swapaxes(self.matrix(), -1, -2) + self.center[..., None, :]

    def _shift(self, axis: int, along: np.ndarray) -> np.ndarray:
        bend, wave, phase = (field[..., axis, None] for field in (self.bend, self.wave, self.phase))
        return bend * np.sin(wave * along + phase)

    def reach(self) -> np.ndarray:
        """Bounds, (..., 4) left, top, right, bottom, of the object; not tight."""
        extent = (np.abs(self.matrix()) * (1 + np.abs(self.bend))[..., None, :]).sum(axis=-1)
        return np.concatenate((self.center - extent, self.center + extent), axis=-1)
