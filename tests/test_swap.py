"""Swapping into models written by others: conventions of FERMT's release, OSTrack's and timm's."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.patterns import key_spans

from .support.errors import lacking, refused


class Attention(nn.Module):
    """Plain attention over one sequence, as timm and OSTrack have it."""

    def __init__(self, dim: int = 48, num_heads: int = 3, attn_drop: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(0.0)

    def attend(self, x: Tensor, pattern: str, n: int) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        outputs = []
        for rows, span in zip((slice(0, n), slice(n, tokens)), key_spans(pattern, n, tokens), strict=True):
            keys = slice(*span)
            scores = (q[:, :, rows] * self.scale) @ k[:, :, keys].mT
            outputs.append(self.attn_drop(scores.softmax(-1)) @ v[:, :, keys])
        return self.proj_drop(self.proj(torch.cat(outputs, 2).transpose(1, 2).reshape(batch, tokens, dim)))

    def forward(self, x: Tensor, mask: Tensor | None = None, return_attention: bool = False) -> Tensor:
        return self.attend(x, "full", x.shape[1])


class GridAttention(Attention):
    """Attention that takes the grids and its block, as FERMT's release has it."""

    def forward(self, x: Tensor, Hz: int, Wz: int, Hx: int, Wx: int, i: int) -> Tensor:  # noqa: N803
        return self.attend(x, "mixed" if i < 2 else "cross", Hz * Wz)


class Blocks(nn.Module):
    """Four blocks of attention, each called as its kind wants."""

    def __init__(self, kind: type[Attention], **options: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": kind(**options)}) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            grids = (2, 3, 4, 3, i) if isinstance(block["attn"], GridAttention) or self.gives_grids else ()
            x = x + block["attn"](x, *grids)
        return x

    gives_grids = False


class Defaults(Attention):
    """Grids and number that need not be passed."""

    def forward(self, x: Tensor, Hz: int = 2, Wz: int = 3, Hx: int = 4, Wx: int = 3, i: int = 0) -> Tensor:  # noqa: N803
        return self.attend(x, "mixed" if i < 1 else "cross", Hz * Wz)


class FromTheEnd(Attention):
    """The search tokens are the last; how many precede them is not said."""

    def forward(self, x: Tensor, Hz: int, Wz: int, Hx: int, Wx: int) -> Tensor:  # noqa: N803
        return self.attend(x, "mixed", x.shape[1] - Hx * Wx)


TOKENS = (2, 18, 48)


def compare(model: Blocks, expected: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_passes_grids_gets_fermts_patterns() -> None:
    model, x = Blocks(GridAttention).eval(), torch.randn(TOKENS)
    expected, keys, parameters = model(x), list(model.state_dict()), set(model.parameters())
    report = fk.swap(model)
    model.gives_grids = True
    compare(model, expected, x)
    assert list(model.state_dict()) == keys
    assert set(model.parameters()) == parameters
    assert [row.name for row in report] == [f"blocks.{i}.attn" for i in range(4)]
    assert all(row.done for row in report)
    assert "replaced  attention            blocks.0.attn: pattern 'mixed'" in repr(report)
    assert "blocks.3.attn: pattern 'cross'" in repr(report)


def test_arguments_that_are_left_out_have_their_defaults() -> None:
    model, x = nn.Sequential(Defaults(), Defaults()).eval(), torch.randn(TOKENS)
    expected = model(x)
    report = fk.swap(model)
    assert all(row.done for row in report), report
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_a_number_that_was_not_compared_is_refused() -> None:
    model, x = nn.Sequential(GridAttention()), torch.randn(TOKENS)
    assert all(row.done for row in fk.swap(model))
    model[0](x, 2, 3, 4, 3, 0)
    for number in (5, -1):  # one module for all blocks
        with refused(ValueError, number, "pattern"):
            model[0](x, 2, 3, 4, 3, number)
    fk.unswap(model)
    assert all(row.done for row in fk.swap(model, pattern="mixed"))
    model[0](x, 2, 3, 4, 3, 5)


def test_more_tokens_than_the_grids_have_are_compared() -> None:
    (row,) = fk.swap(nn.Sequential(FromTheEnd()))
    assert (row.done, "differs" in row.detail) == (False, True), row.detail


def test_a_model_that_takes_x_alone_gets_full_attention() -> None:
    model, x = Blocks(Attention).eval(), torch.randn(TOKENS)
    expected = model(x)
    assert all(row.detail == "pattern 'full'" for row in fk.swap(model))
    compare(model, expected, x)


def test_patterns_may_be_given() -> None:
    model, x = Blocks(Attention).eval(), torch.randn(TOKENS)
    names = ["self", "mixed", "cross", "one_way_cross"]
    expected = x
    for block, name in zip(model.blocks, names, strict=True):
        expected = expected + block["attn"].attend(expected, name, 6)
    fk.swap(model, pattern=names, num_template=6)
    compare(model, expected, x)


def test_gradients_reach_the_original_parameters() -> None:
    model, x = Blocks(GridAttention).train(), torch.randn(TOKENS)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model(x).square().mean(), parameters)
    fk.swap(model)
    model.gives_grids = True
    actual = torch.autograd.grad(model(x).square().mean(), parameters)
    for got, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_a_swapped_model_compiles_as_one_graph() -> None:
    model, x = Blocks(GridAttention).eval(), torch.randn(TOKENS)
    expected = model(x)
    fk.swap(model)
    model.gives_grids = True
    compare(torch.compile(model, fullgraph=True, backend="aot_eager"), expected, x)


class Unit(nn.Module):
    """A Dual Attention Unit under the authors' keys."""

    def __init__(self) -> None:
        super().__init__()
        ours = fk.modules.DualAttentionUnit()
        self.proj_1, self.spatial_gating_unit, self.proj_2 = ours.proj_1, ours.spatial_gating_unit, ours.proj_2

    def forward(self, x: Tensor) -> Tensor:
        u = nn.functional.gelu(self.proj_1(x))
        gate = self.spatial_gating_unit
        spatial = gate.conv1(gate.conv_spatial(gate.conv0(u)))
        return self.proj_2(gate.fc(u.mean((2, 3)))[:, :, None, None] * spatial * u) + x


def test_dual_attention_units_are_replaced() -> None:
    model, x = nn.ModuleDict({"dau": Unit()}), torch.randn(1, 3, 20, 30)
    expected, keys, parameters = model["dau"](x), list(model.state_dict()), set(model.parameters())
    (row,) = fk.swap(model)
    assert row == ("dau", "dual attention unit", True, "3 channels")
    assert isinstance(model["dau"], fk.modules.DualAttentionUnit)
    torch.testing.assert_close(model["dau"](x), expected, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == keys
    assert set(model.parameters()) == parameters


def test_our_own_modules_get_the_backend() -> None:
    model = fermt.build_model("fermt", patterns=("mixed", "cross"))
    assert len(fk.swap(model, backend="reference")) == 3
    assert {m.backend for m in model.modules() if hasattr(m, "backend")} == {"reference"}


def test_dropout_in_training_is_refused() -> None:
    model = Blocks(Attention, attn_drop=0.1).train()
    report = fk.swap(model)
    assert not any(row.done for row in report)
    assert lacking(repr(report), "dropout", 0.1) == []
    assert isinstance(model.blocks[0]["attn"], Attention)
    fk.swap(model.eval())
    model(torch.randn(TOKENS))
    with refused(RuntimeError, "attn_drop"):
        model.train()(torch.randn(TOKENS))


def test_attention_maps_and_masks_are_refused() -> None:
    model = Blocks(Attention).eval()
    fk.swap(model)
    attention, x = model.blocks[0]["attn"], torch.randn(TOKENS)
    attention(x, mask=None, return_attention=False)
    with refused(ValueError, "return_attention"):
        attention(x, None, True)
    with refused(ValueError, "mask"):
        attention(x, mask=torch.zeros(18, 18))


def test_other_parameters_are_refused() -> None:
    model = Blocks(Attention)
    model.blocks[1]["attn"].relative_position_bias_table = nn.Parameter(torch.zeros(4))
    report = fk.swap(model)
    assert [row.done for row in report] == [True, False, True, True]
    assert "relative_position_bias_table" in report[1].detail


def test_a_pattern_without_num_template_is_refused() -> None:
    report = fk.swap(Blocks(Attention), pattern="mixed")
    assert lacking(report[0].detail, "'mixed'", "num_template") == []


def test_bad_input() -> None:
    with refused(ValueError, "pattern", "'x'"):
        fk.swap(Blocks(Attention), pattern="x")
    with refused(ValueError, 4, 3):
        fk.swap(Blocks(Attention), pattern=["mixed"] * 3)
    with refused(ValueError, "backend", "'x'"):
        fk.swap(Blocks(Attention), backend="x")
    with refused(ValueError, "'qkv'"):
        fk.swap(nn.Linear(3, 3))
