"""The packed frame on the GPU of this machine: by the accuracy rule, in TF32, and bit for bit over many runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import frame_checks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_are_accurate(dtype: torch.dtype) -> None:
    compared, found = frame_checks.wrong("cuda", (dtype,), print)
    assert compared
    assert not found


def test_tf32_keeps_to_its_bound() -> None:
    assert not frame_checks.wrong_in_tf32("cuda", print)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_and_graphs_give_the_same_bits(dtype: torch.dtype) -> None:
    assert not frame_checks.differs("cuda", (dtype,), print)
