"""The configuration of a training run, one dataclass with checked values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from ..config import ModelConfig, named_config

AMP = ("off", "bf16", "fp16")
SYNTHETIC = "synthetic"  # the data set without files
POOL = "pool"  # a folder of free images, used for pairs of several kinds
SCHEDULES = ("step", "constant", "cosine")
INITIAL = ("vit", "similar")


_ACCEPTED: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,), bool: (bool,), str: (str,)}
_ENTRIES = {"data": float, "validation": float, "roots": str, "only": str, "exclude": str, "pool": float}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults are the paper's recipe.

    `batch` is the number of pairs of a whole step, over all processes and parts, so that a recipe does not depend on
    the number of devices. `data` and `validation` give the share of each data set, `roots` its folder, `only` and
    `exclude` a choice of its training sequences.
    """

    model: str = "fermt"  # a name from fermt.CONFIGS
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of ModelConfig to replace
    initial: str = "vit"  # or "similar": correlated queries and keys, for training without pretrained weights
    matching: float = 0.0  # weight of the auxiliary loss that matches tokens (training/matching.py); 0: none
    pretrained: str = ""  # weights to start from: a MAE-Lite ViT-Tiny, or a .safetensors written by fermt.save
    data: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"got10k": 1.0, "lasot": 1.0, "trackingnet": 1.0, "coco": 1.0}
    )
    validation: dict[str, float] = dataclasses.field(default_factory=lambda: {"got10k": 1.0})
    roots: dict[str, str] = dataclasses.field(default_factory=dict)
    only: dict[str, str] = dataclasses.field(default_factory=dict)  # file of the sequences to train on
    exclude: dict[str, str] = dataclasses.field(default_factory=dict)  # file of the sequences to leave out
    synthetic: str = "standard"  # preset of the data set "synthetic"
    synthetic_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of SyntheticConfig to replace
    pool: dict[str, float] = dataclasses.field(default_factory=dict)  # shares of its parts; empty: the default
    epochs: int = 300
    pairs: int = 60_000  # per epoch; those that do not fill the last step are dropped
    batch: int = 128
    accumulate: int = 1  # parts in which a step is computed, one after another, to save memory
    lr: float = 4e-4
    backbone_lr_factor: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 0.1  # largest norm of the gradient
    schedule: str = "step"  # of the learning rate: "step", "constant", or "cosine" down to lr * drop_factor
    warmup: int = 0  # steps of linear warm-up
    drop_epoch: int = 240  # "step": epoch after which the learning rate is multiplied by drop_factor
    drop_factor: float = 0.1
    amp: str = "off"
    ema: float = 0.0  # decay of the moving average of the weights that is validated and exported; 0: none
    sync_bn: bool = False  # synchronize batch norms over all processes, on GPUs
    seed: int = 0
    workers: int = 4  # data-loading processes for each training process
    validation_pairs: int = 2000
    validate_every: int = 5  # epochs; 0: never
    log_every: int = 50  # steps
    save_every: int = 500  # steps; a state is also saved at the end of each epoch
    keep: int = 2  # states kept on disk
    bad_steps: int = 10  # consecutive skipped steps after which training stops
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        self.model_config()
        for name, allowed in (("amp", AMP), ("schedule", SCHEDULES), ("initial", INITIAL)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        least = {
            **dict.fromkeys(("epochs", "pairs", "batch", "accumulate", "log_every", "save_every", "keep"), 1),
            **dict.fromkeys(("bad_steps", "validation_pairs"), 1),
            **dict.fromkeys(("seed", "workers", "validate_every", "drop_epoch", "warmup", "weight_decay"), 0),
        }
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}; got {getattr(self, name)}")
        for name in ("lr", "backbone_lr_factor", "clip", "drop_factor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        if not 0 <= self.matching < float("inf"):
            raise ValueError(f"matching must be finite and at least 0; got {self.matching}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1); got {self.ema}")
        if self.pairs < self.batch:
            raise ValueError(f"an epoch of {self.pairs} pairs does not fill one step of {self.batch}")
        for name in ("data", "validation"):
            shares = getattr(self, name)
            if any(share <= 0 for share in shares.values()) or (not shares and name == "data"):
                raise ValueError(f"{name} must give each data set a positive share; got {shares}")
        for name in ("only", "exclude"):
            if unknown := sorted(set(getattr(self, name)) - set(self.data)):
                raise ValueError(f"{name} names {unknown}, which data does not: {', '.join(self.data)}")
        if POOL in self.data and len(self.data) > 1:
            raise ValueError(f"{POOL!r} is not mixed with other data sets; got {', '.join(self.data)}")
        if self.validate_every and not self.validation:
            raise ValueError("validation names no data set; give one, or set validate_every to 0")

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.pairs // self.batch

    def model_config(self) -> ModelConfig:
        """The configuration of the model to train; ValueError if `model_options` do not fit."""
        try:
            return named_config(self.model, **self.model_options)
        except TypeError as error:
            allowed = ", ".join(field.name for field in dataclasses.fields(ModelConfig))
            raise ValueError(f"model_options {self.model_options} do not fit: expected some of {allowed}") from error

    def parts(self, processes: int) -> int:
        """Pairs of one part of a step in one process.

        Raises:
            ValueError: the batch cannot be divided in this way.
        """
        if self.batch % (processes * self.accumulate):
            raise ValueError(
                f"a batch of {self.batch} cannot be divided among {processes} processes x {self.accumulate} parts "
                "(accumulate)"
            )
        return self.batch // (processes * self.accumulate)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Makes a configuration; ValueError for an unknown key or a value of another type."""
        check_fields(values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)


def check_fields(keys: Any, allowed: Sequence[str]) -> None:
    """Raises ValueError if a key is not in `allowed`."""
    if unknown := sorted(set(keys) - set(allowed)):
        raise ValueError(f"unknown training fields {unknown}; expected some of {', '.join(allowed)}")


def _check_types(config: TrainConfig) -> None:
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        accepted = _ACCEPTED.get(kind, (dict,))
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} must be {accepted[0].__name__}, got {value!r}")
    for name, kind in _ENTRIES.items():
        for key, entry in getattr(config, name).items():
            if not isinstance(entry, _ACCEPTED[kind]) or isinstance(entry, bool):
                raise ValueError(f"{name}.{key} must be {kind.__name__}, got {entry!r}")
