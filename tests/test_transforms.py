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
