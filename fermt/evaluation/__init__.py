"""Evaluation: benchmarks as they lie on disk, runs over them, and the numbers that papers print, by protocol."""
