"""Writes exported files, which are checked against the model before they get their names."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, ShapesCollection

from fermt_kernels import __version__
from fermt_kernels.files import atomic_path, named
from fermt_kernels.frame import MEAN, STD
from fermt_kernels.wrapped import unwrapped

from ..model import FERMT
from .check import ONNX_RUNTIMES, PT2_RUNTIMES, Check, ExportError, Runtime, check
from .graphs import FrameGraph, TemplateGraph, WholeGraph

OPSET = 18  # the exporter's default, and the oldest with all operators that the graphs need
TRACED_BATCH = 3  # not one of the batch sizes that are checked
METADATA_FILE = "fermt.json"  # in a .pt2
INSTALL_HINT = "pip install 'fermt-kernels[export]'"

Graph = TemplateGraph | FrameGraph | WholeGraph
PathLike = str | os.PathLike[str]


class Report(NamedTuple):
    """The files written, and how they were checked."""

    files: tuple[Path, ...]
    checks: tuple[Check, ...]  # one for each runtime that is installed
    unchecked: str  # reason why nothing was checked, or ""


def export_onnx(model: FERMT, path: PathLike, *, uint8: bool = False) -> Report:
    """Writes the whole model as one ONNX graph: `template` and `search` -> the head's maps.

    The graph is float32 whatever the dtype of the model, uses standard operators of opset 18 only, and takes any batch
    size. Its metadata has the configuration, sizes, factors, normalization, and the names and forms of inputs and
    outputs.

    Args:
        model: the model, which is not changed.
        path: the file to write, `.onnx`.
        uint8: whether inputs are crops, (B, S, S, 3) uint8 RGB, instead of (B, 3, S, S) float32, normalized
            (`fermt.data.normalize`).

    Raises:
        ExportError: onnx or onnxscript is not installed, or the file differs from the model in an installed runtime by
            the rule of `fermt.export.check`; then no file is written.
        ValueError: `path` has another suffix.
    """
    target = _named(path, ".onnx")
    _need_onnx()
    return _write(model, {target: WholeGraph(model)}, _onnx, ONNX_RUNTIMES, uint8)


def export_onnx_pair(model: FERMT, path: PathLike, *, uint8: bool = False) -> Report:
    """Writes the model as two ONNX graphs, so that the template is encoded once for each target.

    For `fermt.onnx`, `fermt.template.onnx` maps `template` to the cache, and `fermt.frame.onnx` maps `search` and the
    cache, by the same names, to the head's maps. If search tokens never see the template (pattern "self" throughout),
    only the second is written.

    Arguments and errors are those of `export_onnx`.
    """
    target = _named(path, ".onnx")
    _need_onnx()
    graphs: tuple[Graph, Graph] = TemplateGraph(model), FrameGraph(model)
    parts = {file: graph for file, graph in zip(pair_of(target), graphs, strict=True) if graph.outputs}
    return _write(model, parts, _onnx, ONNX_RUNTIMES, uint8)


def pair_of(target: Path) -> tuple[Path, Path]:
    """The two files of `export_onnx_pair`, for the template and for the frame."""
    return target.with_suffix(".template.onnx"), target.with_suffix(".frame.onnx")


def export_pt2(model: FERMT, path: PathLike, *, uint8: bool = False) -> Report:
    """Writes the whole model for `torch.export.load`: (template, search) -> a tuple of the head's maps.

    The metadata of `export_onnx` is in the extra file `fermt.json` of the archive.

    Arguments and errors are those of `export_onnx`, with `.pt2` instead of `.onnx`.
    """
    return _write(model, {_named(path, ".pt2"): WholeGraph(model)}, _pt2, PT2_RUNTIMES, uint8)


def _named(path: PathLike, suffix: str) -> Path:
    if Path(path).suffix.lower() != suffix:
        raise ValueError(f"expected a name that ends in {suffix}, got {os.fspath(path)!r}")
    return Path(path)


def _need_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"exporting to ONNX needs {package}, which is not installed: {INSTALL_HINT}") from error


def _write(
    model: FERMT,
    graphs: Mapping[Path, Graph],
    encode: Callable[[ExportedProgram, Graph, dict[str, str]], bytes],
    runtimes: Mapping[str, Runtime],
    uint8: bool,
) -> Report:
    """Exports graphs in the given order, in which outputs are inputs of later ones; writes all files or none."""
    model = unwrapped(model)
    config = model.config
    values = {
        name: torch.zeros((TRACED_BATCH, size, size, 3), dtype=torch.uint8, device="cpu")
        if uint8
        else torch.zeros(TRACED_BATCH, 3, size, size, dtype=torch.float32, device="cpu")
        for name, size in (("template", config.template_size), ("search", config.search_size))
    }
    # torch.export and its files use the default device, which may be another.
    with torch.device("cpu"), ExitStack() as stack:
        written = []
        places = {path: stack.enter_context(atomic_path(path)) for path in graphs}  # a bad one is found out at once
        for path, graph in graphs.items():
            graph.to("cpu", torch.float32)
            inputs = tuple(values[name] for name in graph.inputs)
            with _quiet(), torch.no_grad():
                content = encode(_trace(graph, inputs), graph, _metadata(graph, uint8))
                values |= zip(graph.outputs, graph(*inputs), strict=True)
            with named(path):
                places[path].write_bytes(content)
            written.append((content, graph.outputs))
        with _quiet():
            checks = check(model, written, runtimes, uint8=uint8)
    missing = f"neither {' nor '.join(runtimes)} is installed ({INSTALL_HINT})"
    return Report(tuple(graphs), tuple(checks), "" if checks else missing)


def _trace(graph: Graph, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Traces a graph for any batch size, without paths of source files."""
    batch, shapes = Dim("batch", min=1), ShapesCollection()
    for tensor in inputs:
        shapes[tensor] = {0: batch}
    program = torch.export.export(graph, inputs, dynamic_shapes=shapes.dynamic_shapes(graph, inputs))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    program.example_inputs = None  # they would add megabytes of zeros
    return program


def _metadata(graph: Graph, uint8: bool) -> dict[str, str]:
    config = graph.config
    images = "(B, S, S, 3) uint8 RGB" if uint8 else "(B, 3, S, S) float32 RGB, (pixel / 255 - mean) / deviation"
    repeated = ("head", "template_size", "search_size", "template_factor", "search_factor")
    values: dict[str, Any] = {
        "fermt_config": config.to_dict(),
        "fermt_version": __version__,
        **{name: getattr(config, name) for name in repeated},  # also in the configuration; repeated for deployment
        "mean": MEAN,
        "deviation": STD,
        "images": images,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _pt2(program: ExportedProgram, graph: Graph, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def _onnx(program: ExportedProgram, graph: Graph, metadata: dict[str, str]) -> bytes:
    import onnx

    exported = torch.onnx.export(
        program,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert exported is not None  # it is None only if a file is written
    proto = exported.model_proto
    nodes, values = proto.graph.node, (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    for part in (proto, proto.graph, *nodes, *values, *proto.graph.initializer):
        del part.metadata_props[:]  # names of modules and functions in torch; runtimes of IR 9 and older refuse them
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)  # 8, where the exporter says 10
    symbol = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if symbol in dim.dim_param:  # also within an expression
                dim.dim_param = dim.dim_param.replace(symbol, "batch")
    onnx.helper.set_model_props(proto, metadata | {"opset": str(OPSET)})
    onnx.checker.check_model(proto)
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in proto.graph.node if node.domain})
    if foreign:
        raise ExportError(f"the exporter produced operators that are not standard: {', '.join(foreign)}")
    return proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences messages of torch's exporter and the runtimes for their developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
