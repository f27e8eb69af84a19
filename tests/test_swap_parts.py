"""Swaps of modules with odd parts, in odd modes and dtypes: equal, refused with the reason, or restored whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.testing import assert_accurate

from .support.errors import refused
from .test_swap_trust import DIM, HEADS, Causal, Plain, Unit


class DropoutBefore(Plain):
    """Dropout before the projection, where a replacement has it after."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_drop = nn.Dropout(0.5)

    def joined(self, out: Tensor) -> Tensor:
        return self.proj(self.proj_drop(out.transpose(1, 2).flatten(2)))


class DropoutNowhere(Plain):
    """Dropout that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_drop = nn.Dropout(0.5)


class Window(Plain):
    """Keys at most `window` tokens away, which short sequences do not show."""

    window = 16

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        near = (places[:, None] - places).abs() <= self.window
        return self.joined(F.scaled_dot_product_attention(*self.heads(x), attn_mask=near))


class SixtyFour(Plain):
    """The first 64 tokens see only each other: a tracker whose template has that many."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        first = F.scaled_dot_product_attention(*(t[:, :, :64] for t in (q, k, v)))
        return self.joined(torch.cat((first, F.scaled_dot_product_attention(q[:, :, 64:], k, v)), 2))


@pytest.mark.parametrize("kind", [DropoutBefore, DropoutNowhere, Window, SixtyFour])
def test_what_small_inputs_do_not_show_is_refused(kind: type[Plain]) -> None:
    (row,) = fk.swap(nn.Sequential(kind()))
    assert not row.done
    assert "differs" in row.detail


def test_a_dropout_after_the_projection_stays() -> None:
    class After(DropoutNowhere):
        def joined(self, out: Tensor) -> Tensor:
            return self.proj_drop(super().joined(out))

    model = nn.Sequential(After())
    (row,) = fk.swap(model)
    assert row.done, row.detail
    zeros = (model.train()(torch.randn(8, 40, DIM)) == 0).double().mean()
    assert 0.4 < zeros < 0.6


class DroppingUnit(Unit):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


def test_a_unit_with_dropout_is_refused() -> None:
    (row,) = fk.swap(nn.Sequential(DroppingUnit()))
    assert not row.done
    assert "drop of 0.3" in row.detail


def on_the_instance(module: nn.Module, calls: list[nn.Module]) -> None:
    """Puts another forward on an instance, as Accelerate does to load weights when they are needed."""
    before = module.forward

    def forward(x: Tensor) -> Tensor:
        calls.append(module)
        return 2 * before(x)

    module.forward = forward  # type: ignore[method-assign]


IN_PLACE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "attention": (Plain, (2, 7, DIM), ""),
    "unit": (Unit, (1, 3, 9, 8), ""),
    "a unit's layer": (Unit, (1, 3, 9, 8), "proj_1"),
}


@pytest.mark.parametrize("what", IN_PLACE)
def test_a_forward_on_the_instance_is_called_as_before(what: str) -> None:
    kind, shape, layer = IN_PLACE[what]
    model, x, calls = nn.Sequential(kind()).eval(), torch.randn(shape), []
    on_the_instance(model[0].get_submodule(layer), calls)
    expected = model(x)
    (row,) = fk.swap(model)
    assert not row.done
    assert torch.equal(model(x), expected)
    assert len(calls) == 2


OURS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "unit": (fk.modules.DualAttentionUnit, "proj_1"),
    "patches": (lambda: fk.modules.PatchEmbed(4, 8), "proj"),
}


@pytest.mark.parametrize("what", OURS)
def test_a_forward_on_an_instance_in_our_modules_is_called(what: str) -> None:
    make, layer = OURS[what]
    module, x, calls = make(), torch.randn(1, 3, 8, 8), []
    before = module(x)
    on_the_instance(module.get_submodule(layer), calls)
    assert not torch.allclose(module(x), before, atol=1e-4)
    assert len(calls) == 1


MODES: dict[str, Callable[[], AbstractContextManager]] = {
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_in_which_it_is_called_changes_nothing(mode: str) -> None:
    model, x = nn.ModuleList([Plain(), Unit()]), torch.randn(1, 6, DIM)
    with MODES[mode]():
        rows = fk.swap(model)
    assert [row.done for row in rows] == [True, True], rows
    model[0](x).sum().backward()
    model[1](torch.randn(1, 3, 6, 6)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_dtypes(dtype: torch.dtype) -> None:
    model, x = nn.Sequential(Plain()).to(dtype), torch.randn(2, 7, DIM, dtype=dtype)
    expected, truth = model(x), copy.deepcopy(model).double()(x.double())
    (row,) = fk.swap(model)
    assert row.done, row.detail
    if dtype == torch.float64:
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    else:
        assert_accurate(model(x), expected, truth)
    assert model[0].qkv.weight.dtype == dtype
    (row,) = fk.swap(nn.Sequential(Unit()).to(dtype))
    assert row.done, row.detail


@pytest.mark.parametrize(("kind", "shape"), [(Plain, (2, 7, DIM)), (Unit, (2, 3, 7, 6))])
def test_what_is_done_to_a_replacement_outlives_it(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    model, calls = nn.Sequential(kind()), []
    fk.swap(model)
    model[0].register_full_backward_hook(lambda *_: calls.append("backward"))
    if kind is Plain:
        model[0].scale = 1.0
    x = torch.randn(shape, requires_grad=True)
    expected = model(x)
    expected.sum().backward()
    assert fk.unswap(model) == 1
    found = model(x)
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert calls == ["backward", "backward"]


class Capped(Plain):
    """Scores of at most 10, which small weights do not reach."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined((q @ k.mT * self.scale).clamp(-10, 10).softmax(-1) @ v)


class Untrained(Causal):
    """A projection of zeros, with which all attention is the same."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.proj.weight)


class Constant(Plain):
    """The right numbers, but a projection that is not trained."""

    def joined(self, out: Tensor) -> Tensor:
        return F.linear(out.transpose(1, 2).flatten(2), self.proj.weight.detach(), self.proj.bias)


@pytest.mark.parametrize("kind", [Capped, Untrained, Constant])
def test_what_the_present_weights_do_not_show_is_refused(kind: type[Plain]) -> None:
    (row,) = fk.swap(nn.Sequential(kind()))
    assert (row.done, "differs" in row.detail) == (False, True), row.detail


def test_a_unit_whose_last_layer_is_zero_is_compared_all_the_same() -> None:
    model = nn.Sequential(Unit(3.0))
    nn.init.zeros_(model[0].proj_2.weight)
    (row,) = fk.swap(model)
    assert (row.done, "differs" in row.detail) == (False, True), row.detail


class WithState(Plain):
    def get_extra_state(self) -> int:
        return 1

    def set_extra_state(self, state: int) -> None:
        assert state == 1


class OldKeys(Plain):
    def _load_from_state_dict(self, state: dict, prefix: str, *rest: object) -> None:
        state[prefix + "qkv.weight"] = state.pop(prefix + "in_proj")
        super()._load_from_state_dict(state, prefix, *rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "method"), [(WithState, "get_extra_state"), (OldKeys, "_load_from_state_dict")])
def test_what_a_class_does_to_its_state_is_refused(kind: type[Plain], method: str) -> None:
    (row,) = fk.swap(nn.Sequential(kind()))
    assert (row.done, method in row.detail) == (False, True), row.detail


def test_the_state_dict_keeps_its_order_and_its_ignored_buffers() -> None:
    model = nn.Sequential(Plain())
    model[0].qkv = model[0]._modules.pop("qkv")  # the last of the children
    model[0].register_buffer("index", torch.arange(4))
    keys = list(model.state_dict())
    (row,) = fk.swap(model, ignore="index")
    assert row.done, row.detail
    assert list(model.state_dict()) == keys
    fk.unswap(model.double())
    assert list(model.state_dict()) == keys


class Switched(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.causal, self.head_dim = False, DIM // HEADS

    def forward(self, x: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(*self.heads(x), is_causal=self.causal)
        return self.joined(self.attn_drop(out))


def test_attributes_are_there_and_what_is_not_read_cannot_be_set() -> None:
    model = nn.Sequential(Switched())
    original = model[0]
    fk.swap(model)
    assert (model[0].head_dim, model[0].causal) == (DIM // HEADS, False)
    model[0].causal = False
    for name in ("causal", "joined"):
        with refused(AttributeError, name, "unswap"):
            setattr(model[0], name, True)
    model[0].num_heads = 2
    fk.unswap(model)
    assert (original.num_heads, original.causal) == (2, False)


def test_a_dropout_or_a_hook_that_comes_after_the_swap_is_not_ignored() -> None:
    model, x = nn.Sequential(Switched()).train(), torch.randn(2, 6, DIM)
    fk.swap(model)
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(dropouts) == 1
    dropouts[0].p = 0.5
    with refused(RuntimeError, "attn_drop", 0.5, "unswap"):
        model(x)
    model.eval()(x)
    handle = model[0].attn_drop.register_forward_hook(lambda *_: None)
    with refused(RuntimeError, "attn_drop", "hooks", "unswap"):
        model(x)
    handle.remove()
    model(x)


def test_attributes_of_any_class_are_refused_in_words() -> None:
    model = nn.Sequential(Plain())
    model[0].index = np.arange(3)
    (row,) = fk.swap(model)
    assert (row.done, "index = array" in row.detail) == (False, True), row.detail


def test_a_units_layers_stay_and_what_is_done_to_them_outlives_it() -> None:
    model, x, calls = nn.Sequential(Unit()), torch.randn(2, 3, 7, 6), []
    layer, state = model[0].proj_1, torch.get_rng_state()
    fk.swap(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model[0].proj_1 is layer
    layer.register_forward_hook(lambda *_: calls.append("proj_1"))
    model[0].proj_2 = nn.Sequential(model[0].proj_2, nn.Tanh())
    expected = model(x)
    assert fk.unswap(model) == 1
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
    assert calls == ["proj_1", "proj_1"]


def test_arguments_by_name() -> None:
    class Hidden(Plain):
        def forward(self, hidden: Tensor, attn_mask: Tensor | None = None) -> Tensor:
            return super().forward(hidden)

    model, x = nn.Sequential(Hidden()), torch.randn(2, 6, DIM)
    expected = model[0](hidden=x, attn_mask=None)
    (row,) = fk.swap(model)
    assert row.done, row.detail
    torch.testing.assert_close(model[0](hidden=x, attn_mask=None), expected, rtol=1e-5, atol=1e-5)
    for arguments in ((), (x, None, None)):
        with refused(TypeError, "hidden", "attn_mask"):
            model[0](*arguments)
    with refused(TypeError, "hidden"):
        model[0](attn_mask=None)


def test_numpys_heads_one_name_to_ignore_and_numbers_of_template_tokens() -> None:
    model = nn.Sequential(Plain())
    model[0].num_heads, model[0].window = np.int64(model[0].num_heads), 7
    (row,) = fk.swap(model, ignore="window")
    assert row.done, row.detail
    for bad, error in ((-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with refused(error, "num_template", bad):
            fk.swap(nn.Sequential(Plain()), pattern="mixed", num_template=bad)  # type: ignore[arg-type]
    (row,) = fk.swap(nn.Sequential(Plain()), pattern="mixed", num_template=np.int32(2))
    assert row.done, row.detail
