"""Checks exported files against the model in every installed runtime."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import ModelConfig
from ..model import FERMT
from .graphs import WholeGraph, normalized

Values = dict[str, Tensor]
Run = Callable[[Mapping[str, Tensor]], Values]  # from inputs by name, possibly with others, to outputs
BATCHES, NUM_RANDOM_INPUTS = (1, 2), 4
# Runtimes fuse and reorder: over a dozen images their largest error was 0.5 to 1.5 times that of eager float32, and 3
# times with a reweighting corner head. A graph computed in bfloat16 has thousands of times that error.
TOLERANCE_FACTOR = 8


class ExportError(RuntimeError):
    """The model cannot be exported here, or the exported graph differs from it; the message says why."""


class Check(NamedTuple):
    """Largest errors over all images and maps against the model in float64."""

    runtime: str  # its name and version
    largest: float  # of the exported file
    eager: float  # of the model in eager float32


class Runtime(NamedTuple):
    """A runtime for exported files; `load(package, content, outputs)` loads one."""

    package: str
    load: Callable[[ModuleType, bytes, Sequence[str]], Run]


def _onnxruntime(package: Any, content: bytes, outputs: Sequence[str]) -> Run:
    session = package.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(values: Mapping[str, Tensor]) -> Values:
        results = session.run(list(outputs), {name: values[name].numpy() for name in names})
        return {name: torch.from_numpy(result) for name, result in zip(outputs, results, strict=True)}

    return run


def _openvino(package: Any, content: bytes, outputs: Sequence[str]) -> Run:
    core = package.Core()
    # By default it computes in bfloat16 if the CPU supports it.
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [port.get_any_name() for port in compiled.inputs]

    def run(values: Mapping[str, Tensor]) -> Values:
        results = compiled({name: values[name].numpy() for name in names})
        return {name: torch.from_numpy(results[name].copy()) for name in outputs}

    return run


def _torch_export(package: Any, content: bytes, outputs: Sequence[str]) -> Run:
    module = package.export.load(io.BytesIO(content)).module()

    def run(values: Mapping[str, Tensor]) -> Values:
        return dict(zip(outputs, module(values["template"], values["search"]), strict=True))

    return run


ONNX_RUNTIMES = {
    "ONNX Runtime": Runtime("onnxruntime", _onnxruntime),
    "OpenVINO": Runtime("openvino", _openvino),
}
PT2_RUNTIMES = {"torch.export": Runtime("torch", _torch_export)}


def check(
    model: FERMT,
    files: Sequence[tuple[bytes, Sequence[str]]],
    runtimes: Mapping[str, Runtime],
    *,
    uint8: bool,
) -> list[Check]:
    """Runs exported files in every installed runtime, on synthetic images in batches of 1 and 2.

    Args:
        model: the model that was exported.
        files: content and names of the outputs of each; outputs of a file may be inputs of later ones.
        runtimes: the runtimes to try.
        uint8: whether the inputs are uint8 crops.

    Raises:
        ExportError: a runtime cannot run the files, or the largest error of a map against float64 exceeds
            `TOLERANCE_FACTOR` times that of the model in eager float32, plus one rounding of its largest value.
    """
    packages = {}
    for name, runtime in runtimes.items():
        try:
            packages[name] = importlib.import_module(runtime.package)
        except ImportError:
            continue  # not installed; the result lists the runtimes that were
    if not packages:
        return []
    cases = [_images(model.config, batch, seed) for seed in range(NUM_RANDOM_INPUTS) for batch in BATCHES]
    double, single = (WholeGraph(model).to("cpu", dtype) for dtype in (torch.float64, torch.float32))
    with torch.inference_mode():
        truths = [double(*(normalized(image, torch.float64) for image in images)) for images in cases]
        eagers = [single(*images) for images in cases]
    pooled = {
        name: (torch.cat(eager), torch.cat(truth))
        for name, eager, truth in zip(single.outputs, zip(*eagers, strict=True), zip(*truths, strict=True), strict=True)
    }
    checks = []
    for name, package in packages.items():
        try:
            runs = [runtimes[name].load(package, *file) for file in files]
            maps = [_run(runs, images, uint8) for images in cases]
        except Exception as error:  # every runtime has its own exceptions
            raise ExportError(f"{name} cannot run the exported file: {error}") from error
        errors = [
            _judge(name, key, torch.cat([m[key] for m in maps]), eager, truth) for key, (eager, truth) in pooled.items()
        ]
        version = str(package.__version__).split("-")[0]
        checks.append(Check(f"{name} {version}", max(e for e, _ in errors), max(e for _, e in errors)))
    return checks


def _judge(runtime: str, name: str, actual: Tensor, eager: Tensor, truth: Tensor) -> tuple[float, float]:
    """Returns the largest errors of the exported map and of eager float32; ExportError if the first is too large."""
    if actual.shape != truth.shape:
        raise ExportError(f"{name} from {runtime} has shape {tuple(actual.shape)}, the model's {tuple(truth.shape)}")
    error, yardstick = ((result.double() - truth).abs().max().item() for result in (actual, eager))
    bound = TOLERANCE_FACTOR * yardstick + torch.finfo(torch.float32).eps / 2 * truth.abs().max().item()
    if not error <= bound:
        raise ExportError(
            f"the exported graph differs from the model and was not kept: {name} from {runtime} is {error:.3g} off the "
            f"model in float64, where the model in float32 is {yardstick:.3g} off and {bound:.3g} is allowed"
        )
    return error, yardstick


def _run(runs: Sequence[Run], images: Sequence[Tensor], uint8: bool) -> Values:
    values = dict(zip(("template", "search"), images, strict=True))
    if not uint8:
        values = {name: normalized(image, torch.float32) for name, image in values.items()}
    for run in runs:
        values |= run(values)
    return values


def _images(config: ModelConfig, batch: int, seed: int) -> tuple[Tensor, ...]:
    """A template and a search crop, (B, S, S, 3) uint8, of smooth blotches and noise, so that all patches differ."""
    generator = torch.Generator(device="cpu").manual_seed(10 * seed + batch)
    crops = []
    for size in (config.template_size, config.search_size):
        coarse = F.interpolate(
            torch.rand(batch, 3, 5, 5, generator=generator, dtype=torch.float32, device="cpu"),
            (size, size),
            mode="bilinear",
        )
        noise = torch.rand(batch, 3, size, size, generator=generator, dtype=torch.float32, device="cpu")
        crops.append((255 * (0.8 * coarse + 0.2 * noise)).to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return tuple(crops)
