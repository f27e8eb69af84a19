"""The benchmarks: the counts that must come out, and a harness that measures what it says."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from typer.testing import CliRunner

import fermt
from benchmarks import agreement, cases, flops, harness, latency, ops, progress, training
from benchmarks.harness import Case, Timing, interleave
from benchmarks.memory import peak_megabytes
from benchmarks.peers import plain_model
from fermt.flops import count_flops

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


def test_agreement_command() -> None:
    printed = run(agreement)
    assert "model, tokens" in printed
    assert "exceeds" not in printed


def test_latency_command(tmp_path: Path) -> None:
    printed = run(latency, "--quick", "--seconds", "0.1", "--out", str(tmp_path / "results.jsonl"))
    for expected in ("eager PyTorch", "fermt, auto", "threads", "ISA", "float32", "tracking"):
        assert expected in printed
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {line["benchmark"] for line in lines} == {"latency/model", "latency/tracking"}
    assert all(line["median"] > 0 and line["cpu"] and line["torch"] for line in lines)


def test_ops_command(tmp_path: Path) -> None:
    options = ("--only", "DAU 128x128 B=1", "--seconds", "0.01", "--no-memory", "--out", str(tmp_path / "r.jsonl"))
    printed = run(ops, *options)
    assert "DAU 128x128 B=1" in printed
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {(line["dtype"], line["pass"]) for line in lines} == {
        (dtype, what) for dtype in ("float32", "bfloat16") for what in ("forward", "both")
    }


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
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["dtype"] for line in lines] == [dtype for dtype in dtypes for _ in range(2)]
    assert {line["runner"] for line in lines} == {"eager PyTorch", "fermt, auto"}
    for ours, eager in zip(lines[::2], lines[1::2], strict=True):
        assert ours["loss"] == pytest.approx(eager["loss"], rel=0.1)
    assert all(line["megabytes"] > 0 if memory else line["megabytes"] is None for line in lines)


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_square_of_the_tokens() -> None:
    short, long = (peak_megabytes("fermt", case) for case in (cases.LONG[0], cases.LONG[2]))
    assert long < 8 * short  # four times the tokens, sixteen times the scores
    assert long < peak_megabytes("eager", cases.LONG[0])


def test_a_wrong_result_gets_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    model = fermt.build_model("fermt", patterns=("mixed",), dim=48, num_heads=3).eval()
    eager = plain_model(model)
    images = (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 256, 256))

    def broken(template: torch.Tensor, search: torch.Tensor) -> dict[str, torch.Tensor]:
        return {key: value * 1.001 for key, value in eager(template, search).items()}

    with torch.inference_mode():
        passed = latency.accurate({latency.EAGER: eager, "broken": broken}, model, images, Console(width=300))
    assert list(passed) == [latency.EAGER]
    assert "broken: no number, its result is wrong" in capsys.readouterr().out


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
    assert Timing(0.5, 0.4, 0.6).per_second() == 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that benchmarks.progress sees, in its one element."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_progress_says_how_long_it_takes_and_what_is_left(clock: list[float]) -> None:
    stream = io.StringIO()
    told = progress.Progress("ops", 3, 130.0, stream)
    clock[0] = 9.0
    told.now("too soon for a line")
    told.step("mixed")
    clock[0] = 20.0
    told.now("cross: timed for 11 s")
    clock[0] = 200.0
    told.step("cross", 2)
    assert stream.getvalue().splitlines() == [
        "ops: 3 steps, about 2 min 10 s on two cores with AVX2",
        "[1/3] mixed (9 s, about 18 s left)",
        "[2/3] cross: timed for 11 s",
        "[3/3] cross (3 min 20 s)",
    ]


def test_counted_items_have_a_line_every_ten_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for item in progress.counted(range(25), "frames", 25, 30.0):
        clock[0] = item + 1.0
    assert capsys.readouterr().err.splitlines() == [
        "frames: 25 steps, about 30 s on two cores with AVX2",
        "[10/25] frames (10 s, about 15 s left)",
        "[20/25] frames (20 s, about 5 s left)",
        "[25/25] frames (25 s)",
    ]


def test_the_harness_tells_medians(capsys: pytest.CaptureFixture[str]) -> None:
    told = progress.Progress("two", 1, 1.0)
    timings = interleave({"nothing": Case(lambda: None)}, seconds=0.01, name="a case", progress=told)
    assert f"[1/1] a case: nothing {timings['nothing'].median * 1e3:.4g} ms (1 s)" in capsys.readouterr().err


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
