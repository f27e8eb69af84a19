"""The compiled library: every instruction set, its threads, and what it does with bad arguments."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels.cpp import abi, library

from .support.inputs import unit_inputs
from .test_attention import SHAPES, assert_backend_is_accurate
from .test_dual_attention_unit import SHAPES as UNIT_SHAPES
from .test_dual_attention_unit import assert_unit_is_accurate

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
def test_each_instruction_set_attends_accurately(isa: str, pattern: str, loaded: library.Library) -> None:
    assert loaded.isa == isa
    for shape, n in SHAPES[1:]:  # all but the model's own, which is large and odd in nothing
        assert_backend_is_accurate(shape, n, pattern, "cpp")


@pytest.mark.parametrize("isa", ROWS, indirect=True)
@pytest.mark.parametrize("shape", [shape for shape in UNIT_SHAPES if math.prod(shape) < 10_000])
def test_each_instruction_set_has_an_accurate_unit(isa: str, shape: tuple, loaded: library.Library) -> None:
    assert loaded.isa == isa
    assert_unit_is_accurate(shape, 1, 5, "cpp")


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


def attention_arguments(loaded: library.Library) -> tuple[ctypes.Structure, list[torch.Tensor]]:
    """Good arguments of the backward call for one head of four tokens, and the tensors that they point to."""
    tensors = [torch.zeros(1, 1, 4, 16) for _ in range(8)]
    lse = torch.zeros(1, 1, 4)
    args = abi.AttentionBackwardArgs(
        ctypes.sizeof(abi.AttentionBackwardArgs),
        loaded.parallel_for,
        (1, 1, 4, 16, 2, (0, 2), (0, 4), 0.25, 0),
        *(abi.tensor_arg(t) for t in tensors[:5]),
        lse.data_ptr(),
        *(abi.tensor_arg(t) for t in tensors[5:]),
    )
    return args, [*tensors, lse]


def unit_arguments(loaded: library.Library) -> tuple[ctypes.Structure, list[torch.Tensor]]:
    """Good arguments of the unit's backward call for one image of 4 x 5 pixels, and the tensors that they point to."""
    x, weights = unit_inputs((1, 3, 4, 5))
    grads, images = [torch.zeros_like(w) for w in weights], [torch.zeros_like(x) for _ in range(2)]
    args = abi.UnitBackwardArgs(
        ctypes.sizeof(abi.UnitBackwardArgs),
        loaded.parallel_for,
        (1, 3, 4, 5, 5, 5, 1, 0),
        abi.tensor_arg(images[0]),
        abi.tensor_arg(x),
        tuple(w.data_ptr() for w in weights),
        abi.tensor_arg(images[1]),
        tuple(g.data_ptr() for g in grads),
    )
    return args, [x, *weights, *grads, *images]


CALLS = {
    "fermt_attention_backward": attention_arguments,
    "fermt_dual_attention_unit_backward": unit_arguments,
}


def assign(args: ctypes.Structure, path: str, value: object) -> None:
    """Sets a field by its dotted path; a tuple fills an array or a struct."""
    *parents, field = path.split(".")
    for name in parents:
        args = getattr(args, name)
    kind = dict(args._fields_)[field]
    setattr(args, field, kind(*value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("parallel", [True, False])
def test_good_arguments_pass_with_threads_and_without(loaded: library.Library, name: str, parallel: bool) -> None:
    args, _keep = CALLS[name](loaded)
    if not parallel:
        args.parallel_for = None
    loaded.call(name, args)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        *(
            ("fermt_attention_backward", *row)
            for row in (
                ("struct_size", 8, "another size"),
                ("q.data", None, "null"),
                ("grad_v.data", None, "null"),
                ("lse", None, "null"),
                ("shape.batch", -1, "too large"),
                ("shape.tokens", 2**62, "too large"),
                ("shape.heads", 2**39, "too large"),
                ("shape.head_dim", 0, "too large"),
                ("shape.num_template", 5, "span of keys"),
                ("shape.num_template", -1, "span of keys"),
                ("shape.template_keys", (0, 5), "span of keys"),
                ("shape.search_keys", (3, 2), "span of keys"),
                ("shape.search_keys", (-1, 2), "span of keys"),
                ("shape.dtype", 7, "no such dtype"),
                ("q.strides", (64, 64, -16), "stride is negative"),
                ("grad_k.strides", (-1, 0, 0), "stride is negative"),
            )
        ),
        *(
            ("fermt_dual_attention_unit_backward", *row)
            for row in (
                ("struct_size", 8, "another size"),
                ("x.data", None, "null"),
                ("weights", (None,) * 12, "null"),
                ("grad_weights", (None,) * 12, "null"),
                ("shape.channels", 0, "too large"),
                ("shape.width", 0, "too large"),
                ("shape.height", 2**50, "too large"),
                ("shape.kernel", 4, "too large"),
                ("shape.dilated_kernel", -5, "too large"),
                ("shape.hidden", 0, "too large"),
                ("shape.dtype", -1, "no such dtype"),
                ("grad_x.strides", (0, -1, 0), "stride is negative"),
            )
        ),
    ],
)
def test_bad_arguments_become_errors(
    loaded: library.Library, name: str, field: str, value: object, message: str
) -> None:
    args, _keep = CALLS[name](loaded)
    assign(args, field, value)
    with pytest.raises(RuntimeError, match=f"{name}: .*{message}"):
        loaded.call(name, args)


def test_it_runs_on_torchs_threads(loaded: library.Library) -> None:
    assert loaded.parallel_for
