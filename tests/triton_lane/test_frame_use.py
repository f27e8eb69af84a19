"""The frame on a GPU, in Triton's interpreter: batches, caches, the window, results, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.triton.frame import Frame
from fermt_kernels.triton.frame_tiles import FEW

from ..support.device_frames import DTYPES, LARGE, assert_same_bits, crops_of, model_of, pack, run, take, track
from ..support.errors import refused
from ..test_frame import by_module, crops

pytestmark = pytest.mark.usefixtures("few_programs")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches_and_runs_do_not_change_a_bit(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """With tokens that fill tiles: by a row's place in a tile, NumPy rounds its products otherwise."""
    take(monkeypatch, FEW)
    model = model_of(
        "corner", reweight=True, patterns=("cross", "mixed"), num_heads=1, template_size=32, search_size=32
    )
    packed, workspace = pack(model, dtype), fk.frame.Workspace()
    images = crops_of(packed, 3)
    whole = run(packed, images, workspace)
    assert_same_bits(run(packed, images, workspace), whole)
    alone = run(packed, (images[0][2:], images[1][2:]), workspace)
    assert_same_bits(alone, {name: value[2:] for name, value in whole.items()})


@pytest.fixture(scope="module")
def packed() -> fk.frame.CudaPackedModel:
    """Two layers' keys and values of a template are cached; the third's change with the frame."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pack(model_of("corner", patterns=("mixed", "cross", "mixed"), num_heads=1), torch.float16)


def unaligned(tensor: Tensor) -> Tensor:
    return torch.cat((tensor.new_zeros(1), tensor.flatten()))[1:].view(tensor.shape)


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor": lambda caches: caches,
    "an unaligned copy": unaligned,
    "every second byte": lambda caches: caches.repeat_interleave(2, 1)[:, ::2],
    "rows (1, n)": lambda caches: [cache[None] for cache in caches],
    "mixed": lambda caches: (caches[0].clone(), unaligned(caches[1])[None]),
}


class Tracked(NamedTuple):
    """Two targets, and what was found of them."""

    templates: Tensor
    searches: Tensor
    caches: Tensor
    outputs: dict[str, Tensor]


@pytest.fixture(scope="module")
def tracked(packed: fk.frame.CudaPackedModel) -> Tracked:
    images = crops_of(packed, 2)
    with pytest.MonkeyPatch.context() as patch:
        take(patch, LARGE)
        caches = fk.frame.encode_template(packed, images[0])
        return Tracked(*images, caches, track(packed, caches, images[1]))


@pytest.mark.slow
def test_caches_of_any_form(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    workspace = fk.frame.Workspace()
    fk.frame.encode_template(packed, tracked.templates.flip(0), workspace=workspace)
    for form in FORMS.values():
        outputs = track(packed, form(tracked.caches), tracked.searches, workspace=workspace)
        assert_same_bits(outputs, tracked.outputs)


def test_caches_are_exchanged_between_calls(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    workspace = fk.frame.Workspace()
    others = crops_of(packed, 2, seed=1)[0]
    first = fk.frame.encode_template(packed, tracked.templates, workspace=workspace)
    second = fk.frame.encode_template(packed, others, workspace=workspace)
    assert torch.equal(first, tracked.caches)
    before = second.clone()
    crossed = track(packed, [second[1], first[0]], tracked.searches)
    of_second = track(packed, second, tracked.searches)
    assert not torch.equal(of_second["tokens"], tracked.outputs["tokens"])
    for caches, expected in (
        (first, tracked.outputs),
        (second, of_second),
        (first, tracked.outputs),
        ([second[1:], first[:1]], crossed),
        ((first[0], first[1:]), tracked.outputs),
    ):
        assert_same_bits(track(packed, caches, tracked.searches, workspace=workspace), expected)
    assert torch.equal(first, tracked.caches)  # a frame reads a cache and leaves it as it is
    assert torch.equal(second, before)


@pytest.mark.slow
def test_a_template_encoded_in_between_spoils_nothing(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    workspace = fk.frame.Workspace()
    caches = fk.frame.encode_template(packed, tracked.templates, workspace=workspace)
    assert_same_bits(track(packed, caches, tracked.searches, workspace=workspace), tracked.outputs)
    fk.frame.encode_template(packed, tracked.templates.flip(0), workspace=workspace)
    fk.frame.encode_template(packed, tracked.templates[1:], workspace=workspace)
    assert_same_bits(track(packed, caches, tracked.searches, workspace=workspace), tracked.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)  # in float32 nothing is converted on its way out
def test_a_later_frame_leaves_an_earlier_ones_results(dtype: torch.dtype) -> None:
    packed, workspace = pack(model_of("corner", patterns=("mixed",)), dtype), fk.frame.Workspace()
    templates, searches = crops_of(packed, 2)
    caches = fk.frame.encode_template(packed, templates, workspace=workspace)
    earlier = track(packed, caches, searches, workspace=workspace)
    kept = {name: value.clone() for name, value in earlier.items()}
    later = track(packed, caches, searches.flip(0), workspace=workspace)
    assert_same_bits(earlier, kept)
    assert not any(torch.equal(value, later[name]) for name, value in kept.items())


@pytest.mark.slow
def test_one_workspace_for_two_models_and_batches(packed: fk.frame.CudaPackedModel) -> None:
    workspace = fk.frame.Workspace()
    other = pack(model_of("corner", patterns=("full",), template_size=24), torch.float16)
    todo = [(each, crops_of(each, count)) for each in (packed, other) for count in (1, 2)]
    caches = [fk.frame.encode_template(each, images[0], workspace=workspace) for each, images in todo]
    for (each, images), kept in zip(todo, caches, strict=True):
        assert_same_bits(track(each, kept, images[1], workspace=workspace), track(each, kept, images[1]))


@pytest.mark.slow
def test_a_workspace_serves_in_and_out_of_inference_mode(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    workspace, images = fk.frame.Workspace(), (tracked.templates, tracked.searches)
    for mode in (True, False, True):
        with torch.inference_mode(mode):
            assert_same_bits(run(packed, images, workspace), tracked.outputs)


@pytest.mark.slow
def test_crops_of_any_strides(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    images = tracked.templates, tracked.searches
    template, search = (crop.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for crop in images)
    assert_same_bits(run(packed, (template, search)), tracked.outputs)
    alone = run(packed, (images[0][:1], images[1][:1]))
    assert_same_bits(run(packed, (images[0][0], images[1][0])), alone)


def test_only_what_is_asked_for_is_returned(packed: fk.frame.CudaPackedModel, tracked: Tracked) -> None:
    workspace, maps = fk.frame.Workspace(), ["prob_tl", "prob_br"]
    for more in ([], ["boxes"], ["tokens"]):
        asked = dict.fromkeys(more, True)
        outputs = fk.frame.track_frame(packed, tracked.caches, tracked.searches, workspace=workspace, **asked)
        assert list(outputs) == [*maps, *more]


@pytest.mark.slow
@pytest.mark.parametrize("grid", [3, 4])
def test_the_window_chooses_the_cell(grid: int) -> None:
    packed, workspace = pack(model_of(patterns=("mixed",), search_size=8 * grid)), fk.frame.Workspace()
    templates, searches = crops_of(packed, 2)
    caches = fk.frame.encode_template(packed, templates, workspace=workspace)
    one_cell = torch.zeros(grid, grid)
    one_cell[2, 1] = 1
    for window in (one_cell, torch.rand(grid, grid).double(), one_cell.mT, None, torch.zeros(grid, grid)):
        maps = track(packed, caches, searches, window=window, workspace=workspace)
        assert torch.equal(maps["boxes"], fk.frame.decode(maps, window))  # of equal cells, the first


@pytest.mark.slow
def test_a_corner_box_lies_between_its_maps_means() -> None:
    packed = pack(model_of("corner", patterns=("mixed",)))
    maps = run(packed, crops_of(packed, 3))
    torch.testing.assert_close(maps["prob_tl"].sum(1), torch.ones(3), rtol=1e-6, atol=0)
    torch.testing.assert_close(maps["boxes"], fk.frame.decode(maps), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_scores_and_sizes_stay_off_0_and_1(bias: float) -> None:
    model = model_of(patterns=("mixed",))
    images = crops(model, 1)
    with torch.no_grad():
        for branch in ("ctr", "size", "offset"):
            getattr(model.box_head, f"conv5_{branch}").bias.fill_(bias)
    actual, expected = run(pack(model), images), by_module(model, images, torch.float32)
    assert torch.equal(actual["score_map"], expected["score_map"])
    assert torch.equal(actual["size_map"], expected["size_map"])
    torch.testing.assert_close(actual["offset_map"], expected["offset_map"])


def test_auto_takes_the_frame_where_it_can_run() -> None:
    model = model_of(patterns=("self",))
    assert isinstance(fk.frame.pack(model), fk.frame.CudaPackedModel)
    assert isinstance(fk.frame.pack(model, backend="cpp"), fk.frame.PackedModel)
    assert isinstance(fk.frame.pack(model, torch.bfloat16), fk.frame.PackedModel)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.bfloat16])
def test_dtypes_that_are_refused(dtype: torch.dtype) -> None:
    with refused(RuntimeError, "'triton'", "track_frame", "torch.float32, torch.float16", dtype):
        fk.frame.pack(model_of(patterns=("self",)), dtype, backend="triton")


def test_calibration_is_refused() -> None:
    model = model_of(patterns=("self",))
    with refused(ValueError, "calibration", torch.int8, torch.float16):
        fk.frame.pack(model, torch.float16, calibration=crops(model, 1), backend="triton")


def test_arguments_that_are_refused(packed: fk.frame.CudaPackedModel) -> None:
    templates, searches = crops_of(packed, 2)
    length = packed.sizes.cache_bytes(packed.dtype)
    caches = torch.zeros(2, length, dtype=torch.uint8)
    for given, error, *values in (
        (caches[:, 1:], ValueError, (2, length), (2, length - 1)),
        (caches[:1], ValueError, (2, length), (1, length)),
        (caches.float(), TypeError, "uint8", torch.float32),
        ([caches[0]], ValueError, "caches", 2, 1),
        ([caches[0], caches], ValueError, (length,), (1, length), (2, length)),
        (caches.to("meta"), ValueError, "cache", "meta"),
    ):
        with refused(error, "track_frame", *values):
            fk.frame.track_frame(packed, given, searches)
    with refused(ValueError, "encode_template", "crops", "meta"):
        fk.frame.encode_template(packed, templates.to("meta"))
    with refused(ValueError, "window", (3, 3), (4, 4)):
        fk.frame.track_frame(packed, caches, searches, window=torch.ones(4, 4))
    with refused(ValueError, "window", "cpu", "meta"):
        fk.frame.track_frame(packed, caches, searches, window=torch.ones(3, 3, device="meta"))


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ({"patch_size": 4, "template_size": 8, "search_size": 12}, 13 * 96),  # queries, keys and values of a sample
        ({"patch_size": 4, "template_size": 8, "search_size": 12, "mlp_ratio": 4.0}, 13 * 128),  # hidden values
        ({"widths": (64, 16, 16, 16)}, 13 * 192),  # the branches' first maps
        ({"patch_size": 64, "template_size": 64, "search_size": 192}, 3 * 192**2),  # the crop
        ({"patch_size": 64, "template_size": 320, "search_size": 64}, 3 * 320**2),
    ],
)
def test_offsets_stay_below_2_to_the_31(choices: dict, values: int) -> None:
    packed = pack(model_of(patterns=("self",), **choices))
    most = (2**31 - 1) // values
    nowhere = packed.weights.to(torch.device("meta"))  # where memory costs nothing
    Frame(nowhere, packed.sizes, most)
    with refused(ValueError, most, most + 1):
        Frame(nowhere, packed.sizes, most + 1)
