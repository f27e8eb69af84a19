"""Saving and loading weights: safetensors, and pickled checkpoints without running the code pickled in them."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from fermt_kernels.files import atomic_write
from fermt_kernels.frame import PackedModel
from fermt_kernels.frame import load as load_packed
from fermt_kernels.spec.state_dict import UNUSED_KEYS
from fermt_kernels.wrapped import shortened, stripped, unwrapped

from .config import ModelConfig
from .devices import check_device
from .model import FERMT
from .model import build_model as build_untrained
from .overwrites import check_overwrites
from .weights import SHIPPED, located

PACKED_SUFFIX = ".fermt"  # suffix of packed models
STORED_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64)  # in files of `save`
CONFIG_KEY = "fermt_config"
MAY_DIFFER = ("template_size", "search_size", "drop_path")  # fields in which a model may differ from its weights' file
RENAMED_PREFIX = ("backbone.tau.", "backbone.dau.")  # the release calls the unit by either name


def save(model: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes weights and configuration to a safetensors file, atomically.

    Args:
        model: a FERMT, also inside `torch.compile`, `DataParallel`, `DistributedDataParallel` or `AveragedModel`.
        path: the file to write.

    Raises:
        TypeError: the model is no FERMT.
        ValueError: its weights are not those of its configuration, so that `load` would refuse them; or it has adapters
            that are not merged.
        OSError: the file cannot be written, for example because the disk is full.
    """
    model = unwrapped(model)
    if not isinstance(model, FERMT):
        raise TypeError(f"save: expected a FERMT, got {type(model).__name__}")
    tensors = stripped(model.state_dict())
    if odd := sorted(name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)):
        raise ValueError(f"save: expected a model of tensors, quantized layers keep others: {shortened(odd)}")
    with torch.device("meta"):
        expected = build_untrained(model.config).state_dict()
    _check_fit(expected, tensors, "this model", "its configuration")
    if on_meta := sorted(name for name, tensor in tensors.items() if tensor.is_meta):
        raise ValueError(f"save: weights on the meta device have no values: {shortened(on_meta)}")
    metadata = {CONFIG_KEY: json.dumps(model.config.to_dict())}
    # Copies: weights may be tied, or lie in one memory, which the format does not have.
    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    atomic_write(path, safetensors.torch.save(tensors, metadata=metadata))  # save_file has a temporary file of its own


def build_model(
    config: str | ModelConfig = "fermt",
    *,
    weights: str | os.PathLike[str] | None = None,
    backend: str = "auto",
    **overrides: Any,
) -> FERMT:
    """Builds a model with new weights, or with those of a file.

    Args:
        config: a name from `fermt.CONFIGS` ("fermt", "fermt-corner", "a1a4" ... "a3a5", "a2" ... "a5", "a2a5-3-9",
            "a2a5-9-3") or a `ModelConfig`.
        weights: None for random ones; a name of weights that come with the package ("free-images"); or a file written
            by `save`. Their model may differ in the sizes of its images: position tables are then resized, and the
            result should be trained further.
        backend: backend of all kernels: "auto" or a name from `fermt_kernels.backends()`.
        **overrides: fields to replace in a named configuration, such as `dau=False`.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights are of another configuration, or as for `load`.
    """
    model = build_untrained(config, backend=backend, **overrides)
    if weights is None:
        return model
    trained, tensors = _read(located(weights), "cpu")
    differing = [
        f"{name} is {ours!r}, theirs {theirs!r}"
        for (name, ours), theirs in zip(model.config.to_dict().items(), trained.to_dict().values(), strict=True)
        if ours != theirs and name not in MAY_DIFFER
    ]
    if differing:
        raise ValueError(f"weights {os.fspath(weights)!r} are of another configuration: {'; '.join(differing)}")
    with _naming_file(weights):
        load_resized(model, tensors)
    return model


def load(path: str | os.PathLike[str], *, backend: str = "auto", device: torch.device | str = "cpu") -> FERMT:
    """Loads a model in evaluation mode: from a file written by `save`, in the file's dtype, or by its name.

    The dtype is the widest of the file's weights, whatever PyTorch's default dtype and device are. Weights that come
    with the package ("free-images") are stored in bfloat16 and loaded as float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such device, or the file is damaged or of another kind, or has the weights of another
            model.
    """
    device = check_device(device)
    config, tensors = _read(located(path), device)
    with torch.device(device):
        model = build_untrained(config, backend=backend)
    floats = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    if floats:
        model.to(torch.float32 if str(path) in SHIPPED else reduce(torch.promote_types, floats))
    with _naming_file(path):
        load_state_dict(model, tensors)
    return model.eval()


def _read(path: Path, device: torch.device | str) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Reads a file written by `save`; ValueError if it is damaged or of another kind."""
    try:
        with safetensors.safe_open(str(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{os.fspath(path)!r} is damaged, cut short, or not safetensors ({error}); "
            "`fermt convert` turns a pickled checkpoint of the authors into safetensors"
        ) from error
    if CONFIG_KEY not in metadata:
        raise ValueError(
            f"{os.fspath(path)!r} was not written by fermt.save: its metadata has no {CONFIG_KEY!r}, "
            f"only {sorted(metadata)}"
        )
    try:
        config = ModelConfig.from_dict(json.loads(metadata[CONFIG_KEY]))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} has no configuration that can be used: {error}") from error
    if odd := [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype not in STORED_DTYPES]:
        raise ValueError(f"{os.fspath(path)!r} has weights of dtypes that are not read: {shortened(odd)}")
    return config, tensors


def load_any(
    path: str | os.PathLike[str], *, backend: str = "auto", device: torch.device | str = "cpu"
) -> FERMT | PackedModel:
    """Loads a packed model if the name ends in .fermt, else weights as `load` does.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `load` and `fermt_kernels.frame.load`, or a packed model is requested on a GPU.
    """
    if Path(path).suffix != PACKED_SUFFIX:
        return load(path, backend=backend, device=device)
    if str(device).partition(":")[0] != "cpu":
        raise ValueError(f"{os.fspath(path)} is a packed model, which runs on the CPU; got device {str(device)!r}")
    return load_packed(path)


def load_state_dict(model: FERMT, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict of the authors' code or of this package into `model`.

    `backbone.cls_token` and `backbone.pos_embed`, which forward passes do not use, are dropped; `backbone.tau.` is read
    as `backbone.dau.`. Prefixes of wrappers, `module.` and `_orig_mod.`, are taken off. Values are converted to the
    dtypes of the model.

    Raises:
        ValueError: keys are missing or unexpected, shapes differ, or integers stand for floats or the reverse; the
            message names up to ten of each, and nothing is loaded.
    """
    renamed = {key.replace(*RENAMED_PREFIX): value for key, value in stripped(state).items() if key not in UNUSED_KEYS}
    _load_exactly(unwrapped(model), renamed, "state dict")


def load_resized(model: FERMT, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict of a model for other image sizes; its position tables are resized bicubically.

    Raises:
        ValueError: as `load_state_dict`, for anything but the sizes of the tables.
    """
    config, tables = model.config, stripped(state)
    for key, grid in (("pos_embed_z", config.template_grid), ("pos_embed_x", config.search_grid)):
        name = f"backbone.{key}"
        if name in tables and tables[name].shape[1] != grid * grid:
            tables[name] = resize_positions(tables[name], grid)
    load_state_dict(model, tables)


def load_pretrained(model: FERMT, path: str | os.PathLike[str]) -> None:
    """Loads a MAE-Lite ViT-Tiny checkpoint into the backbone, as the authors' training does.

    The position table is resized bicubically to the grids of template and search region. The Dual Attention Unit and
    the head keep their values; the checkpoint's class token, decoder and classifier are not used.

    Args:
        model: with 192 channels and 12 blocks, like "fermt".
        path: the `.pth.tar`; opened with `weights_only=True`.

    Raises:
        ValueError: the file is damaged, or a weight of the backbone is missing, unexpected or of another shape.
    """
    checkpoint = read_pickled(path)
    state = _weights_of(checkpoint, "model", path)
    state = {key.removeprefix("model."): value for key, value in stripped(state).items()}
    if "pos_embed" not in state:
        raise ValueError(
            f"{os.fspath(path)!r} has no 'pos_embed': expected a MAE-Lite ViT-Tiny, got {sorted(state)[:5]}"
        )
    table = state.pop("pos_embed")[:, 1:]  # (1, g^2, C), without the class token
    ignored = ("cls_token", "mask_token", "decoder_", "head.", "fc_norm.")
    backbone = {key: value for key, value in state.items() if not key.startswith(ignored)}
    backbone["pos_embed_z"] = resize_positions(table, model.config.template_grid)
    backbone["pos_embed_x"] = resize_positions(table, model.config.search_grid)
    backbone |= {key: value for key, value in model.backbone.state_dict().items() if key.startswith("dau.")}
    _load_exactly(model.backbone, backbone, os.fspath(path))


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Resizes a position table, (1, g^2, C) -> (1, grid^2, C), bicubically."""
    side = round(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        raise ValueError(f"a position table must have a square number of rows, got shape {tuple(table.shape)}")
    square = table.transpose(1, 2).unflatten(2, (side, side))  # (1, C, g, g)
    resized = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).contiguous()


def read_pickled(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a `torch.save` file with `weights_only=True`.

    Objects of other classes than tensors and plain containers (training settings, statistics) become placeholders;
    their code is neither imported nor run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not such a file, or needs a module that torch blocks.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {name!r}")
    unsafe: list[str] = []
    try:
        unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(name))
        with torch.serialization.safe_globals([(_placeholder(kind), kind) for kind in unsafe]):
            checkpoint = torch.load(name, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise anything
        if unsafe and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{name!r} cannot be read without running code that is pickled in it: it needs {', '.join(unsafe)}"
            ) from error
        raise ValueError(
            f"{name!r} cannot be read as a checkpoint: damaged, cut short, or not written by torch.save ({error})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{name!r} holds a {type(checkpoint).__name__}; expected a dict of weights")
    return checkpoint


def convert(path: str | os.PathLike[str], target: str | os.PathLike[str], config: str | ModelConfig = "fermt") -> FERMT:
    """Converts a `.pth.tar` of the authors' code (weights under the key `net`) to safetensors.

    Args:
        path: the pickled checkpoint; code pickled in it is not run.
        target: the file to write.
        config: the configuration of the weights.

    Raises:
        FileNotFoundError, ValueError: as `read_pickled` and `load_state_dict`; ValueError if both paths are one file.
    """
    check_overwrites({"target": target}, {"path": path})
    state = _weights_of(read_pickled(path), "net", path)
    model = build_model(config)
    with _naming_file(path):
        load_state_dict(model, state)
    save(model, target)
    return model


def _weights_of(checkpoint: Mapping[str, Any], key: str, path: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """The weights of a checkpoint, under a key or by themselves."""
    state = checkpoint.get(key, checkpoint)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        keys = shortened(sorted(map(repr, checkpoint)))
        raise ValueError(f"{os.fspath(path)!r} has no weights under the key {key!r}; its keys are {keys}")
    return state


class _Opaque:
    """Placeholder for an object whose state is not a dict (NumPy's); accepts and discards any arguments."""

    def __new__(cls, *args: object, **kwargs: object) -> _Opaque:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Namespace:
    """Placeholder for any other object: an ordered dict, which accepts a dict's items and an object's fields."""

    def __new__(cls, *args: object, **kwargs: object) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()


def _placeholder(full_name: str) -> type:
    return _Opaque if full_name.startswith("numpy") else _Namespace


def _load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    prefixed = module.state_dict()  # a part may be compiled, and its keys have a prefix
    expected = stripped(prefixed)
    _check_fit(expected, state, source, "this model")
    module.load_state_dict({key: state[own] for key, own in zip(prefixed, expected, strict=True)})


@contextmanager
def _naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name of a file before what is wrong with its weights."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from error


def _check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, target: str) -> None:
    """Raises ValueError if keys, shapes or kinds of number of `state` are not the expected ones."""
    problems = {
        "missing": sorted(set(expected) - set(state)),
        "unexpected": sorted(set(state) - set(expected)),
        "of another kind of number": [
            f"{key} {state[key].dtype}, not {expected[key].dtype}"
            for key in expected
            if key in state and state[key].is_floating_point() != expected[key].is_floating_point()
        ],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, not {tuple(expected[key].shape)}"
            for key in expected
            if key in state and state[key].shape != expected[key].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(keys)} {kind}: {shortened(keys)}" for kind, keys in problems.items() if keys)
        raise ValueError(f"the weights of {source} do not fit {target}: {found}")
