"""The stored outputs of the authors' code, and the weights and inputs that they were computed from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fermt

from ..golden import deterministic

FOLDER = Path(__file__).parents[1] / "golden"
CONFIGS = {"center": "fermt", "corner": "fermt-corner"}
IN_FLOAT64 = 2e-6  # large arrays are stored in float32
IN_FLOAT32 = 2e-4


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}_seed0.npz") as file:
        return {key: file[key] for key in file.files}


@cache
def authors_state_dict(head: str) -> dict[str, Tensor]:
    """The authors' keys, `backbone.cls_token` and `backbone.pos_embed` among them, in float64."""
    made = deterministic.state_dict(deterministic.shapes(head), 0)
    return {key: torch.from_numpy(value) for key, value in made.items()}


def model(head: str, dtype: torch.dtype = torch.float64, backend: str = "auto") -> fermt.FERMT:
    built = fermt.build_model(CONFIGS[head], backend=backend).to(dtype)
    fermt.load_state_dict(built, authors_state_dict(head))
    return built.eval()


def tracking_model(dtype: torch.dtype = torch.float64) -> fermt.FERMT:
    """The model of `track_seed0`: three weights are others, without which a random network's boxes run away."""
    state = dict(authors_state_dict("center"))
    state["box_head.conv5_size.bias"] = torch.full_like(state["box_head.conv5_size.bias"], -1.1)
    state["box_head.conv5_ctr.weight"] = state["box_head.conv5_ctr.weight"] * 8
    state["box_head.conv5_ctr.bias"] = torch.full_like(state["box_head.conv5_ctr.bias"], -1.0)
    built = fermt.build_model("fermt").to(dtype)
    fermt.load_state_dict(built, state)
    return built.eval()


def images(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """The template and the search region."""
    template, search = (
        torch.from_numpy(deterministic.unit(name, (1, 3, size, size), 0)).to(dtype)
        for name, size in (("template", 128), ("search", 256))
    )
    return template, search
