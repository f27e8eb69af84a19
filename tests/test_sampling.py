"""Which pairs are drawn: reproducibly, causally, in the sets' proportions, and around what is broken."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fermt.config import ModelConfig
from fermt.data.augment import NO_AUGMENTATION
from fermt.data.pairs import Pairs, generator_for
from fermt.data.sampling import MAX_SEQUENCES, MAX_UNREADABLE, PairSampler, draw_frames, draw_still
from fermt.data.sequences import Annotation
from fermt.data.tally import SLOTS, Tally
from fermt.datasets import open_set
from fermt.images import ImageError

from .support import datasets
from .support.errors import lacking, refused

SMALL = ModelConfig(template_size=32, search_size=64)


class Made:
    """Sequences in memory: the frame's number is its gray value."""

    def __init__(
        self,
        name: str = "made",
        sequences: int = 4,
        frames: int = 30,
        box: tuple[float, ...] = (20.0, 15.0, 12.0, 10.0),
        is_video: bool = True,
        broken: Iterable[int] = (),
    ) -> None:
        self.name, self.is_video = name, is_video
        self.valid = np.ones((sequences, frames), bool)
        self._box, self._broken = box, set(broken)

    def __len__(self) -> int:
        return len(self.valid)

    def annotation(self, i: int) -> Annotation:
        return Annotation(np.tile(self._box, (self.valid.shape[1], 1)), self.valid[i])

    def image(self, i: int, t: int) -> np.ndarray:
        if i in self._broken:
            raise ImageError(f"{self.name}/{i}/{t}.jpg", "it is broken")
        return np.full((48, 64, 3), t, np.uint8)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def epoch(loader: Iterable[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: batch[name][i] for name in batch} for batch in loader for i in range(len(batch["box"]))]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> PairSampler:
    """A set of videos and a set of still images, on disk."""
    root = tmp_path_factory.mktemp("sets")
    opened = [open_set(name, datasets.MAKERS[name](root / name), cache=False) for name in ("lasot", "coco")]
    return PairSampler(opened, config=SMALL, seed=5, pairs=12)


def test_a_pair_is_what_the_trainer_expects(mixed: PairSampler) -> None:
    pair = mixed.pair(0, 0)
    assert {name: (tuple(value.shape), value.dtype) for name, value in pair.items()} == {
        "template": ((32, 32, 3), torch.uint8),
        "search": ((64, 64, 3), torch.uint8),
        "box": ((4,), torch.float32),
    }
    assert all(value.is_contiguous() for value in pair.values())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_pairs_do_not_depend_on_workers(mixed: PairSampler, workers: int) -> None:
    for number in (0, 1):
        loader = DataLoader(Pairs(mixed, number), batch_size=5, num_workers=workers)
        for index, found in enumerate(epoch(loader)):
            assert same(found, mixed.pair(number, index))
        assert index == len(mixed) - 1


def test_pairs_differ_by_epoch_index_and_seed(mixed: PairSampler) -> None:
    first = mixed.pair(0, 3)
    other = PairSampler(mixed.sets, config=SMALL, seed=6, pairs=12)
    for another in (mixed.pair(1, 3), mixed.pair(0, 4), other.pair(0, 3)):
        assert not same(first, another)
    assert same(first, PairSampler(mixed.sets, config=SMALL, seed=5, pairs=3).pair(0, 3))
    assert same(first, copy.deepcopy(mixed).pair(0, 3))


def test_the_generator_is_the_agreed_one() -> None:
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence((3, 2, 1)))).random(4)
    assert np.array_equal(generator_for(3, 2, 1).random(4), expected)


def test_an_epoch_can_be_taken_up_anywhere(mixed: PairSampler) -> None:
    loader = DataLoader(Pairs(mixed, 4), sampler=range(7, 12, 2), num_workers=1)
    for found, index in zip(epoch(loader), (7, 9, 11), strict=True):
        assert same(found, mixed.pair(4, index))


def test_pairs_out_of_range(mixed: PairSampler) -> None:
    pairs = Pairs(mixed, 0)
    for index in (-1, 12):
        with refused(IndexError, "index", "[0, 12)", index):
            pairs[index]
    with refused(ValueError, "epoch", 0, -1):
        Pairs(mixed, -1)


# Frames.


@pytest.mark.parametrize("max_gap", [1, 7, 200])
def test_frames_are_usable_causal_and_near(max_gap: int) -> None:
    rng = np.random.default_rng(0)
    usable = rng.random(500) < 0.3
    usable[100:320] = False  # no pair reaches over
    gaps = []
    for _ in range(3000):
        frames = draw_frames(usable, max_gap, rng)
        assert frames is not None
        template, search = frames
        assert usable[template]
        assert usable[search]
        assert (template < 100) == (search < 100)
        gaps.append(search - template)
    assert min(gaps) == 1
    assert max(gaps) <= max_gap
    assert max(gaps) > 0.8 * min(max_gap, 180)


def test_partners_are_equally_likely() -> None:
    rng, usable, n = np.random.default_rng(0), np.array([1, 0, 1, 1, 0, 0, 1], bool), 12_000
    counts: dict[tuple[int, int], int] = {}
    for _ in range(n):
        frames = draw_frames(usable, 3, rng)
        assert frames is not None
        counts[frames] = counts.get(frames, 0) + 1
    expected = {(0, 2): 1 / 6, (0, 3): 1 / 6, (2, 3): 1 / 3, (3, 6): 1 / 3}
    assert counts.keys() == expected.keys()
    for frames, chance in expected.items():
        assert abs(counts[frames] - n * chance) < 5 * math.sqrt(n * chance * (1 - chance))


@pytest.mark.parametrize("usable", [[], [0, 0], [1], [1, 0, 0, 0, 1]])
def test_sequences_without_two_frames_to_pair(usable: list[int]) -> None:
    assert draw_frames(np.array(usable, bool), 3, np.random.default_rng(0)) is None


def test_a_still_image_is_its_own_pair() -> None:
    rng = np.random.default_rng(0)
    assert draw_still(np.array([0, 1], bool), 1, rng) == (1, 1)
    assert draw_still(np.zeros(3, bool), 1, rng) is None
    sampler = PairSampler([Made(frames=1, is_video=False)], config=SMALL, augmentation=NO_AUGMENTATION)
    assert sampler.pair_and_draw(0, 0)[1][2:] == (0, 0)


def test_a_pair_shows_the_frames_that_it_names() -> None:
    sampler = PairSampler([Made(frames=250)], config=SMALL, augmentation=NO_AUGMENTATION, seed=1)
    for index in range(20):
        pair, draw = sampler.pair_and_draw(0, index)
        assert 0 < draw.search - draw.template <= 200
        assert pair["template"].unique().tolist() == [draw.template]
        assert pair["search"].max() == draw.search
        assert (pair["box"][:2] + pair["box"][2:] / 2).tolist() == pytest.approx([0.5] * 2)


# Sets and weights.


def shares(weights: list[float] | None, n: int = 3000) -> np.ndarray:
    sets = [Made("long", 40, 12), Made("short", 2, 3), Made("still", 7, 1, is_video=False)]
    sampler = PairSampler(sets, weights, SMALL, pairs=n, augmentation=NO_AUGMENTATION)
    places = [sampler.pair_and_draw(0, index)[1].set for index in range(n)]
    return np.bincount(places, minlength=3) / n


@pytest.mark.parametrize("weights", [None, [5.0, 5.0, 5.0], [1.0, 2.0, 7.0]])
def test_sets_are_drawn_by_their_weights(weights: list[float] | None) -> None:
    expected = np.array(weights or [1.0, 1.0, 1.0])
    expected /= expected.sum()
    assert (np.abs(shares(weights) - expected) < 5 * np.sqrt(expected * (1 - expected) / 3000)).all()


def test_sequences_are_drawn_equally() -> None:
    sampler = PairSampler([Made(sequences=5)], config=SMALL, augmentation=NO_AUGMENTATION)
    counts = np.bincount([sampler.pair_and_draw(0, index)[1].sequence for index in range(2000)])
    assert (np.abs(counts - 400) < 5 * math.sqrt(400 * 0.8)).all()


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"sets": []}, ("sets", [])),
        ({"sets": [Made(sequences=0)]}, ("sets", ["made"])),
        ({"weights": [1.0, 2.0]}, ("weight", 1, [1.0, 2.0])),
        ({"weights": [0.0]}, ("weight", [0.0])),
        ({"weights": [math.inf]}, ("weight", [math.inf])),
        ({"seed": -1}, ("seed", 0, -1)),
        ({"pairs": 0}, ("pairs", 1, 0)),
        ({"max_gap": 0}, ("max_gap", 1, 0)),
    ],
)
def test_what_is_refused(arguments: dict[str, object], values: tuple[object, ...]) -> None:
    with refused(ValueError, *values):
        PairSampler(**{"sets": [Made()]} | arguments)  # type: ignore[arg-type]


# What is broken.


def test_broken_images_are_replaced_from_the_same_set(caplog: pytest.LogCaptureFixture) -> None:
    sets = [Made("whole"), Made("half", 8, 2, broken=range(4))]
    sampler = PairSampler(sets, config=SMALL, augmentation=NO_AUGMENTATION, pairs=1000)
    draws = [sampler.pair_and_draw(0, index)[1] for index in range(1000)]
    assert {draw.sequence for draw in draws if draw.set == 1} == {4, 5, 6, 7}
    assert abs(sum(draw.set for draw in draws) - 500) < 5 * math.sqrt(250)
    assert sampler.totals()["unreadable images"] > 300
    for i, message in zip(range(4), sorted(caplog.messages), strict=True):
        assert lacking(message, f"'half/{i}/0.jpg'", "it is broken") == []
    assert same(sampler.pair(0, 7), sampler.pair(0, 7))


def test_damaged_files_are_reported_once_by_all_workers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = datasets.got10k(tmp_path, sequences=4, frames=12)
    datasets.cut(root / "train" / "GOT-10k_Train_000001" / "00000004.jpg")
    (root / "train" / "GOT-10k_Train_000003" / "00000006.jpg").unlink()
    sampler = PairSampler([open_set("got10k", root, cache=False)], config=SMALL, pairs=120)
    handler = logging.StreamHandler()  # pytest's own does not reach what workers print
    logging.getLogger("fermt").addHandler(handler)
    try:
        pairs = Pairs(sampler, 0)
        alone = [pairs[index] for index in range(120)]
        found = epoch(DataLoader(pairs, batch_size=10, num_workers=2))
    finally:
        logging.getLogger("fermt").removeHandler(handler)
    assert all(same(a, b) for a, b in zip(alone, found, strict=True))
    printed = capfd.readouterr().err
    assert printed.count("00000004.jpg'") == 1
    assert printed.count("00000006.jpg'") == 1
    count = sampler.totals()["unreadable images"]
    assert count > 0
    assert count % 2 == 0  # the workers met the same ones again


def test_the_counts_of_workers_are_the_sources() -> None:
    sampler = PairSampler([Made(broken=[2])], config=SMALL, augmentation=NO_AUGMENTATION, pairs=60)
    epoch(DataLoader(Pairs(sampler, 0), batch_size=5, num_workers=2))
    by_workers = sampler.totals()["unreadable images"]
    assert by_workers > 0
    for index in range(60):
        sampler.pair(0, index)
    assert sampler.totals()["unreadable images"] == 2 * by_workers


def test_a_set_that_is_gone_ends_with_an_error() -> None:
    sampler = PairSampler([Made("gone", broken=range(4))], config=SMALL, pairs=2)
    with refused(RuntimeError, MAX_UNREADABLE, "gone", "it is broken"):
        sampler.pair(0, 0)


def test_broken_images_between_others_are_not_in_a_row() -> None:
    sampler = PairSampler([Made(box=(70.0, 15.0, 12.0, 10.0), broken=[1])], config=SMALL)
    with refused(RuntimeError, MAX_SEQUENCES):
        sampler.pair(0, 0)
    assert sampler.totals()["unreadable images"] > MAX_UNREADABLE


def test_sequences_without_a_pair_are_replaced() -> None:
    made = Made(sequences=4)
    made.valid[:3] = False
    made.valid[0, 5] = True
    sampler = PairSampler([made], config=SMALL, augmentation=NO_AUGMENTATION)
    assert {sampler.pair_and_draw(0, index)[1].sequence for index in range(50)} == {3}
    assert sampler.totals()["sequences without a pair"] > 50
    made.valid[3] = False
    with refused(RuntimeError, "made", MAX_SEQUENCES):
        sampler.pair(0, 0)


@pytest.mark.parametrize("box", [(20.0, 15.0, 1.9, 40.0), (20.0, 15.0, math.nan, 10.0)])
def test_boxes_too_small_are_not_drawn(box: tuple[float, ...]) -> None:
    with refused(RuntimeError, f"'sequences without a pair': {MAX_SEQUENCES}"):
        PairSampler([Made(box=box)], config=SMALL).pair(0, 0)


def test_targets_out_of_sight_are_cut_anew_and_given_up() -> None:
    with refused(RuntimeError, f"'crops cut anew': {5 * MAX_SEQUENCES}", f"'crops given up': {MAX_SEQUENCES}"):
        PairSampler([Made(box=(70.0, 15.0, 12.0, 10.0))], config=SMALL).pair(0, 0)


def test_a_full_table_of_files_reports_again() -> None:
    tally = Tally(("a",))
    assert tally.is_new("x")
    assert not tally.is_new("x")
    assert copy.deepcopy(tally).is_new("y")
    tally._files[:] = 1
    assert tally.is_new("z")
    assert tally.is_new("z")
    assert len(tally._files) == SLOTS
