"""What the processes of a torchrun do in tests: python -m torch.distributed.run ... -m tests.support.together FOLDER

Writes the gradients of one step to FOLDER/gradients.pt, and trains a micro model there. With a second argument, the
last process kills itself in the middle, the first time.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

from fermt.data import normalize_batch
from fermt.training import World, joined
from fermt.training.batches import Batch, training_indices
from fermt.training.step import Stepper
from fermt.training.trainer import initial_model

from . import micro
from .pairs import Rectangles


def gradients(world: World, accumulate: int) -> dict[str, Tensor]:
    """Of one step of 8 pairs in float64.

    Batch norms are frozen, for in a process's own batch they would have other statistics, and every box has its center
    in the map, for the focal loss divides by the number of those that have.
    """
    settings = micro.config(model_options={"drop_path": 0.0}, pairs=8, batch=8, accumulate=accumulate, clip=1e9)
    model = initial_model(settings).double().eval()
    source = Rectangles(model.config, 0, 8)
    parts = []
    for indices in training_indices(settings, world, 0):
        pairs = [source.pair(0, index) for index in indices]
        images = (torch.stack([pair[key] for pair in pairs]) for key in ("template", "search"))
        boxes = torch.tensor([(0.1 + 0.05 * index, 0.2, 0.3, 0.25) for index in indices], dtype=torch.float64)
        parts.append(Batch(*(normalize_batch(image, dtype=torch.float64) for image in images), boxes))
    stepper = Stepper(model, settings, world)
    found: dict[str, Tensor] = {}
    stepper.optimizer.register_step_pre_hook(
        lambda *_: found.update({name: value.grad.clone() for name, value in model.named_parameters()})
    )
    assert not stepper(parts, 0).skipped
    return found


class Deadly(Rectangles):
    """Kills its process when it is asked for the first pair of step 6 that the last process has."""

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        if epoch == 0 and index == 25 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pair(epoch, index)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with joined("cpu") as world:
        found = gradients(world, accumulate=2)
        if world.rank == 0:
            torch.save(found, folder / "gradients.pt")
        settings = micro.config()
        kind = Deadly if len(sys.argv) > 2 else Rectangles
        train = kind(settings.model_config(), 0, settings.pairs)
        micro.trainer(settings, folder, world, train=train).run()
