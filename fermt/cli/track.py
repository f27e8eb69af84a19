"""`fermt track`: tracks targets through a video and writes their boxes, a video or pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
import typer

from ..machine import pick_device
from ..progress import ProgressDisplay
from ..tracking import MultiTracker, Track
from ..tracking.results import FORMATS, ResultFile, Row
from ..tracking.sheet import ContactSheet
from ..tracking.sources import Source, open_source
from ..tracking.starts import Start, read_starts, starts_of
from ..tracking.video import VideoWriter, Window, annotate, select_box
from .common import (
    DTYPES,
    INTERRUPTED,
    Backend,
    Config,
    Device,
    Dtype,
    Threads,
    check_choice,
    check_output,
    console,
    failed,
    load_model,
)

ERRORS = (OSError, ValueError, TypeError, RuntimeError, cv2.error)


class Outputs(NamedTuple):
    """Options for the pictures to write or show."""

    video: Path | None
    every: int
    show: bool
    label: str
    select: bool = False  # whether a target is drawn in the first frame


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
        typer.Option(help="File with one target a line: x,y,w,h in the first frame, or frame,id,x,y,w,h."),
    ] = None,
    select: Annotated[bool, typer.Option("--select", help="Draw a target in the first frame, in a window.")] = False,
    weights: Annotated[
        Path | None, typer.Option(help="Weights written by fermt.save or `fermt convert`, or a packed model (.fermt).")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="File for boxes, one line a target and frame: .csv, .jsonl, or .txt (x,y,w,h, one target)."),
    ] = Path("boxes.csv"),
    video: Annotated[Path | None, typer.Option(help="Also write an annotated .mp4 here.")] = None,
    every: Annotated[
        int, typer.Option(min=0, help="Also write a contact sheet of every N-th frame, a .png beside --out; 0: none.")
    ] = 0,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window; q quits.")] = False,
    config: Config = "fermt",
    dtype: Dtype = "",
    lost_below: Annotated[
        float, typer.Option(help="Frames with a lower score are bad (scores are uncalibrated).")
    ] = 0.0,
    patience: Annotated[int, typer.Option(help="Consecutive bad frames after which a target is lost.")] = 1,
    growth: Annotated[
        float, typer.Option(help="Growth of the search region's side for each frame that a target is lost.")
    ] = 1.0,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Track one or more targets through a video and write their boxes in every frame.

    After Ctrl-C (exit status 130), or if the video breaks off (1), the frames done so far are kept.
    """
    check_output(out, tuple(FORMATS))
    check_output(video, (".mp4",))
    check_choice("dtype", dtype, ("", *DTYPES))
    starts = _starts(box or [], boxes)
    targets = len(starts) + select
    if not targets:
        raise typer.BadParameter("give a target: --box x,y,w,h in pixels of the first frame, --boxes FILE, or --select")
    if out.suffix.lower() == ".txt" and targets > 1:
        raise typer.BadParameter(f"a .txt has the boxes of one target, not of {targets}; write .csv or .jsonl")
    if threads:
        torch.set_num_threads(threads)
    try:
        frames = open_source(source)
        model = load_model(weights, config, backend, pick_device(device, weights))
        tracker = MultiTracker(model, dtype=DTYPES.get(dtype), lost_below=lost_below, patience=patience, growth=growth)
        outputs = Outputs(
            video, every, show, "untrained, boxes mean nothing" if weights is None else weights.stem, select
        )
        rows, stopped = _run(tracker, frames, starts, out, outputs)
    except ERRORS as error:
        raise failed(error) from error
    pictures = [f"video in {video}"] if video else []
    pictures += [f"contact sheet in {out.with_suffix('.png')}"] if every else []
    console.print(", ".join((f"{rows} boxes in {out}", *pictures)), highlight=False)
    if isinstance(stopped, KeyboardInterrupt):
        console.print("Interrupted: the frames done so far are kept.", style="bold yellow")
        raise typer.Exit(INTERRUPTED)
    if stopped is not None:
        raise failed(stopped) from stopped


def _run(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start], out: Path, outputs: Outputs
) -> tuple[int, BaseException | None]:
    """Returns the number of rows written, and the error that ended the run early, if at least one frame was done."""
    done, stopped = 0, None
    with ExitStack() as stack:
        file = stack.enter_context(ResultFile(out))
        writer = stack.enter_context(VideoWriter(outputs.video, frames.fps)) if outputs.video else None
        window = stack.enter_context(Window()) if outputs.show else None
        sheet = ContactSheet(out.with_suffix(".png"), outputs.every) if outputs.every else None
        display = stack.enter_context(ProgressDisplay(console, "tracking", frames.count, unit="frames"))
        shape: tuple[int, ...] = ()
        try:
            for image, tracks in _tracked(tracker, frames, starts, outputs.select):
                for name, result in tracks.items():
                    file.write(Row(done, name, result))
                shape = shape or image.shape
                if writer or window or (sheet and sheet.wants()):
                    drawn = annotate(image, tracks, f"FERMT ({outputs.label})  frame {done}")
                    if drawn.shape != shape:
                        drawn = cv2.resize(drawn, (shape[1], shape[0]))
                    if writer:
                        writer.write(drawn)
                    if sheet:
                        sheet.add(drawn)
                elif sheet:
                    sheet.skip()
                done += 1
                display.update(done)
                if window and not window.show(drawn):
                    break
        except (KeyboardInterrupt, *ERRORS) as raised:
            if done == 0:
                raise
            stopped = raised
        if sheet:
            sheet.save()
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
        starts = [*starts_of(boxes), *(read_starts(file) if file else [])]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return starts


def _free_name(starts: Sequence[Start]) -> str:
    """The smallest number that no target is called."""
    names = {start.name for start in starts}
    return next(str(i) for i in range(len(names) + 1) if str(i) not in names)
