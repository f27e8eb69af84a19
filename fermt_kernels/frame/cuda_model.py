"""The packed model for GPUs: weights as tensors, in the layouts that the Triton kernels read."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..spec.dual_attention_unit import DAUWeights
from ..spec.heads import CONVOLUTIONS, HEADS, Head
from ..spec.normalization import MEAN, STD
from ..triton.frame_weights import FrameSizes, FrameWeights, LayerWeights, Linear
from .fold import Folded, Matrix, filter_rows
from .format import Header
from .packed import PackedModelBase

MAX_BRANCH_CHANNELS = max(branch.channels for head in HEADS.values() for branch in head.branches)
NO_OUTPUT = -1


class CudaPackedModel(PackedModelBase):
    """A packed model for the Triton kernels, made by `pack` of a model on a GPU. It cannot be saved; save the model.

    Args:
        folded: the model's weights in float64.
        header: its sizes and choices.
        dtype: of the matrices: torch.float32, torch.bfloat16 or torch.float16. Sums are float32.
        device: the GPU it runs on.
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
            header.eps,
            header.scale,
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

    mean, std = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (MEAN, STD))
    scale, shift = 1 / (255 * std), -mean / std
    embedding = folded.embedding
    if folded.unit is None:  # the embedding reads uint8 pixels, which every dtype represents exactly
        area = folded.config.patch_size**2
        embedding = Matrix(
            embedding.weight * scale.repeat_interleave(area),
            embedding.bias + embedding.weight @ shift.repeat_interleave(area),
        )
    branches = list(folded.head.values())
    groups = [
        [Matrix(filter_rows(branch[i - 1].weight), branch[i - 1].bias) for branch in branches] for i in CONVOLUTIONS
    ]
    first, *others = (Matrix(*map(torch.stack, zip(*group, strict=True))) for group in groups)
    joined = Matrix(first.weight.flatten(0, 1).unsqueeze(0), first.bias.flatten().unsqueeze(0))
    last = [
        Matrix(F.pad(m.weight, (0, 0, 0, missing)), F.pad(m.bias, (0, missing)))
        for *_, m in branches
        for missing in [MAX_BRANCH_CHANNELS - len(m.bias)]
    ]
    gamma, beta = folded.norm
    return FrameWeights(
        normalize=None if folded.unit is None else torch.stack((scale, shift)).float(),
        unit=None if folded.unit is None else DAUWeights(*(weight.float() for weight in folded.unit)),
        template_positions=folded.positions[0].float(),
        search_positions=folded.positions[1].float(),
        embedding=linear(embedding),
        layers=tuple(LayerWeights(*map(linear, layer)) for layer in folded.layers),
        norm=Linear(gamma.float(), beta.float()),
        convolutions=tuple(map(linear, (joined, *others))),
        last=Linear(torch.stack([m.weight for m in last]).float(), torch.stack([m.bias for m in last]).float()),
        output_table=torch.tensor(_output_table(HEADS[folded.config.head]), dtype=torch.int32, device="cpu"),
    )


def _output_table(head: Head) -> list[list[list[int]]]:
    """For each branch and each of its outputs: the map's channel, or -1 for none, and whether it is a sigmoid."""
    table = []
    for branch in head.branches:
        first = head.first_channel(branch)
        channels = [*range(first, first + branch.channels), *[NO_OUTPUT] * (MAX_BRANCH_CHANNELS - branch.channels)]
        table.append([[channel, int(branch.sigmoid)] for channel in channels])
    return table
