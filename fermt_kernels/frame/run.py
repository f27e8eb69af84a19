"""Runs a packed model: the template once for each target, then one call for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..backends import AUTO, BACKENDS, requested, unsupported_reason
from ..spec.heads import HEADS
from . import cpu_run, cuda_run
from .crop import check_image, check_squares, crop
from .cuda_model import CudaPackedModel
from .decode import decode
from .packed import PackedModel
from .workspace import Workspace


def unavailable_reason(dtype: torch.dtype, device: torch.device | str = "cpu", backend: str = "auto") -> str | None:
    """The reason why a packed model cannot run in `dtype` on `device` with `backend`, or None if it can.

    Args:
        dtype: of the packed model's matrices.
        device: of the model.
        backend: "auto" or a name from `fermt_kernels.backends()`.

    Raises:
        ValueError: the backend is unknown.
    """
    name = requested(backend)
    candidates = list(BACKENDS) if name == AUTO else [name]
    reasons = {row: unsupported_reason(row, "track_frame", torch.device(device).type, dtype) for row in candidates}
    if None in reasons.values():
        return None
    return "; ".join(f"{row}: {reason}" for row, reason in reasons.items())


def encode_template(
    packed: PackedModel | CudaPackedModel, crops: Tensor, *, workspace: Workspace | None = None
) -> Tensor:
    """Computes all that `track_frame` needs of the templates, once for each target.

    Args:
        packed: the model.
        crops: uint8 RGB, (B, S, S, 3) or, for one template, (S, S, 3), with S = `packed.template_size`; on the CPU or
            where the model is.
        workspace: memory for intermediate results; allocated anew if None.

    Returns:
        Caches, uint8 (B, cache_bytes), on the model's device. They are valid for this model in this process and, on the
        CPU, for the instruction set in use. Do not write to them.

    Raises:
        TypeError, ValueError: an argument is not of that form; the message carries the value.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    crops = _crops("encode_template", packed, crops, "template_size")
    _check_workspace("encode_template", workspace)
    with _locked(workspace):
        if isinstance(packed, CudaPackedModel):
            return cuda_run.encode(packed, crops, workspace)
        return cpu_run.encode(packed, crops, workspace)


def track_frame(
    packed: PackedModel | CudaPackedModel,
    caches: Tensor | Sequence[Tensor],
    crops: Tensor,
    *,
    workspace: Workspace | None = None,
    tokens: bool = False,
    boxes: bool = False,
    window: Tensor | None = None,
) -> dict[str, Tensor]:
    """Computes the head's maps for B search regions, each with its target's template.

    Args:
        packed: the model.
        caches: results of `encode_template`: uint8 (B, cache_bytes), or a sequence of B rows, each (cache_bytes,) or
            (1, cache_bytes).
        crops: uint8 RGB, (B, S, S, 3) or, for one region, (S, S, 3), with S = `packed.search_size`; on the CPU or where
            the model is.
        workspace: memory for intermediate results; allocated anew if None, which takes time. On a GPU a CUDA graph is
            used only with a workspace.
        tokens: whether the result has `tokens` too.
        boxes: whether the result has `boxes` too.
        window: float32 (g, g) on the model's device, which multiplies the score map before the box is chosen; or None.
            Do not write to it afterwards.

    Returns:
        float32 tensors on the model's device, as its head gives them: `score_map` (B, 1, g, g), `size_map` and
        `offset_map` (B, 2, g, g), or `prob_tl` and `prob_br` (B, g^2), g = `packed.grid`; and, on request, `tokens`
        (B, g^2, dim), the search region's after the last norm, and `boxes` (B, 5), as `decode` gives them.

    Raises:
        TypeError, ValueError: an argument is not of that form; the message carries the value.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    crops = _crops("track_frame", packed, crops, "search_size")
    _check_workspace("track_frame", workspace)
    _check_window("track_frame", packed, window)
    _check_caches("track_frame", packed, caches, len(crops))
    if isinstance(packed, CudaPackedModel):
        with _locked(workspace):
            maps, found, last = cuda_run.track(packed, caches, crops, workspace, tokens, window)
        outputs = _outputs(packed.head, maps) | {"boxes": found}
    else:
        with _locked(workspace):
            maps, last = cpu_run.track(packed, caches, crops, workspace, tokens)
        outputs = _outputs(packed.head, maps)
        if boxes:
            outputs["boxes"] = decode(outputs, window)
    if not boxes:
        outputs.pop("boxes", None)
    return outputs if last is None else outputs | {"tokens": last}


def track_image(
    packed: PackedModel | CudaPackedModel,
    caches: Tensor | Sequence[Tensor],
    image: Tensor,
    squares: Tensor,
    *,
    bgr: bool = False,
    workspace: Workspace | None = None,
    window: Tensor | None = None,
) -> Tensor:
    """Finds B targets in one image: cuts a search region for each out of it, and returns boxes and scores alone.

    The result is that of `track_frame` on the crops of `crop`. On a GPU, crops, frame and boxes are one CUDA graph, and
    of an image on the CPU only the smallest rectangle with all squares is uploaded.

    Args:
        packed, caches, workspace, window: as for `track_frame`. A graph is captured for each size of images; a
            workspace keeps those of the last two.
        image: (H, W, 3) uint8, at least 2 x 2 pixels, any strides; on the CPU, or where the model is and complete on
            the current stream. It may be overwritten after the call, on a GPU by that stream.
        squares: (B, 3), int32 or int64, of the search regions, as for `crop`; on the CPU or where the model is. Those
            on a GPU are not read back: one with a side below 1, or outside the image, gives a black crop.
        bgr: whether the image is BGR instead of RGB.

    Returns:
        float32 (B, 5) on the model's device: cx, cy, w, h in [0, 1] of each square, and the score, as `decode` gives
        them.

    Raises:
        TypeError, ValueError: an argument is not of that form; the message carries the value.
        RuntimeError: the compiled library is not usable, with the reason.
    """
    _check_packed("track_image", packed)
    check_image("track_image", image)
    check_squares("track_image", squares, image)
    for name, value in (("image", image), ("squares", squares)):
        if value.device.type != "cpu" and value.device != packed.device:
            raise ValueError(f"track_image: {name} must be on {_input_devices(packed)}, got {value.device}")
    if not len(squares):
        raise ValueError(f"track_image: squares must have shape (B, 3), B at least 1; got {tuple(squares.shape)}")
    if not isinstance(bgr, bool):
        raise TypeError(f"track_image: bgr must be True or False, got {bgr!r}")
    _check_workspace("track_image", workspace)
    _check_window("track_image", packed, window)
    _check_caches("track_image", packed, caches, len(squares))
    with _locked(workspace):
        if isinstance(packed, CudaPackedModel):
            return cuda_run.track_image(packed, caches, image, squares, bgr, workspace, window)
        crops = crop(image, squares, packed.search_size)
        maps, _ = cpu_run.track(packed, caches, crops.flip(3) if bgr else crops, workspace, tokens=False)
    return decode(_outputs(packed.head, maps), window)


def _locked(workspace: Workspace | None) -> AbstractContextManager[None]:
    return nullcontext() if workspace is None else workspace.lock


def _outputs(head: str, maps: Tensor) -> dict[str, Tensor]:
    """The head's result from its maps (B, channels, g, g)."""
    channels = HEADS[head].channels
    outputs = dict(zip(channels, maps.split_with_sizes(list(channels.values()), dim=1), strict=True))
    return {name: value.flatten(1) for name, value in outputs.items()} if HEADS[head].softmax else outputs


def _crops(op: str, packed: PackedModel | CudaPackedModel, crops: Tensor, size_name: str) -> Tensor:
    """The crops as (B, S, S, 3)."""
    _check_packed(op, packed)
    size = getattr(packed, size_name)
    if not isinstance(crops, Tensor):
        raise TypeError(f"{op}: crops must be a uint8 tensor (B, {size}, {size}, 3), RGB; got {type(crops).__name__}")
    if crops.dtype != torch.uint8:
        raise TypeError(f"{op}: crops must be uint8, RGB; got {crops.dtype}")
    if crops.dim() == 3:
        crops = crops.unsqueeze(0)
    if crops.dim() != 4 or crops.shape[1:] != (size, size, 3) or crops.shape[0] == 0:
        raise ValueError(
            f"{op}: crops must have shape (B, {size}, {size}, 3) or ({size}, {size}, 3), got {tuple(crops.shape)}"
        )
    if crops.device.type != "cpu" and crops.device != packed.device:
        raise ValueError(f"{op}: crops must be on {_input_devices(packed)}, got {crops.device}")
    return crops


def _check_packed(op: str, packed: PackedModel | CudaPackedModel) -> None:
    if not isinstance(packed, (PackedModel, CudaPackedModel)):
        raise TypeError(f"{op}: packed must come from fermt_kernels.frame.pack or load, got {type(packed).__name__}")


def _input_devices(packed: PackedModel | CudaPackedModel) -> str:
    """The devices on which crops and images may be, in words."""
    return "the CPU" if packed.device.type == "cpu" else f"the CPU or {packed.device}"


def _check_caches(
    op: str, packed: PackedModel | CudaPackedModel, caches: Tensor | Sequence[Tensor], batch: int
) -> None:
    length = (cuda_run if isinstance(packed, CudaPackedModel) else cpu_run).cache_bytes(packed, batch)
    if isinstance(caches, Tensor):
        if caches.dim() != 2 or caches.shape != (batch, length):
            raise ValueError(
                f"{op}: caches must have shape ({batch}, {length}), one row for each of {batch} targets, as "
                f"encode_template gives them for this model; got {tuple(caches.shape)}"
            )
        _check_cache(op, packed, caches)
        return
    if isinstance(caches, (str, bytes)) or not isinstance(caches, Sequence):
        raise TypeError(f"{op}: caches must be a tensor or a sequence of tensors, got {type(caches).__name__}")
    if len(caches) != batch:
        raise ValueError(f"{op}: caches must be {batch}, one for each target; got {len(caches)}")
    for cache in caches:
        _check_cache(op, packed, cache)
        if cache.shape not in ((length,), (1, length)):
            raise ValueError(
                f"{op}: a cache must have shape ({length},) or (1, {length}), as encode_template "
                f"gives it for this model; got {tuple(cache.shape)}"
            )


def _check_cache(op: str, packed: PackedModel | CudaPackedModel, cache: Tensor) -> None:
    if not isinstance(cache, Tensor):
        raise TypeError(f"{op}: a cache must be a uint8 tensor, got {type(cache).__name__}")
    if cache.dtype != torch.uint8:
        raise TypeError(f"{op}: a cache must be a uint8 tensor, got {cache.dtype}")
    if cache.device != packed.device:
        where = "the CPU" if packed.device.type == "cpu" else packed.device
        raise ValueError(f"{op}: a cache must be on {where}, got {cache.device}")


def _check_workspace(op: str, workspace: Workspace | None) -> None:
    if workspace is not None and not isinstance(workspace, Workspace):
        raise TypeError(f"{op}: workspace must be a Workspace or None, got {type(workspace).__name__}")


def _check_window(op: str, packed: PackedModel | CudaPackedModel, window: Tensor | None) -> None:
    if window is None:
        return
    if not isinstance(window, Tensor) or window.shape != (packed.grid, packed.grid):
        kind = tuple(window.shape) if isinstance(window, Tensor) else type(window).__name__
        raise ValueError(f"{op}: window must have shape ({packed.grid}, {packed.grid}) or be None, got {kind}")
    if window.device != packed.device:
        raise ValueError(f"{op}: window must be on {packed.device}, where the model is; got {window.device}")
