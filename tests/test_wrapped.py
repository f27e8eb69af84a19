"""Models in PyTorch's wrappers: saved, tracked and converted as what is inside; adapters have to be merged first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn as nn

import fermt
import fermt_kernels as fk
from fermt import checkpoints
from fermt_kernels.wrapped import NAMES_SHOWN, stripped, unwrapped

from .support.errors import refused
from .support.tracking import save_steady


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def with_compiled_part(model: nn.Module) -> nn.Module:
    model.backbone.norm = compiled(model.backbone.norm)
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "averaged, compiled, parallel": lambda m: nn.DataParallel(compiled(torch.optim.swa_utils.AveragedModel(m))),
    "compiled part": with_compiled_part,
}


@pytest.fixture
def model(tmp_path: Path) -> fermt.FERMT:
    return fermt.load(save_steady(tmp_path / "small.safetensors"))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_saved_packed_and_converted_as_what_is_inside(wrap: str, model: fermt.FERMT, tmp_path: Path) -> None:
    expected, bare = fk.frame.pack(model).blob, {key: value.clone() for key, value in model.state_dict().items()}
    wrapped = WRAPPERS[wrap](model)
    fermt.save(wrapped, tmp_path / "wrapped.safetensors")
    torch.save({"net": wrapped.state_dict()}, tmp_path / "wrapped.pth.tar")
    checkpoints.convert(tmp_path / "wrapped.pth.tar", tmp_path / "converted.safetensors", model.config)
    for name in ("wrapped", "converted"):
        loaded = fermt.load(tmp_path / f"{name}.safetensors").state_dict()
        assert loaded.keys() == bare.keys()
        assert all(torch.equal(value, loaded[key]) for key, value in bare.items())
    assert torch.equal(fk.frame.pack(wrapped).blob, expected)
    fermt.load_state_dict(wrapped, bare)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_tracker_takes_them(wrap: str, model: fermt.FERMT) -> None:
    assert fermt.Tracker(WRAPPERS[wrap](model)).network.search_size == model.config.search_size


@pytest.mark.slow
def test_export_takes_them(model: fermt.FERMT, tmp_path: Path) -> None:
    fermt.export_pt2(nn.DataParallel(compiled(model)), tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").stat().st_size > 0


class Adapter(nn.Module):
    """A low-rank adapter, which keeps its layer where PEFT's does."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.down, self.up = nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.up(self.down(x))


def own_adapter(model: nn.Module) -> nn.Module:
    model.backbone.blocks[0].attn.qkv = Adapter(model.backbone.blocks[0].attn.qkv)
    return model


def peft_adapter(model: nn.Module) -> nn.Module:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"]))


@pytest.mark.parametrize("adapt", [own_adapter, peft_adapter])
def test_adapters_have_to_be_merged_first(adapt: Callable, model: fermt.FERMT, tmp_path: Path) -> None:
    adapted, target = adapt(model), tmp_path / "adapted.safetensors"
    for call in (fermt.Tracker, fk.frame.pack, lambda m: fermt.save(m, target)):
        with refused(ValueError, "backbone.blocks.0.attn.qkv"):
            call(adapted)
    assert not target.exists()


def test_save_refuses_what_load_would(model: fermt.FERMT, tmp_path: Path) -> None:
    target = tmp_path / "bad.safetensors"
    model.backbone.norm.register_buffer("extra", torch.zeros(1))
    with refused(ValueError, 1, "backbone.norm.extra"):
        fermt.save(model, target)
    with pytest.raises(TypeError, match="Linear"):
        fermt.save(nn.Linear(2, 2), target)
    with pytest.raises(ValueError, match="meta"):
        fermt.save(fermt.build_model("fermt").to("meta"), target)
    assert not target.exists()


def test_long_lists_of_keys_are_cut(model: fermt.FERMT) -> None:
    with refused(ValueError, "missing", "other") as caught:
        fermt.load_state_dict(model, {"other": torch.zeros(1)})
    assert str(caught.value).count("backbone.") <= NAMES_SHOWN
    assert len(str(caught.value)) < 1000


def test_prefixes_go_and_collisions_are_refused() -> None:
    assert stripped({"module._orig_mod.a.module.b": 1, "n_averaged": 2}) == {"a.b": 1}
    with pytest.raises(ValueError, match="twice"):
        stripped({"a": 1, "module.a": 2})
    packed = object()
    assert unwrapped(packed) is packed
