"""The packed model on a GPU: its weights as tensors, in the layouts that the Triton kernels read."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..triton.frame_weights import FrameSizes, FrameWeights, LayerWeights, Linear
from .fold import Folded, Matrix
from .format import CONVOLUTIONS, MEAN, STD, Header
from .packed import PackedModelBase

LIMIT = 1e-4  # the center head's score and size are sigmoids kept this far from 0 and 1
# A branch's outputs: their maps, in the order of the head's dictionary, and whether they are sigmoids.
PLACES = {
    "ctr": ((0,), True),
    "size": ((1, 2), True),
    "offset": ((3, 4), False),
    "tl": ((0,), False),
    "br": ((1,), False),
}
NONE = -1


class CudaPackedModel(PackedModelBase):
    """A model on a GPU, ready to be run by the Triton kernels; made by `pack`. It cannot be saved: save the model.

    Args:
        folded: the model.
        header: its numbers.
        dtype: of the products' factors.
        device: where it runs.
    """

    def __init__(self, folded: Folded, header: Header, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(header)
        self.dtype, self.device = dtype, device
        config = folded.config
        self.sizes = FrameSizes(
            config.dim,
            config.num_heads,
            folded.hidden,
            config.patch_size,
            config.template_size,
            config.search_size,
            tuple(config.patterns),
            config.head,
            config.reweight,
            sum(len(PLACES[branch][0]) for branch in folded.head),
            header.eps,
            header.scale,
            LIMIT,
        )
        self.weights = _weights(folded, dtype).to(device)

    def __repr__(self) -> str:
        return (
            f"CudaPackedModel({self.head} head, {str(self.dtype).removeprefix('torch.')}, "
            f"template {self.template_size}, search {self.search_size}, {self.device})"
        )


def _weights(folded: Folded, dtype: torch.dtype) -> FrameWeights:
    def linear(matrix: Matrix) -> Linear:
        return Linear(matrix.weight.mT.to(dtype), matrix.bias.float())

    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    scale, shift = 1 / (255 * deviation), -mean / deviation
    embedding = folded.embedding
    if folded.unit is None:  # the embedding reads the bytes themselves, which any dtype holds exactly
        area = folded.config.patch_size**2
        embedding = Matrix(
            embedding.weight * scale.repeat_interleave(area),
            embedding.bias + embedding.weight @ shift.repeat_interleave(area),
        )
    branches = list(folded.head.values())
    groups = [[_rows(branch[i - 1]) for branch in branches] for i in CONVOLUTIONS]
    first, *others = (Matrix(*map(torch.stack, zip(*group, strict=True))) for group in groups)
    joined = Matrix(first.weight.flatten(0, 1).unsqueeze(0), first.bias.flatten().unsqueeze(0))
    last = [
        Matrix(F.pad(m.weight, (0, 0, 0, 2 - len(m.weight))), F.pad(m.bias, (0, 2 - len(m.bias)))) for *_, m in branches
    ]
    gamma, beta = folded.norm
    return FrameWeights(
        normalize=None if folded.unit is None else torch.stack((scale, shift)).float(),
        unit=None if folded.unit is None else tuple(weight.float() for weight in folded.unit),
        template_positions=folded.positions[0].float(),
        search_positions=folded.positions[1].float(),
        embedding=linear(embedding),
        layers=tuple(LayerWeights(*map(linear, layer)) for layer in folded.layers),
        norm=Linear(gamma.float(), beta.float()),
        convolutions=tuple(map(linear, (joined, *others))),
        last=Linear(torch.stack([m.weight for m in last]).float(), torch.stack([m.bias for m in last]).float()),
        places=torch.tensor([_places(branch) for branch in folded.head], dtype=torch.int32),
    )


def _rows(matrix: Matrix) -> Matrix:
    """Filters (N, Cin, 3, 3) -> (N, 9 Cin), inputs in the order in which neighbors lie."""
    return Matrix(matrix.weight.permute(0, 2, 3, 1).flatten(1), matrix.bias)


def _places(branch: str) -> list[list[int]]:
    maps, squashed = PLACES[branch]
    return [[place, int(squashed)] for place in (*maps, NONE)[:2]]
