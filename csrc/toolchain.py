"""The C++ compiler and ninja: where they are, what they can do, and what to say where they cannot."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OLDEST = {"GCC": 10, "Clang": 12}  # versions that are known to work


# Features of aarch64 as the build names them: what -march says for each, and the oldest version that has it, which
# ARM's intrinsics ask for. A row's code reads the names as FERMT_<FEATURE>, for a compiler's own macros may tell of the
# CPU that it builds for by default.
ARM_FEATURES = {"neon": ("armv8-a", ""), "dotprod": ("armv8.2-a", "+dotprod"), "i8mm": ("armv8.2-a", "+i8mm")}


class BuildError(Exception):
    """The library cannot be built; the message says why and what to do."""


class Compiler(NamedTuple):
    """A C++ compiler: its command, and what it compiles for, as "x86_64-linux-gnu"."""

    command: tuple[str, ...]
    target: str


def find_compiler(environment: Mapping[str, str] = os.environ) -> Compiler:
    """CXX if it is set, else g++ or clang++."""
    given = environment.get("CXX", "").strip()
    candidates = [(given,) if shutil.which(given) else tuple(shlex.split(given))] if given else [("g++",), ("clang++",)]
    for command in candidates:
        if not shutil.which(command[0]):
            continue
        printed = subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True, errors="replace")
        if printed.returncode:
            reason = printed.stderr.strip() or f"exit status {printed.returncode}"
            raise BuildError(f"'{shlex.join(command)}' is no C++ compiler, its -dumpmachine failed: {reason}.")
        return Compiler(command, printed.stdout.strip())
    names = ", ".join(shlex.join(command) for command in candidates)
    raise BuildError(
        f"no C++ compiler found (looked for {names}). Install one (Debian, Ubuntu: apt install g++; "
        f"Fedora: dnf install gcc-c++; macOS: xcode-select --install)."
    )


def find_ninja() -> str:
    if found := shutil.which("ninja"):
        return found
    try:
        import ninja
    except ImportError:
        raise BuildError("ninja not found. Install it (pip install ninja).") from None
    return str(Path(ninja.BIN_DIR) / "ninja")


def flags_of(variable: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    try:
        return shlex.split(environment.get(variable, ""))
    except ValueError as error:
        raise BuildError(f"{variable}={environment[variable]!r} cannot be read as flags: {error}.") from None


def check_compiler(compiler: Compiler, flags: Sequence[str]) -> None:
    """Raises BuildError with the compiler's own words if it cannot compile a small C++17 program with these flags."""
    if (problem := attempt(compiler, [*flags, "-c"])) is not None:
        raise BuildError(f"{described(compiler)} cannot compile a small C++17 program: {problem}")


# Needs the C++ runtime, as parallel.cpp does, and the vector extensions.
_SMALL_PROGRAM = """
#include <atomic>
#include <cstdlib>
struct Kept { void* data = nullptr; ~Kept() { std::free(data); } };
thread_local Kept t_kept;
typedef float Vec __attribute__((vector_size(16)));
std::atomic<int> g_count{0};
extern "C" void* fermt_probe(Vec* v) { if constexpr (sizeof(Vec) == 16) *v += 1.0f; ++g_count; return t_kept.data; }
"""


def attempt(compiler: Compiler, flags: Sequence[str], program: str = _SMALL_PROGRAM) -> str | None:
    """None if the compiler makes something of a small program with these flags, else what it says."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "small.cpp", Path(folder) / "small"
        source.write_text(program)
        command = [*compiler.command, *flags, str(source), "-o", str(out)]
        tried = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if tried.returncode == 0 and out.exists():
            return None
        return (tried.stderr or tried.stdout).strip() or f"exit status {tried.returncode}, no message"


def feature_flags(features: Sequence[str]) -> list[str]:
    """What makes a compiler use some features, all of x86 or all of ARM."""
    arm = [ARM_FEATURES[feature] for feature in features if feature in ARM_FEATURES]
    if not arm:
        return [f"-m{feature}" for feature in features]
    march = max(version for version, _ in arm) + "".join(extension for _, extension in arm)
    return [f"-march={march}", *(f"-DFERMT_{feature.upper()}" for feature in features)]


def unsupported_features(
    compiler: Compiler, flags: Sequence[str], features: Sequence[str], *, no_cpu_check: Sequence[str] = ()
) -> set[str]:
    """Features that the compiler cannot compile for or, but for `no_cpu_check`, cannot ask a CPU for."""

    def fails(some: Sequence[str]) -> bool:
        checks = "".join(f' && __builtin_cpu_supports("{feature}")' for feature in some if feature not in no_cpu_check)
        program = f'extern "C" int fermt_probe() {{ return 1{checks}; }}\n'
        return attempt(compiler, [*flags, *feature_flags(some), "-c"], program) is not None

    return {feature for feature in features if fails([feature])} if features and fails(features) else set()


def described(compiler: Compiler) -> str:
    """The compiler's command and version, and whether that is an old one."""
    printed = subprocess.run(
        [*compiler.command, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, errors="replace"
    )
    macros = dict(re.findall(r"#define (__clang_major__|__GNUC__) (\d+)", printed.stdout))
    kind = "Clang" if "__clang_major__" in macros else "GCC"
    major = macros.get("__clang_major__") or macros.get("__GNUC__")
    name = f"'{shlex.join(compiler.command)}'"
    if major is None:
        return name
    old = f", older than {kind} {OLDEST[kind]}, the oldest known to work" if int(major) < OLDEST[kind] else ""
    return f"{name} ({kind} {major}{old})"


def say(text: str) -> None:
    print(f"fermt-kernels: {text}", flush=True)
