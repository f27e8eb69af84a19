"""Accuracy on real sequences: of weights in every dtype, and of other trackers.

python -m benchmarks.accuracy --sequences examples --weights demo/weights.safetensors --dtypes float32,bfloat16,int8
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from fermt.cli.common import check_inputs_kept, check_output, failed, print_wide
from fermt.progress import ProgressDisplay, duration
from fermt.signals import exit_status
from fermt_kernels.files import atomic_write

from .accuracy_data import LabeledSequence, Scores, find_sequences, score
from .accuracy_trackers import FORMS, PEERS, Entry, entries
from .harness import Threads, facts, headline, names_among, run_command, table

FRAME_SECONDS = 0.03  # of a tracker on a frame, in the mean
QUICK_FRAMES, QUICK_SEQUENCES = 60, 3
FAILURES = (OSError, ValueError, RuntimeError, cv2.error)  # of one sequence

MEAN = "mean"  # the group of all sequences
LEGEND = (
    "AO: mean IoU. SR0.5: fraction of frames with IoU above 0.5. AUC: area under the success curve. All over the "
    "labeled frames after the first, where the target is given; means are over sequences."
)
Results = dict[str, dict[str, Scores]]  # by sequence, by tracker


def follow(sequence: LabeledSequence, taking_part: Sequence[Entry], on_frame: Callable[[], None]) -> dict[str, Scores]:
    """Takes all trackers through a sequence, frame by frame; `on_frame` is called after each.

    Raises:
        OSError, ValueError, RuntimeError, cv2.error: an image that cannot be read, or a tracker's own error.
    """
    boxes: dict[str, list[Sequence[float]]] = {entry.name: [] for entry in taking_part}
    for t, image in enumerate(sequence.images()):
        for entry in taking_part:
            if t:
                boxes[entry.name].append(entry.follower.update(image))
            else:
                entry.follower.init(image, sequence.truth[0].tolist())
                boxes[entry.name].append(sequence.truth[0].tolist())
        on_frame()
    return {name: score(np.array(rows, np.float64), sequence.truth) for name, rows in boxes.items()}


def run(
    sequences: Sequence[LabeledSequence], taking_part: Sequence[Entry], console: Console, results: Results
) -> dict[str, str]:
    """Fills in `results`, printing a line per sequence; returns the reason by sequence for those that failed."""
    failures: dict[str, str] = {}
    frames = 0
    total = sum(len(each.truth) for each in sequences)
    with ProgressDisplay(console, "tracking", total, unit="frames") as display:
        for sequence in sequences:
            ahead = frames + len(sequence.truth)

            def on_frame() -> None:
                nonlocal frames
                frames += 1
                display.update(frames, f"{len(results) + len(failures)}/{len(sequences)} sequences")

            try:
                results[sequence.name] = follow(sequence, taking_part, on_frame)
            except FAILURES as error:
                failures[sequence.name] = str(error)
                display.say(f"{sequence.name}: left out, {error}", "bold red")
                continue
            finally:
                frames = ahead
            display.update(frames, f"{len(results) + len(failures)}/{len(sequences)} sequences")
            reached = "  ".join(f"{name} {scores.ao:.3f}" for name, scores in results[sequence.name].items())
            display.say(f"{sequence.name} ({len(sequence.truth)} frames): AO  {reached}  {display.time_left}")
    return failures


def grouped(texts: Sequence[str], sequences: Sequence[LabeledSequence]) -> dict[str, list[str]]:
    """Parses groups NAME=SEQUENCE,...; BadParameter for another form, or for a sequence that is not there."""
    names = [sequence.name for sequence in sequences]
    groups = {}
    for text in texts:
        name, equals, members = text.partition("=")
        if not name or not equals or name == MEAN:
            expected = f"NAME=SEQUENCE,SEQUENCE,..., its name other than {MEAN!r}"
            raise typer.BadParameter(f"group must be {expected}; got {text!r}")
        groups[name] = names_among(f"group {name}", members, names)
    return groups


def read(paths: Sequence[Path], frames: int) -> list[LabeledSequence]:
    """The sequences at all paths, cut to so many frames; ValueError if two have one name."""
    sequences = [sequence.first(frames) for path in paths for sequence in find_sequences(path)]
    names = [sequence.name for sequence in sequences]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sequences must differ in their names; more than one is called {', '.join(twice)}")
    return sequences


def means(results: Results, groups: Mapping[str, Sequence[str]]) -> Results:
    """Means over each group and over all sequences, by tracker; over those that are done, without empty groups."""
    every = {name: [each for each in names if each in results] for name, names in {**groups, MEAN: [*results]}.items()}
    return {
        name: {tracker: Scores.mean([results[each][tracker] for each in names]) for tracker in results[names[0]]}
        for name, names in every.items()
        if names
    }


def tables(results: Results, averages: Results) -> list[Table]:
    """A table with a row for each sequence, and one of the means."""
    trackers, made = list(next(iter(results.values()))), []
    for title, rows in (("Each sequence: AO, SR0.5, AUC", results), ("Means over sequences: AO, SR0.5, AUC", averages)):
        cells = ([name, *("  ".join(f"{x:.3f}" for x in s[:3]) for s in by.values())] for name, by in rows.items())
        made.append(table(title, ("", *trackers), list(cells)))
    return made


def record(
    taking_part: Sequence[Entry], results: Results, averages: Results, groups: Any, failures: Any, frames: int
) -> str:
    """The scores and how they were measured, as JSON."""
    return json.dumps(
        {
            "benchmark": "accuracy",
            "opencv": cv2.__version__,
            "onnxruntime": version("onnxruntime") if find_spec("onnxruntime") else None,
            **facts(),
            "frames_limit": frames or None,
            "groups": groups,
            "trackers": {entry.name: entry.facts for entry in taking_part},
            "means": _plain(averages),
            "sequences": _plain(results),
            "failed": failures,
        },
        indent=1,
    )


def _plain(results: Results) -> dict[str, Any]:
    return {name: {who: scores._asdict() for who, scores in by.items()} for name, by in results.items()}


def main(
    sequences: Annotated[
        list[Path],
        typer.Option(help="A sequence (a folder or a video, see above), or a folder of sequences. Repeatable."),
    ],
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Weights written by fermt.save, `fermt train` or `fermt convert`. Repeatable."),
    ] = None,
    dtypes: Annotated[
        str,
        typer.Option(help=f"Forms of the model, with commas between them: {', '.join(FORMS)} (see above)."),
    ] = "float32",
    untrained: Annotated[
        bool,
        typer.Option(help="Also an untrained model with the configuration of the first weights, in the first form."),
    ] = True,
    peers: Annotated[str, typer.Option(help=f"Other trackers: {', '.join(PEERS)}; csrt needs OpenCV's contrib.")] = "",
    nano: Annotated[Path | None, typer.Option(help="Folder with NanoTrack V2's two ONNX files.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Also print the mean over these sequences: NAME=SEQUENCE,... Repeatable.")
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="Use this many frames of each sequence; 0: all.")] = 0,
    threads: Threads = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"{QUICK_FRAMES} frames of the first {QUICK_SEQUENCES} sequences.")
    ] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write all scores to this .json file.")] = None,
) -> None:
    """Measure average overlap, success rate and AUC of trackers on labeled sequences.

    Each tracker gets the true box of the first frame and follows the target to the end without further help.

    A sequence is a folder of images with groundtruth.txt (a line x,y,w,h for each frame, nan,nan,nan,nan where the
    target is absent) or groundtruth.csv (the line frame,x,y,w,h, then these numbers for each labeled frame); or a video
    clip.mp4 with clip_groundtruth.csv in the same folder. Boxes are in pixels, and frames count from 0.

    Forms of the model: float32, bfloat16 and int8 are packed in that dtype (int8 is calibrated on the labeled frames of
    the clips in examples/); onnx is the float32 export in ONNX Runtime, which takes a minute to make; model is the
    PyTorch module.

    A sequence that cannot be read is reported and left out (exit status 1). After Ctrl-C the scores so far are printed,
    and no file is written (exit status 130).

    Example: python -m benchmarks.accuracy --sequences examples --peers nano --nano nanotrack/
    """
    check_output(json_out, (".json",))
    inputs = {f"--weights {path}": path for path in weights or []} | {f"--sequences {path}": path for path in sequences}
    check_inputs_kept({"--json": json_out}, inputs)
    forms = names_among("--dtypes", dtypes, FORMS)
    others = names_among("--peers", peers, PEERS) if peers else []
    if quick:
        frames = min(frames or QUICK_FRAMES, QUICK_FRAMES)
    console = Console()
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    results: Results = {}
    failures: dict[str, str] = {}
    interrupted: KeyboardInterrupt | None = None
    try:
        todo = read(sequences, frames)[: QUICK_SEQUENCES if quick else None]
        groups = grouped(group or [], todo)
        console.print(headline(facts()), highlight=False, soft_wrap=True)
        taking_part = entries(weights or [], forms, untrained, others, nano, console)
        if not taking_part:
            raise ValueError("no tracker is left to run")
        count = sum(len(each.truth) for each in todo)
        console.print(
            f"{len(todo)} sequences, {count} frames, {len(taking_part)} trackers: "
            f"about {duration(count * len(taking_part) * FRAME_SECONDS)} on two cores with AVX2",
            highlight=False,
        )
        failures = run(todo, taking_part, console, results)
    except KeyboardInterrupt as error:
        interrupted = error
        console.print("Interrupted: below is what was done.", style="bold yellow")
    except (OSError, ValueError, RuntimeError) as error:
        raise failed(error) from error
    if results:
        averages = means(results, groups)
        for made in tables(results, averages):
            print_wide(made)
        if left_out := [sequence.name for sequence in todo if sequence.name not in results]:
            console.print(f"Not in the means: {', '.join(left_out)}", style="bold yellow", highlight=False)
        console.print(LEGEND, highlight=False)
        if json_out is not None and not interrupted:
            atomic_write(json_out, record(taking_part, results, averages, groups, failures, frames) + "\n")
    if interrupted:
        raise typer.Exit(exit_status(interrupted))
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
