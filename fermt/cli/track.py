"""`fermt track`: tracks targets through a video and writes their boxes, a video or pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from ..machine import pick_device
from ..progress import ProgressDisplay
from ..signals import deferred
from ..tracking import MultiTracker, Track
from ..tracking.pictures import Pictures
from ..tracking.results import FORMATS, ResultFile, Row
from ..tracking.sources import Source, open_source
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
    load_model,
)

ERRORS = (OSError, ValueError, TypeError, RuntimeError)


class Start(NamedTuple):
    """A target and the frame in which tracking it starts."""

    frame: int
    name: str
    box: tuple[float, ...]  # xywh


def track(
    source: Annotated[
        str, typer.Argument(help='A video, a folder of images, a pattern ("frames/*.jpg"), or the index of a camera.')
    ],
    box: Annotated[
        list[str] | None,
        typer.Option(help="Target in the first frame: x,y,w,h in pixels (left, top, width, height). Repeatable."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="File with one target a line: x,y,w,h in the first frame, or frame,id,x,y,w,h."),
    ] = None,
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

    After Ctrl-C, SIGTERM or SIGHUP (exit status 128 + the signal's number), or if the video breaks off or the disk is
    full (1), the frames done so far are kept. Pictures that cannot be written cost no boxes (status 1).
    """
    check_output(out, tuple(FORMATS))
    check_output(video, (".mp4",))
    check_choice("dtype", dtype, ("", *DTYPES))
    sheet = out.with_suffix(".png") if every else None
    check_inputs_kept(
        {"--out": out, "--video": video, "the contact sheet": sheet},
        {"SOURCE": source, "--boxes": boxes, "--weights": weights},
    )
    starts = [*_parse_boxes(box or []), *(_read_starts(boxes) if boxes else [])]
    if not starts:
        raise typer.BadParameter("give a target: --box x,y,w,h in pixels of the first frame, or --boxes FILE")
    if out.suffix.lower() == ".txt" and len(starts) > 1:
        raise typer.BadParameter(f"a .txt has the boxes of one target, not of {len(starts)}; write .csv or .jsonl")
    if threads:
        torch.set_num_threads(threads)
    try:
        device = pick_device(device, weights)
        frames = open_source(source)
        model = load_model(weights, config, backend, device)
        tracker = MultiTracker(model, dtype=DTYPES.get(dtype), lost_below=lost_below, patience=patience, growth=growth)
        label = "untrained, boxes mean nothing" if weights is None else weights.stem
        pictures = Pictures(video, sheet, every, show, frames.fps, label)
        rows, stopped = _run(tracker, frames, starts, out, pictures)
    except ERRORS as error:
        raise failed(error) from error
    console.print(", ".join((f"{rows} boxes in {out}", *pictures.written)), highlight=False)
    for failure in pictures.failures:
        failed(ValueError(failure))
    if isinstance(stopped, KeyboardInterrupt):
        raise interrupted(stopped, "Interrupted: the frames done so far are kept.")
    if stopped is not None:
        raise failed(stopped) from stopped
    if pictures.failures:
        raise typer.Exit(1)


def _run(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start], out: Path, pictures: Pictures
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
            for image, tracks in _tracked(tracker, frames, starts):
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
        except KeyboardInterrupt as raised:  # asked a second time
            stopped = raised
    return file.rows, stopped


def _tracked(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start]
) -> Iterator[tuple[np.ndarray, dict[str, Track]]]:
    """Yields every frame and its targets; in the frame in which a target starts, the box that was given for it."""
    left = sorted(starts, key=lambda start: start.frame)
    frame = -1
    for frame, image in enumerate(frames):
        tracks = {str(name): result for name, result in tracker.update(image).items()}
        while left and left[0].frame == frame:
            start = left.pop(0)
            tracker.add(image, start.box, start.name)
            x, y, w, h = start.box
            tracks[start.name] = Track((x, y, w, h), 1.0, False)
        yield image, tracks
    if left:
        raise ValueError(f"target {left[0].name!r} starts in frame {left[0].frame}, and the last frame is {frame}")


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    """Parses `count` numbers between commas, tabs or spaces; None if the text has another form."""
    try:
        values = tuple(float(part) for part in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        return None
    return values if len(values) == count else None


def _parse_boxes(boxes: Sequence[str]) -> Iterator[Start]:
    for i, text in enumerate(boxes):
        values = _numbers(text, 4)
        if values is None:
            raise typer.BadParameter(f"expected four numbers x,y,w,h in pixels (such as 372,108,125,240), got {text!r}")
        yield Start(0, str(i), values)


def _read_starts(path: Path) -> Iterator[Start]:
    """Reads targets from a file with x,y,w,h or frame,id,x,y,w,h in each line; empty lines and # lines are skipped."""
    if not path.is_file():
        raise typer.BadParameter(f"no file of boxes at {str(path)!r}")
    names: set[str] = set()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#") or text.lower().startswith("frame,"):
            continue
        start = _parse_start(text, str(len(names)))
        if start is None:
            raise typer.BadParameter(f"{path}, line {number}: expected x,y,w,h or frame,id,x,y,w,h, got {line!r}")
        if start.name in names:
            raise typer.BadParameter(f"{path}, line {number}: a second target {start.name!r}")
        names.add(start.name)
        yield start


def _parse_start(text: str, name: str) -> Start | None:
    if (values := _numbers(text, 4)) is not None:
        return Start(0, name, values)
    frame, *more = re.split(r"[,\s]+", text, maxsplit=2)
    if len(more) != 2 or not frame.isdecimal() or (values := _numbers(more[1], 4)) is None:
        return None
    return Start(int(frame), more[0], values)
