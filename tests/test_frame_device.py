"""A frame on a GPU where there is none: which rows it computes, its launches, its weights."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest
import torch

import fermt
import fermt_kernels as fk
from fermt_kernels import triton as triton_backend
from fermt_kernels.frame import MEAN, STD
from fermt_kernels.frame.fold import fold
from fermt_kernels.frame.pack import for_device
from fermt_kernels.triton.frame_weights import FrameSizes
from fermt_kernels.triton.launch import Launch, recording

from .support.packed import small_model

CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed here")

# Whom the template's queries see, and the search region's: t and s for their keys.
SEEN = {
    "self": ("t", "s"),
    "mixed": ("t", "ts"),
    "full": ("ts", "ts"),
    "one_way_cross": ("", "t"),
    "cross": ("s", "t"),
}
PLANS = {  # patterns, reweight, and the last cached layer and last template layer that follow
    "the model": (fermt.CONFIGS["fermt"].patterns, False, 6, 11),
    "all mixed": (("mixed",) * 3, False, 2, 2),
    "all mixed, reweight": (("mixed",) * 3, True, 2, 3),
    "never read": (("self", "self"), False, 0, -1),
    "read by reweight alone": (("self", "self"), True, 1, 2),
    "read at once": (("full", "mixed", "self"), False, 0, 1),
    "one_way_cross": (("one_way_cross", "mixed", "one_way_cross"), False, 2, 2),
    "a prefix": (("self", "mixed", "cross", "mixed", "self"), False, 2, 3),
    "read last before it changes": (("mixed", "self", "cross", "self"), False, 2, 2),
    "changed, never read again": (("mixed", "full", "self"), False, 1, 1),
    "every pattern": (fk.PATTERNS, False, 2, 4),
    "every pattern, reweight": (fk.PATTERNS, True, 2, 5),
    "one layer": (("full",), False, 0, 0),
    "one layer of its own": (("self",), False, 0, -1),
}
Value = tuple[str, int, str]  # "tokens" before a layer or its "keys" (and queries, values), of t or s


def made_of(patterns: tuple[str, ...]) -> dict[Value, list[Value]]:
    """What each value of a forward pass is computed from."""
    table: dict[Value, list[Value]] = {}
    for layer, pattern in enumerate(patterns):
        for group, seen in zip("ts", SEEN[pattern], strict=True):
            table["keys", layer, group] = [("tokens", layer, group)]
            table["tokens", layer + 1, group] = [
                ("tokens", layer, group),
                ("keys", layer, group),
                *(("keys", layer, each) for each in seen),
            ]
    return table


def reached(table: dict[Value, list[Value]], wanted: list[Value]) -> set[Value]:
    """`wanted`, and all that is needed for them."""
    found: set[Value] = set()
    while wanted:
        if (value := wanted.pop()) not in found:
            found.add(value)
            wanted += table.get(value, [])
    return found


def sizes_of(patterns: tuple[str, ...], reweight: bool) -> FrameSizes:
    return FrameSizes(32, 2, 48, 8, 16, 24, patterns, "center", reweight, 1e-6, 0.25)


@pytest.mark.parametrize("plan", PLANS)
def test_a_frame_computes_what_depends_on_it_and_is_needed(plan: str) -> None:
    patterns, reweight, *numbers = PLANS[plan]
    sizes, table, depth = sizes_of(patterns, reweight), made_of(patterns), len(patterns)
    last = sizes.schedule.last_template_layer
    assert [sizes.last_cached_layer, last] == numbers
    needed = reached(table, [("tokens", depth, "s")] + [("tokens", depth, "t")] * reweight)
    depends = {value for value in table if ("tokens", 0, "s") in reached(table, [value])}
    for layer in range(depth):
        in_a_frame = ("keys", layer, "t") in needed & depends
        kept = ("keys", layer, "t") in needed - depends
        # As `Layers.run` and `Layers.encode` have it. A cache holds one layer at least, read or not.
        assert (sizes.last_cached_layer < layer <= last) == in_a_frame, layer
        assert (layer < sizes.cached_layers) == (kept or layer == 0), layer
    for layer in range(depth):
        after = ("tokens", layer + 1, "t")
        # With nothing but a reweighting to come, the last layer's template rows are computed anew in every frame.
        in_a_frame = after in needed and (after in depends or layer == depth - 1)
        assert (sizes.last_cached_layer <= layer < last) == in_a_frame, layer
    for dtype in (torch.float32, torch.bfloat16):
        assert sizes.cache_bytes(dtype) == 4 * 32 * (4 + 3 * dtype.itemsize * sizes.cached_layers)


# Layers' launches, the embedding with the unit, the last norm, the head's three and one convolutions, the box.
HEAD = {"norm_kernel": 1, "convolution_kernel": 3, "maps_kernel": 1}
UNIT = {"activation_kernel": 1, "depthwise_kernel": 1, "output_kernel": 1, "embedding_kernel": 1}
LAUNCHES = {
    ("fermt", torch.bfloat16, 1): (46, {"norm_linear_kernel": 12, "proj_mlp_kernel": 12}),
    ("fermt", torch.float16, 1): (46, {"norm_linear_kernel": 12, "proj_mlp_kernel": 12}),
    ("fermt", torch.bfloat16, 128): (58, {"norm_linear_kernel": 12, "linear_kernel": 12, "mlp_kernel": 12}),
    ("fermt", torch.float32, 1): (70, {"norm_linear_kernel": 24, "linear_kernel": 24}),
    ("fermt-corner", torch.bfloat16, 1): (46, {"norm_linear_kernel": 12, "proj_mlp_kernel": 12}),
}


def launches_of(packed: fk.frame.CudaPackedModel, batch: int) -> tuple[list[Launch], list[Launch]]:
    """Of a template, and of a frame."""
    with recording() as encoding:
        frame = triton_backend.make_frame(packed.weights.to(torch.device("meta")), packed.sizes, batch)
        frame.encode()
    with recording() as tracking:
        frame.track()
    return encoding, tracking


def by_kernel(launches: list[Launch]) -> Counter:
    return Counter(launch.kernel.fn.__name__ for launch in launches)


@needs_triton
@pytest.mark.parametrize(("name", "dtype", "batch"), LAUNCHES, ids=str)
def test_the_launches_of_a_frame(name: str, dtype: torch.dtype, batch: int) -> None:
    packed = for_device(fold(fermt.build_model(name)), dtype, CPU)
    _, tracking = launches_of(packed, batch)
    total, layers = LAUNCHES[name, dtype, batch]
    depth = len(packed.sizes.patterns)
    expected = Counter(layers) + Counter(HEAD) + Counter(UNIT) + Counter({"attention_forward_kernel": depth})
    expected[f"{packed.head}_box_kernel"] = 1
    assert by_kernel(tracking) == expected
    assert len(tracking) == total


@needs_triton
def test_the_launches_cover_the_rows_that_are_needed() -> None:
    packed = for_device(
        fold(small_model("center", patterns=("self", "mixed", "cross", "mixed", "self"))), torch.float16, CPU
    )
    encoding, tracking = launches_of(packed, 3)
    rows = [
        [
            (each.arguments["first"], each.arguments["rows"])
            for each in launches
            if each.kernel.fn.__name__ == "norm_linear_kernel"
        ]
        for launches in (encoding, tracking)
    ]
    template, search, both = (0, 3 * 4), (4, 3 * 16), (0, 3 * 20)
    assert rows == [[template] * 3, [search, search, search, both, search]]


@pytest.mark.parametrize("head", ["center", "corner"])
def test_a_models_weights(head: str) -> None:
    model = small_model(head)
    packed = for_device(fold(model), torch.bfloat16, CPU)
    weights, branches = packed.weights, {"center": 3, "corner": 2}[head]
    assert repr(packed) == f"CudaPackedModel({head} head, bfloat16, template 16, search 32, cpu)"
    assert [(layer.weight.shape, layer.weight.dtype) for layer in weights.convolutions] == [
        (torch.Size(shape), torch.bfloat16)
        for shape in (
            (1, 9 * 32, branches * 48),
            (branches, 9 * 48, 32),
            (branches, 9 * 32, 16),
            (branches, 9 * 16, 16),
        )
    ]
    for branch, channels, sigmoid in {
        "center": [("ctr", (0, -1), 1), ("offset", (3, 4), 0), ("size", (1, 2), 1)],
        "corner": [("tl", (0, -1), 0), ("br", (1, -1), 0)],
    }[head]:
        group = list(fold(model).head).index(branch)
        assert weights.output_table[group].tolist() == [[channel, sigmoid] for channel in channels]
        own = getattr(model.box_head, f"conv5_{branch}")
        assert torch.equal(weights.last.weight[group, : len(own.weight)], own.weight.flatten(1))
        assert torch.equal(weights.last.bias[group, : len(own.bias)], own.bias)
        assert not weights.last.weight[group, len(own.weight) :].any()
    for tensor in (
        *weights.norm,
        *weights.last,
        weights.search_positions,
        *(layer.fc1.bias for layer in weights.layers),
    ):
        assert tensor.dtype == torch.float32
    assert all(each.weight.is_contiguous() for layer in weights.layers for each in layer)


def test_the_embedding_takes_bytes_where_no_unit_does() -> None:
    pixels = torch.randint(256, (5, 3, 8, 8))
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    normal = (pixels / 255 - mean) / deviation
    for head in ("center", "corner"):
        model = small_model(head)
        weights = for_device(fold(model), torch.float32, CPU).weights
        if head == "center":
            scale, shift = weights.normalize.view(2, 3, 1, 1)
            torch.testing.assert_close(pixels * scale + shift, normal)
            inputs = normal
        else:
            assert weights.normalize is None
            assert weights.unit is None
            inputs = pixels.float()
        expected = model.backbone.patch_embed.proj(normal).flatten(1)
        got = inputs.flatten(1) @ weights.embedding.weight + weights.embedding.bias
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
