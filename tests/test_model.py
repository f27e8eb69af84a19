"""Configurations, shapes, initialization and the heads beyond what the golden cases cover."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

import fermt
from fermt.config import named_config
from fermt.flops import count_flops
from fermt.losses import center_loss
from fermt_kernels.frame import decode

from .support import golden
from .support.errors import refused

BATCH = (torch.zeros(2, 3, 128, 128), torch.zeros(2, 3, 256, 256))


@pytest.mark.parametrize("dau", [True, False])
@pytest.mark.parametrize("name", fermt.CONFIGS)
def test_every_configuration_runs(name: str, dau: bool) -> None:
    model = fermt.build_model(name, dau=dau).eval()
    with torch.no_grad():
        outputs = model(*BATCH)
    maps = {
        "center": {"score_map": (2, 1, 16, 16), "size_map": (2, 2, 16, 16), "offset_map": (2, 2, 16, 16)},
        "corner": {"prob_tl": (2, 256), "prob_br": (2, 256)},
    }[model.config.head]
    shapes = maps | {"pred_boxes": (2, 1, 4), "tokens": (2, 320, 192)}
    assert {key: tuple(value.shape) for key, value in outputs.items()} == shapes
    assert all(torch.isfinite(value).all() for value in outputs.values())
    assert ("backbone.dau.proj_1.weight" in model.state_dict()) == dau


def test_the_configurations_are_the_papers() -> None:
    """Tables 3, 4 and 5: six pairs at 6:6, each pattern alone where the paper has it, and the two other ratios."""
    assert {"a1a4", "a1a5", "a2a4", "a2a5", "a3a4", "a3a5", "a2", "a3", "a4", "a5"} <= set(fermt.CONFIGS)
    assert named_config("fermt").patterns == ("mixed",) * 6 + ("cross",) * 6 == named_config("a2a5").patterns
    assert named_config("a3a4").patterns == ("full",) * 6 + ("one_way_cross",) * 6
    assert named_config("a2a5-3-9").patterns == ("mixed",) * 3 + ("cross",) * 9
    assert named_config("a2a5-9-3").patterns == ("mixed",) * 9 + ("cross",) * 3


@pytest.mark.parametrize("head", golden.CONFIGS)
def test_state_dict_keys_and_shapes_are_the_authors(head: str) -> None:
    authors = golden.deterministic.shapes(head)
    ours = {key: list(value.shape) for key, value in fermt.build_model(golden.CONFIGS[head]).state_dict().items()}
    unused = {"backbone.cls_token", "backbone.pos_embed"}
    assert ours == {key: shape for key, shape in authors.items() if key not in unused}


@pytest.mark.parametrize("name", fermt.CONFIGS)
def test_counted_parameters_are_the_models(name: str) -> None:
    parameters = dict(fermt.build_model(name).named_parameters())
    positions = sum(p.numel() for key, p in parameters.items() if "pos_embed" in key)
    count = count_flops(name)
    assert count.position_parameters == positions
    assert count.parameters == sum(p.numel() for p in parameters.values()) - positions


def test_initialization_is_vits() -> None:
    model = fermt.build_model("fermt")
    for tensor in (
        model.backbone.pos_embed_z,
        model.backbone.pos_embed_x,
        model.backbone.patch_embed.proj.weight,
        model.backbone.blocks[3].attn.qkv.weight,
        model.backbone.blocks[3].mlp.fc2.weight,
    ):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.backbone.blocks[3].attn.qkv.bias.abs().max() == 0
    assert model.backbone.blocks[3].norm1.weight.unique().tolist() == [1.0]


def test_other_sizes_and_depths() -> None:
    config = dataclasses.replace(
        fermt.ModelConfig(),
        patterns=("mixed", "cross"),
        template_size=64,
        search_size=160,
        dim=48,
        num_heads=3,
    )
    outputs = fermt.build_model(config).eval()(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 160, 160))
    assert outputs["tokens"].shape == (1, 16 + 100, 48)
    assert outputs["score_map"].shape == (1, 1, 10, 10)


def test_reweighting_changes_the_corner_heads_input() -> None:
    plain, weighted = (fermt.build_model("fermt-corner", reweight=value).eval() for value in (False, True))
    weighted.load_state_dict(plain.state_dict())
    images = (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 256, 256))
    with torch.no_grad():
        first, second = plain(*images), weighted(*images)
    assert torch.equal(first["tokens"], second["tokens"])
    assert not torch.equal(first["prob_tl"], second["prob_tl"])
    search, template = first["tokens"][:, 64:], first["tokens"][:, :64].mean(dim=1, keepdim=True)
    scaled = torch.cat((first["tokens"][:, :64], search * (search * template).sum(-1, keepdim=True)), dim=1)
    with torch.no_grad():
        expected = plain.box_head(scaled)
    torch.testing.assert_close(second["prob_tl"], expected["prob_tl"], rtol=1e-4, atol=1e-6)


def test_decoding_takes_the_best_cell_of_each_sample() -> None:
    head = fermt.build_model("fermt").box_head
    score = torch.full((2, 1, 16, 16), 0.1)
    score[0, 0, 3, 5], score[1, 0, 10, 2] = 0.9, 0.8
    outputs = {
        "score_map": score,
        "size_map": torch.rand(2, 2, 16, 16),
        "offset_map": torch.rand(2, 2, 16, 16),
    }
    for i, (y, x) in enumerate(((3, 5), (10, 2))):
        offset, size = (outputs[key][i, :, y, x] for key in ("offset_map", "size_map"))
        expected = torch.cat(((torch.tensor([x, y]) + offset) / 16, size))
        torch.testing.assert_close(head.decode(outputs)[i], expected)
    torch.testing.assert_close(decode(outputs)[:, 4], torch.tensor([0.9, 0.8]))
    window = torch.zeros(16, 16)
    window[7, 7] = 1
    assert (head.decode(outputs, window)[:, :2] * 16).floor().tolist() == [[7, 7], [7, 7]]


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation() -> None:
    from fermt.model.vit import DropPath

    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = drop(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, rel=0.05)
    assert torch.equal(drop.eval()(x), x)
    rates = [block.drop_path.rate for block in fermt.build_model("fermt").backbone.blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_is_finite_where_a_low_precision_score_saturates(dtype: torch.dtype) -> None:
    model = fermt.build_model("fermt", patterns=("mixed",), dim=48, num_heads=3)
    for sign in (1, -1):
        torch.nn.init.constant_(model.box_head.conv5_ctr.bias, 30.0 * sign)
        with torch.autocast("cpu", dtype=dtype):
            outputs = model(torch.randn(2, 3, 128, 128), torch.randn(2, 3, 256, 256))
        assert outputs["score_map"].dtype == torch.float32
        loss, _ = center_loss(outputs, torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.5, 0.4, 0.3, 0.1]]))
        loss.backward()
        assert torch.isfinite(loss)


def test_a_training_step_moves_every_parameter() -> None:
    model = fermt.build_model("fermt", drop_path=0.0).train()
    outputs = model(torch.randn(2, 3, 128, 128), torch.randn(2, 3, 256, 256))
    loss, parts = center_loss(outputs, torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.5, 0.4, 0.3, 0.1]]))
    loss.backward()
    assert set(parts) == {"focal", "l1", "giou", "iou"}
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


BAD = [
    (lambda: fermt.build_model("fermt2"), ("'fermt2'", "fermt, fermt-corner")),
    (lambda: fermt.build_model("fermt", head="anchor"), ("head", "center, corner", "'anchor'")),
    (lambda: fermt.build_model("fermt", reweight=True), ("reweight", "corner", "'center'")),
    (lambda: fermt.build_model("fermt", patterns=("mixed", "x")), ("patterns", ("mixed", "x"))),
    (lambda: fermt.build_model("fermt", search_size=250), ("search_size", 16, 250)),
    (lambda: fermt.build_model("fermt", num_heads=5), ("dim", 5, 192)),
    (lambda: fermt.build_model("fermt", drop_path=1.0), ("drop_path", "[0, 1)", 1.0)),
    (lambda: fermt.ModelConfig.from_dict({"depth": 12}), ("'depth'", "'patterns'")),
    (
        lambda: fermt.build_model("fermt")(BATCH[1], BATCH[1]),
        ("template", "(B, 3, 128, 128)", "(B, T, 3, 128, 128)", (2, 3, 256, 256)),
    ),
    (lambda: fermt.build_model("fermt")(BATCH[0][:1], BATCH[1]), ("template", "search", 1, 2)),
]


@pytest.mark.parametrize(("call", "values"), BAD)
def test_bad_input(call: Callable[[], object], values: tuple[object, ...]) -> None:
    with refused(ValueError, *values):
        call()


def test_losses_refuse_bad_boxes() -> None:
    outputs = {"score_map": torch.full((2, 1, 16, 16), 0.5), "pred_boxes": torch.rand(2, 1, 4)}
    with refused(ValueError, "boxes", (2, 4), (1, 4)):
        center_loss(outputs, torch.rand(1, 4))
    with refused(ValueError, "boxes", "nan"):
        center_loss(outputs, torch.full((2, 4), torch.nan))
