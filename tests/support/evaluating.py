"""`fermt eval` on a miniature, and what it leaves; a benchmark that ends the process that reads one of its sequences.

python -m tests.support.evaluating FILE ARGUMENT ...: `fermt eval ARGUMENT ...` that is killed when FILE gets its name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from fermt.cli import app
from fermt.datasets import TestSequence
from fermt.datasets.got10k import GOT10kBenchmark

from . import clips

NAMES = clips.names()
FRAMES = dict(zip(NAMES, clips.LENGTHS, strict=True))
ALONE = ("--workers", "1")
DEADLY = 1  # the sequence


def call(*arguments: object) -> tuple[int, str]:
    wide = {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}  # so that no message is broken within a word
    result = CliRunner().invoke(app, ["eval", *map(str, arguments)], env=wide)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", "").split())


def given(root: Path, weights: Path, folder: Path, *more: object) -> list[str]:
    return [*map(str, ("--dataset", f"got10k={root}", "--weights", weights, "--out", folder, *more))]


def run(root: Path, weights: Path, folder: Path, *more: object) -> tuple[int, str]:
    return call(*given(root, weights, folder, *more))


def boxes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.txt")}


def scores(path: Path) -> list[dict[str, object]]:
    """Of each report, less what times say."""
    reports = json.loads(path.read_text())["reports"]
    return [{key: value for key, value in report.items() if key not in ("fps", "tracker")} for report in reports]


class Deadly(GOT10kBenchmark):
    def __getitem__(self, i: int) -> TestSequence:
        if i == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


def killed_at(name: str) -> None:
    """Has this process killed when a file of that name is whole, but has not got its name."""
    replace = os.replace

    def deadly(source: Any, target: Any) -> None:
        if Path(target).name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = deadly


if __name__ == "__main__":
    killed_at(sys.argv[1])
    app(["eval", *sys.argv[2:]])
