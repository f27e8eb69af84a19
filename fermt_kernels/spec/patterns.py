"""The five attention patterns, as spans of keys that each group of queries sees.

Tokens come in two groups, template first. In every pattern the queries of a group see one contiguous span of keys, and
the keys of a group are seen by one contiguous span of queries, so that a pattern is four integers and never a mask.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

TEMPLATE, SEARCH = "template", "search"

# For each pattern: the key groups that template queries see, and those that search queries see (Eq. 6: A1 to A5).
_SEEN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "self": ((TEMPLATE,), (SEARCH,)),
    "mixed": ((TEMPLATE,), (TEMPLATE, SEARCH)),
    "full": ((TEMPLATE, SEARCH), (TEMPLATE, SEARCH)),
    "one_way_cross": ((), (TEMPLATE,)),
    "cross": ((SEARCH,), (TEMPLATE,)),
}
PATTERNS = tuple(_SEEN)


class Spans(NamedTuple):
    """For each token group, a half-open span `(start, stop)` of keys or queries; `(0, 0)` is empty."""

    template: tuple[int, int]
    search: tuple[int, int]


@lru_cache(maxsize=1024)  # every call of an op needs it
def key_spans(pattern: str, num_template: int, num_tokens: int) -> Spans:
    """Spans of keys that template queries and search queries see.

    Args:
        pattern: one of `PATTERNS`.
        num_template: tokens of the template group, n.
        num_tokens: tokens of both groups, n + m.
    """
    return Spans(*(_union(groups, num_template, num_tokens) for groups in _SEEN[pattern]))


def query_spans(pattern: str, num_template: int, num_tokens: int) -> Spans:
    """Spans of queries that see the template keys and the search keys: the transpose of `key_spans`."""
    seers = (
        tuple(query for query, keys in zip((TEMPLATE, SEARCH), _SEEN[pattern], strict=True) if group in keys)
        for group in (TEMPLATE, SEARCH)
    )
    return Spans(*(_union(groups, num_template, num_tokens) for groups in seers))


def score_pairs(pattern: str, num_template: int, num_tokens: int) -> int:
    """Number of query-key pairs that one head of one sample scores: the cost that Eq. 7 of the paper compares."""
    template, search = key_spans(pattern, num_template, num_tokens)
    num_search = num_tokens - num_template
    return num_template * (template[1] - template[0]) + num_search * (search[1] - search[0])


def _union(groups: tuple[str, ...], num_template: int, num_tokens: int) -> tuple[int, int]:
    start = 0 if TEMPLATE in groups else num_template
    stop = num_tokens if SEARCH in groups else num_template
    return (start, stop) if groups and start < stop else (0, 0)
