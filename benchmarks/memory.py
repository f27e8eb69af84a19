"""Peak memory of one computation, in a process of its own, for what a process has held it rarely gives back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from .cases import AttentionCase
from .peers_ops import ATTENTION

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


def main(runner: str, case: AttentionCase) -> None:
    run = ATTENTION[runner]
    small = AttentionCase(case.pattern, 1, n=4, tokens=8)
    for warm in (small, case):  # the first call loads libraries and starts threads
        qkv = warm.qkv().requires_grad_()
        grad = torch.randn(warm.batch, warm.tokens, qkv.shape[2] // 3)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
        before = _status("VmRSS")
        torch.autograd.grad(run(qkv, warm), qkv, grad)
    print(_status("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], AttentionCase(*json.loads(sys.argv[2])))
