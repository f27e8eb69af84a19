"""The backbone: a Dual Attention Unit and a vision transformer over the tokens of template and search region."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from fermt_kernels.children import is_hooked
from fermt_kernels.modules import DualAttentionUnit, Linear, PatchEmbed, TemplateSearchAttention
from fermt_kernels.spec.normalization import LAYER_NORM_EPS

from ..config import ModelConfig

RESIDUAL = torch.float32  # dtype of the residual stream under autocast


class Mlp(nn.Module):
    """Two linear layers with an exact GELU, on tokens (B, N, C).

    The GELU is fused into the second layer unless one of the two modules has been replaced, or has hooks.
    """

    def __init__(self, dim: int, hidden: int, backend: str) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden, backend=backend)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, dim, out_dtype=RESIDUAL, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        own = type(self.fc2) is Linear and type(self.act) is nn.GELU and self.act.approximate == "none"
        if own and not is_hooked(self.act) and not is_hooked(self.fc2):
            return self.fc2(hidden, gelu=True)
        return self.fc2(self.act(hidden))


class DropPath(nn.Module):
    """Drops the residual branch of a sample with probability `rate` in training, and scales the others accordingly."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * (x.new_empty((x.shape[0], 1, 1)).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class Block(nn.Module):
    """A pre-norm transformer block on tokens (B, N, C), template first."""

    def __init__(self, config: ModelConfig, pattern: str, drop_path: float, backend: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.attn = TemplateSearchAttention(config.dim, config.num_heads, pattern, out_dtype=RESIDUAL, backend=backend)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio), backend)

    def forward(self, x: Tensor, num_template: int) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), num_template))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Backbone(nn.Module):
    """Maps template, (B, 3, Hz, Wz) or (B, T, 3, Hz, Wz), and search, (B, 3, Hx, Wx), to tokens, (B, T n + m, C).

    Template tokens come first. Initialization is that of ViT: weights and position tables truncated normal with
    standard deviation 0.02, biases 0. The Dual Attention Unit has PyTorch's default, as in the authors' code.
    """

    def __init__(self, config: ModelConfig, backend: str = "auto") -> None:
        super().__init__()
        self.dau = DualAttentionUnit(backend=backend) if config.dau else None
        self.patch_embed = PatchEmbed(config.patch_size, config.dim, backend=backend)
        self.pos_embed_z = nn.Parameter(torch.zeros(1, config.num_template, config.dim))
        self.pos_embed_x = nn.Parameter(torch.zeros(1, config.num_search, config.dim))
        rates = torch.linspace(0, config.drop_path, len(config.patterns), dtype=torch.float32, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(config, pattern, rate, backend) for pattern, rate in zip(config.patterns, rates, strict=True)
        )
        self.norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        for tensor in (self.pos_embed_z, self.pos_embed_x):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in (self.patch_embed.proj, *self.blocks.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, images: Tensor, positions: Tensor) -> Tensor:
        """Embeds images, (B, 3, H, W), as tokens, (B, HW / P^2, C), and adds position tables."""
        return self.patch_embed(images if self.dau is None else self.dau(images)) + positions

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        if template.dim() == 4:
            z = self.embed(template, self.pos_embed_z)
        else:
            z = self.embed(template.flatten(0, 1), self.pos_embed_z).unflatten(0, template.shape[:2]).flatten(1, 2)
        tokens = torch.cat((z, self.embed(search, self.pos_embed_x)), dim=1)
        for block in self.blocks:
            tokens = block(tokens, z.shape[1])
        return self.norm(tokens)
