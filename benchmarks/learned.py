"""Does training help? Average overlap on made-up videos that nobody trained on: trained, untrained, and no motion.

python -m benchmarks.learned demo/weights.safetensors
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

import fermt
from fermt.boxes import xywh_to_xyxy
from fermt.data import synthetic_config, synthetic_video
from fermt.losses import iou_and_giou

from .progress import counted

FIRST_SEED = 1_000_000  # far from those of training runs
QUICK_VIDEOS, FRAME_SECONDS = 3, 0.03  # a frame by both trackers


def overlaps(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of each frame after the first in which the target is within the frame's edges."""
    there = truth[1:, 2:].min(axis=1) > 0
    pairs = (xywh_to_xyxy(torch.from_numpy(np.asarray(each[1:][there], np.float64))) for each in (boxes, truth))
    return iou_and_giou(*pairs)[0].numpy()


def follow(tracker: fermt.Tracker, frames: np.ndarray, first: np.ndarray) -> Iterator[np.ndarray]:
    """The boxes of a video, xywh, the first as given."""
    tracker.init(frames[0], first.tolist())
    yield first
    for image in frames[1:]:
        yield np.array(tracker.update(image).box)


def main(
    weights: Annotated[Path, typer.Argument(help="Written by `fermt train`.")],
    videos: Annotated[int, typer.Option(min=1, help="Made-up videos.")] = 20,
    frames: Annotated[int, typer.Option(min=2, help="Of each.")] = 60,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_VIDEOS} videos.")] = False,
    synthetic: Annotated[str, typer.Option(help="Their setting: easy, standard, hard.")] = "easy",
) -> None:
    """Average overlap over made-up videos that were not trained on, each as long as the others."""
    console, videos = Console(), min(videos, QUICK_VIDEOS) if quick else videos
    trained = fermt.load(weights)
    torch.manual_seed(0)
    trackers = {"trained": fermt.Tracker(trained), "untrained": fermt.Tracker(fermt.build_model(trained.config))}
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*trackers, "the first box, unmoved")}
    seeds = range(FIRST_SEED, FIRST_SEED + videos)
    for seed in counted(seeds, "videos tracked", videos, videos * frames * FRAME_SECONDS):
        video, truth = synthetic_video(seed, frames, config=synthetic_config(synthetic))
        for name, tracker in trackers.items():
            found[name].append(overlaps(np.stack(list(follow(tracker, video, truth[0]))), truth))
        found["the first box, unmoved"].append(overlaps(np.broadcast_to(truth[0], truth.shape), truth))
    table = Table(title=f"{videos} videos of {frames} frames, {synthetic}", box=box.SIMPLE)
    for heading in ("", "average overlap", "frames above 0.5"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, values in found.items():
        every = np.concatenate(values)
        table.add_row(name, f"{every.mean():.3f}", f"{(every > 0.5).mean():.0%}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
