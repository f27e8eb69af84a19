"""Parameters and multiply-adds of a configuration, in closed form; nothing is built or run."""

from __future__ import annotations

from typing import NamedTuple

from fermt_kernels.flops import attention_macs, dual_attention_unit_macs
from fermt_kernels.patterns import score_pairs

from .config import ModelConfig, named_config
from .model import center_head, corner_head
from .model.layers import WIDTHS

_BRANCHES = {"center": tuple(center_head.BRANCHES.values()), "corner": (1,) * len(corner_head.BRANCHES)}
_DECODE_MACS_A_CELL = {"center": 0, "corner": 2 * len(corner_head.BRANCHES)}  # each corner's mean x and y


class LayerCount(NamedTuple):
    """MACs of one transformer block."""

    pattern: str
    linear: int
    attention: int
    score_pairs: int  # query-key pairs of one head


class FlopCount(NamedTuple):
    """Counts for one template and one search region. A MAC is one multiply and one add."""

    parameters: int  # those that a forward pass uses, without the position tables
    position_parameters: int
    linear: int
    attention: int  # the two products of the attention itself, which module-hook counters do not see
    head: int
    patches: int
    dau: int
    layers: tuple[LayerCount, ...]

    @property
    def macs(self) -> int:
        """MACs of everything."""
        return self.macs_without_attention + self.attention

    @property
    def macs_without_attention(self) -> int:
        """MACs as module-hook counters (the paper's 2.40 G) see them."""
        return self.linear + self.head + self.patches + self.dau

    @property
    def mean_score_pairs(self) -> float:
        """Score pairs a layer, the mean over layers: what Eq. 7 of the paper compares."""
        return sum(layer.score_pairs for layer in self.layers) / len(self.layers)


def count_flops(config: str | ModelConfig = "fermt") -> FlopCount:
    """Counts of a configuration, given by name or as a `ModelConfig`."""
    c = named_config(config) if isinstance(config, str) else config
    tokens, hidden = c.num_template + c.num_search, int(c.dim * c.mlp_ratio)
    block_weights = 3 * c.dim * c.dim + c.dim * c.dim + 2 * c.dim * hidden
    layers = tuple(
        LayerCount(
            pattern,
            tokens * block_weights,
            attention_macs(1, c.num_heads, tokens, c.dim // c.num_heads, c.num_template, pattern),
            score_pairs(pattern, c.num_template, tokens),
        )
        for pattern in c.patterns
    )
    patch_weights = 3 * c.patch_size**2 * c.dim
    head_weights, head_parameters = _head(c)
    block_parameters = block_weights + 3 * c.dim + c.dim + hidden + c.dim + 4 * c.dim
    dau_parameters = 3 * (9 + 3) + 2 * (75 + 3) + 6 if c.dau else 0
    sides = (c.template_size, c.search_size)
    return FlopCount(
        parameters=len(layers) * block_parameters
        + patch_weights
        + c.dim
        + 2 * c.dim
        + head_parameters
        + dau_parameters,
        position_parameters=tokens * c.dim,
        linear=sum(layer.linear for layer in layers),
        attention=sum(layer.attention for layer in layers),
        head=c.num_search * (head_weights + _DECODE_MACS_A_CELL[c.head]),
        patches=tokens * patch_weights,
        dau=sum(dual_attention_unit_macs(1, 3, side, side) for side in sides) if c.dau else 0,
        layers=layers,
    )


def _head(config: ModelConfig) -> tuple[int, int]:
    """Weights of the head's convolutions, and its parameters: those, biases, and two for each normalised channel."""
    outputs = _BRANCHES[config.head]
    chain = sum(9 * before * after for before, after in zip((config.dim, *WIDTHS[:-1]), WIDTHS, strict=True))
    weights = len(outputs) * chain + WIDTHS[-1] * sum(outputs)
    return weights, weights + len(outputs) * 3 * sum(WIDTHS) + sum(outputs)
