"""A swap changes no result: what it cannot prove equal it refuses, with the reason; what it replaced it can restore."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.swapping.attention import SwappedAttention

DIM, HEADS = 48, 4


class Plain(nn.Module):
    """Multi-head attention as timm has it; subclasses spoil it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, (DIM // HEADS) ** -0.5
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.attn_drop = nn.Dropout(0.0)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def joined(self, out: Tensor) -> Tensor:
        return self.proj(out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.joined(F.scaled_dot_product_attention(*self.heads(x), scale=self.scale))


class Causal(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.joined(F.scaled_dot_product_attention(*self.heads(x), is_causal=True))


class OverChannels(Plain):
    """Attention between channels, as DaViT's."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined(v @ (k.mT @ q * self.scale).softmax(-2))


class Interleaved(Plain):
    """q, k and v of a head side by side, as Megatron's."""

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).unflatten(2, (HEADS, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)


class Detached(Plain):
    """The right result, and another gradient."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        return self.joined(F.scaled_dot_product_attention(q, k.detach(), v))


class OnlyInTraining(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.5 if self.training else 1.0)


class Rotary(Plain):
    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        return super().forward(x)


class OtherGrids(Plain):
    def forward(self, x: Tensor, t_h: int, t_w: int, s_h: int, s_w: int) -> Tensor:
        return super().forward(x)


class AnyArguments(Plain):
    def forward(self, x: Tensor, **options: object) -> Tensor:
        return super().forward(x)


class WithChild(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool1d(3, 1, 1)


class WithBuffer(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("relative_bias", torch.zeros(4))


class WithFlag(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.window = 7


class OnImages(Plain):
    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        return super().forward(x.view(batch, height * width, dim)).view(batch, height, width, dim)


REFUSED: dict[type[Plain], str] = {
    Causal: "differs",
    OverChannels: "differs",
    Interleaved: "differs",
    Detached: "gradient",
    OnlyInTraining: "training",
    Rotary: "rope",
    OtherGrids: "t_h, t_w, s_h, s_w",
    AnyArguments: "any arguments",
    WithChild: "pool",
    WithBuffer: "relative_bias",
    WithFlag: "window = 7",
    OnImages: "cannot be run",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_equal_is_refused_with_the_reason(kind: type[Plain]) -> None:
    model = nn.Sequential(kind()).eval()
    (row,) = fk.swap(model)
    assert not row.done
    assert REFUSED[kind] in row.detail
    assert type(model[0]) is kind


def test_what_the_caller_vouches_for_is_ignored() -> None:
    (row,) = fk.swap(nn.Sequential(WithFlag()), ignore=("window",))
    assert row.done, row.detail


def test_nobody_hears_of_the_comparison() -> None:
    """No hook is called, no random number drawn, no mode, gradient or parameter changed."""
    model, calls = nn.Sequential(Plain()).train(), []
    model[0].register_forward_hook(lambda *_: calls.append("after"))
    model[0].qkv.register_forward_pre_hook(lambda *_: calls.append("before"))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    (row,) = fk.swap(model)
    assert row.done, row.detail
    assert not calls
    assert torch.equal(state, torch.get_rng_state())
    assert model[0].training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_hooks_stay_and_their_handles_remove_them() -> None:
    model, calls, x = nn.Sequential(Plain()), [], torch.randn(2, 5, DIM)
    handles = [model[0].register_forward_hook(lambda *_: calls.append("after"))]
    handles.append(model[0].register_full_backward_hook(lambda *_: calls.append("backward")))
    handles.append(model[0].proj.register_forward_pre_hook(lambda *_: calls.append("proj")))
    fk.swap(model)
    assert isinstance(model[0], SwappedAttention)
    model(x.requires_grad_()).sum().backward()
    assert calls == ["proj", "after", "backward"]
    for handle in handles:
        handle.remove()
    model(x).sum().backward()
    assert len(calls) == 3


def test_a_hook_on_what_would_not_be_called_refuses() -> None:
    model = nn.Sequential(Plain())
    model[0].attn_drop.register_forward_hook(lambda *_: None)
    (row,) = fk.swap(model)
    assert not row.done
    assert "attn_drop has hooks" in row.detail


def test_unswap_restores_bit_for_bit() -> None:
    model, x = nn.Sequential(Plain(), nn.LayerNorm(DIM), Plain()).eval(), torch.randn(2, 7, DIM)
    expected, modules, keys = model(x), list(model.modules()), list(model.state_dict())
    fk.swap(model)
    assert fk.unswap(model) == 2
    assert list(model.modules()) == modules
    assert list(model.state_dict()) == keys
    assert torch.equal(model(x), expected)
    assert fk.unswap(model) == 0


def test_unswap_keeps_what_was_trained_and_what_was_wrapped() -> None:
    model, x = nn.Sequential(Plain()), torch.randn(2, 7, DIM)
    fk.swap(model)
    with torch.no_grad():
        model[0].qkv.weight.mul_(2)
    model[0].proj = nn.Sequential(model[0].proj, nn.Tanh())  # somebody wraps a layer
    expected = model.eval()(x)
    fk.unswap(model)
    assert not model[0].training
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_a_second_swap_changes_the_backend_alone() -> None:
    model = nn.Sequential(Plain())
    fk.swap(model)
    first = model[0]
    (row,) = fk.swap(model, backend="reference")
    assert row.done
    assert model[0] is first
    assert first.backend == "reference"


def test_patterns_go_by_the_order_of_modules() -> None:
    names = ["self", "mixed", "cross", "full"]
    model = nn.ModuleDict({f"stage{i}": nn.ModuleList([Plain(), Plain()]) for i in (1, 2)})
    rows = fk.swap(model, pattern=names, num_template=4)
    assert [row.name for row in rows] == ["stage1.0", "stage1.1", "stage2.0", "stage2.1"]
    for row, name in zip(rows, names, strict=True):
        assert row.done, row.detail
        assert f"pattern {name!r}" in row.detail
        assert (name == "full") or "in place of 'full'" in row.detail


def test_a_model_that_is_an_attention_says_how() -> None:
    with pytest.raises(ValueError, match="Sequential"):
        fk.swap(Plain())


def test_the_meta_device_is_refused() -> None:
    with torch.device("meta"):
        model = nn.Sequential(Plain())
    (row,) = fk.swap(model)
    assert not row.done
    assert "meta" in row.detail


def test_a_module_used_twice_is_replaced_in_both_places() -> None:
    shared, x = Plain(), torch.randn(2, 6, DIM)
    model = nn.Sequential(shared, shared).eval()
    expected = model(x)
    assert len(fk.swap(model)) == 1
    assert model[0] is model[1]
    assert isinstance(model[1], SwappedAttention)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_dropped_arguments_raise_when_they_are_passed() -> None:
    class Masked(Plain):
        def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
            mask = {} if attn_mask is None else {"attn_mask": attn_mask}
            return self.joined(F.scaled_dot_product_attention(*self.heads(x), is_causal=is_causal, **mask))

    model, x = nn.Sequential(Masked()), torch.randn(2, 6, DIM)
    (row,) = fk.swap(model)
    assert row.done, row.detail
    model[0](x, None, False)
    with pytest.raises(ValueError, match="is_causal"):
        model[0](x, is_causal=True)
    with pytest.raises(TypeError, match="rope"):
        model[0](x, rope=x)


def test_a_swapped_model_can_be_copied() -> None:
    model, x = nn.Sequential(Plain()).eval(), torch.randn(2, 6, DIM)
    fk.swap(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    assert fk.unswap(twin) == 1
    assert twin[0].qkv.weight is not model[0].qkv.weight


class Unit(nn.Module):
    """A Dual Attention Unit under the authors' keys; `factor` spoils it."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        ours = fk.modules.DualAttentionUnit()
        self.proj_1, self.spatial_gating_unit, self.proj_2 = ours.proj_1, ours.spatial_gating_unit, ours.proj_2
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        u, gate = F.gelu(self.proj_1(x)), self.spatial_gating_unit
        spatial = gate.conv1(gate.conv_spatial(gate.conv0(u)))
        return self.proj_2(self.factor * gate.fc(u.mean((2, 3)))[:, :, None, None] * spatial * u) + x


def test_units_are_compared_and_restored_too() -> None:
    model, x = nn.ModuleDict({"right": Unit(), "wrong": Unit(1.1), "hooked": Unit()}), torch.randn(2, 3, 12, 10)
    model["hooked"].proj_1.register_forward_hook(lambda *_: None)
    expected = model["right"](x)
    rows = {row.name: row for row in fk.swap(model)}
    assert [rows[name].done for name in model] == [True, False, False]
    assert "differs" in rows["wrong"].detail
    assert "hooks" in rows["hooked"].detail
    torch.testing.assert_close(model["right"](x), expected, rtol=1e-5, atol=1e-5)
    assert fk.unswap(model) == 1
    assert torch.equal(model["right"](x), expected)
