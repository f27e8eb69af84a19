"""Evaluation: benchmarks as they lie on disk, runs over them, and the numbers that papers print, by protocol."""

from .benchmarks import BENCHMARKS, open_benchmark
from .protocols import PROTOCOLS
from .results import Result, ResultError, read_result, write_result
from .scores import Report, evaluate
from .sequences import Benchmark, TestSequence

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
