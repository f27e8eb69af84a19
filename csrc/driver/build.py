"""Builds the driver with the library's own sources and instruction sets: `build.py OUTPUT [compiler flags]`."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import build_library as native

if __name__ == "__main__":
    output = os.path.relpath(sys.argv[1], native.ROOT)
    driver = native.Unit("csrc/driver/sanitize.cpp", "driver", ("-fexceptions",))
    try:
        native.build(f"{output}.objects", output, extra_flags=sys.argv[2:], extra_units=[driver], shared=False)
    except native.BuildError as error:
        raise SystemExit(f"fermt-kernels: {error}") from None
