"""The Triton kernels where there is no GPU: run by the interpreter, and compiled ahead of time."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import fermt_kernels.triton as triton_backend
from benchmarks.gpu import triton_aot
from benchmarks.gpu.compilation import distinct, launched

ROOT = Path(__file__).parents[1]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed here")
pytestmark = pytest.mark.triton
LEAST_SHARED_MEMORY = 86  # of the chips
UNLIKE = (86, 90, 120)  # those whose compiled code or limits differ most; nightly runs have all of them

OF_16_BITS = {"attention_backward_kernel", "mlp_kernel", "proj_mlp_kernel"}


@needs_triton
@pytest.mark.parametrize("lane", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_interpreter_lane(lane: str) -> None:
    """In a process of its own, for the switch is read when a kernel is decorated."""
    import triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        pytest.skip(f"the interpreter of Triton {triton.__version__} knows neither NumPy 2.4 nor a fused multiply-add")
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", lane, "--durations=10", "tests/triton_lane"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    print(finished.stdout[-4000:])
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    assert "skipped" not in finished.stdout


def kernels() -> Iterator[str]:
    """Every function of the Triton backend that is decorated and launched: those whose name ends in `_kernel`."""
    from triton import JITFunction

    for module in pkgutil.walk_packages(triton_backend.__path__, triton_backend.__name__ + "."):
        for name, value in inspect.getmembers(importlib.import_module(module.name)):
            if isinstance(value, JITFunction) and value.fn.__module__ == module.name and name.endswith("_kernel"):
                yield name


@needs_triton
def test_every_kernel_is_compiled_ahead_of_time() -> None:
    assert sorted(kernels()) == sorted({source.kernel for source in triton_aot.sources()})


@needs_triton
def test_tf32_and_every_architecture_are_compiled_ahead_of_time() -> None:
    every = triton_aot.sources()
    tf32 = {source.kernel for source in every if "tf32" in source.constants.values()}
    assert tf32 == {source.kernel for source in every if "ieee" in source.constants.values()} - OF_16_BITS
    assert {80, 86, 89, 90, 100, 120} == triton_aot.CHIPS.keys()


@needs_triton
@pytest.mark.slow
def test_no_number_of_targets_needs_another_compilation() -> None:
    def compilations(*batches: int) -> set[str]:
        runs = (partial(triton_aot.frame_launches, "fermt", False, torch.bfloat16, batch) for batch in batches)
        return {repr(source) for source, _ in distinct(("", launch) for run in runs for launch in launched(run))}

    assert compilations(2, 3, 8, 16, 17, 32, 127) <= compilations(1, 128)


@needs_triton
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one each", "all"])
def test_nothing_spills_and_everything_fits_its_chip(whole: bool) -> None:
    """Each kernel once for the chip with the least shared memory; in the slow lane every case for three chips."""
    if whole:
        todo = triton_aot.every_one(UNLIKE)
    else:
        todo = [(source, LEAST_SHARED_MEMORY) for source in triton_aot.one_each(triton_aot.sources())]
    for row in triton_aot.compile_all(todo):
        assert row.local == 0, f"{row} spills"
        assert row.shared <= triton_aot.CHIPS[row.arch].shared_a_block, f"{row} takes too much shared memory"
        assert row.occupancy > 0, row


@needs_triton
def test_a_dependent_launch_waits_before_its_first_access_and_then_lets_the_next_begin() -> None:
    overlapping = [source for source in triton_aot.candidates(90) if source.tuning.dependent]
    assert {source.kernel for source in overlapping} == {
        "norm_linear_kernel",
        "attention_forward_kernel",
        "proj_mlp_kernel",
    }
    for source in triton_aot.one_each(overlapping):
        ptx = triton_aot.code_for(source, 90)["ptx"]
        found = {name: ptx.find(f"griddepcontrol.{name}") for name in ("wait", "launch_dependents")}
        accesses = [ptx.find(name) for name in ("ld.global", "cp.async", "st.global") if name in ptx]
        assert 0 < found["wait"] < found["launch_dependents"] < min(accesses), source.kernel
    assert not any(source.tuning.dependent for arch in (80, 86, 89) for source in triton_aot.candidates(arch))


def test_occupancy_counts_registers_warps_and_shared_memory() -> None:
    chip = triton_aot.CHIPS[80]
    assert triton_aot.occupancy(chip, 32, 0, 4) == 1.0
    assert triton_aot.occupancy(chip, 128, 0, 4) == 4 * 4 / 64
    assert triton_aot.occupancy(chip, 32, 80 << 10, 4) == 2 * 4 / 64
