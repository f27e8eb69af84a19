"""The ops on the GPU of this machine: by the accuracy rule, by opcheck, and bit for bit over many runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import checks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_and_gradients_are_accurate(dtype: torch.dtype) -> None:
    compared, found = checks.wrong("cuda", (dtype,))
    assert compared
    assert not found


def test_crops_are_the_references() -> None:
    assert not checks.wrong_crops("cuda")


def test_runs_give_the_same_bits() -> None:
    assert not checks.differs("cuda")


def test_opcheck() -> None:
    assert not checks.opcheck("cuda")
