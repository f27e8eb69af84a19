"""Building and packaging: the sdist is complete, the wheel serves every Python, and the errors say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

pytest.importorskip("setuptools", reason="building needs setuptools")

SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.2, Debian's, has no filters


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sources as an sdist holds them, unpacked: no build product and no git at hand."""
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    finished = python(code, ROOT)
    assert finished.returncode == 0, finished.stderr
    with tarfile.open(folder / finished.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder, **SAFELY)
    return next(path for path in folder.iterdir() if path.is_dir())


def wheel(tree: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(
        f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))", tree, **environment
    )


def test_the_sdist_builds_a_wheel_for_every_python(tree: Path, tmp_path: Path) -> None:
    assert (tree / "csrc" / "isa" / "avx512.cpp").exists()
    assert not list(tree.rglob("*.so"))
    finished = wheel(tree, tmp_path)
    assert finished.returncode == 0, finished.stderr
    (built,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in built.name
    assert not built.name.endswith("-any.whl")
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        assert archive.read("fermt/evaluation/paper_tables.json")
        assert archive.read("fermt_kernels/cpp/fermt.h") == (tree / "csrc" / "abi.h").read_bytes()
    assert any(name.startswith("fermt_kernels/cpp/libfermt_kernels.") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fermt", "fermt_kernels"}
    lists = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fermt/evaluation/benchmarks/lists").glob("*.csv")}
    assert lists
    assert lists <= set(names)


def test_the_wheel_works_where_nothing_else_is(tree: Path, tmp_path: Path) -> None:
    assert wheel(tree, tmp_path).returncode == 0
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
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
    finished = wheel(tree, tmp_path, CXX="no-such-compiler")
    assert finished.returncode != 0
    assert "no C++ compiler found (looked for no-such-compiler)" in finished.stderr
    assert "apt install g++" in finished.stderr
    assert "set FERMT_KERNELS_NO_CPP=1 and try again" in finished.stderr


def test_a_compiler_that_fails_is_named(tree: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake-g++"
    fake.write_text('#!/bin/sh\n[ "$1" = -dumpmachine ] && echo x86_64-linux-gnu && exit 0\nexit 1\n')
    fake.chmod(0o755)
    finished = wheel(tree, tmp_path, CXX=str(fake))
    assert finished.returncode != 0
    assert "could not build csrc/" in finished.stderr
    assert "FERMT_KERNELS_NO_CPP=1" in finished.stderr


def test_without_the_library_on_request(tree: Path, tmp_path: Path) -> None:
    finished = wheel(tree, tmp_path, FERMT_KERNELS_NO_CPP="1", CXX="no-such-compiler")
    assert finished.returncode == 0, finished.stderr
    (built,) = tmp_path.glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(built) as archive:
        assert not any("libfermt_kernels" in name or name.endswith(".h") for name in archive.namelist())


def test_another_architecture_builds_the_generic_row_alone(tree: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['setup.py', '--version'];"
        "import runpy; from pathlib import Path;"
        "module = runpy.run_path('setup.py');"
        f"module['write_ninja_file'](Path({str(tmp_path)!r}), {str(tmp_path / 'arm-g++')!r})"
    )
    (tmp_path / "arm-g++").write_text("#!/bin/sh\necho aarch64-linux-gnu\n")
    (tmp_path / "arm-g++").chmod(0o755)
    finished = python(code, tree)
    assert finished.returncode == 0, finished.stderr
    edges = (tmp_path / "build.ninja").read_text()
    assert "csrc/isa/generic.cpp" in edges
    assert "avx" not in edges
