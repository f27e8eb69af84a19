"""The frame's transformer layers on a GPU: memory for a batch of tokens, and launches from crops to the last norm."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..spec.patterns import key_spans
from .attention import forward_on
from .dual_attention_unit import dual_attention_unit_forward
from .frame_tiles import Mode
from .frame_weights import FrameSizes, FrameWeights, Linear
from .kernels.frame_embedding import embedding_kernel
from .kernels.frame_linear import linear_kernel, norm_linear_kernel
from .kernels.frame_mlp import mlp_kernel, proj_mlp_kernel
from .kernels.frame_norm import norm_kernel, reweight_kernel
from .launch import Tiles, dot_precision, launch


class Rows(NamedTuple):
    """The same rows of every sample: `each` tokens from token `first` on."""

    first: int
    each: int


class Layers:
    """The layers of a model for `batch` samples, template tokens first.

    The residual stream is float32 (parts, B, tokens, dim); its value is the sum of its parts. `tokens` are the search
    tokens after the last norm, (B, m, dim), in the dtype of the products; `features` are what the head reads: the
    tokens, or with `reweight` the weighted tokens.
    """

    def __init__(self, weights: FrameWeights, sizes: FrameSizes, mode: Mode, batch: int) -> None:
        self._weights, self._sizes, self._mode, self._batch = weights, sizes, mode, batch
        like = weights.embedding.weight
        self._precision = dot_precision(like.dtype)
        n, m, dim, depth = sizes.num_template, sizes.num_search, sizes.dim, len(sizes.patterns)
        self.template, self.search, self.both = Rows(0, n), Rows(n, m), Rows(0, n + m)

        def stream(parts: int) -> Tensor:
            return like.new_empty((parts, batch, n + m, dim), dtype=torch.float32)

        # Layers whose template part is cached keep their own memory, so that a frame need not restore it.
        self._cached_layers, self._last_cached = sizes.cached_layers, sizes.last_cached_layer
        cached = [like.new_empty((batch, n + m, 3 * dim)) for _ in range(self._cached_layers)]
        self._qkv = cached + [like.new_empty((batch, n + m, 3 * dim))] * (depth - self._cached_layers)
        common, at_last_cached = stream(1), stream(1)
        self._whole = [at_last_cached if layer == self._last_cached else common for layer in range(depth + 1)]
        self._parts = stream(max(tiles.shares for tiles in mode.layer.values()))
        self._images = {
            self.template: like.new_empty((batch, 3, sizes.template_size, sizes.template_size)),
            self.search: like.new_empty((batch, 3, sizes.search_size, sizes.search_size)),
        }
        self._heads = like.new_empty((batch, n + m, dim))
        self._lse = like.new_empty((batch * sizes.heads * (n + m),), dtype=torch.float32)
        self._hidden = like.new_empty((batch, n + m, sizes.hidden) if "fc1" in mode.layer else (0,))
        self._normed_template = like.new_empty((batch, n, dim))
        self.tokens = like.new_empty((batch, m, dim))
        self.features = torch.empty_like(self.tokens) if sizes.reweight else self.tokens

    def cached(self) -> list[Tensor]:
        """The cached tensors, (B, n, ...) each: float32 first, so that every part is aligned in a row."""
        n = self._sizes.num_template
        return [self._whole[self._last_cached][0, :, :n], *(qkv[:, :n] for qkv in self._qkv[: self._cached_layers])]

    def encode(self, crops: Tensor) -> None:
        """Computes the cached tensors from template crops, uint8 (B, S, S, 3)."""
        stream = self._embed(crops, self.template, self._weights.template_positions)
        for layer in range(self._cached_layers):
            stream = self._project(layer, self.template, stream)
            if layer < self._last_cached:
                stream = self._layer(layer, self.template, stream)

    def run(self, crops: Tensor) -> None:
        """Computes `tokens` and `features` from search crops, uint8 (B, S, S, 3), and the cached tensors."""
        sizes, stream = self._sizes, self._embed(crops, self.search, self._weights.search_positions)
        last_template_layer = sizes.schedule.last_template_layer
        for layer in range(len(sizes.patterns)):
            rows = self.both if self._last_cached < layer <= last_template_layer else self.search
            stream = self._project(layer, rows, stream)
            rows = self.both if self._last_cached <= layer < last_template_layer else self.search
            stream = self._layer(layer, rows, stream)
        self._norm(self.search, stream, self.tokens)
        if sizes.reweight:
            self._norm(self.template, stream, self._normed_template)
            self._reweight()

    def _row_arguments(self, rows: Rows) -> dict[str, int]:
        """The arguments by which a kernel finds its rows."""
        return {"rows": self._batch * rows.each, "first": rows.first, "count": rows.each, "tokens": self.both.each}

    def _blocks(self, rows: Rows, tiles: Tiles) -> int:
        return cdiv(self._batch * rows.each, tiles.m)

    def _embed(self, crops: Tensor, rows: Rows, positions: Tensor) -> Tensor:
        weights, sizes, tiles = self._weights, self._sizes, self._mode.embedding
        image, out = crops.permute(0, 3, 1, 2), self._whole[0]
        if weights.unit is not None:
            dual_attention_unit_forward(image, weights.unit, self._images[rows], weights.normalize)
            image = self._images[rows]
        strides = zip(("batch", "channel", "row", "column"), image.stride(), strict=True)
        arguments = {
            "image_ptr": image, **_named(weights.embedding),
            "position_ptr": positions, "out_ptr": out,
            **{f"image_{name}_stride": stride for name, stride in strides},
            **self._row_arguments(rows), "side": image.shape[-1] // sizes.patch,
        }  # fmt: skip
        constants = {
            "PATCH": sizes.patch, "DIM": sizes.dim, "BLOCK_M": tiles.m, "BLOCK_N": tiles.n, "BLOCK_K": tiles.k,
            "PRECISION": self._precision,
        }  # fmt: skip
        launch(
            embedding_kernel, (self._blocks(rows, tiles), cdiv(sizes.dim, tiles.n)), arguments, constants, tiles.tuning
        )
        return out

    def _norm_linear(
        self, rows: Rows, stream: Tensor, whole: Tensor, linear: Linear, out: Tensor, tiles: Tiles, activated: bool
    ) -> None:
        inputs, outputs = linear.weight.shape
        share = cdiv(cdiv(outputs, tiles.shares), tiles.n) * tiles.n
        arguments = {
            "stream_ptr": stream, "sum_ptr": whole, **_named(linear), "out_ptr": out,
            "part_stride": stream.stride(0), **self._row_arguments(rows), "eps": self._sizes.eps,
        }  # fmt: skip
        constants = {
            "PARTS": stream.shape[0], "ACTIVATED": activated, "DIM": inputs, "OUTPUTS": outputs, "SHARE": share,
            "BLOCK_M": tiles.m, "BLOCK_N": tiles.n, "BLOCK_C": tiles.k, "CHUNKS": cdiv(inputs, tiles.k),
            "PRECISION": self._precision, "DEPENDENT": tiles.tuning.dependent,
        }  # fmt: skip
        grid = self._blocks(rows, tiles), cdiv(outputs, share)
        launch(norm_linear_kernel, grid, arguments, constants, tiles.tuning)

    def _project(self, layer: int, rows: Rows, stream: Tensor) -> Tensor:
        """Computes queries, keys and values of a layer; returns the stream as one part."""
        whole, linear = self._whole[layer], self._weights.layers[layer].qkv
        self._norm_linear(rows, stream, whole, linear, self._qkv[layer], self._mode.qkv, activated=False)
        return whole

    def _layer(self, layer: int, rows: Rows, stream: Tensor) -> Tensor:
        """Runs attention and the rest of a layer; returns the stream."""
        self._attend(layer, rows)
        for name, tiles in self._mode.layer.items():
            stream = _STEPS[name](self, layer, rows, stream, tiles)
        return stream

    def _attend(self, layer: int, rows: Rows) -> None:
        sizes, n = self._sizes, self._sizes.num_template
        template, search = key_spans(sizes.patterns[layer], n, self.both.each)
        parts = self._qkv[layer].view(self._batch, self.both.each, 3, sizes.heads, sizes.dim // sizes.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        out = self._heads.view(self._batch, self.both.each, sizes.heads, -1).transpose(1, 2)
        queries = slice(rows.first, rows.first + rows.each)
        of_template = n if rows.first == 0 else 0
        blocks = self._mode.attention.get(q.shape[3])
        forward_on(
            q[:, :, queries],
            k,
            v,
            out[:, :, queries],
            self._lse,
            of_template,
            (*template, *search),
            sizes.scale,
            blocks,
        )

    def _add_linear(self, rows: Rows, x: Tensor, stream: Tensor, linear: Linear, out: Tensor, tiles: Tiles) -> None:
        """Computes the stream plus a linear layer of x into `out`."""
        inputs, outputs = linear.weight.shape
        arguments = {
            "input_ptr": x, "stream_ptr": stream, **_named(linear), "out_ptr": out,
            **self._row_arguments(rows),
        }  # fmt: skip
        constants = {
            "INPUTS": inputs, "OUTPUTS": outputs, "BLOCK_M": tiles.m, "BLOCK_N": tiles.n, "BLOCK_K": tiles.k,
            "PRECISION": self._precision, "DEPENDENT": tiles.tuning.dependent,
        }  # fmt: skip
        launch(linear_kernel, (self._blocks(rows, tiles), cdiv(outputs, tiles.n)), arguments, constants, tiles.tuning)

    def _proj(self, layer: int, rows: Rows, stream: Tensor, tiles: Tiles) -> Tensor:
        out = self._parts[:1]
        self._add_linear(rows, self._heads, stream, self._weights.layers[layer].proj, out, tiles)
        return out

    def _fc1(self, layer: int, rows: Rows, stream: Tensor, tiles: Tiles) -> Tensor:
        linear = self._weights.layers[layer].fc1
        self._norm_linear(rows, stream, stream, linear, self._hidden, tiles, activated=True)
        return stream

    def _fc2(self, layer: int, rows: Rows, stream: Tensor, tiles: Tiles) -> Tensor:
        out = self._whole[layer + 1]
        self._add_linear(rows, self._hidden, stream, self._weights.layers[layer].fc2, out, tiles)
        return out

    def _mlp(self, layer: int, rows: Rows, stream: Tensor, tiles: Tiles) -> Tensor:
        return self._hidden_layer(mlp_kernel, {}, layer, rows, stream, tiles)

    def _proj_mlp(self, layer: int, rows: Rows, stream: Tensor, tiles: Tiles) -> Tensor:
        proj = {"heads_ptr": self._heads, **_named(self._weights.layers[layer].proj, "proj_")}
        return self._hidden_layer(proj_mlp_kernel, proj, layer, rows, stream, tiles)

    def _hidden_layer(
        self, kernel: Any, more: dict[str, Tensor], layer: int, rows: Rows, stream: Tensor, tiles: Tiles
    ) -> Tensor:
        weights, sizes = self._weights.layers[layer], self._sizes
        share = cdiv(cdiv(sizes.hidden, tiles.shares), tiles.n) * tiles.n
        shares = cdiv(sizes.hidden, share)
        out = self._whole[layer + 1] if shares == 1 else self._parts[:shares]
        arguments = {
            **more, "stream_ptr": stream, **_named(weights.fc1, "fc1_"), **_named(weights.fc2, "fc2_"),
            "out_ptr": out, "part_stride": out.stride(0), **self._row_arguments(rows), "eps": sizes.eps,
        }  # fmt: skip
        constants = {
            "DIM": sizes.dim, "HIDDEN": sizes.hidden, "SHARE": share, "BLOCK_M": tiles.m, "BLOCK_N": tiles.n,
            "BLOCK_C": tiles.k, "CHUNKS": cdiv(sizes.dim, tiles.k), "PRECISION": self._precision,
            "DEPENDENT": tiles.tuning.dependent,
        }  # fmt: skip
        launch(kernel, (self._blocks(rows, tiles), shares), arguments, constants, tiles.tuning)
        return out

    def _norm(self, rows: Rows, stream: Tensor, out: Tensor) -> None:
        dim, tiles = self._sizes.dim, self._mode.norm
        arguments = {
            "stream_ptr": stream, **_named(self._weights.norm), "out_ptr": out, "part_stride": stream.stride(0),
            **self._row_arguments(rows), "eps": self._sizes.eps,
        }  # fmt: skip
        constants = {
            "PARTS": stream.shape[0], "DIM": dim, "BLOCK_M": tiles.m, "BLOCK_C": tiles.k, "CHUNKS": cdiv(dim, tiles.k),
        }  # fmt: skip
        launch(norm_kernel, (self._blocks(rows, tiles),), arguments, constants, tiles.tuning)

    def _reweight(self) -> None:
        sizes, tiles = self._sizes, self._mode.norm
        arguments = {
            "template_ptr": self._normed_template, "search_ptr": self.tokens, "out_ptr": self.features,
            "num_template": sizes.num_template, "num_search": sizes.num_search,
        }  # fmt: skip
        constants = {"DIM": sizes.dim, "DIM_P2": next_power_of_2(sizes.dim), "BLOCK_M": tiles.m}
        grid = (self._batch * cdiv(sizes.num_search, tiles.m),)
        launch(reweight_kernel, grid, arguments, constants, tiles.tuning)


def _named(linear: Linear, prefix: str = "") -> dict[str, Tensor]:
    """A linear layer under the kernels' parameter names."""
    return {f"{prefix}weight_ptr": linear.weight, f"{prefix}bias_ptr": linear.bias}


# The steps that follow attention, by their names in `Mode.layer`.
_STEPS = {
    "proj": Layers._proj,
    "mlp": Layers._mlp,
    "proj_mlp": Layers._proj_mlp,
    "fc1": Layers._fc1,
    "fc2": Layers._fc2,
}
