"""`fermt eval`: what it writes and prints, however its work is divided, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.cli import eval as command
from fermt.datasets import open_benchmark
from fermt.evaluation import record
from fermt.evaluation import runner as runner_module
from fermt.evaluation.job import Shares, divide
from fermt.evaluation.results import read_result
from fermt.evaluation.runner import SequenceRunner
from fermt.images import read_image
from fermt.tracking.network import network_for

from .support import clips
from .support.errors import lacking
from .support.evaluating import ALONE, FRAMES, NAMES, boxes, call, run, scores

pytestmark = pytest.mark.usefixtures("threads_kept")


def test_files_are_what_the_tracker_says(clips_root: Path, small_weights: Path, whole_run: Path) -> None:
    benchmark = open_benchmark("got10k", clips_root)
    tracker = fermt.Tracker(fermt.load(small_weights))
    for i, name in enumerate(NAMES):
        sequence = benchmark[i]
        expected = [sequence.boxes[0]]
        tracker.init(read_image(sequence.frames[0]), sequence.boxes[0].tolist())
        expected += [tracker.update(read_image(path)).box for path in list(sequence.frames)[1:]]
        (result,) = read_result(whole_run, name)
        assert np.array_equal(result.boxes, np.round(expected, 3))
        assert (whole_run / f"{name}.txt").read_text().splitlines()[0] == ",".join(f"{v:.3f}" for v in clips.box(i, 0))
        assert result.seconds is not None
        assert result.seconds.shape == (FRAMES[name],)
        assert (result.seconds > 0).all()
        decoding = np.loadtxt(whole_run / "times" / f"{name}_decoding.txt")
        assert decoding.shape == (FRAMES[name],)
        assert (decoding > 0).all()
    assert len({*boxes(whole_run).values()}) == len(NAMES)
    assert record.read_speed(whole_run, NAMES).frames == sum(clips.LENGTHS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_results_in_a_folder_whose_name_cannot_be_printed(clips_root: Path, whole_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a\xff")
    shutil.copytree(whole_run, folder)
    code, printed = call("--dataset", f"got10k={clips_root}", "--results", folder)
    assert (code, "a\\udcff" in printed) == (0, True), printed


def test_the_record_says_what_the_run_was(small_weights: Path, whole_run: Path) -> None:
    kept = record.read_record(whole_run)
    assert kept is not None
    assert kept.speed == ""
    assert kept.run["weights_sha256"] == record.digest(small_weights)
    assert kept.run["config"] == fermt.load(small_weights).config.to_dict()
    facts = {"dataset": "got10k", "split": "val", "dtype": "float32", "device": "cpu", "side_by_side": 1}
    assert {key: kept.run[key] for key in facts} == facts
    assert {"fermt", "torch", "opencv", "numpy", "python", "backend", "frame"} < set(kept.run)


def test_given_again_it_only_scores(clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole_run.rglob("*.txt")}
    code, printed = run(clips_root, small_weights, whole_run, *ALONE, "--json", tmp_path / "again.json")
    assert code == 0, printed
    assert "4 done before, 0 frames to do" in printed
    assert {path: path.stat().st_mtime_ns for path in whole_run.rglob("*.txt")} == before
    assert scores(tmp_path / "again.json") == scores(whole_run.parent / "scores.json")


@pytest.mark.parametrize("more", [("--workers", "2"), ("--workers", "1", "--batch-size", "3")], ids=" ".join)
def test_the_division_of_work_changes_nothing_but_times(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, more: Sequence[str]
) -> None:
    code, printed = run(clips_root, small_weights, tmp_path / "small", *more, "--json", tmp_path / "scores.json")
    assert code == 0, printed
    assert "speed" in printed
    assert "frames/s" not in printed.partition("speed")[2].splitlines()[0]
    assert boxes(tmp_path / "small") == boxes(whole_run)
    assert scores(tmp_path / "scores.json") == scores(whole_run.parent / "scores.json")
    (report,) = json.loads((tmp_path / "scores.json").read_text())["reports"]
    assert report["fps"] is None
    # Times of a part of the run that was divided say nothing of speed, whoever ends it.
    (tmp_path / "small" / f"{NAMES[0]}.txt").unlink()
    alone = more if "3" in more else ALONE
    code, printed = run(clips_root, small_weights, tmp_path / "small", *alone)
    assert "3 done before, 5 frames to do" in printed
    assert "speed" in printed
    assert "frames/s" not in printed.partition("speed")[2].splitlines()[0]
    assert boxes(tmp_path / "small") == boxes(whole_run)


def test_side_by_side_results_do_not_depend_on_who_meets(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    """Of the model itself, whose last bits depend on the batch: it is filled up."""
    plain = ("--backend", "reference", "--batch-size", "3", *ALONE)
    assert run(clips_root, small_weights, tmp_path / "a", *plain)[0] == 0
    for name in NAMES:
        assert run(clips_root, small_weights, tmp_path / "b", *plain, "--only", name)[0] == 0
    assert boxes(tmp_path / "a") == boxes(tmp_path / "b")


def test_the_batch_is_constant_but_where_it_does_not_matter(
    clips_root: Path, small_weights: Path, tmp_path: Path
) -> None:
    sizes: dict[str, set[int]] = {}
    for backend in ("auto", "reference"):
        network = network_for(fermt.load(small_weights, backend=backend), None)
        locate, seen = network.locate, sizes.setdefault(backend, set())
        network.locate = lambda encoded, searches, locate=locate, seen=seen: (  # type: ignore[method-assign, misc]
            seen.add(len(searches)) or locate(encoded, searches)
        )
        work = iter(range(4))
        SequenceRunner(network, open_benchmark("got10k", clips_root), tmp_path, 3).run(
            lambda work=work: next(work, None), print
        )
    assert sizes["reference"] == {3}
    if isinstance(network_for(fermt.load(small_weights), None), runner_module.PackedNetwork):
        assert sizes["auto"] == {1, 2, 3}


def test_withheld_truth_is_packed_not_scored(clips_root: Path, small_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    code, printed = run(
        clips_root, small_weights, folder, *ALONE, "--split", "test", "--json", tmp_path / "scores.json"
    )
    assert code == 0, printed
    assert set(boxes(folder)) == {f"{name}.txt" for name in clips.names("test")}
    assert scores(tmp_path / "scores.json") == []
    command = re.search(r"fermt (pack --dataset got10k=.*\.zip)", printed)
    assert command is not None, printed
    arguments = command[1].replace("small.zip", str(tmp_path / "small.zip")).split()
    packed = CliRunner().invoke(app, arguments)
    assert packed.exit_code == 0, packed.output
    assert CliRunner().invoke(app, ["pack", "--check", str(tmp_path / "small.zip"),
                                    "--dataset", f"got10k={clips_root}"]).exit_code == 0  # fmt: skip
    code, printed = call("--dataset", f"got10k={clips_root}", "--split", "test", "--results", folder)
    assert (code, "withheld" in printed) == (1, True), printed


def test_results_of_any_tracker_are_scored(
    clips_root: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    for name in NAMES:  # as the GOT-10k toolkit lays them out; the truth itself
        (theirs / name).mkdir(parents=True)
        shutil.copy(clips_root / "val" / name / "groundtruth.txt", theirs / name / f"{name}_001.txt")
    drawn: list[tuple[object, ...]] = []
    monkeypatch.setattr(command, "draw", lambda *arguments: drawn.append(arguments))
    both = ("--dataset", f"got10k={clips_root}", "--results", whole_run, "--results", theirs)
    code, printed = call(*both, "--json", tmp_path / "scores.json", "--plot", tmp_path / "a.svg")
    assert code == 0, printed
    reports = json.loads((tmp_path / "scores.json").read_text())["reports"]
    assert [report["tracker"] for report in reports] == ["small", "theirs"]
    assert 0 < reports[0]["scores"]["AO"]["value"] < 1
    assert reports[1]["scores"]["AO"]["value"] == pytest.approx(1)
    assert (reports[0]["fps"] > 0, reports[1]["fps"]) == (True, None)
    ((drawn_reports, curve, path),) = drawn
    assert ([report.tracker for report in drawn_reports], curve, path) == (  # type: ignore[attr-defined]
        ["small", "theirs"], "success", tmp_path / "a.svg"
    )  # fmt: skip
    assert "got10k" in printed
    (tmp_path / "names").write_text(f"{NAMES[1]}\n{NAMES[3]}\n")
    for only in (("--only", tmp_path / "names"), ("--only", NAMES[3], "--only", NAMES[1])):
        assert call(*both, *only, "--json", tmp_path / "scores.json")[0] == 0
        reports = json.loads((tmp_path / "scores.json").read_text())["reports"]
        assert [report["sequences"] for report in reports] == [[NAMES[1], NAMES[3]]] * 2


def test_scores_by_attribute_and_what_trackers_share_is_said_once(
    clips_root: Path, whole_run: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(whole_run, theirs)
    (theirs / f"{NAMES[1]}.txt").unlink()
    code, printed = call("--dataset", f"got10k={clips_root}", "--results", whole_run, "--results", theirs)
    assert code == 0, printed
    assert printed.count("protocol got10k: ") == 1
    assert any(lacking(line, "theirs", "WARNING", 1, NAMES[1]) == [] for line in printed.splitlines())
    assert "small: 4 sequences, 24 frames counted" in printed
    code, printed = call("--dataset", f"got10k={clips_root}", "--results", whole_run, "--attributes")
    assert (code, "has no attributes" in printed) == (1, True), printed


def test_where_results_go_if_nobody_says(
    clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", f"got10k={clips_root}", "--weights", small_weights, *ALONE)[0] == 0
    assert boxes(tmp_path / "results" / "got10k-val" / "small") == boxes(whole_run)


def test_what_it_refuses(clips_root: Path, small_weights: Path, whole_run: Path, tmp_path: Path) -> None:
    here = ("--dataset", f"got10k={clips_root}")
    refused = {
        "give --weights FILE to run a tracker, or --results DIR": here,
        "dataset must be one of got10k, ": ("--dataset", f"vot={clips_root}", "--weights", small_weights),
        "protocol must be one of auto, got10k, ": (*here, "--weights", small_weights, "--protocol", "mine"),
        "dtype must be one of float32, ": (*here, "--weights", small_weights, "--dtype", "int3"),
        "curve must be one of success, ": (*here, "--results", whole_run, "--curve", "circle"),
        "split val or test": (*here, "--weights", small_weights, "--split", "train"),
        "no weights at": (*here, "--weights", tmp_path / "none.safetensors", "--out", tmp_path / "out"),
        "ends in .json": (*here, "--results", whole_run, "--json", "scores.txt"),
        "ends in .png or .svg or .pdf": (*here, "--results", whole_run, "--plot", "plot.txt"),
        "Expected layout": ("--dataset", f"got10k={tmp_path}", "--results", whole_run),
        "there is no folder of results": (*here, "--results", tmp_path / "none"),
        "no sequence mine": (*here, "--results", whole_run, "--only", "mine"),
    }
    for expected, arguments in refused.items():
        code, printed = call(*arguments)
        assert code != 0
        assert expected in printed, (expected, printed)
    assert not (tmp_path / "out").exists()


def test_how_a_machine_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert divide("cpu", 0, 0, 0, 100) == Shares(8, 1, 1)
    assert divide("cpu", 0, 2, 0, 100) == Shares(4, 2, 1)
    assert divide("cpu", 1, 0, 0, 100) == Shares(1, 8, 1)
    assert divide("cpu", 3, 0, 0, 100) == Shares(3, 2, 1)
    assert divide("cpu", 16, 0, 5, 100) == Shares(16, 1, 5)
    assert divide("cpu", 0, 0, 0, 3) == Shares(3, 1, 1)
    assert divide("cuda", 0, 0, 0, 100) == Shares(1, 0, 32)
    assert divide("cuda:1", 2, 4, 1, 100) == Shares(2, 4, 1)
    assert Shares(1, 8, 1).speed_caveat == ""
    assert lacking(Shares(2, 4, 3).speed_caveat, 2, 3) == []
