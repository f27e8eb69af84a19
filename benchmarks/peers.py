"""Competitors of a tracked frame: the plain model in PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

import fermt
from fermt import FERMT
from fermt.export import FrameGraph, TemplateGraph, WholeGraph

# Read off the maps, which are checked; four numbers are too few for the accuracy rule.
DECODED = ("pred_boxes",)
HOW_TO_INSTALL = "pip install 'fermt-kernels[bench]'"


class PeerMissingError(RuntimeError):
    """A peer is not installed, with how to get it, or cannot run the model here, with its own reason."""


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
    """An ONNX file in ONNX Runtime, all graph optimizations on."""
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
    try:
        return core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    except RuntimeError as error:  # bf16 on a CPU that oneDNN is held to AVX2 on, say
        reason = " ".join(str(error).split())
        raise PeerMissingError(f"OpenVINO {openvino.__version__} cannot compile it in {precision}: {reason}") from error


def on_backend(model: FERMT, backend: str) -> FERMT:
    """The same weights with every kernel on `backend`."""
    other = fermt.build_model(model.config, backend=backend).eval()
    other.load_state_dict(model.state_dict())
    return other


Maps = dict[str, Tensor]
FrameRun = Callable[[], Maps]


class Frame:
    """A module, its inputs by name in order, and the names of its results: what every runtime is given."""

    def __init__(self, module: nn.Module, inputs: Maps, outputs: tuple[str, ...]) -> None:
        self.module, self.inputs, self.outputs = module, inputs, outputs
        self._folder = TemporaryDirectory()

    @cached_property
    def onnx(self) -> Path:
        """The module's ONNX file, which lives as long as the frame and serves every runtime."""
        path = Path(self._folder.name) / "frame.onnx"
        export_onnx(self.module, self.inputs, self.outputs, path)
        return path


def cached_frame(model: FERMT, template: Tensor, search: Tensor) -> Frame:
    """A frame with the template cached, in the dtype of `model` and images."""
    encode, module = TemplateGraph(model), FrameGraph(model)
    cache = (tensor.contiguous() for tensor in encode(template))
    return Frame(module, dict(zip(module.inputs, (search, *cache), strict=True)), module.outputs)


def whole_frame(model: FERMT, template: Tensor, search: Tensor) -> Frame:
    """A frame that encodes its template too, in the dtype of `model` and images."""
    module = WholeGraph(model)
    return Frame(module, {"template": template, "search": search}, module.outputs)


MakeFrame = Callable[[FERMT, Tensor, Tensor], Frame]


def _eager(frame: Frame, threads: int) -> FrameRun:
    """Eager PyTorch, its convolutions' weights channels-last: a quarter of the frame is saved by that."""
    module, inputs = copy.deepcopy(frame.module), tuple(frame.inputs.values())
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run() -> Maps:
        return {name: value.float() for name, value in zip(frame.outputs, module(*inputs), strict=True)}

    return run


def _compiled(frame: Frame, threads: int) -> FrameRun:
    """torch.compile with the weights frozen into the graph."""
    import torch._inductor.config as inductor

    module, inputs = torch.compile(frame.module, dynamic=False), tuple(frame.inputs.values())

    def run() -> Maps:
        return {name: value.float() for name, value in zip(frame.outputs, module(*inputs), strict=True)}

    with inductor.patch(freezing=True), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tracing looks through the cache of the patterns' spans
        run()
    return run


def _onnxruntime(frame: Frame, threads: int) -> FrameRun:
    session = onnxruntime_session(frame.onnx, threads)
    # An input that the graph does not read is not in it.
    inputs = {value.name: frame.inputs[value.name].numpy() for value in session.get_inputs()}

    def run() -> Maps:
        results = session.run(frame.outputs, inputs)
        return {name: torch.from_numpy(result) for name, result in zip(frame.outputs, results, strict=True)}

    return run


def _openvino(precision: str) -> Callable[[Frame, int], FrameRun]:
    def build(frame: Frame, threads: int) -> FrameRun:
        request = openvino_request(frame.onnx, threads, precision)
        names = [port.get_any_name() for port in request.model_inputs]
        inputs = [frame.inputs[name].numpy() for name in names]

        def run() -> Maps:
            results = request.infer(inputs, share_inputs=True)
            return {name: torch.from_numpy(results[i]) for i, name in enumerate(frame.outputs)}

        return run

    return build


class Peer(NamedTuple):
    """A way of running a `Frame`.

    `build` takes it and the number of threads, and may raise `PeerMissingError`; `takes` is the dtype of the module and
    inputs that it is given, `dtype` what it computes in.
    """

    dtype: torch.dtype
    takes: torch.dtype
    build: Callable[[Frame, int], FrameRun]


EAGER = {torch.float32: "eager PyTorch, float32", torch.bfloat16: "eager PyTorch, bfloat16"}
PEERS = {
    EAGER[torch.float32]: Peer(torch.float32, torch.float32, _eager),
    EAGER[torch.bfloat16]: Peer(torch.bfloat16, torch.bfloat16, _eager),
    "ONNX Runtime, float32": Peer(torch.float32, torch.float32, _onnxruntime),  # it has no bfloat16 on CPUs
    "OpenVINO, float32": Peer(torch.float32, torch.float32, _openvino("f32")),
    "OpenVINO, bfloat16": Peer(torch.bfloat16, torch.float32, _openvino("bf16")),
}
# These take a minute to compile.
COMPILED_PEERS = {
    "torch.compile, float32": Peer(torch.float32, torch.float32, _compiled),
    "torch.compile, bfloat16": Peer(torch.bfloat16, torch.bfloat16, _compiled),
}
