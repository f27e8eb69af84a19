"""Chooses block sizes on a GPU: times the candidates of fermt_kernels/triton/measured.py, and writes the fastest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor

from fermt_kernels import triton as triton_backend
from fermt_kernels.files import atomic_write
from fermt_kernels.triton import measured
from fermt_kernels.triton.launch import Choice
from fermt_kernels.triton.measured import CANDIDATES, MEASURED, Candidate, Entry

from ..harness import Case, Sample, markdown, run_command, take_turns, wall_clock
from . import plan
from .clocks import Machine, graphed

BATCHES = {"FORWARD": 128, "BACKWARD": 128, "FEW": 1, "MANY": 128}  # targets on which a table's entries are timed
DTYPES = {2: torch.bfloat16, 4: torch.float32}
NOW = "as it is"
SECONDS = 0.2  # for each candidate
GAIN = 0.99  # of the present time: what takes longer changes nothing
TOLERANCE = 0.1  # how far results may be from the present sizes': what a wrong sum exceeds, and another order does not
Choices = Mapping[Entry, Choice]
Run = Callable[[], object]


class Ready(NamedTuple):
    """A call to time, and what it computes."""

    run: Run
    results: list[Tensor]


def _attention(entry: Entry, device: str, small: bool) -> Ready:
    """A pass at the model's sizes."""
    table, itemsize, dim = entry
    assert isinstance(dim, int)
    n, tokens, heads, batch = (3, 10, 1, 1) if small else (64, 320, max(1, 192 // dim), BATCHES[table])
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(batch, tokens, 3, heads, dim, generator=generator).to(device, DTYPES[itemsize])
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    out, lse = torch.empty_like(q), torch.empty(batch, heads, tokens, device=device)
    grad_q, grad_k, grad_v = torch.empty_like(packed).permute(2, 0, 3, 1, 4).unbind(0)
    shared = (n, "mixed", dim**-0.5)
    forward = partial(triton_backend.attention_forward, q, k, v, out, lse, *shared)
    if table == "FORWARD":
        return Ready(forward, [out, lse])
    forward()
    backward = partial(triton_backend.attention_backward, out, q, k, v, out, lse, grad_q, grad_k, grad_v, *shared)
    return Ready(backward, [grad_q, grad_k, grad_v])


def _frame(entry: Entry, device: str, small: bool) -> Ready:
    """A whole frame: what a kernel leaves in the caches is another's input."""
    _, frame = plan.tracked_frame(device, DTYPES[entry[1]], 1 if small else BATCHES[entry[0]], small)
    return Ready(frame.track, [frame.head.maps])


MAKE = {"FORWARD": _attention, "BACKWARD": _attention, "FEW": _frame, "MANY": _frame}


def _by(choices: Choices, entry: Entry, device: str, small: bool) -> Ready:
    """A call by these sizes, which has run once."""

    def run() -> None:
        with measured.replacing(choices):
            ready.run()

    with measured.replacing(choices):
        ready = MAKE[entry[0]](entry, device, small)
    run()
    return Ready(run, ready.results)


def launch_all(arch: int) -> None:
    """Makes the launches of all candidates of an architecture once, so that they can be recorded."""
    for entry, listed in CANDIDATES.items():
        for candidate in listed:
            if candidate.fits(arch):
                launch_one(entry, candidate.sizes)


def launch_one(entry: Entry, sizes: Choice) -> None:
    """Makes the launches of a candidate."""
    _by({entry: sizes}, entry, "cpu", small=False)


def _sample(ready: Ready, on_gpu: bool) -> Sample:
    return (graphed if on_gpu else wall_clock)(Case(ready.run))


def lines(machine: Machine, candidates: Mapping[Entry, tuple[Candidate, ...]] = CANDIDATES) -> Iterator[dict[str, Any]]:
    """Yields a line per candidate, entry by entry, with the best of the entries before; then one with the choices."""
    arch = measured.family(measured.architecture(torch.device(machine.device)))
    chosen: dict[Entry, Choice] = {}
    for entry, listed in candidates.items():
        fitting = [candidate.sizes for candidate in listed if candidate.fits(arch)]
        tried = {NOW: chosen} | {str(sizes): chosen | {entry: sizes} for sizes in fitting}
        samples: dict[str, Sample] = {}
        first: list[Tensor] = []
        for name, choices in tried.items():
            try:
                ready = _by(choices, entry, machine.device, small=not machine.on_gpu)
                first = first or [result.clone() for result in ready.results]
                apart = max((a - b).abs().max().item() for a, b in zip(ready.results, first, strict=True))
                if not apart <= TOLERANCE:
                    raise ValueError(f"results are {apart:.3g} from those of the present sizes")
                samples[name] = _sample(ready, machine.on_gpu)
            except Exception as error:  # too much shared memory, or no way to compile it: a candidate less
                yield _line(entry, name) | {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
        if NOW not in samples:
            continue
        timings = take_turns(samples, seconds=SECONDS if machine.on_gpu else 0, repeats=1, least_rounds=5)
        for name, timing in timings.items():
            machine.say(f"{entry}: {name}: {timing.median * 1e6:.1f} us")
            yield _line(entry, name) | {"seconds": timing.median, "ratio": timings.ratio(name, NOW)}
        best = min(timings, key=lambda name: timings.ratio(name, NOW))
        if timings.ratio(best, NOW) < GAIN:
            chosen = {**tried[best]}
    yield {"benchmark": "tuned", "arch": arch, "entries": measured.written(chosen), "date": date.today().isoformat()}


def _line(entry: Entry, sizes: str) -> dict[str, Any]:
    return {"benchmark": "tune", "runner": sizes, "timing": "graph", "entry": " ".join(map(str, entry))}


def table(found: list[dict[str, Any]]) -> str:
    """A markdown table of the candidates, and what was chosen."""
    rows = [
        [line["entry"], line["runner"], line.get("failed") or f"{line['seconds'] * 1e6:.1f} us, {line['ratio']:.3f}"]
        for line in found
        if line["benchmark"] == "tune"
    ]
    chosen = [f"Chosen: {json.dumps(line['entries'])}" for line in found if line["benchmark"] == "tuned"]
    return "\n\n".join([markdown(("entry", "sizes", "time, and over that of the present sizes"), rows), *chosen])


def write(found: dict[str, Any], about: Mapping[str, Any], path: Path) -> None:
    """Puts what was chosen into a file like measured.json, in place of what it has for the architecture."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content[str(found["arch"])] = {"date": found["date"], **about, "entries": found["entries"]}
    measured.read(content)
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def main(
    taken_from: Annotated[
        Path | None, typer.Option("--from", help="JSON lines of a run that has measured them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = MEASURED,
) -> None:
    """Time candidates of block sizes on this GPU, in under three minutes, and write those that are faster.

    Example: python -m benchmarks.gpu.triton_tune --from gpu-results/gpu-checks.jsonl
    """
    if taken_from:
        found = [json.loads(text) for text in taken_from.read_text().splitlines()]
        (last,) = (line for line in found if line["benchmark"] == "tuned")
        about = {key: last[key] for key in ("gpu", "kernels", "commit")}
    elif reason := triton_backend.unavailable_reason():
        print(f"{reason}. Block sizes can only be measured on a GPU; --from takes them from a run's lines.")
        raise typer.Exit(1)
    else:
        found = list(lines(Machine("cuda", partial(print, file=sys.stderr))))
        last, about = found[-1], {"gpu": torch.cuda.get_device_name(), "kernels": triton_backend.describe()}
        print(table(found))
    write(last, about, out)


if __name__ == "__main__":
    run_command(main)
