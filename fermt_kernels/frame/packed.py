"""The packed model in memory, and saving and loading it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ..cpp import frame as compiled
from ..cpp import library
from ..files import atomic_write
from ..spec.heads import HEADS
from .format import ALIGNMENT, DTYPES, HEADER_BYTES, Header, aligned_empty, checksum

_DTYPES = {code: dtype for dtype, code in DTYPES.items()}
_HEADS = {head.code: name for name, head in HEADS.items()}


class PackedModelBase:
    """The properties that every form of a packed model has."""

    def __init__(self, header: Header) -> None:
        self._header = header

    @property
    def header(self) -> Header:
        """Sizes and choices of the model, as in a packed file."""
        return self._header

    @property
    def head(self) -> str:
        """ "center" or "corner"."""
        return _HEADS[self._header.head]

    @property
    def template_size(self) -> int:
        """Side of the template crop in pixels."""
        return self._header.template_size

    @property
    def search_size(self) -> int:
        """Side of the search crop in pixels."""
        return self._header.search_size

    @property
    def grid(self) -> int:
        """Cells along a side of the head's maps."""
        return self._header.search_size // self._header.patch

    @property
    def template_factor(self) -> float:
        """Side of the template crop over the square root of the target's area."""
        return self._header.template_factor

    @property
    def search_factor(self) -> float:
        """Side of the search crop over the square root of the target's area."""
        return self._header.search_factor


class PackedModel(PackedModelBase):
    """A packed model for the CPU: one block of bytes that the compiled library reads in place; see `pack` and `load`.

    It needs the compiled library only when it runs, and may be shared between threads.

    Args:
        blob: uint8 (bytes,) on the CPU; copied only if it does not start at a multiple of 64 bytes.

    Raises:
        TypeError: the blob is not such a tensor.
        ValueError: it is not a packed model, has another version, or has another size than its header says.
    """

    def __init__(self, blob: Tensor) -> None:
        if not isinstance(blob, Tensor) or blob.dtype != torch.uint8 or blob.dim() != 1 or blob.device.type != "cpu":
            kind = f"{tuple(blob.shape)} {blob.dtype}" if isinstance(blob, Tensor) else type(blob).__name__
            raise TypeError(f"PackedModel: blob must be a uint8 tensor (bytes,) on the CPU, got {kind}")
        if not blob.is_contiguous() or blob.data_ptr() % ALIGNMENT:
            blob = aligned_empty(blob.shape).copy_(blob)
        self._blob = blob
        super().__init__(Header.from_bytes(bytes(blob.numpy().data[:HEADER_BYTES])))
        if blob.nbytes != self._header.total_bytes:
            raise ValueError(
                f"cut short or damaged: {blob.nbytes} bytes, expected {self._header.total_bytes} as its header says"
            )
        self._header.check()
        self._info: dict[tuple[str, int], compiled.FrameInfo] = {}

    @property
    def blob(self) -> Tensor:
        """The model's bytes, uint8 (nbytes,). Do not write to it."""
        return self._blob

    @property
    def nbytes(self) -> int:
        """Size of the model in bytes."""
        return self._blob.nbytes

    @property
    def device(self) -> torch.device:
        """The device it runs on."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matrices: torch.float32, torch.bfloat16 or torch.int8."""
        return _DTYPES[self._header.dtype]

    def info(self, batch: int) -> compiled.FrameInfo:
        """Sizes of caches and workspace for `batch` samples on the instruction set in use.

        Raises:
            RuntimeError: there is no compiled library, or it refuses the model; the message says why.
        """
        while True:
            isa = library.load().isa
            if kept := self._info.get((isa, batch)):
                return kept
            info = compiled.frame_info(self._blob, batch)
            if library.load().isa == isa:  # else another thread has selected one, and these may be its sizes
                self._info[isa, batch] = info

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model to one file, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        atomic_write(path, self._blob.numpy().data)

    def __reduce__(self) -> tuple[type[PackedModel], tuple[Tensor]]:
        return PackedModel, (self._blob,)  # a copy is aligned anew

    def __repr__(self) -> str:
        return (
            f"PackedModel({self.head} head, {str(self.dtype).removeprefix('torch.')}, template {self.template_size}, "
            f"search {self.search_size}, {self.nbytes / 2**20:.1f} MiB)"
        )


def load(path: str | os.PathLike[str]) -> PackedModel:
    """Loads a model that `PackedModel.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a packed model, has another version, is cut short or damaged; the message names it.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no packed model at {name!r}")
    with open(path, "rb") as file:
        blob = aligned_empty((os.fstat(file.fileno()).st_size,))
        blob = blob[: file.readinto(blob.numpy().data)]
    try:
        header = Header.from_bytes(bytes(blob.numpy().data[:HEADER_BYTES]))
        if blob.nbytes == header.total_bytes and checksum(blob) != header.checksum:
            raise ValueError(
                f"damaged: the checksum of its contents is {checksum(blob):#010x}, expected {header.checksum:#010x}"
            )
        return PackedModel(blob)
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be loaded as a packed model: {error}") from error
