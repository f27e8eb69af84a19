"""A model's mode, evaluation or training, for the length of a context."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn

from .locks import ObjectLock


class _Evaluation:
    """How many contexts have a model in evaluation mode, and the modules that were in training before the first."""

    def __init__(self, model: nn.Module) -> None:
        self.contexts = 0
        self.training = [module for module in model.modules() if module.training]


_lock = ObjectLock()
_evaluations: weakref.WeakKeyDictionary[nn.Module, _Evaluation] = weakref.WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Has a model in evaluation mode; afterwards each of its modules is in the mode that it was in.

    Several threads may do so with one model: the last to leave restores the modes. `model.train(was_training)` would
    put parts in training that were not, such as frozen norms.
    """
    with _lock:
        evaluation = _evaluations.get(model) or _evaluations.setdefault(model, _Evaluation(model))
        evaluation.contexts += 1
        for module in evaluation.training:
            module.training = False
    try:
        yield
    finally:
        with _lock:
            evaluation.contexts -= 1
            if not evaluation.contexts:
                del _evaluations[model]
                for module in evaluation.training:
                    module.training = True
