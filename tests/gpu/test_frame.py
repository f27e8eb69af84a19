"""The packed frame on the GPU of this machine: by the accuracy rule, in TF32, and bit for bit over many runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.gpu import frame_checks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHECKS = frame_checks.of_frames("cuda", DTYPES)


@pytest.mark.parametrize("check", [check for _, check in CHECKS], ids=[name for name, _ in CHECKS])
def test_frames_are_right(check: Callable) -> None:
    compared, faults = check()
    assert compared
    assert not faults
