"""The progress display where there is no terminal: lines that are due, with rate and remaining time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fermt import progress
from fermt.progress import EVERY, FIRST, ProgressDisplay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_lines_are_printed_when_they_are_due(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "tracking", 1000, 200, unit="frames") as display:
        display.update(210, "1/4 sequences")
        assert output.getvalue() == ""
        assert display.time_left
        clock[0] += FIRST
        display.update(230, "1/4 sequences")
        assert output.getvalue() == "tracking frames 230/1000  1/4 sequences  10.0 frames/s  77 s left\n"
        clock[0] += EVERY / 2
        display.update(300, "2/4 sequences")
        assert output.getvalue().count("\n") == 1
        display.say("a sequence failed")
        clock[0] += 85
        display.report(303, "done soon")
    assert output.getvalue().splitlines()[1:] == [
        "a sequence failed",
        "tracking frames 303/1000  done soon  12 min left",
    ]


def test_a_line_is_due_although_nothing_new_is_reported(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "training", 100, unit="steps") as display:
        clock[0] += 4
        display.advance(2)
        display.report(3, "loss 1.0")
        display.advance(4)
        clock[0] += EVERY
        display.advance(17)
    assert output.getvalue().splitlines() == [
        "training steps 2/100  0.5 steps/s  3 min left",
        "training steps 3/100  loss 1.0  2 min left",
        "training steps 17/100  loss 1.0  3 min left",
    ]


def test_an_unknown_total(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "tracking", 0, unit="frames") as display:
        assert display.time_left == ""
        clock[0] += 2 * FIRST
        display.update(12)
    assert output.getvalue() == "tracking frames 12  2.0 frames/s\n"
