"""Spans against masks written down by hand from Eq. 6 of the paper."""

from __future__ import annotations

import pytest
import torch

from fermt_kernels.patterns import PATTERNS, Spans, key_spans, query_spans, score_pairs

# Rows: template queries, search queries; columns: template keys, search keys.
VISIBLE = {
    "self": ((1, 0), (0, 1)),
    "mixed": ((1, 0), (1, 1)),
    "full": ((1, 1), (1, 1)),
    "one_way_cross": ((0, 0), (1, 0)),
    "cross": ((0, 1), (1, 0)),
}
SIZES = [(64, 320), (0, 5), (5, 5), (1, 2), (3, 10), (0, 0)]


def mask(pattern: str, n: int, total: int) -> torch.Tensor:
    """(total, total) bool: which keys each query sees."""
    group = (torch.arange(total) >= n).long()
    return torch.tensor(VISIBLE[pattern], dtype=torch.bool)[group[:, None], group[None, :]]


def mask_of_spans(spans: Spans, n: int, total: int) -> torch.Tensor:
    rows = torch.zeros(total, total, dtype=torch.bool)
    rows[:n, slice(*spans.template)] = True
    rows[n:, slice(*spans.search)] = True
    return rows


def test_every_pattern_is_covered() -> None:
    assert set(VISIBLE) == set(PATTERNS)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("n", "total"), SIZES)
def test_spans_are_the_mask(pattern: str, n: int, total: int) -> None:
    expected = mask(pattern, n, total)
    assert torch.equal(mask_of_spans(key_spans(pattern, n, total), n, total), expected)
    assert torch.equal(mask_of_spans(query_spans(pattern, n, total), n, total), expected.T)
    assert score_pairs(pattern, n, total) == expected.sum().item()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_empty_spans_are_normal(pattern: str) -> None:
    for n, total in SIZES:
        for start, stop in (*key_spans(pattern, n, total), *query_spans(pattern, n, total)):
            assert start < stop or (start, stop) == (0, 0)
