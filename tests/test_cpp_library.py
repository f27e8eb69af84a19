"""The compiled library: every instruction set, its threads, and what it does with bad arguments."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fermt_kernels as fk
from fermt_kernels.cpp import abi, library, torch_threads
from fermt_kernels.testing import unit_inputs

from .conftest import ISA_ROWS
from .support.errors import BAD_DTYPE, BAD_SIZE, BAD_SPAN, BAD_STRIDE, NULL_POINTER, lacking, refused
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


def test_amx_leaves_pytorchs_own_products_alone(loaded: library.Library) -> None:
    """Both set up the same thread's tiles, in other shapes."""
    if not loaded.isas().get("avx512_amx", False):
        pytest.skip("this CPU or this build has no avx512_amx")
    before = loaded.isa
    loaded.select_isa("avx512_amx")
    try:
        torch.manual_seed(0)
        x, weight = torch.randn(130, 70).bfloat16(), torch.randn(90, 70).bfloat16()
        alone = F.linear(x, weight)
        for inner in (16, 64):  # tiles of two shapes
            qkv = torch.randn(1, 50, 3 * inner).bfloat16().requires_grad_()
            fk.attention_packed(qkv, 1, 10, backend="cpp").sum().backward()
            fk.linear(qkv.detach(), torch.randn(32, 3 * inner).bfloat16(), backend="cpp")
            assert torch.equal(F.linear(x, weight), alone)
    finally:
        loaded.select_isa(before)


@pytest.mark.parametrize("row", ISA_ROWS)
def test_the_environment_forces_an_instruction_set(
    row: str, loaded: library.Library, fresh_python: Callable[..., str]
) -> None:
    if not loaded.isas().get(row, False):
        pytest.skip(f"this CPU or this build has no {row}")
    code = "import fermt_kernels.cpp.library as library; print(library.load().isa)"
    assert fresh_python(code, FERMT_ISA=row).strip() == row


def test_an_unknown_instruction_set_is_refused(loaded: library.Library, fresh_python: Callable[..., str]) -> None:
    with refused(ValueError, "'sse9'", "generic"):
        loaded.select_isa("sse9")
    printed = fresh_python("import fermt_kernels as fk; print(fk.backends())", FERMT_ISA="sse9")
    assert "FERMT_ISA=sse9: instruction set 'sse9' is unknown" in printed
    code = """import torch, fermt_kernels as fk
for backend in ("auto", "cpp", "reference"):
    try:
        print(backend, tuple(fk.mixed_attention(torch.zeros(1, 20, 72), 4, 5, backend=backend).shape))
    except ValueError as error:
        print(backend, error)"""
    auto, cpp, reference = fresh_python(code, FERMT_ISA="sse9").splitlines()
    assert auto.startswith("auto FERMT_ISA=sse9: ")  # not the reference in silence
    assert cpp.startswith("cpp FERMT_ISA=sse9: ")
    assert reference == "reference (1, 20, 24)"


def test_a_checkout_without_a_library_takes_the_installed_one(
    tmp_path: Path, loaded: library.Library, fresh_python: Callable[..., str]
) -> None:
    """What `pip install .` leaves: sources without a library before the installed package on Python's path."""
    site = tmp_path / "site-packages"
    installed = site / "fermt_kernels" / "cpp" / library.PATH.name
    installed.parent.mkdir(parents=True)
    installed.symlink_to(library.path())
    code = (
        "import importlib.metadata as metadata; every = metadata.distributions;"
        f"metadata.distributions = lambda **name: every(path=[{str(site)!r}], **name);"  # not this checkout's
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
    assert "libfermt_kernels.so" in printed


def attention_fields() -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Good fields of the backward call for one head of four tokens, and the tensors that they point to."""
    names = ("grad_out", "q", "k", "v", "out", "grad_q", "grad_k", "grad_v")
    tensors, lse = {name: torch.zeros(1, 1, 4, 16) for name in names}, torch.zeros(1, 1, 4)
    fields = {
        "batch": 1,
        "heads": 1,
        "tokens": 4,
        "head_dim": 16,
        "num_template": 2,
        "template_keys": (0, 2),
        "search_keys": (0, 4),
        "scale": 0.25,
        "dtype": 0,
        **{name: abi.tensor_fields(tensor) for name, tensor in tensors.items()},
        "lse": lse.data_ptr(),
    }
    return fields, [*tensors.values(), lse]


def unit_fields() -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Good fields of the unit's backward call for one image of 4 x 5 pixels, and the tensors that they point to."""
    x, weights = unit_inputs((1, 3, 4, 5))
    grads, grad_out, grad_x = [torch.zeros_like(w) for w in weights], torch.zeros_like(x), torch.zeros_like(x)
    fields = {
        "batch": 1,
        "channels": 3,
        "height": 4,
        "width": 5,
        "kernel": 5,
        "dilated_kernel": 5,
        "hidden": 1,
        **{name: abi.tensor_fields(tensor) for name, tensor in (("grad_out", grad_out), ("x", x), ("grad_x", grad_x))},
        "dtype": 0,
        "weights": tuple(w.data_ptr() for w in weights),
        "grad_weights": tuple(g.data_ptr() for g in grads),
    }
    return fields, [x, *weights, *grads, grad_out, grad_x]


CALLS = {
    "fermt_attention_backward": attention_fields,
    "fermt_dual_attention_unit_backward": unit_fields,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("parallel", [True, False])
def test_good_arguments_pass_with_threads_and_without(
    loaded: library.Library, monkeypatch: pytest.MonkeyPatch, name: str, parallel: bool
) -> None:
    if not parallel:
        monkeypatch.setattr(loaded, "parallel_for", 0)
    fields, _keep = CALLS[name]()
    loaded.call(name, **fields)


@pytest.mark.parametrize(
    ("name", "field", "value", "status"),  # "field[i]" is element i of an array, or of a tensor's address and strides
    [
        *(
            ("fermt_attention_backward", *row)
            for row in (
                ("grad_out[0]", 0, NULL_POINTER),
                ("lse", 0, NULL_POINTER),
                ("grad_v[0]", 0, NULL_POINTER),
                ("batch", -1, BAD_SIZE),
                ("tokens", 2**62, BAD_SIZE),
                ("heads", 2**39, BAD_SIZE),
                ("head_dim", 0, BAD_SIZE),
                ("num_template", 5, BAD_SPAN),
                ("num_template", -1, BAD_SPAN),
                ("template_keys[1]", 5, BAD_SPAN),
                ("search_keys[0]", 5, BAD_SPAN),
                ("search_keys[0]", -1, BAD_SPAN),
                ("dtype", 7, BAD_DTYPE),
                ("grad_out[3]", -16, BAD_STRIDE),
                ("grad_v[1]", -1, BAD_STRIDE),
            )
        ),
        *(
            ("fermt_dual_attention_unit_backward", *row)
            for row in (
                ("x[0]", 0, NULL_POINTER),
                ("weights[0]", 0, NULL_POINTER),
                ("grad_weights[11]", 0, NULL_POINTER),
                ("channels", 0, BAD_SIZE),
                ("width", 0, BAD_SIZE),
                ("height", 2**50, BAD_SIZE),
                ("kernel", 4, BAD_SIZE),
                ("dilated_kernel", -5, BAD_SIZE),
                ("hidden", 0, BAD_SIZE),
                ("dtype", -1, BAD_DTYPE),
                ("grad_x[2]", -1, BAD_STRIDE),
            )
        ),
    ],
)
def test_bad_arguments_become_errors(loaded: library.Library, name: str, field: str, value: int, status: int) -> None:
    fields, _keep = CALLS[name]()
    field, _, index = field.rstrip("]").partition("[")
    before = fields[field]
    fields[field] = (*before[: int(index)], value, *before[int(index) + 1 :]) if index else value
    with refused(RuntimeError, name, f"status {status}"):
        loaded.call(name, **fields)


@pytest.mark.parametrize("name", CALLS)
def test_fields_go_by_their_names(loaded: library.Library, name: str) -> None:
    fields, _keep = CALLS[name]()
    first = next(iter(fields))
    without = {key: value for key, value in fields.items() if key != first}
    for wrong, named in ((without, first), (fields | {"bach": 1}, "bach")):
        with refused(TypeError, f"'{named}'"):
            loaded.call(name, **wrong)


@pytest.mark.parametrize("name", abi.LAYOUTS)
def test_a_struct_of_another_size_is_refused(loaded: library.Library, name: str) -> None:
    function, layout = loaded._kernels[name]
    assert function(bytes(layout.size)) == 1  # struct_size 0
    assert function(None) == 2


WITHOUT_THREADS = {
    "torch does not export it": 'torch_threads.FUNCTION = "torch_parallel_for_of_another_version"',
    "torch's libraries are elsewhere": (
        "torch_threads.LIBRARIES = {sys.platform: 'nowhere.so'};"
        "torch_threads.torch_private.extension_path = lambda: 'nowhere either.so'"
    ),
}


@pytest.mark.parametrize("case", WITHOUT_THREADS)
def test_without_torchs_threads_the_reference_runs(
    case: str, loaded: library.Library, fresh_python: Callable[..., str]
) -> None:
    printed = fresh_python(
        "import sys, torch, fermt_kernels as fk; from fermt_kernels.cpp import torch_threads;"
        f"{WITHOUT_THREADS[case]};"
        "print(fk.backends()); print(fk.mixed_attention(torch.randn(1, 9, 96), 2, 4).shape)"
    )
    assert lacking(printed, torch.__version__) == []
    assert "torch_parallel_for" in printed
    assert "torch.Size([1, 9, 32])" in printed


def test_torchs_threads_are_found_where_its_libraries_are(
    loaded: library.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = torch_threads.parallel_for()
    assert usual == loaded.parallel_for
    monkeypatch.setitem(torch_threads.LIBRARIES, sys.platform, "nowhere.so")
    assert torch_threads.parallel_for() == usual


def test_another_library_of_that_name_is_reported(monkeypatch: pytest.MonkeyPatch, loaded: library.Library) -> None:
    monkeypatch.setattr(library, "LAYOUTS", {**abi.LAYOUTS, "fermt_of_the_future": abi.LAYOUTS["fermt_fma_peak"]})
    opened = library._open.__wrapped__()
    assert isinstance(opened, str)
    assert "is not this package's library" in opened
    assert "fermt_of_the_future" in opened


def test_it_runs_on_torchs_threads(loaded: library.Library) -> None:
    assert loaded.parallel_for
