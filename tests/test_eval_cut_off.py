"""`fermt eval` cut off, interrupted, given bad files, and given the folder of another run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import fermt
from fermt.datasets import open_benchmark
from fermt.evaluation import runner as runner_module
from fermt.evaluation.job import Job
from fermt.evaluation.runner import Event, Failed, Finished, SequenceRunner
from fermt.evaluation.workers import CRASHED, run_in_processes
from fermt.locks import locked
from fermt.tracking.network import network_for

from .conftest import ROOT
from .support import clips
from .support.datasets import cut
from .support.errors import lacking
from .support.evaluating import ALONE, DEADLY, FRAMES, NAMES, Deadly, boxes, call, given, run, scores
from .support.tracking import save_steady

pytestmark = pytest.mark.usefixtures("threads_kept")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("moment", [f"{NAMES[3]}_time.txt", f"{NAMES[3]}.txt", "run.json"])
def test_killed_at_a_bad_moment(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, moment: str
) -> None:
    """The longest first: sequence 1, and then 3."""
    folder = tmp_path / "small"
    command = [
        sys.executable,
        "-m",
        "tests.support.evaluating",
        moment,
        *given(clips_root, small_weights, folder, *ALONE),
    ]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(boxes(folder)) == (set() if moment == "run.json" else {f"{NAMES[1]}.txt"})
    code, printed = run(clips_root, small_weights, folder, *ALONE, "--json", tmp_path / "scores.json")
    assert code == 0, printed
    assert boxes(folder) == boxes(whole_run)
    assert scores(tmp_path / "scores.json") == scores(whole_run.parent / "scores.json")
    assert {path.name for path in folder.rglob(".*")} == set()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=str)
def test_workers_end_with_the_command(
    clips_root: Path, small_weights: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """However it ends: none goes on, and what was done stays."""
    long = clips.got10k(tmp_path / "long", lengths=(4, 5, 6))
    clips.lengthen(long, NAMES[2], 40_000)  # not done before the others on a busy machine
    folder = tmp_path / "small"
    command = [sys.executable, "-m", "fermt", "eval", *given(long, small_weights, folder, "--workers", "2")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert wait_for(lambda: len(boxes(folder)) == 2), process.communicate()
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)  # Ctrl-C goes to all of the group
    assert process.wait(60) == status
    assert wait_for(lambda: not is_alive(process.pid))
    said = process.communicate()[1]
    assert ("Interrupted" in said) is (status == 130)
    assert "Traceback" not in said
    assert set(boxes(folder)) == {f"{name}.txt" for name in NAMES[:2]}


def wait_for(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def is_alive(group: int) -> bool:
    """Whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_interrupted_it_keeps_what_is_done(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, left = runner_module.advance, iter(range(FRAMES[NAMES[1]] + 2))

    def interrupted(*arguments: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return advance(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "advance", interrupted)
        code, printed = run(clips_root, small_weights, tmp_path / "small", *ALONE)
    assert code == 130
    assert "Interrupted" in printed
    assert set(boxes(tmp_path / "small")) == {f"{NAMES[1]}.txt"}
    assert "1 done before" in run(clips_root, small_weights, tmp_path / "small", *ALONE)[1]
    assert boxes(tmp_path / "small") == boxes(whole_run)


@pytest.mark.parametrize("more", [ALONE, ("--workers", "2"), ("--batch-size", "4", *ALONE)], ids=" ".join)
def test_sequences_that_fail_are_named_and_tried_again(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, more: Sequence[str]
) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(clips_root / "val", hurt / "val")
    missing, damaged, unboxed = (hurt / "val" / name for name in NAMES[:3])
    (missing / "00000003.jpg").unlink()
    cut(damaged / "00000007.jpg")
    truth = (unboxed / "groundtruth.txt").read_text()
    (unboxed / "groundtruth.txt").write_text("20,15,0,22\n" + truth.partition("\n")[2])
    code, printed = run(hurt, small_weights, tmp_path / "small", *more, "--json", tmp_path / "scores.json")
    assert code == 1, printed
    _, _, listed = printed.partition("3 of 4 sequences have no result; the same command tries them again: ")
    assert re.search(rf"{NAMES[0]}: .*no image of frame 3", listed)
    assert re.search(rf"{NAMES[1]}: image '.*00000007.jpg' cannot be read: a JPEG that is cut off", listed)
    assert re.search(rf"{NAMES[2]}: .*\(20.0, 15.0, 0.0, 22.0\)", listed), listed
    assert set(boxes(tmp_path / "small")) == {f"{NAMES[3]}.txt"}
    assert json.loads((tmp_path / "scores.json").read_text())["reports"][0]["missing"] == NAMES[:3]
    for name in NAMES[:2]:
        shutil.copytree(clips_root / "val" / name, hurt / "val" / name, dirs_exist_ok=True)
    (unboxed / "groundtruth.txt").write_text(truth)
    code, printed = run(hurt, small_weights, tmp_path / "small", *more, "--json", tmp_path / "scores.json")
    assert code == 0, printed
    assert "1 done before, 20 frames to do" in printed
    assert boxes(tmp_path / "small") == boxes(whole_run)
    assert scores(tmp_path / "scores.json") == scores(whole_run.parent / "scores.json")


@pytest.mark.parametrize("bad", NAMES[:2])
def test_annotations_that_cannot_be_read_fail_their_sequence(
    clips_root: Path, small_weights: Path, tmp_path: Path, bad: str
) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(clips_root / "val", hurt / "val")
    (hurt / "val" / bad / "cover.label").write_text("8\n")
    code, printed = run(hurt, small_weights, tmp_path / "small", *ALONE)
    assert code == 1
    assert re.search(rf"1 of 4 sequences have no result; .* {bad}: '.*cover.label': expected", printed), printed
    assert set(boxes(tmp_path / "small")) == {f"{name}.txt" for name in NAMES if name != bad}
    assert "3 of 4" in printed.partition("protocol got10k")[2]
    for name in NAMES:  # others' results, too, are scored without it
        (tmp_path / "theirs" / name).mkdir(parents=True)
        shutil.copy(clips_root / "val" / name / "groundtruth.txt", tmp_path / "theirs" / name / f"{name}_001.txt")
    code, printed = call("--dataset", f"got10k={hurt}", "--results", tmp_path / "theirs")
    assert (code, f"WARNING: {bad} is NOT in the scores: " in printed) == (0, True), printed


class Faulty:
    """A network that finds nothing finite, or raises, for the target with the `bad`-th template that it encodes."""

    def __init__(self, network: object, bad: int, fault: Exception | None) -> None:
        self._network, self._left, self._fault = network, bad, fault
        self._bad: Tensor | None = None
        self.device = network.device  # type: ignore[attr-defined]
        for name in ("template_size", "search_size", "template_factor", "search_factor"):
            setattr(self, name, getattr(network, name))

    def encode(self, template: np.ndarray) -> Tensor:
        encoded = self._network.encode(template)  # type: ignore[attr-defined]
        self._bad = encoded if self._left == 0 else self._bad
        self._left -= 1
        return encoded

    def locate(self, encoded: Sequence[Sequence[Tensor]], searches: np.ndarray) -> Tensor:
        found = self._network.locate(encoded, searches)  # type: ignore[attr-defined]
        for row, (template,) in zip(found, encoded, strict=True):
            if template is self._bad:
                if self._fault is not None:
                    raise self._fault
                row[0] = float("nan")
        return found


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_network_that_fails_in_one_sequence(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, batch_size: int
) -> None:
    network = Faulty(network_for(fermt.load(small_weights), None), 2, None)
    events: list[Event] = []
    work = iter(range(4))
    SequenceRunner(network, open_benchmark("got10k", clips_root), tmp_path, batch_size).run(
        lambda: next(work, None), events.append
    )
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert (failed.sequence, lacking(failed.reason, "nan")) == (2, [])
    assert {event.sequence for event in events if isinstance(event, Finished)} == {0, 1, 3}
    expected = boxes(whole_run)
    del expected[f"{NAMES[2]}.txt"]
    assert boxes(tmp_path) == expected


@pytest.mark.parametrize("fault", runner_module.FATAL_ERRORS)
def test_what_every_sequence_would_meet_ends_the_run(
    clips_root: Path, small_weights: Path, tmp_path: Path, fault: type[Exception]
) -> None:
    network = Faulty(network_for(fermt.load(small_weights), None), 1, fault("the device is gone"))
    work = iter(range(4))
    events: list[Event] = []
    with pytest.raises(fault, match="the device is gone"):
        SequenceRunner(network, open_benchmark("got10k", clips_root), tmp_path, 1).run(
            lambda: next(work, None), events.append
        )
    assert [event for event in events if isinstance(event, Finished | Failed)] == [Finished(0)]


def job(clips_root: Path, small_weights: Path, folder: Path) -> Job:
    return Job(open_benchmark("got10k", clips_root), folder, small_weights, "auto", "cpu", None, 1, 1)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_worker_that_dies_fails_what_it_had(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path
) -> None:
    deadly = Job(Deadly(clips_root), tmp_path, small_weights, "auto", "cpu", None, 1, 1)
    events: list[Event] = []
    run_in_processes(deadly, (0, DEADLY, 2, 3), 2, events.append)
    assert [event for event in events if isinstance(event, Failed)] == [Failed(DEADLY, CRASHED)]
    assert {event.sequence for event in events if isinstance(event, Finished)} == {0, 2, 3}
    assert boxes(tmp_path) == {name: text for name, text in boxes(whole_run).items() if name != f"{NAMES[DEADLY]}.txt"}


def test_a_worker_that_cannot_write_ends_the_run(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="Not a directory|File exists"):
        run_in_processes(job(clips_root, small_weights, tmp_path / "file"), (0, 1), 1, lambda event: None)


def test_a_folder_of_another_run_is_refused(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    assert run(clips_root, small_weights, folder, *ALONE, "--only", NAMES[0])[0] == 0
    before = boxes(folder)
    other = save_steady(tmp_path / "other.safetensors", seed=1)
    renamed = shutil.copy(small_weights, tmp_path / "renamed.safetensors")
    differences = {
        "weights_sha256 was": (other,),
        "dtype was 'float32', and is to be 'bfloat16'": (small_weights, "--dtype", "bfloat16"),
        "backend was 'auto', and is to be 'reference'": (small_weights, "--backend", "reference"),
        "side_by_side was 1, and is to be 2": (small_weights, "--batch-size", "2"),
        "split was 'val', and is to be 'test'": (small_weights, "--split", "test"),
    }
    for difference, (file, *more) in differences.items():
        code, printed = run(clips_root, file, folder, *ALONE, *more)
        assert code == 1
        assert f"'{folder}' is of another run (" in printed
        assert difference in printed, printed
        assert "--fresh" in printed
        assert boxes(folder) == before
    assert run(clips_root, renamed, folder, *ALONE, "--only", NAMES[0])[0] == 0


def test_fresh_deletes_what_a_run_wrote_and_no_more(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    assert run(clips_root, small_weights, folder, *ALONE)[0] == 0
    for stranger in (folder / "notes.txt", folder / "times" / "mine_time.txt", folder / "mine.csv"):
        stranger.write_text("mine")
    other = save_steady(tmp_path / "other.safetensors", seed=1)
    before = boxes(folder)
    code, printed = run(clips_root, other, folder, *ALONE, "--fresh", "--only", NAMES[2])
    assert code == 0, printed
    assert "0 done before, 3 frames to do" in printed
    after = boxes(folder)
    assert set(after) == {f"{NAMES[2]}.txt", "notes.txt"}
    assert after[f"{NAMES[2]}.txt"] != before[f"{NAMES[2]}.txt"]
    assert (folder / "times" / "mine_time.txt").read_text() == (folder / "mine.csv").read_text() == "mine"
    assert {path.name for path in (folder / "times").iterdir()} == {
        f"{NAMES[2]}_time.txt", f"{NAMES[2]}_decoding.txt", "mine_time.txt"
    }  # fmt: skip


def test_results_of_others_are_not_taken_for_its_own(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole_run, tmp_path / "theirs")
    (tmp_path / "theirs" / "run.json").unlink()
    code, printed = run(clips_root, small_weights, tmp_path / "theirs", *ALONE)
    assert (code, f"results without a run.json, such as that of '{NAMES[0]}'" in printed) == (1, True), printed
    (tmp_path / "theirs" / "run.json").write_text("[]")
    assert "is not the record of a run" in run(clips_root, small_weights, tmp_path / "theirs", *ALONE)[1]


@pytest.mark.parametrize("text", ["1,2,3,4\n", "1 2 x 4\n" * 5], ids=["short", "no numbers"])
def test_a_result_that_is_not_whole_is_made_again(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, text: str
) -> None:
    shutil.copytree(whole_run, tmp_path / "small")
    (tmp_path / "small" / f"{NAMES[0]}.txt").write_text(text)
    code, printed = run(clips_root, small_weights, tmp_path / "small", *ALONE)
    assert (code, "3 done before, 5 frames to do" in printed) == (0, True), printed
    assert boxes(tmp_path / "small") == boxes(whole_run)


def test_one_run_at_a_time(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no locks on files")
    with locked(tmp_path):
        code, printed = run(clips_root, small_weights, tmp_path, *ALONE)
    assert (code, "another run is active in" in printed) == (1, True), printed


def test_a_run_without_any_result_says_why_and_no_more(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(clips_root / "val", hurt / "val")
    for name in NAMES:
        cut(hurt / "val" / name / "00000002.jpg")
    code, printed = run(hurt, small_weights, tmp_path / "small", *ALONE)
    assert code == 1
    assert lacking(printed, 4, *NAMES) == []
    assert "Error" not in printed
    assert boxes(tmp_path / "small") == {}
