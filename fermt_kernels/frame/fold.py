"""What a model computes, in the fewest matrices: norms folded into the matrices that follow them.

Folding is done in float64, whatever the model's dtype; each form of a packed model rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..ops import STATE_KEYS, DAUWeights
from .format import BRANCHES, CONVOLUTIONS, HEADS, LANES, MOST_LAYERS

LAYER_NORM_EPS = 1e-6  # neither this nor the next is in a state dict
BATCH_NORM_EPS = 1e-5
# What the compiled library takes, so that no product of sizes overflows there.
LARGEST_WIDTH, LARGEST_IMAGE, LARGEST_PATCH, LARGEST_KERNEL, LARGEST_UNIT = 8192, 2048, 64, 31, 64
_CONFIG = (
    *("patterns", "head", "dau", "reweight", "template_size", "search_size"),
    *("patch_size", "dim", "num_heads", "mlp_ratio", "template_factor", "search_factor"),
)
_UNUSED = ("backbone.cls_token", "backbone.pos_embed")  # in the authors' state dict, in no forward pass
_COUNTER = ".num_batches_tracked"


class Matrix(NamedTuple):
    """Outputs by inputs, and a bias for each output; of a 3x3 convolution (outputs, inputs, 3, 3)."""

    weight: Tensor
    bias: Tensor


class Layer(NamedTuple):
    """A block, its two norms folded into what follows them: layer_norm_no_affine tokens go in."""

    qkv: Matrix  # q, k and v below one another
    proj: Matrix
    fc1: Matrix
    fc2: Matrix


class Folded(NamedTuple):
    """A model in float64, ready to be rounded and laid out."""

    config: Any
    unit: DAUWeights | None
    positions: tuple[Tensor, Tensor]  # of the template's and the search region's tokens, (tokens, dim)
    embedding: Matrix  # inputs are a patch's channels, rows and columns, in that order
    layers: tuple[Layer, ...]
    norm: tuple[Tensor, Tensor]  # the last one, which no matrix follows: scaling, shift
    head: dict[str, tuple[Matrix, ...]]  # a branch's four 3x3 convolutions, batch norms folded in, and its 1x1
    device: torch.device  # where the model was; what is folded is on the CPU

    @property
    def hidden(self) -> int:
        return self.layers[0].fc1.weight.shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """Outputs of each 3x3 convolution of a branch."""
        return tuple(matrix.weight.shape[0] for matrix in next(iter(self.head.values()))[:-1])


def fold(model: Any) -> Folded:
    """A model in evaluation mode: batch norms by their running statistics. The model is not changed.

    Raises:
        TypeError: the model has no configuration like FERMT's or no state dict, or a weight holds no floats.
        ValueError: a size or a pattern that a packed model cannot have, or a weight that is missing, left over or of
            another shape; the message names it.
    """
    config = _checked_config(model)
    weights = _Weights(model.state_dict())
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
        {branch: tuple(_branch(weights, branch, outputs, widths)) for branch, outputs in BRANCHES[config.head].items()},
        weights.device,
    )
    weights.check_all_taken()
    return folded


def fold_norm(weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor) -> Matrix:
    """Weight (N, K) and bias (N,) of a linear layer after a norm's scaling gamma and shift beta (K,)."""
    return Matrix(weight * gamma, bias + weight @ beta)


def fold_batch_norm(
    weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
) -> Matrix:
    """Weight (N, Cin, 3, 3) and bias (N,) of a convolution before a batch norm over its outputs."""
    scale = gamma / torch.sqrt(variance + BATCH_NORM_EPS)
    return Matrix(weight * scale.view(-1, 1, 1, 1), (bias - mean) * scale + beta)


class _Weights:
    """The state dict, read a weight at a time in float64; remembers what nobody has asked for."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        self.device = tensors[0].device if tensors else torch.device("cpu")
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
        if weight.device != self.device or weight.is_meta:
            raise ValueError(f"pack: weight {key!r} must be on the CPU or a GPU with the others, got {weight.device}")
        self._left.discard(key)
        return weight.detach().cpu().double()

    def linear(self, name: str, outputs: int, inputs: int) -> Matrix:
        return Matrix(self(f"{name}.weight", outputs, inputs), self(f"{name}.bias", outputs))

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
    """`widths` has the tokens' dim first."""
    for i in CONVOLUTIONS:
        name, norm = _convolution(branch, i), f"box_head.conv{i}_{branch}.1"
        inputs, width = widths[i - 1], widths[i]
        weight, bias = weights(f"{name}.weight", width, inputs, 3, 3), weights(f"{name}.bias", width)
        statistics = (weights(f"{norm}.running_{each}", width) for each in ("mean", "var"))
        yield fold_batch_norm(weight, bias, *weights.norm(norm, width), *statistics)
    name = _convolution(branch, len(widths))
    yield Matrix(weights(f"{name}.weight", outputs, widths[-1], 1, 1).flatten(1), weights(f"{name}.bias", outputs))


def _convolution(branch: str, i: int) -> str:
    return f"box_head.conv{i}_{branch}" + (".0" if i in CONVOLUTIONS else "")
