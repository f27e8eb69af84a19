"""The frame's benchmark: the peer that caches its template, the count of a frame, and who gets a number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fermt
from benchmarks.frame_report import TITLES, Bench, Judge, Runner, Scene, in_dtype
from benchmarks.harness import Case
from benchmarks.peers import EAGER, PEERS, Maps, cached_frame, whole_frame
from fermt.export import MAPS, FrameGraph, TemplateGraph, WholeGraph, plain_model
from fermt.flops import count_flops, frame_macs
from fermt_kernels.cpp import library

from .conftest import ROOT
from .support.errors import lacking

MODELS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("fermt", "fermt-corner", "a1", "a1a4", "a3a4", "a3a5", "a2", "a2a5-3-9")},
    "fermt, no DAU": {"dau": False},
    "fermt-corner, reweight": {"reweight": True},
    "a1a4, reweight": {"head": "corner", "reweight": True},
    "fermt, the template read once": {"patterns": ("cross", "mixed", "self")},
}
SMALL: dict[str, Any] = {"patterns": ("mixed", "cross"), "dim": 48, "num_heads": 3}


def build(name: str, **overrides: Any) -> fermt.FERMT:
    """One of `MODELS` with no weight at its special first value, such as a bias of 0."""
    model = fermt.build_model(name.split(",")[0], **(MODELS.get(name, {}) | overrides)).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.02)
    return model


def images(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(1, 3, 128, 128, dtype=dtype), torch.randn(1, 3, 256, 256, dtype=dtype)


@pytest.mark.parametrize("name", MODELS)
def test_a_cached_template_changes_nothing(name: str) -> None:
    model = build(name).double()
    template, search = images(torch.float64)
    encode, cached = TemplateGraph(model), FrameGraph(model)
    with torch.inference_mode():
        maps = dict(zip(cached.outputs, cached(search, *encode(template)), strict=True))
        truth, other = (plain_model(model)(z, search) for z in (template, template + 1))
    for key, value in maps.items():
        torch.testing.assert_close(value, truth[key], rtol=1e-9, atol=1e-9)
        if name != "a1":  # the only one whose search region never sees the template
            assert not torch.allclose(value, other[key], rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize("name", [name for name in MODELS if name != "a3a4"])
def test_torch_counts_the_same_macs(name: str) -> None:
    model = build(name)
    template, search = images()
    encode, cached = TemplateGraph(model), FrameGraph(model)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as encoding:
            cache = encode(template)
        with FlopCounterMode(display=False) as frame:
            cached(search, *cache)
    macs = frame_macs(model.config)
    assert macs == frame.get_total_flops() // 2
    assert frame_macs(model.config, template=True) - macs == encoding.get_total_flops() // 2


def test_macs_of_the_default_frame_by_hand() -> None:
    n, m, c = 64, 256, 192
    mlp, head = 8 * c * c, 3 * m * (c * 256 + 256 * 128 + 128 * 64 + 64 * 32)
    mixed = m * (4 * c * c + mlp) + 2 * m * (n + m) * c
    cross = (n + m) * (4 * c * c + mlp) + 2 * 2 * m * n * c
    last = m * (2 * c * c + mlp) + n * 2 * c * c + 2 * m * n * c  # the template's keys and values are all that is left
    dau = 256 * 256 * (3 * 9 + 3 * (25 + 25)) + 2 * 3
    rest = dau + m * 768 * c + m * 32 * (1 + 2 + 2)
    macs = 6 * mixed + 5 * cross + last + rest + 9 * head
    assert frame_macs() == macs
    assert f"{macs / 1e9:.2f}" == "2.43"
    assert frame_macs(winograd=True) == macs - 5 * head  # 4 products an output in place of 9
    assert frame_macs() < frame_macs(template=True) < count_flops().macs


def test_dead_work_is_not_counted() -> None:
    """A template that sees nothing needs no query, and search keys that nothing sees are not made."""
    c, n, m = 192, 64, 256
    layers = ("full", "one_way_cross", "one_way_cross")
    one, two = (frame_macs(fermt.ModelConfig(patterns=layers[:count])) for count in (2, 3))
    attention = 2 * m * n * c
    assert two - one == n * (2 + 8) * c * c + m * (2 + 8) * c * c + attention


@pytest.mark.parametrize("make", [cached_frame, whole_frame])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_eager_peers_give_the_maps(make: Any, dtype: torch.dtype, tolerance: float) -> None:
    model = build("fermt", **SMALL)
    pair = images()
    with torch.inference_mode():
        truth = dict(zip(MAPS[model.config.head], WholeGraph(model)(*pair), strict=True))
        frame = make(in_dtype(model, dtype), *(image.to(dtype) for image in pair))
        maps = PEERS[EAGER[dtype]].build(frame, 1)()
    assert maps.keys() == truth.keys()
    for key, value in maps.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, truth[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["ONNX Runtime, float32", "OpenVINO, float32"])
def test_exported_peers_give_the_maps(name: str) -> None:
    for package in ("onnx", "onnxscript", name.split(",")[0].replace(" ", "").lower()):
        pytest.importorskip(package)
    model = build("fermt", **SMALL)
    template, search = images()
    with torch.inference_mode():
        truth = dict(zip(MAPS[model.config.head], WholeGraph(model)(template, search), strict=True))
        maps = PEERS[name].build(cached_frame(model, template, search), 1)()
    for key, value in maps.items():
        torch.testing.assert_close(value, truth[key], rtol=1e-3, atol=1e-4)


def test_only_a_peer_may_be_inaccurate(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("fermt", **SMALL)
    scene = Scene(*(torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8) for size in (128, 256)))
    with torch.inference_mode():
        bench = Bench(model, Judge(model, scene), lambda: {torch.float32: 1e11}, Console(width=300))
        exact = PEERS[EAGER[torch.float32]].build(whole_frame(model, *scene.images(torch.float32)), 1)

        def wrong() -> Maps:
            return {key: value * 1.001 for key, value in exact().items()}

        macs = frame_macs(model.config, template=True)
        runners = {
            "ours": Runner(Case(exact), torch.float32, macs),
            "ours, wrong": Runner(Case(wrong), torch.float32, macs),
            "a peer": Runner(Case(exact), torch.float32),
            "a wrong peer": Runner(Case(wrong), torch.float32),
        }
        bench.measure("whole", runners, 0.01)
    printed = capsys.readouterr().out
    assert "ours, wrong: " in printed
    assert any(lacking(line, "a wrong peer", "float32", "score_map") == [] for line in printed.splitlines())
    lines = {line["runner"]: line for line in bench.lines}
    assert lines.keys() == {"ours", "a peer", "a wrong peer"}
    assert [name for name, line in lines.items() if "less_accurate" in line] == ["a wrong peer"]
    assert lines["ours"]["gflops"] == pytest.approx(2e-9 * macs / lines["ours"]["median"])


@pytest.mark.skipif(library.unavailable_reason() is not None, reason="ours is the compiled library's")
@pytest.mark.parametrize(
    ("options", "tables"),
    [
        (("--quick", "--tables", "cached,batch"), {"cached", "batch"}),
        pytest.param(("--under-load",), set(TITLES), marks=pytest.mark.slow),
    ],
    ids=["quick", "whole"],
)
def test_frame_command(options: tuple[str, ...], tables: set[str], tmp_path: Path) -> None:
    chosen = ("--only", "eager", "--batch", "1,2", "--seconds", "0.01", *options)
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.frame", *chosen, "--out", str(tmp_path / "r.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "no number" not in finished.stdout
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {line["benchmark"] for line in lines} == {f"frame/{name}" for name in tables}
    assert {line["batch"] for line in lines if line["benchmark"] == "frame/batch"} == {1, 2}
    assert {"ours, float32", "ours, bfloat16", *EAGER.values()} <= {line["runner"] for line in lines}
    assert all(line["median"] > 0 and line["cpu"] for line in lines)
