"""The tracker's contract, frames in and out, boxes, and the command line."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fermt
import fermt_kernels as fk
from fermt import boxes
from fermt.cli import app
from fermt.data import crop_target, normalize
from fermt.tracking.sources import open_source
from fermt.tracking.video import VideoWriter, annotate

from .conftest import ROOT
from .support.errors import lacking, refused

CLIP = ROOT / "examples" / "basketball.mp4"
BOX = (30.0, 20.0, 25.5, 22.25)
IMAGE = np.zeros((90, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> fermt.FERMT:
    """A small network: what is tested here does not depend on its size."""
    return fermt.build_model("fermt", patterns=("mixed", "cross"), dim=48, num_heads=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve numbered images; frame10 must come after frame9."""
    (tmp_path / "frames").mkdir()
    for i in range(12):
        image = np.full((90, 120, 3), 20 * i, np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"frame{i}.png"), image)
    (tmp_path / "frames" / "notes.txt").write_text("not an image")
    return tmp_path / "frames"


def test_update_gives_floats_inside_the_image(model: fermt.FERMT) -> None:
    tracker = fermt.Tracker(model)
    tracker.init(IMAGE, BOX)
    track = tracker.update(IMAGE)
    box, score, lost = track
    assert track == fermt.Track(box, score, lost)
    assert all(type(value) is float for value in (*box, score))
    assert 0 < score < 1
    assert lost is False
    x, y, w, h = box
    assert x >= 0
    assert y >= 0
    assert x + w <= 120 + 1e-9
    assert y + h <= 90 + 1e-9


def test_lost_is_a_threshold_on_the_score(model: fermt.FERMT) -> None:
    for threshold, expected in ((0.0, False), (1.0, True)):
        tracker = fermt.Tracker(model, lost_below=threshold)
        tracker.init(IMAGE, BOX)
        assert tracker.update(IMAGE).lost is expected


def test_init_again_starts_again(model: fermt.FERMT) -> None:
    tracker = fermt.Tracker(model)
    tracker.init(IMAGE, BOX)
    first = tracker.update(IMAGE)
    tracker.update(IMAGE)
    tracker.init(IMAGE, BOX)
    assert tracker.update(IMAGE) == first


def test_the_command_line_takes_a_packed_model(model: fermt.FERMT, folder: Path, tmp_path: Path) -> None:
    packed, boxes = tmp_path / "model.fermt", {}
    fk.frame.pack(model, torch.bfloat16).save(packed)
    weights = tmp_path / "model.safetensors"
    fermt.save(model, weights)
    common = ["track", str(folder), "--box", ",".join(map(str, BOX)), "--weights"]
    for name, options in {"packed": [str(packed)], "chosen": [str(weights), "--dtype", "bfloat16"]}.items():
        out = tmp_path / f"{name}.csv"
        result = CliRunner().invoke(app, [*common, *options, "--out", str(out)])
        assert result.exit_code == 0, result.output
        boxes[name] = out.read_text()
    assert boxes["packed"] == boxes["chosen"]
    wrong = CliRunner().invoke(app, [*common, str(packed), "--device", "cuda"])
    assert wrong.exit_code == 1
    assert lacking(wrong.output, packed, "'cuda'") == []
    assert "got 'int4'" in CliRunner().invoke(app, [*common, str(packed), "--dtype", "int4"]).output


@pytest.mark.parametrize("box", [(-95.0, 40.0, 100.0, 4.0), (40.0, -95.0, 4.0, 100.0), (119.0, 40.0, 4.0, 4.0)])
def test_a_crop_beyond_the_image_is_refused(box: tuple[float, ...]) -> None:
    with refused(ValueError, box, "120 x 90"):
        crop_target(IMAGE, box, 1.0, 32)


@pytest.mark.parametrize("size", ["small", pytest.param("fermt", marks=pytest.mark.slow)])
def test_bench_command(size: str, small_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    model = ["--weights", str(small_weights)] if size == "small" else ["--config", size]
    result = CliRunner().invoke(app, ["bench", *model, "--seconds", "0.1", "--json", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    speeds = found["rows"]
    packed = fk.frame.unavailable_reason(torch.float32) is None
    expected = [("cpp", "float32"), ("cpp", "bfloat16"), ("cpp", "int8")] if packed else []
    plain = [("reference", "float32"), ("reference", "bfloat16")]
    assert [(row["backend"], row["dtype"]) for row in speeds] == [*expected, *plain]
    assert found["decode"] > 0
    assert found["threads"] == torch.get_num_threads()
    assert found["batch"] == 1
    assert found["warm_up"] > 0
    assert found["name"] in result.output
    assert found["backends"].keys() >= {row["backend"] for row in speeds}
    for row in speeds:
        assert 0 < row["crop"] < row["update"]
        assert row["network"] > 0
        assert row["update"] > 0
        assert row["got10k_fps"] > 0
        assert row["with_decode"] > 0
        assert found["protocol"].keys() < row.keys()
    for definition in found["protocol"].values():
        assert definition.split(";")[0] in " ".join(result.output.split())
    assert "left out" in result.output or packed


def test_corner_head_tracks_too() -> None:
    tracker = fermt.Tracker(fermt.build_model("fermt-corner", patterns=("mixed",), dim=48, num_heads=3))
    tracker.init(IMAGE, BOX)
    assert 0 < tracker.update(IMAGE).score < 1


BAD_IMAGES = [
    ("frame.png", TypeError, ("uint8", "(H, W, 3)", "str")),
    (IMAGE.astype(np.float32), TypeError, ("uint8", "float32")),
    (IMAGE[0, 0], ValueError, ("2 x 2", (3,))),
    (IMAGE[None], ValueError, ((1, 90, 120, 3),)),
    (np.zeros((9, 9, 2), np.uint8), ValueError, ((9, 9, 2),)),
    (IMAGE[:0], ValueError, ((0, 120, 3),)),
]
BAD_BOXES = [
    ((10, 10, 0, 5), (10.0, 10.0, 0.0, 5.0)),
    ((10, 10, 5, -1), (10.0, 10.0, 5.0, -1.0)),
    ((200, 10, 5, 5), (200.0, 10.0, 5.0, 5.0), "120 x 90"),
    ((-30, 10, 30, 5), (-30.0, 10.0, 30.0, 5.0), "120 x 90"),
    ((10, 10, float("nan"), 5), "nan"),
    ((0, 0, 2e8, 5), "1e+08", "200000000.0"),
    ((10, 10, 5), (10, 10, 5)),
    ("abcd", "'abcd'"),
    ({10, 5, 20, 30}, {10, 5, 20, 30}),  # which has no order
    ({10: "x", 5: "y", 20: "w", 30: "h"}, "'x'"),
]


@pytest.mark.parametrize(("image", "error", "values"), BAD_IMAGES)
def test_bad_images(model: fermt.FERMT, image: object, error: type[Exception], values: tuple[object, ...]) -> None:
    tracker = fermt.Tracker(model)
    with refused(error, "image", *values):
        tracker.init(image, BOX)
    tracker.init(IMAGE, BOX)
    with refused(error, "image", *values):
        tracker.update(image)


@pytest.mark.parametrize("case", BAD_BOXES, ids=str)
def test_bad_boxes(model: fermt.FERMT, case: tuple[object, ...]) -> None:
    box, *values = case
    with refused(ValueError, "box", *values):
        fermt.Tracker(model).init(IMAGE, box)  # type: ignore[arg-type]


def test_update_before_init(model: fermt.FERMT) -> None:
    with refused(RuntimeError, "Tracker.update", "Tracker.init"):
        fermt.Tracker(model).update(IMAGE)


def test_clipping_keeps_a_margin() -> None:
    assert boxes.clip_to_image((-5, -5, 20, 20), 90, 120, 10) == (0, 0, 15, 15)
    assert boxes.clip_to_image((118, 88, 20, 20), 90, 120, 10) == (110, 80, 10, 10)
    assert boxes.clip_to_image((-50, 40, 20, 20), 90, 120, 10) == (0, 40, 10, 20)
    assert boxes.clip_to_image((1, 1, 1, 1), 5, 4, 10) == (0, 1, 4, 4)


def test_box_forms() -> None:
    xyxy = torch.tensor([[1.0, 2.0, 5.0, 10.0]])
    assert torch.equal(boxes.cxcywh_to_xyxy(torch.tensor([[3.0, 6.0, 4.0, 8.0]])), xyxy)
    assert torch.equal(boxes.xywh_to_xyxy(torch.tensor([[1.0, 2.0, 4.0, 8.0]])), xyxy)


def test_crops_without_area_or_image() -> None:
    with refused(ValueError, (5, 5, 0, 4)):
        crop_target(IMAGE, (5, 5, 0, 4), 2.0, 64)
    with refused(ValueError, (500, 5, 4, 4), "120 x 90"):
        crop_target(IMAGE, (500, 5, 4, 4), 2.0, 64)


def test_normalize_is_imagenets() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    expected = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    result = normalize(image, dtype=torch.float64)
    np.testing.assert_allclose(result[0].permute(1, 2, 0).numpy(), expected, rtol=1e-12)


def test_a_folder_is_read_in_natural_order(folder: Path) -> None:
    source = open_source(folder)
    assert source.count == 12
    assert [int(frame[0, 0, 0]) for frame in source] == [20 * i for i in range(12)]


def test_a_video_is_read_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((64, 80, 3), np.uint8)
    red[..., 0] = 200
    with VideoWriter(tmp_path / "red.mp4", 25) as writer:
        for _ in range(5):
            writer.write(red)
    source = open_source(tmp_path / "red.mp4")
    frames = list(source)
    assert len(frames) == source.count == 5
    assert source.fps == pytest.approx(25)
    assert frames[0][..., 0].mean() > 150 > 50 > frames[0][..., 2].mean()


def test_a_broken_run_leaves_no_video(tmp_path: Path) -> None:
    with (
        refused(ValueError, (120, 90), (60, 90)),
        VideoWriter(tmp_path / "out.mp4", 25) as writer,
    ):
        writer.write(IMAGE)
        writer.write(IMAGE[:, :60])
    assert list(tmp_path.iterdir()) == []


def test_unreadable_sources(tmp_path: Path, folder: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "none.mp4"):
        open_source(tmp_path / "none.mp4")
    (tmp_path / "noise.mp4").write_bytes(b"not a video" * 100)
    with refused(ValueError, tmp_path / "noise.mp4"):
        list(open_source(tmp_path / "noise.mp4"))
    (tmp_path / "empty").mkdir()
    with refused(ValueError, tmp_path / "empty", ".jpg"):
        open_source(tmp_path / "empty")
    (folder / "frame3.png").write_bytes(b"broken")
    with refused(ValueError, folder / "frame3.png"):
        list(open_source(folder))


def test_a_truncated_video(tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(CLIP.read_bytes()[:20000])
    with refused(ValueError, tmp_path / "cut.mp4"):
        list(open_source(tmp_path / "cut.mp4"))


def test_annotation_draws_on_a_copy() -> None:
    drawn = annotate(IMAGE, {"0": fermt.Track((10, 10, 50, 40), 0.5, False)}, "text")
    assert drawn.any()
    assert not IMAGE.any()


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_track_command(tmp_path: Path, folder: Path, model: fermt.FERMT) -> None:
    fermt.save(model, tmp_path / "small.safetensors")
    code, printed = invoke(
        "track", folder, "--box", "30,20,25.5,22.25", "--weights", tmp_path / "small.safetensors",
        "--out", tmp_path / "boxes.csv", "--video", tmp_path / "out.mp4",
    )  # fmt: skip
    assert code == 0, printed
    assert "untrained" not in printed
    with (tmp_path / "boxes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[0]["w"] == "25.500"
    assert len(list(open_source(tmp_path / "out.mp4"))) == 12


def test_without_weights_it_says_so(tmp_path: Path, folder: Path) -> None:
    for file in sorted(folder.iterdir())[2:]:
        file.unlink()
    for config, said in (("fermt", "Weights: free-images"), ("fermt-corner", "the network is untrained")):
        out = tmp_path / f"{config}.txt"
        code, printed = invoke("track", folder, "--box", "30,20,25,22", "--out", out, "--config", config)
        assert code == 0, printed
        assert printed.count(said) == 1
        assert len(out.read_text().splitlines()) == 2


BAD_COMMANDS: list[tuple[Callable[[Path], list[object]], str]] = [
    (lambda p: ["track", p / "none", "--box", "1,2,3,4"], "no video and no folder at"),
    (lambda p: ["track", p / "frames", "--box", "1,2,3"], "expected four numbers x,y,w,h in pixels"),
    (lambda p: ["track", p / "frames", "--box", "500,2,3,4"], "lies outside the image of 120 x 90 pixels"),
    (
        lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--out", p / "boxes.json"],
        "ends in .csv or .jsonl or .txt",
    ),
    (
        lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--out", p / "no" / "boxes.csv"],
        "there is no folder",
    ),
    (lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--video", p / "out.avi"], "ends in .mp4"),
    (
        lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--weights", p / "none.safetensors"],
        "no weights at",
    ),
    (lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--config", "big"], "unknown configuration 'big'"),
    (lambda p: ["track", p / "frames", "--box", "1,2,3,4", "--backend", "fast"], "unknown backend 'fast'"),
    (lambda p: ["convert", p / "none.pth", p / "out.safetensors"], "no checkpoint at"),
    (lambda p: ["convert", p / "none.pth", p / "out.pth"], "ends in .safetensors"),
]


@pytest.mark.parametrize(("command", "message"), BAD_COMMANDS)
def test_bad_commands(tmp_path: Path, folder: Path, command: Callable[[Path], list[object]], message: str) -> None:
    code, printed = invoke(*command(tmp_path))
    assert code != 0
    flat = printed.replace("│ ", "").replace(" │", "")
    assert message in flat
    assert "Traceback" not in printed
    assert not list(tmp_path.glob("**/boxes*"))


def test_convert_command(tmp_path: Path) -> None:
    model = fermt.build_model("fermt-corner")
    torch.save({"net": model.state_dict()}, tmp_path / "authors.pth.tar")
    code, printed = invoke(
        "convert", tmp_path / "authors.pth.tar", tmp_path / "ours.safetensors", "--config", "fermt-corner"
    )
    assert code == 0, printed
    assert torch.equal(fermt.load(tmp_path / "ours.safetensors").backbone.norm.weight, model.backbone.norm.weight)


@pytest.mark.parametrize("command", [[], ["track"], ["convert"]])
def test_help(command: list[str]) -> None:
    code, printed = invoke(*command, "--help")
    assert code == 0
    assert "Usage" in printed


def test_the_installed_command_exists() -> None:
    assert Path(sys.executable).with_name("fermt").exists()
