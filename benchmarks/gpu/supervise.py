"""Runs parts in processes of their own, each with a deadline, and writes what they find as it comes.

Whatever fails, hangs or breaks the GPU's context ends its own part alone, and what was measured before is on disk.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from fermt.progress import duration
from fermt_kernels.files import atomic_write

from ..cases import OURS
from ..harness import ROOT, markdown
from .parts import PARTS, Lines, Part
from .work import H200, Ceilings

COMMAND = (sys.executable, "-m", "benchmarks.gpu")
COMPILE = "compile"  # a process, beside those of parts
COMPILE_SECONDS = 120.0
CORES = os.cpu_count() or 1
PAGE_EVERY = 5.0  # seconds
NOT_INSTALLED = "left out, not installed"  # no fault of ours
EXIT_SECONDS = 20.0  # after its last line
TAIL_LINES = 12  # lines of what a failed process printed


class State(NamedTuple):
    """How a part ended: "finished", or why it did not."""

    part: str
    how: str
    seconds: float


class Results:
    """<out>/gpu-<run>.jsonl, a line as soon as it is there, and gpu-<run>.md, a page of all so far."""

    def __init__(self, out: Path, run: str, about: dict[str, Any]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.run, self.about, self.began, self._written = run, about, time.monotonic(), 0.0
        self.lines: dict[str, Lines] = {}
        self.states: list[State] = []
        self._file = (out / f"gpu-{run}.jsonl").open("w")
        self._page = out / f"gpu-{run}.md"

    def add(self, part: str, line: dict[str, Any]) -> None:
        """Writes a line; those of the machine go into all that follow."""
        if line.get("benchmark") == "machine":
            self.about |= {key: line[key] for key in ("gpu", "arch", "kernels", "ceilings")}
        self.lines.setdefault(part, []).append(line)
        self._file.write(json.dumps({"run": self.run, "part": part, **line, **self.about}) + "\n")
        self._file.flush()
        if time.monotonic() - self._written > PAGE_EVERY:
            self.write_page()

    def ended(self, state: State) -> None:
        self.states.append(state)
        self.write_page()

    def faults(self) -> list[str]:
        """What is wrong: faults that checks found, failures of ours, and parts that did not finish."""
        fine = ("finished", NOT_INSTALLED)
        found = [f"{state.part}: {state.how}" for state in self.states if not state.how.startswith(fine)]
        for part, lines in self.lines.items():
            for line in lines:
                found += [f"{part}: {line.get('check', '')} {fault}" for fault in line.get("faults", ())]
                if "failed" in line and line["runner"].startswith(OURS):
                    found.append(f"{part}: {line['runner']}, {line['timing']}: {line['failed']}")
        return found

    def write_page(self) -> None:
        """Writes the page of all so far."""
        self._written = time.monotonic()
        atomic_write(self._page, self.page())

    def _row(self, state: State) -> list[str]:
        count = len(self.lines.get(state.part, ()))
        return [state.part, state.how.splitlines()[0], f"{state.seconds:.0f}", str(count)]

    def page(self) -> str:
        about, faults = self.about, self.faults()
        ceilings = Ceilings(**about["ceilings"]) if about.get("ceilings") else H200
        text = [
            f"# On a GPU: {self.run}",
            f"{about.get('gpu', 'unknown GPU')}; {about.get('kernels', '')}; torch {about['torch']}, "
            f"Python {about['python']}, {about['cpu']}, {about['cores']} cores, {about['system']}; "
            f"commit {about['commit'] or 'unknown'}, {about['date']}; "
            f"{duration(time.monotonic() - self.began)} so far.",
            "**No faults.**" if not faults else "**Faults**, and what they are about has no valid number below:",
            "\n".join(f"- {fault}" for fault in faults),
            markdown(("part", "how it ended", "seconds", "lines"), map(self._row, self.states)),
        ]
        for name, lines in self.lines.items():
            if name in PARTS:
                text += [f"## {name}", _table(name, lines, ceilings)]
        return "\n\n".join(part for part in text if part) + "\n"


def _table(name: str, lines: Lines, ceilings: Ceilings) -> str:
    try:
        return PARTS[name].table(lines, ceilings)
    except Exception as error:  # the lines are on disk, and other parts go on
        return f"No table, see the lines: {type(error).__name__}: {error}"


class _Process:
    """A process whose lines of JSON go into a queue, and whose other output is passed on and kept."""

    def __init__(self, command: Sequence[str], variables: dict[str, str], lines: queue.Queue) -> None:
        self.tail: list[str] = []
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | variables, text=True, preexec_fn=os.setpgrp,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._threads = [Thread(target=each, args=(lines,), daemon=True) for each in (self._read, self._pass_on)]
        for thread in self._threads:
            thread.start()

    def _read(self, lines: queue.Queue) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            try:
                lines.put(json.loads(text))
            except ValueError:  # printed by something else, or cut short
                self.tail.append(text)
        lines.put(self)

    def _pass_on(self, _: queue.Queue) -> None:
        assert self._process.stderr
        for text in self._process.stderr:
            print(text, end="", file=sys.stderr, flush=True)
            self.tail = [*self.tail[1 - TAIL_LINES :], text]

    def stop(self) -> None:
        """Ends it with all that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def failure(self) -> str:
        """Why it failed, or nothing."""
        try:
            code = self._process.wait(timeout=EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"all lines came, but no end within {EXIT_SECONDS:.0f} s"
        for thread in self._threads:
            thread.join(timeout=5)
        return f"failed with exit code {code}\n{''.join(self.tail)}" if code else ""


def run_processes(
    name: str, commands: Sequence[Sequence[str]], variables: dict[str, str], seconds: float, results: Results
) -> None:
    """Runs the commands at once, adds their lines to the results, and stops them after so many seconds."""
    began, lines = time.monotonic(), queue.Queue[Any]()
    processes: list[_Process] = []
    how = "finished"
    try:
        for command in commands:
            processes.append(_Process(command, variables, lines))
        left = len(processes)
        while left:
            got = lines.get(timeout=max(0.0, began + seconds - time.monotonic()))
            if isinstance(got, _Process):
                left -= 1
                how = got.failure() or how
            else:
                results.add(name, got)
    except queue.Empty:
        how = f"stopped after {seconds:.0f} s"
    except OSError as error:
        how = f"not started: {error}"
    finally:
        for process in processes:
            process.stop()
    results.ended(State(name, how, time.monotonic() - began))


def processes(shards: int) -> int:
    """How many of them run at once here."""
    return min(shards, CORES)


def run_parts(names: Iterable[str], results: Results, seconds: float) -> None:
    """Runs the parts one after the other, kernels compiled before, until the time is over: what is left is said."""
    names, until = list(names), time.monotonic() + seconds

    def run(name: str, part: Part | None, most: float, *more: str) -> None:
        left = until - time.monotonic()
        if left <= 0:
            results.ended(State(name, "left out: the time was over", 0))
            return
        shards, prefix = (processes(part.shards), part.prefix) if part else (1, ())
        if prefix and not shutil.which(prefix[0]):
            results.ended(State(name, f"{NOT_INSTALLED}: {prefix[0]}", 0))
            return
        command = (*prefix, *COMMAND, *more, "--part", name)
        commands = [(*command, "--shard", str(index), "--shards", str(shards)) for index in range(shards)]
        variables = {"PYTHONUNBUFFERED": "1"}
        if shards > 1:
            variables["OMP_NUM_THREADS"] = str(max(1, CORES // shards))
        if prefix:
            variables["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # or the sanitizer sees few allocations, all large
        run_processes(name, commands, variables, min(most, left), results)

    run("machine", PARTS["machine"], PARTS["machine"].most)
    if arch := results.about.get("arch"):
        run(COMPILE, None, COMPILE_SECONDS, "--of", ",".join(names), "--arch", str(arch))
    for name in names:
        run(name, PARTS[name], PARTS[name].most)
