"""Whole batches of training pairs, made on the device that trains: drawing and compositing are torch operators."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...config import ModelConfig
from .batch_looks import EDGE, contrasted, field, outlines, painted, palettes, patterns, sprites
from .batch_parts import Parts, draw, objects_of
from .config import SyntheticConfig
from .poses import Poses
from .protocol import BRIGHTNESS, FLIP, GREY, in_square
from .textures import Generator, generator

STREAM = 4  # first number of a key to random numbers
GROUND = 256  # pixels a side of a background; beyond its edges it is mirrored
GROUND_KINDS = (0, 0, 3, 4)  # of patterns: noise, gradient, spots
BLUR = 4  # pixels: the furthest that motion blur reaches


class SyntheticBatches:
    """Batches of pairs of the same kind as `SyntheticPairs` gives, all of a batch at once, on any device.

    Only numbers are drawn on the CPU, a few for each object. A batch depends on (model_config, seed, config, epoch,
    index) and the batch size, on one kind of device to the last bit but for the rounding of sums.

    Left out of what `SyntheticPairs` shows: folders of images, glyphs and other outlines that are not seen whole from
    a middle, second materials, and motion blur of each thing by itself (here a whole picture moves). Pairs are two
    states that are alike the more the nearer they are in time, not frames of a sequence that could be shown.

    Args:
        model_config: has the crops' sizes and factors.
        batch: pairs in a batch.
        seed: at least 0.
        pairs: how many an epoch has; what is left over after whole batches is not used.
        config: what is in them; `objects` and `backgrounds` must be None.
        device: where they are made and stay.

    Raises:
        ValueError: a number is out of range, or a folder of images is given.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        batch: int = 32,
        seed: int = 0,
        pairs: int = 60_000,
        config: SyntheticConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= batch <= pairs:
            raise ValueError(f"batch must lie in [1, {pairs}], the pairs of an epoch; got {batch}")
        if seed < 0:
            raise ValueError(f"a seed must be at least 0, got {seed}")
        self.config = SyntheticConfig() if config is None else config
        for name in ("objects", "backgrounds"):
            if (folder := getattr(self.config, name)) is not None:
                raise ValueError(
                    f"SyntheticBatches draws all {name} itself, got the folder {folder!r}: use SyntheticPairs"
                )
        self.model_config, self.seed, self.device = model_config, seed, torch.device(device)
        self._batch, self._pairs = batch, pairs

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._pairs // self._batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch in their order, from `start` on."""
        return (self.batch(epoch, index) for index in range(start, len(self)))

    @torch.no_grad()
    def batch(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Batch `index` of an epoch.

        Returns:
            `template` (B, St, St, 3) and `search` (B, Ss, Ss, 3), uint8 RGB; `box` (B, 4) float32, xywh in [0, 1] of
            the search region, whose edges it may pass as the target does.

        Raises:
            IndexError: there is no such batch.
        """
        rng, parts, pictures, ground = self._drawn(epoch, index)
        sensor = torch.Generator(self.device).manual_seed(int(rng.integers(2**63)))
        sizes = (self.model_config.template_size, self.model_config.search_size)
        template, search = (self._crop(parts, i, size, pictures, ground, sensor) for i, size in enumerate(sizes))
        return self._augmented(rng, template, search, in_square(parts.boxes[1], parts.squares[1]))

    @torch.no_grad()
    def masks(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """To check a batch by: the targets' own alpha, hidden or not, and their boxes, before a flip.

        Returns:
            (B, Ss, Ss) float32 in [0, 1], and (B, 4) float32, xywh in [0, 1], of the search regions.
        """
        _, parts, pictures, _ = self._drawn(epoch, index)
        size = self.model_config.search_size
        at, _ = self._places(parts, 1, size)
        frame = torch.tensor([self.config.width, self.config.height], device=self.device)
        inside = ((at >= 0) & (at < frame)).all(dim=-1)
        alpha = (
            _sampled(pictures[:: objects_of(self.config), 3:], self._tensor(_packed(parts.targets.of(1))), at)[:, 0]
            * inside
        )
        return alpha, torch.from_numpy(in_square(parts.boxes[1], parts.squares[1])).to(self.device)

    def _drawn(self, epoch: int, index: int) -> tuple[Generator, Parts, Tensor, Tensor]:
        """The random numbers that follow, the parts, the objects' pictures (M, 4, s, s), the grounds (B, 3, s, s)."""
        if not 0 <= index < len(self):
            raise IndexError(f"an epoch has batches 0 to {len(self) - 1}, got {index}")
        rng, config, batch = generator(STREAM, self.seed, epoch, 1 + index), self.config, self._batch
        n = objects_of(config)
        count = batch * n
        own = np.arange(count)
        alike = (rng.random(count) < config.lookalike) & (own % n > 0) & (own % n <= config.distractors)
        takes_shape = alike & (rng.random(count) < 0.5)  # the others take the texture
        target = own - own % n
        outline = type(fresh := outlines(rng, count))(*(part[np.where(takes_shape, target, own)] for part in fresh))
        ground_colours = palettes(rng, batch, 0.7)
        colours = contrasted(palettes(rng, count), ground_colours.repeat(n, axis=0), config.contrast)
        colours = colours[np.where(alike & ~takes_shape, target, own)]
        values = field(patterns(rng, count), self.model_config.search_size // 2, self.device)
        values = values[torch.from_numpy(np.where(alike, target, own)).to(self.device)]
        ground = painted(field(patterns(rng, batch, GROUND_KINDS), GROUND, self.device), ground_colours)
        parts = draw(rng, outline, config, self.model_config, batch)
        return rng, parts, sprites(outline, values, colours), ground

    def _places(self, parts: Parts, i: int, size: int) -> tuple[Tensor, Tensor]:
        """Where in the frame a crop's pixels are, (B, size, size, 2), and whether that is inside, (B, size, size)."""
        cut = self._tensor(parts.squares[i])
        line = (torch.arange(size, device=self.device) + 0.5) / size
        steps = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        at = cut[:, None, None, :2] + steps * cut[:, None, None, 2:]
        frame = torch.tensor([self.config.width, self.config.height], device=self.device)
        end = cut[:, :2] + cut[:, 2:]
        last = torch.where(end > frame - 1, frame - 1, frame)  # as in crop_target
        return at, ((at >= 0) & (at < last[:, None, None])).all(dim=-1)

    def _crop(
        self, parts: Parts, i: int, size: int, pictures: Tensor, ground: Tensor, sensor: torch.Generator
    ) -> Tensor:
        """(B, 3, size, size), 0 to 255: all templates (i = 0) or all search regions (i = 1)."""
        at, inside = self._places(parts, i, size)
        middle = self._tensor(parts.shift[i])[:, None, None] + torch.tensor(
            [self.config.width / 2, self.config.height / 2], device=self.device
        )
        image = F.grid_sample(
            ground, (at - middle) / self.config.height, padding_mode="reflection", align_corners=False
        )
        look, present = torch.from_numpy(parts.layers.look).to(self.device), self._tensor(parts.layers.present)
        poses = self._tensor(_packed(parts.layers.poses.of(i)))
        for k in range(look.shape[1]):
            layer = _sampled(pictures[look[:, k]], poses[:, k], at) * present[:, k, None, None, None]
            image = image * (1 - layer[:, 3:]) + layer[:, :3]
        if self.config.shutter > 0:
            scale = size / self._tensor(parts.squares[i])[:, 2:]
            image = _blurred(image, self._tensor(parts.moved[i]) * scale)
        light = self._tensor(parts.light[i])[..., None, None]
        image = 255 * (image / 255).clamp(0, 1) ** light[:, 4:] * light[:, :3] + light[:, 3:4]
        if self.config.noise > 0:
            image = image + self.config.noise * torch.randn(image.shape, generator=sensor, device=self.device)
        return image.clamp(0, 255) * inside[:, None]

    def _augmented(self, rng: Generator, template: Tensor, search: Tensor, box: np.ndarray) -> dict[str, Tensor]:
        batch = len(box)
        flip, grey = rng.random(batch) < FLIP, rng.random(batch) < GREY
        brightness = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS, (2, batch))
        box = np.where(flip[:, None], np.stack((1 - box[:, 0] - box[:, 2], *box[:, 1:].T), axis=1), box)
        crops = []
        for image, factor in zip((template, search), brightness, strict=True):
            image = torch.where(self._tensor(flip)[:, None, None, None] > 0, image.flip(-1), image)
            luma = (image * torch.tensor([0.299, 0.587, 0.114], device=self.device)[:, None, None]).sum(1, keepdim=True)
            image = torch.where(self._tensor(grey)[:, None, None, None] > 0, luma, image)
            image = (image * self._tensor(factor)[:, None, None, None]).clamp(0, 255).round()
            crops.append(image.permute(0, 2, 3, 1).to(torch.uint8).contiguous())
        return {"template": crops[0], "search": crops[1], "box": self._tensor(box)}

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self.device)


def _packed(poses: Poses) -> np.ndarray:
    """(..., 12): all that the way from the frame to an object's own coordinates needs."""
    inverse = np.linalg.inv(poses.matrix())
    parts = (poses.center, inverse[..., 0, :], inverse[..., 1, :], poses.bend, poses.wave, poses.phase)
    return np.concatenate(parts, axis=-1)


def _sampled(pictures: Tensor, poses: Tensor, at: Tensor) -> Tensor:
    """Pictures (B, c, s, s) of one object each, seen at the places (B, h, w, 2) of the frame -> (B, c, h, w).

    Args:
        poses: (B, 12) of `_packed`.
    """
    center, row_x, row_y, bend, wave, phase = poses[:, None, None].split(2, dim=-1)
    away = at - center
    straight = torch.stack(((away * row_x).sum(-1), (away * row_y).sum(-1)), dim=-1)
    own = straight + bend * torch.sin(wave * straight.flip(-1) + phase)
    return F.grid_sample(pictures, own / EDGE, align_corners=False)


def _blurred(image: Tensor, moved: Tensor) -> Tensor:
    """Images (B, 3, h, w), each smeared along its way (B, 2) in pixels."""
    way = moved * (2 * BLUR / moved.norm(dim=1, keepdim=True).clamp(min=2 * BLUR))
    line = torch.arange(-BLUR, BLUR + 1, dtype=image.dtype, device=image.device)
    at = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    along = ((at * way[:, None, None]).sum(-1) / (way**2).sum(1)[:, None, None].clamp(min=1e-6)).clamp(-0.5, 0.5)
    kernel = (1 - (at - along[..., None] * way[:, None, None]).norm(dim=-1)).clamp(min=0)
    kernel = (kernel / kernel.sum(dim=(1, 2), keepdim=True)).repeat_interleave(3, dim=0)
    padded = F.pad(image.flatten(0, 1)[None], (BLUR,) * 4, mode="replicate")
    return F.conv2d(padded, kernel[:, None], groups=len(kernel)).view_as(image)
