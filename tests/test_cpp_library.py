"""The compiled library: every instruction set, its threads, and what it does with bad arguments."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels.cpp import attention, library

from .support.inputs import attention_inputs
from .support.tolerance import assert_accurate
from .test_attention import SHAPES, run

ROWS = ("avx512", "avx2", "generic")


@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> library.Library:
    if reason := library.why_not():
        required = "cpp" in request.config.getoption("--require-backend")
        (pytest.fail if required else pytest.skip)(reason)
    return library.load()


@pytest.fixture
def isa(loaded: library.Library, request: pytest.FixtureRequest) -> Iterator[str]:
    """Forces the instruction set that the test names, for the length of the test."""
    if not loaded.isas().get(request.param, False):
        pytest.skip(f"this CPU or this build has no {request.param}")
    before = loaded.isa
    loaded.select_isa(request.param)
    yield request.param
    loaded.select_isa(before)


def test_the_generic_row_is_always_there(loaded: library.Library) -> None:
    assert loaded.isas()["generic"]
    assert set(loaded.isas()) <= set(ROWS)


@pytest.mark.parametrize("isa", ROWS, indirect=True)
@pytest.mark.parametrize("pattern", fk.PATTERNS)
def test_each_instruction_set_is_accurate(isa: str, pattern: str, loaded: library.Library) -> None:
    assert loaded.isa == isa
    for shape, n in SHAPES:
        q, k, v = attention_inputs(shape, "packed")
        actual, eager = (run(q, k, v, n, pattern, name) for name in ("cpp", "reference"))
        truth = run(q.double(), k.double(), v.double(), n, pattern, "reference")
        for name, *three in zip(("out", "lse"), actual, eager, truth, strict=True):
            assert_accurate(*three, name=f"{name}, {shape}, n={n}")


@pytest.mark.parametrize("row", ROWS)
def test_the_environment_forces_an_instruction_set(
    row: str, loaded: library.Library, fresh_python: Callable[..., str]
) -> None:
    if not loaded.isas().get(row, False):
        pytest.skip(f"this CPU or this build has no {row}")
    code = "import fermt_kernels.cpp.library as library; print(library.load().isa)"
    assert fresh_python(code, FERMT_ISA=row).strip() == row


def test_an_unknown_instruction_set_is_refused(loaded: library.Library, fresh_python: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="instruction set 'sse9' is unknown; expected one of"):
        loaded.select_isa("sse9")
    printed = fresh_python("import fermt_kernels as fk; print(fk.backends())", FERMT_ISA="sse9")
    assert "FERMT_ISA=sse9: instruction set 'sse9' is unknown" in printed


def test_a_damaged_library_is_reported(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    broken = tmp_path / "libfermt_kernels.so"
    broken.write_bytes(b"not a library")
    printed = fresh_python(
        "from pathlib import Path; import fermt_kernels as fk, fermt_kernels.cpp.library as library;"
        f"library.PATH = Path({str(broken)!r}); print(fk.backends())"
    )
    assert "libfermt_kernels.so cannot be loaded" in printed


def arguments(loaded: library.Library) -> attention._ForwardArgs:
    """Good arguments for one head of four tokens; the tensors live in `arguments.keep`."""
    tensors = [torch.zeros(1, 1, 4, 16) for _ in range(4)] + [torch.zeros(1, 1, 4)]
    args = attention._ForwardArgs(
        ctypes.sizeof(attention._ForwardArgs),
        loaded.parallel_for,
        *(t.data_ptr() for t in tensors),
        *(1, 1, 4, 16),
        2,
        *((0, 2), (0, 4)),
        *((64, 64, 16),) * 4,
        0.25,
    )
    arguments.keep = tensors
    return args


def test_good_arguments_pass(loaded: library.Library) -> None:
    loaded.call("fermt_attention_forward", arguments(loaded))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("struct_size", 8, "another size"),
        ("q", None, "null"),
        ("lse", None, "null"),
        ("batch", -1, "negative or too large"),
        ("tokens", 2**62, "negative or too large"),
        ("head_dim", 0, "negative or too large"),
        ("num_template", 5, "span of keys"),
        ("num_template", -1, "span of keys"),
        ("template_keys", (0, 5), "span of keys"),
        ("search_keys", (3, 2), "span of keys"),
        ("search_keys", (-1, 2), "span of keys"),
        ("q_strides", (64, 64, -16), "stride is negative"),
        ("out_strides", (-1, 0, 0), "stride is negative"),
    ],
)
def test_bad_arguments_become_errors(loaded: library.Library, field: str, value: object, message: str) -> None:
    args = arguments(loaded)
    kind = dict(attention._ForwardArgs._fields_)[field]
    setattr(args, field, kind(*value) if isinstance(value, tuple) else value)
    with pytest.raises(RuntimeError, match=f"fermt_attention_forward: .*{message}"):
        loaded.call("fermt_attention_forward", args)


def test_it_runs_serially_without_a_parallel_for(loaded: library.Library) -> None:
    args = arguments(loaded)
    args.parallel_for = None
    loaded.call("fermt_attention_forward", args)


def test_it_runs_on_torchs_threads(loaded: library.Library) -> None:
    assert loaded.parallel_for
