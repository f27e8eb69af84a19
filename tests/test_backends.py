"""The table of backends, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels import cpp
from fermt_kernels.backends import BACKENDS, requested, resolve

from .conftest import ISA_ROWS
from .support.errors import lacking, refused

WITHOUT_LIBRARY = """
from pathlib import Path
import fermt_kernels.cpp.library as library
library.path = lambda: Path("nowhere/libfermt_kernels.so")
"""


def test_the_table_prints() -> None:
    rows = fk.backends()
    assert [row.name for row in rows] == ["triton", "cpp", "reference"]
    assert rows[-1].usable
    text = repr(rows)
    assert all(row.name in text and row.detail in text for row in rows)


def test_import_needs_no_triton_and_no_library(fresh_python: Callable[..., str]) -> None:
    printed = fresh_python(
        "import sys; sys.modules['triton'] = None"
        + WITHOUT_LIBRARY
        + """
import torch, fermt, fermt_kernels as fk
print(fk.backends())
print(fk.mixed_attention(torch.randn(1, 9, 96), 2, 4).shape)
"""
    )
    assert "nowhere/libfermt_kernels.so" in printed
    assert "csrc/build_library.py" in printed  # how to build it in a checkout
    assert "torch.Size([1, 9, 32])" in printed


def test_import_loads_neither_triton_nor_the_library_nor_a_gpu(fresh_python: Callable[..., str]) -> None:
    printed = fresh_python(  # torch's own FLOP counter, which has our formulas, looks for triton
        "import sys, torch, torch.utils.flop_counter; before = set(sys.modules); import fermt_kernels, fermt;"
        "import fermt_kernels.cpp.library as library;"
        "new = set(sys.modules) - before;"
        "print(any(name.split('.')[0] == 'triton' or 'triton.kernels' in name for name in new));"
        "print(library._open.cache_info().currsize, torch.cuda.is_initialized())"
    )
    assert printed.split() == ["False", "0", "False"]


def test_a_triton_that_cannot_be_imported_is_reported(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("raise ImportError('libtriton.so is damaged')")
    printed = fresh_python(
        "import torch, fermt_kernels as fk; print(fk.backends());"
        "print(fk.mixed_attention(torch.randn(1, 9, 96), 2, 4).shape)",
        PYTHONPATH=str(tmp_path),
        TRITON_INTERPRET="1",
    )
    assert lacking(printed, "triton", "ImportError: libtriton.so is damaged") == []
    assert "torch.Size([1, 9, 32])" in printed


def test_a_name_never_falls_back(fresh_python: Callable[..., str]) -> None:
    printed = fresh_python(
        WITHOUT_LIBRARY
        + """
import torch, fermt_kernels as fk
try:
    fk.mixed_attention(torch.randn(1, 9, 96), 2, 4, backend="cpp")
except RuntimeError as error:
    print(error)
"""
    )
    assert lacking(printed, "'cpp'", "attention_forward") == []


def test_a_name_says_why_it_cannot() -> None:
    qkv = torch.randn(1, 9, 96)
    with refused(RuntimeError, "'triton'", "attention_forward"):
        fk.mixed_attention(qkv, 2, 4, backend="triton")
    if BACKENDS["cpp"].unavailable_reason() is None:
        with refused(RuntimeError, "'cpp'", "attention_forward", torch.float64):
            fk.mixed_attention(qkv.double(), 2, 4, backend="cpp")


def test_auto_takes_the_first_that_can() -> None:
    cpp = "cpp" if BACKENDS["cpp"].unavailable_reason() is None else "reference"
    assert resolve("attention", "auto", "cpu", torch.float32, False) == cpp
    assert resolve("attention", "auto", "cpu", torch.float64, False) == "reference"
    assert resolve("attention", "auto", "meta", torch.float32, False) == "reference"


@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
def test_auto_passes_over_what_pytorch_runs_faster(isa: str) -> None:
    slower = cpp.SLOWER_THAN_PYTORCH.get(isa, ())
    assert "linear" in slower or isa.startswith("avx512")
    for op in ("linear", "attention", "dual_attention_unit"):
        assert resolve(op, "auto", "cpu", torch.float32, False) == ("reference" if op in slower else "cpp")


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch, fresh_python: Callable[..., str]) -> None:
    monkeypatch.setenv("FERMT_BACKEND", "reference")
    assert resolve("attention", "auto", "cpu", torch.float32, False) == "reference"
    monkeypatch.setenv("FERMT_BACKEND", "")  # as if it were not set
    assert requested("auto") == "auto"
    monkeypatch.setenv("FERMT_BACKEND", "fastest")
    with refused(ValueError, "FERMT_BACKEND", "'fastest'", "auto, triton, cpp, reference"):
        fk.mixed_attention(torch.randn(1, 9, 96), 2, 4)
    assert "fermt" in fresh_python("import fermt; print(fermt.__name__)", FERMT_BACKEND="fastest")
