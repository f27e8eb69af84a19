"""PyTorch's default device and default dtype change nothing but the parameters of a model that is built."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import fermt
import fermt_kernels as fk

from .support.tracking import save_steady

ROOT = Path(__file__).parents[1]
FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "hann_window", "linspace", "logspace"),
    *("ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices"),
    *("zeros", "Generator"),
}
# Files whose factory calls follow the defaults, with the reason.
EXCEPTIONS = {"fermt/model/vit.py": "parameters of a model follow the default device and dtype, as those of torch.nn"}
FLOATS = {"rand", "randn", "linspace"}  # their dtype is the default dtype, whatever their arguments are


def factories(source: str) -> Iterator[tuple[int, str, set[str]]]:
    """Line, name and keyword arguments of each use of a factory; of one that is not called, no arguments."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            call = calls.get(id(node))
            called = {keyword.arg or "**" for keyword in call.keywords} if call else set()
            if node.attr in FACTORIES and not (call is None and node.attr == "Generator"):  # a type in annotations
                yield node.lineno, node.attr, called


def silent(source: str) -> list[str]:
    """Factory calls that leave the device, or the dtype of random numbers, to PyTorch's defaults."""
    return [
        f"line {line}: torch.{name}"
        for line, name, given in factories(source)
        if "device" not in given or (name in FLOATS and "dtype" not in given)
    ]


def test_every_factory_call_says_its_device() -> None:
    found = {}
    for package in ("fermt", "fermt_kernels"):
        for file in (ROOT / package).rglob("*.py"):
            if lines := silent(file.read_text()):
                found[file.relative_to(ROOT).as_posix()] = lines
    assert {name: lines for name, lines in found.items() if name not in EXCEPTIONS} == {}
    assert found.keys() >= EXCEPTIONS.keys(), "an exception is not needed any more"


@pytest.mark.parametrize(
    "source", ["torch.zeros(3)", "f(torch.randn)", "torch.rand(2, device='cpu')", "torch.tensor([1], dtype=d)"]
)
def test_the_search_finds_what_says_nothing(source: str) -> None:
    assert len(silent(source)) == 1


DEFAULTS = {"meta": ("meta", torch.float32), "float64": (None, torch.float64), "bfloat16": (None, torch.bfloat16)}


@pytest.fixture(params=DEFAULTS)
def other_defaults(request: pytest.FixtureRequest, seed: None) -> Iterator[str]:
    device, dtype = DEFAULTS[request.param]
    before = torch.get_default_dtype()
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    yield request.param
    torch.set_default_device(None)
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_steady(tmp_path_factory.mktemp("defaults") / "small.safetensors")


def tracked(weights: Path, **options: object) -> list[float]:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    tracker = fermt.Tracker(fermt.load(weights), **options)
    tracker.init(image, (100, 80, 60, 40))
    return [*tracker.update(image).box]


@pytest.fixture(scope="module", params=[0, 1], ids=["packed", "module"])
def expected(request: pytest.FixtureRequest, weights: Path) -> tuple[dict, list[float]]:
    options = {"refresh_every": request.param}
    return options, tracked(weights, **options)


def test_tracking_is_the_same(expected: tuple[dict, list[float]], weights: Path, other_defaults: str) -> None:
    options, boxes = expected
    assert tracked(weights, **options) == boxes


def test_packing_and_cropping_are_the_same(weights: Path, other_defaults: str) -> None:
    templates, searches = (
        torch.full((1, size, size, 3), 90, dtype=torch.uint8, device="cpu")
        for size in (lambda c: (c.template_size, c.search_size))(fermt.load(weights).config)
    )
    packed = fk.frame.pack(fermt.load(weights), torch.int8, calibration=(templates, searches))
    assert packed.blob.device.type == "cpu"
    image, square = torch.zeros(20, 20, 3, dtype=torch.uint8, device="cpu"), torch.tensor([[0, 0, 10]], device="cpu")
    for backend in ("reference", "auto"):
        assert fk.frame.crop(image, square, 8, backend=backend).device.type == "cpu"


@pytest.mark.slow
def test_export_works(weights: Path, other_defaults: str, tmp_path: Path) -> None:
    fermt.export_pt2(fermt.load(weights), tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").stat().st_size > 0


def test_a_model_is_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = fermt.build_model()
    assert all(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_loaded_model_has_the_dtype_of_its_file(weights: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    model = fermt.load(weights).to(dtype)
    fermt.save(model, tmp_path / "weights.safetensors")
    loaded = fermt.load(tmp_path / "weights.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
