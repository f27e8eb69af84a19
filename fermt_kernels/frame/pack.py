"""Packs a model for `track_frame`: one block of bytes for the compiled library, or tensors for the Triton kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..backends import AUTO, requested, unsupported_reason
from ..spec.heads import CONVOLUTIONS, HEADS
from ..spec.normalization import LAYER_NORM_EPS, MEAN, STD
from ..spec.schedule import Visibility
from ..wrapped import unwrapped
from .calibrate import HeadRanges, head_ranges
from .cuda_model import CudaPackedModel
from .fold import Folded, Matrix, filter_rows, fold
from .format import (
    CUDA_DTYPES,
    DTYPES,
    MAX_INT8_CHANNELS,
    Header,
    assemble,
    bias_section,
    matrix_sections,
    panel_set,
    quantized,
)
from .packed import PackedModel

# G of Winograd F(2x2, 3x3), which transforms a filter g to G g G^T.
FILTER_TRANSFORM = torch.tensor(
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64, device="cpu"
)


def pack(
    model: Any,
    dtype: torch.dtype = torch.float32,
    *,
    calibration: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
) -> PackedModel | CudaPackedModel:
    """Packs a model for `encode_template` and `track_frame`. The model is not changed.

    The packed model computes what the model does in evaluation mode: batch norms use their running statistics. A model
    on a GPU becomes a `CudaPackedModel` there, one on the CPU a `PackedModel`.

    Args:
        model: a FERMT, or an object with its `config` and, under the authors' keys, its `state_dict()`; in any float
            dtype.
        dtype: of the matrices: on the CPU torch.float32, torch.bfloat16 or torch.int8; on a GPU torch.float32,
            torch.bfloat16 or torch.float16. Sums, norms and softmax are float32. With torch.int8, weights have a scale
            for each output, tokens a dynamic scale for each token and product, and the head's maps a static scale
            each, from `calibration`; attention is computed in bfloat16, on CPUs without AVX-512-BF16 in float32. int8
            is less accurate: `accuracy` measures it.
        calibration: for torch.int8: templates and search crops, uint8 RGB (N, S, S, 3) each, of typical videos.
        backend: "cpp", "triton", or "auto", which goes by the model's device.

    Raises:
        TypeError: `dtype` is not supported, the model has no such configuration or state dict, or a weight is not
            floating-point.
        ValueError: a size or pattern is not supported, or a weight is missing, unexpected or of another shape; the
            message names it.
        RuntimeError: the backend cannot run a frame of such a model, with the reason.
    """
    model = unwrapped(model)
    folded = fold(model)
    if _for_triton(folded, dtype, backend):
        if calibration is not None:
            raise ValueError(f"pack: calibration goes with torch.int8 only, got dtype {dtype}")
        return for_device(folded, dtype, folded.device)
    if dtype not in DTYPES:
        allowed = ", ".join(str(each).removeprefix("torch.") for each in DTYPES)
        raise TypeError(f"pack: dtype must be one of {allowed}; got {dtype!r}")
    largest = max(folded.config.dim, *folded.widths)
    if dtype == torch.int8 and largest > MAX_INT8_CHANNELS:
        raise ValueError(f"pack: in int8 a convolution has at most {MAX_INT8_CHANNELS} channels, got {largest}")
    ranges = _calibrated(model, folded.config, dtype, calibration)
    return PackedModel(assemble(_header(folded, DTYPES[dtype]), list(_sections(folded, dtype, ranges))))


def for_device(folded: Folded, dtype: torch.dtype, device: torch.device) -> CudaPackedModel:
    """Packs a model for the Triton kernels, whether or not they can run on that device."""
    return CudaPackedModel(folded, _header(folded, CUDA_DTYPES[dtype]), dtype, device)


def _for_triton(folded: Folded, dtype: torch.dtype, backend: str) -> bool:
    """Whether to pack the model for the Triton kernels; RuntimeError if no backend can run it."""
    name = requested(backend)
    reason = unsupported_reason("triton", "track_frame", folded.device.type, dtype)
    if name == "triton" and reason:
        raise RuntimeError(f"backend 'triton' cannot run track_frame: {reason}")
    if name == AUTO and reason and folded.device.type != "cpu":
        raise RuntimeError(f"no backend can run track_frame in {dtype} on {folded.device}: triton: {reason}")
    return name in ("triton", AUTO) and reason is None


def winograd_filters(weight: Tensor) -> Tensor:
    """Transforms filters g (N, Cin, 3, 3) in float64 to G g G^T, (16, N, Cin)."""
    both_sides = torch.kron(FILTER_TRANSFORM, FILTER_TRANSFORM)  # (16, 9)
    return (weight.flatten(2) @ both_sides.T).permute(2, 0, 1)


def pattern_bits(pattern: str) -> int:
    """A pattern as in a packed file: a bit for each field of `Visibility`, the first in bit 0."""
    return sum(seen << bit for bit, seen in enumerate(Visibility.of(pattern)))


def _header(folded: Folded, dtype: int) -> Header:
    config, unit = folded.config, folded.unit
    return Header(
        total_bytes=0,
        checksum=0,
        dtype=dtype,
        head=HEADS[config.head].code,
        reweight=int(config.reweight),
        dim=config.dim,
        heads=config.num_heads,
        depth=len(config.patterns),
        hidden=folded.hidden,
        patch=config.patch_size,
        template_size=config.template_size,
        search_size=config.search_size,
        dau=int(unit is not None),
        kernel=unit.conv0_weight.shape[-1] if unit else 0,
        dilated_kernel=unit.conv_spatial_weight.shape[-1] if unit else 0,
        dau_hidden=unit.fc_0_weight.shape[0] if unit else 0,
        widths=folded.widths,
        eps=LAYER_NORM_EPS,
        scale=(config.dim // config.num_heads) ** -0.5,
        template_factor=float(config.template_factor),
        search_factor=float(config.search_factor),
        patterns=tuple(map(pattern_bits, config.patterns)),
    )


def _sections(folded: Folded, dtype: torch.dtype, ranges: HeadRanges | None) -> Iterator[Tensor]:
    """All sections, in the order of the format."""
    mean, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (MEAN, STD))
    yield torch.cat((1 / (255 * std), -mean / std)).float()
    yield from (weight.float() for weight in folded.unit or ())
    yield from (positions.float() for positions in folded.positions)
    yield from matrix_sections(*folded.embedding, dtype)
    dim = folded.config.dim
    for layer in folded.layers:
        queries, rest = (Matrix(*parts) for parts in zip(*(t.split((dim, 2 * dim)) for t in layer.qkv), strict=True))
        for matrix in (queries, rest, layer.proj, layer.fc1, layer.fc2):
            yield from matrix_sections(*matrix, dtype)
    yield from (parameter.float() for parameter in folded.norm)
    yield from _head(folded, dtype, ranges)


def _head(folded: Folded, dtype: torch.dtype, ranges: HeadRanges | None) -> Iterator[Tensor]:
    if ranges is not None:
        yield torch.tensor([1 / _input_scale(ranges), _input_zero(ranges)], dtype=torch.float32, device="cpu")
    for i, width in zip(CONVOLUTIONS, folded.widths, strict=True):
        layers = [
            (*matrices[i - 1], *_byte_scales(ranges, branch, i, width)) for branch, matrices in folded.head.items()
        ]
        # All branches read the same tokens in the first layer: one product serves them.
        groups = [tuple(map(torch.cat, zip(*layers, strict=True)))] if i == 1 else layers
        for group in groups:
            yield from _CONVOLUTION_SECTIONS[dtype](*group)
    for *_, last in folded.head.values():
        yield from (t.float() for t in last)


def _input_scale(ranges: HeadRanges) -> float:
    return (ranges.largest - ranges.least) / 255 or 1.0


def _input_zero(ranges: HeadRanges) -> float:
    """The byte that represents 0."""
    return float(round(-ranges.least / _input_scale(ranges)))


def _byte_scales(ranges: HeadRanges | None, branch: str, i: int, outputs: int) -> tuple[Tensor, ...]:
    """For each output of a convolution: its input's scale and zero, and its own scale; empty without `ranges`."""
    if ranges is None:
        return ()

    def scale(layer: int) -> float:
        return ranges.outputs[branch, layer] / 255 or 1.0

    last = i == CONVOLUTIONS[-1]  # its output is not quantized
    values = (
        _input_scale(ranges) if i == 1 else scale(i - 1),
        _input_zero(ranges) if i == 1 else 0.0,
        1.0 if last else scale(i),
    )
    return tuple(torch.full((outputs,), value, dtype=torch.float64, device="cpu") for value in values)


def _winograd_sections(weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    yield bias_section(bias)
    yield from panel_set(winograd_filters(weight), torch.float32)


def _direct_sections(weight: Tensor, bias: Tensor) -> Iterator[Tensor]:
    yield from matrix_sections(filter_rows(weight), bias, torch.bfloat16)


def _byte_sections(
    weight: Tensor, bias: Tensor, in_scale: Tensor, in_zero: Tensor, out_scale: Tensor
) -> Iterator[Tensor]:
    """Sections of an int8 convolution: static scales fold into one factor and one bias for each output."""
    rows, scales = quantized(filter_rows(weight))
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
            "pack: torch.int8 needs calibration=(templates, searches), uint8 crops of typical videos; "
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
