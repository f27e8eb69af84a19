"""benchmarks.accuracy: its scores by hand, what it reads, and what it does when something is missing or goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import accuracy, accuracy_trackers
from benchmarks.accuracy_data import find_sequences, labeled, read_dense, read_sparse, score
from benchmarks.accuracy_trackers import EXAMPLES, FORMS, PEERS, NetworkFollower, OpenCVFollower
from benchmarks.peers import PeerMissingError
from fermt.tracking.sources import open_source

from .support.errors import lacking, refused
from .support.tracking import save_steady, steady_model

NAN = float("nan")
BOX = (10.0, 10.0, 10.0, 10.0)
# A target that moves by 2 pixels a frame, and is absent in frame 3; IoUs of the first box with it are 8/12, 6/14, 2/18.
MOVING = [BOX, (12, 10, 10, 10), (14, 10, 10, 10), (NAN,) * 4, (18, 10, 10, 10)]
AO = (8 / 12 + 6 / 14 + 2 / 18) / 3
AUC = (14 + 9 + 3) / 21 / 3  # thresholds 0, 0.05 ... that each IoU is above


class Still:
    """A tracker that never moves its box."""

    def init(self, image: np.ndarray, box: Sequence[float]) -> None:
        self.box = tuple(box)

    def update(self, image: np.ndarray) -> Sequence[float]:
        return self.box


def images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for t in range(count):
        cv2.imwrite(str(folder / f"{t + 1:05d}.jpg"), np.full((40, 48, 3), 40 * t, np.uint8))


def dense(folder: Path, rows: Sequence[Sequence[float]] = MOVING) -> Path:
    images(folder, len(rows))
    (folder / "groundtruth.txt").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command with one tracker, `still`."""
    monkeypatch.setitem(PEERS, "still", lambda nano: Still())
    app = typer.Typer()
    app.command()(accuracy.main)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["--no-untrained", "--peers", "still", *map(str, arguments)])

    return run


def test_scores_by_hand() -> None:
    truth = np.array([(0, 0, 9, 9), (0, 0, 10, 10), (0, 0, 10, 10), (0, 0, 10, 10), (NAN,) * 4, (0, 0, 10, 10)])
    boxes = np.array([(5, 5, 1, 1), (0, 0, 10, 10), (0, 0, 10, 5), (5, 0, 10, 10), (1, 1, 9, 9), (20, 0, 10, 10)])
    found = score(boxes, truth)  # IoU 1, 1/2, 1/3, 0; the first frame and the absent one are not counted
    assert found.frames == 4
    assert found.ao == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert found.sr == pytest.approx(1 / 4)  # a half is not above a half
    assert found.auc == pytest.approx((20 + 10 + 7) / 21 / 4)


def test_a_miniature_by_hand(tmp_path: Path, call: Callable[..., Any]) -> None:
    dense(tmp_path / "set" / "moving")
    dense(tmp_path / "set" / "still", [BOX, BOX])
    out = tmp_path / "out.json"
    ran = call("--sequences", tmp_path / "set", "--group", "slow=still", "--json", out)
    assert ran.exit_code == 0, ran.output
    written = json.loads(out.read_text())
    moving = {"ao": AO, "sr": 1 / 3, "auc": AUC, "frames": 3}
    assert written["sequences"]["moving"]["still"] == pytest.approx(moving)
    assert written["means"]["slow"]["still"]["ao"] == pytest.approx(1)
    assert written["means"]["mean"]["still"] == pytest.approx(
        {"ao": (1 + AO) / 2, "sr": (1 + 1 / 3) / 2, "auc": (20 / 21 + AUC) / 2, "frames": 4}
    )
    for fact in ("commit", "date", "cpu", "torch", "opencv", "groups", "trackers"):
        assert fact in written
    for shown in ("moving (5 frames)", "left", f"{AO:.3f}  0.333  {AUC:.3f}", "slow", "SR0.5"):
        assert shown in ran.output


def test_only_the_first_frames(tmp_path: Path, call: Callable[..., Any]) -> None:
    dense(tmp_path / "moving")
    out = tmp_path / "out.json"
    assert call("--sequences", tmp_path, "--frames", 2, "--json", out).exit_code == 0
    assert json.loads(out.read_text())["means"]["mean"]["still"]["ao"] == pytest.approx(8 / 12)
    assert "take more" in call("--sequences", tmp_path, "--frames", 1).output


def test_a_video_with_labels_of_some_frames(tmp_path: Path, call: Callable[..., Any]) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (48, 40))
    for t in range(6):
        writer.write(np.full((40, 48, 3), 40 * t, np.uint8))
    writer.release()
    rows = "frame,x,y,w,h\n0,10,10,10,10\n2,14,10,10,10\n3,nan,nan,nan,nan\n4,18,10,10,10\n"
    (tmp_path / "clip_groundtruth.csv").write_text(rows)
    for path in (tmp_path, tmp_path / "clip.avi"):
        out = tmp_path / "out.json"
        ran = call("--sequences", path, "--json", out)
        assert ran.exit_code == 0, ran.output
        found = json.loads(out.read_text())["sequences"]["clip"]["still"]
        assert found["frames"] == 2
        assert found["ao"] == pytest.approx((6 / 14 + 2 / 18) / 2)
    (tmp_path / "clip_groundtruth.csv").write_text(rows + "9,18,10,10,10\n")
    assert lacking(call("--sequences", tmp_path).output, "clip", 10, 6) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "nothing"),
        ("nan,nan,nan,nan\n1,1,1,1\n", "[nan, nan, nan, nan]"),
        ("1,1,1,1\n", "after the first"),
        ("1,1,1,1\n1,1,1\n", "line 2"),
        ("1,1,1,1\n1,1,x,1\n", "'1,1,x,1'"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "groundtruth.txt"
    file.write_text(text)
    with refused(ValueError, file, named):
        read_dense(file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("0,1,1,1,1\n", "'0,1,1,1,1'"),
        ("frame,x,y,w,h\n", "[]"),
        ("frame,x,y,w,h\n1,1,1,1,1\n", "[1.]"),
        ("frame,x,y,w,h\n0,1,1,1,1\n5,1,1,1,1\n5,1,1,1,1\n", "[0. 5. 5.]"),
        ("frame,x,y,w,h\n0,1,1,1,1\n1.5,1,1,1,1\n", "[0.  1.5]"),
        ("frame,x,y,w,h\n0,1,1,1,1\n1,1,1,1\n", "line 3"),
    ],
)
def test_bad_labels_of_some_frames_are_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "groundtruth.csv"
    file.write_text(text)
    with refused(ValueError, file, named):
        read_sparse(file)


def test_a_sequence_that_cannot_be_read_is_left_out(tmp_path: Path, call: Callable[..., Any]) -> None:
    dense(tmp_path / "good")
    bad = dense(tmp_path / "short")
    (bad / "00004.jpg").unlink()
    dense(tmp_path / "long")
    cv2.imwrite(str(tmp_path / "long" / "00006.jpg"), np.zeros((40, 48, 3), np.uint8))
    out = tmp_path / "out.json"
    ran = call("--sequences", tmp_path, "--json", out)
    assert ran.exit_code == 1
    assert lacking(ran.output, "short", 5, 4) == []
    assert "Not in the means: long, short" in ran.output
    written = json.loads(out.read_text())
    assert set(written["sequences"]) == {"good"}
    assert set(written["failed"]) == {"short", "long"}


def test_ctrl_c_shows_what_is_done(tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    dense(tmp_path / "a")
    dense(tmp_path / "b")

    class Stopped(Still):
        targets = 0

        def init(self, image: np.ndarray, box: Sequence[float]) -> None:
            super().init(image, box)
            self.targets += 1
            if self.targets == 2:
                raise KeyboardInterrupt

    monkeypatch.setitem(PEERS, "still", lambda nano: Stopped())
    ran = call("--sequences", tmp_path, "--json", tmp_path / "out.json")
    assert ran.exit_code == 130
    assert "Interrupted" in ran.output
    assert f"{AO:.3f}" in ran.output
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--dtypes", "float8"), "float8"),
        (("--dtypes", ""), "dtypes"),
        (("--peers", "sort"), "sort"),
        (("--group", "g"), "NAME=SEQUENCE"),
        (("--group", "mean=one"), "NAME=SEQUENCE"),
        (("--group", "g=two"), "two"),
        (("--json", "out.txt"), ".json"),
        (("--sequences", "nowhere"), "nowhere"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, call: Callable[..., Any], more: tuple[str, ...], message: str) -> None:
    dense(tmp_path / "one")
    ran = call("--sequences", tmp_path, *more)
    assert ran.exit_code in (1, 2)
    assert message in ran.output


def test_two_sequences_of_one_name_are_refused(tmp_path: Path, call: Callable[..., Any]) -> None:
    for folder in ("a", "b"):
        dense(tmp_path / folder / "one")
    ran = call("--sequences", tmp_path / "a", "--sequences", tmp_path / "b")
    assert ran.exit_code == 1
    assert "more than one is called one" in ran.output


class FakeTracker:
    """As OpenCV's: found in every second frame."""

    made: list[FakeTracker] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.made.append(self)
        self.updates = 0

    def init(self, image: np.ndarray, box: tuple[int, ...]) -> None:
        self.first_pixel, self.box = tuple(image[0, 0]), box

    def update(self, image: np.ndarray) -> tuple[bool, tuple[int, ...]]:
        self.updates += 1
        return self.updates % 2 == 1, (self.updates, 0, 0, 0)


def test_opencvs_trackers_take_bgr_and_keep_their_last_box() -> None:
    follower = OpenCVFollower(FakeTracker)
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200  # red, in RGB
    follower.init(image, (1.4, 1.6, 3.0, 3.0))
    tracker = FakeTracker.made[-1]
    assert tracker.first_pixel == (0, 0, 200)
    assert tracker.box == (1, 2, 3, 3)
    assert [follower.update(image)[0] for _ in range(4)] == [1, 1, 3, 3]
    follower.init(image, (0, 0, 3, 3))
    assert FakeTracker.made[-1] is not tracker


@pytest.mark.parametrize("name", ["csrt", "nano"])
def test_what_is_missing_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_trackers, "cv2", type("cv2", (), {"__version__": "0"}))
    with pytest.raises(PeerMissingError, match="pip install"):
        PEERS[name](None)


def test_nanotracks_files_are_asked_for(tmp_path: Path) -> None:
    if not hasattr(cv2, "TrackerNano_create"):
        pytest.skip("this OpenCV has no TrackerNano")
    with refused(PeerMissingError, "--nano"):
        PEERS["nano"](None)
    with refused(PeerMissingError, "nanotrack_head_sim.onnx", tmp_path):
        PEERS["nano"](tmp_path)


# How far boxes some 55 pixels wide may be from those of float64, in pixels: about three times what was found.
WITHIN = {"float32": 3e-5, "onnx": 3e-5, "model": 3e-5, "bfloat16": 0.5, "int8": 0.5}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_tracks_as_the_model_in_float64_does(form: str) -> None:
    try:
        network = FORMS[form](steady_model())
    except PeerMissingError as reason:
        pytest.skip(str(reason))
    frames = list(islice(open_source(EXAMPLES / "juice_box"), 3))
    boxes = []
    for each in (network, FORMS["model"](steady_model(torch.float64))):
        follower = NetworkFollower(each)
        follower.init(frames[0], (74, 72, 36, 80))
        boxes.append(np.array([follower.update(frame) for frame in frames[1:]]))
    assert np.abs(boxes[0] - boxes[1]).max() <= WITHIN[form]


def test_weights_and_an_untrained_model(tmp_path: Path, call: Callable[..., Any]) -> None:
    save_steady(tmp_path / "small.safetensors")
    dense(tmp_path / "moving")
    out = tmp_path / "out.json"
    options = ("--sequences", tmp_path, "--dtypes", "model", "--untrained", "--json", out)
    ran = call(*options, "--weights", tmp_path / "small.safetensors")
    assert ran.exit_code == 0, ran.output
    trackers = json.loads(out.read_text())["trackers"]
    assert set(trackers) == {"small, model", "untrained, model", "still"}
    assert trackers["small, model"]["weights"] == "small.safetensors"
    missing = call("--sequences", tmp_path, "--dtypes", "model", "--weights", tmp_path / "none.safetensors")
    assert missing.exit_code == 1
    assert "none.safetensors" in missing.output


def test_the_example_clips_have_labels() -> None:
    found = {sequence.name: sequence for sequence in find_sequences(EXAMPLES)}
    assert set(found) == {"basketball", "juice_box"}
    for name, every, count in (("basketball", 10, 34), ("juice_box", 5, 31)):
        sequence = found[name]
        rows = np.flatnonzero(np.isfinite(sequence.truth[:, 0]))
        assert rows.tolist() == list(range(0, every * count, every))
        height, width = next(iter(sequence.images())).shape[:2]
        low, high = sequence.truth[rows, :2], sequence.truth[rows, :2] + sequence.truth[rows, 2:]
        assert (low >= 0).all()
        assert (high <= (width, height)).all()
    assert len(list(labeled(found["juice_box"]))) == 31
    assert open_source(EXAMPLES / "juice_box").count == 151
