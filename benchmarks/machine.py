"""Facts about the machine and the versions, for every result."""

from __future__ import annotations

import os
import platform
from datetime import date
from typing import Any

import torch

import fermt_kernels as fk
from fermt.machine import cpu_name
from fermt_kernels.cpp import library


def facts() -> dict[str, Any]:
    """What a number needs beside it to mean something."""
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": library.load().isa if library.unavailable_reason() is None else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fermt_kernels": fk.__version__,
    }


def headline(values: dict[str, Any]) -> str:
    """One line for people."""
    isa = values["isa"] or "no compiled library"
    return (
        f"{values['cpu']}, {values['cores']} cores, {values['threads']} threads, ISA {isa}; torch {values['torch']}, "
        f"Python {values['python']}, {values['date']}"
    )
