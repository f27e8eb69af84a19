"""Training configurations: the paper's numbers, files, overrides, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fermt
from fermt.training import TRAINING, TrainConfig, read_config


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
    with pytest.raises(ValueError, match="is YAML, which needs `pip install pyyaml`"):
        read_config(str(tmp_path / "run.yaml"))


BAD_FILES = [
    ('{"epoch": 3}', r"unknown training fields \['epoch'\]; expected some of model, model_options"),
    ("{", "is not JSON"),
    ("[1]", "must hold a mapping of fields, got list"),
    ('{"base": "x"}', "base must be one of paper, paper-got10k"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(str(tmp_path / "run.json"))


def test_no_such_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no training configuration at 'x\.json'"):
        read_config("x.json")
    with pytest.raises(ValueError, match="unknown training configuration 'papper'; expected one of paper, "):
        read_config("papper")


BAD = [
    ("epochs", "an override is key=value, such as epochs=10; got 'epochs'"),
    ("epoch=3", r"unknown training fields \['epoch'\]"),
    ("epochs.a=3", "epochs has no parts; got 'epochs.a'"),
    ("epochs=0", "epochs must be at least 1; got 0"),
    ("epochs=1.5", "epochs must be int, got 1.5"),
    ("epochs=true", "epochs must be int, got True"),
    ("lr=fast", "lr must be float, got 'fast'"),
    ("lr=0", "lr must be positive; got 0"),
    ("lr=NaN", "lr must be positive; got nan"),
    ("clip=Infinity", "clip must be positive; got inf"),
    ("amp=int8", "amp must be one of off, bf16, fp16; got 'int8'"),
    ("ema=1", r"ema must lie in \[0, 1\); got 1"),
    ("pairs=100", "an epoch of 100 pairs does not fill one step of 128"),
    ("data={}", r"data must give each data set a positive share; got \{\}"),
    ("data.lasot=0", "data must give each data set a positive share"),
    ("data.lasot=much", "data.lasot must be float, got 'much'"),
    ("roots.lasot=3", "roots.lasot must be str, got 3"),
    ("only.vot=a.txt", r"only names \['vot'\], which data does not: got10k"),
    ("validation={}", "validation names no data set; give one, or set validate_every to 0"),
    ("model=fermt2", "unknown configuration 'fermt2'"),
    ("model_options.depth=3", r"model_options \{'depth': 3\} do not fit: expected some of patterns, head"),
    ("model_options.dim=50", "dim must be a multiple of num_heads 12; got 50"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_overrides(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config("paper", [change])


def test_the_defaults_are_the_papers() -> None:
    assert TrainConfig() == TRAINING["paper"]
