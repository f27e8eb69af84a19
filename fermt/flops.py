"""Closed-form counts of parameters and multiply-adds of a configuration."""

from __future__ import annotations

from typing import NamedTuple

from fermt_kernels.flops import attention_macs, dual_attention_unit_macs
from fermt_kernels.patterns import key_spans, score_pairs
from fermt_kernels.spec.heads import HEADS
from fermt_kernels.spec.schedule import TemplateSchedule

from .config import ModelConfig, named_config
from .model.layers import WIDTHS


class LayerCount(NamedTuple):
    """MACs of a transformer block."""

    pattern: str
    linear: int
    attention: int
    score_pairs: int  # query-key pairs of one head


class FlopCount(NamedTuple):
    """Counts for one template and one search region. A MAC is one multiply and one add."""

    parameters: int  # used in a forward pass, without the position tables
    position_parameters: int
    linear: int
    attention: int  # the two products of the attention, which counters with module hooks do not see
    head: int
    patches: int
    dau: int
    layers: tuple[LayerCount, ...]

    @property
    def macs(self) -> int:
        """All MACs."""
        return self.macs_without_attention + self.attention

    @property
    def macs_without_attention(self) -> int:
        """MACs as counted with module hooks (the paper's 2.40 G)."""
        return self.linear + self.head + self.patches + self.dau

    @property
    def mean_score_pairs(self) -> float:
        """Mean number of score pairs of a layer, which Eq. 7 of the paper compares."""
        return sum(layer.score_pairs for layer in self.layers) / len(self.layers)


def count_flops(config: str | ModelConfig = "fermt") -> FlopCount:
    """Counts parameters and MACs of a configuration, given by name or as a `ModelConfig`."""
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
    # Of the Dual Attention Unit: three 1x1 and two 5x5 depth-wise convolutions with biases, and two linear layers.
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
        head=c.num_search * (head_weights + _decode_macs(c.head)),
        patches=tokens * patch_weights,
        dau=sum(dual_attention_unit_macs(1, 3, side, side) for side in sides) if c.dau else 0,
        layers=layers,
    )


def frame_macs(config: str | ModelConfig = "fermt", *, template: bool = False, winograd: bool = False) -> int:
    """Counts MACs of one tracked frame with a cached template, without work whose result is not used.

    The template's part of the leading layers, in which its queries see no search keys, is cached. For example, the
    update of template tokens in the last layer is not used unless the corner head reweights by them.

    Args:
        config: a name or a `ModelConfig`.
        template: also count the cached part, for a frame that encodes its template.
        winograd: count the head's 3x3 convolutions as F(2x2, 3x3) in whole tiles: 16 products for four outputs instead
            of 36. The transforms are additions and not counted.
    """
    c = named_config(config) if isinstance(config, str) else config
    n, m, hidden = c.num_template, c.num_search, int(c.dim * c.mlp_ratio)
    schedule = TemplateSchedule(c.patterns, c.reweight)

    def update(keys: tuple[int, int]) -> int:
        """MACs of a token's query, attention and projection, if it sees any keys, and of its MLP."""
        seen = keys[1] - keys[0]
        return (2 * c.dim * (c.dim + seen) if seen else 0) + 2 * c.dim * hidden

    searched = encoded = 0
    key_value = 2 * c.dim * c.dim
    for i, pattern in enumerate(c.patterns):
        by_template, by_search = key_spans(pattern, n, n + m)
        searched += m * (update(by_search) + (key_value if schedule.search_keys(i) else 0))
        macs = n * (update(by_template) if schedule.template_updated(i) else 0)
        macs += n * (key_value if schedule.template_keys(i) else 0)
        if i < schedule.first_dynamic_layer:
            encoded += macs
        else:
            searched += macs
    searched += _embedding(c, c.search_size) + _head_macs(c, winograd)
    encoded += _embedding(c, c.template_size) if schedule.last_template_layer >= 0 else 0
    return searched + encoded if template else searched


def _embedding(config: ModelConfig, side: int) -> int:
    """MACs from an image to its tokens."""
    return side * side * 3 * config.dim + (dual_attention_unit_macs(1, 3, side, side) if config.dau else 0)


def _head_macs(config: ModelConfig, winograd: bool) -> int:
    cells, tiles = config.search_grid**2, (-(-config.search_grid // 2)) ** 2
    weights, last = _head(config)[0], WIDTHS[-1] * HEADS[config.head].map_channels
    squares = (weights - last) // 9 * 16 * tiles if winograd else (weights - last) * cells
    return squares + cells * (last + (config.dim if config.reweight else 0))


def _head(config: ModelConfig) -> tuple[int, int]:
    """Weights of the head's convolutions, and its parameters: with biases and two for each normalized channel."""
    branches, outputs = len(HEADS[config.head].branches), HEADS[config.head].map_channels
    chain = sum(9 * before * after for before, after in zip((config.dim, *WIDTHS[:-1]), WIDTHS, strict=True))
    weights = branches * chain + WIDTHS[-1] * outputs
    return weights, weights + branches * 3 * sum(WIDTHS) + outputs


def _decode_macs(head: str) -> int:
    """MACs of decoding for each cell: a softmax head takes the mean x and y of each map."""
    return 2 * HEADS[head].map_channels if HEADS[head].softmax else 0
