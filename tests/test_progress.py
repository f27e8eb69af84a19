"""The progress display: a bar, or lines that are due, with rate and remaining time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fermt import progress
from fermt.progress import FIRST_LINE, LINE_INTERVAL, ProgressDisplay, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def shown(output: io.StringIO) -> list[str]:
    return output.getvalue().splitlines()


def test_lines_are_printed_when_they_are_due(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "tracking", 1000, 200, unit="frames") as display:
        display.update(210, "1/4 sequences")
        assert not shown(output)
        assert display.time_left
        clock[0] += FIRST_LINE
        display.update(230, "1/4 sequences")
        (line,) = shown(output)
        for value in ("tracking", "230/1000 frames", "1/4 sequences", "10.0 frames/s", duration(3), duration(77)):
            assert value in line
        clock[0] += LINE_INTERVAL / 2
        display.update(300, "2/4 sequences")
        assert len(shown(output)) == 1
        display.say("a sequence failed")
        clock[0] += 85
        display.report(303, "done soon")
    said, line = shown(output)[1:]
    assert said == "a sequence failed"
    for value in ("303/1000 frames", "done soon", duration(103), duration(697)):
        assert value in line


def test_a_line_is_due_although_nothing_new_is_reported(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "training", 100, unit="steps") as display:
        clock[0] += 4
        display.update(2)
        display.report(3, "loss 1.0")
        display.update(4)
        clock[0] += LINE_INTERVAL
        display.update(17)
    expected = ("2/100", "0.5 steps/s", 196), ("3/100", "loss 1.0", 129), ("17/100", "loss 1.0", 166)
    for line, (count, text, left) in zip(shown(output), expected, strict=True):
        assert count in line
        assert text in line
        assert duration(left) in line


def test_an_unknown_total(clock: list[float]) -> None:
    output = io.StringIO()
    with ProgressDisplay(Console(file=output, width=200), "tracking", 0, unit="frames") as display:
        assert display.time_left == ""
        clock[0] += 2 * FIRST_LINE
        display.update(12)
    (line,) = shown(output)
    assert "12 frames" in line
    assert "2.0 frames/s" in line
    assert "left" not in line


def test_steps_of_the_callers_own_length(clock: list[float]) -> None:
    """Each step has its line, also on a terminal where no bar is wanted; within one there is a line if it is due."""
    output = io.StringIO()
    terminal = Console(file=output, width=200, force_terminal=True, color_system=None)
    display = ProgressDisplay(terminal, "", 3, unit="steps", bar=False, every=10.0)
    clock[0] += 1
    display.note("too soon for a line")
    display.step("mixed")
    clock[0] += 8
    display.note("too soon after the last line")
    clock[0] += 11
    display.note("cross: timed for 11 s")
    clock[0] += 180
    display.report(3, "cross")
    assert [line.split(" (")[0] for line in shown(output)] == [
        "1/3 steps: mixed",
        "1/3 steps: cross: timed for 11 s",
        "3/3 steps: cross",
    ]
    first, within, last = shown(output)
    assert duration(2) in first
    assert duration(40) in within
    assert duration(200) in last
    assert "left" not in last


def test_a_terminal_has_a_bar() -> None:
    output = io.StringIO()
    console = Console(file=output, width=200, force_terminal=True, color_system=None)
    with ProgressDisplay(console, "tracking", 10, unit="frames") as display:
        display.say("a sequence failed")
        display.report(7, "half of it")
    assert "a sequence failed" in output.getvalue()
    assert "7/10" in output.getvalue()
    assert "half of it" in output.getvalue()
    assert "7/10 frames" not in output.getvalue()  # which is a line's


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
