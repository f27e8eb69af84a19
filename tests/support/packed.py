"""Small models to pack; a reader that shares nothing with the packer; and the frame by what it read, in float64."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.model import layers

SMALL = {"dim": 32, "num_heads": 2, "mlp_ratio": 1.5, "patch_size": 8, "template_size": 16, "search_size": 32}
CONFIGS = {
    "center": fermt.ModelConfig(patterns=("mixed", "cross", "full"), **SMALL),
    "corner": fermt.ModelConfig(patterns=fk.PATTERNS, head="corner", dau=False, reweight=True, **SMALL),
}

# Byte offsets of the header's fields, as csrc/abi/packed_model.h has them; q: int64, d: double.
FIELDS = {
    "version": (8, "q"),
    "total_bytes": (16, "q"),
    "checksum": (24, "q"),
    "dtype": (32, "q"),
    "head": (40, "q"),
    "reweight": (48, "q"),
    "dim": (56, "q"),
    "heads": (64, "q"),
    "depth": (72, "q"),
    "hidden": (80, "q"),
    "patch": (88, "q"),
    "template_size": (96, "q"),
    "search_size": (104, "q"),
    "dau": (112, "q"),
    "kernel": (120, "q"),
    "dilated_kernel": (128, "q"),
    "dau_hidden": (136, "q"),
    "widths": (144, "4q"),
    "eps": (176, "d"),
    "scale": (184, "d"),
    "template_factor": (192, "d"),
    "search_factor": (200, "d"),
    "patterns": (208, "64q"),
}
BRANCHES = {0: (1, 2, 2), 1: (1, 1)}  # outputs of each: ctr, offset, size; tl, br
PATTERNS = {1 + 8: "self", 1 + 4 + 8: "mixed", 1 + 2 + 4 + 8: "full", 4: "one_way_cross", 2 + 4: "cross"}
INPUT = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=torch.float64)  # B^T
OUTPUT = torch.tensor([[1, 1, 1, 0], [0, 1, -1, -1]], dtype=torch.float64)  # A^T


def small_model(head: str, widths: tuple[int, ...] = (48, 32, 16, 16), **choices: Any) -> fermt.FERMT:
    """One of `CONFIGS`, but for `choices`, in evaluation mode, with a narrow head, and norms that all do something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "WIDTHS", widths)
        model = fermt.build_model(dataclasses.replace(CONFIGS[head], **choices))
    generator = torch.Generator().manual_seed(1)
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point() and tensor.dim() == 1:
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
        elif ".blocks." in key:
            tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def sharpened(model: fermt.FERMT, factor: float = 20) -> fermt.FERMT:
    """The model with larger queries in every second head, whose scores are too large to take without a maximum."""
    for name, module in model.named_modules():
        if name.endswith(".qkv"):
            size = model.config.dim // model.config.num_heads
            for head in range(1, model.config.num_heads, 2):
                module.weight.data[head * size : (head + 1) * size] *= factor
                module.bias.data[head * size : (head + 1) * size] *= factor
    return model


def header(blob: bytes) -> SimpleNamespace:
    found = {name: struct.unpack_from(f"<{kind}", blob, offset) for name, (offset, kind) in FIELDS.items()}
    return SimpleNamespace(**{name: values[0] if len(values) == 1 else values for name, values in found.items()})


def panel_value(section: bytes, outputs: int, inputs: int, dtype: int, n: int, k: int) -> float:
    """The weight of output n and input k in a panel set, by the format's words."""
    padded, per_word = -(-outputs // 16) * 16, 2 if dtype == 1 else 1
    words, panel = -(-inputs // per_word), n // 64
    width = min(64, padded - 64 * panel)
    at = 4 * (64 * panel * words + (k // per_word) * width + n % 64)
    if dtype == 0:
        return struct.unpack_from("<f", section, at)[0]
    (half,) = struct.unpack_from("<H", section, at + 2 * (k % 2))
    return struct.unpack("<f", struct.pack("<I", half << 16))[0]


class Reader:
    """Takes section after section, each from the next multiple of 64 bytes."""

    def __init__(self, blob: Tensor) -> None:
        self.blob, self.at = bytes(blob.numpy().data), 1024
        self.header = header(self.blob)

    def take(self, size: int) -> bytes:
        section = self.blob[self.at : self.at + size]
        assert len(section) == size
        end = self.at + -(-size // 64) * 64
        assert not any(self.blob[self.at + size : end]), "padding must be zero"
        self.at = end
        return section

    def floats(self, *shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.tensor(struct.unpack(f"<{count}f", self.take(4 * count)), dtype=torch.float64).view(shape)

    def bias(self, outputs: int) -> Tensor:
        padded = self.floats(-(-outputs // 16) * 16)
        assert not padded[outputs:].any()
        return padded[:outputs]

    def panels(self, outputs: int, inputs: int) -> Tensor:
        """As `panel_value`, for all weights at once."""
        padded, per_word = -(-outputs // 16) * 16, 2 if self.header.dtype == 1 else 1
        words = -(-inputs // per_word)
        section = bytearray(self.take(4 * padded * words))
        n, k = torch.arange(outputs)[:, None], torch.arange(inputs)[None]
        width = (padded - n // 64 * 64).clamp(max=64)
        at = (n // 64 * 64 * words + k // per_word * width + n % 64) * per_word + k % per_word
        return torch.frombuffer(section, dtype=torch.float32 if per_word == 1 else torch.bfloat16)[at].double()

    def matrix(self, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        bias = self.bias(outputs)
        return self.panels(outputs, inputs), bias

    def convolution(self, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        """Winograd's (16, N, Cin) in float32, else (N, Cin, 3, 3); and the bias."""
        bias = self.bias(outputs)
        if self.header.dtype == 0:
            return torch.stack([self.panels(outputs, inputs) for _ in range(16)]), bias
        return self.panels(outputs, 9 * inputs).view(outputs, 3, 3, inputs).permute(0, 3, 1, 2), bias


def winograd(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """x (B, Cin, H, W), H and W even, with F(2x2, 3x3)'s transformed filters (16, N, Cin), padded by one."""
    tiles = F.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # (B, Cin, H / 2, W / 2, 4, 4)
    products = torch.einsum("ijnc,bcyxij->bnyxij", filters.view(4, 4, *filters.shape[1:]), INPUT @ tiles @ INPUT.T)
    squares = OUTPUT @ products @ OUTPUT.T  # (B, N, H / 2, W / 2, 2, 2)
    return squares.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3) + bias.view(-1, 1, 1)


def convolve(x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    return winograd(x, filters, bias) if filters.dim() == 3 else F.conv2d(x, filters, bias, padding=1)


def frame(blob: Tensor, template: Tensor, search: Tensor) -> dict[str, Tensor]:
    """The model's maps and tokens for crops (S, S, 3) uint8, in float64, reading the whole blob on the way."""
    reader = Reader(blob)
    h = reader.header
    assert h.total_bytes == blob.nbytes
    n, m = ((size // h.patch) ** 2 for size in (h.template_size, h.search_size))
    normalize = reader.floats(2, 3)
    images = [(crop * normalize[0] + normalize[1]).permute(2, 0, 1)[None] for crop in (template, search)]
    if h.dau:
        weights = fk.DAUWeights(*(reader.floats(*shape) for shape in _unit_shapes(h)))
        images = [fk.dual_attention_unit(image, weights, backend="reference") for image in images]
    positions = [reader.floats(count, h.dim) for count in (n, m)]
    embed, bias = reader.matrix(h.dim, 3 * h.patch**2)
    tokens = torch.cat(
        [F.unfold(x, h.patch, stride=h.patch).mT @ embed.T + bias + p for x, p in zip(images, positions, strict=True)],
        dim=1,
    )
    for layer in range(h.depth):
        tokens = _layer(reader, tokens, n, PATTERNS[h.patterns[layer]])
    tokens = F.layer_norm(tokens, (h.dim,), reader.floats(h.dim), reader.floats(h.dim), h.eps)
    search_tokens = tokens[:, n:]
    if h.reweight:
        search_tokens = search_tokens * (search_tokens @ tokens[:, :n].mean(dim=1, keepdim=True).mT)
    answers = list(_head(reader, search_tokens.mT.unflatten(2, (h.search_size // h.patch,) * 2)))
    assert reader.at == h.total_bytes, "nothing may be left"
    if h.head == 1:
        maps = {name: x.flatten(1).softmax(1) for name, x in zip(("prob_tl", "prob_br"), answers, strict=True)}
    else:
        score, offset, size = answers
        maps = {"score_map": score.sigmoid(), "offset_map": offset, "size_map": size.sigmoid()}
    return maps | {"tokens": tokens[:, n:]}


def _unit_shapes(h: SimpleNamespace) -> Iterator[tuple[int, ...]]:
    yield from ((3, 3, 1, 1), (3,), (3, 1, h.kernel, h.kernel), (3,))
    yield from ((3, 1, h.dilated_kernel, h.dilated_kernel), (3,), (3, 3, 1, 1), (3,))
    yield from ((h.dau_hidden, 3), (3, h.dau_hidden), (3, 3, 1, 1), (3,))


def _layer(reader: Reader, x: Tensor, n: int, pattern: str) -> Tensor:
    h = reader.header
    normed = F.layer_norm(x, (h.dim,), eps=h.eps)
    projected = torch.cat(
        [F.linear(normed, *reader.matrix(h.dim, h.dim)), F.linear(normed, *reader.matrix(2 * h.dim, h.dim))], dim=2
    )
    q, k, v = projected.view(1, x.shape[1], 3, h.heads, h.dim // h.heads).permute(2, 0, 3, 1, 4)
    out, _ = fk.reference.attention(q, k, v, n, pattern, h.scale)
    x = x + F.linear(out.transpose(1, 2).flatten(2), *reader.matrix(h.dim, h.dim))
    hidden = F.gelu(F.linear(F.layer_norm(x, (h.dim,), eps=h.eps), *reader.matrix(h.hidden, h.dim)))
    return x + F.linear(hidden, *reader.matrix(h.dim, h.hidden))


def _head(reader: Reader, x: Tensor) -> Iterator[Tensor]:
    h = reader.header
    branches = BRANCHES[h.head]
    joined = convolve(x, *reader.convolution(len(branches) * h.widths[0], h.dim)).relu()
    features = list(joined.chunk(len(branches), dim=1))
    for before, after in zip(h.widths, h.widths[1:], strict=False):
        features = [convolve(f, *reader.convolution(after, before)).relu() for f in features]
    for outputs, f in zip(branches, features, strict=True):
        weight = reader.floats(outputs, h.widths[-1])
        yield F.conv2d(f, weight[:, :, None, None], reader.floats(outputs))
