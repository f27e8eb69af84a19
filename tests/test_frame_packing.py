"""What is folded into a packed model, and which models are refused. Needs no compiled library."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import fermt
import fermt_kernels as fk
from fermt.data import crops
from fermt.model import vit
from fermt_kernels.frame import MEAN, STD
from fermt_kernels.frame import packed as packed_module
from fermt_kernels.frame.fold import fold_batch_norm, fold_norm
from fermt_kernels.frame.format import MAX_INT8_CHANNELS
from fermt_kernels.frame.pack import pattern_bits, winograd_filters
from fermt_kernels.spec.normalization import BATCH_NORM_EPS, LAYER_NORM_EPS

from .support import packed
from .support.errors import refused


@pytest.fixture(scope="module")
def model() -> fermt.FERMT:
    return packed.small_model("center")


def test_a_norm_folds_into_the_linear_layer_after_it() -> None:
    norm, linear = nn.LayerNorm(24, eps=1e-6).double(), nn.Linear(24, 7).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 24, dtype=torch.float64)
    folded = F.linear(F.layer_norm(x, (24,), eps=1e-6), *fold_norm(*linear.parameters(), *norm.parameters()))
    torch.testing.assert_close(folded, linear(norm(x)), rtol=0, atol=1e-12)


def test_a_batch_norm_folds_into_the_convolution_before_it() -> None:
    convolution, norm = nn.Conv2d(5, 6, 3, padding=1).double(), nn.BatchNorm2d(6).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 3)
    assert norm.eps == BATCH_NORM_EPS
    x = torch.randn(2, 5, 8, 8, dtype=torch.float64)
    weight, bias = fold_batch_norm(
        *convolution.parameters(), norm.weight, norm.bias, norm.running_mean, norm.running_var
    )
    torch.testing.assert_close(F.conv2d(x, weight, bias, padding=1), norm(convolution(x)), rtol=0, atol=1e-12)


def test_winograd_filters_convolve() -> None:
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 8, 6), (4, 3, 3, 3), (4,)))
    result = packed.winograd(x, winograd_filters(weight), bias)
    torch.testing.assert_close(result, F.conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("head", packed.CONFIGS)
def test_a_packed_model_computes_what_the_model_does(head: str, dtype: torch.dtype, tolerance: float) -> None:
    model = packed.small_model(head)
    template, search = (torch.randint(256, (s, s, 3), dtype=torch.uint8) for s in (16, 32))
    images = [crops.normalize(crop.numpy(), dtype=torch.float64) for crop in (template, search)]
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(*images)
        found = packed.frame(fk.frame.pack(model, dtype).blob, template, search)
    for name, result in found.items():
        expected = truth[name][:, model.config.num_template :] if name == "tokens" else truth[name]
        error = (result - expected).abs().max() / expected.abs().max()
        assert error < tolerance, f"{name}: {error}"


def test_patterns_and_constants_are_the_models() -> None:
    assert {pattern_bits(pattern): pattern for pattern in fk.PATTERNS} == packed.PATTERNS
    assert (MEAN, STD, LAYER_NORM_EPS) == (crops.MEAN, crops.STD, vit.LAYER_NORM_EPS)


def test_packing_leaves_the_model_as_it_is_and_takes_any_float_dtype(model: fermt.FERMT) -> None:
    training = copy.deepcopy(model).train()
    before = copy.deepcopy(training.state_dict())
    blob = fk.frame.pack(training).blob
    assert training.training
    assert all(torch.equal(before[key], value) for key, value in training.state_dict().items())
    assert torch.equal(blob, fk.frame.pack(model).blob)
    assert torch.equal(blob, fk.frame.pack(copy.deepcopy(model).double()).blob)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = copy.deepcopy(model).to(dtype)
        assert torch.equal(fk.frame.pack(rounded).blob, fk.frame.pack(copy.deepcopy(rounded).double()).blob)


def test_anything_with_a_config_and_the_authors_weights_is_packed(model: fermt.FERMT) -> None:
    state = model.state_dict() | {"backbone.cls_token": torch.zeros(1), "backbone.pos_embed": torch.zeros(1)}
    stranger = SimpleNamespace(config=model.config, state_dict=lambda: state)
    assert torch.equal(fk.frame.pack(stranger).blob, fk.frame.pack(model).blob)


def changed(model: fermt.FERMT, weights: dict[str, Any] | None = None, **config: Any) -> SimpleNamespace:
    """The model with some weights replaced (None: left out), and some fields of its configuration."""
    state = {k: v for k, v in (model.state_dict() | (weights or {})).items() if v is not None}
    return SimpleNamespace(config=SimpleNamespace(**(vars(model.config) | config)), state_dict=lambda: state)


@pytest.mark.parametrize(
    ("config", "error", "values"),
    [
        ({"dim": 40}, ValueError, ("dim", 16, 8192, 40)),
        ({"dim": 8208}, ValueError, ("dim", 16, 8192, 8208)),
        ({"dim": 32.0}, TypeError, ("dim", "int", 32.0)),
        ({"num_heads": 3}, ValueError, ("dim", 3)),
        ({"num_heads": 0}, ValueError, ("num_heads", 1, 32, 0)),
        ({"mlp_ratio": 1.25}, ValueError, ("mlp_ratio", 16, 40)),
        ({"template_size": 20}, ValueError, ("template_size", 8, 2048, 20)),
        ({"search_size": 0}, ValueError, ("search_size", 8, 2048, 0)),
        ({"patch_size": 128}, ValueError, ("patch_size", 1, 64, 128)),
        ({"patterns": ("mixed",) * 65}, ValueError, (1, 64, "65 patterns")),
        ({"patterns": ()}, ValueError, (1, 64, "0 patterns")),
        ({"patterns": ("mixed", "diagonal")}, ValueError, ("pattern", "'diagonal'", "self, mixed")),
        ({"head": "anchor"}, ValueError, ("head", "center, corner", "'anchor'")),
        ({"reweight": True}, ValueError, ("reweight", "corner", "'center'")),
        ({"patterns": ("mixed",) * 4}, ValueError, ("backbone.blocks.3",)),
        ({"patterns": ("mixed",) * 2}, ValueError, ("backbone.blocks.2.attn.proj.bias",)),
        ({"dau": False}, ValueError, ("backbone.dau.proj_1.bias",)),
        ({"mlp_ratio": 2.0}, ValueError, ("'backbone.blocks.0.mlp.fc1.weight'", (64, 32), (48, 32))),
    ],
)
def test_a_configuration_that_is_refused(
    model: fermt.FERMT, config: dict[str, Any], error: type[Exception], values: tuple[object, ...]
) -> None:
    with refused(error, "pack", *values):
        fk.frame.pack(changed(model, **config))


@pytest.mark.parametrize(
    ("key", "value", "error", "values"),
    [
        ("backbone.norm.bias", None, ValueError, ("'backbone.norm.bias'",)),
        ("backbone.norm.bias", torch.zeros(3), ValueError, ("'backbone.norm.bias'", (32,), (3,))),
        ("backbone.norm.bias", torch.zeros(32, dtype=torch.int8), TypeError, ("'backbone.norm.bias'", torch.int8)),
        ("backbone.norm.bias", [0.0] * 32, TypeError, ("'backbone.norm.bias'", "list")),
        (
            "backbone.norm.bias",
            torch.zeros(32, device="meta"),
            ValueError,
            ("'backbone.norm.bias'", "meta"),
        ),
        ("box_head.conv9_x.weight", torch.zeros(1), ValueError, ("box_head.conv9_x.weight",)),
        ("box_head.conv2_ctr.0.weight", torch.zeros(40, 48, 3, 3), ValueError, ("convolution 2", 16, 40)),
        (
            "backbone.dau.proj_1.weight",
            torch.zeros(2, 3, 1, 1),
            ValueError,
            ("proj_1_weight", (3, 3, 1, 1), (2, 3, 1, 1)),
        ),
    ],
)
def test_weights_that_are_refused(
    model: fermt.FERMT, key: str, value: Any, error: type[Exception], values: tuple[object, ...]
) -> None:
    with refused(error, "pack", *values):
        fk.frame.pack(changed(model, {key: value}))


def test_int8_refuses_convolutions_whose_sums_may_not_fit() -> None:
    crops_of_a_pair = tuple(torch.zeros(1, size, size, 3, dtype=torch.uint8) for size in (16, 32))
    wide = packed.small_model("center", widths=(MAX_INT8_CHANNELS + 16, 16, 16, 16))
    with refused(ValueError, "pack", "int8", MAX_INT8_CHANNELS, MAX_INT8_CHANNELS + 16):
        fk.frame.pack(wide, torch.int8, calibration=crops_of_a_pair)


def test_what_is_no_model_is_refused(model: fermt.FERMT) -> None:
    with refused(TypeError, "dtype", "float32, bfloat16, int8", torch.float16):
        fk.frame.pack(model, torch.float16)
    with refused(TypeError, "fermt.ModelConfig", "Linear", "'patterns'"):
        fk.frame.pack(nn.Linear(1, 1))
    with refused(TypeError, "state_dict()", "SimpleNamespace"):
        fk.frame.pack(SimpleNamespace(config=model.config))


def test_sizes_are_those_of_the_instruction_set_in_use_when_another_thread_selects_one(
    model: fermt.FERMT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the name of the one in use and the library's answer, which would have been kept under that name."""
    small, library, asked = fk.frame.pack(model), SimpleNamespace(isa="avx2"), []

    def answer(*_: object) -> SimpleNamespace:
        asked.append(library.isa)
        library.isa = "generic" if len(asked) == 1 else library.isa
        return SimpleNamespace(workspace_bytes={"avx2": 100, "generic": 200}[library.isa])

    monkeypatch.setattr(packed_module.library, "load", lambda: library)
    monkeypatch.setattr(packed_module.compiled, "frame_info", answer)
    assert small.info(1).workspace_bytes == 200
    library.isa = "avx2"
    assert small.info(1).workspace_bytes == small.info(1).workspace_bytes == 100
    assert asked == ["avx2", "generic", "avx2"]
