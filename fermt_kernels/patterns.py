"""The five attention patterns; the public name of `fermt_kernels.spec.patterns`."""

from .spec.patterns import PATTERNS, SEARCH, TEMPLATE, Spans, key_spans, query_spans, score_pairs

__all__ = ["PATTERNS", "SEARCH", "TEMPLATE", "Spans", "key_spans", "query_spans", "score_pairs"]
