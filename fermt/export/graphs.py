"""A model as graphs in plain PyTorch: the whole, or split into the template's part and that of a frame.

The images of every graph are normalized, (B, 3, S, S) in its own dtype, or crops, (B, S, S, 3) uint8 RGB, in which case
the graph normalizes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from fermt_kernels.spec.heads import HEADS
from fermt_kernels.spec.schedule import TemplateSchedule

from ..config import ModelConfig
from ..data import normalize_batch
from ..model import FERMT
from .plain import plain_model

QUERY, ALL, KEY_VALUE = (0, 1), (0, 3), (1, 3)  # parts of the joint projection
MAPS = {name: head.outputs for name, head in HEADS.items()}


class Split:
    """The split of a model into work that depends on the template alone and work of each frame.

    In the first `leading` layers template queries see no search keys, so template tokens depend on the template alone.
    Template tokens are updated before layer `last`, which is the last to read their keys and values. `cache` names the
    outputs of the template graph, which are inputs of the frame graph, in order.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.schedule = TemplateSchedule(config.patterns, config.reweight)
        self.layers, self.leading = self.schedule.layers, self.schedule.first_dynamic_layer
        self.last = self.schedule.last_template_layer
        readers = [i for i, layer in enumerate(self.layers) if layer.search_sees_template]
        self.keeps_tokens = self.leading <= self.last  # whether a frame needs template tokens besides keys and values
        names = [f"{part}_{i}" for i in readers if i < self.leading for part in ("keys", "values")]
        self.cache = (*names, "template_tokens") if self.keeps_tokens else (*names,)


def normalized(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Crops, (B, S, S, 3) uint8 RGB -> normalized images, (B, 3, S, S) in `dtype`; other images are not changed."""
    return normalize_batch(images, dtype=dtype) if images.dtype == torch.uint8 else images


class _Graph(nn.Module):
    """Base of both parts: the backbone without this package's ops, and the steps of a layer."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, plain: FERMT) -> None:
        super().__init__()
        self.config, self.split = plain.config, Split(plain.config)
        self.backbone = plain.backbone

    def _embed(self, images: Tensor, positions: nn.Parameter) -> Tensor:
        """Images in either form -> tokens, (B, N, C)."""
        return self.backbone.embed(normalized(images, positions.dtype), positions)

    def _project(self, layer: int, tokens: Tensor, parts: tuple[int, int]) -> tuple[Tensor, ...]:
        """Projects unnormalized tokens to those of q, k and v that `parts` selects, (B, H, N, D) each."""
        block: Any = self.backbone.blocks[layer]
        (first, last), dim = parts, tokens.shape[-1]
        rows = slice(first * dim, last * dim)
        joint = F.linear(block.norm1(tokens), block.attn.qkv.weight[rows], block.attn.qkv.bias[rows])
        return joint.unflatten(2, (last - first, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _finish(self, layer: int, tokens: Tensor, attended: Tensor | None) -> Tensor:
        """Adds both residual branches; `attended` is (B, H, N, D), or None if the queries see nothing."""
        block: Any = self.backbone.blocks[layer]
        if attended is None:
            tokens = tokens + block.attn.proj.bias
        else:
            tokens = tokens + block.attn.proj(attended.transpose(1, 2).flatten(2))
        return tokens + block.mlp(block.norm2(tokens))

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention, (B, H, rows, D) and twice (B, H, keys, D) -> (B, H, rows, D)."""
        block: Any = self.backbone.blocks[layer]
        return ((q * block.attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v


class TemplateGraph(_Graph):
    """Template images -> the tensors of `Split.cache`, inputs of `FrameGraph`.

    These are keys and values, (B, H, n, D), of each leading layer in which search queries see them, then the template's
    tokens, (B, n, C), if a later layer or the head reads them. There are none if the pattern is "self" throughout.
    """

    def __init__(self, model: FERMT) -> None:
        super().__init__(plain_model(model).eval())
        self.inputs, self.outputs = ("template",), self.split.cache
        self.backbone.blocks = self.backbone.blocks[: min(self.split.leading, self.split.last + 1)]

    def forward(self, template: Tensor) -> tuple[Tensor, ...]:
        split = self.split
        if not split.cache:
            return ()
        tokens = self._embed(template, self.backbone.pos_embed_z)
        cache: list[Tensor] = []
        for i in range(len(self.backbone.blocks)):
            seen, updated, attended = split.layers[i], split.schedule.template_updated(i), None
            if split.schedule.template_queries(i):
                q, k, v = self._project(i, tokens, ALL)
                attended = self._attend(i, q, k, v)
            elif seen.search_sees_template:
                k, v = self._project(i, tokens, KEY_VALUE)
            cache += [k, v] if seen.search_sees_template else []
            if updated:
                tokens = self._finish(i, tokens, attended)
        return (*cache, tokens) if split.keeps_tokens else (*cache,)


class FrameGraph(_Graph):
    """Search images and the outputs of `TemplateGraph` -> the head's maps, in its order.

    Layers after the leading ones compute both groups of tokens, but not the template's queries and MLP if nothing reads
    their result, as in the last layer.
    """

    def __init__(self, model: FERMT) -> None:
        plain = plain_model(model).eval()
        super().__init__(plain)
        self.inputs, self.outputs = ("search", *self.split.cache), MAPS[self.config.head]
        self.head = plain.box_head

    def _search_layer(self, layer: int, search: Tensor, template: Iterable[Tensor]) -> Tensor:
        """Applies a layer to search tokens only; `template` has the template's keys and values, if they are seen."""
        q, *own = self._project(layer, search, ALL if self.split.layers[layer].search_sees_search else QUERY)
        seen = [*template]
        k, v = (torch.cat(pair, dim=2) for pair in zip(seen, own, strict=True)) if seen and own else seen or own
        return self._finish(layer, search, self._attend(layer, q, k, v))

    def forward(self, search: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        split, n, taken = self.split, self.config.num_template, 0
        tokens = self._embed(search, self.backbone.pos_embed_x)
        for i in range(split.leading):
            count = 2 if split.layers[i].search_sees_template else 0
            tokens = self._search_layer(i, tokens, cache[taken : taken + count])
            taken += count
        template = cache[-1] if split.keeps_tokens else None
        if template is not None and split.leading < split.last:
            both = torch.cat((template, tokens), dim=1)
            for block in self.backbone.blocks[split.leading : split.last]:
                both = block(both, n)
            template, tokens = both[:, :n], both[:, n:]
        for i in range(max(split.leading, split.last), len(split.layers)):
            read = template if split.layers[i].search_sees_template else None
            tokens = self._search_layer(i, tokens, () if read is None else self._project(i, read, KEY_VALUE))
        if self.config.reweight and template is not None:
            tokens = torch.cat((template, tokens), dim=1)
        return tuple(self.head(self.backbone.norm(tokens)).values())


class WholeGraph(nn.Module):
    """The whole model: template and search images -> the head's maps, in its order."""

    inputs = ("template", "search")

    def __init__(self, model: FERMT) -> None:
        super().__init__()
        plain = plain_model(model).eval()
        self.config, self.outputs = plain.config, MAPS[plain.config.head]
        self.backbone, self.head = plain.backbone, plain.box_head

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
        dtype = self.backbone.pos_embed_z.dtype
        tokens = self.backbone(normalized(template, dtype), normalized(search, dtype))
        return tuple(self.head(tokens).values())
