"""What a frame's calls check, and what they hand to the compiled library, which a stand-in replaces here."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.cpp import abi, library
from fermt_kernels.frame import peak

from .support.errors import refused
from .support.packed import small_model

CACHE, WORKSPACE, CHANNELS, GRID, DIM = 192, 4096, {"center": 5, "corner": 2}, 4, 32
TEMPLATE, SEARCH = (16, 16, 3), (32, 32, 3)


class StandIn:
    """Answers as the library would, and remembers what it was given."""

    isa, parallel_for = "stand-in", 7

    def __init__(self) -> None:
        self.queries: list[tuple[str, dict[str, int]]] = []
        self.calls: list[dict[str, Any]] = []
        self.map_channels, self.clock = 5, 0.0

    def query(self, name: str, **fields: int) -> dict[str, Any]:
        abi.LAYOUTS[name].pack(abi.LAYOUTS[name].zeros() | fields)
        self.queries.append((name, fields))
        if name == "fermt_fma_peak":
            self.clock += fields["iterations"] * 1e-6
            return fields | {"operations": 1000 * fields["threads"] * fields["iterations"]}
        sizes = {"cache_bytes": CACHE, "workspace_bytes": WORKSPACE * fields["batch"], "dim": DIM, "grid": GRID}
        return abi.LAYOUTS[name].zeros() | fields | sizes | {"map_channels": self.map_channels}

    def call(self, name: str, **fields: Any) -> None:
        abi.LAYOUTS[name].pack(fields | {"parallel_for": self.parallel_for})
        batch, workspace = fields["batch"], fields["workspace"]
        assert fields["cache_bytes"] == CACHE
        assert fields["workspace_bytes"] >= WORKSPACE * batch
        assert not any(fields.get(field, 0) % 64 for field in ("model", "workspace", "maps", "tokens"))
        crops, caches = ((ctypes.c_uint64 * batch).from_address(fields[name])[:] for name in ("crops", "caches"))
        assert not any(address % 64 for address in caches)
        size = {"fermt_encode_template": TEMPLATE, "fermt_track_frame": SEARCH}[name]
        seen = [ctypes.string_at(address, torch.Size(size).numel()) for address in crops]
        if "maps" in fields:
            maps = (ctypes.c_float * (batch * self.map_channels * GRID**2)).from_address(fields["maps"])
            maps[:] = range(len(maps))
            cached = [ctypes.string_at(address, CACHE) for address in caches]
            self.calls.append({"crops": seen, "caches": cached, "tokens": fields["tokens"], "workspace": workspace})
        else:
            for i, address in enumerate(caches):
                ctypes.memset(address, i + 1, CACHE)
            self.calls.append({"crops": seen})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(library, "load", lambda: made)
    return made


@pytest.fixture(scope="module")
def center() -> fk.frame.PackedModel:
    return fk.frame.pack(small_model("center"))


def draw(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


def raw(tensor: Tensor) -> list[bytes]:
    return [bytes(row.flatten().tolist()) for row in tensor]


def unaligned(tensor: Tensor) -> Tensor:
    return torch.cat((tensor.new_zeros(1), tensor.flatten()))[1:].view(tensor.shape)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels first": lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "a window": lambda x: torch.nn.functional.pad(x, (0, 0, 3, 3))[:, :, 3:-3],
    "unaligned": unaligned,
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_templates_of_any_layout_reach_the_library(
    center: fk.frame.PackedModel, stand_in: StandIn, layout: str
) -> None:
    crops = LAYOUTS[layout](draw(2, *TEMPLATE))
    caches = fk.frame.encode_template(center, crops)
    assert stand_in.calls == [{"crops": raw(crops)}]
    assert torch.equal(caches, torch.tensor([[1], [2]], dtype=torch.uint8).expand(2, CACHE))
    assert fk.frame.encode_template(center, crops[0]).shape == (1, CACHE)


def test_caches_may_be_rows_of_different_templates(center: fk.frame.PackedModel, stand_in: StandIn) -> None:
    crops, caches = draw(3, *SEARCH), draw(3, CACHE)
    for given in (
        caches,
        unaligned(caches),
        torch.nn.functional.pad(caches, (1, 1))[:, 1:-1],
        list(caches),
        tuple(cache[None] for cache in caches),
        [caches[0], unaligned(caches[1]), caches[2].repeat_interleave(2)[::2]],
    ):
        fk.frame.track_frame(center, given, crops)
        assert stand_in.calls.pop()["caches"] == raw(caches)


def test_the_maps_are_as_the_head_gives_them(center: fk.frame.PackedModel, stand_in: StandIn) -> None:
    caches, crops = draw(2, CACHE), draw(2, *SEARCH)
    numbers = torch.arange(2.0 * 5 * 16).view(2, 5, 4, 4)
    maps = fk.frame.track_frame(center, caches, crops)
    assert list(maps) == ["score_map", "size_map", "offset_map"]
    assert torch.equal(torch.cat(list(maps.values()), dim=1), numbers)
    assert stand_in.calls.pop()["tokens"] == 0
    with_tokens = fk.frame.track_frame(center, caches, crops, tokens=True)
    assert with_tokens["tokens"].shape == (2, 16, 32)
    assert stand_in.calls.pop()["tokens"] == with_tokens["tokens"].data_ptr()
    stand_in.map_channels = 2
    corner = fk.frame.track_frame(fk.frame.pack(small_model("corner")), caches, crops)
    assert list(corner) == ["prob_tl", "prob_br"]
    assert torch.equal(torch.stack(list(corner.values()), dim=1), torch.arange(64.0).view(2, 2, 16))


def test_a_workspace_grows_and_is_used_again(center: fk.frame.PackedModel, stand_in: StandIn) -> None:
    workspace = fk.frame.Workspace()
    places = []
    for batch in (2, 1, 2, 3):
        fk.frame.track_frame(center, draw(batch, CACHE), draw(batch, *SEARCH), workspace=workspace)
        places.append(stand_in.calls.pop()["workspace"])
    assert places[0] == places[1] == places[2]
    assert workspace.nbytes == 3 * WORKSPACE


def test_sizes_are_asked_for_once(stand_in: StandIn) -> None:
    packed = fk.frame.pack(small_model("center"))
    for batch in (1, 2, 1, 2):
        fk.frame.encode_template(packed, draw(batch, *TEMPLATE))
    asked = {"model": packed.blob.data_ptr(), "model_bytes": packed.nbytes, "verify": 0}
    assert stand_in.queries == [("fermt_frame_info", asked | {"batch": batch}) for batch in (1, 2)]
    stand_in.isa = "another"
    fk.frame.encode_template(packed, draw(1, *TEMPLATE))
    assert len(stand_in.queries) == 3


@pytest.mark.parametrize(
    ("crops", "error", "values"),
    [
        (draw(1, *TEMPLATE).numpy(), TypeError, ("crops", "(B, 16, 16, 3)", "ndarray")),
        (torch.zeros(1, *TEMPLATE), TypeError, ("crops", "uint8", "torch.float32")),
        (draw(1, *SEARCH), ValueError, ("crops", "(B, 16, 16, 3)", "(1, 32, 32, 3)")),
        (draw(1, 3, 16, 16), ValueError, ("crops", "(1, 3, 16, 16)")),
        (draw(0, *TEMPLATE), ValueError, ("crops", "(0, 16, 16, 3)")),
        (draw(16, 16), ValueError, ("crops", "(16, 16)")),
        (torch.zeros(TEMPLATE, dtype=torch.uint8, device="meta"), ValueError, ("crops", "meta")),
    ],
)
def test_crops_that_are_refused(
    center: fk.frame.PackedModel, stand_in: StandIn, crops: Any, error: type[Exception], values: tuple[object, ...]
) -> None:
    with refused(error, "encode_template", *values):
        fk.frame.encode_template(center, crops)
    assert not stand_in.calls


@pytest.mark.parametrize(
    ("caches", "error", "values"),
    [
        (draw(1, CACHE), ValueError, ("(2, 192)", "2 targets", "(1, 192)")),
        (draw(2, CACHE + 64), ValueError, ("(2, 192)", "(2, 256)")),
        (torch.zeros(2, CACHE), TypeError, ("uint8", "torch.float32")),
        (torch.zeros(2, CACHE, dtype=torch.uint8, device="meta"), ValueError, ("meta",)),
        ([draw(CACHE)], ValueError, ("caches", 2, 1)),
        ([draw(CACHE), draw(2, CACHE)], ValueError, ("(192,)", "(1, 192)", "(2, 192)")),
        ([draw(CACHE), None], TypeError, ("uint8", "NoneType")),
        (None, TypeError, ("caches", "NoneType")),
        ("no", TypeError, ("caches", "str")),
    ],
)
def test_caches_that_are_refused(
    center: fk.frame.PackedModel, stand_in: StandIn, caches: Any, error: type[Exception], values: tuple[object, ...]
) -> None:
    with refused(error, "track_frame", *values):
        fk.frame.track_frame(center, caches, draw(2, *SEARCH))
    assert not stand_in.calls


@pytest.mark.parametrize("bgr", [False, True])
def test_search_regions_are_cut_out_of_an_image(center: fk.frame.PackedModel, stand_in: StandIn, bgr: bool) -> None:
    caches, image, window = draw(2, CACHE), draw(30, 40, 3), torch.rand(4, 4)
    squares = torch.tensor([[-5, 3, 20], [20, 10, 41]])
    workspace = fk.frame.Workspace()
    boxes = fk.frame.track_image(center, caches, image, squares, bgr=bgr, workspace=workspace, window=window)
    crops = fk.reference.crop(image, squares, 32)
    assert stand_in.calls[0]["crops"] == raw(crops.flip(3) if bgr else crops)
    assert stand_in.calls[0]["caches"] == raw(caches)
    maps = fk.frame.track_frame(center, caches, crops)
    assert torch.equal(boxes, fk.frame.decode(maps, window))


def test_other_arguments_that_are_refused(center: fk.frame.PackedModel, stand_in: StandIn) -> None:
    with refused(TypeError, "packed", "FERMT"):
        fk.frame.encode_template(small_model("center"), draw(*TEMPLATE))
    with refused(TypeError, "workspace", "Workspace", "Tensor"):
        fk.frame.encode_template(center, draw(*TEMPLATE), workspace=draw(WORKSPACE))
    with refused(TypeError, "torch.float32, torch.bfloat16", "torch.float64"):
        fk.frame.peak_flops(torch.float64)


def test_without_the_library_the_reason_is_given(center: fk.frame.PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_open", lambda: "the reason")
    with refused(RuntimeError, "the reason"):
        fk.frame.encode_template(center, draw(*TEMPLATE))


def test_the_peak_is_operations_over_seconds(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "time", SimpleNamespace(perf_counter=lambda: stand_in.clock))
    threads = torch.get_num_threads()
    assert fk.frame.peak_flops(torch.bfloat16) == pytest.approx(1e9 * threads)
    name, fields = stand_in.queries[-1]
    iterations = fields["iterations"]
    assert (name, fields) == (
        "fermt_fma_peak",
        {"parallel_for": 7, "dtype": 1, "threads": threads, "iterations": iterations},
    )
    assert iterations * 1e-6 == pytest.approx(peak.PEAK_SECONDS, rel=1e-3)


def test_a_query_returns_what_the_library_wrote() -> None:
    layout = abi.LAYOUTS["fermt_frame_info"]

    @ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
    def fill_in(address: int) -> int:
        fields = (ctypes.c_int64 * 14).from_address(address)
        assert fields[:5] == [layout.size, 64, 128, 1, 3]
        fields[5:14] = range(1, 10)
        (ctypes.c_double * 2).from_address(address + 14 * 8)[:] = (10.5, 11.5)
        return 0

    loaded = object.__new__(library.Library)
    loaded._kernels = {"fermt_frame_info": (fill_in, layout)}
    answer = loaded.query("fermt_frame_info", model=64, model_bytes=128, verify=1, batch=3)
    assert next(iter(answer)) == "struct_size"
    assert list(answer.values())[5:] == [*range(1, 10), 10.5, 11.5]
    with pytest.raises(TypeError, match="batches"):
        loaded.query("fermt_frame_info", model=64, model_bytes=128, verify=1, batches=3)
