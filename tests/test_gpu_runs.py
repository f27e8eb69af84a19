"""The runs on a GPU, as far as they need none: their processes, deadlines and files, and what they would compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from .support.errors import lacking, refused

if find_spec("triton") is None:
    pytest.skip("triton is not installed here", allow_module_level=True)

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import clocks, parts, supervise
from benchmarks.gpu.parts import PARTS, RUNS, Part
from fermt_kernels.cpp import library

FACTS = {
    "caches": {},
    "torch": "2",
    "python": "3",
    "cpu": "a CPU",
    "cores": 2,
    "system": "Linux",
    "commit": "c0ffee",
    "date": "today",
}
# In the place of a part's process: prints a machine, or does what its name says.
CHILD = """
import json, os, sys, time
name = sys.argv[sys.argv.index("--part") + 1]
line = {"benchmark": "check", "check": name, "compared": 2, "faults": []}
if name == "machine":
    line = {"benchmark": "machine", "gpu": "a GPU", "arch": 0, "kernels": "triton", "ceilings": None}
if name == "wrong":
    line["faults"] = ["too large"]
print(json.dumps(line), flush=True)
if name == "crash":
    sys.exit("the context is gone")
if name == "hang":
    os.system(f"sleep 300.{os.getppid()}")  # as a name for it
"""


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that end in every way, by a stand-in for their processes."""
    monkeypatch.setattr(supervise, "COMMAND", (sys.executable, "-c", CHILD))
    for name in ("good", "wrong", "crash", "hang", "late"):
        monkeypatch.setitem(PARTS, name, Part(PARTS["agree"].lines, parts._checked, 1, 60))
    monkeypatch.setitem(PARTS, "shared", Part(PARTS["agree"].lines, parts._checked, 1, 60, shards=2))


def lines_of(folder: Path, run: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / f"gpu-{run}.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("children")
def test_what_fails_ends_alone_and_all_else_is_written(tmp_path: Path) -> None:
    results = supervise.Results(tmp_path, "x", dict(FACTS))
    supervise.run_parts(["crash", "wrong", "shared", "good"], results, 60)
    assert [state.part for state in results.states] == ["machine", "crash", "wrong", "shared", "good"]
    assert [state.how == "finished" for state in results.states] == [True, False, True, True, True]
    found = lines_of(tmp_path, "x")
    assert [line["part"] for line in found] == [
        "machine",
        "crash",
        "wrong",
        *["shared"] * supervise.processes(2),
        "good",
    ]
    assert all(line["gpu"] == "a GPU" and line["commit"] == "c0ffee" for line in found)
    faults = results.faults()
    assert len(faults) == 2
    assert faults[0].startswith("crash: failed with exit code 1\nthe context is gone")
    assert faults[1] == "wrong: wrong too large"
    page = (tmp_path / "gpu-x.md").read_text()
    for text in (
        "a GPU; triton; torch 2",
        "commit c0ffee, today",
        "- wrong: wrong too large",
        "| crash | failed",
        "## good",
    ):
        assert text in page
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("children")
def test_a_deadline_ends_a_part_with_all_that_it_started_and_says_what_is_left_out(tmp_path: Path) -> None:
    results, began = supervise.Results(tmp_path, "x", dict(FACTS)), time.monotonic()
    supervise.run_parts(["hang", "late"], results, 20)
    assert time.monotonic() - began < 100
    machine, hung, late = results.states
    assert machine.how == "finished"
    assert hung.how.startswith("stopped after")
    assert late.how == "left out: the time was over"
    assert [line["part"] for line in lines_of(tmp_path, "x")] == ["machine", "hang"]
    assert len(results.faults()) == 2
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"sleep 300.{os.getpid()}" not in running


@pytest.mark.usefixtures("children")
def test_a_run_that_is_killed_leaves_whole_lines_and_a_page(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from benchmarks.gpu import parts, supervise;"
        "parts.PARTS['hang'] = parts.PARTS['agree']._replace(shards=1);"
        f"supervise.COMMAND = (sys.executable, '-c', {CHILD!r});"
        f"supervise.run_parts(['hang'], supervise.Results(pathlib.Path({str(tmp_path)!r}), 'x', {FACTS!r}), 60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=supervise.ROOT)
    path, until = tmp_path / "gpu-x.jsonl", time.monotonic() + 300
    while time.monotonic() < until and (not path.exists() or path.read_text().count("\n") < 2):
        time.sleep(0.2)
    process.kill()
    process.wait()
    assert [line["part"] for line in lines_of(tmp_path, "x")] == ["machine", "hang"]
    assert "| machine | finished |" in (tmp_path / "gpu-x.md").read_text()


@pytest.mark.usefixtures("children")
def test_a_tool_that_is_not_installed_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "good", PARTS["good"]._replace(prefix=("no-such-sanitizer",)))
    results = supervise.Results(tmp_path, "x", dict(FACTS))
    supervise.run_parts(["good"], results, 60)
    assert lacking(results.states[1].how, "no-such-sanitizer") == []
    assert results.faults() == []


def test_what_is_compiled_beforehand_is_what_a_launch_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the driver's stand-in: a launch in another process compiles nothing more."""
    code = (
        "import sys; from benchmarks.gpu import compilation, crop;"
        "launches = [each for _, each in compilation.distinct(('', x) for x in compilation.launched(crop.launch_all))];"
        "assert launches; assert list(compilation.warm(launches, 90, 2)) == [None] * len(launches)"
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    files = []
    for _ in range(2):
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=supervise.ROOT, check=True)
        files.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.cubin")})
    assert files[0]
    assert files[0] == files[1]


def test_a_failure_of_ours_is_a_fault_and_a_peers_is_not(tmp_path: Path) -> None:
    results = supervise.Results(tmp_path, "x", dict(FACTS))
    for runner in ("fermt, no graph", "eager"):
        results.add("frame", {"runner": runner, "timing": "graph", "failed": "OutOfResources"})
    assert results.faults() == ["frame: fermt, no graph, graph: OutOfResources"]
    assert "KeyError" in results.page()  # these lines lack most of what they should have


def test_nothing_in_c_is_built_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the compiled library a run begins with its parts, and starts no other process."""
    monkeypatch.setattr(library, "unavailable_reason", lambda: "not built")
    monkeypatch.setattr(command.triton_backend, "unavailable_reason", lambda: None)
    started: list[Any] = []
    monkeypatch.setattr(supervise.subprocess, "Popen", lambda command, **_: started.append(command) or 1 / 0)
    monkeypatch.setattr(command, "facts", lambda: dict(FACTS) | {"threads": 1, "isa": None})
    with pytest.raises(ZeroDivisionError):
        command.main("headline", out=tmp_path)
    assert [each[1:3] for each in started] == [("-m", "benchmarks.gpu")]


def test_what_one_part_compiles_is_no_reason_to_leave_the_next_uncompiled() -> None:
    """torch.compile gives up on a function after some recompilations; each row of a table starts anew."""
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        compiled.append(1)
        return graph.forward

    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    rows = torch._dynamo.config.recompile_limit + 2
    machine = clocks.Machine("cpu", lambda _: None)
    for size in range(1, rows + 1):
        run = torch.compile(double, backend=backend, dynamic=False)
        runners = {"fermt": clocks.Runner.of(lambda run=run, size=size: run(torch.ones(size)), ("graph",))}
        shared = {"benchmark": "x", "dtype": "float32", "batch": 1}
        (line,) = clocks.timed("x", runners, shared, machine)
        assert "failed" not in line
    assert len(compiled) == rows


def test_a_peer_that_would_turn_eager_fails_instead() -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    run = torch.compile(double, backend="eager", dynamic=False)
    sizes: Iterator[int] = iter(range(1, 1000))

    def many() -> None:
        for _ in range(torch._dynamo.config.recompile_limit + 2):
            run(torch.ones(next(sizes)))

    shared = {"benchmark": "x", "dtype": "float32", "batch": 1}
    runners = {"fermt": clocks.Runner.of(list, ("graph",)), "a peer": clocks.Runner.of(many, ("graph",))}
    lines = list(clocks.timed("x", runners, shared, clocks.Machine("cpu", lambda _: None)))
    assert [line["runner"] for line in lines if "failed" in line] == ["a peer"]


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_estimated_to_take_less_than_its_deadline(run: str) -> None:
    text, seconds = parts.estimate(RUNS[run], command.CORES)
    assert seconds < 8.5 * 60, text
    assert all(f"| {name} |" in text for name in RUNS[run])
    assert "kernels to compile" in text


def test_an_unknown_part_is_refused() -> None:
    with refused(command.typer.BadParameter, "'frames'"):
        command.main("ops,frames")
