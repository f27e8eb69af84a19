"""The state of a training run on disk: everything that the next step depends on."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fermt_kernels.files import atomic_write, delete_leftovers

from .. import checkpoints
from ..messages import differences
from ..model import FERMT
from .config import TrainConfig
from .step import Stepper

STATES, DAMAGED = "state-*.pt", ".damaged"  # a pattern, and the suffix of states that cannot be read
WEIGHTS, BEST, METRICS, CONFIG = "weights.safetensors", "best.safetensors", "metrics.csv", "config.json"
FILES = (WEIGHTS, BEST, METRICS, CONFIG)
# Settings that may change when a run continues: its length, the machine, and logging.
MAY_CHANGE = (
    *("epochs", "roots", "workers", "accumulate", "validation", "validation_pairs", "validate_every"),
    *("log_every", "save_every", "keep", "bad_steps", "tensorboard"),
)
logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """The position of a run."""

    epoch: int = 0  # from 0
    step: int = 0  # next step of the epoch
    total: int = 0  # steps done, including skipped ones
    skipped: int = 0
    in_a_row: int = 0  # consecutive skipped steps
    best: float = -1.0  # best average overlap in validation
    sums: dict[str, float] = dataclasses.field(default_factory=dict)  # of measurements since the last logged line
    count: int = 0  # steps in `sums`


def save_state(folder: Path, config: TrainConfig, stepper: Stepper, progress: Progress) -> Path:
    """Writes the state and deletes all but the newest `config.keep` states."""
    state = {
        "config": config.to_dict(),
        "progress": dataclasses.asdict(progress),
        "model": stepper.model.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "scaler": stepper.scaler.state_dict(),
        "average": stepper.average.model.state_dict() if stepper.average else None,
        "matching": stepper.matched.heads.state_dict() if stepper.matched else None,
    }
    target = folder / f"state-{progress.total:09d}.pt"
    atomic_write(target, lambda path: torch.save(state, path))
    delete_leftovers(folder, "state-*")
    for old in states(folder)[: -config.keep]:
        old.unlink()
    return target


def states(folder: Path) -> list[Path]:
    """Lists the states in a folder, the newest last."""
    return sorted(path for path in folder.glob(STATES) if re.fullmatch(r"state-\d{9,}\.pt", path.name))


def read_newest(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """Reads the newest of `paths`, oldest first, that is not damaged; a warning names those that are.

    Raises:
        ValueError: all are damaged; the message is that of the newest.
    """
    damaged: list[ValueError] = []
    for path in reversed(paths):
        try:
            content = _read(path)
        except ValueError as error:
            damaged.append(error)
            continue
        if damaged:
            logger.warning("%s. The run continues from %r", "; ".join(map(str, damaged)), str(path))
        return path, content
    raise damaged[0]


def set_aside(path: Path) -> None:
    """Renames the states after `path`, which are damaged, so that they do not pass for the newest ones."""
    for later in states(path.parent):
        if later.name > path.name:
            later.replace(later.with_suffix(DAMAGED))


def _read(path: Path) -> dict[str, Any]:
    state = checkpoints.read_pickled(path)
    fields = {"config", "progress", "model", "optimizer", "scaler", "average", "matching"}
    if not fields <= set(state):
        raise ValueError(f"{os.fspath(path)!r} is not the state of a run: it lacks {sorted(fields - set(state))}")
    with zipfile.ZipFile(path) as archive:  # whose checksums PyTorch does not look at
        if damaged := archive.testzip():
            raise ValueError(f"{os.fspath(path)!r} is damaged: {damaged} has another checksum than when it was written")
    return state


def load_state(path: Path, state: Mapping[str, Any], config: TrainConfig, stepper: Stepper) -> Progress:
    """Loads a state, as read from `path`, into `stepper`, whose model and optimizer have the same configuration.

    Raises:
        ValueError: it is of a run whose configuration differs in more than `MAY_CHANGE`.
    """
    fixed = [field.name for field in dataclasses.fields(config) if field.name not in MAY_CHANGE]
    if reasons := differences(state["config"], config.to_dict(), fixed):
        raise ValueError(
            f"{os.fspath(path)!r} is of another run ({'; '.join(reasons)}): continue with its settings, use "
            "another folder, or start again (--fresh)"
        )
    checkpoints.load_state_dict(stepper.model, state["model"])
    if stepper.matched:
        stepper.matched.heads.load_state_dict(state["matching"])
    stepper.optimizer.load_state_dict(state["optimizer"])
    if stepper.scaler.is_enabled():
        stepper.scaler.load_state_dict(state["scaler"])
    if stepper.average:
        checkpoints.load_state_dict(stepper.average.model, state["average"])
    return Progress(**state["progress"])


def clear(folder: Path) -> None:
    """Deletes the files of a run in a folder and nothing else."""
    delete_leftovers(folder, "state-*")
    for pattern in (STATES, f"state-*{DAMAGED}"):
        for path in folder.glob(pattern):
            path.unlink()
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def export(model: FERMT, folder: Path, *, best: bool) -> None:
    """Writes weights for the tracker, also under the name of the best ones if they are the best so far."""
    for name in (WEIGHTS, BEST) if best else (WEIGHTS,):
        checkpoints.save(model, folder / name)
