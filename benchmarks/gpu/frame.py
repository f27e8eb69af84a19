"""A tracked frame on a GPU: ours and its peers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt_kernels import triton as triton_backend

from ..cases import OURS
from ..frame_report import Scene, dtype_name, in_dtype
from ..peers import Frame, cached_frame, whole_frame
from . import cases, clocks, crop
from .clocks import BY_THE_WALL, FRAME_CLOCKS, Machine, Run, Runner, timed
from .plan import launches
from .work import Ceilings, joined, total

MAIN_SIZES = tuple((torch.bfloat16, batch) for batch in (1, 128))  # dtype, batch
OTHER_SIZES = (
    *((torch.bfloat16, batch) for batch in (8, 32)),
    *((dtype, batch) for batch in (1, 128) for dtype in (torch.float16, torch.float32)),
)
Sizes = tuple[tuple[torch.dtype, int], ...]
SMALL_SIZES: Sizes = ((torch.float32, 1),)
TOLERANCE = 0.25  # how far a peer's maps may be from ours: what a wrong function exceeds, and bfloat16 does not
MAKE = {"cached": cached_frame, "whole": whole_frame}
CAPTION = (
    "Ours takes uint8 crops that are on the GPU, but 'from the CPU', where they are pinned and boxes are read back; "
    "'launches alone' neither takes crops nor returns maps. 'From an image', of 720 x 1280 on the CPU or the GPU, it "
    "cuts the search regions itself, and only boxes are read back; 'from OpenCV's crops' the CPU cuts them, one after "
    "the other, and boxes are read back. Peers take the normalized image on the GPU. Where the template is 'cached', "
    "theirs is that of the same targets; 'whole' encodes it in every frame."
)


class Subject(NamedTuple):
    """The model on the device in some dtype, its packed form, and crops on the CPU: the same for all runners."""

    model: fermt.FERMT
    packed: fk.frame.CudaPackedModel
    crops: Scene

    @classmethod
    def of(cls, dtype: torch.dtype, batch: int, device: str) -> Subject:
        exact = cases.model(small=device != "cuda").to(device)
        packed = fk.frame.pack(exact, dtype, backend="triton")
        assert isinstance(packed, fk.frame.CudaPackedModel)
        return cls(in_dtype(exact, dtype), packed, cases.scene(exact.config, batch))

    def images(self) -> Iterator[Tensor]:
        """Template and search images, normalized, on the device."""
        return (image.to(self.packed.device) for image in self.crops.images(self.packed.dtype))

    def maps(self) -> list[Tensor]:
        """Ours, in the order of the head."""
        template, search = (crops.to(self.packed.device) for crops in self.crops)
        return list(fk.frame.track_frame(self.packed, fk.frame.encode_template(self.packed, template), search).values())


def _ours(subject: Subject) -> dict[str, Runner]:
    packed, device, on_gpu = subject.packed, subject.packed.device, subject.packed.device.type == "cuda"
    caches = fk.frame.encode_template(packed, subject.crops.template.to(device))
    search, space = subject.crops.search.to(device), fk.frame.Workspace()
    track = partial(fk.frame.track_frame, packed, caches, workspace=space, boxes=True)
    pinned = subject.crops.search.pin_memory() if on_gpu else subject.crops.search
    frame = triton_backend.make_frame(packed.weights, packed.sizes, len(search))
    for target, cache in enumerate(caches):
        frame.install(target, cache)
    frame.searches.copy_(search)

    def launched() -> None:
        frame.searches.copy_(search)
        frame.track()

    return {
        OURS: Runner.of(partial(track, search), BY_THE_WALL),
        **_ours_from_images(subject, caches, frame),
        f"{OURS}, from the CPU": Runner.of(lambda: track(pinned)["boxes"].cpu(), ("waited",)),
        f"{OURS}, no graph": Runner.of(launched, BY_THE_WALL),
        f"{OURS}, launches alone": Runner.of(frame.track, ("graph", "cold graph")),
    }


def _ours_from_images(subject: Subject, caches: Tensor, frame: triton_backend.Frame) -> dict[str, Runner]:
    """A whole image in, boxes out: all on the GPU, and as by a tracker that crops on the CPU."""
    packed, space = subject.packed, fk.frame.Workspace()
    height, width = cases.IMAGE if packed.device.type == "cuda" else cases.SMALL_IMAGE
    image, boxes = cases.image(height, width), cases.boxes(height, width, len(caches))
    there, squares = image.to(packed.device), cases.squares(boxes)
    found = partial(fk.frame.track_image, packed, caches, workspace=space)
    frame.squares.copy_(squares)

    def cropped() -> Tensor:
        crops = crop.by_opencv(image.numpy(), boxes, packed.search_size)
        return fk.frame.track_frame(packed, caches, crops, workspace=space, boxes=True)["boxes"].cpu()

    return {
        f"{OURS}, from an image": Runner.of(lambda: found(image, squares).cpu(), ("waited",)),
        f"{OURS}, from an image on the GPU": Runner.of(lambda: found(there, squares).cpu(), ("waited",)),
        f"{OURS}, from OpenCV's crops": Runner.of(cropped, ("waited",)),
        f"{OURS}, launches alone from an image": Runner.of(
            partial(frame.track_image, there, bgr=False), ("graph", "cold graph")
        ),
    }


def _checked(subject: Subject, frame: Frame, module: Callable[..., Any]) -> Run:
    """Returns a peer's call; ValueError if its maps are far from ours."""
    inputs = tuple(frame.inputs.values())
    for name, ours, theirs in zip(frame.outputs, subject.maps(), module(*inputs), strict=True):
        if not (apart := (ours - theirs).abs().max().item()) <= TOLERANCE:
            raise ValueError(f"{name} is {apart:.3g} from ours")
    return lambda: module(*inputs)


def _eager(subject: Subject, kind: str, channels_last: bool, sdpa: bool) -> Run:
    frame = MAKE[kind](subject.model, *subject.images())
    if channels_last:
        frame.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if sdpa:
        frame.module._attend = partial(_sdpa, frame.module)  # type: ignore[assignment]
    return _checked(subject, frame, frame.module)


def _sdpa(graph: Any, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=graph.backbone.blocks[layer].attn.scale)


def _compiled(subject: Subject, kind: str) -> Run:
    """torch.compile at its strongest: tuned for these shapes, weights frozen into the graph, CUDA graphs."""
    import torch._inductor.config as inductor

    frame = MAKE[kind](subject.model, *subject.images())
    compiled = torch.compile(frame.module.requires_grad_(False), dynamic=False, mode="max-autotune")
    with inductor.patch(freezing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tracing looks through the cache of the patterns' spans
        return _checked(subject, frame, compiled)


def _eager_peers(subject: Subject) -> dict[str, Runner]:
    choices = (("cached", False, False), ("cached", True, False), ("cached", True, True), ("whole", True, False))
    return {
        f"eager, {kind}{', channels last' * last}{', SDPA' * sdpa}": Runner(
            partial(_eager, subject, kind, last, sdpa), FRAME_CLOCKS
        )
        for kind, last, sdpa in choices
    }


def _compiled_peers(subject: Subject) -> dict[str, Runner]:
    return {"torch.compile, cached": Runner(partial(_compiled, subject, "cached"), BY_THE_WALL)}


def _timed(runners: dict[str, Runner], dtype: torch.dtype, batch: int, machine: Machine) -> Iterator[dict[str, Any]]:
    """The lines of a dtype and batch; the work in them is that of our launches."""
    work = total(joined(launches(batch, dtype, not machine.on_gpu)))
    shared = {"benchmark": "frame", "dtype": dtype_name(dtype), "batch": batch, **work._asdict()}
    return timed(f"frame, {dtype_name(dtype)}, B = {batch}", runners, shared, machine)


@torch.no_grad()
def measure(machine: Machine, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Ours and eager peers, at each dtype and batch."""
    for dtype, batch in sizes if machine.on_gpu else SMALL_SIZES:
        subject = Subject.of(dtype, batch, machine.device)
        yield from _timed(_ours(subject) | _eager_peers(subject), dtype, batch, machine)


@torch.no_grad()
def measure_compiled(machine: Machine, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """torch.compile beside ours, at each dtype and batch."""
    for dtype, batch in sizes if machine.on_gpu else SMALL_SIZES:
        subject = Subject.of(dtype, batch, machine.device)
        peers = _compiled_peers(subject) if machine.on_gpu else {}
        yield from _timed({OURS: _ours(subject)[OURS]} | peers, dtype, batch, machine)


def table(lines: list[dict[str, Any]], ceilings: Ceilings) -> str:
    """The lines as markdown, and what the runners are given."""
    return f"{clocks.table(lines)}\n\n{CAPTION}"
