"""A network that answers from a script, small models whose boxes stay put, and frames of noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fermt
from fermt.tracking import multi_tracker, tracker

from .packed import CONFIGS, small_model

Row = tuple[float, ...]  # cx, cy, w, h in [0, 1] of the search region, and the score
STEPS: list[Row] = [  # without the score: off the center, and about as large as the target
    (0.55, 0.48, 0.28, 0.22),
    (0.46, 0.56, 0.24, 0.23),
    (0.52, 0.53, 0.26, 0.27),
    (0.44, 0.45, 0.22, 0.26),
]


def rows(scores: Iterable[float]) -> list[Row]:
    """A script of `STEPS`, over and over, with those scores."""
    return [(*STEPS[i % len(STEPS)], score) for i, score in enumerate(scores)]


class Scripted:
    """A network whose every `locate` takes the next rows of a script, and which keeps what it was shown."""

    device = torch.device("cpu")
    template_size, search_size = 16, 32
    template_factor, search_factor = 2.0, 4.0

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: Iterator[Row] = iter(rows)
        self.templates: list[np.ndarray] = []  # as they were encoded
        self.searches: list[np.ndarray] = []
        self.seen: list[list[int]] = []  # for each search region, its target's templates by their place in `templates`

    def encode(self, template: np.ndarray) -> Tensor:
        self.templates.append(template)
        return torch.tensor(len(self.templates) - 1)

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: np.ndarray) -> Tensor:
        self.searches += list(searches)
        self.seen += [[int(template) for template in templates] for templates in encoded]
        return torch.tensor([next(self._rows) for _ in encoded], dtype=torch.float64)


def follow(network: Scripted, **options: object) -> fermt.Tracker:
    """A tracker on that network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracker, "network_for", lambda *_, **__: network)
        return fermt.Tracker(None, **options)


def follow_many(network: Scripted, **options: object) -> fermt.MultiTracker:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_tracker, "network_for", lambda *_, **__: network)
        return fermt.MultiTracker(None, **options)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, channels), dtype=np.uint8)


def steady_model(dtype: torch.dtype = torch.float32) -> fermt.FERMT:
    """A small model whose boxes neither shrink to nothing nor run away, as those of random weights do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _steadied(small_model("center")).to(dtype)


def save_steady(path: Path, seed: int = 0) -> Path:
    """Weights of such a model, with a head as wide as files have it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fermt.save(_steadied(fermt.build_model(CONFIGS["center"])), path)
    return path


def _steadied(model: fermt.FERMT) -> fermt.FERMT:
    with torch.no_grad():
        for name, weight, bias in (("size", 0.1, -1.1), ("offset", 0.3, 0.0), ("ctr", 0.3, -1.0)):
            last = model.box_head.get_submodule(f"conv5_{name}")
            last.weight *= weight
            last.bias.fill_(bias)
    return model
