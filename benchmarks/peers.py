"""What we are compared with: the model in plain PyTorch, and that model exported to other people's runtimes."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from fermt import FERMT
from fermt.export import MAPS, plain_model

Run = Callable[[Tensor, Tensor], dict[str, Tensor]]
# Read off the maps, which are checked; four numbers are too few for the accuracy rule.
DECODED = ("pred_boxes",)
HOW_TO_INSTALL = "pip install 'fermt-kernels[bench]'"


class PeerMissingError(RuntimeError):
    """A peer is not installed; the message says how to get it."""


def _outputs_only(model: FERMT) -> nn.Module:
    """`model` as a module that returns a tuple, the maps and then the tokens: what an exporter wants."""

    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
            tokens = self.model.backbone(template, search)
            return (*self.model.box_head(tokens).values(), tokens)

    return Tuple().eval()


def export_onnx(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    """Writes a module that takes `inputs` in order, and returns a tuple of `outputs`, to an ONNX file.

    Raises:
        PeerMissingError: the exporter's packages are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PeerMissingError(f"{error.name} is not installed: {HOW_TO_INSTALL}") from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamo=True,
        )


def onnxruntime_session(path: Path, threads: int) -> Any:
    """An ONNX file in ONNX Runtime, all graph optimisations on."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PeerMissingError(f"onnxruntime is not installed: {HOW_TO_INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def openvino_request(path: Path, threads: int, precision: str = "f32") -> Any:
    """An ONNX file in OpenVINO in its latency setting, computed in `precision`, f32 or bf16."""
    try:
        import openvino
    except ImportError as error:
        raise PeerMissingError(f"openvino is not installed: {HOW_TO_INSTALL}") from error
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
    }
    return core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()


def _exported(model: FERMT, folder: str) -> tuple[Path, list[str]]:
    """The plain model's ONNX file, written to `folder`, and its outputs' names."""
    path, names = Path(folder) / "model.onnx", [*MAPS[model.config.head], "tokens"]
    sizes = {"template": model.config.template_size, "search": model.config.search_size}
    images = {name: torch.zeros(1, 3, size, size) for name, size in sizes.items()}
    export_onnx(_outputs_only(plain_model(model)), images, names, path)
    return path, names


def onnxruntime_peer(model: FERMT, threads: int) -> Run:
    """The plain model in ONNX Runtime."""
    with TemporaryDirectory() as folder:
        path, names = _exported(model, folder)
        session = onnxruntime_session(path, threads)

    def run(template: Tensor, search: Tensor) -> dict[str, Tensor]:
        results = session.run(names, {"template": template.numpy(), "search": search.numpy()})
        return {name: torch.from_numpy(result) for name, result in zip(names, results, strict=True)}

    return run


def openvino_peer(model: FERMT, threads: int) -> Run:
    """The plain model in OpenVINO, in float32."""
    with TemporaryDirectory() as folder:
        path, names = _exported(model, folder)
        request = openvino_request(path, threads)

    def run(template: Tensor, search: Tensor) -> dict[str, Tensor]:
        results = request.infer([template.numpy(), search.numpy()], share_inputs=True)
        return {name: torch.from_numpy(results[i]) for i, name in enumerate(names)}

    return run


PEERS: dict[str, Callable[[FERMT, int], Run]] = {"ONNX Runtime": onnxruntime_peer, "OpenVINO": openvino_peer}
