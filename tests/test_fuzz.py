"""A short run of every fuzz target, and what the runner makes of a case that fails."""

from __future__ import annotations

import time

import pytest

from tools.fuzz import __main__ as runner


@pytest.mark.parametrize("target", runner.TARGETS)
def test_a_few_drawn_cases_of_each_target_are_right(target: str) -> None:
    for number in range(25):
        runner.run_case(f"{target}:1:{number}")


def test_a_case_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setitem(runner.TARGETS, "crop", lambda rng: drawn.append(int(rng.integers(2**60))))
    for case in ("crop:3:4", "crop:3:4", "crop:3:5", "crop:4:4"):
        runner.run_case(case)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_fault_ends_a_round_and_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError("drawn badly")

    monkeypatch.setitem(runner.TARGETS, "crop", fails)
    assert runner.serve("crop", 5, 7, time.monotonic() + 60) == 1
    shown = capsys.readouterr()
    assert shown.out.split() == ["crop:5:7"]
    assert "drawn badly" in shown.err


def test_a_round_whose_time_is_over_has_a_few_cases(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that each target has its turn where a process takes long to start."""
    monkeypatch.setitem(runner.TARGETS, "crop", lambda _: None)
    assert runner.serve("crop", 5, 7, 0.0) == 0
    assert capsys.readouterr().out.split() == [f"crop:5:{7 + i}" for i in range(runner.MIN_CASES)]


def test_faults_are_counted_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter([(3, runner.Fault("crop:0:2", "exit status -11")), *[(5, None)] * 1000])
    clock = iter(range(1000))
    monkeypatch.setattr(runner, "round_of", lambda *_: next(rounds))
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(clock))
    assert [fault.case for fault in runner.fuzz(["crop", "boxes"], 40, 0)] == ["crop:0:2"]
