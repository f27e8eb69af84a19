"""Counts bytes and operations of the ops and of a frame's launches, and the least time that a GPU needs for them.

The work of a launch is counted from its arguments. Bytes are those of each region of a tensor that it reads or writes,
once. Operations are those of the model: what programs compute again because they share rows is counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from fermt_kernels.patterns import score_pairs
from fermt_kernels.triton.launch import Launch

from ..cases import DIM, AttentionCase, OpCase, UnitCase

FLOAT_BYTES = 4  # bytes of the residual stream, biases, maps and boxes
RESULT_NUMBERS = 5  # numbers of a result


class Work(NamedTuple):
    """Bytes to and from memory, each tensor once; floating-point operations of matrix products; exponentials."""

    bytes: float
    flops: float
    exponentials: float


class Ceilings(NamedTuple):
    """The peak rates of a machine, per second, and where the numbers are from."""

    bytes: float
    flops: float
    exponentials: float
    origin: str

    def floor(self, work: Work) -> tuple[float, str]:
        """Seconds that the tightest of the three takes, and its name."""
        times = {
            "memory": work.bytes / self.bytes,
            "products": work.flops / self.flops,
            "exponentials": work.exponentials / self.exponentials,
        }
        name = max(times, key=lambda key: times[key])
        return times[name], name


# NVIDIA's data sheet of the H200 SXM: 4.8 TB/s, 989 TFLOP/s dense bfloat16; 132 multiprocessors with 16 exponentials a
# clock each at 1.83 GHz.
H200 = Ceilings(4.8e12, 989e12, 132 * 16 * 1.83e9, "data sheet of the H200")


def attention_work(case: AttentionCase, dtype: torch.dtype, both: bool) -> Work:
    """Forward: Q K^T and P V. Backward recomputes the first, and has four products more."""
    pairs = score_pairs(case.pattern, case.n, case.tokens) * case.batch * case.heads
    tokens, size = case.batch * case.tokens, dtype.itemsize
    lse = 4 * tokens * case.heads
    forward = Work(4 * tokens * DIM * size + lse, 4 * pairs * (DIM // case.heads), pairs)
    if not both:
        return forward
    backward = Work(8 * tokens * DIM * size + lse, 10 * pairs * (DIM // case.heads), pairs)
    return Work(*(a + b for a, b in zip(forward, backward, strict=True)))


def unit_work(case: UnitCase, dtype: torch.dtype, both: bool) -> Work:
    """Reads x, writes the output. Backward reads x and the gradient, writes one, recomputes, has twice the products.

    The exponentials are GELU's, and in backward its derivative's too.
    """
    values = 3 * case.batch * case.size**2
    forward = Work(2 * values * dtype.itemsize, 2 * values * (3 * 3 + 2 * 25), values)
    backward = Work(3 * values * dtype.itemsize, 3 * forward.flops, 2 * values)
    return Work(*(a + b for a, b in zip(forward, backward, strict=True))) if both else forward


def op_work(case: OpCase, dtype: torch.dtype, both: bool) -> Work:
    """The work of an op's forward pass, or of both passes."""
    if isinstance(case, AttentionCase):
        return attention_work(case, dtype, both)
    if isinstance(case, UnitCase):
        return unit_work(case, dtype, both)
    raise TypeError(f"work is counted of attention and the Dual Attention Unit, got {case!r}")


class Counted(NamedTuple):
    """A launch's kernel, its sizes in words, its work, and the FLOPs that its programs repeat, beyond the model's."""

    kernel: str
    shape: str
    work: Work
    repeated: float = 0


class _Reader:
    """A launch's numbers and tensors by name."""

    def __init__(self, launch: Launch) -> None:
        self.values = launch.arguments | launch.constants

    def numbers(self, *names: str) -> tuple[int, ...]:
        return tuple(int(self.values[name]) for name in names)

    def tensor(self, name: str) -> Tensor:
        return self.values[f"{name}_ptr"]

    def size(self, name: str) -> int:
        """Bytes of one of the tensor's values."""
        return self.tensor(name).element_size()

    def parameters(self) -> int:
        """Bytes of all weights and biases."""
        names = (name for name in self.values if name.endswith(("weight_ptr", "bias_ptr")))
        return sum(self.values[name].nbytes for name in names)


Count = tuple[str, Work, float]  # what `Counted` has after the kernel's name


def _activation(r: _Reader) -> Count:
    x, (channels, plane, tiles) = r.tensor("x"), r.numbers("CHANNELS", "plane", "tiles")
    batch, values = x.shape[0], x.numel()
    moved = values * x.element_size() + FLOAT_BYTES * batch * channels * (plane + tiles) + r.parameters()
    return _image(x), Work(moved, 2 * values * channels, values), 0


def _depthwise(r: _Reader) -> Count:
    channels, plane, tiles, height, width = r.numbers("CHANNELS", "plane", "tiles", "height", "width")
    size, hidden = r.numbers("SIZE", "HIDDEN")
    gate = r.tensor("gate")
    batch = gate.shape[0]
    moved = FLOAT_BYTES * batch * channels * (2 * plane + tiles) + 2 * gate.nbytes + r.parameters()
    flops = 2 * batch * channels * (height * width * size**2 + 2 * hidden)
    return f"{batch} x {channels} x {height} x {width}", Work(moved, flops, gate.numel()), 0


def _output(r: _Reader) -> Count:
    x, out, gate = r.tensor("x"), r.tensor("out"), r.tensor("gate")
    channels, plane, size = r.numbers("CHANNELS", "plane", "SIZE")
    values = x.numel()
    planes = FLOAT_BYTES * (x.shape[0] * channels * plane + values)  # a with its margins, u without
    moved = values * (x.element_size() + out.element_size()) + planes + gate.nbytes + r.parameters()
    return _image(x), Work(moved, 2 * values * (2 * channels + size**2), 0), 0


def _image(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))


def _embedding(r: _Reader) -> Count:
    rows, count, patch, dim = r.numbers("rows", "count", "PATCH", "DIM")
    inputs = 3 * patch**2
    moved = rows * (inputs * r.size("image") + FLOAT_BYTES * dim) + FLOAT_BYTES * count * dim + r.parameters()
    return f"{rows} rows, {inputs} to {dim}", Work(moved, 2 * rows * inputs * dim, 0), 0


def _norm_linear(r: _Reader) -> Count:
    rows, dim, outputs, parts = r.numbers("rows", "DIM", "OUTPUTS", "PARTS")
    streams = parts + (parts > 1)  # the sum of several is also written
    moved = rows * (FLOAT_BYTES * streams * dim + outputs * r.size("out")) + r.parameters()
    exponentials = rows * outputs * r.values["ACTIVATED"]
    return _rows(rows, dim, outputs, parts), Work(moved, 2 * rows * dim * outputs, exponentials), 0


def _rows(rows: int, inputs: int, outputs: int, parts: int) -> str:
    return f"{rows} rows, {inputs} to {outputs}" + (f", stream in {parts} parts" if parts > 1 else "")


def _attention(r: _Reader) -> Count:
    q = r.tensor("q")
    (batch, heads, queries, dim), (template,) = q.shape, r.numbers("num_template")
    spans = r.values["spans"]
    seen = {(count, spans[i], spans[i + 1]) for i, count in ((0, template), (2, queries - template)) if count}
    keys = {key for _, start, stop in seen for key in range(start, stop)}
    pairs = batch * heads * sum(count * (stop - start) for count, start, stop in seen)
    moved = batch * heads * (2 * (queries + len(keys)) * dim * q.element_size() + FLOAT_BYTES * queries)
    shape = f"{batch * heads} heads, " + " + ".join(f"{n} see {stop - start}" for n, start, stop in sorted(seen))
    return shape, Work(moved, 4 * pairs * dim, pairs), 0


def _linear(r: _Reader) -> Count:
    rows, inputs, outputs = r.numbers("rows", "INPUTS", "OUTPUTS")
    moved = rows * (inputs * r.size("input") + 2 * FLOAT_BYTES * outputs) + r.parameters()
    return _rows(rows, inputs, outputs, 1), Work(moved, 2 * rows * inputs * outputs, 0), 0


def _mlp(r: _Reader) -> Count:
    rows, dim, hidden, share = r.numbers("rows", "DIM", "HIDDEN", "SHARE")
    parts = -(-hidden // share)
    moved = FLOAT_BYTES * rows * dim * (1 + parts) + r.parameters()
    return f"{_rows(rows, dim, hidden, 1)} and back", Work(moved, 4 * rows * dim * hidden, rows * hidden), 0


def _proj_mlp(r: _Reader) -> Count:
    (shape, work, _), (rows, dim, hidden, share) = _mlp(r), r.numbers("rows", "DIM", "HIDDEN", "SHARE")
    proj, parts = 2 * rows * dim**2, -(-hidden // share)
    moved = work.bytes + rows * dim * r.size("heads")
    return f"{shape}, {parts} parts", Work(moved, work.flops + proj, work.exponentials), (parts - 1) * proj


def _norm(r: _Reader) -> Count:
    rows, dim, parts = r.numbers("rows", "DIM", "PARTS")
    moved = rows * dim * (FLOAT_BYTES * parts + r.size("out")) + r.parameters()
    return _rows(rows, dim, dim, parts), Work(moved, 0, 0), 0


def _reweight(r: _Reader) -> Count:
    template, search = r.tensor("template"), r.tensor("search")
    moved = template.nbytes + 2 * search.nbytes
    return f"{prod(search.shape[:-1])} rows of {search.shape[-1]}", Work(moved, 2 * search.numel(), 0), 0


def _convolution(r: _Reader) -> Count:
    rows, groups, inputs, outputs = r.numbers("rows", "groups", "INPUTS", "OUTPUTS")
    width = r.numbers("input_width")[0]
    moved = rows * (width * r.size("input") + groups * outputs * r.size("out")) + r.parameters()
    return _filters(rows, groups, inputs, outputs), Work(moved, 2 * rows * groups * 9 * inputs * outputs, 0), 0


def _filters(rows: int, groups: int, inputs: int, outputs: int) -> str:
    return f"{rows} cells, " + (f"{groups} times " if groups > 1 else "") + f"9 x {inputs} to {outputs}"


def _maps(r: _Reader) -> Count:
    rows, width, inputs, outputs, maps = r.numbers("rows", "input_width", "INPUTS", "OUTPUTS", "maps")
    groups, table = r.tensor("weight").shape[0], r.tensor("output_table")
    sigmoids = int(((table[..., 0] >= 0) & (table[..., 1] > 0)).sum()) if r.values["APPLY_SIGMOID"] else 0
    moved = rows * (width * r.size("input") + FLOAT_BYTES * maps) + table.nbytes + r.parameters()
    flops = 2 * rows * outputs * (groups * 9 * inputs + maps)
    return f"{_filters(rows, groups, inputs, outputs)} to {maps} maps", Work(moved, flops, rows * sigmoids), 0


def _center_box(r: _Reader) -> Count:
    maps = r.tensor("maps")
    batch, _, height, width = maps.shape
    moved = FLOAT_BYTES * (batch * (height * width + RESULT_NUMBERS - 1 + RESULT_NUMBERS) + r.tensor("window").numel())
    return f"{batch} samples", Work(moved, 0, 0), 0


def _corner_box(r: _Reader) -> Count:
    maps = r.tensor("maps")
    moved = 2 * maps.nbytes + FLOAT_BYTES * RESULT_NUMBERS * maps.shape[0]
    return f"{maps.shape[0]} samples", Work(moved, 0, maps.numel()), 0


COUNTS: dict[str, Callable[[_Reader], Count]] = {
    "activation_kernel": _activation,
    "depthwise_kernel": _depthwise,
    "output_kernel": _output,
    "embedding_kernel": _embedding,
    "norm_linear_kernel": _norm_linear,
    "attention_forward_kernel": _attention,
    "linear_kernel": _linear,
    "mlp_kernel": _mlp,
    "proj_mlp_kernel": _proj_mlp,
    "norm_kernel": _norm,
    "reweight_kernel": _reweight,
    "convolution_kernel": _convolution,
    "maps_kernel": _maps,
    "center_box_kernel": _center_box,
    "corner_box_kernel": _corner_box,
}


def counted(launch: Launch) -> Counted:
    """The work of one launch of a frame."""
    name = launch.kernel.fn.__name__
    return Counted(name, *COUNTS[name](_Reader(launch)))


def joined(launches: Iterable[Launch]) -> Counter[Counted]:
    """How many launches there are of each kernel and size, in the order in which they come first."""
    return Counter(map(counted, launches))


def total(kinds: Counter[Counted]) -> Work:
    """The sum over all launches."""
    works = [[number * count for number in kind.work] for kind, count in kinds.items()]
    return Work(*map(sum, zip(*works, strict=True)))
