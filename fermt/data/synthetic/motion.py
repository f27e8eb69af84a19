"""Smooth motion in closed form: sums of waves, so that any time costs the same and no order matters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Generator = np.random.Generator
PERIODS = (240.0, 80.0, 25.0)  # frames: a wave of about each
SHARES = (0.85, 0.14, 0.01)  # of the variance
SPEED = float(np.sqrt(np.sum(np.array(SHARES) * (2 * np.pi / np.array(PERIODS)) ** 2)))  # a frame, of a deviation of 1
PEAK = float(np.sqrt(2 * np.array(SHARES)).sum())  # the most that is reached, of a deviation of 1


class Waves(NamedTuple):
    """Any number of values that change with time, each around 0 with the deviation that it was made for."""

    amplitude: np.ndarray  # (n, waves)
    frequency: np.ndarray  # (n, waves), radians a frame
    phase: np.ndarray  # (n, waves)

    def at(self, times: np.ndarray) -> np.ndarray:
        """(T,) frames, fractions too -> (T, n)."""
        return (self.amplitude * np.sin(self.frequency * times[:, None, None] + self.phase)).sum(axis=2)


def waves(rng: Generator, deviations: np.ndarray) -> Waves:
    """(n,) standard deviations over a long time -> as many waves."""
    shape = (len(deviations), len(PERIODS))
    frequency = 2 * np.pi / (np.array(PERIODS) * np.exp(rng.uniform(-0.4, 0.4, shape)))
    amplitude = np.asarray(deviations)[:, None] * np.sqrt(2 * np.array(SHARES))
    return Waves(amplitude, frequency, rng.uniform(0, 2 * np.pi, shape))
