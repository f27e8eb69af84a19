"""Block sizes by architecture: which are taken where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed here", allow_module_level=True)

import torch

from fermt_kernels.triton import attention, frame_tiles, measured
from fermt_kernels.triton.launch import Blocks, Overlap, Tiles, Tuning, launch, recording

from .support.errors import refused

BLOCKS, TILES = Blocks(64, 64, Tuning(4, 2)), Tiles(16, 32, 64, Tuning(4, 3), shares=8)
CHOSEN: dict = {("FORWARD", 2, 16): BLOCKS, ("FEW", 2, "proj_mlp"): TILES}
OVERLAP: dict = {("FEW", 2, "overlap"): Overlap(True)}


@pytest.fixture
def on_hopper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of compute capability 9.0 chose these."""
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"90": {"gpu": "a GPU", "entries": measured.written(CHOSEN)}}))
    monkeypatch.setattr(measured, "MEASURED", path)
    measured._measured.cache_clear()
    yield
    measured._measured.cache_clear()


def launched_blocks(arch: int) -> tuple[int, int]:
    q = torch.empty(1, 2, 20, 16, dtype=torch.bfloat16)
    with measured.targeting(arch), recording() as launches:
        attention.attention_forward(q, q, q, q, torch.empty(1, 2, 20), 4, "mixed", 0.25)
    return launches[0].constants["BLOCK_M"], launches[0].constants["BLOCK_N"]


@pytest.mark.usefixtures("on_hopper")
def test_an_architecture_takes_what_was_measured_on_it_and_no_other_does() -> None:
    default = attention.FORWARD[2, 16]
    assert default != BLOCKS
    assert launched_blocks(90) == (BLOCKS.m, BLOCKS.n)
    for arch in (0, 80, 86, 89, 100, 120):
        assert launched_blocks(arch) == (default.m, default.n)
    assert frame_tiles.mode(2, 1, 90) == frame_tiles.FEW[2]._replace(layer={"proj_mlp": TILES})
    assert frame_tiles.mode(2, 1, 80) == frame_tiles.FEW[2]
    assert frame_tiles.mode(2, 1 << 20, 90) == frame_tiles.MANY[2]


@pytest.mark.usefixtures("on_hopper")
def test_replaced_sizes_come_first_and_only_meanwhile() -> None:
    other = Blocks(16, 16, Tuning(4))
    with measured.replacing({("FORWARD", 2, 16): other}):
        assert launched_blocks(90) == (16, 16)
    assert launched_blocks(90) == (BLOCKS.m, BLOCKS.n)


def test_capabilities_between_take_those_below() -> None:
    expected = {75: 0, 80: 80, 86: 86, 87: 86, 89: 89, 90: 90, 100: 100, 103: 100, 120: 120, 121: 120, 0: 0}
    assert {arch: measured.family(arch) for arch in expected} == expected


def test_the_file_of_the_package_is_read_and_written_alike() -> None:
    content = json.loads(measured.MEASURED.read_text())
    for arch, entries in measured.read(content).items():
        assert measured.written(entries) == content[str(arch)]["entries"]
        assert arch in measured.ARCHITECTURES
    assert measured.read({"90": {"entries": measured.written(CHOSEN)}}) == {90: CHOSEN}


def test_candidates_are_other_sizes_of_entries_that_there_are() -> None:
    modes = {"FEW": frame_tiles.FEW, "MANY": frame_tiles.MANY}
    for (table, itemsize, name), listed in measured.CANDIDATES.items():
        sizes = [each.sizes for each in listed]
        if table in modes:
            mode = modes[table][itemsize]
            known = mode._asdict() | mode.layer | {f"attention {dim}": blocks for dim, blocks in mode.attention.items()}
            default = known[name]
        else:
            default = attention.TABLES[table][itemsize, name]
        assert default not in sizes
        assert len(set(sizes)) == len(sizes)
        assert {type(each) for each in sizes} == {type(default)}
        assert all(set(each.archs) <= set(measured.ARCHITECTURES) for each in listed)


def test_layers_overlap_where_that_was_measured_and_a_gpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured.read({"90": {"entries": measured.written(OVERLAP)}}) == {90: OVERLAP}
    with measured.replacing(OVERLAP):
        mode = frame_tiles.mode(2, 1, 90)
        of_layers = [mode.qkv, *mode.attention.values(), *mode.layer.values()]
        assert [each.tuning.dependent for each in of_layers] == [True] * 3
        others = (mode.embedding, mode.norm, mode.convolution, mode.maps)
        assert not any(each.tuning.dependent for each in others)
        few = frame_tiles.FEW[2]
        assert mode.qkv == few.qkv._replace(tuning=few.qkv.tuning._replace(dependent=True))
        for arch in (0, 80, 86, 89):
            assert frame_tiles.mode(2, 1, arch) == few._replace(overlap=Overlap(True))
        assert frame_tiles.mode(2, 1 << 20, 90) == frame_tiles.MANY[2]
        assert frame_tiles.mode(4, 1, 90) == frame_tiles.FEW[4]
        monkeypatch.setattr(frame_tiles, "INTERPRETED", True)
        assert frame_tiles.mode(2, 1, 90) == few._replace(overlap=Overlap(True))
    assert frame_tiles.mode(2, 1, 90) == few
    assert all(arch >= frame_tiles.OLDEST_OVERLAP for arch in measured.CANDIDATES["FEW", 2, "overlap"][0].archs)


def test_a_dependent_launch_of_a_kernel_that_does_not_wait_is_refused() -> None:
    for constants in ({}, {"DEPENDENT": False}):
        with recording() as launches, refused(ValueError, "DEPENDENT", constants):
            launch("a kernel", (1,), {}, constants, Tuning(4, dependent=True))
        assert launches == []
    with recording() as launches:
        launch("a kernel", (1,), {}, {"DEPENDENT": True}, Tuning(4, dependent=True))
    assert launches[0].tuning.options() == {"num_warps": 4, "num_stages": 1, "launch_pdl": True}
    assert Tuning(4).options() == {"num_warps": 4, "num_stages": 1}


def test_what_spills_with_a_newer_triton_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ("MANY", 2, "mlp")
    limited = next(each for each in measured.CANDIDATES[entry] if each.newest < (3, 9))
    for version, taken in (((3, 5), True), ((3, 6), True), ((3, 7), False), ((3, 9), False)):
        monkeypatch.setattr(measured, "VERSION", version)
        assert measured.usable({entry: limited.sizes}) == ({entry: limited.sizes} if taken else {})
        assert limited.fits(90) is taken
