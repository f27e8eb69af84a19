"""Checks of frames on this GPU: against the model in float64, and bit for bit however it is run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.testing import errors, inaccuracy

from ..frame_report import Scene, dtype_name, in_dtype
from ..peers import Maps, whole_frame
from . import cases
from .cases import CHECKED, tf32_allowed
from .checks import Check, Found

RUNS = 100
# TF32 keeps 11 bits of a factor and cuts the rest: off by at most 2^-10, a quarter of what bfloat16's rounding, 2^-8,
# may be off by. Errors of results are linear in those of factors, and eager bfloat16 rounds the same factors and more.
# So an error is at most a quarter of eager bfloat16's; twice that, as everywhere, plus one rounding.
TF32_OF_BFLOAT16 = 2 / 4
IMAGES = (cases.IMAGE, (271, 333), cases.IMAGE)  # height and width, one after the other in one workspace
SMALL_IMAGES = (cases.SMALL_IMAGE,)
Way = tuple[Tensor | list[Tensor], Tensor, Maps]  # caches, crops, and what must come of them


class _Plan(NamedTuple):
    """What is checked, and on how many targets, which larger batches repeat: errors of one draw hang together."""

    models: tuple[str, ...]
    targets: int
    batches: tuple[int, ...]


# The largest batch has so many rows that other tables of sizes apply.
FULL = _Plan(tuple(CHECKED), targets=32, batches=(1, 3, 128))
SMALL = _Plan(("center", "corner, reweight, no DAU"), targets=6, batches=(3,))
SHORT = _Plan(("center",), targets=8, batches=(1, 128))  # the shortest answer to whether frames are right


def _window(packed: fk.frame.CudaPackedModel) -> Tensor:
    """One cell wins whatever the scores, which lie in [1e-4, 1]: a box at another cell would be no rounding error."""
    window = torch.full((packed.grid, packed.grid), 1e-5)
    window[packed.grid // 3, packed.grid // 2] = 1
    return window.to(packed.device)


def _packed(model: fermt.FERMT, dtype: torch.dtype, device: str) -> fk.frame.CudaPackedModel:
    packed = fk.frame.pack(in_dtype(model, torch.float32).to(device), dtype, backend="triton")
    assert isinstance(packed, fk.frame.CudaPackedModel)
    return packed


def _by_the_model(model: fermt.FERMT, scene: Scene, window: Tensor, dtype: torch.dtype) -> Maps:
    """Maps and boxes in plain PyTorch, in `dtype`, where the window is."""
    images = (image.to(window.device) for image in scene.images(dtype))
    frame = whole_frame(in_dtype(model, dtype).to(window.device), *images)
    maps = dict(zip(frame.outputs, frame.module(*frame.inputs.values()), strict=True))
    return maps | {"boxes": fk.frame.decode(maps, window)}


def _by_frames(packed: fk.frame.CudaPackedModel, scene: Scene, batch: int, window: Tensor) -> tuple[Maps, Tensor]:
    """Maps and boxes of whole batches of the scene's targets, in order and from the first again; and each's target."""
    count = len(scene.search)
    targets, space, results = torch.arange(-(-count // batch) * batch) % count, fk.frame.Workspace(), []
    for chosen in targets.split(batch):
        template, search = (crops[chosen].to(packed.device) for crops in scene)
        caches = fk.frame.encode_template(packed, template, workspace=space)
        results.append(fk.frame.track_frame(packed, caches, search, workspace=space, boxes=True, window=window))
    return {name: torch.cat([maps[name] for maps in results]) for name in results[0]}, targets


def _misplaced(packed: fk.frame.CudaPackedModel, scene: Scene, batch: int) -> str | None:
    """What is wrong with boxes by their own maps, without a window."""
    template, search = (crops[torch.arange(batch) % len(crops)].to(packed.device) for crops in scene)
    maps = fk.frame.track_frame(packed, fk.frame.encode_template(packed, template), search, boxes=True)
    boxes = maps.pop("boxes")
    exact = fk.frame.decode({name: value.double() for name, value in maps.items()})
    return inaccuracy(boxes.cpu(), fk.frame.decode(maps).cpu(), exact.cpu())


def of_frames(
    device: str, dtypes: Sequence[torch.dtype], plan: _Plan = FULL, small: bool = False, runs: int = RUNS
) -> list[Check]:
    """All checks of frames by this plan: by the accuracy rule, by TF32's bound, and to the bit."""
    every: list[Check] = []
    for name in plan.models:
        for dtype in dtypes:
            check = partial(_inaccuracies, device, name, dtype, plan, small)
            every.append((f"frame, {name}, {dtype_name(dtype)}", check))
        if torch.float32 in dtypes:
            every.append((f"frame, {name}, TF32", partial(_beyond_tf32, device, name, plan, small)))
    for dtype in dtypes:
        for batch in plan.batches:
            check = partial(_differences, device, dtype, batch, small, runs)
            every.append((f"frame, {dtype_name(dtype)}, B = {batch}, {runs} runs", check))
            check = partial(_differences_of_images, device, dtype, batch, small)
            every.append((f"frame from an image, {dtype_name(dtype)}, B = {batch}", check))
    return every


@torch.no_grad()
def launch_all(device: str, dtypes: Sequence[torch.dtype], plan: _Plan = FULL) -> None:
    """Runs each model at each batch once, so that its launches can be recorded."""
    for name in plan.models:
        model = cases.model(small=False, **CHECKED[name])
        for dtype in dtypes:
            packed = _packed(model, dtype, device)
            for batch in plan.batches:
                _by_frames(packed, cases.scene(packed, batch), batch, _window(packed))
    for dtype in dtypes:
        for batch in plan.batches:
            _differences_of_images(device, dtype, batch, small=False)


@torch.no_grad()
def _inaccuracies(device: str, name: str, dtype: torch.dtype, plan: _Plan, small: bool) -> Found:
    """Maps and boxes that break the accuracy rule."""
    compared, found = 0, []
    model = cases.model(small, **CHECKED[name])
    scene = cases.scene(model.config, plan.targets)
    packed = _packed(model, dtype, device)
    window = _window(packed)
    truth, eager = (_by_the_model(model, scene, window, each) for each in (torch.float64, dtype))
    for batch in plan.batches:
        results, targets = _by_frames(packed, scene, batch, window)
        for key, actual in results.items():
            compared += 1
            yardstick, exact = (maps[key].cpu()[targets] for maps in (eager, truth))
            if reason := inaccuracy(actual.cpu().to(dtype), yardstick.to(dtype), exact):
                found.append(f"B = {batch}, {key}: {reason}")
        compared += 1
        if reason := _misplaced(packed, scene, batch):
            found.append(f"B = {batch}, boxes by its own maps: {reason}")
    return compared, found


@torch.no_grad()
def _beyond_tf32(device: str, name: str, plan: _Plan, small: bool) -> Found:
    """Maps and boxes of float32 frames, TF32 allowed, that are further from float64 than TF32 explains."""
    compared, found, roundoff = 0, [], torch.finfo(torch.float32).eps / 2
    model = cases.model(small, **CHECKED[name])
    scene = cases.scene(model.config, plan.targets)
    packed = _packed(model, torch.float32, device)
    window = _window(packed)
    truth, eager = (_by_the_model(model, scene, window, each) for each in (torch.float64, torch.bfloat16))
    for batch in plan.batches:
        with tf32_allowed():
            results, targets = _by_frames(packed, scene, batch, window)
        for key, actual in results.items():
            compared += 1
            exact, yardstick = (maps[key].cpu()[targets] for maps in (truth, eager))
            kinds = zip(
                ("largest", "rms"),
                errors(actual.cpu(), exact),
                errors(yardstick, exact),
                errors(exact, torch.zeros_like(exact)),
                strict=True,
            )
            for kind, got, rounded, size in kinds:
                bound = TF32_OF_BFLOAT16 * rounded + roundoff * size
                if not got <= bound:
                    found.append(f"B = {batch}, {key}: {kind} error {got:.3g} exceeds {bound:.3g}")
    return compared, found


@torch.no_grad()
def _differences(device: str, dtype: torch.dtype, batch: int, small: bool, runs: int) -> Found:
    """Ways of running frames that change a bit: captured, repeated, from the CPU, targets exchanged and back."""
    model = cases.model(small)
    packed = _packed(model, dtype, device)
    scene = cases.scene(model.config, batch)
    template, search = (crops.to(device) for crops in scene)
    caches = fk.frame.encode_template(packed, template)
    space, exchanged = fk.frame.Workspace(), list(caches.flip(0))
    track = fk.frame.track_frame
    plain, other = (track(packed, rows, search, boxes=True) for rows in (caches, exchanged))
    usual: Way = (caches, search, plain)
    ways = {
        "captured": usual,
        "from the CPU": (caches, scene.search, plain),
        "targets exchanged": (exchanged, search, other),
        "targets exchanged back": usual,
        **{f"run {i}": usual for i in range(runs)},
    }
    found = []
    for way, (rows, crops, expected) in ways.items():
        got = track(packed, rows, crops, workspace=space, boxes=True)
        if not all(torch.equal(got[name], value) for name, value in expected.items()):
            found.append(way)
    return len(ways), found[:3]


@torch.no_grad()
def _differences_of_images(device: str, dtype: torch.dtype, batch: int, small: bool) -> Found:
    """Images whose boxes are not, to the bit, those of crops that the reference cuts out of them on the CPU."""
    packed = _packed(cases.model(small), dtype, device)
    caches = fk.frame.encode_template(packed, cases.scene(packed, batch).template.to(device))
    space, window = fk.frame.Workspace(), _window(packed)
    found, compared = [], 0
    for height, width in SMALL_IMAGES if small else IMAGES:
        image, squares = cases.image(height, width), cases.squares(cases.boxes(height, width, batch))
        crops = fk.reference.crop(image, squares, packed.search_size).to(device)
        expected = fk.frame.track_frame(packed, caches, crops, boxes=True, window=window)["boxes"]
        there, planes = image.to(device), image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        ways = {
            "from the CPU": (image, squares, False),
            "from the CPU again": (image, squares, False),
            "BGR from the CPU": (image.flip(2), squares, True),
            "on the GPU": (there, squares, False),
            "BGR on the GPU": (there.flip(2), squares, True),
            "planes on the GPU": (planes.to(device), squares, False),
            "with its squares on the GPU": (there, squares.to(device), False),
        }
        for way, (given, around, bgr) in ways.items():
            compared += 1
            got = fk.frame.track_image(packed, caches, given, around, bgr=bgr, workspace=space, window=window)
            if not torch.equal(got, expected):
                found.append(f"{height} x {width}, {way}")
    return compared, found[:3]
