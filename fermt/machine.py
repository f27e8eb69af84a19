"""What a measured number needs beside it to mean something: the machine and the versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import fermt_kernels as fk


def cpu_name() -> str:
    """The processor's name, as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def facts(device: str | torch.device = "cpu") -> dict[str, Any]:
    """The device and its name, threads, versions, and the backends that are usable, each with its instruction set."""
    device = torch.device(device)
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fermt_kernels": fk.__version__,
        "backends": {row.name: row.detail for row in fk.backends() if row.usable},
    }


def headline(values: dict[str, Any]) -> str:
    """One line of them for people."""
    return (
        f"{values['device']}: {values['name']}, {values['threads']} CPU threads on {values['cores']} cores, "
        f"torch {values['torch']}"
    )
