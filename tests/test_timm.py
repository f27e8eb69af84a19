"""`fk.swap` on every family of timm's models that has attention: equal before and after, or refused; `make timm`."""

from __future__ import annotations

import copy
import warnings
from importlib.util import find_spec

import pytest
import torch

import fermt_kernels as fk

if find_spec("timm") is None:
    pytest.skip("timm is not installed; `make timm` makes an environment with it", allow_module_level=True)
from .support.timm_models import create, families

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4  # of the largest logit; float32 through a whole network


@pytest.mark.parametrize(("module", "name"), families().items())
def test_a_swap_changes_no_logits(module: str, name: str) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = create(name).eval()
    kinds = {type(part).__name__ for part in model.modules()}
    if not any("attention" in kind.lower() or "attn" in kind.lower() for kind in kinds):
        pytest.skip(f"{name} has no attention")
    channels, height, width = model.default_cfg["input_size"]
    images = torch.randn(1, channels, height, width)
    with torch.no_grad():
        before = model(images)
        swapped = copy.deepcopy(model)
        try:
            report = fk.swap(swapped)
        except ValueError as error:  # nothing to replace, said in one sentence
            print(f"{module}: {name}: refused: {error}")
            report = None
        after = swapped(images)
    if report is not None:
        print(f"{module}: {name}: {report}")
    scale = before.abs().max()
    assert (after - before).abs().max() <= TOLERANCE * scale
