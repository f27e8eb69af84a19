"""A device that is not there is named in one sentence, before anything else is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fermt
from fermt.adapters.build import tracker_for
from fermt.cli import app
from fermt.devices import check_device
from fermt.machine import facts, pick_device

from .support.errors import lacking, refused

NOTHING = "nothing-there"  # neither a video, weights nor a data set: the device is checked before them


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


COMMANDS = {
    "track": (NOTHING, "--box", "1,2,30,40"),
    "bench": ("--weights", NOTHING),
    "eval": ("--dataset", f"got10k={NOTHING}", "--weights", NOTHING),
    "train": ("--config", "synthetic-tiny", "--dry-run"),
}
DEVICES = {  # and what must be said of each
    "cuda": ("GPU 0", "'cuda'"),
    "cuda:1": ("GPU 1", "'cuda:1'"),
    "gpu": ("auto, cpu, cuda or cuda:N", "'gpu'"),
    "cuda:x": ("'cuda:x'",),
    "cpu:7": ("CPU 7", "'cpu:7'"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("device", DEVICES)
def test_commands(command: str, device: str) -> None:
    result = CliRunner().invoke(app, [command, *COMMANDS[command], "--device", device], env={"COLUMNS": "400"})
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert lacking(line, *DEVICES[device]) == []


LOADERS: dict[str, Callable[[str], object]] = {
    "load": lambda device: fermt.load(NOTHING, device=device),
    "load_any": lambda device: fermt.checkpoints.load_any(NOTHING, device=device),
    "tracker_for": lambda device: tracker_for(NOTHING, device=device),
    "pick_device": lambda device: pick_device(device),
    "facts": lambda device: facts(device),
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_public_functions(loader: Callable[[str], object]) -> None:
    with refused(ValueError, "GPU 3", 0, "'cuda:3'"):
        loader("cuda:3")
    with refused(ValueError, "device", "'gpu'"):
        loader("gpu")


def test_devices_that_are_there() -> None:
    assert check_device("cpu") == check_device(torch.device("cpu")) == torch.device("cpu")
    assert check_device("cpu:0") == torch.device("cpu")  # safetensors does not know the longer name
    assert check_device("meta").type == "meta"
    assert (pick_device("auto"), pick_device("cpu"), pick_device("auto", Path("a.fermt"))) == ("cpu", "cpu", "cpu")


def test_a_device_that_this_pytorch_lacks() -> None:
    absent = next((name for name in ("mps", "xpu", "hpu") if not _usable(name)), None)
    assert absent is not None
    with refused(ValueError, f"'{absent}'"):
        check_device(absent)
    with refused(ValueError, "auto, cpu, cuda or cuda:N", f"'{absent}'"):
        pick_device(absent)


def _usable(name: str) -> bool:
    try:
        torch.empty(0, device=name)
    except Exception:
        return False
    return True
