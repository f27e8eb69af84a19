"""Builds the driver with the library's own sources: `build.py OUTPUT [compiler flags]`.

Of the instruction sets only those that this CPU can run are built, unless FERMT_BUILD_ISAS names some.
"""

import os
import platform
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import build_library as native


def runnable() -> list[str]:
    """The instruction sets of this CPU; all of them where the system does not say what it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return list(native.ISAS)
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = {flag.replace("_", "") for flag in found.group(1).split()} if found else set()
    if not flags:
        return list(native.ISAS)
    rows = {name: {feature.replace("-", "") for feature in features} for name, features in native.ISAS.items()}
    return [name for name, features in rows.items() if flags.issuperset(features)]


def main(output: str, *flags: str) -> None:
    compiler = native.find_compiler()
    environment = dict(os.environ)
    if native.is_x86(compiler.target) and native.is_x86(platform.machine()):
        environment.setdefault("FERMT_BUILD_ISAS", ",".join(runnable()))
    out = Path(os.path.relpath(output, native.ROOT)).as_posix()
    driver = native.Unit("csrc/driver/sanitize.cpp", "driver", ("-fexceptions",))
    native.build(
        f"{out}.objects",
        out,
        compiler=compiler,
        extra_flags=flags,
        extra_units=[driver],
        shared=False,
        environment=environment,
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except native.BuildError as error:
        raise SystemExit(f"fermt-kernels: {error}") from None
