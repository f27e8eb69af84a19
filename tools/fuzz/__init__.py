"""Drawn inputs for the kernels and the file readers: `python -m tools.fuzz --help`, or `make fuzz`."""
