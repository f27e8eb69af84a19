"""Configurations of the model: one dataclass, and the paper's configurations by name."""

from __future__ import annotations

import dataclasses
from numbers import Integral, Real
from typing import Any

from fermt_kernels import PATTERNS, spec

HEADS = tuple(spec.heads.HEADS)
_FORMS: dict[str, tuple[Any, str]] = {  # annotation of a field -> accepted types, and their description
    "tuple[str, ...]": ((list, tuple), "a list of patterns"),
    "str": (str, "text"),
    "bool": (bool, "True or False"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and options of a model; the defaults are the paper's FERMT with the released center head.

    `patterns` has one attention pattern for each block. Images are square; their sizes are sides in pixels.
    """

    patterns: tuple[str, ...] = ("mixed",) * 6 + ("cross",) * 6
    head: str = "center"
    dau: bool = True
    reweight: bool = False  # corner head only: weight search tokens by their similarity to the template
    template_size: int = 128
    search_size: int = 256
    patch_size: int = 16
    dim: int = 192
    num_heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1  # of the last block in training, increasing linearly from 0 at the first
    template_factor: float = 2.0  # side of the template crop over the square root of the target's area
    search_factor: float = 4.0  # side of the search region over the square root of the target's area

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kinds, expected = _FORMS[str(field.type)]
            value = getattr(self, field.name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                raise TypeError(f"{field.name} must be {expected}, got {value!r:.80}")
        object.__setattr__(self, "patterns", tuple(self.patterns))
        unknown = [pattern for pattern in self.patterns if pattern not in PATTERNS]
        if unknown or not self.patterns:
            raise ValueError(f"patterns must be some of {', '.join(PATTERNS)}; got {self.patterns!r}")
        if self.head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}; got {self.head!r}")
        if self.reweight and self.head != "corner":
            raise ValueError(f"reweight belongs to the corner head; got head {self.head!r}")
        for name in ("template_size", "search_size"):
            size = getattr(self, name)
            if self.patch_size <= 0 or size <= 0 or size % self.patch_size:
                raise ValueError(f"{name} must be a multiple of patch_size {self.patch_size}; got {size}")
        if self.num_heads < 1 or self.dim < 1 or self.dim % self.num_heads:
            raise ValueError(f"dim must be a multiple of num_heads {self.num_heads}; got {self.dim}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must lie in [0, 1); got {self.drop_path}")
        for name in ("mlp_ratio", "template_factor", "search_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    @property
    def template_grid(self) -> int:
        """Number of patches along a side of the template."""
        return self.template_size // self.patch_size

    @property
    def search_grid(self) -> int:
        """Number of patches along a side of the search region."""
        return self.search_size // self.patch_size

    @property
    def num_template(self) -> int:
        """Number of template tokens, n."""
        return self.template_grid**2

    @property
    def num_search(self) -> int:
        """Number of search tokens, m."""
        return self.search_grid**2

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dictionary in JSON's types."""
        return dataclasses.asdict(self) | {"patterns": list(self.patterns)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Makes a configuration from the result of `to_dict`; TypeError or ValueError if it is none."""
        if not isinstance(values, dict):
            raise TypeError(f"a configuration must be a dictionary of its fields, got {values!r:.80}")
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise ValueError(f"unknown configuration fields {unknown}; expected some of {sorted(names)}")
        return cls(**values)


_MIXED = {"a1": "self", "a2": "mixed", "a3": "full"}  # the paper's names (Eq. 6)
_CROSS = {"a4": "one_way_cross", "a5": "cross"}

CONFIGS: dict[str, ModelConfig] = {
    "fermt": ModelConfig(),
    "fermt-corner": ModelConfig(head="corner"),
    **{  # Table 3: 6 layers of A1, A2 or A3, then 6 of A4 or A5
        first + second: ModelConfig(patterns=(_MIXED[first],) * 6 + (_CROSS[second],) * 6)
        for first in _MIXED
        for second in _CROSS
    },
    **{  # Table 4: one pattern throughout
        name: ModelConfig(patterns=(pattern,) * 12) for name, pattern in (_MIXED | _CROSS).items()
    },
    "a2a5-3-9": ModelConfig(patterns=("mixed",) * 3 + ("cross",) * 9),  # Table 5
    "a2a5-9-3": ModelConfig(patterns=("mixed",) * 9 + ("cross",) * 3),
}


def named_config(name: str, **overrides: Any) -> ModelConfig:
    """Returns a configuration by name with some fields replaced (`dau=False` gives the other half of Table 6)."""
    if name not in CONFIGS:
        raise ValueError(f"unknown configuration {name!r}; expected one of {', '.join(CONFIGS)}")
    return dataclasses.replace(CONFIGS[name], **overrides)
