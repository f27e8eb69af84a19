"""Folds a model's normalizations into the adjacent matrices.

Folding is done in float64 whatever the model's dtype; each form of a packed model rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..spec.dual_attention_unit import STATE_KEYS, DAUWeights
from ..spec.heads import CONVOLUTIONS, HEADS, LAST_CONVOLUTION
from ..spec.normalization import BATCH_NORM_EPS
from ..spec.state_dict import UNUSED_KEYS
from ..wrapped import shortened, stripped, unwrapped
from .format import LANES, MAX_LAYERS

# Limits of the compiled library, so that no product of sizes overflows there.
MAX_WIDTH, MAX_IMAGE_SIZE, MAX_PATCH_SIZE, MAX_KERNEL, MAX_DAU_HIDDEN = 8192, 2048, 64, 31, 64
_CONFIG = (
    *("patterns", "head", "dau", "reweight", "template_size", "search_size"),
    *("patch_size", "dim", "num_heads", "mlp_ratio", "template_factor", "search_factor"),
)
_COUNTER = ".num_batches_tracked"  # of batch norms, which evaluation does not read


class Matrix(NamedTuple):
    """A weight (outputs, inputs), or (outputs, inputs, 3, 3) of a 3x3 convolution, and a bias (outputs,)."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """The matrices of a transformer block; their inputs are layer-normalized without weight and bias."""

    qkv: Matrix  # rows of q, then k, then v
    proj: Matrix
    fc1: Matrix
    fc2: Matrix


class Folded(NamedTuple):
    """A model's weights in float64 on the CPU, with normalizations folded in."""

    config: Any
    unit: DAUWeights | None
    positions: tuple[Tensor, Tensor]  # position tables of template and search tokens, (tokens, dim)
    embedding: Matrix  # of patches, whose values are in the order channel, row, column
    layers: tuple[Layer, ...]
    norm: tuple[Tensor, Tensor]  # weight and bias of the last layer norm, which no matrix follows
    head: dict[str, tuple[Matrix, ...]]  # branch -> four 3x3 convolutions, batch norms folded in, and the 1x1 one
    device: torch.device  # of the model

    @property
    def hidden(self) -> int:
        """Hidden width of the MLPs."""
        return self.layers[0].fc1.weight.shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """Outputs of each 3x3 convolution of a branch."""
        return tuple(matrix.weight.shape[0] for matrix in next(iter(self.head.values()))[:-1])


def fold(model: Any) -> Folded:
    """Folds a model in evaluation mode: batch norms use their running statistics. The model is not changed.

    Raises:
        TypeError: the model has no configuration like FERMT's or no state dict, or a weight is not floating-point.
        ValueError: a size or pattern is not supported, or a weight is missing, unexpected or of another shape; the
            message names it.
    """
    model = unwrapped(model)
    config = _checked_config(model)
    weights = _Weights(stripped(model.state_dict()))
    unit = _unit(weights) if config.dau else None
    dim, patch, hidden = config.dim, config.patch_size, int(config.dim * config.mlp_ratio)
    widths = (dim, *_head_widths(weights, config.head))
    positions = tuple(
        weights(f"backbone.pos_embed_{name}", 1, (size // patch) ** 2, dim)[0]
        for name, size in (("z", config.template_size), ("x", config.search_size))
    )
    embedding = "backbone.patch_embed.proj"
    projection = weights(f"{embedding}.weight", dim, 3, patch, patch).flatten(1)
    folded = Folded(
        config,
        unit,
        (positions[0], positions[1]),
        Matrix(projection, weights(f"{embedding}.bias", dim)),
        tuple(_layer(weights, f"backbone.blocks.{i}", dim, hidden) for i in range(len(config.patterns))),
        weights.norm("backbone.norm", dim),
        {
            branch.name: tuple(_branch(weights, branch.name, branch.channels, widths))
            for branch in HEADS[config.head].branches
        },
        weights.device,
    )
    weights.check_all_taken()
    return folded


def fold_norm(weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor) -> Matrix:
    """Folds a norm's weight gamma and bias beta (K,) into the linear layer after it, weight (N, K) and bias (N,)."""
    return Matrix(weight * gamma, bias + weight @ beta)


def fold_batch_norm(
    weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
) -> Matrix:
    """Folds a batch norm over N channels into the convolution before it, weight (N, Cin, 3, 3) and bias (N,)."""
    scale = gamma / torch.sqrt(variance + BATCH_NORM_EPS)
    return Matrix(weight * scale.view(-1, 1, 1, 1), (bias - mean) * scale + beta)


def filter_rows(weight: Tensor) -> Tensor:
    """Filters (N, Cin, 3, 3) as the rows of a matrix (N, 9 Cin): taps row by row, each with all channels."""
    return weight.permute(0, 2, 3, 1).flatten(1)


class _Weights:
    """A state dict that is read weight by weight in float64, and knows which weights were not read."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self._left = {key for key in state if key not in UNUSED_KEYS and not key.endswith(_COUNTER)}

    def __call__(self, key: str, *shape: int) -> Tensor:
        """The weight, whose shape must be `shape`."""
        weight = self.any_shape(key)
        if tuple(weight.shape) != shape:
            raise ValueError(f"pack: weight {key!r} must have shape {shape}, got {tuple(weight.shape)}")
        return weight

    def any_shape(self, key: str) -> Tensor:
        """The weight, whatever its shape."""
        if key not in self._state:
            raise ValueError(f"pack: the model has no weight {key!r}")
        weight = self._state[key]
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            kind = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise TypeError(f"pack: weight {key!r} must be a tensor of floats, got {kind}")
        if weight.device != self.device or weight.is_meta:
            raise ValueError(f"pack: weight {key!r} must be on the CPU or a GPU with the others, got {weight.device}")
        self._left.discard(key)
        return weight.detach().cpu().double()

    def linear(self, name: str, outputs: int, inputs: int) -> Matrix:
        return Matrix(self(f"{name}.weight", outputs, inputs), self(f"{name}.bias", outputs))

    def norm(self, name: str, size: int) -> tuple[Tensor, Tensor]:
        return self(f"{name}.weight", size), self(f"{name}.bias", size)

    def check_all_taken(self) -> None:
        """Raises ValueError if a weight was not read."""
        if self._left:
            raise ValueError(f"pack: unexpected weights {shortened(sorted(self._left))}")


def _checked_config(model: Any) -> Any:
    """The model's configuration; TypeError or ValueError if a packed model cannot have it."""
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
    if not 1 <= len(config.patterns) <= MAX_LAYERS:
        raise ValueError(f"pack: a packed model has 1 to {MAX_LAYERS} layers, got {len(config.patterns)} patterns")
    _check_size("patch_size", config.patch_size, 1, MAX_PATCH_SIZE)
    _check_size("template_size", config.template_size, config.patch_size, MAX_IMAGE_SIZE)
    _check_size("search_size", config.search_size, config.patch_size, MAX_IMAGE_SIZE)
    _check_size("dim", config.dim, LANES, MAX_WIDTH)
    _check_size("num_heads", config.num_heads, 1, config.dim)
    _check_size("dim", config.dim, config.num_heads, MAX_WIDTH)
    _check_size("the MLP's width, dim * mlp_ratio,", int(config.dim * config.mlp_ratio), LANES, MAX_WIDTH)
    return config


def _check_size(name: str, value: int, divisor: int, largest: int) -> None:
    if not 1 <= value <= largest or value % divisor:
        multiple = f"a multiple of {divisor}" if divisor > 1 else "at least 1"
        raise ValueError(f"pack: {name} must be {multiple} and at most {largest}, got {value}")


def _unit(weights: _Weights) -> DAUWeights:
    """The weights of the Dual Attention Unit over the image's three channels."""
    unit = DAUWeights(*(weights.any_shape(f"backbone.dau.{key}") for key in STATE_KEYS.values()))
    checks.dual_attention_unit("pack", torch.empty(1, 3, 1, 1, dtype=torch.float64, device="cpu"), unit)
    _check_size("the unit's kernel", unit.conv0_weight.shape[-1], 1, MAX_KERNEL)
    _check_size("the unit's dilated kernel", unit.conv_spatial_weight.shape[-1], 1, MAX_KERNEL)
    _check_size("the unit's hidden width", unit.fc_0_weight.shape[0], 1, MAX_DAU_HIDDEN)
    return unit


def _head_widths(weights: _Weights, head: str) -> tuple[int, ...]:
    """Output widths of the 3x3 convolutions of the head's first branch; the other branches have the same."""
    branch = HEADS[head].branches[0].name
    widths = tuple(weights.any_shape(f"{_convolution(branch, i)}.weight").shape[0] for i in CONVOLUTIONS)
    for i, width in zip(CONVOLUTIONS, widths, strict=True):
        _check_size(f"the width of the head's convolution {i}", width, LANES, MAX_WIDTH)
    return widths


def _layer(weights: _Weights, name: str, dim: int, hidden: int) -> Layer:
    qkv = weights.linear(f"{name}.attn.qkv", 3 * dim, dim)
    fc1 = weights.linear(f"{name}.mlp.fc1", hidden, dim)
    return Layer(
        fold_norm(*qkv, *weights.norm(f"{name}.norm1", dim)),
        weights.linear(f"{name}.attn.proj", dim, dim),
        fold_norm(*fc1, *weights.norm(f"{name}.norm2", dim)),
        weights.linear(f"{name}.mlp.fc2", dim, hidden),
    )


def _branch(weights: _Weights, branch: str, outputs: int, widths: tuple[int, ...]) -> Iterator[Matrix]:
    """The five convolutions of a branch; `widths` are their input widths."""
    for i in CONVOLUTIONS:
        name, norm = _convolution(branch, i), f"box_head.conv{i}_{branch}.1"
        inputs, width = widths[i - 1], widths[i]
        weight, bias = weights(f"{name}.weight", width, inputs, 3, 3), weights(f"{name}.bias", width)
        statistics = (weights(f"{norm}.running_{each}", width) for each in ("mean", "var"))
        yield fold_batch_norm(weight, bias, *weights.norm(norm, width), *statistics)
    name = _convolution(branch, LAST_CONVOLUTION)
    yield Matrix(weights(f"{name}.weight", outputs, widths[-1], 1, 1).flatten(1), weights(f"{name}.bias", outputs))


def _convolution(branch: str, i: int) -> str:
    return f"box_head.conv{i}_{branch}" + (".0" if i in CONVOLUTIONS else "")
