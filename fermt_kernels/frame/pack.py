"""From a model to its packed form: norms folded into the matrices that follow them, convolutions made ready.

Folding is done in float64, whatever the model's dtype, and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..ops import STATE_KEYS, DAUWeights
from ..patterns import key_spans
from .calibrate import CONVOLUTIONS, DEVIATION, MEAN, HeadRanges, head_ranges
from .format import (
    BRANCHES,
    DTYPES,
    HEADS,
    LANES,
    MOST_LAYERS,
    Header,
    assemble,
    bias_section,
    matrix_sections,
    panel_set,
    quantised,
)
from .packed import PackedModel

LAYER_NORM_EPS = 1e-6  # neither this nor the next is in a state dict
BATCH_NORM_EPS = 1e-5
# Winograd F(2x2, 3x3): what a filter g becomes is G g G^T.
FILTER_TRANSFORM = torch.tensor(
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64
)
# What the compiled library takes, so that no product of sizes overflows there.
LARGEST_WIDTH, LARGEST_IMAGE, LARGEST_PATCH, LARGEST_KERNEL, LARGEST_UNIT = 8192, 2048, 64, 31, 64
_CONFIG = (
    *("patterns", "head", "dau", "reweight", "template_size", "search_size"),
    *("patch_size", "dim", "num_heads", "mlp_ratio", "template_factor", "search_factor"),
)
_UNUSED = ("backbone.cls_token", "backbone.pos_embed")  # in the authors' state dict, in no forward pass
_COUNTER = ".num_batches_tracked"


def pack(
    model: Any, dtype: torch.dtype = torch.float32, *, calibration: tuple[Tensor, Tensor] | None = None
) -> PackedModel:
    """A model's weights in the form in which `track_frame` reads them. The model is not changed.

    What is packed is the model in evaluation mode: batch norms by their running statistics.

    Args:
        model: a FERMT, or anything with its `config` and, under the authors' keys, its `state_dict()`; on the CPU, in
            any float dtype.
        dtype: of the matrices, torch.float32, torch.bfloat16 or torch.int8. Sums, norms and soft-max are float32 in
            any case. In int8 weights have a scale for each output; tokens, one for each token and product, found as
            they come; the head's maps, one each, found by `calibration`; attention is computed in bfloat16. It is less
            accurate, and nothing takes it unasked: `accuracy` says by how much.
        calibration: for torch.int8: templates and search crops, uint8 RGB (N, S, S, 3) each, as tracking will see them.

    Raises:
        TypeError: `dtype` is another, the model has no such configuration or state dict, or a weight holds no floats.
        ValueError: a size or a pattern that a packed model cannot have, or a weight that is missing, left over, not on
            the CPU or of another shape; the message names it.
    """
    if dtype not in DTYPES:
        known = ", ".join(str(each).removeprefix("torch.") for each in DTYPES)
        raise TypeError(f"pack: dtype must be one of {known}; got {dtype!r}")
    config = _checked_config(model)
    ranges = _calibrated(model, config, dtype, calibration)
    weights = _Weights(model.state_dict())
    unit = _unit(weights) if config.dau else None
    header = _header(config, dtype, unit, _head_widths(weights, config.head))
    sections = list(_sections(weights, header, config.head, unit, dtype, ranges))
    weights.check_all_taken()
    return PackedModel(assemble(header, sections))


def fold_norm(weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (N, K) and bias (N,) of a linear layer after a norm's scaling gamma and shift beta (K,)."""
    return weight * gamma, bias + weight @ beta


def fold_batch_norm(
    weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight (N, Cin, 3, 3) and bias (N,) of a convolution before a batch norm over its outputs."""
    scale = gamma / torch.sqrt(variance + BATCH_NORM_EPS)
    return weight * scale.view(-1, 1, 1, 1), (bias - mean) * scale + beta


def winograd_filters(weight: Tensor) -> Tensor:
    """Filters (N, Cin, 3, 3) in float64 -> G g G^T as (16, N, Cin), row by row."""
    both_sides = torch.kron(FILTER_TRANSFORM, FILTER_TRANSFORM)  # (16, 9)
    return (weight.flatten(2) @ both_sides.T).permute(2, 0, 1)


def pattern_bits(pattern: str) -> int:
    """Bits 0 and 1: the template sees the template, the search region; bits 2 and 3: what the search region sees."""
    spans = key_spans(pattern, 1, 2)  # one token a group, so that a token is a group
    return sum(1 << (2 * seer + seen) for seer, span in enumerate(spans) for seen in range(*span))


class _Weights:
    """The state dict, read a weight at a time in float64; remembers what nobody has asked for."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self._left = {key for key in state if key not in _UNUSED and not key.endswith(_COUNTER)}

    def __call__(self, key: str, *shape: int) -> Tensor:
        """The weight, of exactly that shape."""
        weight = self.any_shape(key)
        if tuple(weight.shape) != shape:
            raise ValueError(f"pack: weight {key!r} must have shape {shape}, got {tuple(weight.shape)}")
        return weight

    def any_shape(self, key: str) -> Tensor:
        if key not in self._state:
            raise ValueError(f"pack: the model has no weight {key!r}")
        weight = self._state[key]
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise TypeError(f"pack: weight {key!r} must be a tensor of floats, got {kind}")
        if weight.device.type != "cpu":
            raise ValueError(f"pack: weight {key!r} must be on the CPU, got one on {weight.device}")
        self._left.discard(key)
        return weight.detach().double()

    def linear(self, name: str, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        return self(f"{name}.weight", outputs, inputs), self(f"{name}.bias", outputs)

    def norm(self, name: str, size: int) -> tuple[Tensor, Tensor]:
        return self(f"{name}.weight", size), self(f"{name}.bias", size)

    def check_all_taken(self) -> None:
        if self._left:
            raise ValueError(f"pack: a packed model has no place for {', '.join(sorted(self._left))}")


def _checked_config(model: Any) -> Any:
    """The model's configuration, all of it such as a packed model can have."""
    kind = type(model).__name__
    config: Any = getattr(model, "config", None)
    if absent := [name for name in _CONFIG if not hasattr(config, name)]:
        raise TypeError(f"pack: model must have a config like fermt.ModelConfig; that of {kind} lacks {absent}")
    if not callable(getattr(model, "state_dict", None)):
        raise TypeError(f"pack: model must have a state_dict(); {kind} has none")
    for name in ("template_size", "search_size", "patch_size", "dim", "num_heads"):
        if isinstance(value := getattr(config, name), bool) or not isinstance(value, int):
            raise TypeError(f"pack: {name} must be an int, got {value!r}")
    if config.head not in HEADS:
        raise ValueError(f"pack: head must be one of {', '.join(HEADS)}; got {config.head!r}")
    if config.reweight and config.head != "corner":
        raise ValueError(f"pack: reweight belongs to the corner head; got head {config.head!r}")
    for pattern in config.patterns:
        checks.pattern("pack", pattern)
    if not 1 <= len(config.patterns) <= MOST_LAYERS:
        raise ValueError(f"pack: a packed model has 1 to {MOST_LAYERS} layers, got {len(config.patterns)} patterns")
    _check_size("patch_size", config.patch_size, 1, LARGEST_PATCH)
    _check_size("template_size", config.template_size, config.patch_size, LARGEST_IMAGE)
    _check_size("search_size", config.search_size, config.patch_size, LARGEST_IMAGE)
    _check_size("dim", config.dim, LANES, LARGEST_WIDTH)
    _check_size("num_heads", config.num_heads, 1, config.dim)
    _check_size("dim", config.dim, config.num_heads, LARGEST_WIDTH)
    _check_size("the MLP's width, dim * mlp_ratio,", int(config.dim * config.mlp_ratio), LANES, LARGEST_WIDTH)
    return config


def _check_size(name: str, value: int, divisor: int, largest: int) -> None:
    if not 1 <= value <= largest or value % divisor:
        multiple = f"a multiple of {divisor}" if divisor > 1 else "at least 1"
        raise ValueError(f"pack: {name} must be {multiple} and at most {largest}, got {value}")


def _unit(weights: _Weights) -> DAUWeights:
    """The Dual Attention Unit over the image's three channels."""
    unit = DAUWeights(*(weights.any_shape(f"backbone.dau.{key}") for key in STATE_KEYS.values()))
    checks.dual_attention_unit("pack", torch.empty(1, 3, 1, 1, dtype=torch.float64), DAUWeights._fields, unit)
    _check_size("the unit's kernel", unit.conv0_weight.shape[-1], 1, LARGEST_KERNEL)
    _check_size("the unit's dilated kernel", unit.conv_spatial_weight.shape[-1], 1, LARGEST_KERNEL)
    _check_size("the unit's hidden width", unit.fc_0_weight.shape[0], 1, LARGEST_UNIT)
    return unit


def _head_widths(weights: _Weights, head: str) -> tuple[int, ...]:
    """Outputs of the 3x3 convolutions of the head's first branch; the others must agree."""
    branch = next(iter(BRANCHES[head]))
    widths = tuple(weights.any_shape(f"{_convolution(branch, i)}.weight").shape[0] for i in CONVOLUTIONS)
    for i, width in zip(CONVOLUTIONS, widths, strict=True):
        _check_size(f"the width of the head's convolution {i}", width, LANES, LARGEST_WIDTH)
    return widths


def _header(config: Any, dtype: torch.dtype, unit: DAUWeights | None, widths: tuple[int, ...]) -> Header:
    return Header(
        total_bytes=0,
        checksum=0,
        dtype=DTYPES[dtype],
        head=HEADS[config.head],
        reweight=int(config.reweight),
        dim=config.dim,
        heads=config.num_heads,
        depth=len(config.patterns),
        hidden=int(config.dim * config.mlp_ratio),
        patch=config.patch_size,
        template_size=config.template_size,
        search_size=config.search_size,
        dau=int(unit is not None),
        kernel=unit.conv0_weight.shape[-1] if unit else 0,
        dilated_kernel=unit.conv_spatial_weight.shape[-1] if unit else 0,
        dau_hidden=unit.fc_0_weight.shape[0] if unit else 0,
        widths=widths,
        eps=LAYER_NORM_EPS,
        scale=(config.dim // config.num_heads) ** -0.5,
        template_factor=float(config.template_factor),
        search_factor=float(config.search_factor),
        patterns=tuple(map(pattern_bits, config.patterns)),
    )


def _sections(
    weights: _Weights,
    header: Header,
    head: str,
    unit: DAUWeights | None,
    dtype: torch.dtype,
    ranges: HeadRanges | None,
) -> Iterator[Tensor]:
    """Every section, in the order of the format."""
    dim, patch = header.dim, header.patch
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, DEVIATION))
    yield torch.cat((1 / (255 * deviation), -mean / deviation)).float()
    yield from (weight.float() for weight in unit or ())
    for name, size in (("z", header.template_size), ("x", header.search_size)):
        yield weights(f"backbone.pos_embed_{name}", 1, (size // patch) ** 2, dim)[0].float()
    embedding = "backbone.patch_embed.proj"
    projection, bias = weights(f"{embedding}.weight", dim, 3, patch, patch), weights(f"{embedding}.bias", dim)
    yield from matrix_sections(projection.flatten(1), bias, dtype)
    for layer in range(header.depth):
        yield from _layer(weights, f"backbone.blocks.{layer}", dim, header.hidden, dtype)
    yield from (parameter.float() for parameter in weights.norm("backbone.norm", dim))
    yield from _head(weights, head, (dim, *header.widths), dtype, ranges)


def _layer(weights: _Weights, name: str, dim: int, hidden: int, dtype: torch.dtype) -> Iterator[Tensor]:
    qkv, qkv_bias = fold_norm(
        *weights.linear(f"{name}.attn.qkv", 3 * dim, dim), *weights.norm(f"{name}.norm1", dim)
    )  # q, k and v below one another
    yield from matrix_sections(qkv[:dim], qkv_bias[:dim], dtype)
    yield from matrix_sections(qkv[dim:], qkv_bias[dim:], dtype)
    yield from matrix_sections(*weights.linear(f"{name}.attn.proj", dim, dim), dtype)
    hidden_layer = fold_norm(*weights.linear(f"{name}.mlp.fc1", hidden, dim), *weights.norm(f"{name}.norm2", dim))
    yield from matrix_sections(*hidden_layer, dtype)
    yield from matrix_sections(*weights.linear(f"{name}.mlp.fc2", dim, hidden), dtype)


def _head(
    weights: _Weights, head: str, widths: tuple[int, ...], dtype: torch.dtype, ranges: HeadRanges | None
) -> Iterator[Tensor]:
    """`widths` has the tokens' dim first."""
    if ranges is not None:
        yield torch.tensor([1 / _input_scale(ranges), _input_zero(ranges)])
    for i in CONVOLUTIONS:
        folded = {branch: _folded_convolution(weights, branch, i, *widths[i - 1 : i + 1]) for branch in BRANCHES[head]}
        layers = [(*folded[branch], *_byte_scales(ranges, branch, i, widths[i])) for branch in folded]
        # All branches read the same tokens in the first layer: one product serves them.
        groups = [tuple(map(torch.cat, zip(*layers, strict=True)))] if i == 1 else layers
        for group in groups:
            yield from _CONVOLUTION_SECTIONS[dtype](*group)
    for branch, outputs in BRANCHES[head].items():
        name = _convolution(branch, 5)
        yield weights(f"{name}.weight", outputs, widths[-1], 1, 1).flatten(1).float()
        yield weights(f"{name}.bias", outputs).float()


def _input_scale(ranges: HeadRanges) -> float:
    return (ranges.largest - ranges.least) / 255 or 1.0


def _input_zero(ranges: HeadRanges) -> float:
    """The byte that stands for 0."""
    return float(round(-ranges.least / _input_scale(ranges)))


def _byte_scales(ranges: HeadRanges | None, branch: str, i: int, outputs: int) -> tuple[Tensor, ...]:
    """For each output of a convolution: its input's scale and zero, and the scale of its own bytes; nothing without."""
    if ranges is None:
        return ()

    def scale(layer: int) -> float:
        return ranges.outputs[branch, layer] / 255 or 1.0

    last = i == CONVOLUTIONS[-1]  # whose output is no bytes
    values = (
        _input_scale(ranges) if i == 1 else scale(i - 1),
        _input_zero(ranges) if i == 1 else 0.0,
        1.0 if last else scale(i),
    )
    return tuple(torch.full((outputs,), value, dtype=torch.float64) for value in values)


def _convolution(branch: str, i: int) -> str:
    return f"box_head.conv{i}_{branch}" + (".0" if i in CONVOLUTIONS else "")


def _folded_convolution(weights: _Weights, branch: str, i: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    name, norm = _convolution(branch, i), f"box_head.conv{i}_{branch}.1"
    weight, bias = weights(f"{name}.weight", outputs, inputs, 3, 3), weights(f"{name}.bias", outputs)
    statistics = (weights(f"{norm}.running_{each}", outputs) for each in ("mean", "var"))
    return fold_batch_norm(weight, bias, *weights.norm(norm, outputs), *statistics)


def _winograd_sections(weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    yield bias_section(bias)
    yield from panel_set(winograd_filters(weight), torch.float32)


def _rows(weight: Tensor) -> Tensor:
    """Filters (N, Cin, 3, 3) -> (N, 9 Cin), inputs in the order in which pixels lie."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _direct_sections(weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    yield from matrix_sections(_rows(weight), bias, torch.bfloat16)


def _byte_sections(
    weight: Tensor, bias: Tensor, in_scale: Tensor, in_zero: Tensor, out_scale: Tensor
) -> Iterator[Tensor]:
    """Both maps' scales are fixed, so that a sum of bytes becomes a byte by one product and one addition."""
    rows, scales = quantised(_rows(weight))
    sums, factor = rows.sum(dim=1), in_scale * scales
    yield bias_section((bias - factor * in_zero * sums) / out_scale)
    yield bias_section(factor / out_scale)
    yield bias_section(sums)
    yield panel_set(rows, torch.int8)


_CONVOLUTION_SECTIONS: dict[torch.dtype, Callable[..., Iterator[Tensor]]] = {
    torch.float32: _winograd_sections,
    torch.bfloat16: _direct_sections,
    torch.int8: _byte_sections,
}


def _calibrated(
    model: Any, config: Any, dtype: torch.dtype, calibration: tuple[Tensor, Tensor] | None
) -> HeadRanges | None:
    if dtype != torch.int8:
        if calibration is not None:
            raise ValueError(f"pack: calibration goes with torch.int8 only, got dtype {dtype}")
        return None
    if calibration is None or len(calibration) != 2:
        raise ValueError(
            "pack: torch.int8 needs calibration=(templates, searches), uint8 crops as tracking will see them; "
            f"got {None if calibration is None else len(calibration)}"
        )
    for name, crops, size in zip(
        ("templates", "searches"), calibration, (config.template_size, config.search_size), strict=True
    ):
        if not isinstance(crops, Tensor) or crops.dtype != torch.uint8 or crops.shape[1:] != (size, size, 3):
            kind = f"{tuple(crops.shape)} {crops.dtype}" if isinstance(crops, Tensor) else type(crops).__name__
            raise ValueError(f"pack: calibration's {name} must be a uint8 tensor (N, {size}, {size}, 3), got {kind}")
    templates, searches = calibration
    if len(templates) != len(searches) or len(templates) == 0:
        raise ValueError(
            "pack: calibration needs as many templates as searches, at least one; "
            f"got {len(templates)} and {len(searches)}"
        )
    return head_ranges(model, templates, searches)
