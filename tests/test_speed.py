"""The speed protocol: what each figure counts, on a tracker whose times are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import fermt
from fermt.flops import frame_macs
from fermt.machine import cache_text, caches
from fermt.tracking import speed
from fermt.tracking.sources import Source
from fermt.tracking.speed import (
    CLIP_FRAMES,
    PROTOCOL,
    WARM_UP,
    Clip,
    Speed,
    Variant,
    fastest,
    fraction_of_peak,
    measure,
    open_clip,
)

from .support.errors import refused

SLOW_START, QUICK, LONG, READ = 0.1, 0.002, 0.008, 0.02
FRAME = np.zeros((90, 120, 3), np.uint8)
BOX = (30.0, 20.0, 25.0, 22.0)


class Clock:
    """A time that passes only when told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SlowSource(Source):
    """Frames that take a while to come."""

    name = "slow"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __iter__(self) -> Iterator[np.ndarray]:
        for _ in range(CLIP_FRAMES):
            self.clock.sleep(READ)
            yield FRAME


class TimedTracker:
    """Updates take 2 and 8 ms in turns, the first five 100; the network alone takes 1, and the template 3."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.updates = clock, 0
        self.boxes: list[Any] = []
        self.network = SimpleNamespace(
            device=torch.device("cpu"),
            search_factor=4.0,
            search_size=64,
            template_factor=2.0,
            template_size=32,
            encode=lambda template: clock.sleep(0.003),
            locate=lambda encoded, searches: clock.sleep(0.001),
        )

    def init(self, image: np.ndarray, box: Any) -> None:
        self.boxes.append(box)

    reinit = init

    def update(self, image: np.ndarray) -> None:
        self.updates += 1
        self.clock.sleep(SLOW_START if self.updates <= WARM_UP else (LONG, QUICK)[self.updates % 2])


def test_figures_are_what_the_protocol_says(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    tracker: Any = TimedTracker(clock)
    clip = Clip("slow", SlowSource(clock), [FRAME] * CLIP_FRAMES, BOX, READ)
    found = measure(Variant("by clock", "none", torch.float32, lambda: tracker), clip, 20.0)
    assert found.encode == pytest.approx(0.003)
    assert found.network == pytest.approx(0.001)
    assert QUICK <= found.update <= LONG, "the warm-up is in no figure"
    assert found.got10k_fps == pytest.approx(fmean((1 / QUICK, 1 / LONG)), rel=0.01), "the mean of 1/t"
    assert found.with_decode == pytest.approx(READ + fmean((QUICK, LONG)), rel=0.02)
    assert set(tracker.boxes) == {BOX}, "crops are cut at one box"


def test_every_figure_is_defined() -> None:
    assert {*PROTOCOL} == {*Speed._fields} - {"name", "backend", "dtype"}


def test_a_clip_is_the_first_frames_of_a_video(tmp_path: Path) -> None:
    for i in range(CLIP_FRAMES + 3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((180, 320, 3), i, np.uint8))
    with open_clip(tmp_path) as clip:
        assert [int(frame[0, 0, 0]) for frame in clip.frames] == list(range(CLIP_FRAMES))
        assert clip.box == tuple(value / 2 for value in speed.PATTERN_BOX), (
            "a frame half as large has a target half as large"
        )
        assert clip.name == str(tmp_path)
    with open_clip() as clip:
        assert len(clip.frames) == CLIP_FRAMES
        assert clip.frames[0].shape == (*speed.PATTERN_SIZE, 3)
        assert clip.decode > 0


def test_one_frame_is_no_clip(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), FRAME)
    with refused(ValueError, tmp_path, 1), open_clip(tmp_path):
        pass


@pytest.mark.parametrize(
    ("seconds", "best", "mentions"),
    [
        ({"float32": 0.046, "bfloat16": 0.043, "int8": 0.035}, "bfloat16", ["43.0", "46.0", "0.81"]),
        ({"float32": 0.046, "bfloat16": 0.053, "int8": 0.06}, "float32", ["46.0", "53.0"]),
        ({"float32": 0.05}, "float32", ["50.0"]),
    ],
)
def test_the_dtype_to_use_costs_no_accuracy(seconds: dict[str, float], best: str, mentions: list[str]) -> None:
    text = fastest(seconds)
    assert f": {best}," in text
    assert all(number in text for number in mentions)
    assert ("int8" in text) == (seconds.get("int8", 1) < min(v for dtype, v in seconds.items() if dtype != "int8"))


def test_a_frame_at_the_peak() -> None:
    config = fermt.CONFIGS["fermt"]
    assert fraction_of_peak(config, seconds=1.0, peak=2.0 * frame_macs(config, winograd=True)) == 1.0


def test_caches_are_those_of_data(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2048K"), (3, "Unified", "")]
    ):
        entry = tmp_path / f"index{index}"
        entry.mkdir()
        for name, value in {"level": level, "type": kind, "size": size}.items():
            (entry / name).write_text(f"{value}\n")
    (tmp_path / "index4").mkdir()
    assert caches(tmp_path) == {"L1": 48 << 10, "L2": 2 << 20}
    assert cache_text(caches(tmp_path)) == "L1 48 KB, L2 2 MB"
    assert cache_text(caches(tmp_path / "none")) == ""
