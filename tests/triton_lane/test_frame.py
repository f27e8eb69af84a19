"""The frame on a GPU, in Triton's interpreter: its accuracy in every way that it can run."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt_kernels.testing import assert_accurate
from fermt_kernels.triton import frame_tiles
from fermt_kernels.triton.frame_tiles import FEW, MANY
from fermt_kernels.triton.launch import Blocks, Tiles, Tuning

from ..support.device_frames import DTYPES, LARGE, model_of, pack, run, take
from ..support.lanes import slow
from ..test_frame import by_module, lively, neighbors

COUNT = {"center": 3, "corner": 6}  # the crops of a batch: a corner head's maps are few numbers

pytestmark = pytest.mark.usefixtures("few_programs")


def assert_frame_is_accurate(model: fermt.FERMT, dtype: torch.dtype, count: int = 0) -> None:
    images = neighbors(model, count or COUNT[model.config.head])
    actual = run(pack(model, dtype), images)
    truth, eager = (by_module(model, images, each) for each in (torch.float64, dtype))
    for outputs in (truth, eager):
        outputs["boxes"] = fk.frame.decode(outputs)
    assert actual.keys() == truth.keys()
    for name, value in actual.items():
        assert value.dtype == torch.float32
        # The rule's one rounding is that of the dtype in which the frame was computed.
        assert_accurate(value.to(dtype), eager[name].to(dtype), truth[name], name)


CASES = {
    "a prefix is frozen": {"patterns": ("mixed", "self", "cross", "one_way_cross", "self"), "dau": True},
    "nothing is frozen": {"patterns": ("full", "self", "mixed")},
    "the template is never read": {"patterns": ("self", "self")},
    "one_way_cross": {"patterns": ("one_way_cross", "one_way_cross")},
    "cross": {"patterns": ("cross", "cross")},
    "all mixed": {"patterns": ("mixed", "mixed", "mixed")},
    "one layer": {"patterns": ("full",)},
    "corner": {"head": "corner", "patterns": ("mixed", "full")},
    "corner, every pattern, reweight": {"head": "corner", "patterns": fk.PATTERNS, "reweight": True},
    "corner, all mixed, reweight": {"head": "corner", "patterns": ("mixed", "mixed"), "reweight": True},
    "corner, never read but by reweight": {"head": "corner", "patterns": ("self", "self"), "reweight": True},
    "dim 48, heads of 8": {
        "dim": 48,
        "num_heads": 6,
        "mlp_ratio": 1.0,
        "patterns": ("mixed", "cross"),
        "widths": (48, 32, 16, 16),
    },
    "dim 80, heads of 40": {"dim": 80, "num_heads": 2, "patterns": ("mixed",), "mlp_ratio": 1.0},
    "heads of 32": {"num_heads": 1, "patterns": ("cross", "mixed")},
    "more tokens": {"template_size": 24, "search_size": 56, "patterns": ("mixed", "cross")},
    "a patch of 5": {"patch_size": 5, "template_size": 15, "search_size": 20, "patterns": ("mixed", "cross")},
}


FAST = (("all mixed", torch.float32), ("corner, never read but by reweight", torch.float16))


@pytest.mark.parametrize(
    ("case", "dtype"), [*FAST, *(slow(*each) for each in product(CASES, DTYPES) if each not in FAST)], ids=str
)
def test_every_configuration(case: str, dtype: torch.dtype) -> None:
    assert_frame_is_accurate(model_of(**CASES[case]), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ["a prefix is frozen", "corner, all mixed, reweight"])
def test_few_rows(case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, FEW)
    assert_frame_is_accurate(model_of(**CASES[case]), dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "table"), [(torch.float32, MANY), (torch.float16, FEW)], ids=["many", "few"])
def test_the_models_own_sizes(dtype: torch.dtype, table: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the depth and the images: a whole frame takes the interpreter minutes."""
    take(monkeypatch, table)
    sizes = {"patterns": ("mixed", "cross"), "template_size": 32, "search_size": 48}
    assert_frame_is_accurate(lively(fermt.build_model("fermt", **sizes)), dtype, 1)


# Of 96 hidden values, and of 48 of a token, in chunks of 32.
TILES = Tiles(16, 32, 32, Tuning(4))
STEPS = {
    "proj_mlp": {"proj_mlp": TILES},
    "proj_mlp by three": {"proj_mlp": TILES._replace(shares=3)},
    "proj_mlp by fewer than asked for": {"proj_mlp": TILES._replace(n=16, shares=4)},
    "proj_mlp, a short last share": {"proj_mlp": TILES._replace(shares=2)},
    "proj, mlp": {"proj": TILES, "mlp": TILES},
    "proj, fc1, fc2": {"proj": TILES, "fc1": TILES, "fc2": TILES},
    "proj, fc1 by two, fc2": {"proj": TILES, "fc1": TILES._replace(shares=2), "fc2": TILES},
}


@pytest.mark.parametrize(
    ("steps", "dtype"),
    [
        ("proj_mlp by three", torch.float16),
        ("proj, fc1 by two, fc2", torch.float32),
        *(slow(steps, torch.float32) for steps in STEPS if steps != "proj, fc1 by two, fc2"),
    ],
    ids=str,
)
def test_every_way_through_a_layer(steps: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = LARGE[4]._replace(
        qkv=TILES._replace(shares=2), attention={16: Blocks(16, 16, Tuning(4))}, layer=STEPS[steps]
    )
    take(monkeypatch, dict.fromkeys((2, 4), chosen))
    patterns = ("mixed", "cross", "mixed")  # rows of the template are cached, then computed with, then read alone
    model = model_of(dim=48, num_heads=3, mlp_ratio=2.0, patterns=patterns)
    assert_frame_is_accurate(model, dtype)


def test_few_and_many_rows_have_tables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, FEW)
    for itemsize in (2, 4):
        assert frame_tiles.mode(itemsize, frame_tiles.FEW_ROWS) == FEW[itemsize]
        assert frame_tiles.mode(itemsize, frame_tiles.FEW_ROWS + 1) == MANY[itemsize]
