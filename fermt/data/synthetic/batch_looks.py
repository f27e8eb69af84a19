"""What the objects of a batch look like: outlines by their distance from a middle at each angle, patterns, colours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .textures import CHANGES, Generator, change_apart, colours

ANGLES = 256  # at which an outline's distance from its middle is kept; between them it is interpolated
COLOURS = 4  # of a texture
EDGE = 1.1  # half the side of a picture, in half sizes of its object: so that its edge can be interpolated
CELLS = (4, 8, 16, 32, 64)  # of the lattices of noise


class Outlines(NamedTuple):
    """Of M objects; an object's own coordinates run from -1 to 1 over it."""

    radius: np.ndarray  # (M, ANGLES) float32, before it is stretched
    origin: np.ndarray  # (M, 2) where the radii start
    scale: np.ndarray  # (M, 2) half width and height before it is stretched

    def points(self, shrink: float = 1.0, step: int = 1) -> np.ndarray:
        """(M, ANGLES / step, 2) of the outlines, or nearer to the origin by `shrink`."""
        radius = shrink * self.radius[:, ::step, None]
        return self.origin[:, None] + radius * _DIRECTIONS[::step] / self.scale[:, None]


_TURN = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
_DIRECTIONS = np.stack((np.cos(_TURN), np.sin(_TURN)), axis=1)


def outlines(rng: Generator, count: int) -> Outlines:
    """Polygons, stars, blobs, and what lies between a diamond and a rectangle; `count` of them."""
    kinds = np.stack((_polygons(rng, count, 0.0), _polygons(rng, count, 1.0), _blobs(rng, count), _rounded(rng, count)))
    radius = kinds[rng.integers(len(kinds), size=count), np.arange(count)].astype(np.float32)
    points = radius[..., None] * _DIRECTIONS
    low, high = points.min(axis=1), points.max(axis=1)
    return Outlines(radius, -(low + high) / (high - low), 0.5 * (high - low))


def _polygons(rng: Generator, count: int, star: float) -> np.ndarray:
    """(count, ANGLES): corners at even angles; stars' are far and near by turns."""
    corners = 2 * rng.integers(3, 6, (count, 1)) if star else rng.integers(3, 9, (count, 1))
    far = rng.uniform(0.55, 1, (count, 16)) * (1 - star)
    far = far + star * np.where(np.arange(16) % 2, rng.uniform(0.4, 0.7, (count, 1)), 1)
    width = 2 * np.pi / corners
    first = np.floor(_TURN / width + 1e-9).astype(int) % corners
    here, there = (np.take_along_axis(far, corner, axis=1) for corner in (first, (first + 1) % corners))
    past = _TURN - first * width
    return here * there * np.sin(width) / (here * np.sin(past) + there * np.sin(width - past))


def _blobs(rng: Generator, count: int) -> np.ndarray:
    orders = np.arange(1, 6)
    height, phase = rng.normal(0, 0.2, (count, 5, 1)) / orders[:, None] ** 0.7, rng.uniform(0, 2 * np.pi, (count, 5, 1))
    return np.maximum(1 + (height * np.cos(orders[:, None] * _TURN + phase)).sum(axis=1), 0.3)


def _rounded(rng: Generator, count: int) -> np.ndarray:
    power = rng.uniform(1, 8, (count, 1))
    return (np.abs(np.cos(_TURN)) ** power + np.abs(np.sin(_TURN)) ** power) ** (-1 / power)


def depth(outline: Outlines, points: Tensor) -> Tensor:
    """How far inside each outline its points (M, P, 2) lie, along the radius, before it is stretched -> (M, P)."""
    radius, origin, scale = (torch.as_tensor(field, dtype=points.dtype, device=points.device) for field in outline)
    x, y = ((points - origin[:, None]) * scale[:, None]).unbind(-1)
    at = torch.atan2(y, x) * (ANGLES / (2 * torch.pi)) % ANGLES
    low = at.floor()
    first = low.long() % ANGLES
    here, there = radius.gather(1, first), radius.gather(1, (first + 1) % ANGLES)
    return torch.lerp(here, there, at - low) - torch.hypot(x, y)


class Patterns(NamedTuple):
    """Of M textures."""

    lattices: tuple[np.ndarray, ...]  # (M, c, c) float32 in [0, 1], for each c of CELLS
    coarsest: np.ndarray  # (M,) int: the lattice with which the noise begins
    kind: np.ndarray  # (M,) int: noise, stripes, checker, gradient, spots
    numbers: np.ndarray  # (M, 3) float32 in [0, 1]: what the kinds need


KINDS = 5


def patterns(rng: Generator, count: int, kinds: tuple[int, ...] = tuple(range(KINDS))) -> Patterns:
    lattices = tuple(rng.random((count, cells, cells), np.float32) for cells in CELLS)
    kind = np.array(kinds)[rng.integers(len(kinds), size=count)]
    return Patterns(lattices, rng.integers(0, 3, count), kind, rng.random((count, 3), np.float32))


def field(pattern: Patterns, size: int, device: torch.device) -> Tensor:
    """(M, size, size) in [0, 1]."""
    coarsest, kind, numbers = (torch.as_tensor(part, device=device)[..., None, None] for part in pattern[1:])
    noise = torch.zeros(len(kind), size, size, device=device)
    for i, lattice in enumerate(pattern.lattices):
        fine = torch.as_tensor(lattice, device=device)[:, None]
        fine = F.interpolate(fine, (size, size), mode="bicubic", align_corners=False)[:, 0] - 0.5
        noise += fine * torch.where(coarsest <= i, 0.6 ** (i - coarsest), 0.0)
    noise = (0.5 + 0.7 * noise).clamp(0, 1)
    line = torch.linspace(-1, 1, size, device=device)
    x, y = line[None, :], line[:, None]
    angle, frequency, third = 2 * torch.pi * numbers[:, 0], 6 + 16 * numbers[:, 1], numbers[:, 2]
    along, across = torch.cos(angle) * x + torch.sin(angle) * y, torch.cos(angle) * y - torch.sin(angle) * x
    stripes = 0.5 + 0.5 * (3 * torch.sin(frequency * along + 3 * third * torch.sin(2 * across))).clamp(-1, 1)
    checker = 0.5 + 0.5 * torch.sign(torch.sin(frequency * x) * torch.sin(frequency * y + third)) * (0.6 + 0.4 * noise)
    gradient = (0.5 + 0.4 * along + third * across**2 * 0.4 + 0.2 * (noise - 0.5)).clamp(0, 1)
    spots = ((noise - 0.35 - 0.3 * third) * 10 + 0.5).clamp(0, 1)
    result = noise
    for i, other in enumerate((stripes, checker, gradient, spots), start=1):
        result = torch.where(kind == i, other, result)
    return result


def painted(values: Tensor, palette: np.ndarray) -> Tensor:
    """Fields (M, s, s) in the colours (M, COLOURS, 3) uint8 -> (M, 3, s, s), 0 to 255."""
    table = torch.as_tensor(palette, dtype=torch.float32, device=values.device)
    at = values.flatten(1) * (COLOURS - 1)
    low = at.floor().clamp(max=COLOURS - 2)
    first = low.long()[..., None].expand(-1, -1, 3)
    mixed = torch.lerp(table.gather(1, first), table.gather(1, first + 1), (at - low)[..., None])
    return mixed.transpose(1, 2).reshape(len(values), 3, *values.shape[1:])


def sprites(outline: Outlines, values: Tensor, palette: np.ndarray) -> Tensor:
    """Objects' pictures, (M, 4, s, s): colours 0 to 255 multiplied by alpha, and alpha, 0 to 1; side 2 * EDGE."""
    size = values.shape[-1]
    line = (torch.arange(size, device=values.device) + 0.5) * (2 * EDGE / size) - EDGE
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).view(1, -1, 2)
    inside = depth(outline, points.expand(len(values), -1, -1)).view(len(values), 1, size, size)
    pixel = torch.as_tensor(outline.scale.mean(axis=1), dtype=torch.float32, device=values.device) * (2 * EDGE / size)
    alpha = (inside / pixel[:, None, None, None] + 0.5).clamp(0, 1)
    shade = (0.6 + 3 * inside).clamp(0, 1)
    return torch.cat((painted(values, palette) * shade * alpha, alpha), dim=1)


def contrasted(palette: np.ndarray, ground: np.ndarray, contrast: float) -> np.ndarray:
    """Palettes (M, COLOURS, 3), changed where their mean is not `contrast` apart from that of `ground`."""
    chosen = change_apart(palette.mean(axis=1), ground.mean(axis=1), contrast)
    changed = np.stack([change(palette) for change in CHANGES])
    return changed[chosen, np.arange(len(palette))]


def palettes(rng: Generator, count: int, saturation: float = 1.0) -> np.ndarray:
    """(count, COLOURS, 3) uint8."""
    return colours(rng, (count,), COLOURS, saturation)
