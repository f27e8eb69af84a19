"""Tables of `benchmarks.frame`: runners, the check of their results, and the columns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

import fermt
from fermt.data import normalize
from fermt.export import WholeGraph
from fermt.flops import frame_macs
from fermt.tracking.speed import EXACT_DTYPES, fastest
from fermt_kernels.cpp import library
from fermt_kernels.testing import errors, inaccuracy

from .harness import Case, Timing, Timings, interleave, table
from .peers import Maps

JUDGED_AS = {torch.float32: torch.float32, torch.bfloat16: torch.bfloat16, torch.int8: torch.bfloat16}
PAIRS_OF_BFLOAT16 = ("avx512_amx", "avx512_bf16")  # these multiply bfloat16 itself, without Winograd's transforms
TITLES = {
    "cached": "template cached",
    "whole": "template encoded in every frame",
    "batch": "ours, several targets at once, template cached",
    "tracking": "Tracker.update on a frame in memory, and ours alone",
    "loaded": "template cached, beside one other process that computes",
}


class Runner(NamedTuple):
    """Something to time: `macs`, of one target, are 0 for all but ours; `maps` says whether a call returns maps."""

    case: Case
    dtype: torch.dtype
    macs: int = 0
    batch: int = 1
    maps: bool = True


Runners = dict[str, Runner]


class Scene(NamedTuple):
    """Crops of one target, uint8 RGB: template (B, Sz, Sz, 3), search regions (B, Sx, Sx, 3)."""

    template: Tensor
    search: Tensor

    def images(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both normalized, (B, 3, S, S); in bfloat16 rounded once, at the end."""
        exact = dtype if dtype == torch.float64 else torch.float32
        template, search = (torch.cat([normalize(crop.numpy(), dtype=exact) for crop in crops]) for crops in self)
        return template.to(dtype), search.to(dtype)

    def first(self, count: int) -> Scene:
        return Scene(self.template[:count], self.search[:count])


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_dtype(model: fermt.FERMT, dtype: torch.dtype) -> fermt.FERMT:
    """A copy of the model."""
    return copy.deepcopy(model).to(dtype)


class Row(NamedTuple):
    """A runner, its timing, and figures to compare it with."""

    runner: Runner
    timing: Timing
    config: fermt.ModelConfig
    ratio: float | None  # of its time to that of ours of the same dtype at batch 1
    peak: float | None  # FLOP/s of multiply-adds in its dtype
    quiet: float | None  # its median in the table `QUIET_TABLE`

    def rate(self) -> float:
        return 2 * self.runner.macs * self.runner.batch / self.timing.median

    def against(self) -> str:
        """The time per target over that of ours."""
        return f"{self.ratio / self.runner.batch:.2f}x" if self.ratio else "-"

    def of_peak(self) -> str:
        if not (self.runner.macs and self.peak):
            return "-"
        left = 1.0
        if self.runner.dtype == torch.float32 or library.load().isa not in PAIRS_OF_BFLOAT16:
            saved = frame_macs(self.config) - frame_macs(self.config, winograd=True)
            left = (self.runner.macs - saved) / self.runner.macs
        return f"{self.rate() / self.peak:.0%} / {self.rate() * left / self.peak:.0%}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "median ms": lambda row: f"{row.timing.median * 1e3:.2f}",
    "p20-p80 ms": lambda row: f"{row.timing.p20 * 1e3:.2f}-{row.timing.p80 * 1e3:.2f}",
    "frames/s": lambda row: f"{row.runner.batch / row.timing.median:.1f}",
    "ms a target": lambda row: f"{row.timing.median / row.runner.batch * 1e3:.2f}",
    "against ours": Row.against,
    "GFLOP/s": lambda row: f"{row.rate() / 1e9:.0f}" if row.runner.macs else "-",
    "of FMA peak": Row.of_peak,
    "against quiet": lambda row: f"{row.timing.median / row.quiet:.2f}x" if row.quiet else "-",
}
TIMES = ["median ms", "p20-p80 ms", "frames/s"]
RATES = ["against ours", "GFLOP/s", "of FMA peak"]
SHOWN = {
    "cached": [*TIMES, *RATES],
    "whole": [*TIMES, *RATES],
    "batch": [*TIMES, "ms a target", *RATES],
    "tracking": [*TIMES, "against ours"],
    "loaded": [*TIMES, "against ours", "against quiet"],
}
QUIET_TABLE = "cached"  # the table whose times are those of a quiet machine


class Verdict(NamedTuple):
    """A note on a result's accuracy, and whether it is so wrong that it gets no number."""

    note: str
    wrong: bool


INT8_FACTOR = 4.0  # times eager bfloat16's rms error: as far as int8 may go


class Judge:
    """Checks results against the maps of a scene in float64, with eager PyTorch's in each dtype as the yardstick."""

    def __init__(self, model: fermt.FERMT, scene: Scene) -> None:
        def maps(dtype: torch.dtype) -> Maps:
            graph = WholeGraph(in_dtype(model, dtype))
            return dict(zip(graph.outputs, graph(*scene.images(dtype)), strict=True))

        self.truth = maps(torch.float64)
        self.eager = {dtype: maps(dtype) for dtype in set(JUDGED_AS.values())}

    def verdict(self, runner: Runner) -> Verdict | None:
        """How the runner's maps break the accuracy rule of its dtype, or None; of int8 always how far off they are."""
        dtype, found = JUDGED_AS[runner.dtype], runner.case.run()
        assert isinstance(found, dict)
        yardstick = {name: maps[: runner.batch].to(dtype) for name, maps in self.eager[dtype].items()}
        if runner.dtype == torch.int8:
            ratios = []
            for name, eager in yardstick.items():
                truth = self.truth[name][: runner.batch]
                ratios.append(errors(found[name], truth)[1] / errors(eager, truth)[1])
            return Verdict(f"its rms error is up to {max(ratios):.1f} times that", not max(ratios) <= INT8_FACTOR)
        reasons = (
            f"{name}: {reason}"
            for name, eager in yardstick.items()
            if (reason := inaccuracy(found[name].to(dtype), eager, self.truth[name][: runner.batch]))
        )
        text = "; ".join(reasons)
        return Verdict(text, bool(runner.macs)) if text else None


class Bench:
    """Checks and times tables of runners and prints them; `lines` are the records of all of them.

    `measure_peaks` gives the FMA peak of each dtype. It is called before and after each table and the highest so far
    counts: whatever else the machine does can only lower it. `turns` is `interleave`, with options of its own or none.
    """

    def __init__(
        self,
        model: fermt.FERMT,
        judge: Judge,
        measure_peaks: Callable[[], Mapping[torch.dtype, float]],
        console: Console,
        turns: Callable[..., Timings] = interleave,
    ) -> None:
        self.turns = turns
        self.config, self.judge, self.measure_peaks, self.console = model.config, judge, measure_peaks, console
        self.peaks: dict[torch.dtype, float] = {}
        self.lines: list[dict[str, Any]] = []
        self.quiet: dict[str, float] = {}

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _update_peaks(self) -> None:
        for dtype, peak in self.measure_peaks().items():
            self.peaks[dtype] = max(peak, self.peaks.get(dtype, 0.0))

    def measure(self, name: str, runners: Mapping[str, Runner], seconds: float) -> None:
        """Prints the table called `name`. A wrong result of ours gets no number; a peer's gets one, and a note."""
        verdicts = {who: verdict for who, r in runners.items() if r.maps and (verdict := self.judge.verdict(r))}
        passed = {who: runner for who, runner in runners.items() if who not in verdicts or not verdicts[who].wrong}
        for who in runners.keys() - passed.keys():
            self.say(f"{who}: no number, its result is wrong ({verdicts[who].note})")
        if not passed:
            return
        self._update_peaks()
        timings = self.turns({who: runner.case for who, runner in passed.items()}, seconds=seconds, name=name)
        self._update_peaks()
        if name == QUIET_TABLE:
            self.quiet = {who: timing.median for who, timing in timings.items()}
        ours = {r.dtype: who for who, r in passed.items() if r.macs and r.batch == 1}
        made = table(TITLES[name], ("runner", *SHOWN[name]))
        for who, runner in passed.items():
            base = ours.get(JUDGED_AS[runner.dtype])
            ratio, peak = timings.ratio(who, base) if base else None, self.peaks.get(runner.dtype)
            row = Row(runner, timings[who], self.config, ratio, peak, self.quiet.get(who))
            made.add_row(who + (" *" if who in verdicts else ""), *(COLUMNS[heading](row) for heading in SHOWN[name]))
            self.lines.append(
                {"benchmark": f"frame/{name}", "dtype": dtype_name(runner.dtype)}
                | {"batch": runner.batch, "runner": who}
                | timings[who]._asdict()
                | ({"gflops": row.rate() / 1e9, "peak_gflops": peak and peak / 1e9} if runner.macs else {})
                | ({"less_accurate": verdicts[who].note} if who in verdicts else {})
            )
        self.console.print(made)
        if "of FMA peak" in SHOWN[name]:
            peaks = (f"{dtype_name(dtype)} {peak / 1e9:.0f} GFLOP/s" for dtype, peak in self.peaks.items())
            self.say(f"FMA peak, highest so far: {', '.join(peaks)}")
        if name == QUIET_TABLE:
            seconds_of = {dtype_name(r.dtype): timings[who].median for who, r in passed.items() if r.macs}
            if not {*EXACT_DTYPES}.isdisjoint(seconds_of):
                self.say(fastest(seconds_of))
        for who in sorted(verdicts.keys() & passed.keys()):
            yardstick = dtype_name(JUDGED_AS[passed[who].dtype])
            self.say(f"* {who}: less accurate than eager {yardstick}: {verdicts[who].note}")
