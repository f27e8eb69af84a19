"""Compiles csrc/ with ninja into one shared library inside the package; nothing else.

The library knows nothing of Python or torch (it is reached through ctypes), so one build serves every Python and
every torch, and building needs only a C++ compiler and ninja. FERMT_KERNELS_NO_CPP=1 leaves it out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = "fermt_kernels.cpp.libfermt_kernels"
HEADER = "fermt.h"  # csrc/abi.h as C and C++ programs find it, beside the library
CXXFLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -ffp-contract=fast -fno-math-errno "
    "-Wall -Wextra -Icsrc"
)
# The C++ runtime goes inside and stays hidden: the library meets whatever torch brought with it.
LDFLAGS = "" if sys.platform == "darwin" else "-static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL"
AVX512_FLAGS = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512"
ISA_FLAGS = {  # one object each; a compiler for another architecture builds the generic row alone
    "generic": "",
    "avx2": "-mavx2 -mfma",
    "avx512": AVX512_FLAGS,
    "avx512_bf16": f"{AVX512_FLAGS} -mavx512bf16 -mavx512vnni",
}
GO_ON = "To install without the compiled kernels (slower, same results), set FERMT_KERNELS_NO_CPP=1 and try again."


def find_compiler() -> str:
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    for name in candidates:
        if shutil.which(name.split()[0]):
            return name
    raise SystemExit(
        f"fermt-kernels: no C++ compiler found (looked for {', '.join(candidates)}). Install one "
        f"(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install). {GO_ON}"
    )


def find_ninja() -> str:
    if shutil.which("ninja"):
        return "ninja"
    try:
        import ninja
    except ImportError:
        raise SystemExit(f"fermt-kernels: ninja not found. Install it (pip install ninja). {GO_ON}") from None
    return str(Path(ninja.BIN_DIR) / "ninja")


def isa_rows(compiler: str) -> dict[str, str]:
    """The instruction sets that the compiler's target can have, and their flags."""
    machine = subprocess.run([*compiler.split(), "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    return ISA_FLAGS if machine.startswith(("x86_64", "amd64")) else {"generic": ISA_FLAGS["generic"]}


def write_ninja_file(build_dir: Path, compiler: str) -> None:
    """One compile edge a source; the ISA sources get their own flags. Paths are relative to the project's root."""
    rows = isa_rows(compiler)
    sources = dict.fromkeys(sorted(ROOT.glob("csrc/*.cpp")), "")
    sources |= {ROOT / f"csrc/isa/{row}.cpp": flags for row, flags in rows.items()}
    defines = " ".join(f"-DFERMT_HAVE_{row.upper()}" for row in rows)
    lines = [
        f"builddir = {build_dir}",
        f"cxx = {compiler}",
        f"cxxflags = {CXXFLAGS} {defines}",
        "rule compile",
        "  command = $cxx $cxxflags $flags -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = $cxx -shared {LDFLAGS} $in -o $out",
    ]
    objects = []
    for source, flags in sources.items():
        objects.append(f"{build_dir}/{source.stem}.o".replace(" ", "$ "))
        lines += [f"build {objects[-1]}: compile {source.relative_to(ROOT)}", f"  flags = {flags}"]
    lines += [f"build {build_dir}/library: link {' '.join(objects)}", ""]
    (build_dir / "build.ninja").write_text("\n".join(lines))


class BuildLibrary(build_ext):
    """Runs ninja; the result has no Python ABI tag, for it has no Python in it."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + (".dylib" if sys.platform == "darwin" else ".so")

    def build_extension(self, ext: Extension) -> None:
        compiler, ninja = find_compiler(), find_ninja()
        build_dir = Path(self.build_temp).resolve()
        build_dir.mkdir(parents=True, exist_ok=True)
        write_ninja_file(build_dir, compiler)
        try:
            subprocess.run([ninja, "-C", str(ROOT), "-f", str(build_dir / "build.ninja")], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"fermt-kernels: '{compiler}' could not build csrc/ (see above); GCC 10 or Clang 12 is the oldest "
                f"that can. {GO_ON}"
            ) from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build_dir / "library", target.with_suffix(".part"))
        os.replace(target.with_suffix(".part"), target)
        shutil.copy(ROOT / "csrc" / "abi.h", target.with_name(HEADER))

    def copy_extensions_to_source(self) -> None:
        """What an editable install does with the library; the header goes with it."""
        super().copy_extensions_to_source()
        for ext in self.extensions:
            shutil.copy(ROOT / "csrc" / "abi.h", Path(self.get_ext_fullpath(ext.name)).with_name(HEADER))


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


without_library = os.environ.get("FERMT_KERNELS_NO_CPP", "") not in ("", "0")
setup(
    ext_modules=[] if without_library else [Extension(LIBRARY, sources=[])],
    cmdclass={"build_ext": BuildLibrary} | ({} if without_library else {"bdist_wheel": PlatformWheel}),
)
