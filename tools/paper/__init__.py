"""The tables of the FERMT paper beside what this package counts and measures: `python -m tools.paper`."""
