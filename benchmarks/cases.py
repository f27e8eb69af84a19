"""The ops at the shapes that are checked and measured, and every form of them in PyTorch, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.patterns import key_spans

OURS = "fermt"
NUM_TEMPLATE, NUM_TOKENS, NUM_HEADS, DIM = 64, 320, 12, 192  # the model's
Run = Callable[..., Tensor]  # takes a case's inputs


class OpCase(Protocol):
    """An op at some shape."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        """Its tensors on the CPU, the same in every run."""

    def runners(self) -> dict[str, Run]:
        """Functions of these tensors by name: ours, "eager", and others."""


class AttentionCase(NamedTuple):
    """Packed attention; the defaults are the model's sizes."""

    pattern: str
    batch: int
    heads: int = NUM_HEADS
    n: int = NUM_TEMPLATE
    tokens: int = NUM_TOKENS

    @property
    def name(self) -> str:
        size = "" if self.tokens == NUM_TOKENS else f" N={self.tokens}"
        return f"{self.pattern} B={self.batch} D={DIM // self.heads}{size}"

    def qkv(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, N, 3 C), of the magnitude that a trained projection has."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, self.tokens, 3 * DIM, generator=generator).to(dtype)

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [self.qkv(dtype)]

    def runners(self) -> dict[str, Run]:
        return {name: partial(run, case=self) for name, run in ATTENTION.items()}


class UnitCase(NamedTuple):
    """The Dual Attention Unit on an image."""

    size: int
    batch: int

    @property
    def name(self) -> str:
        return f"DAU {self.size}x{self.size} B={self.batch}"

    def image(self, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(dtype)

    def weights(self, dtype: torch.dtype = torch.float32) -> fk.DAUWeights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = fk.modules.DualAttentionUnit()
        return fk.DAUWeights(*(weight.detach().to(dtype) for weight in module.weights()))

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [self.image(dtype), *self.weights(dtype)]

    def runners(self) -> dict[str, Run]:
        return UNIT


class LinearCase(NamedTuple):
    """A linear layer of the model."""

    inputs_outputs: tuple[int, int]
    batch: int
    gelu: bool = False

    @property
    def name(self) -> str:
        inputs, outputs = self.inputs_outputs
        return f"linear {inputs}-{outputs}{' GELU' if self.gelu else ''} B={self.batch}"

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        inputs, outputs = self.inputs_outputs
        generator = torch.Generator().manual_seed(0)
        shapes = (self.batch, NUM_TOKENS, inputs), (outputs, inputs), (outputs,)
        scales = 1.0, inputs**-0.5, 1.0
        pairs = zip(shapes, scales, strict=True)
        return [(torch.randn(shape, generator=generator) * scale).to(dtype) for shape, scale in pairs]

    def runners(self) -> dict[str, Run]:
        return {name: partial(run, gelu=self.gelu) for name, run in LINEAR.items()}


def _heads(qkv: Tensor, case: AttentionCase) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, _ = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, case.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _tokens(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _by_group(attend: Callable[..., Tensor], qkv: Tensor, case: AttentionCase) -> Tensor:
    """One dense attention for each query group, as the authors write it; 0 for a group that sees nothing.

    Not the reference, which also computes `lse` and is slower.
    """
    q, k, v = _heads(qkv, case)
    outputs = []
    for rows, span in zip(
        (slice(0, case.n), slice(case.n, case.tokens)), key_spans(case.pattern, case.n, case.tokens), strict=True
    ):
        keys = slice(*span)
        outputs.append(attend(q[:, :, rows], k[:, :, keys], v[:, :, keys]))
    return _tokens(torch.cat(outputs, dim=2))


def _softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v


@cache
def _mask(pattern: str, n: int, tokens: int, device: torch.device) -> Tensor:
    mask = torch.zeros(tokens, tokens, dtype=torch.bool, device=device)
    spans = key_spans(pattern, n, tokens)
    mask[:n, slice(*spans.template)] = True
    mask[n:, slice(*spans.search)] = True
    return mask


def _masked_sdpa(qkv: Tensor, case: AttentionCase) -> Tensor:
    q, k, v = _heads(qkv, case)
    mask = _mask(case.pattern, case.n, case.tokens, q.device)
    return _tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


@cache
def _block_mask(pattern: str, n: int, tokens: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    template, search = key_spans(pattern, n, tokens)

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        by_template = (key >= template[0]) & (key < template[1])
        return torch.where(query < n, by_template, (key >= search[0]) & (key < search[1]))

    return create_block_mask(seen, None, None, tokens, tokens, device=str(device))


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flex_attention(qkv: Tensor, case: AttentionCase) -> Tensor:
    """FlexAttention, compiled, with a block mask of the pattern."""
    q, k, v = _heads(qkv, case)
    mask = _block_mask(case.pattern, case.n, case.tokens, q.device)
    return _tokens(_compiled_flex()(q, k, v, block_mask=mask))


def _ours(qkv: Tensor, case: AttentionCase) -> Tensor:
    return fk.attention_packed(qkv, case.heads, case.n, case.pattern)


eager_attention: Run = partial(_by_group, _softmax)

ATTENTION: dict[str, Run] = {
    OURS: _ours,
    "eager": eager_attention,
    "SDPA a group": partial(_by_group, F.scaled_dot_product_attention),
    "SDPA, mask": _masked_sdpa,
}


def _our_unit(x: Tensor, *weights: Tensor) -> Tensor:
    return fk.dual_attention_unit(x, fk.DAUWeights(*weights))


def eager_unit(x: Tensor, *tensors: Tensor) -> Tensor:
    """The unit in eager PyTorch: the reference, without the op around it."""
    return fk.reference.dual_attention_unit(x, tensors)


UNIT: dict[str, Run] = {OURS: _our_unit, "eager": eager_unit}


def _eager_linear(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool) -> Tensor:
    return F.linear(F.gelu(x) if gelu else x, weight, bias)


LINEAR: dict[str, Run] = {OURS: fk.linear, "eager": _eager_linear}


ATTENTION_CASES = (
    *(AttentionCase(pattern, batch) for pattern in ("mixed", "cross", "full") for batch in (1, 8, 32)),
    AttentionCase("mixed", 8, heads=3),
    AttentionCase("cross", 8, heads=3),
)
LONG_CASES = tuple(AttentionCase("mixed", 1, n=256 * scale, tokens=1280 * scale) for scale in (1, 2, 4))
UNIT_CASES = (UnitCase(256, 1), UnitCase(128, 1), UnitCase(256, 8))
LINEAR_CASES = tuple(
    LinearCase(shape, batch, gelu)
    for shape, gelu in (((DIM, 3 * DIM), False), ((4 * DIM, DIM), True))
    for batch in (1, 8)
)
# An op by the name that backends know it by: its cases, and the one that stands for it in a comparison of backends.
OPS: dict[str, tuple[Sequence[OpCase], OpCase]] = {
    "attention": ((*ATTENTION_CASES, LONG_CASES[-1]), ATTENTION_CASES[0]),
    "dual_attention_unit": (UNIT_CASES, UNIT_CASES[0]),
    "linear": (LINEAR_CASES, LINEAR_CASES[2]),
}
