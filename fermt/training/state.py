"""The state of a run on disk: everything that the next step depends on, in files that are whole or not there."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import checkpoints
from ..model import FERMT
from .config import TrainConfig
from .step import Stepper

STATES = "state-*.pt"
WEIGHTS, BEST, METRICS, CONFIG = "weights.safetensors", "best.safetensors", "metrics.csv", "config.json"
# What may change when a run goes on: how long, on which machine, and what is written down on the way.
FREE = (
    *("epochs", "roots", "workers", "accumulate", "validation", "validation_pairs", "validate_every"),
    *("log_every", "save_every", "keep", "bad_steps", "tensorboard"),
)


@dataclasses.dataclass
class Progress:
    """Where a run is."""

    epoch: int = 0  # from 0
    step: int = 0  # of the epoch, that comes next
    total: int = 0  # steps done, skipped ones included
    skipped: int = 0
    in_a_row: int = 0  # skipped without one that was not
    best: float = -1.0  # average overlap in validation
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of what was measured since the last line
    count: int = 0  # of steps in `sums`


def save_state(folder: Path, config: TrainConfig, stepper: Stepper, progress: Progress) -> Path:
    """Writes the state aside, renames it, and deletes all but the newest `config.keep`."""
    state = {
        "config": config.to_dict(),
        "progress": dataclasses.asdict(progress),
        "model": stepper.model.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "scaler": stepper.scaler.state_dict(),
        "average": stepper.average.model.state_dict() if stepper.average else None,
    }
    target = folder / f"state-{progress.total:09d}.pt"
    aside = target.with_name(target.name + ".part")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, target)
    for old in (*states(folder)[: -config.keep], *folder.glob(STATES + ".part")):
        old.unlink()
    return target


def states(folder: Path) -> list[Path]:
    """The states in a folder, the newest last."""
    return sorted(path for path in folder.glob(STATES) if re.fullmatch(r"state-\d{9,}\.pt", path.name))


def load_state(path: Path, config: TrainConfig, stepper: Stepper) -> Progress:
    """Puts a state into `stepper`, whose model and optimizer are of the same configuration.

    Raises:
        ValueError: the file is damaged, or of a run whose configuration differs in more than `FREE`.
    """
    state = checkpoints.read_pickled(path)
    fields = {"config", "progress", "model", "optimizer", "scaler", "average"}
    if not fields <= set(state):
        raise ValueError(f"{os.fspath(path)!r} is not the state of a run: it lacks {sorted(fields - set(state))}")
    if reasons := _differences(state["config"], config.to_dict()):
        raise ValueError(
            f"{os.fspath(path)!r} is of another run ({'; '.join(reasons)}): go on with its settings, take another "
            "folder, or start afresh"
        )
    checkpoints.load_state_dict(stepper.model, state["model"])
    stepper.optimizer.load_state_dict(state["optimizer"])
    if stepper.scaler.is_enabled():
        stepper.scaler.load_state_dict(state["scaler"])
    if stepper.average:
        checkpoints.load_state_dict(stepper.average.model, state["average"])
    return Progress(**state["progress"])


def clear(folder: Path) -> None:
    """Deletes what a run has left in a folder, and nothing else there."""
    for path in (*folder.glob(STATES), *folder.glob(STATES + ".part")):
        path.unlink()
    for name in (WEIGHTS, BEST, METRICS, CONFIG):
        (folder / name).unlink(missing_ok=True)


def export(model: FERMT, folder: Path, *, best: bool) -> None:
    """Writes the weights as the tracker loads them, and once more if they are the best so far."""
    for name in (WEIGHTS, BEST) if best else (WEIGHTS,):
        checkpoints.save(model, folder / name)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name)!r}, and is to be {value!r}"
        for name, value in now.items()
        if name not in FREE and before.get(name) != value
    ]
