"""Drawn inputs for the compiled kernels and for what reads files (`make fuzz`).

A target takes anything: it refuses by the documented errors, or gives what the reference gives, without a crash.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import fermt
import fermt_kernels as fk
from fermt import checkpoints
from fermt.datasets.folder import read_boxes, read_flags
from fermt.images import exif_orientation
from fermt.textfiles import read_json, read_names
from fermt.tracking.containers import counts_exactly, is_cut_off
from fermt.tracking.starts import read_starts

from .packed import small_model

EXAMPLES = 200  # of each target in a round
DTYPES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-38, 1e-45, 30.0, -30.0]
MARKS = [
    *(b"\xff\xd8", b"Exif\0\0II*\0", b"ftyp", b"mdat", b"moof", b"\x1a\x45\xdf\xa3", b"RIFF"),
    *(b"1,2,3,4\n", b"x,y,w,h\n"),
]
text = st.lists(st.one_of(st.sampled_from(MARKS), st.binary(max_size=12)), max_size=12).map(b"".join)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder that is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="fermt-fuzz-")


def _folder() -> Path:
    return Path(_temporary().name)


@cache
def _model_files() -> dict[str, bytes]:
    """A small model's file of weights and its packed file."""
    torch.manual_seed(0)
    model = fermt.build_model(small_model("center").config).eval()
    weights, packed = _folder() / "model.safetensors", _folder() / "model.fermt"
    fermt.save(model, weights)
    fk.frame.pack(model).save(packed)
    return {path.name: path.read_bytes() for path in (weights, packed)}


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A model's file with bytes replaced, cut off or added; mostly within the header."""
    data = bytearray(_model_files()[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, min(600, len(data)) - 1), st.integers(0, len(data) - 1)))
        part = draw(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"\0" * 8, b"\xff" * 8])))
        data[at : at + len(part)] = part
    length = draw(st.one_of(st.just(len(data)), st.integers(0, len(data)), st.integers(0, 700)))
    return bytes(data[:length]) + draw(st.sampled_from([b"", b"\0", b"more"]))


def refused_or_read(read: Callable[[Path], object], name: str, content: bytes) -> None:
    """Reads a file; only ValueError may be raised, and it names the file."""
    path = _folder() / f"drawn-{name}"
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        if path.name not in str(error):
            raise AssertionError(f"the message does not name the file: {error}") from error


def check_attention(data: st.DataObject) -> None:
    """Attention of drawn shapes, strides and values on the library, against the reference."""
    draw = data.draw
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    batch, heads, dim, tokens = (draw(st.integers(*ends)) for ends in ((0, 2), (1, 3), (1, 40), (0, 40)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    wide = torch.randn(3, batch, tokens, heads, dim + draw(st.integers(0, 2)), generator=generator)
    special = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), wide.shape, generator=generator)]
    wide = torch.where(torch.rand(wide.shape, generator=generator) < draw(st.sampled_from([0, 0.05, 1])), special, wide)
    q, k, v = wide.to(dtype)[..., :dim].transpose(2, 3).unbind(0)
    n, pattern = draw(st.integers(0, tokens)), draw(st.sampled_from(fk.PATTERNS))
    results = [fk.attention(q, k, v, n, pattern, scale=0.3, backend=backend) for backend in ("cpp", "reference")]
    torch.testing.assert_close(*(result.float() for result in results), rtol=DTYPES[dtype], atol=30 * DTYPES[dtype])


def check_linear(data: st.DataObject) -> None:
    """A linear layer of drawn sizes on the library, against the reference."""
    rows, inputs, outputs = (data.draw(st.integers(*ends)) for ends in ((0, 70), (1, 70), (1, 70)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    sizes = ((rows, inputs), (outputs, inputs), (outputs,))
    x, weight, bias = (torch.randn(size, generator=generator) for size in sizes)
    results = [fk.linear(x, weight, bias, backend=backend) for backend in ("cpp", "reference")]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)


def check_orientation(data: st.DataObject) -> None:
    """The orientation in a drawn JPEG's head is a number of two bytes."""
    if not 0 <= (found := exif_orientation(b"\xff\xd8" + data.draw(text))) < 2**16:
        raise AssertionError(f"orientation {found}")


TARGETS: dict[str, Callable[[st.DataObject], None]] = {
    "attention": check_attention,
    "linear": check_linear,
    "packed": lambda data: refused_or_read(fk.frame.load, "a.fermt", data.draw(damaged("model.fermt"))),
    "weights": lambda data: refused_or_read(checkpoints.load, "a.safetensors", data.draw(damaged("model.safetensors"))),
    "pickled": lambda data: refused_or_read(checkpoints.read_pickled, "a.pt", data.draw(text)),
    "starts": lambda data: refused_or_read(read_starts, "a.csv", data.draw(text)),
    "boxes": lambda data: refused_or_read(read_boxes, "a.txt", data.draw(text)),
    "flags": lambda data: refused_or_read(lambda path: read_flags(path, 2), "a.label", data.draw(text)),
    "names": lambda data: refused_or_read(read_names, "names.txt", data.draw(text)),
    "json": lambda data: refused_or_read(read_json, "a.json", data.draw(text)),
    "container": lambda data: refused_or_read(lambda p: (is_cut_off(p), counts_exactly(p)), "a.mp4", data.draw(text)),
    "orientation": check_orientation,
}


def fuzz(name: str, examples: int, number: int) -> int:
    """Runs a target on drawn inputs and returns how many it took; raises with the smallest that fails."""
    taken = 0

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck),
              phases=(Phase.generate, Phase.shrink))  # fmt: skip
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal taken
        taken += 1
        TARGETS[name](data)

    run()
    return taken


def main(seconds: float) -> None:
    """Runs all targets in rounds with new seeds until the time is over."""
    ends, number, counts = time.monotonic() + seconds, int(time.time()), dict.fromkeys(TARGETS, 0)
    print(f"seed {number}", flush=True)
    while time.monotonic() < ends:
        for name in TARGETS:
            counts[name] += fuzz(name, EXAMPLES, number)
            if time.monotonic() >= ends:
                break
        number += 1
    print(f"{sum(counts.values())} inputs: {', '.join(f'{name} {count}' for name, count in counts.items())}")


if __name__ == "__main__":
    main(float(sys.argv[1]))
