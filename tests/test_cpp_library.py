"""The compiled library: every instruction set, its threads, and what it does with bad arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels.cpp import abi, library
from fermt_kernels.testing import unit_inputs

from .conftest import ISA_ROWS
from .support.lanes import slow
from .test_attention import SHAPES, assert_backend_is_accurate
from .test_dual_attention_unit import SHAPES as UNIT_SHAPES
from .test_dual_attention_unit import assert_unit_is_accurate
from .test_linear import SIZES, assert_linear_is_accurate


def test_the_generic_row_is_always_there(loaded: library.Library) -> None:
    assert loaded.isas()["generic"]
    assert set(loaded.isas()) <= set(ISA_ROWS)


# The row that the library takes by itself is not here: the tests of the ops run on it, on these shapes among others.
@pytest.mark.parametrize("other_isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("pattern", fk.PATTERNS)
@pytest.mark.parametrize("large", [False, slow(True)], ids=["small", "large"])
def test_each_instruction_set_attends_accurately(
    other_isa: str, pattern: str, large: bool, loaded: library.Library
) -> None:
    assert loaded.isa == other_isa
    for shape, n in SHAPES[1:]:  # all but the model's own, which is large and odd in nothing
        if (math.prod(shape) > 10_000) == large:
            assert_backend_is_accurate(shape, n, pattern, "cpp")


@pytest.mark.parametrize("other_isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("shape", [shape for shape in UNIT_SHAPES if math.prod(shape) < 10_000])
def test_each_instruction_set_has_an_accurate_unit(other_isa: str, shape: tuple, loaded: library.Library) -> None:
    assert loaded.isa == other_isa
    assert_unit_is_accurate(shape, 1, 5, "cpp")


@pytest.mark.parametrize("other_isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes[0] * sizes[2] < 20_000])
def test_each_instruction_set_multiplies_accurately(other_isa: str, sizes: tuple, loaded: library.Library) -> None:
    assert loaded.isa == other_isa
    for gelu in (False, True):
        assert_linear_is_accurate(sizes, gelu, "cpp")


@pytest.mark.parametrize("row", ISA_ROWS)
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


def test_a_checkout_without_a_library_takes_the_installed_one(
    tmp_path: Path, loaded: library.Library, fresh_python: Callable[..., str]
) -> None:
    """What `pip install .` leaves: sources without a library before the installed package on Python's path."""
    site = tmp_path / "site-packages"
    installed = site / "fermt_kernels" / "cpp" / library.PATH.name
    installed.parent.mkdir(parents=True)
    installed.symlink_to(library.path())
    code = (
        f"import sys; sys.path.append({str(site)!r});"
        "from pathlib import Path; import fermt_kernels as fk, fermt_kernels.cpp.library as library;"
        "library.PATH = Path('nowhere') / library.PATH.name; print(library.path()); print(fk.backends())"
    )
    for version, found in ((fk.__version__, installed), ("0.0.1", Path("nowhere") / library.PATH.name)):
        info = site / f"fermt_kernels-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fermt-kernels\nVersion: {version}\n")
        printed = fresh_python(code)
        assert printed.splitlines()[0] == str(found)
        assert (f"the library is the installed package's, {installed}" in printed) == (found == installed)
        (info / "METADATA").unlink()


def test_a_damaged_library_is_reported(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    broken = tmp_path / "libfermt_kernels.so"
    broken.write_bytes(b"not a library")
    printed = fresh_python(
        "from pathlib import Path; import fermt_kernels as fk, fermt_kernels.cpp.library as library;"
        f"library.PATH = Path({str(broken)!r}); print(fk.backends())"
    )
    assert "libfermt_kernels.so cannot be loaded" in printed


def attention_fields() -> tuple[list[float], list[torch.Tensor]]:
    """Good fields of the backward call for one head of four tokens, and the tensors that they point to."""
    tensors = [torch.zeros(1, 1, 4, 16) for _ in range(8)]
    lse = torch.zeros(1, 1, 4)
    shape = (1, 1, 4, 16, 2, 0, 2, 0, 4, 0.25, 0)
    before, after = ([x for t in part for x in abi.tensor_fields(t)] for part in (tensors[:5], tensors[5:]))
    return [*shape, *before, lse.data_ptr(), *after], [*tensors, lse]


def unit_fields() -> tuple[list[float], list[torch.Tensor]]:
    """Good fields of the unit's backward call for one image of 4 x 5 pixels, and the tensors that they point to."""
    x, weights = unit_inputs((1, 3, 4, 5))
    grads, images = [torch.zeros_like(w) for w in weights], [torch.zeros_like(x) for _ in range(2)]
    fields = [1, 3, 4, 5, 5, 5, 1, 0, *abi.tensor_fields(images[0]), *abi.tensor_fields(x)]
    fields += [*(w.data_ptr() for w in weights), *abi.tensor_fields(images[1]), *(g.data_ptr() for g in grads)]
    return fields, [x, *weights, *grads, *images]


CALLS = {
    "fermt_attention_backward": attention_fields,
    "fermt_dual_attention_unit_backward": unit_fields,
}
BATCH, HEADS, TOKENS, HEAD_DIM, NUM_TEMPLATE, TEMPLATE_KEYS, SEARCH_KEYS, DTYPE = 0, 1, 2, 3, 4, 5, 7, 10
GRAD_OUT, LSE, GRAD_V = 11, 31, 40  # four fields a tensor: data, then strides
CHANNELS, HEIGHT, WIDTH, KERNEL, DILATED_KERNEL, HIDDEN, UNIT_DTYPE = 1, 2, 3, 4, 5, 6, 7
X, WEIGHTS, GRAD_X, GRAD_WEIGHTS = 12, 16, 28, 32


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("parallel", [True, False])
def test_good_arguments_pass_with_threads_and_without(
    loaded: library.Library, monkeypatch: pytest.MonkeyPatch, name: str, parallel: bool
) -> None:
    if not parallel:
        monkeypatch.setattr(loaded, "parallel_for", 0)
    fields, _keep = CALLS[name]()
    loaded.call(name, *fields)


@pytest.mark.parametrize(
    ("name", "position", "value", "message"),
    [
        *(
            ("fermt_attention_backward", *row)
            for row in (
                (GRAD_OUT, 0, "null"),
                (LSE, 0, "null"),
                (GRAD_V, 0, "null"),
                (BATCH, -1, "too large"),
                (TOKENS, 2**62, "too large"),
                (HEADS, 2**39, "too large"),
                (HEAD_DIM, 0, "too large"),
                (NUM_TEMPLATE, 5, "span of keys"),
                (NUM_TEMPLATE, -1, "span of keys"),
                (TEMPLATE_KEYS + 1, 5, "span of keys"),
                (SEARCH_KEYS, 5, "span of keys"),
                (SEARCH_KEYS, -1, "span of keys"),
                (DTYPE, 7, "no such dtype"),
                (GRAD_OUT + 3, -16, "stride is negative"),
                (GRAD_V + 1, -1, "stride is negative"),
            )
        ),
        *(
            ("fermt_dual_attention_unit_backward", *row)
            for row in (
                (X, 0, "null"),
                (WEIGHTS, 0, "null"),
                (GRAD_WEIGHTS + 11, 0, "null"),
                (CHANNELS, 0, "too large"),
                (WIDTH, 0, "too large"),
                (HEIGHT, 2**50, "too large"),
                (KERNEL, 4, "too large"),
                (DILATED_KERNEL, -5, "too large"),
                (HIDDEN, 0, "too large"),
                (UNIT_DTYPE, -1, "no such dtype"),
                (GRAD_X + 2, -1, "stride is negative"),
            )
        ),
    ],
)
def test_bad_arguments_become_errors(
    loaded: library.Library, name: str, position: int, value: int, message: str
) -> None:
    fields, _keep = CALLS[name]()
    fields[position] = value
    with pytest.raises(RuntimeError, match=f"{name}: .*{message}"):
        loaded.call(name, *fields)


@pytest.mark.parametrize("name", abi.LAYOUTS)
def test_a_struct_of_another_size_is_refused(loaded: library.Library, name: str) -> None:
    function, layout = loaded._kernels[name]
    assert function(bytes(layout.size)) == 1  # struct_size 0
    assert function(None) == 2


def test_it_runs_on_torchs_threads(loaded: library.Library) -> None:
    assert loaded.parallel_for
