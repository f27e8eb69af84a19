"""The packed frame against float64: every configuration, instruction set and number of threads, and the golden clip."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.data import normalize
from fermt.export import plain_model
from fermt.tracking.network import ModuleNetwork, PackedNetwork
from fermt_kernels.cpp import abi, library
from fermt_kernels.cpp import frame as compiled
from fermt_kernels.testing import assert_accurate, errors

from .conftest import ISA_ROWS
from .support import golden
from .support.errors import BAD_CACHE, refused
from .support.packed import sharpened

DTYPES = (torch.float32, torch.bfloat16)
EVERY_DTYPE = (*DTYPES, torch.int8)
GREY_LEVELS = 4  # that neighbors are changed by at most
SMALL = {"dim": 48, "num_heads": 3, "template_size": 48, "search_size": 80}
COUNT = 4  # the crops of a batch, neighbors of one another

pytestmark = pytest.mark.usefixtures("loaded")


def lively(model: fermt.FERMT) -> fermt.FERMT:
    """Norms that all do something, in evaluation mode."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if "norm" in name or name.endswith((".1.weight", ".1.bias", "running_mean")):
            tensor += 0.2 * torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def crops(model: fermt.FERMT, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    template, search = (
        torch.randint(256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
        for size in (model.config.template_size, model.config.search_size)
    )
    return template, search


def neighbors(model: fermt.FERMT, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Crops that differ by a few gray levels: equally conditioned, but rounded anew."""
    generator = torch.Generator().manual_seed(seed)

    def shaken(crop: Tensor) -> Tensor:
        noise = torch.randint(-GREY_LEVELS, GREY_LEVELS + 1, (count, *crop.shape[1:]), generator=generator)
        return (crop.short() + noise).clamp(0, 255).to(torch.uint8)

    template, search = crops(model, 1, seed)
    return shaken(template), shaken(search)


def by_module(model: fermt.FERMT, images: tuple[Tensor, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The plain model in `dtype` on the crops, in the form of `track_frame`."""
    plain = plain_model(model).to(dtype)
    batches = [torch.cat([normalize(crop.numpy(), dtype=dtype) for crop in batch]) for batch in images]
    with torch.inference_mode():
        outputs = plain(*batches)
    outputs.pop("pred_boxes")
    outputs["tokens"] = outputs["tokens"][:, model.config.num_template :]
    return outputs


def scores_of(model: fermt.FERMT) -> list[Tensor]:
    """Each layer's scores of all queries and keys, (1, heads, N, N), in base 2."""
    found: list[Tensor] = []

    def keep(_: object, __: object, qkv: Tensor) -> None:
        q, k, _ = qkv.unflatten(2, (3, model.config.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found.append(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 / math.log(2))

    plain = plain_model(model)
    for name, module in plain.named_modules():
        if name.endswith(".qkv"):
            module.register_forward_hook(keep)
    with torch.inference_mode():
        plain(*[normalize(crop.numpy()[0]) for crop in crops(model, 1)])
    return found


def packed_in(model: fermt.FERMT, dtype: torch.dtype) -> fk.frame.PackedModel:
    return fk.frame.pack(model, dtype, calibration=crops(model, 4, seed=7) if dtype == torch.int8 else None)


def by_frame(model: fermt.FERMT, images: tuple[Tensor, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return tracked_by(packed_in(model, dtype), images)


def tracked_by(packed: fk.frame.PackedModel, images: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return fk.frame.track_frame(packed, fk.frame.encode_template(packed, images[0]), images[1], tokens=True)


def assert_frame_is_accurate(model: fermt.FERMT, dtype: torch.dtype, count: int = COUNT) -> None:
    images = neighbors(model, count)
    actual, truth = by_frame(model, images, dtype), by_module(model, images, torch.float64)
    eager = by_module(model, images, dtype)
    assert actual.keys() == truth.keys()
    for name, value in actual.items():
        assert value.dtype == torch.float32
        # The rule's one rounding is that of the dtype in which the frame was computed.
        assert_accurate(value.to(dtype), eager[name].to(dtype), truth[name], name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", fermt.CONFIGS)
def test_every_configuration(name: str, dtype: torch.dtype) -> None:
    assert_frame_is_accurate(lively(fermt.build_model(name, **SMALL)), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "choices",
    [
        {"dau": False},
        {"head": "corner", "reweight": True},
        {"head": "corner", "reweight": True, "patterns": ("mixed", "self")},
        {"patterns": ("one_way_cross",)},
        {"patterns": ("cross", "mixed")},
        {"patterns": ("full", "self", "cross"), "template_size": 80, "search_size": 112},
        {"patch_size": 8, "template_size": 40, "search_size": 72, "mlp_ratio": 1.0},
        {"dim": 64, "num_heads": 2, "search_size": 208},
        {"dim": 80, "num_heads": 8, "patterns": ("mixed", "cross")},
    ],
    ids=str,
)
def test_every_choice(choices: dict, dtype: torch.dtype) -> None:
    assert_frame_is_accurate(lively(fermt.build_model("fermt", **SMALL | choices)), dtype)


@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["fermt", "fermt-corner"])
def test_each_instruction_set(isa: str, name: str, dtype: torch.dtype, loaded: library.Library) -> None:
    assert loaded.isa == isa
    assert_frame_is_accurate(lively(fermt.build_model(name, **SMALL, patterns=("mixed", "cross"))), dtype)


@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scores_that_are_bounded_and_not(isa: str, dtype: torch.dtype, loaded: library.Library) -> None:
    """Some heads' scores are exponentiated as they are, and those of others after their maximum is subtracted."""
    assert loaded.isa == isa
    model = lively(fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross")))
    largest = [scores.abs().amax((0, 2, 3)) for scores in scores_of(sharpened(model, 3000))]
    assert all(heads[0] < 20 < 100 < heads[1] for heads in largest)
    assert_frame_is_accurate(model, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_model_itself(dtype: torch.dtype) -> None:
    assert_frame_is_accurate(lively(fermt.build_model("fermt")), dtype, 1)


@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
@pytest.mark.usefixtures("two_threads")
def test_threads_and_batches_do_not_change_a_bit(dtype: torch.dtype) -> None:
    model = lively(fermt.build_model("fermt", **SMALL))
    images = crops(model, 5)
    packed = packed_in(model, dtype)  # once: int8 is calibrated by PyTorch, whose sums change with its threads
    whole = tracked_by(packed, images)
    torch.set_num_threads(1)
    for other in (tracked_by(packed, images), tracked_by(packed, images)):
        assert all(torch.equal(value, other[name]) for name, value in whole.items())
    one_by_one = [tracked_by(packed, (images[0][i : i + 1], images[1][i : i + 1])) for i in range(5)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([result[name] for result in one_by_one]))


@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
@pytest.mark.parametrize("name", ["fermt", "fermt-corner"])
def test_bytes_stay_near(isa: str, name: str, loaded: library.Library) -> None:
    """A 255th of a row's range is worth about two steps of bfloat16: the rms error is at most 4 of eager bfloat16's."""
    assert loaded.isa == isa
    model = lively(fermt.build_model(name, **SMALL, patterns=("mixed", "cross")))
    images = crops(model, COUNT)
    actual, truth = by_frame(model, images, torch.int8), by_module(model, images, torch.float64)
    eager = by_module(model, images, torch.bfloat16)
    for key, value in actual.items():
        assert errors(value, truth[key])[1] <= 4 * errors(eager[key], truth[key])[1], key


# Rows that differ in how they multiply bytes alone.
BYTE_ROWS = (
    ("avx512_vnni", "avx512"),
    ("avx2_vnni", "avx2"),
    ("neon_i8mm", "neon"),
    ("neon_dotprod", "neon"),
)


@pytest.mark.parametrize("rows", BYTE_ROWS, ids=str)
@pytest.mark.parametrize("extreme", [False, True])
def test_bytes_are_multiplied_exactly(rows: tuple[str, str], extreme: bool, loaded: library.Library) -> None:
    """By dot products of bytes or by 16-bit integers and transforms: the same integers, so the same bits.

    `extreme`: every weight of a convolution is as large as it can be, so that sums are the largest there are.
    """
    if not all(loaded.isas().get(row) for row in rows):
        pytest.skip(f"this CPU or this build lacks one of {', '.join(rows)}")
    model = lively(fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross")))
    if extreme:
        for module in model.box_head.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data = module.weight.data.sign() * module.weight.data.abs().mean()
    images = crops(model, 2)
    before, results = loaded.isa, []
    for row in rows:
        loaded.select_isa(row)
        try:
            results.append(tracked_by(packed_in(model, torch.int8), images))
        finally:
            loaded.select_isa(before)
    assert results[0]["score_map"].std() > 0
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
@pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
def test_one_packed_file_serves_every_instruction_set(isa: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = lively(fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross")))
    packed, images = packed_in(model, dtype), crops(model, 1)
    packed.save(tmp_path / "packed")
    before = packed.blob.clone()
    result = tracked_by(fk.frame.load(tmp_path / "packed"), images)
    assert torch.equal(result["score_map"], tracked_by(packed, images)["score_map"])
    assert torch.equal(packed.blob, before)


def test_accuracy_says_what_a_dtype_costs() -> None:
    model = lively(fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross")))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = crops(model, 2)
    found = {dtype: fk.frame.accuracy(model, packed_in(model, dtype), *images) for dtype in EVERY_DTYPE}
    truth, actual = by_module(model, images, torch.float64), by_frame(model, images, torch.int8)
    for name, error in found[torch.int8].items():
        assert error == pytest.approx(errors(actual[name], truth[name]), rel=1e-9)
        assert 0 < found[torch.float32][name].rms < found[torch.bfloat16][name].rms < error.rms < 0.1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_int8_is_never_silent() -> None:
    model = fermt.build_model("fermt", **SMALL, patterns=("mixed",))
    templates, searches = crops(model, 2)
    with refused(ValueError, "int8", "calibration"):
        fk.frame.pack(model, torch.int8)
    with refused(ValueError, "calibration", torch.int8, torch.float32):
        fk.frame.pack(model, calibration=(templates, searches))
    with refused(ValueError, "searches", "(N, 80, 80, 3)", (2, 48, 48, 3)):
        fk.frame.pack(model, torch.int8, calibration=(templates, templates))
    with refused(ValueError, 1, 2):
        fk.frame.pack(model, torch.int8, calibration=(templates[:1], searches))
    with refused(ValueError, "int8", "calibration"):
        fermt.Tracker(model, dtype=torch.int8)
    packed = fk.frame.pack(model, torch.int8, calibration=(templates, searches))
    assert isinstance(fermt.Tracker(packed).network, PackedNetwork)


def test_a_used_workspace_and_targets_in_any_order() -> None:
    model = lively(fermt.build_model("fermt", **SMALL))
    packed, workspace = fk.frame.pack(model), fk.frame.Workspace()
    templates, searches = crops(model, 3)
    caches = fk.frame.encode_template(packed, templates, workspace=workspace)
    expected = fk.frame.track_frame(packed, caches, searches)["score_map"]
    before = caches.clone()
    for _ in range(2):
        chosen = [caches[2], caches[0].clone()]
        got = fk.frame.track_frame(packed, chosen, searches[[2, 0]], workspace=workspace)["score_map"]
        assert torch.equal(got, expected[[2, 0]])
    assert torch.equal(caches, before)  # a frame reads a cache and leaves it as it is


def test_a_cache_of_another_model_or_instruction_set_is_refused(loaded: library.Library) -> None:
    model = lively(fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross")))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.backbone.norm.bias += 1
    images = crops(model, 1)
    packed = fk.frame.pack(model)
    cache = fk.frame.encode_template(packed, images[0])
    with refused(RuntimeError, f"status {BAD_CACHE}"):
        fk.frame.track_frame(fk.frame.pack(other), cache, images[1])
    before = loaded.isa
    try:
        loaded.select_isa("generic")
        with refused((RuntimeError, ValueError), "cache"):
            fk.frame.track_frame(packed, cache, images[1])
    finally:
        loaded.select_isa(before)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    template=st.integers(1, 7),
    search=st.integers(1, 11),
    patch=st.sampled_from([3, 8, 16]),
    heads=st.sampled_from([1, 2, 6]),
    patterns=st.lists(st.sampled_from(fk.PATTERNS), min_size=1, max_size=4).map(tuple),
    head=st.sampled_from(["center", "corner"]),
    dau=st.booleans(),
    dtype=st.sampled_from(EVERY_DTYPE),
)
def test_drawn_models_agree_with_the_module(
    template: int, search: int, patch: int, heads: int, patterns: tuple, head: str, dau: bool, dtype: torch.dtype
) -> None:
    config = fermt.ModelConfig(
        patterns=patterns,
        head=head,
        dau=dau,
        template_size=template * patch,
        search_size=search * patch,
        patch_size=patch,
        dim=48,
        num_heads=heads,
    )
    model = lively(fermt.build_model(config))
    images = crops(model, 2)
    actual, truth = by_frame(model, images, dtype), by_module(model, images, torch.float64)
    for name, value in actual.items():
        size = max(1.0, truth[name].abs().max().item())
        bound = {torch.float32: 2e-5, torch.bfloat16: 0.1, torch.int8: 0.3}[dtype]  # of a wrong index, not of rounding
        assert (value - truth[name]).abs().max().item() <= bound * size, name


@pytest.mark.parametrize(
    ("dtype", "updates", "bound"),
    # With random weights two cells of the score map are now and then as good as equal, and bfloat16 takes the other.
    [(torch.float32, 11, 0.05), (torch.bfloat16, 1, 0.5)],
)
def test_golden_tracking(dtype: torch.dtype, updates: int, bound: float) -> None:
    stored = golden.arrays("track")
    tracker = fermt.Tracker(golden.tracking_model(torch.float32), dtype=dtype)
    assert isinstance(tracker.network, PackedNetwork)
    tracker.init(stored["frames"][0], stored["boxes_xywh"][0])
    boxes = [tracker.update(frame).box for frame in stored["frames"][1 : 1 + updates]]
    assert np.abs(np.array(boxes) - stored["boxes_xywh"][1 : 1 + updates]).max() <= bound


def test_the_tracker_takes_the_model_where_there_is_no_packed_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fermt.build_model("fermt", **SMALL, patterns=("mixed",))
    assert isinstance(fermt.Tracker(model).network, PackedNetwork)
    assert isinstance(fermt.Tracker(copy.deepcopy(model).double()).network, ModuleNetwork)
    with refused(ValueError, torch.float16, torch.float32):
        fermt.Tracker(model, dtype=torch.float16)
    with refused(ValueError, torch.float32, torch.bfloat16):
        fermt.Tracker(fk.frame.pack(model), dtype=torch.bfloat16)
    assert isinstance(fermt.Tracker(plain_model(model)).network, ModuleNetwork)
    with refused(ValueError, torch.bfloat16):
        fermt.Tracker(plain_model(model), dtype=torch.bfloat16)
    mixed = fermt.build_model("fermt", **SMALL, patterns=("mixed", "cross"))
    assert mixed.backend == "auto"
    mixed.backbone.blocks[0].attn.backend = "reference"
    assert mixed.backend is None
    monkeypatch.setenv("FERMT_BACKEND", "reference")
    assert isinstance(fermt.Tracker(model).network, ModuleNetwork)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_peak_is_of_work_that_is_done(dtype: torch.dtype, loaded: library.Library) -> None:
    """By processor time, in which waiting for a busy machine does not count; a core does a few to 256 in a cycle.

    Had the compiler left the multiply-adds out, each would seem to take no time.
    """
    iterations = 1 << 21
    start = time.process_time()
    operations = compiled.fma_peak(abi.DTYPES[dtype], 1, iterations)
    assert operations % iterations == 0
    assert 1e8 < operations / (time.process_time() - start) < 256 * 8e9
