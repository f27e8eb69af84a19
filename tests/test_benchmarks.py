"""The benchmarks: the counts that must come out, and a harness that measures what it says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

import fermt
from benchmarks import agreement, cases, endurance, flops, harness, learned, memory, ops, training
from benchmarks.accuracy_data import score
from benchmarks.harness import Case, Timing, Timings, interleave
from benchmarks.memory import peak_megabytes
from fermt import progress
from fermt.data import synthetic_config, synthetic_video
from fermt.export import plain_model
from fermt.flops import count_flops
from fermt_kernels import cpp
from fermt_kernels.cpp import library

from .support.errors import lacking
from .support.lanes import slow

CLEAR_REFS = Path("/proc/self/clear_refs")


def run(command: ModuleType, *arguments: str) -> str:
    """What a command prints, in this process: a new one takes seconds to import torch."""
    app = typer.Typer()
    app.command()(command.main)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_papers_counts() -> None:
    count = count_flops("fermt")
    assert f"{count.parameters / 1e6:.3f}" == "7.979"
    assert f"{count.macs_without_attention / 1e9:.3f}" == "2.397"
    assert f"{count.macs / 1e9:.3f}" == "2.671"
    parts = {part: round(getattr(count, part) / 1e9, 3) for part in ("linear", "head", "attention", "patches")}
    assert parts == {"linear": 1.699, "head": 0.637, "attention": 0.274, "patches": 0.047}
    assert count.dau == pytest.approx(0.0145e9, rel=1e-3)
    assert [count_flops(name).mean_score_pairs for name in ("a2a5", "a2", "a3")] == [59392, 86016, 102400]


def test_flops_command() -> None:
    printed = run(flops)
    for expected in ("7.979 M", "2.397 G", "2.671 G", "42.0%", "31.0%"):
        assert expected in printed
    records = json.loads(run(flops, "--json"))
    assert {record["config"] for record in records} == set(fermt.CONFIGS)
    for record in records:
        assert record["macs"] == record["macs_torch_flop_counter"] == sum(record["parts"].values())
        assert not record["dau"] or record["macs"] == count_flops(record["config"]).macs
    assert len(records[0]["layers"]) == 12


def written(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results, each of which says where it is from."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert {"commit", "date", "cpu", "threads", "isa", "torch", "python", "fermt_kernels"} <= line.keys()
    return lines


def test_agreement_command(tmp_path: Path) -> None:
    printed = run(agreement, "--out", str(tmp_path / "r.jsonl"))
    assert "model, tokens" in printed
    assert "exceeds" not in printed
    assert all(line["passes"] and line["error"] >= 0 for line in written(tmp_path / "r.jsonl"))


def test_ops_command(tmp_path: Path) -> None:
    options = ("--only", "DAU 128x128 B=1", "--seconds", "0.01", "--no-auto", "--out", str(tmp_path / "r.jsonl"))
    printed = run(ops, *options)
    assert "DAU 128x128 B=1" in printed
    lines = written(tmp_path / "r.jsonl")
    assert {(line["dtype"], line["pass"]) for line in lines} == {
        (dtype, what) for dtype in ("float32", "bfloat16") for what in ("forward", "both")
    }
    assert all(line["commit"] is None or len(line["commit"].rstrip("+")) == 40 for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(library.unavailable_reason() is not None, reason="rows are the compiled library's")
def test_what_auto_takes_is_shown_for_each_instruction_set(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    printed = run(ops, "--quick", "--only", "linear 768-192 GELU B=1", "--seconds", "0.01", "--out", str(out))
    lines = written(out)
    rows = {line["isa"]: line for line in lines if line["benchmark"] == "ops/auto"}
    assert list(rows) == library.supported_isas()
    for isa, row in rows.items():
        slower = "linear" in cpp.SLOWER_THAN_PYTORCH.get(isa, ())
        assert (row["takes"], row["ratio"] > 0) == ("reference" if slower else "cpp", True)
        assert isa in printed
        widest = "AVX512" if isa.startswith("avx512") else "DEFAULT"
        assert row["pytorch"] == {"avx2": "AVX2", "avx2_vnni": "AVX2"}.get(isa, widest)


def test_a_line_keeps_what_it_says_itself(tmp_path: Path) -> None:
    harness.append(tmp_path / "r.jsonl", [{"isa": "avx2"}], {"isa": "generic", "commit": "c"})
    assert json.loads((tmp_path / "r.jsonl").read_text()) == {"isa": "avx2", "commit": "c"}


def test_a_kernel_that_is_slower_is_marked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"case": "c", "isa": "avx2", "dtype": "float32", "pass": "forward", "best": "eager"}
    found = [
        row | {"takes": takes, "ratio": ratio} for takes, ratio in (("cpp", 0.5), ("cpp", 2.0), ("reference", 0.9))
    ]
    given: dict[str, str] = {}
    printed = "\n".join(map(json.dumps, found))
    monkeypatch.setattr(ops, "in_process", lambda *_, **variables: given.update(variables) or printed)
    monkeypatch.setattr(library, "supported_isas", lambda: ["avx2"])
    ops.report_auto([], Console(width=200), harness.start_progress("auto", 1, 1.0))
    ratios = [line.split("eager")[1].split() for line in capsys.readouterr().out.splitlines() if "eager" in line]
    assert ratios == [["0.50x", "slower"], ["2.00x"], ["0.90x"]]
    assert (given["FERMT_ISA"], given["ATEN_CPU_CAPABILITY"]) == ("avx2", "avx2")  # PyTorch has no more either


def test_learned_scores_as_accuracy_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, out = tmp_path / "small.safetensors", tmp_path / "r.jsonl"
    fermt.save(fermt.build_model("fermt", patterns=("mixed",), dim=48, num_heads=3), weights)
    printed = run(learned, str(weights), "--videos", "1", "--frames", "4", "--out", str(out))
    lines = {line["runner"]: line for line in written(out)}
    assert lines.keys() == {"trained", "untrained", learned.UNMOVED}
    _, truth = synthetic_video(learned.FIRST_SEED, 4, config=synthetic_config("easy"))
    expected = score(np.broadcast_to(truth[0], truth.shape), truth)
    assert (lines[learned.UNMOVED]["ao"], lines[learned.UNMOVED]["auc"]) == (expected.ao, expected.auc)
    assert f"{expected.ao:.3f}" in printed


@pytest.mark.parametrize(
    ("more", "dtypes"),
    [
        (("--quick", "--dtypes", "float32"), ["float32"]),
        slow(("--steps", "1", "--seconds", "0.1", "--no-compiled"), ["float32", "bfloat16"]),
    ],
    ids=["quick", "whole"],
)
def test_training_command(more: tuple[str, ...], dtypes: list[str], tmp_path: Path) -> None:
    """Quickly, and with the peak memory, for which it starts a process each."""
    memory = "--quick" not in more
    if memory and not CLEAR_REFS.exists():
        pytest.skip("peak memory is read from Linux's /proc")
    out = tmp_path / "r.jsonl"
    printed = run(training, "--batch", "1", "--only", "fermt, auto", "--out", str(out), *more)
    assert dtypes[-1] in printed
    lines = written(out)
    assert [line["dtype"] for line in lines] == [dtype for dtype in dtypes for _ in range(2)]
    assert {line["runner"] for line in lines} == {"eager PyTorch", "fermt, auto"}
    for ours, eager in zip(lines[::2], lines[1::2], strict=True):
        assert ours["loss"] == pytest.approx(eager["loss"], rel=0.1)
    assert all(line["megabytes"] > 0 if memory else line["megabytes"] is None for line in lines)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="peak memory is read from Linux's /proc")
def test_memory_command(tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    assert "N=1280" in run(memory, "--quick", "--only", "fermt", "--out", str(out))
    (line,) = written(out)
    assert (line["benchmark"], line["runner"], line["peak_megabytes"] > 0) == ("ops/memory", "fermt", True)


def test_a_wrong_result_of_ours_gets_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer's gets one all the same."""
    wrong = {name: lambda x, *weights: cases.eager_unit(x, *weights) * 1.001 for name in (cases.OURS, "a peer")}
    monkeypatch.setattr(cases, "UNIT", cases.UNIT | wrong)
    options = ("--only", "DAU 128x128 B=1", "--dtypes", "float32", "--seconds", "0.01", "--no-auto")
    printed = run(ops, *options, "--out", str(tmp_path / "r.jsonl"))
    for name in (cases.OURS, "a peer"):
        assert any(lacking(line, "DAU 128x128 B=1", name, "error") == [] for line in printed.splitlines())
    assert {line["runner"] for line in written(tmp_path / "r.jsonl")} == {"eager", "a peer"}


@pytest.mark.slow
@pytest.mark.skipif(not memory.STATUS.exists(), reason="memory is read from Linux's /proc")
def test_endurance_command(tmp_path: Path) -> None:
    assert "median frame" in run(endurance, "--frames", "400", "--out", str(tmp_path / "r.jsonl"))
    (line,) = written(tmp_path / "r.jsonl")
    assert line["frames"] == 400
    assert line["first_tenth"] > 0
    assert line["peak_bytes"] > line["growth_bytes"]


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_square_of_the_tokens() -> None:
    short, long = (peak_megabytes("fermt", case) for case in (cases.LONG_CASES[0], cases.LONG_CASES[2]))
    assert long < 8 * short  # four times the tokens, sixteen times the scores
    assert long < peak_megabytes("eager", cases.LONG_CASES[0])


class Clock:
    """A time that passes only when told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_the_harness_interleaves_and_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock, spans = Clock(), itertools.cycle((0.003, 0.004, 0.005))

    def prepared(name: str) -> Callable[[], None]:
        def prepare() -> None:
            order.append(name)
            clock.sleep(1e-4)  # in no figure

        return prepare

    monkeypatch.setattr(harness, "time", clock)
    cases = {
        "slow": Case(lambda: clock.sleep(next(spans)), prepare=prepared("slow")),
        "fast": Case(lambda: clock.sleep(0.001), prepare=prepared("fast")),
    }
    timings = interleave(cases, seconds=0.2)
    assert timings["slow"] == pytest.approx((0.004, 0.003, 0.005))
    assert timings["fast"] == pytest.approx((0.001, 0.001, 0.001))
    assert 0.4 <= clock.now < 0.5  # of seconds for each case
    turns = [name for name, before in zip(order[2:], order[1:], strict=False) if name != before]
    assert len(turns) >= 5
    assert Timing(0.5, 0.4, 0.6).cells() == ["500.00", "400.00-600.00"]


def test_ratios_are_taken_within_a_round() -> None:
    """Medians over all rounds would tell another ratio where one case was disturbed in one round."""
    timings = Timings({"a": [[1.0], [20.0], [3.0]], "b": [[1.0], [2.0], [3.0]]})
    assert timings.ratio("a", "b") == 1
    assert timings["a"].median / timings["b"].median == 1.5


def test_counted_items_have_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    for item in harness.counted(range(25), "tracking", "frames", 25, 30.0):
        now[0] = item + 1.0
    announced, *lines = capsys.readouterr().err.splitlines()
    assert "25 frames" in announced
    assert progress.duration(30.0) in announced
    assert [line.split()[0] for line in lines] == ["3/25", "13/25", "23/25", "25/25"]


def test_the_harness_tells_medians(capsys: pytest.CaptureFixture[str]) -> None:
    display = harness.start_progress("two", 1, 1.0)
    timings = interleave({"nothing": Case(lambda: None)}, seconds=0.01, name="a case", progress=display)
    _, line = capsys.readouterr().err.splitlines()
    for value in ("1/1 steps", "a case", f"nothing {timings['nothing'].median * 1e3:.4g} ms"):
        assert value in line


def test_the_plain_model_is_the_same_function() -> None:
    model = fermt.build_model("fermt").double().eval()
    images = (
        torch.randn(1, 3, 128, 128, dtype=torch.float64),
        torch.randn(1, 3, 256, 256, dtype=torch.float64),
    )
    with torch.no_grad():
        ours, plain = model(*images), plain_model(model)(*images)
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-10, atol=1e-10)
