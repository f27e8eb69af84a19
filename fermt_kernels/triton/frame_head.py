"""The frame's head on a GPU: memory and launches from search tokens to maps and boxes."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..spec.heads import HEADS, SIGMOID_LIMIT
from .frame_tiles import Mode
from .frame_weights import FrameSizes, FrameWeights
from .kernels.frame_head import center_box_kernel, convolution_kernel, corner_box_kernel, maps_kernel
from .launch import Tiles, Tuning, dot_precision, launch

BOX = 5  # values of a result: cx, cy, w, h, and the score
SAMPLE = Tuning(num_warps=4)  # kernels with one program for each sample


class Head:
    """The head of a model for `batch` samples.

    `maps` are float32 (B, channels, g, g) in the order of `Head.outputs`; `boxes` float32 (B, 5): cx, cy, w, h in
    [0, 1] of the search region, and the score; `window` float32 (g, g), initially 1, multiplies the score map before
    its best cell is chosen.
    """

    def __init__(self, weights: FrameWeights, sizes: FrameSizes, mode: Mode, batch: int) -> None:
        self._weights, self._sizes, self._mode, self._batch = weights, sizes, mode, batch
        like, grid = weights.embedding.weight, sizes.grid
        self._precision = dot_precision(like.dtype)
        self._features = [
            like.new_empty((batch, grid, grid, layer.bias.numel())) for layer in weights.convolutions[:-1]
        ]
        self.maps = like.new_empty((batch, sizes.map_channels, grid, grid), dtype=torch.float32)
        self.boxes = like.new_empty((batch, BOX), dtype=torch.float32)
        self.window = torch.ones((grid, grid), dtype=torch.float32, device=like.device)

    def run(self, tokens: Tensor) -> None:
        """Computes `maps` and `boxes` from tokens (B, m, dim)."""
        x = tokens.view(self._batch, self._sizes.grid, self._sizes.grid, -1)
        for layer, out in enumerate(self._features):
            self._convolve(layer, x, out)
            x = out
        self._map(x)
        cells = {"CELLS_P2": next_power_of_2(self._sizes.num_search)}
        if self._sizes.head == "corner":
            arguments = {"maps_ptr": self.maps, "box_ptr": self.boxes, "side": self._sizes.grid}
            launch(corner_box_kernel, (self._batch,), arguments, cells, SAMPLE)
        else:
            arguments = {
                "maps_ptr": self.maps, "window_ptr": self.window, "box_ptr": self.boxes, "side": self._sizes.grid,
            }  # fmt: skip
            launch(center_box_kernel, (self._batch,), arguments, cells, SAMPLE)

    def _constants(self, layer: int, tiles: Tiles) -> dict[str, int | str]:
        _, inputs, outputs = self._weights.convolutions[layer].weight.shape
        return {
            "INPUTS": inputs // 9, "OUTPUTS": outputs, "BLOCK_M": tiles.m, "BLOCK_N": self._block_n(layer, tiles),
            "BLOCK_K": gcd(inputs // 9, tiles.k), "PRECISION": self._precision,
        }  # fmt: skip

    def _block_n(self, layer: int, tiles: Tiles) -> int:
        return min(tiles.n, next_power_of_2(self._weights.convolutions[layer].bias.shape[1]))

    def _arguments(self, layer: int, x: Tensor) -> dict[str, Tensor | int]:
        weight, bias = self._weights.convolutions[layer]
        return {
            "input_ptr": x, "weight_ptr": weight, "bias_ptr": bias,
            "rows": self._batch * self._sizes.num_search, "side": self._sizes.grid, "input_width": x.shape[3],
        }  # fmt: skip

    def _convolve(self, layer: int, x: Tensor, out: Tensor) -> None:
        tiles = self._mode.convolution
        groups, inputs, outputs = self._weights.convolutions[layer].weight.shape
        arguments = self._arguments(layer, x) | {"out_ptr": out, "group_inputs": inputs // 9, "groups": groups}
        grid = cdiv(self._batch * self._sizes.num_search, tiles.m), cdiv(outputs, self._block_n(layer, tiles)), groups
        launch(convolution_kernel, grid, arguments, self._constants(layer, tiles), tiles.tuning)

    def _map(self, x: Tensor) -> None:
        weights, tiles, layer = self._weights, self._mode.maps, len(self._features)
        head = HEADS[self._sizes.head]
        groups, _, outputs = weights.convolutions[layer].weight.shape
        arguments = self._arguments(layer, x) | {
            "last_weight_ptr": weights.last.weight, "last_bias_ptr": weights.last.bias,
            "output_table_ptr": weights.output_table, "maps_ptr": self.maps,
            "maps": self._sizes.map_channels, "limit": SIGMOID_LIMIT,
        }  # fmt: skip
        constants = self._constants(layer, tiles) | {
            "APPLY_SIGMOID": any(branch.sigmoid for branch in head.branches), "BLOCK_N": next_power_of_2(outputs),
        }  # fmt: skip
        grid = cdiv(self._batch * self._sizes.num_search, tiles.m), groups
        launch(maps_kernel, grid, arguments, constants, tiles.tuning)
