"""Packed models as bytes: panels, header, files, and every damage noticed. Needs no compiled library."""

from __future__ import annotations

import copy
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt_kernels.frame import format as layout

from .support import packed as reader
from .support.errors import refused

CODES = {torch.float32: 0, torch.bfloat16: 1}


@pytest.fixture(scope="module")
def model() -> fermt.FERMT:
    return reader.small_model("center")


@pytest.fixture
def path(model: fermt.FERMT, tmp_path: Path) -> Iterator[Path]:
    fk.frame.pack(model).save(tmp_path / "model.fermt")
    return tmp_path / "model.fermt"


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(1, 1), (16, 3), (64, 4), (70, 5), (130, 7), (192, 2)])
def test_a_panel_set_holds_its_matrix(shape: tuple[int, int], dtype: torch.dtype) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    section = layout.panel_set(matrix, dtype).numpy().tobytes()
    (outputs, inputs), rounded = shape, matrix.to(dtype)
    for n in range(outputs):
        for k in range(inputs):
            assert reader.panel_value(section, outputs, inputs, CODES[dtype], n, k) == rounded[n, k].item()
    words = -(-inputs * dtype.itemsize // 4)
    assert len(section) == 4 * words * -(-outputs // 16) * 16
    assert sum(map(bool, torch.frombuffer(bytearray(section), dtype=dtype))) == outputs * inputs  # the rest is zeros


def test_panel_sets_of_several_matrices_follow_one_another() -> None:
    matrices = torch.randn(16, 96, 5)
    separately = [layout.panel_set(matrix, torch.float32) for matrix in matrices]
    assert torch.equal(layout.panel_set(matrices, torch.float32), torch.stack(separately))


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    values = torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8]])
    assert layout.panel_set(values, torch.bfloat16).view(torch.bfloat16).view(2, -1, 2)[:, 0].flatten().tolist() == [
        *(1.0, 1 + 2**-6, 1 + 2**-7, -1.0)
    ]


def test_the_header(model: fermt.FERMT) -> None:
    packed = fk.frame.pack(model, torch.bfloat16)
    content = packed.blob.numpy().tobytes()
    found = vars(reader.header(content))
    assert content[:8] == b"FERMTPK\0"
    assert found["patterns"] == (13, 6, 15, *[0] * 61)
    assert not any(content[704:1024])
    checked = content[:24] + bytes(8) + content[32:1024]
    assert found["checksum"] == zlib.crc32(checked, zlib.crc32(content[1024:]))
    expected = {
        "version": 1,
        "total_bytes": len(content),
        "dtype": 1,
        "head": 0,
        "reweight": 0,
        "dim": 32,
        "heads": 2,
        "depth": 3,
        "hidden": 48,
        "patch": 8,
        "template_size": 16,
        "search_size": 32,
        "dau": 1,
        "kernel": 5,
        "dilated_kernel": 5,
        "dau_hidden": 1,
        "widths": (48, 32, 16, 16),
        "eps": 1e-6,
        "scale": 0.25,
        "template_factor": 2.0,
        "search_factor": 4.0,
    }
    assert {name: found[name] for name in expected} == expected
    corner = reader.header(fk.frame.pack(reader.small_model("corner")).blob.numpy().tobytes())
    assert (corner.dtype, corner.head, corner.reweight, corner.dau) == (0, 1, 1, 0)
    assert (corner.kernel, corner.dilated_kernel, corner.dau_hidden) == (0, 0, 0)


def test_properties(model: fermt.FERMT) -> None:
    packed = fk.frame.pack(model)
    assert (packed.dtype, packed.head, packed.template_size, packed.search_size) == (torch.float32, "center", 16, 32)
    assert (packed.grid, packed.nbytes) == (4, packed.blob.nbytes)
    assert packed.blob.dtype == torch.uint8
    assert packed.blob.data_ptr() % 64 == 0
    assert repr(packed).startswith("PackedModel(center head, float32, template 16, search 32, ")


@pytest.mark.parametrize("dtype", CODES)
def test_save_and_load(model: fermt.FERMT, dtype: torch.dtype, tmp_path: Path) -> None:
    packed = fk.frame.pack(model, dtype)
    for name in (tmp_path / "model.fermt", str(tmp_path / "model.fermt")):
        packed.save(name)
        loaded = fk.frame.load(name)
        assert torch.equal(loaded.blob, packed.blob)
        assert loaded.blob.data_ptr() % 64 == 0
        assert loaded.header == packed.header
    assert (tmp_path / "model.fermt").read_bytes() == packed.blob.numpy().tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.fermt"]


def test_copies_stay_aligned(model: fermt.FERMT) -> None:
    packed = fk.frame.pack(model)
    shifted = torch.cat((torch.zeros(1, dtype=torch.uint8), packed.blob))[1:]
    for copied in (fk.frame.PackedModel(shifted), copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(copied.blob, packed.blob)
        assert copied.blob.data_ptr() % 64 == 0


@pytest.mark.parametrize("alignment", [64, 1 << 16])  # the second is more than the allocator gives by itself
def test_buffers_are_aligned(monkeypatch: pytest.MonkeyPatch, alignment: int) -> None:
    monkeypatch.setattr(layout, "ALIGNMENT", alignment)
    for shape, dtype in (((5, 3), torch.float32), ((7,), torch.uint8), ((0,), torch.uint8)):
        made = [layout.aligned_empty(shape, dtype) for _ in range(4)]
        assert all(each.shape == shape and each.dtype == dtype and each.is_contiguous() for each in made)
        assert not any(each.data_ptr() % alignment for each in made if each.numel())


def test_a_failed_save_leaves_the_old_file(path: Path, model: fermt.FERMT, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        fk.frame.pack(model, torch.bfloat16).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# What must be said of a flipped byte of the header: the first bytes or the version that is expected, the length.
NAMED = {range(8): "FERMTPK", range(8, 16): "version", range(16, 24): "bytes"}


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    body = torch.randint(1024, len(content), (200,)).tolist()
    with open(path, "r+b", buffering=0) as file:
        for position in [*range(1024), *body, len(content) - 1]:
            expected = next((text for span, text in NAMED.items() if position in span), "checksum")
            file.seek(position)
            file.write(bytes([content[position] ^ (1 << position % 8)]))
            with refused(ValueError, "model.fermt'", expected):
                fk.frame.load(path)
            file.seek(position)
            file.write(content[position : position + 1])
    fk.frame.load(path)


def test_every_truncation_is_noticed(path: Path) -> None:
    content = path.read_bytes()
    some = torch.randint(1024, len(content), (30,)).tolist()
    for length in [*range(24), 100, 1023, 1024, 1025, *some, len(content) - 64, len(content) - 1]:
        path.write_bytes(content[:length])
        expected = "not a packed model" if length < 8 else "cut short"
        with refused(ValueError, "model.fermt'", expected):
            fk.frame.load(path)
    path.write_bytes(content + bytes(64))
    with refused(ValueError, "model.fermt'", len(content) + 64, len(content)):
        fk.frame.load(path)


def test_another_version_and_unknown_codes(path: Path) -> None:
    def rewrite(name: str, value: int) -> None:
        """As a later package would write it: with the right checksum."""
        content = bytearray(original)
        struct.pack_into("<q", content, reader.FIELDS[name][0], value)
        struct.pack_into("<q", content, 24, 0)
        struct.pack_into("<q", content, 24, zlib.crc32(content[:1024], zlib.crc32(content[1024:])))
        path.write_bytes(content)

    original = path.read_bytes()
    for name, value, *values in [
        ("version", 2, "version", 1),
        ("version", -1, "version", 1),
        ("dtype", 2, "dtype", "0, 1, 3"),
        ("head", 2, "head", "0, 1"),
        ("dau", 2, "dau", "0, 1"),
        ("depth", 65, "layers", 1, 64),
        ("depth", -1, "layers", 1, 64),
    ]:
        rewrite(name, value)
        with refused(ValueError, "model.fermt'", value, *values):
            fk.frame.load(path)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "none"):
        fk.frame.load(tmp_path / "none")
    with refused(FileNotFoundError, tmp_path):
        fk.frame.load(tmp_path)
    other = tmp_path / "other"
    torch.save({"weights": torch.zeros(1000)}, other)
    with refused(ValueError, other, "b'PK"):
        fk.frame.load(other)
    for blob in (None, torch.zeros(2048), torch.zeros(4, 512, dtype=torch.uint8)):
        with refused(TypeError, "blob", "uint8"):
            fk.frame.PackedModel(blob)


def test_packing_and_loading_need_no_library(path: Path, fresh_python: Callable[..., str]) -> None:
    printed = fresh_python(
        "import fermt_kernels as fk; from fermt_kernels.cpp import library;"
        f"print(fk.frame.load({str(path)!r}).head, library._open.cache_info().currsize)"
    )
    assert printed.split() == ["center", "0"]
