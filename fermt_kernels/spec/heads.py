"""The two prediction heads: branches, outputs and activations.

Each branch is four 3x3 convolutions with batch norm and ReLU, then a 1x1 convolution. State-dict keys are
`box_head.conv<i>_<branch>`, i = 1 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

CONVOLUTIONS = range(1, 5)  # numbers of the 3x3 convolutions in state-dict keys
LAST_CONVOLUTION = 5  # the 1x1 one
SIGMOID_LIMIT = 1e-4  # sigmoid outputs are clamped to [limit, 1 - limit]


class Branch(NamedTuple):
    """One branch of a head."""

    name: str  # in state-dict keys
    output: str  # key of its map in the head's result
    channels: int  # of that map
    sigmoid: bool = False  # whether the map is a sigmoid, clamped by `SIGMOID_LIMIT`


class Head(NamedTuple):
    """One prediction head."""

    code: int  # `fermt_head` of csrc/abi/fermt.h, and `head` in a packed file
    branches: tuple[Branch, ...]  # in the order of the state dict and of packed files
    outputs: tuple[str, ...]  # keys of the result, in order; backends write the maps' channels in this order
    softmax: bool  # whether each map is a softmax over its cells, returned flat as (B, cells)

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each output, in the result's order."""
        by_output = {branch.output: branch.channels for branch in self.branches}
        return {output: by_output[output] for output in self.outputs}

    @property
    def map_channels(self) -> int:
        """Channels of all outputs together."""
        return sum(branch.channels for branch in self.branches)

    def first_channel(self, branch: Branch) -> int:
        """Index of the branch's first channel among the channels of all outputs."""
        before = self.outputs[: self.outputs.index(branch.output)]
        return sum(self.channels[output] for output in before)


HEADS = {
    "center": Head(
        code=0,
        branches=(
            Branch("ctr", "score_map", 1, sigmoid=True),
            Branch("offset", "offset_map", 2),
            Branch("size", "size_map", 2, sigmoid=True),
        ),
        outputs=("score_map", "size_map", "offset_map"),
        softmax=False,
    ),
    "corner": Head(
        code=1,
        branches=(Branch("tl", "prob_tl", 1), Branch("br", "prob_br", 1)),
        outputs=("prob_tl", "prob_br"),
        softmax=True,
    ),
}
