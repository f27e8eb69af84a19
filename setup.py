"""Compiles csrc/ into one shared library inside the package (see csrc/build_library.py); nothing else.

The library knows nothing of Python or torch (it is reached through ctypes), so one build serves every Python and
every torch, and building needs only a C++ compiler and ninja. FERMT_KERNELS_NO_CPP=1 leaves it out.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))

import build_library as native  # noqa: E402


class BuildLibrary(build_ext):
    """Builds the library; the result has no Python ABI tag, for it has no Python in it."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + Path(native.LIBRARY).suffix

    def build_extension(self, ext: Extension) -> None:
        try:
            native.install(Path(self.get_ext_fullpath(ext.name)).parent)
        except native.BuildError as error:
            raise SystemExit(f"fermt-kernels: {error} {native.GO_ON}") from error

    def copy_extensions_to_source(self) -> None:
        """What an editable install does with the library: beside the sources, where the header goes with it."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(ext.name)
            for name in (native.LIBRARY, native.HEADER):
                native.put(built.with_name(name), ROOT / native.PACKAGE / name)


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


without_library = os.environ.get("FERMT_KERNELS_NO_CPP", "") not in ("", "0")
setup(
    ext_modules=[] if without_library else [Extension("fermt_kernels.cpp.libfermt_kernels", sources=[])],
    cmdclass={"build_ext": BuildLibrary} | ({} if without_library else {"bdist_wheel": PlatformWheel}),
)
