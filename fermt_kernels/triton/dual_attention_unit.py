"""Launches the Dual Attention Unit's kernels: three forward; eight backward, the first two of them the forward's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..layouts import last_contiguous
from .kernels.channel_attention import channel_backward_kernel
from .kernels.depthwise import depthwise_backward_kernel, depthwise_kernel
from .kernels.dual_attention_unit_backward import gate_backward_kernel, input_backward_kernel, total_sums_kernel
from .kernels.dual_attention_unit_forward import activation_kernel, output_kernel
from .launch import Tuning, launch

BLOCK = 256  # positions of a plane that a program takes: a 256 x 256 image still gives 275 programs
MANY_CHANNELS_BLOCK = 64  # above 8 channels, where all channels of more positions do not fit in registers
POINTWISE = Tuning(num_warps=4)  # no taps: two positions of all channels a thread
TAPS = Tuning(num_warps=8)  # one position a thread, whose 25 taps are then 25 registers
SAMPLE = Tuning(num_warps=4)  # a few numbers a sample
TOTALS = Tuning(num_warps=8)  # a long column of sums, read by few programs
TILE_SUMS = 128  # tiles whose sums a program reads at a time for a sample's mean
TOTAL_ROWS, TOTAL_COLUMNS = 512, 8  # of the table of sums, read at a time; 8 floats are a sector of memory


class Planes(NamedTuple):
    """How maps lie in scratch: rows with a margin of zeros between them, above and below, in whole tiles."""

    batch: int
    channels: int
    height: int
    width: int
    pitch: int  # from one row to the next: the margin right of a row is the one left of the next
    origin: int  # position of the first pixel; odd, lest loads of four spread a pixel's channels over warps
    plane: int  # positions of one channel
    block: int

    @property
    def tiles(self) -> int:
        return self.plane // self.block

    def numbers(self) -> dict[str, int]:
        """The arguments that every kernel over planes takes."""
        names = ("height", "width", "pitch", "origin", "plane", "tiles")
        return {name: getattr(self, name) for name in names}

    def scratch(self, like: Tensor) -> Tensor:
        """Planes to be filled, float32 for every dtype: half types would be converted at each tap and round maps."""
        return like.new_empty((self.batch, self.channels, self.plane), dtype=torch.float32)


class Sizes(NamedTuple):
    """Sizes of the weights."""

    channels: int
    hidden: int
    conv0: int
    spatial: int

    @property
    def dilation(self) -> int:
        return (self.conv0 + 1) // 2

    def channel_constants(self) -> dict[str, int]:
        return {"CHANNELS": self.channels, "CHANNELS_P2": next_power_of_2(self.channels)}

    def attention_constants(self) -> dict[str, int]:
        hidden = {"HIDDEN": self.hidden, "HIDDEN_P2": next_power_of_2(self.hidden)}
        return {**self.channel_constants(), **hidden, "ROWS": TILE_SUMS}

    def conv0_constants(self) -> dict[str, int]:
        return {"SIZE": self.conv0, "TAPS_P2": next_power_of_2(self.conv0**2)}

    def spatial_constants(self) -> dict[str, int]:
        return {"SIZE": self.spatial, "TAPS_P2": next_power_of_2(self.spatial**2), "DILATION": self.dilation}


class Maps(NamedTuple):
    """What both directions compute first: planes, and vectors (B, C) in float64."""

    u: Tensor
    a: Tensor
    mean: Tensor
    gate: Tensor


def _strides(name: str, tensor: Tensor, dimensions: Sequence[str] = ("batch", "channel", "row")) -> dict[str, int]:
    """An image's strides under the names that kernels give them."""
    names = (f"{name}_{dimension}_stride" for dimension in dimensions)
    return dict(zip(names, tensor.stride(), strict=False))


def _sizes(weights: Sequence[Tensor]) -> Sizes:
    conv0, spatial, fc_0 = weights[2], weights[4], weights[8]
    return Sizes(channels=fc_0.shape[1], hidden=fc_0.shape[0], conv0=conv0.shape[-1], spatial=spatial.shape[-1])


def _planes(x: Tensor, sizes: Sizes) -> Planes:
    batch, channels, height, width = x.shape
    margin = max(sizes.conv0 // 2, sizes.spatial // 2 * sizes.dilation)
    pitch, block = width + margin, BLOCK if channels <= 8 else MANY_CHANNELS_BLOCK
    origin = (margin * pitch + margin) | 1
    needed = origin + (height + margin) * pitch + margin
    plane = cdiv(needed, block) * block
    return Planes(batch, channels, height, width, pitch, origin, plane, block)


def _pixels(x: Tensor, normalize: Tensor | None) -> dict[str, Any]:
    """What a kernel reads the image with: its strides, and how it is still to be normalized, if it is."""
    unused = x if normalize is None else normalize
    return {"normalize_ptr": unused, **_strides("x", x, ("batch", "channel", "row", "column"))}


def _maps(x: Tensor, weights: Sequence[Tensor], sizes: Sizes, planes: Planes, normalize: Tensor | None = None) -> Maps:
    u, a = planes.scratch(x), planes.scratch(x)
    u_sums = x.new_empty((planes.batch, planes.tiles, planes.channels), dtype=torch.float32)
    mean, gate = (x.new_empty((planes.batch, planes.channels), dtype=torch.float64) for _ in range(2))
    arguments = {
        "x_ptr": x, "proj_1_weight_ptr": weights[0], "proj_1_bias_ptr": weights[1], "u_ptr": u, "u_sums_ptr": u_sums,
        **_pixels(x, normalize), **planes.numbers(),
    }  # fmt: skip
    constants = {**sizes.channel_constants(), "NORMALIZED": normalize is None, "BLOCK": planes.block}
    launch(activation_kernel, (planes.batch * planes.tiles,), arguments, constants, POINTWISE)
    arguments = {
        "u_ptr": u, "conv0_weight_ptr": weights[2], "conv0_bias_ptr": weights[3], "a_ptr": a, "u_sums_ptr": u_sums,
        "fc_0_weight_ptr": weights[8], "fc_2_weight_ptr": weights[9], "mean_ptr": mean, "gate_ptr": gate,
        **planes.numbers(),
    }  # fmt: skip
    constants = {**sizes.attention_constants(), **sizes.conv0_constants(), "BLOCK": planes.block}
    launch(depthwise_kernel, (planes.batch * planes.channels * planes.tiles,), arguments, constants, TAPS)
    return Maps(u, a, mean, gate)


def _spatial_arguments(maps: Maps, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """What computes s and f from the maps."""
    names = ("conv_spatial_weight_ptr", "conv_spatial_bias_ptr", "conv1_weight_ptr", "conv1_bias_ptr")
    return {"u_ptr": maps.u, "a_ptr": maps.a, "gate_ptr": maps.gate, **dict(zip(names, weights[4:8], strict=True))}


def dual_attention_unit_forward(
    x: Tensor, weights: Sequence[Tensor], out: Tensor, normalize: Tensor | None = None
) -> None:
    """The unit on x (B, C, H, W) into `out` (last dimension contiguous); weights in the order of `DAUWeights`.

    With `normalize`, float32 (2, C), it is the unit on x * normalize[0] + normalize[1].
    """
    x = last_contiguous(x) if normalize is None else x
    weights = [weight.contiguous() for weight in weights]
    sizes = _sizes(weights)
    planes = _planes(x, sizes)
    maps = _maps(x, weights, sizes, planes, normalize)
    first_tile = planes.origin // planes.block  # those before it, and after the last pixel's, are margin
    tiles = cdiv(planes.origin + planes.height * planes.pitch, planes.block) - first_tile
    arguments = {
        "x_ptr": x, **_spatial_arguments(maps, weights), "proj_2_weight_ptr": weights[10],
        "proj_2_bias_ptr": weights[11], "out_ptr": out, **_pixels(x, normalize), **_strides("out", out),
        **planes.numbers(), "first_tile": first_tile, "tiles": tiles,
    }  # fmt: skip
    constants = {
        **sizes.channel_constants(), **sizes.spatial_constants(), "NORMALIZED": normalize is None,
        "BLOCK": planes.block,
    }  # fmt: skip
    launch(output_kernel, (planes.batch * tiles,), arguments, constants, TAPS)


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], grad_x: Tensor, grads: Sequence[Tensor]
) -> None:
    """Gradients of the unit into `grad_x` (last dimension contiguous) and `grads` (contiguous, the weights' order)."""
    x, grad_out, weights = last_contiguous(x), last_contiguous(grad_out), [weight.contiguous() for weight in weights]
    sizes = _sizes(weights)
    planes = _planes(x, sizes)
    maps = _maps(x, weights, sizes, planes)
    firsts = [sum(weight.numel() for weight in weights[:i]) for i in range(len(weights) + 1)]
    columns = firsts[-1] + sizes.channels  # one for each weight's number, then the gate's
    sums = x.new_empty((planes.batch * planes.tiles, columns), dtype=torch.float32)
    grad_dilated, grad_a, grad_u = planes.scratch(x), planes.scratch(x), planes.scratch(x)
    grad_mean = torch.empty_like(maps.mean, dtype=torch.float32)
    programs, fc_size = planes.batch * planes.tiles, 2 * sizes.hidden * sizes.channels
    arguments = {
        "grad_out_ptr": grad_out, **_spatial_arguments(maps, weights), "proj_2_weight_ptr": weights[10],
        "grad_dilated_ptr": grad_dilated, "grad_u_ptr": grad_u, "sums_ptr": sums, **_strides("grad_out", grad_out),
        **planes.numbers(), "columns": columns, "conv1_column": firsts[6], "fc_column": firsts[8],
        "proj_2_column": firsts[10], "gate_column": firsts[12],
    }  # fmt: skip
    constants = {
        **sizes.channel_constants(), **sizes.spatial_constants(),
        "FC_SIZE": fc_size, "FC_SIZE_P2": next_power_of_2(fc_size), "BLOCK": planes.block,
    }  # fmt: skip
    launch(gate_backward_kernel, (programs,), arguments, constants, TAPS)
    arguments = {
        "sums_ptr": sums, "mean_ptr": maps.mean, "gate_ptr": maps.gate, "fc_0_weight_ptr": weights[8],
        "fc_2_weight_ptr": weights[9], "grad_mean_ptr": grad_mean, "height": planes.height, "width": planes.width,
        "tiles": planes.tiles, "columns": columns, "fc_column": firsts[8], "gate_column": firsts[12],
    }  # fmt: skip
    launch(channel_backward_kernel, (planes.batch,), arguments, sizes.attention_constants(), SAMPLE)
    spatial, conv0 = sizes.spatial_constants(), {**sizes.conv0_constants(), "DILATION": 1}
    for grad, inputs, weight, into, taps in (
        (grad_dilated, maps.a, 4, grad_a, {**spatial, "ADD": False}),
        (grad_a, maps.u, 2, grad_u, {**conv0, "ADD": True}),
    ):
        arguments = {
            "grad_ptr": grad, "input_ptr": inputs, "weight_ptr": weights[weight], "grad_input_ptr": into,
            "sums_ptr": sums, **planes.numbers(), "columns": columns, "first_column": firsts[weight],
        }  # fmt: skip
        constants = {"CHANNELS": sizes.channels, **taps, "BLOCK": planes.block}
        launch(depthwise_backward_kernel, (programs * planes.channels,), arguments, constants, TAPS)
    arguments = {
        "grad_out_ptr": grad_out, "x_ptr": x, "grad_u_ptr": grad_u, "grad_mean_ptr": grad_mean,
        "proj_1_weight_ptr": weights[0], "proj_1_bias_ptr": weights[1], "grad_x_ptr": grad_x, "sums_ptr": sums,
        **_strides("grad_out", grad_out), **_strides("x", x), **_strides("grad_x", grad_x),
        **planes.numbers(), "columns": columns,
    }  # fmt: skip
    constants = {**sizes.channel_constants(), "BLOCK": planes.block}
    launch(input_backward_kernel, (programs,), arguments, constants, POINTWISE)
    names = ("proj_1", "conv0", "conv_spatial", "conv1")
    fields = [f"{name}_{kind}_ptr" for name in names for kind in ("weight", "bias")]
    fields += ["fc_0_weight_ptr", "fc_2_weight_ptr", "proj_2_weight_ptr", "proj_2_bias_ptr"]
    arguments = {
        "sums_ptr": sums, **dict(zip(fields, grads, strict=True)), "rows": sums.shape[0], "columns": columns,
    }  # fmt: skip
    constants = {
        "CHANNELS": sizes.channels, "HIDDEN": sizes.hidden, "SIZE": sizes.conv0, "SPATIAL_SIZE": sizes.spatial,
        "ROWS": TOTAL_ROWS, "COLUMNS": TOTAL_COLUMNS,
    }  # fmt: skip
    launch(total_sums_kernel, (cdiv(firsts[-1], TOTAL_COLUMNS),), arguments, constants, TOTALS)
