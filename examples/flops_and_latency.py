"""Cost of FERMT, counted and measured on this machine: python examples/flops_and_latency.py

On a command line: `python -m benchmarks.flops` in the source tree, and `fermt bench`.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

import fermt
import fermt_kernels as fk

SECONDS = 2.0


def milliseconds(run, seconds: float = SECONDS) -> float:  # type: ignore[no-untyped-def]
    """Median of the calls that fit into `seconds`, after one that does not count."""
    run()
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return 1e3 * statistics.median(samples or [float("nan")])


def main(seconds: float = SECONDS) -> dict[str, float]:
    """Prints counts and times; returns them."""
    model = fermt.build_model("fermt").eval()
    template, search = torch.randn(1, 3, 128, 128), torch.randn(1, 3, 256, 256)
    counted = fermt.count_flops("fermt")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(template, search)
    found = {
        "GMAC by closed forms": counted.macs / 1e9,
        "GMAC by torch's counter": counter.get_total_flops() / 2e9,
    }

    packed, space = fk.frame.pack(model), fk.frame.Workspace()
    crops = [torch.randint(256, (size, size, 3), dtype=torch.uint8) for size in (128, 256)]
    cache = fk.frame.encode_template(packed, crops[0])
    with torch.inference_mode():
        found["ms, the model as a module"] = milliseconds(lambda: model(template, search), seconds)
        found["ms, the packed frame"] = milliseconds(
            lambda: fk.frame.track_frame(packed, cache, crops[1], workspace=space), seconds
        )
    qkv = torch.randn(1, 320, 3 * 192)
    for backend in ("auto", "reference"):
        found[f"ms, one mixed attention, {backend}"] = milliseconds(
            lambda backend=backend: fk.mixed_attention(qkv, 12, 64, backend=backend), seconds
        )
    print(f"{torch.get_num_threads()} threads")
    for name, value in found.items():
        print(f"{value:8.3f}  {name}")
    return found


if __name__ == "__main__":
    main()
