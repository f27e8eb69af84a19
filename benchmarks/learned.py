"""Accuracy on synthetic videos outside the training data: of trained weights, untrained ones, and a fixed box."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

import fermt
from fermt.data import synthetic_config, synthetic_video

from .accuracy_data import Scores, score
from .harness import Out, append, counted, facts, headline, run_command, table

FIRST_SEED = 1_000_000  # far from those of training runs
QUICK_VIDEOS, FRAME_SECONDS = 3, 0.1  # a frame by both trackers
UNMOVED = "the first box, unmoved"


def follow(tracker: fermt.Tracker, frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The boxes of a video, (N, 4) xywh, the first as given."""
    tracker.init(frames[0], first.tolist())
    return np.array([first, *(tracker.update(image).box for image in frames[1:])], np.float64)


def main(
    weights: Annotated[Path, typer.Argument(help="Weights that `fermt train` wrote.")],
    videos: Annotated[int, typer.Option(min=1, help="Number of synthetic videos.")] = 20,
    frames: Annotated[int, typer.Option(min=2, help="Frames of each video.")] = 60,
    synthetic: Annotated[str, typer.Option(help="Difficulty of the videos: easy, standard or hard.")] = "easy",
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_VIDEOS} videos: under a minute.")] = False,
    out: Out = None,
) -> None:
    """Compare trained with untrained weights, and with a box that never moves, on new synthetic videos.

    Average overlap, success rate and AUC are those of benchmarks.accuracy, over frames in which the target is in view;
    the mean over videos is shown.

    Example: python -m benchmarks.learned demo/weights.safetensors --quick
    """
    console, about = Console(), facts()
    console.print(headline(about), highlight=False, soft_wrap=True)
    videos = min(videos, QUICK_VIDEOS) if quick else videos
    trained = fermt.load(weights)
    torch.manual_seed(0)
    trackers = {"trained": fermt.Tracker(trained), "untrained": fermt.Tracker(fermt.build_model(trained.config))}
    found: dict[str, list[Scores]] = {name: [] for name in (*trackers, UNMOVED)}
    seeds = range(FIRST_SEED, FIRST_SEED + videos)
    for seed in counted(seeds, "tracking", "videos", videos, videos * frames * FRAME_SECONDS):
        video, truth = synthetic_video(seed, frames, config=synthetic_config(synthetic))
        for name, tracker in trackers.items():
            found[name].append(score(follow(tracker, video, truth[0]), truth))
        found[UNMOVED].append(score(np.broadcast_to(truth[0], truth.shape), truth))
    means = {name: Scores.mean(scores) for name, scores in found.items()}
    rows = [(name, *(f"{value:.3f}" for value in scores[:3])) for name, scores in means.items()]
    console.print(table(f"{videos} videos of {frames} frames, {synthetic}", ("", "AO", "SR0.5", "AUC"), rows))
    shared = {"benchmark": "learned", "weights": weights.name, "videos": videos, "setting": synthetic}
    append(out, (shared | {"runner": name} | scores._asdict() for name, scores in means.items()), about)


if __name__ == "__main__":
    run_command(main)
