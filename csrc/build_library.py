"""Compiles csrc/ with ninja: the one list of instruction sets, sources and flags.

setup.py builds the library with it, driver/build.py the driver that checks it. Run as a program, it puts the library
beside the Python sources, or into a folder: `python csrc/build_library.py [folder [compiler flags ...]]`. Objects stay
in build/, so that an edit compiles again only what depends on it. Needs a C++17 compiler and ninja; neither torch nor
setuptools.

Environment: CXX, CPPFLAGS, CXXFLAGS and LDFLAGS as usual (they come after ours), MAX_JOBS (compilers at a time; by
default ninja's choice, one or two more than the cores), and FERMT_BUILD_ISAS (instruction sets to build, separated by
commas; all that the compiler's target can have by default).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from toolchain import (
    ARM_FEATURES,
    BuildError,
    Compiler,
    attempt,
    check_compiler,
    described,
    feature_flags,
    find_compiler,
    find_ninja,
    flags_of,
    say,
    unsupported_features,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "fermt_kernels/cpp"  # where the library and its header are installed
LIBRARY = "libfermt_kernels" + (".dylib" if sys.platform == "darwin" else ".so")
HEADER = "fermt.h"

CXXFLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -ffp-contract=fast -fno-math-errno "
    "-Wall -Wextra -Icsrc"
)
# The C++ runtime is linked statically and hidden: torch may have loaded another one.
STATIC_RUNTIME = "-static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL"

# Instruction sets, best first: the features that a row's code is compiled for and that a CPU must have to run it, in
# the names that -m and __builtin_cpu_supports share or, on ARM, in those of toolchain.ARM_FEATURES. To add one, add a
# line. The last runs on any CPU of any kind.
AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma")
AVX512_BF16 = (*AVX512, "avx512bf16", "avx512vnni")
TILES = ("amx-tile", "amx-bf16", "amx-int8")  # isa/kernel_table.cpp asks the CPU and the kernel for these
AVX2 = ("avx2", "fma")
NEON_DOTPROD = ("neon", "dotprod")
ISAS: dict[str, tuple[str, ...]] = {
    "avx512_amx": (*AVX512_BF16, *TILES),
    "avx512_bf16": AVX512_BF16,
    "avx512_vnni": (*AVX512, "avx512vnni"),
    "avx512": AVX512,
    "avx2_vnni": (*AVX2, "avxvnni"),
    "avx2": AVX2,
    "neon_i8mm": (*NEON_DOTPROD, "i8mm"),
    "neon_dotprod": NEON_DOTPROD,
    "neon": ("neon",),
    "generic": (),
}
# Rows that differ from another in products of int8 alone: that row, from which they take all kernels but those.
BASES = {"avx512_vnni": "avx512", "avx2_vnni": "avx2", "neon_i8mm": "neon", "neon_dotprod": "neon"}
INT8_FILE = "int8"  # the file that such a row has of its own
ONCE = ("abi", "isa")  # folders of csrc/ whose files are compiled once
EACH_ISA = ("ops", "frame")  # folders whose files are compiled for each instruction set
GO_ON = "To install without the compiled kernels (slower, same results), set FERMT_KERNELS_NO_CPP=1 and try again."


class Unit(NamedTuple):
    """One call of the compiler: a source, its object's name and its own flags."""

    source: str
    name: str
    flags: tuple[str, ...]


def is_x86(target: str) -> bool:
    return target.startswith(("x86_64", "amd64"))


def is_arm(target: str) -> bool:
    return target.startswith(("aarch64", "arm64"))


def possible_isas(target: str) -> dict[str, tuple[str, ...]]:
    """The rows of ISAS that CPUs of a target can have; `generic` is one of any."""
    return {
        name: features
        for name, features in ISAS.items()
        if not features or (is_arm(target) if ARM_FEATURES.keys() >= {*features} else is_x86(target))
    }


def chosen_isas(target: str, environment: Mapping[str, str] = os.environ) -> dict[str, tuple[str, ...]]:
    """The rows of ISAS to build: those of the target, or of these the ones that FERMT_BUILD_ISAS names, with bases."""
    generic = list(ISAS)[-1]
    possible = possible_isas(target)
    wanted = [name.strip() for name in environment.get("FERMT_BUILD_ISAS", "").split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in possible]:
        raise BuildError(f"FERMT_BUILD_ISAS={','.join(unknown)}: expected some of {', '.join(possible)} for {target}.")
    built = {generic, *wanted, *(BASES[name] for name in wanted if name in BASES)}
    return {name: features for name, features in possible.items() if not wanted or name in built}


def supported_isas(
    compiler: Compiler, flags: Sequence[str], isas: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The rows that the compiler can build; says which it cannot, and why."""
    features = sorted({feature for row in isas.values() for feature in row})
    unsupported = unsupported_features(compiler, flags, features, no_cpu_check=(*TILES, *ARM_FEATURES))
    supported = {name: row for name, row in isas.items() if not unsupported & {*row}}
    for name in isas.keys() - supported.keys():
        missing = ", ".join(sorted(unsupported & {*isas[name]}))
        say(f"without the row {name}: {described(compiler)} does not know {missing}; CPUs that have it use another row")
    return supported


def sources(folders: Sequence[str]) -> list[str]:
    """The C++ files of some of csrc/'s folders, relative to the root."""
    files = (path for name in folders for path in sorted((ROOT / "csrc" / name).glob("*.cpp")))
    return [path.relative_to(ROOT).as_posix() for path in files]


def units(target: str, isas: Mapping[str, tuple[str, ...]]) -> list[Unit]:
    """Every call of the compiler: the long ones first, so that no core waits for the last."""
    # Whatever CXXFLAGS asks for: a row is what its name says.
    baseline = ("-march=x86-64",) if is_x86(target) else ("-march=armv8-a",) if is_arm(target) else ()

    def own_flags(isa: str, features: tuple[str, ...]) -> tuple[str, ...]:
        wide = ("-mprefer-vector-width=512",) if "avx512f" in features else ()
        return (f"-DFERMT_ISA={isa}", *baseline, *feature_flags(features), *wide)

    each = [
        Unit(source, f"{isa}.{Path(source).stem}", own_flags(isa, features))
        for isa, features in isas.items()
        for source in sources(EACH_ISA)
        if isa not in BASES or Path(source).stem == INT8_FILE
    ]
    return [*each, *(Unit(source, Path(source).stem, ()) for source in sources(ONCE))]


def rows_define(isas: Mapping[str, tuple[str, ...]]) -> str:
    """What isa/kernel_table.h makes the table of."""

    def needs(features: Sequence[str]) -> str:
        tiles = ["TILES"] if set(TILES) & set(features) else []
        return " ".join([*(f"HAS({feature})" for feature in features if feature not in TILES), *tiles])

    rows = (f"ROW({name}, {BASES.get(name, name)}, {needs(features)})" for name, features in isas.items())
    return f"-DFERMT_ROWS(ROW, HAS, TILES)={' '.join(rows)}"


def compile_flags(environment: Mapping[str, str] = os.environ) -> list[str]:
    return [*CXXFLAGS.split(), *flags_of("CPPFLAGS", environment), *flags_of("CXXFLAGS", environment)]


def link_flags(compiler: Compiler, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Linker flags of the shared library: with a static C++ runtime where there is one (Fedora installs none)."""
    own = flags_of("LDFLAGS", environment)
    if "darwin" in compiler.target:
        return own
    static = STATIC_RUNTIME.split()
    problem = attempt(compiler, [*compile_flags(environment), "-shared", *static, *own])
    if problem is None:
        return [*static, *own]
    if (shared := attempt(compiler, [*compile_flags(environment), "-shared", *own])) is not None:
        raise BuildError(f"{described(compiler)} cannot link a shared library: {shared}")
    say("no static C++ runtime here (Fedora: libstdc++-static): the library will use the system's shared one")
    return own


def _escaped(command: Sequence[str]) -> str:
    """A command for a shell, as a ninja file has it."""
    return shlex.join(command).replace("$", "$$")


def ninja_file(
    folder: Path, compiler: Compiler, flags: Sequence[str], linking: Sequence[str], todo: Sequence[Unit], out: str
) -> str:
    """The text of a ninja file: an edge a unit, and one that links `out`. All paths are relative to the root, so the
    root's own name may be any."""
    lines = [
        f"builddir = {folder.as_posix()}",
        "rule compile",
        f"  command = {_escaped([*compiler.command, *flags])} $own -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compiling $in $isa",
        "rule link",
        f"  command = {_escaped(compiler.command)} $in {_escaped(linking)} -o $out",
        "  description = linking $out",
    ]
    objects = [f"{(folder / unit.name).as_posix()}.o" for unit in todo]
    for unit, name in zip(todo, objects, strict=True):
        isa = next((f"for {flag.partition('=')[2]}" for flag in unit.flags if flag.startswith("-DFERMT_ISA=")), "")
        lines += [f"build {name}: compile {unit.source}", f"  own = {_escaped(unit.flags)}", f"  isa = {isa}"]
    lines += [f"build {out}: link {' '.join(objects)}", f"default {out}", ""]
    return "\n".join(lines)


def build(
    folder: str,
    out: str,
    *,
    compiler: Compiler | None = None,
    extra_flags: Sequence[str] = (),
    extra_units: Sequence[Unit] = (),
    shared: bool = True,
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Compiles and links csrc/.

    Args:
        folder: for objects, relative to the root; kept, so that the next build is short. Each version of ninja has a
            folder of its own in it, for it rebuilds everything where another has worked: pip's, say, and the system's.
        out: what is linked: a program relative to the root, a shared library relative to the objects.
        compiler: to use; found if None.
        extra_flags: of every compilation and of the link, after all others but the instruction sets' own.
        extra_units: beside those of csrc/.
        shared: whether a shared library is linked, or a program.
        environment: see this module's docstring.

    Returns:
        The path of what was linked.

    Raises:
        BuildError: with the reason.
    """
    start = time.monotonic()
    compiler, ninja, jobs = compiler or find_compiler(environment), find_ninja(), _jobs(environment)
    isas = chosen_isas(compiler.target, environment)
    flags = [*compile_flags(environment), *extra_flags]
    check_compiler(compiler, flags)
    isas = supported_isas(compiler, flags, isas)
    own = link_flags(compiler, environment) if shared else flags_of("LDFLAGS", environment)
    linking = [*(["-shared"] if shared else []), *extra_flags, *own]
    todo = [*extra_units, *units(compiler.target, isas)]
    version = subprocess.run([ninja, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    objects = Path(folder) / f"ninja-{version}"
    out = (objects / out).as_posix() if shared else out
    text = ninja_file(objects, compiler, [*flags, rows_define(isas)], linking, todo, out)
    (ROOT / objects).mkdir(parents=True, exist_ok=True)
    with _locked(ROOT / folder / "lock"):
        file = ROOT / objects / "build.ninja"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
        say(
            f"building {out} with {described(compiler)} for {', '.join(isas)}: {len(todo)} files, "
            f"about {4 * len(todo)} s of CPU time if none is up to date"
        )
        _run_ninja([ninja, "-f", f"{objects.as_posix()}/build.ninja", *jobs], compiler)
    say(f"{out} is up to date, after {time.monotonic() - start:.0f} s")
    return ROOT / out


def _jobs(environment: Mapping[str, str]) -> list[str]:
    jobs = environment.get("MAX_JOBS", "").strip()
    if not jobs:
        return []
    if not jobs.isdecimal() or int(jobs) < 1:
        raise BuildError(f"MAX_JOBS={jobs!r}: expected a whole number of at least 1.")
    return ["-j", jobs]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build of a folder at a time: those of several Python versions share their objects."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another build in {path.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run_ninja(command: Sequence[str], compiler: Compiler) -> None:
    """Runs ninja and passes on what it says; BuildError names what failed, and why as far as the compiler said so."""
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as ninja:
        assert ninja.stdout is not None
        for line in ninja.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip())
    if ninja.returncode == 0:
        return
    failed = [re.sub(r"^FAILED: (\[code=\d+\] )?", "", line) for line in lines if line.startswith("FAILED: ")]
    what = (failed or [shlex.join(command)])[0] + (f" and {len(failed) - 1} more" if len(failed) > 1 else "")
    reasons = [line for line in lines if re.search(r"\berror:|\bKilled\b|undefined reference|cannot find -l", line)]
    reason = f": {reasons[0]}" if reasons else " (see above)"
    if reasons and "Killed" in reasons[0]:
        reason += ". It ran out of memory: MAX_JOBS=1 needs least"
    raise BuildError(f"{described(compiler)} failed at {what}{reason}.")


def put(source: Path, target: Path) -> None:
    """Copies a file to its place, whole or not at all; a running program that has loaded the old one keeps that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        shutil.copy(source, name)  # with its mode
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def install(into: Path, *flags: str) -> None:
    """Builds the library, with more flags of the compiler if given, and puts it and its header into a folder."""
    library = build("build/library-with-flags" if flags else "build/library", LIBRARY, extra_flags=flags)
    put(library, into / LIBRARY)
    put(ROOT / "csrc" / "abi" / HEADER, into / HEADER)


if __name__ == "__main__":
    if any(argument in ("-h", "--help") for argument in sys.argv[1:]):
        raise SystemExit(f"usage: {sys.argv[0]} [folder [compiler flags ...]]; see its docstring for the environment")
    try:
        install(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / PACKAGE, *sys.argv[2:])
    except BuildError as error:
        raise SystemExit(f"fermt-kernels: {error}") from None
