"""A model and a run small enough for tests; as a command, a run in a process of its own that may be killed.

python -m tests.support.micro FOLDER [STEP]: kills itself while it writes the state of that step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from fermt.training import TrainConfig, Trainer, World, joined

from .pairs import Rectangles

MODEL = {"patterns": ["mixed", "cross"], "dim": 32, "num_heads": 2, "template_size": 32, "search_size": 64}
ALONE = World(0, 1, torch.device("cpu"))


def config(**changes: Any) -> TrainConfig:
    options = MODEL | changes.pop("model_options", {})
    values: dict[str, Any] = {
        "model_options": options,
        "epochs": 2,
        "pairs": 40,
        "batch": 4,
        "lr": 1e-3,
        "backbone_lr_factor": 1.0,
        "clip": 1.0,
        "workers": 0,
        "validation_pairs": 8,
        "validate_every": 1,
        "log_every": 3,
        "save_every": 4,
        "drop_epoch": 1,
    }
    return TrainConfig(**(values | changes))


def trainer(settings: TrainConfig, folder: Path, world: World = ALONE, **options: Any) -> Trainer:
    model = settings.model_config()
    train, held_out = Rectangles(model, 0, settings.pairs), Rectangles(model, 1, settings.validation_pairs)
    return Trainer(settings, options.pop("train", train), held_out, folder, world, **options)


def killed_in_state(step: int) -> None:
    """Has this process killed when the state of that step is written, but has not got its name."""
    replace = os.replace

    def deadly(source: Any, target: Any) -> None:
        if Path(target).name == f"state-{step:09d}.pt":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = deadly


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        killed_in_state(int(sys.argv[2]))
    with joined("cpu") as world:
        trainer(config(workers=1, ema=0.9), Path(sys.argv[1]), world).run()
