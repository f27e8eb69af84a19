"""Re-derives tables of sizes on a GPU, attention's or the frame's: times candidates, prints the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from fermt_kernels import triton as triton_backend

from . import tune_frame
from .clocks import seconds_of

Table = dict[tuple[int, int], Any]
Run = Callable[[], None]
DTYPES = (torch.bfloat16, torch.float32)


def _runs(dtype: torch.dtype, dim: int, batch: int, device: str) -> dict[str, tuple[Table, Run]]:
    """Each table of attention, and a call that goes by it, at the model's 64 and 256 tokens."""
    from fermt_kernels.triton import attention as launchers

    n, tokens, heads = (64, 320, max(1, 192 // dim)) if device == "cuda" else (3, 10, 1)
    packed = torch.randn(batch, tokens, 3, heads, dim, device=device).to(dtype)
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    out, lse = torch.empty_like(q), torch.empty(batch, heads, tokens, device=device)
    grad_q, grad_k, grad_v = torch.empty_like(packed).permute(2, 0, 3, 1, 4).unbind(0)

    def forward() -> None:
        triton_backend.attention_forward(q, k, v, out, lse, n, "mixed", dim**-0.5)

    def backward() -> None:
        triton_backend.attention_backward(out, q, k, v, out, lse, grad_q, grad_k, grad_v, n, "mixed", dim**-0.5)

    forward()
    one_program = (dtype.itemsize, dim) in launchers.BACKWARD
    names = ("BACKWARD",) if one_program else ("BACKWARD_QUERIES", "BACKWARD_KEYS")
    return {"FORWARD": (launchers.FORWARD, forward)} | {name: (getattr(launchers, name), backward) for name in names}


def _candidates(name: str, current: Any, small: bool) -> Iterator[Any]:
    """The present entry, and others around it; a one-program backward keeps its largest group."""
    yield current
    if small:
        return
    rows = (current.m,) if name == "BACKWARD" else (16, 32, 64, 128)
    for m, n, warps, stages in product(rows, (16, 32, 64, 128), (4, 8), (1, 2, 3)):
        yield type(current)(m, n, type(current.tuning)(warps, stages))


def _seconds(run: Run, device: str) -> float | None:
    """Time of a call, or None where the blocks do not fit the chip."""
    from triton.runtime.errors import OutOfResources

    try:
        return seconds_of(run, device)
    except OutOfResources:
        return None


def _tune_attention(dims: str, batch: int, device: str, console: Console) -> None:
    """Times every candidate of every table, by bytes a value and head dim."""
    dry_run = device != "cuda"
    for dtype, dim in product(DTYPES[1:] if dry_run else DTYPES, map(int, dims.split(","))):
        for name, (table, run) in _runs(dtype, dim, batch, device).items():
            key = dtype.itemsize, dim
            current = table[key]
            times: dict[Any, float] = {}
            try:
                for blocks in track(list(_candidates(name, current, dry_run)), f"{name}{key}", console=console):
                    table[key] = blocks
                    if (seconds := _seconds(run, device)) is not None:
                        times[blocks] = seconds
            finally:
                table[key] = current
            best = min(times, key=lambda blocks: times[blocks])
            milliseconds = f"{times[best] * 1e3:.4f} ms, now {times.get(current, float('nan')) * 1e3:.4f} ms"
            console.print(f"{name}{key}: {best}  # {milliseconds}", highlight=False)


def main(
    dims: Annotated[str, typer.Option(help="Attention's head dims, as 16,64.")] = "16,32,64,128",
    batch: Annotated[int, typer.Option(min=1, help="Samples a call.")] = 128,
    frame: Annotated[bool, typer.Option("--frame", help="The frame's tables in place of attention's.")] = False,
    dtype: Annotated[str, typer.Option(help="Of the frame: bfloat16, float16 or float32.")] = "bfloat16",
    entries: Annotated[str, typer.Option(help="Only these entries of the frame, as qkv,proj_mlp.")] = "",
    sweeps: Annotated[int, typer.Option(min=1, help="How often the frame's entries take their turns.")] = 1,
    minutes: Annotated[float, typer.Option(min=0, help="After which no more is tried for the frame.")] = 8.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Few entries, tiny, in Triton's interpreter; needs no GPU.")
    ] = False,
) -> None:
    """Sizes, measured; what wins goes into fermt_kernels/triton/attention.py or frame_tiles.py, with its reason."""
    console = Console()
    if not dry_run and not torch.cuda.is_available():
        console.print("No CUDA GPU here; block sizes can only be measured on one.")
        raise typer.Exit(1)
    device, batch = ("cpu", 1) if dry_run else ("cuda", batch)
    if frame:
        named = {str(each).removeprefix("torch."): each for each in triton_backend.DTYPES}
        only = tuple(filter(None, entries.split(",")))
        if dtype not in named or not set(only) <= tune_frame.TRIED.keys():
            known = f"--dtype {', '.join(named)}; --entries {', '.join(tune_frame.TRIED)}"
            raise typer.BadParameter(f"there are {known}; got {dtype!r}, {entries!r}")
        tune_frame.tune(device, named[dtype], batch, only, minutes, sweeps, console)
        return
    _tune_attention(dims, batch, device, console)


if __name__ == "__main__":
    typer.run(main)
