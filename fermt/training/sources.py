"""Sources of training and validation pairs: opens the data sets that a configuration names."""

from __future__ import annotations

from typing import NamedTuple

from ..data.pairs import PairSource
from ..data.pool import PoolPairs
from ..data.sampling import PairSampler
from ..data.sequences import SequenceSet
from ..data.synthetic import SyntheticConfig, SyntheticPairs, SyntheticSequences, synthetic_config
from ..datasets import open_set
from ..roots import no_folder
from .config import POOL, SYNTHETIC, TrainConfig

HELD_OUT = 1  # added to the seed for validation pairs


class Sources(NamedTuple):
    """Sources of pairs, and the number of training sequences in each data set with files."""

    train: PairSource
    held_out: PairSource | None
    sequences: dict[str, int]


def open_sources(config: TrainConfig) -> Sources:
    """Opens every data set of `config`: split "train" for training, "val" for validation.

    If there is synthetic data only, frames are rendered only where crops show them.

    Raises:
        FileNotFoundError: a root or a part of it is missing.
        ValueError: an unknown data set, one without a root, or an unknown setting of synthetic data.
    """
    train, sequences = _source(config, config.data, "train", config.pairs, config.seed)
    return Sources(train, _held_out(config), sequences)


def _held_out(config: TrainConfig) -> PairSource | None:
    if not config.validate_every:
        return None
    return _source(config, config.validation, "val", config.validation_pairs, config.seed + HELD_OUT)[0]


def _source(
    config: TrainConfig, shares: dict[str, float], split: str, pairs: int, seed: int
) -> tuple[PairSource, dict[str, int]]:
    model = config.model_config()
    if set(shares) == {SYNTHETIC}:
        return SyntheticPairs(model, seed, pairs, _synthetic(config)), {}
    if missing := sorted(set(shares) - set(config.roots) - {SYNTHETIC}):
        raise no_folder(missing)
    if set(shares) == {POOL}:
        root = config.roots[POOL]
        return PoolPairs(root, model, seed, pairs, split=split, shares=config.pool, scenes=_synthetic(config)), {}
    sets = [_open(config, name, split, seed) for name in shares]
    sequences = {name: len(one) for name, one in zip(shares, sets, strict=True) if name != SYNTHETIC}
    return PairSampler(sets, list(shares.values()), model, seed, pairs), sequences


def _open(config: TrainConfig, name: str, split: str, seed: int) -> SequenceSet:
    if name == SYNTHETIC:
        return SyntheticSequences(seed=seed, config=_synthetic(config))
    only, exclude = (files.get(name) if split == "train" else None for files in (config.only, config.exclude))
    return open_set(name, config.roots[name], split=split, only=only, exclude=exclude)


def _synthetic(config: TrainConfig) -> SyntheticConfig:
    try:
        return synthetic_config(config.synthetic, **config.synthetic_options)
    except TypeError as error:
        raise ValueError(f"synthetic_options {config.synthetic_options} do not fit: {error}") from error
