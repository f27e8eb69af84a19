"""Whether a frame on this GPU is right: against the model in float64, and bit for bit however it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels.testing import errors, inaccuracy

from ..frame_report import Scene, dtype_name, in_dtype
from ..peers import Maps, whole_frame
from . import cases
from .cases import CHECKED

RUNS = 100
# TF32 keeps 11 bits of a factor and cuts the rest: off by at most 2^-10, a quarter of what bfloat16's rounding, 2^-8,
# may be off by. Errors of results are linear in those of factors, and eager bfloat16 rounds the same factors and more.
# So an error is at most a quarter of eager bfloat16's; twice that, as everywhere, plus one rounding.
TF32_OF_BFLOAT16 = 2 / 4
Say = Callable[[str], object]  # is told what is checked next
Way = tuple[Tensor | list[Tensor], Tensor, Maps]  # caches, crops, and what must come of them


class _Plan(NamedTuple):
    """What is checked, and on how many targets, which larger batches repeat: errors of one draw hang together."""

    models: tuple[str, ...]
    targets: int
    batches: tuple[int, ...]


# The largest batch has so many rows that other tables of sizes apply.
FULL = _Plan(tuple(CHECKED), targets=32, batches=(1, 3, 128))
SMALL = _Plan(("center", "corner, reweight, no DAU"), targets=6, batches=(3,))


def _plan(small: bool) -> _Plan:
    return SMALL if small else FULL


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
    known = len(scene.search)
    targets, space, results = torch.arange(-(-known // batch) * batch) % known, fk.frame.Workspace(), []
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


@torch.no_grad()
def wrong(device: str, dtypes: tuple[torch.dtype, ...], say: Say, small: bool = False) -> tuple[int, list[str]]:
    """How many maps and boxes were compared by the accuracy rule, and those that broke it."""
    compared, found, plan = 0, [], _plan(small)
    for name in plan.models:
        model = cases.model(small, **CHECKED[name])
        scene = cases.scene(model.config, plan.targets)
        for dtype in dtypes:
            packed = _packed(model, dtype, device)
            window = _window(packed)
            truth, eager = (_by_the_model(model, scene, window, each) for each in (torch.float64, dtype))
            for batch in plan.batches:
                case = f"frame, {name}, {dtype_name(dtype)}, B = {batch}"
                say(case)
                results, targets = _by_frames(packed, scene, batch, window)
                for key, actual in results.items():
                    compared += 1
                    yardstick, exact = (maps[key].cpu()[targets] for maps in (eager, truth))
                    if reason := inaccuracy(actual.cpu().to(dtype), yardstick.to(dtype), exact):
                        found.append(f"{case}, {key}: {reason}")
                compared += 1
                if reason := _misplaced(packed, scene, batch):
                    found.append(f"{case}, boxes by its own maps: {reason}")
    return compared, found


@contextmanager
def _tf32_allowed() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@torch.no_grad()
def wrong_in_tf32(device: str, say: Say, small: bool = False) -> list[str]:
    """Maps and boxes of float32 frames, TF32 allowed, that are further from float64 than TF32 explains."""
    found, roundoff, plan = [], torch.finfo(torch.float32).eps / 2, _plan(small)
    for name in plan.models:
        model = cases.model(small, **CHECKED[name])
        scene = cases.scene(model.config, plan.targets)
        packed = _packed(model, torch.float32, device)
        window = _window(packed)
        truth, eager = (_by_the_model(model, scene, window, each) for each in (torch.float64, torch.bfloat16))
        for batch in plan.batches:
            case = f"frame, {name}, TF32, B = {batch}"
            say(case)
            with _tf32_allowed():
                results, targets = _by_frames(packed, scene, batch, window)
            for key, actual in results.items():
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
                        found.append(f"{case}, {key}: {kind} error {got:.3g} exceeds {bound:.3g}")
    return found


@torch.no_grad()
def differs(device: str, dtypes: tuple[torch.dtype, ...], say: Say, runs: int = RUNS, small: bool = False) -> list[str]:
    """Frames that change a bit where they may not: captured, repeated, from the CPU, targets exchanged and back."""
    found, plan = [], _plan(small)
    model = cases.model(small)
    for dtype in dtypes:
        packed = _packed(model, dtype, device)
        for batch in plan.batches:
            case = f"frame, {dtype_name(dtype)}, B = {batch}"
            say(f"{case}, {runs} runs")
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
            for way, (rows, crops, expected) in ways.items():
                got = track(packed, rows, crops, workspace=space, boxes=True)
                if not all(torch.equal(got[name], value) for name, value in expected.items()):
                    found.append(f"{case}, {way}")
                    break
    return found
