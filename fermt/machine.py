"""The machine and the versions that a measured number depends on, and the choice of a device."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import fermt_kernels as fk

from .checkpoints import PACKED_SUFFIX
from .devices import check_device

KINDS = ("cpu", "cuda")  # of devices on which commands run


def cpu_name() -> str:
    """The name of the CPU as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def caches(cpu: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> dict[str, int]:
    """Reads the sizes in bytes of a core's data caches, as {"L1": 32768, ...}; empty where Linux does not say."""
    found = {}
    for entry in sorted(cpu.glob("index*")):
        try:
            kind, level, size = ((entry / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:  # some virtual machines list caches without their sizes
            continue
        if kind != "Instruction" and size.removesuffix("K").isdecimal():
            found[f"L{level}"] = 1024 * int(size.removesuffix("K"))
    return found


def cache_text(sizes: Mapping[str, int]) -> str:
    """Formats the sizes of caches, as "L1 32 KB, L2 512 KB, L3 32 MB"."""

    def text(size: int) -> str:
        return f"{size >> 20} MB" if size >> 20 else f"{size >> 10} KB"

    return ", ".join(f"{name} {text(size)}" for name, size in sizes.items())


def pick_device(name: str, weights: Path | None = None) -> str:
    """Resolves the name of a device: "auto" is a GPU if there is one, else the CPU.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" ...
        weights: the model to run, if it is in a file; a packed model (.fermt) runs on the CPU.

    Raises:
        ValueError: the name has another form, or there is no such device on this machine.
    """
    packed = weights is not None and weights.suffix == PACKED_SUFFIX
    if name == "auto":
        return "cuda" if torch.cuda.is_available() and not packed else "cpu"
    if name.partition(":")[0] not in KINDS:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    return name if packed else str(check_device(name))  # loading a packed model refuses any device but the CPU


def facts(device: str | torch.device = "cpu") -> dict[str, Any]:
    """Collects device, its name, threads, versions, and the usable backends, each with its instruction set."""
    device = check_device(device)
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "caches": caches(),
        "torch": torch.__version__,
        "fermt_kernels": fk.__version__,
        "backends": {row.name: row.detail for row in fk.backends() if row.usable},
    }


def headline(values: dict[str, Any]) -> str:
    """Formats `facts` in one line."""
    return (
        f"{values['device']}: {values['name']}, {values['threads']} CPU threads on {values['cores']} cores, "
        f"torch {values['torch']}"
    )
