"""`fermt track` end to end: sources, starts, files, interruptions, and what a newcomer gets wrong."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.cli import track as command
from fermt.tracking import sources
from fermt.tracking.results import COLUMNS
from fermt.tracking.sources import open_source
from fermt.tracking.video import Window

from .support.errors import lacking, refused
from .support.packed import small_model

CLIP = Path(__file__).parents[1] / "examples" / "basketball.mp4"
FRAMES = 12
BOX = "30,20,25.5,22.25"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "frames"
    made.mkdir()
    generator = np.random.default_rng(0)
    for i in range(FRAMES):
        cv2.imwrite(str(made / f"frame{i}.png"), generator.integers(256, size=(90, 120, 3), dtype=np.uint8))
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    fermt.save(fermt.build_model(small_model("center").config), path)
    return path


def track(*arguments: object) -> tuple[int, str]:
    wide = {"COLUMNS": "400", "TERMINAL_WIDTH": "400"}  # so that no message is broken within a word
    result = CliRunner().invoke(app, ["track", *map(str, arguments)], env=wide)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", "").split())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_many_targets_in_csv_and_json_lines(folder: Path, weights: Path, tmp_path: Path) -> None:
    boxes = ("--box", BOX, "--box", "60 40 20 20")
    for name in ("a.csv", "a.jsonl"):
        code, printed = track(folder, *boxes, "--weights", weights, "--out", tmp_path / name)
        assert code == 0, printed
        assert f"{2 * FRAMES} boxes in" in printed
    table = rows(tmp_path / "a.csv")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(row["frame"], row["id"]) for row in table] == [(str(i), name) for i in range(FRAMES) for name in "01"]
    assert all(tuple(line) == COLUMNS for line in lines)
    for row, line in zip(table, lines, strict=True):
        assert [float(row[key]) for key in ("x", "y", "w", "h", "score")] == [line[key] for key in COLUMNS[2:7]]
        assert (row["lost"], row["id"]) == ("0", line["id"])
        assert line["lost"] is False
    assert [float(table[0][key]) for key in "xywh"] == [30, 20, 25.5, 22.25]


def test_a_target_alone_is_followed_as_by_the_tracker(folder: Path, weights: Path, tmp_path: Path) -> None:
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.txt")
    assert code == 0, printed
    tracker, expected = fermt.Tracker(fermt.load(weights)), []
    for image in open_source(folder):
        if not expected:
            tracker.init(image, tuple(map(float, BOX.split(","))))
            expected.append(tuple(map(float, BOX.split(","))))
        else:
            expected.append(tracker.update(image).box)
    found = [tuple(map(float, line.split(","))) for line in (tmp_path / "a.txt").read_text().splitlines()]
    np.testing.assert_allclose(found, expected, atol=5e-4 + 1e-9)


def test_a_file_of_targets(folder: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text(
        "frame,id,x,y,w,h\n# the ball comes later\n10,20,30,40\n\n5,ball,50\t40 20 20\n"
    )
    code, printed = track(
        folder, "--boxes", tmp_path / "boxes.txt", "--weights", weights, "--out", tmp_path / "a.csv"
    )  # fmt: skip
    assert code == 0, printed
    table = rows(tmp_path / "a.csv")
    assert [int(row["frame"]) for row in table if row["id"] == "0"] == list(range(FRAMES))
    ball = [row for row in table if row["id"] == "ball"]
    assert [int(row["frame"]) for row in ball] == list(range(5, FRAMES))
    assert [ball[0][key] for key in ("x", "y", "w", "h", "score")] == ["50.000", "40.000", "20.000", "20.000", "1.0000"]


def test_brackets_in_names_are_no_markup(folder: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a[").mkdir()
    out = tmp_path / "a[" / "b].csv"
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", out)
    assert (code, f"boxes in {out}" in printed) == (0, True), printed


def test_boxes_and_a_file_of_targets(folder: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text("10,20,30,40\n")
    options = "--box", BOX, "--boxes", tmp_path / "boxes.txt", "--weights", weights, "--out", tmp_path / "a.csv"
    code, printed = track(folder, *options)
    assert code == 0, printed
    assert {row["id"] for row in rows(tmp_path / "a.csv")} == {"0", "1"}
    (tmp_path / "boxes.txt").write_text("1,0,10,20,30,40\n")
    code, printed = track(folder, *options)
    assert (code, "the same: 0" in printed) == (2, True), printed


def test_a_target_after_the_end_is_reported_and_the_others_kept(folder: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.txt").write_text("0,a,10,20,30,40\n50,b,50,40,20,20\n")
    code, printed = track(folder, "--boxes", tmp_path / "boxes.txt", "--weights", weights, "--out", tmp_path / "a.csv")
    assert code == 1
    assert lacking(printed, "'b'", 50, 11) == []
    assert len(rows(tmp_path / "a.csv")) == FRAMES


def test_patterns_are_read_in_natural_order(folder: Path) -> None:
    (folder / "other.jpg").write_bytes(b"")
    source = open_source(str(folder / "frame*.png"))
    assert source.count == FRAMES
    for got, want in zip(source, range(FRAMES), strict=True):
        assert np.array_equal(got[..., ::-1], cv2.imread(str(folder / f"frame{want}.png")))
    with refused(FileNotFoundError, folder / "*.gif"):
        open_source(str(folder / "*.gif"))


class Film:
    """Stands in for cv2.VideoCapture: a camera or a video of `frames` gray frames, and how many it announces."""

    frames, announced = 5, 5
    opened: list[object] = []  # noqa: RUF012

    def __init__(self, what: object) -> None:
        self.opened.append(what)
        self.left = self.frames

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened[-1] != 7

    def get(self, key: int) -> float:
        return float(self.announced) if key == cv2.CAP_PROP_FRAME_COUNT else 25.0

    def set(self, key: int, value: float) -> bool:
        return False

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((90, 120, 3), 50, np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        pass


@pytest.fixture
def film(monkeypatch: pytest.MonkeyPatch) -> type[Film]:
    monkeypatch.setattr(cv2, "VideoCapture", Film)
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    return Film


def test_a_camera_is_an_index(film: type[Film], weights: Path, tmp_path: Path) -> None:
    code, printed = track(3, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv")
    assert code == 0, printed
    assert film.opened[-1] == 3
    assert len(rows(tmp_path / "a.csv")) == 5
    code, printed = track(7, "--box", BOX, "--weights", weights, "--out", tmp_path / "b.csv")
    assert code == 1
    assert lacking(printed, "camera 7") == []
    assert not (tmp_path / "b.csv").exists()


def test_a_video_that_breaks_off_keeps_what_was_read(
    film: type[Film], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film, "announced", 9)
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\xffmdat")  # a box that should be longer
    code, printed = track(tmp_path / "cut.mp4", "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv")
    assert code == 1
    assert lacking(printed, "cut.mp4'", 5, 9) == []
    assert "5 boxes in" in printed
    assert len(rows(tmp_path / "a.csv")) == 5


def test_a_damaged_image_keeps_what_was_read(folder: Path, weights: Path, tmp_path: Path) -> None:
    (folder / "frame7.png").write_bytes(b"broken")
    out = tmp_path / "a.csv"
    code, printed = track(
        folder, "--box", BOX, "--weights", weights, "--out", out, "--video", tmp_path / "a.mp4", "--every", 2
    )  # fmt: skip
    assert code == 1
    assert "frame7.png'" in printed
    assert len(rows(out)) == 7
    assert len(list(open_source(tmp_path / "a.mp4"))) == 7
    assert (tmp_path / "a.png").exists()
    (folder / "frame0.png").write_bytes(b"broken")
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "b.csv")
    assert code == 1
    assert not list(tmp_path.glob("*b.csv*"))


def test_an_interruption_keeps_whole_lines(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = command.open_source

    def interrupted(name: str) -> sources.Source:
        source = original(name)

        class Interrupted(sources.Source):
            count = source.count

            def __iter__(self) -> Iterator[np.ndarray]:
                for i, image in enumerate(source):
                    if i == 4:
                        raise KeyboardInterrupt
                    yield image

        return Interrupted()

    monkeypatch.setattr(command, "open_source", interrupted)
    out = tmp_path / "a.csv"
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", out, "--video", tmp_path / "a.mp4")
    assert code == 130
    assert "Interrupted" in printed
    assert len(rows(out)) == 4
    assert out.read_text().endswith("\n")
    assert len(list(open_source(tmp_path / "a.mp4"))) == 4
    assert not list(tmp_path.glob(".*"))


def test_frames_of_other_sizes_are_scaled_in_the_video(folder: Path, weights: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(folder / "frame5.png"), np.zeros((60, 200, 3), np.uint8))
    code, printed = track(
        folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv", "--video", tmp_path / "a.mp4"
    )  # fmt: skip
    assert code == 0, printed
    assert {frame.shape for frame in open_source(tmp_path / "a.mp4")} == {(90, 120, 3)}
    assert len(rows(tmp_path / "a.csv")) == FRAMES


def test_a_window_needs_a_display(folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", refuse)
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv", "--show")
    assert code == 1
    assert "no window can be opened" in printed
    assert not (tmp_path / "a.csv").exists()


def test_a_window_shows_frames_until_q(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: Window.ENDS[0] if len(shown) == 3 else -1)
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv", "--show")
    assert code == 0, printed
    assert len(shown) == len(rows(tmp_path / "a.csv")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", "boxes.txt', line 1: expected x,y,w,h or frame,id,x,y,w,h, got '1,2,3'"),
        ("1,2,3,4\n-1,a,1,2,3,4\n", "line 2: expected"),
        ("0,a,1,2,3,4\n0,a,1,2,3,4\n", "line 2: a second target 'a'"),
        ("0,a,1,2,3,4\n0,b,x,2,3,4\n", "line 2: expected"),
        ("", "give a target"),
    ],
)
def test_files_of_targets_that_are_refused(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "boxes.txt").write_text(text)
    code, printed = track(folder, "--boxes", tmp_path / "boxes.txt", "--out", tmp_path / "a.csv")
    assert code == 2
    assert message in printed
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("source", "said"), [("", "got ''"), ("9" * 30, "no camera 999"), ("a" * 5000, "File name too long")]
)
def test_sources_that_are_none(source: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # whose images "" would otherwise be
    code, printed = track(source, "--box", BOX, "--out", "a.csv")
    assert (code, said in printed) == (1, True), printed
    assert not Path("a.csv").exists()


def test_what_a_newcomer_gets_wrong(folder: Path, tmp_path: Path) -> None:
    named_as_a_file = tmp_path / "folder.csv"
    named_as_a_file.mkdir()
    for arguments, message in (
        (("--out", tmp_path / "a.csv"), "give a target: --box x,y,w,h"),
        (("--box", BOX, "--box", BOX, "--out", tmp_path / "a.txt"), "a .txt has the boxes of one target, not of 2"),
        (("--boxes", tmp_path / "none", "--out", tmp_path / "a.csv"), "no file of boxes at"),
        (("--box", BOX, "--out", tmp_path / "a.csv", "--patience", 0), "a whole number of frames, at least 1, got 0"),
        (("--box", BOX, "--out", tmp_path / "a.csv", "--dtype", "int8"), "dtype must be one of"),
        (("--box", BOX, "--out", tmp_path / "a.csv", "--threads", 1_000_000), "--threads"),
        (("--box", BOX, "--out", tmp_path / ("a" * 300 + ".csv")), "File name too long"),
        (("--box", BOX, "--out", named_as_a_file), "got that of a folder"),
    ):
        code, printed = track(folder, *arguments)
        assert code in (1, 2)
        assert message in printed
    assert not (tmp_path / "a.csv").exists()


def test_pyav_reads_what_opencv_does() -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    ours, theirs = open_source(CLIP), sources.PyAVFile(CLIP)
    assert (theirs.count, theirs.fps) == (ours.count, pytest.approx(ours.fps))
    for a, b, _ in zip(ours, theirs, range(5), strict=False):
        assert np.abs(a.astype(int) - b.astype(int)).mean() < 2  # colors are converted by two libraries


def test_a_start_loads_nothing_that_takes_long(fresh_python: Callable[..., str]) -> None:
    """The first box within three seconds: torch takes one of them, and half of these modules as much again each."""
    slow = ("torch._dynamo", "torch.onnx", "onnx", "onnxruntime", "openvino", "matplotlib", "sympy", "av")
    loaded = fresh_python(f"import sys, fermt.cli; print([name for name in {slow} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_python_m_fermt_is_the_command(fresh_python: Callable[..., str]) -> None:
    help_text = fresh_python("import runpy, sys; sys.argv = ['fermt', '--help']; runpy.run_module('fermt')")
    assert "track" in help_text


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_results_are_read_back_as_starts(folder: Path, weights: Path, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    (tmp_path / "boxes.txt").write_text(f"0,a,{BOX}\n3,b,50,40,20,20\n")
    for boxes, out in ((tmp_path / "boxes.txt", first), (first, second)):
        code, printed = track(folder, "--boxes", boxes, "--weights", weights, "--out", out)
        assert code == 0, printed
    assert first.read_bytes() == second.read_bytes()


def test_a_target_is_drawn_in_a_window(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    box = [30, 20, 25, 22]
    monkeypatch.setattr(cv2, "selectROI", lambda title, image, **_: drawn.append(image) or tuple(box), raising=False)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    chosen = (folder, "--select", "--weights", weights, "--out")
    code, printed = track(*chosen, tmp_path / "a.csv", "--box", "60,40,20,20")
    assert code == 0, printed
    assert np.array_equal(drawn[0], cv2.imread(str(folder / "frame0.png")))
    found = [[float(row[key]) for key in "xywh"] for row in rows(tmp_path / "a.csv") if row["frame"] == "0"]
    assert sorted(found) == [box, [60, 40, 20, 20]]
    code, printed = track(folder, "--box", "30,20,25,22", "--weights", weights, "--out", tmp_path / "b.txt")
    assert code == 0, printed
    code, printed = track(*chosen, tmp_path / "c.txt")
    assert code == 0, printed
    assert (tmp_path / "b.txt").read_bytes() == (tmp_path / "c.txt").read_bytes()
    box[2:] = 0, 0
    code, printed = track(*chosen, tmp_path / "d.csv")
    assert code == 1
    assert "no target was drawn" in printed
    assert not (tmp_path / "d.csv").exists()


def test_drawing_needs_a_display(folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "selectROI", refuse, raising=False)
    code, printed = track(folder, "--select", "--weights", weights, "--out", tmp_path / "a.csv")
    assert code == 1
    assert "display" in printed
    assert not (tmp_path / "a.csv").exists()


def test_an_image_that_opencv_refuses_keeps_what_was_read(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = b"IHDR" + (40000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    data = b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\0IEND\xaeB`\x82"
    (folder / "frame3.png").write_bytes(data)
    code, printed = track(folder, "--box", BOX, "--weights", weights, "--out", tmp_path / "a.csv")
    assert code == 1
    assert "frame3.png'" in printed
    assert len(rows(tmp_path / "a.csv")) == 3
