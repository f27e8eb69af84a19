"""Losses, steps, skipped steps, validation and what a run writes down."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import fermt
from fermt.boxes import cxcywh_to_xyxy
from fermt.losses import center_loss, corner_loss, has_area, iou_and_giou, loss_of
from fermt.training import TrainingError
from fermt.training.batches import Batch, load, training_indices
from fermt.training.matching import OUTPUT_KEY, correspondences, matching_loss
from fermt.training.metrics import Metrics
from fermt.training.optimizer import build_optimizer, set_learning_rate
from fermt.training.step import Stepper
from fermt.training.trainer import initial_model
from fermt.training.validation import validate

from .support import golden, micro
from .support.errors import refused
from .support.pairs import Rectangles


def stepper(backend: str = "auto", dtype: torch.dtype = torch.float32, **changes: object) -> Stepper:
    settings = micro.config(**changes)
    model = initial_model(settings, backend).to(dtype)
    return Stepper(model, settings, micro.ALONE)


def batches(made: Stepper, steps: int) -> Iterable[Batch]:
    source = Rectangles(made.model.config, 0, 4 * steps)
    return list(load(source, 0, training_indices(made.config, micro.ALONE, 0)[:steps], 0, micro.ALONE))


def batch(boxes: list[tuple[float, ...]] | None = None, fill: float = 0.0) -> Batch:
    boxes = boxes or [(0.1, 0.2, 0.3, 0.4), (0.5, 0.4, 0.3, 0.2)]
    count = len(boxes)
    return Batch(torch.full((count, 3, 32, 32), fill), torch.full((count, 3, 64, 64), fill), torch.tensor(boxes))


def test_the_corner_heads_loss_is_the_stored_one_less_focal() -> None:
    stored = {name: torch.from_numpy(value) for name, value in golden.arrays("losses").items()}
    outputs = {"pred_boxes": stored["pred_box_cxcywh"].unsqueeze(1)}
    total, parts = corner_loss(outputs, stored["gt_box_xywh"])
    assert set(parts) == {"l1", "giou", "iou"}
    for name in ("l1", "giou"):
        assert math.isclose(parts[name].item(), stored[name].item(), rel_tol=1e-8), name
    assert math.isclose(total.item(), (stored["total"] - stored["focal"]).item(), rel_tol=1e-8)


def test_each_head_has_its_loss() -> None:
    options = {"patterns": ("mixed",), "dim": 24, "num_heads": 3}
    for name, expected in (("fermt", center_loss), ("fermt-corner", corner_loss)):
        assert loss_of(fermt.build_model(name, **options)) is expected


def test_corners_that_changed_places_have_a_loss_that_puts_them_right() -> None:
    predicted = torch.tensor([[0.5, 0.5, -0.1, 0.1]], dtype=torch.float64, requires_grad=True)
    iou, giou = iou_and_giou(cxcywh_to_xyxy(predicted), torch.tensor([[0.4, 0.4, 0.6, 0.6]], dtype=torch.float64))
    assert iou.item() == 0
    assert -1 <= giou.item() <= 0
    loss, _ = corner_loss({"pred_boxes": predicted.unsqueeze(1)}, torch.tensor([[0.4, 0.4, 0.2, 0.2]]).double())
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[0, 2] < 0  # a step down makes the width larger


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_corner_heads_boxes_are_as_fine_under_autocast(dtype: torch.dtype) -> None:
    """Coordinates in bfloat16 would be multiples of 1/256 near 1."""
    model = fermt.build_model("fermt-corner", patterns=("mixed",), dim=24, num_heads=3).eval()
    images = torch.randn(8, 3, 128, 128), torch.randn(8, 3, 256, 256)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        outputs = model(*images)
        again = model.box_head.decode({name: outputs[name].double() for name in ("prob_tl", "prob_br")})
    assert {outputs[name].dtype for name in ("prob_tl", "prob_br", "pred_boxes")} == {torch.float32}
    torch.testing.assert_close(outputs["pred_boxes"].squeeze(1).double(), again, rtol=0, atol=1e-5)


def test_which_boxes_have_an_area() -> None:
    boxes = [(0.1, 0.1, 0.2, 0.2), (-0.5, 0.1, 0.6, 0.2), (0.1, 0.1, 0.0, 0.2), (1.0, 0.1, 0.5, 0.2)]
    boxes += [(0.1, 0.1, math.nan, 0.2), (0.1, 0.1, 0.2, math.inf), (0.5, 0.5, -0.2, 0.2)]
    assert has_area(torch.tensor(boxes)).tolist() == [True, True, False, False, False, False, False]


def test_the_optimizer_has_the_papers_groups_and_schedule() -> None:
    settings = micro.config(lr=4e-4, backbone_lr_factor=0.1, epochs=300, drop_epoch=240)
    model = initial_model(settings)
    optimizer = build_optimizer(model, settings)
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes == [sum(p.numel() for p in part.parameters()) for part in (model.box_head, model.backbone)]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    for epoch, lr in ((0, 4e-4), (239, 4e-4), (240, 4e-5), (299, 4e-5)):
        assert set_learning_rate(optimizer, settings, epoch * settings.steps_per_epoch) == pytest.approx(lr)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr, lr / 10])


@pytest.mark.parametrize("seed", [0, 4])
def test_twenty_steps_learn_and_the_backends_agree(backend: str, seed: int) -> None:
    """With SGD: AdamW makes whole steps of gradients that are rounding alone, such as a bias's before a batch norm."""
    losses = {}
    for kernels in (backend, "reference"):
        made = stepper(kernels, model_options={"drop_path": 0.0}, seed=seed)
        made.optimizer = torch.optim.SGD(made.model.parameters(), lr=4e-3, momentum=0.9)
        part = batches(made, 1)
        losses[kernels] = [made(part, i).values["loss"] for i in range(20)]
    assert losses[backend] == pytest.approx(losses["reference"], rel=1e-3)
    assert losses[backend][-1] < 0.5 * losses[backend][0]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("model", ["fermt", "fermt-corner"])
def test_mixed_precision_learns(amp: str, model: str) -> None:
    made = stepper(model=model, model_options={"drop_path": 0.0}, amp=amp)
    part = batches(made, 1)
    outcomes = [made(part, i) for i in range(12)]
    done = [outcome.values["loss"] for outcome in outcomes if not outcome.skipped]
    assert len(done) >= 8
    assert all(outcome.harmless for outcome in outcomes if outcome.skipped)
    assert done[-1] < 0.9 * done[0]


def test_a_step_in_parts_is_the_step_as_a_whole() -> None:
    found = []
    for count in (1, 2):
        made = stepper(model_options={"drop_path": 0.0}, dtype=torch.float64)
        made.model.eval()  # batch norms frozen: they see one part at a time
        whole = Batch(*(tensor.double() for tensor in batch()))
        parts = [Batch(*tensors) for tensors in zip(*(tensor.chunk(count) for tensor in whole), strict=True)]
        values = made(parts, 0).values
        found.append((values, made.model.state_dict()))
    (first, before), (second, after) = found
    assert first == pytest.approx(second, rel=1e-9)
    for name in before:  # AdamW makes whole steps of gradients that are rounding only: those before a frozen batch norm
        torch.testing.assert_close(before[name], after[name], rtol=1e-6, atol=1e-9)


def unchanged(before: dict[str, Tensor], made: Stepper) -> bool:
    return all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())


BAD_STEPS = {
    "a box has no area": batch([(0.1, 0.2, 0.3, 0.4), (0.5, 0.4, 0.0, 0.2)]),
    "or is not finite": batch([(0.1, 0.2, 0.3, 0.4), (0.5, math.nan, 0.2, 0.2)]),
    "the loss is not finite": batch(fill=math.inf),
}


@pytest.mark.parametrize("reason", BAD_STEPS)
def test_a_bad_step_changes_nothing_at_all(reason: str) -> None:
    made = stepper(ema=0.9)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    average = {name: value.clone() for name, value in made.average.model.state_dict().items()}
    outcome = made([batch(), BAD_STEPS[reason]], 0)
    assert reason in outcome.skipped
    assert not outcome.harmless
    assert unchanged(before, made)
    assert all(torch.equal(average[name], value) for name, value in made.average.model.state_dict().items())
    assert not made.optimizer.state
    assert not made([batch()], 1).skipped
    assert not unchanged(before, made)


def test_a_gradient_that_is_not_finite_is_found() -> None:
    made = stepper()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.model.backbone.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    assert made([batch()], 0).skipped == "the gradient is not finite"
    assert unchanged(before, made)


def test_the_average_follows_the_weights() -> None:
    made = stepper(ema=0.75)
    name = "backbone.norm.weight"
    expected = made.model.state_dict()[name].clone()
    for i, share in ((0, 0.9), (7, 9 / 17), (1000, 0.25)):  # 1 - min(decay, (1 + i) / (10 + i))
        made([batch()], i)
        expected += share * (made.model.state_dict()[name] - expected)
    torch.testing.assert_close(made.average.model.state_dict()[name], expected)
    mean = "box_head.conv1_ctr.1.running_mean"
    assert torch.equal(made.average.model.state_dict()[mean], made.model.state_dict()[mean])


def test_drop_path_depends_on_seed_step_and_rank_only() -> None:
    losses = []
    for step, world in ((0, micro.ALONE), (0, micro.ALONE), (1, micro.ALONE), (0, micro.ALONE._replace(rank=1))):
        made = stepper(model_options={"drop_path": 0.5})
        made.world = world
        torch.randn(step + 7)  # whatever else draws numbers
        losses.append(made(batches(made, 2), step).values["loss"])
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_training_stops_after_bad_steps_in_a_row(tmp_path: Path) -> None:
    settings = micro.config(validate_every=0, bad_steps=3)
    spoilt = (0, *range(8, 16), 21, *range(28, 40))  # steps 1, 3, 4, 6, 8, 9, 10
    train = Rectangles(settings.model_config(), 0, 40, spoilt=spoilt)
    made = micro.trainer(settings, tmp_path, train=train)
    with refused(TrainingError, 3, "step 10", "box"):
        made.run()
    assert made.progress.skipped == 7
    again = micro.trainer(settings, tmp_path)  # from step 8, the last that was saved, and without bad boxes
    assert (again.progress.total, again.progress.skipped, again.progress.in_a_row) == (8, 5, 1)
    again.run()
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["skipped"] for row in csv.DictReader(file)][:3] == ["2", "4", "5"]


def test_validation_measures_the_boxes(tmp_path: Path) -> None:
    settings = micro.config(validation_pairs=6)
    model, source = initial_model(settings), Rectangles(micro.config().model_config(), 5, 8)
    found = validate(model, source, settings, micro.ALONE, nullcontext())
    assert model.training
    model.eval()
    indices = [[0, 1, 2, 3, 4, 5]]
    (held_out,) = load(source, 0, indices, 0, micro.ALONE)
    x, y, w, h = held_out.boxes.unbind(1)
    with torch.no_grad():
        px, py, pw, ph = model(held_out.template, held_out.search)["pred_boxes"].squeeze(1).unbind(1)
    middle = [torch.tensor(number) for number in (0.5, 0.5, 0.25, 0.25)]
    for value, (cx, cy, cw, ch) in ((found.iou, (px, py, pw, ph)), (found.center, middle)):
        left, top = (cx - cw / 2).clamp(0, 1), (cy - ch / 2).clamp(0, 1)
        width, height = (cx + cw / 2).clamp(0, 1) - left, (cy + ch / 2).clamp(0, 1) - top
        across = (torch.minimum(left + width, x + w) - torch.maximum(left, x)).clamp(min=0)
        shared = across * (torch.minimum(top + height, y + h) - torch.maximum(top, y)).clamp(min=0)
        assert value == pytest.approx((shared / (width * height + w * h - shared)).mean().item(), abs=1e-5)
    assert 0 <= found.success75 <= found.success50 <= 1
    with refused(ValueError, "pair", "box"):
        validate(model, Rectangles(model.config, 5, 6, spoilt=tuple(range(6))), settings, micro.ALONE, nullcontext())


def test_a_run_learns_and_its_weights_track(tmp_path: Path) -> None:
    settings = micro.config(epochs=5, pairs=160, drop_epoch=4, validation_pairs=32, log_every=10, clip=1.0)
    made = micro.trainer(settings, tmp_path)
    made.run()
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val_ao"]]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3] * 4 + [1e-4])
    assert float(rows[-1]["val_iou"]) > 0.4 > 2 * float(rows[-1]["val_center"])
    assert made.progress.best == pytest.approx(max(float(row["val_ao"]) for row in rows), rel=1e-5)
    model = fermt.load(tmp_path / "weights.safetensors")
    pair = Rectangles(model.config, 9, 1).pair(0, 0)
    tracker = fermt.Tracker(model)
    tracker.init(pair["template"].numpy(), (8.0, 8.0, 16.0, 16.0))
    assert math.isfinite(tracker.update(pair["search"].numpy()).score)


def test_a_run_that_cannot_start_says_why(tmp_path: Path) -> None:
    with refused(ValueError, 39, 40):
        micro.trainer(micro.config(), tmp_path, train=Rectangles(micro.config().model_config(), 0, 39))
    with refused(ValueError, "sync_bn", 1, "cpu"):
        micro.trainer(micro.config(sync_bn=True), tmp_path)
    with refused(FileNotFoundError, "'x.safetensors'"):
        micro.trainer(micro.config(pretrained="x.safetensors"), tmp_path)


def test_a_run_may_start_from_weights(tmp_path: Path) -> None:
    first = micro.trainer(micro.config(seed=1), tmp_path / "a")
    fermt.save(first.stepper.model, tmp_path / "start.safetensors")
    second = micro.trainer(micro.config(seed=2, pretrained=str(tmp_path / "start.safetensors")), tmp_path / "b")
    assert unchanged(first.stepper.model.state_dict(), second.stepper)


def test_tensorboard_has_what_the_lines_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, int]] = []
    writer = SimpleNamespace(add_scalar=lambda name, value, step: scalars.append((name, step)), flush=lambda: None)
    module = SimpleNamespace(SummaryWriter=lambda folder, purge_step: writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    metrics = Metrics(tmp_path / "metrics.csv", 0, tensorboard=True)
    metrics.write(3, {"loss": 1.0, "val_iou": 0.5})
    assert scalars == [("loss", 3), ("val_iou", 3)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with refused(ValueError, "tensorboard", "pip install 'fermt-kernels[train]'"):
        Metrics(tmp_path / "metrics.csv", 0, tensorboard=True)


def test_lines_after_the_state_are_written_anew(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.csv", 0, tensorboard=False)
    for step in (5, 10, 15):
        metrics.write(step, {"loss": 0.5})
    with metrics.path.open("a") as file:
        file.write("20,1,0.0")
    Metrics(metrics.path, 10, tensorboard=False)
    assert [line.split(",")[0] for line in metrics.path.read_text().splitlines()] == ["step", "5", "10"]


def test_correspondences_are_those_of_a_box_drawn_in_both_crops() -> None:
    config = micro.config().model_config()
    grid, cells = config.template_grid, config.search_grid
    boxes = torch.tensor(((0.25, 0.3, 0.5, 0.5), (-0.5, 0.0, 1.0, 1.0)), dtype=torch.float64)
    inside, match = correspondences(boxes, config)
    assert inside.shape == match.shape == (2, cells * cells)
    for (x, y, w, h), within, tokens in zip(boxes.tolist(), inside, match, strict=True):
        scale = 1 / (config.template_factor * (w * h) ** 0.5)
        for cell in range(cells * cells):
            u, v = ((cell % cells + 0.5) / cells - x) / w, ((cell // cells + 0.5) / cells - y) / h
            assert bool(within[cell]) == (0 < u < 1 and 0 < v < 1)
            if within[cell]:
                column, row = (0.5 + (u - 0.5) * w * scale) * grid, (0.5 + (v - 0.5) * h * scale) * grid
                assert int(tokens[cell]) == int(row) * grid + int(column)


def test_the_matching_loss_is_least_for_the_true_match() -> None:
    config = micro.config().model_config()
    boxes = torch.tensor(((0.25, 0.3, 0.5, 0.5),))
    inside, match = correspondences(boxes, config)
    right = torch.nn.functional.one_hot(match, config.num_template).float() * 20
    wrong = right.roll(1, dims=2)
    logits = torch.where(inside, 20.0, -20.0)
    best = matching_loss([(right, logits)], boxes, config)
    assert best < 1e-3
    assert matching_loss([(wrong, logits)], boxes, config) > best + 10
    assert matching_loss([(right, -logits)], boxes, config) > best + 10


def test_the_auxiliary_heads_are_trained_and_the_model_has_gradients_from_them_alone() -> None:
    made = stepper(matching=1.0)
    before = {name: value.clone() for name, value in made.matched.heads.state_dict().items()}
    outcome = made([batch()], 0)
    assert outcome.values["matching"] > 0
    changed = [name for name, value in made.matched.heads.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == len(before)
    outputs = made.matched(*batch()[:2])
    made.optimizer.zero_grad()
    matching_loss(outputs[OUTPUT_KEY], batch().boxes, made.model.config).backward()
    assert made.model.backbone.blocks[0].attn.qkv.weight.grad.abs().max() > 0
