"""The weights of a Dual Attention Unit, and their keys in the authors' state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class DAUWeights(NamedTuple):
    """The tensors of a Dual Attention Unit over C channels, under the authors' names (dots become underscores).

    `conv0` is depth-wise, K x K; `conv_spatial` is depth-wise with dilation (K + 1) / 2: 3 for the model's K of 5.
    """

    proj_1_weight: Tensor  # (C, C, 1, 1)
    proj_1_bias: Tensor  # (C,)
    conv0_weight: Tensor  # (C, 1, K, K)
    conv0_bias: Tensor  # (C,)
    conv_spatial_weight: Tensor  # (C, 1, K', K')
    conv_spatial_bias: Tensor  # (C,)
    conv1_weight: Tensor  # (C, C, 1, 1)
    conv1_bias: Tensor  # (C,)
    fc_0_weight: Tensor  # (hidden, C)
    fc_2_weight: Tensor  # (C, hidden)
    proj_2_weight: Tensor  # (C, C, 1, 1)
    proj_2_bias: Tensor  # (C,)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prefix: str = "") -> DAUWeights:
        """The weights under the authors' keys, such as `<prefix>spatial_gating_unit.conv0.weight`.

        Raises:
            KeyError: a key is missing; the message names it.
        """
        return cls(*(state[prefix + key] for key in STATE_KEYS.values()))

    @property
    def sizes(self) -> DAUSizes:
        """Channels, kernel sizes and hidden width, from the tensors' shapes."""
        hidden, channels = self.fc_0_weight.shape
        return DAUSizes(channels, self.conv0_weight.shape[-1], self.conv_spatial_weight.shape[-1], hidden)


class DAUSizes(NamedTuple):
    """Sizes of a Dual Attention Unit."""

    channels: int
    kernel: int  # of conv0
    dilated_kernel: int  # of conv_spatial
    hidden: int  # width of the channel attention

    @property
    def dilation(self) -> int:
        """Dilation of `conv_spatial`: a depth-wise kernel of 2 d - 1 precedes one of dilation d."""
        return (self.kernel + 1) // 2


STATE_KEYS = {
    field: ("" if field.startswith("proj") else "spatial_gating_unit.")
    + field.replace("fc_", "fc.").replace("_weight", ".weight").replace("_bias", ".bias")
    for field in DAUWeights._fields
}
LEAVES = tuple(dict.fromkeys(key.rpartition(".")[0] for key in STATE_KEYS.values()))  # the layers that have them
