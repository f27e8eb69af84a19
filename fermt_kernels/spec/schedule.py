"""Which layers need the template tokens, and which of their results are the same in every frame.

Template tokens matter to a frame only until the last layer in which search queries see template keys. Before the
first layer in which template queries see search keys, they depend on the template image alone and can be cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .patterns import key_spans


class Visibility(NamedTuple):
    """Which key groups each query group sees in one layer."""

    template_sees_template: bool
    template_sees_search: bool
    search_sees_template: bool
    search_sees_search: bool

    @classmethod
    def of(cls, pattern: str) -> Visibility:
        """The visibility in a pattern, one of `PATTERNS`."""
        template, search = key_spans(pattern, 1, 2)  # one token a group: key 0 is the template's, key 1 the search's
        return cls(0 in range(*template), 1 in range(*template), 0 in range(*search), 1 in range(*search))


class TemplateSchedule:
    """What a stack of layers needs of the template tokens, layer by layer.

    Args:
        patterns: the attention pattern of each layer.
        head_reads_template: whether the head reads the template tokens after the last layer (`reweight`).

    Attributes:
        layers: the visibility in each layer.
        first_dynamic_layer: the first layer in which template queries see search keys, so that template tokens differ
            from frame to frame after it; the number of layers if there is none.
        last_template_layer: the last layer that reads template tokens, for the keys and values that search queries see;
            the number of layers if the head reads them, -1 if nothing does.
    """

    def __init__(self, patterns: Iterable[str], head_reads_template: bool) -> None:
        self.layers = tuple(map(Visibility.of, patterns))
        depth = len(self.layers)
        dynamic = (i for i, layer in enumerate(self.layers) if layer.template_sees_search)
        readers = [i for i, layer in enumerate(self.layers) if layer.search_sees_template]
        self.first_dynamic_layer = next(dynamic, depth)
        self.last_template_layer = depth if head_reads_template else max(readers, default=-1)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def template_updated(self, layer: int) -> bool:
        """Whether anything reads the template tokens that come out of the layer."""
        return layer < self.last_template_layer

    def template_queries(self, layer: int) -> bool:
        """Whether the layer's attention of template queries is computed."""
        seen = self.layers[layer]
        return self.template_updated(layer) and (seen.template_sees_template or seen.template_sees_search)

    def template_keys(self, layer: int) -> bool:
        """Whether the layer's keys and values of template tokens are read."""
        seen = self.layers[layer]
        return seen.search_sees_template or (self.template_updated(layer) and seen.template_sees_template)

    def search_keys(self, layer: int) -> bool:
        """Whether the layer's keys and values of search tokens are read."""
        seen = self.layers[layer]
        return seen.search_sees_search or (self.template_updated(layer) and seen.template_sees_search)
