"""Weights that come with the package: found by name, loaded into a model, and taken by the commands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import fermt
from fermt.cli import app
from fermt.weights import DEFAULT, SHIPPED, located

from .support.errors import refused

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_found_by_name_and_are_float32(name: str) -> None:
    model = fermt.load(name)
    assert not model.training
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_model_is_built_with_the_weights_of_a_name_or_a_file(tmp_path: Path) -> None:
    expected = fermt.load(DEFAULT)
    fermt.save(expected, tmp_path / "own.safetensors")
    for weights in (DEFAULT, tmp_path / "own.safetensors"):
        built = fermt.build_model("fermt", weights=weights).state_dict()
        assert all(torch.equal(built[key], value) for key, value in expected.state_dict().items() if "pos_" not in key)


def test_weights_of_another_configuration_are_refused() -> None:
    with refused(ValueError, f"'{DEFAULT}'", "head", "'corner'", "'center'"):
        fermt.build_model("fermt-corner", weights=DEFAULT)


def test_an_unknown_name_lists_those_there_are() -> None:
    with refused(FileNotFoundError, "'free'", DEFAULT):
        located("free")


def test_the_model_is_the_one_that_the_default_configuration_names() -> None:
    trained = dataclasses.replace(fermt.load(DEFAULT).config, drop_path=fermt.CONFIGS["fermt"].drop_path)
    assert trained == fermt.CONFIGS["fermt"]


def test_the_wheel_takes_the_file_and_its_card() -> None:
    folder = ROOT / "fermt" / "weights"
    assert {f"{name}.safetensors" for name in SHIPPED} == {file.name for file in folder.glob("*.safetensors")}
    assert "free-images" in (folder / "README.md").read_text()


def test_the_default_weights_follow_the_player_of_the_clip(tmp_path: Path) -> None:
    out = tmp_path / "boxes.csv"
    command = ["track", str(ROOT / "examples" / "basketball.mp4"), "--box", "372,108,125,240", "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert f"Weights: {DEFAULT}" in result.output
    assert "untrained" not in result.output
