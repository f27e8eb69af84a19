"""Training configurations: the paper's numbers, files, overrides, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fermt
from fermt.training import TRAINING, TrainConfig, read_config

from .support.errors import refused


def test_the_papers_recipe() -> None:
    paper = read_config("paper")
    assert (paper.epochs, paper.pairs, paper.batch, paper.steps_per_epoch) == (300, 60_000, 4 * 32, 468)
    assert (paper.lr, paper.backbone_lr_factor, paper.weight_decay, paper.clip) == (4e-4, 0.1, 1e-4, 0.1)
    assert (paper.drop_epoch, paper.drop_factor, paper.model_config().drop_path) == (240, 0.1, 0.1)
    assert paper.data == dict.fromkeys(("got10k", "lasot", "trackingnet", "coco"), 1.0)
    alone = read_config("paper-got10k")
    assert (alone.data, alone.epochs, alone.drop_epoch) == ({"got10k": 1.0}, 100, 80)


@pytest.mark.parametrize("recipe", TRAINING)
def test_every_model_goes_with_every_recipe(recipe: str) -> None:
    for name in fermt.CONFIGS:
        changed = read_config(recipe, [f"model={name}", "model_options.dau=false"])
        assert changed.model_config().head == fermt.CONFIGS[name].head
        assert not changed.model_config().dau


def test_overrides() -> None:
    changes = ["epochs=7", "lr=1e-3", "amp=bf16", "roots.got10k=/data/got10k", 'data={"got10k": 1, "coco": 2}']
    changed = read_config("paper", changes)
    assert (changed.epochs, changed.lr, changed.amp, changed.roots) == (7, 1e-3, "bf16", {"got10k": "/data/got10k"})
    assert changed.data == {"got10k": 1, "coco": 2}
    assert TRAINING["paper"].roots == {}


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"base": "paper-got10k", "epochs": 3, "roots": {"got10k": "/data"}}
    for suffix in (".json", ".yaml"):
        (tmp_path / f"run{suffix}").write_text(json.dumps(values))
    changed = read_config(str(tmp_path / "run.json"), ["epochs=4"])
    assert (changed.epochs, changed.drop_epoch, changed.roots) == (4, 80, {"got10k": "/data"})
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps(changed.to_dict()))
    assert read_config(str(whole)) == changed
    monkeypatch.setitem(sys.modules, "yaml", SimpleNamespace(safe_load=json.loads, YAMLError=ValueError))
    assert read_config(str(tmp_path / "run.yaml")).epochs == 3
    monkeypatch.setitem(sys.modules, "yaml", None)
    with refused(ValueError, "run.yaml'", "pip install pyyaml"):
        read_config(str(tmp_path / "run.yaml"))


BAD_FILES = [
    ('{"epoch": 3}', ("'epoch'", "model_options")),
    ("{", ("run.json'", "JSON")),
    ("[1]", ("run.json'", "list")),
    ('{"base": "x"}', ("run.json'", "base", "'x'", "paper-got10k")),
]


@pytest.mark.parametrize(("text", "values"), BAD_FILES)
def test_bad_files(tmp_path: Path, text: str, values: tuple[str, ...]) -> None:
    (tmp_path / "run.json").write_text(text)
    with refused(ValueError, *values):
        read_config(str(tmp_path / "run.json"))


def test_no_such_file() -> None:
    with refused(FileNotFoundError, "'x.json'"):
        read_config("x.json")
    with refused(ValueError, "'papper'", "paper"):
        read_config("papper")


BAD = [
    ("epochs", ("'epochs'",)),
    ("epoch=3", ("'epoch'", "epochs")),
    ("epochs.a=3", ("'epochs.a'",)),
    ("epochs=0", ("epochs", 1, 0)),
    ("epochs=1.5", ("epochs", "int", 1.5)),
    ("epochs=true", ("epochs", "int", True)),
    ("lr=fast", ("lr", "float", "'fast'")),
    ("lr=0", ("lr", 0)),
    ("lr=NaN", ("lr", "nan")),
    ("clip=Infinity", ("clip", "inf")),
    ("amp=int8", ("amp", "off, bf16, fp16", "'int8'")),
    ("ema=1", ("ema", "[0, 1)", 1)),
    ("pairs=100", (100, 128)),
    ("data={}", ("data", "{}")),
    ("data.lasot=0", ("data", "'lasot': 0")),
    ("data.lasot=much", ("data.lasot", "float", "'much'")),
    ("roots.lasot=3", ("roots.lasot", "str", 3)),
    ("only.vot=a.txt", ("only", "'vot'", "got10k")),
    ("validation={}", ("validation", "validate_every")),
    ("model=fermt2", ("'fermt2'",)),
    ("model_options.depth=3", ("model_options", "{'depth': 3}", "patterns")),
    ("model_options.dim=50", ("dim", "num_heads 12", 50)),
]


@pytest.mark.parametrize(("change", "values"), BAD)
def test_bad_overrides(change: str, values: tuple[object, ...]) -> None:
    with refused(ValueError, *values):
        read_config("paper", [change])


def test_the_defaults_are_the_papers() -> None:
    assert TrainConfig() == TRAINING["paper"]
