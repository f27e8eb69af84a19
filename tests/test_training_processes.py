"""Several processes: the gradients of one with the whole batch, and a run that outlives one of them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

import fermt
from fermt.losses import loss_of
from fermt.training import World
from fermt.training.batches import load, training_indices, validation_indices
from fermt.training.world import joined

from .conftest import ROOT
from .support import micro
from .support.errors import refused
from .support.pairs import Rectangles
from .support.together import gradients

CPU = torch.device("cpu")


def torchrun(folder: Path, *more: str) -> None:
    folder.mkdir()
    options = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    command = (sys.executable, "-m", "torch.distributed.run", *options, "-m", "tests.support.together", str(folder))
    finished = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave, to which nothing happened."""
    if sys.platform == "win32":
        pytest.skip("torchrun's gloo rendezvous is for Linux and macOS")
    folder = tmp_path_factory.mktemp("together") / "whole"
    torchrun(folder)
    return folder


def test_two_processes_have_the_gradients_of_one(whole: Path) -> None:
    together = torch.load(whole / "gradients.pt", weights_only=True)
    alone = gradients(micro.ALONE, accumulate=1)
    assert together.keys() == alone.keys()
    for name, expected in alone.items():
        torch.testing.assert_close(together[name], expected, rtol=1e-9, atol=1e-12, msg=name)
    assert fermt.load(whole / "weights.safetensors").config.dim == micro.MODEL["dim"]


@pytest.mark.slow
def test_two_processes_outlive_a_kill(whole: Path, tmp_path: Path) -> None:
    torchrun(tmp_path / "broken", "deadly")
    weights = [fermt.load(folder / "weights.safetensors").state_dict() for folder in (whole, tmp_path / "broken")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("dau", [True, False])
@pytest.mark.parametrize("name", fermt.CONFIGS)
def test_no_model_has_a_parameter_that_a_step_does_not_use(name: str, dau: bool) -> None:
    """What DistributedDataParallel takes for granted."""
    config = dataclasses.replace(fermt.CONFIGS[name], dau=dau, template_size=32, search_size=64, dim=24, num_heads=3)
    model = fermt.build_model(config).train()
    outputs = model(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64))
    loss, _ = loss_of(model)(outputs, torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.5, 0.4, 0.3, 0.1]]))
    loss.backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []


def test_workers_are_not_forked_from_a_process_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a child now and then waits forever for a lock that another thread held."""
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    settings = micro.config()
    source, indices = Rectangles(settings.model_config(), 0, settings.pairs), training_indices(settings, micro.ALONE, 0)
    with_workers, without = (list(load(source, 0, indices, workers, micro.ALONE)) for workers in (1, 0))
    assert len(without) == 10
    for actual, expected in zip(with_workers, without, strict=True):
        assert all(map(torch.equal, actual, expected))


def test_every_pair_is_some_processs_own_whatever_the_division() -> None:
    for accumulate, size in ((1, 1), (2, 1), (1, 2), (2, 2), (1, 4)):
        settings = micro.config(pairs=22, batch=4, accumulate=accumulate)
        shares = [training_indices(settings, World(rank, size, CPU), 2) for rank in range(size)]
        assert {len(part) for share in shares for part in share} == {4 // accumulate // size}
        for step in range(3):  # 2, 3 and 4; two pairs are left over
            parts = [part for share in shares for part in share[step * accumulate : (step + 1) * accumulate]]
            assert sorted(chain(*parts)) == list(range(4 * step + 8, 4 * step + 12))
        held_out = [validation_indices(settings, World(rank, size, CPU), 9) for rank in range(size)]
        assert sorted(chain(*chain(*held_out))) == list(range(9))


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with refused(ValueError, 4, 3, 1, "accumulate"):
        micro.config().parts(3)


@pytest.mark.parametrize(
    ("device", "values"), [("tpu", ("auto, cpu, cuda or cuda:N", "'tpu'")), ("cuda:7", ("GPU 7", "'cuda:7'"))]
)
def test_a_device_that_is_not_there_is_refused(device: str, values: tuple[str, ...]) -> None:
    with refused(ValueError, *values), joined(device):
        pass
