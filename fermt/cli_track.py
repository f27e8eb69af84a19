"""`fermt track`: targets through a video, into files and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .cli_common import DTYPES, INTERRUPTED, console, failed, load_model, output_path
from .config import CONFIGS
from .tracking import MultiTracker, Track
from .tracking.results import FORMATS, ResultFile, Row
from .tracking.sheet import ContactSheet
from .tracking.sources import Source, open_source
from .tracking.video import VideoWriter, Window, annotate

ERRORS = (OSError, ValueError, TypeError, RuntimeError)


class Start(NamedTuple):
    """A target, and the frame in which it is taken."""

    frame: int
    name: str
    box: tuple[float, ...]  # xywh


class Outputs(NamedTuple):
    """Where frames and boxes go, besides the file of boxes."""

    video: Path | None
    every: int
    show: bool
    label: str


def track(
    source: Annotated[
        str, typer.Argument(help='A video, a folder of images, a pattern ("frames/*.jpg"), or the index of a camera.')
    ],
    box: Annotated[
        list[str] | None,
        typer.Option(help="A target in the first frame: x,y,w,h in pixels (left, top, width, height). Repeatable."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="A file with a target a line: x,y,w,h in the first frame, or frame,id,x,y,w,h."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights written by fermt.save or `fermt convert`, or a packed model (.fermt).")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Boxes, a line a target and frame: .csv, .jsonl, or .txt (x,y,w,h of one target)."),
    ] = Path("boxes.csv"),
    video: Annotated[Path | None, typer.Option(help="Also write an annotated .mp4 here.")] = None,
    every: Annotated[
        int, typer.Option(min=0, help="Also write a contact sheet of every N-th frame, a .png beside --out; 0: none.")
    ] = 0,
    show: Annotated[bool, typer.Option("--show", help="Show the frames in a window; q ends.")] = False,
    config: Annotated[str, typer.Option(help=f"Model to build without weights: {', '.join(CONFIGS)}.")] = "fermt",
    dtype: Annotated[
        str, typer.Option(help=f"What is computed in: {', '.join(DTYPES)}; the weights' own if not given.")
    ] = "",
    lost_below: Annotated[float, typer.Option(help="Score under which a frame is a bad one (uncalibrated).")] = 0.0,
    patience: Annotated[int, typer.Option(help="Bad frames in a row after which a target is lost.")] = 1,
    growth: Annotated[
        float, typer.Option(help="Growth of the search region's side for each frame that a target is lost.")
    ] = 1.0,
    backend: Annotated[str, typer.Option(help="Kernels: auto, or a name from fermt_kernels.backends().")] = "auto",
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's own choice.")] = 0,
) -> None:
    """Follow one target or many through a video, and write their boxes in every frame.

    Ctrl-C, or a video that breaks off, keeps what was done; the exit status is then 130, or 1.
    """
    output_path(out, tuple(FORMATS))
    output_path(video, (".mp4",))
    if dtype and dtype not in DTYPES:
        raise typer.BadParameter(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    starts = [*_starts_given(box or []), *(_starts_in(boxes) if boxes else [])]
    if not starts:
        raise typer.BadParameter("give a target: --box x,y,w,h in pixels of the first frame, or --boxes FILE")
    if out.suffix.lower() == ".txt" and len(starts) > 1:
        raise typer.BadParameter(f"a .txt has the boxes of one target, not of {len(starts)}; write .csv or .jsonl")
    if threads:
        torch.set_num_threads(threads)
    try:
        frames = open_source(source)
        model = load_model(weights, config, backend, device)
        tracker = MultiTracker(model, dtype=DTYPES.get(dtype), lost_below=lost_below, patience=patience, growth=growth)
        outputs = Outputs(video, every, show, "untrained, boxes mean nothing" if weights is None else weights.stem)
        rows, ended = _run(tracker, frames, starts, out, outputs)
    except ERRORS as error:
        raise failed(error) from error
    pictures = [f"video in {video}"] if video else []
    pictures += [f"contact sheet in {out.with_suffix('.png')}"] if every else []
    console.print(", ".join((f"{rows} boxes in {out}", *pictures)), highlight=False)
    if isinstance(ended, KeyboardInterrupt):
        console.print("Interrupted: what was done is there.", style="bold yellow")
        raise typer.Exit(INTERRUPTED)
    if ended is not None:
        raise failed(ended) from ended


def _run(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start], out: Path, outputs: Outputs
) -> tuple[int, BaseException | None]:
    """Rows written, and what ended the run before its end, if at least a frame was done."""
    columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    done, ended = 0, None
    with ExitStack() as stack:
        file = stack.enter_context(ResultFile(out))
        writer = stack.enter_context(VideoWriter(outputs.video, frames.fps)) if outputs.video else None
        window = stack.enter_context(Window()) if outputs.show else None
        sheet = ContactSheet(out.with_suffix(".png"), outputs.every) if outputs.every else None
        progress = stack.enter_context(Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console))
        task = progress.add_task("", total=frames.count or None, speed="")
        pictured: tuple[int, ...] = ()
        try:
            for image, tracks in _tracked(tracker, frames, starts):
                for name, result in tracks.items():
                    file.write(Row(done, name, result))
                pictured = pictured or image.shape
                if writer or window or (sheet and sheet.wants()):
                    drawn = annotate(image, tracks, f"FERMT ({outputs.label})  frame {done}")
                    if drawn.shape != pictured:
                        drawn = cv2.resize(drawn, (pictured[1], pictured[0]))
                    if writer:
                        writer.write(drawn)
                    if sheet:
                        sheet.add(drawn)
                elif sheet:
                    sheet.skip()
                done += 1
                elapsed = progress.tasks[task].elapsed
                progress.update(task, advance=1, speed=f"{done / elapsed:.1f} frames/s" if elapsed else "")
                if window and not window.show(drawn):
                    break
        except (KeyboardInterrupt, *ERRORS) as error:
            if done == 0:
                raise
            ended = error
        progress.update(task, total=done)
        if sheet:
            sheet.save()
    return file.rows, ended


def _tracked(
    tracker: MultiTracker, frames: Source, starts: Sequence[Start]
) -> Iterator[tuple[np.ndarray, dict[str, Track]]]:
    """Every frame and its targets; in the frame in which a target is taken, the box that was given."""
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
        raise ValueError(f"target {left[0].name!r} is to be taken in frame {left[0].frame}, and the last is {frame}")


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers between commas, tabs or spaces, or None."""
    try:
        values = tuple(float(part) for part in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        return None
    return values if len(values) == count else None


def _starts_given(boxes: Sequence[str]) -> Iterator[Start]:
    for i, text in enumerate(boxes):
        values = _numbers(text, 4)
        if values is None:
            raise typer.BadParameter(f"expected four numbers x,y,w,h in pixels (such as 372,108,125,240), got {text!r}")
        yield Start(0, str(i), values)


def _starts_in(path: Path) -> Iterator[Start]:
    """The targets in a file: a line each, x,y,w,h or frame,id,x,y,w,h; empty lines and those with # are passed over."""
    if not path.is_file():
        raise typer.BadParameter(f"no file of boxes at {str(path)!r}")
    names: set[str] = set()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#") or text.lower().startswith("frame,"):
            continue
        start = _start_of(text, str(len(names)))
        if start is None:
            raise typer.BadParameter(f"{path}, line {number}: expected x,y,w,h or frame,id,x,y,w,h, got {line!r}")
        if start.name in names:
            raise typer.BadParameter(f"{path}, line {number}: a second target {start.name!r}")
        names.add(start.name)
        yield start


def _start_of(text: str, name: str) -> Start | None:
    if (values := _numbers(text, 4)) is not None:
        return Start(0, name, values)
    frame, *more = re.split(r"[,\s]+", text, maxsplit=2)
    if len(more) != 2 or not frame.isdecimal() or (values := _numbers(more[1], 4)) is None:
        return None
    return Start(int(frame), more[0], values)
