"""Evaluation: runs over benchmarks, and scores by the protocols of the literature."""

from ..datasets import BENCHMARKS, Benchmark, TestSequence, open_benchmark
from .protocols import PROTOCOLS
from .results import Result, ResultError, read_result, write_result
from .scores import Report, evaluate

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "Benchmark",
    "Report",
    "Result",
    "ResultError",
    "TestSequence",
    "evaluate",
    "open_benchmark",
    "read_result",
    "write_result",
]
