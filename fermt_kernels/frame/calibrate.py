"""What int8 needs to know beforehand, and what it costs: the ranges of a head's maps, and the errors of maps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cuda_model import CudaPackedModel
from .format import BRANCHES, CONVOLUTIONS, MEAN, STD
from .packed import PackedModel
from .run import encode_template, track_frame


class HeadRanges(NamedTuple):
    """Ranges of the head's maps: its input's least and largest value, and the largest of each branch's convolutions."""

    least: float
    largest: float
    outputs: dict[tuple[str, int], float]  # (branch, which of `CONVOLUTIONS`) -> largest value after its ReLU


def head_ranges(model: Any, templates: Tensor, searches: Tensor) -> HeadRanges:
    """Runs the model on pairs of crops and watches its head.

    Args:
        model: as `pack` takes it, and callable on normalized images as FERMT is.
        templates, searches: uint8 RGB, (N, S, S, 3) each, S as the model has them.
    """
    lows: list[float] = []
    highs: list[float] = []
    outputs: dict[tuple[str, int], float] = {}

    def see_input(module: Any, inputs: tuple[Tensor, ...]) -> None:
        lows.append(inputs[0].min().item())
        highs.append(inputs[0].max().item())

    def see_output(key: tuple[str, int]) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            outputs[key] = max(outputs.get(key, 0.0), output.max().item())

        return hook

    head: dict[str, int] = BRANCHES[model.config.head]
    dtype = next(model.parameters()).dtype
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        for branch in head:
            first = model.get_submodule(f"box_head.conv1_{branch}")
            stack.callback(first.register_forward_pre_hook(see_input).remove)
            for i in CONVOLUTIONS:
                module = model.get_submodule(f"box_head.conv{i}_{branch}")
                stack.callback(module.register_forward_hook(see_output((branch, i))).remove)
        for template, search in zip(templates, searches, strict=True):
            model(_normalized(template, dtype), _normalized(search, dtype))
    return HeadRanges(min(0.0, *lows), max(0.0, *highs), outputs)


class MapError(NamedTuple):
    """How far one of a packed model's maps is from the model's own, over all crops."""

    largest: float
    rms: float


def accuracy(
    model: Any, packed: PackedModel | CudaPackedModel, templates: Tensor, searches: Tensor
) -> dict[str, MapError]:
    """The error of each of the head's maps that packing in `packed.dtype` brings, against the model in float64.

    Args:
        model: what was packed; it is not changed.
        packed: `pack(model, ...)`.
        templates, searches: uint8 RGB, (N, S, S, 3) each; not those of the calibration, if it is to mean something.
    """
    exact = copy.deepcopy(model).double()
    device = next(exact.parameters()).device
    squares: dict[str, list[float]] = {}
    largest: dict[str, float] = {}
    with _evaluating(exact):
        for template, search in zip(templates, searches, strict=True):
            maps = track_frame(packed, encode_template(packed, template), search)
            truth = exact(*(_normalized(crop, torch.float64).to(device) for crop in (template, search)))
            for name, value in maps.items():
                difference = value.double() - truth[name].to(value.device)
                largest[name] = max(largest.get(name, 0.0), difference.abs().max().item())
                squares.setdefault(name, []).append(difference.square().mean().item())
    return {name: MapError(largest[name], (sum(squares[name]) / len(squares[name])) ** 0.5) for name in largest}


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _normalized(crop: Tensor, dtype: torch.dtype) -> Tensor:
    mean, deviation = (torch.tensor(values, dtype=dtype) for values in (MEAN, STD))
    return ((crop.to(dtype) / 255 - mean) / deviation).permute(2, 0, 1).unsqueeze(0).contiguous()
