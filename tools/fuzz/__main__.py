"""Runs kernels and file readers on drawn inputs until the time is over, in processes that may crash.

    python -m tools.fuzz --seconds 300            all targets
    python -m tools.fuzz --case packed:7:1234     one case again, in this process

A case is TARGET:SEED:NUMBER and always draws the same input. A crash, a case that takes longer than five minutes, an
error that is not one of the expected ones and a wrong result are faults: each is named with its case, and the exit
status is 1. `make fuzz` runs this on a library built with AddressSanitizer.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from . import files, numbers, text

TARGETS: dict[str, Callable[[np.random.Generator], None]] = {
    "attention": numbers.attention,
    "linear": numbers.linear,
    "unit": numbers.dual_attention_unit,
    "crop": numbers.crop,
    "arguments": numbers.bad_arguments,
    "packed": files.packed,
    "weights": files.weights,
    "checkpoint": files.checkpoint,
    "boxes": text.boxes,
    "results": text.results,
    "lists": text.lists,
}
MAX_ROUND_SECONDS = 120.0  # a round is a process and a target: long beside the seconds that its start takes
MIN_CASES = 20  # cases of a round, even if its time was over when it had started
SHOWN_LINES = 15  # first and last lines of a crash
HANG_SECONDS = 300.0  # seconds that a case may take, on a machine that does other work, too


class Fault(NamedTuple):
    """A case that failed, and how."""

    case: str
    what: str


def run_case(case: str) -> None:
    """Runs one case, TARGET:SEED:NUMBER; whatever it raises is a fault."""
    target, seed, number = case.split(":")
    TARGETS[target](np.random.Generator(np.random.PCG64((int(seed), list(TARGETS).index(target), int(number)))))


def serve(target: str, seed: int, first: int, end: float) -> int:
    """Runs cases until the monotonic clock is at `end`, naming each on stdout first; returns 1 after a fault."""
    torch.set_num_threads(1)
    for number in itertools.count(first):
        if time.monotonic() >= end and number >= first + MIN_CASES:
            break
        case = f"{target}:{seed}:{number}"
        print(case, flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=2)
        try:
            run_case(case)
        except Exception:  # any error that a target does not expect is what is looked for
            traceback.print_exc()
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    return 0


def round_of(target: str, seed: int, first: int, end: float) -> tuple[int, Fault | None]:
    """Runs cases in a process of their own; returns how many were run, and the fault that ended it, if any."""
    command = [sys.executable, "-m", "tools.fuzz", "--serve", f"{target}:{seed}:{first}:{end}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    cases = [line for line in done.stdout.splitlines() if line.startswith(f"{target}:")]
    if done.returncode == 0:
        return len(cases), None
    lines = done.stderr.strip().splitlines()
    shown = "\n".join(lines if len(lines) <= 2 * SHOWN_LINES else (*lines[:SHOWN_LINES], "...", *lines[-SHOWN_LINES:]))
    return len(cases), Fault(cases[-1] if cases else target, f"exit status {done.returncode}\n{shown}")


def fuzz(targets: list[str], seconds: float, seed: int) -> list[Fault]:
    """Runs rounds of all targets, of equal times, until the time is over, printing what is done."""
    end, counts, faults = time.monotonic() + seconds, dict.fromkeys(targets, 0), []
    print(f"{', '.join(targets)}: about {seconds:.0f} s, seed {seed}", flush=True)
    while time.monotonic() < end:
        for target in targets:
            now = time.monotonic()
            if now >= end:
                break
            until = min(end, now + min(MAX_ROUND_SECONDS, seconds / len(targets)))
            done, fault = round_of(target, seed, counts[target], until)
            counts[target] += done
            if fault:
                faults.append(fault)
                print(f"FAULT {fault.case}: {fault.what}", flush=True)
            left = max(0.0, end - time.monotonic())
            print(f"{sum(counts.values())} cases, {len(faults)} faults, {left:.0f} s left ({target})", flush=True)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "300")))
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other inputs")
    parser.add_argument("--only", choices=TARGETS, action="append", help="a target; repeatable; default: all")
    parser.add_argument("--case", help="run one case in this process")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        target, seed, first, end = options.serve.split(":")
        return serve(target, int(seed), int(first), float(end))
    if options.case:
        run_case(options.case)
        return 0
    return 1 if fuzz(options.only or list(TARGETS), options.seconds, options.seed) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
