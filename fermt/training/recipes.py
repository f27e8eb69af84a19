"""Named training configurations, configuration files, and overrides from the command line."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..textfiles import read_json, read_text
from .config import TrainConfig, check_fields

_TINY = {  # trains on two CPU cores in minutes
    "patterns": ["mixed"] * 2 + ["cross"] * 2,
    "dim": 96,
    "num_heads": 6,
    "template_size": 64,
    "search_size": 128,
    "patch_size": 16,
    "drop_path": 0.0,
}
_SYNTHETIC = {"synthetic": 1.0}
_POOL = {"pool": 1.0}
_FREE_IMAGES = TrainConfig(  # how the weights "free-images" were trained, after free-images-half
    model_options={"drop_path": 0.0},
    initial="similar",
    matching=2.0,
    data=_POOL,
    pool={"scenes": 0.3, "boxes": 0.3, "photos": 0.2, "video": 0.2},
    validation=_POOL,
    synthetic="standard",
    epochs=7,
    pairs=4096,
    batch=16,
    lr=7e-4,
    backbone_lr_factor=1.0,
    weight_decay=0.05,
    clip=1.0,
    schedule="cosine",
    warmup=50,
    ema=0.998,
    workers=1,
    validation_pairs=256,
    validate_every=1,
    log_every=16,
    save_every=64,
)
TRAINING: dict[str, TrainConfig] = {
    "paper": TrainConfig(),
    "paper-got10k": TrainConfig(data={"got10k": 1.0}, epochs=100, drop_epoch=80),
    "synthetic": TrainConfig(
        data=_SYNTHETIC, validation=_SYNTHETIC, epochs=60, drop_epoch=48, backbone_lr_factor=1.0, validate_every=1
    ),
    "free-images": _FREE_IMAGES,
    "free-images-half": dataclasses.replace(  # a quarter of the tokens; its weights are a start for free-images
        _FREE_IMAGES,
        model_options={"template_size": 64, "search_size": 128, "drop_path": 0.0},
        pool={"scenes": 0.35, "boxes": 0.2, "photos": 0.35, "video": 0.1},
        epochs=10,
        batch=32,
        lr=1e-3,
        schedule="constant",
        warmup=200,
    ),
    "synthetic-tiny": TrainConfig(
        model_options=_TINY,
        data=_SYNTHETIC,
        validation=_SYNTHETIC,
        synthetic="easy",
        epochs=10,
        pairs=1600,
        batch=16,
        lr=1e-3,
        backbone_lr_factor=1.0,
        clip=1.0,
        drop_epoch=8,
        workers=1,
        validation_pairs=256,
        validate_every=1,
        log_every=10,
        save_every=100,
    ),
}


def read_config(name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a configuration by name, or from a JSON or YAML file, and applies overrides.

    A file may name under "base" the configuration whose fields it replaces; the default is "paper".

    Args:
        name: from `TRAINING`, or a file that ends in .json, .yaml or .yml.
        overrides: such as "epochs=10", "amp=bf16" or "model_options.dim=96"; values are JSON, or else text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name or key, a value of the wrong type, or YAML without PyYAML.
    """
    values = TRAINING[name].to_dict() if name in TRAINING else _read_file(Path(name))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"an override is key=value, such as epochs=10; got {text!r}")
        _override(values, key.strip(), _parse(value))
    return TrainConfig.from_dict(values)


def _read_file(path: Path) -> dict[str, Any]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"unknown training configuration {os.fspath(path)!r}; expected one of {', '.join(TRAINING)}, or a file "
            f"that ends in {', '.join(READERS)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no training configuration at {os.fspath(path)!r}")
    values = reader(path)
    if not isinstance(values, dict):
        raise ValueError(f"{os.fspath(path)!r} must hold a mapping of fields, got {type(values).__name__}")
    base = values.pop("base", "paper")
    if base not in TRAINING:
        raise ValueError(f"{os.fspath(path)!r}: base must be one of {', '.join(TRAINING)}; got {base!r}")
    return TRAINING[base].to_dict() | values


def _read_yaml(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ValueError(f"{os.fspath(path)!r} is YAML, which needs `pip install pyyaml`; JSON does not") from error
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{os.fspath(path)!r} is not YAML: {error}") from error


READERS = {".json": read_json, ".yaml": _read_yaml, ".yml": _read_yaml}


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.strip()


def _override(values: dict[str, Any], key: str, value: Any) -> None:
    """Replaces a field, or with "field.key" an entry of a field that is a mapping."""
    field, _, entry = key.partition(".")
    check_fields([field], list(values))
    if not entry:
        values[field] = value
    elif isinstance(values[field], dict):
        values[field] = values[field] | {entry: value}
    else:
        raise ValueError(f"{field} has no parts; got {key!r}")
