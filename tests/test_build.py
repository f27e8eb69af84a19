"""Building and packaging: the sdist is complete, the wheel serves every Python, and the errors say what to do."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from .conftest import ARM_ROWS, ISA_ROWS, ROOT, X86_ROWS
from .support.errors import lacking, refused

pytest.importorskip("setuptools", reason="building needs setuptools")

SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.2, Debian's, has no filters
ODD_NAME = 'a folder\'s "odd" $name, größer & 100%'
GENERIC = {"FERMT_BUILD_ISAS": "generic"}  # the one row that every CPU has: a fifth of the whole build


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sources as an sdist holds them, unpacked in a folder of an odd name: no build product, no git."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    finished = python(code, ROOT)
    assert finished.returncode == 0, finished.stderr
    with tarfile.open(folder / finished.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder, **SAFELY)
    unpacked = next(path for path in folder.iterdir() if path.is_dir())
    return unpacked.rename(folder / ODD_NAME)


def build_wheel(tree: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(
        f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))", tree, **environment
    )


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tree, with the generic row alone."""
    out = tmp_path_factory.mktemp("wheel")
    finished = build_wheel(tree, out, **GENERIC)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "] compiling csrc/ops/linear.cpp for generic" in finished.stdout  # what `pip install -v` shows
    (built,) = out.glob("*.whl")
    return built


def test_the_sdist_builds_a_wheel_for_every_python(tree: Path, wheel: Path) -> None:
    assert not [path for path in tree.rglob("*.so") if path.relative_to(tree).parts[0] != "build"]
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("fermt_kernels/cpp/fermt.h") == (tree / "csrc" / "abi" / "fermt.h").read_bytes()
    assert any(name.startswith("fermt_kernels/cpp/libfermt_kernels.") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fermt", "fermt_kernels"}
    lists = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fermt/datasets/lists").glob("*.csv")}
    assert lists
    assert lists <= set(names)


def test_the_wheel_works_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site');"
        "import torch, fermt_kernels as fk; print(fk.__file__);"
        "print(fk.mixed_attention(torch.randn(1, 9, 96), 2, 4, backend='cpp').shape)"
    )
    finished = python(code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert str(tmp_path / "site") in finished.stdout
    assert "torch.Size([1, 9, 32])" in finished.stdout


def test_without_a_compiler_it_stops_and_says_how_to_go_on(tree: Path, tmp_path: Path) -> None:
    finished = build_wheel(tree, tmp_path, CXX="no-such-compiler")
    assert finished.returncode != 0
    for value in ("no-such-compiler", "apt install g++", "FERMT_KERNELS_NO_CPP=1"):
        assert value in finished.stderr


def test_without_the_library_on_request(tree: Path, tmp_path: Path) -> None:
    finished = build_wheel(tree, tmp_path, FERMT_KERNELS_NO_CPP="1", CXX="no-such-compiler")
    assert finished.returncode == 0, finished.stderr
    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        assert not any("libfermt_kernels" in name or name.endswith(".h") for name in archive.namelist())


# From here on a project of a few lines is built: what build_library.py does with it takes a second.


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """csrc/build_library.py of a project of three sources, in a folder of an odd name, with one row."""
    root = tmp_path / ODD_NAME
    for name, text in {
        "abi/fermt.h": "int fermt_answer();\n",
        "abi/abi.cpp": '#include "abi/fermt.h"\nextern "C" int answer() { return fermt_answer(); }\n',
        "ops/twice.h": "inline int twice(int x) { return 2 * x; }\n",
        "ops/answer.cpp": '#include "abi/fermt.h"\n#include "ops/twice.h"\nint fermt_answer() { return twice(21); }\n',
    }.items():
        path = root / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("build_library.py", "toolchain.py"):
        shutil.copy(ROOT / "csrc" / name, root / "csrc")
    monkeypatch.syspath_prepend(root / "csrc")
    spec = importlib.util.spec_from_file_location("small_build_library", root / "csrc" / "build_library.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for variable in ("CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "MAX_JOBS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("FERMT_BUILD_ISAS", "generic")
    try:
        module.find_compiler()
    except module.BuildError as error:
        pytest.skip(str(error))
    return module


@pytest.fixture
def wrapper(small: ModuleType, tmp_path: Path) -> Callable[[str], str]:
    """Makes a compiler of a shell script's lines before the real one's call."""

    def make(lines: str) -> str:
        path = tmp_path / "a compiler's wrapper"
        path.write_text(f'#!/bin/sh\n{lines}\nexec {shlex.join(small.find_compiler({}).command)} "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


def installed(small: ModuleType) -> Path:
    small.install(small.ROOT / small.PACKAGE)
    return small.ROOT / small.PACKAGE / small.LIBRARY


def ninja_file(small: ModuleType) -> str:
    (file,) = small.ROOT.glob("build/library/*/build.ninja")
    return file.read_text()


def compiled(output: str) -> list[str]:
    return [line.split()[2] for line in output.splitlines() if "] compiling " in line]


def test_the_rows_are_those_that_the_tests_know(small: ModuleType) -> None:
    assert tuple(small.ISAS) == ISA_ROWS


def test_an_edit_compiles_again_what_depends_on_it(small: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    library = installed(small)
    assert sorted(compiled(capfd.readouterr().out)) == ["csrc/abi/abi.cpp", "csrc/ops/answer.cpp"]
    assert {path.name for path in library.parent.iterdir()} == {library.name, "fermt.h"}
    (small.ROOT / "csrc/ops/twice.h").write_text("inline int twice(int x) { return x + x; }\n")
    installed(small)
    assert compiled(capfd.readouterr().out) == ["csrc/ops/answer.cpp"]
    installed(small)
    assert compiled(capfd.readouterr().out) == []


def test_a_failure_is_named_and_leaves_the_old_library(small: ModuleType) -> None:
    library = installed(small)
    before = library.read_bytes()
    (small.ROOT / "csrc/ops/twice.h").write_text("#error no such thing\n")
    with pytest.raises(small.BuildError) as raised:
        installed(small)
    assert "answer.o" in str(raised.value)
    assert "csrc/ops/twice.h:1:2: error:" in str(raised.value)
    assert "oldest" not in str(raised.value)
    assert library.read_bytes() == before
    assert {path.name for path in library.parent.iterdir()} == {library.name, "fermt.h"}


def test_flags_of_the_environment_are_used(small: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPPFLAGS", "-DFROM_CPPFLAGS='a b'")
    monkeypatch.setenv("CXXFLAGS", "-O1 -DFROM_CXXFLAGS")
    monkeypatch.setenv("LDFLAGS", "-L/from/ldflags")
    monkeypatch.setenv("MAX_JOBS", "1")
    (small.ROOT / "csrc/ops/twice.h").write_text(
        "#if !defined(FROM_CPPFLAGS) || !defined(FROM_CXXFLAGS)\n#error flags are missing\n#endif\n"
        "inline int twice(int x) { return 2 * x; }\n"
    )
    installed(small)
    edges = ninja_file(small)
    assert edges.index("-O3") < edges.index("-O1 -DFROM_CXXFLAGS")
    assert "-L/from/ldflags" in edges
    for variable, value, *values in (
        ("MAX_JOBS", "many", "'many'"),
        ("CXXFLAGS", "'-O2", "'-O2"),
        ("CXXFLAGS", "--no-such-flag", "--no-such-flag"),
        ("FERMT_BUILD_ISAS", "sse9", "sse9", "generic"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with refused(small.BuildError, *values):
                installed(small)


def test_without_a_static_runtime_the_shared_one_is_used(
    small: ModuleType,
    wrapper: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fedora = 'for a in "$@"; do [ "$a" = -static-libstdc++ ] && echo "cannot find -lstdc++" >&2 && exit 1; done'
    monkeypatch.setenv("CXX", wrapper(fedora))
    assert installed(small).exists()
    assert "no static C++ runtime here" in capfd.readouterr().out
    assert "-static-libstdc++" not in ninja_file(small)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("exit 1", "-dumpmachine"),
        ('[ "$1" = -dumpmachine ] || { echo broken >&2; exit 1; }', "broken"),
        (
            'case "$*" in *csrc/ops/*) echo "error: too hard" >&2; exit 1;; esac',
            "answer.o: error: too hard",
        ),
        ('case "$*" in *csrc/ops/*) echo "Killed signal" >&2; exit 1;; esac', "MAX_JOBS=1"),
    ],
)
def test_a_compiler_that_fails_is_named_with_its_reason(
    small: ModuleType, wrapper: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, lines: str, named: str
) -> None:
    monkeypatch.setenv("CXX", wrapper(lines))
    with refused(small.BuildError, named) as raised:
        installed(small)
    assert "a compiler'\"'\"'s wrapper" in str(raised.value)
    assert "oldest" not in str(raised.value)


def test_rows_that_the_compiler_does_not_know_are_left_out(
    small: ModuleType,
    wrapper: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    old = 'for a in "$@"; do [ "$a" = -mavxvnni ] && echo "error: unrecognized option -mavxvnni" >&2 && exit 1; done'
    monkeypatch.setenv("CXX", wrapper(old))
    compiler = small.find_compiler()
    if not small.is_x86(compiler.target):
        pytest.skip(f"{compiler.target} has one row")
    rows = {name: small.ISAS[name] for name in ("avx2_vnni", "avx2", "generic")}
    assert list(small.supported_isas(compiler, [], rows)) == ["avx2", "generic"]
    printed = capfd.readouterr().out
    assert lacking(printed, "avx2_vnni", "avxvnni") == []
    assert small.unsupported_features(compiler, [], ["avx2", "no_such_feature"]) == {"no_such_feature"}


def test_a_row_with_a_base_is_one_file(small: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERMT_BUILD_ISAS", "avx2_vnni")
    rows = small.chosen_isas("x86_64-linux-gnu")
    assert list(rows) == ["avx2_vnni", "avx2", "generic"]  # with its base
    monkeypatch.setattr(small, "sources", lambda folders: [f"csrc/{name}/int8.cpp" for name in folders])
    monkeypatch.setattr(small, "INT8_FILE", "no such file")
    names = [unit.name for unit in small.units("x86_64-linux-gnu", rows)]
    assert "avx2.int8" in names
    assert "avx2_vnni.int8" not in names
    assert "ROW(avx2_vnni, avx2, HAS(avx2) HAS(fma) HAS(avxvnni))" in small.rows_define(rows)


def test_each_architecture_has_its_rows(small: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERMT_BUILD_ISAS")
    for target, rows in (
        ("x86_64-linux-gnu", X86_ROWS),
        ("aarch64-linux-gnu", ARM_ROWS),
        ("arm64-apple-darwin23.6.0", ARM_ROWS),
        ("riscv64-linux-gnu", ()),
    ):
        assert tuple(small.chosen_isas(target)) == (*rows, "generic")


def test_each_row_is_compiled_for_its_features_alone(small: ModuleType) -> None:
    def flags(target: str, row: str) -> tuple[str, ...]:
        units = small.units(target, {row: small.ISAS[row]})
        return next(unit.flags for unit in units if unit.name == f"{row}.answer")[1:]

    assert flags("x86_64-linux-gnu", "generic") == ("-march=x86-64",)
    assert flags("x86_64-linux-gnu", "avx2") == ("-march=x86-64", "-mavx2", "-mfma")
    assert flags("aarch64-linux-gnu", "generic") == ("-march=armv8-a",)
    assert flags("aarch64-linux-gnu", "neon") == ("-march=armv8-a", "-march=armv8-a", "-DFERMT_NEON")
    assert flags("riscv64-linux-gnu", "generic") == ()
    assert small.feature_flags(small.ISAS["neon_i8mm"]) == [
        "-march=armv8.2-a+dotprod+i8mm",
        "-DFERMT_NEON",
        "-DFERMT_DOTPROD",
        "-DFERMT_I8MM",
    ]


def test_arm_rows_that_the_compiler_does_not_know_are_left_out(
    small: ModuleType, wrapper: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not asked of a CPU in the compiler's words, which those of ARM lack."""
    old = """
        [ "$1" = -dumpmachine ] && echo aarch64-linux-gnu && exit
        for a in "$@"; do
          shift
          case "$a" in
            *i8mm*) echo "error: invalid feature modifier i8mm" >&2; exit 1;;
            -march=armv8*) ;;
            *) set -- "$@" "$a";;
          esac
        done"""
    monkeypatch.setenv("CXX", wrapper(old))
    compiler = small.find_compiler()
    rows = small.possible_isas(compiler.target)
    assert list(small.supported_isas(compiler, [], rows)) == ["neon_dotprod", "neon", "generic"]
    assert "does not know i8mm; CPUs that have it use another row" in capfd.readouterr().out
    assert "ROW(neon_dotprod, neon, HAS(neon) HAS(dotprod))" in small.rows_define(rows)
