"""One tracked frame on a CPU: the packed model of `fermt_kernels.frame`, the modules, and other runtimes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from itertools import islice
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.data import crop_target
from fermt.export import plain_model
from fermt.flops import frame_macs
from fermt.tracking.sources import open_source

from .frame_report import QUIET_TABLE, TITLES, Bench, Judge, Runner, Runners, Scene, dtype_name, in_dtype
from .harness import (
    CLIP,
    TARGET,
    Case,
    Out,
    Threads,
    append,
    facts,
    headline,
    interleave,
    names_among,
    run_command,
    start_progress,
)
from .peers import COMPILED_PEERS, PEERS, MakeFrame, Peer, PeerMissingError, cached_frame, on_backend, whole_frame

CALIBRATION_FRAMES = 8  # frames of the clip on which int8 is calibrated
QUICK_TABLES, QUICK_SECONDS = "cached,tracking", 0.3
PREPARATION_SECONDS = 10.0  # packing, calibration and float64, and the export of a table's peers
PACKED = (torch.float32, torch.bfloat16, torch.int8)
LOADED_TABLE = "loaded"
DEFAULT_TABLES = [name for name in TITLES if name != LOADED_TABLE]
CAPTION = (
    "Ours takes the uint8 crop and normalizes it; the others get the normalized image, prepared beforehand. "
    "'Of FMA peak': by the MACs of the convolutions as written / by those that Winograd leaves."
)


def take_scene(config: fermt.ModelConfig, frames: list[Any]) -> Scene:
    """Cuts the target's template from the first frame, and its search regions from the others."""

    def crop(image: Any, factor: float, size: int) -> Tensor:
        return torch.from_numpy(crop_target(image, TARGET, factor, size).image)

    template = crop(frames[0], config.template_factor, config.template_size)
    return Scene(
        template.expand(len(frames) - 1, -1, -1, -1).contiguous(),
        torch.stack([crop(image, config.search_factor, config.search_size) for image in frames[1:]]),
    )


def named(dtype: torch.dtype) -> str:
    return f"ours, {dtype_name(dtype)}"


def packed_models(model: fermt.FERMT, calibration: Scene) -> dict[torch.dtype, Any]:
    """The model packed in every dtype."""
    return {d: fk.frame.pack(model, d, calibration=calibration if d == torch.int8 else None) for d in PACKED}


def peaks(dtypes: Iterable[torch.dtype]) -> dict[torch.dtype, float]:
    """FLOP/s of nothing but multiply-adds, in the dtypes in which that can be measured."""
    measured = {}
    for dtype in dtypes:
        with suppress(TypeError):
            measured[dtype] = fk.frame.peak_flops(dtype)
    return measured


def ours(packed: fk.frame.PackedModel, scene: Scene, *, whole: bool = False) -> Case:
    """A frame of each of the scene's targets, on a workspace that is kept from call to call."""
    space = fk.frame.Workspace()
    encode = partial(fk.frame.encode_template, packed, scene.template, workspace=space)
    track = partial(fk.frame.track_frame, packed, workspace=space)
    if whole:
        return Case(lambda: track(encode(), scene.search))
    return Case(partial(track, encode(), scene.search))


def tracking_case(network: Any, first: Any, second: Any) -> Case:
    """One `Tracker.update` on a frame in memory; the tracker starts anew, untimed, so that each call does the same."""
    tracker = fermt.Tracker(network)
    return Case(lambda: tracker.update(second), prepare=lambda: tracker.init(first, TARGET))


@contextmanager
def another_process() -> Iterator[None]:
    """Another process computes without end, as a video's decoder may."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def peers(
    make: MakeFrame,
    chosen: Mapping[str, Peer],
    model: fermt.FERMT,
    scene: Scene,
    say: Callable[[str], None],
) -> dict[str, Runner]:
    """Runners of the chosen peers; those that are not installed are named and left out."""
    dtypes = {peer.takes for peer in chosen.values()}
    frames = {dtype: make(in_dtype(model, dtype), *scene.images(dtype)) for dtype in dtypes}
    runners = {}
    for name, peer in chosen.items():
        try:
            runners[name] = Runner(Case(peer.build(frames[peer.takes], torch.get_num_threads())), peer.dtype)
        except PeerMissingError as reason:
            say(f"{name}: left out, {reason}")
    return runners


@torch.inference_mode()
def main(
    config: Annotated[str, typer.Option(help=f"One of {', '.join(fermt.CONFIGS)}.")] = "fermt",
    seconds: Annotated[float, typer.Option(min=0.01, help="Time to spend on each runner and each table.")] = 3.0,
    threads: Threads = 0,
    compiled: Annotated[
        bool, typer.Option(help="Also eager PyTorch under torch.compile, which compiles for minutes.")
    ] = False,
    batch: Annotated[
        str, typer.Option(help="Batch sizes of our runners, with commas between them; default: 1,2,4,8.")
    ] = "",
    tables: Annotated[
        str, typer.Option(help=f"Tables to measure, with commas between them; default: {','.join(DEFAULT_TABLES)}.")
    ] = "",
    under_load: Annotated[
        bool, typer.Option("--under-load", help=f"Also measure the table {QUIET_TABLE} while another process computes.")
    ] = False,
    only: Annotated[str, typer.Option(help="Only the peers whose names contain this; our runners always run.")] = "",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help=f"{QUICK_SECONDS} s for each runner; default tables {QUICK_TABLES}, default batch size 1."
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Time one tracked frame on the CPU: ours and other runtimes at batch 1, and ours at larger batches.

    The maps of every runner are first compared with float64, by the accuracy rule (docs/accuracy.md). Then the runners
    of a table take turns. Ours takes the uint8 crop, so that its time includes the normalization; the others get the
    normalized image. "Against ours" is the time per target over that of our runner of the same dtype. GFLOP/s count two
    operations for each MAC of `fermt.flops.frame_macs`.

    Example: python -m benchmarks.frame --quick
    """
    console = Console(width=max(Console().width, 112))
    say = partial(console.print, highlight=False, markup=False)
    if threads:
        torch.set_num_threads(threads)
    about = facts() | {"config": config}
    say(headline(about))
    seconds = min(seconds, QUICK_SECONDS) if quick else seconds
    names = names_among("--tables", tables or (QUICK_TABLES if quick else ",".join(DEFAULT_TABLES)), DEFAULT_TABLES)
    if under_load:
        names = [*([] if QUIET_TABLE in names else [QUIET_TABLE]), *names, LOADED_TABLE]
    batches = [int(size) for size in (batch or ("1" if quick else "1,2,4,8")).split(",")]
    runners = len(PACKED) + len(PEERS) + (len(COMPILED_PEERS) if compiled else 0)
    expected = (PREPARATION_SECONDS + runners * seconds) * len(names)
    progress = start_progress(f"a frame of {config}: {', '.join(names)}", len(names) + 1, expected)
    torch.manual_seed(0)
    model = fermt.build_model(config).eval()
    images = list(islice(open_source(CLIP), 1 + max(batches) + CALIBRATION_FRAMES))
    every = take_scene(model.config, images)
    scenes = every.first(max(batches))
    scene = scenes.first(1)

    packed = packed_models(model, Scene(*(crops[max(batches) :] for crops in every)))  # on frames of their own
    turns = partial(interleave, progress=progress, quick=quick)
    bench = Bench(model, Judge(model, scenes), partial(peaks, packed), console, turns)
    progress.step("packed, and computed in float64")
    chosen = {name: peer for name, peer in (PEERS | (COMPILED_PEERS if compiled else {})).items() if only in name}
    macs = {whole: frame_macs(config, template=whole) for whole in (False, True)}

    # The model as a module, which encodes its template in every frame: with our kernels, and with none of them.
    modules = {f"the module, {backend} backend": on_backend(model, backend) for backend in ("auto", "reference")}

    def beside(make: MakeFrame, whole: bool) -> Runners:
        mine = {named(d): Runner(ours(packed[d], scene, whole=whole), d, macs[whole]) for d in packed}
        if whole:
            calls = {name: Case(partial(module, *scene.images(torch.float32))) for name, module in modules.items()}
            mine |= {name: Runner(case, torch.float32) for name, case in calls.items()}
        return mine | peers(make, chosen, model, scene, say)

    def batched() -> Runners:
        return {
            f"{named(d)}, B = {size}": Runner(ours(packed[d], scenes.first(size)), d, macs[False], size)
            for d in packed
            for size in batches
        }

    def tracked() -> Runners:
        models: dict[str, tuple[Any, torch.dtype]] = {"eager PyTorch": (plain_model(model), torch.float32)}
        models |= {name: (module, torch.float32) for name, module in modules.items()}
        models |= {named(d): (packed[d], d) for d in packed}
        updates = {
            f"Tracker.update, {name}": Runner(tracking_case(network, *images[:2]), d, maps=False)
            for name, (network, d) in models.items()
        }
        return updates | {f"{named(d)}, model only": Runner(ours(packed[d], scene), d, macs[False]) for d in packed}

    cached = cache(lambda: beside(cached_frame, False))
    todo: dict[str, Callable[[], Runners]] = {
        QUIET_TABLE: cached,
        LOADED_TABLE: cached,
        "whole": lambda: beside(whole_frame, True),
        "batch": batched,
        "tracking": tracked,
    }
    for name in names:
        runners_of_table = todo[name]()
        with another_process() if name == LOADED_TABLE else nullcontext():
            bench.measure(name, runners_of_table, seconds)
    say(CAPTION)
    append(out, bench.lines, about)


if __name__ == "__main__":
    run_command(main)
