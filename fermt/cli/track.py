"""`fermt track`: tracks targets through a video and writes their boxes, a video or pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from ..images import SUFFIXES
from ..machine import pick_device
from ..overwrites import Files
from ..progress import ProgressDisplay
from ..signals import deferred
from ..tracking import MultiTracker, Track
from ..tracking.pictures import Pictures
from ..tracking.results import FORMATS, ResultFile, Row
from ..tracking.sources import Source, open_source
from ..tracking.starts import Start, read_starts, starts_of
from ..tracking.video import select_box
from .common import (
    DTYPES,
    Backend,
    Config,
    Device,
    Dtype,
    Threads,
    check_choice,
    check_inputs_kept,
    check_output,
    console,
    failed,
    interrupted,
    label_of,
    load_model,
    say,
)

ERRORS = (OSError, ValueError, TypeError, RuntimeError, cv2.error)


def track(
    source: Annotated[
        str,
        typer.Argument(
            help='A video, a URL, a folder of images, a pattern ("frames/*.jpg"), or the index of a camera.'
        ),
    ],
    box: Annotated[
        list[str] | None,
        typer.Option(help="Target in the first frame: x,y,w,h in pixels (left, top, width, height). Repeatable."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="File with one target per line: x,y,w,h in the first frame, or frame,id,x,y,w,h."),
    ] = None,
    select: Annotated[bool, typer.Option("--select", help="Draw a target in the first frame, in a window.")] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights written by fermt.save or `fermt convert`, or a packed model (.fermt); default: free-images, "
            "which come with the package."
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="File for boxes, a line per target and frame: .csv, .jsonl, or .txt (x,y,w,h of one target)."
        ),
    ] = Path("boxes.csv"),
    video: Annotated[Path | None, typer.Option(help="Also write an annotated .mp4 here.")] = None,
    every: Annotated[
        int, typer.Option(min=0, help="Also write a contact sheet of every N-th frame, a .png beside --out; 0: none.")
    ] = 0,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window; q quits.")] = False,
    config: Config = "fermt",
    dtype: Dtype = "",
    lost_below: Annotated[
        float, typer.Option(help="Score below which a frame counts as bad; scores are not calibrated. 0: none does.")
    ] = 0.0,
    patience: Annotated[int, typer.Option(help="Consecutive bad frames after which a target counts as lost.")] = 1,
    growth: Annotated[
        float,
        typer.Option(help="Factor by which the side of the search region grows in each frame while a target is lost."),
    ] = 1.0,
    brighten: Annotated[
        bool, typer.Option(help="Brighten dark frames first. The paper's benchmarks do not.", show_default=True)
    ] = True,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Track one or more targets through a video and write their boxes in every frame.

    Example: fermt track video.mp4 --box 372,108,125,240 --video out.mp4

    The frames done so far are kept after Ctrl-C, SIGTERM or SIGHUP (exit status 128 + the signal's number), and if the
    video breaks off or the disk is full (exit status 1). If only --video or the contact sheet cannot be written, all
    boxes are (exit status 1).
    """
    check_output(out, tuple(FORMATS))
    check_output(video, (".mp4",))
    check_choice("dtype", dtype, ("", *DTYPES))
    sheet = out.with_suffix(".png") if every else None
    check_inputs_kept(
        {"--out": out, "--video": video, "the contact sheet": sheet},
        {"SOURCE": Files(source, SUFFIXES, all_read=True), "--boxes": boxes, "--weights": weights},
    )
    starts = _starts(box or [], boxes)
    targets = len(starts) + select
    if not targets:
        raise typer.BadParameter("give a target: --box x,y,w,h in pixels of the first frame, --boxes FILE, or --select")
    if out.suffix.lower() == ".txt" and targets > 1:
        raise typer.BadParameter(f"a .txt has the boxes of one target, not of {targets}; write .csv or .jsonl")
    if threads:
        torch.set_num_threads(threads)
    try:
        device = pick_device(device, weights)
        frames = open_source(source)
        model = load_model(weights, config, backend, device)
        tracker = MultiTracker(
            model,
            dtype=DTYPES.get(dtype),
            lost_below=lost_below,
            patience=patience,
            growth=growth,
            brighten=brighten,
        )
        pictures = Pictures(video, sheet, every, show, frames.fps, label_of(weights, config))
        rows, stopped = _run(tracker, frames, starts, out, pictures, select)
    except ERRORS as error:
        raise failed(error) from error
    say(", ".join((f"{rows} boxes in {out}", *pictures.written)))
    for failure in pictures.failures:
        failed(ValueError(failure))
    if isinstance(stopped, KeyboardInterrupt):
        raise interrupted(stopped, "Interrupted: the frames done so far are kept.")
    if stopped is not None:
        raise failed(stopped) from stopped
    if pictures.failures:
        raise typer.Exit(1)


def _run(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start], out: Path, pictures: Pictures, select: bool
) -> tuple[int, BaseException | None]:
    """Returns the number of rows written, and the error that ended the run early, if at least one frame was done."""
    done, stopped = 0, None
    # A signal waits for the frame at hand, and for the files.
    with (
        deferred() as stop,
        ResultFile(out) as file,
        ProgressDisplay(console, "tracking", frames.count, unit="frames") as display,
    ):
        try:
            for image, tracks in _tracked(tracker, frames, starts, select):
                file.write([Row(done, name, result) for name, result in tracks.items()])
                done += 1
                display.update(done)
                if not pictures.add(done - 1, image, tracks):
                    break
                stop.check()
        except (KeyboardInterrupt, *ERRORS) as raised:
            if done == 0:
                pictures.discard()
                raise
            stopped = raised
        try:
            pictures.close()
        except KeyboardInterrupt as raised:  # a second signal
            stopped = raised
    return file.rows, stopped


def _tracked(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start], select: bool
) -> Iterator[tuple[np.ndarray, dict[str, Track]]]:
    """Yields every frame and its targets; in the frame in which a target starts, the box that was given for it."""
    left = sorted(starts, key=lambda start: start.frame)
    frame = -1
    for frame, image in enumerate(frames):
        if select and frame == 0:
            left.insert(0, Start(0, _free_name(left), select_box(image)))
        tracks = {str(name): result for name, result in tracker.update(image).items()}
        while left and left[0].frame == frame:
            start = left.pop(0)
            tracker.add(image, start.box, start.name)
            x, y, w, h = start.box
            tracks[start.name] = Track((x, y, w, h), 1.0, False)
        yield image, tracks
    if left:
        raise ValueError(f"target {left[0].name!r} starts in frame {left[0].frame}, and the last frame is {frame}")


def _starts(boxes: Sequence[str], file: Path | None) -> list[Start]:
    """The targets of `--box` and `--boxes`; typer.BadParameter if one of them is wrong."""
    if file is not None and not file.is_file():
        raise typer.BadParameter(f"no file of boxes at {str(file)!r}")
    try:
        starts = [*starts_of(boxes), *(read_starts(file, len(boxes)) if file else [])]
        names = [start.name for start in starts]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"--box numbers its targets from 0, and --boxes has the same: {', '.join(repeated)}")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return starts


def _free_name(starts: Sequence[Start]) -> str:
    """The smallest number that no target is called."""
    names = {start.name for start in starts}
    return next(str(i) for i in range(len(names) + 1) if str(i) not in names)
