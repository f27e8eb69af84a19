"""A training run as one dataclass, whose values are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from ..config import ModelConfig, named_config

AMP = ("off", "bf16", "fp16")
SYNTHETIC = "synthetic"  # the data set that needs no root
POOL = "pool"  # a folder of free images, which gives pairs of several kinds
SCHEDULES = ("step", "constant", "cosine")
INITIAL = ("vit", "similar")


_ACCEPTED: dict[Any, tuple[type, ...]] = {float: (float, int), int: (int,), bool: (bool,), str: (str,)}
_ENTRIES = {"data": float, "validation": float, "roots": str, "only": str, "exclude": str, "pool": float}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What is trained, on what, and how; the defaults are the paper's recipe.

    `batch` counts pairs of a whole step, over all processes and all its parts, so a recipe is the same on any number of
    devices. `data` and `validation` give each data set its share; `roots` says where a
    data set lies, `only` and `exclude` which of its training sequences are taken.
    """

    model: str = "fermt"  # a name from fermt.CONFIGS
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of ModelConfig to replace
    initial: str = "vit"  # or "similar": queries and keys that begin alike, for a start without pretrained weights
    pretrained: str = ""  # weights to start from: a MAE-Lite ViT-Tiny, or a .safetensors written by fermt.save
    data: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"got10k": 1.0, "lasot": 1.0, "trackingnet": 1.0, "coco": 1.0}
    )
    validation: dict[str, float] = dataclasses.field(default_factory=lambda: {"got10k": 1.0})
    roots: dict[str, str] = dataclasses.field(default_factory=dict)
    only: dict[str, str] = dataclasses.field(default_factory=dict)  # a file of the sequences to train on
    exclude: dict[str, str] = dataclasses.field(default_factory=dict)  # a file of those to leave out
    synthetic: str = "standard"  # setting of the data set "synthetic"
    synthetic_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of SyntheticConfig to replace
    pool: dict[str, float] = dataclasses.field(default_factory=dict)  # shares of its parts, if not the usual ones
    synthetic_on_device: bool = False  # draws them in whole batches where the model trains, if there is nothing else
    epochs: int = 300
    pairs: int = 60_000  # an epoch; what does not fill the last step is left out
    batch: int = 128
    accumulate: int = 1  # parts that a step is computed in, one after the other, to save memory
    lr: float = 4e-4
    backbone_lr_factor: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 0.1  # largest norm of the gradient
    schedule: str = "step"  # of the learning rate: "step", "constant", or "cosine" down to drop_factor of it
    warmup: int = 0  # steps in which it rises from 0
    drop_epoch: int = 240  # "step": from here on the learning rate is multiplied by drop_factor
    drop_factor: float = 0.1
    amp: str = "off"
    ema: float = 0.0  # decay of an average of the weights, which is then validated and exported; 0: none
    sync_bn: bool = False  # batch norms over all processes, on GPUs
    seed: int = 0
    workers: int = 4  # processes that make pairs, for each process that trains
    validation_pairs: int = 2000
    validate_every: int = 5  # epochs; 0: never
    log_every: int = 50  # steps
    save_every: int = 500  # steps; the state is also saved at the end of each epoch
    keep: int = 2  # states
    bad_steps: int = 10  # skipped in a row, after which training stops
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        self.model_config()
        for name, known in (("amp", AMP), ("schedule", SCHEDULES), ("initial", INITIAL)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
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
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1); got {self.ema}")
        if self.pairs < self.batch:
            raise ValueError(f"an epoch of {self.pairs} pairs does not fill one step of {self.batch}")
        for name in ("data", "validation"):
            shares = getattr(self, name)
            if any(share <= 0 for share in shares.values()) or (not shares and name == "data"):
                raise ValueError(f"{name} must give each data set a positive share; got {shares}")
        for name in ("only", "exclude"):
            if strange := sorted(set(getattr(self, name)) - set(self.data)):
                raise ValueError(f"{name} names {strange}, which data does not: {', '.join(self.data)}")
        if POOL in self.data and len(self.data) > 1:
            raise ValueError(f"{POOL!r} is not mixed with other data sets; got {', '.join(self.data)}")
        if self.synthetic_on_device and set(self.data) != {SYNTHETIC}:
            raise ValueError(f"synthetic_on_device takes {SYNTHETIC!r} alone as data; got {', '.join(self.data)}")
        if self.validate_every and not self.validation:
            raise ValueError("validation names no data set; give one, or set validate_every to 0")

    @property
    def steps_per_epoch(self) -> int:
        return self.pairs // self.batch

    def model_config(self) -> ModelConfig:
        """The configuration of the model to train."""
        try:
            return named_config(self.model, **self.model_options)
        except TypeError as error:
            known = ", ".join(field.name for field in dataclasses.fields(ModelConfig))
            raise ValueError(f"model_options {self.model_options} do not fit: expected some of {known}") from error

    def parts(self, processes: int) -> int:
        """Pairs that one process has in memory at once.

        Raises:
            ValueError: the batch cannot be divided so.
        """
        if self.batch % (processes * self.accumulate):
            raise ValueError(
                f"a batch of {self.batch} cannot be divided among {processes} processes x {self.accumulate} parts "
                "(accumulate)"
            )
        return self.batch // (processes * self.accumulate)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Raises ValueError for a key that is not a field, or a value that is not of the field's type."""
        check_known(values, [field.name for field in dataclasses.fields(cls)])
        return cls(**values)


def check_known(keys: Any, known: Sequence[str]) -> None:
    if unknown := sorted(set(keys) - set(known)):
        raise ValueError(f"unknown training fields {unknown}; expected some of {', '.join(known)}")


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
