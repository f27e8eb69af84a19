"""The ops in the rest of PyTorch: torch.func, forward mode, wrapped layers, odd numbers, empty batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn as nn
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.testing import attention_inputs, unit_inputs

from .support.errors import refused

QKV = torch.linspace(-1, 1, 2 * 9 * 36, dtype=torch.float64).sin().view(2, 9, 36)
WEIGHTS = fk.DAUWeights(*(w.double() for w in unit_inputs((1, 3, 6, 5))[1]))

OPS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]] = {
    "attention": (
        lambda x: fk.attention(*x.unbind(0), 3, "mixed"),
        lambda x: fk.reference.attention(*x.unbind(0), 3, "mixed", 4**-0.5)[0],
        torch.stack([t.double() for t in attention_inputs((1, 2, 7, 4))]),
    ),
    "attention_packed": (
        lambda x: fk.mixed_attention(x, 3, 4),
        lambda x: fk.reference.attention(
            *x.unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4).unbind(0), 4, "mixed", 4**-0.5
        )[0].transpose(1, 2).flatten(2),
        QKV,
    ),
    "dual_attention_unit": (
        lambda x: fk.dual_attention_unit(x, WEIGHTS),
        lambda x: fk.reference.dual_attention_unit(x, WEIGHTS),
        unit_inputs((1, 3, 6, 5))[0].double(),
    ),
    "linear": (
        lambda x: fk.linear(x, QKV[0, :, :8], gelu=True),
        lambda x: fk.reference.linear(x, QKV[0, :, :8], gelu=True),
        QKV[:, :, :8],
    ),
}  # fmt: skip

TRANSFORMS: dict[str, Callable[[Callable, Tensor], Tensor]] = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "vjp": lambda f, x: torch.func.vjp(f, x)[1](f(x).detach().cos())[0],
    "grad": lambda f, x: torch.func.grad(lambda y: f(y).square().sum())(x),
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack((x, 2 * x))),
    "grad of vmap": lambda f, x: torch.func.vmap(torch.func.grad(lambda y: f(y).sum()))(torch.stack((x, -x))),
    "jacrev": lambda f, x: torch.func.jacrev(lambda y: f(y).flatten()[:3])(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(lambda y: f(x * y).flatten()[:3])(torch.ones(1, dtype=x.dtype)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("op", OPS)
def test_func_transforms(op: str, transform: str) -> None:
    ours, plain, x = OPS[op]
    got, want = (TRANSFORMS[transform](function, x) for function in (ours, plain))
    assert want.abs().max() > 0
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap"])
@pytest.mark.parametrize("op", OPS)
def test_func_transforms_in_and_around_compiled_functions(op: str, transform: str) -> None:
    """In float32, in which there are kernels that have no tangents."""
    ours, plain, x = OPS[op]
    if op == "dual_attention_unit":
        weights = [weight.float() for weight in WEIGHTS]
        ours, plain = (
            (lambda y: fk.dual_attention_unit(y, weights)),
            lambda y: fk.reference.dual_attention_unit(y, weights),
        )
    elif op == "linear":
        weight = QKV[0, :, :8].float()
        ours, plain = (lambda y: fk.linear(y, weight)), lambda y: fk.reference.linear(y, weight)
    x, apply = x.float(), TRANSFORMS[transform]
    want = apply(plain, x)
    torch.compiler.reset()
    inside = torch.compile(lambda y: apply(ours, y), backend="aot_eager")(x)
    outside = apply(torch.compile(ours, backend="aot_eager"), x)
    for got in (inside, outside):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", OPS)
def test_forward_mode_on_dual_tensors(op: str) -> None:
    import torch.autograd.forward_ad as forward_ad

    ours, plain, x = OPS[op]
    with forward_ad.dual_level():
        tangents = [
            forward_ad.unpack_dual(function(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
            for function in (ours, plain)
        ]
    torch.testing.assert_close(*tangents, rtol=1e-10, atol=1e-10)


def test_a_named_backend_says_that_it_cannot(backend: str) -> None:
    x = torch.randn(1, 9, 36)
    with refused(RuntimeError, f"'{backend}'", "'auto'", "'reference'"):
        torch.func.grad(lambda y: fk.mixed_attention(y, 3, 4, backend=backend).sum())(x)


SMALL = {"patterns": ("mixed", "cross"), "dim": 24, "num_heads": 2, "template_size": 32, "search_size": 48}


def images(model: fermt.FERMT) -> tuple[Tensor, Tensor]:
    config = model.config
    return tuple(torch.randn(2, 3, size, size) for size in (config.template_size, config.search_size))  # type: ignore[return-value]


def test_functional_call_and_per_sample_gradients() -> None:
    model = fermt.build_model("fermt", **SMALL).eval()
    template, search = images(model)
    parameters = {name: value.detach() for name, value in model.state_dict().items()}
    expected = model(template, search)["score_map"]
    got = torch.func.functional_call(model, parameters, (template, search))["score_map"]
    torch.testing.assert_close(got, expected)

    def loss(parameters: dict[str, Tensor], z: Tensor, x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (z[None], x[None]))["score_map"].sum()

    floats = {name: value.detach() for name, value in model.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(floats, template, search)
    model.zero_grad()
    model(template, search)["score_map"].sum().backward()
    name = "backbone.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(each[name].sum(0), model.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


LAYERS = ("backbone.dau.proj_1", "backbone.dau.spatial_gating_unit.conv0", "backbone.patch_embed.proj")


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_whose_weights_are_read_may_be_hooked_wrapped_and_parametrized(layer: str) -> None:
    model = fermt.build_model("fermt", **SMALL).eval()
    template, search = images(model)
    expected, calls = model(template, search)["score_map"], []
    module = model.get_submodule(layer)
    handle = module.register_forward_hook(lambda *_: calls.append(layer))
    torch.testing.assert_close(model(template, search)["score_map"], expected, rtol=1e-4, atol=1e-5)
    assert calls
    handle.remove()
    model.set_submodule(layer, nn.Sequential(module, nn.Hardtanh(-1e9, 1e9)))
    torch.testing.assert_close(model(template, search)["score_map"], expected, rtol=1e-4, atol=1e-5)
    model.set_submodule(layer, module)
    nn.utils.parametrizations.weight_norm(module)
    torch.testing.assert_close(model(template, search)["score_map"], expected, rtol=1e-4, atol=1e-5)


OTHERS: dict[str, Callable[[fk.modules.DualAttentionUnit], object]] = {
    "activation": lambda unit: unit.spatial_gating_unit.fc.__setitem__(1, nn.GELU()),
    "no sigmoid": lambda unit: unit.spatial_gating_unit.fc.__setitem__(3, nn.Identity()),
    "bias of fc": lambda unit: unit.spatial_gating_unit.fc.__setitem__(0, nn.Linear(3, 1)),
    "no bias": lambda unit: setattr(unit, "proj_1", nn.Conv2d(3, 3, 1, bias=False)),
    "padding": lambda unit: setattr(
        unit.spatial_gating_unit, "conv0", nn.Conv2d(3, 3, 5, padding=2, groups=3, padding_mode="reflect")
    ),
    "dilation": lambda unit: setattr(
        unit.spatial_gating_unit, "conv_spatial", nn.Conv2d(3, 3, 5, padding=4, groups=3, dilation=2)
    ),
    "groups": lambda unit: setattr(unit.spatial_gating_unit, "conv0", nn.Conv2d(3, 3, 5, padding=2)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_layers_of_the_unit_that_are_replaced_by_others(other: str) -> None:
    unit, x = fk.modules.DualAttentionUnit(), torch.randn(1, 3, 12, 10)
    OTHERS[other](unit)
    u, gate = nn.functional.gelu(unit.proj_1(x)), unit.spatial_gating_unit
    spatial = gate.conv1(gate.conv_spatial(gate.conv0(u)))
    expected = unit.proj_2(gate.fc(u.mean((2, 3)))[:, :, None, None] * spatial * u) + x
    torch.testing.assert_close(unit(x), expected, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = {
    "overlapping": nn.Conv2d(3, 8, 4, 2),
    "padded": nn.Conv2d(3, 8, 4, 4, padding=2),
    "rectangular": nn.Conv2d(3, 8, (4, 2), (4, 2)),
    "dilated": nn.Conv2d(3, 8, 4, 4, dilation=2),
    "grouped": nn.Conv2d(3, 9, 4, 4, groups=3),
}


@pytest.mark.parametrize("other", CONVOLUTIONS)
def test_patches_of_another_convolution(other: str) -> None:
    module, x = fk.modules.PatchEmbed(4, 8), torch.randn(1, 3, 16, 12)
    module.proj = CONVOLUTIONS[other]
    torch.testing.assert_close(module(x), module.proj(x).flatten(2).mT)


def test_hooks_of_the_mlp_see_what_they_would_in_plain_pytorch() -> None:
    mlp, x, seen = fermt.build_model("fermt", **SMALL).backbone.blocks[0].mlp, torch.randn(2, 24), []
    expected = mlp(x)
    mlp.act.register_forward_hook(lambda _, inputs, out: seen.append(out))
    mlp.fc2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-5)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_the_meta_device_gives_shapes() -> None:
    module = fk.modules.TemplateSearchAttention(24, 2, device="meta")
    assert module(torch.empty(1, 5, 24, device="meta"), 2).shape == (1, 5, 24)


def test_dynamic_quantization_of_the_unit() -> None:
    unit, x = fk.modules.DualAttentionUnit(), torch.randn(1, 3, 8, 8)
    expected = unit(x)
    quantized = torch.ao.quantization.quantize_dynamic(unit, {nn.Linear}, dtype=torch.qint8)
    assert type(quantized.spatial_gating_unit.fc[0]) is not nn.Linear
    torch.testing.assert_close(quantized(x), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_empty_batches(name: str) -> None:
    x = torch.randn(0, 20, 72, requires_grad=True)
    out = fk.mixed_attention(x, 4, 5, backend=name)
    assert out.shape == (0, 20, 24)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert fk.dual_attention_unit(torch.randn(0, 3, 4, 4), fk.modules.DualAttentionUnit().weights()).shape == (
        0,
        3,
        4,
        4,
    )
    assert fk.linear(torch.randn(0, 8), torch.randn(4, 8)).shape == (0, 4)


def test_numpys_integers_are_integers() -> None:
    x = torch.randn(1, 9, 36)
    assert torch.equal(fk.mixed_attention(x, np.int64(3), np.int32(4)), fk.mixed_attention(x, 3, 4))
    assert fk.modules.TemplateSearchAttention(36, np.int64(3)).num_heads == 3
    with refused(TypeError, "num_template", "int", 4.0):
        fk.mixed_attention(x, 3, 4.0)  # type: ignore[arg-type]
    with refused(TypeError, "num_template", "int", True):
        fk.mixed_attention(x, 3, True)


def test_numpys_numbers_are_scales() -> None:
    x = torch.randn(1, 9, 36)
    assert torch.equal(fk.mixed_attention(x, 3, 4, scale=np.float32(0.5)), fk.mixed_attention(x, 3, 4, scale=0.5))


class Halves(Tensor):
    """A weight that wraps another, as torchao's: only PyTorch's own functions know what it is."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Halves:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: Tensor) -> None:
        self.inner = 0.5 * inner

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None):  # type: ignore[no-untyped-def]
        if function.namespace != "aten":
            raise NotImplementedError(f"{function} knows no {cls.__name__}")
        return function(*(arg.inner if isinstance(arg, Halves) else arg for arg in args), **(kwargs or {}))


def test_weights_that_wrap_others() -> None:
    x, weight = torch.randn(2, 8), torch.randn(4, 8)
    torch.testing.assert_close(fk.linear(x, Halves(weight)), fk.linear(x, 0.5 * weight))
    image, weights = unit_inputs((1, 3, 6, 5))
    wrapped = [*weights[:-1], Halves(weights[-1])]
    halved = [*weights[:-1], 0.5 * weights[-1]]
    torch.testing.assert_close(fk.dual_attention_unit(image, wrapped), fk.dual_attention_unit(image, halved))
    with refused(RuntimeError, "'cpp'", "'reference'"):
        fk.linear(x, Halves(weight), backend="cpp")


def test_the_error_of_a_second_derivative_names_what_exists() -> None:
    x = torch.randn(1, 9, 36, requires_grad=True)
    (first,) = torch.autograd.grad(fk.mixed_attention(x, 3, 4).square().sum(), x, create_graph=True)
    with refused(RuntimeError, "fermt_kernels.reference.attention"):
        first.sum().backward()
    assert fk.reference.attention


def test_modules_take_device_and_dtype() -> None:
    made = {"device": "meta", "dtype": torch.float64}
    for module in (
        fk.modules.Linear(4, 2, **made),
        fk.modules.PatchEmbed(4, 8, **made),
        fk.modules.TemplateSearchAttention(8, 2, **made),
        fk.modules.DualAttentionUnit(**made),
    ):
        assert all(p.is_meta and p.dtype == torch.float64 for p in module.parameters())
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in fermt.build_model("fermt").parameters())


def test_the_reference_with_large_scores() -> None:
    same = torch.full((1, 1, 8, 64), 1e3)
    torch.testing.assert_close(fk.attention(same, same, same, 2, "full", backend="reference"), same)
    half = torch.full((1, 1, 8, 64), 33.0, dtype=torch.float16)
    torch.testing.assert_close(fk.attention(half, half, half, 2, "full", backend="reference"), half)
