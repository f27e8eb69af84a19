"""The ops on the GPU of this machine: by the accuracy rule, by opcheck, and bit for bit over many runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.gpu import checks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHECKS = checks.of_ops("cuda", DTYPES)


@pytest.mark.parametrize("check", [check for _, check in CHECKS], ids=[name for name, _ in CHECKS])
def test_ops_are_right(check: Callable) -> None:
    compared, faults = check()
    assert compared
    assert not faults
