"""The model, its losses, its crops and its tracker against what the authors' released code computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import fermt
from fermt.boxes import cxcywh_to_xyxy, xywh_to_xyxy
from fermt.data import crop_target
from fermt.losses import center_loss, gaussian_heat_map, iou_and_giou
from fermt.tracking.network import hann_window

from .support import golden

BLOCKS = (0, 5, 6, 11)
DTYPES = {"float64": (torch.float64, golden.IN_FLOAT64), "float32": (torch.float32, golden.IN_FLOAT32)}


def intermediates(dtype: torch.dtype, backend: str) -> dict[str, Tensor]:
    """Every array that `center_seed0` stores, computed by our model."""
    model = golden.model("center", dtype, backend)
    units: list[Tensor] = []
    found: dict[str, Tensor] = {}
    model.backbone.dau.register_forward_hook(lambda module, inputs, output: units.append(output))
    for i in BLOCKS:
        model.backbone.blocks[i].register_forward_hook(
            lambda module, inputs, output, i=i: found.update({f"block{i}": output})
        )
    with torch.no_grad():
        outputs = model(*golden.images(dtype))
    found |= dict(zip(("dau_template", "dau_search"), units, strict=True)) | outputs
    return found | {"box": outputs["pred_boxes"].squeeze(1)}


@pytest.fixture(
    scope="module", params=[("float64", "auto"), ("float32", "reference"), ("float32", "auto")], ids="-".join
)
def computed(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], float]:
    name, backend = request.param
    dtype, bound = DTYPES[name]
    return intermediates(dtype, backend), bound


@pytest.mark.parametrize("name", sorted(golden.arrays("center")))
def test_center(name: str, computed: tuple[dict[str, Tensor], float]) -> None:
    found, bound = computed
    stored = golden.arrays("center")[name]
    if (
        found[name].dtype == torch.float32
    ):  # the bound is that of `tokens`; the residual stream is up to 5 times as large
        bound *= max(1.0, np.abs(stored).max() / np.abs(golden.arrays("center")["tokens"]).max())
    assert found[name].shape == stored.shape
    assert np.abs(found[name].double().numpy() - stored).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES)
def test_corner(dtype: str) -> None:
    kind, bound = DTYPES[dtype]
    with torch.no_grad():
        outputs = golden.model("corner", kind)(*golden.images(kind))
    found = outputs | {"box": cxcywh_to_xyxy(outputs["pred_boxes"].squeeze(1))}
    for name, stored in golden.arrays("corner").items():
        assert found[name].shape == stored.shape, name
        assert np.abs(found[name].double().numpy() - stored).max() <= bound, name


def losses() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in golden.arrays("losses").items()}


def test_heat_map() -> None:
    stored = losses()
    assert (gaussian_heat_map(stored["gt_box_xywh"], 16) - stored["heatmap"]).abs().max() <= golden.IN_FLOAT64


def test_losses() -> None:
    stored = losses()
    outputs = {"score_map": stored["pred_score"], "pred_boxes": stored["pred_box_cxcywh"].unsqueeze(1)}
    total, parts = center_loss(outputs, stored["gt_box_xywh"])
    for name in ("focal", "l1", "giou"):
        assert math.isclose(parts[name].item(), stored[name].item(), rel_tol=1e-8), name
    assert math.isclose(total.item(), stored["total"].item(), rel_tol=1e-8)
    iou, _ = iou_and_giou(cxcywh_to_xyxy(stored["pred_box_cxcywh"]), xywh_to_xyxy(stored["gt_box_xywh"]))
    torch.testing.assert_close(iou, stored["iou"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("kind", "factor", "size"), [("template", 2.0, 128), ("search", 4.0, 256)])
@pytest.mark.parametrize("index", range(6))
def test_crops_are_bit_exact(kind: str, factor: float, size: int, index: int) -> None:
    stored = golden.arrays("crops")
    crop = crop_target(stored["image"], tuple(stored["boxes_xywh"][index]), factor, size)
    assert np.array_equal(crop.image, stored[f"{kind}_crops"][index])
    assert np.array_equal(crop.padding, stored[f"{kind}_padding_masks"][index])
    assert crop.resize_factor == stored[f"{kind}_resize_factors"][index]


def test_window() -> None:
    assert np.abs(hann_window(16).numpy() - golden.arrays("crops")["hann_window_16"]).max() <= 1e-6


def tracked(dtype: torch.dtype) -> np.ndarray:
    """Our tracker's boxes on the stored frames."""
    stored = golden.arrays("track")
    tracker = fermt.Tracker(golden.tracking_model(dtype))
    tracker.init(stored["frames"][0], stored["boxes_xywh"][0])
    boxes = [tracker.update(frame).box for frame in stored["frames"][1:]]
    return np.array([tuple(stored["boxes_xywh"][0]), *boxes])


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 0.01), (torch.float32, 0.05)])
def test_tracking(dtype: torch.dtype, bound: float) -> None:
    assert np.abs(tracked(dtype) - golden.arrays("track")["boxes_xywh"]).max() <= bound
