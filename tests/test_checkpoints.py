"""Weights in and out; what is pickled beside them must never run."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import fermt
from fermt import checkpoints

from .support import golden
from .support.errors import refused


def same(a: fermt.FERMT, b: fermt.FERMT) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_save_and_load(tmp_path: Path) -> None:
    model = fermt.build_model("a2a5-3-9", dau=False)
    fermt.save(model, tmp_path / "weights.safetensors")
    loaded = fermt.load(tmp_path / "weights.safetensors")
    assert loaded.config == model.config
    assert not loaded.training
    assert same(loaded, model)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"precious")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)  # when all is written
    with pytest.raises(OSError, match="disk full"):
        fermt.save(fermt.build_model("a2a5-3-9"), path)
    assert path.read_bytes() == b"precious"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "weights.safetensors"
    fermt.save(fermt.build_model("fermt"), path)
    path.write_bytes(path.read_bytes()[:keep])
    with refused(ValueError, path):
        fermt.load(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with refused(FileNotFoundError, tmp_path / "none.safetensors"):
        fermt.load(tmp_path / "none.safetensors")
    with refused(FileNotFoundError, tmp_path / "none.pth"):
        checkpoints.read_pickled(tmp_path / "none.pth")


def test_other_peoples_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, str(path), metadata={"format": "pt"})
    with refused(ValueError, path, "'fermt_config'", "'format'"):
        fermt.load(path)


def test_weights_that_do_not_fit_their_configuration(tmp_path: Path) -> None:
    path = tmp_path / "wrong.safetensors"
    model = fermt.build_model("fermt")
    state = {k: v.contiguous() for k, v in fermt.build_model("fermt-corner").state_dict().items()}
    safetensors.torch.save_file(state, str(path), metadata={"fermt_config": json.dumps(model.config.to_dict())})
    with refused(ValueError, "wrong.safetensors", "box_head.conv1_ctr.0.bias", "box_head.conv1_br.0.bias"):
        fermt.load(path)


def test_weights_of_other_kinds_of_number(tmp_path: Path) -> None:
    """A file of int8 would load as zeros, and complex numbers would lose a part, without a word."""
    path, key = tmp_path / "odd.safetensors", "backbone.blocks.0.attn.qkv.weight"
    model = fermt.build_model("fermt")
    for dtype in (torch.int8, torch.int64, torch.complex64, torch.float8_e4m3fn):
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        state[key] = state[key].detach().to(dtype)
        metadata = {"fermt_config": json.dumps(model.config.to_dict())}
        safetensors.torch.save_file(state, str(path), metadata=metadata)
        with refused(ValueError, "odd.safetensors", key, dtype):
            fermt.load(path)
        if dtype != torch.float8_e4m3fn:  # which PyTorch converts
            with refused(ValueError, key, dtype, torch.float32):
                fermt.load_state_dict(model, state)


CONFIGURATIONS: dict[str, tuple[object, ...]] = {
    "{": ("odd.safetensors",),
    "[" * 100_000: ("odd.safetensors",),
    "[1]": ("dictionary", [1]),
    '{"dim": "a"}': ("dim", "whole number", "'a'"),
    '{"dim": null}': ("dim", None),
    '{"dim": 192.0}': ("dim", 192.0),
    '{"dim": 0}': ("dim", 0),
    '{"patch_size": 0}': ("patch_size", 0),
    '{"dau": "yes"}': ("dau", "True or False", "'yes'"),
    '{"patterns": "mixed"}': ("patterns", "'mixed'"),
    '{"template_factor": true}': ("template_factor", "number", True),
}


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text[:30])
def test_configurations_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, str(path), metadata={"fermt_config": text})
    with refused(ValueError, "odd.safetensors", *CONFIGURATIONS[text]):
        fermt.load(path)


def test_tied_weights_and_weights_in_one_memory(tmp_path: Path) -> None:
    model = fermt.build_model("fermt")
    first, second, third = (model.backbone.blocks[i].attn.qkv for i in range(3))
    second.weight = first.weight
    memory = torch.randn(2, *third.weight.shape)
    third.weight, model.backbone.blocks[3].attn.qkv.weight = map(torch.nn.Parameter, memory)
    fermt.save(model, tmp_path / "tied.safetensors")
    assert same(fermt.load(tmp_path / "tied.safetensors"), model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*quantize.*:UserWarning")
def test_a_quantized_model_is_not_saved(tmp_path: Path) -> None:
    model = fermt.build_model("fermt")
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    with refused(ValueError, "quantized"):
        fermt.save(quantized, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [{1: torch.ones(1)}, {"net": {1: torch.ones(1)}}, {"net": [1]}, {"model": {"a": 1}}]
)
def test_pickles_of_no_weights(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    for read in (
        lambda: checkpoints.convert(path, tmp_path / "a.safetensors"),
        lambda: fermt.load_pretrained(fermt.build_model("fermt"), path),
    ):
        with refused(ValueError, "odd.pth", *map(repr, content)):
            read()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_damage_of_a_pickle_is_a_value_error(tmp_path: Path) -> None:
    """Damaged bytes make the unpickler raise errors of many kinds, which must not stop a run from going on."""
    torch.save({"net": {"a": torch.ones(9)}}, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    pickled = zipfile.ZipFile(tmp_path / "a").read("a/data.pkl")
    start = whole.index(pickled)
    for position in range(start, start + len(pickled)):
        for byte in b"0hM":  # POP, BINGET, BININT2
            damaged = bytearray(whole)
            damaged[position] = byte
            (tmp_path / "b").write_bytes(damaged)
            with suppress(ValueError):
                checkpoints.read_pickled(tmp_path / "b")


def test_the_authors_state_dict() -> None:
    authors = dict(golden.authors_state_dict("center"))
    assert {"backbone.cls_token", "backbone.pos_embed"} <= set(authors)
    first, second = (fermt.build_model("fermt").double() for _ in range(2))
    fermt.load_state_dict(first, authors)
    renamed = {key.replace("backbone.dau.", "backbone.tau."): value for key, value in authors.items()}
    fermt.load_state_dict(second, renamed)
    assert same(first, second)
    assert torch.equal(first.backbone.pos_embed_x, authors["backbone.pos_embed_x"])


def test_what_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    authors = dict(golden.authors_state_dict("center"))
    model = fermt.build_model("fermt")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    authors["backbone.extra"] = torch.zeros(1)
    del authors["backbone.norm.bias"]
    authors["backbone.norm.weight"] = torch.zeros(7)
    with refused(ValueError, "backbone.norm.bias", "backbone.extra", "backbone.norm.weight", "(7,)", "(192,)"):
        fermt.load_state_dict(model, authors)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def mae_lite(prefix: str = "module.model.") -> dict[str, torch.Tensor]:
    """A checkpoint with MAE-Lite's keys: encoder, decoder and class token."""
    backbone = fermt.build_model("fermt").backbone.state_dict()
    own = ("dau.", "pos_embed")
    state = {key: torch.randn_like(value) for key, value in backbone.items() if not key.startswith(own)}
    state |= {"cls_token": torch.randn(1, 1, 192), "pos_embed": torch.randn(1, 197, 192)}
    state |= {"mask_token": torch.zeros(1, 1, 96), "decoder_embed.weight": torch.zeros(96, 192)}
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.model.", "model.", ""])
def test_pretrained_weights(tmp_path: Path, prefix: str) -> None:
    state = mae_lite(prefix)
    torch.save({"model": state, "start_epoch": 400}, tmp_path / "mae.pth.tar")
    model = fermt.build_model("fermt")
    unit = model.backbone.dau.proj_1.weight.clone()
    fermt.load_pretrained(model, tmp_path / "mae.pth.tar")
    assert torch.equal(model.backbone.blocks[7].mlp.fc1.weight, state[prefix + "blocks.7.mlp.fc1.weight"])
    assert torch.equal(model.backbone.dau.proj_1.weight, unit)
    grid = state[prefix + "pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    for table, side in ((model.backbone.pos_embed_z, 8), (model.backbone.pos_embed_x, 16)):
        expected = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        assert torch.equal(table, expected.flatten(2).transpose(1, 2))


def test_pretrained_weights_of_another_network(tmp_path: Path) -> None:
    state = mae_lite()
    del state["module.model.blocks.3.norm1.weight"]
    torch.save({"model": state}, tmp_path / "mae.pth.tar")
    with refused(ValueError, 1, "blocks.3.norm1.weight"):
        fermt.load_pretrained(fermt.build_model("fermt"), tmp_path / "mae.pth.tar")
    torch.save({"model": {"fc.weight": torch.zeros(1)}}, tmp_path / "resnet.pth.tar")
    with refused(ValueError, tmp_path / "resnet.pth.tar", "'pos_embed'", "'fc.weight'"):
        fermt.load_pretrained(fermt.build_model("fermt"), tmp_path / "resnet.pth.tar")
    with refused(ValueError, (1, 7, 192)):
        checkpoints.resize_positions(torch.zeros(1, 7, 192), 8)


class Settings:
    """As the authors' training settings: a plain object of a class that a user does not have."""

    def __init__(self) -> None:
        self.batch_size = 32


class EasyDict(dict):
    """As the configuration objects of many trackers: a dict subclass."""


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, function: Any, argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> Any:
        return self.call


def write_authors_checkpoint(path: Path, **beside: object) -> None:
    """A `.pth.tar` as the authors' trainer writes it; the classes' module is gone when it is read."""
    module = types.ModuleType("lib_train_settings")
    for cls in (Settings, EasyDict):
        setattr(module, cls.__name__, cls)
        cls.__module__ = module.__name__
    sys.modules[module.__name__] = module
    try:
        torch.save({"epoch": 300, "net": OrderedDict(golden.authors_state_dict("center")), **beside}, path)
    finally:
        del sys.modules[module.__name__]
        for cls in (Settings, EasyDict):
            cls.__module__ = __name__


def test_convert(tmp_path: Path) -> None:
    settings, stats = Settings(), EasyDict(loss=np.float64(0.5))
    write_authors_checkpoint(tmp_path / "a.pth.tar", settings=settings, stats=stats, constructor=None)
    with pytest.raises(pickle.UnpicklingError):  # torch alone refuses it
        torch.load(tmp_path / "a.pth.tar", weights_only=True)
    checkpoints.convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors")
    loaded = fermt.load(tmp_path / "b.safetensors")
    expected = golden.authors_state_dict("center")["backbone.blocks.3.mlp.fc1.weight"]
    assert torch.equal(loaded.backbone.blocks[3].mlp.fc1.weight, expected.float())


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    write_authors_checkpoint(tmp_path / "a.pth.tar", settings=Trap(exec, f"open({str(proof)!r}, 'w')"))
    checkpoints.convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors")
    assert not proof.exists()
    write_authors_checkpoint(tmp_path / "c.pth.tar", settings=Trap(os.system, f"touch {proof}"))
    with refused(ValueError, tmp_path / "c.pth.tar", "posix.system"):
        checkpoints.convert(tmp_path / "c.pth.tar", tmp_path / "d.safetensors")
    assert not proof.exists()
    assert not (tmp_path / "d.safetensors").exists()


@pytest.mark.parametrize("keep", [0, 100, 5000, -100])
def test_a_truncated_pickle_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.pth.tar"
    write_authors_checkpoint(path)
    path.write_bytes(path.read_bytes()[:keep])
    with refused(ValueError, path):
        checkpoints.read_pickled(path)


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with refused(ValueError, tmp_path / "a.pth", "'net'", "'epoch'"):
        checkpoints.convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    with refused(ValueError, tmp_path / "list.pth", "list"):
        checkpoints.convert(tmp_path / "list.pth", tmp_path / "b.safetensors")


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    write_authors_checkpoint(tmp_path / "a.pth.tar")
    with refused(ValueError, "box_head.conv1_ctr.0.bias"):
        checkpoints.convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors", "fermt-corner")
