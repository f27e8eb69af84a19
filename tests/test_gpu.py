"""The kernels on the GPU of this machine, if it has one; the interpreter tries out the same checks elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from .conftest import ROOT


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_every_kernel_is_right() -> None:
    command = (sys.executable, "-m", "benchmarks.gpu", "--only", "check-ops,check-frame")
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
