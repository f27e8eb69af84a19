"""The CPU room: compiled kernels from csrc/, reached through ctypes. Importing it loads nothing."""

from __future__ import annotations

from . import library
from .abi import DTYPES, FRAME_DTYPES
from .attention import attention_backward, attention_forward
from .dual_attention_unit import dual_attention_unit_backward, dual_attention_unit_forward
from .linear import linear_backward, linear_forward

DEVICES = ("cpu",)
SUPPORTS = {
    "attention_forward": tuple(DTYPES),
    "attention_backward": tuple(DTYPES),
    "dual_attention_unit_forward": tuple(DTYPES),
    "dual_attention_unit_backward": tuple(DTYPES),
    "linear_forward": tuple(DTYPES),
    "linear_backward": tuple(DTYPES),
    "track_frame": FRAME_DTYPES,
}
LARGEST: dict[str, tuple[str, int]] = {}  # any size
SLOWER = {"generic": ("linear",), "avx2": ("linear",)}  # instruction set -> ops that PyTorch does faster there


def why_not() -> str | None:
    return library.why_not()


def slower_than_pytorch() -> tuple[str, ...]:
    return SLOWER.get(library.load().isa, ())


def describe() -> str:
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    elsewhere = "" if library.path() == library.PATH else f"; the library is the installed package's, {library.path()}"
    return f"compiled for the CPU, {library.load().isa} of {', '.join(library.supported_isas())}: {dtypes}{elsewhere}"


__all__ = [
    "DEVICES",
    "SUPPORTS",
    "attention_backward",
    "attention_forward",
    "describe",
    "dual_attention_unit_backward",
    "dual_attention_unit_forward",
    "linear_backward",
    "linear_forward",
    "slower_than_pytorch",
    "why_not",
]
