"""The start of a run: initialization without pretrained weights, weights of other image sizes, learning rates."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import fermt
from fermt import checkpoints
from fermt.training import state
from fermt.training.initial import KEY_QUERY_CORRELATION, init_similar
from fermt.training.optimizer import build_optimizer, set_learning_rate
from fermt.training.trainer import initial_model, load_pretrained

from .support import micro
from .support.errors import refused


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


@pytest.fixture
def similar() -> fermt.FERMT:
    torch.manual_seed(0)
    model = fermt.build_model(micro.config(model_options={"dim": 64}).model_config())
    init_similar(model)
    return model


def test_queries_resemble_keys_and_outputs_undo_values(similar: fermt.FERMT) -> None:
    for block in similar.backbone.blocks:
        query, key, value = block.attn.qkv.weight.detach().chunk(3)  # type: ignore[union-attr, operator]
        assert correlation(query, key) == pytest.approx(KEY_QUERY_CORRELATION, abs=0.05)
        assert abs(correlation(query, value)) < 0.05
        product = block.attn.proj.weight.detach() @ value  # type: ignore[union-attr, operator]
        assert product.diagonal().mean() == pytest.approx(0.4, abs=0.1)
        assert abs(float(product.mean())) < 0.05


def test_tokens_look_first_at_those_that_resemble_them(similar: fermt.FERMT) -> None:
    attention = similar.backbone.blocks[0].attn
    tokens = torch.nn.functional.layer_norm(torch.randn(50, 64), (64,))
    query, key, _ = (tokens @ attention.qkv.weight.T).chunk(3, dim=1)  # type: ignore[union-attr, operator]
    scores = (query.view(50, 2, 32).transpose(0, 1) @ key.view(50, 2, 32).permute(1, 2, 0)) / 32**0.5
    own = scores.diagonal(dim1=1, dim2=2).mean()
    assert own > scores.mean() + 0.5


def test_positions_of_neighbors_are_similar_and_the_forward_pass_is_finite(similar: fermt.FERMT) -> None:
    config = similar.config
    table = similar.backbone.pos_embed_x.detach()[0].view(config.search_grid, config.search_grid, -1)
    near, far = ((table[:, :-k] - table[:, k:]).norm(dim=-1).mean() for k in (1, 3))
    assert near < far
    outputs = similar(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64))
    assert all(torch.isfinite(value).all() for value in outputs.values())
    assert outputs["score_map"].mean() < 0.3  # at first every cell is an unlikely center
    sum(value.sum() for value in outputs.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in similar.parameters() if p.grad is not None)


def test_the_initial_model_depends_on_the_seed_alone() -> None:
    first, again, other = (initial_model(micro.config(initial="similar", seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    key = "backbone.blocks.0.attn.qkv.weight"
    assert not torch.equal(first[key], other[key])
    assert not torch.equal(first[key], initial_model(micro.config(seed=1)).state_dict()[key])


def models() -> tuple[fermt.FERMT, fermt.FERMT]:
    small = micro.config().model_config()
    large = micro.config(model_options={"template_size": 64, "search_size": 128}).model_config()
    torch.manual_seed(3)
    return fermt.build_model(small), fermt.build_model(large)


def test_weights_of_another_image_size() -> None:
    small, large = models()
    checkpoints.load_resized(large, small.state_dict())
    for name, value in large.state_dict().items():
        theirs = small.state_dict()[name]
        if name.startswith("backbone.pos_embed"):
            grid = round(value.shape[1] ** 0.5)
            assert torch.equal(value, checkpoints.resize_positions(theirs, grid))
        else:
            assert torch.equal(value, theirs)
    back = fermt.build_model(small.config)
    checkpoints.load_resized(back, small.state_dict())
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in back.state_dict().items())


def test_resizing_keeps_what_is_smooth() -> None:
    line = torch.linspace(-1, 1, 8)
    ramp = torch.stack((line.expand(8, 8), line[:, None].expand(8, 8), torch.ones(8, 8)), dim=-1).view(1, 64, 3)
    resized = checkpoints.resize_positions(ramp, 16).view(16, 16, 3)
    assert torch.allclose(resized[..., 2], torch.ones(16, 16))
    middle = resized[4:12, 4:12]  # away from the edges, where cells 2k and 2k + 1 lie around the old cell k
    assert torch.allclose(0.5 * (middle[:, ::2, 0] + middle[:, 1::2, 0]), line[2:6].expand(8, 4), atol=0.02)
    assert torch.allclose(0.5 * (middle[::2, :, 1] + middle[1::2, :, 1]), line[2:6, None].expand(4, 8), atol=0.02)
    with refused(ValueError, (1, 10, 3)):
        checkpoints.resize_positions(torch.zeros(1, 10, 3), 4)


def test_a_run_starts_from_a_file_of_another_image_size(tmp_path: Path) -> None:
    small, large = models()
    fermt.save(small, tmp_path / "small.safetensors")
    options = {"template_size": 64, "search_size": 128}
    load_pretrained(large, micro.config(pretrained=str(tmp_path / "small.safetensors"), model_options=options))
    assert torch.equal(
        large.state_dict()["box_head.conv1_ctr.0.weight"], small.state_dict()["box_head.conv1_ctr.0.weight"]
    )
    with refused(ValueError, "extra"):
        checkpoints.load_resized(
            large, fermt.build_model(small.config, backend="auto").state_dict() | {"extra": torch.zeros(1)}
        )


def rates(**changes: object) -> list[tuple[float, float]]:
    """Learning rates of head and backbone at each of 20 steps."""
    config = micro.config(pairs=40, batch=4, epochs=2, lr=0.1, backbone_lr_factor=0.5, drop_factor=0.2, **changes)
    optimizer = build_optimizer(fermt.build_model(config.model_config()), config)
    found = []
    for step in range(20):
        lr = set_learning_rate(optimizer, config, step)
        head, backbone = (group["lr"] for group in optimizer.param_groups)
        assert head == lr
        found.append((head, backbone))
    return found


def test_learning_rates() -> None:
    assert [head for head, _ in rates(schedule="constant")] == [0.1] * 20
    assert [head for head, _ in rates(schedule="step", drop_epoch=1)] == pytest.approx([0.1] * 10 + [0.02] * 10)
    cosine = [head for head, _ in rates(schedule="cosine")]
    expected = [0.1 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * step / 20))) for step in range(20)]
    assert cosine == pytest.approx(expected)
    assert all(later < earlier for earlier, later in itertools.pairwise(cosine))
    warm = [head for head, _ in rates(schedule="constant", warmup=4)]
    assert warm == pytest.approx([0.025, 0.05, 0.075] + [0.1] * 17)
    assert all(backbone == pytest.approx(head / 2) for head, backbone in rates(schedule="cosine", warmup=4))


def test_training_runs_outside_the_main_thread(tmp_path: Path) -> None:
    """As in notebooks and Ray, where no handler of signals may be set."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(micro.trainer(micro.config(epochs=1, validate_every=0), tmp_path).run).result()
    assert fermt.load(tmp_path / state.WEIGHTS).config.dim == micro.MODEL["dim"]
