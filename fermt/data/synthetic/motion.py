"""Smooth random motion as sums of waves, which can be evaluated at any time at the same cost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Generator = np.random.Generator
PERIODS = (240.0, 80.0, 25.0)  # approximate periods of the waves in frames
SHARES = (0.85, 0.14, 0.01)  # of the waves in the variance
# For a standard deviation of 1: the root-mean-square change per frame, and the largest value.
SPEED = float(np.sqrt(np.sum(np.array(SHARES) * (2 * np.pi / np.array(PERIODS)) ** 2)))
PEAK = float(np.sqrt(2 * np.array(SHARES)).sum())


class Waves(NamedTuple):
    """Values that change with time around 0."""

    amplitude: np.ndarray  # (n, waves)
    frequency: np.ndarray  # (n, waves), radians a frame
    phase: np.ndarray  # (n, waves)

    def at(self, times: np.ndarray) -> np.ndarray:
        """Evaluates the values, (T, n), at times, (T,), in frames."""
        return (self.amplitude * np.sin(self.frequency * times[:, None, None] + self.phase)).sum(axis=2)


def waves(rng: Generator, stds: np.ndarray) -> Waves:
    """Draws n values with the standard deviations `stds`, (n,), over a long time."""
    shape = (len(stds), len(PERIODS))
    frequency = 2 * np.pi / (np.array(PERIODS) * np.exp(rng.uniform(-0.4, 0.4, shape)))
    amplitude = np.asarray(stds)[:, None] * np.sqrt(2 * np.array(SHARES))
    return Waves(amplitude, frequency, rng.uniform(0, 2 * np.pi, shape))
