"""No command writes over what it reads: by one name, by another, through links, and before any work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.overwrites import check_overwrites

from .support import errors


def hard_link(source: Path, name: Path) -> Path:
    os.link(source, name)
    return name


def symbolic_link(source: Path, name: Path) -> Path:
    name.symlink_to(source)
    return name


def through_a_linked_folder(source: Path, name: Path) -> Path:
    (source.parent / "linked").symlink_to(source.parent, target_is_directory=True)
    return source.parent / "linked" / source.name


def in_words(source: Path, name: Path) -> Path:
    return source.parent / "frames" / ".." / source.name


NAMES = {
    "itself": lambda source, name: source,
    "hard link": hard_link,
    "symbolic link": symbolic_link,
    "linked folder": through_a_linked_folder,
    "other words": in_words,
}
# The command, with IN for what it reads and OUT for what it would write; SUFFIX is that of both.
COMMANDS = {
    "track boxes": (".csv", ["track", "frames", "--box", "1,2,30,40", "--boxes", "IN", "--out", "OUT"]),
    "track video": (".mp4", ["track", "IN", "--box", "1,2,30,40", "--video", "OUT"]),
    "convert": (".safetensors", ["convert", "IN", "OUT"]),
    "export": (".onnx", ["export", "--weights", "IN", "--out", "OUT"]),
    "bench": (".json", ["bench", "--video", "IN", "--json", "OUT"]),
    "eval": (".json", ["eval", "--dataset", "got10k=frames", "--weights", "IN", "--json", "OUT"]),
    "preview": (".png", ["data", "preview", "--dataset", "got10k=frames", "--only", "IN", "--out", "OUT"]),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_text("an image")


def refused(*arguments: str) -> str:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert result.exit_code == 2, result.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    return " ".join(result.output.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", NAMES)
def test_commands(command: str, name: str, tmp_path: Path) -> None:
    suffix, arguments = COMMANDS[command]
    source = tmp_path / f"mine{suffix}"
    source.write_text("0,0,10,10\n")
    link: Callable[[Path, Path], Path] = NAMES[name]
    places = {"IN": str(source), "OUT": str(link(source, tmp_path / f"other{suffix}"))}
    printed = refused(*(places.get(part, part) for part in arguments))
    assert "would replace an input" in printed
    assert repr(places["OUT"]) in printed


def test_the_default_name_of_the_boxes() -> None:
    Path("boxes.csv").write_text("1,2,30,40\n")
    assert "'boxes.csv' would replace an input" in refused("track", "frames", "--boxes", "boxes.csv")


def test_files_in_folders_and_of_patterns() -> None:
    for source in ("frames", "frames/*.png", "frames/1.png"):
        printed = refused("track", source, "--box", "1,2,30,40", "--every", "1", "--out", "frames/1.csv")
        assert "the contact sheet 'frames/1.png' would replace an input" in printed
    Path("frames/run.json").write_text("{}")
    arguments = ("eval", "--dataset", "got10k=nothing", "--results", "frames", "--json", "frames/run.json")
    assert "--json 'frames/run.json' would replace an input" in refused(*arguments)


def test_folders_of_runs(tmp_path: Path) -> None:
    Path("frames/config.json").write_text("{}")
    assert "would replace an input" in refused("train", "--config", "frames/config.json", "--out", "frames")
    printed = refused("train", "--out", "frames", "--set", "pretrained=frames/weights.safetensors")
    assert "'frames/weights.safetensors' would replace an input" in printed
    printed = refused("train", "--config", "paper-got10k", "--dataset", "got10k=frames", "--out", "frames")
    assert "--out 'frames' would replace an input" in printed
    arguments = ("eval", "--dataset", "got10k=frames", "--weights", "none.safetensors", "--out", "frames")
    assert "--out 'frames' would replace an input" in refused(*arguments)


def test_new_files_beside_inputs_are_fine(tmp_path: Path) -> None:
    check_overwrites({"--out": tmp_path / "frames" / "new.csv", "--video": None}, {"SOURCE": "frames", "--boxes": None})
    check_overwrites({"--out": tmp_path / "new.csv"}, {"SOURCE": "0", "--weights": tmp_path / "new.safetensors"})
    with errors.refused(ValueError, "--out", "--json", "'a'"):
        check_overwrites({"--out": "a", "--json": str(tmp_path / "a")}, {})


def test_the_function_refuses_too(tmp_path: Path) -> None:
    (tmp_path / "a.pth.tar").write_text("weights")
    with errors.refused(ValueError, "target", tmp_path / "a.pth.tar", "path"):
        fermt.checkpoints.convert(tmp_path / "a.pth.tar", tmp_path / "a.pth.tar")
    assert (tmp_path / "a.pth.tar").read_text() == "weights"


def test_both_files_of_a_split_export() -> None:
    for name in ("mine.template.onnx", "mine.frame.onnx"):
        Path(name).write_text("weights")
        printed = refused("export", "--weights", name, "--split", "--out", "mine.onnx")
        assert f"{name} of --out '{name}' would replace an input" in printed


def test_a_link_to_an_image_has_the_images_suffix() -> None:
    Path("boxes.csv").symlink_to("frames/1.png")
    printed = refused("track", "frames", "--box", "1,2,30,40", "--out", "boxes.csv")
    assert "--out 'boxes.csv' would replace an input" in printed
