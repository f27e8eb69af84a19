"""Builds the driver with the library's own sources and instruction sets: `build.py OUTPUT [compiler flags]`."""

import io
import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(output: str, *flags: str) -> None:
    sys.argv = ["setup.py", "--quiet", "--name"]
    os.chdir(ROOT)
    with redirect_stdout(io.StringIO()):
        setup = runpy.run_path("setup.py")
    compiler = setup["find_compiler"]()
    rows = setup["isa_rows"](compiler)
    common = [*compiler.split(), *setup["CXXFLAGS"].replace("-O3", "").split(), *flags]
    common += [f"-DFERMT_HAVE_{row.upper()}" for row in rows]
    sources = dict.fromkeys(sorted(ROOT.glob("csrc/*.cpp")), "")
    sources |= {ROOT / f"csrc/isa/{row}.cpp": own for row, own in rows.items()}
    sources[ROOT / "csrc/driver/sanitize.cpp"] = ""
    objects = {source: f"{output}.{source.stem}.o" for source in sources}

    def build(source: Path) -> None:
        command = [*common, *sources[source].split(), "-c", str(source), "-o", objects[source]]
        if source.parent.name == "driver":
            command.remove("-fno-exceptions")
        subprocess.run(command, check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build, sources))
    subprocess.run([*compiler.split(), *flags, *objects.values(), "-o", output], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
