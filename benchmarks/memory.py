"""Peak memory of one computation, in a process of its own, for what a process has held it rarely gives back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .cases import AttentionCase
from .peers_ops import ATTENTION, Attention

ROOT = Path(__file__).parents[1]


def peak_megabytes(runner: str, case: AttentionCase) -> float:
    """MB above the inputs at the peak of one forward and backward pass; Linux only.

    Raises:
        RuntimeError: the process failed; the message is what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.memory", runner, json.dumps(case)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"measuring the memory of {runner!r} failed: {finished.stderr}")
    return float(finished.stdout)


def _status(field: str) -> float:
    """A field of this process's status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_above(run: Callable[[], object]) -> float:
    """MB that this process needs for a call, at its peak, above what it holds before; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def main(runner: str, case: AttentionCase) -> None:
    run = ATTENTION[runner]
    small = AttentionCase(case.pattern, 1, n=4, tokens=8)
    for warm in (small, case):  # the first call loads libraries and starts threads
        qkv = warm.qkv().requires_grad_()
        grad = torch.randn(warm.batch, warm.tokens, qkv.shape[2] // 3)
        peak = peak_above(partial(_both_passes, run, qkv, warm, grad))
    print(peak)


def _both_passes(run: Attention, qkv: Tensor, case: AttentionCase, grad: Tensor) -> None:
    torch.autograd.grad(run(qkv, case), qkv, grad)


if __name__ == "__main__":
    main(sys.argv[1], AttentionCase(*json.loads(sys.argv[2])))
