"""Where a run's pairs come from: the data sets that its configuration names, opened and checked."""

from __future__ import annotations

from typing import NamedTuple

from ..data.pairs import PairSource
from ..data.pool import PoolPairs
from ..data.readers import open_set
from ..data.sampling import PairSampler
from ..data.sequences import SequenceSet
from ..data.synthetic import (
    SyntheticBatches,
    SyntheticConfig,
    SyntheticPairs,
    SyntheticSequences,
    synthetic_config,
)
from ..roots import VARIABLE
from .batches import DevicePairs
from .config import POOL, SYNTHETIC, TrainConfig
from .world import World

HELD_OUT = 1  # added to the seed, for pairs that are held out


class Sources(NamedTuple):
    """Pairs to train on, pairs to validate on, and the sequences of each data set on disk to train on."""

    train: PairSource | DevicePairs
    held_out: PairSource | None
    sequences: dict[str, int]


def open_sources(config: TrainConfig, world: World) -> Sources:
    """Opens every data set of `config`: the split "train" to train on, "val" to validate on.

    Synthetic data alone is drawn without the rest of its frames, by workers or where the process of `world` trains.

    Raises:
        FileNotFoundError: a root, or what belongs in it, is not there.
        ValueError: an unknown data set, one without a root, or a setting of synthetic data that does not exist.
    """
    if config.synthetic_on_device:
        return Sources(_on_device(config, world), _held_out(config), {})
    train, sequences = _source(config, config.data, "train", config.pairs, config.seed)
    return Sources(train, _held_out(config), sequences)


def _on_device(config: TrainConfig, world: World) -> DevicePairs:
    batches = SyntheticBatches(
        config.model_config(), config.parts(world.size), config.seed, config.pairs, _synthetic(config), world.device
    )
    return DevicePairs(batches, config.pairs)


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
        raise ValueError(
            f"{', '.join(missing)} needs a root, where the data set lies: --root {missing[0]}=PATH, or "
            f"{VARIABLE}={missing[0]}=PATH"
        )
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
