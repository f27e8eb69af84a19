"""The CPU backend: compiled kernels from csrc/, called through ctypes. Importing it loads nothing."""

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
# By instruction set; on ARM not measured, so PyTorch's stay.
SLOWER_THAN_PYTORCH = dict.fromkeys(
    ("generic", "avx2", "avx2_vnni", "avx512_amx", "neon", "neon_dotprod", "neon_i8mm"), ("linear",)
)


def unavailable_reason() -> str | None:
    """The reason why the backend cannot run on this machine, or None if it can."""
    return library.unavailable_reason()


def slower_than_pytorch() -> tuple[str, ...]:
    """Ops that PyTorch's own kernels run faster on the instruction set in use; none if the library cannot be used."""
    return () if library.unavailable_reason() else SLOWER_THAN_PYTORCH.get(library.load().isa, ())


def describe() -> str:
    """The instruction set in use, those that this CPU supports, and the dtypes."""
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
    "unavailable_reason",
]
