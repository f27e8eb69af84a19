"""The FERMT network."""

from __future__ import annotations

from typing import Any

import torch.nn as nn
from torch import Tensor

from ..config import ModelConfig, named_config
from .center_head import CenterHead
from .corner_head import CornerHead
from .vit import Backbone

HEADS: dict[str, type[CenterHead] | type[CornerHead]] = {"center": CenterHead, "corner": CornerHead}


class FERMT(nn.Module):
    """The network of the tracker (the authors' `FERMT`; Fig. 2 of the paper).

    State-dict keys are those of the authors without `backbone.cls_token` and `backbone.pos_embed`, which forward passes
    do not use.
    """

    def __init__(self, config: ModelConfig, *, backend: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, backend)
        self.box_head = HEADS[config.head](config)

    @property
    def backend(self) -> str | None:
        """The backend of all kernels, as given to `build_model`; None if they differ or are not of this package."""
        backbone = self.backbone
        units = [backbone.dau] if backbone.dau is not None else []
        names = {getattr(module, "backend", None) for module in (*(block.attn for block in backbone.blocks), *units)}
        return names.pop() if len(names) == 1 else None

    def forward(self, template: Tensor, search: Tensor) -> dict[str, Tensor]:
        """Finds the target of a template in a search region.

        Args:
            template: (B, 3, template_size, template_size), normalized RGB (`fermt.data.normalize`); or (B, T, 3, ...),
                T templates of the same target, whose tokens are concatenated and have the same positions.
            search: (B, 3, search_size, search_size), normalized RGB.

        Returns:
            `pred_boxes` (B, 1, 4), cxcywh in [0, 1] of the search region, decoded without a window; `tokens`
            (B, T n + m, C) after the last norm; and the head's maps: `score_map`, `size_map`, `offset_map` (center), or
            `prob_tl`, `prob_br` (corner).

        Raises:
            ValueError: an image does not have the size of the configuration.
        """
        sizes = {"template": self.config.template_size, "search": self.config.search_size}
        for (name, size), image in zip(sizes.items(), (template, search), strict=True):
            several = image.dim() == 5 and image.shape[1] > 0 and name == "template"
            if (image.dim() != 4 and not several) or image.shape[-3:] != (3, size, size):
                form = f"(B, 3, {size}, {size})"
                form += f" or (B, T, 3, {size}, {size})" if name == "template" else ""
                raise ValueError(f"{name} must have shape {form}, got {tuple(image.shape)}")
        if template.shape[0] != search.shape[0]:
            raise ValueError(
                f"template and search must be of one batch size, got {template.shape[0]} and {search.shape[0]}"
            )
        tokens = self.backbone(template, search)
        outputs = self.box_head(tokens)
        boxes = self.box_head.decode(outputs)
        return outputs | {"pred_boxes": boxes.unsqueeze(1), "tokens": tokens}


def build_model(config: str | ModelConfig = "fermt", *, backend: str = "auto", **overrides: Any) -> FERMT:
    """Builds a model with new weights; arguments as for `fermt.build_model`."""
    if isinstance(config, ModelConfig):
        if overrides:
            raise TypeError(f"overrides {sorted(overrides)} go with a named configuration; use dataclasses.replace")
        return FERMT(config, backend=backend)
    return FERMT(named_config(config, **overrides), backend=backend)
