"""The file format of a packed model: header, sections, and matrices in panels of 64 outputs. All little-endian.

A packed model is a header, then sections. Every section starts at a multiple of 64 bytes and is padded with zeros to
the next. Which sections there are, and in what order, follows from the header (`pack.py` writes them).

A matrix of N outputs and K inputs is two sections: the bias, round_up(N, 16) floats, and a panel set; in int8 there are
two more before the panel set, as long as the bias: each output's scale and the sum of its bytes. A panel set takes
the outputs 64 at a time, the last panel being narrower; a panel has a row for each word of inputs and a column for each
output. A word of 4 bytes is one float32 input, two bfloat16 inputs, or four int8 inputs, the first in the lowest bits.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..spec.heads import HEADS

MAGIC = b"FERMTPK\0"
VERSION = 1
HEADER_BYTES = 1024
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
PANEL = 64  # outputs of a full panel
MAX_INT8 = 127  # of weights; activations are bytes from 0 to 255
MAX_INT8_CHANNELS = 1840  # of a convolution in int8: exact products of transforms fit 32 bits (abi/packed_model.h)
LANES = 16  # outputs are padded to a multiple of it
WORD_BYTES = 4
CHECKSUM_FIELD = slice(24, 32)  # after magic, version and total
MAX_LAYERS = 64
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 3}
CUDA_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # of a `CudaPackedModel`
# magic; 17 sizes and codes; 4 widths; eps, scale, the crops' factors; a pattern for each layer
_LAYOUT = struct.Struct(f"<8s17q4q4d{MAX_LAYERS}q")


@dataclasses.dataclass(frozen=True)
class Header:
    """The fields of the first 1024 bytes, in order; `dtype`, `head` and `patterns` are codes."""

    total_bytes: int
    checksum: int  # CRC-32 of the sections, continued over the header with this field 0
    dtype: int  # of `DTYPES`
    head: int  # `Head.code`
    reweight: int  # 0 or 1
    dim: int
    heads: int
    depth: int
    hidden: int  # of the MLP
    patch: int
    template_size: int
    search_size: int
    dau: int  # 0 or 1; without it the next three are 0
    kernel: int
    dilated_kernel: int
    dau_hidden: int
    widths: tuple[int, ...]  # of the head's four 3x3 convolutions
    eps: float  # of the layer norms
    scale: float  # of the scores, in the softmax
    template_factor: float  # side of a crop over the square root of the target's area
    search_factor: float
    patterns: tuple[int, ...]  # for each layer, bits: template sees template, search; search sees template, search

    def to_bytes(self) -> bytes:
        """The header's 1024 bytes."""
        *numbers, patterns = (getattr(self, field.name) for field in dataclasses.fields(self))
        sizes, widths, factors = numbers[:16], numbers[16], numbers[17:]
        padded = (*patterns, *[0] * (MAX_LAYERS - len(patterns)))
        return _LAYOUT.pack(MAGIC, VERSION, *sizes, *widths, *factors, *padded).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Reads the header at the start of `data`; the sections after it are not looked at.

        Raises:
            ValueError: the data is not a packed model, has another version, or is shorter than a header.
        """
        if not data.startswith(MAGIC):
            raise ValueError(f"not a packed model: it starts with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
        version = int.from_bytes(data[8:16], "little", signed=True)
        if len(data) >= 16 and version != VERSION:
            raise ValueError(f"of version {version}, expected {VERSION}; pack the model again with this package")
        if len(data) < HEADER_BYTES:
            raise ValueError(f"cut short: {len(data)} bytes, less than the header's {HEADER_BYTES}")
        _, _, *numbers = _LAYOUT.unpack_from(data)
        sizes, widths, factors, patterns = numbers[:16], numbers[16:20], numbers[20:24], numbers[24:]
        names = [field.name for field in dataclasses.fields(cls)]
        depth = max(0, sizes[names.index("depth")])
        values = (*sizes, tuple(widths), *factors, tuple(patterns[:depth]))
        return cls(**dict(zip(names, values, strict=True)))

    def check(self) -> None:
        """Raises ValueError if a code is unknown to this version; the message carries it."""
        heads = [head.code for head in HEADS.values()]
        codes = {"dtype": DTYPES.values(), "head": heads, "reweight": (0, 1), "dau": (0, 1)}
        for name, allowed in codes.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"its {name} is {getattr(self, name)}, expected one of {', '.join(map(str, allowed))}")
        if not 1 <= self.depth <= MAX_LAYERS:
            raise ValueError(f"it has {self.depth} layers, expected 1 to {MAX_LAYERS}")


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def aligned_empty(shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
    """An uninitialized CPU tensor that starts at a multiple of 64 bytes."""
    made = torch.empty(shape, dtype=dtype, device="cpu")
    if made.data_ptr() % ALIGNMENT == 0:  # torch's CPU allocator usually aligns to it
        return made
    spacious = torch.empty(made.nbytes + ALIGNMENT, dtype=torch.uint8, device="cpu")
    start = -spacious.data_ptr() % ALIGNMENT
    return spacious[start : start + made.nbytes].view(dtype).view(made.shape)


def panel_set(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Lays out matrices (..., N, K) of any float dtype as panel sets (..., words), int32, with values in `dtype`."""
    per_word = WORD_BYTES // dtype.itemsize
    outputs, inputs = matrix.shape[-2:]
    padded = F.pad(matrix, (0, -inputs % per_word, 0, -outputs % LANES)).to(dtype)
    words = padded.contiguous().view(torch.int32)  # (..., Np, KW)
    return torch.cat([panel.mT.flatten(-2) for panel in words.split(PANEL, dim=-2)], dim=-1)


def bias_section(bias: Tensor) -> Tensor:
    """Pads a bias (N,) with zeros to (round_up(N, 16),), float32."""
    return F.pad(bias, (0, -bias.numel() % LANES)).float()


def matrix_sections(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The sections of a matrix: weight (N, K) and bias (N,) in any float dtype, stored in `dtype`."""
    if dtype != torch.int8:
        return bias_section(bias), panel_set(weight, dtype)
    rows, scales = quantized(weight)
    return bias_section(bias), bias_section(scales), bias_section(rows.sum(dim=1)), panel_set(rows, dtype)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantizes a weight (N, K) to integers from -127 to 127 with a scale for each row (N,): weight ~ rows * scale."""
    scales = weight.abs().amax(dim=1) / MAX_INT8
    return torch.round(weight / torch.where(scales > 0, scales, 1).unsqueeze(1)), scales


def checksum(blob: Tensor) -> int:
    """CRC-32 of a blob's sections, continued over its header with the checksum field 0."""
    content = blob.numpy().data
    header = bytearray(content[:HEADER_BYTES])
    header[CHECKSUM_FIELD] = bytes(8)
    return zlib.crc32(header, zlib.crc32(content[HEADER_BYTES:]))


def assemble(header: Header, sections: Sequence[Tensor]) -> Tensor:
    """The packed model's bytes: `header` with its size and checksum filled in, then the sections; uint8, aligned."""
    sizes = [round_up(section.nbytes, ALIGNMENT) for section in sections]
    blob = aligned_empty((HEADER_BYTES + sum(sizes),)).zero_()
    start = HEADER_BYTES
    for section, size in zip(sections, sizes, strict=True):
        blob[start : start + section.nbytes] = section.contiguous().view(-1).view(torch.uint8)
        start += size
    content = blob.numpy().data
    complete = dataclasses.replace(header, total_bytes=start, checksum=0)
    content[:HEADER_BYTES] = complete.to_bytes()
    content[:HEADER_BYTES] = dataclasses.replace(complete, checksum=checksum(blob)).to_bytes()
    return blob
