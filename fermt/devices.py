"""The check of a device, before anything is loaded or allocated."""

from __future__ import annotations

import torch


def check_device(device: torch.device | str) -> torch.device:
    """Returns a device that this machine and this PyTorch have.

    Args:
        device: "cpu", "cuda", "cuda:1", ..., or a torch.device.

    Raises:
        ValueError: the name is not one of a device, or there is no such device here; the message says which.
    """
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be cpu, cuda, cuda:N or another of torch's devices; got {device!r}") from error
    if chosen.type == "cpu":
        if chosen.index:
            raise ValueError(f"there is no CPU {chosen.index}; all are one device, 'cpu': device {str(device)!r}")
        return torch.device("cpu")
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            reason = "" if torch.version.cuda or torch.version.hip else ", because it is built without CUDA"
            raise ValueError(f"there is no GPU {chosen.index or 0}; torch sees {count}{reason}: device {str(device)!r}")
        return chosen
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(device)!r} is not usable here: {str(error).splitlines()[0]}") from error
    return chosen
