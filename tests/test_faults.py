"""Commands stopped, killed, or out of space at drawn moments: what was complete is readable, the status says it."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.locks import LOCK_FILE
from fermt.tracking import video as video_module
from fermt.training import state

from .conftest import ROOT
from .support import clips, micro
from .support.errors import lacking, refused
from .support.tracking import save_steady
from .test_train_command import changes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the signals and limits are those of POSIX")
FRAMES = 40
BOX = "30,20,25,22"
# Runs the command line after setting a limit on the size of files; 0: none. A file at its limit is as a full disk.
LIMITED = """
import resource, sys
import cv2, torch
limit = int(sys.argv.pop(1))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
torch.set_num_threads(1)
from fermt.cli import app
app()
"""


class Case(NamedTuple):
    arguments: Callable[[Path, Path], list[str]]  # from the folder of inputs and that for outputs
    check: Callable[[Path], None]  # raises unless every file that has its name is whole
    begun: str  # pattern of a file that shows that the command is at work


def check_boxes(out: Path) -> None:
    """Whole frames, each with both targets."""
    path = out / "boxes.csv"
    if path.exists():
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert [(int(row["frame"]), row["id"]) for row in rows] == [(i // 2, "01"[i % 2]) for i in range(len(rows))]
        assert all(len([cell for cell in row.values() if cell]) == 8 for row in rows)
        assert len(rows) % 2 == 0


def check_training(out: Path) -> None:
    for path in state.states(out):
        assert "model" in torch.load(path, weights_only=True)
    for path in out.glob("*.safetensors"):
        fermt.load(path)
    if (out / state.METRICS).exists() and not (out / "full").exists():
        assert (out / state.METRICS).read_text().endswith("\n")


def check_results(out: Path) -> None:
    for path in out.glob("*.txt"):
        assert len(np.loadtxt(path, delimiter=",", ndmin=2)) == clips.LENGTHS[clips.names().index(path.stem)]


def check_weights(out: Path) -> None:
    for path in out.glob("*.safetensors"):
        fermt.load(path)


def check_export(out: Path) -> None:
    for path in out.glob("*.pt2"):
        torch.export.load(path)


CASES = {
    "track": Case(
        lambda given, out: [
            *("track", str(given / "frames"), "--box", BOX, "--box", "60,40,20,20", "--out", str(out / "boxes.csv")),
            *("--weights", str(given / "small.safetensors"), "--video", str(out / "video.mp4")),
        ],
        check_boxes,
        ".video.*",
    ),
    "train": Case(
        lambda given, out: ["train", "--out", str(out), "--device", "cpu", *changes("epochs=200", "save_every=1")],
        check_training,
        "state-*",
    ),
    "eval": Case(
        lambda given, out: [
            *("eval", "--dataset", f"got10k={given / 'got10k'}", "--weights", str(given / "small.safetensors")),
            *("--out", str(out), "--workers", "1"),
        ],
        check_results,
        "run.json",
    ),
    "convert": Case(
        lambda given, out: ["convert", str(given / "authors.pth.tar"), str(out / "a.safetensors")],
        check_weights,
        ".a.*",
    ),
    "export": Case(
        lambda given, out: ["export", "--weights", str(given / "small.safetensors"), "--out", str(out / "a.pt2")],
        check_export,
        ".a.*",
    ),
}
ENDLESS = ("track", "train")  # not done before a signal comes


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("given")
    (root / "frames").mkdir()
    image = np.random.default_rng(0).integers(256, size=(90, 120, 3), dtype=np.uint8)
    data = cv2.imencode(".png", image)[1].tobytes()
    (root / "frames" / "0.png").write_bytes(data)
    for i in range(1, 8_000):
        (root / "frames" / f"{i}.png").hardlink_to(root / "frames" / "0.png")
    (root / "few").mkdir()
    for i in range(FRAMES):
        (root / "few" / f"{i}.png").write_bytes(data)
    clips.got10k(root / "got10k")
    save_steady(root / "small.safetensors")
    torch.save({"net": fermt.build_model("fermt").state_dict()}, root / "authors.pth.tar")
    return root


def litter(out: Path) -> set[str]:
    return {path.name for path in out.rglob(".*")}


def started(case: Case, given: Path, out: Path, limit: int = 0) -> subprocess.Popen[str]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, "-c", LIMITED, str(limit), *case.arguments(given, out)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def signs(case: Case, out: Path) -> set[tuple[str, int]]:
    """The files that show that the command is at work, and when each was written."""
    found = set()
    for path in out.glob(case.begun):
        with suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def stopped(name: str, given: Path, out: Path, number: signal.Signals, delay: float) -> int:
    """The exit status of a command to which a signal is sent `delay` seconds after it is seen at work."""
    case = CASES[name]
    before = signs(case, out)  # of a run before
    process = started(case, given, out)
    deadline = time.monotonic() + 90
    while not signs(case, out) - before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    said = process.communicate(timeout=90)[1]
    assert "Traceback" not in said, said
    return process.returncode


def check_stopped(name: str, given: Path, out: Path, number: signal.Signals, delay: float) -> None:
    status = stopped(name, given, out, number, delay)
    done = (0, -number) if name not in ENDLESS else ()  # before the signal, or while the interpreter was ending
    assert status in ((-number if number == signal.SIGKILL else 128 + number), *done)
    CASES[name].check(out)
    if number != signal.SIGKILL:
        assert litter(out) == set()
    if name == "track" and number != signal.SIGKILL and delay >= 0.5:
        assert (out / "boxes.csv").stat().st_size > 100
    if name == "train":
        assert state.states(out)


def test_sigterm_while_tracking(given: Path, tmp_path: Path) -> None:
    check_stopped("track", given, tmp_path / "out", signal.SIGTERM, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("name", CASES)
def test_signals_at_drawn_moments(name: str, number: signal.Signals, given: Path, tmp_path: Path) -> None:
    draw = random.Random(f"{name} {number}")
    for i in range(2):
        check_stopped(name, given, tmp_path / str(i), number, draw.uniform(0, 1.5))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_next_run_deletes_what_a_killed_one_left(name: str, given: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped(name, given, out, signal.SIGKILL, 0.3)
    if name == "track":
        assert {path.suffix for path in out.iterdir()} == {".tmp", ".mp4"}
    if name in ("train", "eval"):
        (out / ".state-000000001.01234567.tmp.pt").write_text("cut off")
        (out / ".lock").touch()
    done = (0, -signal.SIGTERM) if name not in ENDLESS else ()
    assert stopped(name, given, out, signal.SIGTERM, 1.0) in (128 + signal.SIGTERM, *done)
    assert litter(out) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_full_disks_at_drawn_moments(name: str, given: Path, tmp_path: Path) -> None:
    draw = random.Random(name)
    for i in range(2):
        out = tmp_path / str(i)
        limit = draw.randint(500, 5_000)
        process = started(CASES[name], given, out, limit)
        said = process.communicate(timeout=120)[1]
        (out / "full").touch()
        if process.returncode == 0 and name not in ENDLESS:  # all that it writes is smaller
            assert max(path.stat().st_size for path in out.rglob("*") if path.is_file()) < limit
        else:
            assert (process.returncode, "Error" in said, "Traceback" in said) == (1, True, False), said
        CASES[name].check(out)
        assert litter(out) == set()


def track(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["track", *map(str, arguments)], env={"COLUMNS": "400"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture
def basics(given: Path, tmp_path: Path) -> tuple[object, ...]:
    return (given / "few", "--box", BOX, "--weights", given / "small.safetensors", "--out", tmp_path / "boxes.csv")


def frames_in(path: Path) -> int:
    with path.open() as file:
        return len(list(csv.DictReader(file)))


def test_a_full_disk_keeps_whole_frames_of_boxes(
    basics: tuple[object, ...], tmp_path: Path, limit_of_files: Callable[[int], None]
) -> None:
    limit_of_files(500)
    code, printed = track(*basics)
    assert (code, "File too large" in printed) == (1, True)
    check = (tmp_path / "boxes.csv").read_text()
    assert 3 < frames_in(tmp_path / "boxes.csv") < FRAMES
    assert check.endswith("\n")
    assert litter(tmp_path) == set()


@pytest.fixture
def limit_of_files() -> object:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_video_and_no_boxes(
    basics: tuple[object, ...], tmp_path: Path, limit_of_files: Callable[[int], None]
) -> None:
    limit_of_files(20_000)
    code, printed = track(*basics, "--video", tmp_path / "a.mp4", "--every", 20)
    assert (code, "of its 40 frames can be read back" in printed) == (1, True), printed
    assert frames_in(tmp_path / "boxes.csv") == FRAMES
    assert not (tmp_path / "a.mp4").exists()
    assert litter(tmp_path) == set()


def test_a_video_of_which_a_part_is_missing_gets_no_name(
    basics: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        """A writer that says nothing and leaves out the last frames."""

        def __init__(self, *arguments: object) -> None:
            self.writer, self.left = cv2.VideoWriter(*arguments), FRAMES - 3

        def __getattr__(self, name: str) -> object:
            return getattr(self.writer, name)

        def write(self, image: np.ndarray) -> None:
            self.left -= 1
            if self.left >= 0:
                self.writer.write(image)

    class Module:
        VideoWriter = Forgetful

        def __getattr__(self, name: str) -> object:
            return getattr(cv2, name)

    Forgetful.fourcc = cv2.VideoWriter.fourcc  # type: ignore[attr-defined]
    monkeypatch.setattr(video_module, "cv2", Module())
    code, printed = track(*basics, "--video", tmp_path / "a.mp4")
    assert (code, "37 of its 40 frames can be read back" in printed) == (1, True), printed
    assert {path.name for path in tmp_path.iterdir()} == {"boxes.csv"}


@pytest.mark.parametrize("failing", ["--video", "--every"])
def test_a_picture_that_fails_costs_nothing_else(
    basics: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    places = {
        "--video": "fermt.tracking.video.VideoWriter.write",
        "--every": "fermt.tracking.sheet.write_png",
    }
    monkeypatch.setattr(places[failing], full)
    code, printed = track(*basics, "--video", tmp_path / "a.mp4", "--every", 20)
    assert (code, "No space left" in printed) == (1, True)
    assert frames_in(tmp_path / "boxes.csv") == FRAMES
    other = {"--video": "boxes.png", "--every": "a.mp4"}[failing]
    assert {path.name for path in tmp_path.iterdir()} == {"boxes.csv", other}


def test_a_folder_that_cannot_be_written_to(basics: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as root, to whom modes mean nothing: a file system that is mounted read-only gives the same error."""
    opened = os.open

    def read_only(path: object, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system", path)
        return opened(path, flags, *more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", read_only)
    code, printed = track(*basics)
    assert (code, "Read-only file system" in printed, "Traceback" in printed) == (1, True, False)


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    from fermt.locks import locked

    trainer = micro.trainer(micro.config(), tmp_path / "run")
    with locked(tmp_path / "run"):
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        with refused(RuntimeError, tmp_path / "run"):
            trainer.run()
        for mode in ("--resume", "--fresh"):
            arguments = ["train", "--out", str(tmp_path / "run"), mode, "--device", "cpu", *changes()]
            result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
            assert (result.exit_code, lacking(result.output, tmp_path / "run")) == (1, [])
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before == [LOCK_FILE]
    assert litter(tmp_path) == set()


def test_weights_on_a_full_disk(given: Path, tmp_path: Path, limit_of_files: Callable[[int], None]) -> None:
    limit_of_files(2_000)
    with refused(OSError, tmp_path / "small.safetensors"):
        fermt.save(fermt.load(given / "small.safetensors"), tmp_path / "small.safetensors")
    assert list(tmp_path.iterdir()) == []
