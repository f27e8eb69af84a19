"""What we are compared with: the model in plain PyTorch, and that model exported to other people's runtimes."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from fermt import FERMT
from fermt_kernels.modules import DualAttentionUnit, TemplateSearchAttention
from fermt_kernels.patterns import key_spans

Run = Callable[[Tensor, Tensor], dict[str, Tensor]]
# Read off the maps, which are checked; four numbers are too few for the accuracy rule.
DECODED = ("pred_boxes",)
HOW_TO_INSTALL = "pip install 'fermt-kernels[bench]'"


class PeerMissingError(RuntimeError):
    """A peer is not installed; the message says how to get it."""


class PlainAttention(nn.Module):
    """The attention module as anyone would write it in eager PyTorch: one dense soft-max a query group."""

    def __init__(self, ours: TemplateSearchAttention) -> None:
        super().__init__()
        self.qkv, self.proj = ours.qkv, ours.proj
        self.num_heads, self.pattern = ours.num_heads, ours.pattern

    def forward(self, x: Tensor, num_template: int) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q = q * q.shape[-1] ** -0.5
        outputs = []
        for rows, span in zip(
            (q[:, :, :num_template], q[:, :, num_template:]),
            key_spans(self.pattern, num_template, tokens),
            strict=True,
        ):
            keys, values = k[:, :, span[0] : span[1]], v[:, :, span[0] : span[1]]
            outputs.append((rows @ keys.transpose(-2, -1)).softmax(dim=-1) @ values)
        return self.proj(torch.cat(outputs, dim=2).transpose(1, 2).reshape(batch, tokens, dim))


class PlainDualAttentionUnit(nn.Module):
    """The Dual Attention Unit in eager PyTorch."""

    def __init__(self, ours: DualAttentionUnit) -> None:
        super().__init__()
        self.proj_1, self.gate, self.proj_2 = ours.proj_1, ours.spatial_gating_unit, ours.proj_2

    def forward(self, x: Tensor) -> Tensor:
        u = F.gelu(self.proj_1(x))
        spatial = self.gate.conv1(self.gate.conv_spatial(self.gate.conv0(u)))
        channel = self.gate.fc(u.mean(dim=(2, 3)))[:, :, None, None]
        return self.proj_2(channel * spatial * u) + x


_PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    TemplateSearchAttention: PlainAttention,
    DualAttentionUnit: PlainDualAttentionUnit,
}


def plain_model(model: FERMT) -> FERMT:
    """A copy of `model` with the same weights and without our ops."""
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if build := _PLAIN.get(type(module)):
            plain.set_submodule(name, build(module))
    return plain


def _outputs_only(model: FERMT) -> tuple[nn.Module, list[str]]:
    """`model` as a module that returns a tuple, and the names of its items: what an exporter wants."""

    class Tuple(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
            tokens = self.model.backbone(template, search)
            return (*self.model.box_head(tokens).values(), tokens)

    names = ["score_map", "size_map", "offset_map"] if model.config.head == "center" else ["prob_tl", "prob_br"]
    return Tuple().eval(), [*names, "tokens"]


def export_onnx(model: FERMT, path: Path) -> list[str]:
    """Writes the plain model to an ONNX file and returns its outputs' names."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PeerMissingError(f"{error.name} is not installed: {HOW_TO_INSTALL}") from error
    module, names = _outputs_only(plain_model(model))
    sizes = (model.config.template_size, model.config.search_size)
    images = tuple(torch.zeros(1, 3, size, size) for size in sizes)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.onnx.export(
            module, images, str(path), input_names=["template", "search"], output_names=names, dynamo=True
        )
    return names


def onnxruntime_peer(model: FERMT, threads: int) -> Run:
    """The plain model in ONNX Runtime, all graph optimisations on."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PeerMissingError(f"onnxruntime is not installed: {HOW_TO_INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with TemporaryDirectory() as folder:
        names = export_onnx(model, Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def run(template: Tensor, search: Tensor) -> dict[str, Tensor]:
        results = session.run(names, {"template": template.numpy(), "search": search.numpy()})
        return {name: torch.from_numpy(result) for name, result in zip(names, results, strict=True)}

    return run


def openvino_peer(model: FERMT, threads: int) -> Run:
    """The plain model in OpenVINO, in float32 and in its latency setting."""
    try:
        import openvino
    except ImportError as error:
        raise PeerMissingError(f"openvino is not installed: {HOW_TO_INSTALL}") from error
    core = openvino.Core()
    with TemporaryDirectory() as folder:
        names = export_onnx(model, Path(folder) / "model.onnx")
        compiled = core.compile_model(
            core.read_model(str(Path(folder) / "model.onnx")),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
            },
        )
    request = compiled.create_infer_request()

    def run(template: Tensor, search: Tensor) -> dict[str, Tensor]:
        results = request.infer([template.numpy(), search.numpy()], share_inputs=True)
        return {name: torch.from_numpy(results[i]) for i, name in enumerate(names)}

    return run


PEERS: dict[str, Callable[[FERMT, int], Run]] = {"ONNX Runtime": onnxruntime_peer, "OpenVINO": openvino_peer}
