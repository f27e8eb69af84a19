"""What a tracked frame is compared with: the plain model with its template cached, in PyTorch and other runtimes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from fermt import FERMT
from fermt_kernels.patterns import key_spans

from .peers import export_onnx, map_names, onnxruntime_session, openvino_request, plain_model

Maps = dict[str, Tensor]
FrameRun = Callable[[], Maps]
QUERY, ALL, KEY_VALUE = (0, 1), (0, 3), (1, 3)  # parts of the joint projection


class CachedFrame(nn.Module):
    """A `FERMT` in plain PyTorch that encodes its template once, with the same weights (a copy).

    In the leading layers, where template queries see no search keys, the template depends on itself alone: its keys and
    values are computed once, and so are its tokens after these layers. Later layers compute both groups, except that
    the template's queries and MLP are left out where nothing reads their result, as in the last layer.
    """

    def __init__(self, model: FERMT) -> None:
        super().__init__()
        plain = plain_model(model).eval()
        self.backbone, self.head = plain.backbone, plain.box_head
        c = model.config
        self.num_template = c.num_template
        spans = [key_spans(pattern, c.num_template, c.num_template + c.num_search) for pattern in c.patterns]
        # (template sees template, search sees template, search sees search), by layer
        self.sees = [(t[0] < t[1], x[0] < c.num_template, x[1] > c.num_template) for t, x in spans]
        self.leading = next((i for i, (t, _) in enumerate(spans) if t[1] > c.num_template), len(spans))
        readers = [i for i, (_, sees_template, _) in enumerate(self.sees) if sees_template]
        # Up to this layer the template is updated; in it, its keys and values are still read.
        self.last = len(spans) if c.reweight else max(readers, default=-1)
        if not c.reweight:
            self.head.num_template = 0  # the head gets search tokens only

    def _project(self, layer: int, tokens: Tensor, parts: tuple[int, int]) -> tuple[Tensor, ...]:
        """Those of q, k and v that `parts` names, each (B, H, N, D), of tokens before their norm."""
        block: Any = self.backbone.blocks[layer]
        (first, last), dim = parts, tokens.shape[-1]
        rows = slice(first * dim, last * dim)
        joint = F.linear(block.norm1(tokens), block.attn.qkv.weight[rows], block.attn.qkv.bias[rows])
        return joint.unflatten(2, (last - first, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _finish(self, layer: int, tokens: Tensor, attended: Tensor | None) -> Tensor:
        """Both residual branches; `attended` is (B, H, N, D), or None where the queries see nothing."""
        block: Any = self.backbone.blocks[layer]
        if attended is None:
            tokens = tokens + block.attn.proj.bias
        else:
            tokens = tokens + block.attn.proj(attended.transpose(1, 2).flatten(2))
        return tokens + block.mlp(block.norm2(tokens))

    def encode(self, template: Tensor) -> tuple[Tensor, ...]:
        """Template images (B, 3, S, S), normalised -> what `forward` takes after the search images.

        Keys and values (B, H, n, D) of each leading layer in which search queries see them, and then the template's
        tokens (B, n, C), if a later layer reads them.
        """
        if self.last < 0:
            return ()
        tokens = self.backbone.embed(template, self.backbone.pos_embed_z)
        cache: list[Tensor] = []
        for i in range(min(self.leading, self.last + 1)):
            sees_itself, read, _ = self.sees[i]
            updated = i < self.last
            attended = None
            if sees_itself and updated:
                q, k, v = self._project(i, tokens, ALL)
                attended = _attend(q, k, v)
            elif read:
                k, v = self._project(i, tokens, KEY_VALUE)
            cache += [k, v] if read else []
            if updated:
                tokens = self._finish(i, tokens, attended)
        return (*cache, tokens) if self.leading <= self.last else tuple(cache)

    def _search_layer(self, layer: int, search: Tensor, template: Iterable[Tensor]) -> Tensor:
        """A layer for the search tokens alone; `template` has its keys and values, if they are seen."""
        q, *own = self._project(layer, search, ALL if self.sees[layer][2] else QUERY)
        seen = [*template]
        k, v = (torch.cat(pair, dim=2) for pair in zip(seen, own, strict=True)) if seen and own else seen or own
        return self._finish(layer, search, _attend(q, k, v))

    def forward(self, search: Tensor, *cache: Tensor) -> tuple[Tensor, ...]:
        """Search images (B, 3, S, S), normalised, and `encode`'s tensors -> the head's maps, in its order."""
        n, taken = self.num_template, 0
        tokens = self.backbone.embed(search, self.backbone.pos_embed_x)
        for i in range(self.leading):
            count = 2 if self.sees[i][1] else 0
            tokens = self._search_layer(i, tokens, cache[taken : taken + count])
            taken += count
        template = cache[-1] if self.leading <= self.last else None
        if template is not None and self.leading < self.last:
            both = torch.cat((template, tokens), dim=1)
            for block in self.backbone.blocks[self.leading : self.last]:
                both = block(both, n)
            template, tokens = both[:, :n], both[:, n:]
        for i in range(max(self.leading, self.last), len(self.sees)):
            seen = self._project(i, template, KEY_VALUE) if self.sees[i][1] and template is not None else ()
            tokens = self._search_layer(i, tokens, seen)
        if self.head.num_template and template is not None:
            tokens = torch.cat((template, tokens), dim=1)
        return tuple(self.head(self.backbone.norm(tokens)).values())


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, rows, D), (B, H, keys, D) twice -> (B, H, rows, D)."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v


class WholeFrame(nn.Module):
    """The plain model as it stands, both images encoded: (template, search) -> the head's maps, in its order."""

    def __init__(self, model: FERMT) -> None:
        super().__init__()
        plain = plain_model(model).eval()
        self.backbone, self.head = plain.backbone, plain.box_head

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.head(self.backbone(template, search)).values())


class Frame:
    """A module, its inputs by name in order, and the names of its results: what every runtime is given."""

    def __init__(self, module: nn.Module, inputs: Maps, outputs: list[str]) -> None:
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
    module = CachedFrame(model).eval()
    cache = {f"cache_{i}": tensor.contiguous() for i, tensor in enumerate(module.encode(template))}
    return Frame(module, {"search": search} | cache, map_names(model))


def whole_frame(model: FERMT, template: Tensor, search: Tensor) -> Frame:
    """A frame that encodes its template too, in the dtype of `model` and images."""
    return Frame(WholeFrame(model).eval(), {"template": template, "search": search}, map_names(model))


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
