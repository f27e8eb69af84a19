"""Dark images are brightened before they are tracked, and no other."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fermt
from fermt.datasets import open_benchmark
from fermt.evaluation.runner import SequenceRunner
from fermt.tracking.brightness import BRIGHT_SHARE, DARK_BELOW, LARGEST_FACTOR, brighten
from fermt.tracking.network import network_for

from .support.packed import small_model

BOX = (30.0, 20.0, 25.0, 20.0)


def image(largest: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(largest).integers(0, largest + 1, (90, 120, *channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [(3,), (4,), (1,), ()], ids=str)
def test_the_bright_end_of_a_dark_image_becomes_128(channels: tuple[int, ...]) -> None:
    dark = image(40, *channels)
    kept = dark.copy()
    bright = brighten(dark)
    assert bright.shape == dark.shape
    assert bright.dtype == np.uint8
    assert np.array_equal(dark, kept)
    assert np.quantile(bright, BRIGHT_SHARE) == pytest.approx(DARK_BELOW, abs=5)
    factors = bright[dark > 20].astype(float) / dark[dark > 20]
    assert factors.max() - factors.min() < 0.06  # one factor, rounded


@pytest.mark.parametrize("largest", [135, 255])
def test_other_images_are_kept(largest: int) -> None:
    bright = image(largest, 3)
    assert brighten(bright) is bright


def test_a_lamp_does_not_make_an_image_bright() -> None:
    dark = image(40, 3)
    dark[:5, :5] = 255
    lit = brighten(dark)
    assert lit[50:].max() > 100
    assert lit[:5, :5].min() == 255


def test_the_factor_is_bounded() -> None:
    faint = image(3, 3)
    assert brighten(faint).max() == 3 * LARGEST_FACTOR
    black = np.zeros((20, 20, 3), np.uint8)
    assert not brighten(black).any()


def test_alpha_is_no_brightness() -> None:
    dark = image(40, 4)
    dark[..., 3] = 255
    assert np.array_equal(brighten(dark)[..., :3], brighten(np.ascontiguousarray(dark[..., :3])))


def test_any_strides_and_tensors_give_the_same() -> None:
    dark = image(40, 3)
    expected = brighten(dark)
    for view in (dark[:, :, ::-1], dark[::-1], dark.transpose(1, 0, 2)):
        assert np.array_equal(brighten(view), brighten(view.copy()))
    assert torch.equal(brighten(torch.from_numpy(dark)), torch.from_numpy(expected))


def test_a_tracker_brightens_by_default() -> None:
    model, frames = small_model("center"), [image(40, 3), image(50, 3)]

    def track(frames: list[np.ndarray], **options: bool) -> list[fermt.tracking.Track]:
        tracker = fermt.Tracker(model, **options)
        tracker.init(frames[0], BOX)
        return [tracker.update(frame) for frame in frames]

    by_default, off = track(frames), track(frames, brighten=False)
    assert by_default == track([brighten(frame) for frame in frames], brighten=False) != off


def test_an_image_of_many_targets_is_brightened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("fermt.tracking.target.brighten", lambda frame: calls.append(frame) or brighten(frame))
    tracker = fermt.MultiTracker(small_model("center"))
    for left in range(3):
        tracker.add(image(40, 3), (10.0 + 20 * left, 20.0, 25.0, 20.0))
    calls.clear()
    tracker.update(image(40, 3))
    assert len(calls) == 1


def test_evaluation_keeps_to_the_protocol(
    clips_root: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fermt.tracking.target.brighten", lambda frame: pytest.fail("an image was brightened"))
    network, work = network_for(fermt.load(small_weights), None), iter(range(2))
    events: list[object] = []
    SequenceRunner(network, open_benchmark("got10k", clips_root), tmp_path, 1).run(
        lambda: next(work, None), events.append
    )
    assert events
    assert len(list(tmp_path.rglob("*.txt"))) >= 2
