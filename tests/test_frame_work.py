"""The counted work of a frame's launches on a GPU, against closed forms that share nothing with it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed here", allow_module_level=True)

import torch

import fermt
import fermt_kernels as fk
from benchmarks.gpu import plan
from benchmarks.gpu.work import Counted, joined, total
from fermt.flops import frame_macs
from fermt_kernels import triton as triton_backend
from fermt_kernels.frame.fold import fold
from fermt_kernels.frame.pack import for_device
from fermt_kernels.triton.frame_tiles import FEW
from fermt_kernels.triton.launch import recording

N, M, C, HIDDEN = 64, 256, 192, 768
# In units of C^2 MACs, what a frame's launches do beyond `frame_macs`, and what they leave out, as they project q, k
# and v of a row together:
#   - the template's before the first layer that mixes it with the search region is cached with all that precedes it;
#   - where nothing reads the search region's keys and values, or the template's queries, they are there all the same.
CACHED, UNREAD_KEYS, UNREAD_QUERY = -3 * N, 2 * M, N
CASES = {
    "fermt": ({}, CACHED + UNREAD_KEYS + UNREAD_QUERY),
    "fermt, no DAU": ({"dau": False}, CACHED + UNREAD_KEYS + UNREAD_QUERY),
    "fermt-corner": ({}, CACHED + UNREAD_KEYS + UNREAD_QUERY),
    "fermt-corner, reweight": ({"reweight": True}, CACHED),
    "a3a5": ({}, CACHED + UNREAD_KEYS + UNREAD_QUERY),
    "a1a4": ({}, 6 * UNREAD_KEYS),  # its template never sees the search region: all of it is cached
}


@cache
def model(name: str) -> fermt.FERMT:
    return fermt.build_model(name.split(",")[0], **CASES[name][0]).eval()


@cache
def packed(name: str, dtype: torch.dtype) -> fk.frame.CudaPackedModel:
    return for_device(fold(model(name)), dtype, torch.device("cpu"))


def kinds(found: fk.frame.CudaPackedModel, batch: int) -> dict[Counted, int]:
    frame = triton_backend.make_frame(found.weights, found.sizes, batch)
    with recording() as launches:
        frame.track()
    return joined(launches)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("batch", [1, 128])
def test_products_are_the_models(name: str, dtype: torch.dtype, batch: int) -> None:
    macs = frame_macs(model(name).config) + CASES[name][1] * C * C
    assert total(kinds(packed(name, dtype), batch)).flops == 2 * batch * macs


@pytest.mark.parametrize(("dtype", "counts"), [(torch.bfloat16, {1: 46, 128: 58}), (torch.float32, {1: 70, 128: 70})])
def test_the_number_of_launches(dtype: torch.dtype, counts: dict[int, int]) -> None:
    found = packed("fermt", dtype)
    assert {batch: sum(kinds(found, batch).values()) for batch in counts} == counts


def test_exponentials_of_a_frame() -> None:
    soft_max = 12 * (6 * M * (N + M) + 5 * 2 * M * N + M * N)
    gelu = (12 * M + 5 * N) * HIDDEN + 3 * 256 * 256
    assert total(kinds(packed("fermt", torch.bfloat16), 2)).exponentials == 2 * (soft_max + gelu + 3 + 3 * M)
    corners = total(kinds(packed("fermt-corner", torch.bfloat16), 2)).exponentials
    assert corners == 2 * (soft_max + gelu + 3 + 2 * M)


def test_weights_are_read_once() -> None:
    """Bytes are a sum of what every sample moves and what is moved once: parameters, positions and the window."""
    for dtype in (torch.bfloat16, torch.float32):
        found = packed("fermt", dtype)
        one, two = (total(kinds(found, batch)).bytes for batch in (1, 2))
        weights = found.weights
        linears = [weights.embedding, weights.norm, *weights.convolutions, weights.last]
        linears += [linear for layer in weights.layers for linear in layer]
        tensors = [tensor for linear in linears for tensor in linear]
        tensors += [*weights.unit, weights.search_positions, weights.output_table, torch.ones(16, 16)]
        assert 2 * one - two == sum(tensor.nbytes for tensor in tensors)


PARTS = FEW[2].layer["proj_mlp"].shares


def test_bytes_by_hand() -> None:
    """In bfloat16 at batch 1: a stream in parts comes in, is written whole, and leaves in parts."""
    bytes_of = {(kind.kernel, kind.shape): kind.work.bytes for kind in kinds(packed("fermt", torch.bfloat16), 1)}
    qkv = 4 * (PARTS + 1) * M * C + 2 * M * 3 * C + (2 * C + 4) * 3 * C
    assert bytes_of["norm_linear_kernel", f"256 rows, 192 to 576, stream in {PARTS} parts"] == qkv
    layer = 2 * M * C + 4 * (1 + PARTS) * M * C + 2 * (C * C + 2 * C * HIDDEN) + 4 * (2 * C + HIDDEN)
    assert bytes_of["proj_mlp_kernel", f"256 rows, 192 to 768 and back, {PARTS} parts"] == layer
    mixed = 12 * (2 * (2 * M + 2 * (N + M)) * 16 + 4 * M)
    assert bytes_of["attention_forward_kernel", "12 heads, 256 see 320"] == mixed
    cross = 12 * (2 * (2 + 2) * (N + M) * 16 + 4 * (N + M))
    assert bytes_of["attention_forward_kernel", "12 heads, 64 see 256 + 256 see 64"] == cross


def test_repeated_work_is_apart() -> None:
    few, many = (kinds(packed("fermt", torch.bfloat16), batch) for batch in (1, 128))
    repeated = {batch: sum(kind.repeated * count for kind, count in k.items()) for batch, k in ((1, few), (128, many))}
    assert repeated == {1: (PARTS - 1) * 2 * (12 * M + 5 * N) * C * C, 128: 0}


def test_the_printed_plan() -> None:
    text = plan.estimate()
    assert "B = 1: 46 launches" in text
    assert "B = 128: 58 launches" in text
    for kernel in ("proj_mlp_kernel", "mlp_kernel", "center_box_kernel", "depthwise_kernel"):
        assert f"| {kernel} |" in text
    assert text.count("| all |") == 2
