"""Launches of the Dual Attention Unit's kernels: three forward, and eight backward, of which two are the forward's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..layouts import last_contiguous
from ..spec.dual_attention_unit import DAUSizes, DAUWeights
from .kernels.channel_attention import channel_backward_kernel
from .kernels.depthwise import depthwise_backward_kernel, depthwise_kernel
from .kernels.dual_attention_unit_backward import gate_backward_kernel, input_backward_kernel, total_sums_kernel
from .kernels.dual_attention_unit_forward import activation_kernel, output_kernel
from .launch import Tuning, launch

BLOCK = 256  # positions of a plane that a program takes: a 256 x 256 image still gives 275 programs
MANY_CHANNELS_BLOCK = 64  # above 8 channels, where all channels of more positions do not fit in registers
POINTWISE = Tuning(num_warps=4)  # kernels without taps: a thread has two positions of all channels
TAPS = Tuning(num_warps=8)  # a thread has one position, whose 25 taps take 25 registers
SAMPLE = Tuning(num_warps=4)  # kernels with a few values for each sample
TOTALS = Tuning(num_warps=8)  # few programs, each of which reads a long column of sums
TILE_SUMS = 128  # tiles whose sums a program reads in one step, for a sample's mean
TOTAL_ROWS, TOTAL_COLUMNS = 512, 8  # block of the table of sums; 8 floats are a sector of memory


class Planes(NamedTuple):
    """Layout of maps in scratch memory: rows with a margin of zeros between them, above and below, in whole tiles."""

    batch: int
    channels: int
    height: int
    width: int
    pitch: int  # positions from one row to the next; the margin right of a row is also left of the next
    origin: int  # position of the first pixel; odd, so that loads of four do not spread a pixel's channels over warps
    plane: int  # positions of one channel
    block: int

    @property
    def tiles(self) -> int:
        return self.plane // self.block

    def arguments(self) -> dict[str, int]:
        """The arguments that every kernel over planes takes."""
        names = ("height", "width", "pitch", "origin", "plane", "tiles")
        return {name: getattr(self, name) for name in names}

    def scratch(self, like: Tensor) -> Tensor:
        """Uninitialized planes, float32 for every dtype: half types would be converted at each tap and round maps."""
        return like.new_empty((self.batch, self.channels, self.plane), dtype=torch.float32)


def _channel_constants(sizes: DAUSizes) -> dict[str, int]:
    return {"CHANNELS": sizes.channels, "CHANNELS_P2": next_power_of_2(sizes.channels)}


def _attention_constants(sizes: DAUSizes) -> dict[str, int]:
    hidden = {"HIDDEN": sizes.hidden, "HIDDEN_P2": next_power_of_2(sizes.hidden)}
    return {**_channel_constants(sizes), **hidden, "ROWS": TILE_SUMS}


def _conv0_constants(sizes: DAUSizes) -> dict[str, int]:
    return {"SIZE": sizes.kernel, "TAPS_P2": next_power_of_2(sizes.kernel**2)}


def _spatial_constants(sizes: DAUSizes) -> dict[str, int]:
    taps = next_power_of_2(sizes.dilated_kernel**2)
    return {"SIZE": sizes.dilated_kernel, "TAPS_P2": taps, "DILATION": sizes.dilation}


class Maps(NamedTuple):
    """Results of the first two kernels, which forward and backward share: planes, and vectors (B, C) in float64."""

    u: Tensor
    a: Tensor
    mean: Tensor
    gate: Tensor


def _strides(name: str, tensor: Tensor, dimensions: Sequence[str] = ("batch", "channel", "row")) -> dict[str, int]:
    """An image's strides under the kernels' parameter names."""
    names = (f"{name}_{dimension}_stride" for dimension in dimensions)
    return dict(zip(names, tensor.stride(), strict=False))


def _weight_arguments(weights: DAUWeights, *names: str) -> dict[str, Tensor]:
    """The named weights under the kernels' parameter names."""
    return {f"{name}_ptr": getattr(weights, name) for name in names}


def _contiguous(weights: DAUWeights) -> DAUWeights:
    return DAUWeights(*(weight.contiguous() for weight in weights))


def _planes(x: Tensor, sizes: DAUSizes) -> Planes:
    batch, channels, height, width = x.shape
    margin = max(sizes.kernel // 2, sizes.dilated_kernel // 2 * sizes.dilation)
    pitch, block = width + margin, BLOCK if channels <= 8 else MANY_CHANNELS_BLOCK
    origin = (margin * pitch + margin) | 1
    positions = origin + (height + margin) * pitch + margin
    plane = cdiv(positions, block) * block
    return Planes(batch, channels, height, width, pitch, origin, plane, block)


def _pixels(x: Tensor, normalize: Tensor | None) -> dict[str, Any]:
    """Arguments by which a kernel reads the image: its strides, and scale and shift if it is still to be normalized."""
    unused = x if normalize is None else normalize
    return {"normalize_ptr": unused, **_strides("x", x, ("batch", "channel", "row", "column"))}


def _maps(x: Tensor, weights: DAUWeights, sizes: DAUSizes, planes: Planes, normalize: Tensor | None = None) -> Maps:
    u, a = planes.scratch(x), planes.scratch(x)
    u_sums = x.new_empty((planes.batch, planes.tiles, planes.channels), dtype=torch.float32)
    mean, gate = (x.new_empty((planes.batch, planes.channels), dtype=torch.float64) for _ in range(2))
    arguments = {
        "x_ptr": x, **_weight_arguments(weights, "proj_1_weight", "proj_1_bias"), "u_ptr": u, "u_sums_ptr": u_sums,
        **_pixels(x, normalize), **planes.arguments(),
    }  # fmt: skip
    constants = {**_channel_constants(sizes), "NORMALIZED": normalize is None, "BLOCK": planes.block}
    launch(activation_kernel, (planes.batch * planes.tiles,), arguments, constants, POINTWISE)
    arguments = {
        "u_ptr": u, "a_ptr": a, "u_sums_ptr": u_sums, "mean_ptr": mean, "gate_ptr": gate, **planes.arguments(),
        **_weight_arguments(weights, "conv0_weight", "conv0_bias", "fc_0_weight", "fc_2_weight"),
    }  # fmt: skip
    constants = {**_attention_constants(sizes), **_conv0_constants(sizes), "BLOCK": planes.block}
    launch(depthwise_kernel, (planes.batch * planes.channels * planes.tiles,), arguments, constants, TAPS)
    return Maps(u, a, mean, gate)


def _spatial_arguments(maps: Maps, weights: DAUWeights) -> dict[str, Tensor]:
    """Arguments of the kernels that compute f = conv1(conv_spatial(a)) and read u and s."""
    names = ("conv_spatial_weight", "conv_spatial_bias", "conv1_weight", "conv1_bias")
    return {"u_ptr": maps.u, "a_ptr": maps.a, "gate_ptr": maps.gate, **_weight_arguments(weights, *names)}


def dual_attention_unit_forward(x: Tensor, weights: DAUWeights, out: Tensor, normalize: Tensor | None = None) -> None:
    """Computes the unit on x (B, C, H, W) into `out`, whose last dimension is contiguous.

    With `normalize`, float32 (2, C), the unit's input is x * normalize[0] + normalize[1].
    """
    x = last_contiguous(x) if normalize is None else x
    weights = _contiguous(weights)
    sizes = weights.sizes
    planes = _planes(x, sizes)
    maps = _maps(x, weights, sizes, planes, normalize)
    first_tile = planes.origin // planes.block  # tiles before it, and after the last pixel, are margin
    tiles = cdiv(planes.origin + planes.height * planes.pitch, planes.block) - first_tile
    arguments = {
        "x_ptr": x, **_spatial_arguments(maps, weights), **_weight_arguments(weights, "proj_2_weight", "proj_2_bias"),
        "out_ptr": out, **_pixels(x, normalize), **_strides("out", out),
        **planes.arguments(), "first_tile": first_tile, "tiles": tiles,
    }  # fmt: skip
    constants = {
        **_channel_constants(sizes), **_spatial_constants(sizes), "NORMALIZED": normalize is None,
        "BLOCK": planes.block,
    }  # fmt: skip
    launch(output_kernel, (planes.batch * tiles,), arguments, constants, TAPS)


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: DAUWeights, grad_x: Tensor, grads: DAUWeights
) -> None:
    """Computes the unit's gradients into `grad_x` (last dimension contiguous) and `grads` (contiguous)."""
    x, grad_out, weights = last_contiguous(x), last_contiguous(grad_out), _contiguous(weights)
    sizes = weights.sizes
    planes = _planes(x, sizes)
    maps = _maps(x, weights, sizes, planes)
    # The table of sums has a column for each element of each weight, in order, and then for each channel of the gate.
    gate_column, first_column = 0, {}
    for name, weight in weights._asdict().items():
        first_column[name], gate_column = gate_column, gate_column + weight.numel()
    columns = gate_column + sizes.channels
    sums = x.new_empty((planes.batch * planes.tiles, columns), dtype=torch.float32)
    grad_dilated, grad_a, grad_u = planes.scratch(x), planes.scratch(x), planes.scratch(x)
    grad_mean = torch.empty_like(maps.mean, dtype=torch.float32)
    programs, fc_size = planes.batch * planes.tiles, 2 * sizes.hidden * sizes.channels
    arguments = {
        "grad_out_ptr": grad_out, **_spatial_arguments(maps, weights), "proj_2_weight_ptr": weights.proj_2_weight,
        "grad_dilated_ptr": grad_dilated, "grad_u_ptr": grad_u, "sums_ptr": sums, **_strides("grad_out", grad_out),
        **planes.arguments(), "columns": columns, "conv1_column": first_column["conv1_weight"],
        "fc_column": first_column["fc_0_weight"], "proj_2_column": first_column["proj_2_weight"],
        "gate_column": gate_column,
    }  # fmt: skip
    constants = {
        **_channel_constants(sizes), **_spatial_constants(sizes),
        "FC_SIZE": fc_size, "FC_SIZE_P2": next_power_of_2(fc_size), "BLOCK": planes.block,
    }  # fmt: skip
    launch(gate_backward_kernel, (programs,), arguments, constants, TAPS)
    arguments = {
        "sums_ptr": sums, "mean_ptr": maps.mean, "gate_ptr": maps.gate,
        **_weight_arguments(weights, "fc_0_weight", "fc_2_weight"), "grad_mean_ptr": grad_mean,
        "height": planes.height, "width": planes.width, "tiles": planes.tiles, "columns": columns,
        "fc_column": first_column["fc_0_weight"], "gate_column": gate_column,
    }  # fmt: skip
    launch(channel_backward_kernel, (planes.batch,), arguments, _attention_constants(sizes), SAMPLE)
    spatial, conv0 = _spatial_constants(sizes), {**_conv0_constants(sizes), "DILATION": 1}
    for grad, inputs, name, into, taps in (
        (grad_dilated, maps.a, "conv_spatial_weight", grad_a, {**spatial, "ADD": False}),
        (grad_a, maps.u, "conv0_weight", grad_u, {**conv0, "ADD": True}),
    ):
        arguments = {
            "grad_ptr": grad, "input_ptr": inputs, "weight_ptr": getattr(weights, name), "grad_input_ptr": into,
            "sums_ptr": sums, **planes.arguments(), "columns": columns, "first_column": first_column[name],
        }  # fmt: skip
        constants = {"CHANNELS": sizes.channels, **taps, "BLOCK": planes.block}
        launch(depthwise_backward_kernel, (programs * planes.channels,), arguments, constants, TAPS)
    arguments = {
        "grad_out_ptr": grad_out, "x_ptr": x, "grad_u_ptr": grad_u, "grad_mean_ptr": grad_mean,
        **_weight_arguments(weights, "proj_1_weight", "proj_1_bias"), "grad_x_ptr": grad_x, "sums_ptr": sums,
        **_strides("grad_out", grad_out), **_strides("x", x), **_strides("grad_x", grad_x),
        **planes.arguments(), "columns": columns,
    }  # fmt: skip
    constants = {**_channel_constants(sizes), "BLOCK": planes.block}
    launch(input_backward_kernel, (programs,), arguments, constants, POINTWISE)
    arguments = {
        "sums_ptr": sums, **_weight_arguments(grads, *grads._fields), "rows": sums.shape[0], "columns": columns,
    }  # fmt: skip
    constants = {
        "CHANNELS": sizes.channels, "HIDDEN": sizes.hidden, "SIZE": sizes.kernel, "SPATIAL_SIZE": sizes.dilated_kernel,
        "ROWS": TOTAL_ROWS, "COLUMNS": TOTAL_COLUMNS,
    }  # fmt: skip
    launch(total_sums_kernel, (cdiv(gate_column, TOTAL_COLUMNS),), arguments, constants, TOTALS)
