"""A model's mode, evaluation or training, for the length of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Has a model in evaluation mode; afterwards each of its modules is in the mode that it was in.

    `model.train(was_training)` would put parts in training that were not, such as frozen norms.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
