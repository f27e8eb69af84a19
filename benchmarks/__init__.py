"""Counts and measurements: `python -m benchmarks.<name> --help`."""
